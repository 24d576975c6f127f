"""Every cell of docs/profiles.md, asked of the engine: a Host of that profile is driven, what it does is compared.

What is expected is written down here, from the source that the cell cites; nothing is read from kernel_profile.py but
the names of the facts, so that none is left out.
"""

from __future__ import annotations

import errno
import itertools
import struct
from collections.abc import Callable
from typing import Any

import pytest

from fourtuple.address import parse_ipv4
from fourtuple.host import Host
from fourtuple.kernel_profile import FACTS, OPTION_FACTS, SYSCTL_FACTS, VERSIONS
from fourtuple.sock.af_inet import pack_sockaddr_in
from fourtuple.sock.wait import PENDING, Wait
from tests.tcp.harness import M32, Packet, checksum, flag_bits, option_bytes

S = 1_000_000
OWN, SECOND = parse_ipv4("10.9.0.1"), parse_ipv4("10.9.0.3")
PEER = parse_ipv4("10.9.0.2")
LOOP = parse_ipv4("127.0.0.1")
RANGE = "net.ipv4.ip_local_port_range"
NONBLOCK = 0o4000
SOL_SOCKET, IPPROTO_IP, IPPROTO_TCP = 1, 0, 6
SO_REUSEADDR, SO_RCVBUF, IP_LOCAL_PORT_RANGE, TCP_USER_TIMEOUT = 2, 8, 51, 18

Cell = Any
Observe = Callable[[str], Cell]


def make_host(version: str, now_us: int = 0, seed: int = 7, ports: str | None = None, **sysctls: str) -> Host:
    host = Host(seed=seed, now_us=now_us, max_sockets=1024, profile=version)
    host.add_link("tun0", 1500, ["10.9.0.1/24", "10.9.0.3/24"])
    if ports is not None:
        host.set_sysctl(RANGE, ports)
    for name, value in sysctls.items():
        host.set_sysctl("net.ipv4." + name, value)
    return host


def connect(host: Host, dport: int = 80, daddr: int = PEER, fd: int = -1) -> int:
    """The port that a connect() gets, or -errno; the descriptor stays open."""
    if fd < 0:
        fd = host.sys_socket(2, 1 | NONBLOCK)
    outcome = host.sys_connect(fd, pack_sockaddr_in(daddr, dport))
    assert isinstance(outcome, int)
    return port_of(host, fd) if outcome == -errno.EINPROGRESS else outcome


def port_of(host: Host, fd: int) -> int:
    name = host.sys_getsockname(fd)
    assert isinstance(name, bytes)
    return int(struct.unpack_from("!H", name, 2)[0])


def bind(host: Host, addr: int, port: int, reuse: bool = False, listen: bool = False) -> int:
    """The descriptor of a socket bound there."""
    fd = host.sys_socket()
    if reuse:
        assert host.sys_setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, struct.pack("=i", 1)) == 0
    assert host.sys_bind(fd, pack_sockaddr_in(addr, port)) == 0
    if listen:
        assert host.sys_listen(fd, 5) == 0
    return fd


def by_version(*cells: Cell) -> dict[str, Cell]:
    return dict(zip(VERSIONS, cells, strict=True))


def since(version: str, before: Cell, after: Cell) -> dict[str, Cell]:
    at = VERSIONS.index(version)
    return {v: after if i >= at else before for i, v in enumerate(VERSIONS)}


# ---------------------------------------------------------------------------------------------- ports


def first_ports(host: Host, option: bytes | None = None) -> set[int]:
    """Where the search ends, over many destinations, with 40002, 40004 and 40006 of 40000..40007 listened on."""
    for port in (40002, 40004, 40006):
        bind(host, 0, port, listen=True)
    found = set()
    for dport in range(100, 200):
        fd = host.sys_socket(2, 1 | NONBLOCK)
        if option is not None and host.sys_setsockopt(fd, IPPROTO_IP, IP_LOCAL_PORT_RANGE, option) != 0:
            return set()
        found.add(connect(host, dport, fd=fd))
    return found


