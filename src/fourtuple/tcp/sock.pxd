from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from fourtuple.inet.sock_table cimport SockTable, sk_free_inet


cdef class TcpSockTable(SockTable):
    # state
    cdef public uint8_t[::1] ss_state, shutdown, err, err_soft, retransmits, backoff, pending, quick, probes, scaling_ratio
    # sequence
    cdef public uint32_t[::1] snd_nxt, snd_una, rcv_nxt, copied_seq, rcv_wup, snd_wnd, max_window, snd_wl1, rcv_wnd
    # options
    cdef public uint8_t[::1] wscales, optbits
    # options
    cdef public uint16_t[::1] mss_clamp, advmss, mss_cache, dst, dst_gen, ip_id, total_retrans, total_rto, rcv_mss, ato, cwnd_cnt
    # time
    cdef public uint32_t[::1] ts_offset, srtt, mdev, mdev_max, rttvar, rtt_seq, rto, retrans_stamp, lsndtime, lrcvtime
    cdef public uint32_t[::1] rcv_tstamp, pmtu
    # windows
    cdef public uint32_t[::1] snd_cwnd, ssthresh, rcv_ssthresh, window_clamp, rcvbuf, sndbuf, rcvq_seq, rcvq_time
    cdef public uint32_t[::1] rcvq_space
    # timers
    cdef public uint32_t[::1] timer_rtx, timer_delack, timer_keep


cpdef uint32_t last_ack_time(TcpSockTable table, uint32_t sk) noexcept nogil
cpdef void sk_free(TcpSockTable table, uint32_t sk) noexcept nogil
cdef void _zero_time(TcpSockTable table, uint32_t sk) noexcept nogil
