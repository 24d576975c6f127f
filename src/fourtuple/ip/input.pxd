cimport cython
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from fourtuple.ip.netns cimport IpNet, ip_is_local, net_refresh
from fourtuple.ip.protocol cimport NetProtocol
from fourtuple.trace cimport trace
from fourtuple.wire.buffer cimport PacketBuffer
from fourtuple.wire.ipv4 cimport Ipv4Header, parse_ipv4

from fourtuple.ip.txqueue cimport tx_reset

cdef int _TRUNCATED, _BAD_CHECKSUM, FN_IP_RCV, _LOOPBACK_IFINDEX, _FEW


cdef class _Batch:
    cdef uint32_t[:] offsets, lengths


@cython.locals(h=Ipv4Header, reason=int)
cpdef int ip_rcv(IpNet net, PacketBuffer b, uint32_t off, uint32_t length, int dev)
@cython.locals(taken=int, i=int)
cpdef int ip_list_rcv(IpNet net, PacketBuffer b, object offsets, object lengths, int n, int dev) except -1
@cython.locals(taken=int, i=int)
cdef int _list_rcv(IpNet net, PacketBuffer b, _Batch batch, int n, int dev) except -1
cdef void _count_bad_header(IpNet net, int reason)
@cython.locals(proto=NetProtocol)
cpdef int ip_local_deliver(IpNet net, PacketBuffer b, uint32_t off, int dev)
@cython.locals(b=PacketBuffer, i=uint32_t)
cpdef int net_run_loopback(IpNet net)
