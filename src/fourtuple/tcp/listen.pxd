cimport cython
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from fourtuple.inet.hashtables cimport inet_hash, inet_inherit_port, inet_lookup_listener
from fourtuple.inet.secrets cimport get_random_u32
from fourtuple.inet.secure_seq cimport secure_tcp_seq_and_ts_off, seq_scale
from fourtuple.inet.sock_options cimport SockOptions
from fourtuple.ip.netns cimport net_route
from fourtuple.ip.output cimport ip_build, ip_local_out, ip_queue_of
from fourtuple.ip.route cimport Route, Rtable, dst_metric_advmss
from fourtuple.ip.txqueue cimport TxQueue
from fourtuple.tcp.input cimport tcp_rcv_state_process
from fourtuple.tcp.input_ack cimport tcp_rtt_estimator, tcp_set_rto
from fourtuple.tcp.net cimport Net, TcpCold, cold_get, cold_of, net_event, tcp_jiffies, tcp_reset_keepalive_timer
from fourtuple.tcp.output cimport tcp_initialize_rcv_mss, tcp_rto_max, tcp_sync_mss, tcp_ts_off
from fourtuple.tcp.sock cimport TcpSockTable
from fourtuple.tcp.tcp cimport inet_csk_destroy_sock, tcp_disconnect, tcp_init_sock, tcp_set_state
from fourtuple.tcp.window cimport tcp_full_space, tcp_select_initial_window
from fourtuple.trace cimport trace
from fourtuple.wheel cimport wheel_arm, wheel_cancel
from fourtuple.wire.ipv4 cimport Ipv4Header
from fourtuple.wire.seq cimport after, before
from fourtuple.wire.tcp cimport TcpHeader, clear_options

cdef uint32_t _M32, _U16_MAX, _INHERITED, CHILD, DEAD, KEEPOPEN
cdef uint32_t SYN, ACK, RST, FIN, ECE, CWR
cdef uint8_t TS_OK, SACK_OK, WSCALE_OK, ECN_OK
cdef uint32_t TCP_CLOSE, TCP_LISTEN, TCP_SYN_RECV, TCP_MSS_DEFAULT
cdef int EV_IN, RCV_DONE, RCV_RESET
cdef uint8_t TIMER_REQSK
cdef int FN_INET_CSK_ACCEPT, FN_INET_CSK_LISTEN_START, FN_TCP_CONN_REQUEST, FN_TCP_SEND_SYNACK, FN_TCP_V4_SYN_RECV_SOCK


@cython.final
cdef class RequestSock:
    cdef public object key
    cdef public uint64_t sent_us
    cdef public uint32_t saddr, daddr, sport, dport, listener, serial, node, num_timeout, retrans, dst
    cdef public uint32_t advmss, mss, clamp, rcv_wnd, wscales, rcv_isn, snt_isn, ts_off, ts_recent
    cdef public bint ecn, sack, ts, wscale_ok

    @cython.locals(th=TcpHeader, opts=SockOptions, mss=uint32_t)
    cpdef void _accept_options(self, Net net) except *


@cython.final
cdef class Listener:
    cdef public uint32_t sk
    cdef public int64_t backlog
    cdef public dict requests
    cdef public object accept_queue

    cpdef bint accept_is_full(self) except? -1
    cpdef void drop(self, Net net, RequestSock req) except *


@cython.locals(cold=TcpCold)
cpdef int inet_csk_listen_start(Net net, uint32_t sk, int64_t backlog) except? -2
@cython.locals(cold=TcpCold, listener=Listener, child=uint32_t)
cpdef int64_t inet_csk_accept(Net net, uint32_t sk) except? -2
@cython.locals(cold=TcpCold, listener=Listener, th=TcpHeader, req=RequestSock)
cpdef int tcp_v4_listen_rcv(Net net, uint32_t sk) except? -2
@cython.locals(req=RequestSock, route=Route, most=int64_t)
cpdef void tcp_conn_request(Net net, Listener listener) except *
@cython.locals(sks=TcpSockTable, sk=uint32_t, rt=Rtable, wide=uint64_t, opts=SockOptions, mss=uint32_t, usable=uint32_t)
cdef void _openreq_init(Net net, RequestSock req, Route route) except *
@cython.locals(th=TcpHeader)
cpdef void tcp_v4_send_synack(Net net, RequestSock req) except *
@cython.locals(opts=SockOptions, rt=Rtable, ttl=int64_t, queue=TxQueue, df=bint, off=int64_t)
cdef void _send_for_request(Net net, RequestSock req) except *
@cython.locals(req=RequestSock, cold=TcpCold, listener=Listener, delay=uint64_t, limit=uint64_t)
cpdef void reqsk_timer_handler(Net net, uint32_t serial) except *
cdef void _retransmit_synack(Net net, RequestSock req) except *
@cython.locals(th=TcpHeader, flags=uint32_t, rcv_nxt=uint32_t, paws=bint, end_seq=uint32_t)
cpdef int tcp_check_req(Net net, Listener listener, RequestSock req) except? -2
cdef bint _in_window(uint32_t seq, uint32_t end_seq, uint32_t low, uint32_t high) noexcept
@cython.locals(th=TcpHeader, window=uint32_t)
cdef void _reqsk_send_ack(Net net, RequestSock req) except *
@cython.locals(row=int64_t, child=uint32_t, answer=int)
cpdef int tcp_v4_syn_recv_sock(Net net, Listener listener, RequestSock req) except? -2
@cython.locals(sks=TcpSockTable)
cdef void _create_openreq_child(Net net, uint32_t parent, uint32_t child, RequestSock req) except *
@cython.locals(sks=TcpSockTable, nxt=uint32_t, rcv=uint32_t, window=uint32_t)
cdef void _child_sequence(Net net, uint32_t child, RequestSock req) noexcept
@cython.locals(sks=TcpSockTable, bits=uint32_t, seconds=uint64_t)
cdef void _child_options(Net net, uint32_t child, RequestSock req) noexcept
