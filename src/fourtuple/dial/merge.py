"""merge(): several reports of a dial as one.

Rules
1. Counts, CPU and memory add up, histograms exactly; seconds are those of the slowest.  It does not matter in which
   order, or in how many steps.
2. Reports of one dial are meant: peaks add up, and timelines are laid beside each other from their starts.
3. Local ports of different workers may be the same ones: `ports` is then a lower bound, that of the largest.
4. Each report becomes a worker with its share, unless it names workers already.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from typing import Any, TypeVar

from fourtuple.dial.histogram import merged
from fourtuple.dial.report import (
    MOST_NAMED,
    Asked,
    Busiest,
    Connections,
    Cpu,
    DialReport,
    FailureCount,
    Fit,
    Left,
    Memory,
    Named,
    Ports,
    Seconds,
    Syn,
    TalkCount,
    TargetCount,
    Times,
    Worker,
    coarsened,
    shortened_targets,
    target_weight,
)

T = TypeVar("T")


def merge(reports: Sequence[DialReport]) -> DialReport:
    """One report of all; ValueError when there is none.  The reports themselves stay as they are."""
    if not reports:
        raise ValueError("no report to merge")
    ran = [report for report in reports if report.processes] or list(reports)
    return DialReport(
        version=_words(report.version for report in ran),
        host=_words(report.host for report in ran),
        date=min((report.date for report in ran if report.date), default=""),
        stack=_words(report.stack for report in ran),
        wire=_words(report.wire for report in ran),
        processes=sum(report.processes for report in reports),
        seed=_same([report.seed for report in ran]),
        asked=_asked([report.asked for report in reports]),
        preflight=_preflight(reports),
        connections=_sum(Connections, [report.connections for report in reports]),
        failures=_failures(reports),
        seconds=_fold(Seconds, [report.seconds for report in reports], max),
        cpu_s=_sum(Cpu, [_whole_cpu(report.cpu_s) for report in reports]),
        times=_times([report.times for report in reports]),
        passed_over=merged([report.passed_over for report in reports]),
        syn=_sum(Syn, [report.syn for report in reports]),
        memory=_memory(reports),
        ports=_ports([report.ports for report in reports]),
        targets=_targets(reports),
        talk=_talk(reports),
        counters=_counters(reports),
        left=_sum(Left, [report.left for report in reports]),
        timeline=_timeline([report.timeline for report in reports if report.timeline]),
        workers=_workers(reports),
    )


def _fold(cls: type[T], parts: Sequence[T], how: Callable[[Iterable[Any]], Any]) -> T:
    """A dataclass of numbers, field by field."""
    return cls(**{one.name: how([getattr(part, one.name) for part in parts]) for one in fields(cls)})  # type: ignore[arg-type]


def _sum(cls: type[T], parts: Sequence[T]) -> T:
    return _fold(cls, parts, sum)


def _words(texts: Iterable[str]) -> str:
    """The different ones: `a, b`; what is such a list already is taken apart."""
    words = {word for text in texts for word in text.split("; ") if word}
    return "; ".join(sorted(words))


def _same(values: Sequence[T]) -> T | None:
    """The value that all have."""
    return values[0] if all(value == values[0] for value in values) else None


def _times(parts: Sequence[Times]) -> Times:
    responses = [part.response_us for part in parts if part.response_us is not None]
    return Times(
        merged(part.connect_us for part in parts),
        merged(part.handshake_us for part in parts),
        merged(responses) if responses else None,
    )


def _whole_cpu(cpu: Cpu) -> Cpu:
    """Where the opening was not measured apart it counts with the whole, as cpu_us_per_connection has it."""
    return Cpu(cpu.user, cpu.system, cpu.opening or cpu.user + cpu.system)


def _asked(parts: Sequence[Asked]) -> Asked:
    ran = [part for part in parts if part.targets.count] or parts
    return Asked(
        connections=sum(part.connections for part in parts),
        targets=_named([part.targets for part in ran]),
        sources=_named([part.sources for part in ran]),
        rate=sum(part.rate for part in ran) if all(part.rate for part in ran) else 0.0,
        ramp_s=max(part.ramp_s for part in ran),
        hold_s=max(part.hold_s for part in ran),
        timeout_s=max(part.timeout_s for part in ran),
        window=sum(part.window for part in ran),
        redial=max(part.redial for part in ran),
        keepalive_s=max(part.keepalive_s for part in ran),
        talk=_same([part.talk for part in ran]),
        range=_same([part.range for part in ran]),
        close=_words(part.close for part in ran),
    )


def _named(parts: Sequence[Named]) -> Named:
    """Equal lists are one; else at least as many as the longest has, and as are named."""
    first = sorted({text for part in parts for text in part.first})
    count = max([len(first), *(part.count for part in parts)])
    if _same([part.first for part in parts]) is not None:
        return Named(count, list(parts[0].first))
    return Named(count, first[:MOST_NAMED])


def _preflight(reports: Sequence[DialReport]) -> list[Fit]:
    """Each different line once, what does not fit first."""
    lines = {(fit.fits, fit.what, fit.need, fit.have or 0, fit.change): fit for one in reports for fit in one.preflight}
    return [lines[key] for key in sorted(lines)]


def _failures(reports: Sequence[DialReport]) -> list[FailureCount]:
    """By errno and phase, the most frequent first."""
    found: dict[tuple[str, str], list[FailureCount]] = {}
    for report in reports:
        for failure in report.failures:
            found.setdefault((failure.errno, failure.phase), []).append(failure)
    merged = [_failure(parts) for parts in found.values()]
    return sorted(merged, key=lambda one: (-one.count, one.errno, one.phase))


def _failure(parts: Sequence[FailureCount]) -> FailureCount:
    function, meaning = max((part.function, part.meaning) for part in parts)  # that belong together
    return FailureCount(
        parts[0].errno,
        max(part.number for part in parts),
        sum(part.count for part in parts),
        parts[0].phase,
        function,
        meaning,
        min(part.first_s for part in parts),
    )


def _memory(reports: Sequence[DialReport]) -> Memory:
    parts = [report.memory for report in reports]
    peak = sum(report.connections.peak_open for report in reports)
    used = sum(report.memory.bytes_per_connection * report.connections.peak_open for report in reports)
    found = _sum(Memory, parts)
    found.bytes_per_connection = used / peak if peak else 0.0
    return found


def _ports(parts: Sequence[Ports]) -> Ports:
    busiest = max((part.busiest for part in parts), key=lambda one: (one.connections, one.port))
    return Ports(max(part.distinct for part in parts), Busiest(busiest.port, busiest.connections))


def _targets(reports: Sequence[DialReport]) -> list[TargetCount]:
    found: dict[tuple[str, int], TargetCount] = {}
    for report in reports:
        for target in report.targets:
            mine = found.setdefault((target.address, target.port), TargetCount(target.address, target.port))
            mine.established += target.established
            mine.failed += target.failed
    return shortened_targets(sorted(found.values(), key=target_weight))


def _talk(reports: Sequence[DialReport]) -> TalkCount | None:
    parts = [report.talk for report in reports if report.talk is not None]
    return _sum(TalkCount, parts) if parts else None


def _counters(reports: Sequence[DialReport]) -> dict[str, int]:
    names = sorted({name for report in reports for name in report.counters})
    return {name: sum(report.counters.get(name, 0) for report in reports) for name in names}


def _timeline(parts: Sequence[list[list[float]]]) -> list[list[float]]:
    """At each second that any of them has: the sum of what each had last."""
    last = [[0.0] * 4 for _ in parts]
    at = [0] * len(parts)
    rows = []
    for second in sorted({row[0] for part in parts for row in part}):
        for i, part in enumerate(parts):
            while at[i] < len(part) and part[at[i]][0] <= second:
                last[i] = part[at[i]][1:]
                at[i] += 1
        rows.append([second, *(sum(column) for column in zip(*last, strict=True))])
    return coarsened(rows)


def _workers(reports: Sequence[DialReport]) -> list[Worker]:
    """All of them, shares counted anew, those without a report first."""
    every = [worker for report in reports for worker in report.workers or [as_worker(report)]]
    total = sum(worker.connections for worker in every) or 1
    merged = [
        Worker(one.name, one.connections / total, one.connections, one.established, one.failed, one.error)
        for one in every
    ]
    return sorted(merged, key=lambda one: (one.error is None, one.name, -one.connections, one.established, one.failed))


def as_worker(report: DialReport, where: str = "") -> Worker:
    """A report that names no worker is one; `where` tells several of a host apart."""
    done = report.connections
    name = " ".join(word for word in (report.host or "unnamed", f"({where})" if where else "") if word)
    return Worker(name, 1.0, report.asked.connections, done.established, done.failed)
