cimport cython
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from fourtuple.live._decode cimport SocketColumns

cdef uint64_t _M64, _MIX
cdef uint32_t _NONE
cdef uint8_t _AF_INET, _AF_INET6, _LISTEN, _BOUND, _V6ONLY, _INBOUND


@cython.final
cdef class Keys:
    cdef public object views
    cdef public uint64_t seed
    cdef public uint32_t count, mask
    cdef public uint8_t[::1] family
    cdef public uint16_t[::1] port
    cdef public uint32_t[::1] saddr, daddr, slots


@cython.final
cdef class Groups:
    cdef public Keys keys
    cdef public object views
    cdef public uint32_t[::1] total, first, group_of, order, counts


@cython.locals(wide=uint64_t, low=uint64_t, slot=uint32_t, i=uint32_t)
cpdef uint32_t find(Keys k, uint8_t family, uint32_t saddr, uint32_t daddr, uint16_t port) noexcept nogil
@cython.locals(slot=uint32_t, i=uint32_t)
cpdef uint32_t number(Keys k, uint8_t family, uint32_t saddr, uint32_t daddr, uint16_t port) noexcept nogil
@cython.locals(row=uint32_t, found=uint32_t)
cpdef uint32_t count_listeners(SocketColumns c) noexcept nogil
@cython.locals(row=uint32_t, marked=uint32_t, state=uint8_t)
cpdef uint32_t mark_inbound(SocketColumns c, Keys listeners) noexcept nogil
@cython.locals(family=uint8_t, port=uint16_t)
cdef bint _is_listened(SocketColumns c, uint32_t row, Keys listeners) noexcept nogil
@cython.locals(row=uint32_t, i=uint32_t, state=uint8_t, at=size_t)
cpdef void group(SocketColumns c, Groups g, bint inbound) noexcept nogil
@cython.locals(end=uint32_t, row=uint32_t, i=uint32_t)
cdef void _sort(SocketColumns c, Groups g) noexcept nogil
