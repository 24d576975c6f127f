"""KernelProfile: what differs between the Linux versions that the engine can imitate.

Here: names, numbers and switches, each with the place in the kernel that it comes from.  docs/profiles.md is made from
it (tools/make_profiles.py), and a test asks the engine for every cell.  Not here: the code that obeys (inet/, tcp/,
sock/ and sysctl.py).

Rules
1. A profile claims only what was measured on that kernel or can be cited: "abcdef123456, 4.6" is a commit and the first
   version with it, "net/ipv4/x.c:function, 3.10" a function as it stands in that version.
2. A Fact is true from the profile it names on; the newest change wins.  "" as a source: the change before it holds.
3. A version stands for its first release; what a distribution or a later stable release added is not in it.  Only 6.18
   is 6.18.44, against which everything here was measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

VERSIONS = ("2.6.32", "3.10", "4.2", "4.6", "5.18", "6.3", "6.5", "6.18", "7.1")

# The order in which __inet_hash_connect() looks at ports.
PARITY, FROM_NEXT, FROM_EVEN = 0, 1, 2

SOL_SOCKET, IPPROTO_IP, IPPROTO_TCP = 1, 0, 6

_NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class KernelProfile:
    """One kernel version as the engine sees it. The defaults are those of 6.18."""

    name: str
    """Version, as in `uname -r` without the patch level."""

    sysctl_defaults: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    """Full sysctl name -> text, where the default differs from the table in sysctl_table.py."""

    absent_sysctls: frozenset[str] = frozenset()
    """Full names of sysctls that this kernel does not have yet: get and set answer ENOENT."""

    absent_options: frozenset[tuple[int, int]] = frozenset()
    """(level, name) of socket options that it does not have yet: ENOPROTOOPT."""

    hz: int = 250
    """Ticks a second (CONFIG_HZ): bounds and rounding of the sysctls that the kernel keeps in jiffies."""

    port_order: int = PARITY
    """PARITY: two passes of step 2; FROM_NEXT, FROM_EVEN: one of step 1, from the port after the start, from an even
    offset."""

    one_counter: bool = False
    """The start moves by one counter of the whole machine (`hint`), not by the destination's entry of table_perturb."""

    port_rehash_period_us: int = 10_000_000
    """How long the hash of a destination stays the same; 0 = until the next boot."""

    local_range_step_1: bool = True
    """With IP_LOCAL_PORT_RANGE the search is one pass of step 1; else two passes as without."""

    bind_step_1: bool = False
    """bind(addr, 0) looks at every port from a random one on; else at odd offsets first."""

    has_reuseport: bool = True
    """A bucket has fastreuseport (SO_REUSEPORT)."""

    bucket_heals: bool = True
    """A bind bucket's state is computed anew when a binder leaves; else it stays until all owners are gone."""

    tw_reuse_seconds: int = 0
    """A TIME_WAIT is reused after so many turns of the clock's second; 0: after tcp_tw_reuse_delay, in ms."""

    fin_wait2_reuse: bool = False
    """A FIN_WAIT2 without a socket is taken over as a TIME_WAIT is."""

    initial_rto_us: int = 1_000_000
    """TCP_TIMEOUT_INIT: first retransmission timeout of a SYN."""

    counts_syns: bool = True
    """tcp_syn_retries is a number of SYNs; else it stands for a time only."""

    syn_budget_base_us: int = 1_000_000
    """First interval of the doubling series that says what time tcp_syn_retries stands for."""

    user_timeout_of_syn: bool = True
    """TCP_USER_TIMEOUT ends a connect(), and shortens the timer before it."""

    init_cwnd: int = 10
    """Segments of the first flight."""

    first_window_segments: int = 0
    """Segments that the window of a SYN is limited to; 0: no limit."""

    first_window_max: int = 0
    """Bytes that the window of a SYN is limited to; 0: no limit."""

    timestamp_offsets: int = 2
    """What TSval starts from: 0 the clock, 1 a random offset for each pair of addresses, 2 for each 4-tuple."""


class Change(NamedTuple):
    """From profile `version` on the fact is `value`, in words `text`; `source` says where the kernel has it."""

    version: str
    value: Any
    text: str
    source: str


