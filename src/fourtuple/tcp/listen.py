"""Listening (net/ipv4/inet_connection_sock.c and tcp_minisocks.c): requests, children, the accept queue.

Lives here: a listener's SYN queue and accept queue, SYN-ACKs and their retransmission, the birth of a child.
Not here: SYN cookies, Fast Open, TCP_DEFER_ACCEPT.
"""

from __future__ import annotations

import errno
from collections import deque

from fourtuple.inet.connection_sock import inet_csk_get_port
from fourtuple.inet.flags import CHILD, DEAD, KEEPOPEN, NODELAY, RECVERR, REUSE, REUSEPORT, TRANSPARENT
from fourtuple.inet.hashtables import inet_hash, inet_inherit_port, inet_lookup_listener
from fourtuple.inet.secrets import get_random_u32
from fourtuple.inet.secure_seq import secure_tcp_seq_and_ts_off, seq_scale
from fourtuple.ip.netns import net_route
from fourtuple.ip.output import ip_build, ip_local_out, ip_queue_of
from fourtuple.ip.route import Route, dst_metric_advmss
from fourtuple.kernel_map import (
    FN_INET_CSK_ACCEPT,
    FN_INET_CSK_LISTEN_START,
    FN_TCP_CONN_REQUEST,
    FN_TCP_SEND_SYNACK,
    FN_TCP_V4_SYN_RECV_SOCK,
)
from fourtuple.tcp.constants import (
    EV_IN,
    RCV_DONE,
    RCV_RESET,
    TCP_MSS_DEFAULT,
    TIMER_REQSK,
)
from fourtuple.tcp.input import tcp_rcv_state_process
from fourtuple.tcp.input_ack import tcp_rtt_estimator, tcp_set_rto
from fourtuple.tcp.input_synsent import keepalive_time_when
from fourtuple.tcp.net import (
    Net,
    cold_get,
    cold_of,
    net_event,
    tcp_jiffies,
    tcp_reset_keepalive_timer,
)
from fourtuple.tcp.output import (
    tcp_initialize_rcv_mss,
    tcp_rto_max,
    tcp_sync_mss,
    tcp_ts_off,
)
from fourtuple.tcp.sock import ECN_OK, SACK_OK, TS_OK, WSCALE_OK
from fourtuple.tcp.states import TCP_CLOSE, TCP_LISTEN, TCP_SYN_RECV
from fourtuple.tcp.tcp import inet_csk_destroy_sock, tcp_disconnect, tcp_init_sock, tcp_set_state
from fourtuple.tcp.window import (
    tcp_full_space,
    tcp_select_initial_window,
)
from fourtuple.trace import trace
from fourtuple.wheel import wheel_arm, wheel_cancel
from fourtuple.wire.seq import after, before
from fourtuple.wire.tcp import ACK, CWR, ECE, FIN, RST, SYN, clear_options

_M32 = 0xFFFFFFFF
_U16_MAX = 65535
_INHERITED = REUSE | REUSEPORT | TRANSPARENT | KEEPOPEN | NODELAY | RECVERR  # flags a child takes over
_Key = tuple[int, int, int]


class RequestSock:
    """One SYN that was answered (struct tcp_request_sock)."""

    __slots__ = (
        "advmss", "clamp", "dst", "ecn", "key", "saddr", "listener", "sport", "mss", "node", "num_timeout", "daddr",
        "rcv_isn", "rcv_wnd", "retrans", "dport", "sack", "sent_us", "serial", "snt_isn", "ts", "ts_off", "ts_recent",
        "wscale_ok", "wscales",
    )  # fmt: skip

    def __init__(self, net: Net, listener: int) -> None:
        th, ip = net.rx_th, net.rx_ip
        net.reqsk_serial = (net.reqsk_serial + 1) & 0x7FFFFFFF
        self.serial = net.reqsk_serial
        self.listener = listener
        self.daddr, self.dport = ip.saddr, th.sport
        self.saddr, self.sport = ip.daddr, th.dport
        self.key: _Key = (self.daddr, self.dport, self.saddr)
        self.rcv_isn = th.seq
        self.sent_us = net.now_us
        self.num_timeout = self.retrans = self.node = 0
        self._accept_options(net)
        self.snt_isn = self.ts_off = self.rcv_wnd = self.clamp = self.advmss = self.dst = 0

    def _accept_options(self, net: Net) -> None:
        th = net.rx_th
        opts = net.sks.option_sets[net.sks.opts[self.listener]]
        mss = th.mss if th.mss else TCP_MSS_DEFAULT
        if opts.user_mss and opts.user_mss < mss:
            mss = opts.user_mss
        self.mss = mss
        self.ts = th.has_ts != 0 and net.sysctl.tcp_timestamps != 0
        self.ts_recent = th.tsval if self.ts else 0
        self.sack = th.sack_perm != 0 and net.sysctl.tcp_sack != 0
        self.wscale_ok = th.wscale >= 0 and net.sysctl.tcp_window_scaling != 0
        self.wscales = (th.wscale if th.wscale < 14 else 14) << 4 if self.wscale_ok else 0
        self.ecn = net.sysctl.tcp_ecn != 0 and th.flags & ECE != 0 and th.flags & CWR != 0


