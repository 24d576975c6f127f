"""What became of a dial, as lines; and the line that says where it is while it runs.

Rules
1. A label a line; what does not fit goes on under its beginning, whole pieces at a time.
2. A failure says how many, the kernel function that says so, and what helps.
3. Bars only where box glyphs may be used.
4. After merging, peaks are sums and local ports a lower bound: then the words say so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from fourtuple.cli.chart import nanoseconds
from fourtuple.cli.render import paragraph, wrap
from fourtuple.cli.terminal import Line, Span, Terminal, length
from fourtuple.doctor.words import endpoint, grouped, percent, plural, time_left
from fourtuple.errors import reason_for

if TYPE_CHECKING:
    from fourtuple.dial.histogram import Histogram
    from fourtuple.dial.report import DialReport, FailureCount, Fit, Progress, TargetCount, Worker

_INDENT = 15
_GAP = "   "
_BAR, _SHORTEST_BAR = 32, 8
_WIDE = 100
_MOST_TARGETS = 5
_MANY = 10_000  # connections; of fewer, most of the memory is what any number of them takes
_PHASES = {"open": "opening", "hold": "holding", "close": "closing", "time-wait": "waiting for TIME_WAIT to end"}
_STACKS = {"user": "our own stack", "kernel": "kernel sockets"}

_HELP = {
    ("EADDRNOTAVAIL", "connect"): "more four-tuples: --range 1024-65535, --sources CIDR, or more targets",
    ("ECONNREFUSED", "connect"): "ss -ltn on the server: does it listen there? One that restarts: --redial 3",
    ("ETIMEDOUT", "connect"): "nstat -az 'TcpExtListen*' on the server: full queues? A firewall? A lower --rate",
    ("ECONNRESET", "connect"): "nstat -az TcpExtListenOverflows on the server, with tcp_abort_on_overflow = 1",
    ("ENETUNREACH", "connect"): "ip route get ADDRESS",
    ("EHOSTUNREACH", "connect"): "ip neigh; ip route get ADDRESS",
    ("EINVAL", "connect"): "other --sources",
    ("EMFILE", "connect"): "ulimit -n: a kernel socket takes a descriptor each, --stack user takes none",
    ("ENOBUFS", "connect"): "a larger --max-sockets",
    ("ECONNRESET", "open"): "the server's log: it ended, or closed with data unread. --redial 3 opens them again",
    ("ETIMEDOUT", "open"): "the way to the server: keepalive or retransmissions were not answered",
    ("FIN", "open"): "the server's log: it closed first, perhaps for being idle",
    ("EPIPE", "open"): "the server's log: it closed first",
}


def lines(report: DialReport, out: Terminal, verbose: bool = False) -> Iterator[Line]:
    """Everything that a report says, for people; `verbose`: what fits, and the counters."""
    yield from _pieces("", _head(report), out, " · ", 0)
    yield from preflight_lines([fit for fit in report.preflight if verbose or not fit.fits], out)
    yield []
    yield _summary(report, out)
    yield []
    for label, pieces in rows(report):
        yield from _pieces(label, pieces, out)
    if (same := same_port(report)) is not None:
        yield from paragraph(out.glyphs(same), out.width, 2, "port")
    if verbose:
        counters = [(f"{name} {grouped(n)}", "") for name, n in sorted(report.counters.items())]
        yield from _pieces("counters", counters or [("all 0", "")], out)
    yield from _failed(report, out)
    yield from _workers(report, out)
    yield []
    yield from _verdict(report, out)


# ------------------------------------------------------------------------------------------ numbers


def seconds(value: float) -> str:
    """'0 s', '0.42 s', '10.0 s', '12m 30s'."""
    if value >= 600:
        return f"{int(value) // 60}m {int(value) % 60:02}s"
    if value < 0.005:
        return "0 s"
    return f"{value:.2f} s" if value < 1 else f"{value:.1f} s"


def share_of(part: int, whole: int) -> str:
    """'0.006 %', '12 %'."""
    if not whole:
        return "0 %"
    found = 100 * part / whole
    return f"{found:.2g} %" if 0 < found < 10 else f"{found:.0f} %"


def size_of(count: int) -> str:
    """'950 bytes', '2.4 MB'."""
    for limit, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= limit:
            return f"{count / limit:.1f} {unit}"
    return plural(count, "byte")


def mib(value: float) -> str:
    """'31 MiB', '0.4 MiB'."""
    return f"{max(value, 0.0):.1f} MiB" if value < 10 else f"{grouped(round(value))} MiB"


def rate_of(value: float) -> str:
    """'19 980/s', '0.5/s'."""
    return f"{grouped(round(value))}/s" if value >= 10 or not value else f"{value:.1f}/s"


def percentiles(found: Histogram, names: Sequence[tuple[str, float]]) -> list[str]:
    """'p50 31 µs', …, 'max 4.1 ms'."""
    return [f"{name} {nanoseconds(found.percentile(percent))}" for name, percent in names]


_FULL = (("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("max", 100.0))


# ------------------------------------------------------------------------------------------ parts


def _head(report: DialReport) -> list[Span]:
    return [(word, "bold" if i == 0 else "") for i, word in enumerate(head_words(report))]


def head_words(report: DialReport) -> list[str]:
    """Where it ran and over what."""
    words = [report.host, _stacks(report.stack), report.wire]
    if report.processes > 1:
        words.append(plural(report.processes, "processe"))
    if report.seed is not None:
        words.append(f"seed {report.seed}")
    return [word for word in words if word]


def _stacks(names: str) -> str:
    """Of one report, or of several merged: `kernel; user`."""
    return ", ".join(_STACKS.get(name, name) for name in names.split("; "))


def _summary(report: DialReport, out: Terminal) -> Line:
    """The bar, how many were open, the rate, the time, the failures."""
    done = report.connections
    asked = report.asked.connections or done.begun or 1
    failed = (f"{grouped(done.failed)} failed", "bad" if done.failed else "")
    spans = [(f"{grouped(done.peak_open)} open", "bold"), (rate_of(report.rate_per_s), "")]
    line: Line = [("  ", "")]
    for span in (*spans, (seconds(report.seconds.open), ""), failed):
        line += [span, (_GAP, "")]
    line.pop()
    room = min(_BAR, out.width - length(line) - 2)
    if not out.boxes or room < _SHORTEST_BAR:
        return line
    return [("  ", ""), *_bar(min(1.0, done.peak_open / asked), room), *line]


def _bar(share: float, width: int) -> list[Span]:
    full = int(share * width)
    return [("█" * full, "good"), ("─" * (width - full), "dim")]


def rows(report: DialReport) -> Iterator[tuple[str, list[Span]]]:
    """(label, pieces) of what succeeded."""
    yield "connections", [(text, "") for text in _connections(report)]
    times = report.times
    if times.connect_us.count or report.passed_over.count:
        # Kernel sockets do not tell what they passed over, and no time passes in a simulated call.
        passed = [f"ports passed over: {_passed(report.passed_over)}"] if report.passed_over.count else []
        took = percentiles(times.connect_us, _FULL) if times.connect_us.count else []
        yield "connect()", [(text, "") for text in (*took, *passed)]
    if times.handshake_us.count:
        yield "handshake", [(text, "") for text in (*percentiles(times.handshake_us, _FULL), _syns(report))]
    if report.talk is not None:
        yield "talk", list(_talk(report))
    if report.connections.begun:
        yield "memory", [(text, "") for text in _memory(report)]
        cpu = report.cpu_s
        spent = f"user {seconds(cpu.user)}, system {seconds(cpu.system)}"
        yield "CPU", [(f"{nanoseconds(report.cpu_us_per_connection * 1_000)} a connection", ""), (spent, "")]


def _connections(report: DialReport) -> Iterator[str]:
    done, asked = report.connections, report.asked
    together = ", the peaks of all added up" if len(report.workers) > 1 else " at once"
    words = [f"{grouped(done.peak_open)} open{together}"]
    if asked.targets.count:
        words.append(plural(asked.targets.count, "destination"))
    if asked.sources.count:
        words.append(
            "1 source address" if asked.sources.count == 1 else f"{grouped(asked.sources.count)} source addresses"
        )
    if report.ports.distinct:
        least = "at least " if len(report.workers) > 1 else ""
        words.append(least + plural(report.ports.distinct, "distinct local port"))
    yield from words
    if done.established:
        yield f"held {seconds(report.seconds.hold)}, {grouped(done.closed)} closed in {seconds(report.seconds.close)}"
    if done.redialed:
        yield f"{grouped(done.redialed)} opened again"


def _passed(found: Histogram) -> str:
    if not found.maximum():
        return "none"
    return f"mean {grouped(round(found.mean()))}, max {grouped(found.maximum())}"


def _syns(report: DialReport) -> str:
    again = report.syn.sent_again_connections
    text = f"SYN sent again: {grouped(again)}"
    text += f" ({share_of(again, report.connections.begun)})" if again else ""
    lost = report.syn.lost_by_queue
    return text + (f", {grouped(lost)} packets lost in this machine's queue" if lost else "")


def _memory(report: DialReport) -> Iterator[str]:
    memory = report.memory
    whole = f"{mib(memory.rss_growth_mb + memory.kernel_mb)} in all"
    if memory.bytes_per_connection and report.connections.peak_open >= _MANY:
        whole = f"{grouped(round(memory.bytes_per_connection))} bytes a connection, {whole}"
    yield whole
    if memory.kernel_mb:
        yield f"{mib(memory.kernel_mb)} of it in the kernel"
    yield plural(memory.descriptors, "file descriptor") if memory.descriptors else "no file descriptors used"


def _talk(report: DialReport) -> Iterator[Span]:
    talk = report.talk
    assert talk is not None
    yield f"{plural(talk.requests, 'request')}, {plural(talk.responses, 'answer')}", ""
    sends, expects = (report.asked.steps().count(kind) for kind in ("send", "expect"))
    if talk.requests > talk.responses and sends == expects:
        yield f"{grouped(talk.requests - talk.responses)} without one by the end", ""
    if talk.unexpected and (expects or not report.asked.talk):
        yield f"{grouped(talk.unexpected)} not as expected", "bad"
    if report.times.response_us is not None and report.times.response_us.count:
        yield "  ".join(percentiles(report.times.response_us, _FULL)), ""
    yield f"{size_of(talk.bytes_sent)} out, {size_of(talk.bytes_received)} in", ""


def same_port(report: DialReport) -> str | None:
    """The remark that ports are shared."""
    busiest = report.ports.busiest
    if busiest.connections < 2:
        return None
    return (
        f"same port, different four-tuple: port {busiest.port} backs {grouped(busiest.connections)} connections at once"
    )


# ------------------------------------------------------------------------------------------ what went wrong


def _failed(report: DialReport, out: Terminal) -> Iterator[Line]:
    """Each way to fail, then where."""
    for failure in sorted(report.failures, key=lambda one: -one.count):
        yield []
        yield from _failure(failure, out)
    bad = [target for target in report.targets if target.failed]
    was_stopped = all(failure.errno == "ECANCELED" for failure in report.failures)  # that says nothing of a target
    if bad and len(report.targets) > 1 and not was_stopped:
        yield []
        yield from _targets(bad, out)


def failure_words(failure: FailureCount) -> tuple[str, str, str]:
    """When it happens, who says so and why, what helps; the last may be ""."""
    known = reason_for("connect", failure.number)
    when = "after they were established" if failure.phase == "open" else "never established"
    function, meaning = failure.function, failure.meaning
    if not meaning:  # with one and no function, as of the timeout of a dial, it was no function of the kernel's
        function, meaning = function or known.function, known.reason
    helps = _HELP.get((failure.errno, failure.phase)) or " · ".join(known.frees)
    return (
        f"{when}, the first after {seconds(failure.first_s)}",
        f"{function}: {meaning}" if function else meaning,
        helps,
    )


def _failure(failure: FailureCount, out: Terminal) -> Iterator[Line]:
    when, says, helps = failure_words(failure)
    yield from _headline(f"{grouped(failure.count)} {failure.errno}", f"  {when}", out)
    yield from _labelled("says", says, out)
    if helps:
        yield from _labelled("try", helps, out, "info")


def _headline(what: str, more: str, out: Terminal) -> Iterator[Line]:
    """What went wrong, in red; the rest behind it or below it."""
    what, more = out.glyphs(what), out.glyphs(more)
    if 2 + len(what) + len(more) <= out.width:
        yield [("✗ ", "bad"), (what, "bad"), (more, "")]
        return
    yield [("✗ ", "bad"), (what, "bad")]
    yield from _labelled("", more.strip(": "), out)


def _labelled(label: str, text: str, out: Terminal, style: str = "") -> Iterator[Line]:
    room = out.width - 10
    for i, piece in enumerate(wrap(out.glyphs(text), room, room)):
        yield [(f"    {label if i == 0 else '':<6}", "dim"), (piece, style)]


def _targets(bad: Sequence[TargetCount], out: Terminal) -> Iterator[Line]:
    shown = sorted(bad, key=lambda target: -target.failed)[:_MOST_TARGETS]
    texts = []
    for target in shown:
        name = endpoint(target.address, target.port) if target.port else target.address
        texts.append(f"{name} {grouped(target.failed)} of {grouped(target.failed + target.established)}")
    if len(bad) > len(shown):
        texts.append(f"and {plural(len(bad) - len(shown), 'more')}".removesuffix("s"))
    yield from _pieces("failed at", [(text, "") for text in texts], out)


def _workers(report: DialReport, out: Terminal) -> Iterator[Line]:
    """Those without a report, each with its share; the number of the others."""
    lost = [worker for worker in report.workers if worker.error]
    if len(report.workers) < 2 and not lost:
        return
    yield []
    for worker in lost:
        yield from _lost_worker(worker, out)
    fine = len(report.workers) - len(lost)
    if fine:
        shares = ", ".join(f"{one.name} {percent(one.share)}" for one in report.workers[:4] if not one.error)
        more = ", …" if fine > 4 else ""
        yield from _pieces("workers", [(f"{grouped(fine)} with a report", ""), (f"{shares}{more}", "dim")], out)


def _lost_worker(worker: Worker, out: Terminal) -> Iterator[Line]:
    missing = f"{grouped(worker.connections)} connections, {percent(worker.share)} of all, are not in this report"
    yield from _headline(f"no report from {worker.name}", f": {missing}", out)
    yield from _labelled("says", worker.error or "", out)


def _verdict(report: DialReport, out: Terminal) -> Iterator[Line]:
    """One line that a glance finds."""
    mark, style, text = verdict_of(report)
    room = out.width - 2
    for i, piece in enumerate(wrap(out.glyphs(text), room, room)):
        yield [(f"{mark} " if i == 0 else "  ", style), (piece, style)]


def verdict_of(report: DialReport) -> tuple[str, str, str]:
    """Mark, style, text."""
    done = report.connections
    if not done.established:
        why = report.failures[0].errno if report.failures else "nothing was begun"
        return "✗", "bad", f"no connection was established: {why}"
    wrong = []
    lost = [worker for worker in report.workers if worker.error]
    expected = report.asked.connections - sum(worker.connections for worker in lost)
    if done.begun - done.redialed < expected:
        wrong.append(f"only {grouped(done.begun - done.redialed)} of {grouped(expected)} were begun")
    if done.failed and done.redialed:
        wrong.append(f"{grouped(done.failed)} of {grouped(done.begun)} attempts failed")
    elif done.failed:
        wrong.append(f"{grouped(done.failed)} of {grouped(expected)} failed")
    if done.lost:
        wrong.append(f"{grouped(done.lost)} were lost while open")
    if lost:
        wrong.append(f"{plural(len(lost), 'worker')} brought no report")
    if report.unanswered:
        wrong.append(f"{plural(report.unanswered, 'answer')} did not come")
    left = report.left
    counts = [(left.sockets, "socket"), (left.timers, "timer"), (left.packets, "packet")]
    rest = ", ".join(plural(n, noun) for n, noun in counts if n)
    if rest:
        wrong.append(f"left after the close: {rest}")
    if wrong:
        return "▲", "warn", "; ".join(wrong)
    return "✓", "good", f"all {plural(done.established, 'connection')} were established"


def preflight_lines(fits: Iterable[Fit], out: Terminal) -> Iterator[Line]:
    """What fits and what does not, a line each, with the change that makes it fit."""
    rows = list(fits)
    width = max((len(fit.what) for fit in rows), default=0)
    for fit in rows:
        mark: Span = ("✓ ", "good") if fit.fits else ("✗ ", "bad")
        text = f"{fit.what.ljust(width)}  {_need(fit)}"
        line: Line = [mark, (text, "")]
        change = out.glyphs(fit.change)
        if change and length(line) + len(_GAP) + len(change) <= out.width:
            yield [*line, (_GAP, ""), (change, "info")]
            continue
        yield line
        if change:
            yield from _labelled("then" if fit.fits else "try", change, out, "info")


def _need(fit: Fit) -> str:
    if fit.have is None:
        return f"about {grouped(fit.need)}" if fit.need else "less than 1"
    return f"need {grouped(fit.need)}, have {grouped(fit.have)}"


def _pieces(
    label: str, pieces: Sequence[Span], out: Terminal, gap: str = _GAP, indent: int = _INDENT
) -> Iterator[Line]:
    """A label and pieces behind it, as many in a line as fit."""
    gap = out.glyphs(gap)
    start: Line = [(f"  {label}".ljust(indent) if indent else "", "dim")]
    line, is_empty = start, True
    for text, style in pieces:
        text = out.glyphs(text)
        if not is_empty and length(line) + len(gap) + len(text) > out.width:
            yield line
            line, is_empty = [(" " * (indent or 2), "")], True
        room = out.width - indent
        first, *more = wrap(text, room, room) if len(text) > room else [text]
        line = [*line, *([] if is_empty else [(gap, "dim")]), (first, style)]
        is_empty = False
        for rest in more:
            yield line
            line = [(" " * indent, ""), (rest, style)]
    yield line


# ------------------------------------------------------------------------------------------ while it runs


def live_line(now: Progress, asked: int, out: Terminal) -> str:
    """The one line on a terminal: bar, what is open, rate, percentiles, failures, time left; as much as fits."""
    line = " "
    if out.boxes:
        width = out.width // 8
        full = int(min(1.0, now.open / asked if asked else 1.0) * width)
        line = "  " + "█" * full + "─" * (width - full)
    for piece in _live_pieces(now, asked, out.width >= _WIDE):
        longer = f"{line}  {out.glyphs(piece)}" if line.strip() else f"  {out.glyphs(piece)}"
        if len(longer) < out.width:
            line = longer
    return line


def _live_pieces(now: Progress, asked: int, is_wide: bool) -> Iterator[str]:
    """The most important first."""
    if now.phase != "open":
        yield _PHASES.get(now.phase, now.phase)
    yield f"{grouped(now.open)} open"
    if now.phase == "open":
        yield rate_of(now.rate)
    yield f"{grouped(now.failed)} failed"
    if now.lost:
        yield f"{grouped(now.lost)} lost"
    if (left := _time_left(now, asked)) is not None:
        yield f"ETA {time_left(left)}"
    names = _FULL[:3:2] if is_wide else _FULL[2:3]
    for what, found in (("connect()", now.connect), ("handshake", now.handshake)):
        if found is not None and found.count:
            yield f"{what} {' '.join(percentiles(found, names))}"
    yield seconds(now.seconds)


def _time_left(now: Progress, asked: int) -> float | None:
    """Seconds until all are open at the present rate."""
    left = asked - now.open - now.failed
    return left / now.rate if now.phase == "open" and now.rate > 0 and left > 0 else None