def order(version: str) -> set[int]:
    return first_ports(make_host(version, ports="40000 40007"))


def order_with_own_range(version: str) -> set[int]:
    return first_ports(make_host(version, ports="40000 40007"), struct.pack("=I", 40007 << 16 | 40000))


EVERY_START, EVEN_START, EVEN_FIRST = {40000, 40001, 40003, 40005, 40007}, {40000, 40003, 40005, 40007}, {40000}


def moved_by_others(version: str) -> int:
    """How far five connect()s to one destination move the first port towards another."""
    untouched = connect(make_host(version), 443)
    host = make_host(version)
    for _ in range(5):
        connect(host, 80)
    return connect(host, 443) - untouched


def steps(version: str) -> tuple[int, int] | str:
    """From port to port to one destination, the port where the next search starts being held; or 'random'."""
    host = make_host(version)
    ports = [connect(host) for _ in range(120)]
    gaps = {(b - a) % 28_232 for a, b in itertools.pairwise(ports)}
    if len(gaps) > 1:
        assert gaps == {2, 4, 6, 8, 10, 12, 14, 16}
        return "random"
    bind(host, 0, ports[-1] + gaps.pop(), listen=True)
    ports += [connect(host), connect(host)]
    return ports[-2] - ports[-3], ports[-1] - ports[-2]


def rehash(version: str) -> str:
    """The first port by the time of the first connect(): equal letters, equal ports."""
    times = (0, 9.999999, 10, 299.999999, 300, 1_000_000)
    ports = [connect(make_host(version, int(t * S))) for t in times]
    return "".join("abcdef"[list(dict.fromkeys(ports)).index(port)] for port in ports)


def bind_parities(version: str) -> set[int]:
    found = set()
    for seed in range(12):
        host = make_host(version, seed=seed, ports="40000 40007")
        found.add(port_of(host, bind(host, OWN, 0)) & 1)
    return found


def joined_by_reuse(version: str) -> int:
    """A bind() with SO_REUSEADDR joins the bucket of a connect(); may another connect() still?"""
    host = make_host(version, ports="40000 40000")
    assert connect(host, 80) == 40000
    bind(host, SECOND, 40000, reuse=True)
    return connect(host, 443)


def after_the_binder_left(version: str) -> tuple[int, int]:
    """connect() after bind() has come and gone, and after all have."""
    host = make_host(version, ports="40000 40000")
    fd = host.sys_socket(2, 1 | NONBLOCK)
    assert connect(host, 80, fd=fd) == 40000
    binder = bind(host, SECOND, 40000)
    assert connect(host, 443) == -errno.EADDRNOTAVAIL
    host.sys_close(binder)
    second = connect(host, 443)
    if second < 0:
        host.sys_close(fd)
    return second, connect(host, 8080)


def closed_loopback_pair(version: str, now_us: int, both: bool) -> Host:
    """127.0.0.1:40000 -> :7000 in TIME_WAIT, or in FIN_WAIT2 when the other side stays open."""
    host = make_host(version, now_us, ports="40000 40000", tcp_tw_reuse="1")
    listener = bind(host, LOOP, 7000, listen=True)
    client = host.sys_socket()
    assert host.sys_connect(client, pack_sockaddr_in(LOOP, 7000)) == 0
    accepted = host.sys_accept(listener)
    assert isinstance(accepted, int)
    host.sys_close(client)
    if both:
        host.sys_close(accepted)
    else:
        host.handle_timeout(now_us + 300_000)  # the ACK of the FIN is delayed
    assert [row.state for row in host.sockets() if row.lport == 40000] == ["TIME_WAIT" if both else "FIN_WAIT2"]
    return host


def reuse_after(version: str) -> float | None:
    """First of these times at which the 4-tuple of a TIME_WAIT of 100.3 s is free again."""
    for at in (100.999, 101.0, 101.3, 101.301, 101.999, 102.0, 102.5):
        host = closed_loopback_pair(version, 100_300_000, both=True)
        host.handle_timeout(int(at * S))
        if connect(host, 7000, LOOP) == 40000 or port_taken(host):
            return at
    return None


