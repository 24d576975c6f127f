"""Which source address has room towards a destination: ports in use by source, as the kernel lists them.

Lives here: counting, the order of sources, remembering both for a short time.  Does not live here: sockets (reader.py),
connecting (connecting.py).

Rules
1. What is remembered is for one destination in one network namespace; it is read again after a second, or after 20
   times what the reading took, if that is longer: reading costs at most 5 % of the time.
2. Where all sockets together could not fill half of the range, nothing is read but /proc/net/sockstat.
3. Counting is a help to choose, nothing more: the kernel's errno decides.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

from fourtuple.live.reader import sockets
from fourtuple.live.refusal import CannotRead
from fourtuple.live.socket_options import read_port_range

PAST_HALF = 0.45
"""Of the range.  The scan of the first parity gets long shortly before it is exhausted at 0.5."""

_FRESH_S = 1.0
_SHARE_OF_TIME = 20
_MOST_REMEMBERED = 1024

Destination: TypeAlias = tuple[str, int]


@dataclass
class Use:
    """Ports of each source that are in use towards one destination."""

    until: float
    """When it is to be read again (time.monotonic())."""
    range_low: int
    range_high: int
    ports: Counter[str] = field(default_factory=Counter)
    """Source address -> sockets, TIME_WAITs included."""
    chosen: Counter[str] = field(default_factory=Counter)
    """Source -> how often it was chosen since."""

    @property
    def size(self) -> int:
        return self.range_high - self.range_low + 1

    @property
    def is_odd(self) -> bool:
        """connect() never uses the last port of such a range, unless the socket has a range of its own."""
        return self.size % 2 == 1

    def fill(self, source: str) -> float:
        """0 to 1; "" is the address that the route gives, of which the fullest is assumed."""
        used = self.ports[source] if source else max(self.ports.values(), default=0)
        return (used + self.chosen[source]) / self.size

    def shut(self, source: str) -> None:
        """The kernel has found no port there: the last one to try, until it is read again."""
        self.ports[source] = self.size

    def by_room(self, sources: Iterable[str]) -> list[str]:
        """The emptiest first; in the order given among equals."""
        return sorted(sources, key=self.fill)


class SourcePool:
    """What is known of destinations, for a short time."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: dict[tuple[int, Destination], Use] = {}

    def use(self, destination: Destination) -> Use:
        """Ports in use towards (address, port), at most a short time old."""
        known = self._fresh(destination)
        if known is None:
            known = self._read(destination)
            if len(self._known) >= _MOST_REMEMBERED:
                self._known.clear()
            self._known[_key(destination)] = known
        return known

    def is_known(self, destination: Destination) -> bool:
        """use() would return at once."""
        return self._fresh(destination) is not None

    def _fresh(self, destination: Destination) -> Use | None:
        known = self._known.get(_key(destination))
        return known if known and self._clock() < known.until else None

    def _read(self, destination: Destination) -> Use:
        started = self._clock()
        low, high = _range()
        ports = Counter[str]()
        if 2 * _most_sockets() >= high - low + 1:
            ports = _count(destination, low, high)
        ended = self._clock()
        return Use(ended + max(_FRESH_S, _SHARE_OF_TIME * (ended - started)), low, high, ports)


def _key(destination: Destination) -> tuple[int, Destination]:
    """With the namespace that the calling thread is in."""
    return os.stat("/proc/thread-self/ns/net").st_ino, destination


def _range() -> tuple[int, int]:
    try:
        return read_port_range()
    except (OSError, ValueError):
        return 32768, 60999


def _most_sockets() -> int:
    """At least as many as any destination has in this namespace: all TCP sockets and TIME_WAITs."""
    total = 0
    try:
        for name in ("sockstat", "sockstat6"):
            with open(f"/proc/thread-self/net/{name}") as file:
                total += sum(map(_tcp_count, file))
    except FileNotFoundError:
        pass  # sockstat6: no IPv6
    except OSError:
        return 65536
    return total


def _tcp_count(line: str) -> int:
    """'TCP: inuse 5 orphan 0 tw 2 alloc 9 mem 1' -> 7 (orphans are in use); 0 for other lines."""
    words = line.split()
    if not words or words[0] not in ("TCP:", "TCP6:"):
        return 0
    values = dict(zip(words[1::2], words[2::2], strict=False))
    return sum(int(values.get(name, "0")) for name in ("inuse", "tw"))


def _count(destination: Destination, low: int, high: int) -> Counter[str]:
    """Source address -> sockets with a local port in the range; nothing where the kernel does not tell."""
    host, port = destination
    try:
        table = sockets(sport=(low, high), dport=port, daddr=_unmapped(host))
    except (CannotRead, ValueError):
        return Counter()
    rows = Counter(zip(table.family.tolist(), table.saddr.tolist(), strict=True))
    return Counter({table.address(family, value): count for (family, value), count in rows.items()})


def _unmapped(host: str) -> str:
    """::ffff:10.0.0.1 -> 10.0.0.1: its sockets are IPv4 ones."""
    tail = host.removeprefix("::ffff:")
    return tail if "." in tail else host.partition("%")[0]
