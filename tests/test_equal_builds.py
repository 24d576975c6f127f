"""The uncompiled and the compiled engine send the same bytes at the same times for the same seed and calls.

A C integer that wraps where Python's does not, a shift that is too wide, a column one bit too narrow: this is where it
shows.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def run(pure: bool) -> list[str]:
    environment = {**os.environ, "FOURTUPLE_PURE": "1" if pure else ""}
    # conftest comes first: it installs the finder of the uncompiled modules
    command = [sys.executable, "-c", "import tests.conftest, tests.equal_builds as scenario; scenario.main()"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.compiled_only
def test_both_builds_send_the_same_packets() -> None:
    compiled, pure = run(pure=False), run(pure=True)
    assert len(compiled) > 2000
    for number, (one, other) in enumerate(zip(compiled, pure, strict=True)):
        assert one == other, f"line {number}"
