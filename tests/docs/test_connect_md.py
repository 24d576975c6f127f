"""docs/connect.md: up to date, complete, and every link and name in it leads somewhere."""

from __future__ import annotations

import errno
import importlib
import re
import shlex
from pathlib import Path

import pytest

from fourtuple.cli.main import main
from fourtuple.kernel_map import BY_NUMBER, ERRNOS, FUNCTIONS
from tools import make_connect_md
from tools.connect_tour import ROOMS

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = (DOCS / "connect.md").read_text(encoding="utf-8")
LINKS = sorted(set(re.findall(r"\]\(([^)]+)\)", PAGE)))
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def test_the_page_is_what_make_docs_writes() -> None:
    assert make_connect_md.page() == PAGE, "stale: run `make docs`"


def test_a_stale_page_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    page = tmp_path / "docs" / "connect.md"
    page.parent.mkdir()
    page.write_text(PAGE.replace("4.17", "4.18"))
    monkeypatch.setattr(make_connect_md, "PAGE", page)
    assert make_connect_md.main(["--check"]) == 1
    assert make_connect_md.main([]) == 0
    assert make_connect_md.main(["--check"]) == 0
    assert page.read_text() == PAGE


def _anchors(page: Path) -> set[str]:
    """The names that a renderer gives to the headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("link", LINKS)
def test_every_link_leads_somewhere(link: str) -> None:
    path, _, anchor = link.partition("#")
    assert (DOCS / path).is_file()
    assert not anchor or anchor in _anchors(DOCS / path)


def test_each_function_of_ours_is_in_the_file_that_is_linked() -> None:
    links = re.findall(r"→ \[[^\]]+\]\(\.\./src/(fourtuple/[\w/]+)\.py\), `(\w+)`", PAGE)
    assert len(links) == len(FUNCTIONS)
    for path, name in links:
        assert callable(getattr(importlib.import_module(path.replace("/", ".")), name))


def test_every_function_of_the_map_is_on_the_page_once() -> None:
    named = re.findall(r"^(?:### [\d.]+|\*) (?:`(\w+)`|(port look|port found|connect returns))", PAGE, re.MULTILINE)
    assert sorted(a or b for a, b in named) == sorted(entry.name for entry in FUNCTIONS)


def test_the_path_down_is_in_the_order_of_a_real_call() -> None:
    """Until the call sleeps, the tour goes as its own first trace does."""
    trace = next(block for _, block in BLOCKS if "__sys_connect" in block)
    stops = [BY_NUMBER[stop.fn] for room in ROOMS[:4] for stop in room.stops]
    places = [trace.index(f" {entry.name} ") for entry in stops if f" {entry.name} " in trace]
    assert len(places) > 12
    assert places == sorted(places)


def test_every_errno_is_one() -> None:
    assert all(hasattr(errno, name) for pairs in ERRNOS.values() for name, _ in pairs)
    assert set(ERRNOS) <= {stop.fn for room in ROOMS for stop in room.stops}


def test_the_command_on_the_page_gives_the_trace_on_the_page(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (command,) = (block for _, block in BLOCKS if block.startswith("fourtuple "))
    trace = next(block for _, block in BLOCKS if "__sys_connect" in block)
    monkeypatch.setenv("COLUMNS", str(make_connect_md.WIDTH))
    assert main(shlex.split(command)[1:]) == 0
    assert trace.replace("└", "`") in capsys.readouterr().out
