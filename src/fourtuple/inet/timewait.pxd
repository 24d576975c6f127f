cimport cython
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

# TIME_WAIT (and FIN_WAIT2 without a socket) rows; kernel: struct inet_timewait_sock + tcp_timewait_sock.
cdef int _ENOBUFS

cdef class TimeWaitTable:
    cdef public uint32_t max_rows, used, high_water, free_head
    cdef public dict columns
    # identity, host order; num == sport
    cdef public uint32_t[::1] saddr, daddr, dest
    cdef public uint16_t[::1] num, dport, bound_dev
    cdef public uint8_t[::1] substate            # TCP_TIME_WAIT or TCP_FIN_WAIT2
    cdef public uint32_t[::1] flags              # inet.flags bits kept: REUSE REUSEPORT CONNECT_BIND TRANSPARENT
    cdef public uint16_t[::1] opts               # interned SockOptions of the old socket (ttl, tos, mark, uid)
    # tcp_timewait_sock
    cdef public uint32_t[::1] snd_nxt, rcv_nxt, rcv_wnd, ts_recent, ts_recent_stamp, ts_offset, entry_ms
    cdef public uint16_t[::1] dst                # interned Rtable index
    cdef public uint8_t[::1] rcv_wscale
    # links
    cdef public uint32_t[::1] bind_next, bind_prev     # owner list of the bucket (encoded owners)
    cdef public uint32_t[::1] dest_next, dest_prev     # FIFO of its destination, by entry time
    cdef public uint32_t[::1] fifo_next, fifo_prev     # FIFO of the 60 s ones, by due time
    cdef public uint64_t[::1] due_us
    cdef public uint32_t[::1] timer              # wheel node while FIN_WAIT2, else 0
    cdef public uint32_t fifo_head, fifo_tail

@cython.locals(tw=uint32_t)
cpdef int64_t tw_alloc(TimeWaitTable table) noexcept nogil
cpdef void tw_free(TimeWaitTable table, uint32_t tw) noexcept nogil
cpdef void tw_fifo_append(TimeWaitTable table, uint32_t tw, uint64_t due_us) noexcept nogil
@cython.locals(before=uint32_t, after=uint32_t)
cpdef void tw_fifo_remove(TimeWaitTable table, uint32_t tw) noexcept nogil
