"""DialReport as JSON, and several as one."""

from __future__ import annotations

import errno
import json
import math
import pickle
from itertools import permutations
from typing import Any

import pytest

from fourtuple.cli.exits import exit_of_errno
from fourtuple.dial.histogram import hist_record
from fourtuple.dial.merge import merge
from fourtuple.dial.plan import DialPlan, Talk, Target, http_get
from fourtuple.dial.report import (
    MOST_ROWS,
    OTHERS,
    Asked,
    DialReport,
    FailureCount,
    TalkCount,
    TargetCount,
    coarsened,
    lost_worker,
    shortened_targets,
)
from fourtuple.dial.report_json import ReportError
from tests.dial.reports import all_failed, all_well, some_failed


def as_read(report: DialReport) -> DialReport:
    """Through a file."""
    return DialReport.from_json(json.loads(json.dumps(report.to_json())))


@pytest.mark.parametrize("made", [all_well, some_failed, all_failed, DialReport])
def test_a_report_reads_back_as_it_was_written(made: Any) -> None:
    report = made()
    assert as_read(report) == report
    assert as_read(report).to_json() == report.to_json()


def test_a_report_can_be_sent_to_another_process() -> None:
    assert pickle.loads(pickle.dumps(some_failed())) == some_failed()


def test_what_follows_from_the_counts_stands_in_the_json() -> None:
    data = all_well().to_json()
    assert (data["schema"], data["exit"]) == ("fourtuple.dial/1", 0)
    assert data["rate_per_s"] == 20_000
    assert data["cpu_us_per_connection"] == 42.5
    assert data["times"]["connect_us"]["p50"] == pytest.approx(31, rel=0.008)
    assert data["passed_over"]["max"] == 14_100
    assert "response_us" not in data["times"]


def test_the_cpu_of_the_whole_dial_counts_where_the_opening_was_not_measured_apart() -> None:
    report = all_well()
    report.cpu_s.opening = 0.0
    assert report.cpu_us_per_connection == 10.75e6 / 200_000


def test_the_plan_is_reported_with_the_first_of_its_targets() -> None:
    targets = tuple(Target(f"10.0.0.{i}", 80) for i in range(20))
    plan = DialPlan(5, targets, ("10.9.0.1",), rate=3.0, range=(1000, 2000), talk=http_get(2, "/", "h"), close="rst")
    asked = Asked.of(plan)
    assert (asked.connections, asked.rate, asked.range, asked.close) == (5, 3.0, [1000, 2000], "rst")
    assert (asked.targets.count, asked.targets.first[0], len(asked.targets.first)) == (20, "10.0.0.0:80", 8)
    assert asked.sources.first == ["10.9.0.1"]
    assert asked.talk["every_s"] == 2
    assert asked.talk["script"][1] == ["expect", "HTTP/1.1 200"]


REFUSED = [
    ([], "no report of fourtuple: it has no schema"),
    ({}, "no report of fourtuple: it has no schema"),
    ({"schema": 1}, "no report of fourtuple: it has no schema"),
    ({"schema": "fourtuple.doctor/1"}, "not a report of dial: its schema is 'fourtuple.doctor/1'"),
    ({"schema": "fourtuple.dial/x"}, "not a report of dial: its schema is 'fourtuple.dial/x'"),
    ({"schema": "fourtuple.dial/2"}, "fourtuple.dial/2 is newer than this fourtuple, which reads fourtuple.dial/1"),
]


@pytest.mark.parametrize(("data", "message"), REFUSED)
def test_foreign_and_newer_reports_are_refused_in_one_line(data: Any, message: str) -> None:
    with pytest.raises(ReportError) as caught:
        DialReport.from_json(data)
    assert str(caught.value) == message


SPOILT = [
    (("connections", "begun"), -1, "connections.begun is -1, not a count"),
    (("connections", "begun"), True, "connections.begun is True, not a count"),
    (("connections", "begun"), 2**63, "connections.begun is too large, not a count"),
    (("connections", "begun"), 10**400, "connections.begun is too large, not a count"),
    (("connections",), [], "connections is not an object"),
    (("connections", "more"), 1, "connections.more does not belong there"),
    (("host",), 5, "host is 5, not a text"),
    (("failures",), {}, "failures is not a list"),
    (("failures",), [{}], "failures[0].errno is missing"),
    (("counters",), {"a": "b"}, "counters.a is 'b', not a count"),
    (("seconds", "open"), math.nan, "seconds.open is nan, not a number"),
    (("seconds", "open"), math.inf, "seconds.open is inf, not a number"),
    (("asked", "range"), "1-2", "asked.range is not a list"),
    (("timeline",), [[0, 1]], "a row of the timeline is [second, begun, established, failed, open]"),
    (("wire",), None, "wire is None, not a text"),
    (("times", "connect_us"), {}, "times.connect_us: no histogram: count, min, max, sum and buckets of [low, high, "),
]


