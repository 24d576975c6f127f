"""TCP output (net/ipv4/tcp_output.c): everything that is not payload: SYN, ACK, RST, probes, windows, options, MSS.

Not here: data and its retransmission (output_data.py), when a timer runs (timer.py).

Rules
1. The SYN has no buffer: it is rebuilt from the columns whenever it is sent (snd_una is its sequence number).
2. Nothing here allocates a Python object for a segment without payload.
3. The header being built is net.tx_th.
"""

from __future__ import annotations

import errno

from fourtuple.inet.flags import DONE, PINGPONG, TRANSPARENT
from fourtuple.inet.secure_seq import secure_tcp_ts_off
from fourtuple.inet.sock_options import SockOptions
from fourtuple.ip.netns import net_route
from fourtuple.ip.output import ip_build, ip_local_out, ip_queue_of
from fourtuple.ip.route import Route, Rtable, dst_metric_advmss, ip_route_connect
from fourtuple.kernel_map import (
    FN_TCP_CONNECT,
    FN_TCP_RESET_XMIT_TIMER,
    FN_TCP_RETRANSMIT_SKB,
    FN_TCP_SEND_ACK,
    FN_TCP_SEND_SYNACK,
    FN_TCP_TRANSMIT_SKB,
)
from fourtuple.tcp.constants import (
    TCP_ATO_MIN,
    TCP_DELACK_MAX,
    TCP_MSS_DEFAULT,
)
from fourtuple.tcp.md5 import tcp_md5_do_lookup, tcp_v4_md5_hash
from fourtuple.tcp.net import (
    Net,
    TcpCold,
    inet_csk_clear_delack_timer,
    tcp_jiffies,
    tcp_reset_delack_timer,
    tcp_reset_xmit_timer,
)
from fourtuple.tcp.sock import (
    ACK_NOW,
    ACK_PUSHED,
    ACK_PUSHED2,
    ACK_SCHED,
    ACK_TIMER,
    DEMAND_CWR,
    ECN_OK,
    ECN_SYN,
    HAS_COLD,
    QUEUE_CWR,
    SACK_OK,
    TS_OK,
    UNDO,
    WSCALE_OK,
    TcpSockTable,
)
from fourtuple.tcp.states import TCP_SYN_RECV, TCP_SYN_SENT
from fourtuple.tcp.window import tcp_full_space, tcp_select_initial_window, tcp_select_window
from fourtuple.trace import trace
from fourtuple.wire.buffer import PacketBuffer
from fourtuple.wire.seq import before
from fourtuple.wire.tcp import ACK, CWR, ECE, RST, SYN, clear_options, seal_segment

_M32 = 0xFFFFFFFF
_U16_MAX = 65535
_RCVBUF_LOCK = 2

_MIN_HEADERS = 68  # the smallest IPv4 MTU: what half a tiny window may be raised to


# -- route, MSS, windows


def sk_dst(net: Net, sk: int) -> Rtable | None:
    """The socket's route, looked up again when the tables changed; None when there is none any more."""
    if net.sks.dst_gen[sk] != net.fib_generation & 0xFFFF:
        return _reroute(net, sk)
    return net.rtables[net.sks.dst[sk]]


def _reroute(net: Net, sk: int) -> Rtable | None:
    found = sk_route(net, sk, net.sks.daddr[sk], net.sks.saddr[sk])
    if isinstance(found, int):
        net.mib.IpOutNoRoutes += 1
        return None
    route = found
    net.sks.dst[sk] = route.rt.index
    net.sks.dst_gen[sk] = net.fib_generation & 0xFFFF
    return route.rt


def sk_route(net: Net, sk: int, daddr: int, saddr: int) -> Route | int:
    """ip_route_connect() with the socket's device, mark, TOS."""
    opts = net.sks.option_sets[net.sks.opts[sk]]
    transparent = net.sks.flags[sk] & TRANSPARENT != 0
    if opts.mark or opts.tos or transparent:
        return ip_route_connect(net.fib, daddr, saddr, net.sks.bound_dev[sk], opts.mark, opts.tos & 0xFC, transparent)
    return net_route(net, daddr, saddr, net.sks.bound_dev[sk])


