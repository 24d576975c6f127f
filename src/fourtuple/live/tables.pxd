cimport cython
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from fourtuple.inet.bind cimport bucket_join, bucket_leave
from fourtuple.inet.connection_sock cimport inet_csk_update_fastreuse
from fourtuple.inet.dest cimport dest_add, dest_get, dest_new_map, dest_tw_append
from fourtuple.inet.hashinfo cimport InetHashinfo
from fourtuple.inet.hashtables cimport inet_hash
from fourtuple.inet.portset cimport portset_test
from fourtuple.inet.sock_table cimport SockTable, sk_alloc
from fourtuple.inet.timewait cimport TimeWaitTable, tw_alloc, tw_fifo_append
from fourtuple.inet.tuple_index cimport index_first, index_insert, index_next
from fourtuple.live._decode cimport SocketColumns

cdef uint32_t _V6_KEYS, _LOOPBACK6, _ONE6, _NOBODY, _MANY, _SMALL
cdef uint8_t _AF_INET, _FIN_WAIT2, _TIME_WAIT, _CLOSE, _LISTEN, _BOUND, _TIME_WAIT_TIMER, _INBOUND, _NO_PORT, _STAMPED
cdef uint32_t _LOCKS, _HASHED, _CONNECT_BIND, _RESERVED, _TW_MS, _ASK_FLAG
cdef uint8_t _NONE, _JOINABLE, _LIKELY_JOINABLE, _LIKELY_SHUT, _SHUT


@cython.final
cdef class Tables:
    cdef public InetHashinfo h
    cdef public SocketColumns columns
    cdef public object sockets, views
    cdef public uint32_t loopback6, probe, twice, dense, low, high
    cdef public uint64_t now_us
    cdef public int world
    cdef public uint8_t[::1] certainty, verdict, drop
    cdef public uint32_t[::1] sk_row, tw_row, phantom, doubtful, first_dest, order, first_parity, second_parity


@cython.locals(row=uint32_t, found=uint32_t)
cpdef uint32_t count_time_waits(SocketColumns c) noexcept nogil
cdef bint _is_time_wait(SocketColumns c, uint32_t row) noexcept nogil
@cython.locals(i=uint32_t, at=size_t)
cpdef uint32_t find_loopback6(SocketColumns c) noexcept nogil
cdef uint32_t _key(Tables t, uint8_t family, uint32_t value) noexcept nogil
cdef uint16_t _device(uint32_t ifindex) noexcept nogil
@cython.locals(row=uint32_t, sk=uint32_t, c=SocketColumns)
cpdef int enter_bound(Tables t) except -1
@cython.locals(sk=uint32_t)
cdef uint32_t _new_sock(Tables t, uint32_t row) noexcept nogil
@cython.locals(entry=uint32_t, bound=uint32_t, saddr=uint32_t, daddr=uint32_t)
cdef bint _is_there(Tables t, uint32_t row) noexcept nogil
@cython.locals(row=uint32_t, sk=uint32_t, state=uint8_t)
cpdef void enter_connected(Tables t) noexcept nogil
@cython.locals(i=uint32_t, k=uint32_t, row=uint32_t)
cpdef void order_time_waits(Tables t) noexcept nogil
cdef uint32_t _remaining(SocketColumns c, uint32_t row) noexcept nogil
@cython.locals(i=uint32_t)
cpdef void enter_time_waits(Tables t, uint32_t timestamps) noexcept nogil
@cython.locals(tw=uint32_t, remaining=uint32_t, wide=uint64_t)
cdef void _enter_time_wait(Tables t, uint32_t row, uint32_t timestamps) noexcept nogil
@cython.locals(dest=uint32_t)
cdef uint32_t _count_dest(Tables t, uint32_t saddr, uint32_t daddr, uint32_t dport, uint32_t dev) noexcept nogil
@cython.locals(dest=uint32_t, i=uint32_t)
cpdef void fill_dests(Tables t) noexcept nogil
@cython.locals(parity_tells=bint)
cpdef void weigh_ports(Tables t) noexcept nogil
cdef void _note_owner(Tables t, uint32_t dest, uint32_t port, bint sure) noexcept nogil
@cython.locals(i=uint32_t, sure=bint)
cdef void _note_owners(Tables t) noexcept nogil
@cython.locals(dest=uint32_t)
cdef void _pool_small(Tables t) noexcept nogil
@cython.locals(dest=uint32_t)
cdef bint _looks_bound(Tables t, uint32_t dest) noexcept nogil
@cython.locals(port=uint32_t, closed=uint32_t)
cdef bint _first_parity_was_open(Tables t) noexcept nogil
@cython.locals(port=uint32_t)
cdef void _pass_judgement(Tables t, bint parity_tells) noexcept nogil
cdef uint8_t _judge_port(Tables t, uint32_t port, bint parity_tells) noexcept nogil
@cython.locals(port=uint32_t, wanted=bint)
cpdef void assume(Tables t, uint8_t least, uint8_t most) noexcept nogil
@cython.locals(sk=uint32_t)
cdef void _add_phantom(Tables t, uint32_t port) noexcept nogil
