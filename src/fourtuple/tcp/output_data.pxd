cimport cython
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from fourtuple.ip.route cimport Rtable
from fourtuple.tcp.net cimport (
    Net, Segment, TcpCold, cold_get, cold_of, inet_csk_clear_xmit_timer, tcp_jiffies, tcp_reset_probe0_timer,
    tcp_reset_xmit_timer)
from fourtuple.tcp.output cimport (
    sk_dst, tcp_current_mss, tcp_retransmit_syn, tcp_rto_max, tcp_send_ack, tcp_send_syn, tcp_sync_mss, tcp_transmit_skb,
    tcp_xmit_probe_skb)
from fourtuple.tcp.sock cimport TcpSockTable
from fourtuple.trace cimport trace
from fourtuple.wire.seq cimport after, before

cdef uint32_t _M32, NODELAY, CORK, PROBE0, LOSS_PROBE, PINGPONG
cdef uint8_t SACKED, RETRANS, LOST, SACK_OK, CA_OPEN, CA_CWR
cdef uint32_t FIN, SYN, PSH, ACK
cdef int FN_TCP_SEND_FIN, FN_TCP_WRITE_XMIT, FN_TCP_RETRANSMIT_SKB


cpdef uint32_t tcp_packets_out(Net net, uint32_t sk)
cpdef uint32_t tcp_packets_in_flight(TcpCold cold)
cpdef uint32_t tcp_rto_min_us(Net net, uint32_t sk)
@cython.locals(rt=Rtable)
cpdef void tcp_rearm_rto(Net net, uint32_t sk)
@cython.locals(head=Segment, due=int64_t)
cpdef int64_t tcp_rto_delta_us(Net net, uint32_t sk, TcpCold cold)
@cython.locals(timeout=int64_t, left=int64_t, cold=TcpCold)
cpdef bint tcp_schedule_loss_probe(Net net, uint32_t sk, bint advancing_rto)
@cython.locals(cold=TcpCold, mss=uint32_t, sent=uint32_t, limited=bint, quota=uint32_t, count=uint32_t)
cpdef bint tcp_write_xmit(Net net, uint32_t sk, bint nagle_off, int push_one)
cpdef bint tcp_snd_wnd_test(Net net, uint32_t sk, Segment seg, uint32_t mss)
cdef bint tcp_nagle_test(Net net, uint32_t sk, TcpCold cold, Segment seg, uint32_t mss, bint nagle_off)
@cython.locals(first=Segment)
cpdef Segment tcp_fragment(Segment seg, uint32_t length)
cdef void _tcp_transmit_segment(Net net, uint32_t sk, Segment seg)
@cython.locals(had=bint)
cdef void tcp_event_new_data_sent(Net net, uint32_t sk, TcpCold cold, Segment seg)
cdef void tcp_cwnd_validate(Net net, uint32_t sk, TcpCold cold, bint limited)
cpdef void tcp_push_pending_frames(Net net, uint32_t sk, bint nagle_off)
cpdef void tcp_check_probe_timer(Net net, uint32_t sk)
@cython.locals(cold=TcpCold, tail=Segment, seg=Segment)
cpdef void tcp_send_fin(Net net, uint32_t sk)
cdef void _make_syn_explicit(Net net, uint32_t sk, TcpCold cold)
@cython.locals(mss=uint32_t, cold=TcpCold, left=uint32_t, rest=Segment)
cpdef int tcp_retransmit_skb(Net net, uint32_t sk, Segment seg)
cdef int _tcp_retransmit_skb(Net net, uint32_t sk, TcpCold cold, Segment seg)
@cython.locals(seg=Segment, rearm=bint)
cpdef void tcp_xmit_retransmit_queue(Net net, uint32_t sk)
@cython.locals(cold=TcpCold, seg=Segment, before_count=uint32_t)
cpdef void tcp_send_loss_probe(Net net, uint32_t sk)
@cython.locals(cold=TcpCold, seg=Segment, mss=uint32_t, room=uint32_t, rest=Segment)
cpdef int tcp_write_wakeup(Net net, uint32_t sk)
@cython.locals(timeout=uint64_t, limit=uint64_t, cold=TcpCold, n=uint32_t)
cpdef void tcp_send_probe0(Net net, uint32_t sk)
@cython.locals(cwnd=uint32_t, flying=uint32_t)
cpdef uint32_t tcp_cwnd_test(Net net, uint32_t sk, TcpCold cold)
@cython.locals(seg=Segment, count=uint32_t, room=uint32_t)
cdef uint32_t _send_burst(Net net, uint32_t sk, TcpCold cold, uint32_t mss, uint32_t quota, bint nagle_off)
cdef bint _ends_window(Net net, uint32_t sk, TcpCold cold)
@cython.locals(behind=Segment, place=int64_t)
cdef void _retrans_try_collapse(TcpCold cold, Segment seg, uint32_t mss)
@cython.locals(behind=Segment)
cdef void _fill_up(TcpCold cold, Segment seg, uint32_t mss)
cdef void _join(Segment seg, Segment behind)
