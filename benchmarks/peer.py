"""Handshakes at full speed: the engine's calls in a compiled loop, and a peer that answers each SYN cheaply.

The peer writes its SYN-ACK over a template: addresses and ports turned round, sequence numbers, timestamp, checksums.
It is outside the clock, as the network would be.

    begin      tcp_init_sock, tcp_v4_connect: port, tables, SYN, retransmission timer
    answer     the peer
    deliver    ip_rcv of each SYN-ACK: lookup, ESTABLISHED, timer off, ACK
"""

from __future__ import annotations

from time import thread_time_ns

from benchmarks.loops import Rows
from fourtuple.inet.hashtables import inet_hash_connect, inet_put_port, inet_unhash
from fourtuple.ip.input import ip_rcv
from fourtuple.ip.txqueue import tx_reset
from fourtuple.tcp.ipv4 import tcp_v4_connect
from fourtuple.tcp.net import Net, inet_csk_clear_xmit_timer, net_events, tcp_reset_xmit_timer
from fourtuple.tcp.sock import sk_free
from fourtuple.tcp.tcp import tcp_init_sock
from fourtuple.wire.buffer import PacketBuffer, get32, put16, put32

_M32 = 0xFFFFFFFF
_DPORT = 443
_SLOT = 64  # bytes of the ring for one packet
_SYNACK = 60
_ROUND_TRIP_US = 100
_RTO_US = 1_000_000
_ISN = 0x10203040
_TSVAL = 0x00500060
# What never changes: IP with DF and TTL 64, a window of 65,160, mss 1460, sackOK, TS, nop, wscale 7.
_TEMPLATE = bytes.fromhex(
    "4500 003c 0000 4000 4006 0000 00000000 00000000"  # IP
    "0000 0000 00000000 00000000 a012 fe88 0000 0000"  # TCP
    "0204 05b4 0402 080a 00000000 00000000 0103 0307"
)
# Checksum words of the TCP header and options in it, and of the pseudo header's protocol and length.
_TEMPLATE_SUM = sum(int.from_bytes(_TEMPLATE[i : i + 2], "big") for i in range(20, _SYNACK, 2)) + 6 + 40


class Peer:
    """The other end: answers on `dests` addresses from daddr on, `batch` connections in flight."""

    __slots__ = ("net", "rx", "daddr", "dests", "dev", "begun", "batch")

    def __init__(self, net: Net, daddr: int, dests: int, dev: int, batch: int) -> None:
        self.net = net
        self.daddr = daddr
        self.dests = dests
        self.dev = dev
        self.begun = 0
        self.batch = batch
        self.rx = PacketBuffer(_SLOT * batch)
        for i in range(batch):
            self.rx.write(_SLOT * i, _TEMPLATE)


def begin(peer: Peer, n: int) -> int:
    """Begin n connections, to the destinations in turn; how many SYNs there are to answer."""
    net = peer.net
    for i in range(n):
        sk = tcp_init_sock(net)
        if sk < 0:
            return i
        err = tcp_v4_connect(net, sk, peer.daddr + peer.begun % peer.dests, _DPORT)
        if err < 0:
            return i
        peer.begun += 1
    return n


def answer(peer: Peer) -> int:
    """Turn each SYN that waits to be sent into a SYN-ACK in the ring."""
    tx = peer.net.tx
    rx = peer.rx
    for i in range(tx.count):
        _synack(tx.buffer, tx.offsets[i], rx, i * _SLOT)
    return tx.count


def _synack(syn: PacketBuffer, at: int, rx: PacketBuffer, off: int) -> None:
    saddr = get32(syn, at + 12)
    daddr = get32(syn, at + 16)
    ports = get32(syn, at + 20)
    ack = (get32(syn, at + 24) + 1) & _M32
    tsecr = get32(syn, at + 48)
    put32(rx, off + 12, daddr)
    put32(rx, off + 16, saddr)
    put16(rx, off + 10, 0)
    put16(rx, off + 10, _fold(0x4500 + _SYNACK + 0x4000 + 0x4006 + _words(saddr) + _words(daddr)))
    put16(rx, off + 20, ports & 0xFFFF)
    put16(rx, off + 22, ports >> 16)
    put32(rx, off + 24, _ISN)
    put32(rx, off + 28, ack)
    put32(rx, off + 48, _TSVAL)
    put32(rx, off + 52, tsecr)
    total = _TEMPLATE_SUM + _words(saddr) + _words(daddr) + _words(ports) + _words(ack) + _words(tsecr)
    put16(rx, off + 36, _fold(total + _words(_ISN) + _words(_TSVAL)))