class Listener:
    """The two queues of a socket in LISTEN (struct request_sock_queue)."""

    __slots__ = ("accept_queue", "backlog", "requests", "sk")

    def __init__(self, sk: int, backlog: int) -> None:
        self.sk = sk
        self.backlog = backlog
        self.requests: dict[_Key, RequestSock] = {}
        self.accept_queue: deque[int] = deque()

    def accept_is_full(self) -> bool:
        """sk_acceptq_is_full: one more than the backlog fits."""
        return len(self.accept_queue) > self.backlog

    def drop(self, net: Net, req: RequestSock) -> None:
        """Forget a request."""
        self.requests.pop(req.key, None)
        net.requests.pop(req.serial, None)
        if req.node:
            wheel_cancel(net.wheel, req.node)
            req.node = 0

    def stop(self, net: Net) -> None:
        """inet_csk_listen_stop: requests vanish, children not yet accepted are reset."""
        for req in list(self.requests.values()):
            self.drop(net, req)
        while self.accept_queue:
            child = self.accept_queue.popleft()
            tcp_disconnect(net, child)
            net.sks.flags[child] |= DEAD
            inet_csk_destroy_sock(net, child)


# -- socket calls


def inet_csk_listen_start(net: Net, sk: int, backlog: int) -> int:
    """CLOSE -> LISTEN on the bound port, or a new backlog for a listener: 0 | -EADDRINUSE."""
    if net.tracer is not None:
        trace(net.tracer, FN_INET_CSK_LISTEN_START, sk, net.sks.num[sk], backlog)
    cold = cold_get(net, sk)
    if net.sks.sk_state[sk] == TCP_LISTEN and cold.listener is not None:
        cold.listener.backlog = backlog
        return 0
    cold.listener = Listener(sk, backlog)
    tcp_set_state(net, sk, TCP_LISTEN)
    error = inet_csk_get_port(net.h, sk, net.sks.num[sk])
    if error < 0:
        cold.listener = None
        net.sks.sk_state[sk] = TCP_CLOSE  # inet_sk_set_state alone: a port from bind(addr, 0) stays the socket's
        return error
    net.sks.sport[sk] = net.sks.num[sk]
    inet_hash(net.h, sk)
    return 0


def inet_csk_accept(net: Net, sk: int) -> int:
    """Row of the oldest child, or -EAGAIN, or -EINVAL for a socket that does not listen."""
    cold = cold_of(net, sk)
    if net.sks.sk_state[sk] != TCP_LISTEN or cold is None or cold.listener is None:
        return -errno.EINVAL
    if not cold.listener.accept_queue:
        return -errno.EAGAIN
    listener: Listener = cold.listener
    child: int = listener.accept_queue.popleft()
    net.sks.flags[child] &= ~CHILD & _M32
    if net.tracer is not None:
        trace(net.tracer, FN_INET_CSK_ACCEPT, sk, child)
    return child


# -- input


def tcp_v4_listen_rcv(net: Net, sk: int) -> int:
    """A segment for a listener: a known request, a new SYN, or nonsense."""
    cold = cold_of(net, sk)
    if cold is None or cold.listener is None:
        return RCV_DONE
    listener: Listener = cold.listener
    th = net.rx_th
    req = listener.requests.get((net.rx_ip.saddr, th.sport, net.rx_ip.daddr))
    if req is not None:
        return tcp_check_req(net, listener, req)
    if th.flags & RST:
        return RCV_DONE
    if th.flags & ACK:
        return RCV_RESET
    if th.flags & SYN and not th.flags & FIN:
        tcp_conn_request(net, listener)
    return RCV_DONE


