"""Data: sending, acknowledging, windows, loss (RFC 9293, 5681, 6298 as Linux does them)."""

from __future__ import annotations

import errno

import pytest

from fourtuple.inet.flags import KEEPOPEN, NODELAY
from fourtuple.tcp.info import tcp_poll, tcp_siocinq, tcp_siocoutq
from fourtuple.tcp.net import tcp_reset_keepalive_timer
from fourtuple.tcp.recvmsg import tcp_recvmsg
from fourtuple.tcp.sendmsg import tcp_sendmsg
from fourtuple.tcp.timer import net_next_timeout
from tests.tcp.harness import Packet, Peer, Wire

MS = 1000


def est(**kw: object) -> tuple[Wire, int, Peer]:
    w = Wire()
    sk, p = w.established(**kw)
    return w, sk, p


def send(w: Wire, sk: int, data: bytes) -> list[Packet]:
    assert tcp_sendmsg(w.net, sk, data) == len(data)
    return w.take()


# -- sending


def test_data_goes_out_in_segments_of_one_mss_the_last_one_pushes() -> None:
    w, sk, p = est()
    sent = send(w, sk, b"a" * 3000)
    assert [(q.flags, len(q.payload)) for q in sent] == [("A", 1448), ("A", 1448), ("PA", 104)]
    assert [q.seq - p.rcv for q in sent] == [0, 1448, 2896]
    assert tcp_siocoutq(w.net, sk) == 3000


def test_an_ack_ends_it_and_the_cold_state_is_gone() -> None:
    w, sk, p = est()
    p.ack_from(send(w, sk, b"hello")[0])
    w.advance(10 * MS)
    p.send("A")
    assert (w.net.cold, w.next_timer(), tcp_siocoutq(w.net, sk)) == ({}, -1, 0)


def test_a_burst_of_half_the_congestion_window_pushes() -> None:
    w, sk, _ = est()
    assert [q.flags for q in send(w, sk, b"x" * 30000)] == ["A", "A", "A", "A", "PA"] * 2


def test_small_segments_are_joined_when_sent_again() -> None:
    w, sk, _ = est(options=[("mss", 1000)])
    w.flag(sk, NODELAY)
    for text in (b"one", b"two", b"three"):
        send(w, sk, text)
    w.advance(200 * MS)
    assert w.expect("PA").payload == b"onetwothree"


def test_the_rest_of_a_segment_is_filled_up_when_sent_again() -> None:
    w, sk, p = est(options=[("mss", 1000)])
    send(w, sk, b"x" * 3000)
    p.send("A", ack=p.rcv + 700)
    w.advance(1000 * MS)
    assert {(q.seq - p.rcv, len(q.payload)) for q in w.take()} == {(700, 1000)}


def test_nagle_holds_the_second_small_segment_until_the_first_is_acknowledged() -> None:
    w, sk, p = est()
    p.ack_from(send(w, sk, b"one")[0])
    assert send(w, sk, b"two") == []
    assert send(w, sk, b"three") == []
    p.send("A")
    assert w.expect("PA").payload == b"twothree"


def test_tcp_nodelay_does_not_wait() -> None:
    w, sk, _ = est()
    w.flag(sk, NODELAY)
    assert [q.payload for q in send(w, sk, b"one") + send(w, sk, b"two")] == [b"one", b"two"]


def test_the_initial_window_is_ten_segments() -> None:
    w, sk, p = est()
    assert tcp_sendmsg(w.net, sk, b"x" * 14480 + b"y" * 5000) == 19480
    sent = w.take()
    assert len(sent) == 10
    for q in sent:
        p.ack_from(q)
    w.advance(20 * MS)
    p.send("A")
    assert w.sks.snd_cwnd[sk] == 20
    assert sum(len(q.payload) for q in w.take()) == 5000


def test_the_peers_window_is_filled_to_its_end_but_not_with_less_than_a_segment() -> None:
    w, sk, p = est(options=[("mss", 1000)])
    p.send("A", window=2500)
    sent = send(w, sk, b"x" * 5000)
    assert [(len(q.payload), q.flags) for q in sent] == [(1000, "A"), (1000, "A"), (500, "PA")]
    p.ack_from(sent[2])
    p.send("A", window=999)
    w.expect_nothing()


