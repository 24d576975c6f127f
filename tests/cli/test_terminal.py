"""Colour, glyphs and width, by flag, environment and stream."""

from __future__ import annotations

import io

import pytest

from fourtuple.cli.terminal import Terminal, open_terminal


class Tty(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def opened(environ: dict[str, str], tty: bool = True, color: str = "auto", ascii_only: bool = False) -> Terminal:
    return open_terminal(Tty() if tty else io.StringIO(), color, ascii_only, {"COLUMNS": "80", **environ})


@pytest.mark.parametrize(
    ("environ", "tty", "flag", "expected"),
    [
        ({}, True, "auto", True),
        ({}, False, "auto", False),
        ({"NO_COLOR": "1"}, True, "auto", False),
        ({"NO_COLOR": ""}, True, "auto", True),
        ({"FORCE_COLOR": "1"}, False, "auto", True),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, True, "auto", False),
        ({"TERM": "dumb"}, True, "auto", False),
        ({"NO_COLOR": "1"}, True, "always", True),
        ({}, False, "always", True),
        ({"FORCE_COLOR": "1"}, True, "never", False),
    ],
)
def test_who_decides_about_colour(environ: dict[str, str], tty: bool, flag: str, expected: bool) -> None:
    assert opened(environ, tty, flag).color is expected


def test_a_terminal_gets_boxes_a_pipe_does_not() -> None:
    assert opened({}).glyphs("│ 12 µs → ok") == "│ 12 µs → ok"
    assert opened({}, tty=False).glyphs("│ 12 µs → ok") == "| 12 µs → ok"


@pytest.mark.parametrize("terminal", [opened({}, ascii_only=True), opened({"TERM": "dumb"})])
def test_ascii_leaves_nothing_else(terminal: Terminal) -> None:
    text = terminal.glyphs("│ 12 µs → × … ✗ ▶ – 日")
    assert text == "| 12 us -> x ... x > - ?"


def test_a_stream_without_utf8_is_ascii() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="iso8859-1")
    assert open_terminal(stream, environ={}).glyphs("µs") == "us"


@pytest.mark.parametrize(("columns", "expected"), [("80", 80), ("20", 60), ("500", 132), ("x", 120), ("", 120)])
def test_width_comes_from_columns_within_limits(columns: str, expected: int) -> None:
    assert open_terminal(io.StringIO(), environ={"COLUMNS": columns}).width == expected


def test_a_line_is_painted_span_by_span_and_has_no_blanks_at_its_end() -> None:
    stream = io.StringIO()
    Terminal(stream, True, True, False, 80, True).print([("connect() = 0", "good"), ("  ", "")])
    assert stream.getvalue() == "\x1b[32mconnect() = 0\x1b[0m\n"