def tcp_conn_request(net: Net, listener: Listener) -> None:
    """A SYN: remember it and answer, if both queues have room."""
    if net.tracer is not None:
        trace(net.tracer, FN_TCP_CONN_REQUEST, listener.sk, net.rx_ip.saddr, net.rx_th.sport, len(listener.requests))
    most = listener.backlog if listener.backlog > 1 else 1
    if len(listener.requests) >= most and not net.sysctl.tcp_syncookies:
        net.mib.TcpExtTCPReqQFullDrop += 1
        net.mib.TcpExtListenDrops += 1
        return
    if listener.accept_is_full():
        net.mib.TcpExtListenOverflows += 1
        net.mib.TcpExtListenDrops += 1
        return
    req = RequestSock(net, listener.sk)
    found = net_route(net, req.daddr, req.saddr, net.sks.bound_dev[listener.sk])
    if isinstance(found, int):
        net.mib.TcpExtListenDrops += 1
        return
    route = found
    _openreq_init(net, req, route)
    listener.requests[req.key] = req
    net.requests[req.serial] = req
    tcp_v4_send_synack(net, req)
    req.node = wheel_arm(net.wheel, net.now_us + net.initial_rto, req.serial, TIMER_REQSK)


def _openreq_init(net: Net, req: RequestSock, route: Route) -> None:
    """Sequence number, timestamp offset and windows of the answer (tcp_openreq_init_rwin)."""
    sks, sk = net.sks, req.listener
    rt = route.rt
    wide = secure_tcp_seq_and_ts_off(req.saddr, req.daddr, req.sport, req.dport, net.secrets.seq_k0, net.secrets.seq_k1)
    req.snt_isn = seq_scale(wide & _M32, net.now_us)
    req.ts_off = tcp_ts_off(net, req.saddr, req.daddr, wide >> 32)
    req.dst = rt.index
    opts = sks.option_sets[sks.opts[sk]]
    mss = dst_metric_advmss(rt, net.sysctl.min_adv_mss)
    req.advmss = opts.user_mss if opts.user_mss and opts.user_mss < mss else mss
    sks.window_clamp[sk] = opts.window_clamp if opts.window_clamp else rt.window
    usable = req.advmss - (12 if req.ts else 0)
    scale = tcp_select_initial_window(net, sk, tcp_full_space(net, sk), usable, req.wscale_ok, rt.initrwnd)
    req.wscales |= scale
    req.rcv_wnd, req.clamp = sks.rcv_wnd[sk], sks.window_clamp[sk]
    sks.window_clamp[sk] = 0


def tcp_v4_send_synack(net: Net, req: RequestSock) -> None:
    """SYN-ACK with what both sides offered."""
    th = net.tx_th
    clear_options(th)
    th.sport, th.dport = req.sport, req.dport
    th.seq, th.ack = req.snt_isn, (req.rcv_isn + 1) & _M32
    th.flags = SYN | ACK | (ECE if req.ecn else 0)
    th.window = req.rcv_wnd if req.rcv_wnd < _U16_MAX else _U16_MAX
    th.urg = 0
    th.mss = req.advmss
    if req.ts:
        th.has_ts = 1
        th.tsval = (tcp_jiffies(net) + req.ts_off) & _M32
        th.tsecr = req.ts_recent
    th.sack_perm = 1 if req.sack else 0
    if req.wscale_ok:
        th.wscale = req.wscales & 15
    if net.tracer is not None:
        trace(net.tracer, FN_TCP_SEND_SYNACK, req.listener, th.seq, th.ack)
    _send_for_request(net, req)


def _send_for_request(net: Net, req: RequestSock) -> None:
    opts = net.sks.option_sets[net.sks.opts[req.listener]]
    rt = net.rtables[req.dst]
    ttl = opts.ttl
    if ttl < 0:
        ttl = rt.hoplimit if rt.hoplimit else net.sysctl.ip_default_ttl
    queue = ip_queue_of(net, rt.dev_loopback)
    df = opts.mtu_discover == 2 or (opts.mtu_discover == 1 and not rt.mtu_locked)
    off = ip_build(net, queue, net.tx_th, req.saddr, req.daddr, ttl, opts.tos & 0xFC, df, 0, None, 0)
    if off >= 0:
        net.mib.TcpOutSegs += 1
        ip_local_out(net, queue, off, rt.dev)