def test_a_full_send_buffer_is_eagain() -> None:
    w, sk, _ = est()
    taken = tcp_sendmsg(w.net, sk, b"x" * 1_000_000)
    assert taken == 87040
    assert tcp_sendmsg(w.net, sk, b"x") == -errno.EAGAIN
    assert not tcp_poll(w.net, sk) & 4


def test_send_before_connect_and_while_connecting() -> None:
    w = Wire()
    sk = w.socket()
    assert tcp_sendmsg(w.net, sk, b"x") == -errno.EPIPE
    w.connect(sk)
    assert tcp_sendmsg(w.net, sk, b"x") == -errno.EAGAIN


# -- receiving


def test_data_is_delivered_and_acknowledged_at_once_on_a_new_connection() -> None:
    w, sk, p = est()
    p.send("PA", b"hello")
    assert w.expect("A").ack == p.snd
    assert (tcp_poll(w.net, sk), tcp_siocinq(w.net, sk)) == (1 | 4, 5)
    assert tcp_recvmsg(w.net, sk, 3, 2) == b"hel"
    assert tcp_recvmsg(w.net, sk, 3, 0) == b"hel"
    assert tcp_recvmsg(w.net, sk, 100, 0) == b"lo"
    assert tcp_recvmsg(w.net, sk, 100, 0) == -errno.EAGAIN
    assert w.net.cold == {}


def test_after_an_answer_acks_wait_40_ms() -> None:
    w, sk, p = est()
    p.send("PA", b"request")
    w.take()
    p.ack_from(send(w, sk, b"answer")[0])
    w.advance(10 * MS)
    p.send("PA", b"again")
    w.expect_nothing()
    assert w.sks.timer_delack[sk]
    w.advance(40 * MS)
    assert w.expect("A").ack == p.snd
    assert w.mib("TcpExt.DelayedACKs") == 1


def test_a_hole_is_reported_by_sack_and_filled() -> None:
    w, sk, p = est()
    start = p.snd
    p.send("PA", b"cccc", seq=start + 8)
    a = w.expect("A")
    assert (a.ack, a.opt("sack")) == (start, ("sack", (start + 8, start + 12)))
    p.send("PA", b"eeee", seq=start + 16)
    assert w.expect("A").opt("sack") == ("sack", (start + 16, start + 20), (start + 8, start + 12))
    assert tcp_recvmsg(w.net, sk, 100, 0) == -errno.EAGAIN
    p.send("PA", b"aaaabbbb", seq=start)
    a = w.expect("A")
    assert (a.ack, a.opt("sack")) == (start + 12, ("sack", (start + 16, start + 20)))
    p.send("PA", b"dddd", seq=start + 12)
    assert w.expect("A").ack == start + 20
    assert tcp_recvmsg(w.net, sk, 100, 0) == b"aaaabbbbccccddddeeee"
    assert w.net.cold == {}


def test_overlapping_segments_leave_one_stream() -> None:
    w, sk, p = est()
    s = p.snd
    p.send("PA", b"cdef", seq=s + 2)
    p.send("PA", b"bcdefgh", seq=s + 1)
    p.send("PA", b"ghij", seq=s + 6)
    p.send("PA", b"abc", seq=s)
    assert tcp_recvmsg(w.net, sk, 100, 0) == b"abcdefghij"


def test_a_duplicate_is_acknowledged_at_once_with_dsack() -> None:
    w, _sk, p = est()
    p.send("PA", b"hello")
    w.take()
    p.send("PA", b"hello", seq=p.snd - 5)
    a = w.expect("A")
    assert (a.ack, a.opt("sack")) == (p.snd, ("sack", (p.snd - 5, p.snd)))


def test_the_window_closes_when_nobody_reads_and_opens_again() -> None:
    w, sk, p = est()
    last = None
    for _ in range(80):
        p.send("A", b"z" * 1448)
        for q in w.take():
            last = q
            p.ack_from(q)
    assert last is not None
    assert last.window << 10 < 65536 // 4
    got = 0
    while isinstance(data := tcp_recvmsg(w.net, sk, 65536, 0), bytes):
        got += len(data)
    assert got > 50_000
    assert w.take()[-1].window << 10 > 30_000


