"""`fourtuple plan` from end to end: text, JSON, refusals.  Its numbers are judged in tests/doctor/test_plan.py."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fourtuple.cli.main import main
from tests.cli.golden import check_golden
from tests.cli.schema import check, load

pytestmark = pytest.mark.compiled_only  # seconds of simulation become a minute


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What it prints; it succeeds and complains of nothing."""
    code = main(["plan", *words])
    captured = capsys.readouterr()
    assert (code, captured.err) == (0, "")
    return captured.out


def report(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(shown(capsys, "--json", *words))
    check(load("plan-1"), document)
    return document


TEXTS = {
    "full": ["--rate", "500/s", "--hold", "60s", "--budget", "100us"],
    "fits": ["--rate", "300/s", "--hold", "20s", "--dests", "2", "--budget", "100us"],
    "hopeless": ["--rate", "10000000/s", "--hold", "24h"],
}


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("text", TEXTS)
def test_the_text_is_known(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, text: str, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    out = shown(capsys, *TEXTS[text])
    assert max(map(len, out.splitlines())) <= width
    check_golden(f"plan-{text}-{width}.txt", out)


def test_the_load_of_the_design_does_not_fit_and_each_option_does(capsys: pytest.CaptureFixture[str]) -> None:
    found = report(capsys, *TEXTS["full"])
    assert not found["fits"]
    assert found["demand"]["four_tuples"] == 60_000  # Little: 500/s times 60 s, and as many TIME_WAITs of 60 s
    assert 28 <= found["cliff_after_s"] < 29  # 14 116 ports at 500 a second
    assert 56 <= found["full_after_s"] < 57
    assert found["now"]["failing_share"] == pytest.approx(1 - 28_232 / 60_000, abs=0.05)
    assert len(found["options"]) >= 5
    for option in found["options"]:
        assert option["outcome"]["failing_share"] == 0
        assert option["outcome"]["cost_us"]["likely"] <= 100
        assert option["headroom"] >= 1


def test_what_fits_says_so_and_has_no_options(capsys: pytest.CaptureFixture[str]) -> None:
    found = report(capsys, "--rate", "10/s", "--hold", "1s")
    assert found["fits"] and found["options"] == [] and found["full_after_s"] is None
    assert "✓ it fits" in shown(capsys, "--rate", "10/s", "--hold", "1s")


@pytest.mark.parametrize(
    "words, expected",
    [
        (["--rate", "90/min", "--hold", "2h"], {"rate_per_s": 1.5, "hold_s": 7200.0}),
        (["--rate", "2k", "--hold", "5ms"], {"rate_per_s": 2000.0, "hold_s": 0.005}),
        (["--rate", "36/h", "--hold", "1.5min"], {"rate_per_s": 0.01, "hold_s": 90.0}),
        (
            ["--rate", "9", "--hold", "1s", "--dests", "3", "--sources", "2", "--requests", "7", "--tw-reuse", "1"],
            {"dests": 3, "sources": 2, "requests_per_connection": 7, "tcp_tw_reuse": 1},
        ),
        (
            ["--rate", "9", "--hold", "1s", "--range", "1024-65535", "--server-closes", "--port-range-option"],
            {"port_low": 1024, "port_high": 65535, "server_closes_first": True, "local_port_range_option": True},
        ),
        (["--rate", "9", "--hold", "1s", "--budget", "2ms"], {"budget_us": 2000.0}),
    ],
)
def test_every_option_reaches_the_workload(
    capsys: pytest.CaptureFixture[str], words: list[str], expected: dict[str, Any]
) -> None:
    workload = report(capsys, *words)["workload"]
    assert {name: workload[name] for name in expected} == expected


@pytest.mark.parametrize(
    "words, complaint",
    [
        (["--rate", "0", "--hold", "1s"], "--rate: '0': a rate is from 4/h"),
        (["--rate", "9" * 400, "--hold", "1s"], "a rate is from 4/h"),
        (["--rate", "fast", "--hold", "1s"], "is not a rate"),
        (["--rate", "5/s", "--hold", "0s"], "--hold: '0s': a connection is open"),
        (["--rate", "5/s", "--hold", "-1s"], "is not a duration"),
        (["--rate", "5/s", "--hold", "9"], "is not a duration"),
        (["--rate", "5/s", "--hold", "25h"], "more than a day"),
        (["--rate", "5/s"], "--hold"),
        (["--rate", "5/s", "--hold", "1s", "--dests", "0"], "--dests: '0' is not a number from 1"),
        (["--rate", "5/s", "--hold", "1s", "--sources", "10000000000"], "is not a number from 1"),
        (["--rate", "5/s", "--hold", "1s", "--range", "9-1"], "--range"),
        (["--rate", "5/s", "--hold", "1s", "--budget", "0us"], "--budget"),
        (["--rate", "5/s", "--hold", "1s", "--tw-reuse", "3"], "--tw-reuse"),
    ],
)
def test_nonsense_is_refused_in_one_line(capsys: pytest.CaptureFixture[str], words: list[str], complaint: str) -> None:
    assert main(["plan", *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    first, hint = captured.err.splitlines()
    assert complaint in first and hint.strip() == "try:  fourtuple plan --help"


@pytest.mark.parametrize(
    "words",
    [
        ["--rate", "4/h", "--hold", "1us", "--sources", "1000000", "--dests", "1000000"],
        ["--rate", "4/h", "--hold", "24h", "--range", "5-5"],
        ["--rate", "10000000/s", "--hold", "1us", "--server-closes"],
        ["--rate", "10/s", "--hold", "1ms", "--range", "5-6", "--requests", "1000000"],
    ],
)
def test_the_ends_of_what_may_be_asked_are_answered(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    report(capsys, *words)
    shown(capsys, *words)


def test_ascii_is_ascii(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, "--ascii", *TEXTS["full"]).isascii()


def test_no_range_is_proposed_that_the_kernel_refuses(capsys: pytest.CaptureFixture[str]) -> None:
    """ipv4_local_port_range: not below ip_unprivileged_port_start, by default 1024."""
    out = shown(capsys, "--rate", "10/s", "--hold", "10s", "--range", "1-1")
    assert "range 1024-65535" in out
    assert "1-65535" not in out.replace("1024-65535", "")
    assert "only with net.ipv4.ip_unprivileged_port_start at 1 or below" in out
    assert "unprivileged" not in shown(capsys, "--rate", "10/s", "--hold", "10s")


def test_a_range_from_below_1024_is_not_made_narrower(capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(capsys, "--rate", "2k/s", "--hold", "10s", "--range", "500-65535")
    assert "range 1024-65535" not in out
