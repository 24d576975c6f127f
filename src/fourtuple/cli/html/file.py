"""The file that a page goes to: tried before the run, written after it."""

from __future__ import annotations

import os
from contextlib import suppress

from fourtuple.cli.exits import Failure
from fourtuple.cli.output_file import check_output, unwritable


def check_page_file(path: str, capture: str | None = None) -> None:
    """Failure, in one line, if the page could not be written there; a file that is there stays as it is.

    `capture`: the file of -w, open already.
    """
    if path == "-":
        raise Failure("--html: a page goes to a file, as stdout has the text; say --html page.html")
    if capture and _is_same(path, capture):
        raise Failure(f"-w and --html both write {path}; give each its own file")
    check_output("--html", path)


def _is_same(path: str, other: str) -> bool:
    with suppress(OSError):
        return os.path.samefile(path, other) and os.path.isfile(path)
    return False


def write_page(path: str, text: str) -> None:
    """Write it whole."""
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise unwritable("--html", path, error) from None
