"""Tables of numbers: printed for reading, or as JSON; the machine they were measured on; medians."""

from __future__ import annotations

import json
import os
import platform
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

Cell = float | int | str | None


@dataclass(frozen=True)
class Goal:
    """A target, for the summary: ours is at most `target`, or `ratio`, of the peer's figure to ours, at least that."""

    what: str
    ours: Cell
    peer: Cell
    ratio: float | None
    target: str
    verdict: str

    @classmethod
    def at_most(cls, what: str, value: float, limit: float, unit: str = "", peer: Cell = None) -> Goal:
        """Our own figure is limited."""
        return cls(what, _text(value), peer, None, f"<= {_text(limit)} {unit}".rstrip(), verdict(value, limit))

    @classmethod
    def exactly(cls, what: str, value: float, wanted: float, peer: Cell = None) -> Goal:
        """Our own figure has to be this."""
        return cls(what, value, peer, None, _text(wanted), "within" if value == wanted else "SHORT")

    @classmethod
    def at_least(cls, what: str, ours: Cell, peer: Cell, ratio: float, limit: float) -> Goal:
        """The peer's figure, divided by ours or the other way round, is at least `limit`: the larger the better."""
        return cls(what, ours, peer, ratio, f">= {_text(limit)} x", verdict(limit, ratio))


@dataclass
class Table:
    """`rows` under `columns`; the first cell of a row says what it is."""

    name: str
    title: str
    columns: Sequence[str]
    rows: list[Sequence[Cell]] = field(default_factory=list)
    notes: Sequence[str] = ()
    goals: list[Goal] = field(default_factory=list)

    def text(self) -> str:
        """For reading: numbers to the right, three digits or so."""
        cells = [list(self.columns)] + [[_text(cell) for cell in row] for row in self.rows]
        widths = [max(len(row[i]) for row in cells) for i in range(len(self.columns))]
        lines = [self.title, "-" * len(self.title)]
        for row in cells:
            others = (text.rjust(width) for text, width in zip(row[1:], widths[1:], strict=True))
            lines.append("  ".join([row[0].ljust(widths[0]), *others]).rstrip())
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])


def _text(cell: Cell) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, str):
        return cell
    if abs(cell) >= 100 or cell == int(cell):
        return f"{cell:,.0f}"
    return f"{cell:.3g}"


def goals_table(goals: Sequence[Goal], title: str = "Against the targets") -> Table:
    """What, ours, the peer's, ratio, target, verdict: one row each."""
    table = Table("targets", title, ("", "ours", "peer", "ratio", "target", ""))
    table.rows = [(goal.what, goal.ours, goal.peer, goal.ratio, goal.target, goal.verdict) for goal in goals]
    return table


def say(text: str) -> None:
    """Progress, on stderr, for whoever looks at a terminal."""
    if sys.stderr.isatty():
        print(f"\r{text[:78]:<78}", end="\r", file=sys.stderr, flush=True)


def machine() -> dict[str, str]:
    """What the figures depend on."""
    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "cpu": f"{_cpu_name()}, {os.cpu_count()} cores",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "memory": f"{_memory_mb():,} MB",
        "python": platform.python_version(),
        "load": f"{os.getloadavg()[0]:.1f}",
    }


def _memory_mb() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGESIZE") >> 20


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def as_json(tables: Sequence[Table], before: dict[str, str] | None = None) -> str:
    """{"machine": {...}, "tables": [{name, title, columns, rows, notes, goals}]}"""
    facts = before or machine()
    facts |= {"load at the end": f"{os.getloadavg()[0]:.1f}"}
    return json.dumps({"machine": facts, "tables": [asdict(table) for table in tables]}, indent=1)


def slug(text: str) -> str:
    """For a file name: "AMD EPYC, 2 cores" is amd-epyc-2-cores."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def medians(measures: Sequence[Callable[[], float]], rounds: int) -> tuple[list[float], list[float]]:
    """Run all measures in turn, `rounds` times: the median of each, and of its ratio to the first in the same round.

    In turn, because the machine is shared: what slows one measure of a round down slows the others down too.
    """
    runs = [[measure() for measure in measures] for _ in range(rounds)]
    values = [median(run[i] for run in runs) for i in range(len(measures))]
    ratios = [median(run[i] / run[0] if run[0] else 0.0 for run in runs) for i in range(len(measures))]
    return values, ratios


def verdict(value: float, limit: float) -> str:
    """Is a figure within its target?"""
    return "within" if value <= limit else "SHORT"
