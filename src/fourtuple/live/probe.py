"""Probes, run only when asked for: which ports bind() took away from connect(), and what the next connect() costs.

Lives here: both probes, and the words that say what they do.  Does not live here: what follows from it (doctor/).

Rules
1. No packet leaves the machine; with TCP_REPAIR there is none at all, on lo neither.
2. One socket at a time, closed before the next is opened; bounded in number and in time.
3. What could not be decided is said, never guessed.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from fourtuple.errors import errno_name
from fourtuple.live.netns import Netns, find_netns, run_in
from fourtuple.live.reader import sockets
from fourtuple.live.refusal import CannotRead
from fourtuple.live.rtnetlink import read_addresses
from fourtuple.live.socket_options import read_port_range, set_no_port, set_port_range, set_repair, set_reuse
from fourtuple.live.socket_table import INBOUND, TCP_BOUND

if TYPE_CHECKING:
    from fourtuple.live.netns import Spec
    from fourtuple.live.socket_table import SocketTable

REPAIR, LOOPBACK = "TCP_REPAIR", "loopback"
"""The two ways to ask about a port."""

ABOUT = {
    REPAIR: (
        "opens and closes one socket at a time under TCP_REPAIR, one for each port: no packet is sent, on lo neither; "
        "each holds its port towards an unused 127.x address for about 20 µs"
    ),
    LOOPBACK: (
        "opens and closes one socket at a time, one for each port, to a closed port of this machine: one SYN and one "
        "RST each, on lo only; no packet leaves the machine. Packet counters of lo and ActiveOpens, AttemptFails and "
        "OutRsts of /proc/net/snmp move"
    ),
}
"""What poison_map() does, one sentence for each way."""

ABOUT_MEASURE = (
    "opens and closes one socket at a time to the destination under TCP_REPAIR: the kernel searches a port as always, "
    "no packet is sent; one port towards the destination is held for some microseconds at a time"
)
"""What measure_connect() does."""

ABOUT_TRY = (
    "opens and closes one socket under TCP_REPAIR for each destination: the kernel goes the way of connect() up to the "
    "SYN, which is not sent; one port towards the destination is held for some microseconds"
)
"""What try_connect() does."""

ABOUT_TAKING = "; under tcp_tw_reuse it may take over one TIME_WAIT, as any connect() would"
"""What it may do as well."""

MOST_TRIES = 1000

# A 127.x address that nothing is configured to use, towards discard/tcp: a 4-tuple that no program has.
_UNUSED = ("127.93.171.5", 9)
_CLOSED = range(1, 20)  # tcpmux and its neighbours: ports that hardly anybody listens on; those that do are left out
_BATCH = 64
_LISTEN = 10
_GOT_A_PORT = frozenset({0, errno.EINPROGRESS, errno.ECONNREFUSED})
_NEEDS_ADMIN = frozenset({errno.EPERM, errno.EACCES, errno.ENOPROTOOPT})
_NEEDS_6_3 = "needs Linux 6.3"


@dataclass(frozen=True)
class PoisonMap:
    """The ports that bind() took away from connect(), whatever the destination, at one moment."""

    netns: str
    """Label of the namespace; "" for that of this process."""
    way: str
    """TCP_REPAIR, loopback, or "" when nothing had to be probed."""
    port_low: int
    """net.ipv4.ip_local_port_range."""
    port_high: int
    asked: int
    """How many ports."""
    shut: tuple[int, ...]
    """Of listeners, bound sockets, and connected ones or TIME_WAITs that had been bound: connect() passes them over."""
    reserved: tuple[int, ...]
    """In ip_local_reserved_ports: passed over as well; whether somebody has bound them is not asked."""
    undecided: tuple[int, ...]
    probed: int
    """Sockets opened and closed."""
    elapsed_s: float
    notes: tuple[str, ...] = ()
    """Why ports are undecided, a line each."""

    @property
    def joinable(self) -> int:
        """How many of the ports connect() can use."""
        return self.asked - len(self.shut) - len(self.reserved) - len(self.undecided)


@dataclass(frozen=True)
class Percentiles:
    """Of all tries, in microseconds."""

    p5: float
    p50: float
    p95: float


@dataclass(frozen=True)
class Measured:
    """What the kernel's own port search does for one destination."""

    destination: str
    port: int
    source: str
    """The local address that connect() used; "" when none worked."""
    tries: int
    failed: int
    errno: str
    """The commonest errno of those that failed; "" when none did."""
    cost_us: Percentiles
    """connect() without the SYN (1 to 2 us) but with about 1 us of Python."""
    ports: tuple[int, ...]
    """Local ports that were chosen, in the order of the tries."""


# ------------------------------------------------------------------------------------------ the map of ports


