"""When the kernel re-hashes its destinations: jiffies / (10 * HZ), as a time of CLOCK_MONOTONIC.

kernel: net/core/secure_seq.c.  Jiffies start 300 s before they would wrap in 32 bits (INITIAL_JIFFIES), and not at the
zero of CLOCK_MONOTONIC; /proc/timer_list shows both.
"""

from __future__ import annotations

import re
import time
from pathlib import Path

from tests.kernel.port_judge.world import PERIOD_US

RATES = (100, 250, 300, 1000)
# Either side of the moment nobody knows: a tick, and what the readings are wrong by.
BORDER_US = 8_000


def _reading() -> tuple[int, int]:
    """(time in us before the reading, jiffies)."""
    before = time.monotonic_ns() // 1000
    found = re.search(r"^jiffies: (\d+)", Path("/proc/timer_list").read_text(), re.MULTILINE)
    assert found is not None
    return before, int(found[1])


def _ticks_per_second(first: tuple[int, int], last: tuple[int, int]) -> int:
    measured = (last[1] - first[1]) * 1e6 / (last[0] - first[0])
    return min(RATES, key=lambda rate: abs(rate - measured))


def epoch_border_us() -> int:
    """A moment, in us of CLOCK_MONOTONIC, at which jiffies / (10 * HZ) grows; give or take BORDER_US."""
    readings = []
    for _ in range(8):
        readings.append(_reading())
        time.sleep(0.013)
    rate = _ticks_per_second(readings[0], readings[-1])
    # A reading falls anywhere into its tick: the one that came soonest after the tick's beginning is the best.
    tick_zero = min(at * rate - jiffies * 1_000_000 for at, jiffies in readings) // rate
    borders = readings[-1][1] // (10 * rate)
    return tick_zero + borders * PERIOD_US


def to_border_us(epoch_us: int, now_us: int) -> int:
    """Time from now to the nearest border, negative when it was just before."""
    ahead = (epoch_us - now_us) % PERIOD_US
    return ahead if ahead <= PERIOD_US // 2 else ahead - PERIOD_US
