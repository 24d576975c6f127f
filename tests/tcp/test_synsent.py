"""What the peer may answer to a SYN (catalogue RSP, OBS-03)."""

from __future__ import annotations

import errno

import pytest

from fourtuple.inet.flags import PINGPONG
from fourtuple.tcp.info import tcp_get_info, tcp_poll
from fourtuple.tcp.net import net_events
from fourtuple.tcp.sendmsg import net_pending_write, tcp_sendmsg
from tests.tcp.harness import PEER, PEER_OPTIONS, Peer, Wire

S = 1_000_000


def syn_sent(**sysctls: object) -> tuple[Wire, int, Peer]:
    w = Wire(**sysctls)
    sk = w.connect()
    return w, sk, Peer(w, w.expect("S"))


def test_a_syn_ack_is_acknowledged_and_the_connection_established() -> None:
    w, sk, p = syn_sent()
    p.synack()
    a = w.expect("A")
    assert (a.seq, a.ack, a.kinds()) == (p.syn.seq + 1, p.iss + 1, ["nop", "nop", "ts"])
    assert a.opt("ts")[2] == p.tsval
    assert a.window == 63
    assert (w.state(sk), tcp_poll(w.net, sk)) == ("ESTABLISHED", 4)
    assert net_events(w.net) == [(sk, 1 | 4)]
    assert w.next_timer() == -1
    assert w.net.cold == {}


@pytest.mark.parametrize(("flags", "ack"), [("SA", 0), ("SA", 2), ("A", 0x10000)])
def test_an_unacceptable_ack_is_reset_and_the_syn_sent_again_at_once(flags: str, ack: int) -> None:
    w, sk, p = syn_sent()
    p.raw(flags, p.iss, p.syn.seq + ack)
    r = w.expect("R")
    assert r.seq == (p.syn.seq + ack) & 0xFFFFFFFF
    assert (r.ident, r.df, r.window, r.options) == (0, True, 0, [])
    w.advance(2000)
    w.expect("S")
    assert w.state(sk) == "SYN_SENT"


def test_the_immediate_syn_comes_only_before_the_first_retransmission() -> None:
    w, _, p = syn_sent()
    w.advance(S)
    w.expect("S")
    p.raw("SA", p.iss, p.syn.seq)
    w.expect("R")
    w.advance(150_000)
    w.expect_nothing()


@pytest.mark.parametrize(("flags", "ack"), [("A", 1), ("R", 1), ("F", 0), ("P", 0)])
def test_segments_without_meaning_here_are_dropped(flags: str, ack: int) -> None:
    w, sk, p = syn_sent()
    p.raw(flags, p.iss, p.syn.seq + ack)
    w.advance(150_000)
    w.expect_nothing()
    assert w.state(sk) == "SYN_SENT"


@pytest.mark.parametrize("flags", ["RA", "SRA"])
def test_a_reset_with_a_good_ack_refuses_silently(flags: str) -> None:
    w, sk, p = syn_sent()
    p.raw(flags, 0, p.rcv)
    w.expect_nothing()
    assert (w.state(sk), w.sks.err[sk], w.sks.shutdown[sk]) == ("CLOSE", errno.ECONNREFUSED, 3)
    assert w.sks.num[sk] == 0 and w.sks.sport[sk] == p.syn.sport
    assert tcp_poll(w.net, sk) == 1 | 4 | 8 | 16 | 0x2000
    assert [w.mib(n) for n in ("Tcp.ActiveOpens", "Tcp.AttemptFails", "Tcp.OutSegs")] == [1, 1, 1]


def test_a_reset_with_a_bad_ack_only_hastens_the_next_syn() -> None:
    w, sk, p = syn_sent()
    p.raw("RA", 0, p.syn.seq + 5)
    w.expect_nothing()
    w.advance(2000)
    w.expect("S")
    assert w.state(sk) == "SYN_SENT"


def test_fin_and_data_in_the_syn_ack_are_left_to_be_sent_again() -> None:
    w, sk, p = syn_sent()
    p.synack("SFA", payload=b"hello")
    assert w.expect("A").ack == p.iss + 1
    assert w.state(sk) == "ESTABLISHED"
    p.send("PA", b"hello")
    assert w.expect("A").ack == p.iss + 6


