"""TCP over IPv4 (net/ipv4/tcp_ipv4.c): connect, the way in from IP, RST without a socket, ICMP errors.

Rule: a segment that is malformed, has a wrong checksum or belongs to nobody changes counters, nothing else.
"""

from __future__ import annotations

import errno

from fourtuple.inet.flags import RECVERR, REPAIR, SADDR_WILD
from fourtuple.inet.hashtables import (
    inet_bhash2_reset_saddr,
    inet_bhash2_update_saddr,
    inet_hash_connect,
    inet_lookup_established,
    inet_lookup_listener,
)
from fourtuple.inet.secrets import get_random_u32
from fourtuple.inet.secure_seq import secure_tcp_seq_and_ts_off, seq_scale
from fourtuple.inet.sock_options import SockOptions
from fourtuple.ip.fib_table import Flow
from fourtuple.ip.icmp import ICMP_ERR_CONVERT, IcmpProtocol
from fourtuple.ip.netns import IpNet, net_refresh, net_route
from fourtuple.ip.output import ip_build, ip_local_out, ip_queue_of
from fourtuple.ip.protocol import NetProtocol
from fourtuple.ip.route import Rtable, update_pmtu
from fourtuple.ip.rtnetlink import RTN_BROADCAST, RTN_MULTICAST
from fourtuple.kernel_map import (
    FN_INET_LOOKUP_ESTABLISHED,
    FN_INET_LOOKUP_LISTENER,
    FN_IP_ROUTE_CONNECT,
    FN_SECURE_TCP_SEQ_AND_TS_OFF,
    FN_TCP_V4_CONNECT,
    FN_TCP_V4_ERR,
    FN_TCP_V4_RCV,
    FN_TCP_V4_SEND_RESET,
)
from fourtuple.tcp.constants import (
    EV_ERR,
    RCV_RESET,
    TW_ACK,
    TW_RST,
    TW_SYN,
)
from fourtuple.tcp.input import tcp_rcv_established, tcp_rcv_state_process
from fourtuple.tcp.input_synsent import tcp_finish_connect
from fourtuple.tcp.listen import tcp_req_err, tcp_v4_listen_rcv
from fourtuple.tcp.md5 import tcp_inbound_md5_ok, tcp_md5_do_lookup
from fourtuple.tcp.minisocks import (
    inet_twsk_deschedule,
    tcp_timewait_state_process,
    tcp_v4_timewait_ack,
)
from fourtuple.tcp.net import (
    Net,
    cold_get,
    net_event,
)
from fourtuple.tcp.output import sk_dst, sk_route, tcp_connect, tcp_connect_init, tcp_sync_mss, tcp_ts_off
from fourtuple.tcp.recovery import tcp_simple_retransmit
from fourtuple.tcp.states import TCP_CLOSE, TCP_ESTABLISHED, TCP_LISTEN, TCP_SYN_RECV, TCP_SYN_SENT
from fourtuple.tcp.tcp import tcp_done_with_error, tcp_set_state
from fourtuple.tcp.tcp import tcp_init_sock as tcp_init_sock  # a caller of tcp_v4_connect needs it too
from fourtuple.trace import trace
from fourtuple.wire.buffer import PacketBuffer, get16, get32
from fourtuple.wire.icmp import (
    ICMP_DEST_UNREACH,
    ICMP_FRAG_NEEDED,
    ICMP_HOST_UNREACH,
    ICMP_NET_UNREACH,
    ICMP_PARAMETERPROB,
    ICMP_REDIRECT,
    ICMP_SOURCE_QUENCH,
    ICMP_TIME_EXCEEDED,
)
from fourtuple.wire.ipv4 import PROTO_ICMP, PROTO_TCP
from fourtuple.wire.seq import between
from fourtuple.wire.tcp import ACK, FIN, RST, clear_options, parse_tcp, verify_tcp

_M32 = 0xFFFFFFFF
_BINDADDR_LOCK = 4
_RTN_BROADCAST = RTN_BROADCAST
_RTN_MULTICAST = RTN_MULTICAST
_ENETUNREACH = errno.ENETUNREACH
_PMTUDISC_DONT = 0
_SO_EE_ORIGIN_ICMP = 2


