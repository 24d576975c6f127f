"""The port map in a terminal: a character stands for one port or several, even and odd ports apart.

Lives here: layout.  Does not live here: what a port is (doctor/port_states.py), the words (port_words.py).

Rules
1. A character shows what most of its ports are among those that connect() passes over; if it passes over none of them,
   what most of them are.
2. In use to this destination: four shades by the share passed over.  Anything else passed over: its letter, small
   where it is less than half of the character's ports.  So nothing is told by colour alone.
3. Shades for a terminal; in a pipe and with --ascii `- = % #`.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from math import ceil

from fourtuple.cli.port_words import LOOKS, legend, parity_names, taken_share, words_of
from fourtuple.cli.render import wrap
from fourtuple.cli.terminal import Line, Span, Terminal
from fourtuple.doctor.port_states import KINDS, USED, PortStates
from fourtuple.doctor.words import grouped, percent

_LABEL = 6
_GAP = 2
_NARROW = 60
_PIPE_ROWS, _LEAST_ROWS, _MOST_ROWS = 16, 6, 40
_SHADES, _ASCII_SHADES = "░▒▓█", "-=%#"
_BELOW = 17  # lines above and below the map, without the legend


def map_lines(states: PortStates, out: Terminal) -> Iterator[Line]:
    """The map, then what its characters mean."""
    rows = _rows(states, out)
    width = (out.width - _LABEL - _GAP) // 2
    ports = max(len(states.of_parity(False)), 1)
    each = max(1, ceil(ports / (width * rows)))
    panes = [_pane(states, second, each, out) for second in (False, True)]
    yield _heads(states, width)
    for row in range(ceil(ports / (width * each))):
        cut = slice(row * width, (row + 1) * width)
        label = f"{states.low + 2 * row * width * each:<{_LABEL}}"
        left = panes[0][cut]
        yield [(label, "dim"), *_joined(left), (" " * (width - len(left) + _GAP), ""), *_joined(panes[1][cut])]
    yield []
    yield from _legend(states, each, out)


def _rows(states: PortStates, out: Terminal) -> int:
    """As many as leave room for the rest on one screen."""
    if not out.is_tty:
        return _PIPE_ROWS
    lines = os.environ.get("LINES", "")
    height = int(lines) if lines.isdigit() else os.get_terminal_size(out.stream.fileno()).lines
    return max(_LEAST_ROWS, min(height - _BELOW - len(legend(states)), _MOST_ROWS))


def _heads(states: PortStates, width: int) -> Line:
    line: Line = [(" " * _LABEL, "")]
    fits = width >= len("even, tried first  100 % taken")  # else the order has to tell it
    for second, name in enumerate(parity_names(states.low)):
        head = f"{name}, tried {'next' if second else 'first'}" if fits else name
        share = f"{percent(taken_share(states, bool(second)))} taken"
        line.append((head + share.rjust(width - len(head)), name))
        line.append((" " * _GAP, ""))
    return line[:-1]


def _pane(states: PortStates, second: bool, each: int, out: Terminal) -> list[Span]:
    ports = states.of_parity(second)
    name = parity_names(states.low)[second]
    shades = _SHADES if out.boxes else _ASCII_SHADES
    return [_character(ports[i : i + each], states, name, shades, out) for i in range(0, len(ports), each)]


def _character(ports: Sequence[str], states: PortStates, parity: str, shades: str, out: Terminal) -> Span:
    counts = Counter(ports)
    shut = {kind: n for kind, n in counts.items() if kind not in states.open}
    among = shut or counts
    kind = max(among, key=lambda each: (among[each], KINDS.index(each)))
    look = LOOKS[kind]
    if kind == USED:
        return shades[ceil(4 * sum(shut.values()) / len(ports)) - 1], parity
    letter = _letter(kind, out)
    return letter.lower() if shut and 2 * among[kind] < len(ports) else letter, look.style


def _letter(kind: str, out: Terminal) -> str:
    """ASCII has no middle dot, and `-` is a shade there."""
    letter = LOOKS[kind].letter
    return letter if letter.isascii() or not out.ascii_only else "."


def _joined(spans: Sequence[Span]) -> Iterator[Span]:
    """Neighbours of the same style as one."""
    text, before = "", ""
    for each, style in spans:
        if style != before and text:
            yield text, before
            text = ""
        text, before = text + each, style
    if text:
        yield text, before


# ------------------------------------------------------------------------------------------------ legend


def _legend(states: PortStates, each: int, out: Terminal) -> Iterator[Line]:
    rows = legend(states)
    names = parity_names(states.low)
    heads = [name.upper() for name in names] + ["BOTH"]
    numbers = [[grouped(n) for n in (first, second, first + second)] for _, first, second in rows]
    widths = [max(len(heads[i]), *(len(row[i]) for row in numbers)) for i in range(3)]
    if out.width < _NARROW:  # of both parities together only
        heads, numbers, widths = heads[2:], [row[2:] for row in numbers], widths[2:]
    texts = [words_of(kind, states.is_buckets) for kind, _, _ in rows]
    room = min(max(map(len, texts)) + 2, out.width - 11 - sum(widths) - 2 * len(widths) + 2)
    head = " " * (11 + room) + "  ".join(text.rjust(width) for text, width in zip(heads, widths, strict=True))
    yield [(head, "dim")]
    for (kind, _, _), text, row in zip(rows, texts, numbers, strict=True):
        mark = ("✓", "good") if kind in states.open else ("✗", "bad")
        mark_text = out.glyphs(mark[0]).ljust(3)
        first, *more = wrap(out.glyphs(text), room - 2, room - 4)
        line: Line = [("  ", ""), (mark_text, mark[1]), *_sample(kind, states, each, out), (first.ljust(room), "")]
        cells = "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        yield [*line, (cells, "")]
        for rest in more:
            yield [(" " * 13 + rest, "")]
    for text in wrap(out.glyphs(_explained(states, each)), out.width - 2, out.width - 2):
        yield [(f"  {text}", "dim")]


def _sample(kind: str, states: PortStates, each: int, out: Terminal) -> Line:
    """The character(s) of a kind, six columns."""
    if kind != USED:
        return [(_letter(kind, out).ljust(6), LOOKS[kind].style)]
    shades = _SHADES if out.boxes else _ASCII_SHADES
    names = parity_names(states.low)
    if each == 1:
        return [(shades[-1], names[0]), (shades[-1], names[1]), ("    ", "")]
    return [(shades[:2], names[0]), (shades[2:], names[1]), ("  ", "")]


def _explained(states: PortStates, each: int) -> str:
    whose = "a" if states.is_buckets else "the next"
    text = f"✓ {whose} connect() takes it, ✗ it passes over it"
    if each == 1:
        return text
    lettered = any(kind not in states.open and kind != USED for kind in states.kinds)
    small = "; small letters: under half of them" if lettered else ""
    shades = "; shades: up to a quarter, half, three quarters, all of them taken" if USED in states.kinds else ""
    return f"{text}. A character is {each} ports{shades}{small}"
