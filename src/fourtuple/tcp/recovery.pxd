cimport cython
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from fourtuple.tcp.cong.reno cimport tcp_reno_ssthresh, tcp_ssthresh
from fourtuple.tcp.net cimport Net, Segment, TcpCold, cold_of
from fourtuple.tcp.output_data cimport tcp_packets_in_flight, tcp_xmit_retransmit_queue
from fourtuple.tcp.sock cimport TcpSockTable
from fourtuple.wire.seq cimport after, before
from fourtuple.wire.tcp cimport TcpHeader

cdef uint8_t SACK_OK, SACKED, RETRANS, LOST
cdef uint8_t CA_OPEN, CA_DISORDER, CA_CWR, CA_RECOVERY, CA_LOSS
cdef uint32_t QUEUE_CWR
cdef int ACK_DATA_SACKED, ACK_DSACK, ACK_UNA_ADVANCED, ACK_NOT_DUP, ACK_ECE


@cython.locals(th=TcpHeader, i=uint32_t, start=uint32_t, end=uint32_t, flag=int)
cpdef int tcp_sacktag_write_queue(Net net, uint32_t sk, TcpCold cold, uint32_t prior_una)
@cython.locals(seg=Segment, flag=int)
cdef int _mark_sacked(Net net, TcpCold cold, uint32_t start, uint32_t end)
cpdef bint tcp_ack_is_dubious(TcpCold cold, int flag)
cpdef bint tcp_fastretrans_alert(Net net, uint32_t sk, TcpCold cold, int flag, uint32_t prior_una)
@cython.locals(seg=Segment)
cpdef void tcp_enter_loss(Net net, uint32_t sk)
cpdef void tcp_enter_cwr(Net net, uint32_t sk, TcpCold cold)
cpdef void tcp_process_tlp_ack(Net net, uint32_t sk, TcpCold cold, int flag)
@cython.locals(holes=int64_t)
cpdef void tcp_limit_reno_sacked(TcpCold cold)
