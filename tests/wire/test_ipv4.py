"""The IPv4 codec against struct."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fourtuple.wire.buffer import PacketBuffer
from fourtuple.wire.build import internet_checksum
from fourtuple.wire.ipv4 import (
    BAD_CHECKSUM,
    BAD_HEADER_LEN,
    BAD_TOTAL_LEN,
    BAD_VERSION,
    TRUNCATED,
    Ipv4Header,
    emit_ipv4,
    parse_ipv4,
)

FIELDS = ("tos", "total_len", "ident", "df", "mf", "frag_off", "ttl", "proto", "saddr", "daddr")
WORD = st.integers(0, 2**16 - 1)
BYTE = st.integers(0, 255)
ADDRESS = st.integers(0, 2**32 - 1)
VALUES = st.tuples(
    BYTE,
    st.integers(20, 65535),
    WORD,
    st.booleans(),
    st.booleans(),
    st.integers(0, 8191).map(lambda n: 8 * n),
    BYTE,
    BYTE,
    ADDRESS,
    ADDRESS,
)


def raw_header(first: int = 0x45, total_len: int = 20, options: bytes = b"", checksum: int | None = None) -> bytes:
    head = struct.pack("!BBHHHBBHII", first, 0, total_len, 1, 0x4000, 64, 6, 0, 0x0A000001, 0x0A000002) + options
    return head[:10] + struct.pack("!H", internet_checksum(head) if checksum is None else checksum) + head[12:]


def parse(packet: bytes, length: int | None = None) -> tuple[int, Ipv4Header]:
    h = Ipv4Header()
    return parse_ipv4(PacketBuffer(bytearray(packet)), 0, len(packet) if length is None else length, h), h


@given(VALUES)
def test_emitted_bytes_are_those_of_struct(values: tuple[int, ...]) -> None:
    tos, total_len, ident, df, mf, frag_off, ttl, proto, saddr, daddr = values
    h = Ipv4Header()
    for name, value in zip(FIELDS, values, strict=True):
        setattr(h, name, value)
    b = PacketBuffer(bytearray(b"\xee" * 30))
    assert emit_ipv4(b, 7, h) == 20
    frag = df << 14 | mf << 13 | frag_off >> 3
    plain = struct.pack("!BBHHHBBHII", 0x45, tos, total_len, ident, frag, ttl, proto, 0, saddr, daddr)
    checksum = internet_checksum(plain)
    assert b.read(7, 20) == plain[:10] + struct.pack("!H", checksum) + plain[12:]
    assert b.read(0, 7) + b.read(27, 3) == b"\xee" * 10
    assert h.checksum == checksum


@given(VALUES)
def test_a_header_comes_back_as_it_was_emitted(values: tuple[int, ...]) -> None:
    h = Ipv4Header()
    for name, value in zip(FIELDS, values, strict=True):
        setattr(h, name, value)
    b = PacketBuffer(65535)
    emit_ipv4(b, 0, h)
    back = Ipv4Header()
    assert parse_ipv4(b, 0, 65535, back) == 0
    assert tuple(getattr(back, name) for name in FIELDS) == values
    assert (back.version, back.header_len, back.checksum) == (4, 20, h.checksum)


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (b"", TRUNCATED),
        (raw_header()[:19], TRUNCATED),
        (raw_header(first=0x65), BAD_VERSION),
        (raw_header(first=0x44), BAD_HEADER_LEN),
        (raw_header(first=0x46), TRUNCATED),
        (raw_header(checksum=0), BAD_CHECKSUM),
        (raw_header(total_len=21), TRUNCATED),
        (raw_header(total_len=19), BAD_TOTAL_LEN),
        (raw_header(first=0x46, total_len=23, options=b"\1\1\1\0"), BAD_TOTAL_LEN),
        (raw_header(), 0),
    ],
)
def test_each_bad_header_has_its_reason(packet: bytes, reason: int) -> None:
    assert parse(packet)[0] == reason


def test_options_are_stepped_over() -> None:
    result, h = parse(raw_header(first=0x47, total_len=30, options=b"\1\1\1\1\1\1\1\0") + b"payload...")
    assert (result, h.header_len, h.total_len) == (0, 28, 30)


def test_padding_behind_the_packet_is_allowed() -> None:
    result, h = parse(raw_header(total_len=20) + bytes(26))
    assert (result, h.total_len) == (0, 20)


def test_a_length_beyond_the_buffer_is_truncated_and_nothing_is_read() -> None:
    assert parse(raw_header(), length=21)[0] == TRUNCATED
    h = Ipv4Header()
    assert parse_ipv4(PacketBuffer(40), 2**32 - 1, 2**32 - 1, h) == TRUNCATED


def test_a_header_that_does_not_fit_is_not_written() -> None:
    b = PacketBuffer(bytearray(b"\xee" * 25))
    assert emit_ipv4(b, 6, Ipv4Header()) == TRUNCATED
    assert emit_ipv4(b, 2**32 - 10, Ipv4Header()) == TRUNCATED
    assert b.read(0, 25) == b"\xee" * 25


@given(st.binary(max_size=64))
def test_any_bytes_parse_to_zero_or_a_known_reason(packet: bytes) -> None:
    result, h = parse(packet)
    assert result in (0, TRUNCATED, BAD_VERSION, BAD_HEADER_LEN, BAD_TOTAL_LEN, BAD_CHECKSUM)
    if result == 0:
        assert 20 <= h.header_len <= h.total_len <= len(packet)


@given(st.integers(0, 19), st.integers(1, 255))
def test_a_changed_header_byte_is_always_noticed(place: int, change: int) -> None:
    packet = bytearray(raw_header())
    packet[place] ^= change
    assert parse(bytes(packet))[0] < 0
