"""Sysctls: the sysctls of one network namespace, one typed field each; text in and out as in /proc/sys.

Here: the values. Not here: names, bounds, defaults and meanings (sysctl_table.py), how text becomes a value
(sysctl_parse.py), what differs between kernels (kernel_profile.py), what a value does (its readers).

Rule 1: compiled code reads the fields as C; only set() and load_defaults() write them.
Rule 2: set() is one write(2): text after a complete vector is left over, as in the kernel, and is no error.
Rule 3: `generation` moves with each successful write, so a reader may keep what it derived from a value.
"""

from __future__ import annotations

from errno import EACCES, ENOENT

from fourtuple.kernel_profile import LINUX_6_18, PROFILES, KernelProfile, profile_named
from fourtuple.sysctl_parse import format_value, parse_value, write_unchecked
from fourtuple.sysctl_table import BY_NAME, FIELDS, SYSCTLS, Sysctl

__all__ = ["PROFILES", "KernelProfile", "Sysctls", "profile_named"]


class Sysctls:
    """The sysctls of one namespace. Fields are named after the last part of the sysctl's name.

    Vectors have a field a number: `ip_local_port_range` is `port_low`, `port_high`. `ip_local_reserved_ports` is
    `reserved_ranges`, sorted disjoint (low, high).
    """

    __slots__ = ("generation", "profile", *FIELDS)

    profile: KernelProfile
    generation: int
    # ports and addresses
    port_low: int
    port_high: int
    ip_local_port_step_width: int
    reserved_ranges: tuple[tuple[int, int], ...]
    unprivileged_port_start: int
    ip_nonlocal_bind: int
    ip_autobind_reuse: int
    ip_dynaddr: int
    # IP
    ip_default_ttl: int
    ip_no_pmtu_disc: int
    min_pmtu: int
    mtu_expires: int
    min_adv_mss: int
    fwmark_reflect: int
    # connection set-up and retransmission
    tcp_syn_retries: int
    tcp_synack_retries: int
    tcp_syn_linear_timeouts: int
    tcp_retries1: int
    tcp_retries2: int
    tcp_orphan_retries: int
    tcp_rto_max_ms: int
    tcp_rto_min_us: int
    tcp_thin_linear_timeouts: int
    tcp_early_retrans: int
    tcp_recovery: int
    tcp_frto: int
    tcp_reordering: int
    tcp_max_reordering: int
    tcp_retrans_collapse: int
    # options of the SYN
    tcp_timestamps: int
    tcp_sack: int
    tcp_dsack: int
    tcp_window_scaling: int
    tcp_ecn: int
    tcp_ecn_fallback: int
    tcp_ecn_option: int
    tcp_ecn_option_beacon: int
    tcp_fastopen: int
    tcp_fastopen_blackhole_timeout_sec: int
    # end of a connection
    tcp_tw_reuse: int
    tcp_tw_reuse_delay: int
    tcp_max_tw_buckets: int
    tcp_fin_timeout: int
    tcp_max_orphans: int
    tcp_abort_on_overflow: int
    tcp_rfc1337: int
    # memory and windows
    tcp_rmem_min: int
    tcp_rmem_default: int
    tcp_rmem_max: int
    tcp_wmem_min: int
    tcp_wmem_default: int
    tcp_wmem_max: int
    rmem_max: int
    wmem_max: int
    rmem_default: int
    wmem_default: int
    optmem_max: int
    tcp_adv_win_scale: int
    tcp_app_win: int
    tcp_moderate_rcvbuf: int
    tcp_shrink_window: int
    tcp_workaround_signed_windows: int
    # MSS and path MTU
    tcp_base_mss: int
    tcp_min_snd_mss: int
    tcp_mtu_probing: int
    tcp_mtu_probe_floor: int
    tcp_probe_interval: int
    tcp_probe_threshold: int
    # keepalive
    tcp_keepalive_time: int
    tcp_keepalive_intvl: int
    tcp_keepalive_probes: int
    # listening
    somaxconn: int
    tcp_max_syn_backlog: int
    tcp_syncookies: int
    tcp_migrate_req: int
    # congestion control and sending
    tcp_congestion_control: str
    tcp_available_congestion_control: str
    tcp_allowed_congestion_control: str
    tcp_slow_start_after_idle: int
    tcp_no_metrics_save: int
    tcp_no_ssthresh_metrics_save: int
    tcp_limit_output_bytes: int
    tcp_notsent_lowat: int
    tcp_autocorking: int
    tcp_min_tso_segs: int
    tcp_tso_win_divisor: int
    tcp_pacing_ss_ratio: int
    tcp_pacing_ca_ratio: int
    tcp_min_rtt_wlen: int
    tcp_pingpong_thresh: int
    # acknowledgements
    tcp_invalid_ratelimit: int
    tcp_challenge_ack_limit: int
    tcp_comp_sack_delay_ns: int
    tcp_comp_sack_slack_ns: int
    tcp_comp_sack_nr: int
    tcp_backlog_ack_defer: int
    # marks and devices
    tcp_fwmark_accept: int
    tcp_l3mdev_accept: int
    tcp_reflect_tos: int
    tcp_stdurg: int
    txrehash: int
    # IPv6
    bindv6only: int
    disable_ipv6: int

    def __init__(self, profile: KernelProfile = LINUX_6_18) -> None:
        self.profile = profile
        self.generation = 0
        self.load_defaults()

    def load_defaults(self) -> None:
        """Every value as after boot."""
        for row in SYSCTLS:
            write_unchecked(self, row, self.profile.sysctl_defaults.get(row.name, row.default))
        self.generation += 1

    def get(self, name: str) -> str:
        """The text that /proc/sys shows, without the newline. KeyError for a name that this kernel does not have."""
        row = _find(self.profile, name)
        if row is None:
            raise KeyError(f"no sysctl {name!r} on Linux {self.profile.name}")
        return format_value(self, row)

    def set(self, name: str, text: str) -> int:
        """Write `text` as one write(2) to /proc/sys would: 0, -ENOENT (no such name), -EACCES (read-only) or -EINVAL.

        An empty write changes nothing. A vector may be given in part. As in the kernel, the numbers of a plain vector
        before a bad one are stored although the result is -EINVAL.
        """
        row = _find(self.profile, name)
        if row is None:
            return -ENOENT
        if row.kind == "read_only":
            return -EACCES
        if not text:
            return 0
        err = parse_value(self, row, text)
        if err == 0:
            self.generation += 1
        return err


def _find(profile: KernelProfile, name: str) -> Sysctl | None:
    """The row of 'net.ipv4.x' or 'net/ipv4/x'."""
    name = name.removeprefix("/proc/sys/").replace("/", ".")
    return None if name in profile.absent_sysctls else BY_NAME.get(name)
