"""plan(): does a load fit into the port range, what does each connect() cost, and what would make it fit.

Lives here: the arithmetic of a load, and the options.  Does not live here: what the engine makes of a load
(simulate.py), the price of a port passed over (cost.py).

Rule: every number under `now` and in an option is measured in a simulation of that very load; the arithmetic is beside
it (`demand`) and decides only which options are worth a simulation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil

from fourtuple.doctor.answers import Cost, Passed
from fourtuple.doctor.cost import Kinds, connect_cost
from fourtuple.doctor.simulate import Load, Measured, Pair
from fourtuple.sysctl import Sysctls

_TIME_WAIT_S = 60.0
_WIDE = (1024, 65535)
_KEEP_ALIVE = 20
_FULL = 0.95  # a load that is to fit leaves this much of the range to chance
_CLIFF = 0.49
_MOST = 64
_ARRIVALS = 2_000
_MOST_ARRIVALS = 60_000
_SLOWEST = 1e-6  # connects a second of a pair: fewer hold nothing at once either, and overflow the clock


@dataclass(frozen=True)
class Workload:
    """A load in the steady state.  A connection makes `requests_per_connection` of the `rate_per_s` requests."""

    rate_per_s: float
    hold_s: float
    dests: int = 1
    sources: int = 1
    port_low: int = 32768
    port_high: int = 60999
    tcp_tw_reuse: int = 2
    tcp_tw_reuse_delay_ms: int = 1000
    budget_us: float | None = None
    """What one connect() may cost; None: it only has to succeed."""
    server_closes_first: bool = False
    """Then the TIME_WAIT is the server's."""
    requests_per_connection: int = 1
    local_port_range_option: bool = False
    """IP_LOCAL_PORT_RANGE is set on the sockets (Linux 6.3)."""

    def __post_init__(self) -> None:
        if self.rate_per_s <= 0 or self.hold_s < 0 or (self.budget_us is not None and self.budget_us <= 0):
            raise ValueError("rate, hold and budget are positive numbers")
        if min(self.dests, self.sources, self.requests_per_connection) < 1:
            raise ValueError("destinations, sources and requests are 1 or more")
        if not 1 <= self.port_low <= self.port_high <= 65535:
            raise ValueError(f"no port range: {self.port_low}-{self.port_high}")

    @property
    def ports(self) -> int:
        return self.port_high - self.port_low + 1


@dataclass(frozen=True)
class Demand:
    """What a load holds at once, by arithmetic.  `pairs` of a source and a destination share it evenly."""

    connections_per_s: float
    open_at_once: float
    time_waits: float
    """Those that keep their port from others: with tcp_tw_reuse=1 only the young ones."""
    four_tuples: float
    pairs: int
    four_tuples_per_pair: float
    fill: float
    """Of the range of one pair; over 1: it does not fit."""


@dataclass(frozen=True)
class Outcome:
    """What the engine makes of a load, simulated."""

    fill: float
    """Of the ports of one pair, those in use (TIME_WAITs that may be reused not counted)."""
    failing_share: float
    """Of the connects: EADDRNOTAVAIL."""
    passed: Passed
    cost_us: Cost
    simulated_connects: int


@dataclass(frozen=True)
class Option:
    """One way to make the load fit."""

    text: str
    workload: Workload
    demand: Demand
    outcome: Outcome
    headroom: float
    """How many times this load would still fit."""


@dataclass(frozen=True)
class Plan:
    """The answer.  Times are from an idle start, None: never."""

    workload: Workload
    demand: Demand
    now: Outcome
    fits: bool
    why_not: tuple[str, ...]
    cliff_after_s: float | None
    full_after_s: float | None
    baseline_us: Cost
    options: tuple[Option, ...]


