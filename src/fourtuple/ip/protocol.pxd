from libc.stdint cimport uint32_t

from fourtuple.ip.netns cimport IpNet
from fourtuple.wire.buffer cimport PacketBuffer


cdef class NetProtocol:
    cpdef int handler(self, IpNet net, PacketBuffer b, uint32_t off, uint32_t length, int dev)
    cpdef int err_handler(self, IpNet net, PacketBuffer b, uint32_t off, uint32_t length, int icmp_type, int code,
                          uint32_t info)
