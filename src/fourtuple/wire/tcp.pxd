cimport cython
from libc.stdint cimport int16_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from fourtuple.wire.buffer cimport PacketBuffer, get16, get32, put16, put32
from fourtuple.wire.checksum cimport fold, ones_sum, pseudo_header_sum
from fourtuple.wire.ipv4 cimport Ipv4Header, emit_ipv4

cdef int _TRUNCATED, _BAD_HEADER_LEN, _BAD_TOTAL_LEN
cdef uint32_t _SYN, _NOP, _MSS, _WSCALE, _SACK_PERM, _SACK, _TIMESTAMP, _MD5, _FASTOPEN, _EXPERIMENT, _FASTOPEN_MAGIC
cdef uint32_t _COOKIE_MIN, _COOKIE_MAX
cdef uint32_t _NOP_NOP_MD5, _NOP_NOP_TS, _SACK_PERM_TS, _NOP_NOP_SACK_PERM


@cython.final
cdef class TcpHeader:
    cdef public uint16_t sport
    cdef public uint16_t dport
    cdef public uint32_t seq
    cdef public uint32_t ack
    cdef public uint16_t flags
    cdef public uint16_t window
    cdef public uint16_t checksum
    cdef public uint16_t urg
    cdef public uint32_t header_len
    cdef public uint32_t payload_off
    cdef public uint32_t payload_len
    cdef public uint16_t mss
    cdef public int16_t wscale
    cdef public uint8_t sack_perm
    cdef public uint8_t has_ts
    cdef public uint32_t tsval
    cdef public uint32_t tsecr
    cdef public uint8_t n_sack
    cdef public uint32_t sack_start[4]
    cdef public uint32_t sack_end[4]
    cdef public int16_t tfo_len
    cdef public uint8_t tfo_exp
    cdef public uint32_t tfo_off
    cdef public bytes tfo_cookie
    cdef public uint8_t md5
    cdef public uint32_t md5_off


cpdef void clear_options(TcpHeader h) noexcept nogil
@cython.locals(end=uint64_t, word=uint32_t, header_len=uint32_t)
cpdef int parse_tcp(PacketBuffer b, uint32_t off, uint32_t length, TcpHeader h) noexcept nogil
cdef void _read_fields(PacketBuffer b, size_t off, TcpHeader h) noexcept nogil
@cython.locals(p=size_t, kind=uint32_t, size=uint32_t)
cdef void _parse_options(PacketBuffer b, size_t start, size_t end, TcpHeader h) noexcept nogil
cdef void _parse_timestamp(PacketBuffer b, size_t p, TcpHeader h) noexcept nogil
@cython.locals(n=uint32_t, i=uint32_t)
cdef void _parse_sack(PacketBuffer b, size_t p, uint32_t size, TcpHeader h) noexcept nogil
@cython.locals(kind=uint32_t, value=uint16_t)
cdef void _parse_syn_option(PacketBuffer b, size_t p, uint32_t size, TcpHeader h) noexcept nogil
@cython.locals(usable=bint)
cdef void _parse_fastopen(size_t cookie_off, uint32_t length, uint32_t experimental, TcpHeader h) noexcept nogil
@cython.locals(end=uint64_t)
cpdef bint verify_tcp(PacketBuffer b, uint32_t off, uint32_t length, uint32_t saddr, uint32_t daddr) noexcept nogil
@cython.locals(n=int)
cpdef int options_length(TcpHeader h) noexcept nogil
@cython.locals(end=uint64_t, header_len=uint32_t)
cpdef int emit_tcp(PacketBuffer b, uint32_t off, TcpHeader h) noexcept nogil
cdef void _emit_options(PacketBuffer b, size_t p, TcpHeader h) noexcept nogil
@cython.locals(i=size_t)
cdef void _emit_md5(PacketBuffer b, size_t p, TcpHeader h) noexcept nogil
@cython.locals(n=uint32_t, i=uint32_t)
cdef size_t _emit_sack(PacketBuffer b, size_t p, TcpHeader h) noexcept nogil
@cython.locals(size=uint32_t, end=size_t)
cdef void _emit_fastopen(PacketBuffer b, size_t p, TcpHeader h) noexcept nogil
cdef void _emit_cookie(PacketBuffer b, size_t p, TcpHeader h) noexcept with gil
cpdef void finish_tcp(PacketBuffer b, uint32_t off, uint32_t length, uint32_t saddr, uint32_t daddr) noexcept nogil
@cython.locals(header_len=uint32_t, total=uint64_t, end=uint64_t)
cpdef int64_t emit_segment(PacketBuffer b, uint32_t off, Ipv4Header ip, TcpHeader h, uint32_t payload_len) noexcept nogil
@cython.locals(ip_len=uint32_t)
cpdef void seal_segment(PacketBuffer b, uint32_t off) noexcept nogil
@cython.locals(ip_len=uint32_t, seed=uint64_t)
cpdef void seal_segment_partial(PacketBuffer b, uint32_t off) noexcept nogil
