"""What the README shows runs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from fourtuple.cli.dial_json import report_text
from fourtuple.cli.main import COMMANDS, main
from tests.dial.reports import all_well

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
SHOWN = [line.partition("#")[0].strip() for line in README.splitlines() if line.startswith("fourtuple ")]
LINKS = sorted(set(re.findall(r"\]\(([^):]+)\)", README)))


def test_there_is_something_to_run() -> None:
    assert len(PYTHON) == 1
    assert {line.split()[1] for line in SHOWN} == set(COMMANDS) - {"demo"}  # make demo is in the first lines


@pytest.mark.parametrize("code", PYTHON)
def test_python_blocks_run_as_they_stand(code: str) -> None:
    exec(compile(code, "README.md", "exec"), {})


@pytest.mark.parametrize("command", SHOWN)
def test_commands_end_as_the_readme_says(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    words = shlex.split(command.partition(";")[0])
    for name in words if words[1] == "report" else ():
        if name.endswith(".json"):
            Path(name).write_text(report_text(all_well(host=name)))
    expected = {20} if "100%" in command else {0, 10, 11} if words[1] == "doctor" else {0}
    assert main(words[1:]) in expected
    assert capsys.readouterr().out
    files = {word for word in words if word.endswith((".pcapng", ".html", ".snap", ".json"))}
    assert files == {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize("link", LINKS)
def test_links_lead_somewhere(link: str) -> None:
    assert (ROOT / link).exists()
