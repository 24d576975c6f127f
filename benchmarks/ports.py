"""Choosing a local port: by bit sets, within connect(), and by the kernel's loop, at every filling of the range."""

from __future__ import annotations

from functools import partial
from time import perf_counter_ns

from benchmarks import loops
from benchmarks.report import Goal, Table, medians, verdict
from fourtuple.inet.connection_sock import inet_csk_get_port
from fourtuple.inet.hashinfo import InetHashinfo
from fourtuple.inet.secrets import BootSecrets
from fourtuple.inet.sock_table import SockTable
from fourtuple.sysctl import Sysctls

DADDR = 0x0A010000
NOW_US = 1_000_000
LOW, HIGH = 32_768, 60_999  # the default range
PORTS = HIGH - LOW + 1
FILLINGS = (0.0, 50.0, 75.0, 99.0, 99.9)


class World:
    """One namespace's tables, filled to `percent` of the default range towards one destination.

    `shuffled`: after that many connections have been closed by chance and made anew.
    `own_range`: every socket has the range as IP_LOCAL_PORT_RANGE too, which makes the search one of step 1.
    """

    def __init__(
        self, percent: float, shuffled: bool = False, max_sockets: int = 1 << 16, own_range: bool = False
    ) -> None:
        self.label = f"{percent:g} % full" + (", shuffled" if shuffled else "")
        self.h = InetHashinfo(SockTable(max_sockets), Sysctls(), BootSecrets(5), 1 << 10)
        self.rows = loops.Rows(max_sockets)
        if own_range:
            self.rows.opts = self.h.sks.options.replaced(0, port_low=LOW, port_high=HIGH)
        self.shuffled = shuffled
        open_ports = PORTS - self.fill(int(PORTS * percent / 100), 1)
        self.batch = min(max(open_ports // 2, 1), 250)
        if shuffled:
            loops.connect_rounds(self.h, self.rows, self.batch, 2 * PORTS // self.batch, DADDR, 1, True, NOW_US)
        self.sk = loops.new_row(self.h, DADDR, self.rows.opts)
        loops.offsets_alone(self.h, self.rows, self.sk, 1)  # sets the range

    def fill(self, n: int, dests: int) -> int:
        done = loops.fill(self.h, self.rows, n, DADDR, dests, NOW_US)
        assert done == n
        return done

    def used(self) -> int:
        """The destination's map."""
        return self.h.dests.map_index[self.h.sks.dest[self.rows.sk[0]]] if self.rows.n else 0

    def connect_ns(self, n: int, dests: int = 1) -> float:
        rounds = max(n // self.batch, 1)
        took = loops.connect_rounds(self.h, self.rows, self.batch, rounds, DADDR, dests, self.shuffled, NOW_US)
        return (took - loops.clock_cost(rounds)) / (rounds * self.batch)

    def refused_ns(self, n: int) -> float:
        start = perf_counter_ns()
        assert loops.refused(self.h, self.rows, n, DADDR, NOW_US) == n
        return (perf_counter_ns() - start) / n

    def bits_ns(self, n: int) -> float:
        start = perf_counter_ns()
        loops.bit_searches(self.h, self.rows, self.used(), 2 * self.rows.n >= PORTS, n)
        return (perf_counter_ns() - start) / n - self._offsets_ns(n)

    def search_ns(self, n: int) -> float:
        start = perf_counter_ns()
        loops.searches(self.h, self.rows, self.sk, n, NOW_US)
        return (perf_counter_ns() - start) / n - self._offsets_ns(n)

    def kernel_ns(self, n: int) -> float:
        start = perf_counter_ns()
        loops.kernel_scans(self.h, self.rows, self.sk, n)
        return (perf_counter_ns() - start) / n - self._offsets_ns(n)

    def _offsets_ns(self, n: int) -> float:
        start = perf_counter_ns()
        loops.offsets_alone(self.h, self.rows, self.sk, n)
        return (perf_counter_ns() - start) / n


def run(quick: bool) -> list[Table]:
    """Every filling, the full range, the worst mix; each way of searching at all of them in turn."""
    n, rounds = (2000, 3) if quick else (20_000, 15)
    worlds = [World(0.0)] + [World(percent, shuffled) for percent in FILLINGS[1:] for shuffled in (False, True)]
    full = World(99.9)
    full.fill(PORTS - full.rows.n, 1)
    full.label = "100 % (refused)"
    every = [*worlds, full]
    bits, _ = medians([partial(world.bits_ns, n) for world in every], rounds)
    search, _ = medians([partial(world.search_ns, n) for world in every], rounds)
    kernel, _ = medians([partial(world.kernel_ns, n // 100 if world.rows.n else n) for world in every], rounds)
    connects = [partial(world.connect_ns, n) for world in worlds]
    connect, ratios = medians([*connects, partial(full.refused_ns, n), partial(hash_ns, n)], rounds)
    hash_took = connect.pop()
    table = Table(
        "ports",
        "A local port, one destination, range 32768-60999: ns each",
        ("", "bit sets", "search", "all of connect", "kernel's loop, compiled", "loop / search", "connect / empty"),
        notes=(
            "bit sets: the search of the sets; search: with the look-up of the destination, as connect() makes it;",
            "all of connect: inet_hash_connect() with hash, randomness, ehash, bucket, map, in connect + close churn;",
            "kernel's loop: port by port over the same tables (Linux itself takes 27-240 ns a port).",
            f"A SipHash of 16 bytes took {hash_took:.1f} ns in the same rounds (13 ns on an idle machine of 2026).",
            "Filled by connect() itself; shuffled: then every connection closed by chance and made anew, twice.",
        ),
    )
    for i, world in enumerate(every):
        table.rows.append((world.label, bits[i], search[i], connect[i], kernel[i], kernel[i] / search[i], ratios[i]))
    mixed = worst_mix(n // 10, rounds)
    loop = min(kernel[i] / search[i] for i, world in enumerate(worlds) if i > 0 and not world.shuffled)
    return [table, _targets(max(bits), max(connect[:-1]) - hash_took, max(ratios[-4:-2]), ratios[-2], mixed, loop)]


def _targets(bits: float, connect: float, nearly_full: float, refusal: float, mixed: float, loop: float) -> Table:
    table = Table("port targets", "Against the targets", ("", "measured", "limit", ""))
    for what, value, limit in (
        ("bit sets alone, worst filling, ns", bits, 30),
        ("_inet_hash_connect(): connect less its hash, worst, ns", connect, 100),
        ("connect at 99.9 % / at 0 %", nearly_full, 2),
        ("refusal at 100 % / connect at 0 %", refusal, 2),
        ("search, worst mix of half-blocked words, ns", mixed, 1000),
    ):
        table.rows.append((what, value, limit, verdict(value, limit)))
        table.goals.append(Goal.at_most(what.removeprefix("_inet_hash_connect(): "), value, limit))
    table.rows.append(("kernel's loop / search past half, filled in order", loop, 5000, verdict(5000, loop)))
    return table


def hash_ns(n: int) -> float:
    """How fast the machine is just now."""
    start = perf_counter_ns()
    loops.hashes(n)
    return (perf_counter_ns() - start) / n


def worst_mix(n: int, rounds: int) -> float:
    """Every word of the range filled half by bind(), half by connect(): no set is full, both together are."""
    world = World(0.0)
    for port in range(32768, 61000):
        if port & 2:
            assert inet_csk_get_port(world.h, loops.new_row(world.h, 0), port) == 0
    world.fill(PORTS // 2, 1)
    (ns,), _ = medians([partial(world.search_ns, n)], rounds)
    return ns
