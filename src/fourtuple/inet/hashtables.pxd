cimport cython
from libc.stdint cimport int32_t, uint32_t, uint64_t
from fourtuple.inet.bind cimport BindTable, bucket_join, bucket_leave, bucket_move
from fourtuple.inet.dest cimport (
    DestTable, dest_add, dest_find, dest_get, dest_is_clear_of, dest_new_map, dest_remove, dest_ripen, tw_is_ripe,
    tw_may_ever_reuse)
from fourtuple.inet.hashinfo cimport InetHashinfo, PortRange, inet_sk_get_local_port_range, refresh_sysctls
from fourtuple.inet.portset cimport (
    PortSets, portset_add, portset_next_open, portset_test)
from fourtuple.inet.secrets cimport BootSecrets, get_random_u32_below, perturb_start
from fourtuple.inet.secure_seq cimport secure_ipv4_port_ephemeral
from fourtuple.inet.sock_table cimport SockTable
from fourtuple.inet.timewait cimport TimeWaitTable
from fourtuple.inet.timewait_sock cimport inet_twsk_release
from fourtuple.inet.tuple_index cimport TupleIndex, index_erase, index_first, index_insert, index_next
from fourtuple.sysctl cimport Sysctls
from fourtuple.trace cimport Tracer, trace

cdef uint64_t _M32
cdef int _EADDRNOTAVAIL
cdef uint32_t _TCP_LISTEN, _CONNECT_BIND, _BIND_MOVED, _HASHED, _PERTURB_MASK, _PATIENCE, _ROWS_A_PORT
cdef uint32_t _EMPTY, _RESERVED, _SHUT
cdef int _FROM_NEXT, _FROM_EVEN
cdef uint64_t _TEN_SECONDS

@cython.locals(local=bint, numbers=PortRange)
cpdef void set_search_range(InetHashinfo h, uint32_t sk) noexcept
cpdef uint64_t inet_sk_port_offset(InetHashinfo h, uint32_t sk, uint64_t now_us) noexcept nogil
cdef uint64_t _hash_time(InetHashinfo h, uint64_t now_us) noexcept nogil
@cython.locals(port_offset=uint64_t)
cpdef int32_t inet_hash_connect(InetHashinfo h, uint32_t sk, uint64_t now_us) except? -2
@cython.locals(port=uint32_t, error=int)
cdef int32_t _connect_bound(InetHashinfo h, uint32_t sk, uint64_t now_us) except? -2
@cython.locals(numbers=PortRange, index=uint32_t, start=uint32_t, offset=uint32_t, moved=uint32_t, port=int32_t)
cpdef int32_t _inet_hash_connect(InetHashinfo h, uint32_t sk, uint64_t port_offset, uint64_t now_us) except? -2
@cython.locals(numbers=PortRange, step=uint32_t)
cdef int _trace_search(InetHashinfo h, uint32_t sk, uint32_t offset, uint64_t now_us) except -1
@cython.locals(numbers=PortRange, index=uint32_t, offset=uint32_t, moved=uint32_t, port=int32_t)
cdef int32_t _inet_hash_connect_variant(InetHashinfo h, uint32_t sk, uint64_t port_offset, uint64_t now_us) except? -2
@cython.locals(start=uint32_t)
cdef uint32_t _table_offset(InetHashinfo h, uint64_t port_offset, uint32_t index) noexcept nogil
@cython.locals(start=uint32_t)
cdef uint32_t _counter_offset(InetHashinfo h, uint64_t hashed) noexcept nogil
@cython.locals(wide=uint64_t)
cdef uint32_t _move_counter(InetHashinfo h) noexcept nogil
cpdef int _random_stride(InetHashinfo h) except -1
@cython.locals(step=uint32_t, advance=uint32_t, wide=uint64_t)
cdef uint32_t _perturb(InetHashinfo h, uint32_t index) noexcept nogil
@cython.locals(dest=uint32_t)
cdef void _take(InetHashinfo h, uint32_t sk, uint32_t port) noexcept nogil
@cython.locals(port=int32_t)
cpdef int32_t search_port(InetHashinfo h, uint32_t sk, uint32_t offset, uint64_t now_us) noexcept nogil
@cython.locals(port=int32_t)
cpdef int32_t search_port_strided(InetHashinfo h, uint32_t sk, uint32_t offset, uint64_t now_us) noexcept nogil
@cython.locals(port=int32_t, walked=int32_t)
cdef int32_t _strided_pass(InetHashinfo h, PortRange numbers, uint32_t sk, uint32_t offset, uint64_t now_us) noexcept nogil
@cython.locals(taken=uint32_t)
cdef bint _is_passed_over(InetHashinfo h, PortRange numbers, uint32_t port) noexcept nogil
cdef bint _first_half_is_taken(InetHashinfo h, PortRange numbers) noexcept nogil
@cython.locals(dev=uint32_t)
cdef void _look_up_dests(InetHashinfo h, uint32_t sk, uint32_t now_ms) noexcept nogil
cdef bint _map_is_certain(InetHashinfo h, uint32_t dest, uint32_t now_ms) noexcept nogil
@cython.locals(first=int32_t, candidates=int32_t, before_wrap=int32_t, wrapped=int32_t, port=int32_t)
cdef int32_t _pass_of_parity(InetHashinfo h, PortRange numbers, uint32_t sk, uint32_t offset, uint64_t now_us) noexcept nogil
@cython.locals(first=int32_t, port=int32_t)
cdef int32_t _pass_of_all(InetHashinfo h, PortRange numbers, uint32_t sk, uint32_t offset, uint64_t now_us) noexcept nogil
@cython.locals(port=int32_t)
cdef int32_t _nearest_free(InetHashinfo h, uint32_t sk, int32_t first, int32_t last, uint64_t now_us) noexcept nogil
@cython.locals(same=int32_t, other=int32_t)
cdef int32_t _next_of_both(InetHashinfo h, PortRange numbers, int32_t first, int32_t last) noexcept nogil
@cython.locals(asked=uint32_t, port=int32_t)
cdef int32_t _first_free(InetHashinfo h, uint32_t sk, int32_t first, int32_t last, uint64_t now_us) noexcept nogil
cdef void _lose_patience(InetHashinfo h, uint32_t dest, uint64_t now_us) noexcept nogil
cdef bint _may_have(InetHashinfo h, uint32_t sk, uint32_t port, uint64_t now_us) noexcept nogil
cdef void _record_identity(InetHashinfo h, uint32_t sk, uint32_t port) noexcept nogil
@cython.locals(given_up=uint32_t, entry=uint32_t, dev=uint32_t, row=uint32_t, bound=uint32_t)
cpdef int _inet_check_established(InetHashinfo h, uint32_t sk, uint32_t lport, bint searching, uint64_t now_us) noexcept nogil
@cython.locals(wide=uint64_t, seq=uint32_t)
cdef void _take_over(InetHashinfo h, uint32_t sk, uint32_t tw) noexcept nogil
cpdef bint tcp_twsk_unique(InetHashinfo h, uint32_t tw, bint searching, uint64_t now_us) noexcept nogil
@cython.locals(used=uint32_t, missing=uint32_t, port=uint32_t)
cpdef void build_map(InetHashinfo h, uint32_t dest) noexcept nogil
@cython.locals(row=uint32_t)
cdef uint32_t _map_rows(InetHashinfo h, uint32_t dest, uint32_t used, uint32_t missing) noexcept nogil
@cython.locals(entry=uint32_t, owner=uint32_t)
cdef bint _holds(InetHashinfo h, uint32_t dest, uint32_t port) noexcept nogil