# -- connect


def tcp_v4_init(net: Net) -> None:
    """Register TCP and ICMP with IP (inet_init)."""
    net.protocols[PROTO_TCP] = TcpProtocol()
    net.protocols[PROTO_ICMP] = IcmpProtocol()


def tcp_v4_connect(net: Net, sk: int, daddr: int, dport: int) -> int:
    """Start a connection: 0 once the SYN is on its way, else -errno with the socket as it was (ERR-17..28)."""
    sks = net.sks
    net_refresh(net)
    if net.tracer is not None:
        trace(net.tracer, FN_TCP_V4_CONNECT, sk, daddr, dport, sks.num[sk])
    saddr = 0 if sks.flags[sk] & SADDR_WILD else sks.saddr[sk]
    found = sk_route(net, sk, daddr, saddr)
    if isinstance(found, int):
        return _no_route(net, sk, found)
    route = found
    rt = route.rt
    if net.tracer is not None:
        trace(net.tracer, FN_IP_ROUTE_CONNECT, sk, 0, route.saddr, rt.dev, rt.gateway)
    if rt.rt_type == _RTN_BROADCAST or rt.rt_type == _RTN_MULTICAST:
        return -_ENETUNREACH
    if saddr == 0:
        inet_bhash2_update_saddr(net.h, sk, route.saddr)
        sks.flags[sk] &= ~SADDR_WILD & _M32
        sks.flags[sk] &= ~SADDR_WILD & _M32
    if sks.ts_recent_stamp[sk] and sks.daddr[sk] != route.daddr:
        sks.ts_recent[sk] = 0
        sks.ts_recent_stamp[sk] = 0
        sks.write_seq[sk] = 0
    sks.dport[sk] = dport
    sks.daddr[sk] = route.daddr
    # SYN_SENT before there is a port and before any packet: from here on the socket can be found.
    tcp_set_state(net, sk, TCP_SYN_SENT)
    port = inet_hash_connect(net.h, sk, net.now_us)
    if port < 0:
        return _connect_failed(net, sk, port)
    if net.h.tw_recycled:
        net.mib.TcpExtTWRecycled += 1
    sks.dst[sk] = rt.index
    sks.dst_gen[sk] = net.fib_generation & 0xFFFF
    _choose_sequence(net, sk)
    sks.ip_id[sk] = get_random_u32(net.secrets) & 0xFFFF
    if sks.flags[sk] & REPAIR:
        tcp_connect_init(net, sk)
        tcp_finish_connect(net, sk)
        return 0
    return tcp_connect(net, sk)


def _no_route(net: Net, sk: int, error: int) -> int:
    if net.tracer is not None:
        trace(net.tracer, FN_IP_ROUTE_CONNECT, sk, error)
    if error == -_ENETUNREACH:
        net.mib.IpOutNoRoutes += 1
    return error


def _connect_failed(net: Net, sk: int, error: int) -> int:
    """No port: back to CLOSE, the automatic source address forgotten (ERR-28, SRC-05)."""
    tcp_set_state(net, sk, TCP_CLOSE)
    if not net.sks.userlocks[sk] & _BINDADDR_LOCK:
        inet_bhash2_reset_saddr(net.h, sk)
    net.sks.dport[sk] = 0
    return error


def _choose_sequence(net: Net, sk: int) -> None:
    """Initial sequence number and timestamp offset, both from one keyed hash of the 4-tuple (SYN-18, -19).

    A sequence number that is set already stays: a second attempt on one socket, a TIME_WAIT reused (ST-32, TW-02).
    """
    sks = net.sks
    wide = secure_tcp_seq_and_ts_off(
        sks.saddr[sk], sks.daddr[sk], sks.sport[sk], sks.dport[sk], net.secrets.seq_k0, net.secrets.seq_k1
    )
    if sks.write_seq[sk] == 0:
        sks.write_seq[sk] = seq_scale(wide & _M32, net.now_us)
    sks.ts_offset[sk] = tcp_ts_off(net, sks.saddr[sk], sks.daddr[sk], wide >> 32)
    if net.tracer is not None:
        trace(net.tracer, FN_SECURE_TCP_SEQ_AND_TS_OFF, sk, sks.write_seq[sk], sks.ts_offset[sk])


