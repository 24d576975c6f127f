"""Choosing a local port with very many destinations: what is not in the cache costs, and maps would cost memory."""

from __future__ import annotations

from functools import partial
from time import perf_counter_ns

from benchmarks import loops
from benchmarks.ports import DADDR, NOW_US, World
from benchmarks.report import Goal, Table, medians, verdict
from fourtuple.inet.dest import DEST_FIELDS
from fourtuple.inet.portset import SET_BYTES

# (destinations, connections)
CASES = ((1, 14_000), (40, 10**6), (1_000, 10**6), (10_000, 10**6), (100_000, 10**5), (100_000, 10**6))
QUICK = ((1, 5_000), (100, 20_000), (1_000, 20_000))


class Many(World):
    """`n` connections spread evenly over `dests` destinations; the socket rows of what is timed are in the cache."""

    def __init__(self, dests: int, n: int) -> None:
        super().__init__(0.0, max_sockets=n + 4096)
        self.fill(n, dests)
        self.batch = 1000
        self.at_random = (self.h, self.rows, self.sk, 20_000, DADDR, dests, NOW_US)

    def search_at_random_ns(self) -> float:
        start = perf_counter_ns()
        loops.searches_at_random(*self.at_random)
        middle = perf_counter_ns()
        loops.offsets_at_random(*self.at_random)
        return (2 * middle - start - perf_counter_ns()) / self.at_random[3]

    def bytes_each(self) -> float:
        """Of what is kept for each destination: interned rows, their index, port maps."""
        dests = self.h.dests
        row = sum({"I": 4, "H": 2}[code] for _, code in DEST_FIELDS)
        total = dests.used * row + dests.index.table.capacity * 4 + self.h.sets.used * SET_BYTES
        return total / self.rows.n


def run(quick: bool) -> list[Table]:
    """From one destination to 100,000."""
    table = Table(
        "destinations",
        "Many destinations, each connect() to one by chance: ns each",
        ("destinations", "connections", "search", "all of connect", "bytes of maps a connection", ""),
        notes=(
            "search: the limit is 200 ns, and 8 bytes a connection for destinations, their index and port maps.",
            "A miss of the last-level cache costs 130-160 ns on the machine these limits were set on.",
        ),
    )
    for dests, n in QUICK if quick else CASES:
        many = Many(dests, n)
        (search,), _ = medians([many.search_at_random_ns], 3 if quick else 15)
        (connect,), _ = medians([partial(many.connect_ns, 20_000, dests)], 3 if quick else 15)
        size = many.bytes_each()
        fits = "" if n < 10 * dests else verdict(max(search / 200, size / 8), 1)
        table.rows.append((f"{dests:,}", n, search, connect, size, fits))
        if fits:
            table.goals.append(Goal.at_most(f"search, {n:,} to {dests:,} destinations, ns", search, 200))
    return [table]
