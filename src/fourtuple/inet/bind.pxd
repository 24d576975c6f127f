cimport cython
from libc.stdint cimport int8_t, int32_t, uint8_t, uint16_t, uint32_t, uint64_t
from fourtuple.inet.portset cimport PortSets, portset_add, portset_clear, portset_discard, portset_test
from fourtuple.inet.sock_table cimport SockTable
from fourtuple.inet.timewait cimport TimeWaitTable

cdef uint32_t _RESERVED, _SHUT

cdef class BindTable:
    cdef public SockTable sks
    cdef public TimeWaitTable tw
    cdef public uint32_t[::1] head, owners, bound, fastuid, fast_saddr
    cdef public int8_t[::1] fastreuse, fastreuseport
    cdef public PortSets sets

cpdef uint32_t bucket_next(BindTable bind, uint32_t owner) noexcept nogil
@cython.locals(row=uint32_t)
cdef void _link(BindTable bind, uint32_t owner, uint32_t before, uint32_t after) noexcept nogil
@cython.locals(row=uint32_t)
cdef void _set_next(BindTable bind, uint32_t owner, uint32_t after) noexcept nogil
@cython.locals(row=uint32_t)
cdef void _set_prev(BindTable bind, uint32_t owner, uint32_t before) noexcept nogil
@cython.locals(first=uint32_t)
cpdef void bucket_join(BindTable bind, uint32_t port, uint32_t owner, bint connect_bind) noexcept nogil
@cython.locals(row=uint32_t, before=uint32_t, after=uint32_t)
cpdef void bucket_leave(BindTable bind, uint32_t port, uint32_t owner, bint connect_bind) noexcept nogil
cdef void _heal(BindTable bind, uint32_t port) noexcept nogil
@cython.locals(row=uint32_t, before=uint32_t, after=uint32_t)
cpdef void bucket_replace(BindTable bind, uint32_t port, uint32_t old, uint32_t new) noexcept nogil