# -- input


class TcpProtocol(NetProtocol):
    """Registered for IP protocol 6."""

    __slots__ = ()

    def handler(self, net: IpNet, b: PacketBuffer, off: int, length: int, dev: int) -> int:
        """tcp_v4_rcv."""
        return tcp_v4_rcv(net, b, off, length, dev)  # type: ignore[arg-type]

    def err_handler(
        self, net: IpNet, b: PacketBuffer, off: int, length: int, icmp_type: int, code: int, info: int
    ) -> int:
        """tcp_v4_err."""
        return tcp_v4_err(net, b, off, length, icmp_type, code, info)  # type: ignore[arg-type]


def tcp_v4_rcv(net: Net, b: PacketBuffer, off: int, length: int, dev: int) -> int:
    """A segment for an address of ours; IP header in net.rx_ip."""
    th = net.rx_th
    ip = net.rx_ip
    net.mib.TcpInSegs += 1
    reason = parse_tcp(b, off, length, th)
    if reason != 0:
        net.mib.TcpInErrs += 1
        return 0
    if not verify_tcp(b, off, length, ip.saddr, ip.daddr):
        net.mib.TcpInCsumErrors += 1
        net.mib.TcpInErrs += 1
        return 0
    net.rx_buf = b
    entry = inet_lookup_established(net.h, ip.saddr, th.sport, ip.daddr, th.dport, dev)
    if net.tracer is not None:
        trace(net.tracer, FN_TCP_V4_RCV, entry >> 1, th.flags, th.seq, th.ack, th.payload_len)
        trace(net.tracer, FN_INET_LOOKUP_ESTABLISHED, entry >> 1, entry, ip.saddr, th.sport, th.dport)
    if entry & 1:
        return _timewait_rcv(net, entry >> 1, dev)
    sk = entry >> 1
    if sk == 0:
        sk = inet_lookup_listener(net.h, ip.daddr, th.dport, dev)
        if net.tracer is not None:
            trace(net.tracer, FN_INET_LOOKUP_LISTENER, sk, ip.daddr, th.dport)
        if sk == 0:
            return tcp_v4_send_reset(net)
    if net.sks.opts[sk] or th.md5:
        if not _passes_filters(net, sk, b, off, length):
            return 0
    return tcp_v4_do_rcv(net, sk)


def _passes_filters(net: Net, sk: int, b: PacketBuffer, off: int, length: int) -> bool:
    """IP_MINTTL and the MD5 signature."""
    opts = net.sks.option_sets[net.sks.opts[sk]]
    if net.rx_ip.ttl < opts.min_ttl:
        net.mib.TcpExtTCPMinTTLDrop += 1
        return False
    if opts.md5_keys or net.rx_th.md5:
        return _md5_good(net, opts, b, off, length)
    return True


def _md5_good(net: Net, opts: SockOptions, b: PacketBuffer, off: int, length: int) -> bool:
    ip = net.rx_ip
    key = tcp_md5_do_lookup(opts, ip.saddr)
    if key is None:
        if net.rx_th.md5:
            net.mib.TcpExtTCPMD5Unexpected += 1
        return not net.rx_th.md5
    if not net.rx_th.md5:
        net.mib.TcpExtTCPMD5NotFound += 1
        return False
    if not tcp_inbound_md5_ok(b, off, length, ip.saddr, ip.daddr, net.rx_th.md5_off, key):
        net.mib.TcpExtTCPMD5Failure += 1
        return False
    return True


def tcp_v4_do_rcv(net: Net, sk: int) -> int:
    """The segment belongs to `sk`: by its state; a RST if that is the answer."""
    state = net.sks.sk_state[sk]
    if state == TCP_ESTABLISHED:
        answer = tcp_rcv_established(net, sk)
    elif state == TCP_LISTEN:
        answer = tcp_v4_listen_rcv(net, sk)
    else:
        answer = tcp_rcv_state_process(net, sk)
    if answer == RCV_RESET:
        tcp_v4_send_reset(net)
    return 0


