"""SocketTable: the TCP sockets of one network namespace at one moment, as columns; and grouped by destination.

Lives here: what a user holds in hand.  Does not live here: reading (reader.py), the passes over rows (_group.py).
"""

from __future__ import annotations

import os
import time
from _socket import AF_INET, AF_INET6, inet_ntop, inet_pton

from fourtuple.live import _decode, _group
from fourtuple.live._decode import FIELDS, SocketColumns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import SupportsIndex

    from fourtuple.live.netns import Netns
    from fourtuple.live.rows import Destination, Socket

TCP_BOUND = 13
"""TCP_BOUND_INACTIVE: bound, neither listening nor connected.  Not seen on kernels before 6.8 (`bound_known`)."""

STATE_NAMES = {
    1: "ESTABLISHED", 2: "SYN_SENT", 3: "SYN_RECV", 4: "FIN_WAIT1", 5: "FIN_WAIT2", 6: "TIME_WAIT", 8: "CLOSE_WAIT",
    9: "LAST_ACK", 10: "LISTEN", 11: "CLOSING", TCP_BOUND: "BOUND",
}  # fmt: skip
STATE_NUMBERS = {name: number for number, name in STATE_NAMES.items()}

# The flags column.
V6SOCK = _decode.V6SOCK
"""An AF_INET6 socket, whatever the addresses."""
NO_PORT_KNOWN = _decode.NO_PORT_KNOWN
"""The kernel has told whether NO_PORT is set."""
NO_PORT = _decode.NO_PORT
"""IP_BIND_ADDRESS_NO_PORT."""
V6ONLY = _decode.V6ONLY
TRANSPARENT = _decode.TRANSPARENT
FREEBIND = _decode.FREEBIND
STAMPED = 128
"""A TIME_WAIT of a connection with timestamps.  Means something only if `stamps_known` (--probe)."""
INBOUND = _group.INBOUND
"""A listener has its local address and port: taken for an accepted connection.  Set only if `listeners_known`."""
FLAG_NAMES = {
    V6SOCK: "V6SOCK", NO_PORT_KNOWN: "NO_PORT_KNOWN", NO_PORT: "NO_PORT", V6ONLY: "V6ONLY",
    TRANSPARENT: "TRANSPARENT", FREEBIND: "FREEBIND", INBOUND: "INBOUND", STAMPED: "STAMPED",
}  # fmt: skip

IDLE_UNKNOWN = 0xFFFFFFFF

NONE = _group.NONE
"""In `Destinations.group_of`: the row belongs to no destination."""


# Fields of a Socket that are the numbers in the columns.
_NUMBERS = (
    "flags", "timer", "retrans", "ifindex", "uid", "inode", "expires_ms", "rqueue", "wqueue", "cgroup",
)  # fmt: skip


