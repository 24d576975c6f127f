cimport cython
from libc.stdint cimport int64_t, uint32_t

cdef uint32_t _M32


cpdef bint before(uint32_t a, uint32_t b) noexcept nogil
cpdef bint after(uint32_t a, uint32_t b) noexcept nogil
cpdef bint between(uint32_t seq, uint32_t low, uint32_t high) noexcept nogil
cpdef uint32_t seq_add(uint32_t seq, uint32_t count) noexcept nogil
@cython.locals(distance=int64_t)
cpdef int64_t seq_diff(uint32_t a, uint32_t b) noexcept nogil