def _timewait_rcv(net: Net, tw: int, dev: int) -> int:
    """A segment for a TIME_WAIT row; a new SYN may bring its 4-tuple back to a listener."""
    verdict = tcp_timewait_state_process(net, tw)
    if verdict == TW_SYN:
        sk = inet_lookup_listener(net.h, net.rx_ip.daddr, net.rx_th.dport, dev)
        if sk:
            inet_twsk_deschedule(net, tw)
            return tcp_v4_do_rcv(net, sk)
        verdict = TW_ACK
    if verdict == TW_ACK:
        tcp_v4_timewait_ack(net, tw)
    elif verdict == TW_RST:
        tcp_v4_send_reset(net)
        inet_twsk_deschedule(net, tw)
    return 0


def tcp_v4_send_reset(net: Net) -> int:
    """Answer the segment in net.rx_th by a RST that its sender will accept (RFC 9293, 3.10.7.1)."""
    rx = net.rx_th
    if rx.flags & RST:
        return 0
    if net.tracer is not None:
        trace(net.tracer, FN_TCP_V4_SEND_RESET, 0, net.rx_ip.saddr, rx.sport, rx.ack)
    found = net_route(net, net.rx_ip.saddr, net.rx_ip.daddr, 0)
    if isinstance(found, int):
        return 0
    route = found
    rt = route.rt
    th = net.tx_th
    clear_options(th)
    th.sport = rx.dport
    th.dport = rx.sport
    th.urg = 0
    th.window = 0
    if rx.flags & ACK:
        th.seq = rx.ack
        th.ack = 0
        th.flags = RST
    else:
        th.seq = 0
        th.ack = (rx.seq + rx.payload_len + (rx.flags & FIN) + (rx.flags >> 1 & 1)) & _M32
        th.flags = RST | ACK
    ttl = rt.hoplimit if rt.hoplimit else net.sysctl.ip_default_ttl
    queue = ip_queue_of(net, rt.dev_loopback)
    # DF and identification 0: the socket these are sent from has IP_PMTUDISC_DO (tcp_sk_init).
    off = ip_build(net, queue, th, net.rx_ip.daddr, net.rx_ip.saddr, ttl, net.rx_ip.tos & 0xFC, True, 0, None, 0)
    if off < 0:
        return 0
    net.mib.TcpOutSegs += 1
    net.mib.TcpOutRsts += 1
    ip_local_out(net, queue, off, rt.dev)
    return 0


# -- ICMP


def tcp_v4_err(net: Net, b: PacketBuffer, off: int, length: int, icmp_type: int, code: int, info: int) -> int:
    """An ICMP error about a segment of ours: IP header in net.err_ip, at least 8 bytes of TCP at `off`."""
    ip = net.err_ip
    sport, dport = get16(b, off), get16(b, off + 2)
    entry = inet_lookup_established(net.h, ip.daddr, dport, ip.saddr, sport, net.rx_dev)
    if net.tracer is not None:
        trace(net.tracer, FN_TCP_V4_ERR, entry >> 1, icmp_type, code, info)
    if entry & 1:
        return 0
    seq = get32(b, off + 4)
    if entry == 0:
        if not tcp_req_err(net, ip.daddr, dport, ip.saddr, sport, seq):
            net.mib.IcmpInErrors += 1
        return 0
    sk = entry >> 1
    state = net.sks.sk_state[sk]
    if state == TCP_CLOSE:
        return 0
    opts = net.sks.option_sets[net.sks.opts[sk]]
    if net.rx_ip.ttl < opts.min_ttl:
        net.mib.TcpExtTCPMinTTLDrop += 1
        return 0
    if state != TCP_LISTEN and not between(seq, net.sks.snd_una[sk], net.sks.snd_nxt[sk]):
        net.mib.TcpExtOutOfWindowIcmps += 1
        return 0
    error = _errno_of_icmp(icmp_type, code)
    if error == errno.EMSGSIZE:
        if state != TCP_LISTEN:
            tcp_v4_mtu_reduced(net, sk, info)
    elif error:
        if icmp_type == ICMP_DEST_UNREACH and code in (ICMP_NET_UNREACH, ICMP_HOST_UNREACH):
            tcp_ld_rto_revert(net, sk, seq)
        _report_icmp(net, sk, state, error, b.read(off, length), dport, info)
    return 0


