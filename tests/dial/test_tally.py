"""The progress of several workers as one."""

from __future__ import annotations

from dataclasses import replace

from fourtuple.dial.histogram import Histogram, hist_record
from fourtuple.dial.report import Progress
from fourtuple.dial.tally import Tally


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def progress(phase: str, begun: int, seconds: float = 1.0, micros: int = 0) -> Progress:
    handshake = Histogram()
    hist_record(handshake, micros * 1000)
    return Progress(seconds, phase, begun, 2, begun - 3, 1, 10.0, 0, None, handshake)


def test_counts_add_up_and_the_phase_is_that_of_the_last() -> None:
    tally = Tally(2, None)
    tally.heard(0, progress("hold", 10, 2.5, 50))
    tally.heard(1, progress("open", 20, 2.0, 70))
    whole = tally.sum()
    assert (whole.seconds, whole.phase, whole.begun, whole.in_flight) == (2.5, "open", 30, 4)
    assert (whole.open, whole.failed, whole.rate) == (24, 2, 20.0)
    assert whole.connect is None
    assert whole.handshake is not None
    assert (whole.handshake.count, whole.handshake.minimum(), whole.handshake.maximum()) == (2, 50_000, 70_000)


def test_a_worker_that_nobody_has_heard_of_is_still_opening() -> None:
    tally = Tally(2, None)
    tally.heard(0, progress("close", 10))
    assert tally.sum().phase == "open"


def test_one_that_is_over_has_nothing_open_and_holds_nobody_up() -> None:
    tally = Tally(2, None)
    tally.heard(0, progress("open", 10))
    tally.heard(1, progress("hold", 20))
    assert tally.open_of(0) == 7
    tally.done(0)
    assert tally.open_of(0) == 0
    assert (tally.sum().phase, tally.sum().begun, tally.sum().open) == ("hold", 30, 17)


def test_it_is_told_ten_times_a_second_however_many_workers_there_are() -> None:
    clock = Clock()
    told: list[Progress] = []
    tally = Tally(10, told.append, clock)
    for begun in range(20):
        for worker in range(10):
            tally.heard(worker, progress("open", 100 + begun))
        clock.now += 0.0625
    assert len(told) == 10


def test_a_phase_is_told_at_once_however_short_it_is() -> None:
    told: list[Progress] = []
    tally = Tally(2, told.append, Clock())
    for phase in ("open", "hold", "close"):
        for worker in range(2):
            tally.heard(worker, progress(phase, 10))
    assert [each.phase for each in told] == ["open", "hold", "close"]


def test_histograms_that_came_last_stand() -> None:
    tally = Tally(1, None)
    tally.heard(0, progress("open", 10, micros=50))
    tally.heard(0, replace(progress("open", 11), handshake=None))
    whole = tally.sum()
    assert whole.begun == 11
    assert whole.handshake is not None
    assert whole.handshake.maximum() == 50_000
