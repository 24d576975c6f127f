"""The table of sysctls: name, field, parser, bounds, default (Linux 6.18), meaning, the kernel handler that parses it.

Here: data. Not here: the values of a host (sysctl.py). Defaults that the kernel scales with memory are those of a large
machine.
Bounds were measured on 6.18.44: the smallest and the largest text that a write accepts. None: whatever fits the type.
"""

from __future__ import annotations

from dataclasses import dataclass

INT_MAX = 2**31 - 1
UINT_MAX = 2**32 - 1
ULONG_MAX = 2**64 - 1


@dataclass(frozen=True)
class Sysctl:
    """One sysctl. `fields` names the attributes of Sysctls that hold it, separated by blanks."""

    name: str
    fields: str
    kind: str
    min: int | None
    max: int | None
    default: str
    meaning: str
    source: str

    @property
    def field_names(self) -> tuple[str, ...]:
        """Attributes of Sysctls, one a number of the vector."""
        return tuple(self.fields.split())

    @property
    def scaled_with_memory(self) -> bool:
        """The kernel computes this default at boot."""
        return "scaled with memory" in self.meaning


# fmt: off
SYSCTLS: tuple[Sysctl, ...] = (
    # ports and addresses
    Sysctl("net.ipv4.ip_local_port_range", "port_low port_high", "port_range", 1, 65535, "32768 60999",
           "Range of local ports for connect() and bind(0).", "ipv4_local_port_range"),
    Sysctl("net.ipv4.ip_local_port_step_width", "ip_local_port_step_width", "uint", None, UINT_MAX, "0",
           "Largest random step of connect()'s search, in ports of its pass; 0: neighbour after neighbour.",
           "proc_douintvec"),
    Sysctl("net.ipv4.ip_local_reserved_ports", "reserved_ranges", "ports", 0, 65535, "",
           "Ports that connect() and bind(0) skip.", "proc_do_large_bitmap"),
    Sysctl("net.ipv4.ip_unprivileged_port_start", "unprivileged_port_start", "port_start", 0, 65535, "1024",
           "First port that needs no CAP_NET_BIND_SERVICE.", "ipv4_privileged_ports"),
    Sysctl("net.ipv4.ip_nonlocal_bind", "ip_nonlocal_bind", "u8", 0, 255, "0",
           "bind() to an address that is not local.", "proc_dou8vec_minmax"),
    Sysctl("net.ipv4.ip_autobind_reuse", "ip_autobind_reuse", "u8", 0, 1, "0",
           "bind(addr, 0) with SO_REUSEADDR may share a port when all are taken.", "proc_dou8vec_minmax"),
    Sysctl("net.ipv4.ip_dynaddr", "ip_dynaddr", "u8", 0, 255, "0",
           "A retransmitted SYN takes the new source when the address changed.", "proc_dou8vec_minmax"),
    # IP
    Sysctl("net.ipv4.ip_default_ttl", "ip_default_ttl", "u8", 1, 255, "64",
           "TTL where neither the socket nor the route sets one.", "proc_dou8vec_minmax"),
    Sysctl("net.ipv4.ip_no_pmtu_disc", "ip_no_pmtu_disc", "u8", 0, 255, "0",
           "0: path MTU discovery; 1: off; 2: off, keep min_pmtu; 3: trust checked ICMP only.", "proc_dou8vec_minmax"),
    Sysctl("net.ipv4.route.min_pmtu", "min_pmtu", "int", 68, INT_MAX, "552",
           "Smallest path MTU that an ICMP may set; below it the MTU is locked.", "proc_dointvec_minmax"),
    Sysctl("net.ipv4.route.mtu_expires", "mtu_expires", "seconds", None, None, "600",
           "Life of a learned path MTU (s).", "proc_dointvec_jiffies"),
    Sysctl("net.ipv4.route.min_adv_mss", "min_adv_mss", "int", None, None, "256",
           "Smallest MSS derived from a route's MTU.", "proc_dointvec"),
    Sysctl("net.ipv4.fwmark_reflect", "fwmark_reflect", "u8", 0, 255, "0",
           "Replies without a socket carry the mark of the packet they answer.", "proc_dou8vec_minmax"),
    # connection set-up and retransmission
    Sysctl("net.ipv4.tcp_syn_retries", "tcp_syn_retries", "u8", 1, 127, "6",
           "Retransmissions of a SYN before ETIMEDOUT.", "proc_dou8vec_minmax"),
    Sysctl("net.ipv4.tcp_synack_retries", "tcp_synack_retries", "u8", 0, 255, "5",
           "Retransmissions of a SYN-ACK.", "proc_dou8vec_minmax"),
    Sysctl("net.ipv4.tcp_syn_linear_timeouts", "tcp_syn_linear_timeouts", "u8", 0, 127, "4",
           "Retransmissions of a SYN before the timeout starts to double.", "proc_dou8vec_minmax"),
    Sysctl("net.ipv4.tcp_retries1", "tcp_retries1", "u8", 0, 255, "3",
           "Timeouts after which the route is questioned.", "tcp_retries1"),
    Sysctl("net.ipv4.tcp_retries2", "tcp_retries2", "u8", 0, 255, "15",
           "Timeouts after which an established connection dies.", "proc_dou8vec_minmax"),
    Sysctl("net.ipv4.tcp_orphan_retries", "tcp_orphan_retries", "u8", 0, 255, "0",
           "The same for a connection without a descriptor; 0 means 8.", "proc_dou8vec_minmax"),
    Sysctl("net.ipv4.tcp_rto_max_ms", "tcp_rto_max_ms", "int", 1000, 120000, "120000",
           "Upper bound of the retransmission timeout (ms).", "proc_dointvec_minmax"),
    Sysctl("net.ipv4.tcp_rto_min_us", "tcp_rto_min_us", "int", 1, INT_MAX, "200000",
           "Lower bound of the retransmission timeout (us).", "proc_dointvec_minmax"),
    Sysctl("net.ipv4.tcp_thin_linear_timeouts", "tcp_thin_linear_timeouts", "u8", 0, 255, "0",
           "Thin streams do not double the timeout for six tries.", "proc_dou8vec_minmax"),
    Sysctl("net.ipv4.tcp_early_retrans", "tcp_early_retrans", "u8", 0, 4, "3",
           "Tail loss probe: 3 and 4 on, 0 off.", "proc_dou8vec_minmax"),
    Sysctl("net.ipv4.tcp_recovery", "tcp_recovery", "u8", 0, 255, "1",
           "RACK bits: 1 on, 2 static reordering window, 4 no duplicate-ACK threshold.", "proc_dou8vec_minmax"),
    Sysctl("net.ipv4.tcp_frto", "tcp_frto", "u8", 0, 255, "2",
           "Forward RTO recovery (RFC 5682).", "proc_dou8vec_minmax"),
    Sysctl("net.ipv4.tcp_reordering", "tcp_reordering", "int", 1, 300, "3",
           "Initial reordering degree (packets).", "proc_dointvec_minmax"),
    Sysctl("net.ipv4.tcp_max_reordering", "tcp_max_reordering", "int", 1, INT_MAX, "300",
           "Largest reordering degree (packets).", "proc_dointvec_minmax"),
    Sysctl("net.ipv4.tcp_retrans_collapse", "tcp_retrans_collapse", "u8", 0, 255, "1",
           "Join small segments when retransmitting.", "proc_dou8vec_minmax"),
    # options of the SYN
    Sysctl("net.ipv4.tcp_timestamps", "tcp_timestamps", "u8", 0, 255, "1",
           "Timestamps: 0 off, 1 with a random offset per connection, 2 without.", "proc_dou8vec_minmax"),
    Sysctl("net.ipv4.tcp_sack", "tcp_sack", "u8", 0, 255, "1",
           "Selective acknowledgements.", "proc_dou8vec_minmax"),
    Sysctl("net.ipv4.tcp_dsack", "tcp_dsack", "u8", 0, 255, "1",
           "Duplicate SACKs.", "proc_dou8vec_minmax"),
    Sysctl("net.ipv4.tcp_window_scaling", "tcp_window_scaling", "u8", 0, 255, "1",
           "Window scaling.", "proc_dou8vec_minmax"),
    Sysctl("net.ipv4.tcp_ecn", "tcp_ecn", "u8", 0, 2, "2",
           "ECN: 0 never, 1 ask and accept, 2 accept.", "proc_dou8vec_minmax"),
    Sysctl("net.ipv4.tcp_ecn_fallback", "tcp_ecn_fallback", "u8", 0, 1, "1",
           "A retransmitted SYN does not ask for ECN.", "proc_dou8vec_minmax"),
    Sysctl("net.ipv4.tcp_ecn_option", "tcp_ecn_option", "u8", 0, 2, "2",
           "When the AccECN option is sent.", "proc_dou8vec_minmax"),
    Sysctl("net.ipv4.tcp_ecn_option_beacon", "tcp_ecn_option_beacon", "u8", 0, 3, "3",
           "AccECN options per round trip at least.", "proc_dou8vec_minmax"),
    Sysctl("net.ipv4.tcp_fastopen", "tcp_fastopen", "int", None, None, "1",
           "Fast Open bits: 1 client, 2 server, 4 data without cookie.", "proc_dointvec"),
    Sysctl("net.ipv4.tcp_fastopen_blackhole_timeout_sec", "tcp_fastopen_blackhole_timeout_sec", "int", 0, INT_MAX, "0",
           "First pause of Fast Open after a black hole (s); 0 = no detection.", "proc_tfo_blackhole_detect_timeout"),
    # end of a connection
    Sysctl("net.ipv4.tcp_tw_reuse", "tcp_tw_reuse", "u8", 0, 2, "2",
           "connect() reuses a TIME_WAIT: 0 no, 1 yes, 2 on loopback.", "proc_dou8vec_minmax"),
    Sysctl("net.ipv4.tcp_tw_reuse_delay", "tcp_tw_reuse_delay", "uint", 1, 60000, "1000",
           "Age at which a TIME_WAIT may be reused (ms).", "proc_douintvec_minmax"),
    Sysctl("net.ipv4.tcp_max_tw_buckets", "tcp_max_tw_buckets", "int", None, None, "262144",
           "Most TIME_WAITs; scaled with memory.", "proc_dointvec"),
    Sysctl("net.ipv4.tcp_fin_timeout", "tcp_fin_timeout", "seconds", None, None, "60",
           "Life of an orphan in FIN_WAIT2 (s).", "proc_dointvec_jiffies"),
    Sysctl("net.ipv4.tcp_max_orphans", "tcp_max_orphans", "int", None, None, "262144",
           "Most connections without a descriptor; scaled with memory.", "proc_dointvec"),
    Sysctl("net.ipv4.tcp_abort_on_overflow", "tcp_abort_on_overflow", "u8", 0, 255, "0",
           "A full accept queue answers RST.", "proc_dou8vec_minmax"),
    Sysctl("net.ipv4.tcp_rfc1337", "tcp_rfc1337", "u8", 0, 255, "0",
           "RST does not end a TIME_WAIT.", "proc_dou8vec_minmax"),
    # memory and windows
    Sysctl("net.ipv4.tcp_rmem", "tcp_rmem_min tcp_rmem_default tcp_rmem_max", "int", 1, INT_MAX, "4096 131072 33554432",
           "Receive buffer: least, initial, most (bytes).", "proc_dointvec_minmax"),
    Sysctl("net.ipv4.tcp_wmem", "tcp_wmem_min tcp_wmem_default tcp_wmem_max", "int", 1, INT_MAX, "4096 16384 4194304",
           "Send buffer: least, initial, most (bytes).", "proc_dointvec_minmax"),
    Sysctl("net.core.rmem_max", "rmem_max", "int", 2304, INT_MAX, "4194304",
           "Most that SO_RCVBUF may ask for (bytes).", "proc_dointvec_minmax"),
    Sysctl("net.core.wmem_max", "wmem_max", "int", 4608, INT_MAX, "4194304",
           "Most that SO_SNDBUF may ask for (bytes).", "proc_dointvec_minmax"),
    Sysctl("net.core.rmem_default", "rmem_default", "int", 2304, INT_MAX, "212992",
           "Receive buffer of other protocols (bytes).", "proc_dointvec_minmax"),
    Sysctl("net.core.wmem_default", "wmem_default", "int", 4608, INT_MAX, "212992",
           "Send buffer of other protocols (bytes).", "proc_dointvec_minmax"),
    Sysctl("net.core.optmem_max", "optmem_max", "int", 0, INT_MAX, "131072",
           "Option memory of one socket (bytes).", "proc_dointvec_minmax"),
    Sysctl("net.ipv4.tcp_adv_win_scale", "tcp_adv_win_scale", "int", -31, 31, "1",
           "No effect since 6.6: the ratio of window to memory is measured.", "proc_dointvec_minmax"),
    Sysctl("net.ipv4.tcp_app_win", "tcp_app_win", "u8", 0, 31, "31",
           "Part of the window kept for the application: max(window >> n, mss).", "proc_dou8vec_minmax"),
    Sysctl("net.ipv4.tcp_moderate_rcvbuf", "tcp_moderate_rcvbuf", "u8", 0, 255, "1",
           "The receive buffer grows by itself.", "proc_dou8vec_minmax"),
    Sysctl("net.ipv4.tcp_shrink_window", "tcp_shrink_window", "u8", 0, 1, "0",
           "The window may shrink.", "proc_dou8vec_minmax"),
    Sysctl("net.ipv4.tcp_workaround_signed_windows", "tcp_workaround_signed_windows", "u8", 0, 255, "0",
           "The first window stays below 32 KiB.", "proc_dou8vec_minmax"),
    # MSS and path MTU
    Sysctl("net.ipv4.tcp_base_mss", "tcp_base_mss", "int", None, None, "1024",
           "First MSS that MTU probing tries.", "proc_dointvec"),
    Sysctl("net.ipv4.tcp_min_snd_mss", "tcp_min_snd_mss", "int", 48, 65535, "48",
           "Smallest MSS that is sent.", "proc_dointvec_minmax"),
    Sysctl("net.ipv4.tcp_mtu_probing", "tcp_mtu_probing", "u8", 0, 255, "0",
           "Packetization-layer path MTU discovery: 0 off, 1 after a black hole, 2 on.", "proc_dou8vec_minmax"),
    Sysctl("net.ipv4.tcp_mtu_probe_floor", "tcp_mtu_probe_floor", "int", 48, 65535, "48",
           "Smallest MSS that MTU probing falls to.", "proc_dointvec_minmax"),
    Sysctl("net.ipv4.tcp_probe_interval", "tcp_probe_interval", "uint", 0, 17179869, "600",
           "Pause between two MTU searches (s).", "proc_douintvec_minmax"),
    Sysctl("net.ipv4.tcp_probe_threshold", "tcp_probe_threshold", "int", None, None, "8",
           "MTU search ends when the interval is smaller (bytes).", "proc_dointvec"),
    # keepalive
    Sysctl("net.ipv4.tcp_keepalive_time", "tcp_keepalive_time", "seconds", None, None, "7200",
           "Idle time before the first probe (s).", "proc_dointvec_jiffies"),
    Sysctl("net.ipv4.tcp_keepalive_intvl", "tcp_keepalive_intvl", "seconds", None, None, "75",
           "Time between probes (s).", "proc_dointvec_jiffies"),
    Sysctl("net.ipv4.tcp_keepalive_probes", "tcp_keepalive_probes", "u8", 0, 255, "9",
           "Unanswered probes that end the connection.", "proc_dou8vec_minmax"),
    # listening
    Sysctl("net.core.somaxconn", "somaxconn", "int", 0, INT_MAX, "4096",
           "Most that listen() may ask for.", "proc_dointvec_minmax"),
    Sysctl("net.ipv4.tcp_max_syn_backlog", "tcp_max_syn_backlog", "int", None, None, "4096",
           "Most half-open connections; scaled with memory.", "proc_dointvec"),
    Sysctl("net.ipv4.tcp_syncookies", "tcp_syncookies", "u8", 0, 255, "1",
           "SYN cookies: 0 off, 1 when full, 2 always.", "proc_dou8vec_minmax"),
    Sysctl("net.ipv4.tcp_migrate_req", "tcp_migrate_req", "u8", 0, 1, "0",
           "Pending requests move to another listener of the group.", "proc_dou8vec_minmax"),
    # congestion control and sending
    Sysctl("net.ipv4.tcp_congestion_control", "tcp_congestion_control", "cc", None, None, "cubic",
           "Algorithm of new connections.", "proc_tcp_congestion_control"),
    Sysctl("net.ipv4.tcp_available_congestion_control", "tcp_available_congestion_control", "read_only", None, None,
           "reno cubic", "Algorithms that exist here.", "proc_tcp_available_congestion_control"),
    Sysctl("net.ipv4.tcp_allowed_congestion_control", "tcp_allowed_congestion_control", "read_only", None, None,
           "reno cubic", "Algorithms that need no privilege.", "proc_allowed_congestion_control"),
    Sysctl("net.ipv4.tcp_slow_start_after_idle", "tcp_slow_start_after_idle", "u8", 0, 255, "1",
           "The congestion window decays while idle.", "proc_dou8vec_minmax"),
    Sysctl("net.ipv4.tcp_no_metrics_save", "tcp_no_metrics_save", "u8", 0, 255, "0",
           "A closing connection leaves no metrics behind.", "proc_dou8vec_minmax"),
    Sysctl("net.ipv4.tcp_no_ssthresh_metrics_save", "tcp_no_ssthresh_metrics_save", "u8", 0, 1, "1",
           "The metrics kept do not contain ssthresh.", "proc_dou8vec_minmax"),
    Sysctl("net.ipv4.tcp_limit_output_bytes", "tcp_limit_output_bytes", "int", None, None, "4194304",
           "Bytes of one connection in the device queue.", "proc_dointvec"),
    Sysctl("net.ipv4.tcp_notsent_lowat", "tcp_notsent_lowat", "uint", 0, UINT_MAX, "4294967295",
           "Unsent bytes above which a socket is not writable.", "proc_douintvec_minmax"),
    Sysctl("net.ipv4.tcp_autocorking", "tcp_autocorking", "u8", 0, 1, "1",
           "Small writes are joined while packets wait in the device.", "proc_dou8vec_minmax"),
    Sysctl("net.ipv4.tcp_min_tso_segs", "tcp_min_tso_segs", "u8", 1, 255, "2",
           "Least segments of a TSO packet.", "proc_dou8vec_minmax"),
    Sysctl("net.ipv4.tcp_tso_win_divisor", "tcp_tso_win_divisor", "u8", 0, 255, "3",
           "Share of the window that one TSO packet may take.", "proc_dou8vec_minmax"),
    Sysctl("net.ipv4.tcp_pacing_ss_ratio", "tcp_pacing_ss_ratio", "int", 0, 1000, "200",
           "Pacing rate in slow start (percent).", "proc_dointvec_minmax"),
    Sysctl("net.ipv4.tcp_pacing_ca_ratio", "tcp_pacing_ca_ratio", "int", 0, 1000, "120",
           "Pacing rate in congestion avoidance (percent).", "proc_dointvec_minmax"),
    Sysctl("net.ipv4.tcp_min_rtt_wlen", "tcp_min_rtt_wlen", "int", 0, 86400, "300",
           "Window of the minimum RTT filter (s).", "proc_dointvec_minmax"),
    Sysctl("net.ipv4.tcp_pingpong_thresh", "tcp_pingpong_thresh", "u8", 1, 255, "1",
           "Requests answered before a connection counts as interactive.", "proc_dou8vec_minmax"),
    # acknowledgements
    Sysctl("net.ipv4.tcp_invalid_ratelimit", "tcp_invalid_ratelimit", "ms", None, None, "500",
           "Least time between two duplicate ACKs for invalid segments (ms).", "proc_dointvec_ms_jiffies"),
    Sysctl("net.ipv4.tcp_challenge_ack_limit", "tcp_challenge_ack_limit", "int", None, None, "2147483647",
           "Challenge ACKs a second of the whole namespace.", "proc_dointvec"),
    Sysctl("net.ipv4.tcp_comp_sack_delay_ns", "tcp_comp_sack_delay_ns", "ulong", 0, ULONG_MAX, "1000000",
           "Most delay of a compressed SACK (ns).", "proc_doulongvec_minmax"),
    Sysctl("net.ipv4.tcp_comp_sack_slack_ns", "tcp_comp_sack_slack_ns", "ulong", 0, ULONG_MAX, "100000",
           "Slack of that timer (ns).", "proc_doulongvec_minmax"),
    Sysctl("net.ipv4.tcp_comp_sack_nr", "tcp_comp_sack_nr", "u8", 0, 255, "44",
           "Most SACKs that are compressed; 0 = none.", "proc_dou8vec_minmax"),
    Sysctl("net.ipv4.tcp_backlog_ack_defer", "tcp_backlog_ack_defer", "u8", 0, 1, "1",
           "ACKs of backlogged segments are sent once, at the end.", "proc_dou8vec_minmax"),
    # marks and devices
    Sysctl("net.ipv4.tcp_fwmark_accept", "tcp_fwmark_accept", "u8", 0, 255, "0",
           "An accepted socket takes the mark of the SYN.", "proc_dou8vec_minmax"),
    Sysctl("net.ipv4.tcp_l3mdev_accept", "tcp_l3mdev_accept", "u8", 0, 1, "0",
           "A listener accepts from every VRF.", "proc_dou8vec_minmax"),
    Sysctl("net.ipv4.tcp_reflect_tos", "tcp_reflect_tos", "u8", 0, 1, "0",
           "An accepted socket takes the TOS of the SYN.", "proc_dou8vec_minmax"),
    Sysctl("net.ipv4.tcp_stdurg", "tcp_stdurg", "u8", 0, 255, "0",
           "The urgent pointer points past the last urgent byte.", "proc_dou8vec_minmax"),
    Sysctl("net.core.txrehash", "txrehash", "u8", 0, 1, "1",
           "A retransmission timeout picks another transmit hash.", "proc_dou8vec_minmax"),
    # IPv6
    Sysctl("net.ipv6.bindv6only", "bindv6only", "u8", 0, 255, "0",
           "AF_INET6 sockets do not speak IPv4.", "proc_dou8vec_minmax"),
    Sysctl("net.ipv6.conf.all.disable_ipv6", "disable_ipv6", "int", None, None, "0",
           "No IPv6 on any device.", "addrconf_sysctl_disable"),
)
# fmt: on

BY_NAME = {row.name: row for row in SYSCTLS}
FIELDS = tuple(field for row in SYSCTLS for field in row.field_names)
