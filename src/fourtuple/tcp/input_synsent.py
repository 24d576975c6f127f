"""TCP input in SYN_SENT (net/ipv4/tcp_input.c: tcp_rcv_synsent_state_process): SYN-ACK, RST, crossed SYNs.

Nothing of the segment is stored before it has passed every check: the kernel's "undo" has nothing to do.
The segment is net.rx_th.  Answers: RCV_DONE, or RCV_RESET when the caller must send a RST for it.
"""

from __future__ import annotations

from fourtuple.inet.flags import DEAD, KEEPOPEN, PINGPONG
from fourtuple.inet.sock_options import SockOptions
from fourtuple.kernel_map import FN_TCP_FINISH_CONNECT, FN_TCP_RCV_SYNSENT_STATE_PROCESS
from fourtuple.tcp.constants import (
    EV_OUT,
    EV_STATE,
    RCV_DONE,
    RCV_RESET,
    TCP_MAX_QUICKACKS,
    TCP_TIMEOUT_FALLBACK,
    TCP_TIMEOUT_MIN,
)
from fourtuple.tcp.input_ack import (
    tcp_ack_update_rtt,
    tcp_ack_update_window,
    tcp_paws_check,
    tcp_rtt_by_timestamp,
    tcp_store_ts_recent,
)
from fourtuple.tcp.input_data import tcp_enter_quickack_mode
from fourtuple.tcp.net import (
    Net,
    inet_csk_clear_xmit_timer,
    net_event,
    tcp_jiffies,
    tcp_reset_delack_timer,
    tcp_reset_keepalive_timer,
    tcp_reset_xmit_timer,
)
from fourtuple.tcp.output import (
    sk_dst,
    tcp_initialize_rcv_mss,
    tcp_send_ack,
    tcp_send_synack,
    tcp_sync_mss,
)
from fourtuple.tcp.sock import (
    ACK_SCHED,
    ACK_TIMER,
    ECN_OK,
    ECN_SYN,
    HAS_COLD,
    SACK_OK,
    TS_OK,
    UNDO,
    WSCALE_OK,
)
from fourtuple.tcp.states import TCP_ESTABLISHED, TCP_SYN_RECV
from fourtuple.tcp.tcp import tcp_reset, tcp_set_state
from fourtuple.tcp.window import (
    tcp_full_space,
)
from fourtuple.trace import trace
from fourtuple.wire.seq import between
from fourtuple.wire.tcp import ACK, CWR, ECE, RST, SYN

_M32 = 0xFFFFFFFF
_DELACK_MAX_US = 200_000  # TCP_DELACK_MAX


def tcp_rcv_synsent_state_process(net: Net, sk: int) -> int:
    """Checks in the order of RFC 9293, 3.10.7.3: ACK, timestamp, RST, SYN."""
    sks = net.sks
    th = net.rx_th
    if net.tracer is not None:
        trace(net.tracer, FN_TCP_RCV_SYNSENT_STATE_PROCESS, sk, th.flags, th.seq, th.ack)
    if not th.flags & ACK:
        if th.flags & RST or not th.flags & SYN:
            return RCV_DONE
        if th.has_ts and net.sysctl.tcp_timestamps and sks.ts_recent_stamp[sk] and not tcp_paws_check(net, sk, 0):
            return RCV_DONE
        return _simultaneous_open(net, sk)
    ack = th.ack
    distance = (ack - sks.snd_una[sk]) & _M32
    if distance == 0 or distance > (sks.snd_nxt[sk] - sks.snd_una[sk]) & _M32:
        # The peer remembers an old connection: after its RST a new SYN may pass, so do not wait a second (RSP-02).
        if sks.retransmits[sk] == 0:
            tcp_reset_xmit_timer(net, sk, TCP_TIMEOUT_MIN)
        return RCV_RESET
    if th.has_ts and th.tsecr and net.sysctl.tcp_timestamps:
        echo = (th.tsecr - sks.ts_offset[sk]) & _M32
        if not between(echo, sks.retrans_stamp[sk], tcp_jiffies(net)):
            net.mib.TcpExtPAWSActive += 1
            return RCV_RESET
    if th.flags & RST:
        tcp_reset(net, sk)
        return RCV_DONE
    if not th.flags & SYN:
        return RCV_DONE
    return _synack(net, sk)


