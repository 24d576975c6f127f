cimport cython
from libc.stdint cimport uint64_t

# A log-linear histogram of unsigned 64-bit values; hist_record() allocates nothing.  See histogram.py.
cdef class Histogram:
    cdef public uint64_t[::1] counts
    cdef public uint64_t count
    cdef public uint64_t least
    cdef public uint64_t most
    cdef public uint64_t sum_low
    cdef public uint64_t sum_high

@cython.locals(rest=uint64_t, shift=uint64_t)
cpdef uint64_t hist_bucket(uint64_t value) noexcept nogil

cpdef void hist_record(Histogram h, uint64_t value) noexcept nogil

@cython.locals(i=uint64_t, before=uint64_t)
cpdef uint64_t hist_find(Histogram h, uint64_t rank) noexcept nogil

@cython.locals(i=uint64_t, before=uint64_t)
cpdef void hist_add(Histogram h, Histogram other) noexcept nogil

cdef uint64_t _M64
cdef uint64_t _BUCKETS
