cimport cython
from libc.stdint cimport uint32_t, uint64_t

from fourtuple.inet.siphash cimport siphash_3u32, siphash_4u32

cdef uint64_t _EPOCH_US, _M32


cpdef uint64_t secure_ipv4_port_ephemeral(uint32_t saddr, uint32_t daddr, uint32_t dport, uint64_t now_us,
                                          uint64_t k0, uint64_t k1) noexcept nogil
cpdef uint64_t secure_tcp_seq_and_ts_off(uint32_t saddr, uint32_t daddr, uint32_t sport, uint32_t dport,
                                         uint64_t k0, uint64_t k1) noexcept nogil
cpdef uint32_t secure_tcp_ts_off(uint32_t saddr, uint32_t daddr, uint64_t k0, uint64_t k1) noexcept nogil
@cython.locals(wide=uint64_t)
cpdef uint32_t seq_scale(uint32_t base, uint64_t now_us) noexcept nogil
