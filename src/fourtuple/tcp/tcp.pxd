cimport cython
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from fourtuple.inet.hashtables cimport inet_bhash2_reset_saddr, inet_put_port, inet_unhash
from fourtuple.inet.sock_table cimport sk_alloc
from fourtuple.tcp.net cimport (
    Net, TcpCold, cold_drop, cold_of, cold_trim, net_event, tcp_clear_xmit_timers)
from fourtuple.tcp.output cimport tcp_send_active_reset
from fourtuple.tcp.sock cimport TcpSockTable, sk_free
from fourtuple.trace cimport trace

cdef int _ECONNRESET
cdef uint32_t _M32, DEAD, DONE, _NEED_RESET, TCPF_CLOSING, TCPF_LAST_ACK
cdef uint32_t TCP_ESTABLISHED, TCP_SYN_SENT, TCP_SYN_RECV, TCP_CLOSE, TCP_CLOSE_WAIT, TCP_LISTEN
cdef uint32_t _BINDPORT_LOCK, _BINDADDR_LOCK
cdef int FN_TCP_SET_STATE, FN_TCP_DONE, FN_TCP_RESET, FN_TCP_DISCONNECT
cdef int EV_STATE, EV_IN, EV_OUT, EV_ERR


@cython.locals(row=int64_t, sk=uint32_t)
cpdef int64_t tcp_init_sock(Net net)
@cython.locals(sks=TcpSockTable, old=uint32_t)
cpdef void tcp_set_state(Net net, uint32_t sk, uint32_t state)
cpdef void inet_csk_destroy_sock(Net net, uint32_t sk)
cpdef void tcp_done(Net net, uint32_t sk)
cpdef void tcp_done_with_error(Net net, uint32_t sk, int error)
@cython.locals(error=int)
cpdef void tcp_reset(Net net, uint32_t sk)
@cython.locals(sks=TcpSockTable, old=uint32_t)
cpdef int tcp_disconnect(Net net, uint32_t sk) except -1
@cython.locals(cold=TcpCold, fresh=TcpCold)
cdef void _purge_all(Net net, uint32_t sk) except *
@cython.locals(sks=TcpSockTable)
cdef int _forget_peer(Net net, uint32_t sk) except -1
cdef void _forget_measures(TcpSockTable sks, uint32_t sk) noexcept
cpdef void tcp_write_queue_purge(Net net, uint32_t sk, TcpCold cold)
cpdef int sock_error(Net net, uint32_t sk)
