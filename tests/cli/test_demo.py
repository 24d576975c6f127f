"""`fourtuple demo`: every chapter is there, on a simulated wire and on a real one."""

from __future__ import annotations

import errno
import re
from dataclasses import replace

import pytest

from fourtuple.cli.main import main
from fourtuple.shell import wires
from fourtuple.shell.wires import Setup, Wire, WireUnavailable

CHAPTERS = [
    "1  One connect(), every function",
    "2  The first SYN is lost",
    "3  One port, many destinations",
    "4  bind() before connect() pins a port",
    "5  A range of 4 096 ports, filled",
]


def run(capsys: pytest.CaptureFixture[str], *options: str) -> tuple[str, str]:
    """(stdout, stderr) of a demo that went well."""
    assert main(["demo", *options]) == 0
    captured = capsys.readouterr()
    return captured.out, captured.err


def check_chapters(out: str) -> None:
    """What every wire must show."""
    assert [line for line in out.splitlines() if re.match(r"\d  ", line)] == CHAPTERS
    assert "HTTP/1.1 200 OK" in out
    assert "✗ lost (syn:1)" in out
    assert out.count("40000 → ") == 6
    assert "EADDRNOTAVAIL: a bind() holds it" in out
    assert "40002 reserved, 40003 free" in out
    assert "connect() = -1 EADDRNOTAVAIL" in out
    assert "every port of 40000–44095 has this exact four-tuple already" in " ".join(out.split())


@pytest.mark.parametrize("width", ["80", "120"])
def test_the_tour_on_a_simulated_wire(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: str
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    out, err = run(capsys, "--wire", "sim")
    check_chapters(out)
    assert err == ""
    assert max(map(len, out.splitlines())) <= int(width)
    assert "the kernel's cost needs a real wire" in out


def test_without_a_tun_it_simulates_and_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing_real(setup: Setup) -> Wire:
        raise WireUnavailable(errno.ENOENT, "/dev/net/tun: no such file or directory")

    for name in wires.AUTO[:-1]:
        monkeypatch.setitem(wires.KINDS, name, replace(wires.KINDS[name], open=nothing_real))
    out, err = run(capsys)
    assert err == f"fourtuple: using sim, not {', '.join(wires.AUTO[:-1])}: /dev/net/tun: no such file or directory\n"
    check_chapters(out)
    assert main(["demo", "--wire", "tun"]) == 69
    assert "\n  try:  the same with --wire sim: it needs nothing\n" in capsys.readouterr().err


@pytest.mark.parametrize(("wire", "code"), [("kernel", 69), ("foo", 2)])
def test_a_wire_that_there_is_not_is_refused_as_connect_does(
    capsys: pytest.CaptureFixture[str], wire: str, code: int
) -> None:
    assert main(["demo", "--wire", wire]) == code
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)


def test_the_tour_on_a_real_wire_has_the_kernel_beside_it(capsys: pytest.CaptureFixture[str], tun: str) -> None:
    out, err = run(capsys, "--wire", tun)
    check_chapters(out)
    assert err == ""
    assert "a Linux kernel socket in a private namespace" in out
    kernel, ours = (re.split(r" {2,}", line.strip())[1:] for line in out.splitlines() if re.match(r"   [ko] ", line))
    assert len(kernel) == len(ours) == 3
