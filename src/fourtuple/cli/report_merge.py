"""`fourtuple report merge FILE...`: the reports of several processes or machines as one.

Lives here: options and files.  Does not live here: adding up (dial/merge.py), texts (dial_text.py, html/dial.py).
Rule: everything is read and checked before anything is written.
"""

from __future__ import annotations

import argparse
import os
import stat
from typing import TYPE_CHECKING

from fourtuple.cli.exits import Failure
from fourtuple.cli.output_file import check_output, unwritable
from fourtuple.cli.terminal import Terminal

if TYPE_CHECKING:
    from fourtuple.dial.report import DialReport

ACTIONS = ("merge",)
_EPILOG = """\
examples:
  fourtuple report merge web-*.json                 one answer for all
  fourtuple report merge a.json b.json -o all.json  the merged report, in a file
  fourtuple report merge a.json --html a.html       a page, also of a single one

FILE is what `fourtuple dial --json` wrote; - is stdin. Counts and histograms
add up exactly. The exit code is that of the merged report: 10 when some failed.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.usage = "fourtuple report merge FILE... [options]"
    parser.epilog = _EPILOG
    parser.add_argument("action", type=_action, metavar="merge", help="add reports up")
    parser.add_argument("files", nargs="+", metavar="FILE", help="a report: JSON of fourtuple dial")
    output = parser.add_argument_group("report")
    output.add_argument("-o", dest="output", metavar="FILE", help="write the merged JSON there too")
    output.add_argument("--json", action="store_true", help="one JSON document instead of text")
    output.add_argument("--html", metavar="FILE", help="write a page about it there too")


def _action(text: str) -> str:
    if text in ACTIONS:
        return text
    from difflib import get_close_matches

    meant = get_close_matches(text.lower(), ACTIONS, 1, 0.6)
    hint = f"Did you mean {meant[0]!r}?" if meant else f"There are: {', '.join(ACTIONS)}."
    raise argparse.ArgumentTypeError(f"nothing is called {text!r}. {hint}")


def run(args: argparse.Namespace, out: Terminal, err: Terminal) -> int:
    """Read, add up, write, print."""
    from fourtuple.cli.dial_json import read_report, report_text
    from fourtuple.dial.merge import as_worker, merge

    _check_names(args)
    reports = [read_report(path) for path in args.files]
    if len(reports) > 1:
        for one, path in zip(reports, args.files, strict=True):
            one.workers = one.workers or [as_worker(one, os.path.basename(path))]
    report = merge(reports)
    if args.html:
        from fourtuple.cli.html.dial import dial_page
        from fourtuple.cli.html.file import write_page

        write_page(args.html, dial_page(report))
    if args.output:
        _write(args.output, report_text(report))
    _answer(report, args.json, out)
    return report.exit


def _answer(report: DialReport, wants_json: bool, out: Terminal) -> None:
    if wants_json:
        from fourtuple.cli.dial_json import report_text

        out.write(report_text(report, out.ascii_only))
        return
    from fourtuple.cli.dial_text import lines

    out.print(*lines(report, out))


def _check_names(args: argparse.Namespace) -> None:
    """No report counts twice, none is written over, and what is to be written can be."""
    read = set()
    for path in args.files:
        if _identity(path) in read:
            raise Failure(f"{path} is given twice; each report counts once")
        read.add(_identity(path))
    for option, path in (("-o", args.output), ("--html", args.html)):
        if path and _identity(path) in read:
            raise Failure(f"{option}: {path} is one of the reports that are read; give it another name")
    if args.html:
        from fourtuple.cli.html.file import check_page_file

        if args.output and args.html == args.output:
            raise Failure(f"-o and --html both write {args.output}; give each its own file")
        check_page_file(args.html)
    if args.output == "-":
        raise Failure("-o: stdout has the text; say --json to have the document there")
    if args.output:
        check_output("-o", args.output)


def _identity(path: str) -> object:
    """What two names of the same regular file have in common; of anything else: its name."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return path
    return (found.st_dev, found.st_ino) if stat.S_ISREG(found.st_mode) else path


def _write(path: str, text: str) -> None:
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise unwritable("-o", path, error) from None
