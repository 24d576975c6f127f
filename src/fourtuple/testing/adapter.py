"""make_stack(): a Host behind the API by which outside test suites judge a user-space TCP client stack.

Lives here: text addresses, exceptions and a clock of its own.  Does not live here: any behaviour.
Errors are ConnectError: OSError with Linux's errno and a `.report`.  Nothing blocks: every socket is non-blocking.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from fourtuple.address import format_ipv4, parse_ipv4, parse_ipv6, parse_prefix
from fourtuple.host import LOOPBACK, Host
from fourtuple.machine import Machine
from fourtuple.sock import syscall
from fourtuple.sock.af_inet import AF_INET, AF_UNSPEC, pack_sockaddr_in, sockaddr_in
from fourtuple.sock.stream import MSG_DONTWAIT, MSG_ERRQUEUE
from fourtuple.sock.syscall import SOCK_NONBLOCK
from fourtuple.sock.wait import Wait
from fourtuple.trace import Tracer

Addr = tuple[Any, ...]
SysctlValue = str | int | Sequence[int]

AF_INET6 = 10

# The names that ss(8) prints
_SS_NAMES = {
    "ESTABLISHED": "ESTAB", "SYN_SENT": "SYN-SENT", "SYN_RECV": "SYN-RECV", "FIN_WAIT1": "FIN-WAIT-1",
    "FIN_WAIT2": "FIN-WAIT-2", "TIME_WAIT": "TIME-WAIT", "CLOSE_WAIT": "CLOSE-WAIT", "LAST_ACK": "LAST-ACK",
    "LISTEN": "LISTEN", "CLOSING": "CLOSING", "CLOSE": "UNCONN",
}  # fmt: skip


class Emitted(NamedTuple):
    """A packet that the stack sent."""

    time_us: int
    """when it was put on the wire: a timer's own due time"""
    packet: bytes
    """the whole IP packet"""


class SockRow(NamedTuple):
    """One line of the socket table, as `ss -Htan` would show it."""

    family: int
    state: str
    laddr: str
    lport: int
    raddr: str
    rport: int


class Stack:
    """A Host as an object of calls that return or raise; handles are descriptors."""

    def __init__(self, host: Host) -> None:
        self.host = host

    # wire

    def inject(self, packet: bytes) -> None:
        """One IP packet arrives now."""
        self.host.receive_packet(packet)

    def drain(self) -> list[Emitted]:
        """Everything sent since the last drain, in order."""
        return [Emitted(sent.time_us, sent.packet) for sent in self.host.take_packets()]

    # clock

    def now(self) -> int:
        """Microseconds."""
        return self.host.now_us

    def next_timer(self) -> int | None:
        """When the earliest timer is due."""
        return self.host.next_timeout()

    def advance(self, to_us: int) -> None:
        """Run due timers in order, each at its own due time; then now() == to_us.  ValueError for the past."""
        if to_us < self.host.now_us:
            raise ValueError(f"time runs back: to_us={to_us}, the stack is at {self.host.now_us}")
        self.host.handle_timeout(to_us)

    # system calls

    def socket(self, family: int, type: int, proto: int = 0) -> int:
        """A non-blocking socket."""
        h: int = self._value("socket", self.host.sys_socket(family, type | SOCK_NONBLOCK, proto))
        return h

    def bind(self, h: int, addr: Addr) -> None:
        """bind(2)."""
        address = _sockaddr(addr)
        self._value("bind", self.host.sys_bind(h, address), h, address)

    def connect(self, h: int, addr: Addr | None) -> None:
        """connect(2); None is AF_UNSPEC.  A connection that was begun raises EINPROGRESS."""
        address = struct.pack("=H14x", AF_UNSPEC) if addr is None else _sockaddr(addr)
        self._value("connect", self.host.sys_connect(h, address), h, address)

    def listen(self, h: int, backlog: int) -> None:
        """listen(2)."""
        self._value("listen", self.host.sys_listen(h, backlog), h)

    def accept(self, h: int) -> tuple[int, Addr]:
        """accept(2): (handle, address of the peer)."""
        new = self._value("accept", self.host.sys_accept(h, SOCK_NONBLOCK), h)
        # Not getpeername(): a connection that was reset while it waited is accepted, and still has its address.
        sock = syscall.sockfd_lookup(self.host.task, new)
        assert not isinstance(sock, int)
        sks = sock.net.sks
        return new, (format_ipv4(sks.daddr[sock.sk]), sks.dport[sock.sk])

    def send(self, h: int, data: bytes, flags: int = 0) -> int:
        """How many bytes were queued."""
        n: int = self._value("send", self.host.sys_send(h, data, flags | MSG_DONTWAIT), h)
        return n

    def recv(self, h: int, n: int, flags: int = 0) -> bytes:
        """At most `n` bytes, b'' at the end.  With MSG_ERRQUEUE the payload of an error entry."""
        if flags & MSG_ERRQUEUE:
            entry = self.host.sys_recv_errqueue(h)
            payload = self._value("recv", entry, h).get("payload", b"")
            return bytes(payload)[:n]
        data: bytes = self._value("recv", self.host.sys_recv(h, n, flags | MSG_DONTWAIT), h)
        return data

    def shutdown(self, h: int, how: int) -> None:
        """shutdown(2)."""
        self._value("shutdown", self.host.sys_shutdown(h, how), h)

    def close(self, h: int) -> None:
        """close(2); it never waits, not for SO_LINGER either."""
        outcome = self.host.sys_close(h)
        if not isinstance(outcome, Wait):
            self._value("close", outcome)

    def setsockopt(self, h: int, level: int, name: int, value: bytes) -> None:
        """setsockopt(2)."""
        self._value("setsockopt", self.host.sys_setsockopt(h, level, name, value), h)

    def getsockopt(self, h: int, level: int, name: int, size: int) -> bytes:
        """At most `size` bytes."""
        value: bytes = self._value("getsockopt", self.host.sys_getsockopt(h, level, name, size), h)
        return value

    def getsockname(self, h: int) -> Addr:
        """(host, port)"""
        return _address(self._value("getsockname", self.host.sys_getsockname(h), h))

    def getpeername(self, h: int) -> Addr:
        """(host, port)"""
        return _address(self._value("getpeername", self.host.sys_getpeername(h), h))

    def ioctl(self, h: int, request: int) -> int:
        """SIOCINQ, SIOCOUTQ."""
        value: int = self._value("ioctl", self.host.sys_ioctl(h, request), h)
        return value

    def poll(self, h: int) -> int:
        """POLL* bits that are true now."""
        bits: int = self.host.sys_poll(h)
        return bits

    # world

    def sysctl(self, name: str, value: SysctlValue | None = None) -> str:
        """Read, or write and read back; OSError as /proc/sys gives it."""
        if value is not None:
            self.host.set_sysctl(name, _sysctl_text(value))
        return self.host.get_sysctl(name)

    def sockets(self) -> Iterator[SockRow]:
        """The socket table."""
        for row in self.host.sockets():
            local, remote = format_ipv4(row.laddr), format_ipv4(row.raddr)
            yield SockRow(AF_INET, _SS_NAMES[row.state], local, row.lport, remote, row.rport)

    def _value(self, call: str, outcome: Any, h: int = -1, address: bytes | None = None) -> Any:
        """The value, or the exception for a negative errno."""
        if isinstance(outcome, int) and outcome < 0:
            syscall.raise_errno(self.host.task, call, outcome, h, address)
        return outcome


