from libc.stdint cimport uint32_t

from fourtuple.tcp.net cimport Net, TcpCold
from fourtuple.tcp.sock cimport TcpSockTable

cdef uint32_t TCP_INFINITE_SSTHRESH


cpdef uint32_t tcp_ssthresh(Net net, uint32_t sk)
cpdef bint tcp_in_slow_start(Net net, uint32_t sk)
cpdef bint tcp_is_cwnd_limited(Net net, uint32_t sk, TcpCold cold)
cpdef uint32_t tcp_reno_ssthresh(Net net, uint32_t sk)
cpdef void tcp_reno_cong_avoid(Net net, uint32_t sk, TcpCold cold, uint32_t acked)
