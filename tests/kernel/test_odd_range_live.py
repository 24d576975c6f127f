"""An odd-sized range on the live kernel: not the last port is left out, but the first, unless the start hits it.

The article's reading (and the three-port row PORT-05) suggests "the last port is never used".  The scan rounds the
number of candidates down but wraps at the true end, so the even pass covers low + 2 .. high and reaches `low` only
when it starts there.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ORACLE = Path(__file__).resolve().parents[2].parent / "shared" / "kernel"

PROGRAM = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
import kernel_oracle as ko
sut = ko.KernelSUT(); sut.start(); x = ko.X(sut)
runs = []
for trial in range(60):
    x.range(40000, 40010)
    socks, ports, error = ko.hold(x, 20, (ko.PEER, 1000 + trial))
    runs.append([ports[:5], sorted(ports), error])
    for s in socks: s.close()
print(json.dumps(runs)); sys.stdout.flush()
os._exit(0)
"""


def test_the_last_port_of_an_odd_sized_range_is_used_and_the_first_only_from_a_start_there() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(ORACLE)], capture_output=True, text=True, timeout=60)
    runs = json.loads(done.stdout.strip().splitlines()[-1])
    assert all(error == "EADDRNOTAVAIL" for _, _, error in runs)
    every = set(range(40000, 40011))
    assert any(set(ports) == every for _, ports, _ in runs)
    for first_even, ports, _ in runs:
        assert every - set(ports) <= {40000, 40010}
        assert all(port % 2 == 0 for port in first_even)
