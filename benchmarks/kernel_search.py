"""The live kernel's search for a local port beside ours, at every filling of the range, in the same run.

A connect() of a socket in TCP_REPAIR sends nothing: what is left is the system call, the route, the search and the
tables.  The same call on a socket that is bound already does all of it but the search, and is taken off.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from statistics import median
from typing import NamedTuple

from benchmarks.native import Native
from benchmarks.ports import HIGH, LOW, PORTS, World
from benchmarks.report import Cell, Goal, Table, medians, verdict
from fourtuple.shell.netns import PrivateNamespace

DEVICE = "ftb0"
PEERS = ("203.0.113.7", "203.0.113.8")
FILLINGS = (0.0, 25.0, 49.0, 51.0, 75.0, 99.0, 99.9, 100.0)
QUICK = (0.0, 51.0)
BOUND_PORT = 20_000
CALLS, SLOW_CALLS, REFUSED_CALLS = 200, 25, 6  # in a round: to the kernel they take 0.5 us, 1 ms and 3 ms
OUR_CALLS = 20_000
LIMIT = 5000  # times: search against search, past half


class Kernel:
    """The kernel's sockets of one way of searching, and what a call of each kind cost in each round."""

    def __init__(self, program: Native, own_range: bool) -> None:
        self._ask = program.ask
        self._range = (LOW, HIGH) if own_range else (0, 0)
        self._held = 0

    def fill(self, percent: float) -> None:
        wanted = int(PORTS * percent / 100) - self._held
        (done,) = self._ask("fill", wanted, *self._range)
        assert done == wanted, f"{done} of {wanted} connections: another program uses this namespace?"
        self._held += done

    def calls(self) -> int:
        if self._held == PORTS:
            return REFUSED_CALLS
        return SLOW_CALLS if 2 * self._held >= PORTS and not self._range[0] else CALLS

    def connect_ns(self, p95s: list[float]) -> float:
        n = self.calls()
        took, p95, refused = self._ask("search", n, *self._range)
        assert refused == (n if self._held == PORTS else 0)
        p95s.append(p95)
        return took

    def bound_ns(self) -> float:
        return self._ask("bound", CALLS, BOUND_PORT)[0]


def run(quick: bool) -> list[Table]:
    """Plainly, and with IP_LOCAL_PORT_RANGE on every socket."""
    rounds, fillings = (2, QUICK) if quick else (7, FILLINGS)
    with PrivateNamespace.start(tun=DEVICE, kernel_address="10.88.0.1/16") as namespace:
        plain, ranged = (_compare(namespace, own_range, fillings, rounds) for own_range in (False, True))
    worst = min(row[-1] for row in plain.rows if isinstance(row[-1], int | float))
    targets = Table("kernel search targets", "Against the target", ("", "measured", "at least", ""))
    what = "kernel's search past half / ours"
    targets.rows.append((what, worst, LIMIT, verdict(LIMIT, worst)))
    targets.goals.append(Goal.at_least(f"{what}, ns", *slowest(plain), worst, LIMIT))
    return [plain, ranged, targets]


def slowest(table: Table) -> tuple[Cell, Cell]:
    """Our search and the kernel's, ns, where theirs is the least times slower than ours past half."""
    rows = [row for row in table.rows if isinstance(row[-1], int | float)]
    row = min(rows, key=lambda row: float(row[-1] or 0))
    return row[6], row[3]


def _compare(namespace: PrivateNamespace, own_range: bool, fillings: tuple[float, ...], rounds: int) -> Table:
    plainly = f"The live kernel's search for a port beside ours; {PORTS:,} ports, one destination: ns each"
    table = Table(
        "kernel search, own range" if own_range else "kernel search",
        "The same with IP_LOCAL_PORT_RANGE on every socket, also those that fill: ns each" if own_range else plainly,
        ("", "connect()", "p95", "its search", "ours", "kernel / ours", "our search alone", "search / search"),
    )
    with Native("kernel_search", namespace.pid, PEERS[own_range], 443) as program:
        kernel = Kernel(program, own_range)
        trivial = program.ask("trivial", 1000)[0]
        levels = [_level(kernel, percent, own_range, rounds) for percent in fillings]
    for percent, level in zip(fillings, levels, strict=True):
        beyond = (level.search - levels[0].search) / level.our_search if percent > 50 and not own_range else None
        label = "100 % (refused)" if percent == 100 else f"{percent:g} % full"
        table.rows.append((label, *level[:4], level.search / level.ours, level.our_search, beyond))
    if not own_range:
        table.notes = _notes(levels, trivial)
    return table


def _notes(levels: Sequence[Level], trivial: int) -> tuple[str, ...]:
    rest = median(level.rest for level in levels)
    full = levels[-1]
    return (
        "connect(): the CPU time of a C program's call; the socket is in TCP_REPAIR, so nothing is sent. its search:",
        f"that less the same call of a socket bound before ({rest:,.0f}; getppid(): {trivial:,}, mostly the clock's);",
        f"{full.search / PORTS:.0f} for each port of the range in the last row.",
        "ours: inet_hash_connect(), which does what a bound socket saves: hash, search, bucket, tables.",
        "search / search: what the kernel's takes longer than at 0 %, by our search alone.",
    )


class Level(NamedTuple):
    """One filling; ns of a call, medians."""

    connect: float
    p95: float
    search: float
    """the kernel's: `connect` less `rest`"""
    ours: float
    our_search: float
    rest: float


def _level(kernel: Kernel, percent: float, own_range: bool, rounds: int) -> Level:
    """The kernel and we fill to `percent`, then every way of calling in turn."""
    kernel.fill(percent)
    world = World(percent, own_range=own_range)
    ours = world.refused_ns if percent == 100 else world.connect_ns
    p95s: list[float] = []
    (connect, rest, took, search), _ = medians(
        [
            partial(kernel.connect_ns, p95s),
            kernel.bound_ns,
            partial(ours, OUR_CALLS),
            partial(world.search_ns, OUR_CALLS),
        ],
        rounds,
    )
    return Level(connect, median(p95s), max(connect - rest, 0.0), took, search, rest)
