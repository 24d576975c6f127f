"""IP input (net/ipv4/ip_input.c): is it a good packet, is it for us, which protocol takes it.

What does not live here: fragments are counted and dropped, nothing is forwarded, no ICMP error is ever sent.
A bad packet changes nothing but a counter, and no function here raises.
"""

from __future__ import annotations

from collections.abc import Sequence

from fourtuple.ip.netns import IpNet, ip_is_local, net_refresh
from fourtuple.ip.txqueue import tx_reset
from fourtuple.kernel_map import FN_IP_RCV
from fourtuple.trace import trace
from fourtuple.wire.buffer import PacketBuffer
from fourtuple.wire.ipv4 import BAD_CHECKSUM, TRUNCATED, parse_ipv4

_TRUNCATED = TRUNCATED
_BAD_CHECKSUM = BAD_CHECKSUM
_LOOPBACK_IFINDEX = 1
_FEW = 8


class _Batch:
    """Where packets are, by typed views: they take half a microsecond to make and save 50 ns a packet."""

    __slots__ = ("lengths", "offsets")

    def __init__(self, offsets: Sequence[int], lengths: Sequence[int]) -> None:
        self.offsets = offsets
        self.lengths = lengths


def ip_rcv(net: IpNet, b: PacketBuffer, off: int, length: int, dev: int) -> int:
    """A packet arrived on device `dev` at `net.now_us`: 1 if a protocol took it, else 0."""
    net_refresh(net)
    net.rx_dev = dev
    net.mib.IpInReceives += 1
    h = net.rx_ip
    reason = parse_ipv4(b, off, length, h)
    if reason != 0:
        _count_bad_header(net, reason)
        return 0
    if net.tracer is not None:
        trace(net.tracer, FN_IP_RCV, 0, h.total_len, h.saddr, h.proto, h.ident)
    if not ip_is_local(net, h.daddr, h.saddr, dev):
        net.mib.IpInAddrErrors += 1
        return 0
    if h.mf or h.frag_off:
        net.mib.IpReasmReqds += 1
        net.mib.IpReasmFails += 1
        return 0
    return ip_local_deliver(net, b, off, dev)


def ip_list_rcv(net: IpNet, b: PacketBuffer, offsets: Sequence[int], lengths: Sequence[int], n: int, dev: int) -> int:
    """`n` packets arrived together; how many of them a protocol took."""
    if n >= _FEW:
        return _list_rcv(net, b, _Batch(offsets, lengths), n, dev)
    taken = 0
    for i in range(n):
        taken += ip_rcv(net, b, offsets[i], lengths[i], dev)
    return taken


def _list_rcv(net: IpNet, b: PacketBuffer, batch: _Batch, n: int, dev: int) -> int:
    taken = 0
    for i in range(n):
        taken += ip_rcv(net, b, batch.offsets[i], batch.lengths[i], dev)
    return taken


def _count_bad_header(net: IpNet, reason: int) -> None:
    if reason == _TRUNCATED:
        net.mib.IpInTruncatedPkts += 1
    else:
        net.mib.IpInHdrErrors += 1


def ip_local_deliver(net: IpNet, b: PacketBuffer, off: int, dev: int) -> int:
    """Hand the packet of net.rx_ip to its protocol (kernel: ip_protocol_deliver_rcu)."""
    proto = net.protocols.get(net.rx_ip.proto)
    if proto is None:
        net.mib.IpInUnknownProtos += 1
        return 0
    net.mib.IpInDelivers += 1
    proto.handler(net, b, off + net.rx_ip.header_len, net.rx_ip.total_len - net.rx_ip.header_len, dev)
    return 1


def net_run_loopback(net: IpNet) -> int:
    """Deliver what this host sent to itself, replies included, in order; how many packets.

    A packet may add others behind it; the arena may move then, the bytes of this one stay where `b` points.
    """
    i = 0
    while i < net.loopback.count:
        b = net.loopback.buffer
        ip_rcv(net, b, net.loopback.offsets[i], net.loopback.lengths[i], _LOOPBACK_IFINDEX)
        i += 1
    if i:
        tx_reset(net.loopback)
    return i
