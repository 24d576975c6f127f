"""A file that a command writes its answer to: tried before the run, so that nothing is read or sent in vain."""

from __future__ import annotations

import os
import stat
from contextlib import suppress

from fourtuple.cli.exits import Failure, cannot_write


def check_output(option: str, path: str) -> None:
    """Failure, in one line, if it could not be written; a file that is there stays as it is, a new one goes again."""
    if _is_fifo(path):  # who reads it would take the opening and closing for an empty file
        return
    is_new = not os.path.lexists(path)
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o666))
        if is_new:
            os.unlink(path)
    except (OSError, ValueError) as error:
        raise unwritable(option, path, error) from None


def unwritable(option: str, path: str, error: OSError | ValueError) -> Failure:
    """What to raise when it cannot be written after all, as on a full disk."""
    return cannot_write(f"{option}: cannot write {path}", error)


def _is_fifo(path: str) -> bool:
    with suppress(OSError, ValueError):
        return stat.S_ISFIFO(os.stat(path).st_mode)
    return False
