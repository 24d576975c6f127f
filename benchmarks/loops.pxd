from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
cimport cython

from fourtuple.inet.hashinfo cimport InetHashinfo
from fourtuple.inet.hashtables cimport (
    set_search_range, inet_hash_connect, inet_put_port, inet_sk_port_offset, inet_unhash, search_port)
from fourtuple.inet.portset cimport portset_next_open, portset_test
from fourtuple.inet.secrets cimport perturb_start
from fourtuple.inet.siphash cimport siphash_2u64
from fourtuple.inet.sock_table cimport SockTable, sk_alloc, sk_free_inet
from fourtuple.inet.tuple_index cimport index_first

cdef uint32_t _SOURCE, _DPORT
cdef uint64_t _M32, _M64, _LCG_A, _LCG_C
cdef int _EADDRNOTAVAIL
cdef uint32_t _SHUT, _RESERVED

cdef class Rows:
    cdef public uint32_t[::1] sk
    cdef public uint32_t n, opts
    cdef public uint64_t seed

@cython.locals(wide=uint64_t)
cdef uint32_t _random_below(Rows rows, uint32_t n) noexcept nogil
@cython.locals(_=uint32_t, start=uint64_t)
cpdef uint64_t clock_cost(uint32_t n) except? 1
@cython.locals(sk=int64_t)
cpdef uint32_t new_row(InetHashinfo h, uint32_t daddr, uint32_t opts=*) noexcept nogil
cdef int _close(InetHashinfo h, uint32_t sk) except -1
@cython.locals(sk=uint32_t, port=int32_t)
cdef int32_t _connect(InetHashinfo h, Rows rows, uint32_t daddr, uint64_t now_us) except? -2
@cython.locals(i=uint32_t)
cpdef uint32_t fill(InetHashinfo h, Rows rows, uint32_t n, uint32_t daddr, uint32_t dests, uint64_t now_us) except? 1
@cython.locals(_=uint32_t, i=uint32_t)
cpdef int close_newest(InetHashinfo h, Rows rows, uint32_t n) except -1
@cython.locals(_=uint32_t, i=uint32_t)
cpdef int close_random(InetHashinfo h, Rows rows, uint32_t n) except -1
@cython.locals(_=uint32_t, i=uint32_t, took=uint64_t, start=uint64_t)
cpdef uint64_t connect_rounds(InetHashinfo h, Rows rows, uint32_t batch, uint32_t rounds, uint32_t daddr, uint32_t dests, bint shuffle, uint64_t now_us) except? 1
@cython.locals(_=uint32_t, sk=uint32_t, count=uint32_t)
cpdef uint32_t refused(InetHashinfo h, Rows rows, uint32_t n, uint32_t daddr, uint64_t now_us) except? 1
@cython.locals(_=uint32_t, value=uint64_t)
cpdef uint64_t hashes(uint32_t n) noexcept nogil
cdef uint32_t _offset(InetHashinfo h, Rows rows) noexcept nogil
@cython.locals(_=uint32_t, total=int64_t)
cpdef int64_t offsets_alone(InetHashinfo h, Rows rows, uint32_t sk, uint32_t n) except? -1
@cython.locals(_=uint32_t, total=int64_t)
cpdef int64_t searches(InetHashinfo h, Rows rows, uint32_t sk, uint32_t n, uint64_t now_us) except? -1
@cython.locals(_=uint32_t, total=int64_t)
cpdef int64_t bit_searches(InetHashinfo h, Rows rows, uint32_t used, bint past_half, uint32_t n) noexcept nogil
@cython.locals(parity=uint32_t, low=uint32_t, found=int32_t)
cdef int32_t _bit_search(InetHashinfo h, uint32_t used, bint past_half, uint32_t offset) noexcept nogil
@cython.locals(_=uint32_t, total=int64_t)
cpdef int64_t kernel_scans(InetHashinfo h, Rows rows, uint32_t sk, uint32_t n) except? -1
@cython.locals(port=int32_t)
cdef int32_t _kernel_scan(InetHashinfo h, uint32_t sk, uint32_t offset) noexcept nogil
@cython.locals(port=int32_t, walked=int32_t)
cdef int32_t _kernel_pass(InetHashinfo h, uint32_t sk, uint32_t offset) noexcept nogil
cdef bint _kernel_may_have(InetHashinfo h, uint32_t sk, uint32_t port) noexcept nogil
@cython.locals(_=uint32_t, total=int64_t, wide=uint64_t, offset=uint32_t)
cpdef int64_t searches_at_random(InetHashinfo h, Rows rows, uint32_t sk, uint32_t n, uint32_t daddr, uint32_t dests, uint64_t now_us) except? -1
@cython.locals(_=uint32_t, total=int64_t, wide=uint64_t, offset=uint32_t)
cpdef int64_t offsets_at_random(InetHashinfo h, Rows rows, uint32_t sk, uint32_t n, uint32_t daddr, uint32_t dests, uint64_t now_us) except? -1
