"""What the doctor takes: a whole program at 20,000 sockets, and half a million of them read, grouped and judged.

The sockets are those of benchmarks/live_sockets.py: every 20,000 of them fill a destination to 71 %, so that there is
something to find.  Elapsed time is what a user of this machine waits now; the verdicts are those of CPU time: nothing
here waits, so it is what an idle machine takes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import NamedTuple

from benchmarks.live_sockets import DEVICE, PER_DESTINATION, Sockets, children_s, inside
from benchmarks.report import Cell, Goal, Table, verdict
from fourtuple.shell.netns import PrivateNamespace

VERSION_MS, DOCTOR_MS, JUDGED_MS, JUDGED_MB = 60, 150, 1500, 100
MANY = 500_000
_PROGRAM = str(Path(sys.executable).parent / "fourtuple")
_FOUND_SOMETHING = (10, 11)

# What a program does that has the library imported, and what it says of itself: ms of each part, peak memory.
_JUDGE = """
import json, time
from fourtuple.doctor.findings import Question, diagnose
from fourtuple.doctor.reading import Reading
from fourtuple.live import sockets
from fourtuple.live.system import read_system
start = time.perf_counter()
times = [time.process_time()]
table = sockets()
times.append(time.process_time())
reading = Reading(table, read_system())
reading.groups
times.append(time.process_time())
reading.state.tables
times.append(time.process_time())
found = diagnose(reading, Question())
times.append(time.process_time())
elapsed = time.perf_counter() - start
status = open("/proc/self/status").read()
peak = int(status.partition("VmHWM:")[2].split()[0]) / 1024
ms = [1e3 * elapsed, *(1e3 * (b - a) for a, b in zip(times, times[1:]))]
print(json.dumps({"n": len(table), "ill": sum(p.fill > 0.7 for p in found.predictions), "figures": [*ms, peak]}))
"""


class Took(NamedTuple):
    """Milliseconds of a whole program."""

    elapsed: float
    cpu: float


class Judged(NamedTuple):
    """Milliseconds, then of CPU: the kernel's listing, grouping, into the engine's tables, predictions and findings."""

    elapsed: float
    read: float
    group: float
    load: float
    judge: float
    peak_mb: float

    @property
    def cpu(self) -> float:
        """All of it."""
        return self.read + self.group + self.load + self.judge


def run(quick: bool) -> list[Table]:
    rounds = 1 if quick else 9
    columns = ("", "measured", "elapsed", "target", "")
    programs = Table("doctor", "Whole programs: ms of CPU, and elapsed", columns)
    judged = Table(
        "doctor, judging", "Sockets read, grouped and judged in one program: ms of CPU, and elapsed", columns
    )
    with PrivateNamespace.start(tun=DEVICE, kernel_address="10.89.0.1/16") as namespace, ExitStack() as stack:
        _keep_bytecode(stack)
        sockets = Sockets(namespace.pid, stack)
        _version()
        programs.rows.append(_row("fourtuple --version", [_version() for _ in range(rounds)], VERSION_MS))
        sockets.grow(PER_DESTINATION)
        _doctor(sockets)
        took = [_doctor(sockets) for _ in range(rounds)]
        programs.rows.append(_row(f"fourtuple doctor, {sockets.count:,} sockets", took, DOCTOR_MS))
        if not quick:
            sockets.grow(MANY)
            took = [_doctor(sockets) for _ in range(3)]
            programs.rows.append(_row(f"fourtuple doctor, {sockets.count:,} sockets", took, None))
        judged.rows += _judged_rows(sockets.count, [_judge(sockets) for _ in range(1 if quick else 5)])
    programs.notes = ("from the start of the program to its end, its bytecode cached; medians.",)
    judged.notes = ("the imports are made before; the memory is that of the whole program, Python included.",)
    for table in (programs, judged):
        table.goals = [_goal(row) for row in table.rows if row[-1]]
    return [programs, judged]


def _goal(row: Sequence[Cell]) -> Goal:
    what, measured, _, limit, _ = row
    unit = "" if "MB" in str(what) else ", ms of CPU"
    return Goal.at_most(f"{what}{unit}", float(measured or 0), float(limit or 0))


def _keep_bytecode(stack: ExitStack) -> None:
    """As an installed package has it: the first run of a program writes it, and is not measured."""
    before = dict(os.environ)
    stack.callback(os.environ.update, before)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = stack.enter_context(tempfile.TemporaryDirectory())
    if "PYTHONPYCACHEPREFIX" not in before:
        stack.callback(os.environ.pop, "PYTHONPYCACHEPREFIX", None)


def _version() -> Took:
    return _timed([_PROGRAM, "--version"])[0]


def _doctor(sockets: Sockets) -> Took:
    took, output = _timed(inside(sockets.pid, _PROGRAM, "doctor"), _FOUND_SOMETHING)
    assert "203.0.113.1:443" in output, output
    return took


def _timed(command: list[str], codes: tuple[int, ...] = (0,)) -> tuple[Took, str]:
    cpu, start = children_s(), time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    took = Took(1e3 * (time.perf_counter() - start), 1e3 * (children_s() - cpu))
    assert done.returncode in codes, done.stderr
    return took, done.stdout


def _judge(sockets: Sockets) -> Judged:
    _, output = _timed(inside(sockets.pid, sys.executable, "-c", _JUDGE))
    said = json.loads(output)
    assert said["n"] >= sockets.count
    assert said["ill"] == sockets.count // PER_DESTINATION
    return Judged(*said["figures"])


def _row(name: str, took: Sequence[Took | Judged], limit: float | None) -> list[Cell]:
    cpu = median(each.cpu for each in took)
    return [name, cpu, median(each.elapsed for each in took), limit, verdict(cpu, limit) if limit else None]


def _memory_row(name: str, found: list[Judged], limit: float | None) -> list[Cell]:
    peak = median(each.peak_mb for each in found)
    return [name, peak, None, limit, verdict(peak, limit) if limit else None]


def _judged_rows(count: int, found: list[Judged]) -> list[list[Cell]]:
    """The targets are those of half a million sockets."""
    ms, mb = (JUDGED_MS, JUDGED_MB) if count >= MANY else (None, None)
    of_all = f"{count:,} sockets read, grouped, judged"
    parts: list[list[Cell]] = [
        [f"- {part}", median(getattr(each, part) for each in found), None, None, None]
        for part in ("read", "group", "load", "judge")
    ]
    return [_row(of_all, found, ms), *parts, _memory_row(f"{count:,} sockets, peak MB", found, mb)]
