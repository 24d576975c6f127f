"""Charts of a dial: connections over time, and histograms on two logarithmic axes.

Rule: no text stands inside a plot, so that nothing can lie on top of a curve or a bar; what a line means is said in the
legend below.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10

from fourtuple.cli.chart import nanoseconds
from fourtuple.cli.html.markup import Html, both_widths, box, line_of, picture, tag, text_at
from fourtuple.dial.histogram import Histogram

WIDE, NARROW = 620, 306
_LEFT, _TOP = 46.0, 10.0
_TALL, _LOW = 220.0, 130.0
_BARS = 90
_TICK_ROOM = 58
MARKED = ((50.0, "p50"), (99.0, "p99"))
CURVES = (("established", 2), ("open", 4), ("failed", 3))
"""Class and column of the timeline; the last is drawn on top."""


def short(number: float) -> str:
    """'950', '20k', '1.5M', '1e+12'."""
    if number < 1_000:
        return f"{number:g}"
    if number >= 999_500_000:
        return f"{number:.2g}"
    return f"{number / 1_000:.3g}k" if number < 999_500 else f"{number / 1_000_000:.3g}M"


def ticks(top: float, most: int) -> list[float]:
    """0 and round numbers up to `top`, no more than `most` of them after 0."""
    if top <= 0:
        return [0.0]
    power = 10.0 ** floor(log10(top / most))
    step = next(power * factor for factor in (1, 2, 5, 10, 20) if top / (power * factor) <= most)
    return [step * i for i in range(int(top / step + 1e-9) + 1)]


# ------------------------------------------------------------------------------------------ over time


def timeline_figure(rows: Sequence[Sequence[float]], name: str = "timeline") -> Html:
    """What was open, established and failed at each second."""
    return both_widths(*[_timeline(rows, width, f"{name}-{width}") for width in (WIDE, NARROW)])


def _timeline(rows: Sequence[Sequence[float]], width: int, name: str) -> Html:
    right, bottom = width - 16.0, _TOP + _TALL
    end = max(rows[-1][0], 1e-3)
    top = max(1.0, *(max(row[1:]) for row in rows))

    def x(second: float) -> float:
        return _LEFT + second / end * (right - _LEFT)

    def y(count: float) -> float:
        return bottom - count / top * _TALL

    parts = [box(_LEFT, _TOP, right - _LEFT, _TALL, "plot", 0)]
    for count in ticks(top, 4):
        parts.append(line_of(_LEFT, y(count), right, y(count), "grid"))
        parts.append(text_at(_LEFT - 6, y(count) + 4, short(count), "mono small dim", "end"))
    for second in ticks(end, 8 if width > 500 else 4):
        parts.append(_tick(x(second), bottom, right, f"{second:g} s"))
    for class_, column in CURVES:
        points = " ".join(f"{x(row[0]):.1f},{y(row[column]):.1f}" for row in _thinned(rows, width))
        parts.append(tag("polyline", points=points, class_=f"curve {class_}"))
    what = f"{rows[-1][2]:.0f} established and {rows[-1][3]:.0f} failed after {end:g} s"
    return picture(name, width, bottom + 24, "Connections over time", what, *parts)


def _thinned(rows: Sequence[Sequence[float]], width: int) -> Sequence[Sequence[float]]:
    """No more points than pixels."""
    step = -(-len(rows) // width)
    return [row for i, row in enumerate(rows) if (len(rows) - 1 - i) % step == 0]


# ------------------------------------------------------------------------------------------ histograms


def _time(ns: float) -> str:
    """'100 ns', '1 ms', '1000 s'."""
    return f"{ns / 1e9:g} s" if ns >= 1e9 else nanoseconds(ns).replace(".0 ", " ")


@dataclass(frozen=True)
class Axis:
    """How values are laid out: their place, and the text of a tick."""

    place: Callable[[float], float]
    """Rises with the value; the same distance is the same factor."""
    value: Callable[[int], float]
    """Of the tick with this number."""
    text: Callable[[float], str]


TIMES = Axis(lambda ns: log10(max(ns, 1)), lambda i: 10.0**i, _time)
PORTS = Axis(lambda n: log10(n + 1), lambda i: 10.0**i - 1 if i == 0 else 10.0**i, short)
"""0 has its place at the left."""


def histogram_figure(found: Histogram, axis: Axis, title: str, class_: str, name: str) -> Html:
    """How many connections had which value; lines at the median and at p99."""
    return both_widths(*[_histogram(found, axis, title, class_, width, f"{name}-{width}") for width in (WIDE, NARROW)])


class _Frame:
    """Where things are in a histogram."""

    def __init__(self, found: Histogram, axis: Axis, width: int) -> None:
        self.axis = axis
        self.right, self.bottom = width - 16.0, _TOP + _LOW
        self.low = float(floor(axis.place(found.minimum()) + 1e-9))
        self.high = max(float(ceil(axis.place(found.maximum() + 1))), self.low + 1)
        self.bars = _collected(found, self)
        self.top = max(1.0, float(ceil(log10(max(self.bars)))))

    def share(self, value: float) -> float:
        """Of the way from left to right."""
        return min(1.0, max(0.0, (self.axis.place(value) - self.low) / (self.high - self.low)))

    def x(self, value: float) -> float:
        """Of a value."""
        return _LEFT + self.share(value) * (self.right - _LEFT)

    def y(self, count: float) -> float:
        """Of a count; 1 still has some height, and the highest bar leaves some air."""
        return self.bottom - (log10(count) + 0.3) / (self.top + 0.75) * _LOW


def _collected(found: Histogram, frame: _Frame) -> list[int]:
    """The counts of _BARS bars of the same width on the axis."""
    bars = [0] * _BARS
    for low, high, count in found.buckets():
        bars[min(_BARS - 1, int(frame.share((low + high - 1) / 2) * _BARS))] += count
    return bars


def _histogram(found: Histogram, axis: Axis, title: str, class_: str, width: int, name: str) -> Html:
    frame = _Frame(found, axis, width)
    parts = [box(_LEFT, _TOP, frame.right - _LEFT, _LOW, "plot", 0), *_axes(frame)]
    # Behind the bars: a line must not hide the one bar that it stands for.
    for percent, mark in MARKED:
        x = frame.x(found.percentile(percent))
        parts.append(line_of(x, _TOP, x, frame.bottom, f"percentile {mark}"))
    parts.append(_bars(frame, class_))
    what = ", ".join(f"{mark} {axis.text(found.percentile(percent))}" for percent, mark in MARKED)
    return picture(name, width, frame.bottom + 24, title, what, *parts)


def _bars(frame: _Frame, class_: str) -> Html:
    """All of them as one path."""
    step, floor_y = (frame.right - _LEFT) / _BARS, f"{frame.bottom:.0f}"
    counts = [(i, count) for i, count in enumerate(frame.bars) if count]
    path = "".join(f"M{_LEFT + i * step:.1f} {floor_y}V{frame.y(n):.1f}h{step:.1f}V{floor_y}z" for i, n in counts)
    return tag("path", d=path, class_=f"bars {class_}")


def _axes(frame: _Frame) -> Iterator[Html]:
    for power in range(int(frame.top) + 1):
        y = frame.y(10.0**power)
        yield line_of(_LEFT, y, frame.right, y, "grid")
        yield text_at(_LEFT - 6, y + 4, short(10.0**power), "mono small dim", "end")
    numbers = range(int(frame.low), int(frame.high) + 1)
    room = (frame.right - _LEFT) / max(1, len(numbers) - 1)
    for i in numbers[:: max(1, ceil(_TICK_ROOM / room))]:
        value = frame.axis.value(i)
        yield _tick(frame.x(value), frame.bottom, frame.right, frame.axis.text(value))


def _tick(x: float, bottom: float, right: float, text: str) -> Html:
    """Below the plot; at its right end it stays inside the picture."""
    if x > right - 20:
        return text_at(min(x + 12, right + 12), bottom + 16, text, "mono small dim", "end")
    return text_at(x, bottom + 16, text, "mono small dim", "middle")
