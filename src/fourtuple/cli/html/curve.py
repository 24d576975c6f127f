"""What each connect() costs while a range fills: a dot each, the medians as a line, on a logarithmic scale."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10

from fourtuple.cli.chart import buckets, nanoseconds
from fourtuple.cli.html.markup import SANS_EM, Html, both_widths, box, line_of, picture, tag, text_at, width_of

WIDE, NARROW = 620, 306
_MEDIANS = 100


@dataclass(frozen=True)
class Curve:
    """One who connected: the ns of each success in order, and of the failure at the end."""

    name: str
    class_: str
    ns: Sequence[int]
    last_ns: int
    three: tuple[float, float, float]
    """Medians: below half, past half, failing."""


def cost_figure(curves: Sequence[Curve], name: str = "cost") -> Html:
    """The chart in both widths."""
    return both_widths(*[_drawing(curves, width, f"{name}-{width}") for width in (WIDE, NARROW)])


class _Chart:
    """Where things are."""

    def __init__(self, curves: Sequence[Curve], width: int) -> None:
        self.left, self.right = 58.0, width - 14.0
        self.top, self.bottom = 26.0, 26.0 + (330 if width > 500 else 260)
        values = sorted(ns for curve in curves for ns in (*curve.ns, curve.last_ns))
        self.low = floor(log10(max(values[0], 1)) * 2) / 2
        self.high = ceil(log10(max(values[-1 - len(values) // 200], curves[0].last_ns)) * 2) / 2
        self.high = max(self.high, self.low + 1)

    def x(self, share: float) -> float:
        """Of a fraction of the range."""
        return self.left + share * (self.right - self.left)

    def y(self, ns: float) -> float:
        """Of a duration; what is beyond the scale is at its edge."""
        part = (log10(max(ns, 1)) - self.low) / (self.high - self.low)
        return self.bottom - min(max(part, 0.0), 1.0) * (self.bottom - self.top)


def _drawing(curves: Sequence[Curve], width: int, name: str) -> Html:
    chart = _Chart(curves, width)
    parts = [*_axes(chart, width)]
    for curve in curves:
        parts += _dots(curve, chart)
    for curve in curves:
        parts += _line(curve, chart)
    parts += _labels(curves, chart)
    what = "; ".join(
        f"{curve.name}: {nanoseconds(curve.three[0])} below half, {nanoseconds(curve.three[1])} past half, "
        f"{nanoseconds(curve.three[2])} for EADDRNOTAVAIL"
        for curve in curves
    )
    return picture(name, width, chart.bottom + 40, "Cost of one connect() as the range fills", what, *parts)


def _axes(chart: _Chart, width: int) -> Iterator[Html]:
    yield box(chart.left, chart.top, chart.right - chart.left, chart.bottom - chart.top, "plot", 0)
    for power in range(ceil(chart.low), floor(chart.high) + 1):
        y = chart.y(10.0**power)
        yield line_of(chart.left, y, chart.right, y, "grid")
        label = nanoseconds(10.0**power).replace(".0 ", " ")
        yield text_at(chart.left - 7, y + 4, label, "mono small dim", "end")
    for percent in (0, 25, 50, 75, 100):
        anchor = "middle" if 0 < percent < 100 else "end" if percent else ""
        yield text_at(chart.x(percent / 100), chart.bottom + 16, f"{percent} %", "mono small dim", anchor)
    yield text_at(
        (chart.left + chart.right) / 2,
        chart.bottom + 34,
        "ports of the range in use to this destination",
        "small dim",
        "middle",
    )


def _dots(curve: Curve, chart: _Chart) -> Iterator[Html]:
    """All of them as one path of points; those that fall on one another are drawn once."""
    count = len(curve.ns)
    places = dict.fromkeys((round(chart.x(i / count), 0), round(chart.y(ns), 0)) for i, ns in enumerate(curve.ns))
    yield tag("path", d="".join(f"M{x:g} {y:g}h0" for x, y in places), class_=f"scatter {curve.class_}")


def _line(curve: Curve, chart: _Chart) -> Iterator[Html]:
    medians = buckets(curve.ns, min(_MEDIANS, len(curve.ns)))
    points = " ".join(f"{chart.x((i + 0.5) / len(medians)):.1f},{chart.y(ns):.1f}" for i, ns in enumerate(medians))
    yield tag("polyline", points=points, class_=f"median under {curve.class_}")
    yield tag("polyline", points=points, class_=f"median {curve.class_}")
    x, y = chart.right, chart.y(curve.last_ns)
    yield tag("path", d=f"M{x - 5:.1f} {y - 5:.1f}l10 10m0 -10l-10 10", class_="cross")


def _labels(curves: Sequence[Curve], chart: _Chart) -> Iterator[Html]:
    """Names on the curves, the cliff, the end."""
    half = chart.x(0.5)
    yield line_of(half, chart.top, half, chart.bottom, "cliff")
    worst = curves[0]
    below, past, _ = worst.three
    lines = ["the 50 % cliff", f"{nanoseconds(below)} → {nanoseconds(past)}"]
    if past < below * 2:
        lines = ["half full", "no cliff"]
    for i, text in enumerate(lines):
        yield text_at(half - 8, chart.top + 18 + 16 * i, text, "small bad strong-small", "end")
    room = chart.right - half - 12
    for i, curve in enumerate(curves):
        medians = buckets(curve.ns, _MEDIANS)[_MEDIANS * 51 // 100 : _MEDIANS * 80 // 100]
        below = chart.y(min(medians)) + 22
        above = (i == 0 and len(curves) > 1) or below > chart.bottom - 4
        yield text_at(
            half + 10, chart.y(max(medians)) - 10 if above else below, curve.name, f"strong back {curve.class_}"
        )
    end = "EADDRNOTAVAIL ✗"
    if width_of(end, 11, SANS_EM) <= room:
        yield text_at(chart.right, chart.top - 9, end, "small bad", "end")


def cost_table(curves: Sequence[Curve]) -> Html:
    """Three numbers each, and how many times as much."""
    head = [tag("th", text, scope="col") for text in ("", "below half", "past half", "EADDRNOTAVAIL")]
    rows = [tag("tr", *head)]
    for curve in curves:
        name = tag("th", tag("span", class_=f"swatch {curve.class_}"), curve.name, scope="row")
        rows.append(tag("tr", name, *[tag("td", nanoseconds(ns)) for ns in curve.three]))
    if len(curves) > 1:
        ratios = [f"×{one / max(other, 1.0):.1f}" for one, other in zip(curves[0].three, curves[1].three, strict=True)]
        rows.append(tag("tr", tag("th", "", scope="row"), *[tag("td", text, class_="dim") for text in ratios]))
    return tag("table", *rows, class_="cost")