def _sockaddr(addr: Addr) -> bytes:
    """(host, port) as a sockaddr_in, an IPv6 address as a sockaddr_in6, which Linux refuses on these sockets.

    ValueError for a host that is no address, OverflowError for a port outside 0 to 65535.
    """
    host, port = addr[0], addr[1]
    if not 0 <= port <= 65535:
        raise OverflowError(f"port {port} is not in 0-65535")
    if ":" in host:
        return struct.pack("=H", AF_INET6) + struct.pack("!HI16sI", port, 0, parse_ipv6(host).to_bytes(16, "big"), 0)
    return pack_sockaddr_in(parse_ipv4(host), port)


def _sysctl_text(value: SysctlValue) -> str:
    """What would be written to /proc/sys: 2 -> '2', (32768, 60999) -> '32768 60999'."""
    if isinstance(value, str):
        return value
    return str(int(value)) if isinstance(value, int) else " ".join(map(str, value))


def _address(sockaddr: bytes) -> Addr:
    host, port = sockaddr_in(sockaddr)
    return format_ipv4(host), port


def make_stack(
    now_us: int = 0,
    seed: int = 0,
    sysctl: Mapping[str, SysctlValue] | None = None,
    links: Sequence[Mapping[str, Any]] = (),
    routes: Sequence[Mapping[str, Any]] = (),
    machine: Machine | None = None,
    max_sockets: int = 262_144,
    trace: Tracer | None = None,
    profile: str = "6.18",
) -> Stack:
    """A stack with these links ({'name', 'mtu', 'addrs'}) and routes ({'dst', 'dev', 'via', 'src', 'mtu', ...}).

    `sysctl` is a set of values: their order does not matter.  The gateway of a route is `via` or `gateway`.  `lo` is
    there already; naming it adds addresses.  IPv6 addresses of links and IPv6 routes are left out.
    Stacks of one `machine` share what network namespaces share: secrets and the port sequence.
    """
    host = Host(machine, seed, now_us, None, max_sockets, trace=trace, profile=profile)
    _set_sysctls(host, {name: _sysctl_text(value) for name, value in (sysctl or {}).items()})
    for link in links:
        _add_link(host, **link)
    for route in routes:
        _add_route(host, **route)
    return Stack(host)


def _set_sysctls(host: Host, values: Mapping[str, str]) -> None:
    """Write them all.  Some bound others (ip_unprivileged_port_start, the port range): those refused are tried last."""
    refused = {}
    for name in sorted(values):
        try:
            host.set_sysctl(name, values[name])
        except OSError:
            refused[name] = values[name]
    for name, value in refused.items():
        host.set_sysctl(name, value)


def _add_link(host: Host, name: str, mtu: int = 1500, addrs: Sequence[str] = ()) -> None:
    ipv4 = [text for text in addrs if ":" not in text]
    if name != LOOPBACK:
        host.add_link(name, mtu, ipv4)
        return
    for text in ipv4:
        err = host.fib.add_address(host.fib.device(LOOPBACK), *parse_prefix(text))
        if err not in (0, -errno.EEXIST):
            raise OSError(-err, f"address {text}: refused as Linux does")


# What a route may have beside addresses and names; each is a number.
_METRICS = frozenset(
    {"metric", "table", "mtu", "mtu_locked", "advmss", "window", "initrwnd", "initcwnd", "hoplimit", "rto_min_us"}
    | {"ecn", "quickack"}
)


def _number(name: str, value: Any) -> Any:
    """A number as such or as text; ValueError for what a route does not have."""
    if name in _METRICS:
        return int(value)
    if name not in ("dev", "via", "src", "type"):
        raise ValueError(f"a route has no {name!r}")
    return value


def _add_route(host: Host, dst: str, gateway: str | None = None, **options: Any) -> None:
    if ":" not in dst:
        given = {name: _number(name, value) for name, value in options.items() if value is not None}
        host.add_route(dst, **({"via": gateway} | given if gateway is not None else given))
