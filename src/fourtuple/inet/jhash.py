"""Bob Jenkins' lookup3 hash (2006, public domain) of two or three 32-bit words, seeded as include/linux/jhash.h does.

jhash_3words(a, b, c, initval) is lookup3's hashword((a, b, c), 3, initval).
"""

from __future__ import annotations

_JHASH_INITVAL = 0xDEADBEEF  # lookup3.c: "an arbitrary value"


def _mask32() -> int:
    # 2**32 - 1, computed so that the C compiler sees a constant and drops the masks.
    low = 0x7FFFFFFF
    return low * 2 + 1


def _rol32(x: int, n: int) -> int:
    return (x << n | x >> (32 - n)) & _mask32()


def _final(a: int, b: int, c: int) -> int:
    """lookup3's final(): mix three words so that every bit of them reaches c."""
    mask = _mask32()
    c = ((c ^ b) - _rol32(b, 14)) & mask
    a = ((a ^ c) - _rol32(c, 11)) & mask
    b = ((b ^ a) - _rol32(a, 25)) & mask
    c = ((c ^ b) - _rol32(b, 16)) & mask
    a = ((a ^ c) - _rol32(c, 4)) & mask
    b = ((b ^ a) - _rol32(a, 14)) & mask
    return ((c ^ b) - _rol32(b, 24)) & mask


def jhash_3words(a: int, b: int, c: int, initval: int) -> int:
    """lookup3 hash of three words."""
    mask = _mask32()
    seed = (initval + _JHASH_INITVAL + 12) & mask  # 12: the length in bytes
    return _final((a + seed) & mask, (b + seed) & mask, (c + seed) & mask)


def jhash_2words(a: int, b: int, initval: int) -> int:
    """lookup3 hash of two words."""
    mask = _mask32()
    seed = (initval + _JHASH_INITVAL + 8) & mask
    return _final((a + seed) & mask, (b + seed) & mask, seed)
