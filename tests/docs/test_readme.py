"""What the README shows runs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from fourtuple.cli.main import main

README = (Path(__file__).resolve().parents[2] / "README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
COMMANDS = [line.partition("#")[0].strip() for line in README.splitlines() if line.startswith("fourtuple connect ")]


def test_there_is_something_to_run() -> None:
    assert len(PYTHON) == 1
    assert len(COMMANDS) == 5


@pytest.mark.parametrize("code", PYTHON)
def test_python_blocks_run_as_they_stand(code: str) -> None:
    exec(compile(code, "README.md", "exec"), {})


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_end_as_the_readme_says(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = shlex.split(command.partition(";")[0])
    expected = 20 if "100%" in command else 0
    assert main(words[1:]) == expected
    assert "connect" in capsys.readouterr().out
