cimport cython
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef uint64_t _M64, _MIX
cdef uint32_t _M32, _MAPPED, _ENOBUFS, _LOW_WORD
cdef bint _LITTLE
cdef int _MORE, _DONE, _ERROR, _FULL, _MALFORMED
cdef uint8_t _V6SOCK, _V6ONLY, _AF_INET, _AF_INET6, _TCP_SYN_RECV, _TCP_CLOSE, _LISTEN, _TCP_NEW_SYN_RECV, _BOUND


@cython.final
cdef class Datagram:
    cdef public object view
    cdef public uint8_t[::1] data
    cdef public uint16_t[::1] halves
    cdef public uint32_t[::1] words
    cdef public size_t size


@cython.final
cdef class SocketColumns:
    cdef public object views
    cdef public uint32_t count, room, sequence, error, interrupted, foreign, used6, room6, mask6
    cdef public int stop
    cdef public bint has_idle
    cdef public uint64_t seed
    cdef public uint8_t[::1] family, state, timer, retrans, flags
    cdef public uint16_t[::1] sport, dport
    cdef public uint32_t[::1] saddr, daddr, ifindex, uid, inode, expires_ms, rqueue, wqueue, slots6, words6, idle_ms
    cdef public uint64_t[::1] cgroup


@cython.locals(row=uint32_t, family=uint8_t)
cpdef bint is_sound(SocketColumns c) noexcept nogil
@cython.locals(offset=size_t, size=uint64_t)
cpdef size_t decode(SocketColumns c, Datagram d, size_t start, size_t length) noexcept nogil
@cython.locals(kind=uint32_t, word=uint32_t)
cdef int _message(SocketColumns c, Datagram d, size_t offset, uint64_t size) noexcept nogil
@cython.locals(row=uint32_t, state=uint8_t, word=size_t)
cdef int _socket(SocketColumns c, Datagram d, size_t offset, size_t end) noexcept nogil
@cython.locals(family=uint8_t)
cdef bint _addresses(SocketColumns c, Datagram d, uint32_t row, size_t offset) noexcept nogil
@cython.locals(size=uint64_t, kind=uint32_t, high=uint64_t)
cdef void _attributes(SocketColumns c, Datagram d, uint32_t row, size_t offset, size_t end) noexcept nogil
@cython.locals(sent=uint32_t, received=uint32_t)
cdef uint32_t _idle(Datagram d, size_t word) noexcept nogil
@cython.locals(flags=uint32_t)
cdef uint8_t _options(uint32_t first, uint32_t second) noexcept nogil
@cython.locals(high=uint32_t)
cdef uint32_t _be32(Datagram d, size_t offset) noexcept nogil
@cython.locals(word=size_t)
cdef bint _is_zero(Datagram d, size_t offset) noexcept nogil
@cython.locals(word=size_t)
cdef bint _is_mapped(Datagram d, size_t offset) noexcept nogil
@cython.locals(word=size_t, at=size_t, i=uint32_t)
cdef uint32_t _intern(SocketColumns c, Datagram d, size_t offset) noexcept nogil
@cython.locals(at=size_t, wide=uint64_t, high=uint64_t, slot=uint32_t, other=uint32_t)
cpdef uint32_t enter_address(SocketColumns c, uint32_t index) noexcept nogil
cdef bint _same_address(SocketColumns c, size_t a, size_t b) noexcept nogil
