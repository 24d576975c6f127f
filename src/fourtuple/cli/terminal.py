"""Where the output goes: colour or not, which glyphs, how wide; and styled lines put there.

Lives here: spans of styled text, and their way to a stream.  Does not live here: what a command says.

Rules
1. A line is a list of (text, style) spans; style is a name of STYLES or "".  Layout is done on text without colour.
2. Colour: --color, else NO_COLOR, FORCE_COLOR, TERM=dumb, else whether the stream is a terminal.
3. Box glyphs only for a terminal; with --ascii, TERM=dumb or an encoding other than UTF-8 nothing beyond ASCII.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from typing import TextIO

from fourtuple.cli.exits import cannot_write

Span = tuple[str, str]
Line = list[Span]

STYLES = {
    "dim": "2",
    "bold": "1",
    "good": "32",
    "bad": "31",
    "warn": "33",
    "even": "94",
    "odd": "33",
    "name": "1",
    "port": "1;32",
    "head": "1",
    "info": "36",
    "wait": "35",
}

_BOXES = {"│": "|", "├": "+", "└": "`", "─": "-", "╷": "|", "┤": "+", "┼": "+", "╵": "|", "█": "#", "▶": ">", "◀": "<"}
_ASCII = {
    **_BOXES,
    "→": "->",
    "←": "<-",
    "µ": "u",
    "·": "-",
    "✗": "x",
    "✓": "ok",
    "×": "x",
    "–": "-",
    "—": "-",
    "…": "...",
    "≈": "~",
    "≥": ">=",
    "≤": "<=",
    "●": "*",
    "▲": "!",
}

_LEAST, _MIN_WIDTH, _PIPE_WIDTH, _MAX_WIDTH = 40, 60, 120, 132


class Terminal:
    """One stream as the rules of this module see it."""

    def __init__(self, stream: TextIO, color: bool, boxes: bool, ascii_only: bool, width: int, is_tty: bool) -> None:
        self.stream = stream
        self.color = color
        self.ascii_only = ascii_only
        self.boxes = boxes and not ascii_only
        self.width = max(_MIN_WIDTH, width)
        self.columns = width
        """The same for output that has a layout for fewer columns, too."""
        self.is_tty = is_tty
        self._table = str.maketrans(_ASCII if ascii_only else {} if self.boxes else _BOXES)

    def glyphs(self, text: str) -> str:
        """The text in the glyphs that may be used here: same meaning, perhaps longer.  Do this before layout."""
        text = text.translate(self._table)
        return text.encode("ascii", "replace").decode() if self.ascii_only else text

    def paint(self, text: str, style: str) -> str:
        """The text in a style, if this terminal has colour."""
        code = STYLES.get(style, "")
        return f"\x1b[{code}m{text}\x1b[0m" if self.color and code and text else text

    def format(self, line: Line) -> str:
        """One line as it is written, without the newline."""
        return "".join(self.paint(self.glyphs(text), style) for text, style in line).rstrip()

    def print(self, *lines: Line | str) -> None:
        """Write lines, each a list of spans or plain text."""
        self.write("".join(self.format([(line, "")] if isinstance(line, str) else line) + "\n" for line in lines))

    def write(self, text: str) -> None:
        """Write text as it is.  Failure when it cannot be written, as on a full disk."""
        try:
            self.stream.write(text)
            self.stream.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            let_go(self.stream)
            raise cannot_write("cannot write the answer", error) from None


def let_go(stream: TextIO) -> None:
    """Whatever the stream still holds goes nowhere: Python must not complain about it again when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def open_terminal(
    stream: TextIO | None = None,
    color: str = "auto",
    ascii_only: bool = False,
    environ: Mapping[str, str] | None = None,
) -> Terminal:
    """The terminal behind `stream` (default: stdout)."""
    stream = sys.stdout if stream is None else stream
    environ = os.environ if environ is None else environ
    is_tty = stream.isatty()
    dumb = environ.get("TERM") == "dumb"
    utf8 = (getattr(stream, "encoding", None) or "utf-8").lower().replace("-", "") == "utf8"
    boxes = is_tty or bool(environ.get("FORCE_COLOR"))
    ascii_only = ascii_only or dumb or not utf8
    return Terminal(
        stream, _wants_color(color, environ, is_tty, dumb), boxes, ascii_only, _width(stream, environ), is_tty
    )


def _wants_color(choice: str, environ: Mapping[str, str], is_tty: bool, dumb: bool) -> bool:
    if choice != "auto":
        return choice == "always"
    if environ.get("NO_COLOR"):
        return False
    if environ.get("FORCE_COLOR"):
        return True
    return is_tty and not dumb


def _width(stream: TextIO, environ: Mapping[str, str]) -> int:
    columns = environ.get("COLUMNS", "")
    if columns.isdigit() and int(columns) > 0:
        width = int(columns)
    elif stream.isatty():
        width = os.get_terminal_size(stream.fileno()).columns
    else:
        width = _PIPE_WIDTH
    return max(_LEAST, min(width, _MAX_WIDTH))


def text_of(line: Line) -> str:
    """The text of a line without its styles."""
    return "".join(text for text, _ in line)


def length(line: Iterable[Span]) -> int:
    """Columns that a line takes (all our glyphs are one column wide)."""
    return sum(len(text) for text, _ in line)
