cimport cython
from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t
from fourtuple.inet.hashtables cimport _inet_check_established, search_port, tcp_twsk_unique
from fourtuple.inet.portset cimport portset_test
from fourtuple.inet.tuple_index cimport index_first, index_insert, index_next
from fourtuple.live.tables cimport Tables

cdef uint32_t _RESERVED, _SPAN
cdef uint8_t _LOOK_RESERVED, _LOOK_FREE, _LOOK_BOUND, _LOOK_JOINED, _LOOK_ESTABLISHED, _LOOK_TIME_WAIT, _LOOK_REUSED


@cython.final
cdef class Census:
    cdef public object views
    cdef public uint32_t[::1] slot_of, counts


@cython.final
cdef class Walk:
    cdef public object views
    cdef public uint32_t starts, failed, most
    cdef public uint64_t passed, skips, conflicts, time_waits
    cdef public uint32_t[::1] histogram, sums


cdef void _put_back(Tables t) noexcept nogil
@cython.locals(port=uint32_t, mapped=bint)
cpdef void look_at_ports(Tables t, uint32_t sk, uint32_t low, uint32_t high) noexcept nogil
cdef uint8_t _look_at(Tables t, uint32_t sk, uint32_t port, bint mapped) noexcept nogil
@cython.locals(tw=uint32_t, port=uint32_t)
cdef void _mark_time_waits(Tables t, uint32_t dest) noexcept nogil
@cython.locals(entry=uint32_t, dev=uint32_t, bound=uint32_t)
cdef uint8_t _who_holds(Tables t, uint32_t sk, uint32_t port) noexcept nogil
@cython.locals(offset=uint32_t, port=int32_t, passed=uint32_t, second=bint, step=uint32_t)
cpdef void ask_every_start(Tables t, Walk w, uint32_t sk) noexcept nogil
@cython.locals(passed=uint32_t)
cdef void _clear(Walk w) noexcept nogil
@cython.locals(port=uint32_t, step=uint32_t, at=uint32_t, low=uint32_t, high=uint32_t)
cdef void _sum_kinds(Tables t, Walk w) noexcept nogil
@cython.locals(first=uint32_t)
cdef void _add_kinds(Tables t, Walk w, uint32_t offset, uint32_t port, bint second) noexcept nogil
cdef uint32_t _end(Tables t, uint32_t first) noexcept nogil
cdef uint32_t _whole_parity(Tables t, Walk w, uint32_t kind, uint32_t offset) noexcept nogil
cdef uint32_t _between(Tables t, Walk w, uint32_t kind, uint32_t first, uint32_t port) noexcept nogil
@cython.locals(parity=uint32_t, failed=uint64_t)
cdef void _add_all_kinds(Tables t, Walk w) noexcept nogil
@cython.locals(passed=uint32_t, seen=uint32_t)
cpdef uint32_t rank(Walk w, uint32_t wanted) noexcept nogil
@cython.locals(i=uint32_t)
cpdef void count_states(Tables t, Census census) noexcept nogil
@cython.locals(i=uint32_t, port=uint32_t)
cpdef void mark_ports(Tables t, uint32_t dest) noexcept nogil