def port_taken(host: Host) -> bool:
    return any(row.lport == 40000 and row.state == "ESTABLISHED" for row in host.sockets())


def fin_wait2_gives_way(version: str) -> bool:
    host = closed_loopback_pair(version, 100_300_000, both=False)
    host.handle_timeout(105 * S)
    return connect(host, 7000, LOOP) != -errno.EADDRNOTAVAIL


# ---------------------------------------------------------------------------------------------- the SYN


def syn_times(version: str, user_timeout_ms: int = 0, **sysctls: str) -> tuple[list[float], float] | int:
    """When SYNs leave and when ETIMEDOUT comes, in s; -errno of TCP_USER_TIMEOUT."""
    host = make_host(version, **sysctls)
    fd = host.sys_socket()
    if user_timeout_ms:
        err = host.sys_setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, struct.pack("=i", user_timeout_ms))
        if err != 0:
            return err
    wait = host.sys_connect(fd, pack_sockaddr_in(PEER, 80))
    assert isinstance(wait, Wait)
    while wait.poll() is PENDING:
        due = host.next_timeout()
        assert due is not None and due < 500 * S
        host.handle_timeout(due)
    assert wait.poll() == -errno.ETIMEDOUT
    return [sent.time_us / S for sent in host.take_packets()], host.now_us / S


def send_syn(version: str, rcvbuf: int = 0) -> tuple[Host, int, Packet]:
    host = make_host(version)
    fd = host.sys_socket(2, 1 | NONBLOCK)
    if rcvbuf:
        host.set_sysctl("net.core.rmem_max", str(rcvbuf))
        assert host.sys_setsockopt(fd, SOL_SOCKET, SO_RCVBUF, struct.pack("=i", rcvbuf)) == 0
    assert connect(host, fd=fd) > 0
    (sent,) = host.take_packets()
    return host, fd, Packet.parse(sent.time_us, 2, sent.packet)


def first_flight(version: str) -> int:
    """Segments that leave at once when 20 kB are written after the handshake."""
    host, fd, syn = send_syn(version)
    options = option_bytes([("mss", 1460), ("ws", 7)])
    head = struct.pack("!HHIIBBHHH", 80, syn.sport, 1, (syn.seq + 1) & M32, (20 + len(options)) << 2,
                       flag_bits("SA"), 65535, 0, 0)  # fmt: skip
    segment = head + options
    total = checksum(struct.pack("!IIBBH", PEER, OWN, 0, 6, len(segment)) + segment)
    segment = segment[:16] + struct.pack("!H", total) + segment[18:]
    ip = struct.pack("!BBHHHBBHII", 0x45, 0, 20 + len(segment), 1, 0x4000, 64, 6, 0, PEER, OWN)
    host.receive_packet(ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:] + segment)
    host.take_packets()
    assert host.sys_send(fd, b"x" * 20_000) == 20_000
    return len(host.take_packets())


def timestamps(version: str) -> str:
    """What TSval starts from: 'clock', 'addresses' or '4-tuple'."""
    host = make_host(version, now_us=5000 * S)
    for daddr, dport in ((PEER, 80), (PEER, 443), (PEER + 7, 80)):
        connect(host, dport, daddr)
    values = [ts[1] for sent in host.take_packets() if (ts := Packet.parse(0, 2, sent.packet).opt("ts"))]
    assert len(values) == 3
    if set(values) == {5_000_000}:
        return "clock"
    return {3: "4-tuple", 2: "addresses"}[len(set(values))]


def sysctl_text(name: str) -> Observe:
    """The default, or ENOENT."""

    def observe(version: str) -> Cell:
        host = make_host(version)
        try:
            text = host.get_sysctl(name)
        except FileNotFoundError:
            with pytest.raises(FileNotFoundError):
                host.set_sysctl(name, "1")
            return errno.ENOENT
        host.set_sysctl(name, text)
        return text.replace("\t", " ")

    return observe


def sysctl_exists(name: str) -> Observe:
    observe = sysctl_text(name)
    return lambda version: observe(version) != errno.ENOENT


