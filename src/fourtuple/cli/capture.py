"""`-w FILE`: the packets of a command in a pcapng file.

Lives here: the option, the file, what is said about it.  Does not live here: the format (phy/pcapng.py).

Rules
1. Whether the file can be written is found out before anything else is done.  It is emptied when the first wire is
   open, not before; a run that fails earlier leaves it as it was.
2. `-w -` is stdout.  The text goes to stderr then, as both cannot share a stream; --json is refused.
3. An error while writing does not stop the run: it is told at its end.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from fourtuple.cli import exits
from fourtuple.cli.exits import Failure

if TYPE_CHECKING:
    from fourtuple.cli.terminal import Line, Terminal
    from fourtuple.phy.pcapng import PcapngWriter
    from fourtuple.shell.capture import Capture

STDOUT = "-"


def add_option(parser: argparse._ActionsContainer, what: str) -> None:
    """-w, and `what` it writes."""
    where = "as pcapng, for Wireshark; -: to stdout, and the text to stderr"
    parser.add_argument("-w", dest="write", metavar="FILE", help=f"write {what} {where}")


class CaptureFile:
    """The file of -w, for as many wires as the command opens."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._output = _Output(path)
        self._writer: PcapngWriter | None = None

    def of_wire(self, description: str = "") -> Capture:
        """For the Setup of a wire."""
        from fourtuple import __version__
        from fourtuple.phy.pcapng import PcapngWriter
        from fourtuple.shell.capture import Capture

        if self._writer is None:
            self._writer = PcapngWriter(self._output, f"fourtuple {__version__}")
        return Capture(self._writer, description)

    @property
    def packets(self) -> int:
        """How many were written."""
        return 0 if self._writer is None else self._writer.packets

    def lines(self, out: Terminal) -> list[Line]:
        """What the summary says of it."""
        from fourtuple.cli.render import paragraph

        name = "stdout" if self.path == STDOUT else self.path
        number = f"{self.packets} packets, each" if self.packets > 1 else "1 packet," if self.packets else "no packet"
        remark = " with a comment naming its function (wireshark: frame.comment)" if self.packets else ""
        return paragraph(f"{name}: {number}{remark}", out.width, 0, "dim")

    def close(self) -> None:
        """Close it; Failure when not all could be written."""
        self._output.close()
        error = None if self._writer is None else self._writer.error
        if isinstance(error, BrokenPipeError) and self.path == STDOUT:
            raise error
        if error is not None:
            raise _cannot_write(self.path, error)


class _Output:
    """The file itself: every write reaches the system at once, the first one empties it."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._is_new = path != STDOUT and not os.path.lexists(path)
        self._is_empty = True
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
            self._fd = os.dup(sys.stdout.fileno()) if path == STDOUT else os.open(path, flags, 0o666)
        except OSError as error:
            raise _cannot_write(path, error) from None

    def write(self, data: bytes) -> None:
        if self._is_empty and self._path != STDOUT:
            with suppress(OSError):  # a pipe or a device has no length
                os.ftruncate(self._fd, 0)
        self._is_empty = False
        while data:
            data = data[os.write(self._fd, data) :]

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        os.close(self._fd)
        if self._is_new and self._is_empty:
            with suppress(OSError):
                os.unlink(self._path)


def _cannot_write(path: str, error: OSError) -> Failure:
    return exits.cannot_write(f"-w: cannot write {path}", error)


def _check(path: str, as_json: bool) -> None:
    if path == STDOUT and as_json:
        raise Failure("-w - and --json both want stdout; give -w a file")
    if path == STDOUT and sys.stdout.isatty():
        raise Failure("-w -: packets are not for a terminal; pipe them (| tshark -r -), or give -w a file")


@contextmanager
def capturing(path: str | None, as_json: bool = False) -> Iterator[CaptureFile | None]:
    """The open file of `-w path`, None without -w.  It is whole whatever ends the block."""
    if path is None:
        yield None
        return
    _check(path, as_json)
    file = CaptureFile(path)
    try:
        yield file
    except BaseException:
        with suppress(Failure, OSError):
            file.close()
        raise
    file.close()
