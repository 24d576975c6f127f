"""Listening, over the wire and over loopback; self-connect; malformed packets."""

from __future__ import annotations

import errno
import struct

from hypothesis import given
from hypothesis import strategies as st

from fourtuple.inet.connection_sock import inet_csk_get_port
from fourtuple.ip.input import net_run_loopback
from fourtuple.tcp.close import tcp_close
from fourtuple.tcp.info import tcp_poll
from fourtuple.tcp.ipv4 import tcp_v4_connect
from fourtuple.tcp.listen import inet_csk_accept, inet_csk_listen_start
from fourtuple.tcp.recvmsg import tcp_recvmsg
from fourtuple.tcp.sendmsg import tcp_sendmsg
from tests.tcp.harness import HOST, LOOPBACK, M32, PEER, PEER_OPTIONS, Wire, checksum

S = 1_000_000


def listener(w: Wire, port: int = 7000, backlog: int = 16, saddr: int = 0) -> int:
    sk = w.socket()
    w.sks.saddr[sk] = saddr
    w.sks.userlocks[sk] = 8
    assert inet_csk_get_port(w.h, sk, port) == 0
    assert inet_csk_listen_start(w.net, sk, backlog) == 0
    return sk


def syn(w: Wire, sport: int = 4000, seq: int = 100, **kw: object) -> None:
    options = [("ts", 77, 0) if o[0] == "ts" else o for o in PEER_OPTIONS]
    w.inject(w.segment("S", sport, 7000, seq, options=options, **kw))  # type: ignore[arg-type]


def ack(w: Wire, answer: object, sport: int = 4000, seq: int = 101, flags: str = "A", payload: bytes = b"") -> None:
    ts = [("nop",), ("nop",), ("ts", 78, answer.opt("ts")[1])]  # type: ignore[attr-defined]
    w.inject(w.segment(flags, sport, 7000, seq, answer.seq + 1, options=ts, payload=payload))  # type: ignore[attr-defined]


def test_a_passive_open() -> None:
    w = Wire()
    sk = listener(w)
    syn(w)
    a = w.expect("SA")
    assert (a.ack, a.window, a.kinds(), a.ident) == (101, 65160, ["mss", "sackOK", "ts", "nop", "ws"], 0)
    ack(w, a, flags="PA", payload=b"hi")
    w.expect("A")
    assert tcp_poll(w.net, sk) == 1
    child = inet_csk_accept(w.net, sk)
    assert (w.state(child), tcp_recvmsg(w.net, child, 10, 0)) == ("ESTABLISHED", b"hi")
    assert inet_csk_accept(w.net, sk) == -errno.EAGAIN
    assert (w.mib("Tcp.PassiveOpens"), w.net.requests, w.next_timer()) == (1, {}, -1)


