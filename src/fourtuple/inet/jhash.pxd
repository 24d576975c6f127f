cimport cython
from libc.stdint cimport uint32_t

cdef uint32_t _JHASH_INITVAL


@cython.locals(low=uint32_t)
cdef uint32_t _mask32() noexcept nogil
cdef uint32_t _rol32(uint32_t x, uint32_t n) noexcept nogil
@cython.locals(mask=uint32_t)
cdef uint32_t _final(uint32_t a, uint32_t b, uint32_t c) noexcept nogil
@cython.locals(mask=uint32_t, seed=uint32_t)
cpdef uint32_t jhash_3words(uint32_t a, uint32_t b, uint32_t c, uint32_t initval) noexcept nogil
@cython.locals(mask=uint32_t, seed=uint32_t)
cpdef uint32_t jhash_2words(uint32_t a, uint32_t b, uint32_t initval) noexcept nogil
