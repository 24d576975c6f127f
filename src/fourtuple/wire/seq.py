"""32-bit sequence number arithmetic (RFC 9293, 3.4), under Linux's names (include/net/tcp.h)."""

from __future__ import annotations

_M32 = 0xFFFFFFFF


def before(a: int, b: int) -> bool:
    """a < b modulo 2**32; at a distance of exactly 2**31 each is before the other, as in the kernel."""
    return ((a - b) >> 31 & 1) == 1


def after(a: int, b: int) -> bool:
    """a > b modulo 2**32."""
    return ((b - a) >> 31 & 1) == 1


def between(seq: int, low: int, high: int) -> bool:
    """low <= seq <= high on the circle."""
    return ((high - low) & _M32) >= ((seq - low) & _M32)


def seq_add(seq: int, count: int) -> int:
    """seq + count modulo 2**32."""
    return (seq + count) & _M32


def seq_diff(a: int, b: int) -> int:
    """a - b as a signed distance, -2**31 to 2**31 - 1."""
    distance = (a - b) & _M32
    return distance - ((distance >> 31) << 32)
