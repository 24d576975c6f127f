cimport cython
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from fourtuple.inet.portset cimport PortSets, portset_add, portset_alloc, portset_discard, portset_free
from fourtuple.inet.timewait cimport TimeWaitTable
from fourtuple.inet.tuple_index cimport TupleIndex, index_erase, index_first, index_insert

cdef uint64_t _M32
cdef uint32_t _CURSOR, _RIPE, _TCP_TIME_WAIT, _LOOPBACK_NET, _LOOPBACK_IFINDEX

cdef class DestTable:
    cdef public uint32_t max_rows, used, last, high_water, free_head, reuse_generation
    cdef public uint32_t tw_reuse, tw_reuse_delay, dense, tw_seconds
    cdef public bint fin_wait2_reuse
    cdef public TupleIndex index
    cdef public PortSets sets
    cdef public TimeWaitTable tw
    cdef public uint32_t[:] saddr, daddr, count, tw_head, tw_tail, map_index
    cdef public uint16_t[:] dport, dev, lowest, highest

@cython.locals(dest=uint32_t)
cpdef uint32_t dest_find(DestTable dests, uint32_t saddr, uint32_t daddr, uint32_t dport, uint32_t dev) noexcept nogil
@cython.locals(dest=uint32_t)
cpdef uint32_t dest_get(DestTable dests, uint32_t saddr, uint32_t daddr, uint32_t dport, uint32_t dev) noexcept nogil
cpdef void dest_release(DestTable dests, uint32_t dest) noexcept nogil
@cython.locals(used=uint32_t)
cpdef uint32_t dest_new_map(DestTable dests, uint32_t dest) noexcept nogil
cdef void _drop_map(DestTable dests, uint32_t dest) noexcept nogil
cpdef void dest_add(DestTable dests, uint32_t dest, uint32_t port) noexcept nogil
cpdef bint dest_is_clear_of(DestTable dests, uint32_t dest, uint32_t port) noexcept nogil
cpdef void dest_remove(DestTable dests, uint32_t dest, uint32_t port) noexcept nogil
@cython.locals(last=uint32_t, used=uint32_t)
cpdef void dest_tw_append(DestTable dests, uint32_t dest, uint32_t tw) noexcept nogil
@cython.locals(before=uint32_t, after=uint32_t, used=uint32_t)
cpdef void dest_tw_remove(DestTable dests, uint32_t dest, uint32_t tw) noexcept nogil
cpdef bint tw_may_ever_reuse(DestTable dests, uint32_t tw) noexcept nogil
@cython.locals(wide=uint64_t, age=uint64_t, delay=uint64_t)
cpdef bint tw_is_ripe(DestTable dests, uint32_t tw, uint32_t now_ms) noexcept nogil
@cython.locals(used=uint32_t, tw=uint32_t)
cpdef void dest_ripen(DestTable dests, uint32_t dest, uint32_t now_ms) noexcept nogil
@cython.locals(tw=uint32_t)
cdef void _restart(DestTable dests, uint32_t dest, uint32_t used) noexcept nogil
