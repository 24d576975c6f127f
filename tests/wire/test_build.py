"""Packets as values: what was built is what is seen."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fourtuple.wire import tcp
from fourtuple.wire.buffer import PacketBuffer
from fourtuple.wire.build import IpPacket, TcpPacket, address, flag_bits, parse_packet, tcp_packet, walk_options
from fourtuple.wire.ipv4 import Ipv4Header, emit_ipv4

U32 = st.integers(0, 2**32 - 1)
U16 = st.integers(0, 2**16 - 1)


def tcp_view(packet: bytes) -> TcpPacket:
    view = parse_packet(packet)
    assert isinstance(view, TcpPacket)
    return view


@given(
    st.fixed_dictionaries(
        {"src": U32, "dst": U32, "sport": U16, "dport": U16, "seq": U32, "ack": U32, "window": U16, "urg": U16},
        optional={
            "timestamp": st.one_of(st.none(), st.tuples(U32, U32)),
            "payload": st.binary(max_size=100),
            "ttl": st.integers(0, 255),
            "tos": st.integers(0, 255),
            "ident": U16,
            "df": st.booleans(),
            "mss": U16,
            "wscale": st.one_of(st.none(), st.integers(0, 255)),
            "sack_ok": st.booleans(),
        },
    )
)
def test_a_built_syn_is_seen_as_it_was_built(fields: dict[str, object]) -> None:
    view = tcp_view(tcp_packet(**fields, flags=tcp.SYN))  # type: ignore[arg-type]
    assert {name: getattr(view, name) for name in fields} == fields
    assert view.flags == tcp.SYN
    assert view.checksum_ok


def test_a_digest_and_blocks_are_seen_too() -> None:
    view = tcp_view(tcp_packet(1, 2, 3, 4, flags="A", md5=b"0123456789abcdef", sacks=[(5, 6)], payload=b"x"))
    assert (view.md5, view.sacks, view.payload, view.checksum_ok) == (b"0123456789abcdef", ((5, 6),), b"x", True)


def test_a_cookie_and_a_request_for_one_differ_from_none() -> None:
    seen = [tcp_view(tcp_packet(1, 2, 3, 4, flags="S", cookie=c)).cookie for c in (None, b"", b"12345678")]
    assert seen == [None, b"", b"12345678"]


def test_the_options_are_seen_in_wire_order() -> None:
    packet = tcp_packet(1, 2, 3, 4, flags="S", mss=1460, sack_ok=True, timestamp=(1, 2), wscale=10)
    assert [kind for kind, _ in tcp_view(packet).options] == [2, 4, 8, 1, 3]


def test_too_many_options_are_refused() -> None:
    with pytest.raises(ValueError, match="bad header length"):
        tcp_packet(1, 2, 3, 4, timestamp=(1, 2), sacks=[(1, 2)] * 4)


def test_a_bad_tcp_checksum_is_noted_not_refused() -> None:
    packet = bytearray(tcp_packet(1, 2, 3, 4, payload=b"data"))
    packet[-1] ^= 1
    assert not tcp_view(bytes(packet)).checksum_ok


def test_another_protocol_and_a_later_fragment_are_plain_ip() -> None:
    for proto, frag_off in ((17, 0), (6, 1480), (1, 8)):
        h = Ipv4Header()
        h.proto, h.frag_off, h.total_len = proto, frag_off, 24
        b = PacketBuffer(24)
        emit_ipv4(b, 0, h)
        view = parse_packet(b.read(0, 24))
        assert type(view) is IpPacket
        assert (view.proto, view.frag_off, view.payload) == (proto, frag_off, bytes(4))


def test_a_view_cannot_be_changed() -> None:
    view = tcp_view(tcp_packet(1, 2, 3, 4))
    with pytest.raises(dataclasses.FrozenInstanceError):
        view.seq = 1  # type: ignore[misc]


def test_addresses_are_text_or_ints() -> None:
    assert address("10.0.0.1") == address(0x0A000001) == 0x0A000001
    for bad in ("10.0.0", "10.0.0.256", "host"):
        with pytest.raises(ValueError):
            address(bad)


def test_flags_are_letters_or_bits() -> None:
    assert flag_bits("SA") == flag_bits("S.") == flag_bits(18) == tcp.SYN | tcp.ACK
    assert flag_bits("SEW") == tcp.SYN | tcp.ECE | tcp.CWR
    with pytest.raises(KeyError):
        flag_bits("x")


@given(st.binary(max_size=40))
def test_walking_options_ends_for_any_bytes(options: bytes) -> None:
    kinds = list(walk_options(options))
    assert sum(1 if kind < 2 else 2 + len(body) for kind, body in kinds) <= len(options)


@given(st.binary(max_size=100))
def test_any_bytes_are_a_packet_or_a_value_error(raw: bytes) -> None:
    try:
        parse_packet(raw)
    except ValueError as reason:
        assert str(reason)
