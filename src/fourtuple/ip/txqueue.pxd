cimport cython
from libc.stdint cimport int64_t, uint32_t, uint64_t

from fourtuple.wire.buffer cimport PacketBuffer


@cython.final
cdef class TxQueue:
    cdef public PacketBuffer buffer
    cdef public uint32_t[::1] offsets, lengths, devs
    cdef public uint64_t[::1] times
    cdef public uint32_t count, slots
    cdef public uint64_t tail


cpdef uint32_t tx_reserve(TxQueue tx, uint32_t size)
cpdef void tx_commit(TxQueue tx, uint32_t off, uint32_t length, uint32_t dev, uint64_t now_us)
cpdef void tx_reset(TxQueue tx)
cpdef bytes tx_packet(TxQueue tx, uint32_t i)
@cython.locals(size=uint64_t, bigger=PacketBuffer)
cdef void _grow_buffer(TxQueue tx, uint64_t needed)
cdef void _grow_slots(TxQueue tx)
