"""The rows of the catalogue without a given scenario: ours on our stack, and on the live kernel where it is quick."""

from __future__ import annotations

import pytest

from tests.kernel.netns import needs_kernel
from tests.kernel.oracle import ko
from tests.kernel.rows_more import CATALOGUE, ROWS, on_live_kernel, run_row
from tests.kernel.sut import FourtupleSUT

# Rows without any scenario: from source only, Ethernet, Fast Open cookies, IPv6.
WITHOUT_SCENARIO = {"ERR-30", "RTX-21", "ICMP-15", "TFO-03", "V6-03", "V6-05"}


def test_every_row_of_the_catalogue_has_a_scenario_or_a_reason():
    assert set(CATALOGUE) - set(ko.ROWS) - set(ROWS) == WITHOUT_SCENARIO


@pytest.mark.parametrize("row", ROWS.values(), ids=lambda row: row.id)
def test_row_holds(row):
    assert run_row(row.id, FourtupleSUT()) == row.expect, row.title


# The kernel runs in real time, and the scenarios' own reader of packets may come late on a busy machine.
TRIES = 3


@pytest.mark.compiled_only  # the kernel is the same in each build of ours
@needs_kernel
@pytest.mark.parametrize("row", [row for row in ROWS.values() if not row.slow], ids=lambda row: row.id)
def test_scenario_holds_on_the_live_kernel(row):
    answers = []
    for _ in range(TRIES):
        try:
            answers.append(on_live_kernel(row.id).get("result", row.expect))
        except RuntimeError as error:  # the scenario broke off: its last line says where
            answers.append(str(error).strip().splitlines()[-1])
        if answers[-1] == row.expect:
            return
    pytest.fail(f"{row.title}: expected {row.expect}, got {answers}")
