"""A small line chart for a terminal: braille dots, or letters where there are no such glyphs.

Lives here: points to text.  x is 0..1, y is logarithmic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, log10
from statistics import median

from fourtuple.cli.steps import duration
from fourtuple.cli.terminal import Line, Terminal

# Unicode 1FBxx and 28xx: bit of the dot in column x (0, 1) and row y (0..3) of a braille cell.
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
_AXIS = 9


@dataclass(frozen=True)
class Series:
    """One curve: its values in order over the whole of x, in ns."""

    name: str
    values: Sequence[float]
    style: str
    letter: str


class _Canvas:
    """A grid of cells; a cell holds dots and the style of the last curve that went through it."""

    def __init__(self, columns: int, rows: int, braille: bool) -> None:
        self.columns, self.rows, self.braille = columns, rows, braille
        self.across, self.down = (2, 4) if braille else (1, 1)
        self.dots = [[0] * columns for _ in range(rows)]
        self.styles = [[""] * columns for _ in range(rows)]
        self.letters = [[" "] * columns for _ in range(rows)]

    def plot(self, x: int, y: int, series: Series) -> None:
        column, row = x // self.across, y // self.down
        self.dots[row][column] |= _DOTS[y % self.down][x % self.across]
        self.styles[row][column] = series.style
        self.letters[row][column] = series.letter

    def row(self, number: int) -> Line:
        line: Line = []
        for dots, style, letter in zip(self.dots[number], self.styles[number], self.letters[number], strict=True):
            line.append(((chr(0x2800 + dots) if dots else " ") if self.braille else letter, style))
        return line


def buckets(values: Sequence[float], count: int) -> list[float]:
    """The median of each of `count` equal parts: what a dot shows."""
    size = len(values)
    return [
        median(values[i * size // count : max((i + 1) * size // count, i * size // count + 1)]) for i in range(count)
    ]


def render_chart(series: Sequence[Series], terminal: Terminal, rows: int = 9, what: str = "") -> list[Line]:
    """Axis labels at the left, curves over 0..100 %, the percentages (of `what`) below."""
    width = min(terminal.width - _AXIS - 4, 88)
    canvas = _Canvas(width, rows, terminal.boxes)
    points = [buckets(one.values, width * canvas.across) for one in series]
    low = floor(log10(max(1.0, min(min(one) for one in points))) * 2) / 2
    high = log10(max(max(one) for one in points))
    if ceil(low) > high:  # no power of ten between them: an axis without a label
        low, high = float(floor(low)), float(ceil(high))
    scale = (rows * canvas.down - 1) / max(high - low, 0.5)
    for one, values in zip(series, points, strict=True):
        _curve(canvas, one, [round((high - log10(max(1.0, value))) * scale) for value in values])
    ticks = _ticks(low, high, scale, canvas.down)
    lines: list[Line] = []
    for row in range(rows):
        label = terminal.glyphs(ticks.get(row, "")).rjust(_AXIS)
        lines.append([(label, "dim"), (" ┤" if row in ticks else " │", "dim"), *canvas.row(row)])
    return [*lines, _floor(width), _percents(width, what)]


def _curve(canvas: _Canvas, series: Series, heights: list[int]) -> None:
    """Dots joined by vertical strokes, so that a cliff is a line."""
    bottom = canvas.rows * canvas.down - 1
    before = heights[0]
    for x, height in enumerate(heights):
        for y in range(min(before, height), max(before, height) + 1):
            if y != before or x == 0 or y == height:
                canvas.plot(x, min(max(y, 0), bottom), series)
        before = height


def _ticks(low: float, high: float, scale: float, down: int) -> dict[int, str]:
    """Labels of the powers of ten, by row."""
    powers = range(floor(low), floor(high) + 1)
    names = {power: nanoseconds(10.0**power).replace(".0 ", " ") for power in powers}
    return {round((high - power) * scale) // down: names[power] for power in powers if power >= low}


def nanoseconds(ns: float) -> str:
    """'420 ns', '3.7 µs', '720 µs', '1.7 ms'."""
    if ns < 1_000:
        return f"{ns:.0f} ns"
    return f"{ns / 1000:.1f} µs" if ns < 10_000 else duration(ns / 1000)


def _floor(width: int) -> Line:
    return [(" " * _AXIS + " └" + "─" * width, "dim")]


def _percents(width: int, what: str) -> Line:
    line = [" "] * (width + 6)
    for percent, text in ((0, f"0% {what}"), (25, "25%"), (50, "50%"), (75, "75%"), (100, "100%")):
        at = 0 if percent == 0 else min(width * percent // 100 - len(text) // 2, width)
        line[at : at + len(text)] = text
    return [(" " * (_AXIS + 2) + "".join(line).rstrip(), "dim")]