class Fact(NamedTuple):
    """A row of docs/profiles.md.

    `key` is an attribute of KernelProfile, the name of a sysctl (value: its default, None if there is none), or a
    "LEVEL:NAME" of OPTION_NUMBERS (value: does it exist).
    """

    key: str
    title: str
    changes: tuple[Change, ...]

    def at(self, version: str) -> Change:
        """The change that holds in that version."""
        known = VERSIONS[: VERSIONS.index(version) + 1]
        return [change for change in self.changes if change.version in known][-1]


def _fact(key: str, title: str, *changes: tuple[str, Any, str, str]) -> Fact:
    return Fact(key, title, tuple(Change(*change) for change in changes))


_CONNECT = "net/ipv4/inet_hashtables.c:__inet_hash_connect"
_GET_PORT = "net/ipv4/inet_connection_sock.c:inet_csk_get_port"

# fmt: off
PORT_FACTS = (
    _fact("port_order", "Order in which connect() looks at ports",
        ("2.6.32", FROM_NEXT, "one circular pass, step 1, from the port after the start", f"{_CONNECT}, 2.6.32"),
        ("4.2", FROM_EVEN, "one circular pass, step 1, from an even offset", "07f4c90062f8, 4.2"),
        ("4.6", PARITY, "two passes, step 2: the parity of the range's first port, then the other",
         "1580ab63fc9a, 4.6")),
    _fact("one_counter", "Start of the search",
        ("2.6.32", True, "keyed hash of (source, destination, its port) + one counter of the machine",
         f"{_CONNECT}:hint, 2.6.32"),
        ("5.18", False, "keyed hash + the destination's entry of table_perturb, 65,536 entries",
         "190cc82489f4, 5.12; 4c2c8f03a5ab, 5.18")),
    _fact("", "What a success adds to the start",
        ("2.6.32", "walked + 1", "ports passed over + 1", f"{_CONNECT}:hint, 2.6.32"),
        ("4.2", "even", "ports passed over + 2, made even", "07f4c90062f8, 4.2"),
        ("4.6", "walked + 2", "distance walked + 2", "1580ab63fc9a, 4.6"),
        ("5.18", "random", "the larger of distance and a random 0, 2 .. 14, + 2", "ca7af0402550, 5.18")),
    _fact("port_rehash_period_us", "The keyed hash changes",
        ("2.6.32", 300_000_000, "every 300 s", "drivers/char/random.c:rekey_seq_generator, 2.6.32"),
        ("3.10", 0, "at boot only", "6e5714eaf77d, 3.1"),
        ("5.18", 10_000_000, "every 10 s", "4dfa9b438ee3, 5.18")),
    _fact("local_range_step_1", "The same with IP_LOCAL_PORT_RANGE",
        ("2.6.32", True, "–", ""),
        ("6.3", False, "two passes, as without it", "91d0b78c5177, 6.3"),
        ("6.18", True, "one pass, step 1", "207184853dbd, 6.8")),
    _fact("bind_step_1", "bind(addr, 0) looks",
        ("2.6.32", True, "at every port from a random one on", f"{_GET_PORT}, 2.6.32"),
        ("4.6", False, "at odd offsets from a random one on, then at even ones", "ea8add2b1903, 4.6")),
    _fact("has_reuseport", "connect() joins a bucket when",
        ("2.6.32", False, "fastreuse < 0: a bind() with SO_REUSEADDR that joined connect()s leaves it open",
         f"{_CONNECT}, 2.6.32"),
        ("3.10", True, "fastreuse and fastreuseport < 0: only connect()s are in it", "da5e36308d9f, 3.9")),
    _fact("bucket_heals", "A bucket closed by bind() opens again when",
        ("2.6.32", False, "all owners have left", "net/ipv4/inet_hashtables.c:__inet_put_port, 2.6.32"),
        ("6.18", True, "all that bind() put in have left", "d57f4b874946, 6.18")),
    _fact("tw_reuse_seconds", "With tcp_tw_reuse a TIME_WAIT gives its 4-tuple up",
        ("2.6.32", 2, "when the clock's second has turned twice", "net/ipv4/tcp_ipv4.c:tcp_twsk_unique, 2.6.32"),
        ("5.18", 1, "when the clock's second has turned", "cca9bab1b72c, 4.19"),
        ("6.18", 0, "after tcp_tw_reuse_delay ms", "ca6a6f93867a, 6.14")),
    _fact("fin_wait2_reuse", "So does a FIN_WAIT2 without a socket",
        ("2.6.32", True, "yes", "net/ipv4/tcp_ipv4.c:tcp_twsk_unique, 2.6.32"),
        ("6.18", False, "no", "0d9e5df4a257, 6.12")),
)

