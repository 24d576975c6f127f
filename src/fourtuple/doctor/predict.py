"""State: one reading of a machine's sockets, and what the next connect() to each destination meets.

Lives here: which questions are put to the engine, and the answers as records.  Does not live here: any rule of the
port search: a port is free when the engine's search takes it (live/tables.py asks), in each of the three worlds that
what cannot be seen leaves possible.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from errno import EADDRNOTAVAIL, errorcode
from heapq import nlargest
from typing import Protocol

from fourtuple.address import is_ipv4, parse_ipv4, parse_ipv6
from fourtuple.doctor.answers import (
    Cost,
    HeldPort,
    Interval,
    Passed,
    Prediction,
    Rate,
    Summary,
    WithPortRange,
    as_json,
)
from fourtuple.doctor.cost import Kinds, connect_cost
from fourtuple.doctor.words import plural
from fourtuple.inet.dest import dest_find
from fourtuple.kernel_map import (
    LOOK_BUCKET_BOUND,
    LOOK_ESTABLISHED,
    LOOK_FREE,
    LOOK_JOINED,
    LOOK_RESERVED,
    LOOK_TIME_WAIT,
    LOOK_TW_REUSED,
)
from fourtuple.live import ask
from fourtuple.live import tables as live_tables
from fourtuple.live.socket_table import INBOUND, STATE_NAMES, SocketTable
from fourtuple.live.tables import LIKELY, OPTIMISTIC, PESSIMISTIC, Tables
from fourtuple.sysctl import Sysctls

__all__ = ["HeldPort", "Interval", "Passed", "Prediction", "Rate", "State", "Summary", "as_json", "compare"]

_AF_INET, _AF_INET6 = 2, 10
_FREE = (LOOK_FREE, LOOK_JOINED, LOOK_TW_REUSED)
_WORTH_A_LOOK = 0.25
ODD_RANGE = "in a range of odd size the random start of a search decides whether its first or its last port is left out"
"""Why that count is open by nature: no probe can tell."""
_STRANGER6 = 0x0FFFFFFF  # the number of an IPv6 address that no socket has
_TIME_WAIT = 6
_KINDS = ("listen", "bound", "accepted", "connected", "time_wait")
_OWNER_STATES = {10: "listen", 7: "bound", 13: "bound"}
_CERTAINTIES = {live_tables.SHUT: "sure", live_tables.LIKELY_SHUT: "likely", live_tables.LIKELY_JOINABLE: "possible"}


class OwnerFacts(Protocol):
    """What is known about the process behind a socket."""

    @property
    def pid(self) -> int: ...
    @property
    def command(self) -> str: ...


@dataclass(frozen=True)
class Key:
    """A destination as the engine's tables know it."""

    saddr: int
    daddr: int
    dport: int
    device: int = 0


@dataclass(frozen=True)
class _Look:
    """The engine's answers about one destination in one world."""

    first: tuple[int, ...]
    second: tuple[int, ...]
    """Verdict -> ports of that parity."""
    edge_free: bool
    """The first or the last port of the range is free: in a range of odd size a search looks at only one of them."""
    passed: Passed
    kinds: Kinds
    failing_share: float

    def ports(self, *verdicts: int) -> int:
        return sum(self.first[v] + self.second[v] for v in verdicts)

    @property
    def fill(self) -> float:
        """Share of the ports that the search may not have."""
        return 1 - self.ports(*_FREE) / max(1, sum(self.first) + sum(self.second))

    @property
    def free_first(self) -> int:
        return sum(self.first[v] for v in _FREE)

    @property
    def free_second(self) -> int:
        return sum(self.second[v] for v in _FREE)


