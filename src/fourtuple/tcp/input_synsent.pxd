cimport cython
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from fourtuple.inet.sock_options cimport SockOptions
from fourtuple.ip.route cimport Rtable
from fourtuple.tcp.input_ack cimport (
    tcp_ack_update_rtt, tcp_ack_update_window, tcp_paws_check, tcp_rtt_by_timestamp, tcp_store_ts_recent)
from fourtuple.tcp.input_data cimport tcp_enter_quickack_mode
from fourtuple.tcp.net cimport (
    Net, TcpCold, cold_of, inet_csk_clear_xmit_timer, net_event, tcp_jiffies, tcp_reset_delack_timer,
    tcp_reset_keepalive_timer, tcp_reset_xmit_timer)
from fourtuple.tcp.output cimport (
    sk_dst, tcp_initialize_rcv_mss, tcp_send_ack, tcp_send_synack, tcp_sync_mss)
from fourtuple.tcp.sock cimport TcpSockTable
from fourtuple.tcp.tcp cimport tcp_reset, tcp_set_state
from fourtuple.trace cimport trace
from fourtuple.wire.seq cimport after, before, between
from fourtuple.wire.tcp cimport TcpHeader
from fourtuple.tcp.window cimport tcp_full_space

cdef uint32_t _M32, HAS_COLD, PINGPONG, ACK_SCHED, ACK_TIMER, UNDO, ECN_SYN, KEEPOPEN, DEAD
cdef uint8_t TS_OK, SACK_OK, WSCALE_OK, ECN_OK
cdef uint32_t FIN, SYN, RST, ACK, ECE, CWR
cdef uint32_t TCP_ESTABLISHED, TCP_SYN_RECV
cdef int FN_TCP_RCV_SYNSENT_STATE_PROCESS, FN_TCP_FINISH_CONNECT
cdef uint64_t TCP_TIMEOUT_MIN, _DELACK_MAX_US, TCP_TIMEOUT_FALLBACK
cdef int EV_STATE, EV_OUT
cdef int RCV_DONE, RCV_RESET


@cython.locals(sks=TcpSockTable, th=TcpHeader, ack=uint32_t, distance=uint32_t, echo=uint32_t)
cpdef int tcp_rcv_synsent_state_process(Net net, uint32_t sk)
@cython.locals(th=TcpHeader, sks=TcpSockTable)
cdef int _synack(Net net, uint32_t sk)
@cython.locals(th=TcpHeader, sks=TcpSockTable, opts=SockOptions, mss=uint32_t, bits=uint32_t, scale=uint32_t)
cpdef void tcp_accept_options(Net net, uint32_t sk) noexcept
@cython.locals(sks=TcpSockTable, sample=int64_t)
cdef void _ack_of_syn(Net net, uint32_t sk) noexcept
cpdef void tcp_try_undo_spurious_syn(Net net, uint32_t sk) noexcept
@cython.locals(sks=TcpSockTable, th=TcpHeader)
cdef int _simultaneous_open(Net net, uint32_t sk)
@cython.locals(sks=TcpSockTable)
cpdef void tcp_finish_connect(Net net, uint32_t sk) noexcept
@cython.locals(sks=TcpSockTable, rt=Rtable)
cpdef void tcp_init_transfer(Net net, uint32_t sk) noexcept
@cython.locals(sks=TcpSockTable, maxwin=uint32_t, advmss=uint32_t, clamp=uint32_t, shift=uint32_t)
cpdef void tcp_init_buffer_space(Net net, uint32_t sk) noexcept
