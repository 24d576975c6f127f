"""IP output (net/ipv4/ip_output.c): header, then the packet to its device's queue, or to ourselves.

What a packet's TTL, TOS, DF and identification are is decided by the caller, who has the socket.  Packets for the
loopback device wait in `net.loopback` until the outermost verb ends: the kernel's socket backlog.
"""

from __future__ import annotations

from fourtuple.ip.netns import IpNet
from fourtuple.ip.txqueue import TxQueue, tx_commit, tx_packet, tx_reserve
from fourtuple.kernel_map import FN_IP_QUEUE_XMIT
from fourtuple.trace import trace
from fourtuple.wire.tcp import TcpHeader, emit_segment, seal_segment

_LOOPBACK_IFINDEX = 1


def ip_queue_of(net: IpNet, dev_loopback: bool) -> TxQueue:
    """The queue for packets of a route."""
    return net.loopback if dev_loopback else net.tx


def ip_build(
    net: IpNet,
    queue: TxQueue,
    th: TcpHeader,
    saddr: int,
    daddr: int,
    ttl: int,
    tos: int,
    df: bool,
    ident: int,
    payload: object,
    payload_len: int,
) -> int:
    """Write a TCP packet into the queue's free room, checksums done; its offset, or negative when it is too long.

    Nothing is sent before ip_local_out.
    """
    net.tx_ip.saddr = saddr
    net.tx_ip.daddr = daddr
    net.tx_ip.ttl = ttl
    net.tx_ip.tos = tos
    net.tx_ip.df = df
    net.tx_ip.ident = ident
    off = tx_reserve(queue, payload_len + 80)
    start = emit_segment(queue.buffer, off, net.tx_ip, th, payload_len)
    if start < 0:
        return start
    if payload_len:
        queue.buffer.write(start, payload)  # type: ignore[arg-type]
        seal_segment(queue.buffer, off)
    return off


def ip_local_out(net: IpNet, queue: TxQueue, off: int, dev: int) -> None:
    """Send the packet that ip_build wrote at `off` (its length is in net.tx_ip)."""
    net.mib.IpOutRequests += 1
    net.mib.IpOutTransmits += 1
    if net.tracer is not None:
        trace(net.tracer, FN_IP_QUEUE_XMIT, 0, net.tx_ip.total_len, dev, net.tx_ip.ttl, net.tx_ip.ident)
    tx_commit(queue, off, net.tx_ip.total_len, dev, net.now_us)
    if net.sniff is not None and dev == _LOOPBACK_IFINDEX:
        net.sniff("lo", net.now_us, tx_packet(queue, queue.count - 1))