class State:
    """The sockets of a namespace at one moment with its sysctls, in the engine's tables.

    `sockets` as read by fourtuple.live.sockets(), `sysctls` of the same namespace, `owners` by inode (optional).
    `changes` and `notes` are those of what_if().  Loading happens at the first question: half a million sockets take
    about 0.25 s.
    """

    def __init__(
        self,
        sockets: SocketTable,
        sysctls: Sysctls,
        *,
        owners: Mapping[int, OwnerFacts] | None = None,
        taken_at: float | None = None,
        drop: memoryview | None = None,
        tables: Tables | None = None,
        option: tuple[int, int] | None = None,
        changes: Mapping[str, str] | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        self.sockets = sockets
        self.sysctls = sysctls
        self.owners = owners or {}
        self.taken_at = sockets.taken_at if taken_at is None else taken_at
        self.option = option
        """IP_LOCAL_PORT_RANGE that every socket to come is assumed to have."""
        self.changes = dict(changes or {})
        self.notes = tuple(notes)
        self.count_small = 0
        """Destinations that the last destinations() left out."""
        self._drop = drop
        self._tables = tables
        self.is_made_anew = tables is not None
        self.original = self
        """What what_if() started from."""
        self._walk = ask.Walk()

    # -- what is asked

    @property
    def tables(self) -> Tables:
        """The engine's tables; `.h` is its InetHashinfo."""
        if self._tables is None:
            self._tables = live_tables.load(self.sockets, self.sysctls, self._drop)
        return self._tables

    def destinations(
        self,
        minimum_share: float = 0.01,
        at_most: int = 50,
        destination: str | None = None,
        port: int | None = None,
    ) -> list[Prediction]:
        """The destinations that use at least that share of the range, at most so many, the fullest first.

        With `destination` or `port` all that match, however few sockets they have.
        """
        dests, self.count_small = self._choose(minimum_share, at_most, destination, port)
        predictions = self._predict([self._key_of(dest) for dest in dests])
        return sorted(predictions, key=lambda p: (-p.fill, -p.cost_us.likely, -p.used, p.destination, p.port))

    def predict(
        self,
        source: str | None,
        destination: str,
        port: int,
        *,
        device: int = 0,
        port_range: tuple[int, int] | None = None,
    ) -> Prediction:
        """One destination, also one without sockets.  `source` None: the one with most sockets there, else any.

        `port_range`: IP_LOCAL_PORT_RANGE of the socket.  ValueError for an address that is none.
        """
        daddr = self.address_key(destination)
        saddr = self._usual_source(daddr, port) if source is None else self.address_key(source)
        found = self._predict([Key(saddr, daddr, port, device)], port_range or self.option)[0]
        return replace(found, destination=destination, source=source if source is not None else found.source)

    def predict_again(self, predictions: Sequence[Prediction]) -> list[Prediction]:
        """The same destinations as in predictions of another state (an earlier one, or one before a change)."""
        found = self._predict([self._key_again(p) for p in predictions])
        return [replace(f, source=p.source, destination=p.destination) for f, p in zip(found, predictions, strict=True)]

    def _key_again(self, p: Prediction) -> Key:
        saddr = 0 if p.source == "*" else self.address_key(p.source)
        daddr = 0 if p.destination == "*" else self.address_key(p.destination)
        return Key(saddr, daddr, p.port, p.device)

    def anywhere(self) -> Prediction:
        """A destination that nobody is connected to: what listeners, bound sockets and reserved ports do alone."""
        return self._predict([Key(0, 0, 0)])[0]

    def ports_not_joinable(self, least: str = "likely") -> list[HeldPort]:
        """Ports of the range that no connect() can join, and who holds them; `least` certainty: sure, likely, possible.

        A reserved port that somebody holds is listed as reserved.
        """
        order = list(_CERTAINTIES.values())
        wanted = {c for c, name in _CERTAINTIES.items() if order.index(name) <= order.index(least)}
        t = self.tables
        reserved = self._reserved()
        held = []
        for port in range(t.low, t.high + 1):
            if port in reserved:
                held.append(HeldPort(port, "reserved", "sure"))
            elif t.certainty[port] in wanted:
                held.append(self._holder(port))
        return held

    @property
    def summary(self) -> Summary:
        """Sockets by state, and the settings that the search goes by."""
        low, high = self.sysctls.port_low, self.sysctls.port_high
        return Summary(
            len(self.sockets),
            _named(self.sockets.count_by_state()),
            low,
            high,
            high - low + 1,
            len(self._reserved()),
            "odd" if low & 1 else "even",
            high > low and not (high - low) & 1,
            self.sysctls.tcp_tw_reuse,
            self.sysctls.tcp_tw_reuse_delay,
        )

    def ports_to(self, p: Prediction) -> set[int]:
        """Local ports of the sockets to a destination, TIME_WAITs included."""
        t = self.tables
        key = self._key_again(p)
        dest = dest_find(t.h.dests, key.saddr, key.daddr, key.dport, key.device)
        if dest == 0:
            return set()
        ask.mark_ports(t, dest)
        marks = bytes(t.verdict)
        return {port for port in range(65_536) if marks[port]}

    # -- choosing

    def _choose(self, share: float, at_most: int, destination: str | None, port: int | None) -> tuple[list[int], int]:
        dests = self.tables.h.dests
        counts = memoryview(dests.count)[: dests.high_water + 1].tolist()
        rows: Iterable[int] = (dest for dest, count in enumerate(counts) if count and not self._is_made_up(dest))
        if destination is not None or port is not None:
            daddr = None if destination is None else self.address_key(destination)
            rows = [d for d in rows if (daddr is None or dests.daddr[d] == daddr) and port in (None, dests.dport[d])]
            return nlargest(at_most, rows, key=counts.__getitem__), max(0, len(rows) - at_most)
        least = share * (self.sysctls.port_high - self.sysctls.port_low + 1)
        chosen = nlargest(at_most, (d for d in rows if counts[d] >= least), key=counts.__getitem__)
        return chosen, dests.used - len(chosen)

    def _is_made_up(self, dest: int) -> bool:
        if not self.is_made_anew:
            return False
        dests = self.tables.h.dests
        return any(live_tables.MADE_UP_KEYS <= key <= 0xEFFFFFFF for key in (dests.saddr[dest], dests.daddr[dest]))

    def _key_of(self, dest: int) -> Key:
        dests = self.tables.h.dests
        return Key(dests.saddr[dest], dests.daddr[dest], dests.dport[dest], dests.dev[dest])

    def address_key(self, text: str) -> int:
        """The engine's key of an address."""
        if is_ipv4(text):
            return parse_ipv4(text)
        number = parse_ipv6(text)
        if number >> 32 == 0xFFFF:
            return number & 0xFFFFFFFF
        if number == 1:
            return live_tables.LOOPBACK6_KEY
        raw = number.to_bytes(16, "big")
        known = self.sockets.addresses6
        return live_tables.key_of(self.tables, _AF_INET6, known.index(raw) if raw in known else _STRANGER6)

    def _usual_source(self, daddr: int, port: int) -> int:
        dests = self.tables.h.dests
        rows = range(1, dests.high_water + 1)
        there = [d for d in rows if dests.count[d] and dests.daddr[d] == daddr and dests.dport[d] == port]
        return dests.saddr[max(there, key=dests.count.__getitem__)] if there else 0

    # -- asking

    def _predict(self, keys: list[Key], option: tuple[int, int] | None = None) -> list[Prediction]:
        option = option or self.option
        looks: dict[int, list[_Look]] = {}
        stepped: list[_Look | None] = []
        for world in self._worlds():
            live_tables.assume_world(self.tables, world)
            looks[world] = [self._look(key, option) for key in keys]
            if world == LIKELY:
                stepped = [self._look_stepped(key, look) for key, look in zip(keys, looks[world], strict=True)]
        live_tables.assume_world(self.tables, OPTIMISTIC)
        counts = self._states(keys)
        by_key = zip(keys, zip(*looks.values(), strict=True), stepped, counts, strict=True)
        return [
            self._describe(key, dict(zip(looks, seen, strict=True)), step, count, option)
            for key, seen, step, count in by_key
        ]

    def _worlds(self) -> tuple[int, ...]:
        t = self.tables
        doubts = bytes(t.certainty[t.low : t.high + 1])
        in_doubt = live_tables.LIKELY_SHUT in doubts or live_tables.LIKELY_JOINABLE in doubts
        if in_doubt or (t.h.tw.used and self.sysctls.tcp_tw_reuse and not self.sockets.stamps_known):
            return OPTIMISTIC, LIKELY, PESSIMISTIC
        return (LIKELY,)

    def _look(self, key: Key, option: tuple[int, int] | None) -> _Look:
        """Every port looked at, and the search asked from every start."""
        t, walk = self.tables, self._walk
        ask.prepare_probe(t, key.saddr, key.daddr, key.dport, key.device, option)
        low, high = t.h.range.low, t.h.range.high - 1
        ask.look_at_ports(t, t.probe, low, high)
        ask.ask_every_start(t, walk, t.probe)
        verdicts = _in_reach(bytes(t.verdict[low : high + 1]), t.h.range.step)
        starts = max(1, walk.starts)
        passed = Passed(
            walk.passed / starts,
            ask.rank(walk, -(-starts // 2)),
            ask.rank(walk, -(-starts * 95 // 100)),
            walk.most,
        )
        odd = t.h.range.step == 2 and len(verdicts) > 1 and len(verdicts) & 1 == 1
        return _Look(
            tuple(verdicts[0::2].count(v) for v in range(8)),
            tuple(verdicts[1::2].count(v) for v in range(8)),
            odd and (verdicts[0] in _FREE or verdicts[-1] in _FREE),
            passed,
            Kinds(walk.skips / starts, walk.conflicts / starts, walk.time_waits / starts),
            walk.failed / starts,
        )

    def _look_stepped(self, key: Key, look: _Look) -> _Look | None:
        """The same with IP_LOCAL_PORT_RANGE on the socket, the whole range."""
        if look.fill < _WORTH_A_LOOK:
            return None
        return self._look(key, (self.sysctls.port_low, self.sysctls.port_high))

    def _states(self, keys: list[Key]) -> list[dict[int, int]]:
        t = self.tables
        dests = [dest_find(t.h.dests, k.saddr, k.daddr, k.dport, k.device) for k in keys]
        census = ask.Census(t, [d for d in dests if d])
        ask.count_states(t, census)
        known = iter(range(len(keys)))
        return [census.by_state(next(known)) if d else {} for d in dests]

    # -- answers

    def _describe(
        self,
        key: Key,
        looks: dict[int, _Look],
        stepped: _Look | None,
        states: dict[int, int],
        option: tuple[int, int] | None,
    ) -> Prediction:
        look = looks[LIKELY]
        best, worst = looks.get(OPTIMISTIC, look), looks.get(PESSIMISTIC, look)
        free, first, second = _free(worst, look, best)
        ports = self.sysctls.port_high - self.sysctls.port_low + 1
        family, source = live_tables.address_of(self.tables, key.saddr)
        to_family, destination = live_tables.address_of(self.tables, key.daddr)
        return Prediction(
            family=max(family, to_family),
            source=source,
            destination=destination,
            port=key.dport,
            device=key.device,
            used=sum(states.values()),
            by_state=_named(states),
            ports_in_range=ports,
            used_in_range_ports=best.ports(LOOK_ESTABLISHED, LOOK_TIME_WAIT),
            fill=look.fill,
            free=free,
            free_first=first,
            free_second=second,
            reserved_ports=look.ports(LOOK_RESERVED),
            shut_sure_ports=best.ports(LOOK_BUCKET_BOUND),
            shut_likely_ports=look.ports(LOOK_BUCKET_BOUND) - best.ports(LOOK_BUCKET_BOUND),
            doubtful_ports=_doubtful(worst, look),
            time_wait_blocking_ports=best.ports(LOOK_TIME_WAIT),
            time_wait_reusable_ports=best.ports(LOOK_TW_REUSED),
            passed=look.passed,
            passed_if_bound=worst.passed,
            passed_if_free=best.passed,
            cost_us=self._cost(look),
            baseline_us=connect_cost(Kinds(), 1.0, len(self.sockets)),
            errno=_errno(look),
            errno_certain=_errno(worst) == _errno(best),
            failing_share=look.failing_share,
            to_cliff_ports=free if option else first,
            to_full_ports=free,
            with_port_range=self._with_port_range(stepped, free, first, second) if option is None else None,
            inferred=_inferred(worst, look, best),
            reasons=tuple(_reasons(worst, look, best)),
        )

    def _cost(self, look: _Look) -> Cost:
        worst = look.passed.p95 / look.passed.mean if look.passed.mean else 1.0
        return connect_cost(look.kinds, worst, len(self.sockets))

    def _with_port_range(
        self, look: _Look | None, free: Interval, first: Interval, second: Interval
    ) -> WithPortRange | None:
        """Which ports are free is the same as without the option, but in a range of odd size all are in reach."""
        if look is None:
            return None
        low, high = self.sysctls.port_low, self.sysctls.port_high
        more = max(0, look.ports(*_FREE) - free.likely)
        free = Interval(first.low + second.low + more, free.likely + more, free.high + more)
        return WithPortRange(low, high, free, look.passed, self._cost(look), _errno(look))

    # -- who holds a port

    def _reserved(self) -> set[int]:
        low, high = self.sysctls.port_low, self.sysctls.port_high
        ranges = self.sysctls.reserved_ranges
        return {port for a, b in ranges for port in range(max(a, low), min(b, high) + 1)}

    def _holder(self, port: int) -> HeldPort:
        """Of several owners the one that shuts the port: a listener or bound socket before what it accepted."""
        t = self.tables
        rows = [self._owner_row(owner) for owner in t.h.bind.owner_list(port)]
        kinds = [(self._kind(row), row) for row in rows]
        kind, row = min(kinds, key=lambda pair: _KINDS.index(pair[0]))
        inode = self.sockets.inode[row]
        owner = self.owners.get(inode)
        certainty = _CERTAINTIES[t.certainty[port]]
        return HeldPort(port, kind, certainty, inode, owner.pid if owner else 0, owner.command if owner else "")

    def _owner_row(self, owner: int) -> int:
        t = self.tables
        return int(t.tw_row[owner >> 1] if owner & 1 else t.sk_row[owner >> 1])

    def _kind(self, row: int) -> str:
        state = self.sockets.state[row]
        if state in _OWNER_STATES:
            return _OWNER_STATES[state]
        if self.sockets.flags[row] & INBOUND:
            return "accepted"
        return "time_wait" if state == _TIME_WAIT else "connected"


def compare(earlier: State, later: State, predictions: Sequence[Prediction]) -> list[Prediction]:
    """The predictions (made by `later`) with rates.  ValueError when the readings are not in order."""
    seconds = later.taken_at - earlier.taken_at
    if seconds <= 0:
        raise ValueError("the second reading is not later than the first")
    return [replace(p, rate=_rate(earlier, later, p, seconds)) for p in predictions]


def _rate(earlier: State, later: State, p: Prediction, seconds: float) -> Rate:
    before, after = earlier.ports_to(p), later.ports_to(p)
    growth = (len(after) - len(before)) / seconds
    return Rate(
        seconds,
        growth,
        len(after - before) / seconds,
        len(before - after) / seconds,
        _time_left(p.to_cliff_ports.likely, growth),
        _time_left(p.to_full_ports.likely, growth),
    )


def _time_left(ports: int, growth_per_s: float) -> float | None:
    if ports == 0:
        return 0.0
    return ports / growth_per_s if growth_per_s > 0 else None


def _in_reach(verdicts: bytes, step: int) -> bytes:
    """The ports that a search may look at: of 3 never the last, as __inet_hash_connect has 2 to start from, an even
    offset.  In a longer range of odd size it depends on the start.
    """
    return verdicts[:2] if step == 2 and len(verdicts) == 3 else verdicts


def _free(worst: _Look, look: _Look, best: _Look) -> tuple[Interval, Interval, Interval]:
    """Free ports in all, of the first parity, of the second.  In a range of odd size one may be out of reach."""
    first = Interval(worst.free_first, look.free_first, best.free_first)
    second = Interval(worst.free_second, look.free_second, best.free_second)
    low = first.low + second.low - worst.edge_free
    return Interval(max(0, low), first.likely + second.likely, first.high + second.high), first, second


def _doubtful(worst: _Look, look: _Look) -> int:
    """Ports that are free unless bind() took them."""
    return max(0, look.ports(*_FREE) - worst.ports(*_FREE) - look.ports(LOOK_TW_REUSED))


def _reasons(worst: _Look, look: _Look, best: _Look) -> list[str]:
    """Why an interval is open, a line each."""
    reasons = []
    likely = best.ports(*_FREE) - look.ports(*_FREE)
    doubtful = _doubtful(worst, look)
    reusable = best.ports(LOOK_TW_REUSED)
    if likely:
        looks, them, their = ("looks", "it", "its") if likely == 1 else ("look", "them", "their")
        ports = plural(likely, "port")
        reasons.append(f"{ports} {looks} as if bind(addr, 0) had taken {them} ({their} parity): inferred")
    if doubtful:
        them = "it" if doubtful == 1 else "them"
        ports = plural(doubtful, "port")
        reasons.append(f"{ports} of connected sockets: the kernel does not tell whether bind() took {them}")
    if reusable and worst.ports(*_FREE) != best.ports(*_FREE):
        are = "is reusable if its peer uses" if reusable == 1 else "are reusable if their peers use"
        reasons.append(f"{plural(reusable, 'TIME_WAIT')} {are} timestamps")
    if worst.edge_free:
        reasons.append(ODD_RANGE)
    return reasons


def _errno(look: _Look) -> str:
    return errorcode[EADDRNOTAVAIL] if look.failing_share >= 1 else ""


def _inferred(worst: _Look, look: _Look, best: _Look) -> tuple[str, ...]:
    """Fields whose value would be another one in another world."""
    names = []
    if worst.ports(*_FREE) != best.ports(*_FREE):
        names += ["fill", "free", "free_first", "free_second", "to_cliff_ports", "to_full_ports"]
    if worst.passed != best.passed:
        names += ["passed", "cost_us"]
    if _errno(worst) != _errno(best):
        names.append("errno")
    return tuple(names)


def _named(states: Mapping[int, int]) -> dict[str, int]:
    return {STATE_NAMES.get(state, str(state)): n for state, n in sorted(states.items())}