def option_exists(level: int, name: int) -> Observe:
    def observe(version: str) -> bool:
        host = make_host(version)
        fd = host.sys_socket()
        answers = {host.sys_setsockopt(fd, level, name, b"\1\0\0\0"), host.sys_getsockopt(fd, level, name)}
        return answers != {-errno.ENOPROTOOPT}

    return observe


NO_OPTION = -errno.ENOPROTOOPT
BUSY = -errno.EADDRNOTAVAIL
OLD_TIMES = [0, 1, 3, 7, 15, 31, 63]
LINEAR_TIMES = [0, 1, 2, 3, 4, 5, 7, 11, 19, 35, 67]

# Fact -> how to observe it, and what Linux does.
CELLS: dict[str, tuple[Observe, dict[str, Cell]]] = {
    "port_order": (order, by_version(EVERY_START, EVERY_START, EVEN_START, *[EVEN_FIRST] * 6)),
    "one_counter": (moved_by_others, by_version(5, 5, 10, 10, 0, 0, 0, 0, 0)),
    "What a success adds to the start": (steps, by_version((2, 1), (2, 1), (3, 1), (4, 2), *["random"] * 5)),
    "port_rehash_period_us": (rehash, by_version("aaaabc", "aaaaaa", "aaaaaa", "aaaaaa", *["aabcde"] * 5)),
    "local_range_step_1": (
        order_with_own_range, by_version(*[set()] * 5, EVEN_FIRST, EVEN_FIRST, EVERY_START, EVERY_START)),
    "bind_step_1": (bind_parities, since("4.6", {0, 1}, {1})),
    "has_reuseport": (joined_by_reuse, since("3.10", 40000, BUSY)),
    "bucket_heals": (after_the_binder_left, since("6.18", (BUSY, 40000), (40000, 40000))),
    "tw_reuse_seconds": (reuse_after, by_version(*[102.0] * 4, *[101.0] * 3, 101.301, 101.301)),
    "fin_wait2_reuse": (fin_wait2_gives_way, since("6.18", True, False)),
    "initial_rto_us": (lambda v: syn_times(v)[0][1], since("3.10", 3, 1)),  # type: ignore[index]
    "counts_syns": (
        lambda v: syn_times(v, tcp_syn_retries="1"),
        by_version(([0, 3], 9), *[([0, 1], 3)] * 5, *[([0, 1, 2], 3)] * 3)),
    "SYNs without an answer leave at (s)": (
        lambda v: syn_times(v)[0],  # type: ignore[index]
        by_version([0, 3, 9], *[OLD_TIMES] * 5, *[LINEAR_TIMES] * 3)),
    "ETIMEDOUT after": (lambda v: syn_times(v)[1], by_version(21, *[127] * 5, *[131] * 3)),  # type: ignore[index]
    "user_timeout_of_syn": (
        lambda v: syn_times(v, 2500),
        by_version(NO_OPTION, *[(OLD_TIMES, 127)] * 3, *[([0, 1], 2.5)] * 2, *[([0, 1, 2], 2.5)] * 3)),
    "first_window_segments": (
        lambda v: send_syn(v)[2].window, by_version(5840, 14600, 29200, 29200, *[64240] * 5)),
    "first_window_max": (
        # 65,535 bytes is also what the field holds: what the engine itself reckons with is asked.
        lambda v: largest_window(v), by_version(5840, 14600, 29200, 29200, *[65535] * 3, 998_640, 998_640)),
    "Window scale of the SYN": (lambda v: send_syn(v)[2].opt("ws"), since("6.18", ("ws", 7), ("ws", 10))),
    "init_cwnd": (first_flight, since("3.10", 3, 10)),
    "timestamp_offsets": (timestamps, by_version(*["clock"] * 4, *["addresses"] * 3, "4-tuple", "4-tuple")),
    "net.ipv4.tcp_syn_retries": (sysctl_text("net.ipv4.tcp_syn_retries"), since("3.10", "5", "6")),
    "net.ipv4.tcp_syn_linear_timeouts": (
        sysctl_text("net.ipv4.tcp_syn_linear_timeouts"), since("6.5", errno.ENOENT, "4")),
    "net.ipv4.tcp_rmem": (
        sysctl_text("net.ipv4.tcp_rmem"),
        by_version("4096 87380 4194304", *["4096 87380 6291456"] * 3, *["4096 131072 6291456"] * 3,
                   *["4096 131072 33554432"] * 2)),
    "net.core.rmem_max": (sysctl_text("net.core.rmem_max"), by_version("131071", *["212992"] * 6, *["4194304"] * 2)),
    "net.core.wmem_max": (sysctl_text("net.core.wmem_max"), by_version("131071", *["212992"] * 6, *["4194304"] * 2)),
    "net.ipv4.tcp_tw_reuse": (sysctl_text("net.ipv4.tcp_tw_reuse"), since("5.18", "0", "2")),
    RANGE: (sysctl_text(RANGE), since("4.2", "32768 61000", "32768 60999")),
    "net.core.somaxconn": (sysctl_text("net.core.somaxconn"), since("5.18", "128", "4096")),
}  # fmt: skip


