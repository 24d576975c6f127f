cimport cython
from libc.stdint cimport uint32_t, uint64_t

cdef uint64_t _INIT0, _INIT1, _INIT2, _INIT3, _LEN8, _LEN12, _LEN16


@cython.locals(low=uint64_t)
cdef uint64_t _mask64() noexcept nogil
@cython.locals(mask=uint64_t, v0=uint64_t, v1=uint64_t, v2=uint64_t, v3=uint64_t, m=uint64_t[5], i=uint32_t)
cdef uint64_t _siphash_blocks(uint64_t m0, uint64_t m1, uint64_t m2, uint32_t blocks, uint64_t k0,
                              uint64_t k1) noexcept nogil
cpdef uint64_t siphash_1u64(uint64_t a, uint64_t k0, uint64_t k1) noexcept nogil
cpdef uint64_t siphash_2u64(uint64_t a, uint64_t b, uint64_t k0, uint64_t k1) noexcept nogil
@cython.locals(high=uint64_t)
cpdef uint64_t siphash_3u32(uint32_t a, uint32_t b, uint32_t c, uint64_t k0, uint64_t k1) noexcept nogil
@cython.locals(high=uint64_t, top=uint64_t)
cpdef uint64_t siphash_4u32(uint32_t a, uint32_t b, uint32_t c, uint32_t d, uint64_t k0, uint64_t k1) noexcept nogil
