"""What a report of dial says on a terminal, in a pipe, and while it runs."""

from __future__ import annotations

import io
from itertools import product

import pytest

from fourtuple.cli.dial_text import lines, live_line, preflight_lines, share_of
from fourtuple.cli.progress import Progress as ProgressLine
from fourtuple.cli.terminal import Terminal, open_terminal
from fourtuple.dial.merge import merge
from fourtuple.dial.report import Connections, DialReport, FailureCount, Fit, Progress, lost_worker
from tests.cli.golden import check_golden
from tests.dial.reports import all_failed, all_well, some_failed, times


class Tty(io.StringIO):
    """A terminal, as far as the code asks."""

    def isatty(self) -> bool:
        return True


def terminal(width: int = 120, tty: bool = False, ascii_only: bool = False, **environ: str) -> Terminal:
    stream = Tty() if tty else io.StringIO()
    return open_terminal(stream, "auto", ascii_only, {"COLUMNS": str(width), **environ})


def shown(report: DialReport, out: Terminal) -> str:
    out.print(*lines(report, out))
    stream = out.stream
    assert isinstance(stream, io.StringIO)
    return stream.getvalue()


def merged() -> DialReport:
    """Two that ran, one that did not."""
    other = all_well(60_000, "web-18")
    return merge([some_failed(), other, lost_worker("web-19", 20_000, "MemoryError: cannot map 165 MB of columns")])


STORIES = {"well": all_well, "some": some_failed, "none": all_failed, "merged": merged}


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("name", STORIES)
def test_the_text_is_as_before(name: str, width: int) -> None:
    check_golden(f"dial-{name}-{width}.txt", shown(STORIES[name](), terminal(width)))


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("name", STORIES)
def test_no_line_is_longer_than_the_terminal(name: str, width: int) -> None:
    for tty, ascii_only in product((False, True), repeat=2):
        text = shown(STORIES[name](), terminal(width, tty, ascii_only, NO_COLOR="1"))
        assert max(map(len, text.splitlines())) <= width


def test_a_pipe_gets_neither_colour_nor_bars() -> None:
    text = shown(some_failed(), terminal())
    assert "\x1b" not in text
    assert "█" not in text


def test_a_terminal_gets_both_and_no_color_takes_the_colour_away() -> None:
    assert "\x1b[32m" in shown(all_well(), terminal(tty=True))
    plain = shown(all_well(), terminal(tty=True, NO_COLOR="1"))
    assert "\x1b" not in plain
    assert "█" * 32 in plain


def test_ascii_means_ascii() -> None:
    assert shown(some_failed(), terminal(tty=True, ascii_only=True, NO_COLOR="1")).isascii()


def test_ports_are_a_lower_bound_and_peaks_are_sums_after_merging() -> None:
    text = shown(merge([all_well(), all_well(host="web-18")]), terminal())
    assert "400 000 open, the peaks of all added up" in text
    assert "at least 28 230 distinct local ports" in text


def test_a_worker_without_a_report_is_named_with_its_share() -> None:
    text = shown(merged(), terminal())
    assert "✗ no report from web-19: 20 000 connections, 20 % of all, are not in this report" in text
    assert "says  MemoryError: cannot map 165 MB of columns" in text
    assert "1 worker brought no report" in text


def test_every_failure_names_the_kernel_function_and_what_helps() -> None:
    text = shown(some_failed(), terminal())
    assert "✗ 1 200 ECONNREFUSED  never established, the first after 3.2 s" in text
    assert "says  tcp_reset: the peer answered with a reset" in text
    assert "try   ss -ltn on the server" in text
    assert "✗ 200 ECONNRESET  after they were established" in text


def test_a_failure_that_nobody_explained_is_explained_by_its_errno() -> None:
    report = all_failed()
    report.failures = [FailureCount("ENETUNREACH", 101, 100)]
    text = shown(report, terminal())
    assert "says  ip_route_connect: no route leads to the destination" in text
    assert "✗ no connection was established: ENETUNREACH" in text


