"""The file that a page goes to: tried before the run, written after it."""

from __future__ import annotations

import os
import stat
from contextlib import suppress

from fourtuple.cli.exits import INTERNAL, Failure


def check_page_file(path: str, capture: str | None = None) -> None:
    """Failure, in one line, if the page could not be written there; a file that is there stays as it is.

    `capture`: the file of -w, open already.
    """
    if path == "-":
        raise Failure("--html: a page goes to a file, as stdout has the text; say --html page.html")
    if capture and _is_same(path, capture):
        raise Failure(f"-w and --html both write {path}; give each its own file")
    if _is_fifo(path):  # who reads it would take the opening and closing for an empty page
        return
    is_new = not os.path.lexists(path)
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o666))
        if is_new:
            os.unlink(path)
    except OSError as error:
        raise _cannot_write(path, error) from None


def _is_same(path: str, other: str) -> bool:
    with suppress(OSError):
        return os.path.samefile(path, other) and os.path.isfile(path)
    return False


def _is_fifo(path: str) -> bool:
    with suppress(OSError):
        return stat.S_ISFIFO(os.stat(path).st_mode)
    return False


def write_page(path: str, text: str) -> None:
    """Write it whole."""
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise _cannot_write(path, error) from None


def _cannot_write(path: str, error: OSError) -> Failure:
    return Failure(f"--html: cannot write {path}: {error.strerror}", INTERNAL)
