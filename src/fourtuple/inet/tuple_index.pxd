cimport cython
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from fourtuple.inet.jhash cimport jhash_3words

cdef uint32_t _EMPTY, _TOMB, _STEP, _FAR, _DISTANCE_BITS

cdef class ColumnGroup:
    cdef public uint32_t[:] saddr, daddr
    cdef public uint16_t[:] port, dport

cdef class SlotArray:
    cdef public uint32_t[::1] slots
    cdef public uint32_t capacity, moved

cdef class TupleIndex:
    cdef public ColumnGroup a, b
    cdef public uint32_t secret, limit, count, shift, entry_mask, tag_mask
    cdef public SlotArray table, old
    cdef public uint32_t key_saddr, key_daddr, key_ports, key_hash, cursor, distance
    cdef public bint cursor_old

cpdef int index_reserve(TupleIndex index, uint64_t count) except -1
cdef void _grow(TupleIndex index) noexcept with gil
cdef void _release_old(TupleIndex index) noexcept with gil
cdef uint32_t _entry_hash(TupleIndex index, uint32_t entry) noexcept nogil
@cython.locals(ports=uint32_t)
cdef uint32_t _row_hash(ColumnGroup group, uint32_t row, uint32_t secret) noexcept nogil
cdef bint _entry_matches(TupleIndex index, uint32_t entry) noexcept nogil
@cython.locals(ports=uint32_t)
cdef bint _row_matches(ColumnGroup group, uint32_t row, TupleIndex key) noexcept nogil
cdef uint32_t _near(uint32_t distance) noexcept nogil
@cython.locals(distance=uint32_t, wide=uint64_t, home=uint32_t)
cdef uint32_t _distance(TupleIndex index, SlotArray table, uint32_t slot, uint32_t position) noexcept nogil
@cython.locals(wide=uint64_t, position=uint32_t, distance=uint32_t, mark=uint32_t)
cdef void _put(TupleIndex index, SlotArray table, uint32_t entry) noexcept nogil
@cython.locals(end=uint32_t, position=uint32_t, slot=uint32_t)
cdef void _move_some(TupleIndex index, SlotArray old) noexcept nogil
cpdef void index_insert(TupleIndex index, uint32_t entry) noexcept nogil
@cython.locals(wide=uint64_t, position=int64_t, found=bint)
cpdef int index_erase(TupleIndex index, uint32_t entry) noexcept nogil
@cython.locals(position=uint32_t, slot=uint32_t)
cdef int64_t _find_entry(TupleIndex index, SlotArray table, uint32_t entry, uint64_t wide) noexcept nogil
@cython.locals(position=uint32_t, slot=uint32_t, distance=uint32_t, way=uint32_t)
cdef void _close_gap(TupleIndex index, SlotArray table, uint32_t gap) noexcept nogil
@cython.locals(wide_port=uint32_t)
cpdef uint32_t index_first(TupleIndex index, uint32_t saddr, uint32_t daddr, uint32_t port, uint32_t dport) noexcept nogil
cpdef uint32_t index_next(TupleIndex index) noexcept nogil
@cython.locals(wide=uint64_t)
cdef void _start(TupleIndex index, SlotArray table) noexcept nogil
@cython.locals(position=uint32_t, distance=uint32_t, tag=uint32_t, found=uint32_t, slot=uint32_t)
cdef uint32_t _seek(TupleIndex index, SlotArray table) noexcept nogil
