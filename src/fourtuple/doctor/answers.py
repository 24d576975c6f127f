"""What the doctor answers: frozen records of numbers, each with its unit in its name, that go to JSON as they are.

Lives here: shapes only.  Does not live here: how a number comes about (predict.py, cost.py).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, is_dataclass
from typing import Any


@dataclass(frozen=True)
class Interval:
    """A number of ports that what nobody can see leaves open: against connect(), likely, in its favour."""

    low: int
    likely: int
    high: int

    @property
    def is_exact(self) -> bool:
        """Nothing is open."""
        return self.low == self.high


@dataclass(frozen=True)
class Passed:
    """Ports that the next connect() passes over before the one it gets, over all places where it may start."""

    mean: float
    p50: int
    p95: int
    max: int


@dataclass(frozen=True)
class Cost:
    """Microseconds of one non-blocking connect() to a remote peer: port search and SYN, no handshake.

    low to high is what the mean search may take on machines like the measured one; p95 is `likely` for a start that
    is worse than 95 % of all.
    """

    low: float
    likely: float
    high: float
    p95: float


@dataclass(frozen=True)
class WithPortRange:
    """The same connect() with IP_LOCAL_PORT_RANGE set on the socket (Linux 6.3): step 1, no parity, no cliff."""

    low_port: int
    high_port: int
    free: Interval
    passed: Passed
    cost_us: Cost
    errno: str


@dataclass(frozen=True)
class Rate:
    """From two readings.  Opened and closed are lower bounds: a port used twice in between shows once, or not at all.

    0.0 s: it is there already; None: not approaching.
    """

    seconds_between: float
    growth_per_s: float
    opened_per_s: float
    closed_per_s: float
    cliff_in_s: float | None
    full_in_s: float | None


@dataclass(frozen=True)
class Prediction:
    """What the next connect() from one source to one destination meets."""

    family: int
    """4 or 6."""
    source: str
    """`*`: an address that has no connection there."""
    destination: str
    """`*` with port 0: one that nobody is connected to."""
    port: int
    device: int
    """Number of the device that the sockets are bound to, 0 for none."""
    used: int
    """Sockets to this destination whose port connect() may have chosen, TIME_WAITs included."""
    by_state: dict[str, int]
    ports_in_range: int
    used_in_range_ports: int
    """Ports of the range that this destination's own sockets keep it from."""
    fill: float
    """0 to 1: the ports of the range that the next connect() cannot have."""
    free: Interval
    free_first: Interval
    """Of the parity that connect() looks at first (that of the range's low end)."""
    free_second: Interval
    reserved_ports: int
    shut_sure_ports: int
    """Ports of the range with a listener, a bound socket or an accepted connection."""
    shut_likely_ports: int
    """Ports that by their parity look as if bind(addr, 0) had taken them: inferred."""
    doubtful_ports: int
    """Ports that are free unless bind() took them for sockets that are connected elsewhere: nobody can see it."""
    time_wait_blocking_ports: int
    time_wait_reusable_ports: int
    passed: Passed
    passed_if_bound: Passed
    """If all that is in doubt is bound."""
    passed_if_free: Passed
    """If none of it is."""
    cost_us: Cost
    baseline_us: Cost
    """The same where the range is empty."""
    errno: str
    """Of the next connect(): "" or EADDRNOTAVAIL."""
    errno_certain: bool
    failing_share: float
    """Of all places where the search may start (less than 1 only in a range of odd size)."""
    to_cliff_ports: Interval
    """Connects until the first parity is exhausted and each one walks all of it first; 0 past it."""
    to_full_ports: Interval
    """Connects until EADDRNOTAVAIL."""
    with_port_range: WithPortRange | None
    """None where it makes no difference worth a look (fill below a quarter), or is set already."""
    inferred: tuple[str, ...]
    """Fields of this record that rest on what cannot be seen."""
    reasons: tuple[str, ...]
    rate: Rate | None = None


@dataclass(frozen=True)
class HeldPort:
    """A port of the range that connect() passes over whole, whatever the destination."""

    port: int
    kind: str
    """listen, bound, accepted, connected, time_wait, reserved."""
    certainty: str
    """sure, likely (inferred from parity), possible."""
    inode: int = 0
    pid: int = 0
    command: str = ""


@dataclass(frozen=True)
class Summary:
    """The machine as the port search sees it."""

    sockets: int
    by_state: dict[str, int]
    port_low: int
    port_high: int
    ports_in_range: int
    reserved_in_range: int
    first_parity: str
    """even or odd: which ports connect() looks at first; bind(addr, 0) begins with the others."""
    odd_sized: bool
    tcp_tw_reuse: int
    tcp_tw_reuse_delay_ms: int


def as_json(answer: Any) -> Any:
    """Plain dicts, lists and numbers; fractions to 4 decimals."""
    if is_dataclass(answer) and not isinstance(answer, type):
        return as_json(asdict(answer))
    if isinstance(answer, dict):
        return {str(key): as_json(value) for key, value in answer.items()}
    if isinstance(answer, (list, tuple)):
        return [as_json(value) for value in answer]
    return round(answer, 4) if isinstance(answer, float) else answer
