"""The TIME_WAITs of one destination, as tcp_tw_reuse sees them: with timestamps or not, old enough or not.

Lives here: counting.  Does not live here: the rule (inet/, tcp_twsk_unique), who knows of timestamps (probed.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from fourtuple.doctor.reading import TIME_WAIT
from fourtuple.live.socket_table import STAMPED

if TYPE_CHECKING:
    from fourtuple.doctor.answers import Prediction
    from fourtuple.doctor.reading import Reading

_LENGTH_MS = 60_000  # TCP_TIMEWAIT_LEN


class TimeWaits(NamedTuple):
    """How many."""

    all: int
    stamped: int
    """Of connections with timestamps; of all only those that are known to be (--probe)."""
    young: int
    """Of these, younger than tcp_tw_reuse_delay."""
    young_ms: int
    """When the last of those is old enough."""


def time_wait_ages(reading: Reading, p: Prediction) -> TimeWaits:
    """At the moment of the reading: sock_diag tells how long each has left of its 60 s."""
    sockets = reading.state.sockets
    delay = reading.system.sysctls.tcp_tw_reuse_delay
    rows = [row for row in reading.rows_to(p) if sockets.state[row] == TIME_WAIT]
    stamped = [row for row in rows if sockets.flags[row] & STAMPED] if sockets.stamps_known else []
    waits = [delay - (_LENGTH_MS - sockets.expires_ms[row]) for row in stamped]
    young = [wait for wait in waits if wait > 0]
    return TimeWaits(len(rows), len(stamped), len(young), max(young, default=0))
