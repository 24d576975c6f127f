"""docs/dial.md and examples/: commands and code run as they stand, and the arithmetic is right."""

from __future__ import annotations

import re
import runpy
import shlex
from pathlib import Path

import pytest

from fourtuple.cli.main import main
from fourtuple.dial.plan import DialPlan, Target, expand
from fourtuple.dial.preflight import Facts, preflight

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "dial.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
SHOWN = [line.partition("   #")[0].strip() for line in PAGE.splitlines() if line.startswith("fourtuple ")]
ROWS = [(int(n.replace(",", "")), text) for n, text in re.findall(r"^\| ([\d,]+) \| (.*) \|$", PAGE, re.MULTILINE)]


def test_there_is_something_to_run() -> None:
    assert (len(PYTHON), len(SHOWN), len(ROWS)) == (3, 11, 5)


@pytest.mark.parametrize("code", PYTHON)
def test_the_code_runs_as_it_stands(code: str) -> None:
    exec(compile(code, "dial.md", "exec"), {})


@pytest.mark.compiled_only  # ten thousand connections
@pytest.mark.parametrize("command", SHOWN)
def test_commands_end_as_the_page_says(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    words = shlex.split(command.partition(";")[0])
    assert main(words[1:]) == (10 if "echo $?" in command else 0)
    captured = capsys.readouterr()
    assert captured.out
    assert captured.err == ""
    assert {word for word in words if word.endswith(".html")} == {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize(("most", "text"), ROWS)
def test_so_many_fit_and_not_one_more(most: int, text: str) -> None:
    """By the preflight: what the text names, and whether ports are enough."""
    network = re.search(r"`([\d./]+):8080`", text)
    sources = re.search(r"--sources ([\d./]+)", text)
    ports = re.search(r"--range (\d+)-(\d+)", text)
    facts = Facts(*map(int, ports.groups())) if ports else Facts()
    for count, fits in ((most, True), (most + 1, False)):
        targets = tuple(Target(address, 8080) for address in expand(network[1] if network else "10.64.0.1"))
        plan = DialPlan(count, targets, tuple(expand(sources[1])) if sources else ())
        assert next(line.fits for line in preflight(plan, facts) if "ports" in line.what) is fits


@pytest.mark.parametrize("link", re.findall(r"\]\(([^):]+)\)", PAGE))
def test_links_lead_somewhere(link: str) -> None:
    assert (ROOT / "docs" / link).exists()


def test_the_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(ROOT / "examples" / "many_connections.py"), run_name="__main__")
    first, ports, last = capsys.readouterr().out.splitlines()
    assert (first, last) == ("2000 open, 2000 answered", "0 sockets left")
    assert re.fullmatch(r"\d+ local ports; port \d+ backs [2-8] connections", ports)
