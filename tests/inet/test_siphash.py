"""SipHash-2-4: the vectors of the paper and of its reference code, and the fixed-length forms against bytes."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fourtuple.inet.siphash import siphash, siphash_1u64, siphash_2u64, siphash_3u32, siphash_4u32

# Key 00 01 .. 0f, as little-endian words.
K0 = 0x0706050403020100
K1 = 0x0F0E0D0C0B0A0908

# vectors_sip64 of the reference code: the input is 00 01 .. (n-1).
REFERENCE = [
    "310e0edd47db6f72",
    "fd67dc93c539f874",
    "5a4fa9d909806c0d",
    "2d7efbd796666785",
    "b7877127e09427cf",
    "8da699cd64557618",
    "cee3fe586e46c9cb",
    "37d1018bf50002ab",
    "6224939a79f5f593",
]

U32 = st.integers(0, 2**32 - 1)
U64 = st.integers(0, 2**64 - 1)


@pytest.mark.parametrize(("length", "digest"), list(enumerate(REFERENCE)))
def test_the_reference_vectors(length: int, digest: str) -> None:
    assert siphash(bytes(range(length)), K0, K1) == int.from_bytes(bytes.fromhex(digest), "little")


def test_the_worked_example_of_the_paper() -> None:
    assert siphash(bytes(range(15)), K0, K1) == 0xA129CA6149BE45E5


def test_one_word_is_the_reference_vector_of_eight_bytes() -> None:
    assert siphash_1u64(0x0706050403020100, K0, K1) == 0x93F5F5799A932462


@given(U64, U64, U64, U64)
def test_64_bit_words_hash_as_their_little_endian_bytes(a: int, b: int, k0: int, k1: int) -> None:
    assert siphash_1u64(a, k0, k1) == siphash(struct.pack("<Q", a), k0, k1)
    assert siphash_2u64(a, b, k0, k1) == siphash(struct.pack("<QQ", a, b), k0, k1)


@given(st.lists(U32, min_size=4, max_size=4), U64, U64)
def test_32_bit_words_hash_as_their_little_endian_bytes(words: list[int], k0: int, k1: int) -> None:
    assert siphash_3u32(*words[:3], k0, k1) == siphash(struct.pack("<3I", *words[:3]), k0, k1)
    assert siphash_4u32(*words, k0, k1) == siphash(struct.pack("<4I", *words), k0, k1)
