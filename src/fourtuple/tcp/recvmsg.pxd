cimport cython
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from fourtuple.ip.netns cimport net_refresh
from fourtuple.tcp.input_data cimport tcp_rcv_space_adjust
from fourtuple.tcp.net cimport Net, TcpCold, cold_of, cold_trim
from fourtuple.tcp.output cimport (
    tcp_send_ack)
from fourtuple.tcp.sock cimport TcpSockTable
from fourtuple.tcp.window cimport _tcp_select_window, tcp_receive_window

cdef uint32_t _M32, ACK_SCHED, ACK_PUSHED, ACK_PUSHED2, PINGPONG, DONE, TCP_LISTEN, TCP_CLOSE


cpdef object tcp_recvmsg(Net net, uint32_t sk, int64_t size, int flags)
@cython.locals(part=bytes, taken=bytes, parts=list, left=int64_t)
cdef bytes _take(Net net, uint32_t sk, TcpCold cold, int64_t size)
cdef bytes _peek(TcpCold cold, int64_t size)
@cython.locals(sks=TcpSockTable, now=uint32_t, window=uint32_t, cold=TcpCold, empty=bint)
cpdef void tcp_cleanup_rbuf(Net net, uint32_t sk, int64_t copied)