@pytest.mark.parametrize(
    ("options", "bits", "scales", "mss"),
    [
        ([], 0, (0, 0), 536),
        ([("mss", 1460)], 0, (0, 0), 1460),
        (PEER_OPTIONS, 7, (7, 10), 1448),
        ([("mss", 1460), ("nop",), ("ws", 15)], 4, (14, 10), 1460),
        ([("mss", 10)], 0, (0, 0), 48),
        ([("mss", 0)], 0, (0, 0), 536),
        ([("mss", 1000)], 0, (0, 0), 1000),
    ],
)
def test_options_of_the_syn_ack(
    options: list[tuple[object, ...]], bits: int, scales: tuple[int, int], mss: int
) -> None:
    w, sk, p = syn_sent()
    p.synack(options=options)
    a = w.expect("A")
    info = tcp_get_info(w.net, sk)
    assert len(info) == 280
    assert (info[5] & 7, (info[6] & 15, info[6] >> 4), int.from_bytes(info[16:20], "little")) == (bits, scales, mss)
    assert int.from_bytes(info[228:232], "little") == 65535
    assert a.kinds() == (["nop", "nop", "ts"] if bits & 1 else [])


def test_options_that_were_not_offered_are_ignored() -> None:
    w, sk, p = syn_sent(tcp_timestamps=0, tcp_sack=0, tcp_window_scaling=0)
    p.synack()
    assert w.expect("A").options == []
    assert (w.sks.optbits[sk], w.sks.wscales[sk]) == (0, 0)


def test_a_zero_window_still_connects() -> None:
    w, sk, p = syn_sent()
    p.synack(window=0)
    w.expect("A")
    assert (w.state(sk), w.sks.snd_wnd[sk]) == ("ESTABLISHED", 0)


def test_an_echo_that_was_never_sent_is_reset() -> None:
    w, sk, p = syn_sent()
    p.ecr += 100_000
    p.synack()
    w.expect("R")
    w.advance(150_000)
    w.expect_nothing()
    assert (w.state(sk), w.mib("TcpExt.PAWSActive")) == ("SYN_SENT", 1)
    p.ecr = 0
    p.synack()
    w.expect("A")


def test_a_bad_checksum_is_counted_and_changes_nothing() -> None:
    w, sk, p = syn_sent()
    p.synack(badsum=True)
    w.expect_nothing()
    assert (w.state(sk), w.mib("Tcp.InCsumErrors"), w.mib("Tcp.InErrs")) == ("SYN_SENT", 1, 1)


@pytest.mark.parametrize("other", [{"sport": 81}, {"src": PEER + 7}])
def test_a_syn_ack_from_elsewhere_is_reset(other: dict[str, int]) -> None:
    w, sk, p = syn_sent()
    p.synack(**other)
    w.expect("R")
    assert w.state(sk) == "SYN_SENT"


def test_a_duplicate_syn_ack_gets_a_challenge_ack() -> None:
    w = Wire()
    sk, p = w.established()
    p.synack()
    w.expect("A")
    assert (w.state(sk), w.mib("TcpExt.TCPChallengeACK"), w.mib("TcpExt.TCPSYNChallenge")) == ("ESTABLISHED", 1, 1)


def test_simultaneous_open() -> None:
    w, sk, p = syn_sent()
    p.raw("S", p.iss, 0, p.fill(p.options))
    a = w.expect("SA")
    assert (a.seq, a.ack, a.window) == (p.syn.seq, p.iss + 1, 64240)
    assert a.kinds() == ["mss", "sackOK", "ts", "nop", "ws"]
    assert (w.state(sk), tcp_poll(w.net, sk)) == ("SYN_RECV", 0)
    p.snd += 1
    p.send("A")
    w.expect_nothing()
    assert (w.state(sk), w.next_timer()) == ("ESTABLISHED", -1)
    assert w.sks.snd_wnd[sk] == 65535 << 7


def test_simultaneous_open_completed_by_a_syn_ack() -> None:
    w, sk, p = syn_sent()
    p.raw("S", p.iss, 0, p.fill(p.options))
    w.expect("SA")
    p.raw("SA", p.iss, p.rcv, p.fill(p.options))
    w.expect("A")
    assert w.state(sk) == "ESTABLISHED"


