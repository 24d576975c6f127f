"""A process that dials a part: started afresh by processes.py, it ends with whoever started it.

Lives here: what goes through the pipes.  Does not live here: the part itself (part.py).

    stdin    a line of JSON, the part; then "go" and "hold", a line each; end of file: stop, close, report
    stdout   lines of JSON: {"ready": ...}, {"progress": ...}, {"opened": true}, {"report": ...} or {"error": ...}

Rules
1. Nothing is begun before "go": all processes begin at once.
2. When the parent dies, by kill -9 too, the kernel kills this process (PR_SET_PDEATHSIG); its sockets and its end of
   the wire go with it.
3. Nothing else is written to stdout: whatever prints there prints to stderr, whose last line is the parent's to show.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import select
import signal
import time
from dataclasses import replace
from typing import Any

from fourtuple.dial.part import Part, open_part
from fourtuple.dial.report import Progress
from fourtuple.dial.report_json import dump

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_LOOK_EVERY_S = 0.01
_HISTOGRAMS_EVERY_S = 0.5  # they take a hundred times as long to write and to read as the rest


class Orders:
    """What the parent has said: lines; its end of the pipe closed is `is_over`."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN)
        self._lines: list[bytes] = []
        self._pending = b""
        self._looked = 0.0
        self.is_over = False

    def next_line(self) -> bytes:
        """Waits for it; b"" when there is none."""
        while not self._lines and not self.is_over:
            self._read(None)
        return self._lines.pop(0) if self._lines else b""

    def has_said(self, word: bytes) -> bool:
        """Whether it is the next line, which is then done with; does not wait."""
        self.should_stop()
        if self._lines[:1] != [word]:
            return False
        self._lines.pop(0)
        return True

    def should_stop(self) -> bool:
        """Asked in every round of a dial: the pipe is looked at a hundred times a second."""
        now = time.monotonic()
        if now - self._looked >= _LOOK_EVERY_S:
            self._looked = now
            self._read(0)
        return self.is_over

    def _read(self, patience_ms: int | None) -> None:
        if not self._poll.poll(patience_ms):
            return
        data = os.read(self._fd, 1 << 20)
        self.is_over = not data
        *lines, self._pending = (self._pending + data).split(b"\n")
        self._lines += lines


class Answers:
    """What the parent is told."""

    def __init__(self) -> None:
        self._fd = os.dup(1)
        os.dup2(2, 1)

    def say(self, **message: Any) -> None:
        """A line; the parent reads it at once."""
        data = json.dumps(message).encode() + b"\n"
        while data:
            try:
                data = data[os.write(self._fd, data) :]
            except BrokenPipeError:
                os._exit(0)  # nobody listens


def main(parent: int) -> None:
    """Dial the part that comes in for the process `parent`."""
    _end_with_parent()
    if os.getppid() != parent:
        return  # it died before
    orders, answers = Orders(0), Answers()
    part = Part.from_json(json.loads(orders.next_line()))
    try:
        _run(part, orders, answers)
    except OSError as error:
        answers.say(error=described(error))


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def described(error: OSError) -> dict[str, Any]:
    """Its class, if that says more than OSError, and what makes up one."""
    text = str(error.strerror or error)
    return {
        "kind": type(error).__name__,
        "code": error.errno or errno.EIO,
        "text": f"{error.filename}: {text}" if error.filename else text,
        "todo": getattr(error, "todo", ""),
        "what": getattr(error, "what", ""),
    }


def _run(part: Part, orders: Orders, answers: Answers) -> None:
    last_full = 0.0

    def on_progress(progress: Progress) -> None:
        nonlocal last_full
        now = time.monotonic()
        if now - last_full < _HISTOGRAMS_EVERY_S:
            progress = replace(progress, connect=None, handshake=None)
        else:
            last_full = now
        answers.say(progress=dump(progress))

    has_told = False

    def may_hold() -> bool:
        nonlocal has_told
        if not has_told:
            answers.say(opened=True)
            has_told = True
        return orders.has_said(b"hold")

    with open_part(part) as dial:
        _end_with_parent()  # again: entering a user namespace took it back (cred.c:commit_creds)
        answers.say(ready={"where": dial.where, "notes": list(dial.notes)})
        if orders.next_line() != b"go":
            return
        report = dial.run(on_progress, orders.should_stop, may_hold)
    answers.say(report=report.to_json())
