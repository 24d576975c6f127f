cimport cython
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from fourtuple.ip.netns cimport net_refresh
from fourtuple.ip.route cimport Rtable
from fourtuple.tcp.net cimport Net, Segment, TcpCold, cold_get, cold_of, cold_trim, tcp_jiffies
from fourtuple.tcp.output cimport sk_dst, tcp_current_mss
from fourtuple.tcp.output_data cimport tcp_push_pending_frames
from fourtuple.tcp.sock cimport TcpSockTable
from fourtuple.wire.seq cimport after

cdef uint32_t _M32, TCP_ESTABLISHED, TCP_CLOSE_WAIT, TCP_SYN_SENT, TCP_SYN_RECV, PSH, FIN, ACK_SCHED


@cython.locals(per_mss=uint64_t, size=uint64_t)
cpdef uint64_t sk_sndbuf(Net net, uint32_t sk)
cpdef uint64_t sk_wmem_queued(Net net, uint32_t sk)
@cython.locals(cold=TcpCold, room=int64_t, mss=uint32_t, length=int64_t)
cpdef int64_t tcp_sendmsg(Net net, uint32_t sk, object data)
@cython.locals(mss=uint32_t, at=int64_t, end=int64_t, tail=Segment, seg=Segment, take=int64_t, seq=uint32_t)
cdef void _append(Net net, uint32_t sk, TcpCold cold, object data, int64_t length)
