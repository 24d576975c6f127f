"""The tables at the moment when connect() returns: who has which port, towards our destination.

Lives here: reading them, while the connection is still open.  Does not live here: any rule about ports.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from fourtuple.address import parse_ipv4
from fourtuple.cli.attempt import Attempt
from fourtuple.inet.hashtables import inet_lookup_established, port_is_reserved
from fourtuple.tcp.states import STATE_NAMES

FREE, SHARED, USED, BOUND, RESERVED, TIME_WAIT = range(6)


@dataclass
class Bucket:
    """bhash[port]."""

    port: int
    owners: int
    fastreuse: int
    fastreuseport: int

    @property
    def open_to_connect(self) -> bool:
        """A connect() joins it only when no bind() has a part in it."""
        return self.fastreuse < 0 and self.fastreuseport < 0


@dataclass
class Snapshot:
    """What the tables held."""

    low: int
    high: int
    states: bytes = b""
    """Of each port low..high: FREE, SHARED (a bucket, another four-tuple), USED (this four-tuple), BOUND, ..."""
    bucket: Bucket | None = None
    """That of our port."""
    state: str = ""
    """Of our connection: ESTABLISHED, ..."""
    connections: int = 0
    """In ehash, ours among them."""
    counts: Counter[int] = field(default_factory=Counter)

    def state_of(self, port: int) -> int:
        """Who has the port."""
        return self.states[port - self.low] if self.low <= port <= self.high else FREE


def take_snapshot(attempt: Attempt) -> Snapshot:
    """Our connection's place in the tables, read while it is open; quick, as packets may be waiting."""
    host = attempt.wire.host
    found = Snapshot(host.sysctls.port_low, host.sysctls.port_high)
    if attempt.source_port:
        _read_ours(found, attempt)
    found.connections = host.net.h.ehash.count
    return found


def read_range(found: Snapshot, attempt: Attempt) -> None:
    """Who has each port of the range; our own port counts as used, whatever became of it since."""
    local = attempt.local_address
    if not local:
        return
    ours, theirs = parse_ipv4(local), parse_ipv4(attempt.request.address)
    states = bytearray(_state(attempt, ours, theirs, port) for port in range(found.low, found.high + 1))
    if found.low <= attempt.source_port <= found.high:
        states[attempt.source_port - found.low] = USED
    found.states = bytes(states)
    found.counts = Counter(found.states)


def _state(attempt: Attempt, ours: int, theirs: int, port: int) -> int:
    h, bind = attempt.wire.host.net.h, attempt.wire.host.net.h.bind
    if bind.head[port] == 0:
        return RESERVED if port_is_reserved(h, port) else FREE
    entry = inet_lookup_established(h, theirs, attempt.request.port, ours, port, 0)
    if entry:
        return TIME_WAIT if entry & 1 else USED
    if port_is_reserved(h, port):
        return RESERVED
    return BOUND if bind.bound[port] else SHARED


def _read_ours(found: Snapshot, attempt: Attempt) -> None:
    h, port = attempt.wire.host.net.h, attempt.source_port
    ours, theirs = parse_ipv4(attempt.source), parse_ipv4(attempt.request.address)
    entry = inet_lookup_established(h, theirs, attempt.request.port, ours, port, 0)
    if entry and not entry & 1:
        found.state = STATE_NAMES.get(h.sks.sk_state[entry >> 1], "")
    bind = h.bind
    found.bucket = Bucket(port, bind.owners[port], bind.fastreuse[port], bind.fastreuseport[port])