SYN_FACTS = (
    _fact("initial_rto_us", "First timeout of a SYN",
        ("2.6.32", 3_000_000, "3 s", "include/net/tcp.h:TCP_TIMEOUT_INIT, 2.6.32"),
        ("3.10", 1_000_000, "1 s", "9ad7c049f0f7, 3.1")),
    _fact("net.ipv4.tcp_syn_retries", "tcp_syn_retries",
        ("2.6.32", "5", "5", "include/net/tcp.h:TCP_SYN_RETRIES, 2.6.32"),
        ("3.10", "6", "6", "include/net/tcp.h:TCP_SYN_RETRIES, 3.10")),
    _fact("counts_syns", "tcp_syn_retries limits",
        ("2.6.32", False, "a time, reckoned from 0.2 s: 12.6 s", "net/ipv4/tcp_timer.c:retransmits_timed_out, 2.6.32"),
        ("3.10", True, "the number of SYNs", "4d22f7d372f5, 2.6.36")),
    _fact("net.ipv4.tcp_syn_linear_timeouts", "tcp_syn_linear_timeouts",
        ("2.6.32", None, "–", ""),
        ("6.5", "4", "4", "ccce324dabfe, 6.5")),
    _fact("", "SYNs without an answer leave at (s)",
        ("2.6.32", (0, 3, 9), "0 3 9", "net/ipv4/tcp_timer.c:tcp_write_timeout, 2.6.32"),
        ("3.10", (0, 1, 3, 7, 15, 31, 63), "0 1 3 7 15 31 63", "net/ipv4/tcp_timer.c:tcp_write_timeout, 3.10"),
        ("6.5", (0, 1, 2, 3, 4, 5, 7, 11, 19, 35, 67), "0 1 2 3 4 5 7 11 19 35 67", "ccce324dabfe, 6.5")),
    _fact("", "ETIMEDOUT after",
        ("2.6.32", 21, "21 s", "net/ipv4/tcp_timer.c:tcp_write_timeout, 2.6.32"),
        ("3.10", 127, "127 s", "net/ipv4/tcp_timer.c:tcp_write_timeout, 3.10"),
        ("6.5", 131, "131 s", "ccce324dabfe, 6.5")),
    _fact("user_timeout_of_syn", "TCP_USER_TIMEOUT ends a connect()",
        ("2.6.32", False, "–", ""),
        ("3.10", False, "no", "net/ipv4/tcp_timer.c:tcp_write_timeout, 3.10"),
        ("5.18", True, "yes", "a41e8a88b06e, 5.4")),
    _fact("first_window_segments", "Window of the SYN, Ethernet",
        ("2.6.32", 4, "5,840 bytes: 4 segments", "net/ipv4/tcp_output.c:tcp_select_initial_window, 2.6.32"),
        ("3.10", 10, "14,600 bytes: 10 segments", "356f039822b8, 2.6.38"),
        ("4.2", 20, "29,200 bytes: 20 segments", "85f16525a2eb, 3.11"),
        ("5.18", 0, "64,240 bytes: what half of tcp_rmem[1] holds", "a337531b942b, 4.20")),
    _fact("first_window_max", "... at most, with a large SO_RCVBUF",
        ("2.6.32", 0, "4 segments", "net/ipv4/tcp_output.c:tcp_select_initial_window, 2.6.32"),
        ("3.10", 0, "10 segments", "356f039822b8, 2.6.38"),
        ("4.2", 0, "20 segments", "85f16525a2eb, 3.11"),
        ("5.18", 65_535, "65,535 bytes", "a337531b942b, 4.20"),
        ("6.18", 0, "no limit", "378979e94e95, 6.10")),
    _fact("net.ipv4.tcp_rmem", "tcp_rmem (a large machine)",
        ("2.6.32", "4096 87380 4194304", "4096 87380 4194304", "net/ipv4/tcp.c:tcp_init, 2.6.32"),
        ("3.10", "4096 87380 6291456", "4096 87380 6291456", "b49960a05e32, 3.4"),
        ("5.18", "4096 131072 6291456", "4096 131072 6291456", "a337531b942b, 4.20"),
        ("6.18", "4096 131072 33554432", "4096 131072 33554432", "572be9bf9d0d, 6.16")),
    _fact("net.core.rmem_max", "net.core.rmem_max",
        ("2.6.32", "131071", "131071", "net/core/sock.c:sk_init, 2.6.32"),
        ("3.10", "212992", "212992", "include/net/sock.h:SK_RMEM_MAX, 3.10"),
        ("6.18", "4194304", "4194304", "a6d4f25888b8, 6.18")),
    _fact("net.core.wmem_max", "net.core.wmem_max",
        ("2.6.32", "131071", "131071", "net/core/sock.c:sk_init, 2.6.32"),
        ("3.10", "212992", "212992", "include/net/sock.h:SK_WMEM_MAX, 3.10"),
        ("6.18", "4194304", "4194304", "a6d4f25888b8, 6.18")),
    _fact("", "Window scale of the SYN",
        ("2.6.32", 7, "7", "net/ipv4/tcp_output.c:tcp_select_initial_window, 2.6.32"),
        ("6.18", 10, "10", "572be9bf9d0d, 6.16")),
    _fact("init_cwnd", "First flight",
        ("2.6.32", 3, "3 segments", "include/net/tcp.h, 2.6.32"),
        ("3.10", 10, "10 segments", "442b9635c569, 2.6.39")),
    _fact("timestamp_offsets", "TSval starts from",
        ("2.6.32", 0, "the clock", "net/ipv4/tcp_output.c:tcp_syn_options, 2.6.32"),
        ("5.18", 1, "a random offset for each pair of addresses", "28ee1b746f49, 4.11"),
        ("6.18", 2, "a random offset for each 4-tuple", "165573e41f2f, 6.18.y")),
    _fact("net.ipv4.tcp_tw_reuse", "tcp_tw_reuse",
        ("2.6.32", "0", "0: off", "net/ipv4/tcp_ipv4.c:sysctl_tcp_tw_reuse, 2.6.32"),
        ("5.18", "2", "2: on loopback", "79e9fed46038, 4.19")),
    _fact("net.ipv4.ip_local_port_range", "ip_local_port_range",
        ("2.6.32", "32768 61000", "32768 61000", "net/ipv4/inet_connection_sock.c:sysctl_local_ports, 2.6.32"),
        ("4.2", "32768 60999", "32768 60999", "07f4c90062f8, 4.2")),
    _fact("net.core.somaxconn", "net.core.somaxconn",
        ("2.6.32", "128", "128", "include/linux/socket.h:SOMAXCONN, 2.6.32"),
        ("5.18", "4096", "4096", "19f92a030ca6, 5.4")),
)
# fmt: on


