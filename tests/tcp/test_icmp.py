"""ICMP errors (catalogue ICMP)."""

from __future__ import annotations

import errno
import struct

import pytest

from fourtuple.inet.flags import RECVERR
from fourtuple.tcp.info import errqueue_pop, tcp_poll
from fourtuple.tcp.sendmsg import tcp_sendmsg
from fourtuple.tcp.tcp import tcp_disconnect
from tests.tcp.harness import PEER, Packet, Peer, Wire, checksum

UNREACH = {
    0: errno.ENETUNREACH, 1: errno.EHOSTUNREACH, 2: errno.ENOPROTOOPT, 3: errno.ECONNREFUSED, 5: errno.EOPNOTSUPP,
    6: errno.ENETUNREACH, 7: errno.EHOSTDOWN, 8: errno.ENONET, 9: errno.ENETUNREACH, 10: errno.EHOSTUNREACH,
    11: errno.ENETUNREACH, 12: errno.EHOSTUNREACH, 13: errno.EHOSTUNREACH, 14: errno.EHOSTUNREACH,
    15: errno.EHOSTUNREACH,
}  # fmt: skip


def syn_sent() -> tuple[Wire, int, Packet]:
    w = Wire()
    sk = w.connect()
    return w, sk, w.expect("S")


@pytest.mark.parametrize(
    ("icmp_type", "code", "error"),
    [(3, c, e) for c, e in UNREACH.items()]
    + [(11, 0, errno.EHOSTUNREACH), (11, 1, 0), (12, 0, errno.EPROTO), (4, 0, 0), (5, 1, 0), (3, 16, 0), (0, 0, 0)],
)
def test_what_a_message_does_to_a_connection_attempt(icmp_type: int, code: int, error: int) -> None:
    w, sk, syn = syn_sent()
    w.icmp(syn, icmp_type, code)
    w.expect_nothing()
    assert (w.sks.err[sk], w.state(sk)) == (error, "CLOSE" if error else "SYN_SENT")


def test_fragmentation_needed_makes_the_next_syn_offer_less() -> None:
    w, sk, syn = syn_sent()
    w.icmp(syn, 3, 4, info=1400)
    w.expect_nothing()
    assert w.state(sk) == "SYN_SENT"
    w.advance(1_000_000)
    assert w.expect("S").opt("mss") == ("mss", 1360)


@pytest.mark.parametrize(("delta", "error", "counted"), [(-1, 0, 1), (2, 0, 1), (1, errno.EHOSTUNREACH, 0)])
def test_the_quoted_sequence_number_must_be_in_flight(delta: int, error: int, counted: int) -> None:
    w, sk, syn = syn_sent()
    w.icmp(syn, 3, 1, seq=syn.seq + delta)
    assert (w.sks.err[sk], w.mib("TcpExt.OutOfWindowIcmps")) == (error, counted)


def test_a_message_about_nobody_is_counted() -> None:
    w, sk, syn = syn_sent()
    w.icmp(syn, 3, 1, dport=81)
    assert (w.state(sk), w.mib("Icmp.InErrors")) == ("SYN_SENT", 1)


def test_the_error_is_queued_with_its_sender() -> None:
    w, sk, syn = syn_sent()
    w.flag(sk, RECVERR)
    w.icmp(syn, 3, 1)
    entry = errqueue_pop(w.net, sk)
    assert entry is not None
    assert (entry["errno"], entry["origin"], entry["type"], entry["code"]) == (errno.EHOSTUNREACH, 2, 3, 1)
    assert (entry["offender"], entry["addr"]) == (0x0A090009, (PEER, 80))
    assert errqueue_pop(w.net, sk) is None


def test_poll_shows_the_error_until_it_is_read_and_the_queue_is_empty() -> None:
    w, sk, syn = syn_sent()
    w.icmp(syn, 3, 1)
    assert tcp_poll(w.net, sk) == 1 | 4 | 8 | 16 | 0x2000
    w.sks.err[sk] = 0
    assert tcp_poll(w.net, sk) & 8
    errqueue_pop(w.net, sk)
    assert tcp_poll(w.net, sk) == 1 | 4 | 16 | 0x2000


@pytest.mark.parametrize(("size", "state"), [(8, "CLOSE"), (7, "SYN_SENT"), (4, "SYN_SENT"), (0, "SYN_SENT")])
def test_eight_bytes_of_the_segment_are_enough(size: int, state: str) -> None:
    w, sk, syn = syn_sent()
    w.icmp(syn, 3, 1, size=size)
    assert w.state(sk) == state


def test_a_bad_checksum_is_ignored() -> None:
    w, sk, syn = syn_sent()
    w.icmp(syn, 3, 1, badsum=0x1111)
    assert (w.state(sk), w.mib("Icmp.InCsumErrors"), w.mib("Icmp.InErrors")) == ("SYN_SENT", 1, 1)


def test_once_established_the_error_is_soft() -> None:
    w = Wire()
    sk, p = w.established()
    w.icmp(p.syn, 3, 1, seq=p.syn.seq + 1)
    assert (w.sks.err[sk], w.sks.err_soft[sk], w.state(sk)) == (0, errno.EHOSTUNREACH, "ESTABLISHED")
    w.flag(sk, RECVERR)
    w.icmp(p.syn, 3, 1, seq=p.syn.seq + 1)
    assert w.sks.err[sk] == errno.EHOSTUNREACH


def test_in_syn_recv_it_is_fatal() -> None:
    w, sk, syn = syn_sent()
    p = Peer(w, syn)
    p.raw("S", p.iss, 0, p.fill(p.options))
    w.expect("SA")
    w.icmp(syn, 3, 1)
    assert w.sks.err[sk] == errno.EHOSTUNREACH


def test_a_smaller_path_mtu_sends_what_is_in_flight_again_in_smaller_pieces() -> None:
    w = Wire()
    sk, _p = w.established()
    assert tcp_sendmsg(w.net, sk, b"x" * 2896) == 2896
    first, second = w.take()
    assert (len(first.payload), len(second.payload), second.flags) == (1448, 1448, "PA")
    w.icmp(first, 3, 4, info=1400)
    sizes = [len(q.payload) for q in w.take()]
    assert sizes[0] == 1348
    assert w.sks.mss_cache[sk] == 1348


def test_a_disconnected_socket_ignores_messages_about_its_past() -> None:
    w, sk, syn = syn_sent()
    tcp_disconnect(w.net, sk)
    w.icmp(syn, 3, 1)
    assert (w.sks.err[sk], w.mib("Icmp.InErrors")) == (errno.ECONNRESET, 1)


def test_a_ping_is_answered() -> None:
    w = Wire()
    body = struct.pack("!BBHHH", 8, 0, 0, 7, 1) + b"abc"
    w.inject(w.ip(1, body[:2] + struct.pack("!H", checksum(body)) + body[4:]))
    (p,) = w.take()
    assert (p.dst, p.raw[20], checksum(p.raw[20:]), p.raw[24:]) == (PEER, 0, 0, body[4:])
