"""PacketBuffer and the word helpers."""

from __future__ import annotations

import mmap
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fourtuple.wire.buffer import PacketBuffer, get16, get32, put16, put32


def test_an_int_makes_a_zeroed_buffer() -> None:
    b = PacketBuffer(5)
    assert b.size == 5
    assert b.read(0, 5) == bytes(5)


def test_a_buffer_shares_the_bytes_it_was_given() -> None:
    source = bytearray(b"abcdef")
    b = PacketBuffer(memoryview(source)[2:])
    b.write(0, b"XY")
    b.data[2] = ord("Z")
    assert source == b"abXYZf"


def test_a_mapping_can_be_a_buffer() -> None:
    ring = mmap.mmap(-1, 4096)
    b = PacketBuffer(memoryview(ring))
    put32(b, 4092, 0x01020304)
    assert (b.size, ring[4092:]) == (4096, b"\1\2\3\4")


def test_a_read_only_buffer_is_refused() -> None:
    with pytest.raises(ValueError, match="writable"):
        PacketBuffer(memoryview(b"abc"))


def test_a_write_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError):
        PacketBuffer(4).write(2, b"abc")


def test_an_empty_buffer_is_allowed() -> None:
    assert PacketBuffer(0).size == PacketBuffer(bytearray()).size == 0


@given(st.integers(0, 2**32 - 1), st.integers(0, 9))
def test_words_are_big_endian_at_any_offset(value: int, off: int) -> None:
    b = PacketBuffer(16)
    put32(b, off, value)
    assert b.read(off, 4) == struct.pack("!I", value)
    assert get32(b, off) == value
    assert (get16(b, off), get16(b, off + 2)) == (value >> 16, value & 0xFFFF)


@given(st.integers(0, 2**32 - 1))
def test_put16_writes_two_bytes_and_the_low_half_only(value: int) -> None:
    b = PacketBuffer(bytearray(b"\xaa" * 4))
    put16(b, 1, value)
    assert b.read(0, 4) == b"\xaa" + struct.pack("!H", value & 0xFFFF) + b"\xaa"
