cimport cython
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from fourtuple.wire.buffer cimport PacketBuffer, get16, get32, put32
from fourtuple.wire.checksum cimport fold, ones_sum

cdef int _TRUNCATED, _BAD_VERSION, _BAD_HEADER_LEN, _BAD_TOTAL_LEN, _BAD_CHECKSUM


@cython.final
cdef class Ipv4Header:
    cdef public uint8_t version
    cdef public uint32_t header_len
    cdef public uint8_t tos
    cdef public uint32_t total_len
    cdef public uint16_t ident
    cdef public bint df
    cdef public bint mf
    cdef public uint32_t frag_off
    cdef public uint8_t ttl
    cdef public uint8_t proto
    cdef public uint32_t saddr
    cdef public uint32_t daddr
    cdef public uint16_t checksum


@cython.locals(end=uint64_t)
cpdef int parse_ipv4(PacketBuffer b, uint32_t off, uint32_t length, Ipv4Header h) noexcept nogil
@cython.locals(frag=uint32_t)
cdef void _read_fields(PacketBuffer b, size_t off, Ipv4Header h) noexcept nogil
@cython.locals(end=uint64_t, frag=uint32_t, word=uint32_t, total=uint64_t)
cpdef int emit_ipv4(PacketBuffer b, uint32_t off, Ipv4Header h) noexcept nogil