def reqsk_timer_handler(net: Net, serial: int) -> None:
    """The SYN-ACK was not answered: again with twice the wait, tcp_synack_retries times."""
    req = net.requests.get(serial)
    if req is None:
        return
    req.node = 0
    cold = cold_of(net, req.listener)
    if cold is None or cold.listener is None:
        net.requests.pop(serial, None)
        return
    if req.num_timeout >= net.sysctl.tcp_synack_retries:
        listener: Listener = cold.listener
        listener.drop(net, req)
        return
    req.num_timeout += 1
    _retransmit_synack(net, req)
    delay = net.initial_rto << req.num_timeout
    limit = tcp_rto_max(net, req.listener)
    req.node = wheel_arm(net.wheel, net.now_us + (delay if delay < limit else limit), serial, TIMER_REQSK)


def _retransmit_synack(net: Net, req: RequestSock) -> None:
    tcp_v4_send_synack(net, req)
    req.retrans += 1
    net.mib.TcpRetransSegs += 1
    net.mib.TcpExtTCPSynRetrans += 1


def tcp_check_req(net: Net, listener: Listener, req: RequestSock) -> int:
    """A segment for a request: the ACK that makes it a connection, or something else (RFC 9293, 3.10.7.4)."""
    th = net.rx_th
    flags = th.flags & (SYN | ACK | RST)
    rcv_nxt = (req.rcv_isn + 1) & _M32
    paws = req.ts and th.has_ts and before(th.tsval, req.ts_recent)
    if th.seq == req.rcv_isn and flags == SYN and not paws:
        _retransmit_synack(net, req)
        return RCV_DONE
    if flags & ACK and th.ack != (req.snt_isn + 1) & _M32:
        return RCV_DONE if flags & RST else RCV_RESET
    end_seq = (th.seq + th.payload_len + (th.flags & FIN) + (th.flags >> 1 & 1)) & _M32
    if paws or not _in_window(th.seq, end_seq, rcv_nxt, (rcv_nxt + req.rcv_wnd) & _M32):
        if paws:
            net.mib.TcpExtPAWSEstab += 1
        if not flags & RST:
            _reqsk_send_ack(net, req)
        return RCV_DONE
    if req.ts and th.has_ts and not after(th.seq, rcv_nxt):
        req.ts_recent = th.tsval
    if th.seq == req.rcv_isn:
        flags &= ~SYN
    if flags & (RST | SYN):
        net.mib.TcpAttemptFails += 1
        net.mib.TcpExtEmbryonicRsts += 1
        listener.drop(net, req)
        return RCV_DONE if flags & RST else RCV_RESET
    if not flags & ACK:
        return RCV_DONE
    return tcp_v4_syn_recv_sock(net, listener, req)


def _in_window(seq: int, end_seq: int, low: int, high: int) -> bool:
    if seq == low or (after(end_seq, low) and before(seq, high)):
        return True
    return seq == high and seq == end_seq


def _reqsk_send_ack(net: Net, req: RequestSock) -> None:
    th = net.tx_th
    clear_options(th)
    th.sport, th.dport = req.sport, req.dport
    th.seq, th.ack = (req.snt_isn + 1) & _M32, (req.rcv_isn + 1) & _M32
    th.flags = ACK
    window = req.rcv_wnd >> (req.wscales & 15)
    th.window = window if window < _U16_MAX else _U16_MAX
    th.urg = 0
    if req.ts:
        th.has_ts = 1
        th.tsval = (tcp_jiffies(net) + req.ts_off) & _M32
        th.tsecr = req.ts_recent
    _send_for_request(net, req)


