cimport cython
from libc.stdint cimport int64_t, uint32_t, uint64_t

from fourtuple.inet.sock_table cimport sk_handle
from fourtuple.tcp.close cimport tcp_close
from fourtuple.tcp.ipv4 cimport tcp_v4_connect
from fourtuple.tcp.net cimport Net
from fourtuple.tcp.sock cimport TcpSockTable
from fourtuple.tcp.tcp cimport tcp_init_sock

cdef uint32_t SS_CONNECTING, SS_UNCONNECTED, EVENT_BITS, _LISTED

@cython.locals(sks=TcpSockTable, i=int, row=int64_t, sk=uint32_t, err=int)
cpdef int64_t connect_rows(Net net, uint32_t daddr, uint32_t dport, int n, object out_rows) except? -1
@cython.locals(sks=TcpSockTable, n=uint32_t, i=uint32_t, sk=uint32_t, bits=uint32_t, event=uint64_t)
cpdef int64_t take_events(Net net, object out, uint32_t first, uint32_t room, object later) except -1
