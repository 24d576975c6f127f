"""docs/live.md: its code runs, and it names every column."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fourtuple.live import SocketTable
from fourtuple.live.socket_table import FLAG_NAMES

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "live.md").read_text(encoding="utf-8")
CODE = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_there_is_something_to_run() -> None:
    assert len(CODE) == 5


@pytest.mark.parametrize("code", CODE)
def test_the_code_runs_as_it_stands(code: str) -> None:
    exec(compile(code, "live.md", "exec"), {})


def test_every_column_and_flag_is_explained() -> None:
    for name in set(SocketTable.of([]).pack()) - {"addresses6"}:
        assert f"`{name}`" in PAGE
    for name in FLAG_NAMES.values():
        assert re.search(rf"\b{name}\b", PAGE)
