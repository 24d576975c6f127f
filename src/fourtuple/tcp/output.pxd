cimport cython
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from fourtuple.inet.secure_seq cimport secure_tcp_ts_off
from fourtuple.inet.sock_options cimport SockOptions
from fourtuple.ip.netns cimport net_route
from fourtuple.ip.output cimport ip_build, ip_local_out, ip_queue_of
from fourtuple.ip.route cimport Route, Rtable, dst_metric_advmss
from fourtuple.ip.txqueue cimport TxQueue
from fourtuple.tcp.net cimport (
    Net, TcpCold, inet_csk_clear_delack_timer, tcp_jiffies, tcp_reset_delack_timer, tcp_reset_xmit_timer)
from fourtuple.tcp.sock cimport TcpSockTable
from fourtuple.tcp.window cimport tcp_full_space, tcp_select_initial_window, tcp_select_window
from fourtuple.trace cimport trace
from fourtuple.wire.buffer cimport PacketBuffer
from fourtuple.wire.seq cimport before
from fourtuple.wire.tcp cimport TcpHeader, clear_options, seal_segment

cdef uint32_t _M32, HAS_COLD, ACK_SCHED, ACK_TIMER, ACK_PUSHED, ACK_PUSHED2, ACK_NOW, UNDO, ECN_SYN, DEMAND_CWR, QUEUE_CWR, PINGPONG, REPAIR, DONE
cdef uint32_t TCP_SYN_SENT, TCP_SYN_RECV
cdef uint8_t TS_OK, SACK_OK, WSCALE_OK, ECN_OK
cdef uint32_t SYN, RST, ACK, ECE, CWR
cdef int FN_TCP_CONNECT, FN_TCP_TRANSMIT_SKB, FN_TCP_SEND_ACK, FN_TCP_SEND_SYNACK, FN_TCP_RESET_XMIT_TIMER, FN_TCP_RETRANSMIT_SKB
cdef uint32_t TCP_MSS_DEFAULT, _U16_MAX, _RCVBUF_LOCK
cdef uint64_t TCP_ATO_MIN, TCP_DELACK_MAX
cdef uint32_t _MIN_HEADERS, TRANSPARENT


@cython.locals(rt=Rtable)
cpdef Rtable sk_dst(Net net, uint32_t sk)
@cython.locals(route=Route)
cdef Rtable _reroute(Net net, uint32_t sk)
@cython.locals(opts=SockOptions)
cpdef object sk_route(Net net, uint32_t sk, uint32_t daddr, uint32_t saddr)
cpdef uint32_t tcp_header_len(TcpSockTable sks, uint32_t sk) noexcept
@cython.locals(mss=int64_t, least=int64_t)
cpdef uint32_t tcp_mtu_to_mss(Net net, uint32_t sk, uint32_t pmtu)
@cython.locals(mss=uint32_t)
cpdef uint32_t tcp_sync_mss(Net net, uint32_t sk, uint32_t pmtu)
@cython.locals(cutoff=uint32_t, least=uint32_t)
cdef uint32_t tcp_bound_to_half_wnd(TcpSockTable sks, uint32_t sk, uint32_t mss) noexcept
@cython.locals(mss=uint32_t, rt=Rtable, cold=TcpCold, blocks=uint32_t)
cpdef uint32_t tcp_current_mss(Net net, uint32_t sk)
@cython.locals(hint=uint32_t)
cpdef void tcp_initialize_rcv_mss(Net net, uint32_t sk)
@cython.locals(sks=TcpSockTable, opts=SockOptions, rt=Rtable, full=uint32_t, mss=uint32_t, clamp=uint32_t, advmss=uint32_t)
cpdef void tcp_connect_init(Net net, uint32_t sk) noexcept
@cython.locals(sks=TcpSockTable, flags=uint32_t, rt=Rtable)
cpdef int tcp_connect(Net net, uint32_t sk)
@cython.locals(sks=TcpSockTable, rt=Rtable, metric=uint32_t)
cpdef uint32_t tcp_ts_off(Net net, uint32_t saddr, uint32_t daddr, uint32_t of_tuple) noexcept
cpdef uint32_t tcp_advertise_mss(Net net, uint32_t sk)
@cython.locals(sks=TcpSockTable, th=TcpHeader)
cpdef void tcp_syn_options(Net net, uint32_t sk, uint32_t flags) noexcept
@cython.locals(sks=TcpSockTable, th=TcpHeader, window=uint32_t)
cpdef int tcp_send_syn(Net net, uint32_t sk, uint32_t flags)
@cython.locals(sks=TcpSockTable, th=TcpHeader, cold=TcpCold)
cpdef void tcp_established_options(Net net, uint32_t sk)
@cython.locals(th=TcpHeader, n=uint32_t, i=uint32_t, room=uint32_t)
cdef void _sack_blocks(Net net, uint32_t sk, TcpCold cold)
@cython.locals(th=TcpHeader, flags=uint32_t)
cdef void _ecn_send(Net net, uint32_t sk, uint32_t payload_len) noexcept
@cython.locals(th=TcpHeader)
cpdef int tcp_transmit_skb(Net net, uint32_t sk, uint32_t seq, uint32_t flags, object payload, uint32_t payload_len)
@cython.locals(sks=TcpSockTable, th=TcpHeader, rt=Rtable, opts=SockOptions, ttl=int64_t, tos=int64_t, df=bint, off=int64_t, queue=TxQueue, dont=int64_t, ident=uint32_t)
cdef int _tcp_queue_xmit(Net net, uint32_t sk, object payload, uint32_t payload_len)
@cython.locals(sks=TcpSockTable)
cpdef void tcp_event_ack_sent(Net net, uint32_t sk) noexcept
cpdef int tcp_send_ack(Net net, uint32_t sk)
cpdef int tcp_send_synack(Net net, uint32_t sk)
cpdef int tcp_send_active_reset(Net net, uint32_t sk)
@cython.locals(seq=uint32_t)
cpdef int tcp_xmit_probe_skb(Net net, uint32_t sk, bint urgent)
@cython.locals(sks=TcpSockTable, ato=uint64_t, pending=uint64_t, due=uint64_t, rtt=uint64_t, limit=uint64_t)
cpdef int tcp_send_delayed_ack(Net net, uint32_t sk)
@cython.locals(sks=TcpSockTable, flags=uint32_t, error=int)
cpdef int tcp_retransmit_syn(Net net, uint32_t sk)
@cython.locals(limit=uint64_t, opts=SockOptions)
cpdef uint64_t tcp_rto_max(Net net, uint32_t sk)
cdef uint32_t _syn_header_len(Net net, uint32_t sk) noexcept
@cython.locals(seq=uint32_t)
cdef void _reset_sequence(TcpSockTable sks, uint32_t sk) noexcept
cdef void _forget_attempts(TcpSockTable sks, uint32_t sk) noexcept
cdef void _purge_write_queue(Net net, uint32_t sk)
cdef void _trace_connect(Net net, uint32_t sk)
cdef int _has_md5(Net net, uint32_t sk)
cdef void _sign(Net net, PacketBuffer b, uint32_t off, SockOptions opts)
@cython.locals(nxt=uint32_t, end=uint32_t, beyond=uint32_t)
cpdef uint32_t tcp_acceptable_seq(TcpSockTable sks, uint32_t sk) noexcept
