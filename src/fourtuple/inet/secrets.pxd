cimport cython
from libc.stdint cimport uint32_t, uint64_t
from fourtuple.inet.siphash cimport siphash_1u64

cdef uint64_t _M32

cdef class BootSecrets:
    cdef public uint64_t port_k0, port_k1, seq_k0, seq_k1, random_k0, random_k1, random_counter, random_bytes
    cdef public uint32_t random_left
    cdef public uint32_t ehash_secret, connect_hint
    cdef public uint32_t[::1] table_perturb

cpdef uint64_t get_random_u64(BootSecrets secrets) noexcept nogil
cpdef uint32_t get_random_u32(BootSecrets secrets) noexcept nogil
@cython.locals(value=uint32_t)
cpdef uint32_t get_random_u8(BootSecrets secrets) noexcept nogil
@cython.locals(wide=uint64_t)
cpdef uint32_t get_random_u32_below(BootSecrets secrets, uint32_t ceiling) noexcept nogil
@cython.locals(value=uint32_t)
cpdef uint32_t perturb_start(BootSecrets secrets, uint32_t index) noexcept nogil