def largest_window(version: str) -> int:
    host, _, syn = send_syn(version, rcvbuf=1_000_000)
    window: int = host.net.sks.rcv_wnd[1]
    assert syn.window == min(window, 65535)
    return window


# First profile that has it; a name that is in none of these lists has always been there.
NEW_SYSCTLS = {
    "3.10": "ip_local_reserved_ports tcp_thin_linear_timeouts tcp_early_retrans tcp_fastopen tcp_limit_output_bytes "
            "tcp_challenge_ack_limit",
    "4.2": "tcp_min_tso_segs tcp_notsent_lowat tcp_autocorking fwmark_reflect tcp_fwmark_accept tcp_max_reordering "
           "tcp_invalid_ratelimit tcp_probe_threshold tcp_probe_interval tcp_ecn_fallback",
    "4.6": "tcp_pacing_ss_ratio tcp_pacing_ca_ratio tcp_recovery tcp_min_rtt_wlen tcp_l3mdev_accept",
    "5.18": "ip_unprivileged_port_start tcp_fastopen_blackhole_timeout_sec tcp_comp_sack_delay_ns tcp_comp_sack_nr "
            "tcp_min_snd_mss tcp_mtu_probe_floor tcp_no_ssthresh_metrics_save ip_autobind_reuse "
            "tcp_comp_sack_slack_ns tcp_reflect_tos tcp_migrate_req core.txrehash",
    "6.18": "tcp_shrink_window tcp_backlog_ack_defer tcp_pingpong_thresh tcp_rto_min_us tcp_tw_reuse_delay "
            "tcp_rto_max_ms tcp_ecn_option tcp_ecn_option_beacon",
    "7.1": "ip_local_port_step_width",
}  # fmt: skip
# (level, name) as in include/uapi/asm-generic/socket.h, linux/in.h, linux/tcp.h.
NEW_OPTIONS = {
    "3.10": {"SOL_SOCKET:SO_REUSEPORT": (1, 15), "SOL_SOCKET:SO_PEEK_OFF": (1, 42),
             "IPPROTO_TCP:TCP_THIN_LINEAR_TIMEOUTS": (6, 16), "IPPROTO_TCP:TCP_USER_TIMEOUT": (6, 18),
             "IPPROTO_TCP:TCP_REPAIR": (6, 19), "IPPROTO_TCP:TCP_FASTOPEN": (6, 23),
             "IPPROTO_TCP:TCP_TIMESTAMP": (6, 24)},
    "4.2": {"IPPROTO_IP:IP_BIND_ADDRESS_NO_PORT": (0, 24), "IPPROTO_TCP:TCP_NOTSENT_LOWAT": (6, 25),
            "SOL_SOCKET:SO_BUSY_POLL": (1, 46), "SOL_SOCKET:SO_INCOMING_CPU": (1, 49),
            "IPPROTO_TCP:TCP_CC_INFO": (6, 26), "IPPROTO_TCP:TCP_SAVE_SYN": (6, 27)},
    "5.18": {"IPPROTO_TCP:TCP_FASTOPEN_CONNECT": (6, 30), "SOL_SOCKET:SO_MEMINFO": (1, 55),
             "SOL_SOCKET:SO_COOKIE": (1, 57), "IPPROTO_TCP:TCP_ULP": (6, 31), "IPPROTO_TCP:TCP_MD5SIG_EXT": (6, 32),
             "SOL_SOCKET:SO_ZEROCOPY": (1, 60), "IPPROTO_TCP:TCP_FASTOPEN_NO_COOKIE": (6, 34),
             "IPPROTO_TCP:TCP_INQ": (6, 36), "IPPROTO_TCP:TCP_TX_DELAY": (6, 37),
             "SOL_SOCKET:SO_BINDTOIFINDEX": (1, 62), "SOL_SOCKET:SO_TXREHASH": (1, 74)},
    "6.3": {"IPPROTO_IP:IP_LOCAL_PORT_RANGE": (0, 51)},
    "6.18": {"IPPROTO_TCP:TCP_RTO_MAX_MS": (6, 44)},
}  # fmt: skip
for _version, _names in NEW_SYSCTLS.items():
    for _name in _names.split():
        _full = "net." + (_name if "." in _name else "ipv4." + _name)
        CELLS[_full] = sysctl_exists(_full), since(_version, False, True)