@pytest.mark.parametrize(("path", "value", "message"), SPOILT)
def test_a_spoilt_report_is_refused_with_the_place(path: tuple[str, ...], value: Any, message: str) -> None:
    data = some_failed().to_json()
    inner = data
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    with pytest.raises(ReportError) as caught:
        DialReport.from_json(data)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def failing(*ways: tuple[int, int]) -> DialReport:
    report = all_failed()
    report.failures = [FailureCount(errno.errorcode[number], number, count) for number, count in ways]
    return report


def test_the_exit_code_is_that_of_the_most_frequent_failure_when_nothing_was_established() -> None:
    assert failing((errno.ETIMEDOUT, 3), (errno.ECONNREFUSED, 9)).exit == 21
    assert failing((errno.EMFILE, 1)).exit == 29


def test_the_exit_code_is_10_when_some_failed_or_were_lost() -> None:
    assert some_failed().exit == 10
    lossy = all_well()
    lossy.connections.lost = 1
    assert lossy.exit == 10


def test_nothing_begun_of_what_was_asked_is_no_success() -> None:
    plan = DialPlan(30, (Target("10.64.0.1", 80),))
    assert DialReport(asked=Asked.of(plan)).exit == 29  # the text says: no connection was established


@pytest.mark.parametrize(("requests", "responses", "missing"), [(0, 0, 200_000), (200_000, 400_000, 0)])
def test_a_first_word_that_nobody_hears_is_an_answer_that_did_not_come(
    requests: int, responses: int, missing: int
) -> None:
    report = all_well()
    script = (("expect", "220"), ("send", "HELO"), ("expect", "250"))
    report.asked = Asked.of(DialPlan(200_000, (Target("10.64.0.1", 25),), talk=Talk(1.0, script)))
    report.talk = TalkCount(requests, responses)
    report = as_read(report)
    assert (report.unanswered, report.exit) == (missing, 10 if missing else 0)


def test_exit_codes_are_those_of_the_command_line() -> None:
    for number in errno.errorcode:
        assert failing((number, 1)).exit == exit_of_errno(number)


def test_a_long_timeline_keeps_its_last_row_and_at_most_600() -> None:
    rows = [[float(i), i, i, 0, i] for i in range(5_000)]
    short = coarsened(rows)
    assert len(short) <= MOST_ROWS
    assert short[-1] == rows[-1]
    assert coarsened(rows[:600]) == rows[:600]
    assert coarsened([]) == []


def test_targets_beyond_64_are_counted_together_those_with_failures_named_first() -> None:
    targets = [TargetCount("10.0.0.1", port, 10, port == 99) for port in range(100)]
    short = shortened_targets(targets)
    assert len(short) == 65
    assert short[0] == TargetCount("10.0.0.1", 99, 10, 1)
    assert short[-1] == TargetCount(OTHERS, 0, 360, 0)
    assert sum(one.established for one in shortened_targets(short + targets)) == 2_000


# Merging


def three() -> list[DialReport]:
    second = some_failed()
    second.host, second.seed, second.date = "web-18", 8, "2026-01-02T03:04:01Z"
    third = all_well(1_000, "web-19", 9)
    hist_record(third.times.connect_us, 2**40)
    return [all_well(), second, third]


def without_floats(report: DialReport) -> dict[str, Any]:
    """Sums of floats depend on their order in the last digit."""
    data = report.to_json()
    data["memory"]["bytes_per_connection"] = round(data["memory"]["bytes_per_connection"], 3)
    for worker in data["workers"]:
        worker["share"] = round(worker["share"], 5)
    return data


def test_merging_does_not_depend_on_the_order() -> None:
    merged = without_floats(merge(three()))
    assert all(without_floats(merge(list(order))) == merged for order in permutations(three()))