def _came(key: str, version: str, source: str) -> Fact:
    """A sysctl or an option that exists from a profile on."""
    option = ":" in key
    title = key.partition(":")[2] if option else key.removeprefix("net.").removeprefix("ipv4.")
    before = Change(VERSIONS[0], False if option else None, "–", "")
    return Fact(key, title, (before, Change(version, True if option else "", "yes", source)))


# fmt: off
SYSCTL_FACTS = tuple(_came(f"net.{name}", version, source) for name, version, source in (
    ("ipv4.ip_local_reserved_ports", "3.10", "e3826f1e946e, 2.6.35"),
    ("ipv4.tcp_thin_linear_timeouts", "3.10", "36e31b0af587, 2.6.34"),
    ("ipv4.tcp_early_retrans", "3.10", "eed530b6c676, 3.5"),
    ("ipv4.tcp_fastopen", "3.10", "cf60af03ca4e, 3.6"),
    ("ipv4.tcp_limit_output_bytes", "3.10", "46d3ceabd8d9, 3.6"),
    ("ipv4.tcp_challenge_ack_limit", "3.10", "282f23c6ee34, 3.6"),
    ("ipv4.tcp_min_tso_segs", "4.2", "95bd09eb2750, 3.12"),
    ("ipv4.tcp_notsent_lowat", "4.2", "c9bee3b7fdec, 3.12"),
    ("ipv4.tcp_autocorking", "4.2", "f54b311142a9, 3.14"),
    ("ipv4.fwmark_reflect", "4.2", "e110861f8609, 3.16"),
    ("ipv4.tcp_fwmark_accept", "4.2", "84f39b08d786, 3.16"),
    ("ipv4.tcp_max_reordering", "4.2", "dca145ffaa8d, 3.19"),
    ("ipv4.tcp_invalid_ratelimit", "4.2", "032ee4236954, 4.0"),
    ("ipv4.tcp_probe_threshold", "4.2", "6b58e0a5f32d, 4.1"),
    ("ipv4.tcp_probe_interval", "4.2", "05cbc0db03e8, 4.1"),
    ("ipv4.tcp_ecn_fallback", "4.2", "492135557dc0, 4.2"),
    ("ipv4.tcp_pacing_ss_ratio", "4.6", "43e122b014c9, 4.3"),
    ("ipv4.tcp_pacing_ca_ratio", "4.6", "43e122b014c9, 4.3"),
    ("ipv4.tcp_recovery", "4.6", "4f41b1c58a32, 4.4"),
    ("ipv4.tcp_min_rtt_wlen", "4.6", "f672258391b4, 4.4"),
    ("ipv4.tcp_l3mdev_accept", "4.6", "6dd9a14e92e5, 4.5"),
    ("ipv4.ip_unprivileged_port_start", "5.18", "4548b683b781, 4.11"),
    ("ipv4.tcp_fastopen_blackhole_timeout_sec", "5.18", "cf1ef3f0719b, 4.12"),
    ("ipv4.tcp_comp_sack_delay_ns", "5.18", "6d82aa242092, 4.18"),
    ("ipv4.tcp_comp_sack_nr", "5.18", "9c21d2fc41c0, 4.18"),
    ("ipv4.tcp_min_snd_mss", "5.18", "5f3e2bf008c2, 5.2"),
    ("ipv4.tcp_mtu_probe_floor", "5.18", "c04b79b6cfd7, 5.4"),
    ("ipv4.tcp_no_ssthresh_metrics_save", "5.18", "65e6d90168f3, 5.6"),
    ("ipv4.ip_autobind_reuse", "5.18", "4b01a9674231, 5.7"),
    ("ipv4.tcp_comp_sack_slack_ns", "5.18", "a70437cc09a1, 5.8"),
    ("ipv4.tcp_reflect_tos", "5.18", "ac8f1710c12b, 5.10"),
    ("ipv4.tcp_migrate_req", "5.18", "f9ac779f881c, 5.14"),
    ("core.txrehash", "5.18", "e187013abeb4, 5.18"),
    ("ipv4.tcp_shrink_window", "6.18", "b650d953cd39, 6.6"),
    ("ipv4.tcp_backlog_ack_defer", "6.18", "133c4c0d3717, 6.7"),
    ("ipv4.tcp_pingpong_thresh", "6.18", "562b1fdf061b, 6.7"),
    ("ipv4.tcp_rto_min_us", "6.18", "f086edef71be, 6.11"),
    ("ipv4.tcp_tw_reuse_delay", "6.18", "ca6a6f93867a, 6.14"),
    ("ipv4.tcp_rto_max_ms", "6.18", "1280c26228bd, 6.15"),
    ("ipv4.tcp_ecn_option", "6.18", "b5e74132dfbe, 6.18"),
    ("ipv4.tcp_ecn_option_beacon", "6.18", "aa55a7dde7ec, 6.18"),
    ("ipv4.ip_local_port_step_width", "7.1", "7da62262ec96, 7.1"),
))

