"""The end of a connection: close, shutdown, disconnect, TIME_WAIT (catalogue ST-09..33, TW)."""

from __future__ import annotations

import errno

import pytest

from fourtuple.inet.flags import LINGER, REUSE
from fourtuple.tcp.close import tcp_close, tcp_shutdown
from fourtuple.tcp.info import tcp_poll
from fourtuple.tcp.ipv4 import tcp_v4_connect
from fourtuple.tcp.recvmsg import tcp_recvmsg
from fourtuple.tcp.sendmsg import tcp_sendmsg
from fourtuple.tcp.tcp import tcp_disconnect
from tests.tcp.harness import PEER, Peer, Wire

S = 1_000_000
PEER2 = PEER + 2


def closing(**sysctls: object) -> tuple[Wire, int, Peer]:
    """Our FIN is out: FIN_WAIT1, an orphan."""
    w = Wire(ip_local_port_range="40000 40000", **sysctls)
    sk, p = w.established()
    tcp_close(w.net, sk, 0)
    p.ack_from(w.expect("FA"))
    return w, sk, p


def time_wait(w: Wire, sk: int = 0, **kw: object) -> Peer:
    _, p = w.established(sk, **kw)
    row = next(r for r in range(1, 100) if w.state(r) == "ESTABLISHED")
    tcp_close(w.net, row, 0)
    p.ack_from(w.expect("FA"))
    p.send("FA")
    w.expect("A")
    assert w.state(row) == "gone"
    return p


def try_connect(w: Wire, daddr: int = PEER, sk: int = 0) -> int:
    return tcp_v4_connect(w.net, sk or w.socket(), daddr, 80)


# -- close


def test_close_fin_ack_fin_ack_time_wait_60_seconds() -> None:
    w, sk, p = closing(tcp_tw_reuse=0)
    assert w.state(sk) == "FIN_WAIT1"
    p.send("A")
    assert (w.state(sk), w.h.tw.substate[1]) == ("gone", 5)
    p.send("FA")
    a = w.expect("A")
    assert (a.ack, a.ident, a.df) == (p.snd, 0, True)
    assert (w.h.tw.substate[1], w.next_timer()) == (6, 60 * S)
    assert try_connect(w) == -errno.EADDRNOTAVAIL
    w.advance(60 * S)
    assert (w.h.tw.used, w.mib("TcpExt.TW")) == (0, 1)
    assert try_connect(w) == 0


def test_simultaneous_close_goes_through_closing() -> None:
    w, sk, p = closing()
    p.send("FA", ack=p.rcv - 1)
    w.expect("A")
    assert w.state(sk) == "CLOSING"
    p.send("A")
    assert (w.state(sk), w.h.tw.substate[1]) == ("gone", 6)


def test_the_peer_closes_first_last_ack_leaves_nothing() -> None:
    w = Wire()
    sk, p = w.established()
    p.send("FA")
    w.advance(40_000)
    w.expect("A")
    assert (w.state(sk), tcp_poll(w.net, sk)) == ("CLOSE_WAIT", 1 | 4 | 0x2000)
    assert tcp_recvmsg(w.net, sk, 10, 0) == b""
    tcp_close(w.net, sk, 0)
    p.ack_from(w.expect("FA"))
    assert w.state(sk) == "LAST_ACK"
    p.send("A")
    assert (w.state(sk), w.h.tw.used, w.next_timer(), w.sks.used) == ("gone", 0, -1, 0)


def test_an_unanswered_fin_is_sent_again_and_given_up_after_eight_tries() -> None:
    w, sk, _ = closing()
    start = w.now
    while w.state(sk) != "gone":
        w.advance(w.next_timer())
    assert {q.flags for q in w.take()} == {"FA"}
    assert 60 * S < w.now - start < 300 * S
    assert w.sks.used == 0


def test_close_with_unread_data_resets() -> None:
    w = Wire()
    sk, p = w.established()
    p.send("PA", b"x")
    w.take()
    tcp_close(w.net, sk, 0)
    w.expect("RA")
    assert (w.state(sk), w.mib("TcpExt.TCPAbortOnClose"), w.net.cold) == ("gone", 1, {})


def test_linger_0_resets_and_frees_the_port() -> None:
    w = Wire(ip_local_port_range="40000 40000")
    sk, _ = w.established()
    w.flag(sk, LINGER)
    tcp_close(w.net, sk, 0)
    w.expect("RA")
    assert try_connect(w) == 0