def tcp_v4_syn_recv_sock(net: Net, listener: Listener, req: RequestSock) -> int:
    """The handshake is complete: a child in SYN_RECV, which the same segment makes ESTABLISHED."""
    if listener.accept_is_full():
        net.mib.TcpExtListenOverflows += 1
        net.mib.TcpExtListenDrops += 1
        if net.sysctl.tcp_abort_on_overflow:
            listener.drop(net, req)
            return RCV_RESET
        return RCV_DONE
    row = tcp_init_sock(net)
    if row < 0:
        net.mib.TcpExtListenDrops += 1
        return RCV_DONE
    child = row
    listener.drop(net, req)
    _create_openreq_child(net, listener.sk, child, req)
    inet_inherit_port(net.h, listener.sk, child)
    inet_hash(net.h, child)
    net.mib.TcpPassiveOpens += 1
    if net.tracer is not None:
        trace(net.tracer, FN_TCP_V4_SYN_RECV_SOCK, listener.sk, child)
    if req.retrans == 0:
        tcp_rtt_estimator(net, child, net.now_us - req.sent_us)
        tcp_set_rto(net, child)
    answer = tcp_rcv_state_process(net, child)
    listener.accept_queue.append(child)
    net_event(net, listener.sk, EV_IN)
    return answer


def _create_openreq_child(net: Net, parent: int, child: int, req: RequestSock) -> None:
    sks = net.sks
    sks.saddr[child], sks.daddr[child] = req.saddr, req.daddr
    sks.dport[child] = req.dport
    sks.bound_dev[child] = sks.bound_dev[parent]
    sks.opts[child] = sks.opts[parent]
    sks.userlocks[child] = sks.userlocks[parent] & 0xF7  # not SOCK_BINDPORT_LOCK
    sks.flags[child] = (sks.flags[parent] & _INHERITED) | CHILD
    sks.shutdown[child] = sks.shutdown[parent]  # shutdown() before listen() sticks (ST-10)
    sks.sk_state[child] = TCP_SYN_RECV
    sks.dst[child] = req.dst
    sks.dst_gen[child] = net.fib_generation & 0xFFFF
    sks.ip_id[child] = get_random_u32(net.secrets) & 0xFFFF
    _child_sequence(net, child, req)
    _child_options(net, child, req)
    tcp_sync_mss(net, child, net.rtables[req.dst].mtu)
    tcp_initialize_rcv_mss(net, child)
    if sks.flags[child] & KEEPOPEN:
        tcp_reset_keepalive_timer(net, child, keepalive_time_when(net, child))


def _child_sequence(net: Net, child: int, req: RequestSock) -> None:
    sks = net.sks
    nxt, rcv = (req.snt_isn + 1) & _M32, (req.rcv_isn + 1) & _M32
    sks.write_seq[child] = nxt
    sks.snd_una[child] = nxt
    sks.snd_nxt[child] = nxt
    sks.rcv_nxt[child] = rcv
    sks.rcv_wup[child] = rcv
    sks.copied_seq[child] = rcv
    sks.snd_wl1[child] = req.rcv_isn
    window = net.rx_th.window << (req.wscales >> 4)
    sks.snd_wnd[child] = window
    sks.max_window[child] = window
    sks.rcv_wnd[child] = req.rcv_wnd
    sks.rcv_ssthresh[child] = req.rcv_wnd
    sks.window_clamp[child] = req.clamp
    sks.total_retrans[child] = req.retrans
    sks.lrcvtime[child] = tcp_jiffies(net)


def _child_options(net: Net, child: int, req: RequestSock) -> None:
    sks = net.sks
    bits = (TS_OK if req.ts else 0) | (SACK_OK if req.sack else 0)
    bits |= (WSCALE_OK if req.wscale_ok else 0) | (ECN_OK if req.ecn else 0)
    sks.optbits[child] = bits
    sks.wscales[child] = req.wscales if req.wscale_ok else 0
    sks.mss_clamp[child] = req.mss
    sks.advmss[child] = req.advmss
    if req.ts:
        sks.ts_recent[child] = req.ts_recent
        seconds = net.now_us // 1_000_000
        sks.ts_recent_stamp[child] = seconds if seconds else 1
        sks.ts_offset[child] = req.ts_off


def tcp_req_err(net: Net, daddr: int, dport: int, saddr: int, sport: int, seq: int) -> bool:
    """An ICMP error about a SYN-ACK: the request is dropped; false if there is no such request."""
    sk = inet_lookup_listener(net.h, saddr, sport, net.rx_dev)
    cold = cold_of(net, sk) if sk else None
    if cold is None or cold.listener is None:
        return False
    req = cold.listener.requests.get((daddr, dport, saddr))
    if req is None:
        return False
    if seq != req.snt_isn:
        net.mib.TcpExtOutOfWindowIcmps += 1
    else:
        cold.listener.drop(net, req)
        net.mib.TcpExtListenDrops += 1
    return True
