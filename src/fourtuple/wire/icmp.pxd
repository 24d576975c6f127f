cimport cython
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from fourtuple.wire.buffer cimport PacketBuffer, get16, get32, put32
from fourtuple.wire.checksum cimport fold, ones_sum
from fourtuple.wire.ipv4 cimport Ipv4Header, emit_ipv4

cdef int _TRUNCATED, _BAD_CHECKSUM


@cython.final
cdef class IcmpHeader:
    cdef public uint8_t type
    cdef public uint8_t code
    cdef public uint16_t checksum
    cdef public uint32_t info
    cdef public uint16_t mtu
    cdef public uint32_t inner_off
    cdef public uint32_t inner_len


@cython.locals(end=uint64_t)
cpdef int parse_icmp(PacketBuffer b, uint32_t off, uint32_t length, IcmpHeader h) noexcept nogil
@cython.locals(end=uint64_t, word=uint32_t)
cpdef int emit_icmp(PacketBuffer b, uint32_t off, uint32_t length, uint32_t icmp_type, uint32_t code,
                    uint32_t info) noexcept nogil
