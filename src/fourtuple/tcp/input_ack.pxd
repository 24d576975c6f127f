cimport cython
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from fourtuple.tcp.cong.reno cimport tcp_in_slow_start, tcp_reno_cong_avoid, tcp_reno_ssthresh
from fourtuple.tcp.net cimport (
    Net, Segment, TcpCold, cold_of, cold_trim, inet_csk_clear_xmit_timer, net_event, tcp_jiffies,
    tcp_reset_probe0_timer)
from fourtuple.tcp.output cimport tcp_rto_max, tcp_send_ack, tcp_sync_mss
from fourtuple.tcp.output_data cimport (
    tcp_packets_in_flight, tcp_packets_out, tcp_rearm_rto, tcp_retransmit_skb, tcp_rto_min_us, tcp_schedule_loss_probe,
    tcp_xmit_retransmit_queue)
from fourtuple.tcp.sock cimport TcpSockTable
from fourtuple.trace cimport trace
from fourtuple.wire.seq cimport after, before, between
from fourtuple.wire.tcp cimport TcpHeader

cdef uint32_t _M32, HAS_COLD, PROBE0, ECN_SYN, QUEUE_CWR
cdef uint8_t TS_OK, SACK_OK, WSCALE_OK, ECN_OK, SACKED, RETRANS, LOST
cdef uint8_t CA_OPEN, CA_DISORDER, CA_CWR, CA_RECOVERY, CA_LOSS
cdef uint32_t FIN, SYN, RST, ACK, ECE, CWR
cdef int FN_TCP_ACK, EV_OUT
cdef int ACK_DATA, ACK_WIN_UPDATE, ACK_DATA_ACKED, ACK_RETRANS_ACKED, ACK_SYN_ACKED, ACK_DATA_SACKED, ACK_ECE, _LOST_RETRANS, ACK_UNA_ADVANCED, ACK_DSACK
cdef int ACK_NOT_DUP, ACK_SET_TIMER


@cython.locals(sks=TcpSockTable, srtt=int64_t, m=int64_t, floor=int64_t, mdev=int64_t, first_after_handshake=bint)
cpdef void tcp_rtt_estimator(Net net, uint32_t sk, int64_t m) noexcept
@cython.locals(rto=uint64_t, limit=uint64_t)
cpdef void tcp_set_rto(Net net, uint32_t sk) noexcept
@cython.locals(delta=uint32_t)
cpdef int64_t tcp_rtt_by_timestamp(Net net, uint32_t sk)
cpdef bint tcp_ack_update_rtt(Net net, uint32_t sk, int64_t seq_rtt_us)
cpdef void tcp_store_ts_recent(Net net, uint32_t sk) noexcept
cpdef void tcp_replace_ts_recent(Net net, uint32_t sk) noexcept
cpdef bint tcp_paws_check(Net net, uint32_t sk, uint32_t window)
@cython.locals(sks=TcpSockTable, nwin=uint32_t)
cpdef int tcp_ack_update_window(Net net, uint32_t sk, uint32_t ack, uint32_t ack_seq)
@cython.locals(sks=TcpSockTable, th=TcpHeader, ack=uint32_t, una=uint32_t, cold=TcpCold, flag=int)
cpdef int tcp_ack(Net net, uint32_t sk)
@cython.locals(seg=Segment, sks=TcpSockTable, rtt=int64_t, flag=int, una=uint32_t, acked=uint32_t)
cpdef int tcp_clean_rtx_queue(Net net, uint32_t sk, TcpCold cold)
@cython.locals(flag=int)
cdef int _segment_acked(Net net, uint32_t sk, TcpCold cold, Segment seg)
@cython.locals(sack_rtt=int64_t, head=Segment)
cdef int _sack_rtt(Net net, uint32_t sk, TcpCold cold, int acked, int64_t rtt)
@cython.locals(beyond=uint32_t)
cdef void _tcp_remove_reno_sacks(TcpCold cold, uint32_t acked)
cdef void _uncount(TcpCold cold, Segment seg)
cdef void _trim_head(Segment seg, uint32_t count)
