"""ICMP input (net/ipv4/icmp.c): which messages count, and to which protocol the quoted packet belongs.

Lives here: icmp_rcv, the table of types, icmp_unreach, the conversion of codes to errno.  Not here: what a socket makes
of an error (tcp/ipv4.tcp_v4_err, reached through NetProtocol.err_handler).  Echo requests are answered.
"""

from __future__ import annotations

import errno

from fourtuple.ip.netns import IpNet
from fourtuple.ip.protocol import NetProtocol
from fourtuple.ip.txqueue import tx_commit, tx_reserve
from fourtuple.kernel_map import FN_ICMP_RCV, FN_IP_QUEUE_XMIT
from fourtuple.trace import trace
from fourtuple.wire.buffer import PacketBuffer, get16
from fourtuple.wire.checksum import fold, ones_sum
from fourtuple.wire.icmp import (
    ICMP_DEST_UNREACH,
    ICMP_ECHO,
    ICMP_ECHOREPLY,
    ICMP_EXC_FRAGTIME,
    ICMP_FRAG_NEEDED,
    ICMP_PARAMETERPROB,
    ICMP_REDIRECT,
    ICMP_SOURCE_QUENCH,
    ICMP_TIME_EXCEEDED,
    parse_icmp,
)
from fourtuple.wire.ipv4 import BAD_CHECKSUM, emit_ipv4

NR_ICMP_TYPES = 18
NR_ICMP_UNREACH = 15

# Code of a destination unreachable -> (errno, ends a connection even when established): icmp.c icmp_err_convert
ICMP_ERR_CONVERT = (
    (errno.ENETUNREACH, False),  # net unreachable
    (errno.EHOSTUNREACH, False),  # host unreachable
    (errno.ENOPROTOOPT, True),  # protocol unreachable
    (errno.ECONNREFUSED, True),  # port unreachable
    (errno.EMSGSIZE, False),  # fragmentation needed
    (errno.EOPNOTSUPP, False),  # source route failed
    (errno.ENETUNREACH, True),  # net unknown
    (errno.EHOSTDOWN, True),  # host unknown
    (errno.ENONET, True),  # source host isolated
    (errno.ENETUNREACH, True),  # net administratively prohibited
    (errno.EHOSTUNREACH, True),  # host administratively prohibited
    (errno.ENETUNREACH, False),  # net unreachable for TOS
    (errno.EHOSTUNREACH, False),  # host unreachable for TOS
    (errno.EHOSTUNREACH, True),  # packet filtered
    (errno.EHOSTUNREACH, True),  # precedence violation
    (errno.EHOSTUNREACH, True),  # precedence cut off
)

_COUNTERS = {
    ICMP_DEST_UNREACH: "IcmpInDestUnreachs",
    ICMP_TIME_EXCEEDED: "IcmpInTimeExcds",
    ICMP_PARAMETERPROB: "IcmpInParmProbs",
    ICMP_SOURCE_QUENCH: "IcmpInSrcQuenchs",
    ICMP_REDIRECT: "IcmpInRedirects",
    ICMP_ECHO: "IcmpInEchos",
    ICMP_ECHOREPLY: "IcmpInEchoReps",
}
_ERRORS = (ICMP_DEST_UNREACH, ICMP_SOURCE_QUENCH, ICMP_REDIRECT, ICMP_TIME_EXCEEDED, ICMP_PARAMETERPROB)


class IcmpProtocol(NetProtocol):
    """Registered for IP protocol 1."""

    __slots__ = ()

    def handler(self, net: IpNet, b: PacketBuffer, off: int, length: int, dev: int) -> int:
        """icmp_rcv."""
        return icmp_rcv(net, b, off, length, dev)


