cimport cython
from libc.stdint cimport int32_t, uint32_t, uint64_t

cdef uint64_t _ONE, _DE_BRUIJN
cdef uint32_t _FIRST_FREE, _WORDS, _SUMMARY, _TOP, _STRIDE
cdef const unsigned char *_POSITIONS

cdef class PortSets:
    cdef public uint32_t max_sets, high_water, free_head, used
    cdef public uint64_t[::1] words

@cython.locals(ports=uint32_t)
cpdef uint32_t portset_alloc(PortSets sets) noexcept nogil
cpdef void portset_free(PortSets sets, uint32_t ports) noexcept nogil
@cython.locals(word=uint32_t)
cpdef void portset_clear(PortSets sets, uint32_t ports) noexcept nogil
@cython.locals(low=uint64_t)
cdef uint64_t _all_ones() noexcept nogil
cpdef uint32_t port_index(uint32_t port) noexcept nogil
cpdef uint32_t index_port(uint32_t index) noexcept nogil
@cython.locals(index=uint32_t, word=uint32_t)
cpdef void portset_add(PortSets sets, uint32_t ports, uint32_t port) noexcept nogil
@cython.locals(bits=uint64_t)
cdef bint _set_bit(PortSets sets, uint32_t at, uint32_t bit) noexcept nogil
@cython.locals(index=uint32_t, word=uint32_t)
cpdef void portset_discard(PortSets sets, uint32_t ports, uint32_t port) noexcept nogil
@cython.locals(index=uint32_t)
cpdef uint32_t portset_test(PortSets sets, uint32_t ports, uint32_t port) noexcept nogil
@cython.locals(alone=uint64_t)
cpdef uint32_t lowest_bit(uint64_t bits) noexcept nogil
@cython.locals(index=uint32_t, word=uint32_t, free=uint64_t, port=int32_t)
cpdef int32_t portset_next_open(PortSets sets, uint32_t a, uint32_t b, uint32_t c, uint32_t first, int32_t last) noexcept nogil
cdef uint64_t _clear_bits(PortSets sets, uint32_t a, uint32_t b, uint32_t c, uint32_t word) noexcept nogil
@cython.locals(own=uint32_t, after=uint64_t, groups=uint64_t, group=uint32_t, words=uint64_t)
cdef uint32_t _next_open_word(PortSets sets, uint32_t a, uint32_t b, uint32_t c, uint32_t word, uint32_t last_word) noexcept nogil
