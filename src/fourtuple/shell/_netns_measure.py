"""What the kernel inside the private namespace can tell: what its own connect() costs, and its TCP sockets by state.

Runs in the helper process. Does not touch the servers.
"""

from __future__ import annotations

import errno
import os
import resource
import socket
import struct
import time

from fourtuple.phy import link, tun, veth

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

FILL_DEVICE, FILL_PEER = "ftfill0", "ftfill1"
FILL_SOURCE = "10.65.0.2"
_IP_LOCAL_PORT_RANGE = 51  # linux/in.h; CPython has no name for it up to 3.13
_SPARE_FILES = 256
_LOOK_UP_EVERY = 256
_FAILURES = 5

# linux/sock_diag.h, linux/inet_diag.h; names of net/tcp_states.h
_SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, _NLM_F_DUMP, _NLMSG_ERROR, _NLMSG_DONE = 20, 1, 0x300, 2, 3
_STATES = (
    "", "ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT1", "FIN_WAIT2", "TIME_WAIT", "CLOSE", "CLOSE_WAIT",
    "LAST_ACK", "LISTEN", "CLOSING", "SYN_RECV",
)  # fmt: skip
_LISTEN = 10


def read_sysctl(name: str) -> str:
    with open(sysctl_path(name)) as file:
        return file.read().strip()


def write_sysctl(name: str, value: str) -> None:
    with open(sysctl_path(name), "w") as file:
        file.write(value)


def sysctl_path(name: str) -> str:
    """/proc/sys/net/... of a dotted name. Only net: everything else there belongs to the whole machine."""
    parts = name.split(".")
    if parts[0] != "net" or len(parts) < 3 or any(part in ("", "..") or "/" in part for part in parts):
        raise ValueError(f"not a sysctl of a network namespace: {name!r} (they look like net.ipv4.tcp_syn_retries)")
    return "/proc/sys/" + "/".join(parts)


def raise_file_limit() -> None:
    """As many descriptors as we may have without asking."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def need_files(count: int) -> None:
    """Make room for `count` more descriptors; root may lift the hard limit as well."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    want = count + _SPARE_FILES + len(os.listdir("/proc/self/fd"))
    if soft != resource.RLIM_INFINITY and soft < want:
        higher = hard if hard == resource.RLIM_INFINITY else max(hard, want)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (want, higher))
        except (OSError, ValueError):
            raise OSError(errno.EMFILE, f"{want} descriptors needed, RLIMIT_NOFILE allows {hard}") from None