def _errno_of_icmp(icmp_type: int, code: int) -> int:
    """Which errno the message stands for; EMSGSIZE: fragmentation needed; 0: none (ICMP-01..03)."""
    if icmp_type in (ICMP_REDIRECT, ICMP_SOURCE_QUENCH):
        return 0
    if icmp_type == ICMP_PARAMETERPROB:
        return errno.EPROTO
    if icmp_type == ICMP_TIME_EXCEEDED:
        return errno.EHOSTUNREACH
    if icmp_type != ICMP_DEST_UNREACH or code >= len(ICMP_ERR_CONVERT):
        return 0
    if code == ICMP_FRAG_NEEDED:
        return errno.EMSGSIZE
    return ICMP_ERR_CONVERT[code][0]


def _report_icmp(net: Net, sk: int, state: int, error: int, payload: bytes, dport: int, info: int) -> None:
    """While connecting the error is fatal and always queued; later it is soft unless IP_RECVERR (ICMP-07, -08, -12)."""
    if state in (TCP_SYN_SENT, TCP_SYN_RECV):
        ip_icmp_error(net, sk, error, payload, dport, info)
        tcp_done_with_error(net, sk, error)
    elif net.sks.flags[sk] & RECVERR:
        net.sks.err[sk] = error
        net_event(net, sk, EV_ERR)
    else:
        net.sks.err_soft[sk] = error


def ip_icmp_error(net: Net, sk: int, error: int, payload: bytes, port: int, info: int) -> None:
    """Queue an error for recvmsg(MSG_ERRQUEUE) (net/ipv4/ip_sockglue.c)."""
    cold_get(net, sk).errq.append(
        {
            "errno": error,
            "origin": _SO_EE_ORIGIN_ICMP,
            "type": net.rx_icmp.type,
            "code": net.rx_icmp.code,
            "info": info,
            "offender": net.rx_ip.saddr,
            "addr": (net.err_ip.daddr, port),
            "payload": payload,
        }
    )


def tcp_ld_rto_revert(net: Net, sk: int, seq: int) -> None:
    """RFC 6069: a route that is known to be broken undoes one doubling of the timeout."""
    sks = net.sks
    if seq != sks.snd_una[sk] or not sks.retransmits[sk] or not sks.backoff[sk]:
        return
    if sks.sk_state[sk] != TCP_ESTABLISHED:
        return
    sks.backoff[sk] -= 1
    sks.rto[sk] >>= 1


def tcp_v4_mtu_reduced(net: Net, sk: int, mtu: int) -> None:
    """Path MTU discovery (RFC 1191): learn the MTU; what is too long now goes out again, shorter (ICMP-04)."""
    sks = net.sks
    rt = sk_dst(net, sk)
    if rt is None:
        return
    opts = sks.option_sets[sks.opts[sk]]
    flow = Flow(sks.daddr[sk], sks.saddr[sk], sks.bound_dev[sk], opts.mark, opts.tos)
    after: Rtable = update_pmtu(net.fib, rt, flow, mtu, net.now_us)
    net_refresh(net)
    sks.dst[sk] = after.index
    sks.dst_gen[sk] = net.fib_generation & 0xFFFF
    if mtu < after.mtu and opts.mtu_discover in (1, 2):
        sks.err_soft[sk] = errno.EMSGSIZE
    if opts.mtu_discover != _PMTUDISC_DONT and sks.pmtu[sk] > after.mtu:
        tcp_simple_retransmit(net, sk, tcp_sync_mss(net, sk, after.mtu))
