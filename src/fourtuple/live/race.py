"""Attempts at one connection: targets in turn (RFC 8305), sources in turn, kernel sockets set up rightly.

Lives here: which attempt is made when, and what its end means.  Does not live here: waiting (connecting.py,
streams.py), counting ports (source_pool.py), the kinds of errors (errors.py).

Rules
1. Race.run() never waits: it yields for how long its epoll may be waited on, and returns the connected socket.
2. Whatever ends it, every socket but that one is closed.
3. Each failure is in the report; another source is tried only where another one can do better.
"""

from __future__ import annotations

import errno
import select
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field
from itertools import chain, zip_longest
from typing import Any, TypeAlias

from fourtuple.errors import ConnectError, errno_name, make_error
from fourtuple.live.refusal import CannotRead
from fourtuple.live.rtnetlink import find_route
from fourtuple.live.socket_options import WHOLE_RANGE, set_no_port, set_port_range
from fourtuple.live.source_pool import PAST_HALF, SourcePool, Use

SockAddr: TypeAlias = tuple[Any, ...]
PortRange: TypeAlias = tuple[int, int]

SELF_CONNECT = "self-connect"
"""In a report, in place of an errno: the socket was connected to itself, since nobody listens there."""

# Another source address may have a port, or a route; what a peer answers does not depend on it.
_SOURCE_MATTERS = frozenset(
    {errno.EADDRNOTAVAIL, errno.EADDRINUSE, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES}
)
# Of several targets' errors, the one to raise is one that got further than these.
_LOCAL = _SOURCE_MATTERS | {errno.EAFNOSUPPORT, errno.ENOPROTOOPT}
_MOST_SELF_CONNECTS = 3
_CLOSE_WITH_RESET = struct.pack("=ii", 1, 0)  # SO_LINGER: no TIME_WAIT
_ITSELF = "nobody listens there: the socket was connected to itself"
_NO_ADDRESS = "this machine has no source address for the destination: IPv6 is off there (disable_ipv6), or lo is down"


@dataclass(frozen=True)
class Target:
    """One address of the host."""

    family: int
    address: SockAddr

    @property
    def destination(self) -> tuple[str, int]:
        return self.address[0], self.address[1]


@dataclass(frozen=True)
class Choices:
    """What the caller of connect() chose; see there."""

    sources: tuple[Target, ...] = ()
    timeout: float | None = 30.0
    port_range: PortRange | bool | None = None
    attempt_delay: float = 0.25
    retries: int = 7

    def sources_of(self, family: int) -> list[Target]:
        return [source for source in self.sources if source.family == family]

    @property
    def needs_counts(self) -> bool:
        """Ports in use have to be counted: to choose a source, or to know whether the range is past half."""
        return len(self.sources) > 1 or self.port_range is None


def interleave(targets: Iterable[Target]) -> list[Target]:
    """Families in turn, starting with that of the first; the order within a family is kept (RFC 8305, 4)."""
    by_family: dict[int, list[Target]] = {}
    for target in targets:
        by_family.setdefault(target.family, []).append(target)
    return [target for target in chain(*zip_longest(*by_family.values())) if target]


@dataclass
class _Attempt:
    target: Target
    source: Target | None
    port_range: PortRange | None
    sock: socket.socket
    started: float
    self_connects: int = 0


@dataclass
class _Failure:
    """A line of the report."""

    target: Target
    source: Target | None
    port_range: PortRange | None
    call: str
    code: int
    elapsed_s: float
    local_port: int = 0
    is_self_connect: bool = False

    def as_report(self) -> dict[str, Any]:
        return {
            "destination": self.target.destination[0],
            "port": self.target.destination[1],
            "source": self.source.destination[0] if self.source else None,
            "local_port": self.local_port or None,
            "port_range": list(self.port_range) if self.port_range else None,
            "call": self.call,
            "errno": self.outcome,
            "elapsed_s": round(self.elapsed_s, 6),
        }

    @property
    def outcome(self) -> str:
        return SELF_CONNECT if self.is_self_connect else errno_name(self.code)

    def __str__(self) -> str:
        host, port = self.target.destination
        source = f" from {self.source.destination[0]}" if self.source else ""
        return f"[{host}]:{port}{source} {self.outcome}" if ":" in host else f"{host}:{port}{source} {self.outcome}"


