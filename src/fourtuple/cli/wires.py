"""`fourtuple wires`: what can be used here, found by trying, and why not the rest."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fourtuple.cli import exits
from fourtuple.cli.terminal import Line, Terminal

if TYPE_CHECKING:
    from fourtuple.shell.wire import Availability, WireKind

SCHEMA = "fourtuple.wires/1"
_HEADS = ("WIRE", "HERE", "TO WHOM", "NEEDS")
_GAP = 2

_EPILOG = """\
`fourtuple connect` and `fourtuple demo` take one by --wire NAME;
--wire auto, which is the default, takes the best.
A wire is tried by opening it, and closed again: a private namespace
has no name and leaves nothing behind.
"""


@dataclass(frozen=True)
class Row:
    """One wire as it is here."""

    name: str
    works: bool
    always: bool
    """It needs nothing, so there is nothing to find out."""
    reaches: str
    needs: str
    start_us: int | None = None
    code: int = 0
    reason: str = ""
    todo: str = ""


KERNEL = Row("kernel", True, True, "anyone, by kernel sockets", "nothing; not for connect")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.usage = "fourtuple wires [options]"
    parser.epilog = _EPILOG
    parser.add_argument("--json", action="store_true", help="one JSON document instead of text")


def run(args: argparse.Namespace, out: Terminal, err: Terminal) -> int:
    """Try each wire; the exit code is 0, as `sim` always works."""
    rows = find_rows()
    if args.json:
        from fourtuple.cli.report import to_json

        out.write(to_json(wires_report(rows), out.ascii_only) + "\n")
    else:
        out.print(*_lines(rows, out))
    return exits.OK


def find_rows() -> list[Row]:
    """Every wire, tried."""
    from fourtuple.shell.wires import KINDS

    return [KERNEL, *(_row(kind, kind.probe()) for kind in KINDS.values())]


def _row(kind: WireKind, found: Availability) -> Row:
    return Row(
        kind.name,
        found.works,
        kind.needs == "nothing",
        kind.reaches,
        kind.needs,
        found.start_us,
        found.code,
        found.reason,
        found.todo,
    )


def chosen(rows: list[Row]) -> str:
    """What `auto` takes."""
    from fourtuple.shell.wires import AUTO

    works = {row.name for row in rows if row.works}
    return next(name for name in AUTO if name in works)


def _lines(rows: list[Row], out: Terminal) -> list[Line]:
    cells = [_HEADS, *(_cells(row) for row in rows)]
    widths = [max(len(row[i]) for row in cells) + _GAP for i in range(len(_HEADS))]
    marks = [(" ", ""), *((("✓", "good") if row.works else ("✗", "bad")) for row in rows)]
    mark_width = max(len(out.glyphs(mark)) for mark, _ in marks) + 1
    lines: list[Line] = []
    for number, ((mark, style), texts) in enumerate(zip(marks, cells, strict=True)):
        lines += _row_lines(out.glyphs(mark).ljust(mark_width), style, texts, widths, out.width)
        if number:
            lines += _refusal_lines(rows[number - 1], mark_width + widths[0], out.width)
    lines[0] = [("".join(text for text, _ in lines[0]), "dim")]
    return [*lines, [("chosen: ", "dim"), (chosen(rows), "head")]]


def _cells(row: Row) -> tuple[str, ...]:
    start = f", {round(row.start_us / 1000)} ms" if row.start_us is not None and not row.always else ""
    return row.name, "-" if row.always else "yes" if row.works else "no", row.reaches + start, row.needs


def _row_lines(mark: str, style: str, cells: tuple[str, ...], widths: list[int], width: int) -> list[Line]:
    """One line; in a narrow terminal the last cell wraps under itself."""
    from fourtuple.cli.render import wrap

    start = len(mark) + sum(widths[:-1])
    first, *more = wrap(cells[-1], width - start, width - start)
    middle = "".join(cell.ljust(size) for cell, size in zip(cells[1:-1], widths[1:-1], strict=True))
    return [
        [(mark, style), (cells[0].ljust(widths[0]), "name"), (middle, ""), (first, "")],
        *([(" " * start + text, "")] for text in more),
    ]


def _refusal_lines(row: Row, indent: int, width: int) -> list[Line]:
    """Why not, and what to do, below the row."""
    from fourtuple.cli.render import table

    if row.works:
        return []
    pairs = [("why", row.reason), ("try", row.todo)]
    return table([(label, text) for label, text in pairs if text], "dim", width, indent)


def wires_report(rows: list[Row]) -> dict[str, Any]:
    """The same as JSON: schema/wires-1.json."""
    from fourtuple import __version__

    return {
        "schema": SCHEMA,
        "version": __version__,
        "chosen": chosen(rows),
        "wires": [_row_report(row) for row in rows],
        "exit": exits.OK,
    }


def _row_report(row: Row) -> dict[str, Any]:
    from fourtuple.errors import errno_name

    return {
        "name": row.name,
        "works": row.works,
        "reaches": row.reaches,
        "needs": row.needs,
        "start_us": row.start_us,
        "errno": errno_name(row.code) if row.code else None,
        "reason": row.reason or None,
        "todo": row.todo or None,
    }