def test_an_errno_without_an_explanation_still_has_its_line() -> None:
    report = all_failed()
    report.failures = [FailureCount("EPROTO", 71, 100)]
    assert "says  connect() gives EPROTO" in shown(report, terminal())


def test_a_dial_that_was_ended_early_does_not_say_all() -> None:
    report = all_well(100)
    report.connections = Connections(40, 40, 40, closed=40)
    assert shown(report, terminal()).splitlines()[-1] == "▲ only 40 of 100 were begun"


def test_an_empty_report_says_that_nothing_was_begun() -> None:
    assert shown(DialReport(), terminal()).splitlines()[-1] == "✗ no connection was established: nothing was begun"


def test_more_targets_with_failures_than_fit_are_counted() -> None:
    report = some_failed()
    for target in report.targets:
        target.failed = 10
    assert "and 3 more" in shown(report, terminal())


def test_a_small_share_keeps_its_digits() -> None:
    assert [share_of(12, 200_000), share_of(1, 3), share_of(0, 5), share_of(0, 0)] == ["0.006 %", "33 %", "0 %", "0 %"]


def test_the_preflight_puts_a_change_beside_its_line_or_below_it() -> None:
    fits = [Fit("memory (MiB)", 32, None, True), Fit("accept queue", 2_500, 128, False, "sysctl -w a.b=" + "9" * 20)]
    wide, narrow = terminal(120), terminal(60)
    assert ["".join(text for text, _ in line) for line in preflight_lines(fits, wide)] == [
        "✓ memory (MiB)  about 32",
        "✗ accept queue  need 2 500, have 128   sysctl -w a.b=" + "9" * 20,
    ]
    assert ["".join(text for text, _ in line) for line in preflight_lines(fits, narrow)][-1] == (
        "    try   sysctl -w a.b=" + "9" * 20
    )


# While it runs


def progress(phase: str = "open", **more: float) -> Progress:
    known = times()
    values = {"seconds": 6.0, "rate": 19_980.0, "lost": 0} | more
    return Progress(
        values["seconds"], phase, 124_000, 128, 120_000, 3, values["rate"], int(values["lost"]),
        known.connect_us, known.handshake_us,
    )  # fmt: skip


def test_the_line_has_bar_rate_failures_time_left_and_percentiles() -> None:
    assert live_line(progress(), 200_000, terminal(120, tty=True)) == (
        "  █████████──────  120 000 open  19 980/s  3 failed  ETA 4 s  connect() p50 31 µs p99 120 µs  6.0 s"
    )
    assert live_line(progress(), 200_000, terminal(80, tty=True)) == (
        "  ██████────  120 000 open  19 980/s  3 failed  ETA 4 s  connect() p99 120 µs"
    )


def test_behind_the_opening_the_line_names_the_phase() -> None:
    assert live_line(progress("hold", lost=7), 200_000, terminal(80, tty=True)) == (
        "  ██████────  holding  120 000 open  3 failed  7 lost  connect() p99 120 µs"
    )


@pytest.mark.parametrize("rate", [0.0, 1e-9, 5.0])
def test_the_line_never_fills_its_row(rate: float) -> None:
    for width in (60, 80, 120):
        for ascii_only in (False, True):
            out = terminal(width, True, ascii_only)
            assert len(out.glyphs(live_line(progress(rate=rate), 10**7, out))) < width


def test_the_line_is_for_a_terminal_only_and_leaves_no_trace() -> None:
    for tty in (False, True):
        err = terminal(80, tty, NO_COLOR="1")
        line = ProgressLine(err)
        line.say(live_line(progress(), 200_000, err))
        line.clear()
        assert isinstance(err.stream, io.StringIO)
        written = err.stream.getvalue()
        assert written.endswith("\r\x1b[K") if tty else written == ""


def test_merged_stacks_are_both_named() -> None:
    kernel = all_well(100)
    kernel.stack = "kernel"
    assert "kernel sockets, our own stack" in shown(merge([all_well(100), kernel]), terminal())
