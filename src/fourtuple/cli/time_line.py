"""Moments on a line: a dot for each SYN, a cross where connect() gives up, an axis of seconds below.

Lives here: seconds to columns.  Does not live here: what the moments mean (syn_schedule.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from fourtuple.cli.terminal import Line, Terminal
from fourtuple.doctor.words import grouped

_US = 1_000_000
_WIDEST = 110
_TICK_GAP = 3
_DOT, _LINE, _CROSS = "●", "─", "✗"


@dataclass(frozen=True)
class Track:
    """One line: what it is, its moments, its end, and what is said behind the end."""

    label: str
    moments_us: Sequence[int]
    end_us: int
    remark: str


def seconds(us: int) -> str:
    """'0 s', '2.5 s', '14 651 s'."""
    whole, rest = divmod(us, _US)
    return f"{grouped(whole)}{f'.{rest:06d}'.rstrip('0') if rest else ''} s"


def render_tracks(tracks: Sequence[Track], terminal: Terminal) -> list[Line]:
    """All tracks on one axis."""
    label_width = max(len(track.label) for track in tracks)
    head = label_width + 2 if label_width else 2
    tail = max(len(terminal.glyphs(track.remark)) for track in tracks) + 1
    cells = min(terminal.width, _WIDEST) - head - tail
    longest_us = max(track.end_us for track in tracks)
    lines = [_track(track, head, cells, longest_us, terminal) for track in tracks]
    return [*lines, _axis(head, cells, longest_us)]


def _cell(us: int, cells: int, longest_us: int) -> int:
    """Column of a moment; the longest track ends in the last one."""
    return us * (cells - 1) // max(longest_us, 1)


def _track(track: Track, head: int, cells: int, longest_us: int, terminal: Terminal) -> Line:
    end = _cell(track.end_us, cells, longest_us)
    dots = {_cell(us, cells, longest_us) for us in track.moments_us} - {end}
    line: Line = [(track.label.ljust(head), "")]
    for is_dot, run in groupby(range(end), dots.__contains__):
        count = len(list(run))
        line.append((_DOT * count, "even") if is_dot else (_LINE * count, "dim"))
    return [*line, (terminal.glyphs(_CROSS), "bad"), (f" {track.remark}", "bad")]


def _axis(head: int, cells: int, longest_us: int) -> Line:
    """0 s at the first column, then a label at each round number of seconds."""
    room = len(seconds(longest_us)) + _TICK_GAP
    step = _step(longest_us, cells, room)
    text = [" "] * (head + cells + room)
    at_us, free = 0, 0
    while at_us <= longest_us:
        label = seconds(at_us)
        column = head + _cell(at_us, cells, longest_us)
        if column >= free and column + len(label) <= len(text):
            text[column : column + len(label)] = label
            free = column + len(label) + 1
        at_us += step
    return [("".join(text).rstrip(), "dim")]


def _step(longest_us: int, cells: int, room: int) -> int:
    """The smallest of 1, 2, 5 x 10^n that leaves each label its room."""
    at_least = longest_us * room // max(cells - 1, 1)
    step = 100_000
    while True:
        for factor in (1, 2, 5):
            if step * factor > at_least:
                return step * factor
        step *= 10
