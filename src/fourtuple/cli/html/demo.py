"""The page of the demo: its five chapters, from the attempts that were made for the text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fourtuple import __version__
from fourtuple.cli.attempt import Attempt, Request, run_attempt
from fourtuple.cli.html.card import tuple_card
from fourtuple.cli.html.curve import Curve, cost_figure, cost_table
from fourtuple.cli.html.ladder import ladder_card
from fourtuple.cli.html.markup import Html, both_widths, box, line_of, picture, tag, text_at, width_of
from fourtuple.cli.html.page import answer_card, call_text, document, outcome, theme_button
from fourtuple.cli.html.path import path_card, unbroken
from fourtuple.cli.html.portmap import NEWEST, port_maps
from fourtuple.cli.html.ports import LOOK_CLASS, SYMBOLS
from fourtuple.cli.html.schedule import schedule_card
from fourtuple.cli.html.snapshot import Snapshot, read_range, take_snapshot
from fourtuple.cli.html.strip import strip_card
from fourtuple.cli.steps import describe
from fourtuple.cli.story import names_of
from fourtuple.errors import errno_name
from fourtuple.kernel_map import FN_PORT_LOOK

if TYPE_CHECKING:
    from fourtuple.cli.demo_fill import Filled
    from fourtuple.shell.wires import Wire

WIDE, NARROW = 620, 306
_ROW = 46


@dataclass
class Seen:
    """One attempt with the tables it left."""

    attempt: Attempt
    tables: Snapshot
    label: str = ""


@dataclass
class Chapter:
    """What one chapter showed."""

    title: str
    remark: str
    seen: list[Seen] = field(default_factory=list)


@dataclass
class DemoPage:
    """Collects while the demo runs."""

    name: str
    seed: int
    chapters: list[Chapter] = field(default_factory=list)
    ours: Filled | None = None
    kernel: Filled | None = None
    ports: tuple[int, int] = (0, 0)

    def begin_chapter(self, title: str, remark: str) -> None:
        """What follows belongs to it."""
        self.chapters.append(Chapter(title, remark))

    def attempt(self, wire: Wire, request: Request, hold: bool, label: str) -> Attempt:
        """run_attempt, remembered."""
        tables: list[Snapshot] = []
        attempt = run_attempt(wire, request, hold, lambda attempt: tables.append(take_snapshot(attempt)))
        read_range(tables[0], attempt)
        self.chapters[-1].seen.append(Seen(attempt, tables[0], label))
        return attempt

    def text(self) -> str:
        """The page."""
        first = self.chapters[0].seen[0].attempt
        packets = "simulated packets" if first.wire.runner.is_virtual else "real packets"
        header = tag(
            "header",
            theme_button(),
            tag("h1", "The Linux connect() path in Python, on ", tag("span", packets, class_="good")),
            tag(
                "p",
                f"fourtuple demo · wire: {first.wire.where} · Linux {names_of(first).profile} · seed {self.seed}",
                class_="sub",
            ),
        )
        bodies = (_one_connect, _lost_syn, _one_port, _bind_first, self._full_range)
        chapters: list[Html] = []
        for number, (chapter, body) in enumerate(zip(self.chapters, bodies, strict=True), 1):
            title = tag("h2", tag("span", str(number), class_="number"), chapter.title)
            head = tag("div", title, tag("p", chapter.remark), class_="chapter")
            more = _no_port(chapter) if number == len(bodies) else None
            cards = tag("div", *body(chapter), class_="two")
            chapters.append(tag("section", head, cards, more, id=f"chapter-{number}"))
        return document("fourtuple demo", header, tag("main", *chapters, class_="demo"), _footer())

    def _full_range(self, chapter: Chapter) -> list[Html]:
        return [_maps_card(self.ours, self.kernel, self.ports), _cost_card(self.ours, self.kernel)]


def _one_connect(chapter: Chapter) -> list[Html]:
    seen = chapter.seen[0]
    column = tag(
        "div",
        ladder_card(seen.attempt, "one-ladder", whole=True),
        strip_card(seen.attempt, seen.tables, "one-ports"),
        tuple_card(seen.attempt, seen.tables),
        answer_card(seen.attempt),
        class_="column",
    )
    return [path_card(seen.attempt, "one"), column]


def _lost_syn(chapter: Chapter) -> list[Html]:
    attempt = chapter.seen[0].attempt
    return [
        ladder_card(attempt, "lost-ladder"),
        schedule_card(names_of(attempt).profile, attempt.wire.setup.sysctls),
    ]


def _one_port(chapter: Chapter) -> list[Html]:
    figures = [_fan(chapter.seen, width, f"fan-{width}") for width in (WIDE, NARROW)]
    fan = tag("section", tag("h2", "A port is not a connection"), both_widths(*figures), class_="card")
    return [fan, _decisions(chapter.seen, "Each connect(), and the rule that decided")]


def _bind_first(chapter: Chapter) -> list[Html]:
    seen = chapter.seen
    return [
        _decisions(seen[:2], "A port of bind(): nobody else may connect() from it"),
        _decisions(seen[2:], "IP_BIND_ADDRESS_NO_PORT, and a reserved port"),
    ]


def _no_port(chapter: Chapter) -> Html:
    """The connect() that finds the range full."""
    seen = chapter.seen[0]
    column = tag(
        "div",
        strip_card(seen.attempt, seen.tables, "full-ports"),
        tuple_card(seen.attempt, seen.tables),
        class_="column",
    )
    return tag("div", path_card(seen.attempt, "full"), column, class_="two more")


# ------------------------------------------------------------------------------------------------ several connections


def _decisions(seen: Sequence[Seen], title: str) -> Html:
    return tag(
        "section", tag("h2", title), tag("ul", *[_decision(one) for one in seen], class_="can decisions"), class_="card"
    )


def _decision(seen: Seen) -> Html:
    """One connection and the rule that decided."""
    attempt = seen.attempt
    looks = [step for step in describe(attempt.records, names_of(attempt), True) if step.fn == FN_PORT_LOOK]
    class_ = LOOK_CLASS[looks[-1].verdict] if looks else "taken"
    port = attempt.source_port or (looks[-1].port if looks else 0)
    server = f"{attempt.request.address}:{attempt.request.port}"
    says = "; ".join(f"{step.port}: {step.text}" if len(looks) > 1 else step.text for step in looks)
    return tag(
        "li",
        tag("span", SYMBOLS[class_], class_=f"mark {class_}"),
        tag(
            "span",
            tag("span", seen.label, class_="label") if seen.label else None,
            " " if seen.label else None,
            tag("code", f"{port} → {server}"),
            " ",
            tag("span", errno_name(attempt.error) + ": ", class_="bad") if attempt.error else None,
            tag("span", says or "no search: bind() chose the port", class_="note"),
        ),
        data_port=port,
        data_server=server,
        data_errno=errno_name(attempt.error) if attempt.error else "",
    )


def _fan(seen: Sequence[Seen], width: int, name: str) -> Html:
    """One local port on the left, the servers on the right."""
    local = f"{seen[0].attempt.source}:{seen[0].attempt.source_port}"
    height = 10.0 + _ROW * len(seen)
    middle, near = height / 2, width_of(local) + 20
    parts = [part for i, one in enumerate(seen) for part in _spoke(one, i, near + 1, middle, width)]
    parts.append(box(1, middle - 15, near, 30, "node", 8))
    parts.append(text_at(1 + near / 2, middle + 4, local, "mono port", "middle"))
    what = "; ".join(f"{call_text(one.attempt)} → {outcome(one.attempt)}" for one in seen)
    return picture(name, width, height, "One local port, several connections", what, *parts)


def _spoke(seen: Seen, index: int, start: float, middle: float, width: int) -> list[Html]:
    """The line to one server, how it ended, the server."""
    error = seen.attempt.error
    class_ = "bad" if error else "good"
    server = f"{seen.attempt.request.address}:{seen.attempt.request.port}"
    far, y = width_of(server) + 20, 5 + _ROW * (index + 0.5)
    word = f"✗ {errno_name(error)}" if error else "✓ shared" if index else "✓ the first"
    x = width - far - 1
    wide = width > 500
    end = x - 140 if wide else x
    parts = [line_of(start, middle, end, y, f"arrow {'lost' if error else 'in'}")]
    parts.append(box(x, y - 15, far, 30, f"node {class_}", 8))
    parts.append(text_at(x + far / 2, y + 4, server, "mono", "middle"))
    if wide:
        parts.append(text_at(end + 10, y + 4, word, f"small {class_}"))
    return parts


# ------------------------------------------------------------------------------------------------ the full range


def _maps_card(ours: Filled | None, kernel: Filled | None, ports: tuple[int, int]) -> Html:
    parts: list[str] = [tag("h2", f"Where the ports go: {unbroken(ports[1] - ports[0] + 1)} to one destination")]
    for name, filled, who in (("ours", ours, "fourtuple"), ("kernel", kernel, "the kernel, beside it")):
        if filled is not None and filled.ports:
            parts.append(tag("h3", who))
            parts.append(port_maps(filled.ports, ports[0], ports[1], f"map-{name}"))
    legend = [
        tag("li", tag("span", class_=f"swatch {class_}"), words)
        for class_, words in (
            ("even", "even ports: taken first, each a few steps past the last"),
            ("odd", "odd ports: only when a whole even pass has failed"),
            ("new", f"the {NEWEST} newest"),
        )
    ]
    return tag(
        "section",
        *parts,
        tag("ul", *legend, class_="legend"),
        tag("p", "A square is a port, from left to right and down; even and odd ones apart.", class_="hint"),
        class_="card",
    )


def _cost_card(ours: Filled | None, kernel: Filled | None) -> Html:
    curves = []
    for name, class_, filled in (("the kernel", "kernel", kernel), ("fourtuple", "ours", ours)):
        if filled is not None:
            curves.append(Curve(name, class_, filled.ns, filled.last_ns, filled.three))
    what = "One non-blocking connect(): port search, SYN built; no handshake, no device. Every dot is one call here."
    if kernel is None:
        what += " The kernel's cost needs a namespace of its own."
    return tag(
        "section",
        tag("h2", "Cost of the next connection"),
        cost_figure(curves),
        cost_table(curves),
        tag("p", what, class_="hint"),
        class_="card",
    )


def _footer() -> Html:
    return tag(
        "footer",
        f"fourtuple {__version__} · everything here was run on this machine for this page · "
        "fourtuple connect HOST:PORT --html FILE makes such a page of any one connect()",
    )
