cimport cython
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from fourtuple.inet.sock_options cimport SockOptions
from fourtuple.inet.timewait cimport TimeWaitTable
from fourtuple.ip.input cimport net_run_loopback
from fourtuple.ip.netns cimport net_refresh
from fourtuple.tcp.net cimport (
    Net, Segment, TcpCold, cold_of, tcp_jiffies, tcp_reset_keepalive_timer, tcp_reset_xmit_timer)
from fourtuple.tcp.output cimport (
    tcp_retransmit_syn, tcp_rto_max, tcp_send_ack, tcp_send_active_reset)
from fourtuple.tcp.output_data cimport (
    tcp_retransmit_skb, tcp_rto_min_us, tcp_send_loss_probe, tcp_send_probe0, tcp_write_wakeup)
from fourtuple.tcp.recovery cimport tcp_enter_loss
from fourtuple.tcp.sock cimport TcpSockTable, last_ack_time
from fourtuple.tcp.tcp cimport tcp_done, tcp_done_with_error
from fourtuple.trace cimport trace
from fourtuple.wheel cimport TimerWheel, wheel_next_due, wheel_pop

cdef uint32_t _M32, DEAD, KEEPOPEN, PINGPONG, ACK_SCHED, ACK_TIMER, PROBE0, LOSS_PROBE
cdef uint32_t TCP_SYN_SENT, TCP_SYN_RECV, TCP_CLOSE, TCP_LISTEN, TCP_FIN_WAIT2, TCP_ESTABLISHED
cdef uint8_t TIMER_RTX, TIMER_DELACK, TIMER_KEEP, TIMER_TW, TIMER_REQSK
cdef int FN_TCP_RETRANSMIT_TIMER, FN_TCP_WRITE_TIMEOUT, FN_TCP_WRITE_ERR, FN_TCP_DELACK_TIMER, FN_TCP_KEEPALIVE_TIMER
cdef int FN_TCP_PROBE_TIMER, FN_TCP_RESET_XMIT_TIMER
cdef uint64_t TCP_RTO_MIN


@cython.locals(limit=uint64_t, linear=uint32_t, wide=uint64_t)
cpdef uint64_t tcp_model_timeout(Net net, uint32_t sk, uint32_t boundary, uint64_t rto_base)
@cython.locals(base=uint64_t, elapsed=uint32_t)
cpdef bint retransmits_timed_out(Net net, uint32_t sk, uint32_t boundary, uint64_t timeout_ms)
@cython.locals(opts=SockOptions, state=uint32_t, retry_until=uint32_t, most=uint32_t, expired=bint, user_timeout_ms=uint32_t)
cpdef bint tcp_write_timeout(Net net, uint32_t sk)
cpdef void tcp_write_err(Net net, uint32_t sk)
@cython.locals(opts=SockOptions, elapsed=uint32_t, left=int64_t)
cpdef uint64_t tcp_clamp_rto_to_user_timeout(Net net, uint32_t sk)
@cython.locals(sks=TcpSockTable, state=uint32_t, cold=TcpCold, delay=uint64_t)
cpdef void tcp_retransmit_timer(Net net, uint32_t sk)
cdef void _back_off(Net net, uint32_t sk)
cpdef void tcp_timer_fired(Net net, uint32_t owner, uint32_t kind)
@cython.locals(table=TimeWaitTable, due=int64_t, first=int64_t)
cpdef int64_t net_next_timeout(Net net)
@cython.locals(table=TimeWaitTable, due=int64_t, first=int64_t, ran=int)
cpdef int net_handle_timeout(Net net, uint64_t now_us, int most=*)
cpdef void tcp_write_timer(Net net, uint32_t sk)
cpdef void tcp_delack_timer(Net net, uint32_t sk)
cpdef void tcp_keepalive_timer(Net net, uint32_t sk)
cpdef void tcp_probe_timer(Net net, uint32_t sk)
@cython.locals(state=uint32_t, base=uint64_t, elapsed=uint32_t)
cdef void _probe_shrunk_window(Net net, uint32_t sk)
