"""ICMP messages and errors."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fourtuple.wire import icmp
from fourtuple.wire.buffer import PacketBuffer
from fourtuple.wire.build import IcmpPacket, icmp_packet, internet_checksum, parse_packet, tcp_packet
from fourtuple.wire.icmp import IcmpHeader, emit_icmp, icmp_error, parse_icmp
from fourtuple.wire.ipv4 import BAD_CHECKSUM, TRUNCATED

SYN = tcp_packet("10.0.0.1", "10.0.0.2", 40000, 80, seq=7, flags="S", mss=1460)


def message(icmp_type: int, code: int, info: int, body: bytes = b"") -> bytes:
    plain = struct.pack("!BBHI", icmp_type, code, 0, info) + body
    return plain[:2] + struct.pack("!H", internet_checksum(plain)) + plain[4:]


@given(st.integers(0, 255), st.integers(0, 255), st.integers(0, 2**32 - 1), st.binary(max_size=200), st.integers(0, 9))
def test_a_message_of_struct_is_parsed(icmp_type: int, code: int, info: int, body: bytes, off: int) -> None:
    raw = message(icmp_type, code, info, body)
    h = IcmpHeader()
    assert parse_icmp(PacketBuffer(bytearray(off) + bytearray(raw)), off, len(raw), h) == 0
    assert (h.type, h.code, h.info, h.mtu) == (icmp_type, code, info, info & 0xFFFF)
    assert (h.inner_off, h.inner_len) == (off + 8, len(body))
    assert h.checksum == int.from_bytes(raw[2:4], "big")


@given(st.integers(0, 255), st.integers(0, 255), st.integers(0, 2**32 - 1), st.binary(max_size=60))
def test_emitted_bytes_are_those_of_struct(icmp_type: int, code: int, info: int, body: bytes) -> None:
    b = PacketBuffer(8 + len(body))
    b.write(8, body)
    assert emit_icmp(b, 0, b.size, icmp_type, code, info) == 8
    assert b.read(0, b.size) == message(icmp_type, code, info, body)


def test_too_short_and_damaged_messages_are_refused() -> None:
    h = IcmpHeader()
    raw = bytearray(message(3, 1, 0, b"abcd"))
    assert parse_icmp(PacketBuffer(raw), 0, 7, h) == TRUNCATED
    assert parse_icmp(PacketBuffer(raw), 0, 13, h) == TRUNCATED
    raw[9] ^= 1
    assert parse_icmp(PacketBuffer(raw), 0, 12, h) == BAD_CHECKSUM
    assert emit_icmp(PacketBuffer(20), 13, 8, 3, 1, 0) == TRUNCATED


@given(st.binary(max_size=60))
def test_any_bytes_parse_to_zero_or_a_known_reason(raw: bytes) -> None:
    assert parse_icmp(PacketBuffer(bytearray(raw)), 0, len(raw), IcmpHeader()) in (0, TRUNCATED, BAD_CHECKSUM)


def test_an_error_quotes_the_packet_and_carries_the_mtu() -> None:
    packet = icmp_error(0x0A0000FE, 0x0A000001, icmp.ICMP_DEST_UNREACH, icmp.ICMP_FRAG_NEEDED, 1400, SYN, ident=9)
    view = parse_packet(packet)
    assert isinstance(view, IcmpPacket)
    assert (view.src, view.dst, view.tos, view.ttl, view.ident, view.df) == (0x0A0000FE, 0x0A000001, 0xC0, 64, 9, False)
    assert (view.type, view.code, view.info, view.payload) == (3, 4, 1400, SYN)


@pytest.mark.parametrize(("quoted", "size"), [(0, 28), (548, 576), (549, 576), (1500, 576)])
def test_an_error_is_at_most_576_bytes(quoted: int, size: int) -> None:
    assert len(icmp_error(1, 2, icmp.ICMP_TIME_EXCEEDED, 0, 0, bytes(quoted))) == size


def test_an_echo_request_is_a_message_like_any_other() -> None:
    view = parse_packet(icmp_packet("10.0.0.1", "10.0.0.2", icmp.ICMP_ECHO, info=1 << 16 | 2, payload=b"ping"))
    assert isinstance(view, IcmpPacket)
    assert (view.type, view.info, view.payload) == (8, 0x10002, b"ping")
