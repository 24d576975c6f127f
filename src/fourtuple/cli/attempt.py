"""One connect() on a wire, watched: what was asked, what happened, and everything needed to tell of it.

Lives here: running it.  Does not live here: text (render.py), JSON (report.py), options (connect.py).
"""

from __future__ import annotations

import errno
import struct
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from fourtuple import kernel_map as km
from fourtuple.address import format_ipv4, parse_ipv4
from fourtuple.host import Host
from fourtuple.inet.hashtables import inet_hash_connect
from fourtuple.ip.route import Route, ip_route_connect
from fourtuple.shell.tap import TappedPacket
from fourtuple.shell.wires import Wire
from fourtuple.sock.af_inet import sockaddr_in
from fourtuple.sock.option_kinds import IPPROTO_IP, SOL_SOCKET
from fourtuple.sock.sol_ip import IP_BIND_ADDRESS_NO_PORT
from fourtuple.sock.sol_socket import SO_SNDTIMEO
from fourtuple.tcp.ipv4 import tcp_init_sock
from fourtuple.tcp.states import TCP_ESTABLISHED
from fourtuple.trace import Record, Tracer, attach, records

_HTTP_LIMIT = 1 << 20
_MANY_LOOKS = 100


@dataclass(frozen=True)
class Request:
    """What the user wants to see."""

    address: str
    port: int
    source: str = ""
    """bind() to it first; empty: no bind()."""
    source_port: int | None = None
    """None: IP_BIND_ADDRESS_NO_PORT, connect() chooses the port.  0: bind() chooses it."""
    timeout_us: int = 0
    """SO_SNDTIMEO; 0: none."""
    payload: bytes = b""
    """Sent once connected."""
    wants_answer: bool = False
    """Read until the peer closes."""


@dataclass
class Attempt:
    """What happened."""

    request: Request
    wire: Wire
    code: int = 0
    """0 or the errno of connect(); bind_code is that of bind()."""
    bind_code: int = 0
    connect_us: float = 0.0
    untraced_us: float = 0.0
    """What a failed search costs when nobody writes down its ports; 0: not measured."""
    source: str = ""
    source_port: int = 0
    records: list[Record] = field(default_factory=list)
    """Up to the return of connect()."""
    later: list[Record] = field(default_factory=list)
    packets: list[TappedPacket] = field(default_factory=list)
    start_us: int = 0
    connect_packets: int = 0
    """How many of `packets` belong to connect() itself."""
    answer: bytes = b""
    answer_code: int = 0
    answer_us: float = 0.0
    owners: dict[int, str] = field(default_factory=dict)
    """Owners of ports that were found shared, by entry."""

    @property
    def answer_is_cut(self) -> bool:
        """Reading ended at our limit, not where the server ended."""
        return len(self.answer) >= _HTTP_LIMIT

    @property
    def looks(self) -> list[Record]:
        """Every port looked at."""
        return [record for record in self.records if record.fn == km.FN_PORT_LOOK]

    @property
    def verdicts(self) -> Counter[int]:
        """How many ports got which verdict."""
        return Counter(record.b for record in self.looks)

    @property
    def error(self) -> int:
        """The errno that ended it, of bind() or of connect(); 0: connected."""
        return self.bind_code or self.code

    @property
    def local_address(self) -> str:
        """Our address: that of the connection, or the one that the route gave before it failed."""
        routed = [format_ipv4(record.b) for record in self.records if record.fn == km.FN_IP_ROUTE_CONNECT and record.b]
        return self.source or (routed[-1] if routed else self.request.source)

    @property
    def segments(self) -> list[TappedPacket]:
        """The packets of connect(), both ways."""
        return self.packets[: self.connect_packets]


def prefill(host: Host, source: str, address: str, port: int, count: int) -> int:
    """Put `count` connections to address:port into the tables, by the engine's own search; how many went in.

    `source` is "" or an address of ours.  They are held, not connected: no packet is sent and no timer runs.
    """
    net, daddr = host.net, parse_ipv4(address)
    route = ip_route_connect(host.fib, daddr, parse_ipv4(source) if source else 0, 0)
    if not isinstance(route, Route):
        return 0
    for done in range(count):
        sk = tcp_init_sock(net)
        if sk < 0:
            return done
        net.sks.saddr[sk] = route.saddr
        net.sks.daddr[sk] = route.daddr
        net.sks.dport[sk] = port
        if inet_hash_connect(net.h, sk, host.now_us) < 0:
            return done
        net.sks.sk_state[sk] = TCP_ESTABLISHED
    return count


