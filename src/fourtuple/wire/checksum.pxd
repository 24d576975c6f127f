cimport cython
from libc.stdint cimport uint16_t, uint32_t, uint64_t

from fourtuple.wire.buffer cimport PacketBuffer

cdef uint64_t _M32
cdef bint _LITTLE_ENDIAN


cpdef uint64_t ones_sum(PacketBuffer b, uint32_t off, uint32_t length, uint64_t seed) noexcept nogil
@cython.locals(i=size_t, end=size_t, total=uint64_t)
cdef uint64_t _short_sum(PacketBuffer b, size_t off, size_t length, uint64_t seed) noexcept nogil
@cython.locals(head=size_t, i=size_t, end=size_t, tail=size_t, total=uint64_t)
cdef uint64_t _long_sum(PacketBuffer b, size_t off, size_t length) noexcept nogil
@cython.locals(word=uint64_t, low=uint64_t, high=uint64_t)
cdef uint64_t _sum_words(PacketBuffer b, size_t i, size_t end) noexcept nogil
@cython.locals(folded=uint64_t)
cdef uint64_t _swapped(uint64_t total) noexcept nogil
@cython.locals(folded=uint64_t)
cpdef uint16_t fold(uint64_t total) noexcept nogil
@cython.locals(total=uint64_t)
cpdef uint64_t pseudo_header_sum(uint32_t saddr, uint32_t daddr, uint32_t proto, uint32_t length) noexcept nogil
