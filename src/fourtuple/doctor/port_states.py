"""PortStates: what the next connect() finds at each port of the range, for one destination or for the buckets alone.

Lives here: a kind for every port, and how many there are.  Does not live here: how it is drawn (cli/), any rule of the
port search: each kind is the engine's answer about that port in the three worlds that what cannot be seen leaves open.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

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
from fourtuple.live.tables import LIKELY, OPTIMISTIC, PESSIMISTIC

if TYPE_CHECKING:
    from fourtuple.doctor.answers import HeldPort, Prediction
    from fourtuple.doctor.predict import State
    from fourtuple.live.tables import Tables

FREE, JOINED, DOUBTFUL, REUSABLE = "free", "joined", "doubtful", "tw_reusable"
USED, TIME_WAIT, LIKELY_BOUND = "used", "time_wait", "likely_bound"
BOUND, LISTEN, ACCEPTED, RESERVED = "bound", "listen", "accepted", "reserved"

KINDS = (FREE, JOINED, DOUBTFUL, REUSABLE, USED, TIME_WAIT, LIKELY_BOUND, BOUND, LISTEN, ACCEPTED, RESERVED)
"""All of them; of a bucket the kind is of those who are in it, whatever the destination."""
OPEN = frozenset({FREE, JOINED, DOUBTFUL, REUSABLE})
"""Ports that connect() likely takes; it passes over all others."""
OPEN_BUCKETS = OPEN | {TIME_WAIT}
"""Of buckets: one that only TIME_WAITs are in may be joined."""

_OF_VERDICT = {
    LOOK_FREE: FREE,
    LOOK_JOINED: JOINED,
    LOOK_TW_REUSED: REUSABLE,
    LOOK_ESTABLISHED: USED,
    LOOK_TIME_WAIT: TIME_WAIT,
    LOOK_BUCKET_BOUND: BOUND,
    LOOK_RESERVED: RESERVED,
}
_OF_HELD = {"listen": LISTEN, "accepted": ACCEPTED, "reserved": RESERVED}
_TAKES = (LOOK_FREE, LOOK_JOINED, LOOK_TW_REUSED)


@dataclass(frozen=True)
class PortStates:
    """A kind of KINDS for every port from `low` to `high`."""

    low: int
    high: int
    kinds: tuple[str, ...]
    held: tuple[HeldPort, ...]
    """Ports that no connect() can join, with their holders, as far as known."""
    is_buckets: bool

    @property
    def open(self) -> frozenset[str]:
        """The kinds that connect() takes, likely."""
        return OPEN_BUCKETS if self.is_buckets else OPEN

    def of_parity(self, second: bool) -> tuple[str, ...]:
        """The ports that connect() looks at first (the parity of `low`), or second."""
        return self.kinds[int(second) :: 2]

    def count(self, kind: str) -> tuple[int, int]:
        """Ports of a kind among the first parity and the second."""
        return self.of_parity(False).count(kind), self.of_parity(True).count(kind)


def port_states(state: State, p: Prediction) -> PortStates:
    """The ports as the next connect() of this prediction's source to its destination finds them."""
    verdicts = _verdicts(state, p)
    held = tuple(state.ports_not_joinable())
    sure = {port.port: _OF_HELD.get(port.kind, BOUND) for port in held if port.certainty == "sure"}
    low, high = state.tables.low, state.tables.high
    kinds = tuple(
        sure.get(low + i, BOUND) if best == LOOK_BUCKET_BOUND else _kind(best, likely, worst)
        for i, (best, likely, worst) in enumerate(zip(*verdicts, strict=True))
    )
    return PortStates(low, high, kinds, held, False)


def bucket_states(state: State) -> PortStates:
    """The bind buckets of the range alone: who may join each of them, whatever the destination."""
    alone = port_states(state, state.anywhere())
    kinds = tuple(
        TIME_WAIT if kind in (JOINED, DOUBTFUL) and _only_time_waits(state.tables, port) else kind
        for port, kind in enumerate(alone.kinds, alone.low)
    )
    return PortStates(alone.low, alone.high, kinds, alone.held, True)


def _verdicts(state: State, p: Prediction) -> list[bytes]:
    """LOOK_* by port, in the best world for connect(), in the likely one, in the worst one."""
    t = state.tables
    saddr = 0 if p.source == "*" else state.address_key(p.source)
    daddr = 0 if p.destination == "*" else state.address_key(p.destination)
    found = []
    for world in (OPTIMISTIC, LIKELY, PESSIMISTIC):
        live_tables.assume_world(t, world)
        ask.prepare_probe(t, saddr, daddr, p.port, p.device, state.option)
        ask.look_at_ports(t, t.probe, t.low, t.high)
        found.append(bytes(t.verdict[t.low : t.high + 1]))
    live_tables.assume_world(t, OPTIMISTIC)
    return found


def _kind(best: int, likely: int, worst: int) -> str:
    """A port that is shut in the best world is so in all."""
    if best not in _TAKES or best == LOOK_TW_REUSED:
        return _OF_VERDICT[best]
    if likely not in _TAKES:
        return LIKELY_BOUND
    return _OF_VERDICT[best] if worst in _TAKES else DOUBTFUL


def _only_time_waits(t: Tables, port: int) -> bool:
    return all(owner & 1 for owner in t.h.bind.owner_list(port))