def tcp_header_len(sks: TcpSockTable, sk: int) -> int:
    """Length of the header of a segment without SACK blocks."""
    return 32 if sks.optbits[sk] & TS_OK else 20


def tcp_mtu_to_mss(net: Net, sk: int, pmtu: int) -> int:
    """Payload that fits a packet of `pmtu` bytes, at most what the peer takes, at least tcp_min_snd_mss (RSP-17)."""
    mss = pmtu - 40
    if mss > net.sks.mss_clamp[sk]:
        mss = net.sks.mss_clamp[sk]
    least = net.sysctl.tcp_min_snd_mss
    if mss < least:
        mss = least
    return mss - (_syn_header_len(net, sk) - 20)


def _syn_header_len(net: Net, sk: int) -> int:
    # Until the peer's options are known the kernel reckons with what it offered (tcp_connect_init, OBS-01).
    if net.sks.sk_state[sk] == TCP_SYN_SENT:
        return 32 if net.sysctl.tcp_timestamps else 20
    return tcp_header_len(net.sks, sk)


def tcp_sync_mss(net: Net, sk: int, pmtu: int) -> int:
    """Take over a path MTU: mss_cache, never more than half the largest window the peer has offered."""
    mss = tcp_bound_to_half_wnd(net.sks, sk, tcp_mtu_to_mss(net, sk, pmtu))
    net.sks.pmtu[sk] = pmtu
    net.sks.mss_cache[sk] = mss
    return mss


def tcp_bound_to_half_wnd(sks: TcpSockTable, sk: int, mss: int) -> int:
    """Half the largest window seen, or all of a window smaller than the default MSS."""
    cutoff = sks.max_window[sk]
    if cutoff > TCP_MSS_DEFAULT:
        cutoff >>= 1
    if cutoff == 0 or mss <= cutoff:
        return mss
    least = _MIN_HEADERS - tcp_header_len(sks, sk)
    return cutoff if cutoff > least else least


def tcp_current_mss(net: Net, sk: int) -> int:
    """Payload of the next full segment: mss_cache less the SACK blocks it will carry."""
    rt = sk_dst(net, sk)
    if rt is not None and rt.mtu != net.sks.pmtu[sk]:
        tcp_sync_mss(net, sk, rt.mtu)
    mss = net.sks.mss_cache[sk]
    if net.sks.flags[sk] & HAS_COLD and net.sks.optbits[sk] & SACK_OK:
        cold = net.cold[sk]
        blocks = min(len(cold.recent_sacks) + cold.dsack, 3 if net.sks.optbits[sk] & TS_OK else 4)
        if blocks:
            mss -= 4 + 8 * blocks
    return mss


def tcp_initialize_rcv_mss(net: Net, sk: int) -> None:
    """First guess at the peer's segment size, for delayed ACKs."""
    hint = min(net.sks.advmss[sk], net.sks.mss_cache[sk], net.sks.rcv_wnd[sk] >> 1, TCP_MSS_DEFAULT)
    net.sks.rcv_mss[sk] = hint if hint > 88 else 88  # TCP_MIN_MSS


def tcp_connect_init(net: Net, sk: int) -> None:
    """All that a connection attempt starts from; sequence number, addresses and route are set."""
    sks = net.sks
    opts = sks.option_sets[sks.opts[sk]]
    rt = net.rtables[sks.dst[sk]]
    sks.optbits[sk] = 0
    sks.mss_clamp[sk] = opts.user_mss if opts.user_mss else TCP_MSS_DEFAULT
    sks.max_window[sk] = 0
    tcp_sync_mss(net, sk, rt.mtu)
    if sks.window_clamp[sk] == 0:
        sks.window_clamp[sk] = opts.window_clamp if opts.window_clamp else rt.window
    advmss = dst_metric_advmss(rt, net.sysctl.min_adv_mss)
    if opts.user_mss and opts.user_mss < advmss:
        advmss = opts.user_mss
    sks.advmss[sk] = advmss
    full = tcp_full_space(net, sk)
    clamp = sks.window_clamp[sk]
    if sks.userlocks[sk] & _RCVBUF_LOCK and (clamp > full or clamp == 0):
        sks.window_clamp[sk] = full
    mss = advmss
    if sks.ts_recent_stamp[sk] and net.sysctl.tcp_timestamps:
        mss -= 12
    sks.wscales[sk] = tcp_select_initial_window(net, sk, full, mss, net.sysctl.tcp_window_scaling != 0, rt.initrwnd)
    sks.rcv_ssthresh[sk] = sks.rcv_wnd[sk]
    _reset_sequence(sks, sk)
    sks.rto[sk] = net.initial_rto
    sks.snd_cwnd[sk] = net.init_cwnd
    sks.flags[sk] &= ~(DONE | UNDO | ECN_SYN | DEMAND_CWR | QUEUE_CWR) & _M32
    if sks.flags[sk] & HAS_COLD:
        _purge_write_queue(net, sk)


