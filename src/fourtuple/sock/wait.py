"""Wait: a system call that sleeps, as an object.

Lives here: the wake condition, the deadline and what a signal does.  Does not live here: a clock, a thread, a queue:
who holds the Wait polls it when something may have changed (a packet, a timer, another call) and at `deadline_us`.

Rules
1. `poll(now)` gives PENDING or the result of the call (a value or -errno); once there is a result it stays.
2. The condition is looked at before the deadline.
3. A signal ends the sleep with what the kernel would return.  -ERESTARTSYS never leaves this class: with SA_RESTART the
   call starts again from its beginning, without it the result is -EINTR (kernel/signal.c).
4. One caller at a time: a Wait belongs to the Host's owner thread, even when another thread sleeps for its result.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any, Final, Protocol, TypeAlias

# include/linux/errno.h: what a call returns that wants to be restarted
ERESTARTSYS = 512

# Why a sleep ended
WOKEN, TIMEOUT, SIGNAL = "woken", "timeout", "signal"


class _Pending:
    """The type of PENDING."""

    def __repr__(self) -> str:
        return "PENDING"


PENDING: Final = _Pending()

# A value, -errno, PENDING, or a Wait
Outcome: TypeAlias = Any


class Verbs(Protocol):
    """What surrounds each entry into the engine; a Host is one."""

    def enter(self, now: int | None) -> None: ...
    def leave(self) -> None: ...


class Wait:
    """A call asleep: `woken()` tells that its condition holds, `finish(why)` runs the rest of it.

    `finish` gets WOKEN, TIMEOUT or SIGNAL and returns the result or another Wait.  `deadline_us` is None or the time at
    which the sleep ends anyway.  `restart` runs the call from its beginning.
    """

    __slots__ = ("_at_end", "_finish", "_then", "_woken", "deadline_us", "restart", "result", "verbs")

    def __init__(
        self, woken: Callable[[], bool], finish: Callable[[str], Outcome], deadline_us: int | None = None
    ) -> None:
        self._woken = woken
        self._finish = finish
        self.deadline_us = deadline_us
        self.restart: Callable[[], Outcome] | None = None
        self._at_end: list[Callable[[], object]] = []
        self._then: Callable[[Outcome], Outcome] | None = None
        self.result: Outcome = PENDING
        self.verbs: Verbs | None = None

    def poll(self, now: int | None = None) -> Outcome:
        """The result if there is one by `now` (None: the engine's time has not moved), else PENDING."""
        return self._run(now, lambda: self._advance(now))

    def signal(self, restart: bool) -> Outcome:
        """A signal arrives; `restart` is SA_RESTART of its handler."""
        return self._run(None, lambda: self._interrupt(restart))

    def is_done(self) -> bool:
        """Is there a result?"""
        return self.result is not PENDING

    def at_end(self, step: Callable[[], object]) -> None:
        """Run `step` once the call is over, however it ends."""
        self._at_end.append(step)

    def then(self, continuation: Callable[[Outcome], Outcome]) -> None:
        """Run `continuation` on what the sleep gives; it may return another Wait.  Not after a signal that restarts."""
        self._then = continuation

    def _run(self, now: int | None, step: Callable[[], None]) -> Outcome:
        if self.result is PENDING and self.verbs is None:
            step()
        elif self.result is PENDING and self.verbs is not None:
            self.verbs.enter(now)
            try:
                step()
            finally:
                self.verbs.leave()
        return self.result

    def _advance(self, now: int | None) -> None:
        while self.result is PENDING:
            if self._woken():
                self._adopt(self._finish(WOKEN))
            elif self.deadline_us is not None and now is not None and now >= self.deadline_us:
                self._adopt(self._finish(TIMEOUT))
            else:
                return

    def _interrupt(self, restart: bool) -> None:
        outcome = self._finish(SIGNAL)
        if isinstance(outcome, int) and outcome == -ERESTARTSYS:
            self._then = None
            outcome = self.restart() if restart and self.restart is not None else -errno.EINTR
            self._take_over(outcome)
        else:
            self._adopt(outcome)

    def _adopt(self, outcome: Outcome) -> None:
        """What the sleep gave: the result, unless the call goes on from there."""
        if not isinstance(outcome, Wait) and self._then is not None:
            continuation, self._then = self._then, None
            outcome = continuation(outcome)
        self._take_over(outcome)

    def _take_over(self, outcome: Outcome) -> None:
        """A result ends this Wait; another Wait takes its place in it."""
        if isinstance(outcome, Wait):
            self._woken, self._finish, self.deadline_us = outcome._woken, outcome._finish, outcome.deadline_us
            self._then = outcome._then or self._then
            outcome._release()
        else:
            self.result = outcome
            self._release()

    def _release(self) -> None:
        steps, self._at_end = self._at_end, []
        for step in steps:
            step()


def sock_intr_errno(deadline_us: int | None) -> int:
    """What a signal makes of a sleep: only an endless one may be restarted (include/net/sock.h)."""
    return -ERESTARTSYS if deadline_us is None else -errno.EINTR
