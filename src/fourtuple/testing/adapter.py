"""make_stack(): a Host behind the API by which outside test suites judge a user-space TCP client stack.

Lives here: text addresses, exceptions and a clock of its own.  Does not live here: any behaviour.
Errors are ConnectError: OSError with Linux's errno and a `.report`.  Nothing blocks: every socket is non-blocking.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from fourtuple.address import format_ipv4, parse_ipv4
from fourtuple.host import Host
from fourtuple.machine import Machine
from fourtuple.sock import syscall
from fourtuple.sock.af_inet import AF_INET, AF_UNSPEC, pack_sockaddr_in, sockaddr_in
from fourtuple.sock.stream import MSG_DONTWAIT, MSG_ERRQUEUE
from fourtuple.sock.syscall import SOCK_NONBLOCK
from fourtuple.sock.wait import Wait
from fourtuple.trace import Tracer

Addr = tuple[Any, ...]

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
        """Run due timers in order, each at its own due time; then now() == to_us."""
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
        return new, self.getpeername(new)

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

    def sysctl(self, name: str, value: str | None = None) -> str:
        """Read, or write and read back; OSError as /proc/sys gives it."""
        if value is not None:
            self.host.set_sysctl(name, value)
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
    """(host, port) as a sockaddr_in; ValueError for a host that is no IPv4 address."""
    return pack_sockaddr_in(parse_ipv4(addr[0]), addr[1])


def _address(sockaddr: bytes) -> Addr:
    host, port = sockaddr_in(sockaddr)
    return format_ipv4(host), port


def make_stack(
    now_us: int = 0,
    seed: int = 0,
    sysctl: Mapping[str, str] | None = None,
    links: Sequence[Mapping[str, Any]] = (),
    routes: Sequence[Mapping[str, Any]] = (),
    machine: Machine | None = None,
    max_sockets: int = 65_536,
    trace: Tracer | None = None,
    profile: str = "6.18",
) -> Stack:
    """A stack with these links ({'name', 'mtu', 'addrs'}) and routes ({'dst', 'dev', 'src', 'mtu', ...}).

    Stacks of one `machine` share what network namespaces share: secrets and the port sequence.
    """
    host = Host(machine, seed, now_us, sysctl, max_sockets, trace=trace, profile=profile)
    for link in links:
        host.add_link(link["name"], link.get("mtu", 1500), link.get("addrs", ()))
    for route in routes:
        host.add_route(**route)
    return Stack(host)
