"""The progress of several workers as one.

Rules
1. Counts add up; the phase is that of the worker that is least far; the time is that of the longest.
2. A worker does not send its histograms each time: those that came last stand.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace

from fourtuple.dial.histogram import Histogram, merged
from fourtuple.dial.report import Progress

_PHASES = ("open", "hold", "close", "time-wait")
_TELL_S = 0.09  # each worker says something every 0.1 s


class Tally:
    """Takes the progress of each worker, and tells `on_progress` the sum: in each phase, about ten times a second."""

    def __init__(
        self,
        workers: int,
        on_progress: Callable[[Progress], None] | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._each: list[Progress | None] = [None] * workers
        self._is_done = [False] * workers
        self._on_progress = on_progress
        self._clock = clock
        self._told = clock() - _TELL_S
        self._phase = ""

    def heard(self, worker: int, progress: Progress) -> None:
        """The latest of a worker."""
        before = self._each[worker]
        if before is not None:
            progress = replace(
                progress,
                connect=progress.connect or before.connect,
                handshake=progress.handshake or before.handshake,
            )
        self._each[worker] = progress
        if self._on_progress is not None and (self._clock() - self._told >= _TELL_S or self._phase != self.phase):
            self._told, self._phase = self._clock(), self.phase
            self._on_progress(self.sum())

    def done(self, worker: int) -> None:
        """It has reported, or was lost: nothing of it is open any more."""
        last = self._each[worker]
        self._is_done[worker] = True
        if last is not None:
            self._each[worker] = replace(last, open=0, in_flight=0, rate=0.0)

    def open_of(self, worker: int) -> int:
        """How many connections it had, when last heard of."""
        last = self._each[worker]
        return last.open if last is not None else 0

    @property
    def phase(self) -> str:
        """Of those that are not done."""
        busy = [each for each, is_done in zip(self._each, self._is_done, strict=True) if not is_done]
        phases = [each.phase if each is not None else "open" for each in busy]
        return min(phases, key=_PHASES.index, default="close")

    def sum(self) -> Progress:
        """Of all that were heard of."""
        heard = [each for each in self._each if each is not None]
        return Progress(
            seconds=max((each.seconds for each in heard), default=0.0),
            phase=self.phase,
            begun=sum(each.begun for each in heard),
            in_flight=sum(each.in_flight for each in heard),
            open=sum(each.open for each in heard),
            failed=sum(each.failed for each in heard),
            rate=sum(each.rate for each in heard),
            lost=sum(each.lost for each in heard),
            connect=_merged(each.connect for each in heard),
            handshake=_merged(each.handshake for each in heard),
        )


def _merged(parts: Iterable[Histogram | None]) -> Histogram | None:
    known = [part for part in parts if part is not None]
    return merged(known) if known else None
