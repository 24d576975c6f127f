cimport cython
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from fourtuple.ip.netns cimport IpNet
from fourtuple.ip.protocol cimport NetProtocol
from fourtuple.trace cimport trace
from fourtuple.wire.buffer cimport PacketBuffer
from fourtuple.wire.icmp cimport IcmpHeader, parse_icmp

cdef int FN_ICMP_RCV, FN_IP_QUEUE_XMIT


cdef class IcmpProtocol(NetProtocol):
    pass


cpdef int icmp_rcv(IpNet net, PacketBuffer b, uint32_t off, uint32_t length, int dev)
