"""What the doctor found, as lines: head, table of destinations, findings.

Rules
1. A table as wide as the terminal: the bar goes first, then the source where it is the same for all, then the ratio.
2. Bars only where box glyphs may be used.
3. A finding is a headline, and below it one label a line; what is too long goes on under its beginning.
4. A rule, a caution and what is not the cause are said once, where they come first.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from fourtuple.cli.terminal import Line, Span, Terminal, length
from fourtuple.doctor.finding import CRITICAL, NOTE, WARNING, Finding, Fix
from fourtuple.doctor.words import duration, endpoint, grouped, percent, plural, some_of, time_left

if TYPE_CHECKING:
    from fourtuple.doctor.answers import Prediction
    from fourtuple.doctor.findings import Diagnosis, Question
    from fourtuple.doctor.reading import Holder, Reading

_MARKS = {CRITICAL: ("✗", "bad"), WARNING: ("▲", "warn"), NOTE: ("·", "dim")}
_EIGHTHS = " ▏▎▍▌▋▊▉"
_LABEL = 14
_SCOPE = 11
_NARROW = 80
_COMMAND = "info"
_TW_REUSE = {0: "0 (off)", 1: "1", 2: "2 (loopback only)"}
_MOST_HOLDERS = 4
_BAR_WIDTHS = (12, 6, 0)


def lines(found: Diagnosis, question: Question, out: Terminal, destination: str | None, header: bool) -> Iterator[Line]:
    """Everything about one namespace."""
    if header and not (destination and not found.predictions and not found.findings):
        yield from _head(found.reading, out)
    if found.predictions:
        if header:
            yield []
        yield from _Table(found, question, out, header).lines()
    elif destination and not found.findings:
        yield from _nobody(found, question, destination, out)
    yield from _probed(found)
    for note in found.notes:
        yield from _joined_note(f"  what if: {note}", out)
    said: set[str] = set()
    for finding in found.findings:
        yield []
        yield from _finding(finding, out, said)
    if not destination or found.findings:
        yield []
        yield from _foot(found, out)
    for text in found.reading.unread if header else ():
        yield from _joined_note(f"  not read: {text}", out)


# ------------------------------------------------------------------------------------------ head and foot


def _head(reading: Reading, out: Terminal) -> Iterator[Line]:
    system, sockets = reading.system, reading.sockets
    read = f"{plural(len(sockets), 'TCP socket')} "
    read += f"read by {sockets.source} in {sockets.elapsed_s * 1000:.0f} ms" if reading.is_live else "of a snapshot"
    moment = time.localtime(reading.state.taken_at)
    clock = time.strftime("%H:%M:%S" if reading.is_live else "%Y-%m-%d %H:%M:%S", moment)
    words = [system.hostname, f"Linux {system.kernel.split('-')[0]}", f"netns {reading.netns or _own_netns(reading)}"]
    yield from _joined([*words, read, clock], out, "bold")
    yield from _joined(_settings(reading), out, "")


def _probed(found: Diagnosis) -> Iterator[Line]:
    """What --probe brought, in words."""
    probed = found.reading.probed
    if probed is None:
        return
    shut = f"{grouped(len(probed.shut))} of them taken by bind() or listen()"
    yield [(f"  probed: {plural(probed.asked, 'port')} in {probed.elapsed_s:.1f} s, {shut}", "info")]
    for note in probed.notes:
        yield [(f"    {note}", "dim")]
    time_waits = found.reading.sockets.count_by_state().get(6, 0)
    if time_waits and found.reading.state.sockets.stamps_known:
        yield [(f"  read: which of {plural(time_waits, 'TIME_WAIT')} had timestamps, by a BPF iterator", "info")]
    for i, measured in found.measured.items():
        p = found.predictions[i]
        result = measured.errno or "a port"
        cost = measured.cost_us
        took = f"{duration(cost.p50)} ({duration(cost.p5)} to {duration(cost.p95)}, {measured.tries} times)"
        where = f"{endpoint(p.destination, p.port)} from {p.source}"
        yield [(f"  measured: {where}: {result} in {took}, no packet sent", "info")]


def _own_netns(reading: Reading) -> str:
    """'host' where there is no sign of a container."""
    return "this container's" if reading.system.container else "host"


def _settings(reading: Reading) -> list[str]:
    low, high = reading.port_range
    sysctls = reading.system.sysctls
    inside = sum(low <= port <= high for port in reading.reserved)
    parity = "odd" if low & 1 else "even"
    reserved = plural(inside, "port") if inside else "none" if not reading.reserved else "none inside"
    words = [f"range {low}–{high} = {plural(high - low + 1, 'port')} ({parity} first)", f"reserved {reserved}"]
    words.append(f"tcp_tw_reuse {_TW_REUSE.get(sysctls.tcp_tw_reuse, sysctls.tcp_tw_reuse)}")
    return words if sysctls.tcp_timestamps else [*words, "tcp_timestamps 0"]


def _joined(words: Sequence[str], out: Terminal, first: str) -> Iterator[Line]:
    """Words between middle dots, in as many lines as they need."""
    line: Line = []
    for word in words:
        word = out.glyphs(word)
        dot = out.glyphs(" · ")
        if line and length(line) + len(dot) + len(word) > out.width:
            yield line
            line = [("  ", "")]
        elif line:
            line.append((dot, "dim"))
        line.append((word, first if len(line) == 0 else ""))
    yield line


def _joined_note(text: str, out: Terminal) -> Iterator[Line]:
    """A remark, the rest of it under its beginning."""
    first, *more = _wrapped(out.glyphs(text), out.width, out.width - 4)
    yield [(first, "dim")]
    yield from ([("    " + line, "dim")] for line in more)


def _foot(found: Diagnosis, out: Terminal) -> Iterator[Line]:
    counts = [
        (found.number_of(CRITICAL), "critical"),
        (found.number_of(WARNING), "warning"),
        (found.number_of(NOTE), "note"),
    ]
    said = [f"{n} {name}{'s' * (n != 1 and name != 'critical')}" for n, name in counts if n]
    if not said:
        busiest = f"; the fullest destination has {percent(found.predictions[0].fill)}" if found.predictions else ""
        yield [("✓ ", "good"), (f"nothing is wrong{busiest}", "")]
        return
    worst = next((finding for finding in found.findings if finding.fixes), None)
    style = "bad" if found.number_of(CRITICAL) else "warn" if found.number_of(WARNING) else "dim"
    yield from _joined_spans((", ".join(said), style), _next(found, worst), out)


def _joined_spans(first: Span, words: Sequence[str], out: Terminal) -> Iterator[Line]:
    """`1 warning     next: COMMAND · COMMAND`, or the commands below where they do not all fit."""
    line: Line = [first, ("     next: ", "dim"), (out.glyphs(" · ").join(words), "")]
    if not words:
        yield [first]
    elif length(line) <= out.width:
        yield line
    else:
        yield [first]
        for i, word in enumerate(words):
            yield [("        " if i else "  next: ", "dim"), (word, "")]


def _next(found: Diagnosis, worst: Finding | None) -> list[str]:
    """What to type now."""
    if worst is None:
        return []
    what_if = next((fix.what_if for fix in reversed(worst.fixes) if fix.what_if), {})
    here = f" -N {found.reading.netns.removeprefix('pid ')}" if found.reading.netns else ""
    words: list[str] = []
    if not found.reading.is_live:
        return words
    if found.reading.owners is None:
        words.append(f"fourtuple doctor -p{here}")
    if found.predictions and worst.prediction in found.predictions:
        words.append(f"fourtuple map {worst.subject}{here}")
    if what_if and not found.changed:
        key, value = next(iter(what_if.items()))
        from shlex import quote  # a program may be called anything

        words.append(f"fourtuple doctor --what-if {quote(f'{key}={value}')}{here}")
    return words


def _nobody(found: Diagnosis, question: Question, destination: str, out: Terminal) -> list[Line]:
    """The sentence about a destination without sockets."""
    state = found.reading.state
    then = state.anywhere()
    if question.port is not None and question.addresses:
        then = state.predict(None, question.addresses[0], question.port)
    outcome = f"fails: {then.errno}" if then.errno else f"takes {duration(then.cost_us.likely)}"
    text = f"{destination}: nobody is connected to it; {plural(then.free.likely, 'port')} free"
    return [
        [(line, "")] for line in _wrapped(out.glyphs(f"{text}, the next connect() {outcome}"), out.width, out.width)
    ]


# ------------------------------------------------------------------------------------------ table


class _Table:
    """The destinations, a line each."""

    def __init__(self, found: Diagnosis, question: Question, out: Terminal, header: bool) -> None:
        self.found = found
        self.question = question
        self.out = out
        self.header = header
        self.has_rates = any(p.rate for p in found.predictions)
        self.dropped = {finding.subject for finding in found.findings if finding.kind == "nat-full"}

    def lines(self) -> Iterator[Line]:
        """Heading, rows, and how many were left out."""
        rows = self._fitting()
        widths = [max(length(row[i]) for row in rows) for i in range(len(rows[0]))]
        for row in rows if self.header else rows[1:]:
            yield _clip(_row(row, widths, self._left), self.out.width)
        if self.found.count_small:
            text = f"  … {plural(self.found.count_small, 'more destination')}"
            yield [(self.out.glyphs(f"{text} below 1 %  (--all)"), "dim")]

    def _fitting(self) -> list[list[Line]]:
        """The cells at the greatest detail that fits."""
        same_source = len({p.source for p in self.found.predictions}) == 1
        for bar, source, ratio in self._details(same_source):
            rows = self._cells(bar, source, ratio)
            width = sum(max(length(row[i]) for row in rows) + 2 for i in range(len(rows[0])))
            if width - 2 <= self.out.width:
                break
        return rows

    def _details(self, same_source: bool) -> Iterator[tuple[int, bool, bool]]:
        bars = _BAR_WIDTHS if self.out.boxes else (0,)
        for bar in bars:
            yield bar, True, True
        if same_source:
            for bar in bars:
                yield bar, False, True
        yield 0, True, False
        yield 0, False, False

    def _cells(self, bar: int, source: bool, ratio: bool) -> list[list[Line]]:
        predictions = self.found.predictions
        counts = ("ESTAB", "SYN", "TW", *(["OTHER"] if any(_other(p) for p in predictions) else []))
        heads = ["  DESTINATION", *(["SOURCE"] if source else []), *counts, "FILL", "NEXT connect()"]
        heads += ["WHAT IF"] * bool(self.found.changed) + ["FULL IN"] * self.has_rates
        self._left = {0, 1} if source else {0}
        self._left |= {
            heads.index("FILL") if bar else 99,
            heads.index("NEXT connect()"),
            len(heads) - 1 - self.has_rates,
        }
        rows = [[[(head, "head")] for head in heads]]
        for i, p in enumerate(predictions):
            to = endpoint(p.destination, p.port)
            mark, style = _MARKS[CRITICAL] if to in self.dropped else _mark(p, self.question)
            row: list[Line] = [[(f"{mark} ", style), (to, "name" if style else "")]]
            row += [[(p.source, "")]] if source else []
            row += [_count(p, name) for name in counts]
            then = [("SYN dropped", "bad")] if to in self.dropped else _next_connect(p, ratio, self.question, self.out)
            row += [_fill(p, bar, style, self.out), then]
            row += [_what_if(self.found.changed[i], self.out)] if self.found.changed else []
            row += [_full_in(p)] if self.has_rates else []
            rows.append(row)
        return rows


def _mark(p: Prediction, question: Question) -> Span:
    if p.errno or p.fill >= question.crit:
        return _MARKS[CRITICAL]
    return _MARKS[WARNING] if p.fill >= question.warn else (" ", "")


def _other(p: Prediction) -> int:
    return sum(n for name, n in p.by_state.items() if name not in ("ESTABLISHED", "SYN_SENT", "TIME_WAIT"))


def _count(p: Prediction, head: str) -> Line:
    names = {"ESTAB": "ESTABLISHED", "SYN": "SYN_SENT", "TW": "TIME_WAIT"}
    number = _other(p) if head == "OTHER" else p.by_state.get(names[head], 0)
    return [(grouped(number), "" if number else "dim")]


def _fill(p: Prediction, bar: int, style: str, out: Terminal) -> Line:
    text = percent(p.fill).replace(" ", "")
    if not bar:
        return [(text, style)]
    eighths = round(p.fill * bar * 8)
    cells = "█" * (eighths // 8) + (_EIGHTHS[eighths % 8] if eighths % 8 else "")
    return [(cells.ljust(bar), style or "info"), (text.rjust(5), style)]


def _next_connect(p: Prediction, ratio: bool, question: Question, out: Terminal) -> Line:
    if p.errno:
        return [(p.errno, "bad")]
    line: Line = [(out.glyphs(duration(p.cost_us.likely)), "")]
    times = p.cost_us.likely / p.baseline_us.likely
    if times >= 2 and ratio:
        line.append((out.glyphs(f"  ×{times:.0f}"), "warn"))
    elif p.to_cliff_ports.likely and p.fill >= question.warn and ratio:
        line.append((f"  cliff {_cliff(p)}", "warn"))
    return line


def _cliff(p: Prediction) -> str:
    if p.rate and p.rate.cliff_in_s is not None:
        return f"in {time_left(p.rate.cliff_in_s)}"
    return f"{grouped(p.to_cliff_ports.likely)} away"


def _what_if(p: Prediction, out: Terminal) -> Line:
    if p.errno:
        return [("100%  ", "bad"), (p.errno, "bad")]
    return [(out.glyphs(f"{percent(p.fill).replace(' ', ''):>4}  {duration(p.cost_us.likely)}"), "good")]


def _full_in(p: Prediction) -> Line:
    if p.rate is None or p.rate.full_in_s is None:
        return [("-", "dim")]
    return [("now", "bad")] if p.rate.full_in_s == 0 else [(time_left(p.rate.full_in_s), "")]


def _row(cells: Sequence[Line], widths: Sequence[int], left: set[int]) -> Line:
    line: Line = []
    for i, (cell, width) in enumerate(zip(cells, widths, strict=True)):
        pad = (" " * (width - length(cell)), "")
        line += [*cell, pad] if i in left else [pad, *cell]
        line.append(("  ", ""))
    return line[:-1]


def _clip(line: Line, width: int) -> Line:
    """What does not fit, even so, is cut off."""
    kept: Line = []
    for text, style in line:
        left = width - length(kept)
        kept.append((text[:left], style))
    return kept


# ------------------------------------------------------------------------------------------ findings


def _finding(finding: Finding, out: Terminal, said: set[str]) -> Iterator[Line]:
    mark, style = _MARKS[finding.severity]
    head = f"{finding.subject}   "
    room = out.width - 2
    first, *more = _wrapped(out.glyphs(head + finding.title), room, room - 2)
    yield [(f"{mark} ", style), (first[: len(finding.subject)], "name"), (first[len(finding.subject) :], "")]
    for text in more:
        yield [("    " + text, "")]
    for label, texts in _labelled(finding, said):
        for i, (indent, spans) in enumerate(texts):
            yield from _label(label if i == 0 else "", indent, spans, out)


def _labelled(finding: Finding, said: set[str]) -> Iterator[tuple[str, list[tuple[int, list[Span]]]]]:
    """Label, and for each line below it the depth of what is wrapped, and spans."""
    if finding.held_by:
        yield "held by", [(0, [(_holders(finding.held_by), "")])]
    if finding.evidence:
        yield "seen", [(0, [(text, "")]) for text in finding.evidence]
    if finding.inferred:
        yield "inferred", [(0, [(text, "")]) for text in finding.inferred]
    if rule := _once(finding.rule, said):
        yield "rule", [(0, [(rule, "dim")])]
    if finding.fixes:
        yield "fix", [part for fix in finding.fixes for part in _fix(fix, said)]
    if not_it := _once(" · ".join(finding.not_it), said):
        yield "not it", [(0, [(not_it, "dim")])]


def _once(text: str, said: set[str]) -> str:
    """The text the first time."""
    if text in said:
        return ""
    said.add(text)
    return text


def _holders(holders: Sequence[Holder]) -> str:
    return some_of([f"{holder.name}: {grouped(holder.sockets)}" for holder in holders], _MOST_HOLDERS)


def _fix(fix: Fix, said: set[str]) -> Iterator[tuple[int, list[Span]]]:
    """What it is and what it brings; below, what to type and what to mind."""
    spans: list[Span] = [(fix.scope.ljust(_SCOPE), "dim"), (fix.what, "")]
    if fix.effect:
        spans += [("  → ", "dim"), (fix.effect, "good")]
    yield _SCOPE, spans
    if fix.command:
        yield _SCOPE, [(" " * _SCOPE, ""), (fix.command, _COMMAND)]
    if caution := _once(fix.caution, said):
        yield _SCOPE, [(" " * _SCOPE, ""), (caution, "dim")]


def _label(label: str, indent: int, spans: Sequence[Span], out: Terminal) -> Iterator[Line]:
    """A label and spans, wrapped with their styles kept; a broken command can still be pasted."""
    below = _LABEL + 2 + (indent if out.width >= _NARROW else 0)
    line: Line = [(f"    {label}".ljust(_LABEL), "dim")]
    used = _LABEL
    for text, style in spans:
        tail = out.glyphs(" \\") if style == _COMMAND else ""
        for word in _pieces(out.glyphs(text)):
            if used + len(word.rstrip()) + len(tail) > out.width and used > min(below, _LABEL + indent):
                yield [*line, (tail, "dim")]
                used = below
                line, word = [(" " * used, "")], word.lstrip()
            line.append((word, style))
            used += len(word)
    yield line


def _pieces(text: str) -> Iterator[str]:
    """Words with the blanks in front of them; what is in quotes is one word."""
    start = 0
    for i in range(1, len(text)):
        if text[i] == " " and text[i - 1] != " " and text.count('"', start, i) % 2 == 0:
            yield text[start:i]
            start = i
    if text:
        yield text[start:]


def wrapped(text: str, out: Terminal) -> list[Line]:
    """A note, in as many lines as it takes."""
    return [[(line, "dim")] for line in _wrapped(out.glyphs(text), out.width, out.width)]


def _wrapped(text: str, first: int, rest: int) -> list[str]:
    """Lines of at most so many characters; a word that is longer stays whole."""
    found: list[str] = []
    line = ""
    for word in _pieces(text):
        room = rest if found else first
        if line and len(line) + len(word) > room:
            found.append(line)
            word = word.lstrip()
            line = ""
        line += word
    return [*found, line]