def test_a_syn_ack_is_sent_again_five_times() -> None:
    w = Wire()
    listener(w)
    syn(w)
    first = w.expect("SA")
    w.advance(200 * S)
    assert [(q.time_us - first.time_us) // S for q in w.take()] == [1, 3, 7, 15, 31]
    assert w.net.requests == {}


def test_a_repeated_syn_is_answered_again() -> None:
    w = Wire()
    listener(w)
    syn(w)
    a = w.expect("SA")
    syn(w)
    assert w.expect("SA").seq == a.seq


def test_a_wrong_ack_is_reset_a_reset_drops_the_request() -> None:
    w = Wire()
    listener(w)
    w.inject(w.segment("A", 4000, 7000, 1, 1))
    w.expect("R")
    syn(w)
    a = w.expect("SA")
    w.inject(w.segment("A", 4000, 7000, 101, a.seq + 7))
    assert w.expect("R").seq == a.seq + 7
    w.inject(w.segment("R", 4000, 7000, 101))
    assert (w.net.requests, w.mib("TcpExt.EmbryonicRsts")) == ({}, 1)


def test_a_full_accept_queue_drops_syns() -> None:
    w = Wire()
    listener(w, backlog=1)
    for n in range(2):
        syn(w, 4000 + n)
        ack(w, w.expect("SA"), 4000 + n)
    syn(w, 4002)
    w.expect_nothing()
    assert (w.mib("TcpExt.ListenOverflows"), w.mib("TcpExt.ListenDrops")) == (1, 1)


def test_closing_a_listener_resets_who_was_not_accepted() -> None:
    w = Wire()
    sk = listener(w)
    syn(w)
    ack(w, w.expect("SA"))
    tcp_close(w.net, sk, 0)
    w.expect("RA")
    assert (w.sks.used, w.net.cold) == (0, {})
    syn(w, 4001)
    w.expect("RA")


def test_loopback_both_ends_here() -> None:
    w = Wire()
    server = listener(w, saddr=LOOPBACK)
    sk = w.socket()
    assert tcp_v4_connect(w.net, sk, LOOPBACK, 7000) == 0
    assert w.state(sk) == "SYN_SENT"
    net_run_loopback(w.net)
    assert w.state(sk) == "ESTABLISHED"
    child = inet_csk_accept(w.net, server)
    assert tcp_sendmsg(w.net, sk, b"ping" * 20000) == 80000
    net_run_loopback(w.net)
    got = tcp_recvmsg(w.net, child, 1 << 20, 0)
    assert isinstance(got, bytes)
    while len(got) < 80000:
        net_run_loopback(w.net)
        w.advance(S)
        more = tcp_recvmsg(w.net, child, 1 << 20, 0)
        assert isinstance(more, bytes)
        got += more
    assert got == b"ping" * 20000
    tcp_close(w.net, child, 0)
    net_run_loopback(w.net)
    assert w.state(sk) == "CLOSE_WAIT"
    tcp_close(w.net, sk, 0)
    net_run_loopback(w.net)
    w.advance(S)
    assert (w.state(sk), w.h.tw.used) == ("gone", 1)
    w.expect_nothing()


def test_a_closed_loopback_port_refuses() -> None:
    w = Wire()
    sk = w.socket()
    assert tcp_v4_connect(w.net, sk, LOOPBACK, 9) == 0
    net_run_loopback(w.net)
    assert (w.state(sk), w.sks.err[sk]) == ("CLOSE", errno.ECONNREFUSED)


def test_a_socket_can_connect_to_itself() -> None:
    w = Wire(ip_local_port_range="40000 40000")
    sk = w.socket()
    assert tcp_v4_connect(w.net, sk, LOOPBACK, 40000) == 0
    net_run_loopback(w.net)
    assert w.state(sk) == "ESTABLISHED"
    assert tcp_sendmsg(w.net, sk, b"hi") == 2
    net_run_loopback(w.net)
    assert tcp_recvmsg(w.net, sk, 10, 0) == b"hi"


@given(st.data())
def test_whatever_arrives_nothing_raises(data: st.DataObject) -> None:
    w = Wire()
    listener(w)
    sk, p = w.established()
    syn_sent = w.connect(dport=81)
    port = w.take()[0].sport
    segments = data.draw(st.lists(st.tuples(
        st.sampled_from(["conn", "syn", "listen", "junk", "icmp"]), st.integers(0, 255), st.integers(-3, 70000),
        st.integers(-3, 3), st.binary(max_size=40), st.binary(max_size=30),
    ), max_size=12))  # fmt: skip
    for kind, bits, dseq, dack, options, payload in segments:
        options += b"\1" * (-len(options) % 4)
        sport, dport, seq, a = {
            "conn": (80, p.syn.sport, p.snd + dseq, p.rcv + dack),
            "syn": (81, port, dseq, w.sks.snd_nxt[syn_sent] + dack),
        }.get(kind, (4000, 7000, dseq, dack))  # fmt: skip
        if kind == "junk":
            w.inject(bytes([0x45]) + options + payload)
        elif kind == "icmp":
            w.inject(w.ip(1, bytes([3, bits & 15, 0, 0]) + options + payload))
        else:
            numbers = (sport, dport, seq & M32, a & M32, (20 + len(options)) // 4 << 4, bits, 500, 0, 0)
            body = struct.pack("!HHIIBBHHH", *numbers) + options + payload
            total = checksum(struct.pack("!IIBBH", PEER, HOST, 0, 6, len(body)) + body)
            w.inject(w.ip(6, body[:16] + struct.pack("!H", total) + body[18:]))
        w.advance(data.draw(st.sampled_from([0, 1000, 300_000])))
    w.advance(400 * S)
    w.take()
    assert w.state(sk) != "SYN_SENT"