@dataclass
class Race:
    """One connect()."""

    targets: list[Target]
    choices: Choices
    pool: SourcePool
    clock: Callable[[], float] = time.monotonic
    epoll: select.epoll = field(default_factory=select.epoll)
    _failures: list[_Failure] = field(default_factory=list)
    _pending: dict[int, _Attempt] = field(default_factory=dict)
    _self_connected: list[socket.socket] = field(default_factory=list)

    def run(self) -> Generator[float | None, None, socket.socket]:
        """Yields seconds (None: however long) to wait for the epoll at most.  Raises ConnectError."""
        waiting = deque(self.targets)
        started = next_at = self.clock()
        end = None if self.choices.timeout is None else started + self.choices.timeout
        try:
            while waiting or self._pending:
                now = self.clock()
                if end is not None and now >= end:
                    raise self._timed_out()
                if waiting and (now >= next_at or not self._pending):
                    self._start(waiting.popleft())
                    next_at = self.clock() + self.choices.attempt_delay
                    continue
                yield _until(now, end, next_at if waiting else None)
                winner = self._collect()
                if winner is not None:
                    return winner
            raise self._failed()
        finally:
            self._close()

    def _close(self) -> None:
        for attempt in self._pending.values():
            attempt.sock.close()
        self._pending.clear()
        self._drop_self_connected()
        self.epoll.close()

    # ---------------------------------------------------------------------------------------- one attempt

    def _start(self, target: Target, self_connects: int = 0) -> None:
        """An attempt on the way, from the first source that has a port; or failures."""
        use = self.pool.use(target.destination) if self.choices.needs_counts else None
        for source in self._sources(target, use)[: self.choices.retries + 1]:
            for port_range in self._port_ranges(source, use):
                attempt = self._open(target, source, port_range)
                if attempt:
                    attempt.self_connects = self_connects
                    self._watch(attempt, use)
                    return
                failure = self._failures[-1]
                if failure.code not in _SOURCE_MATTERS:
                    return
                if failure.code != errno.EADDRNOTAVAIL or failure.call != "connect":
                    break  # the range has nothing to do with it
            if use:
                use.shut(_name(source))

    def _sources(self, target: Target, use: Use | None) -> list[Target | None]:
        """The emptiest first."""
        usable = self.choices.sources_of(target.family)
        if not usable:
            return [None]
        by_name = {source.destination[0]: source for source in usable}
        return [by_name[name] for name in (use.by_room(by_name) if use else by_name)]

    def _port_ranges(self, source: Target | None, use: Use | None) -> list[PortRange | None]:
        """IP_LOCAL_PORT_RANGE to set, in turn; None is not to set it."""
        chosen = self.choices.port_range
        if isinstance(chosen, tuple):
            return [chosen]
        if use is None or chosen is not None:
            return [WHOLE_RANGE if chosen else None]
        if use.fill(_name(source)) >= PAST_HALF:
            return [WHOLE_RANGE]
        return [None, WHOLE_RANGE] if use.is_odd else [None]

    def _open(self, target: Target, source: Target | None, port_range: PortRange | None) -> _Attempt | None:
        """A socket that is connecting; None, and a failure noted, when it is refused at once."""
        started = self.clock()
        sock, call = None, "socket"
        try:
            sock = socket.socket(target.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            call = "setsockopt"
            self._set_options(sock, source, port_range)
            if source:
                call = "bind"
                sock.bind(source.address)
            call = "connect"
            code = sock.connect_ex(target.address)
        except OSError as error:
            code = error.errno or errno.EIO
        self._drop_self_connected()
        if sock and code in (0, errno.EINPROGRESS):
            return _Attempt(target, source, port_range, sock, started)
        if sock:
            sock.close()
        self._failures.append(_Failure(target, source, port_range, call, code, self.clock() - started))
        return None

    def _set_options(self, sock: socket.socket, source: Target | None, port_range: PortRange | None) -> None:
        """What an older kernel lacks is left out, unless the caller gave the ports."""
        if port_range:
            try:
                set_port_range(sock, *port_range)
            except OSError as error:
                if error.errno != errno.ENOPROTOOPT or isinstance(self.choices.port_range, tuple):
                    raise
        if source:
            try:
                set_no_port(sock)
            except OSError as error:
                if error.errno != errno.ENOPROTOOPT:
                    raise

    def _watch(self, attempt: _Attempt, use: Use | None) -> None:
        self._pending[attempt.sock.fileno()] = attempt
        self.epoll.register(attempt.sock.fileno(), select.EPOLLOUT)
        if use:
            use.chosen[_name(attempt.source)] += 1

    # ---------------------------------------------------------------------------------------- its end

    def _collect(self) -> socket.socket | None:
        """Ends of attempts; the first that is connected to somebody else."""
        for fd, _ in self.epoll.poll(0):
            attempt = self._pending.pop(fd)
            self.epoll.unregister(fd)
            if self._is_connected(attempt):
                return attempt.sock
        return None

    def _is_connected(self, attempt: _Attempt) -> bool:
        """Otherwise the failure is noted, and where the socket was connected to itself, another one is on the way."""
        code = attempt.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        local = attempt.sock.getsockname()
        itself = not code and local[:2] == _peer_name(attempt.sock)[:2]
        if not code and not itself:
            return True
        elapsed = self.clock() - attempt.started
        self._failures.append(
            _Failure(
                attempt.target, attempt.source, attempt.port_range, "connect",
                errno.ECONNREFUSED if itself else code, elapsed, local[1], itself,
            )
        )  # fmt: skip
        if not itself:
            attempt.sock.close()
            return False
        # It keeps the port until the next attempt has another one.
        self._self_connected.append(attempt.sock)
        if attempt.self_connects < _MOST_SELF_CONNECTS:
            self._start(attempt.target, attempt.self_connects + 1)
        return False

    def _drop_self_connected(self) -> None:
        while self._self_connected:
            sock = self._self_connected.pop()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _CLOSE_WITH_RESET)
            sock.close()

    # ---------------------------------------------------------------------------------------- errors

    def _failed(self) -> ConnectError:
        """The error of the most preferred target that got furthest."""
        ends = [self._end_of(target) for target in self.targets]
        told = min(ends, key=lambda failure: failure.code in _LOCAL)
        error = make_error(told.call, told.code, _four_tuple(told))
        if told.is_self_connect:
            error.report |= {"reason": _ITSELF, "function": "tcp_rcv_synsent_state_process"}
        elif told.code == errno.EADDRNOTAVAIL and told.call == "connect" and _route_says_so(told):
            error.report |= {"reason": _NO_ADDRESS, "function": "ipv6_dev_get_saddr", "frees": [_enable(told)]}
        return self._with_attempts(error)

    def _end_of(self, target: Target) -> _Failure:
        """The last failure; but no port left after a self-connect means that only the destination's own was."""
        failures = [failure for failure in self._failures if failure.target == target]
        itself = next((failure for failure in failures if failure.is_self_connect), None)
        return itself if itself and failures[-1].code == errno.EADDRNOTAVAIL else failures[-1]

    def _timed_out(self) -> ConnectError:
        now = self.clock()
        for attempt in self._pending.values():
            self._failures.append(
                _Failure(
                    attempt.target, attempt.source, attempt.port_range, "connect", errno.ETIMEDOUT,
                    now - attempt.started, attempt.sock.getsockname()[1],
                )
            )  # fmt: skip
        error = make_error("connect", errno.ETIMEDOUT, _four_tuple(self._failures[0]) if self._failures else None)
        reason = f"not connected within {self.choices.timeout:g} s (timeout=)"
        error.report |= {"reason": reason, "function": "", "frees": ["a server that answers", "a longer timeout="]}
        return self._with_attempts(error)

    def _with_attempts(self, error: ConnectError) -> ConnectError:
        shown = ", ".join(map(str, self._failures[:3])) + (", ..." if len(self._failures) > 3 else "")
        error.strerror = f"{error.report['reason']} (tried {shown or 'nothing'})"
        error.report["attempts"] = [failure.as_report() for failure in self._failures]
        return error


