"""Retransmission of the SYN and the end of it (catalogue RTX, OBS-02, OBS-04), to the microsecond."""

from __future__ import annotations

import errno
import itertools

import pytest

from tests.tcp.harness import Peer, Wire

S = 1_000_000


def schedule(w: Wire, sk: int, seconds: float) -> tuple[list[float], float | None]:
    """Gaps between SYNs in s, and how long after the first one the attempt failed."""
    start = w.now
    times = [p.time_us for p in w.take()]
    failed = None
    while w.now - start < seconds * S:
        step = w.next_timer()
        if step < 0:
            break
        w.advance(step)
        if w.state(sk) == "CLOSE" and failed is None:
            failed = (w.now - start) / S
    times += [p.time_us for p in w.take()]
    return [(b - a) / S for a, b in itertools.pairwise(times)], failed


@pytest.mark.parametrize(
    ("sysctls", "options", "gaps", "failed"),
    [
        ({}, {}, [1, 1, 1, 1, 1, 2, 4, 8, 16, 32], 131),
        ({"tcp_syn_linear_timeouts": 0}, {}, [1, 2, 4, 8, 16, 32], 127),
        ({"tcp_syn_linear_timeouts": 0, "tcp_syn_retries": 1}, {}, [1], 3),
        ({"tcp_syn_linear_timeouts": 0, "tcp_syn_retries": 2}, {}, [1, 2], 7),
        ({"tcp_syn_retries": 1}, {}, [1, 1], 3),
        ({"tcp_syn_retries": 2}, {}, [1, 1, 1, 1, 1], 7),
        ({"tcp_syn_retries": 2, "tcp_syn_linear_timeouts": 1}, {}, [1, 1, 2], 8),
        ({"tcp_syn_linear_timeouts": 0}, {"syn_retries": 1}, [1], 3),
        ({}, {"user_timeout_ms": 2500}, [1, 1], 2.5),
        ({}, {"user_timeout_ms": 500}, [1], 1.001),
        ({"tcp_rto_max_ms": 1000, "tcp_syn_linear_timeouts": 0, "tcp_syn_retries": 3}, {}, [1, 1, 1], 4),
        ({"tcp_syn_linear_timeouts": 0, "tcp_syn_retries": 3}, {"rto_max_ms": 2000}, [1, 2, 2], 7),
    ],
)
def test_the_schedule_of_syns(
    sysctls: dict[str, int], options: dict[str, int], gaps: list[float], failed: float
) -> None:
    w = Wire(**sysctls)
    sk = w.socket()
    if options:
        w.option(sk, **options)
    w.connect(sk)
    assert schedule(w, sk, 200) == (gaps, failed)
    assert w.sks.err[sk] == errno.ETIMEDOUT
    assert w.next_timer() == -1
    w.expect_nothing()


def test_rto_min_does_not_change_the_initial_timeout() -> None:
    w = Wire(tcp_rto_min_us=20000, tcp_syn_linear_timeouts=0)
    sk = w.connect()
    assert schedule(w, sk, 2.9)[0] == [1, 2]


def test_a_soft_error_is_reported_in_place_of_etimedout() -> None:
    w = Wire(tcp_syn_retries=1)
    sk = w.connect()
    w.sks.err_soft[sk] = errno.EHOSTUNREACH
    schedule(w, sk, 10)
    assert w.sks.err[sk] == errno.EHOSTUNREACH


def info(w: Wire, sk: int) -> tuple[int, ...]:
    s = w.sks
    return s.retransmits[sk], s.backoff[sk], s.rto[sk], s.total_retrans[sk], s.total_rto[sk]


def test_the_linear_phase_has_no_backoff() -> None:
    w = Wire()
    sk = w.connect()
    w.advance(S)
    assert info(w, sk) == (1, 0, S, 1, 1)
    w.set("tcp_syn_linear_timeouts", 0)
    sk = w.connect()
    w.advance(S)
    assert info(w, sk) == (1, 1, 2 * S, 1, 1)


def test_counters_of_a_timed_out_attempt() -> None:
    w = Wire(tcp_syn_linear_timeouts=0, tcp_syn_retries=1)
    w.connect()
    w.advance(10 * S)
    names = ("Tcp.ActiveOpens", "Tcp.AttemptFails", "Tcp.OutSegs", "Tcp.RetransSegs", "TcpExt.TCPSynRetrans")
    assert [w.mib(n) for n in names] == [1, 1, 1, 1, 1]
    assert (w.mib("TcpExt.TCPTimeouts"), w.mib("TcpExt.TCPAbortOnTimeout"), w.mib("Tcp.OutRsts")) == (2, 1, 0)


def test_timers_run_at_their_own_time_however_late() -> None:
    w = Wire()
    w.connect()
    first = w.take()[0].time_us
    w.advance(5 * S)
    assert [p.time_us - first for p in w.take()] == [S, 2 * S, 3 * S, 4 * S, 5 * S]


def test_an_unanswered_simultaneous_open_doubles_at_once() -> None:
    w = Wire(tcp_syn_retries=1)
    sk = w.connect()
    p = Peer(w, w.expect("S"))
    p.raw("S", p.iss, 0, p.fill(p.options))
    w.expect("SA")
    w.advance(S)
    w.expect("SA")
    assert w.next_timer() == 2 * S
    w.advance(2 * S)
    w.expect_nothing()
    assert (w.state(sk), w.sks.err[sk]) == ("CLOSE", errno.ETIMEDOUT)
