cimport cython
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from fourtuple.inet.timewait_sock cimport inet_twsk_enter_time_wait, inet_twsk_hashdance, inet_twsk_kill
from fourtuple.inet.timewait cimport TimeWaitTable, tw_alloc, tw_fifo_append, tw_fifo_remove
from fourtuple.ip.output cimport ip_build, ip_local_out, ip_queue_of
from fourtuple.ip.route cimport Rtable
from fourtuple.ip.txqueue cimport TxQueue
from fourtuple.tcp.net cimport Net, tcp_jiffies
from fourtuple.tcp.sock cimport TcpSockTable
from fourtuple.tcp.tcp cimport tcp_done
from fourtuple.trace cimport trace
from fourtuple.wheel cimport wheel_arm, wheel_cancel
from fourtuple.wire.seq cimport after, before
from fourtuple.wire.tcp cimport TcpHeader, clear_options
from fourtuple.tcp.window cimport tcp_receive_window

cdef uint32_t _M32
cdef uint32_t TCP_FIN_WAIT2, TCP_TIME_WAIT
cdef uint32_t ACK, FIN, RST, SYN
cdef uint64_t TCP_TIMEWAIT_LEN
cdef int FN_TCP_TIME_WAIT, FN_TCP_TIMEWAIT_STATE_PROCESS


@cython.locals(opts_linger=int64_t, least=int64_t, timeout=int64_t)
cpdef int64_t tcp_fin_time_us(Net net, uint32_t sk)
@cython.locals(table=TimeWaitTable, sks=TcpSockTable, row=int64_t, tw=uint32_t, rto=uint64_t)
cpdef void tcp_time_wait(Net net, uint32_t sk, uint32_t state, uint64_t timeout_us)
cpdef void inet_twsk_schedule(Net net, uint32_t tw, uint64_t delay_us)
cpdef void inet_twsk_deschedule(Net net, uint32_t tw)
@cython.locals(table=TimeWaitTable, th=TcpHeader, rcv_nxt=uint32_t, end_seq=uint32_t, paws=bint, seq=uint32_t)
cpdef int tcp_timewait_state_process(Net net, uint32_t tw)
@cython.locals(table=TimeWaitTable, th=TcpHeader, rcv_nxt=uint32_t)
cdef int _fin_wait2(Net net, uint32_t tw, uint32_t end_seq, bint paws)
cpdef void tcp_v4_timewait_ack(Net net, uint32_t tw)
