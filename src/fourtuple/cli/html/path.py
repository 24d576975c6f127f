"""The call path: every function with its decision, its states and where it lives; the port search as a branch.

Rule: the steps are those of `describe()`, as in the text and in the JSON.  The page holds the verbose ones (as JSON
does); those that the text leaves out are there but hidden, and where text and JSON differ in depth or remark each
step has both.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fourtuple import kernel_map as km
from fourtuple.cli.attempt import Attempt
from fourtuple.cli.html.markup import Html, tag
from fourtuple.cli.html.ports import LOOK_CLASS, SYMBOLS
from fourtuple.cli.render import shorten_scans
from fourtuple.cli.steps import GOOD_LOOKS, SS_NAMES, Step, describe, duration
from fourtuple.cli.story import names_of
from fourtuple.doctor.words import grouped
from fourtuple.kernel_map import KernelFunction
from fourtuple.tcp.states import STATE_NAMES

_SILENCE_US = 100_000
_DEEPEST = 7
_ENTRIES = {
    km.FN_SYS_BIND: ("call", "bind(2) is called"),
    km.FN_SYS_CONNECT: ("call", "connect(2) is called"),
    km.FN_TCP_RETRANSMIT_TIMER: ("timer", "the retransmission timer fires"),
    km.FN_IP_RCV: ("packet", "a packet comes in"),
    km.FN_CONNECT_RETURNS: ("call", "connect(2) returns"),
}
"""Functions that nobody calls: phase and what it says in words."""


@dataclass
class Line:
    """A step as JSON has it, and as the text has it (None: the text leaves it out)."""

    step: Step
    brief: Step | None


def lines_of(attempt: Attempt) -> list[Line]:
    """Every step; ports looked at are not among them."""
    names, virtual = names_of(attempt), attempt.wire.runner.is_virtual
    brief = {id(step.record): step for step in describe(attempt.records, names, virtual)}
    verbose = describe(attempt.records, names, virtual, verbose=True)
    return [Line(step, brief.get(id(step.record))) for step in verbose]


def call_path(attempt: Attempt) -> Html:
    """The list of steps."""
    rows: list[str] = []
    phase, told_us = "call", 0.0
    for run in _runs(lines_of(attempt)):
        first = run[0]
        if first.step.fn == km.FN_PORT_LOOK:
            rows += _scan(run)
            continue
        at = first.step.time_us
        if first.step.fn in _ENTRIES:
            phase, what = _ENTRIES[first.step.fn]
            if first.step.fn != km.FN_CONNECT_RETURNS:
                rows.append(_entry(what, phase, None if at is None else at - told_us))
        told_us = told_us if at is None else at
        rows.append(_row(first, phase))
    return tag("ol", *rows, class_="path")


def _runs(lines: Sequence[Line]) -> Iterator[list[Line]]:
    """Single steps, and all the ports looked at in one search together."""
    looks: list[Line] = []
    for line in lines:
        if line.step.fn == km.FN_PORT_LOOK:
            looks.append(line)
            continue
        if looks:
            yield looks
            looks = []
        yield [line]
    if looks:
        yield looks


def _entry(what: str, phase: str, gap_us: float | None) -> Html:
    """Who begins: the caller, a timer or a packet; after a long silence that is said too."""
    later = f"{_about(gap_us)} later: " if gap_us is not None and gap_us > _SILENCE_US else ""
    return tag("li", tag("span", later + what), class_=f"entry {phase}")


def _about(gap_us: float) -> str:
    """'1.0 s' for what a real clock calls 999.9 ms."""
    return f"{gap_us / 1e6:.1f} s" if gap_us >= 950_000 else duration(gap_us)


def _row(line: Line, phase: str) -> Html:
    step, brief = line.step, line.brief
    entry = km.BY_NUMBER[step.fn]
    shown = brief or step
    depth = min(shown.depth, _DEEPEST), min(step.depth, _DEEPEST)
    return tag(
        "li",
        tag("span", "" if shown.time_us is None else duration(shown.time_us), class_="time"),
        tag(
            "div",
            tag("code", step.name, class_="fn"),
            _badge(step),
            tag("span", entry.kernel_file, class_="file"),
            _saying(shown),
            _place(entry),
            class_="what",
        ),
        class_=f"step {phase} d{depth[0]} v{depth[1]}{'' if brief else ' detail'}",
        data_function=step.name,
        data_text=step.text,
        data_note=step.note,
        data_brief_note=brief.note if brief else None,
    )


def _badge(step: Step) -> Html | None:
    state = ""
    if step.fn == km.FN_TCP_SET_STATE and step.record is not None:
        state = "TCP_" + STATE_NAMES.get(step.record.b, "?")
    elif step.note in SS_NAMES.values():
        state = step.note
    return tag("span", state, class_="badge") if state else None


def _saying(step: Step) -> Html | None:
    note = "" if step.note in SS_NAMES.values() else step.note
    if not step.text and not note:
        return None
    return tag(
        "p",
        tag("span", step.text, class_=step.style or None) if step.text else None,
        " " if step.text and note else None,
        tag("span", note, class_="bad" if note.startswith("✗") else "note") if note else None,
        class_="say",
    )


def our_place(entry: KernelFunction) -> str:
    """'inet.bind:bucket_join' -> 'inet/bind.py bucket_join'."""
    module, _, function = entry.ours.partition(":")
    return f"{module.replace('.', '/')}.py {function}"


def _place(entry: KernelFunction) -> Html:
    return tag("p", "ours: ", tag("code", our_place(entry)), f" · {entry.meaning}", class_="where")


# ------------------------------------------------------------------------------------------------ the port search


def _scan(run: Sequence[Line]) -> list[Html]:
    """The ports looked at, shortened as in the text."""
    depth = min((run[0].brief or run[0].step).depth, _DEEPEST)
    return [_look(step, depth) for step in shorten_scans([line.brief or line.step for line in run])]


def _look(step: Step, depth: int) -> Html:
    name = step.name.removeprefix("│ ").removeprefix("└ ")
    many = step.verdict == 0
    class_ = "" if many else LOOK_CLASS[step.verdict]
    label = name if many else str(step.port)
    return tag(
        "li",
        tag("span", class_="time"),
        tag(
            "div",
            tag("span", "" if many else SYMBOLS[class_], class_=f"mark {class_}"),
            tag("code", label, class_="port" if step.verdict in GOOD_LOOKS else None),
            tag("span", step.text, class_=step.style or None),
            tag("span", step.note, class_="bad" if step.style == "bad" else "note") if step.note else None,
            class_="what",
        ),
        class_=f"look d{depth} v{depth}",
        data_port=None if many else step.port,
        data_name=name,
        data_text=step.text,
        data_note=step.note,
    )


def unbroken(count: int) -> str:
    """'28 232', kept on one line."""
    return grouped(count).replace(" ", "\u00a0")


def head_of(count: int, what: str) -> str:
    """'1 port', '28 232 ports'."""
    return f"{unbroken(count)} {what}{'' if count == 1 else 's'}"


def path_card(attempt: Attempt, name: str = "p") -> Html:
    """The list with its heading and its two switches."""
    return tag(
        "section",
        tag("input", type="checkbox", id=f"{name}-all", class_="switch all"),
        tag("input", type="checkbox", id=f"{name}-where", class_="switch whereabouts"),
        tag("h2", "The call path"),
        tag(
            "p",
            tag("label", "every function", for_=f"{name}-all"),
            tag("label", "where it lives", for_=f"{name}-where"),
            class_="switches",
        ),
        call_path(attempt),
        class_="card calls",
    )
