from libc.stdint cimport uint8_t, uint16_t, uint32_t, int32_t, int64_t

cdef class SockOptions:
    cdef readonly uint16_t port_low, port_high
    cdef readonly uint32_t uid, mark
    cdef readonly int32_t ttl, tos, mtu_discover, min_ttl
    cdef readonly uint32_t user_mss, syn_retries, user_timeout_ms, rto_max_ms, window_clamp, rcvbuf, sndbuf, rcvlowat
    cdef readonly int64_t sndtimeo_us, rcvtimeo_us
    cdef readonly int32_t linger_s, linger2_s
    cdef readonly uint32_t keepidle_s, keepintvl_s, keepcnt
    cdef readonly object congestion
    cdef readonly object md5_keys
