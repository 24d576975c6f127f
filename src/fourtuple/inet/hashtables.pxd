cimport cython
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from fourtuple.inet.bind cimport BindTable, bucket_join, bucket_leave, bucket_replace
from fourtuple.inet.dest cimport (
    DestTable, dest_add, dest_find, dest_get, dest_is_clear_of, dest_new_map, dest_remove, dest_ripen, dest_tw_append,
    dest_tw_remove, tw_is_ripe, tw_may_ever_reuse)
from fourtuple.inet.portset cimport (
    PortSets, portset_add, portset_next_open, portset_test)
from fourtuple.inet.secrets cimport BootSecrets, get_random_u32_below, perturb_start
from fourtuple.inet.secure_seq cimport secure_ipv4_port_ephemeral
from fourtuple.inet.sock_options cimport SockOptions
from fourtuple.inet.sock_table cimport SockTable
from fourtuple.inet.timewait cimport TimeWaitTable, tw_fifo_remove, tw_free
from fourtuple.inet.tuple_index cimport TupleIndex, index_erase, index_first, index_insert, index_next
from fourtuple.sysctl cimport Sysctls
from fourtuple.trace cimport Tracer, trace

cdef uint64_t _M32
cdef int _EADDRNOTAVAIL
cdef uint32_t _TCP_LISTEN, _TCP_TIME_WAIT, _CONNECT_BIND, _HASHED, _DEAD, _BINDPORT_LOCK, _TW_FLAGS, _PERTURB_MASK, _PATIENCE
cdef uint32_t _EMPTY, _RESERVED, _SHUT

cdef class PortRange:
    cdef public int32_t low, high, remaining, step
    cdef public uint32_t generation, own, unbound, own_map, unbound_map
    cdef public bint certain

cdef class InetHashinfo:
    cdef public SockTable sks
    cdef public TimeWaitTable tw
    cdef public TupleIndex ehash
    cdef public PortSets sets
    cdef public BindTable bind
    cdef public DestTable dests
    cdef public Sysctls sysctl
    cdef public BootSecrets secrets
    cdef public Tracer tracer
    cdef public dict listeners
    cdef public uint32_t tw_recycled
    cdef public uint32_t last_distance
    cdef public uint32_t sysctl_generation
    cdef public PortRange range
    cdef public tuple reserved_ranges

cpdef int refresh_sysctls(InetHashinfo h) except -1
@cython.locals(low=int32_t, high=int32_t, own_low=int32_t, own_high=int32_t, local=bint, options=SockOptions)
cpdef bint inet_sk_get_local_port_range(InetHashinfo h, uint32_t sk) noexcept
@cython.locals(local=bint, numbers=PortRange)
cpdef void set_search_range(InetHashinfo h, uint32_t sk) noexcept
cpdef uint64_t inet_sk_port_offset(InetHashinfo h, uint32_t sk, uint64_t now_us) noexcept nogil
@cython.locals(port_offset=uint64_t)
cpdef int32_t inet_hash_connect(InetHashinfo h, uint32_t sk, uint64_t now_us) except? -2
@cython.locals(port=uint32_t, error=int)
cdef int32_t _connect_bound(InetHashinfo h, uint32_t sk, uint64_t now_us) except? -2
@cython.locals(numbers=PortRange, index=uint32_t, start=uint32_t, offset=uint32_t, moved=uint32_t, port=int32_t)
cpdef int32_t _inet_hash_connect(InetHashinfo h, uint32_t sk, uint64_t port_offset, uint64_t now_us) except? -2
@cython.locals(step=uint32_t, advance=uint32_t, wide=uint64_t)
cdef uint32_t _perturb(InetHashinfo h, uint32_t index) noexcept nogil
@cython.locals(dest=uint32_t)
cdef void _take(InetHashinfo h, uint32_t sk, uint32_t port) noexcept nogil
@cython.locals(port=int32_t)
cpdef int32_t search_port(InetHashinfo h, uint32_t sk, uint32_t offset, uint64_t now_us) noexcept nogil
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

@cython.locals(port=uint32_t, dest=uint32_t)
cpdef void inet_twsk_hashdance(InetHashinfo h, uint32_t sk, uint32_t tw) noexcept nogil
cpdef void inet_twsk_kill(InetHashinfo h, uint32_t tw) noexcept nogil
@cython.locals(dest=uint32_t)
cdef void _inet_twsk_release(InetHashinfo h, uint32_t tw, uint32_t heir) noexcept nogil
@cython.locals(dest=uint32_t)
cpdef void inet_twsk_enter_time_wait(InetHashinfo h, uint32_t tw, uint32_t now_ms) noexcept nogil

@cython.locals(entry=uint32_t, row=uint32_t, bound=uint32_t)
cpdef uint32_t inet_lookup_established(InetHashinfo h, uint32_t saddr, uint32_t sport, uint32_t daddr, uint32_t hnum, uint32_t dif) noexcept nogil
cpdef uint32_t inet_lookup_listener(InetHashinfo h, uint32_t daddr, uint32_t hnum, uint32_t dif)
cpdef bint port_is_reserved(InetHashinfo h, uint32_t port) noexcept nogil
