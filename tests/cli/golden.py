"""Comparing text with a file of this directory.  FOURTUPLE_GOLDEN=write writes the files anew: then read the diff."""

from __future__ import annotations

import os
from pathlib import Path

HERE = Path(__file__).parent / "golden"


def check_golden(name: str, text: str) -> None:
    """Assert that `text` is what golden/`name` holds."""
    path = HERE / name
    if os.environ.get("FOURTUPLE_GOLDEN") == "write":
        path.write_text(text)
    assert text.splitlines() == path.read_text().splitlines()