def test_the_buffer_grows_for_a_fast_reader() -> None:
    w, sk, p = est()
    for _ in range(30):
        for _ in range(40):
            p.send("A", b"z" * 1448)
        w.advance(10 * MS)
        while isinstance(tcp_recvmsg(w.net, sk, 1 << 20, 0), bytes):
            pass
    assert w.sks.rcvbuf[sk] > 131072
    assert max(q.window for q in w.take()) << 10 > 65536


# -- loss


def test_a_lost_segment_is_probed_then_sent_again_by_the_timer_with_backoff() -> None:
    w, sk, p = est()
    rto = w.sks.rto[sk]
    assert rto == 200 * MS
    q = send(w, sk, b"hello")[0]
    w.advance(200 * MS)
    probe = w.expect("PA")
    assert (probe.seq, probe.payload, w.mib("TcpExt.TCPLossProbes")) == (q.seq, b"hello", 1)
    assert w.next_timer() == 200 * MS
    w.advance(200 * MS)
    assert w.expect("PA").seq == q.seq
    assert (w.next_timer(), w.sks.snd_cwnd[sk]) == (400 * MS, 1)
    p.ack_from(q)
    p.send("A")
    assert (w.next_timer(), w.sks.retransmits[sk]) == (-1, 0)


def test_without_sack_there_is_no_probe() -> None:
    w, sk, _p = est(options=[("mss", 1000)])
    send(w, sk, b"hello")
    w.advance(200 * MS)
    w.expect("PA")
    assert (w.mib("TcpExt.TCPTimeouts"), w.next_timer()) == (1, 400 * MS)


def test_an_established_connection_dies_once_15_retries_would_have_taken_as_long() -> None:
    w, sk, _ = est(options=[("mss", 1000)])
    send(w, sk, b"hello")
    start = w.now
    while w.state(sk) == "ESTABLISHED":
        w.advance(w.next_timer())
    # 924.6 s count from the first retransmission at 0.2 s, so one more fits (the live kernel does the same).
    assert (w.sks.err[sk], len(w.take()), w.now - start) == (errno.ETIMEDOUT, 16, 1_044_600 * MS)