OPTION_FACTS = tuple(_came(key, version, source) for key, version, source in (
    ("SOL_SOCKET:SO_REUSEPORT", "3.10", "055dc21a1d1d, 3.9"),
    ("SOL_SOCKET:SO_PEEK_OFF", "3.10", "ef64a54f6e55, 3.4"),
    ("IPPROTO_IP:IP_BIND_ADDRESS_NO_PORT", "4.2", "90c337da1524, 4.2"),
    ("IPPROTO_IP:IP_LOCAL_PORT_RANGE", "6.3", "91d0b78c5177, 6.3"),
    ("IPPROTO_TCP:TCP_THIN_LINEAR_TIMEOUTS", "3.10", "36e31b0af587, 2.6.34"),
    ("IPPROTO_TCP:TCP_USER_TIMEOUT", "3.10", "dca43c75e7e5, 2.6.37"),
    ("IPPROTO_TCP:TCP_REPAIR", "3.10", "ee9952831cfd, 3.5"),
    ("IPPROTO_TCP:TCP_FASTOPEN", "3.10", "8336886f786f, 3.7"),
    ("IPPROTO_TCP:TCP_TIMESTAMP", "3.10", "93be6ce0e91b, 3.9"),
    ("IPPROTO_TCP:TCP_NOTSENT_LOWAT", "4.2", "c9bee3b7fdec, 3.12"),
    ("SOL_SOCKET:SO_BUSY_POLL", "4.2", "dafcc4380dee, 3.11"),
    ("SOL_SOCKET:SO_INCOMING_CPU", "4.2", "2c8c56e15df3, 3.19"),
    ("IPPROTO_TCP:TCP_CC_INFO", "4.2", "6e9250f59ef9, 4.1"),
    ("IPPROTO_TCP:TCP_SAVE_SYN", "4.2", "cd8ae85299d5, 4.2"),
    ("IPPROTO_TCP:TCP_FASTOPEN_CONNECT", "5.18", "19f6d3f3c842, 4.11"),
    ("SOL_SOCKET:SO_MEMINFO", "5.18", "include/uapi/asm-generic/socket.h:SO_MEMINFO, 4.12"),
    ("SOL_SOCKET:SO_COOKIE", "5.18", "5daab9db7b65, 4.12"),
    ("IPPROTO_TCP:TCP_ULP", "5.18", "734942cc4ea6, 4.13"),
    ("IPPROTO_TCP:TCP_MD5SIG_EXT", "5.18", "8917a777be3b, 4.14"),
    ("SOL_SOCKET:SO_ZEROCOPY", "5.18", "76851d1212c1, 4.14"),
    ("IPPROTO_TCP:TCP_FASTOPEN_NO_COOKIE", "5.18", "include/uapi/linux/tcp.h:TCP_FASTOPEN_NO_COOKIE, 4.15"),
    ("IPPROTO_TCP:TCP_INQ", "5.18", "b75eba76d3d7, 4.18"),
    ("IPPROTO_TCP:TCP_TX_DELAY", "5.18", "a842fe1425cb, 5.3"),
    ("SOL_SOCKET:SO_BINDTOIFINDEX", "5.18", "f5dd3d0c9638, 5.1"),
    ("SOL_SOCKET:SO_TXREHASH", "5.18", "26859240e4ee, 5.18"),
    ("IPPROTO_TCP:TCP_RTO_MAX_MS", "6.18", "54a378f43425, 6.15"),
))

