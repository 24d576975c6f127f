"""`fourtuple syn-schedule` from end to end."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from fourtuple.cli.main import main
from fourtuple.sysctl import PROFILES
from tests.cli.golden import check_golden
from tests.cli.schema import check, load

DEFAULT_TIMES = [0, 1, 2, 3, 4, 5, 7, 11, 19, 35, 67]


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What it prints; it succeeds and complains of nothing."""
    code = main(["syn-schedule", *words])
    captured = capsys.readouterr()
    assert (code, captured.err) == (0, "")
    return captured.out


def report(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(shown(capsys, "--json", *words))
    check(load("syn-schedule-1"), document)
    return document


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    code = main(["syn-schedule", *words])
    captured = capsys.readouterr()
    assert (code, captured.out) == (2, "")
    return captured.err


TEXTS = {
    "default": [],
    "user-timeout": ["--user-timeout", "10s"],
    "capped": ["--retries", "20", "--linear", "0"],
}


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("text", TEXTS)
def test_the_text_is_known(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, text: str, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    out = shown(capsys, *TEXTS[text])
    assert max(map(len, out.splitlines())) <= width
    check_golden(f"syn-schedule-{text}-{width}.txt", out)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_all_kernels_are_one_line_each(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    out = shown(capsys, "--all-profiles")
    assert max(map(len, out.splitlines())) <= width
    lines = [line for line in out.splitlines() if line.startswith("Linux ")]
    assert [line.split()[1] for line in lines] == list(PROFILES)
    assert re.search(r"Linux 6\.18 .*✗ 131 s, 11 SYNs$", out, re.MULTILINE)


def test_the_line_is_to_scale(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """With 3 s in all, the SYN at 1 s is a third along; its label stands below it."""
    monkeypatch.setenv("COLUMNS", "80")
    out = shown(capsys, "--linear", "0", "--retries", "1")
    line = next(line for line in out.splitlines() if "✗ ETIMEDOUT 3 s" in line)
    axis = out.splitlines()[out.splitlines().index(line) + 1]
    assert [at for at, char in enumerate(line) if char == "●"] == [axis.index("0 s"), axis.index("1 s")]
    assert line.index("✗") == axis.index("3 s")
    assert abs((axis.index("1 s") - 2) * 3 - (axis.index("3 s") - 2)) <= 2


def test_ascii_is_ascii(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, "--ascii", "--retries", "20").isascii()
    assert shown(capsys, "--ascii", "--all-profiles").isascii()


def test_json_has_every_syn_with_its_gap_and_rule(capsys: pytest.CaptureFixture[str]) -> None:
    (schedule,) = report(capsys)["schedules"]
    assert [syn["time_us"] // 1_000_000 for syn in schedule["syns"]] == DEFAULT_TIMES
    assert schedule["syns"][0] == {"time_us": 0, "gap_us": None, "rule": None}
    assert schedule["syns"][7] == {"time_us": 11_000_000, "gap_us": 4_000_000, "rule": "doubled"}
    assert schedule["end"] == {
        "time_us": 131_000_000,
        "gap_us": 64_000_000,
        "rule": "doubled",
        "ended_by": "retries",
        "errno": "ETIMEDOUT",
    }


def test_json_of_several_kernels(capsys: pytest.CaptureFixture[str]) -> None:
    document = report(capsys, "--all-profiles", "--syncnt", "3")
    assert [schedule["profile"] for schedule in document["schedules"]] == list(PROFILES)
    assert document["syncnt"] == 3


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--retries", "128"], "Linux refuses net.ipv4.tcp_syn_retries = 128 (EINVAL): 1 to 127"),
        (["--retries=-1"], "Linux refuses net.ipv4.tcp_syn_retries = -1 (EINVAL): 1 to 127"),
        (["--linear", "128"], "Linux refuses net.ipv4.tcp_syn_linear_timeouts = 128 (EINVAL): 0 to 127"),
        (["--rto-max", "121s"], "Linux refuses net.ipv4.tcp_rto_max_ms = 121000 (EINVAL): 1000 to 120000"),
        (["--syncnt", "0"], "Linux refuses TCP_SYNCNT = 0 (EINVAL): 1 to 127"),
        (["--user-timeout", "1500us"], "--user-timeout: Linux counts it in whole milliseconds"),
        (["--retries", "many"], "--retries: 'many' is not a whole number"),
        (["--profile", "1.0"], "--profile: no profile of Linux '1.0'; there are: "),
    ],
)
def test_what_is_out_of_bounds_is_one_line(capsys: pytest.CaptureFixture[str], words: list[str], line: str) -> None:
    err = refused(capsys, *words)
    assert line in err
    assert "Traceback" not in err


def test_a_kernel_without_the_sysctl_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    err = refused(capsys, "--profile", "3.10", "--linear", "2")
    assert "Linux 3.10 has no net.ipv4.tcp_syn_linear_timeouts (ENOENT)" in err
    both = shown(capsys, "--profile", "3.10", "--profile", "6.18", "--linear", "2")
    assert "No tcp_syn_linear_timeouts in Linux 3.10." in both
    (old, new) = report(capsys, "--profile", "3.10", "--profile", "6.18", "--linear", "2")["schedules"]
    assert [one["sysctls"]["net.ipv4.tcp_syn_linear_timeouts"] for one in (old, new)] == [None, 2]


def test_what_old_kernels_make_of_the_user_timeout_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert "Linux 2.6.32 has no TCP_USER_TIMEOUT (ENOPROTOOPT)" in refused(
        capsys, "--profile", "2.6.32", "--user-timeout", "5s"
    )
    deaf = "Linux 3.10: TCP_USER_TIMEOUT does not count before the connection is established."
    assert deaf in shown(capsys, "--profile", "3.10", "--user-timeout", "5s")
    out = shown(capsys, "--all-profiles", "--user-timeout", "5s")
    assert "No TCP_USER_TIMEOUT in Linux 2.6.32." in out
    assert "Linux 3.10, 4.2, 4.6: TCP_USER_TIMEOUT does not count" in out
    assert re.search(r"Linux 5\.18 .*✗ 5 s, 3 SYNs$", out, re.MULTILINE)


def test_an_old_kernel_gives_up_when_the_time_of_its_retries_is_over(capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(capsys, "--profile", "2.6.32")
    assert "ETIMEDOUT 21 s" in out
    assert "the time that tcp_syn_retries 5 stands for is over" in out