def _synack(net: Net, sk: int) -> int:
    """A good SYN-ACK: ESTABLISHED.  Payload and FIN in it are left to be sent again (RSP-11, -12)."""
    sks = net.sks
    th = net.rx_th
    tcp_accept_options(net, sk)
    if sks.flags[sk] & ECN_SYN and th.flags & ECE:
        sks.optbits[sk] |= ECN_OK
    sks.snd_wl1[sk] = th.seq
    tcp_try_undo_spurious_syn(net, sk)
    _ack_of_syn(net, sk)
    sks.rcv_nxt[sk] = (th.seq + 1) & _M32
    sks.rcv_wup[sk] = sks.rcv_nxt[sk]
    sks.copied_seq[sk] = sks.rcv_nxt[sk]
    sks.snd_wnd[sk] = th.window
    tcp_finish_connect(net, sk)
    if sks.flags[sk] & PINGPONG or (sks.flags[sk] & HAS_COLD and net.cold[sk].write_pending):
        # Data will follow at once and carry the ACK, or the ACK was asked to wait (ST-31, RSP-29).
        tcp_enter_quickack_mode(net, sk, TCP_MAX_QUICKACKS)
        sks.flags[sk] |= ACK_SCHED | ACK_TIMER
        tcp_reset_delack_timer(net, sk, net.now_us + _DELACK_MAX_US)
        return RCV_DONE
    tcp_send_ack(net, sk)
    return RCV_DONE


def tcp_accept_options(net: Net, sk: int) -> None:
    """What both sides offered counts from now on (tcp_parse_options; RSP-13..17, -33)."""
    sks = net.sks
    th = net.rx_th
    bits = 0
    scale = 0
    if th.mss:
        opts = sks.option_sets[sks.opts[sk]]
        mss = th.mss
        if opts.user_mss and opts.user_mss < mss:
            mss = opts.user_mss
        sks.mss_clamp[sk] = mss
    if th.has_ts and net.sysctl.tcp_timestamps:
        bits |= TS_OK
    if th.sack_perm and net.sysctl.tcp_sack:
        bits |= SACK_OK
    if th.wscale >= 0 and net.sysctl.tcp_window_scaling:
        bits |= WSCALE_OK
        scale = th.wscale if th.wscale < 14 else 14
        sks.wscales[sk] = scale << 4 | (sks.wscales[sk] & 15)
    else:
        sks.wscales[sk] = 0
        if sks.window_clamp[sk] > 65535:
            sks.window_clamp[sk] = 65535
    sks.optbits[sk] = bits
    if bits & TS_OK:
        tcp_store_ts_recent(net, sk)


def _ack_of_syn(net: Net, sk: int) -> None:
    """tcp_ack() for the SYN alone: window, round-trip time, timer."""
    sks = net.sks
    sample = -1
    if sks.total_retrans[sk] == 0:
        # In SYN_SENT lrcvtime holds the low half of the microsecond the SYN left at.
        sample = (net.now_us - sks.lrcvtime[sk]) & _M32
    elif sks.optbits[sk] & TS_OK:
        sample = tcp_rtt_by_timestamp(net, sk)
    tcp_ack_update_window(net, sk, net.rx_th.ack, net.rx_th.seq)
    if sks.retransmits[sk]:  # a zero that is not written costs no memory
        sks.retransmits[sk] = 0
    if sks.err_soft[sk]:
        sks.err_soft[sk] = 0
    if sks.probes[sk]:
        sks.probes[sk] = 0
    if sample >= 0:
        tcp_ack_update_rtt(net, sk, sample)
    sks.retrans_stamp[sk] = 0
    inet_csk_clear_xmit_timer(net, sk)


def tcp_try_undo_spurious_syn(net: Net, sk: int) -> None:
    """The first SYN was answered: its retransmission was needless and costs no window (RSP-32)."""
    if net.sks.flags[sk] & UNDO and net.rx_th.has_ts:
        if (net.rx_th.tsecr - net.sks.ts_offset[sk]) & _M32 == net.sks.retrans_stamp[sk]:
            net.sks.flags[sk] &= ~UNDO & _M32


