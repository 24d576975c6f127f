"""Reports of dial as files: written as schema/dial-1.json says, and read back, with every error in one line."""

from __future__ import annotations

import errno
import json
import re
import sys
from typing import Any

from fourtuple.cli import exits
from fourtuple.cli.exits import Failure
from fourtuple.dial.report import DialReport
from fourtuple.dial.report_json import ReportError

_LARGEST = 64 << 20
_STDIN = "-"
# In a JSON text a newline is never inside a string: so this is a list, and one of numbers only.
_NUMBERS = re.compile(r"\[\n\s+([-+.0-9eE,\s]+?)\s+\]")


def report_text(report: DialReport, ascii_only: bool = False, code: int | None = None) -> str:
    """The document; a row of numbers is a line.  `code`: how the command ends, where the report does not know it."""
    document = report.to_json()
    if code is not None:
        document["exit"] = code
    text = json.dumps(document, indent=2, ensure_ascii=ascii_only)
    return _NUMBERS.sub(lambda found: f"[{' '.join(found[1].split())}]", text) + "\n"


def read_report(path: str) -> DialReport:
    """The report in a file, `-` is stdin.  Failure for a file that has none."""
    name = "stdin" if path == _STDIN else path
    try:
        return DialReport.from_json(_parsed(_content(path, name), name))
    except ReportError as error:
        raise Failure(f"{name}: {error}") from None


def _content(path: str, name: str) -> bytes:
    try:
        if path == _STDIN:
            data = sys.stdin.buffer.read(_LARGEST + 1)
        else:
            with open(path, "rb") as file:
                data = file.read(_LARGEST + 1)
    except OSError as error:
        denied = error.errno in (errno.EPERM, errno.EACCES)
        code = exits.NO_PERMISSION if denied else exits.USAGE
        raise Failure(f"{name}: cannot read it: {error.strerror or error}", code) from None
    except ValueError as error:  # a zero byte in its name
        raise Failure(f"{name!r}: {error}") from None
    if len(data) > _LARGEST:
        raise Failure(f"{name}: no report: larger than {_LARGEST >> 20} MiB")
    return data


def _parsed(data: bytes, name: str) -> Any:
    try:
        return json.loads(data)
    except json.JSONDecodeError as error:
        what = "empty" if not data.strip() else f"no JSON from line {error.lineno} on ({error.msg})"
        raise Failure(f"{name}: {what}") from None
    except (ValueError, RecursionError):  # no UTF-8; a number of thousands of digits; lists in lists in lists
        raise Failure(f"{name}: no JSON that a report is made of") from None
