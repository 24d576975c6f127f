"""lookup3 against its published vectors, by way of a byte-wise hashlittle written here."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fourtuple.inet.jhash import jhash_2words, jhash_3words

U32 = st.integers(0, 2**32 - 1)
FOUR_SCORE = b"Four score and seven years ago"


def rot(x: int, k: int) -> int:
    return (x << k | x >> (32 - k)) % 2**32


def hashlittle(key: bytes, initval: int) -> int:
    """lookup3's hash of bytes: mix() for each 12 bytes but the last, then final()."""
    s = [(0xDEADBEEF + len(key) + initval) % 2**32] * 3
    while len(key) > 12:
        s = [(x + y) % 2**32 for x, y in zip(s, struct.unpack("<3I", key[:12]), strict=True)]
        for turn, k in enumerate((4, 6, 8, 16, 19, 4)):
            a, b, c = turn % 3, (turn + 1) % 3, (turn + 2) % 3
            s[a] = ((s[a] - s[c]) % 2**32) ^ rot(s[c], k)
            s[c] = (s[c] + s[b]) % 2**32
        key = key[12:]
    if key:
        s = [(x + y) % 2**32 for x, y in zip(s, struct.unpack("<3I", key.ljust(12, b"\0")), strict=True)]
        for turn, k in enumerate((14, 11, 25, 16, 4, 14, 24)):
            target, source = (turn + 2) % 3, (turn + 1) % 3
            s[target] = ((s[target] ^ s[source]) - rot(s[source], k)) % 2**32
    return s[2]


@pytest.mark.parametrize(
    ("key", "initval", "digest"),
    [
        (b"", 0, 0xDEADBEEF),
        (b"", 0xDEADBEEF, 0xBD5B7DDE),
        (FOUR_SCORE, 0, 0x17770551),
        (FOUR_SCORE, 1, 0xCD628161),
    ],
)
def test_the_hash_of_this_file_gives_the_vectors_of_lookup3(key: bytes, initval: int, digest: int) -> None:
    assert hashlittle(key, initval) == digest


@given(U32, U32, U32, U32)
def test_words_hash_as_their_little_endian_bytes(a: int, b: int, c: int, initval: int) -> None:
    assert jhash_3words(a, b, c, initval) == hashlittle(struct.pack("<3I", a, b, c), initval)
    assert jhash_2words(a, b, initval) == hashlittle(struct.pack("<2I", a, b), initval)
