"""The Internet checksum (RFC 1071) over a PacketBuffer.

Rules: a sum stays unfolded in 64 bits, in big-endian word order, until `fold` ends it; sums of pieces add up as long
as each piece but the last has an even length.
"""

from __future__ import annotations

import sys

from fourtuple.wire.buffer import PacketBuffer

_M32 = 0xFFFFFFFF
_LITTLE_ENDIAN = sys.byteorder == "little"


def ones_sum(b: PacketBuffer, off: int, length: int, seed: int) -> int:
    """Add the 16-bit words of [off, off + length) to `seed`, unfolded; an odd last byte counts as a high byte."""
    # Headers are shorter than this, and the long way's beginning and end cost more than it saves there.
    if length < 96:
        return _short_sum(b, off, length, seed)
    return seed + _long_sum(b, off, length)


def _short_sum(b: PacketBuffer, off: int, length: int, seed: int) -> int:
    total = seed
    i = off
    end = i + length
    while i + 4 <= end:
        total += b.data[i] << 8 | b.data[i + 1]
        total += b.data[i + 2] << 8 | b.data[i + 3]
        i += 4
    if i + 2 <= end:
        total += b.data[i] << 8 | b.data[i + 1]
        i += 2
    if i < end:
        total += b.data[i] << 8
    return total


def _long_sum(b: PacketBuffer, off: int, length: int) -> int:
    """The sum, 8 bytes a step between whole words of the buffer; byte order is settled at the end (RFC 1071, 2B)."""
    head = (8 - (off & 7)) & 7
    i = (off + head) >> 3
    end = (off + length) >> 3
    tail = (off + length) & 7
    total = _sum_words(b, i, end)
    if _LITTLE_ENDIAN:
        total = _swapped(total)
    total = _short_sum(b, end << 3, tail, total)
    if head & 1:  # all that follows stands at odd places
        total = _swapped(total)
    return _short_sum(b, off, head, total)


def _sum_words(b: PacketBuffer, i: int, end: int) -> int:
    low = 0
    high = 0
    while i < end:
        word = b.words[i]
        low += word & _M32
        high += word >> 32
        i += 1
    return low + high


def _swapped(total: int) -> int:
    """The sum of the same bytes with the two of each word exchanged."""
    folded = fold(total) ^ 0xFFFF
    return (folded & 0xFF) << 8 | folded >> 8


def fold(total: int) -> int:
    """End a sum: the one's complement of its 16-bit one's complement sum (0 for data whose checksum is right)."""
    folded = (total >> 32) + (total & _M32)
    folded = (folded >> 16) + (folded & 0xFFFF)
    folded = (folded >> 16) + (folded & 0xFFFF)
    folded = (folded >> 16) + (folded & 0xFFFF)
    return folded ^ 0xFFFF


def pseudo_header_sum(saddr: int, daddr: int, proto: int, length: int) -> int:
    """The seed for a TCP or UDP checksum over IPv4 (RFC 9293, 3.1)."""
    total = proto
    total += saddr
    total += daddr
    return total + length
