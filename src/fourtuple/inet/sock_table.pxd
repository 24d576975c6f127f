cimport cython
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef int _ENOBUFS
cdef uint64_t _M32

cdef class SockTable:
    cdef public uint32_t max_sockets, used, high_water, free_head
    cdef public dict columns
    # identity
    cdef public uint32_t[::1] saddr, daddr, dest
    cdef public uint16_t[::1] sport, num, dport, bound_dev
    # state
    cdef public uint8_t[::1] sk_state, userlocks
    cdef public uint32_t[::1] flags
    # options that the port rules read: index of an interned SockOptions
    cdef public uint16_t[::1] opts
    cdef public list option_sets
    cdef public object options
    # links of the bind bucket's owner list; a free row chains through bind_next
    cdef public uint32_t[::1] bind_next, bind_prev
    cdef public uint16_t[::1] generation
    # what a reused TIME_WAIT leaves to the new socket (tcp_twsk_unique), and the ISN
    cdef public uint32_t[::1] write_seq, ts_recent, ts_recent_stamp

@cython.locals(sk=uint32_t)
cpdef int64_t sk_alloc(SockTable table) noexcept nogil
cpdef void sk_free_inet(SockTable table, uint32_t sk) noexcept nogil
@cython.locals(wide=uint64_t)
cpdef uint64_t sk_handle(SockTable table, uint32_t sk) noexcept nogil
@cython.locals(sk=uint32_t)
cpdef uint32_t sk_resolve(SockTable table, uint64_t handle) noexcept nogil
