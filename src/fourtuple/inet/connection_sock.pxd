cimport cython
from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t
from fourtuple.inet.bind cimport BindTable, bucket_claim, bucket_join, bucket_next
from fourtuple.inet.hashinfo cimport InetHashinfo, inet_sk_get_local_port_range
from fourtuple.inet.portset cimport portset_add, portset_test
from fourtuple.inet.secrets cimport get_random_u32_below
from fourtuple.inet.sock_options cimport SockOptions
from fourtuple.trace cimport trace

cdef int _EADDRINUSE
cdef uint32_t _TCP_LISTEN, _REUSE, _REUSEPORT
cdef int _ANY, _STRICT
cdef uint32_t _RESERVED, _SHUT

@cython.locals(port=int32_t)
cpdef int inet_csk_get_port(InetHashinfo h, uint32_t sk, uint32_t snum) except? -2
@cython.locals(port=uint32_t)
cdef int32_t _allowed_port(InetHashinfo h, uint32_t sk, uint32_t snum) except? -2
cdef bint _may_reuse(InetHashinfo h, uint32_t sk) noexcept
cdef uint32_t _uid(InetHashinfo h, uint32_t sk)
@cython.locals(bind=BindTable)
cdef bint _explicit_port_is_free(InetHashinfo h, uint32_t sk, uint32_t port) except? -1
@cython.locals(bind=BindTable)
cdef bint _sk_reuseport_match(InetHashinfo h, uint32_t sk, uint32_t port) except? -1
@cython.locals(bind=BindTable, reuse=bint)
cpdef void inet_csk_update_fastreuse(InetHashinfo h, uint32_t sk, uint32_t port)
@cython.locals(bind=BindTable)
cdef void _note_reuseport(InetHashinfo h, uint32_t sk, uint32_t port, int kind)
@cython.locals(owner=uint32_t)
cpdef bint inet_csk_bind_conflict(InetHashinfo h, uint32_t sk, uint32_t port, bint relax, bint reuseport_ok) except? -1
@cython.locals(row=uint32_t, saddr=uint32_t, dev=uint32_t, flags=uint32_t, state=uint32_t, own=uint32_t, both_reuseport=bint)
cdef bint _owner_conflicts(InetHashinfo h, uint32_t sk, uint32_t owner, bint relax, bint reuseport_ok) except? -1
cdef bint _addresses_meet(uint32_t one, uint32_t other) noexcept nogil
@cython.locals(port=uint32_t)
cdef uint32_t _find_open_port(InetHashinfo h, uint32_t sk)
@cython.locals(low=uint32_t, high=uint32_t, half=uint32_t, port=uint32_t)
cdef uint32_t _search_halves(InetHashinfo h, uint32_t sk, bint relax)
@cython.locals(remaining=uint32_t, offset=uint32_t, port=uint32_t)
cdef uint32_t _search_open(InetHashinfo h, uint32_t sk, uint32_t low, uint32_t high, bint relax)
@cython.locals(port=uint32_t, walked=uint32_t)
cdef uint32_t _open_pass(InetHashinfo h, uint32_t sk, uint32_t low, uint32_t high, uint32_t remaining, uint32_t offset, bint relax)
@cython.locals(remaining=uint32_t, first=uint32_t, fewest=uint32_t, i=uint32_t, port=uint32_t)
cdef uint32_t _search_all(InetHashinfo h, uint32_t sk)
cdef bint _allows_sharing(InetHashinfo h, uint32_t sk, uint32_t port) except? -1
cdef bint _port_is_open(InetHashinfo h, uint32_t sk, uint32_t port, bint relax) except? -1