def test_a_reset_in_syn_recv_is_econnreset() -> None:
    w, sk, p = syn_sent()
    p.raw("S", p.iss, 0, p.fill(p.options))
    w.expect("SA")
    p.raw("RA", p.iss + 1, p.rcv)
    assert (w.state(sk), w.sks.err[sk]) == ("CLOSE", errno.ECONNRESET)


@pytest.mark.parametrize(("flags", "ecn"), [("SA", 0), ("SAE", 8), ("SAEW", 8)])
def test_ecn_is_on_when_the_answer_has_ece(flags: str, ecn: int) -> None:
    w = Wire(tcp_ecn=1)
    sk = w.connect()
    p = Peer(w, w.expect("SEW"))
    p.synack(flags)
    w.take()
    assert w.sks.optbits[sk] & 8 == ecn


def test_ece_without_having_asked_means_nothing() -> None:
    w, sk, p = syn_sent()
    p.synack("SAE")
    w.take()
    assert w.sks.optbits[sk] & 8 == 0


@pytest.mark.parametrize(("losses", "cwnd"), [(0, 10), (1, 10), (2, 1)])
def test_more_than_one_lost_syn_costs_the_window(losses: int, cwnd: int) -> None:
    w, sk, p = syn_sent()
    for _ in range(losses):
        w.advance(S)
        p.ack_from(w.expect("S"))
    p.synack()
    w.expect("A")
    assert w.sks.snd_cwnd[sk] == cwnd


def test_an_answer_to_the_first_syn_shows_that_the_second_was_needless() -> None:
    w, sk, p = syn_sent()
    w.advance(2 * S)
    assert len(w.take()) == 2
    p.synack()
    w.expect("A")
    assert (w.sks.total_retrans[sk], w.sks.snd_cwnd[sk]) == (2, 10)


def test_quickack_0_before_connect_delays_the_ack() -> None:
    w, sk, p = syn_sent()
    w.flag(sk, PINGPONG)
    p.synack()
    w.expect_nothing()
    assert (w.state(sk), w.next_timer()) == ("ESTABLISHED", 200_000)
    w.advance(200_000)
    w.expect("A")


def test_data_that_waits_carries_the_ack() -> None:
    w, sk, p = syn_sent()
    net_pending_write(w.net, sk, 1)
    p.synack()
    w.expect_nothing()
    net_pending_write(w.net, sk, -1)
    assert tcp_sendmsg(w.net, sk, b"hi") == 2
    assert w.expect("PA").payload == b"hi"


def test_ip_minttl_filters_the_answer() -> None:
    w = Wire()
    sk = w.socket()
    w.option(sk, min_ttl=100)
    w.connect(sk)
    p = Peer(w, w.expect("S"))
    p.synack()
    assert (w.state(sk), w.mib("TcpExt.TCPMinTTLDrop")) == ("SYN_SENT", 1)
    p.synack(ttl=200)
    assert w.state(sk) == "ESTABLISHED"


def test_the_round_trip_time_is_that_of_the_handshake() -> None:
    w, sk, p = syn_sent()
    w.advance(30_123)
    p.synack()
    assert (w.sks.srtt[sk] >> 3, w.sks.mdev[sk], w.sks.rto[sk]) == (30_123, 60_246, 231_000)


def test_without_a_sample_the_timeout_is_three_seconds() -> None:
    w, sk, p = syn_sent(tcp_timestamps=0)
    w.advance(S)
    p.synack(options=[("mss", 1460)])
    assert (w.sks.srtt[sk], w.sks.rto[sk]) == (0, 3 * S)


@pytest.mark.parametrize("cut", [1, 19, 20, 30, 39, 45])
def test_truncated_packets_change_nothing(cut: int) -> None:
    w, sk, p = syn_sent()
    raw = w.segment("SA", 80, p.syn.sport, p.iss, p.rcv, options=PEER_OPTIONS)
    w.inject(raw[:cut])
    w.expect_nothing()
    assert w.state(sk) == "SYN_SENT"