def _reset_sequence(sks: TcpSockTable, sk: int) -> None:
    seq = sks.write_seq[sk]
    sks.snd_wnd[sk] = 0
    sks.snd_wl1[sk] = 0
    sks.snd_una[sk] = seq
    sks.snd_nxt[sk] = seq
    sks.rcv_nxt[sk] = 0
    sks.rcv_wup[sk] = 0
    sks.copied_seq[sk] = 0
    _forget_attempts(sks, sk)


def _forget_attempts(sks: TcpSockTable, sk: int) -> None:
    """Of an attempt before this one.  A new socket has none, and a zero that is not written costs no memory."""
    if sks.err[sk]:
        sks.err[sk] = 0
    if sks.retransmits[sk]:
        sks.retransmits[sk] = 0
    if sks.backoff[sk]:
        sks.backoff[sk] = 0
    if sks.total_retrans[sk]:
        sks.total_retrans[sk] = 0
    if sks.total_rto[sk]:
        sks.total_rto[sk] = 0


def _purge_write_queue(net: Net, sk: int) -> None:
    """A new attempt keeps the error queue and who waits to write, nothing else."""
    old = net.cold[sk]
    fresh = TcpCold(net.sks.snd_una[sk])
    fresh.errq = old.errq
    fresh.write_pending = old.write_pending
    net.cold[sk] = fresh


def tcp_connect(net: Net, sk: int) -> int:
    """Build the SYN, send it, arm the retransmission timer.  0: a SYN that could not leave is not an error (ERR-26)."""
    sks = net.sks
    tcp_connect_init(net, sk)
    sks.retrans_stamp[sk] = tcp_jiffies(net)
    sks.lrcvtime[sk] = net.now_us & _M32  # until a SYN-ACK comes: when the SYN left, for its round trip
    sks.write_seq[sk] = (sks.write_seq[sk] + 1) & _M32
    rt = net.rtables[sks.dst[sk]]
    if net.sysctl.tcp_ecn == 1 or rt.ecn:
        sks.flags[sk] |= ECN_SYN
    if net.tracer is not None:
        _trace_connect(net, sk)
    flags = SYN | ECE | CWR if sks.flags[sk] & ECN_SYN else SYN
    sks.snd_nxt[sk] = sks.write_seq[sk]
    tcp_send_syn(net, sk, flags)
    net.mib.TcpOutSegs += 1
    net.mib.TcpActiveOpens += 1
    if net.tracer is not None:
        trace(net.tracer, FN_TCP_RESET_XMIT_TIMER, sk, 1, sks.rto[sk])
    tcp_reset_xmit_timer(net, sk, sks.rto[sk])
    return 0


def _trace_connect(net: Net, sk: int) -> None:
    offered = (TS_OK if net.sysctl.tcp_timestamps else 0) | (SACK_OK if net.sysctl.tcp_sack else 0)
    if net.sysctl.tcp_window_scaling:
        offered |= WSCALE_OK
    if net.tracer is not None:
        trace(
            net.tracer, FN_TCP_CONNECT, sk, net.sks.advmss[sk], net.sks.rcv_wnd[sk], net.sks.wscales[sk] & 15, offered
        )


def tcp_ts_off(net: Net, saddr: int, daddr: int, of_tuple: int) -> int:
    """Offset of the timestamps: of the 4-tuple (`of_tuple`), in older kernels of the addresses, or none (SYN-19)."""
    if net.sysctl.tcp_timestamps != 1 or net.ts_offsets == 0:
        return 0
    if net.ts_offsets == 1:
        return secure_tcp_ts_off(saddr, daddr, net.secrets.seq_k0, net.secrets.seq_k1)
    return of_tuple