def _words(value: int) -> int:
    return (value >> 16) + (value & 0xFFFF)


def _fold(total: int) -> int:
    total = (total >> 16) + (total & 0xFFFF)
    total = (total >> 16) + (total & 0xFFFF)
    return total ^ 0xFFFF


def deliver(peer: Peer, n: int) -> int:
    """The n SYN-ACKs of the ring arrive; how many a protocol took."""
    taken = 0
    for i in range(n):
        taken += ip_rcv(peer.net, peer.rx, i * _SLOT, _SYNACK, peer.dev)
    return taken


def handshakes(peer: Peer, n: int) -> int:
    """n handshakes, `batch` in flight; CPU nanoseconds of the engine's part.  RuntimeError when one fails."""
    took = 0
    done = 0
    while done < n:
        size = min(peer.batch, n - done)
        peer.net.now_us += _ROUND_TRIP_US
        start = thread_time_ns()
        begun = begin(peer, size)
        took += thread_time_ns() - start
        if begun != size or answer(peer) != size:
            raise RuntimeError(f"only {begun} of {size} connections could be begun")
        start = thread_time_ns()
        tx_reset(peer.net.tx)
        taken = deliver(peer, size)
        took += thread_time_ns() - start
        if taken != size or peer.net.tx.count != size:
            raise RuntimeError(f"only {peer.net.tx.count} of {size} handshakes were completed")
        tx_reset(peer.net.tx)
        net_events(peer.net)
        done += size
    return took


def slowest_calls(peer: Peer, n: int) -> tuple[int, int, int, int]:
    """n handshakes, each call timed: (ns, number of connections before) of the slowest begin, of the slowest deliver.

    By the thread's CPU time, so that what other programs take does not count.
    """
    slow_begin = slow_deliver = begin_at = deliver_at = 0
    for i in range(n):
        start = thread_time_ns()
        begin(peer, 1)
        took = thread_time_ns() - start
        if took > slow_begin:
            slow_begin, begin_at = took, i
        answer(peer)
        tx_reset(peer.net.tx)
        start = thread_time_ns()
        deliver(peer, 1)
        took = thread_time_ns() - start
        if took > slow_deliver:
            slow_deliver, deliver_at = took, i
        tx_reset(peer.net.tx)
        net_events(peer.net)
    return slow_begin, begin_at, slow_deliver, deliver_at


def lives(net: Net, n: int, alive: int, saddr: int, daddr: int, dests: int) -> int:
    """n connections without a packet: row, port, tables, timer; each ends, its timer off, after `alive` others began.

    CPU nanoseconds.  RuntimeError when one finds no port.
    """
    rows = Rows(alive)
    start = thread_time_ns()
    for i in range(n):
        at = i % alive
        if i >= alive:
            _end(net, rows.sk[at])
        sk = tcp_init_sock(net)
        if sk < 0:
            raise RuntimeError("no row for another socket")
        rows.sk[at] = sk
        net.sks.saddr[sk] = saddr
        net.sks.daddr[sk] = daddr + i % dests
        net.sks.dport[sk] = _DPORT
        if inet_hash_connect(net.h, sk, net.now_us) < 0:
            raise RuntimeError("no port for another connection")
        tcp_reset_xmit_timer(net, sk, _RTO_US)
    return thread_time_ns() - start


def _end(net: Net, sk: int) -> int:
    inet_csk_clear_xmit_timer(net, sk)
    inet_unhash(net.h, sk)
    inet_put_port(net.h, sk)
    sk_free(net.sks, sk)
    return 0
