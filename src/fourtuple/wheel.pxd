cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

# The timer wheel: node slab + wheels of 256 slots, opened where needed.  See wheel.py.
cdef class TimerWheel:
    # filled by wheel_pop: the node that just fired (already freed)
    cdef public uint64_t fired_due
    cdef public uint32_t fired_owner
    cdef public uint8_t fired_kind
    cdef public uint32_t armed
    # the earliest node if known, else 0
    cdef public uint32_t first
    cdef public uint32_t max_timers, max_wheels
    cdef public uint32_t free_node, high_node, free_wheel, high_wheel
    # by node
    cdef public dict nodes
    cdef public uint64_t[::1] due
    cdef public uint32_t[::1] next, prev, slot, owner
    cdef public uint8_t[::1] kind
    # by slot: wheel << 8 | digit; bit set of occupied slots
    cdef public uint32_t[::1] head, tail, length, child
    cdef public uint64_t[::1] occupied
    # by wheel
    cdef public uint32_t[::1] parent_slot
    cdef public uint8_t[::1] shift

cdef uint64_t _M64, _ONE, _DEBRUIJN
cdef uint32_t _SCAN, _OPEN_AT, _ROOT_SHIFT
cdef const unsigned char* _TRAILING_ZEROS

# node >= 1; raises nothing; grows its slab by itself
@cython.locals(node=uint32_t, slot=uint32_t)
cpdef uint32_t wheel_arm(TimerWheel wheel, uint64_t due_us, uint32_t owner, uint8_t kind)
@cython.locals(slot=uint32_t, before=uint32_t, after=uint32_t)
cpdef void wheel_cancel(TimerWheel wheel, uint32_t node) noexcept
cpdef int64_t wheel_next_due(TimerWheel wheel) noexcept
cpdef uint64_t wheel_due_of(TimerWheel wheel, uint32_t node) noexcept
cpdef bint wheel_pop(TimerWheel wheel, uint64_t now_us) noexcept

cdef void _grow(TimerWheel wheel)
@cython.locals(shift=uint32_t, slot=uint32_t, child=uint32_t)
cdef uint32_t _find_slot(TimerWheel wheel, uint64_t due_us) noexcept nogil
@cython.locals(last=uint32_t)
cdef void _append(TimerWheel wheel, uint32_t slot, uint32_t node) noexcept nogil
@cython.locals(turning=uint32_t, bits=uint32_t)
cdef void _vacate(TimerWheel wheel, uint32_t slot) noexcept nogil
@cython.locals(child=uint32_t, shift=uint32_t, node=uint32_t, after=uint32_t)
cdef bint _open(TimerWheel wheel, uint32_t slot) noexcept nogil
@cython.locals(turning=uint32_t, slot=uint32_t)
cdef uint32_t _find_first(TimerWheel wheel) noexcept nogil
@cython.locals(word=uint32_t, bits=uint64_t, lowest=uint64_t)
cdef uint32_t _first_occupied(TimerWheel wheel, uint32_t turning) noexcept nogil
@cython.locals(best=uint32_t)
cdef uint32_t _earliest_of(TimerWheel wheel, uint32_t node) noexcept nogil
