"""docs/profiles.md is what tools/make_profiles.py makes of kernel_profile.py."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_is_not_stale() -> None:
    made = subprocess.run(
        [sys.executable, "tools/make_profiles.py", "--check"],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT / "src")}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (made.returncode, made.stderr) == (0, "")


def test_every_row_has_a_cell_for_each_profile() -> None:
    rows = [line for line in (ROOT / "docs/profiles.md").read_text().splitlines() if line.startswith("| ")]
    assert len(rows) > 90  # with the heads of the tables
    assert {row.count("|") for row in rows} == {11}