def icmp_rcv(net: IpNet, b: PacketBuffer, off: int, length: int, dev: int) -> int:
    """One ICMP message, IP header in net.rx_ip; 1 if it was a message that is acted on."""
    h = net.rx_icmp
    net.mib.IcmpInMsgs += 1
    reason = parse_icmp(b, off, length, h)
    if reason != 0:
        if reason == BAD_CHECKSUM:
            net.mib.IcmpInCsumErrors += 1
        net.mib.IcmpInErrors += 1
        return 0
    if h.type > NR_ICMP_TYPES:
        net.mib.IcmpInErrors += 1
        return 0
    if net.tracer is not None:
        trace(net.tracer, FN_ICMP_RCV, 0, h.type, h.code)
    counter = _COUNTERS.get(h.type)
    if counter is not None:
        setattr(net.mib, counter, getattr(net.mib, counter) + 1)
    if h.type in _ERRORS:
        return icmp_unreach(net, b, h.inner_off, h.inner_len)
    if h.type == ICMP_ECHO:
        return icmp_echo(net, b, off, length, dev)
    return 0


def icmp_unreach(net: IpNet, b: PacketBuffer, off: int, length: int) -> int:
    """An error message: what it says, if anything, goes to the protocol of the packet quoted at `off`."""
    h = net.rx_icmp
    if length < 20 or (b.data[off] & 15) < 5:
        net.mib.IcmpInErrors += 1
        return 0
    info = 0
    if h.type == ICMP_DEST_UNREACH:
        if h.code > NR_ICMP_UNREACH:
            return 0
        if h.code == ICMP_FRAG_NEEDED:
            # 1: the MTU is not believed (0: none), 2 and 3: such messages are not listened to
            if net.sysctl.ip_no_pmtu_disc >= 2:
                return 0
            info = h.mtu if net.sysctl.ip_no_pmtu_disc == 0 else 0
    elif h.type == ICMP_TIME_EXCEEDED and h.code == ICMP_EXC_FRAGTIME:
        return 0
    elif h.type == ICMP_PARAMETERPROB:
        info = h.info >> 24
    return icmp_socket_deliver(net, b, off, length, info)


def icmp_socket_deliver(net: IpNet, b: PacketBuffer, off: int, length: int, info: int) -> int:
    """Give the quoted packet, 8 bytes beyond its IP header at least, to its protocol's err_handler."""
    inner = net.err_ip
    inner.header_len = (b.data[off] & 15) * 4
    if length < inner.header_len + 8:
        net.mib.IcmpInErrors += 1
        return 0
    inner.proto = b.data[off + 9]
    inner.saddr = get16(b, off + 12) << 16 | get16(b, off + 14)
    inner.daddr = get16(b, off + 16) << 16 | get16(b, off + 18)
    proto = net.protocols.get(inner.proto)
    if proto is None:
        return 0
    proto.err_handler(
        net, b, off + inner.header_len, length - inner.header_len, net.rx_icmp.type, net.rx_icmp.code, info
    )
    return 1


def icmp_echo(net: IpNet, b: PacketBuffer, off: int, length: int, dev: int) -> int:
    """Answer a ping from the address that was pinged."""
    rx, out = net.rx_ip, net.tx_ip
    queue = net.loopback if dev == 1 else net.tx
    message = b.read(off, length)
    start = tx_reserve(queue, 20 + length)
    out.saddr, out.daddr, out.tos, out.df, out.ident = rx.daddr, rx.saddr, rx.tos, False, 0
    out.ttl = net.sysctl.ip_default_ttl
    out.proto = 1
    out.total_len = 20 + length
    emit_ipv4(queue.buffer, start, out)
    body = bytearray(message)
    body[0] = ICMP_ECHOREPLY
    body[2:4] = b"\0\0"
    queue.buffer.write(start + 20, body)
    checksum = fold(ones_sum(queue.buffer, start + 20, length, 0))
    queue.buffer.write(start + 22, checksum.to_bytes(2, "big"))
    net.mib.IcmpOutMsgs += 1
    net.mib.IcmpOutEchoReps += 1
    net.mib.IpOutRequests += 1
    if net.tracer is not None:
        trace(net.tracer, FN_IP_QUEUE_XMIT, 0, out.total_len, dev, out.ttl, out.ident)
    tx_commit(queue, start, 20 + length, dev, net.now_us)
    return 1
