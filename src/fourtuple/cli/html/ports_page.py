"""The page of `fourtuple map`: every port of the range as a square, and what the next connect() makes of them.

Rule: kinds differ by shape as well as by colour: in use fills its square, a TIME_WAIT its lower half, what bind() or a
listener holds is striped, a reserved port is a dot, and what others use is a thin line.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import ceil
from typing import TYPE_CHECKING

from fourtuple import __version__
from fourtuple.cli.html.markup import Html, both_widths, box, join, picture, tag, text_at
from fourtuple.cli.html.page import document, theme_button
from fourtuple.cli.html.path import unbroken
from fourtuple.cli.port_words import legend, parity_names, taken_share, words_of
from fourtuple.doctor import port_states as ps
from fourtuple.doctor.words import grouped, percent

if TYPE_CHECKING:
    from fourtuple.cli.map import Asked

_WIDE, _NARROW = 676, 306
_GAP, _HEAD = 12, 20
_SIZES = (12, 8, 6, 4, 3)
_TALLEST = 420
_SHAPES = {
    # height of the stroke, where it lies in the square, dashes: parts of a square
    ps.JOINED: (0.34, 0.5, ()),
    ps.DOUBTFUL: (0.34, 0.5, (0.66, 0.34)),
    ps.REUSABLE: (0.34, 0.83, ()),
    ps.USED: (1.0, 0.5, ()),
    ps.TIME_WAIT: (0.5, 0.75, ()),
    ps.LIKELY_BOUND: (0.67, 0.5, (0.34, 0.33)),
    ps.BOUND: (1.0, 0.5, (0.34, 0.33)),
    ps.LISTEN: (1.0, 0.5, ()),
    ps.ACCEPTED: (0.67, 0.5, ()),
    ps.RESERVED: (0.34, 0.5, (0.34, 0.66)),
}


def ports_page(asked: Asked) -> str:
    """Everything about one map."""
    from fourtuple.cli.map import facts, nobody, title

    is_map = asked.is_connected or asked.states.is_buckets
    headline = title(asked) if is_map else nobody(asked)
    where, _, share = headline.partition("   ")
    host = [asked.reading.system.hostname] if asked.reading.is_live else []
    header = tag(
        "header",
        theme_button(),
        tag("h1", where, join(" ", tag("span", share, class_="remark")) if share else None),
        tag("p", " · ".join([*host, *facts(asked)]), class_="sub"),
    )
    column = tag("div", _kinds_card(asked), _facts_card(asked), class_="column")
    return document(where, header, tag("main", _map_card(asked), column, class_="two"), _footer(asked))


def _footer(asked: Asked) -> Html:
    read = "read by sock_diag, nothing was sent" if asked.reading.is_live else "from a snapshot"
    kernel = asked.reading.system.kernel.split("-")[0]
    return tag("footer", f"fourtuple {__version__}, the Linux connect() path in Python · {read} · Linux {kernel}")


# ------------------------------------------------------------------------------------------------ the map


def _map_card(asked: Asked) -> Html:
    states = asked.states
    maps = both_widths(*[_drawing(states, width) for width in (_WIDE, _NARROW)])
    hint = "Ports run from left to right, then down. " + (
        "connect() tries all ports of the left half before any of the right one."
        if not states.is_buckets
        else "Who is in a port's bind bucket decides whether any connect() may share the port."
    )
    return tag("section", tag("h2", "Every port of the range"), maps, tag("p", hint, class_="hint more"), class_="card")


def _drawing(states: ps.PortStates, width: int) -> Html:
    pane = (width - _GAP) // 2
    ports = max(len(states.of_parity(False)), 1)
    size = next((s for s in _SIZES if ceil(ports / (pane // s)) * s <= _TALLEST), _SIZES[-1])
    across = pane // size
    tall = ceil(ports / across) * size
    parts: list[Html] = []
    for second, name in enumerate(parity_names(states.low)):
        x = second * (pane + _GAP)
        share = percent(taken_share(states, bool(second)))
        parts.append(text_at(x, 13, f"{name}, {share} taken", f"{name} dim"))
        parts.append(box(x, _HEAD, across * size, tall, "ground", 0))
        kinds = states.of_parity(bool(second))
        parts += [_squares(kinds, kind, name, (x, across, size)) for kind in ps.KINDS if kind in kinds]
    what = "; ".join(f"{grouped(a + b)} {words_of(kind, states.is_buckets)}" for kind, a, b in legend(states))
    return picture(f"ports-{width}", width, _HEAD + tall, "Port map", what, *[part for part in parts if part])


def _squares(kinds: tuple[str, ...], kind: str, parity: str, grid: tuple[int, int, int]) -> Html:
    """All ports of a kind in a half."""
    if kind == ps.FREE:
        return Html("")
    x, across, size = grid
    thick, at, dashes = _SHAPES[kind]
    there = (i for i, each in enumerate(kinds) if each == kind)
    return tag(
        "path",
        d="".join(_strokes(there, x, across, size, at)),
        class_=f"ports-in {parity if kind == ps.USED else kind}",
        stroke_width=thick * size,
        stroke_dasharray=" ".join(f"{part * size:.1f}" for part in dashes) or None,
    )


def _strokes(cells: Iterable[int], x: int, across: int, size: int, at: float) -> Iterator[str]:
    """Runs of squares as strokes."""
    run: list[int] = []
    for cell in cells:
        if run and cell == run[-1] + 1 and cell % across:
            run.append(cell)
            continue
        yield _stroke(run, x, across, size, at)
        run = [cell]
    yield _stroke(run, x, across, size, at)


def _stroke(run: list[int], x: int, across: int, size: int, at: float) -> str:
    if not run:
        return ""
    row, column = divmod(run[0], across)
    return f"M{x + column * size} {_HEAD + (row + at) * size:.1f}h{len(run) * size}"


# ------------------------------------------------------------------------------------------------ beside it


def _kinds_card(asked: Asked) -> Html:
    states = asked.states
    names = parity_names(states.low)
    heads = tag("tr", *[tag("th", text) for text in ("", "", *names, "both", "connect()")])
    rows = [
        tag(
            "tr",
            tag("td", _swatch(kind, names)),
            tag("td", words_of(kind, states.is_buckets)),
            *[tag("td", unbroken(n)) for n in (first, second, first + second)],
            tag("td", "takes", class_="good") if kind in states.open else tag("td", "passes", class_="bad"),
        )
        for kind, first, second in legend(states)
    ]
    return tag("section", tag("h2", "What they are"), tag("table", heads, *rows, class_="kinds"), class_="card")


def _swatch(kind: str, names: tuple[str, str]) -> Html:
    """Two squares as in the map."""
    parts = [box(0, 0, 34, 14, "ground", 0)]
    for i, parity in enumerate(names):
        parts.append(_squares((kind,), kind, parity, (2 + 16 * i, 1, 14)))
    drawn = tag("g", *parts[1:], transform="translate(0,-20)")
    return tag("svg", parts[0], drawn, viewBox="0 0 34 14", aria_hidden="true", aria_labelledby=f"ports-{_WIDE}-t")


def _facts_card(asked: Asked) -> Html:
    from fourtuple.cli.map import remarks

    rows = [join(tag("dt", label), tag("dd", text)) for label, text in remarks(asked)]
    return tag("section", tag("h2", "What follows"), tag("dl", *rows), class_="card") if rows else Html("")
