"""Connections that have carried no data for a while: which, how many, whose.

Lives here: counting.  Does not live here: reading the times (live/reader.py: struct tcp_info), what to do (fixes.py).

Idle is the shorter of tcpi_last_data_sent and tcpi_last_data_recv: keepalive probes and bare acknowledgements are not
data.  Only ESTABLISHED ones count: the others are not the program's to close.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from fourtuple.doctor.words import grouped, plural, some_of
from fourtuple.live.socket_table import IDLE_UNKNOWN

if TYPE_CHECKING:
    from fourtuple.doctor.answers import Prediction
    from fourtuple.doctor.reading import Holder, Reading
    from fourtuple.live.socket_table import SocketTable

OVER_S = 60.0
"""Idle longer than this, unless somebody says otherwise."""
_ESTABLISHED = 1
_NAMED = 3


class Idle(NamedTuple):
    """Of the connections to one destination."""

    over_s: float
    connections: int
    """Idle for longer than that."""
    of: int
    """All that are ESTABLISHED and whose times are known."""
    held_by: tuple[Holder, ...] = ()
    """Whose the idle ones are; () when owners were not asked for."""


def idle_rows(sockets: SocketTable, over_s: float) -> list[int]:
    """All ESTABLISHED connections without data for longer than that; none where the times are not known."""
    if sockets.idle_ms is None:
        return []
    most = 1000 * over_s
    both = zip(sockets.state.tolist(), sockets.idle_ms.tolist(), strict=True)
    return [row for row, (state, ms) in enumerate(both) if state == _ESTABLISHED and most < ms != IDLE_UNKNOWN]


def idle_connections(reading: Reading, p: Prediction, over_s: float) -> Idle | None:
    """None where the times are not known: an old snapshot, procfs, nothing ESTABLISHED."""
    sockets = reading.sockets
    if sockets.idle_ms is None:
        return None
    states, times = sockets.state, sockets.idle_ms
    rows = [row for row in reading.rows_to(p) if states[row] == _ESTABLISHED and times[row] != IDLE_UNKNOWN]
    if not rows:
        return None
    idle = [row for row in rows if times[row] > 1000 * over_s]
    return Idle(over_s, len(idle), len(rows), reading.holders(idle))


def seconds(over_s: float) -> str:
    """'60 s'."""
    return f"{over_s:g} s"


def idle_words(idle: Idle) -> str:
    """'27 800 have been idle for > 60 s'."""
    if not idle.connections:
        return f"none idle for > {seconds(idle.over_s)}"
    have = "has" if idle.connections == 1 else "have"
    return f"{grouped(idle.connections)} {have} been idle for > {seconds(idle.over_s)}"


def idle_evidence(idle: Idle) -> str:
    """The same for a list of facts: with all there are, and whose they are."""
    text = f"no data for > {seconds(idle.over_s)} on {grouped(idle.connections)} of {plural(idle.of, 'connection')}"
    names = [f"{grouped(holder.sockets)} {holder.name}" for holder in idle.held_by if holder.pids]
    return f"{text}: {some_of(names, _NAMED)}" if names and idle.connections else text
