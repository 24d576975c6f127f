"""Reading the kernel's TCP sockets: beside `ss` and psutil, and at half a million of them.

The sockets are connections of the kernel's own client in TCP_REPAIR (which sends nothing) to destinations of 20,000
ports each, held by C programs in a private namespace.  Every reading is a program of its own, start and
imports included.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from statistics import median
from typing import NamedTuple

from benchmarks.native import Native
from benchmarks.report import Cell, Goal, Table, verdict
from fourtuple.shell.netns import PrivateNamespace

DEVICE = "ftb0"
PER_DESTINATION = 20_000
RANGE = (32_768, 60_999)  # the own range of each socket: past half of it a connect() would take a millisecond
LIMITS_MS = {20_000: 150, 500_000: 1500}
LIMIT_MB = 100
SS_FACTOR, PSUTIL_FACTOR = 1.5, 10

# What is run, and what it says of itself: seconds of its parts, sockets, destinations, peak memory.
_OURS = """
import json, time
from fourtuple.live import sockets
start = time.process_time()
table = sockets()
read = time.process_time()
groups = table.group_by_destination()
done = time.process_time()
status = open("/proc/self/status").read()
peak = int(status.partition("VmHWM:")[2].split()[0]) / 1024
print(json.dumps({"n": len(table), "groups": len(groups), "read": read - start, "group": done - read, "peak_mb": peak}))
"""
_PSUTIL = """
import json, time
import psutil
start = time.process_time()
n = len(psutil.net_connections("tcp"))
print(json.dumps({"n": n, "read": time.process_time() - start}))
"""


class Cost(NamedTuple):
    """CPU seconds of a program, and of the call in it; for `ss` there is only the program."""

    program: float
    call: float


class Sockets:
    """As many sockets of a namespace as wanted; a reading of them by each way."""

    def __init__(self, pid: int, stack: ExitStack) -> None:
        self.pid = pid
        self._stack = stack
        self.count = 0
        self.parts: list[dict[str, float]] = []

    def grow(self, wanted: int) -> None:
        """Up to `wanted`, whole destinations."""
        while self.count < wanted:
            peer = f"203.0.113.{1 + self.count // PER_DESTINATION}"
            program = self._stack.enter_context(Native("kernel_search", self.pid, peer, 443))
            (done,) = program.ask("fill", PER_DESTINATION, *RANGE)
            assert done == PER_DESTINATION, f"{done} of {PER_DESTINATION} connections"
            self.count += done

    def ours(self) -> Cost:
        took, output = self._run(sys.executable, "-c", _OURS)
        said = json.loads(output)
        assert said["n"] >= self.count
        assert said["groups"] >= self.count // PER_DESTINATION
        self.parts.append(said)
        return Cost(took, said["read"] + said["group"])

    def ss(self) -> Cost:
        took, output = self._run("ss", "-Htan")
        assert output.count("\n") >= self.count
        return Cost(took, took)

    def psutil(self) -> Cost:
        took, output = self._run(sys.executable, "-c", _PSUTIL)
        said = json.loads(output)
        assert said["n"] >= self.count
        return Cost(took, said["read"])

    def _run(self, *command: str) -> tuple[float, str]:
        before = children_s()
        done = subprocess.run(inside(self.pid, *command), check=True, capture_output=True, text=True)
        return children_s() - before, done.stdout


def inside(pid: int, *command: str) -> list[str]:
    """The command line that runs a program in the network namespace of a process."""
    other_user = os.stat(f"/proc/{pid}/ns/user").st_ino != os.stat("/proc/self/ns/user").st_ino
    user = ["--user", "--preserve-credentials"] if other_user else ["--preserve-credentials"]
    return ["nsenter", "--net", *user, "--target", str(pid), *command]


def children_s() -> float:
    """CPU time of all programs that have ended: nothing here waits, so it is what an idle machine takes."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def run(quick: bool) -> list[Table]:
    sizes = (20_000,) if quick else (20_000, 500_000)
    table = Table(
        "live sockets",
        "All TCP sockets of a namespace read and grouped by destination: ms of CPU",
        ("", "ours", "ss -Htan", "ss / ours", "psutil", "psutil / ours"),
    )
    targets = Table("live sockets targets", "Against the targets", ("", "measured", "target", ""))
    with PrivateNamespace.start(tun=DEVICE, kernel_address="10.89.0.1/16") as namespace, ExitStack() as stack:
        sockets = Sockets(namespace.pid, stack)
        for size in sizes:
            sockets.grow(size)
            program, call = _compare(sockets, 1 if quick else 5)
            table.rows += [(f"{size:,} sockets, program", *program), (f"{size:,} sockets, call", *call)]
            targets.rows += _verdicts(size, program, call)
            targets.goals += _goals(size, program, call)
        group = 1e9 * median(part["group"] for part in sockets.parts) / sockets.count
        peak = median(part["peak_mb"] for part in sockets.parts)
    targets.rows.append((f"{size:,} sockets, peak MB", peak, LIMIT_MB, verdict(peak, LIMIT_MB)))
    targets.goals.append(Goal.at_most(f"{size:,} sockets read, peak MB", peak, LIMIT_MB))
    table.notes = (
        "program: from its start, imports included. call: in a program that runs already (ss is always a program).",
        f"grouping is {group:.0f} ns a socket of it, and nearly all of the rest is the kernel's listing.",
        "psutil reads /proc/net, and looks for the owners in /proc, which it cannot be told to leave.",
    )
    return [table, targets]


Row = list[float | None]


def _compare(sockets: Sockets, rounds: int) -> tuple[Row, Row]:
    """The programs and the calls; None: not measured (psutil is not installed, or would take a minute)."""
    sockets.parts.clear()
    ways = [sockets.ours, sockets.ss]
    if find_spec("psutil") and sockets.count <= PER_DESTINATION:
        ways.append(sockets.psutil)
    runs = [[way() for way in ways] for _ in range(rounds)]
    return _row([[cost.program for cost in run] for run in runs]), _row([[cost.call for cost in run] for run in runs])


def _row(runs: list[list[float]]) -> Row:
    """ms of each way, and its median ratio to ours of the same round."""
    row: Row = [1e3 * median(run[0] for run in runs)]
    for way in range(1, 3):
        measured = way < len(runs[0])
        row.append(1e3 * median(run[way] for run in runs) if measured else None)
        row.append(median(run[way] / run[0] for run in runs) if measured else None)
    return row


def _verdicts(size: int, program: Row, call: Row) -> list[Sequence[Cell]]:
    took, limit = program[0] or 0.0, LIMITS_MS[size]
    found: list[Sequence[Cell]] = [(f"{size:,} sockets, program", took, limit, verdict(took, limit))]
    for name, ratio, least in (("ss", call[2], SS_FACTOR), ("psutil", call[4], PSUTIL_FACTOR)):
        if ratio is not None:
            found.append((f"{size:,} sockets, {name} / our call", ratio, least, verdict(least, ratio)))
    return found


def _goals(size: int, program: Row, call: Row) -> list[Goal]:
    """The same for the summary."""
    goals = [Goal.at_most(f"{size:,} sockets read, ms of CPU", program[0] or 0.0, LIMITS_MS[size])]
    for name, at, least in (("ss", 1, SS_FACTOR), ("psutil", 3, PSUTIL_FACTOR)):
        theirs, ratio = call[at], call[at + 1]
        if ratio is not None:
            what = f"{size:,} sockets read, {name} / ours, ms of CPU"
            goals.append(Goal.at_least(what, call[0], theirs, ratio, least))
    return goals
