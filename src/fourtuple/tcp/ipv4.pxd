cimport cython
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from fourtuple.inet.hashtables cimport (
    inet_bhash2_reset_saddr, inet_bhash2_update_saddr, inet_hash_connect, inet_lookup_established,
    inet_lookup_listener)
from fourtuple.inet.secrets cimport get_random_u32
from fourtuple.inet.secure_seq cimport secure_tcp_seq_and_ts_off, seq_scale
from fourtuple.inet.sock_options cimport SockOptions
from fourtuple.ip.netns cimport IpNet, net_refresh, net_route
from fourtuple.ip.output cimport ip_build, ip_local_out, ip_queue_of
from fourtuple.ip.protocol cimport NetProtocol
from fourtuple.ip.route cimport Route, Rtable
from fourtuple.ip.txqueue cimport TxQueue
from fourtuple.tcp.input cimport tcp_rcv_established, tcp_rcv_state_process
from fourtuple.tcp.minisocks cimport inet_twsk_deschedule, tcp_timewait_state_process, tcp_v4_timewait_ack
from fourtuple.tcp.net cimport Net, net_event
from fourtuple.tcp.output cimport sk_dst, sk_route, tcp_connect, tcp_sync_mss, tcp_ts_off
from fourtuple.tcp.sock cimport TcpSockTable
from fourtuple.tcp.tcp cimport tcp_done_with_error, tcp_set_state
from fourtuple.trace cimport trace
from fourtuple.wire.buffer cimport PacketBuffer
from fourtuple.wire.ipv4 cimport Ipv4Header
from fourtuple.wire.tcp cimport TcpHeader, clear_options, parse_tcp, verify_tcp

cdef uint32_t _M32
cdef uint32_t TCP_CLOSE, TCP_ESTABLISHED, TCP_LISTEN, TCP_SYN_RECV, TCP_SYN_SENT
cdef uint32_t ACK, FIN, RST, SYN
cdef uint32_t SADDR_WILD, REPAIR, _BINDADDR_LOCK
cdef int FN_TCP_V4_CONNECT, FN_IP_ROUTE_CONNECT, FN_SECURE_TCP_SEQ_AND_TS_OFF, FN_TCP_V4_RCV, FN_TCP_V4_SEND_RESET, FN_TCP_V4_ERR
cdef int FN_INET_LOOKUP_ESTABLISHED, FN_INET_LOOKUP_LISTENER
cdef int RCV_RESET
cdef int _RTN_BROADCAST, _RTN_MULTICAST, _ENETUNREACH


@cython.locals(sks=TcpSockTable, rt=Rtable, saddr=uint32_t, port=int64_t, route=Route)
cpdef int tcp_v4_connect(Net net, uint32_t sk, uint32_t daddr, uint32_t dport)
cdef int _connect_failed(Net net, uint32_t sk, int error)
@cython.locals(sks=TcpSockTable, wide=uint64_t)
cdef void _choose_sequence(Net net, uint32_t sk) noexcept


cdef class TcpProtocol(NetProtocol):
    pass


@cython.locals(th=TcpHeader, ip=Ipv4Header, entry=uint32_t, sk=uint32_t, reason=int)
cpdef int tcp_v4_rcv(Net net, PacketBuffer b, uint32_t off, uint32_t length, int dev)
@cython.locals(opts=SockOptions)
cdef bint _passes_filters(Net net, uint32_t sk, PacketBuffer b, uint32_t off, uint32_t length)
@cython.locals(state=uint32_t, answer=int)
cpdef int tcp_v4_do_rcv(Net net, uint32_t sk)
@cython.locals(th=TcpHeader, rx=TcpHeader, route=Route, rt=Rtable, queue=TxQueue, off=int64_t, ttl=uint32_t)
cpdef int tcp_v4_send_reset(Net net)