def poison_way(netns: Spec = None) -> str:
    """How poison_map() would ask there: TCP_REPAIR with CAP_NET_ADMIN, loopback without.  A key of ABOUT."""
    return run_in(find_netns(netns), lambda: REPAIR if _may_repair() else LOOPBACK)


def poison_map(
    netns: Spec = None, ports: Iterable[int] | None = None, *, way: str | None = None, limit_s: float = 10.0
) -> PoisonMap:
    """Which ports bind() took away from connect(), found by having the kernel try each one (see ABOUT).

    netns    as for sockets()
    ports    None: the whole net.ipv4.ip_local_port_range (28,232 ports: about 1 s).  Ports outside it are never chosen
             by connect(); they are judged by the list of sockets alone, and may stay undecided
    way      None: TCP_REPAIR if that is allowed, else loopback
    limit_s  seconds; ports not reached by then are undecided

    No privilege needed.  On loopback, counters of lo and of /proc/net/snmp move; no TIME_WAIT is left.  A server that
    binds a port in the moment in which it is tried succeeds if it sets SO_REUSEADDR.
    Raises CannotRead: before Linux 6.3 (no IP_LOCAL_PORT_RANGE), or where not even this machine can be connected to.
    """
    if way not in (None, REPAIR, LOOPBACK):
        raise ValueError(f"way is {REPAIR!r}, {LOOPBACK!r} or None, not {way!r}")
    namespace = find_netns(netns)
    return run_in(namespace, lambda: _map(namespace, ports, way, limit_s))


def _map(namespace: Netns, ports: Iterable[int] | None, way: str | None, limit_s: float) -> PoisonMap:
    started = time.monotonic()
    low, high = _port_range()
    wanted = sorted(set(range(low, high + 1) if ports is None else ports))
    if wanted and not 1 <= wanted[0] <= wanted[-1] <= 65535:
        raise ValueError("ports are numbers from 1 to 65535")
    reserved = _reserved().intersection(wanted)
    search = _Search(low, high)
    inside = [port for port in wanted if low <= port <= high and port not in reserved]
    if inside:
        search.run(inside, _prober(way, low, high), started + limit_s)
    search.judge_by_sockets([port for port in wanted if not low <= port <= high and port not in reserved])
    return PoisonMap(
        namespace.label, search.way, low, high, len(wanted), tuple(sorted(search.shut)), tuple(sorted(reserved)),
        tuple(sorted(search.undecided)), search.probed, time.monotonic() - started, tuple(search.notes),
    )  # fmt: skip


class _Search:
    """The ports of a map as they are decided."""

    def __init__(self, low: int, high: int) -> None:
        self._range = low, high
        self.way = ""
        self.shut: list[int] = []
        self.undecided: list[int] = []
        self.notes: list[str] = []
        self.probed = 0

    def run(self, ports: list[int], prober: _Prober, deadline: float) -> None:
        """Try each port.  A range that is changed meanwhile makes the kernel ignore ours: that batch says nothing."""
        self.way = prober.way
        todo = iter(ports)
        while batch := list(islice(todo, _BATCH)):
            if time.monotonic() > deadline:
                self._leave([*batch, *todo], "the time limit was reached")
                return
            before = len(self.shut)
            stopped = self._try(batch, prober)
            if _port_range() != self._range:
                del self.shut[before:]
                self._leave([*batch, *todo], "net.ipv4.ip_local_port_range was changed meanwhile")
                return
            if stopped:
                self._leave([*stopped, *todo], "")
                return
            os.sched_yield()

    def _try(self, batch: list[int], prober: _Prober) -> list[int]:
        """Those that were not tried, after an errno that the next port would get as well."""
        for at, port in enumerate(batch):
            code = prober.try_port(port)
            self.probed += 1
            if code == errno.EADDRNOTAVAIL:
                self.shut.append(port)
            elif code not in _GOT_A_PORT:
                self.notes.append(f"connect() gave {errno_name(code)} for port {port}: the probe was ended there")
                return batch[at:]
        return []

    def _leave(self, ports: list[int], why: str) -> None:
        self.undecided += ports
        if why:
            self.notes.append(f"{len(ports):,} port{'' if len(ports) == 1 else 's'} undecided: {why}")

    def judge_by_sockets(self, ports: list[int]) -> None:
        """Ports that no connect() can be made to choose: who has them?"""
        if not ports:
            return
        table = sockets()
        holders = _holders(table)
        self.shut += [port for port in ports if holders.get(port)]
        doubtful = [port for port in ports if not holders.get(port, table.bound_known)]
        if doubtful:
            self._leave(doubtful, "outside net.ipv4.ip_local_port_range, and the list of sockets does not tell")