for _version, _options in NEW_OPTIONS.items():
    for _name, _numbers in _options.items():
        CELLS[_name] = option_exists(*_numbers), since(_version, False, True)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("fact", CELLS)
def test_the_engine_does_what_the_cell_says(fact: str, version: str) -> None:
    observe, expected = CELLS[fact]
    assert observe(version) == expected[version]


def test_every_fact_has_its_cells() -> None:
    assert {fact.key or fact.title for fact in FACTS} == set(CELLS)


def test_every_change_is_cited() -> None:
    for fact in FACTS:
        for change in fact.changes:
            assert change.source or change.text == "–", (fact.title, change.version)


def test_the_first_profile_of_a_sysctl_or_option_is_not_older_than_its_commit() -> None:
    def number(version: str) -> tuple[int, ...]:
        return tuple(map(int, version.split(".")))

    for fact in (*SYSCTL_FACTS, *OPTION_FACTS):
        came = fact.changes[1]
        version = came.source.partition(", ")[2]
        at = VERSIONS.index(came.version)
        assert number(VERSIONS[at - 1]) < number(version) <= number(came.version), fact.title


@pytest.mark.parametrize("low", [32769, 32768])
def test_before_4_2_the_parity_of_the_range_makes_no_difference(low: int) -> None:
    for version, parities in (("3.10", {0, 1}), ("6.18", {low & 1})):
        host = make_host(version, ports=f"{low} {low + 999}")
        assert {connect(host, dport) & 1 for dport in range(100, 140)} == parities


def test_step_width_walks_the_ports_of_a_pass_in_strides_and_leaves_none_out() -> None:
    host = make_host("7.1", ports="40000 40063", ip_local_port_step_width="64")
    for port in range(40002, 40064, 2):
        bind(host, 0, port, listen=True)
    ports = [connect(host, 80) for _ in range(34)]
    assert ports[0] == 40000  # the only even one left
    assert set(ports[1:33]) == set(range(40001, 40064, 2))
    assert ports[33] == BUSY


def test_a_stride_spreads_the_ports_after_a_reserved_block() -> None:
    """What 7da62262ec96 is for: without it the port after the block gets a quarter of all."""

    def after_the_block(width: str) -> int:
        host = make_host("7.1", ports="40000 40255", ip_local_reserved_ports="40000-40127")
        host.set_sysctl("net.ipv4.ip_local_port_step_width", width)
        return [connect(host, dport) for dport in range(1000, 1400)].count(40128)

    assert after_the_block("0") > 150  # half of the starts lie in the block
    assert after_the_block("256") < 40
