"""The page of a dial: what is on it, and how it looks in a browser."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext

from fourtuple.cli.html.dial import dial_page
from fourtuple.cli.html.dial_charts import short, ticks
from fourtuple.dial.histogram import hist_record
from fourtuple.dial.merge import merge
from fourtuple.dial.report import DialReport, Fit, TargetCount, lost_worker
from tests.cli.htmlpage import read_page
from tests.cli.test_html_browser import Reader
from tests.cli.test_html_browser import browser as browser
from tests.dial.reports import all_failed, all_well, some_failed

HOSTILE = "<script>alert(1)</script>"


def hostile() -> DialReport:
    """A file from elsewhere: texts that would like to be markup, numbers at their limits."""
    report = some_failed()
    report.host = report.wire = report.version = report.date = report.stack = HOSTILE
    report.failures[0].meaning = report.failures[0].function = report.failures[0].errno = HOSTILE * 3
    report.targets[0].address = HOSTILE
    report.preflight.append(Fit(HOSTILE, 2**62, 2**62, False, "x" * 300))
    report.timeline = [[0.0, 0, 0, 0, 0], [1e-6, 2.0**62, 2.0**62, 1, 1]]
    hist_record(report.times.connect_us, 2**63)
    hist_record(report.times.connect_us, 0)
    hist_record(report.passed_over, 2**63)
    return merge([report, lost_worker("w" * 80, 2**40, HOSTILE)])


def many() -> DialReport:
    """More of everything than fits."""
    report = some_failed()
    report.targets = [TargetCount("192.168.100.200", 60_000 + i, 123_456, i % 3) for i in range(100)]
    report.timeline = [[i / 10, i * 20, i * 18, i * 2, i * 16] for i in range(5_000)]
    other = all_well(1_000_000, "a-long-name-of-a-host-in-some-cluster.example.org")
    return merge([report, other, lost_worker("web-19", 20_000, "MemoryError: cannot map 165 MB of columns")])


PAGES: dict[str, Callable[[], DialReport]] = {
    "well": all_well,
    "some": some_failed,
    "none": all_failed,
    "empty": DialReport,
    "many": many,
    "hostile": hostile,
}


@pytest.mark.compiled_only
@pytest.mark.parametrize("name", PAGES)
def test_the_page_is_readable_at_every_width_and_loads_nothing(
    browser: BrowserContext, tmp_path: Path, name: str
) -> None:
    page = tmp_path / "dial.html"
    page.write_text(dial_page(PAGES[name]()))
    reader = Reader(browser, page)
    try:
        assert reader.problems() == []
        assert (reader.complaints, reader.requests) == ([], [reader.page.url])
    finally:
        reader.page.close()


def test_a_page_has_a_picture_for_each_thing_that_was_measured() -> None:
    page = read_page(dial_page(some_failed()))
    titles = {title.text for title in page.all(name="title")}
    assert titles == {
        "18\u00a0300 connections open at once",
        "Connections over time",
        "Time inside connect()",
        "Handshake: from the SYN to ESTABLISHED",
        "From a request to its answer",
        "Local ports passed over by a connect()",
    }


def test_what_was_not_measured_has_no_picture() -> None:
    page = read_page(dial_page(DialReport()))
    assert page.all(name="svg") == []
    assert "nothing was begun" in page.text


def test_a_timeline_starts_with_nothing() -> None:
    report = all_well(100)
    report.timeline = [[0.5, 100, 100, 0, 100]]
    figures = read_page(dial_page(report)).all("curve", name="polyline")
    assert [len(figure.attributes["points"].split()) for figure in figures] == [2] * 6  # three in each width
    report.timeline = [[0.0, 100, 100, 0, 100]]
    assert read_page(dial_page(report)).all("curve", name="polyline") == []


def test_the_page_has_failures_targets_preflight_and_memory() -> None:
    text = read_page(dial_page(some_failed())).text
    for said in (
        "1\u00a0200 ECONNREFUSED",
        "tcp_reset: the peer answered with a reset",
        "sysctl -w net.core.somaxconn",
    ):
        assert said in text
    assert "10.64.1.3:80801\u00a00001\u00a0500" in text
    assert "165 bytes a connection" in text


def test_a_failed_worker_is_named_with_its_share() -> None:
    text = read_page(dial_page(many())).text
    assert "no report: MemoryError: cannot map 165 MB of columns" in text


def test_targets_beyond_64_are_one_line() -> None:
    rows = read_page(dial_page(many())).all(name="tr")
    assert sum("192.168.100.200:" in row.text for row in rows) == 64
    assert sum(row.text.startswith("others") for row in rows) == 1


def test_a_file_from_elsewhere_cannot_put_markup_on_the_page() -> None:
    text = dial_page(hostile())
    assert HOSTILE not in text
    assert len(read_page(text).all(name="script")) == 1


def test_ticks_are_round_and_few() -> None:
    assert ticks(200_000, 4) == [0, 50_000, 100_000, 150_000, 200_000]
    assert ticks(42.5, 4) == [0, 20, 40]
    assert ticks(1, 4) == [0, 0.5, 1]
    assert ticks(0, 4) == [0]
    for top in (1e-6, 0.3, 7, 99, 1e9, 2.0**62):
        assert 1 < len(ticks(top, 4)) <= 5


def test_counts_are_short() -> None:
    assert [short(n) for n in (0, 950, 1_000, 18_500, 999_600, 1_500_000)] == ["0", "950", "1k", "18.5k", "1M", "1.5M"]