def _name(source: Target | None) -> str:
    return source.destination[0] if source else ""


def _until(now: float, *times: float | None) -> float | None:
    """Seconds to the nearest."""
    return min((max(0.0, when - now) for when in times if when is not None), default=None)


def _peer_name(sock: socket.socket) -> SockAddr:
    """() when it has been reset already; whoever uses the socket finds out."""
    try:
        name: SockAddr = sock.getpeername()
    except OSError:
        return ()
    return name


def _four_tuple(failure: _Failure) -> dict[str, Any]:
    host, port = failure.target.destination
    source = failure.source.destination[0] if failure.source else None
    return {"saddr": source, "sport": failure.local_port or None, "daddr": host, "dport": port}


def _route_says_so(failure: _Failure) -> bool:
    """EADDRNOTAVAIL came before any port was looked at."""
    try:
        return find_route(failure.target.destination[0], failure.target.destination[1]).error == "EADDRNOTAVAIL"
    except (CannotRead, ValueError):
        return False


def _enable(failure: _Failure) -> str:
    if failure.target.destination[0] == "::1":
        return "net.ipv6.conf.lo.disable_ipv6=0 and `ip link set lo up`, or 127.0.0.1 in place of ::1"
    return "an IPv6 address on this machine, or an IPv4 destination"
