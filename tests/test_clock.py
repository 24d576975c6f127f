"""The clocks."""

import pytest

from fourtuple.clock import ManualClock, MonotonicClock


def test_the_monotonic_clock_counts_whole_microseconds_and_never_runs_back() -> None:
    clock = MonotonicClock()
    first = clock.now_us()
    assert isinstance(first, int)
    assert clock.now_us() >= first


def test_the_manual_clock_stands_still_until_it_is_advanced() -> None:
    clock = ManualClock(1_000)
    assert clock.now_us() == 1_000
    assert clock.advance(250) == 1_250
    assert clock.now_us() == 1_250


def test_the_manual_clock_refuses_to_run_back() -> None:
    with pytest.raises(ValueError, match="-1"):
        ManualClock().advance(-1)
