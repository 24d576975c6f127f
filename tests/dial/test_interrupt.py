"""Ctrl-C while a dial opens and closes: the first one ends the phase, the second one the command."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from fourtuple.phy import tun

pytestmark = [
    pytest.mark.compiled_only,  # a process of its own, which is
    pytest.mark.skipif(
        os.geteuid() != 0 or not os.path.exists(tun.PATH),
        reason="needs root and /dev/net/tun (unprivileged: see --wire)",
    ),
]
INTERRUPTED = 130


class Command:
    """A dial with a terminal for its progress."""

    def __init__(self, process: subprocess.Popen[bytes], terminal: int) -> None:
        self.process, self._terminal = process, terminal

    def interrupt_when(self, text: bytes) -> None:
        seen = b""
        while text not in seen:
            assert select.select([self._terminal], [], [], 30)[0], seen
            seen += os.read(self._terminal, 4096)
        self.process.send_signal(signal.SIGINT)

    def report(self) -> dict[str, Any]:
        out = self.process.communicate(timeout=30)[0]
        assert self.process.returncode == INTERRUPTED
        found: dict[str, Any] = json.loads(out)
        return found


@contextmanager
def started(*words: str) -> Iterator[Command]:
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "fourtuple.cli.main", "dial", *words, "--wire", "tun", "--json"]
    environment = os.environ | {"COLUMNS": "80", "TERM": "xterm", "NO_COLOR": "1"}
    try:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=follower, env=environment) as process:
            try:
                yield Command(process, leader)
            finally:
                process.kill()
    finally:
        os.close(leader)
        os.close(follower)


def test_one_while_opening_closes_what_is_open_and_reports() -> None:
    with started("5000", ":8080", "--rate", "50/s", "--hold", "1h") as command:
        command.interrupt_when(b" open")
        report = command.report()
    counts = report["connections"]
    assert 0 < counts["closed"] == counts["established"] < 5000
    assert report["seconds"]["hold"] < 1 and report["left"]["sockets"] == 0


def test_one_while_closing_waits_no_longer_and_reports_what_is_left() -> None:
    with started("50", ":8080", "--loss", "tx-fin") as command:
        command.interrupt_when(b"closing")
        report = command.report()
    assert report["seconds"]["close"] < 5
    assert (report["left"]["sockets"], report["connections"]["closed"]) == (50, 50)


def test_a_second_one_ends_the_command_without_a_report() -> None:
    with started("5000", ":8080", "--rate", "100/s", "--loss", "tx-fin") as command:
        command.interrupt_when(b" open")
        command.interrupt_when(b"closing")
        out = command.process.communicate(timeout=30)[0]
        assert (command.process.returncode, out) == (INTERRUPTED, b"")