def tcp_advertise_mss(net: Net, sk: int) -> int:
    """The MSS to offer: what the route allows now, never more than before (ICMP-04)."""
    sks = net.sks
    rt = sk_dst(net, sk)
    if rt is not None:
        metric = dst_metric_advmss(rt, net.sysctl.min_adv_mss)
        if metric < sks.advmss[sk]:
            sks.advmss[sk] = metric
    return sks.advmss[sk]


def tcp_syn_options(net: Net, sk: int, flags: int) -> None:
    """Options of a SYN, and of the SYN-ACK of a simultaneous open: all that the sysctls allow (SYN-06..09, -21)."""
    sks = net.sks
    th = net.tx_th
    clear_options(th)
    th.mss = tcp_advertise_mss(net, sk)
    th.md5 = 0 if not sks.opts[sk] else _has_md5(net, sk)
    if net.sysctl.tcp_timestamps and not th.md5:
        th.has_ts = 1
        th.tsval = (tcp_jiffies(net) + sks.ts_offset[sk]) & _M32
        th.tsecr = sks.ts_recent[sk]
    if net.sysctl.tcp_window_scaling:
        th.wscale = sks.wscales[sk] & 15
    if net.sysctl.tcp_sack:
        th.sack_perm = 1


def _has_md5(net: Net, sk: int) -> int:
    opts: SockOptions = net.sks.option_sets[net.sks.opts[sk]]
    return 1 if opts.md5_keys and tcp_md5_do_lookup(opts, net.sks.daddr[sk]) is not None else 0


def tcp_send_syn(net: Net, sk: int, flags: int) -> int:
    """Send the SYN, or with ACK in `flags` the SYN-ACK of a simultaneous open; 0 or -errno."""
    sks = net.sks
    th = net.tx_th
    tcp_syn_options(net, sk, flags)
    th.seq = sks.snd_una[sk]
    th.ack = sks.rcv_nxt[sk] if flags & ACK else 0
    th.flags = flags
    window = sks.rcv_wnd[sk]
    th.window = window if window < _U16_MAX else _U16_MAX
    if flags & ACK:
        tcp_event_ack_sent(net, sk)
    if net.tracer is not None:
        trace(net.tracer, FN_TCP_TRANSMIT_SKB, sk, flags, th.seq, th.ack, 0)
    return _tcp_queue_xmit(net, sk, None, 0)


# -- segments of a connection


def tcp_established_options(net: Net, sk: int) -> None:
    """Timestamps and SACK blocks."""
    sks = net.sks
    th = net.tx_th
    clear_options(th)
    if sks.opts[sk]:
        th.md5 = _has_md5(net, sk)
    if sks.optbits[sk] & TS_OK:
        th.has_ts = 1
        th.tsval = (tcp_jiffies(net) + sks.ts_offset[sk]) & _M32
        th.tsecr = sks.ts_recent[sk]
    if sks.flags[sk] & HAS_COLD and sks.optbits[sk] & SACK_OK:
        cold = net.cold[sk]
        if cold.dsack or cold.recent_sacks:
            _sack_blocks(net, sk, cold)


def _sack_blocks(net: Net, sk: int, cold: TcpCold) -> None:
    th = net.tx_th
    room = (40 - (12 if th.has_ts else 0) - (20 if th.md5 else 0) - 4) // 8
    starts = [0, 0, 0, 0]
    ends = [0, 0, 0, 0]
    n = 0
    if cold.dsack and room:
        starts[0], ends[0] = cold.dsack_start, cold.dsack_end
        n = 1
        cold.dsack = False
    for start, end in cold.recent_sacks:
        if n >= room or n >= 4:
            break
        starts[n], ends[n] = start, end
        n += 1
    th.sack_start = starts
    th.sack_end = ends
    th.n_sack = n


