"""Tables of numbers: printed for reading, or as JSON; the machine they were measured on; medians."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

Cell = float | int | str | None


@dataclass
class Table:
    """`rows` under `columns`; the first cell of a row says what it is."""

    name: str
    title: str
    columns: Sequence[str]
    rows: list[Sequence[Cell]] = field(default_factory=list)
    notes: Sequence[str] = ()

    def text(self) -> str:
        """For reading: numbers to the right, three digits or so."""
        cells = [list(self.columns)] + [[_text(cell) for cell in row] for row in self.rows]
        widths = [max(len(row[i]) for row in cells) for i in range(len(self.columns))]
        lines = [self.title, "-" * len(self.title)]
        for row in cells:
            first, *others = (text.rjust(width) for text, width in zip(row, widths, strict=True))
            lines.append("  ".join([first.lstrip().ljust(widths[0]), *others]).rstrip())
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])


def _text(cell: Cell) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, str):
        return cell
    if abs(cell) >= 100 or cell == int(cell):
        return f"{cell:,.0f}"
    return f"{cell:.3g}"


def machine() -> dict[str, str]:
    """What the figures depend on."""
    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "cpu": f"{_cpu_name()}, {os.cpu_count()} cores",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "load": f"{os.getloadavg()[0]:.1f}",
    }


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def as_json(tables: Sequence[Table]) -> str:
    """{"machine": {...}, "tables": [{name, title, columns, rows, notes}]}"""
    return json.dumps({"machine": machine(), "tables": [asdict(table) for table in tables]}, indent=1)


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