@pytest.mark.parametrize("linger", [0, LINGER])
def test_close_in_syn_sent_is_silent_and_a_late_answer_is_reset(linger: int) -> None:
    w = Wire()
    sk = w.socket()
    w.flag(sk, linger)
    w.connect(sk)
    p = Peer(w, w.expect("S"))
    tcp_close(w.net, sk, 0)
    w.advance(2 * S)
    w.expect_nothing()
    p.synack()
    assert w.expect("R").seq == p.rcv


def test_close_in_syn_recv_sends_fin_and_both_are_acknowledged() -> None:
    w = Wire()
    sk = w.connect()
    p = Peer(w, w.expect("S"))
    p.raw("S", p.iss, 0, p.fill(p.options))
    w.expect("SA")
    p.snd += 1
    tcp_close(w.net, sk, 0)
    fin = w.expect("FA")
    assert (fin.seq, w.state(sk)) == (p.rcv, "FIN_WAIT1")
    w.advance(S)
    assert w.take()[0].flags in ("SA", "FA")
    p.rcv += 1
    p.send("A")
    assert w.h.tw.substate[1] == 5


def test_data_then_close_the_fin_rides_on_the_last_segment() -> None:
    w = Wire()
    sk, p = w.established()
    p.send("A", window=0)
    assert tcp_sendmsg(w.net, sk, b"bye") == 3
    tcp_close(w.net, sk, 0)
    w.expect_nothing()
    p.send("A")
    q = w.expect("FPA")
    assert q.payload == b"bye"
    p.ack_from(q)
    p.send("A")
    assert w.state(sk) == "gone"


def test_data_for_an_orphan_is_reset() -> None:
    w, sk, p = closing()
    p.send("PA", b"late")
    w.expect("R")
    assert w.state(sk) == "gone"


def test_fin_wait2_of_an_orphan_ends_after_tcp_fin_timeout() -> None:
    w, sk, p = closing(tcp_fin_timeout=5)
    p.send("A")
    assert (w.state(sk), w.next_timer()) == ("gone", 5 * S)
    p.send("PA", b"x")
    w.expect("R")
    assert w.h.tw.used == 0


def test_a_bare_ack_behind_a_lost_fin_of_the_peer_is_no_data() -> None:
    w, sk, p = closing()
    p.send("A", seq=(p.snd + 1) & 0xFFFFFFFF)  # the peer's FIN before it was lost on the way
    w.expect_nothing()
    assert (w.state(sk), w.h.tw.used) == ("gone", 1)
    p.send("FA")
    w.expect("A")
    assert w.h.tw.substate[1] == 6  # TIME_WAIT


def test_fin_wait2_longer_than_60_s_keeps_the_socket_first() -> None:
    w, sk, p = closing(tcp_fin_timeout=100)
    p.send("A")
    assert (w.state(sk), w.next_timer()) == ("FIN_WAIT2", 40 * S)
    w.advance(40 * S)
    assert (w.state(sk), w.h.tw.substate[1], w.next_timer()) == ("gone", 5, 40 * S)


def test_shutdown_half_closes() -> None:
    w = Wire()
    sk, p = w.established()
    w.sks.shutdown[sk] |= 2
    tcp_shutdown(w.net, sk, 2)
    p.ack_from(w.expect("FA"))
    p.send("A")
    assert w.state(sk) == "FIN_WAIT2"
    p.send("PA", b"still")
    w.expect("A")
    assert tcp_recvmsg(w.net, sk, 10, 0) == b"still"
    p.send("FA")
    w.expect("A")
    assert (w.state(sk), w.h.tw.substate[1], tcp_recvmsg(w.net, sk, 10, 0)) == ("CLOSE", 6, b"")


# -- disconnect


def test_a_second_attempt_begins_at_isn_plus_3() -> None:
    w = Wire()
    sk = w.connect()
    first = w.expect("S")
    tcp_disconnect(w.net, sk)
    w.expect_nothing()
    assert (w.state(sk), w.sks.err[sk], w.sks.saddr[sk], w.sks.dport[sk]) == ("CLOSE", errno.ECONNRESET, 0, 0)
    w.connect(sk)
    assert w.expect("S").seq == (first.seq + 3) & 0xFFFFFFFF


def test_after_an_established_connection_it_begins_beyond_the_window() -> None:
    w = Wire()
    sk, p = w.established()
    p.send("A", window=100)
    tcp_disconnect(w.net, sk)
    w.expect("RA")
    w.connect(sk)
    assert w.expect("S").seq == (p.rcv + 65535 + 2) & 0xFFFFFFFF