cpdef int inet_hash(InetHashinfo h, uint32_t sk) except -1
@cython.locals(sks=SockTable)
cpdef int inet_unhash(InetHashinfo h, uint32_t sk) except -1
cdef bint _unhash_established(InetHashinfo h, uint32_t sk) noexcept nogil
@cython.locals(port=uint32_t)
cpdef void inet_put_port(InetHashinfo h, uint32_t sk) noexcept nogil
@cython.locals(port=uint32_t)
cpdef void inet_inherit_port(InetHashinfo h, uint32_t listener, uint32_t child) noexcept nogil
cpdef void set_bound_dev(InetHashinfo h, uint32_t sk, uint32_t ifindex) noexcept nogil
cpdef void inet_bhash2_update_saddr(InetHashinfo h, uint32_t sk, uint32_t saddr) noexcept nogil
cpdef void inet_bhash2_reset_saddr(InetHashinfo h, uint32_t sk) noexcept nogil

@cython.locals(entry=uint32_t, row=uint32_t, bound=uint32_t)
cpdef uint32_t inet_lookup_established(InetHashinfo h, uint32_t saddr, uint32_t sport, uint32_t daddr, uint32_t hnum, uint32_t dif) noexcept nogil
@cython.locals(best=uint32_t, high_score=int, sk=uint32_t, score=int)
cpdef uint32_t inet_lookup_listener(InetHashinfo h, uint32_t daddr, uint32_t hnum, uint32_t dif)
@cython.locals(saddr=uint32_t, bound=uint32_t)
cdef int _compute_score(InetHashinfo h, uint32_t sk, uint32_t daddr, uint32_t dif) noexcept nogil
cpdef bint port_is_reserved(InetHashinfo h, uint32_t port) noexcept nogil
