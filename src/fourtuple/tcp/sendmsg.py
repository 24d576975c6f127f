"""TCP's socket calls: sending (net/ipv4/tcp.c: tcp_sendmsg).

Never waits: what does not fit the send buffer is the caller's to offer again.  Payload is kept by reference; only a
mutable buffer is copied.
"""

from __future__ import annotations

import errno

from fourtuple.ip.netns import net_refresh
from fourtuple.kernel_map import FN_TCP_SENDMSG
from fourtuple.tcp.cong.reno import tcp_ssthresh
from fourtuple.tcp.net import Net, Segment, TcpCold, cold_get, cold_of, cold_trim, tcp_jiffies
from fourtuple.tcp.output import (
    sk_dst,
    tcp_current_mss,
)
from fourtuple.tcp.output_data import tcp_push_pending_frames
from fourtuple.tcp.sock import SEND_SHUTDOWN
from fourtuple.tcp.states import TCP_CLOSE_WAIT, TCP_ESTABLISHED, TCP_SYN_RECV, TCP_SYN_SENT
from fourtuple.tcp.tcp import sock_error
from fourtuple.trace import trace
from fourtuple.wire.seq import after
from fourtuple.wire.tcp import FIN, PSH

_M32 = 0xFFFFFFFF
_OVERHEAD = 640  # MAX_TCP_HEADER and skb_shared_info, before rounding up to a power of two
_SKB = 256  # struct sk_buff


def sk_sndbuf(net: Net, sk: int) -> int:
    """sk_sndbuf: SO_SNDBUF, else tcp_wmem[1] grown to twice the congestion window (tcp_sndbuf_expand)."""
    sndbuf = net.sks.option_sets[net.sks.opts[sk]].sndbuf
    if sndbuf:
        return sndbuf
    if net.sks.sk_state[sk] not in (TCP_ESTABLISHED, TCP_CLOSE_WAIT):
        return net.sks.sndbuf[sk] or net.sysctl.tcp_wmem_default
    per_mss = 1 << (max(net.sks.mss_clamp[sk], net.sks.mss_cache[sk]) + _OVERHEAD - 1).bit_length()
    size = 2 * max(net.init_cwnd, net.sks.snd_cwnd[sk]) * (per_mss + _SKB)
    size = min(size, net.sysctl.tcp_wmem_max)
    if size > max(net.sks.sndbuf[sk], net.sysctl.tcp_wmem_default):
        net.sks.sndbuf[sk] = size
    return net.sks.sndbuf[sk] or net.sysctl.tcp_wmem_default


def sk_wmem_queued(net: Net, sk: int) -> int:
    """Bytes queued or in flight."""
    cold = cold_of(net, sk)
    if cold is None or not (cold.rtx or cold.sendq):
        return 0  # after a disconnect write_seq is ahead of snd_una with nothing queued
    return (net.sks.write_seq[sk] - net.sks.snd_una[sk]) & _M32


def tcp_sendmsg(net: Net, sk: int, data: bytes | bytearray | memoryview) -> int:
    """Queue what fits, send what may be sent: how many bytes, or -errno (-EAGAIN: none fits, or not connected yet)."""
    net_refresh(net)
    length = len(data)
    state = net.sks.sk_state[sk]
    if net.tracer is not None:
        trace(net.tracer, FN_TCP_SENDMSG, sk, length, state)
    if state != TCP_ESTABLISHED and state != TCP_CLOSE_WAIT:
        error = sock_error(net, sk)
        if error:
            return error
        return -errno.EAGAIN if state in (TCP_SYN_SENT, TCP_SYN_RECV) else -errno.EPIPE
    if net.sks.err[sk] or net.sks.shutdown[sk] & SEND_SHUTDOWN:
        return sock_error(net, sk) or -errno.EPIPE
    if length == 0:
        return 0
    room = sk_sndbuf(net, sk) - sk_wmem_queued(net, sk)
    if room <= 0:
        return -errno.EAGAIN
    if length > room:
        length = room
    tcp_slow_start_after_idle_check(net, sk)
    cold = cold_get(net, sk)
    _append(net, sk, cold, data, length)
    tcp_push_pending_frames(net, sk, False)
    cold_trim(net, sk)
    return length


def _append(net: Net, sk: int, cold: TcpCold, data: bytes | bytearray | memoryview, length: int) -> None:
    """Cut into segments behind what is queued; the last one pushes, as does one every half window (forced_push)."""
    whole = memoryview(data if isinstance(data, bytes) else bytes(data[:length]))
    mss = tcp_current_mss(net, sk)
    at = 0
    seq = net.sks.write_seq[sk]
    if cold.sendq:
        tail = cold.sendq[len(cold.sendq) - 1]
        take = min(mss - tail.length, length)
        if take > 0 and not tail.flags & FIN:
            tail.payload = bytes(tail.payload) + bytes(whole[:take])
            tail.length += take
            tail.end_seq = (tail.end_seq + take) & _M32
            tail.flags &= ~PSH
            at = take
            seq = tail.end_seq
    while at < length:
        end = min(at + mss, length)
        seg = Segment(seq, whole[at:end], 0)
        seq = seg.end_seq
        if after(seq, (cold.pushed_seq + (net.sks.max_window[sk] >> 1)) & _M32):
            seg.flags |= PSH
            cold.pushed_seq = seq
        cold.sendq.append(seg)
        at = end
    last = cold.sendq[len(cold.sendq) - 1]
    last.flags |= PSH
    cold.pushed_seq = seq
    cold.sendq_bytes += length
    net.sks.write_seq[sk] = seq


def tcp_slow_start_after_idle_check(net: Net, sk: int) -> None:
    """A connection idle for a timeout begins again with a small window (RFC 5681, 4.1)."""
    sks = net.sks
    if not net.sysctl.tcp_slow_start_after_idle or sks.snd_una[sk] != sks.snd_nxt[sk]:
        return
    idle = (tcp_jiffies(net) - sks.lsndtime[sk]) & _M32
    rto = max(sks.rto[sk] // 1000, 1)
    if idle <= rto:
        return
    rt = sk_dst(net, sk)
    restart = min(rt.initcwnd if rt is not None and rt.initcwnd else net.init_cwnd, sks.snd_cwnd[sk])
    threshold = max(tcp_ssthresh(net, sk), (sks.snd_cwnd[sk] >> 1) + (sks.snd_cwnd[sk] >> 2))
    if sks.ssthresh[sk]:
        sks.ssthresh[sk] = threshold
    cwnd = sks.snd_cwnd[sk]
    idle -= rto
    while idle > 0 and cwnd > restart:
        cwnd >>= 1
        idle -= rto
    sks.snd_cwnd[sk] = max(cwnd, restart)
    sks.cwnd_cnt[sk] = 0


def net_pending_write(net: Net, sk: int, waiting: int) -> None:
    """A blocking send() waits for the handshake (+1) or stops waiting (-1): the ACK rides on its data (ST-31)."""
    cold = cold_get(net, sk)
    cold.write_pending += waiting
    cold_trim(net, sk)