def _holders(table: SocketTable) -> dict[int, bool]:
    """Port -> whether it is certain that it was bound; ports without a socket are missing."""
    holders: dict[int, bool] = {}
    for row in range(len(table)):
        bound = table.state[row] in (_LISTEN, TCP_BOUND) or bool(table.flags[row] & INBOUND)
        port = table.sport[row]
        holders[port] = holders.get(port, False) or bound
    return holders


class _Prober:
    """One way to have the kernel try a single port."""

    def __init__(self, way: str, targets: list[tuple[str, int]]) -> None:
        self.way = way
        self._set = set_repair if way == REPAIR else set_reuse
        self._targets = targets
        """Two: a port is not tried towards its own number, which would be a connection to itself."""

    def try_port(self, port: int) -> int:
        """The errno of connect() from this port; ENOPROTOOPT: no IP_LOCAL_PORT_RANGE."""
        target = self._targets[port == self._targets[0][1]]
        try:
            with socket.socket(_family(target), socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as sock:
                self._set(sock)
                set_port_range(sock, port, port)
                return sock.connect_ex(target)
        except OSError as error:
            return error.errno or errno.EIO


def _family(target: tuple[str, int]) -> int:
    return socket.AF_INET6 if ":" in target[0] else socket.AF_INET


def _prober(way: str | None, low: int, high: int) -> _Prober:
    """The first way and destination that work here."""
    if way != LOOPBACK and (way == REPAIR or _may_repair()):
        found = _first_that_works(REPAIR, low, [_UNUSED[0]], [_UNUSED[1], _UNUSED[1] + 1])
    else:
        hosts = _own_addresses()
        found = _first_that_works(LOOPBACK, low, hosts, _closed_ports(low, high))
    return found


def _first_that_works(way: str, port: int, hosts: Iterable[str], targets: list[int]) -> _Prober:
    code = errno.ENETUNREACH
    for host in hosts:
        prober = _Prober(way, [(host, target) for target in targets])
        code = prober.try_port(port)
        if code in _GOT_A_PORT or code == errno.EADDRNOTAVAIL:
            return prober
        if code == errno.ENOPROTOOPT:
            break
    raise _refused(code)


def _refused(code: int) -> CannotRead:
    what = "the map of ports that bind() took"
    if code == errno.ENOPROTOOPT:
        return CannotRead(code, what, _NEEDS_6_3, "this kernel has no IP_LOCAL_PORT_RANGE")
    if code in (errno.EPERM, errno.EACCES):
        return CannotRead(code, what, "CAP_NET_ADMIN for TCP_REPAIR; loopback needs none")
    if code in (errno.ENETUNREACH, errno.EHOSTUNREACH):
        return CannotRead(code, what, "`ip link set lo up`", "this machine cannot be connected to, as lo is down")
    return CannotRead(code, what)


def _own_addresses() -> Iterator[str]:
    """127.0.0.1, or where lo is down, what else is ours: its packets are lost there, which does as well."""
    yield "127.0.0.1"
    try:
        yield from (address.address for address in read_addresses() if not address.address.startswith("fe80:"))
    except CannotRead:
        return


def _closed_ports(low: int, high: int) -> list[int]:
    """Two ports that nobody listens on."""
    table = sockets(states=["LISTEN"])
    used = set(table.sport)
    candidates = [port for port in _CLOSED if port not in used]
    candidates.sort(key=lambda port: low <= port <= high)
    if len(candidates) < 2:
        raise CannotRead(errno.EADDRINUSE, "the map of ports that bind() took", "", "no closed port was found to try")
    return candidates[:2]


def _may_repair() -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        try:
            set_repair(sock)
        except OSError:
            return False
        return True


def _port_range() -> tuple[int, int]:
    try:
        return read_port_range()
    except (OSError, ValueError) as error:
        code = error.errno if isinstance(error, OSError) and error.errno else errno.EIO
        raise CannotRead(code, "net.ipv4.ip_local_port_range", "is /proc mounted?") from None


def _reserved() -> set[int]:
    """ip_local_reserved_ports; where it cannot be read, the probe finds those ports shut."""
    try:
        with open("/proc/sys/net/ipv4/ip_local_reserved_ports") as file:
            spans = file.read().strip()
    except OSError:
        return set()
    ports: set[int] = set()
    for span in filter(None, spans.split(",")):
        first, _, last = span.partition("-")
        ports.update(range(int(first), int(last or first) + 1))
    return ports


# ------------------------------------------------------------------------------------------ what connect() costs


def measure_connect(
    destination: tuple[str, int],
    source: str | None = None,
    port_range: tuple[int, int] | None = None,
    tries: int = 20,
    netns: Spec = None,
    *,
    limit_s: float = 2.0,
) -> Measured:
    """The kernel's real port search towards a destination: its errno, its cost, its ports; no packet (ABOUT_MEASURE).

    destination  (address, port); no name
    source       the local address to bind() to, with IP_BIND_ADDRESS_NO_PORT; None: the route's
    port_range   IP_LOCAL_PORT_RANGE of the socket, None: without
    tries        1 to 1,000 sockets, one after another
    limit_s      seconds, after which no further try is made

    Every try is a connect() to the kernel: it moves the place at which the next search starts, as any other does, and
    under tcp_tw_reuse it takes over a TIME_WAIT where the search comes to one.
    Raises CannotRead without CAP_NET_ADMIN, ValueError for what is no address.
    """
    if not 1 <= tries <= MOST_TRIES:
        raise ValueError(f"tries must be 1 to {MOST_TRIES:,}, not {tries}")
    return run_in(find_netns(netns), lambda: _measure(destination, source, port_range, tries, limit_s))


@dataclass(frozen=True)
class Tried:
    """What the kernel gave for one connect() that sent nothing."""

    destination: str
    port: int
    errno: str
    """"" when a port was found: then the SYN would have been sent."""
    source: str
    local_port: int


def try_connect(destination: tuple[str, int], source: str | None = None, netns: Spec = None) -> Tried:
    """What connect() gives at once for a destination, from the kernel itself; no packet (ABOUT_TRY).

    Arguments as for measure_connect().  Raises CannotRead without CAP_NET_ADMIN, ValueError for what is no address.
    """
    family, target = _numeric(*destination)
    local = _numeric(source, 0)[1] if source else None

    def prepare() -> socket.socket:
        return _repair_socket(family, local, None, "what connect() gives")

    made = run_in(find_netns(netns), lambda: _time_one(prepare, target))
    return Tried(*destination, errno_name(made.code) if made.code else "", made.source, made.port)


def _measure(
    destination: tuple[str, int], source: str | None, port_range: tuple[int, int] | None, tries: int, limit_s: float
) -> Measured:
    family, target = _numeric(*destination)
    local = _numeric(source, 0)[1] if source else None
    if local and _numeric(source or "", 0)[0] != family:
        raise ValueError(f"{source} and {destination[0]} are not of the same family")

    def prepare() -> socket.socket:
        return _repair_socket(family, local, port_range)

    deadline = time.monotonic() + limit_s
    results = [_time_one(prepare, target)]
    while len(results) < tries and time.monotonic() < deadline:
        results.append(_time_one(prepare, target))
        os.sched_yield()
    return _summary(destination, results)


@dataclass(frozen=True)
class _Try:
    code: int
    cost_us: float
    source: str
    port: int


def _time_one(prepare: Callable[[], socket.socket], target: tuple[str, int]) -> _Try:
    with prepare() as sock:
        started = time.perf_counter_ns()
        code = sock.connect_ex(target)
        cost_us = (time.perf_counter_ns() - started) / 1000
        source, port = sock.getsockname()[:2] if not code else ("", 0)
    return _Try(code, cost_us, source, port)


def _repair_socket(
    family: int,
    local: tuple[str, int] | None,
    port_range: tuple[int, int] | None,
    what: str = "the cost of connect()",
) -> socket.socket:
    """Ready for connect()."""
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        set_repair(sock)
        if port_range:
            what += " with IP_LOCAL_PORT_RANGE"
            set_port_range(sock, *port_range)
        if local:
            what += f" from {local[0]}"
            set_no_port(sock)
            sock.bind(local)
    except OSError as error:
        sock.close()
        raise CannotRead(error.errno or errno.EIO, what, _advice(error.errno or 0)) from None
    return sock


def _advice(code: int) -> str:
    if code in _NEEDS_ADMIN:
        return _NEEDS_6_3 if code == errno.ENOPROTOOPT else "needs root or CAP_NET_ADMIN; without, it is estimated"
    return "an address of this machine" if code == errno.EADDRNOTAVAIL else ""


def _numeric(host: str, port: int) -> tuple[int, tuple[str, int]]:
    """Family and socket address."""
    flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    except (socket.gaierror, OverflowError, UnicodeError):
        raise ValueError(f"{host!r}, port {port}: no address of IPv4 or IPv6") from None
    return found[0][0], found[0][4]  # type: ignore[return-value]


def _summary(destination: tuple[str, int], results: list[_Try]) -> Measured:
    costs = sorted(each.cost_us for each in results)
    failures = Counter(each.code for each in results if each.code)
    p5, p50, p95 = (costs[min(len(costs) - 1, len(costs) * share // 100)] for share in (5, 50, 95))
    return Measured(
        *destination,
        next((each.source for each in results if each.source), ""),
        len(results),
        failures.total(),
        errno_name(failures.most_common(1)[0][0]) if failures else "",
        Percentiles(p5, p50, p95),
        tuple(each.port for each in results if each.port),
    )
