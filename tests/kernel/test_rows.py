"""Every given row of the catalogue's executable scenarios, on our stack."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.kernel.oracle import SHARED, ko
from tests.kernel.sut import FourtupleSUT

CATEGORIES = ("ERR", "ST", "PORT", "SRC", "TW", "SYN", "RTX", "RSP", "ICMP")
GIVEN = [row for row in ko.ROWS.values() if row.cat in CATEGORIES]
OBSERVED = [row for row in ko.ROWS.values() if row.cat == "OBS"]

# What a scenario needs and no user-space stack has: a firewall, real descriptors, kernel internals.
UNVERIFIED = {
    "ERR-02", "ERR-05", "ERR-26", "ERR-29", "ERR-31", "PORT-25", "PORT-47", "PORT-50", "RTX-20", "ICMP-16",
}  # fmt: skip


def run(row_id):
    return ko.run_row(row_id, FourtupleSUT())


def explanation(result):
    return {key: result.get(key) for key in ("status", "expect", "result", "why", "trace") if key in result}


def test_the_given_rows_are_those_that_were_counted():
    assert len(GIVEN) == 156
    assert {row.id for row in GIVEN} >= UNVERIFIED


@pytest.mark.parametrize("row", GIVEN, ids=lambda row: row.id)
def test_row_holds(row):
    result = run(row.id)
    if row.id in UNVERIFIED:
        assert result["status"] == "unverified", explanation(result)
    else:
        assert result["status"] in ("verified", "differs-from-source"), explanation(result)


@pytest.mark.parametrize("row", OBSERVED, ids=lambda row: row.id)
def test_counters_and_tcp_info_hold(row):
    result = run(row.id)
    assert result["status"] == "verified", explanation(result)


def test_fast_open_is_refused_where_the_sysctl_forbids_it():
    result = run("TFO-04")
    assert result["status"] == "verified", explanation(result)


def test_same_seed_and_same_calls_give_the_same_packets():
    def packets(seed):
        sut = FourtupleSUT(seed=seed)
        sut.start()
        x = ko.X(sut)
        s, c = x.establish()
        s.send(b"hello")
        c.expect()
        s.close()
        return [p.raw for p in x.until(5)] + [c.syn.raw]

    assert packets(7) == packets(7)
    assert packets(7) != packets(8)


def test_an_outside_suite_needs_nothing_but_the_two_folders_on_its_path() -> None:
    program = "import sys; sys.path[:0] = sys.argv[1:]; import sut, kernel_oracle; print(sut.FourtupleSUT.__bases__)"
    here = Path(__file__).resolve().parent
    command = [sys.executable, "-c", program, str(here), str(SHARED)]
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(<class 'kernel_oracle.SUT'>,)"
