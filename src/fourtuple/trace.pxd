cimport cython
from libc.stdint cimport int64_t, uint32_t, uint64_t

# A ring of fixed records (function, socket, four ints); formatted elsewhere.  See trace.py.
cdef class Tracer:
    cdef public int64_t[::1] records
    cdef public uint32_t capacity
    cdef public uint64_t count
    cdef public object clock
    cdef public object engine

@cython.locals(at=uint64_t)
cpdef void trace(Tracer tracer, int fn, uint32_t sk, int64_t a=*, int64_t b=*, int64_t c=*, int64_t d=*)