def _simultaneous_open(net: Net, sk: int) -> int:
    """The peer's SYN crossed ours: answer it with our SYN and an ACK (RSP-23)."""
    sks = net.sks
    th = net.rx_th
    tcp_set_state(net, sk, TCP_SYN_RECV)
    scale = sks.wscales[sk]
    tcp_accept_options(net, sk)
    if not sks.optbits[sk] & WSCALE_OK:
        sks.wscales[sk] = scale
    sks.rcv_nxt[sk] = (th.seq + 1) & _M32
    sks.copied_seq[sk] = sks.rcv_nxt[sk]
    sks.rcv_wup[sk] = sks.rcv_nxt[sk]
    sks.snd_wnd[sk] = th.window
    sks.snd_wl1[sk] = th.seq
    sks.max_window[sk] = th.window
    sks.lrcvtime[sk] = tcp_jiffies(net)
    if sks.flags[sk] & ECN_SYN and th.flags & (ECE | CWR) == ECE | CWR:
        sks.optbits[sk] |= ECN_OK
    rt = sk_dst(net, sk)
    tcp_sync_mss(net, sk, rt.mtu if rt is not None else sks.pmtu[sk])
    tcp_initialize_rcv_mss(net, sk)
    tcp_send_synack(net, sk)
    return RCV_DONE


def tcp_finish_connect(net: Net, sk: int) -> None:
    """SYN_SENT -> ESTABLISHED, and whoever waits is told."""
    sks = net.sks
    tcp_set_state(net, sk, TCP_ESTABLISHED)
    if net.tracer is not None:
        trace(net.tracer, FN_TCP_FINISH_CONNECT, sk, sks.srtt[sk] >> 3, sks.snd_wnd[sk], sks.mss_cache[sk])
    if sks.optbits[sk] & TS_OK:
        sks.advmss[sk] -= 12
    rt = sk_dst(net, sk)
    tcp_sync_mss(net, sk, rt.mtu if rt is not None else sks.pmtu[sk])
    sks.lrcvtime[sk] = tcp_jiffies(net)
    tcp_init_transfer(net, sk)
    sks.lsndtime[sk] = sks.lrcvtime[sk]
    if sks.flags[sk] & KEEPOPEN:
        tcp_reset_keepalive_timer(net, sk, keepalive_time_when(net, sk))
    if not sks.flags[sk] & DEAD:
        net_event(net, sk, EV_STATE | EV_OUT)


def keepalive_time_when(net: Net, sk: int) -> int:
    """Idle time before the first keepalive probe, us."""
    opts: SockOptions = net.sks.option_sets[net.sks.opts[sk]]
    return (opts.keepidle_s or net.sysctl.tcp_keepalive_time) * 1_000_000


def tcp_init_transfer(net: Net, sk: int) -> None:
    """Congestion window and buffers of a connection that is ready for data (RSP-28)."""
    sks = net.sks
    rt = sk_dst(net, sk)
    if sks.srtt[sk] == 0:
        # No sample from the handshake: a timeout of 3 s to begin with (RFC 6298, 5.7).
        sks.rttvar[sk] = TCP_TIMEOUT_FALLBACK
        sks.mdev[sk] = TCP_TIMEOUT_FALLBACK
        sks.mdev_max[sk] = TCP_TIMEOUT_FALLBACK
        sks.rto[sk] = TCP_TIMEOUT_FALLBACK
    if sks.total_retrans[sk] > 1 and sks.flags[sk] & UNDO:
        sks.snd_cwnd[sk] = 1
    elif rt is not None and rt.initcwnd:
        sks.snd_cwnd[sk] = rt.initcwnd
    else:
        sks.snd_cwnd[sk] = net.init_cwnd
    tcp_init_buffer_space(net, sk)


def tcp_init_buffer_space(net: Net, sk: int) -> None:
    """Clamp of the receive window: the buffer less one segment (tcp_app_win)."""
    sks = net.sks
    advmss = sks.advmss[sk]
    maxwin = tcp_full_space(net, sk)
    clamp = sks.window_clamp[sk]
    shift = net.sysctl.tcp_app_win
    if clamp >= maxwin:
        clamp = maxwin
        if shift and maxwin > 4 * advmss:
            clamp = max(maxwin - (maxwin >> shift), 4 * advmss)
    if shift and clamp > 2 * advmss and clamp + advmss > maxwin:
        clamp = max(2 * advmss, maxwin - advmss)
    sks.window_clamp[sk] = clamp
    if sks.rcv_ssthresh[sk] > clamp:
        sks.rcv_ssthresh[sk] = clamp