def test_merging_does_not_depend_on_the_steps() -> None:
    a, b, c = three()
    merged = without_floats(merge([a, b, c]))
    assert without_floats(merge([merge([a, b]), c])) == merged
    assert without_floats(merge([a, merge([b, c])])) == merged
    assert without_floats(merge([as_read(merge([a, b])), as_read(c)])) == merged


def test_counts_add_up_and_seconds_are_those_of_the_slowest() -> None:
    merged = merge(three())
    assert merged.connections.established == 200_000 + 18_500 + 1_000
    assert merged.asked.connections == 221_000
    assert merged.asked.rate == 60_000
    assert merged.seconds == all_well().seconds
    assert merged.cpu_s.user == 3 * 7.25
    assert merged.host == "web-17; web-18; web-19"
    assert merged.seed is None
    assert merged.date == "2026-01-02T03:04:01Z"
    assert merged.talk == some_failed().talk
    assert merged.ports.distinct == 28_230
    assert merged.exit == 10


def test_histograms_add_up_exactly() -> None:
    reports = three()
    whole = reports[0].times.connect_us.copy()
    whole.merge(reports[1].times.connect_us)
    whole.merge(reports[2].times.connect_us)
    assert merge(reports).times.connect_us == whole
    assert merge(reports).times.connect_us.maximum() == 2**40
    assert merge(reports).times.response_us == reports[1].times.response_us


def test_merging_leaves_the_reports_as_they_were() -> None:
    reports = three()
    merge(reports)
    assert reports == three()


def test_failures_add_up_by_errno_and_phase() -> None:
    a, b = some_failed(), some_failed()
    b.failures[0].phase, b.failures[1].first_s = "open", 2.0
    merged = merge([a, b])
    assert [(one.errno, one.phase, one.count) for one in merged.failures] == [
        ("ECONNREFUSED", "connect", 1_200),
        ("ECONNREFUSED", "open", 1_200),
        ("ETIMEDOUT", "connect", 600),
        ("ECONNRESET", "open", 400),
    ]
    assert merged.failures[2].first_s == 2.0


def test_the_meaning_of_a_merged_failure_belongs_to_its_function() -> None:
    late, given_up = failing((errno.ETIMEDOUT, 1)), failing((errno.ETIMEDOUT, 2))
    late.failures[0].meaning = "not connected within 1 s"
    given_up.failures[0].function, given_up.failures[0].meaning = "tcp_write_timeout", "no answer to any SYN"
    (failure,) = merge([late, given_up]).failures
    assert (failure.count, failure.function, failure.meaning) == (3, "tcp_write_timeout", "no answer to any SYN")


def test_timelines_are_added_from_their_starts_each_at_its_last_value() -> None:
    a, b = all_well(), all_well()
    a.timeline = [[0, 1, 1, 0, 1], [2, 5, 5, 0, 5]]
    b.timeline = [[1, 10, 9, 1, 9], [3, 20, 18, 2, 0]]
    assert merge([a, b]).timeline == [[0, 1, 1, 0, 1], [1, 11, 10, 1, 10], [2, 15, 14, 1, 14], [3, 25, 23, 2, 5]]


def test_a_failed_worker_is_named_with_its_share_and_changes_no_count() -> None:
    merged = merge([all_well(300), lost_worker("web-18", 100, "MemoryError:\n no memory")])
    assert merged.connections == all_well(300).connections
    assert merged.asked.connections == 400
    assert merged.exit == 10
    assert [(one.name, one.share, one.error) for one in merged.workers] == [
        ("web-18", 0.25, "MemoryError: no memory"),
        ("web-17", 0.75, None),
    ]
    assert (merged.processes, merged.host, merged.seed, merged.asked.rate) == (1, "web-17", 7, 20_000)


def test_when_every_worker_failed_the_exit_code_says_so() -> None:
    assert merge([lost_worker("a", 1, "gone"), lost_worker("b", 1, "gone")]).exit == 29
    assert as_read(merge([lost_worker("a", 1, ""), lost_worker("b", 1, "gone")])).workers[0].error == "no report"


def test_bytes_a_connection_are_weighed_by_the_connections() -> None:
    a, b = all_well(3_000), all_well(1_000)
    b.memory.bytes_per_connection = 205.0
    assert merge([a, b]).memory.bytes_per_connection == 175.0


def test_merging_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no report"):
        merge([])
