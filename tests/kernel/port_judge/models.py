"""Wrong ideas of how the start of a search moves.  A kernel's history has to refute each of them."""

from __future__ import annotations

from collections.abc import Sequence

from tests.kernel.port_judge.judge import Model


class NoParity(Model):
    """The search begins at the very port of the hash, be it odd or even."""

    name = "parity broken"

    def offset(self, start: int, step: int) -> int:
        return start


class OddFirst(Model):
    """Odd offsets first, as bind(addr, 0) has it."""

    name = "odd offsets first"

    def offset(self, start: int, step: int) -> int:
        return start | 1 if step == 2 else start


class StepOne(Model):
    """Advances of 1..8 where they are 2, 4 .. 16."""

    name = "step 1 for step 2"

    def advances(self, distance: int, step: int) -> Sequence[int]:
        return super().advances(distance, 1)


class NoAdvance(Model):
    """The next search begins where this one did."""

    name = "no advance"

    def advances(self, distance: int, step: int) -> Sequence[int]:
        return (0,)


class NoChance(Model):
    """The next search begins just behind the port found: nothing random."""

    name = "advance without the random step"

    def advances(self, distance: int, step: int) -> Sequence[int]:
        return (distance + step,)


class NoDistance(Model):
    """The random step alone, however far the search had to walk."""

    name = "advance without the distance walked"

    def advances(self, distance: int, step: int) -> Sequence[int]:
        return super().advances(0, step)


class FailureMoves(Model):
    """A search that found nothing moves the start as well."""

    name = "a failed search moves on"

    def after_failure(self, moved: int) -> int:
        return moved + 2


class NoRehash(Model):
    """One hash for ever, as before 5.18."""

    name = "no re-hash every 10 s"

    def epoch(self, keyed_hash: int) -> int:
        return 0


WRONG = (NoParity, OddFirst, StepOne, NoAdvance, NoChance, NoDistance, FailureMoves, NoRehash)
