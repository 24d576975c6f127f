"""tshark as a judge: what it makes of a capture, field by field.

It is installed by `make setup`; where it is missing, CI fails and a developer's run skips.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

_SEPARATOR, _AGGREGATOR = "\x01", "\x02"


def need_tshark() -> None:
    """Skip without tshark; in CI, fail."""
    if shutil.which("tshark") is None:
        if os.environ.get("CI"):
            pytest.fail("tshark is missing: tools/system-packages.sh python3 dev")
        pytest.skip("needs tshark")


def dissect(path: Path, fields: list[str]) -> list[dict[str, list[str]]]:
    """One dict a packet: every value of each field, outer headers first."""
    need_tshark()
    command = ["tshark", "-n", "-r", str(path), "-T", "fields"]
    command += ["-E", f"separator={_SEPARATOR}", "-E", f"aggregator={_AGGREGATOR}", "-E", "occurrence=a"]
    for protocol in ("ip", "tcp"):
        command += ["-o", f"{protocol}.check_checksum:TRUE"]
    command += ["-o", "tcp.relative_sequence_numbers:FALSE"]
    for name in fields:
        command += ["-e", name]
    done = subprocess.run(command, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    lines = done.stdout.decode().split("\n")[:-1]
    values = [line.split(_SEPARATOR) for line in lines]
    assert all(len(row) == len(fields) for row in values)
    return [dict(zip(fields, [v.split(_AGGREGATOR) if v else [] for v in row], strict=True)) for row in values]
