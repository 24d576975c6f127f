"""The port map: every port of a range as a square, even and odd apart, at several moments while it fills."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import ceil

from fourtuple.cli.html.markup import Html, box, picture, tag
from fourtuple.doctor.words import grouped

LEVELS = (10, 45, 62)
"""Percent in use: far below the half, just below, above."""
NEWEST = 64
_ACROSS, _SIZE, _GAP = 32, 3, 8


def port_maps(ports: Sequence[int], low: int, high: int, name: str, levels: Iterable[int] = LEVELS) -> Html:
    """The range at each level; `ports` are those given out, in order."""
    maps = [_one(ports[: round(len(ports) * level / 100)], low, high, level, f"{name}-{level}") for level in levels]
    return tag("div", *maps, class_="maps")


def _one(taken: Sequence[int], low: int, high: int, level: int, name: str) -> Html:
    half = (high - low + 2) // 2
    evens = sum(not port & 1 for port in taken)
    shares = [100 * evens / half, 100 * (len(taken) - evens) / half]
    head = tag(
        "figcaption",
        tag("strong", f"{level} % full"),
        tag("span", f"even {shares[0]:.0f} %", class_="even"),
        tag("span", f"odd {shares[1]:.0f} %", class_="odd"),
    )
    return tag("figure", head, _squares(taken, low, high, name, shares), class_="map")


def _squares(taken: Sequence[int], low: int, high: int, name: str, shares: Sequence[float]) -> Html:
    wide, rows = _ACROSS * _SIZE, ceil((high - low + 2) / 2 / _ACROSS)
    tall = rows * _SIZE
    parts = [box(i * (wide + _GAP), 0, wide, tall, "ground", 0) for i in range(2)]
    newest = set(taken[-NEWEST:])
    for class_, chosen in (
        ("even", [port for port in taken if not port & 1 and port not in newest]),
        ("odd", [port for port in taken if port & 1 and port not in newest]),
        ("new", newest),
    ):
        parts.append(tag("path", d=_path(chosen, low), class_=f"squares {class_}"))
    what = f"{grouped(len(taken))} ports taken: {shares[0]:.0f} % of the even ones, {shares[1]:.0f} % of the odd ones"
    return picture(name, 2 * wide + _GAP, tall, "Port map", what, *parts)


def _path(ports: Iterable[int], low: int) -> str:
    """Runs of squares as strokes; ports go from left to right, then down."""
    pieces: list[str] = []
    before = (-1, -1, -1)  # column of parity, row, last cell
    for port in sorted(ports, key=lambda port: (port & 1, port)):
        index = (port - low) // 2
        row, cell = divmod(index, _ACROSS)
        if (port & 1, row, cell - 1) == before:
            pieces.append(f"h{_SIZE}")
        else:
            x = (port & 1) * (_ACROSS * _SIZE + _GAP) + cell * _SIZE
            pieces.append(f"M{x} {row * _SIZE + 1.5}h{_SIZE}")
        before = (port & 1, row, cell)
    return "".join(pieces)