def plan(workload: Workload, seed: int = 1) -> Plan:
    """The plan for a load: simulated as it is, and with each option that the arithmetic lets hope for."""
    demand = demand_of(workload)
    now = simulate(workload, seed)
    why_not = tuple(_why_not(workload, now, demand))
    options = _options(workload, seed) if why_not else []
    fitting = [option for option in options if not any(_why_not(option.workload, option.outcome, option.demand))]
    return Plan(
        workload,
        demand,
        now,
        not why_not,
        why_not,
        None if workload.local_port_range_option else _reached_after_s(workload, demand, 0.5),
        _reached_after_s(workload, demand, 1.0),
        connect_cost(Kinds(), 1.0, round(demand.four_tuples)),
        tuple(fitting),
    )


def demand_of(w: Workload) -> Demand:
    """The load by arithmetic (Little's law)."""
    rate = w.rate_per_s / w.requests_per_connection
    waits_s = 0.0 if w.server_closes_first else _TIME_WAIT_S
    if w.tcp_tw_reuse == 1:
        waits_s = min(waits_s, w.tcp_tw_reuse_delay_ms / 1000)
    pairs = w.sources * w.dests
    total = rate * (w.hold_s + waits_s)
    return Demand(rate, rate * w.hold_s, rate * waits_s, total, pairs, total / pairs, total / pairs / w.ports)


def simulate(w: Workload, seed: int = 1) -> Outcome:
    """One source and destination of the load in the engine's tables."""
    demand = demand_of(w)
    rate = max(demand.connections_per_s / demand.pairs, _SLOWEST)
    sysctls = _sysctls(w)
    load = Load(rate, w.hold_s, not w.server_closes_first, w.local_port_range_option)
    pair = Pair(sysctls, load, seed)
    pair.settle()
    warm_up, arrivals = _how_long(w, demand)
    pair.run(warm_up)
    return _outcome(w, pair.run(arrivals), demand, arrivals)


