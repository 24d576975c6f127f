"""The benchmarks run, and every section measures something; what they measure is for `make bench`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.report import Table, medians

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
        "handshakes",
        "handshake targets",
        "live sockets",
        "live sockets targets",
        "doctor",
        "doctor, judging",
    ]
    for table in document["tables"]:
        assert table["rows"]
        for row in table["rows"]:
            assert len(row) == len(table["columns"])
            assert isinstance(row[1], int | float)
            assert row[1] > 0


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
