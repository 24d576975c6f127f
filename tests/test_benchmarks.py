"""The benchmarks run, and every section measures something; what they measure is for `make bench`."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.report import Goal, Table, medians, slug

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.compiled_only
def test_every_section_measures_something() -> None:
    command = [sys.executable, "-m", "benchmarks", "--quick", "--json"]
    output = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    document = json.loads(output)
    assert set(document["machine"]) >= {"date", "cpu", "system", "python"}
    assert [table["name"] for table in document["tables"]] == [
        "ports",
        "port targets",
        "kernel search",
        "kernel search, own range",
        "kernel search targets",
        "destinations",
        "connections",
        "simulation",
        "simulation targets",
        "handshakes",
        "handshakes targets",
        "processes",
        "processes targets",
        "endpoints",
        "million",
        "million targets",
        "live sockets",
        "live sockets targets",
        "doctor",
        "doctor, judging",
    ]
    for table in document["tables"]:
        assert table["rows"]
        for row in table["rows"]:
            assert len(row) == len(table["columns"])
            assert table["name"].startswith("million") or float(str(row[1]).replace(",", "")) > 0
    whole = {goal["what"].partition(": ")[2]: goal for table in document["tables"] for goal in table["goals"]}
    counts = ("in the kernel's count", "timers armed", "sample, a byte both ways")
    for what in (*counts, "keepalives answered"):
        assert whole[what]["verdict"] == "within"  # these do not depend on how fast the machine is


def test_a_table_lines_its_columns_up() -> None:
    table = Table("t", "A title", ("", "ns", "ratio"), [("one", 12.345, 1.0), ("thirteen", 1234567.8, None)], ("why",))
    assert table.text().splitlines() == [
        "A title",
        "-------",
        "                 ns  ratio",
        "one            12.3      1",
        "thirteen  1,234,568      -",
        "  why",
    ]


def test_ratios_are_taken_within_a_round_so_that_a_slow_round_does_not_count() -> None:
    slow_round = iter([1.0, 2.0, 10.0, 20.0, 1.0, 2.0])
    values, ratios = medians([lambda: next(slow_round), lambda: next(slow_round)], 3)
    assert values == [1.0, 2.0]
    assert ratios == [1.0, 2.0]


@pytest.mark.compiled_only
def test_the_summary_has_every_target_and_says_how_many_are_short() -> None:
    from benchmarks.__main__ import summary  # with the compiled loops, which the uncompiled engine does not go with

    goals = [Goal.at_most("bytes", 166.0, 165), Goal.at_least("speed", 10.0, 25.0, 2.5, 2), Goal.exactly("left", 0, 0)]
    tables = [Table("a", "", (), goals=goals[:1]), Table("b", "", (), goals=goals[1:])]
    lines = summary(tables, {"a": "1.5", "b": "2.0"}).text().splitlines()
    assert lines[0] == "Summary: 3 targets, 1 short"
    assert [" ".join(line.split()) for line in lines[3:6]] == [
        "bytes 166 - - <= 165 SHORT",
        "speed 10 25 2.5 >= 2 x within",
        "left 0 - - 0 within",
    ]
    assert lines[-1].endswith("after each section: a 1.5, b 2.0")


def floor_with(values: list[float]) -> int:
    """The floor's exit code when its only check measures these, one after the other."""
    from benchmarks import floor

    turns = iter(values)
    return floor.run((floor.Check(lambda: [next(turns)], (("speed", ">=", 2.0),)),))


@pytest.mark.compiled_only
def test_the_floor_measures_again_before_it_calls_it_a_regression(capsys: pytest.CaptureFixture[str]) -> None:
    assert floor_with([1.0, 1.5, 2.0]) == 0
    assert capsys.readouterr().out == "ok    speed: 2, floor >= 2\n"


@pytest.mark.compiled_only
def test_the_floor_ends_with_1_when_a_check_fails_three_times(capsys: pytest.CaptureFixture[str]) -> None:
    assert floor_with([1.0, 1.0, 1.0, 9.0]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "short speed: 1, floor >= 2; measured again",
        "short speed: 1, floor >= 2; measured again",
        "short speed: 1, floor >= 2",
        "floor: 1 of 1 checks failed 3 times: a regression",
    ]


@pytest.mark.compiled_only
def test_the_floor_passes_over_what_the_machine_does_not_allow(capsys: pytest.CaptureFixture[str]) -> None:
    from benchmarks import floor

    def refused() -> list[float]:
        raise PermissionError(errno.EPERM, "no namespaces here")

    assert floor.run((floor.Check(refused, (("speed", ">=", 2.0),)),)) == 0
    assert capsys.readouterr().err == "skip  speed: not measured here: no namespaces here\n"


def test_results_are_named_after_the_machine() -> None:
    assert slug("AMD EPYC 7B13, 2 cores") == "amd-epyc-7b13-2-cores"