def run_attempt(
    wire: Wire, request: Request, hold: bool = False, on_return: Callable[[Attempt], None] | None = None
) -> Attempt:
    """Connect, watched; then send and receive what was asked for.  The connection is closed again unless `hold`.

    `on_return` is called when connect() has returned and its connection is still there.
    """
    attempt = Attempt(request, wire)
    first = len(wire.tap.packets)
    if not wire.runner.is_virtual:
        _warm_up(wire, request)
    fd = wire.runner.socket()
    _set_options(attempt, fd)
    tracer = Tracer(None if wire.runner.is_virtual else time.monotonic_ns, capacity=1 << 17)
    attach(tracer, wire.host.net)
    try:
        _connect(attempt, tracer, fd)
        if on_return is not None:
            on_return(attempt)
        if not attempt.error and (request.payload or request.wants_answer):
            _exchange(attempt, fd)
        if not hold or attempt.error:
            wire.runner.close(fd)
        attempt.later = list(records(tracer, since=len(attempt.records)))
    finally:
        attach(None, wire.host.net)
    if attempt.code == errno.EADDRNOTAVAIL and len(attempt.looks) > _MANY_LOOKS and not wire.runner.is_virtual:
        attempt.untraced_us = _time_untraced(wire, request)
    attempt.packets = wire.tap.packets[first:]
    attempt.connect_packets -= first
    _name_owners(attempt)
    return attempt


def _warm_up(wire: Wire, request: Request) -> None:
    """Run the path first, on loopback where nobody listens: first executions and first touches of memory are slow.

    Nothing of it reaches the wire, and its port is free again afterwards.
    """
    attach(Tracer(time.monotonic_ns, 1024), wire.host.net)
    for _ in range(3):
        fd = wire.runner.socket()
        wire.runner.connect(fd, ("127.0.0.1", 9))
        wire.runner.close(fd)
    ip_route_connect(wire.host.fib, parse_ipv4(request.address), 0, 0)
    attach(None, wire.host.net)


def _clock_us(wire: Wire) -> float:
    """For durations; nanoseconds count on a real wire."""
    return wire.runner.now_us() if wire.runner.is_virtual else time.monotonic_ns() / 1000


def _connect(attempt: Attempt, tracer: Tracer, fd: int) -> None:
    request, wire = attempt.request, attempt.wire
    runner = wire.runner
    if request.source:
        attempt.bind_code = -min(0, runner.bind(fd, (request.source, request.source_port or 0)))
    if not attempt.bind_code:
        start = _clock_us(wire)
        attempt.code = -min(0, runner.connect(fd, (request.address, request.port)))
        attempt.connect_us = _clock_us(wire) - start
    attempt.records = list(records(tracer))
    attempt.start_us = _start_us(attempt)
    attempt.connect_packets = len(wire.tap.packets)
    name = wire.host.sys_getsockname(fd)
    if isinstance(name, bytes) and not attempt.error:
        address, attempt.source_port = sockaddr_in(name)
        attempt.source = format_ipv4(address)


def _start_us(attempt: Attempt) -> int:
    """The zero of steps and packets: the first step."""
    first = attempt.records[0]
    return first.engine_us if attempt.wire.runner.is_virtual else first.time_ns // 1000


def _time_untraced(wire: Wire, request: Request) -> float:
    """The best of a few: a search that fails changes nothing, so it can be repeated."""
    fd = wire.runner.socket()
    best = float("inf")
    for _ in range(5):
        start = _clock_us(wire)
        wire.runner.connect(fd, (request.address, request.port))
        best = min(best, _clock_us(wire) - start)
    wire.runner.close(fd)
    return best


def _set_options(attempt: Attempt, fd: int) -> None:
    request, host = attempt.request, attempt.wire.host
    if request.source and request.source_port is None:
        host.sys_setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, struct.pack("=i", 1))
    if request.timeout_us:
        value = struct.pack("=qq", *divmod(request.timeout_us, 1_000_000))
        host.sys_setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, value)


def _exchange(attempt: Attempt, fd: int) -> None:
    runner = attempt.wire.runner
    start = _clock_us(attempt.wire)
    sent = runner.send(fd, attempt.request.payload)
    attempt.answer_code = -min(0, sent)
    while attempt.request.wants_answer and not attempt.answer_code and len(attempt.answer) < _HTTP_LIMIT:
        data = runner.recv(fd)
        if isinstance(data, int):
            attempt.answer_code = -data
        elif data:
            attempt.answer += data
        else:
            break
    attempt.answer_us = _clock_us(attempt.wire) - start


def _name_owners(attempt: Attempt) -> None:
    """Where the connections go that share a port with ours."""
    sks = attempt.wire.host.net.sks
    for record in attempt.looks:
        if record.b == km.LOOK_JOINED and record.c and not record.c & 1:
            row = record.c >> 1
            if sks.daddr[row]:
                attempt.owners[record.c] = f"{format_ipv4(sks.daddr[row])}:{sks.dport[row]}"
