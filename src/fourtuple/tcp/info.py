"""TCP's socket calls: what a socket tells about itself (net/ipv4/tcp.c: tcp_poll, tcp_get_info, tcp_ioctl)."""

from __future__ import annotations

import errno
import struct

from fourtuple.inet.flags import DONE
from fourtuple.tcp.cong.reno import tcp_ssthresh
from fourtuple.tcp.constants import TCP_MSS_DEFAULT
from fourtuple.tcp.net import Net, cold_of, tcp_jiffies
from fourtuple.tcp.output_data import tcp_packets_out
from fourtuple.tcp.sendmsg import sk_sndbuf, sk_wmem_queued
from fourtuple.tcp.sock import RCV_SHUTDOWN, SEND_SHUTDOWN, SHUTDOWN_MASK, WSCALE_OK, last_ack_time
from fourtuple.tcp.states import TCP_CLOSE, TCP_LISTEN, TCP_SYN_RECV, TCP_SYN_SENT

_M32 = 0xFFFFFFFF

POLLIN = 1
POLLPRI = 2
POLLOUT = 4
POLLERR = 8
POLLHUP = 16
POLLRDHUP = 0x2000

# struct tcp_info of 6.18: 8 bytes, 24 words, then as named in tcp_get_info.  280 bytes.
_INFO = struct.Struct("=8B24I4Q6I4Q2I2Q6I2HI7I2H")
_REORDERING = 3


def tcp_stream_is_writeable(net: Net, sk: int) -> bool:
    """A third of the send buffer is free."""
    queued = sk_wmem_queued(net, sk)
    return queued < sk_sndbuf(net, sk) and sk_sndbuf(net, sk) - queued >= queued >> 1


def tcp_poll(net: Net, sk: int) -> int:
    """POLL* bits that are true now."""
    sks = net.sks
    state = sks.sk_state[sk]
    cold = cold_of(net, sk)
    if state == TCP_LISTEN:
        return POLLIN if cold is not None and cold.listener is not None and cold.listener.accept_queue else 0
    mask = 0
    shutdown = sks.shutdown[sk]
    if shutdown == SHUTDOWN_MASK or state == TCP_CLOSE:
        mask |= POLLHUP
    if shutdown & RCV_SHUTDOWN:
        mask |= POLLIN | POLLRDHUP
    if state not in (TCP_SYN_SENT, TCP_SYN_RECV):
        low = sks.option_sets[sks.opts[sk]].rcvlowat
        if cold is not None and cold.rcvq_bytes >= max(low, 1):
            mask |= POLLIN
        if shutdown & SEND_SHUTDOWN or tcp_stream_is_writeable(net, sk):
            mask |= POLLOUT
    if sks.err[sk] or (cold is not None and cold.errq):
        mask |= POLLERR
    return mask


def errqueue_pop(net: Net, sk: int) -> dict[str, object] | None:
    """The oldest entry of the error queue, or None."""
    cold = cold_of(net, sk)
    if cold is None or not cold.errq:
        return None
    entry: dict[str, object] = cold.errq.popleft()
    return entry


def tcp_siocinq(net: Net, sk: int) -> int:
    """Bytes that can be read, or -EINVAL for a listener."""
    state = net.sks.sk_state[sk]
    if state == TCP_LISTEN:
        return -errno.EINVAL
    if state in (TCP_SYN_SENT, TCP_SYN_RECV):
        return 0
    unread = (net.sks.rcv_nxt[sk] - net.sks.copied_seq[sk]) & _M32
    return unread - 1 if unread and net.sks.flags[sk] & DONE else unread


def tcp_siocoutq(net: Net, sk: int) -> int:
    """Bytes not yet acknowledged, or -EINVAL for a listener."""
    state = net.sks.sk_state[sk]
    if state == TCP_LISTEN:
        return -errno.EINVAL
    if state in (TCP_SYN_SENT, TCP_SYN_RECV):
        return 0
    return (net.sks.write_seq[sk] - net.sks.snd_una[sk]) & _M32


