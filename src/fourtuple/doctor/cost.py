"""What a connect() costs, from the ports it passes over: a range, because machines and their load differ.

Measured on Linux 6.18, one source, one destination, the default range; p5 and p50 of many calls:

- search and SYN while the range is empty 3.7 to 8 us;
- a port whose bucket cannot be joined (or is reserved) 27 ns: 14,116 bound ports took 380 us;
- a port with this 4-tuple 47 to 106 ns: 14,116 of them 0.67 to 1.5 ms; 113 to 255 ns on a machine with so many sockets
  that its tables are no longer in the cache;
- a TIME_WAIT that may not be reused 150 to 240 ns.
"""

from __future__ import annotations

from dataclasses import dataclass

from fourtuple.doctor.answers import Cost

_BASE_US = (3.7, 5.2, 8.0)
_SKIP_NS = (15.0, 27.0, 45.0)
_TIME_WAIT_NS = (120.0, 190.0, 480.0)
_CONFLICT_NS = (40.0, 55.0, 110.0)
_CONFLICT_NS_MANY = (47.0, 130.0, 260.0)
_MANY_SOCKETS = 150_000


@dataclass(frozen=True)
class Kinds:
    """Ports passed over, by what is there: mean numbers."""

    skips: float = 0.0
    conflicts: float = 0.0
    time_waits: float = 0.0


def connect_cost(kinds: Kinds, worst: float, sockets: int) -> Cost:
    """`worst`: how many times the mean is passed over by one start in twenty; `sockets`: on the whole machine."""
    low, likely, high = (_cost_us(kinds, sockets, i) for i in range(3))
    return Cost(low, likely, high, _BASE_US[1] + (likely - _BASE_US[1]) * worst)


def _cost_us(kinds: Kinds, sockets: int, i: int) -> float:
    share = min(1.0, sockets / _MANY_SOCKETS)
    conflict_ns = _CONFLICT_NS[i] + share * (_CONFLICT_NS_MANY[i] - _CONFLICT_NS[i])
    ns = kinds.skips * _SKIP_NS[i] + kinds.conflicts * conflict_ns + kinds.time_waits * _TIME_WAIT_NS[i]
    return _BASE_US[i] + ns / 1000