def _how_long(w: Workload, demand: Demand) -> tuple[int, int]:
    """(warm-up, connects to measure).

    Between half full and full the second parity fills only while the first has no port left, so the number of both
    follows that of the connections slowly, over the life of them all.
    """
    if w.local_port_range_option or demand.fill < 0.48 or demand.fill > 1.05:
        return 100, _ARRIVALS
    turnover = min(_MOST_ARRIVALS // 3, max(_ARRIVALS, round(demand.four_tuples_per_pair)))
    return turnover, turnover


def _sysctls(w: Workload) -> Sysctls:
    sysctls = Sysctls()
    sysctls.port_low, sysctls.port_high = w.port_low, w.port_high
    sysctls.tcp_tw_reuse, sysctls.tcp_tw_reuse_delay = w.tcp_tw_reuse, w.tcp_tw_reuse_delay_ms
    sysctls.generation += 1
    return sysctls


def _outcome(w: Workload, m: Measured, demand: Demand, arrivals: int) -> Outcome:
    young = min(m.time_waits, demand.time_waits / demand.pairs) if w.tcp_tw_reuse == 1 else m.time_waits
    walked = sum(m.passed) + m.failed * w.ports
    passed = Passed(walked / arrivals, _rank(m, w, 0.5), _rank(m, w, 0.95), w.ports if m.failed else _rank(m, w, 1.0))
    share = young / max(1.0, m.open_at_once + young)
    kinds = Kinds(conflicts=passed.mean * (1 - share), time_waits=passed.mean * share)
    worst = passed.p95 / passed.mean if passed.mean else 1.0
    cost = connect_cost(kinds, worst, round(demand.four_tuples))
    return Outcome(min(1.0, (m.open_at_once + young) / w.ports), m.failed / arrivals, passed, cost, arrivals)


def _rank(m: Measured, w: Workload, share: float) -> int:
    """A failed search has passed over everything."""
    i = ceil(share * (len(m.passed) + m.failed)) - 1
    return m.passed[max(0, i)] if i < len(m.passed) else w.ports


def _why_not(w: Workload, outcome: Outcome, demand: Demand) -> Iterator[str]:
    if outcome.failing_share or demand.fill > 1:
        yield f"EADDRNOTAVAIL: {demand.four_tuples_per_pair:.0f} four-tuples for {w.ports} ports"
    if w.budget_us is not None and outcome.cost_us.likely > w.budget_us:
        yield f"a connect() costs {outcome.cost_us.likely:.0f} us, the budget is {w.budget_us:.0f} us"


def _reached_after_s(w: Workload, demand: Demand, share: float) -> float | None:
    """From an idle start nothing ends before hold_s; then TIME_WAITs go on holding what has ended."""
    needed = share * w.ports
    rate = demand.connections_per_s / demand.pairs
    return needed / rate if demand.four_tuples_per_pair >= needed else None


# -- options


def _options(w: Workload, seed: int) -> list[Option]:
    """The candidates, simulated; twice the sources and twice the destinations are the same to a pair."""
    outcomes: dict[Workload, Outcome] = {}
    options = []
    for text, changed in _candidates(w):
        alike = replace(changed, sources=changed.sources * changed.dests, dests=1)
        if alike not in outcomes:
            outcomes[alike] = simulate(alike, seed)
        demand = demand_of(changed)
        headroom = (0.5 if _limit(changed) == _CLIFF else 1.0) / demand.fill
        options.append(Option(text, changed, demand, outcomes[alike], headroom))
    return options


def _limit(w: Workload) -> float:
    """How full a pair may be: with a budget below the price of half the range, less than half."""
    if w.local_port_range_option or w.budget_us is None:
        return _FULL
    half = connect_cost(Kinds(conflicts=w.ports / 2), 1.0, round(demand_of(w).four_tuples)).likely
    return _CLIFF if w.budget_us < half else _FULL


def _candidates(w: Workload) -> Iterator[tuple[str, Workload]]:
    """What could make it fit, the least trouble first: each with as many addresses more as it then needs."""
    wide = _widened(w)
    reuse = replace(w, tcp_tw_reuse=1)
    closed = replace(w, server_closes_first=True)
    kept = replace(w, requests_per_connection=_KEEP_ALIVE * w.requests_per_connection)
    changes = [
        ("IP_LOCAL_PORT_RANGE on the sockets", replace(w, local_port_range_option=True)),
        (f"keep-alive, {_KEEP_ALIVE} requests each: {kept.rate_per_s / kept.requests_per_connection:.3g}/s", kept),
        ("tcp_tw_reuse=1, timestamps on", reuse),
        (f"range {wide.port_low}-{wide.port_high}", wide),
        ("", w),
        ("IP_LOCAL_PORT_RANGE, tcp_tw_reuse=1", replace(reuse, local_port_range_option=True)),
        ("server closes first (no TIME_WAIT here)", closed),
        (
            f"server closes first, range {wide.port_low}-{wide.port_high}",
            replace(closed, port_low=wide.port_low, port_high=wide.port_high),
        ),
    ]
    seen = {w}
    for text, changed in changes:
        for more, spread in _spread(changed):
            if spread not in seen:
                seen.add(spread)
                yield ", ".join(filter(None, (text, more))), spread


def _widened(w: Workload) -> Workload:
    """The widest range that the kernel takes as it is: from the default of ip_unprivileged_port_start on.

    ipv4_local_port_range refuses one that begins lower; where --range does, that sysctl has been lowered.
    """
    if w.port_low < _WIDE[0] and w.port_high - w.port_low >= _WIDE[1] - _WIDE[0]:
        return w
    return replace(w, port_low=_WIDE[0], port_high=_WIDE[1])


def _spread(w: Workload) -> Iterator[tuple[str, Workload]]:
    """The change alone if it is enough, or with more source addresses, or with more destinations."""
    needed = ceil(demand_of(w).fill / _limit(w))
    if needed <= 1:
        yield "", w
    elif needed <= _MOST:
        yield f"{w.sources * needed} source addresses", replace(w, sources=w.sources * needed)
        if not (w.server_closes_first or w.tcp_tw_reuse == 1 or w.local_port_range_option):
            yield f"{w.dests * needed} destinations (addresses or ports)", replace(w, dests=w.dests * needed)
