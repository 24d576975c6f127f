cimport cython
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t


@cython.final
cdef class PacketBuffer:
    cdef public uint8_t[::1] data
    cdef public object view
    cdef public uint64_t[::1] words
    cdef public size_t size
    cpdef bytes read(self, size_t off, size_t length)
    cpdef int write(self, size_t off, object payload) except -1


cpdef uint16_t get16(PacketBuffer b, size_t off) noexcept nogil
@cython.locals(high=uint32_t)
cpdef uint32_t get32(PacketBuffer b, size_t off) noexcept nogil
cpdef void put16(PacketBuffer b, size_t off, uint32_t value) noexcept nogil
cpdef void put32(PacketBuffer b, size_t off, uint32_t value) noexcept nogil
