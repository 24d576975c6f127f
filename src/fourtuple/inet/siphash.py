"""SipHash-2-4 (Aumasson and Bernstein, 2012) over a fixed number of words, and over bytes.

`siphash_3u32(a, b, c)` is SipHash-2-4 of the words' little-endian bytes, as in lib/siphash.c; the key is (k0, k1).
"""

from __future__ import annotations

# "somepseudorandomlygeneratedbytes", the initial state of the paper.
_INIT0 = 0x736F6D6570736575
_INIT1 = 0x646F72616E646F6D
_INIT2 = 0x6C7967656E657261
_INIT3 = 0x7465646279746573

# The top byte of the last block is the length in bytes.
_LEN8 = 8 << 56
_LEN12 = 12 << 56
_LEN16 = 16 << 56


def _mask64() -> int:
    # 2**64 - 1, computed: the C compiler folds it and drops the masks, which a global would keep it from doing.
    low = 0x7FFFFFFF
    low = low * 2 + 1
    return low << 32 | low


def _siphash_blocks(m0: int, m1: int, m2: int, blocks: int, k0: int, k1: int) -> int:
    """Hash two or three 64-bit blocks, the last of which carries the length; m2 is 0 if there are two."""
    mask = _mask64()
    v0 = k0 ^ _INIT0
    v1 = k1 ^ _INIT1
    v2 = k0 ^ _INIT2
    v3 = k1 ^ _INIT3
    # Two rounds for each block; the four at the end are those of two blocks of zeros.
    m = [m0, m1, m2, 0, 0]
    i = 0
    while i < blocks + 2:
        if i == blocks:
            v2 ^= 0xFF
        v3 ^= m[i]
        # SipRound
        v0 = (v0 + v1) & mask
        v2 = (v2 + v3) & mask
        v1 = ((v1 << 13 | v1 >> 51) & mask) ^ v0
        v3 = ((v3 << 16 | v3 >> 48) & mask) ^ v2
        v0 = (v0 << 32 | v0 >> 32) & mask
        v2 = (v2 + v1) & mask
        v0 = (v0 + v3) & mask
        v1 = ((v1 << 17 | v1 >> 47) & mask) ^ v2
        v3 = ((v3 << 21 | v3 >> 43) & mask) ^ v0
        v2 = (v2 << 32 | v2 >> 32) & mask
        # SipRound
        v0 = (v0 + v1) & mask
        v2 = (v2 + v3) & mask
        v1 = ((v1 << 13 | v1 >> 51) & mask) ^ v0
        v3 = ((v3 << 16 | v3 >> 48) & mask) ^ v2
        v0 = (v0 << 32 | v0 >> 32) & mask
        v2 = (v2 + v1) & mask
        v0 = (v0 + v3) & mask
        v1 = ((v1 << 17 | v1 >> 47) & mask) ^ v2
        v3 = ((v3 << 21 | v3 >> 43) & mask) ^ v0
        v2 = (v2 << 32 | v2 >> 32) & mask
        v0 ^= m[i]
        i += 1
    return v0 ^ v1 ^ v2 ^ v3


def siphash_1u64(a: int, k0: int, k1: int) -> int:
    """SipHash-2-4 of one 64-bit word."""
    return _siphash_blocks(a, _LEN8, 0, 2, k0, k1)


def siphash_2u64(a: int, b: int, k0: int, k1: int) -> int:
    """SipHash-2-4 of two 64-bit words."""
    return _siphash_blocks(a, b, _LEN16, 3, k0, k1)


def siphash_3u32(a: int, b: int, c: int, k0: int, k1: int) -> int:
    """SipHash-2-4 of three 32-bit words."""
    high = b
    return _siphash_blocks(high << 32 | a, _LEN12 | c, 0, 2, k0, k1)


def siphash_4u32(a: int, b: int, c: int, d: int, k0: int, k1: int) -> int:
    """SipHash-2-4 of four 32-bit words."""
    high = b
    top = d
    return _siphash_blocks(high << 32 | a, top << 32 | c, _LEN16, 3, k0, k1)


def siphash(data: bytes, k0: int, k1: int) -> int:
    """SipHash-2-4 of any bytes; not for hot paths."""
    state = (k0 ^ _INIT0, k1 ^ _INIT1, k0 ^ _INIT2, k1 ^ _INIT3)
    tail = len(data) & ~7
    padded = data + bytes(7 - len(data) % 8) + bytes([len(data) & 0xFF])
    assert len(padded) == tail + 8
    for start in range(0, len(padded), 8):
        block = int.from_bytes(padded[start : start + 8], "little")
        v0, v1, v2, v3 = state
        v0, v1, v2, v3 = _sip_round(*_sip_round(v0, v1, v2, v3 ^ block))
        state = (v0 ^ block, v1, v2, v3)
    v0, v1, v2, v3 = state
    state = (v0, v1, v2 ^ 0xFF, v3)
    for _ in range(4):
        state = _sip_round(*state)
    v0, v1, v2, v3 = state
    return v0 ^ v1 ^ v2 ^ v3


def _sip_round(v0: int, v1: int, v2: int, v3: int) -> tuple[int, int, int, int]:
    v0 = _add64(v0, v1)
    v2 = _add64(v2, v3)
    v1 = _rotate64(v1, 13) ^ v0
    v3 = _rotate64(v3, 16) ^ v2
    v0 = _add64(_rotate64(v0, 32), v3)
    v2 = _add64(v2, v1)
    v1 = _rotate64(v1, 17) ^ v2
    v3 = _rotate64(v3, 21) ^ v0
    return v0, v1, _rotate64(v2, 32), v3


def _add64(a: int, b: int) -> int:
    return (a + b) % 2**64


def _rotate64(x: int, n: int) -> int:
    return (x << n | x >> (64 - n)) % 2**64
