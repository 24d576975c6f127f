"""docs/why.md: its code runs, and its commands are understood."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from fourtuple.cli.main import _parsers

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "why.md").read_text(encoding="utf-8")
CODE = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = [line.partition("#")[0] for line in PAGE.splitlines() if line.startswith("fourtuple why")]


def test_there_is_something_to_run() -> None:
    assert (len(CODE), len(COMMANDS)) == (2, 5)


@pytest.mark.parametrize("code", CODE)
def test_the_code_runs_as_it_stands(code: str) -> None:
    exec(compile(code, "why.md", "exec"), {})


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_are_understood(command: str) -> None:
    words = shlex.split(command)[1:]
    args, unknown = _parsers(words)[0].parse_known_args(words)
    assert (args.command, unknown) == ("why", [])
