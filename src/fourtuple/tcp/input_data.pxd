cimport cython
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from fourtuple.tcp.net cimport (
    Net, TcpCold, cold_get, cold_of, cold_trim, inet_csk_delete_keepalive_timer, net_event, tcp_jiffies)
from fourtuple.tcp.output cimport (
    sk_dst, tcp_initialize_rcv_mss, tcp_send_ack, tcp_send_delayed_ack)
from fourtuple.tcp.output_data cimport tcp_push_pending_frames
from fourtuple.tcp.sock cimport TcpSockTable
from fourtuple.tcp.tcp cimport tcp_set_state
from fourtuple.trace cimport trace
from fourtuple.wire.seq cimport after, before
from fourtuple.wire.tcp cimport TcpHeader
from fourtuple.tcp.window cimport skb_truesize, sk_rcvbuf, tcp_full_space, tcp_receive_window, tcp_space, _tcp_select_window

cdef uint32_t _M32, ACK_SCHED, ACK_PUSHED, ACK_PUSHED2, ACK_NOW, DONE, PINGPONG, DEMAND_CWR
cdef uint8_t SACK_OK, ECN_OK, TS_OK
cdef uint32_t FIN, SYN, PSH, CWR
cdef uint32_t TCP_ESTABLISHED, TCP_SYN_RECV, TCP_FIN_WAIT1, TCP_FIN_WAIT2, TCP_CLOSE_WAIT, TCP_CLOSING, TCP_TIME_WAIT, TCP_LAST_ACK
cdef int FN_TCP_DATA_QUEUE, FN_TCP_FIN
cdef int EV_STATE, EV_IN


@cython.locals(sks=TcpSockTable, quick=uint32_t)
cpdef void tcp_enter_quickack_mode(Net net, uint32_t sk, uint32_t most)
@cython.locals(quick=uint32_t)
cpdef void tcp_incr_quickack(Net net, uint32_t sk, uint32_t most)
cpdef bint tcp_in_quickack_mode(Net net, uint32_t sk)
@cython.locals(sks=TcpSockTable, now=uint32_t, m=uint32_t)
cpdef void tcp_event_data_recv(Net net, uint32_t sk, uint32_t length)
@cython.locals(room=int64_t, grow=int64_t)
cdef void tcp_grow_window(Net net, uint32_t sk, uint32_t length)
@cython.locals(sks=TcpSockTable, th=TcpHeader, seq=uint32_t, end_seq=uint32_t, window=uint32_t)
cpdef void tcp_data_queue(Net net, uint32_t sk)
@cython.locals(th=TcpHeader, cold=TcpCold, length=uint32_t, skip=uint32_t, room=int64_t, payload=bytes)
cdef void _queue_in_order(Net net, uint32_t sk, uint32_t seq, uint32_t end_seq)
cpdef void tcp_data_queue_ofo(Net net, uint32_t sk, uint32_t seq, uint32_t end_seq, bytes payload, bint fin)
cdef void tcp_ofo_queue(Net net, uint32_t sk, TcpCold cold)
cpdef void tcp_fin(Net net, uint32_t sk)
@cython.locals(sks=TcpSockTable, cold=TcpCold, unread=uint32_t)
cpdef void tcp_ack_snd_check(Net net, uint32_t sk)
cpdef void tcp_data_snd_check(Net net, uint32_t sk)
@cython.locals(sks=TcpSockTable, copied=uint32_t, now=uint32_t, rtt=uint32_t, rcvwin=uint64_t, buf=uint64_t, limit=uint64_t)
cpdef void tcp_rcv_space_adjust(Net net, uint32_t sk)
@cython.locals(size=uint32_t)
cdef void _receive(TcpCold cold, bytes payload)
@cython.locals(sks=TcpSockTable, ratio=uint32_t, old=uint32_t, clamp=uint32_t)
cdef void _measure_overhead(Net net, uint32_t sk, uint32_t length)
