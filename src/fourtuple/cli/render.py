"""Steps, packets and outcomes as styled lines, for 80 columns and for 120.

Lives here: layout.  Does not live here: the words (steps.py), the stream (terminal.py).

Rules
1. Time, then the function at its depth, then what it decided, then a remark: each in its column while it fits.  In a
   narrow terminal a remark that does not fit is left out, unless it tells what went wrong.
2. A port search is shown whole when it is short; else its first ports, one line for each parity pass, its last port.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise

from fourtuple import kernel_map as km
from fourtuple.cli.steps import GOOD_LOOKS, LOOK_WORDS, Step, duration
from fourtuple.cli.terminal import Line, Terminal
from fourtuple.doctor.words import grouped

_TIME_WIDTH = 8
_WHOLE, _FIRST = 7, 3


class Columns:
    """Where things start at a given width."""

    def __init__(self, width: int) -> None:
        self.width = width
        wide = width >= 100
        self.indent = 2 if wide else 1
        self.name = _TIME_WIDTH + 2
        self.text = self.name + (34 if wide else 26)
        self.note = min(self.text + 50, width - 20) if wide else width
        self.drops_notes = not wide


def render_steps(steps: Sequence[Step], terminal: Terminal) -> list[Line]:
    """The trace, one or more lines a step."""
    columns = Columns(terminal.width)
    lines: list[Line] = []
    for step in shorten_scans(steps):
        lines += _step_lines(step, columns, terminal)
    return lines


def _step_lines(step: Step, columns: Columns, terminal: Terminal) -> list[Line]:
    time = "" if step.time_us is None else duration(step.time_us)
    head = " " * (columns.name + columns.indent * step.depth - _TIME_WIDTH)
    name = terminal.glyphs(step.name)
    line: Line = [(terminal.glyphs(time).rjust(_TIME_WIDTH), "dim"), (head, ""), (name, _name_style(step))]
    at = _TIME_WIDTH + len(head) + len(name)
    text, note = terminal.glyphs(step.text), terminal.glyphs(step.note)
    if not text and not note:
        return [line]
    start = max(columns.text, at + 2)
    line.append((" " * (start - at), ""))
    return _with_text(line, start, text, note, step.style, columns)


def _name_style(step: Step) -> str:
    if step.fn != km.FN_PORT_LOOK:
        return "name" if step.depth < 20 else ""
    return "port" if step.verdict in GOOD_LOOKS else "dim" if step.verdict == km.LOOK_RESERVED else "warn"


def _with_text(line: Line, start: int, text: str, note: str, style: str, columns: Columns) -> list[Line]:
    """Text and remark behind the name; what does not fit goes to lines of its own below."""
    lines = [line]
    for i, piece in enumerate(wrap(text, columns.width - start, columns.width - columns.text) or [""]):
        if i > 0:
            start = columns.text
            lines.append([(" " * start, "")])
        lines[-1].append((piece, style))
        start += len(piece)
    droppable = columns.drops_notes and style != "bad"
    if note and not (droppable and start + 2 + len(note) > columns.width):
        gap = max(columns.note - start, 2)
        if start + gap + len(note) > columns.width:
            gap = 2
        if start + gap + len(note) > columns.width:
            lines.append([(" " * columns.text, "")])
            gap = 0
        lines[-1] += [(" " * gap, ""), (note, "dim")]
    return lines


def wrap(text: str, first: int, others: int) -> list[str]:
    """The text cut at spaces into pieces of at most `first`, then `others` columns; a longer word stays whole."""
    pieces: list[str] = []
    line = ""
    for word in text.split(" "):
        room = others if pieces else first
        if line and len(line) + 1 + len(word) > room:
            pieces.append(line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    return [*pieces, line] if line else pieces


# ------------------------------------------------------------------------------------------------ port searches


def shorten_scans(steps: Iterable[Step]) -> list[Step]:
    """The same steps with each run of ports looked at drawn as a tree, and shortened when long."""
    result: list[Step] = []
    run: list[Step] = []
    for step in steps:
        if step.fn == km.FN_PORT_LOOK:
            run.append(step)
            continue
        result += _scan(run)
        run = []
        result.append(step)
    return result + _scan(run)


def _scan(run: list[Step]) -> list[Step]:
    if len(run) <= _WHOLE:
        shown = [_look(step) for step in run]
    else:
        middle = run[_FIRST:-1]
        shown = [_look(step) for step in run[:_FIRST]]
        shown += [_summary(part, run[-1]) for part in _passes(middle)]
        shown.append(_look(run[-1]))
    if run and run[-1].verdict not in GOOD_LOOKS:
        shown[-1] = replace(shown[-1], note="none is left", style="bad")
    return [replace(step, name=("└ " if i == len(shown) - 1 else "│ ") + step.name) for i, step in enumerate(shown)]


def _look(step: Step) -> Step:
    return replace(step, name=f"{step.port}  {LOOK_WORDS.get(step.verdict, '')}")


def _passes(run: list[Step]) -> list[list[Step]]:
    """One list for each parity pass; a search of step 1, whose parity changes all the time, has one pass."""
    changes = sum((a.port ^ b.port) & 1 for a, b in pairwise(run))
    if changes > 1:
        return [run]
    first = [step for step in run if (step.port ^ run[0].port) & 1 == 0]
    return [part for part in (first, run[len(first) :]) if part]


def _summary(part: list[Step], last: Step) -> Step:
    """One line for many ports."""
    counts = Counter(LOOK_WORDS.get(step.verdict, "") for step in part)
    one_parity = all((step.port ^ part[0].port) & 1 == 0 for step in part)
    parity = (" odd" if part[0].port & 1 else " even") if one_parity and len(part) > 1 else ""
    text = ", ".join(f"{grouped(number)} {word}" for word, number in counts.most_common())
    return replace(part[0], name=f"… {grouped(len(part))} more{parity}", text=text, note="", style="", verdict=0)


# ------------------------------------------------------------------------------------------------ blocks of text


def table(rows: Sequence[tuple[str, str]], style: str, width: int, indent: int = 2) -> list[Line]:
    """Two columns: a label and a text that wraps."""
    label_width = max((len(label) for label, _ in rows), default=0) + 2
    lines: list[Line] = []
    for label, text in rows:
        room = width - indent - label_width
        for i, piece in enumerate(wrap(text, room, room) or [""]):
            head = label if i == 0 else ""
            lines.append([(" " * indent + head.ljust(label_width), style), (piece, "")])
    return lines


def paragraph(text: str, width: int, indent: int = 2, style: str = "") -> list[Line]:
    """Text that wraps."""
    return [[(" " * indent + piece, style)] for piece in wrap(text, width - indent, width - indent)]