OPTION_NUMBERS: Mapping[str, tuple[int, int]] = MappingProxyType({
    "SOL_SOCKET:SO_REUSEPORT": (SOL_SOCKET, 15), "SOL_SOCKET:SO_PEEK_OFF": (SOL_SOCKET, 42),
    "SOL_SOCKET:SO_BUSY_POLL": (SOL_SOCKET, 46), "SOL_SOCKET:SO_INCOMING_CPU": (SOL_SOCKET, 49),
    "SOL_SOCKET:SO_MEMINFO": (SOL_SOCKET, 55), "SOL_SOCKET:SO_COOKIE": (SOL_SOCKET, 57),
    "SOL_SOCKET:SO_ZEROCOPY": (SOL_SOCKET, 60), "SOL_SOCKET:SO_BINDTOIFINDEX": (SOL_SOCKET, 62),
    "SOL_SOCKET:SO_TXREHASH": (SOL_SOCKET, 74),
    "IPPROTO_IP:IP_BIND_ADDRESS_NO_PORT": (IPPROTO_IP, 24), "IPPROTO_IP:IP_LOCAL_PORT_RANGE": (IPPROTO_IP, 51),
    "IPPROTO_TCP:TCP_THIN_LINEAR_TIMEOUTS": (IPPROTO_TCP, 16), "IPPROTO_TCP:TCP_USER_TIMEOUT": (IPPROTO_TCP, 18),
    "IPPROTO_TCP:TCP_REPAIR": (IPPROTO_TCP, 19), "IPPROTO_TCP:TCP_FASTOPEN": (IPPROTO_TCP, 23),
    "IPPROTO_TCP:TCP_TIMESTAMP": (IPPROTO_TCP, 24), "IPPROTO_TCP:TCP_NOTSENT_LOWAT": (IPPROTO_TCP, 25),
    "IPPROTO_TCP:TCP_CC_INFO": (IPPROTO_TCP, 26), "IPPROTO_TCP:TCP_SAVE_SYN": (IPPROTO_TCP, 27),
    "IPPROTO_TCP:TCP_FASTOPEN_CONNECT": (IPPROTO_TCP, 30), "IPPROTO_TCP:TCP_ULP": (IPPROTO_TCP, 31),
    "IPPROTO_TCP:TCP_MD5SIG_EXT": (IPPROTO_TCP, 32), "IPPROTO_TCP:TCP_FASTOPEN_NO_COOKIE": (IPPROTO_TCP, 34),
    "IPPROTO_TCP:TCP_INQ": (IPPROTO_TCP, 36), "IPPROTO_TCP:TCP_TX_DELAY": (IPPROTO_TCP, 37),
    "IPPROTO_TCP:TCP_RTO_MAX_MS": (IPPROTO_TCP, 44),
})
# fmt: on

