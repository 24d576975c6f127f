cimport cython
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from fourtuple.inet.sock_options cimport SockOptions
from fourtuple.tcp.minisocks cimport tcp_fin_time_us, tcp_time_wait
from fourtuple.tcp.net cimport Net, TcpCold, cold_of, cold_trim, tcp_reset_keepalive_timer
from fourtuple.tcp.output cimport tcp_send_active_reset
from fourtuple.tcp.output_data cimport tcp_send_fin
from fourtuple.tcp.sock cimport TcpSockTable
from fourtuple.tcp.tcp cimport inet_csk_destroy_sock, tcp_disconnect, tcp_set_state
from fourtuple.trace cimport trace

cdef uint32_t DEAD, LINGER, SOCKET_GONE
cdef int FN_TCP_CLOSE, FN_TCP_SHUTDOWN
cdef uint32_t TCP_CLOSE, TCP_FIN_WAIT2, TCP_LISTEN, TCP_SYN_SENT, TCP_ESTABLISHED, TCP_CLOSE_WAIT


cpdef bint tcp_close_state(Net net, uint32_t sk)
cpdef void tcp_shutdown(Net net, uint32_t sk, int how)
@cython.locals(sks=TcpSockTable, state=uint32_t, cold=TcpCold)
cpdef int tcp_close(Net net, uint32_t sk, int64_t linger)
@cython.locals(sks=TcpSockTable, cold=TcpCold, unread=bint)
cdef int _close_connection(Net net, uint32_t sk) except -1
@cython.locals(opts=SockOptions)
cdef bint _lingers_not(Net net, uint32_t sk)
@cython.locals(timeout=int64_t)
cdef bint _orphan_fin_wait2(Net net, uint32_t sk) except? -1
