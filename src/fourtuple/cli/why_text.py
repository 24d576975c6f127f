"""Why a connect() failed, as lines: all paths with what was seen, or what a log has.

Rules
1. A path is its number, its mark, the kernel function, and the condition; below it what was seen, then what to do.
2. What is ruled out gets no advice; nor does what is open, where another path is known to be it.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from fourtuple.cli.terminal import Line, Terminal
from fourtuple.doctor.why import KERNEL, NO, OPEN, YES, number_of, text_of
from fourtuple.doctor.words import endpoint, grouped, plural, some_of

if TYPE_CHECKING:
    from fourtuple.doctor.strace import Failed, Log
    from fourtuple.doctor.why import Asked, Explanation, Verdict
    from fourtuple.doctor.why_path import Path
    from fourtuple.live.probe import Tried

_INDENT = 6
_LABEL = 9
_MOST_GROUPS = 20
_MARKS = {YES: ("✓", "good"), NO: (" ", "dim"), OPEN: ("·", "")}
_LABELS = {YES: "here", NO: "not it", OPEN: "open"}


def lines(found: Explanation, asked: Asked | None, unread: str, out: Terminal) -> Iterator[Line]:
    """Everything about one errno."""
    yield [(f"{found.errno} ({number_of(found.errno)}): {text_of(found.errno)}", "bold")]
    for text in _wrapped(_about(asked), out.width) if asked else ():
        yield [(text, "dim")]
    for one in asked.tried if asked else ():
        yield from _labelled_probe(found, one, out)
    for call in found.calls:
        verdicts = found.of_call(call)
        yield []
        for text in _wrapped(_head(found, call, verdicts, asked), out.width):
            yield [(text, "")]
        for number, verdict in enumerate(verdicts, 1):
            is_decided = verdict.mark == OPEN and any(each.mark == YES for each in verdicts)
            yield from _path(number, verdict, asked, out, with_advice=verdict.mark != NO and not is_decided)
    if unread:
        yield []
        yield [(f"not read: {unread}", "dim")]


def _labelled_probe(found: Explanation, one: Tried, out: Terminal) -> Iterator[Line]:
    """What the kernel gave; where that is another errno, how to ask about it."""
    from fourtuple.doctor.why_probe import tried_words

    other = f": fourtuple why {one.errno} --dest {endpoint(one.destination, one.port)}"
    text = tried_words(one) + (other if one.errno and one.errno != found.errno else "")
    for i, part in enumerate(_wrapped(text, out.width - 9)):
        yield [("--probe  " if i == 0 else " " * 9, "dim"), (part, "")]


def _about(asked: Asked) -> str:
    places = [endpoint(t.address, t.port) for t in asked.targets]
    system = asked.reading.system
    words = [system.hostname, f"Linux {system.kernel.split('-')[0]}"]
    if system.netns not in ("", f"/proc/{asked.pid}/ns/net"):
        words.append(f"netns {system.netns}")
    if asked.pid:
        words.append(f"pid {asked.pid}")
    return ", ".join(words) + (f"; to {some_of(places, 3)}" if places else "")


def _head(found: Explanation, call: str, verdicts: Sequence[Verdict], asked: Asked | None) -> str:
    text = f"{found.errno} from {call}() has {plural(len(verdicts), 'source')} in Linux {KERNEL}"
    if asked is None:
        return text
    it = [number for number, verdict in enumerate(verdicts, 1) if verdict.mark == YES]
    whose = _whose(call, asked)
    if it:
        return f"{text}; {whose} it is number {' and '.join(map(str, it))}."
    left = [number for number, verdict in enumerate(verdicts, 1) if verdict.mark == OPEN]
    if not left:
        return f"{text}; {whose} it is none of them now."
    if len(left) == len(verdicts):
        return f"{text}; {whose} none can be ruled out."
    return f"{text}; {whose} number {' or '.join(map(str, left))} can be it."


def _whose(call: str, asked: Asked) -> str:
    if asked.targets and asked.is_named:
        where = endpoint(asked.targets[0].address, asked.targets[0].port)
        return f"for {where}" if call == "connect" else f"if {call}() asks for {where}"
    return f"for pid {asked.pid}" if asked.pid else "here"


def _path(number: int, verdict: Verdict, asked: Asked | None, out: Terminal, with_advice: bool) -> Iterator[Line]:
    path, is_asked = verdict.path, asked is not None
    mark, style = _MARKS[verdict.mark] if is_asked else (" ", "")
    ruled_out = is_asked and verdict.mark == NO
    head = f"{number:>3} {out.glyphs(mark):1} "
    first, *more = _wrapped(f"{path.function}  {path.when}", out.width - len(head))
    name = path.function if first.startswith(path.function) else ""
    yield [(head, style), (name, "dim" if ruled_out else "name"), (first[len(name) :], "dim" if ruled_out else "")]
    for text in more:
        yield [(" " * len(head) + text, "dim" if ruled_out else "")]
    if is_asked and verdict.text:
        yield from _labelled(_LABELS[verdict.mark], verdict.text, "dim" if ruled_out else style, out)
    if with_advice:
        yield from _advice(path, asked, verdict.text if is_asked else "", out)


def _advice(path: Path, asked: Asked | None, said: str, out: Terminal) -> Iterator[Line]:
    if path.look and path.look not in said:
        yield from _labelled("look at", _filled_in(path, asked), "", out)
    for i, fix in enumerate(path.fix):
        yield from _labelled("fix" if i == 0 else "or", fix, "", out)
    if path.facts:
        yield from _labelled("tested", " ".join(path.facts), "dim", out)


def _filled_in(path: Path, asked: Asked | None) -> str:
    """The command with the destination that was asked about."""
    if asked is None or not asked.targets or path.call != "connect" or not asked.targets[0].address:
        return path.look
    target = asked.targets[0]
    return path.look.replace("DEST", endpoint(target.address, target.port)).replace("ADDRESS", target.address)


def _labelled(label: str, text: str, style: str, out: Terminal) -> Iterator[Line]:
    for i, part in enumerate(_wrapped(text, out.width - _INDENT - _LABEL)):
        yield [(" " * _INDENT + f"{label if i == 0 else '':{_LABEL}}", "dim"), (part, style)]


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, max(20, width), break_long_words=False, break_on_hyphens=False) or [""]


# ------------------------------------------------------------------------------------------ logs


def log_lines(log: Log, found: Sequence[tuple[Failed, int, tuple[Path, ...]]], out: Terminal) -> Iterator[Line]:
    """What a log has: the kinds of failures, the most frequent first."""
    yield [(_summary(log), "bold")]
    if log.in_progress:
        yield [(f"{plural(log.in_progress, 'connect() call')} returned EINPROGRESS, which is no error: "
                "their end is in SO_ERROR", "dim")]  # fmt: skip
    if log.other_sockets:
        yield [(f"{plural(log.other_sockets, 'call')} on AF_UNIX, netlink or UDP sockets left out", "dim")]
    for failed, count, paths in found[:_MOST_GROUPS]:
        yield []
        yield from _kind(log, failed, count, paths, out)
    if len(found) > _MOST_GROUPS:
        yield []
        yield [(f"and {grouped(len(found) - _MOST_GROUPS)} more kinds: --json has all", "dim")]


def _summary(log: Log) -> str:
    failures = sum(log.failed.values())
    if log.is_strace:
        return (
            f"strace: {plural(log.calls, 'call')} of connect(), bind() and listen() on TCP, {grouped(failures)} failed"
        )
    if not failures:
        return f"{plural(log.lines, 'line')}: no errno of connect() or bind() in them"
    return f"{plural(log.lines, 'line')}, {grouped(failures)} with an errno of connect() or bind()"


def _kind(log: Log, failed: Failed, count: int, paths: Sequence[Path], out: Terminal) -> Iterator[Line]:
    where = endpoint(failed.address, failed.port) if failed.address else ""
    to = f" {'to' if failed.call in ('connect', '') else 'of'} {where}" if where else ""
    call = f"{failed.call}()" if failed.call else ""
    head = f"{grouped(count)} × {call}{to} = {failed.errno}" if call else f"{grouped(count)} × {failed.errno}{to}"
    yield [(out.glyphs(head), "name"), (f"  {_circumstances(log, failed)}", "dim")]
    for number, path in enumerate(paths, 1):
        call = "" if failed.call else f"{path.call}(): "
        first, *more = _wrapped(f"{call}{path.function}  {path.when}", out.width - _INDENT)
        yield [(f"{number:>4}  ", "dim"), (first, "")]
        for text in more:
            yield [(" " * _INDENT + text, "")]
    if paths:
        ask = f"fourtuple why {failed.errno}" + (f" --dest {where}" if where else "")
        yield [(" " * _INDENT + "ask     ", "dim"), (ask, "info")]


def _circumstances(log: Log, failed: Failed) -> str:
    words = []
    if failed.call == "connect":
        if failed.bound:
            words.append(f"bound to {failed.bound} before")
        elif failed.has_port is False:
            words.append("not bound before")
    words += failed.options
    pids = sorted(log.pids[failed] - {0})
    if pids:
        words.append(f"pid {some_of([str(pid) for pid in pids], 3)}")
    return ", ".join(words)