FACTS = (*PORT_FACTS, *SYN_FACTS, *SYSCTL_FACTS, *OPTION_FACTS)

# What follows from a fact without being one: these fields, in these profiles.
_MORE: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        # Timestamps count ticks before 4.13 (9a568de4818d); RHEL's kernels of that time have 1000 of them a second.
        "2.6.32": {"hz": 1000, "syn_budget_base_us": 200_000},
        "3.10": {"hz": 1000},
        "4.2": {"hz": 1000},
        "4.6": {"hz": 1000},
    }
)
# A linear phase of 4 is the table's default; without the sysctl there is none, nor a fall back from ECN.
_OFF_WHEN_ABSENT = ("net.ipv4.tcp_syn_linear_timeouts", "net.ipv4.tcp_ecn_fallback")


def _profile(version: str) -> KernelProfile:
    values = {fact.key: fact.at(version).value for fact in FACTS if fact.key}
    absent = frozenset(key for key, value in values.items() if key.startswith("net.") and value is None)
    defaults = {key: value for key, value in values.items() if key.startswith("net.") and value}
    defaults |= {key: "0" for key in _OFF_WHEN_ABSENT if key in absent}
    options = frozenset(number for key, number in OPTION_NUMBERS.items() if not values[key])
    fields = {key: value for key, value in values.items() if key in KernelProfile.__dataclass_fields__}
    fields |= _MORE.get(version, {})
    return KernelProfile(version, MappingProxyType(defaults), absent, options, **fields)


PROFILES: Mapping[str, KernelProfile] = MappingProxyType({version: _profile(version) for version in VERSIONS})

LINUX_6_18 = PROFILES["6.18"]


def profile_named(name: str) -> KernelProfile:
    """The profile of that kernel version; ValueError names those that exist."""
    try:
        return PROFILES[name]
    except KeyError:
        raise ValueError(f"no kernel profile {name!r}; there are: {', '.join(PROFILES)}") from None