def tcp_transmit_skb(net: Net, sk: int, seq: int, flags: int, payload: object, payload_len: int) -> int:
    """Send one segment of a synchronized connection; 0 or -errno."""
    th = net.tx_th
    tcp_established_options(net, sk)
    th.seq = seq
    th.ack = net.sks.rcv_nxt[sk]
    th.flags = flags
    th.window = tcp_select_window(net, sk)
    net.tx_ip.tos = 0
    if net.sks.optbits[sk] & ECN_OK:
        _ecn_send(net, sk, payload_len)
    if flags & ACK:
        tcp_event_ack_sent(net, sk)
    if net.tracer is not None:
        trace(net.tracer, FN_TCP_TRANSMIT_SKB, sk, flags, seq, th.ack, payload_len)
    return _tcp_queue_xmit(net, sk, payload, payload_len)


def _ecn_send(net: Net, sk: int, payload_len: int) -> None:
    """RFC 3168, 6.1: new data is ECN capable; CWR tells that the window was cut, ECE that a mark was seen."""
    th = net.tx_th
    flags = net.sks.flags[sk]
    if payload_len and not before(th.seq, net.sks.snd_nxt[sk]):
        net.tx_ip.tos = 2
        if flags & QUEUE_CWR:
            net.sks.flags[sk] &= ~QUEUE_CWR & _M32
            th.flags |= CWR
    if flags & DEMAND_CWR:
        th.flags |= ECE


def _tcp_queue_xmit(net: Net, sk: int, payload: object, payload_len: int) -> int:
    """ip_queue_xmit: addresses, TTL, TOS, DF and identification of the socket, then out."""
    sks = net.sks
    th = net.tx_th
    rt = sk_dst(net, sk)
    if rt is None:
        return -errno.EHOSTUNREACH
    opts = sks.option_sets[sks.opts[sk]]
    th.sport = sks.sport[sk]
    th.dport = sks.dport[sk]
    th.urg = 0
    ttl = opts.ttl
    if ttl < 0:
        ttl = rt.hoplimit if rt.hoplimit else net.sysctl.ip_default_ttl
    tos = opts.tos & 0xFC
    if payload_len and sks.optbits[sk] & ECN_OK:
        tos |= net.tx_ip.tos
    df = opts.mtu_discover == 2 or (opts.mtu_discover == 1 and not rt.mtu_locked)
    ident = sks.ip_id[sk]
    sks.ip_id[sk] = (ident + 1) & 0xFFFF
    queue = ip_queue_of(net, rt.dev_loopback)
    off = ip_build(net, queue, th, sks.saddr[sk], sks.daddr[sk], ttl, tos, df, ident, payload, payload_len)
    if off < 0:
        return -errno.EMSGSIZE
    if th.md5:
        _sign(net, queue.buffer, off, opts)
    ip_local_out(net, queue, off, rt.dev)
    return 0


def _sign(net: Net, b: PacketBuffer, off: int, opts: SockOptions) -> None:
    """Fill in the MD5 digest of the packet just built, then its checksum again."""
    out = net.tx_ip
    key = tcp_md5_do_lookup(opts, out.daddr)
    if key is not None:
        b.write(net.tx_th.md5_off, tcp_v4_md5_hash(b, off + 20, out.total_len - 20, out.saddr, out.daddr, key))
        seal_segment(b, off)


def tcp_event_ack_sent(net: Net, sk: int) -> None:
    """An ACK is on its way: nothing is owed any more; quick ACKs are counted down."""
    sks = net.sks
    if sks.quick[sk] and sks.flags[sk] & ACK_SCHED:
        sks.quick[sk] -= 1
        if sks.quick[sk] == 0:
            sks.ato[sk] = TCP_ATO_MIN
    if sks.flags[sk] & (ACK_SCHED | ACK_TIMER | ACK_PUSHED | ACK_PUSHED2 | ACK_NOW):
        sks.flags[sk] &= ~(ACK_SCHED | ACK_TIMER | ACK_PUSHED | ACK_PUSHED2 | ACK_NOW) & _M32
        inet_csk_clear_delack_timer(net, sk)


def tcp_acceptable_seq(sks: TcpSockTable, sk: int) -> int:
    """snd_nxt, or the end of the peer's window if that has shrunk below it."""
    nxt = sks.snd_nxt[sk]
    end = (sks.snd_una[sk] + sks.snd_wnd[sk]) & _M32
    beyond = (nxt - end) & _M32
    if beyond == 0 or beyond >> 31:
        return nxt
    if sks.optbits[sk] & WSCALE_OK and beyond < 1 << (sks.wscales[sk] & 15):
        return nxt
    return end


