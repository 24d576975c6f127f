"""The Internet checksum against a direct computation, and RFC 1071's own example."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from fourtuple.wire.buffer import PacketBuffer
from fourtuple.wire.checksum import fold, ones_sum, pseudo_header_sum


def checksum(data: bytes) -> int:
    """RFC 1071, 4.1, word by word."""
    padded = data + b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def test_the_example_of_rfc_1071() -> None:
    b = PacketBuffer(bytearray.fromhex("0001f203f4f5f6f7"))
    assert fold(ones_sum(b, 0, 8, 0)) == 0xDDF2 ^ 0xFFFF


def test_the_sum_of_nothing_is_the_seed() -> None:
    assert ones_sum(PacketBuffer(0), 0, 0, 5) == 5
    assert fold(0) == 0xFFFF


def test_a_64_bit_sum_folds_without_losing_a_carry() -> None:
    assert fold(2**64 - 1) == 0
    assert fold(0xFFFF_FFFF_FFFF_0000) == 0
    assert fold(0x0001_0000_0000_FFFF) == 0xFFFE


def test_the_largest_sum_of_a_64_kb_packet_does_not_overflow() -> None:
    b = PacketBuffer(bytearray(b"\xff" * 65535))
    assert fold(ones_sum(b, 0, 65535, 2**34)) == checksum(b"\xff" * 65535 + b"\0" + struct.pack("!Q", 2**34))


@given(st.binary(max_size=400), st.integers(0, 40), st.integers(0, 40))
def test_any_piece_of_a_buffer_sums_as_its_bytes_do(data: bytes, start: int, cut: int) -> None:
    piece = data[start : max(start, len(data) - cut)]
    b = PacketBuffer(bytearray(data))
    assert fold(ones_sum(b, min(start, len(data)), len(piece), 0)) == checksum(piece)


@given(st.binary(min_size=96, max_size=160), st.integers(0, 15), st.integers(0, 64))
def test_long_sums_are_right_at_every_alignment(data: bytes, off: int, extra: int) -> None:
    b = PacketBuffer(bytearray(off) + bytearray(data) + bytearray(b"\xff" * extra))
    assert fold(ones_sum(b, off, len(data), 0)) == checksum(data)


@given(st.binary(max_size=64).map(lambda d: d[: len(d) & ~1]), st.binary(max_size=300))
def test_sums_of_even_pieces_add_up(first: bytes, second: bytes) -> None:
    b = PacketBuffer(bytearray(first + second))
    total = ones_sum(b, len(first), len(second), ones_sum(b, 0, len(first), 0))
    assert fold(total) == checksum(first + second)


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.integers(0, 255), st.integers(0, 65535))
def test_the_pseudo_header_sums_as_its_twelve_bytes(saddr: int, daddr: int, proto: int, length: int) -> None:
    raw = struct.pack("!IIBBH", saddr, daddr, 0, proto, length)
    assert fold(pseudo_header_sum(saddr, daddr, proto, length)) == checksum(raw)