class SocketTable:
    """The TCP sockets of a namespace.  `len()`, `[row]` and iteration give `Socket`s; the attributes below are columns.

    Columns are memoryviews of `len(table)` numbers, not copied: `table.sport[row]`.

    family      2 or 10: of the addresses; an AF_INET6 socket with v4-mapped ones is a 2 with V6SOCK
    state       TCP_* as in the kernel; 3 also for NEW_SYN_RECV, 13 for bound only
    sport dport host order
    saddr daddr IPv4 in host order; IPv6 as an index into `addresses6` (0 is ::)
    flags       V6SOCK, NO_PORT ... of this module
    timer retrans expires_ms   the kernel's idiag_timer (1 retransmit, 2 keepalive, 3 TIME_WAIT, 4 zero window), how
                often it has fired, ms until it fires
    rqueue wqueue   bytes unread, bytes not acknowledged; of a listener: connections to accept, and the backlog
    ifindex     the device the socket is bound to, or 0
    uid inode   0 where no process holds the socket (TIME_WAIT, SYN_RECV)
    cgroup      inode number of the socket's directory in /sys/fs/cgroup (version 2), or 0
    idle_ms     ms since data was sent or received, IDLE_UNKNOWN for none; None where it was not asked for

    Sockets that came or went while the kernel was listing may be missing, or be there twice: it takes no lock over
    all of its table.
    """

    family: memoryview
    state: memoryview
    timer: memoryview
    retrans: memoryview
    flags: memoryview
    sport: memoryview
    dport: memoryview
    saddr: memoryview
    daddr: memoryview
    ifindex: memoryview
    uid: memoryview
    inode: memoryview
    expires_ms: memoryview
    rqueue: memoryview
    wqueue: memoryview
    cgroup: memoryview
    idle_ms: memoryview | None

    def __init__(
        self,
        columns: SocketColumns,
        netns: Netns | None = None,
        source: str = "",
        consistent: bool = True,
        bound_known: bool = True,
        listeners_known: bool = True,
        taken_at: float | None = None,
        elapsed_s: float = 0.0,
    ) -> None:
        self._columns = columns
        self._addresses6: list[bytes] | None = None
        self.netns = netns
        self.source = source
        """Who told: `sock_diag`, or `procfs` (slower; no NO_PORT, no bound sockets, no cgroup)."""
        self.consistent = consistent
        """False: the kernel has said, at every try, that its table changed while it was listing."""
        self.bound_known = bound_known
        """Sockets that are bound only are listed, if there are any."""
        self.listeners_known = listeners_known
        """No filter has hidden listeners, so INBOUND means something."""
        self.stamps_known = False
        """STAMPED means something."""
        self.taken_at = time.time() if taken_at is None else taken_at
        self.elapsed_s = elapsed_s
        """How long the reading took."""
        for name, _ in FIELDS:
            setattr(self, name, columns.views[name][: columns.count])
        self.idle_ms = memoryview(columns.idle_ms)[: columns.count] if columns.has_idle else None
        if listeners_known:
            _group.mark_inbound(columns, _group.Keys(2 * _group.count_listeners(columns), columns.seed))

    def __len__(self) -> int:
        return self._columns.count

    def __getitem__(self, row: SupportsIndex) -> Socket:
        from fourtuple.live.rows import Socket

        i = row.__index__()
        family = self.family[i]  # a memoryview knows about negative numbers, and about the end
        state = self.state[i]
        return Socket(
            family,
            STATE_NAMES.get(state, str(state)),
            self.address(family, self.saddr[i]),
            self.sport[i],
            self.address(family, self.daddr[i]),
            self.dport[i],
            *(getattr(self, name)[i] for name in _NUMBERS),
        )

    def __iter__(self) -> Iterator[Socket]:
        return map(self.__getitem__, range(len(self)))

    def __repr__(self) -> str:
        states = ", ".join(f"{count:,} {STATE_NAMES.get(n, n)}" for n, count in self.count_by_state().items())
        return f"<SocketTable: {len(self):,} TCP sockets{': ' if states else ''}{states}>"

    @property
    def addresses6(self) -> list[bytes]:
        """The IPv6 addresses, 16 bytes each, in the order of their index."""
        if self._addresses6 is None:
            self._addresses6 = [self._columns.address6(i) for i in range(self._columns.used6)]
        return self._addresses6

    def address(self, family: int, value: int) -> str:
        """An address of a row as text."""
        if family == AF_INET:
            return inet_ntop(AF_INET, value.to_bytes(4, "big"))
        return inet_ntop(AF_INET6, self._columns.address6(value))

    def count_by_state(self) -> dict[int, int]:
        """State -> how many sockets, states that occur only."""
        states = self.state.tobytes()
        return {number: n for number in range(_group.STATES) if (n := states.count(number))}

    def group_by_destination(self, inbound: bool = False) -> Destinations:
        """The sockets by (family, saddr, daddr, dport), which share a range of local ports.

        Listeners and sockets only bound have no destination; accepted ones (INBOUND) count with `inbound` only.
        """
        groups = _group.Groups(len(self), self._columns.seed)
        _group.group(self._columns, groups, inbound)
        return Destinations(self, groups)

    def pack(self) -> dict[str, bytes]:
        """The columns as bytes in this machine's byte order, `addresses6` joined: what unpack() takes."""
        packed = {name: getattr(self, name).tobytes() for name, _ in FIELDS}
        if self.idle_ms is not None:
            packed["idle_ms"] = self.idle_ms.tobytes()
        return packed | {"addresses6": b"".join(self.addresses6)}

    @classmethod
    def unpack(
        cls, packed: Mapping[str, bytes], *, netns: Netns | None = None, source: str = "", consistent: bool = True,
        bound_known: bool = True, listeners_known: bool = True, taken_at: float = 0.0, elapsed_s: float = 0.0,
    ) -> SocketTable:  # fmt: skip
        """The table that pack() was called on.  Raises ValueError when the columns do not fit together."""
        missing = {"addresses6", *(name for name, _ in FIELDS)} - set(packed)
        if missing:
            raise ValueError(f"columns that are missing: {', '.join(sorted(missing))}")
        addresses, count = packed["addresses6"], len(packed["family"])
        columns = _new_columns(count, len(addresses) // 16)
        for name, code in FIELDS:
            view = columns.views[name][:count]
            if len(packed[name]) != view.nbytes:
                raise ValueError(f"column {name} has {len(packed[name])} bytes for {count} sockets")
            if count:  # nothing cannot be cast
                view[:] = memoryview(packed[name]).cast(code)
        _take_idle(columns, packed.get("idle_ms"), count)
        _take_addresses(columns, addresses)
        columns.count = count
        if not _decode.is_sound(columns):
            raise ValueError("a socket of an unknown family, or with an IPv6 address that is not there")
        return cls(columns, netns, source, consistent, bound_known, listeners_known, taken_at, elapsed_s)

    @classmethod
    def of(cls, sockets: Iterable[Socket], **facts: object) -> SocketTable:
        """A table made of rows; the facts are those of unpack()."""
        rows = list(sockets)
        known: dict[bytes, int] = {bytes(16): 0}
        packed: dict[str, bytes] = {}
        columns = _new_columns(len(rows), 0)
        for i, row in enumerate(rows):
            _write(columns, i, row, known)
        for name, _ in FIELDS:
            packed[name] = columns.views[name][: len(rows)].tobytes()
        packed["addresses6"] = b"".join(known)
        return cls.unpack(packed, **facts)  # type: ignore[arg-type]


def _new_columns(rows: int, addresses: int) -> SocketColumns:
    return SocketColumns(rows, addresses, int.from_bytes(os.urandom(8), "little"))


def _write(columns: SocketColumns, i: int, row: Socket, known: dict[bytes, int]) -> None:
    views = columns.views
    views["family"][i] = row.family
    views["state"][i] = STATE_NUMBERS[row.state]
    views["sport"][i], views["dport"][i] = row.sport, row.dport
    for name, text in (("saddr", row.saddr), ("daddr", row.daddr)):
        raw = inet_pton(AF_INET if row.family == AF_INET else AF_INET6, text)
        views[name][i] = int.from_bytes(raw, "big") if len(raw) == 4 else known.setdefault(raw, len(known))
    for name in _NUMBERS:
        views[name][i] = getattr(row, name)


def _take_idle(columns: SocketColumns, idle: bytes | None, count: int) -> None:
    """The column that there is only if it was asked for."""
    if idle is None:
        return
    if len(idle) != 4 * count:
        raise ValueError(f"column idle_ms has {len(idle)} bytes for {count} sockets")
    _decode.take_idle(columns)
    if count:
        memoryview(columns.idle_ms)[:count] = memoryview(idle).cast("I")


def _take_addresses(columns: SocketColumns, addresses: bytes) -> None:
    """Enter IPv6 addresses by their numbers: the first is ::, none is there twice."""
    if len(addresses) < 16 or len(addresses) % 16 or any(addresses[:16]):
        raise ValueError("the list of IPv6 addresses does not begin with ::, or ends within one")
    words = memoryview(addresses).cast("I")
    _decode.take_addresses(columns, max(len(words) // 4 + 2, 3))
    memoryview(columns.words6)[: len(words)] = words
    for index in range(1, len(words) // 4):
        if not any(words[4 * index : 4 * index + 4]) or _decode.enter_address(columns, index) != index:
            raise ValueError("an IPv6 address is listed twice")


class Destinations:
    """The destinations of a SocketTable, numbered as they were met.  `len()`, `[number]`, iteration: `Destination`s.

    Columns by destination: family, saddr, daddr, dport (as in the table), total.  `group_of[row]`: the destination of
    a row of the table, or NONE.
    """

    def __init__(self, table: SocketTable, groups: _group.Groups) -> None:
        self.table = table
        self._groups = groups
        keys, n = groups.keys, groups.keys.count
        self.family: memoryview = keys.views["family"][:n]
        self.saddr: memoryview = keys.views["saddr"][:n]
        self.daddr: memoryview = keys.views["daddr"][:n]
        self.dport: memoryview = keys.views["port"][:n]
        self.total: memoryview = groups.views["total"][:n]
        self.group_of: memoryview = groups.views["group_of"][: len(table)]
        self._first: memoryview = groups.views["first"][: n + 1]
        self._order: memoryview = groups.views["order"]
        self._counts: memoryview = groups.views["counts"]

    def __len__(self) -> int:
        return len(self.total)

    def __getitem__(self, number: SupportsIndex) -> Destination:
        from fourtuple.live.rows import Destination

        i = range(len(self))[number.__index__()]
        family = self.family[i]
        saddr, daddr = (self.table.address(family, column[i]) for column in (self.saddr, self.daddr))
        return Destination(family, saddr, daddr, self.dport[i], self.total[i], self.counts(i))

    def __iter__(self) -> Iterator[Destination]:
        return map(self.__getitem__, range(len(self)))

    def count(self, number: int, state: int) -> int:
        """Sockets of a destination in one state."""
        return int(self._counts[_group.STATES * number + state])

    def counts(self, number: int) -> dict[int, int]:
        """State -> sockets of a destination in it, states that occur only."""
        return {state: n for state in range(_group.STATES) if (n := self.count(number, state))}

    def rows(self, number: int) -> memoryview:
        """Its rows in the table, ascending."""
        return self._order[self._first[number] : self._first[number + 1]]

    def largest(self, n: int) -> list[int]:
        """The numbers of the n destinations with most sockets, those first."""
        from heapq import nlargest

        return nlargest(n, range(len(self)), key=self.total.__getitem__)
