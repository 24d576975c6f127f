"""What may be known of a search's start: the set of values that table_perturb + hash can have, modulo some number.

The set is an int used as a bit set: bit r is on when the start may be r modulo `modulus`.  A range of n ports looks at
the start modulo n; as ranges change, the modulus becomes their least common multiple, so what one range has taught is
not lost on the next, up to MOST.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import cache

MOST = 5040


@cache
def _every(modulus: int, n: int) -> int:
    """Bits 0, n, 2n ... below modulus."""
    return ((1 << modulus) - 1) // ((1 << n) - 1)


class Hidden:
    """The candidates; at first every start is one."""

    __slots__ = ("bits", "modulus")

    def __init__(self) -> None:
        self.modulus = 1
        self.bits = 1

    def widen(self, n: int) -> None:
        """From now on the start modulo n counts as well."""
        if self.modulus % n == 0:
            return
        modulus = math.lcm(self.modulus, n)
        if modulus > MOST:
            self.modulus, self.bits = n, (1 << n) - 1
        else:
            self.bits *= _every(modulus, self.modulus)
            self.modulus = modulus

    def residues(self, n: int) -> list[int]:
        """The candidates modulo n."""
        folded = self._folded(n) if self.modulus // n < n else self._picked(n)
        found = []
        while folded:
            low = folded & -folded
            found.append(low.bit_length() - 1)
            folded ^= low
        return found

    def _folded(self, n: int) -> int:
        bits, folded, mask = self.bits, 0, (1 << n) - 1
        while bits:
            folded |= bits & mask
            bits >>= n
        return folded

    def _picked(self, n: int) -> int:
        every = _every(self.modulus, n)
        return sum(1 << r for r in range(n) if self.bits & every << r)

    def candidates(self) -> list[int]:
        """All of them, modulo `modulus`."""
        return self.residues(self.modulus)

    def one(self, n: int, residue: int) -> int:
        """One candidate that is `residue` modulo n."""
        bits = self.bits & _every(self.modulus, n) << residue
        return (bits & -bits).bit_length() - 1

    def keep(self, n: int, moves: Iterable[tuple[int, tuple[int, ...]]]) -> None:
        """Only starts that are one of these residues modulo n are left, each moved by one of its advances."""
        left, every = 0, _every(self.modulus, n)
        for residue, advances in moves:
            some = self.bits & every << residue
            for advance in set(advances):
                left |= self._moved(some, advance % self.modulus)
        self.bits = left

    def move(self, advance: int) -> None:
        """All of them by so much."""
        self.bits = self._moved(self.bits, advance % self.modulus)

    def _moved(self, bits: int, advance: int) -> int:
        bits <<= advance
        return (bits & (1 << self.modulus) - 1) | bits >> self.modulus
