"""Clocks: where the integer microseconds come from. The engine never imports this: time comes in as an argument."""

from __future__ import annotations

import time


class MonotonicClock:
    """The machine's own monotonic clock."""

    __slots__ = ()

    def now_us(self) -> int:
        return time.monotonic_ns() // 1000


class ManualClock:
    """A clock that stands still until it is told to move."""

    __slots__ = ("_now_us",)

    def __init__(self, now_us: int = 0) -> None:
        self._now_us = now_us

    def now_us(self) -> int:
        return self._now_us

    def advance(self, us: int) -> int:
        """Move on by `us` microseconds and return the new time. ValueError if negative: time does not run back."""
        if us < 0:
            raise ValueError(f"cannot advance by {us} us")
        self._now_us += us
        return self._now_us
