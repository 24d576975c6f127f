cimport cython
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from fourtuple.tcp.input_ack cimport (
    tcp_ack, tcp_ack_update_rtt, tcp_paws_check, tcp_rtt_by_timestamp, tcp_rtt_estimator, tcp_set_rto)
from fourtuple.tcp.input_data cimport (
    tcp_ack_snd_check, tcp_data_queue, tcp_data_snd_check, tcp_enter_quickack_mode, tcp_in_quickack_mode)
from fourtuple.tcp.input_synsent cimport tcp_init_transfer, tcp_rcv_synsent_state_process, tcp_try_undo_spurious_syn
from fourtuple.tcp.minisocks cimport tcp_fin_time_us, tcp_time_wait
from fourtuple.tcp.net cimport (
    Net, TcpCold, cold_of, inet_csk_clear_xmit_timer, net_event, tcp_jiffies, tcp_reset_keepalive_timer)
from fourtuple.tcp.output cimport (
    tcp_initialize_rcv_mss, tcp_send_ack)
from fourtuple.tcp.sock cimport TcpSockTable
from fourtuple.tcp.tcp cimport tcp_done, tcp_reset, tcp_set_state
from fourtuple.trace cimport trace
from fourtuple.wire.seq cimport after, before
from fourtuple.wire.tcp cimport TcpHeader
from fourtuple.tcp.window cimport tcp_receive_window

cdef uint32_t _M32, DEAD, SEND_SHUTDOWN, RCV_SHUTDOWN
cdef int64_t TCP_TIMEWAIT_LEN
cdef uint8_t TS_OK, SACK_OK
cdef uint32_t FIN, SYN, RST, ACK
cdef uint32_t TCP_ESTABLISHED, TCP_SYN_SENT, TCP_SYN_RECV, TCP_FIN_WAIT1, TCP_FIN_WAIT2, TCP_TIME_WAIT, TCP_CLOSE
cdef uint32_t TCP_CLOSE_WAIT, TCP_LAST_ACK, TCP_LISTEN, TCP_CLOSING
cdef int FN_TCP_RCV_STATE_PROCESS, FN_TCP_RCV_ESTABLISHED
cdef int EV_STATE, EV_OUT, RCV_DONE, RCV_RESET


@cython.locals(now=uint32_t)
cpdef bint _tcp_oow_rate_limited(Net net, uint32_t sk)
cpdef void tcp_send_challenge_ack(Net net, uint32_t sk)
cpdef void tcp_send_dupack(Net net, uint32_t sk)
@cython.locals(sks=TcpSockTable, th=TcpHeader, limit=uint32_t)
cdef int tcp_sequence(Net net, uint32_t sk, uint32_t seq, uint32_t end_seq)
@cython.locals(sks=TcpSockTable, th=TcpHeader, end_seq=uint32_t)
cpdef bint tcp_validate_incoming(Net net, uint32_t sk)
cdef bint _rst_in_window(Net net, uint32_t sk)
cpdef int tcp_rcv_established(Net net, uint32_t sk)
@cython.locals(sks=TcpSockTable, state=uint32_t, answer=int)
cpdef int tcp_rcv_state_process(Net net, uint32_t sk)
@cython.locals(sks=TcpSockTable)
cdef int _advance_state(Net net, uint32_t sk, uint32_t state) except? -2
@cython.locals(sks=TcpSockTable, th=TcpHeader, sample=int64_t)
cdef void _syn_recv_established(Net net, uint32_t sk) except *
@cython.locals(sks=TcpSockTable, th=TcpHeader, timeout=int64_t, is_bare=bint)
cdef int _fin_acknowledged(Net net, uint32_t sk) except? -2
@cython.locals(sks=TcpSockTable, th=TcpHeader, state=uint32_t, usable=bint, end=uint32_t)
cdef int _segment_text(Net net, uint32_t sk) except? -2
cdef void _finish(Net net, uint32_t sk) except *