def tcp_get_info(net: Net, sk: int) -> bytes:
    """TCP_INFO in the layout of struct tcp_info (include/uapi/linux/tcp.h, 6.18)."""
    sks = net.sks
    cold = cold_of(net, sk)
    bits = sks.optbits[sk] & 31
    scales = (sks.wscales[sk] >> 4 | (sks.wscales[sk] & 15) << 4) if bits & WSCALE_OK else 0
    unacked, sacked = tcp_packets_out(net, sk), cold.sacked_out if cold is not None else 0
    if sks.sk_state[sk] == TCP_LISTEN and cold is not None and cold.listener is not None:
        unacked, sacked = len(cold.listener.accept_queue), cold.listener.backlog
    head = (
        sks.sk_state[sk], cold.ca_state if cold is not None else 0, sks.retransmits[sk], sks.probes[sk],
        sks.backoff[sk], bits, scales, 0,
    )  # fmt: skip
    notsent = (sks.write_seq[sk] - sks.snd_nxt[sk]) & _M32
    tail = (
        0, _M32 << 32 | _M32, 0, 0,  # pacing rates, bytes acked and received
        0, 0, notsent, sks.srtt[sk] >> 3, 0, 0,  # segments out and in, not sent, min rtt, data segments
        0, 0, 0, 0,  # delivery rate, busy, rwnd limited, sndbuf limited
        0, 0, 0, 0,  # delivered, delivered CE, bytes sent, bytes retransmitted
        0, 0, 0, sks.snd_wnd[sk], sks.rcv_wnd[sk], 0,  # D-SACKs, reordering seen, out of order, windows, rehash
        sks.total_rto[sk], 0, 0,  # timeouts, recoveries, time
        0, 0, 0, 0, 0, 0, 0, 0, 0,  # AccECN
    )  # fmt: skip
    return _INFO.pack(*head, *_info_words(net, sk, unacked, sacked), *tail)


def _info_words(net: Net, sk: int, unacked: int, sacked: int) -> tuple[int, ...]:
    sks = net.sks
    cold = cold_of(net, sk)
    now = tcp_jiffies(net)
    connected = sks.sk_state[sk] not in (TCP_SYN_SENT, TCP_CLOSE, TCP_LISTEN)
    last_ack = (now - last_ack_time(sks, sk)) & _M32 if connected else now
    return (
        sks.rto[sk], sks.ato[sk] * 1000, sks.mss_cache[sk], _rcv_mss(net, sk), unacked, sacked,
        cold.lost_out if cold is not None else 0, cold.retrans_out if cold is not None else 0, 0,
        (now - sks.lsndtime[sk]) & _M32, 0, (now - sks.lrcvtime[sk]) & _M32, last_ack, sks.pmtu[sk],
        sks.rcv_ssthresh[sk], sks.srtt[sk] >> 3, sks.mdev[sk] >> 2, tcp_ssthresh(net, sk), sks.snd_cwnd[sk],
        sks.advmss[sk], _REORDERING, 0, _rcv_space(net, sk), sks.total_retrans[sk],
    )  # fmt: skip


def _rcv_mss(net: Net, sk: int) -> int:
    """The estimate that tcp_initialize_rcv_mss makes, where no segment has made a better one yet."""
    sks = net.sks
    if sks.rcv_mss[sk]:
        return sks.rcv_mss[sk]
    if sks.sk_state[sk] in (TCP_CLOSE, TCP_LISTEN):
        return 88
    return max(min(sks.advmss[sk], sks.mss_cache[sk], sks.rcv_wnd[sk] >> 1, TCP_MSS_DEFAULT), 88)


def _rcv_space(net: Net, sk: int) -> int:
    """rcvq_space.space: as many segments as a first flight has (tcp_init_buffer_space)."""
    sks = net.sks
    if sks.rcvq_space[sk] or sks.sk_state[sk] in (TCP_CLOSE, TCP_LISTEN, TCP_SYN_SENT):
        return sks.rcvq_space[sk]
    return min(sks.rcv_ssthresh[sk], sks.rcv_wnd[sk], net.init_cwnd * sks.advmss[sk])
