"""`fourtuple why` from end to end."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fourtuple.cli.main import main
from tests.cli.schema import check, load
from tests.live.space import Space, needs_root

STRACE = Path(__file__).parents[1] / "doctor" / "strace.txt"


@pytest.fixture
def full() -> Iterator[Space]:
    """No port is left to 203.0.113.1:80."""
    with Space() as space:
        space.sysctl("net.ipv4.ip_local_port_range", "40000 40003")
        for _ in range(4):
            space.try_connect("203.0.113.1", 80)
        yield space


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What it prints; it succeeds and complains of nothing."""
    code = main(["why", *words])
    captured = capsys.readouterr()
    assert (code, captured.err) == (0, "")
    return captured.out


def report(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(shown(capsys, "--json", *words))
    check(load("why-1"), document)
    return document


def refused(capsys: pytest.CaptureFixture[str], *words: str, code: int = 2) -> str:
    assert main(["why", *words]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err.splitlines()[0]


@needs_root
def test_the_path_that_it_is_has_a_mark_and_the_others_a_reason(
    full: Space, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = shown(capsys, "EADDRNOTAVAIL", "-N", full.path, "--pid", str(os.getpid())).splitlines()
    assert lines[0] == "EADDRNOTAVAIL (99): Cannot assign requested address"
    text = " ".join(" ".join(lines).split())
    assert f"has 4 sources in Linux 6.18; for pid {os.getpid()} it is number 1." in text
    assert "1 ✓ __inet_hash_connect no port of the range is left" in text
    assert "here 4 of 4 ports cannot be had to 203.0.113.1:80" in text
    assert f"not it pid {os.getpid()} has no bound, unconnected socket now" in text
    assert "not it the destination is IPv4" in text
    assert all(len(line) <= 80 for line in lines)


@needs_root
def test_json_says_the_same(full: Space, capsys: pytest.CaptureFixture[str]) -> None:
    document = report(capsys, "99", "-N", full.path, "--dest", "203.0.113.1:80")
    assert (document["errno"], document["number"]) == ("EADDRNOTAVAIL", 99)
    assert document["asked"]["destinations"] == [{"address": "203.0.113.1", "port": 80}]
    of_connect = [path for path in document["paths"] if path["call"] == "connect"]
    assert [path["verdict"] for path in of_connect] == ["yes", "open", "open", "no"]
    assert of_connect[0]["facts"] and of_connect[0]["fixes"]


@needs_root
def test_who_has_the_port_is_named(full: Space, capsys: pytest.CaptureFixture[str]) -> None:
    full.listen("127.0.0.1", 8080)
    text = shown(capsys, "EADDRINUSE", "-N", full.path, "--dest", ":8080")
    assert "if bind() asks for :8080 it is number 1." in text
    assert "127.0.0.1:8080 LISTEN python" in text and f"[{os.getpid()}]" in text


@needs_root
def test_a_snapshot_instead_of_the_machine(full: Space, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from fourtuple.live import take_snapshot
    from fourtuple.live.snapshot import write

    file = str(tmp_path / "there.snap")
    write([take_snapshot(full.path)], file)
    document = report(capsys, "99", "-r", file, "--dest", "203.0.113.1:80")
    assert document["paths"][0]["verdict"] == "yes"


@needs_root
def test_of_several_namespaces_in_a_file_the_one_that_is_full_is_asked(
    full: Space, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from fourtuple.live import take_snapshot
    from fourtuple.live.snapshot import write

    file = str(tmp_path / "all.snap")
    with Space() as healthy:
        write([take_snapshot(healthy.path), take_snapshot(full.path), take_snapshot(healthy.path)], file)
    assert report(capsys, "99", "-r", file)["paths"][0]["verdict"] == "yes"
    assert f"netns {full.path}" in shown(capsys, "99", "-r", file)


@pytest.mark.parametrize("name", ["EADDRINUSE", "ETIMEDOUT", "EINVAL", "EMFILE", "EAGAIN", "EISCONN"])
def test_every_document_is_as_its_schema_says(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert report(capsys, name)["errno"] == name


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("color", ["always", "never"])
def test_no_line_is_wider_than_the_terminal(
    width: int, color: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import re

    from fourtuple.doctor.why import NAMES

    monkeypatch.setenv("COLUMNS", str(width))
    for name in NAMES:
        text = re.sub(r"\x1b\[[0-9;]*m", "", shown(capsys, name, "--color", color))
        assert max(map(len, text.splitlines())) <= width, name


def test_a_message_needs_no_quotes(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, "Connection", "refused").startswith("ECONNREFUSED (111): Connection refused\n")


def test_ascii_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, "EINVAL", "--ascii").isascii()
    assert shown(capsys, str(STRACE), "--ascii").isascii()


def test_output_of_strace(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, str(STRACE))
    assert text.startswith("strace: 12 calls of connect(), bind() and listen() on TCP, 8 failed\n")
    assert "3 × connect() to 127.0.0.1:9 = ECONNREFUSED  not bound before, pid 4711" in text
    document = report(capsys, str(STRACE))
    assert sum(each["count"] for each in document["log"]["failed"]) == 8
    bound = next(each for each in document["log"]["failed"] if each["errno"] == "EINVAL")
    assert (bound["bound"], bound["has_port"], bound["pids"]) == ("127.0.0.1:0", True, [4711])


def test_a_log_on_standard_input() -> None:
    log = b"\xff\x00 noise\nOSError: [Errno 99] Cannot assign requested address\n" * 3
    done = subprocess.run([sys.executable, "-m", "fourtuple.cli.main", "why", "-"], input=log, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"6 lines, 3 with an errno of connect() or bind()" in done.stdout
    assert "3 × EADDRNOTAVAIL" in done.stdout.decode()


def test_an_empty_log(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"")
    assert shown(capsys, str(tmp_path / "log")) == "0 lines: no errno of connect() or bind() in them\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["EADDRNTAVAIL"], "fourtuple: why: 'EADDRNTAVAIL' is no errno. Did you mean EADDRNOTAVAIL?"),
        (["nosuch.log"], "fourtuple: why: 'nosuch.log' is no errno of connect() or bind(), and there is no such file"),
        (["/"], "fourtuple: why: /: Is a directory"),
        (["99", "--dest", "here"], "fourtuple: why: --dest: no port in 'here' "
         "(expected HOST:PORT, :PORT, [v6]:PORT or a URL)"),
        (["99", "--pid", "x"], "fourtuple why: --pid: 'x' is not a pid"),
        (["99", "--pid", "2147483647"], "fourtuple: why: pid 2147483647: there is no such process"),
        (["99", "-r", "/nonexistent"], "fourtuple: -r: /nonexistent: No such file or directory"),
        (["99", "-r", str(STRACE)], None),
        (["99", "-N", "nosuchnamespace"], None),
        ([], None),
    ],
)  # fmt: skip
def test_mistakes_get_one_line(words: list[str], message: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    told = refused(capsys, *words)
    assert told.startswith("fourtuple")
    assert message is None or told == message


def test_standard_input_that_is_closed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """What is no file at all, as under a test runner: no traceback."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("[Errno 111]\n"))
    assert "1 line, 1 with an errno" in shown(capsys, "-")
