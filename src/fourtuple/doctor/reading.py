"""Reading: one network namespace at one moment, live or from a snapshot, as the findings ask it.

Lives here: what is known, found quickly.  Does not live here: reading it (live/), judging it (findings*.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from fourtuple.address import is_ipv4, parse_ipv4, parse_ipv6
from fourtuple.doctor.predict import State

if TYPE_CHECKING:
    from fourtuple.doctor.answers import Prediction
    from fourtuple.live.failures import FailedConnect
    from fourtuple.live.owners import Owner, Owners
    from fourtuple.live.probe import PoisonMap
    from fourtuple.live.rtnetlink import Route
    from fourtuple.live.snapshot import Snapshot
    from fourtuple.live.socket_table import Destinations, SocketTable
    from fourtuple.live.system import Limits, System

LISTEN, BOUND, TIME_WAIT, SYN_SENT, CLOSE_WAIT, FIN_WAIT2 = 10, 13, 6, 2, 8, 5
_AF_INET, _AF_INET6 = 2, 10


class Holder(NamedTuple):
    """Processes of one name, and how many of the sockets in question are theirs."""

    command: str
    pids: tuple[int, ...]
    """Ascending; empty when no process is known."""
    sockets: int

    @property
    def name(self) -> str:
        """`uwsgi[2211]`, `uwsgi[2211-2258]` for several."""
        if not self.pids:
            return self.command
        return f"{self.command}[{self.pids[0]}{f'-{self.pids[-1]}' if len(self.pids) > 1 else ''}]"


class Reading:
    """What the doctor judges.  `owners` None: not asked for (-p)."""

    def __init__(
        self,
        sockets: SocketTable,
        system: System,
        owners: Owners | None = None,
        limits: Mapping[int, Limits] | None = None,
        routes: Sequence[Route] = (),
        unread: Sequence[str] = (),
        is_live: bool = True,
    ) -> None:
        self.sockets = sockets
        self.system = system
        self.owners = owners
        self.limits = dict(limits or {})
        self.routes = tuple(routes)
        self.unread = (*unread, *_nat_not_read(system))
        self.is_live = is_live
        self.failed: tuple[FailedConnect, ...] = ()
        """connect() calls that found no port since the reading before, on the whole machine."""
        self.failed_elsewhere = 0
        """More of them, of which nothing else is known."""
        self.probed: PoisonMap | None = None
        """What --probe has found."""
        self.state = State(sockets, system.sysctls, owners=owners.by_inode if owners else None)

    @classmethod
    def of_snapshot(cls, taken: Snapshot) -> Reading:
        """What a file holds."""
        return cls(taken.sockets, taken.system, taken.owners, taken.limits, taken.routes, taken.unread, False)

    @property
    def netns(self) -> str:
        """What the namespace is called; "" for the one that the reader was in."""
        return self.system.netns

    @property
    def kernel_version(self) -> tuple[int, int]:
        """(6, 18); (0, 0) when it cannot be told."""
        words = self.system.kernel.split("-")[0].split(".")[:2]
        return (int(words[0]), int(words[1])) if len(words) == 2 and all(w.isdecimal() for w in words) else (0, 0)

    @property
    def port_range(self) -> tuple[int, int]:
        """Lowest and highest port that connect() takes."""
        return self.system.sysctls.port_low, self.system.sysctls.port_high

    @cached_property
    def reserved(self) -> frozenset[int]:
        """All reserved ports, in the range or not."""
        return frozenset(port for a, b in self.system.sysctls.reserved_ranges for port in range(a, b + 1))

    @cached_property
    def groups(self) -> Destinations:
        """All sockets by destination, accepted ones too."""
        return self.sockets.group_by_destination(inbound=True)

    @cached_property
    def _group_of(self) -> dict[tuple[int, int, int, int], int]:
        g = self.groups
        return dict(zip(zip(g.family, g.saddr, g.daddr, g.dport, strict=True), range(len(g)), strict=True))

    def rows_to(self, p: Prediction) -> Sequence[int]:
        """Rows of the sockets that a prediction is about."""
        source, destination = self._key(p.source), self._key(p.destination)
        group = self._group_of.get((destination[0], source[1], destination[1], p.port))
        return self.groups.rows(group).tolist() if group is not None else []

    def _key(self, text: str) -> tuple[int, int]:
        """Family and number of an address, as in the table."""
        if is_ipv4(text):
            return _AF_INET, parse_ipv4(text)
        number = parse_ipv6(text) if ":" in text else 0
        if number >> 32 == 0xFFFF:
            return _AF_INET, number & 0xFFFFFFFF
        raw = number.to_bytes(16, "big")
        known = self.sockets.addresses6
        return _AF_INET6, known.index(raw) if raw in known else -1

    def rows_in_state(self, state: int) -> list[int]:
        """Rows of the sockets in one state."""
        states = self.sockets.state.tobytes()
        rows, row = [], states.find(state)
        while row >= 0:
            rows.append(row)
            row = states.find(state, row + 1)
        return rows

    @cached_property
    def listeners(self) -> dict[int, int]:
        """Port -> row of a listener on it."""
        return {self.sockets.sport[row]: row for row in self.rows_in_state(LISTEN)}

    def owner(self, row: int) -> Owner | None:
        """The process behind a row, as far as known."""
        return self.owners.by_inode.get(self.sockets.inode[row]) if self.owners else None

    def who(self, row: int) -> str:
        """`redis-server[12]`, the container or unit; "" where nothing is known."""
        found = self.owner(row)
        if found:
            return found.name
        group = self.owners.groups.get(self.sockets.cgroup[row]) if self.owners else None
        return group.name if group and group.name != "/" else ""  # the root group says nothing

    def holders(self, rows: Iterable[int]) -> tuple[Holder, ...]:
        """Who holds these sockets, most first; () when owners were not asked for."""
        if self.owners is None:
            return ()
        counts: Counter[str] = Counter()
        pids: dict[str, set[int]] = {}
        for row in rows:
            found = self.owner(row)
            name = found.command if found else self._unowned(row)
            counts[name] += 1
            if found:
                pids.setdefault(name, set()).add(found.pid)
        return tuple(Holder(name, tuple(sorted(pids.get(name, ()))), count) for name, count in counts.most_common())

    def _unowned(self, row: int) -> str:
        """Of a socket without a known process."""
        if self.sockets.state[row] == TIME_WAIT:
            return "the kernel (TIME_WAIT)"
        if not self.sockets.inode[row]:
            return "no process (closed, not yet gone)"
        return self.who(row) or "owner unknown"

    def sysctl(self, name: str, value: str) -> str:
        """The command that sets net.ipv4.NAME here."""
        return self.in_namespace(f"sysctl -w net.ipv4.{name}=" + (f'"{value}"' if " " in value else value))

    def in_namespace(self, command: str) -> str:
        """A command as it has to be typed to act on this namespace."""
        label = self.netns
        if not label:
            return command
        if label.startswith("pid "):
            return f"nsenter -t {label.removeprefix('pid ')} -n {command}"
        return f"nsenter --net={label} {command}" if "/" in label else f"ip netns exec {label} {command}"


def _nat_not_read(system: System) -> tuple[str, ...]:
    """Where there is no connection tracking there is no NAT to be missed."""
    nat = system.nat
    reasons = [nat.reason if not nat.is_known and system.conntrack and system.conntrack.used else ""]
    reasons.append(nat.tracked.reason if nat.tracked else "")
    return tuple(filter(None, reasons))
