"""The port search as a picture: the whole range with the way through it, and the ports looked at, one by one.

Rule: colour never stands alone; a port looked at has a symbol and its number, a class has its line in the legend.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

from fourtuple import kernel_map as km
from fourtuple.cli.attempt import Attempt
from fourtuple.cli.html import snapshot
from fourtuple.cli.html.markup import Html, both_widths, box, line_of, picture, tag, text_at, width_of
from fourtuple.cli.html.path import head_of
from fourtuple.cli.html.ports import LEGEND, LOOK_CLASS, STATE_CLASS, SYMBOLS
from fourtuple.cli.html.snapshot import Snapshot
from fourtuple.doctor.words import grouped

WIDE, NARROW = 620, 306
_CELL, _PITCH, _BREAK = 24, 27, 24
_CONTEXTS = (10, 8, 6, 5, 4, 3, 2, 1)


@dataclass(frozen=True)
class Look:
    """One port looked at."""

    port: int
    verdict: int

    @property
    def class_(self) -> str:
        """Its colour."""
        return LOOK_CLASS[self.verdict]


@dataclass
class Search:
    """The search of one attempt: what it looked at, and what the tables were around it."""

    looks: list[Look]
    tables: Snapshot
    step: int
    start: int
    """The first port of the scan."""
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def taken(self) -> int:
        """The port it found, or 0."""
        return self.looks[-1].port if self.looks and self.looks[-1].class_ == "taken" else 0

    @cached_property
    def by_port(self) -> dict[int, Look]:
        """Every look, by its port."""
        return {look.port: look for look in self.looks}

    @property
    def has_tracks(self) -> bool:
        """A small range is drawn port by port only."""
        return self.tables.high - self.tables.low > 24 and bool(self.tables.states)

    def class_of(self, port: int) -> str:
        """What the look found, or what the tables say of a port that was not looked at."""
        look = self.by_port.get(port)
        return look.class_ if look else STATE_CLASS[self.tables.state_of(port)]


def search_of(attempt: Attempt, tables: Snapshot) -> Search:
    """The search as the trace tells it."""
    looks = [Look(record.a, record.b) for record in attempt.looks]
    scans = [record for record in attempt.records if record.fn == km.FN__INET_HASH_CONNECT]
    step, start = (scans[-1].d & 0xFF, scans[-1].a + scans[-1].c) if scans else (0, 0)
    return Search(looks, tables, step, start, Counter(km.LOOK_NAMES[look.verdict] for look in looks))


# ------------------------------------------------------------------------------------------------ the ports one by one


def _shown_looks(search: Search, width: int) -> tuple[list[Look], int, list[int]]:
    """The looks that fit, how many of them are from the beginning, and the ports to draw, in order."""
    looks = search.looks
    for most in range(min(len(looks), 24), 0, -1):
        head = most if most == len(looks) else max(1, most - 2)
        shown = looks if most == len(looks) else looks[:head] + looks[len(looks) - (most - head) :]
        for context in _CONTEXTS if most > 3 else (*_CONTEXTS, 0):
            ports = _ports_around(shown, context, search)
            if _width(ports) <= width:
                return shown, head, ports
    return looks[:1], 1, [looks[0].port]


def _ports_around(shown: Sequence[Look], context: int, search: Search) -> list[int]:
    """The ports looked at and their neighbours in the range."""
    low, high = search.tables.low, search.tables.high
    ports = {look.port for look in shown}
    for look in shown:
        ports.update(range(max(low, look.port - context), min(high, look.port + context) + 1))
    return sorted(ports)


def _breaks(ports: Sequence[int]) -> int:
    return sum(b - a > 1 for a, b in pairwise(ports))


def _width(ports: Sequence[int]) -> float:
    return len(ports) * _PITCH + _BREAK * _breaks(ports) + 14


def _strip(search: Search, width: int, top: float) -> tuple[list[Html], float]:
    """The cells, and the height they end at."""
    shown, head, ports = _shown_looks(search, width)
    x = (width - _width(ports)) / 2 + 8.5
    parts: list[Html] = []
    places: dict[int, float] = {}
    for i, port in enumerate(ports):
        if i and port - ports[i - 1] > 1:
            parts.append(text_at(x + _BREAK / 2 - 1.5, top + 16, "⋯", "dim", "middle"))
            x += _BREAK
        places[port] = x
        x += _PITCH
    looked = {look.port: look for look in shown}
    crowded = any(port + 1 in looked for port in looked)
    for port, x in places.items():
        parts += _cell(port, x, top, looked.get(port), search, crowded)
    parts += _arcs(shown, places, head, len(search.looks), top)
    return parts, top + _CELL + 22


def _cell(port: int, x: float, top: float, look: Look | None, search: Search, crowded: bool) -> Iterator[Html]:
    class_ = search.class_of(port)
    outside = not search.tables.low <= port <= search.tables.high
    verdict = km.LOOK_NAMES[look.verdict] if look else None
    inner = [box(x, top, _CELL, _CELL, f"cell {class_}{' looked' if look else ''}{' outside' if outside else ''}")]
    if symbol := SYMBOLS[class_]:
        inner.append(text_at(x + _CELL / 2, top + 17, symbol, f"symbol {class_}", "middle"))
    if look:
        text = str(port)[-3:] if crowded else str(port)
        inner.append(
            text_at(
                x + _CELL / 2, top + _CELL + 15, text, f"mono small{' port' if class_ == 'taken' else ''}", "middle"
            )
        )
    yield tag(
        "g", tag("title", f"{port}: {LEGEND[class_]}"), *inner, data_port=port if look else None, data_verdict=verdict
    )


def _arcs(shown: Sequence[Look], places: dict[int, float], head: int, total: int, top: float) -> Iterator[Html]:
    """From each port to the next one looked at; dashed where it is far, dim in the second pass."""
    for i, (one, other) in enumerate(pairwise(shown)):
        a, b = places[one.port] + _CELL / 2, places[other.port] + _CELL / 2
        left_out = i + 1 == head and total > len(shown)
        class_ = " jump" if left_out or not 0 < other.port - one.port <= 2 else ""
        class_ += " second" if (other.port ^ shown[0].port) & 1 and total > 1 else ""
        rise = min(25.0, 10 + abs(b - a) / 8)
        side = 1 if b > a else -1
        curve = f"M{a:.1f} {top - 4:.1f}Q{(a + b) / 2:.1f} {top - rise * 1.7:.1f} {b - side * 2:.1f} {top - 8:.1f}"
        yield tag("path", d=curve, class_=f"arc{class_}")
        points = f"{b:.1f},{top - 2:.1f} {b - 4.5:.1f},{top - 9:.1f} {b + 4.5:.1f},{top - 9:.1f}"
        yield tag("polygon", points=points, class_=f"archead{class_}")


# ------------------------------------------------------------------------------------------------ the whole range


def _tracks(search: Search, width: int, top: float) -> tuple[list[Html], float]:
    """Even and odd ports from low to high, how full they are, and the way of the search."""
    left, track = 44.0, width - 52.0
    low, high = search.tables.low, search.tables.high
    scale = track / (high - low + 1)
    parts: list[Html] = []
    for row, parity in enumerate((low & 1, 1 - (low & 1))):
        y = top + 22 + row * 36
        parts.append(text_at(left - 8, y + 13, "odd" if parity else "even", "small dim", "end"))
        parts.append(box(left, y, track, 18, "track", 2))
        parts += _fill(search, parity, left, track, y)
        parts += _way(search, parity, left, scale, y)
    parts += _marks(search, left, scale, top, width)
    y = top + 22 + 2 * 36 + 4
    parts.append(text_at(left, y, str(low), "mono small dim"))
    parts.append(text_at(left + track, y, str(high), "mono small dim", "end"))
    return parts, y + 14


def _fill(search: Search, parity: int, left: float, track: float, y: float) -> Iterator[Html]:
    """How full each stretch of ports is, as bars; one path for each class."""
    low, states = search.tables.low, search.tables.states
    ports = states[(parity ^ low) & 1 :: 2]
    bins = min(int(track / 3), len(ports))
    wide = track / max(bins, 1)
    paths: dict[str, list[str]] = {}
    for i in range(bins):
        part = ports[i * len(ports) // bins : (i + 1) * len(ports) // bins]
        bottom = y + 18
        for state in (snapshot.USED, snapshot.TIME_WAIT, snapshot.BOUND, snapshot.RESERVED, snapshot.SHARED):
            share = 18 * part.count(state) / len(part)
            if share:
                bottom -= share
                paths.setdefault(STATE_CLASS[state], []).append(
                    f"M{left + i * wide:.1f} {bottom:.1f}h{wide + 0.1:.1f}v{share:.1f}h-{wide + 0.1:.1f}z"
                )
    for class_, path in paths.items():
        yield tag("path", d="".join(path), class_=f"fill {class_}")


def _way(search: Search, parity: int, left: float, scale: float, y: float) -> Iterator[Html]:
    """A line below the track from the first to the last port looked at, round the end of the range."""
    if len(search.looks) < 2:
        return
    run = [look.port for look in search.looks if look.port & 1 == parity or search.step == 1]
    low = search.tables.low
    pieces: list[list[int]] = []
    for port in run:
        if pieces and port >= pieces[-1][1]:
            pieces[-1][1] = port
        else:
            pieces.append([port, port])
    for first, last in pieces[:3]:
        a, b = left + (first - low) * scale, left + (last - low + 1) * scale
        yield line_of(a, y + 23, max(b, a + 2), y + 23, "way")
        yield tag(
            "polygon",
            points=f"{b + 5:.1f},{y + 23:.1f} {b - 3:.1f},{y + 19:.1f} {b - 3:.1f},{y + 27:.1f}",
            class_="wayhead",
        )


def _marks(search: Search, left: float, scale: float, top: float, width: int) -> Iterator[Html]:
    """Where it began, and which port it took."""
    if not search.looks:
        return
    low = search.tables.low
    start = search.looks[0].port
    words = f"from {start}" + (f", taken {search.taken}" if search.taken and search.taken != start else "")
    if search.taken == start:
        words = f"{start}, taken at once"
    at = left + (start - low + 0.5) * scale
    half = width_of(words, 11) / 2
    yield text_at(min(max(at, half + 1), width - half - 1), top + 8, words, "mono small", "middle")
    yield tag(
        "polygon",
        points=f"{at:.1f},{top + 20:.1f} {at - 5:.1f},{top + 12:.1f} {at + 5:.1f},{top + 12:.1f}",
        class_="start",
    )
    if search.taken:
        row = (search.taken ^ low) & 1
        x, y = left + (search.taken - low) * scale, top + 22 + row * 36
        yield box(x - 1.5, y - 1, 4, 20, "cell taken", 1)


# ------------------------------------------------------------------------------------------------ the card


def draw_search(search: Search, width: int, name: str) -> Html:
    """Range above, ports below."""
    parts: list[Html] = []
    y = 6.0
    if search.has_tracks:
        parts, y = _tracks(search, width, y)
        y += 8
    cells, y = _strip(search, width, y + (30 if len(search.looks) > 1 else 4))
    first, last = search.looks[0], search.looks[-1]
    what = f"{head_of(len(search.looks), 'port')} looked at, from {first.port} to {last.port}: " + ", ".join(
        f"{grouped(number)} {verdict}" for verdict, number in search.counts.most_common()
    )
    return picture(name, width, y, "The port search", what, *parts, *cells)


def _legend(search: Search) -> Html:
    own = {search.taken} if search.has_tracks else search.by_port  # the tracks show the tables, whoever looked at them
    others = {state for port, state in enumerate(search.tables.states, search.tables.low) if port not in own}
    present = {look.class_ for look in search.looks} | {STATE_CLASS[state] for state in others}
    items = []
    for class_, words in LEGEND.items():
        if class_ in present:
            symbol = tag("span", SYMBOLS[class_], class_=f"mark {class_}")
            items.append(tag("li", symbol, words))
    return tag("ul", *items, class_="legend")


def _rule(search: Search) -> str:
    low, high = search.tables.low, search.tables.high
    if low == high:
        return "The range has this port only; if it is taken, EADDRNOTAVAIL."
    if search.step == 2:
        one, other = ("odd", "even") if search.start & 1 else ("even", "odd")
        return (
            f"Steps of 2 from a hashed start, round the end at {high}: first every {one} port; if all are taken, "
            f"every {other} one; if those are too, EADDRNOTAVAIL."
        )
    return f"Every port of {low}–{high} from a hashed start, round the end; then EADDRNOTAVAIL."


def strip_card(attempt: Attempt, tables: Snapshot, name: str = "ports") -> Html:
    """The search with its heading, or why there was none."""
    search = search_of(attempt, tables)
    title = [tag("code", "__inet_hash_connect")]
    if not search.looks:
        return tag(
            "section", tag("h2", "The port search"), tag("p", _no_search(attempt), class_="say"), class_="card ports"
        )
    pictures = [draw_search(search, width, f"{name}-{width}") for width in (WIDE, NARROW)]
    return tag(
        "section",
        tag("h2", "The port search: ", *title, f", {head_of(len(search.looks), 'port')} looked at"),
        both_widths(*pictures),
        _legend(search),
        tag("p", _rule(search), class_="hint"),
        class_="card ports",
        data_looked_at=len(search.looks),
        data_verdicts=" ".join(f"{verdict}={number}" for verdict, number in sorted(search.counts.items())),
    )


def _no_search(attempt: Attempt) -> str:
    if attempt.bind_code:
        return "bind() failed, so connect() was never called."
    if attempt.request.source_port is not None:
        port = attempt.source_port or attempt.request.source_port
        return (
            f"No search: bind() chose port {port or 'itself'}, and connect() takes no other. It only asks whether this "
            "four-tuple is free."
        )
    return "connect() failed before it needed a port."
