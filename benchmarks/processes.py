"""Two processes beside one: the dial divided over two stacks, each with a TUN of its own into one namespace.

Each way starts afresh every time, in an order that alternates.  The machine is shared, so the verdict is that of CPU
time: how many times more two free cores open in a second, given what a connection costs when both are at work.
"""

from __future__ import annotations

from statistics import median
from typing import NamedTuple

from benchmarks.report import Goal, Table, goals_table, say
from benchmarks.tun import WINDOW
from fourtuple.dial.plan import DialPlan, Target, expand
from fourtuple.dial.processes import run_processes
from fourtuple.dial.wiring import Wiring

NETWORK, PORT = "10.64.128.0/28", 7000
LIMIT = 1.8


class Took(NamedTuple):
    """Of one dial: connections a second, CPU us of each."""

    rate: float
    cpu_us: float


def dial(processes: int, n: int) -> Took:
    """n connections for each process."""
    count = n * processes
    targets = tuple(Target(address, PORT) for address in expand(NETWORK))
    plan = DialPlan(count, targets, wire="tun", window=WINDOW, close="rst", processes=processes)
    report = run_processes(plan, Wiring(servers=((NETWORK, PORT),)))
    if report.connections.established != count:
        said = "; ".join(worker.error for worker in report.workers if worker.error)
        raise RuntimeError(f"{report.connections.established:,} of {count:,} connections were established {said}")
    return Took(count / report.seconds.open, report.cpu_s.opening * 1e6 / count)


def run(quick: bool) -> list[Table]:
    """One and two in turn, and turned round."""
    n, rounds = (2_000, 1) if quick else (100_000, 7)
    found: dict[int, list[Took]] = {1: [], 2: []}
    for i in range(rounds):
        say(f"processes: round {i + 1} of {rounds}")
        for processes in ((1, 2), (2, 1))[i % 2]:
            found[processes].append(dial(processes, n))
    pairs = list(zip(found[1], found[2], strict=True))
    by_time = median(two.rate / one.rate for one, two in pairs)
    by_cpu = median(2 * one.cpu_us / two.cpu_us for one, two in pairs)
    table = Table(
        "processes",
        f"One process and two, {n:,} connections each",
        ("", "connections/s", "CPU us each"),
        notes=(
            f"Two open {by_time:.2f} times as many a second as one, elapsed; {by_cpu:.2f} times by CPU time, which",
            f"is what two free cores would do. Medians of {rounds} rounds, the order turned round in every other one.",
        ),
    )
    for processes, took in found.items():
        table.rows.append((f"processes: {processes}", *(median(figures) for figures in zip(*took, strict=True))))
    goal = Goal.at_least(
        "two processes / one, opened/s by CPU",
        round(1e6 * 2 / median(took.cpu_us for took in found[2])),
        round(1e6 / median(took.cpu_us for took in found[1])),
        by_cpu,
        LIMIT,
    )
    targets = goals_table([goal], "Two processes, against the target")
    targets.name, targets.goals = "processes targets", [goal]
    return [table, targets]
