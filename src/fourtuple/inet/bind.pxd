cimport cython
from libc.stdint cimport int8_t, int32_t, uint8_t, uint16_t, uint32_t, uint64_t
from fourtuple.inet.portset cimport PortSets, portset_add, portset_clear, portset_discard, portset_test
from fourtuple.inet.sock_table cimport SockTable
from fourtuple.inet.timewait cimport TimeWaitTable

cdef uint32_t _RESERVED, _SHUT, _CONNECT_BIND, _BIND_MOVED, _TW_BIND_MOVED
cdef uint32_t _M32

cdef class BindTable:
    cdef public SockTable sks
    cdef public TimeWaitTable tw
    cdef public uint32_t[::1] head, owners, bound, fastuid, fast_saddr
    cdef public int8_t[::1] fastreuse, fastreuseport
    cdef public PortSets sets
    cdef public uint32_t moved
    cdef public bint heals, has_reuseport

cpdef uint32_t bucket_next(BindTable bind, uint32_t owner) noexcept nogil
@cython.locals(row=uint32_t)
cdef uint32_t _bucket_prev(BindTable bind, uint32_t owner) noexcept nogil
cdef void _link(BindTable bind, uint32_t owner, uint32_t before, uint32_t after) noexcept nogil
@cython.locals(row=uint32_t)
cdef void _set_next(BindTable bind, uint32_t owner, uint32_t after) noexcept nogil
@cython.locals(row=uint32_t)
cdef void _set_prev(BindTable bind, uint32_t owner, uint32_t before) noexcept nogil
@cython.locals(first=uint32_t)
cpdef void bucket_join(BindTable bind, uint32_t port, uint32_t owner, bint connect_bind) noexcept nogil
@cython.locals(before=uint32_t, after=uint32_t)
cpdef void bucket_leave(BindTable bind, uint32_t port, uint32_t owner, bint connect_bind) noexcept nogil
cdef void _heal(BindTable bind, uint32_t port) noexcept nogil
cdef bint _has_astray(BindTable bind, uint32_t port) noexcept nogil
cdef bint _is_moved(BindTable bind, uint32_t owner) noexcept nogil
@cython.locals(flags=uint32_t)
cdef bint _keeps_shut(BindTable bind, uint32_t owner) noexcept nogil
cdef uint32_t _owner_saddr(BindTable bind, uint32_t owner) noexcept nogil
@cython.locals(port=uint32_t, open_there=bint, moved=bint)
cpdef void bucket_move(BindTable bind, uint32_t sk, uint32_t saddr) noexcept nogil
@cython.locals(found=bint, owner=uint32_t)
cdef bint _is_open_at(BindTable bind, uint32_t port, uint32_t saddr, uint32_t newcomer) noexcept nogil
@cython.locals(owner=uint32_t)
cpdef void bucket_claim(BindTable bind, uint32_t port, uint32_t saddr) noexcept nogil
cdef void _unmove(BindTable bind, uint32_t port, uint32_t owner) noexcept nogil
@cython.locals(before=uint32_t, after=uint32_t)
cpdef void bucket_replace(BindTable bind, uint32_t port, uint32_t old, uint32_t new) noexcept nogil
