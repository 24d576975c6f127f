"""The page of a dial: connections over time, their times, what failed and where, memory; of one report or of many.

Rule: the words are those of the text (dial_text.py); the page adds the pictures and the whole of the tables.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fourtuple import __version__
from fourtuple.cli.dial_text import (
    failure_words,
    head_words,
    percentiles,
    rows,
    same_port,
    verdict_of,
)
from fourtuple.cli.html.dial_charts import (
    CURVES,
    MARKED,
    PORTS,
    TIMES,
    Axis,
    histogram_figure,
    short,
    timeline_figure,
)
from fourtuple.cli.html.markup import Html, join, tag
from fourtuple.cli.html.page import document, theme_button
from fourtuple.cli.html.path import head_of, unbroken
from fourtuple.dial.histogram import Histogram
from fourtuple.dial.report import DialReport, FailureCount, Fit, TargetCount, Worker
from fourtuple.doctor.words import endpoint, percent

_FULL = (("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("p99.9", 99.9), ("max", 100.0))


def dial_page(report: DialReport) -> str:
    """Everything about one report."""
    title = f"{head_of(report.connections.peak_open, 'connection')} open"
    title += " at once" if len(report.workers) < 2 else ", the peaks of all workers"
    mark, style, said = verdict_of(report)
    left = tag("div", _timeline_card(report), *_times_cards(report), _passed_card(report), class_="column")
    right = tag(
        "div",
        _facts_card(report),
        _preflight_card(report.preflight),
        _failures_card(report.failures),
        _workers_card(report.workers),
        _targets_card(report.targets),
        class_="column",
    )
    header = tag(
        "header",
        theme_button(),
        tag("h1", title),
        tag("p", tag("strong", f"{mark} {said}", class_=style), class_="sub"),
        tag("p", " · ".join([*head_words(report), *([report.date] if report.date else [])]), class_="sub"),
    )
    return document(title, header, tag("main", left, right, class_="two"), _footer(report))


def _footer(report: DialReport) -> Html:
    by = f" {report.version}" if report.version else ""
    return tag(
        "footer", f"fourtuple {__version__}, the Linux connect() path in Python · from a report of fourtuple dial{by}"
    )


def _card(title: str, *children: str | None) -> Html:
    return tag("section", tag("h2", title), *children, class_="card")


# ------------------------------------------------------------------------------------------ pictures


def _timeline_card(report: DialReport) -> Html | None:
    timeline = report.timeline
    if not timeline or timeline[-1][0] <= 0:
        return None
    if timeline[0][0] > 0:
        timeline = [[0.0] * 5, *timeline]
    legend = [tag("li", tag("span", class_=f"swatch {name}"), name) for name, _ in CURVES]
    figure = timeline_figure(timeline)
    more = tag("p", "Workers are laid beside each other from their starts.", class_="hint")
    return _card(
        "Connections over time", figure, tag("ul", *legend, class_="legend"), more if len(report.workers) > 1 else None
    )


def _times_cards(report: DialReport) -> Iterator[Html]:
    times = report.times
    for found, title, class_ in (
        (times.connect_us, "Time inside connect()", "connect"),
        (times.handshake_us, "Handshake: from the SYN to ESTABLISHED", "handshake"),
        (times.response_us, "From a request to its answer", "response"),
    ):
        if found is not None and found.count:
            yield _histogram_card(found, TIMES, title, class_, percentiles(found, _FULL))


def _passed_card(report: DialReport) -> Html | None:
    found = report.passed_over
    if not found.maximum():
        return None
    words = [f"{name} {unbroken(found.percentile(percent))}" for name, percent in _FULL]
    return _histogram_card(found, PORTS, "Local ports passed over by a connect()", "passed", words)


def _histogram_card(found: Histogram, axis: Axis, title: str, class_: str, words: Sequence[str]) -> Html:
    legend = [
        tag("li", tag("span", class_=f"swatch {class_}"), "connections, logarithmic"),
        *[tag("li", tag("span", class_=f"swatch {mark}"), mark) for _, mark in MARKED],
    ]
    numbers = " · ".join(word.replace(" ", "\u00a0") for word in (*words, f"{unbroken(found.count)} measured"))
    return _card(
        title,
        tag("p", numbers, class_="say"),
        histogram_figure(found, axis, title, class_, class_),
        tag("ul", *legend, class_="legend"),
    )


# ------------------------------------------------------------------------------------------ words


def _count(number: int) -> str:
    """'28 232', kept on one line; no count that is real is longer than its column."""
    return unbroken(number) if number < 10**12 else short(number)


def _facts_card(report: DialReport) -> Html:
    parts = []
    for label, pieces in rows(report):
        text = " · ".join(piece for piece, _ in pieces)
        parts.append(join(tag("dt", label), tag("dd", text)))
    said = same_port(report)
    return _card("In short", tag("dl", *parts), tag("p", said, class_="hint more") if said else None)


def _preflight_card(fits: Sequence[Fit]) -> Html | None:
    if not fits:
        return None
    heads = tag("tr", *[tag("th", text, scope="col") for text in ("before the start", "need", "have", "")])
    lines = [heads]
    for fit in fits:
        have = "" if fit.have is None else _count(fit.have)
        mark = tag("td", "fits", class_="good") if fit.fits else tag("td", "does not", class_="bad")
        change = tag("div", tag("code", fit.change), class_="hint") if fit.change else None
        name = tag("th", fit.what, change, scope="row")
        lines.append(tag("tr", name, tag("td", _count(fit.need)), tag("td", have), mark))
    return _card("What fits", tag("table", *lines, class_="reports"))


def _failures_card(failures: Sequence[FailureCount]) -> Html | None:
    if not failures:
        return None
    return _card("Failures", *[_failure(one) for one in sorted(failures, key=lambda one: -one.count)])


def _failure(failure: FailureCount) -> Html:
    when, says, helps = failure_words(failure)
    head = tag("p", tag("strong", f"{_count(failure.count)} {failure.errno}", class_="bad"), f" {when}")
    tried = tag("p", f"try: {helps}", class_="say") if helps else None
    return tag("div", head, tag("p", says, class_="say"), tried, class_="failure")


def _workers_card(workers: Sequence[Worker]) -> Html | None:
    if len(workers) < 2 and not any(worker.error for worker in workers):
        return None
    heads = tag("tr", *[tag("th", text, scope="col") for text in ("", "share", "established", "failed")])
    lines = [heads]
    for worker in workers:
        error = tag("div", f"no report: {worker.error}", class_="bad") if worker.error else None
        counts = ["", ""] if worker.error else [_count(worker.established), _count(worker.failed)]
        name = tag("th", worker.name, error, scope="row")
        lines.append(tag("tr", name, tag("td", percent(worker.share)), *[tag("td", text) for text in counts]))
    return _card("Workers", tag("table", *lines, class_="reports"))


def _targets_card(targets: Sequence[TargetCount]) -> Html | None:
    if not targets:
        return None
    heads = tag("tr", *[tag("th", text, scope="col") for text in ("", "established", "failed")])
    lines = [heads]
    for target in targets:
        name = endpoint(target.address, target.port) if target.port else target.address
        failed = tag("td", _count(target.failed), class_="bad" if target.failed else None)
        lines.append(tag("tr", tag("th", name, scope="row"), tag("td", _count(target.established)), failed))
    return _card("Targets", tag("table", *lines, class_="reports"))
