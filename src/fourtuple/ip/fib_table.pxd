cimport cython
from libc.stdint cimport int64_t, uint32_t

cdef int _DSCP_MASK, _RTN_UNICAST


@cython.final
cdef class FibClock:
    cdef public uint32_t generation


@cython.final
cdef class Flow:
    cdef public uint32_t daddr, saddr, mark
    cdef public int oif, tos, scope
    cdef public bint anysrc


@cython.final
cdef class FibRoute:
    cdef public uint32_t prefix, gateway, prefsrc
    # Signed: `order` negates them, `priority` is an unsigned number of 32 bits.
    cdef public int64_t table, tos, priority
    cdef public int prefixlen, type, scope, oif, protocol, nh_scope
    cdef public bint onlink
    cdef public object metrics
    cdef public dict exceptions
    cdef public object rth_output
    cdef public int64_t rth_generation

    cpdef object answer(self, Flow flow)


@cython.final
cdef class FibTable:
    cdef public list _lengths

    @cython.locals(daddr=uint32_t, mask=uint32_t, buckets=dict, routes=list, route=FibRoute)
    cpdef object lookup(self, Flow flow)
    cdef dict _buckets(self, mask)


@cython.locals(table=FibTable)
cpdef object lookup_without_rules(dict tables, Flow flow)