class Filler:
    """Measures the kernel's connect() to a remote peer: the port search and the sending, no handshake.

    The peer is behind a second device that loses everything: a TUN that nobody reads (its queue holds one packet, the
    kernel drops the rest), or a veth whose other end is down. So no SYN is ever answered and no loopback handshake runs
    inside the call.
    """

    def __init__(self, abandoned: Callable[[], bool]) -> None:
        self.kind = "tun"
        """Of the second device: `tun` or `veth`."""
        self._made = False
        self._abandoned = abandoned

    def _make_device(self) -> None:
        if self._made:
            return
        if self.kind == "tun":
            tun.open_tun_fd(FILL_DEVICE)  # stays open for as long as this process lives
            link.set_txqueuelen(FILL_DEVICE, 1)
        else:
            veth.add_veth(FILL_DEVICE, FILL_PEER)
        link.set_up(FILL_DEVICE, arp=False)
        link.add_address(FILL_DEVICE, FILL_SOURCE + "/32")
        self._made = True

    def fill(
        self, address: str = "10.65.0.1", port: int = 80, low: int = 32768, high: int = 36863, count: int = 65536,
        per_socket_range: bool = False,
    ) -> dict[str, object]:  # fmt: skip
        """Connect to address:port until EADDRNOTAVAIL, or `count` times, holding every socket; then close them all.

        low..high is ip_local_port_range meanwhile. With `per_socket_range` each socket has it as IP_LOCAL_PORT_RANGE
        too, which makes the kernel search with step 1 (Linux 6.3). Returns `ns` (one duration for each success),
        `ports` in the same order, `errno` that ended it (0: `count` reached) and `last_ns`, what such a failure costs.
        """
        count = max(0, min(count, high - low + 2))
        need_files(count)
        self._make_device()
        try:
            link.add_route(FILL_DEVICE, address + "/32", FILL_SOURCE)
        except FileExistsError:
            pass
        before = read_sysctl("net.ipv4.ip_local_port_range")
        write_sysctl("net.ipv4.ip_local_port_range", f"{low} {high}")
        sockets: list[socket.socket] = []
        try:
            return self._connect_all(sockets, (address, port), count, (high << 16 | low) if per_socket_range else 0)
        finally:
            for sock in sockets:
                sock.close()
            write_sysctl("net.ipv4.ip_local_port_range", before)

    def _connect_all(
        self, sockets: list[socket.socket], peer: tuple[str, int], count: int, port_range: int
    ) -> dict[str, object]:
        durations: list[int] = []
        clock = time.perf_counter_ns
        for i in range(count):
            sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            sockets.append(sock)
            sock.setblocking(False)
            if port_range:
                sock.setsockopt(socket.IPPROTO_IP, _IP_LOCAL_PORT_RANGE, struct.pack("=I", port_range))
            start = clock()
            code = sock.connect_ex(peer)
            took = clock() - start
            if code not in (0, errno.EINPROGRESS):
                return self._result(sockets[:-1], durations, code, self._time_failures(sock, peer))
            durations.append(took)
            if i % _LOOK_UP_EVERY == 0 and self._abandoned():
                break
        return self._result(sockets, durations, 0, 0)

    @staticmethod
    def _time_failures(sock: socket.socket, peer: tuple[str, int]) -> int:
        """The median of a few: a search in vain changes nothing, and one call may be a hiccup of the machine."""
        clock = time.perf_counter_ns
        durations: list[int] = []
        for _ in range(_FAILURES):
            start = clock()
            sock.connect_ex(peer)
            durations.append(clock() - start)
        return sorted(durations)[_FAILURES // 2]

    @staticmethod
    def _result(sockets: list[socket.socket], durations: list[int], code: int, last_ns: int) -> dict[str, object]:
        ports = [sock.getsockname()[1] for sock in sockets]
        return {"ns": durations, "ports": ports, "errno": code, "last_ns": last_ns}


def count_sockets() -> dict[str, int]:
    """The namespace's TCP sockets, from sums that the kernel keeps; `orphan`, `alloc`, `mem_pages`: of the machine.

    `established` has CLOSE_WAIT in it (RFC 4022, tcpCurrEstab); `inuse` is all but TIME_WAIT and SYN_RECV, listeners
    included (ipv4/proc.c:sockstat_seq_show).
    """
    with open("/proc/self/net/sockstat") as file:
        words = next(line for line in file if line.startswith("TCP:")).split()[1:]
    found = dict(zip(words[::2], map(int, words[1::2]), strict=False))
    return {
        "established": read_counters("snmp").get("Tcp.CurrEstab", 0),
        "inuse": found["inuse"],
        "time_wait": found["tw"],
        "orphan": found["orphan"],
        "alloc": found["alloc"],
        "mem_pages": found["mem"],
    }


def read_counters(*files: str) -> dict[str, int]:
    """The counters of /proc/net that are not 0, as "TcpExt.SyncookiesSent"."""
    counters: dict[str, int] = {}
    for name in files or ("snmp", "netstat"):
        with open("/proc/self/net/" + name) as file:
            lines = file.readlines()
        for names, values in zip(lines[::2], lines[1::2], strict=True):
            group, *keys = names.split()
            counters |= {group[:-1] + "." + key: int(n) for key, n in zip(keys, values.split()[1:], strict=True)}
    return {name: value for name, value in counters.items() if value}


def count_states(local_port: int) -> dict[str, int]:
    """How many TCP sockets the kernel has at this local port, by state, listeners left out (sock_diag(7))."""
    states = ((1 << len(_STATES)) - 1) & ~(1 << _LISTEN)
    counts: dict[str, int] = {}
    for family in (socket.AF_INET, socket.AF_INET6):
        for state in _dump(family, states, local_port):
            counts[_STATES[state]] = counts.get(_STATES[state], 0) + 1
    return counts


def _dump(family: int, states: int, local_port: int) -> list[int]:
    """States of all sockets of a family that have this local port; the kernel does the filtering."""
    identity = struct.pack("!HH", local_port, 0) + bytes(36) + b"\xff" * 8  # any address, any device, no cookie
    request = struct.pack("=BBBBI", family, socket.IPPROTO_TCP, 0, 0, states) + identity
    header = struct.pack("=IHHII", 16 + len(request), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST | _NLM_F_DUMP, 1, 0)
    found: list[int] = []
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 4) as netlink:  # NETLINK_SOCK_DIAG
        netlink.send(header + request)
        while _scan(netlink.recv(1 << 18), found):
            pass
    return found


def _scan(data: bytes, found: list[int]) -> bool:
    """Append the states of one batch of answers; False when it was the last."""
    at = 0
    while at < len(data):
        size, kind = struct.unpack_from("=IH", data, at)
        if kind == _NLMSG_DONE:
            return False
        if kind == _NLMSG_ERROR:
            code = -struct.unpack_from("=i", data, at + 16)[0]
            raise OSError(code, f"sock_diag: {os.strerror(code)}")
        found.append(data[at + 17])
        at += (size + 3) & ~3
    return True
