# C fields of Sysctls: compiled code reads `sysctls.tcp_syn_retries` without a Python object.

cdef class Sysctls:
    cdef public object profile
    cdef public unsigned int generation
    # ports and addresses
    cdef public int port_low
    cdef public int port_high
    cdef public unsigned int ip_local_port_step_width
    cdef public int unprivileged_port_start
    cdef public tuple reserved_ranges
    cdef public int ip_nonlocal_bind
    cdef public int ip_autobind_reuse
    cdef public int ip_dynaddr
    # IP
    cdef public int ip_default_ttl
    cdef public int ip_no_pmtu_disc
    cdef public int min_pmtu
    cdef public int mtu_expires
    cdef public int min_adv_mss
    cdef public int fwmark_reflect
    # connection set-up and retransmission
    cdef public int tcp_syn_retries
    cdef public int tcp_synack_retries
    cdef public int tcp_syn_linear_timeouts
    cdef public int tcp_retries1
    cdef public int tcp_retries2
    cdef public int tcp_orphan_retries
    cdef public int tcp_rto_max_ms
    cdef public int tcp_rto_min_us
    cdef public int tcp_thin_linear_timeouts
    cdef public int tcp_early_retrans
    cdef public int tcp_recovery
    cdef public int tcp_frto
    cdef public int tcp_reordering
    cdef public int tcp_max_reordering
    cdef public int tcp_retrans_collapse
    # options of the SYN
    cdef public int tcp_timestamps
    cdef public int tcp_sack
    cdef public int tcp_dsack
    cdef public int tcp_window_scaling
    cdef public int tcp_ecn
    cdef public int tcp_ecn_fallback
    cdef public int tcp_ecn_option
    cdef public int tcp_ecn_option_beacon
    cdef public int tcp_fastopen
    cdef public int tcp_fastopen_blackhole_timeout_sec
    # end of a connection
    cdef public int tcp_tw_reuse
    cdef public int tcp_tw_reuse_delay
    cdef public int tcp_max_tw_buckets
    cdef public int tcp_fin_timeout
    cdef public int tcp_max_orphans
    cdef public int tcp_abort_on_overflow
    cdef public int tcp_rfc1337
    # memory and windows
    cdef public int tcp_rmem_min
    cdef public int tcp_rmem_default
    cdef public int tcp_rmem_max
    cdef public int tcp_wmem_min
    cdef public int tcp_wmem_default
    cdef public int tcp_wmem_max
    cdef public int rmem_max
    cdef public int wmem_max
    cdef public int rmem_default
    cdef public int wmem_default
    cdef public int optmem_max
    cdef public int tcp_adv_win_scale
    cdef public int tcp_app_win
    cdef public int tcp_moderate_rcvbuf
    cdef public int tcp_shrink_window
    cdef public int tcp_workaround_signed_windows
    # MSS and path MTU
    cdef public int tcp_base_mss
    cdef public int tcp_min_snd_mss
    cdef public int tcp_mtu_probing
    cdef public int tcp_mtu_probe_floor
    cdef public int tcp_probe_interval
    cdef public int tcp_probe_threshold
    # keepalive
    cdef public int tcp_keepalive_time
    cdef public int tcp_keepalive_intvl
    cdef public int tcp_keepalive_probes
    # listening
    cdef public int somaxconn
    cdef public int tcp_max_syn_backlog
    cdef public int tcp_syncookies
    cdef public int tcp_migrate_req
    # congestion control and sending
    cdef public str tcp_congestion_control
    cdef public str tcp_available_congestion_control
    cdef public str tcp_allowed_congestion_control
    cdef public int tcp_slow_start_after_idle
    cdef public int tcp_no_metrics_save
    cdef public int tcp_no_ssthresh_metrics_save
    cdef public int tcp_limit_output_bytes
    cdef public unsigned int tcp_notsent_lowat
    cdef public int tcp_autocorking
    cdef public int tcp_min_tso_segs
    cdef public int tcp_tso_win_divisor
    cdef public int tcp_pacing_ss_ratio
    cdef public int tcp_pacing_ca_ratio
    cdef public int tcp_min_rtt_wlen
    cdef public int tcp_pingpong_thresh
    # ACKs
    cdef public unsigned int tcp_invalid_ratelimit
    cdef public int tcp_challenge_ack_limit
    cdef public unsigned long long tcp_comp_sack_delay_ns
    cdef public unsigned long long tcp_comp_sack_slack_ns
    cdef public int tcp_comp_sack_nr
    cdef public int tcp_backlog_ack_defer
    # marks and devices
    cdef public int tcp_fwmark_accept
    cdef public int tcp_l3mdev_accept
    cdef public int tcp_reflect_tos
    cdef public int tcp_stdurg
    cdef public int txrehash
    # IPv6
    cdef public int bindv6only
    cdef public int disable_ipv6

    cpdef str get(self, str name)
    cpdef int set(self, str name, str text)