def tcp_send_ack(net: Net, sk: int) -> int:
    """Send an ACK without data."""
    if net.tracer is not None:
        trace(net.tracer, FN_TCP_SEND_ACK, sk, net.sks.snd_nxt[sk], net.sks.rcv_nxt[sk])
    net.mib.TcpOutSegs += 1
    return tcp_transmit_skb(net, sk, tcp_acceptable_seq(net.sks, sk), ACK, None, 0)


def tcp_send_synack(net: Net, sk: int) -> int:
    """Answer a SYN in SYN_SENT: our SYN again, now with ACK (RSP-23)."""
    if net.tracer is not None:
        trace(net.tracer, FN_TCP_SEND_SYNACK, sk, net.sks.snd_una[sk], net.sks.rcv_nxt[sk])
    return tcp_send_syn(net, sk, SYN | ACK | (ECE if net.sks.optbits[sk] & ECN_OK else 0))


def tcp_send_active_reset(net: Net, sk: int) -> int:
    """RST of our own accord: close() with unread data, SO_LINGER 0, AF_UNSPEC."""
    net.mib.TcpOutRsts += 1
    net.mib.TcpOutSegs += 1
    return tcp_transmit_skb(net, sk, tcp_acceptable_seq(net.sks, sk), ACK | RST, None, 0)


def tcp_xmit_probe_skb(net: Net, sk: int, urgent: bool) -> int:
    """Keepalive and window probe: an ACK one below snd_una, which any peer answers."""
    seq = (net.sks.snd_una[sk] - (0 if urgent else 1)) & _M32
    net.mib.TcpOutSegs += 1
    return tcp_transmit_skb(net, sk, seq, ACK, None, 0)


def tcp_send_delayed_ack(net: Net, sk: int) -> int:
    """Owe an ACK: within the delayed-ACK timeout, or now if one is nearly due already."""
    sks = net.sks
    ato = sks.ato[sk]
    if ato > TCP_ATO_MIN:
        limit = TCP_DELACK_MAX if sks.flags[sk] & (PINGPONG | ACK_PUSHED) else 500
        rtt = max((sks.srtt[sk] >> 3) // 1000, TCP_ATO_MIN)
        if sks.srtt[sk] and rtt < limit:
            limit = rtt
        if ato > limit:
            ato = limit
    if ato > TCP_DELACK_MAX - 1:
        ato = TCP_DELACK_MAX - 1
    due = net.now_us + ato * 1000
    if sks.flags[sk] & ACK_TIMER:
        pending = net.wheel.due[sks.timer_delack[sk]]
        if pending <= net.now_us + (ato >> 2) * 1000:
            return tcp_send_ack(net, sk)
        if due > pending:
            due = pending
    sks.flags[sk] |= ACK_SCHED | ACK_TIMER
    tcp_reset_delack_timer(net, sk, due)
    return 0


def tcp_retransmit_syn(net: Net, sk: int) -> int:
    """Send the SYN (SYN_SENT) or SYN-ACK (SYN_RECV) again, without ECN if tcp_ecn_fallback (SYN-16)."""
    sks = net.sks
    flags = SYN
    if sks.sk_state[sk] == TCP_SYN_RECV:
        flags |= ACK
        if sks.optbits[sk] & ECN_OK:
            flags |= ECE
    elif sks.flags[sk] & ECN_SYN and not net.sysctl.tcp_ecn_fallback:
        flags |= ECE | CWR
    error = tcp_send_syn(net, sk, flags)
    sks.total_retrans[sk] += 1
    net.mib.TcpRetransSegs += 1
    net.mib.TcpExtTCPSynRetrans += 1
    sks.flags[sk] |= UNDO
    if net.tracer is not None:
        trace(net.tracer, FN_TCP_RETRANSMIT_SKB, sk, flags, sks.snd_una[sk], 1, sks.total_retrans[sk])
    return error


def tcp_rto_max(net: Net, sk: int) -> int:
    """Upper bound of the retransmission timeout, us (RTX-12, -13)."""
    opts = net.sks.option_sets[net.sks.opts[sk]]
    limit = opts.rto_max_ms
    return (limit if limit else net.sysctl.tcp_rto_max_ms) * 1000