@pytest.mark.parametrize(
    ("options", "times"),
    [
        ([("mss", 1000)], [200, 600, 1400, 3000, 6200]),
        (None, [200, 400, 800, 1600, 3200, 6400]),  # the first one is a loss probe
    ],
)
def test_retransmissions_with_tcp_retries2_3_as_the_kernel_does_them(options: object, times: list[int]) -> None:
    w = Wire(tcp_retries2=3)
    sk, _ = w.established(options=options)
    send(w, sk, b"hello")
    start = w.now
    while w.state(sk) == "ESTABLISHED":
        w.advance(w.next_timer())
    assert [(q.time_us - start) // MS for q in w.take()] + [(w.now - start) // MS] == times


def test_three_segments_sacked_beyond_a_hole_mean_loss() -> None:
    w, sk, p = est()
    sent = send(w, sk, b"x" * 1448 * 6)
    una = p.rcv
    for n in (2, 3):
        p.send("A", ack=una, options=[("sack", (una + 1448, una + 1448 * n))])
        w.expect_nothing()
    p.send("A", ack=una, options=[("sack", (una + 1448, una + 1448 * 4))])
    again = w.take()
    assert [q.seq for q in again] == [sent[0].seq]
    assert (w.sks.ssthresh[sk], w.mib("TcpExt.TCPSackRecovery")) == (5, 1)
    # the oldest segment was sent again: a full timeout for it, and no probe of the tail before that
    assert net_next_timeout(w.net) == w.net.now_us + w.sks.rto[sk]
    p.rcv = una + 1448 * 6
    p.send("A")
    assert (w.net.cold, w.sks.snd_cwnd[sk]) == ({}, 5)


def test_three_duplicate_acks_without_sack() -> None:
    w, sk, p = est(options=[("mss", 1000)])
    p.send("A")  # the first one after the SYN-ACK updates the window
    sent = send(w, sk, b"x" * 6000)
    for _ in range(2):
        p.send("A")
        w.expect_nothing()
    p.send("A")
    assert [q.seq for q in w.take()] == [sent[0].seq]
    p.rcv += 6000
    p.send("A")
    assert (w.net.cold, w.mib("TcpExt.TCPRenoRecovery")) == ({}, 1)


def test_karn_no_sample_from_a_retransmitted_segment() -> None:
    w, sk, p = est(options=[("mss", 1000)])
    srtt = w.sks.srtt[sk]
    p.ack_from(send(w, sk, b"hello")[0])
    w.advance(250 * MS)
    w.take()
    p.send("A")
    assert w.sks.srtt[sk] == srtt


def test_round_trip_times_move_the_timeout() -> None:
    w, sk, p = est(options=[("mss", 1000)])
    p.ack_from(send(w, sk, b"a")[0])
    w.advance(80 * MS)
    p.send("A")
    assert (w.sks.srtt[sk] >> 3, w.sks.rto[sk]) == (10_000, 210 * MS)


# -- window probes, keepalive


def test_a_zero_window_is_probed_with_doubling() -> None:
    w, sk, p = est()
    p.send("A", window=0)
    assert send(w, sk, b"hello") == []
    gaps = []
    for _ in range(4):
        gaps.append(w.next_timer())
        w.advance(w.next_timer())
        q = w.expect("A")
        assert (q.seq, q.payload) == ((p.rcv - 1) & 0xFFFFFFFF, b"")
    assert gaps == [200 * MS, 400 * MS, 800 * MS, 1600 * MS]
    p.send("A")
    assert w.expect("PA").payload == b"hello"


def test_a_window_smaller_than_the_data_is_filled_by_the_probe() -> None:
    w, sk, p = est(options=[("mss", 1000)])
    p.send("A", window=300)
    assert send(w, sk, b"x" * 900) == []
    w.advance(200 * MS)
    assert len(w.expect("PA").payload) == 300


def test_keepalive_probes_then_resets() -> None:
    w = Wire(tcp_keepalive_time=10, tcp_keepalive_intvl=2, tcp_keepalive_probes=3)
    sk = w.socket()
    w.flag(sk, KEEPOPEN)
    _, p = w.established(sk)
    w.advance(10_000 * MS)
    assert w.expect("A").seq == (p.rcv - 1) & 0xFFFFFFFF
    p.send("A")
    w.advance(8_000 * MS)
    w.expect_nothing()
    w.advance(2_000 * MS + 4_000 * MS)
    assert [q.flags for q in w.take()] == ["A"] * 3
    w.advance(2_000 * MS)
    w.expect("RA")
    assert (w.state(sk), w.sks.err[sk]) == ("CLOSE", errno.ETIMEDOUT)


def test_keepalive_switched_on_later_counts_from_the_last_traffic() -> None:
    w = Wire(tcp_keepalive_time=10)
    sk, _ = w.established()
    w.flag(sk, KEEPOPEN)
    tcp_reset_keepalive_timer(w.net, sk, 1000)
    w.advance(9_999 * MS)
    w.expect_nothing()
    w.advance(1 * MS)
    w.expect("A")


# -- attacks


def test_a_reset_must_be_exact() -> None:
    w, sk, p = est()
    p.raw("R", p.snd + 1, 0)
    w.expect("A")
    assert w.state(sk) == "ESTABLISHED"
    p.raw("R", p.snd, 0)
    assert (w.state(sk), w.sks.err[sk]) == ("CLOSE", errno.ECONNRESET)


def test_challenge_acks_are_limited_to_two_a_second() -> None:
    w, _, p = est()
    for _ in range(5):
        p.raw("R", p.snd + 1, 0)
    w.expect("A")
    assert w.mib("TcpExt.TCPACKSkippedChallenge") == 4
    w.advance(500 * MS)
    p.raw("R", p.snd + 1, 0)
    w.expect("A")


def test_an_old_timestamp_is_rejected_by_paws() -> None:
    w, sk, p = est()
    p.send("PA", b"one")
    w.take()
    p.tsval -= 100
    p.send("PA", b"two")
    assert w.expect("A").ack == p.snd - 3
    assert w.mib("TcpExt.PAWSEstab") == 1
    assert tcp_siocinq(w.net, sk) == 3


@pytest.mark.parametrize("seq", [-70000, 100000])
def test_data_out_of_the_window_is_answered_and_not_kept(seq: int) -> None:
    w, sk, p = est()
    p.send("PA", b"x", seq=p.snd + seq)
    w.expect("A")
    assert tcp_siocinq(w.net, sk) == 0


def test_an_ack_of_data_never_sent_is_not_used() -> None:
    w, sk, p = est()
    p.send("PA", b"x", ack=p.rcv + 1000)
    assert tcp_siocinq(w.net, sk) == 0
