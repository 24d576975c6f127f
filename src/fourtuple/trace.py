"""The tracer: a ring of fixed records, one for each function of the path that reports, formatted later by others.

Lives here: writing a record and reading records back.  Does not live here: the functions' numbers and what their four
values mean (kernel_map.py), text (cli/render.py).

Rules
1. Off, it costs nothing: callers write `if net.tracer is not None: trace(net.tracer, FN_..., sk, ...)`.
2. Time comes from the tracer's own clock, a callable of nanoseconds, because the engine's time stands still inside a
   call; the engine's time is recorded beside it.
3. When the ring is full the oldest record goes; `lost` says how many did.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

_WIDTH = 8
"""Values a record: time_ns, fn, sk, a, b, c, d, engine_us."""


class Record(NamedTuple):
    """One report of one function; see kernel_map for what a, b, c and d are."""

    time_ns: int
    """By the tracer's clock; 0 without one."""
    fn: int
    sk: int
    a: int
    b: int
    c: int
    d: int
    engine_us: int
    """The engine's time (`now_us` of what `attach` was given); 0 without one."""


class Tracer:
    """A ring of `capacity` records.  `clock` is a callable of nanoseconds; `engine` is anything with a `now_us`."""

    __slots__ = ("capacity", "clock", "count", "engine", "records")

    def __init__(self, clock: Callable[[], int] | None = None, capacity: int = 65_536) -> None:
        self.capacity = capacity
        self.count = 0
        self.clock = clock
        self.engine: Any = None
        self.records = memoryview(bytearray(8 * _WIDTH * capacity)).cast("q")

    @property
    def lost(self) -> int:
        """Records that newer ones have overwritten."""
        return self.count - self.capacity if self.count > self.capacity else 0

    def clear(self) -> None:
        """Forget everything recorded so far."""
        self.count = 0


def trace(tracer: Tracer, fn: int, sk: int, a: int = 0, b: int = 0, c: int = 0, d: int = 0) -> None:
    """Record that function `fn` reports a, b, c, d about socket row `sk`."""
    at = tracer.count % tracer.capacity * _WIDTH
    tracer.records[at] = 0 if tracer.clock is None else tracer.clock()
    tracer.records[at + 1] = fn
    tracer.records[at + 2] = sk
    tracer.records[at + 3] = a
    tracer.records[at + 4] = b
    tracer.records[at + 5] = c
    tracer.records[at + 6] = d
    tracer.records[at + 7] = 0 if tracer.engine is None else tracer.engine.now_us
    tracer.count += 1


def records(tracer: Tracer, since: int = 0) -> Iterator[Record]:
    """The records still there, oldest first; `since`: only those from that count on (`tracer.count`, remembered)."""
    for index in range(max(since, tracer.lost), tracer.count):
        at = index % tracer.capacity * _WIDTH
        yield Record(*tracer.records[at : at + _WIDTH])


def attach(tracer: Tracer | None, net: Any) -> None:
    """Have `net`, and the hash tables it holds, report to `tracer`; None turns tracing off."""
    net.tracer = tracer
    net.h.tracer = tracer
    if tracer is not None:
        tracer.engine = net