def test_an_explicit_bind_stays() -> None:
    w = Wire()
    sk = w.socket()
    w.sks.saddr[sk] = 0x0A090001
    w.sks.userlocks[sk] = 4 | 8
    from fourtuple.inet.connection_sock import inet_csk_get_port

    assert inet_csk_get_port(w.h, sk, 5000) == 0
    w.sks.sport[sk] = 5000
    w.connect(sk)
    w.expect("S")
    tcp_disconnect(w.net, sk)
    assert (w.sks.saddr[sk], w.sks.num[sk]) == (0x0A090001, 5000)


# -- failed connects


def test_no_port_left_leaves_the_socket_as_it_was() -> None:
    w = Wire(ip_local_port_range="40000 40000")
    w.connect()
    sk = w.socket()
    assert try_connect(w, sk=sk) == -errno.EADDRNOTAVAIL
    assert (w.state(sk), w.sks.saddr[sk], w.sks.sport[sk], w.sks.dport[sk], w.sks.err[sk]) == ("CLOSE", 0, 0, 0, 0)
    assert (w.mib("Tcp.ActiveOpens"), w.mib("Tcp.AttemptFails")) == (1, 0)


@pytest.mark.parametrize("daddr", [0xE0000001, 0xFFFFFFFF, 0x0A0900FF])
def test_multicast_and_broadcast_are_unreachable(daddr: int) -> None:
    assert try_connect(Wire(), daddr) == -errno.ENETUNREACH


def test_no_route_is_counted() -> None:
    w = Wire()
    assert try_connect(w, 0x0A070001) == -errno.ENETUNREACH
    assert w.mib("Ip.OutNoRoutes") == 1


# -- TIME_WAIT


def test_time_wait_reuse_after_the_delay_goes_on_beyond_the_old_sequence() -> None:
    w = Wire(ip_local_port_range="40000 40000", tcp_tw_reuse=1)
    p = time_wait(w)
    w.advance(S // 5)
    assert try_connect(w) == -errno.EADDRNOTAVAIL
    w.advance(S)
    assert try_connect(w) == 0
    syn = w.expect("S")
    assert (syn.sport, syn.seq - p.rcv & 0xFFFFFFFF, syn.opt("ts")[2]) == (40000, 65537, p.tsval)
    assert (w.mib("TcpExt.TWRecycled"), w.h.tw.used) == (1, 0)


def test_another_destination_is_no_reuse() -> None:
    w = Wire(ip_local_port_range="40000 40000")
    time_wait(w)
    assert try_connect(w, PEER2) == 0


def test_without_timestamps_there_is_no_reuse() -> None:
    w = Wire(ip_local_port_range="40000 40000", tcp_tw_reuse=1)
    time_wait(w, options=[("mss", 1460)])
    w.advance(2 * S)
    assert try_connect(w) == -errno.EADDRNOTAVAIL


def test_no_buckets_no_time_wait() -> None:
    w = Wire(ip_local_port_range="40000 40000", tcp_max_tw_buckets=0)
    w.established()
    tcp_close(w.net, 1, 0)
    p = w.expect("FA")
    w.inject(w.segment("FA", 80, p.sport, 0x1001, p.seq + 1, options=[("nop",), ("nop",), ("ts", 9000, 0)]))
    w.take()
    assert (w.mib("TcpExt.TCPTimeWaitOverflow"), w.h.tw.used, try_connect(w)) == (1, 0, 0)


def test_a_repeated_fin_is_acknowledged_again_and_starts_the_60_s_anew() -> None:
    w = Wire()
    p = time_wait(w)
    w.advance(10 * S)
    p.send("FA", seq=p.snd - 1)
    assert w.expect("A").ack == p.snd
    assert w.next_timer() == 60 * S


@pytest.mark.parametrize(("rfc1337", "left"), [(0, 0), (1, 1)])
def test_a_reset_ends_time_wait_unless_rfc1337(rfc1337: int, left: int) -> None:
    w = Wire(tcp_rfc1337=rfc1337)
    p = time_wait(w)
    p.raw("R", p.snd, 0)
    w.expect_nothing()
    assert w.h.tw.used == left


def test_bind_with_reuseaddr_takes_over_at_once() -> None:
    from fourtuple.inet.connection_sock import inet_csk_get_port

    w = Wire(tcp_tw_reuse=0)

    def bound() -> int:
        sk = w.socket()
        w.flag(sk, REUSE)
        w.sks.saddr[sk], w.sks.userlocks[sk] = 0x0A090001, 4 | 8
        assert inet_csk_get_port(w.h, sk, 5000) == 0
        w.sks.sport[sk] = 5000
        return sk

    p = time_wait(w, bound())
    w.connect(bound())
    assert (w.expect("S").seq - p.rcv) & 0xFFFFFFFF == 65537
