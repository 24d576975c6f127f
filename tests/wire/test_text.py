"""One line per packet, as tcpdump writes it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fourtuple.wire import icmp
from fourtuple.wire.buffer import PacketBuffer
from fourtuple.wire.build import icmp_packet, tcp_packet
from fourtuple.wire.icmp import icmp_error
from fourtuple.wire.ipv4 import Ipv4Header, emit_ipv4
from fourtuple.wire.text import flags_text, format_packet, option_text

SYN = tcp_packet(
    "10.0.0.2", "10.0.0.1", 49886, 80, 123, flags="S", window=64240, mss=1460, sack_ok=True, timestamp=(1, 0), wscale=10
)
HEAD = "IP 10.0.0.2.49886 > 10.0.0.1.80: "


def line(**fields: object) -> str:
    text = format_packet(tcp_packet("10.0.0.2", "10.0.0.1", 49886, 80, **fields))  # type: ignore[arg-type]
    return text.removeprefix(HEAD)


def test_a_syn() -> None:
    assert format_packet(SYN) == HEAD + (
        "Flags [S], seq 123, win 64240, options [mss 1460,sackOK,TS val 1 ecr 0,nop,wscale 10], length 0"
    )


def test_an_ack_has_no_sequence_number() -> None:
    assert line(seq=5, ack=9, flags="A", window=63) == "Flags [.], ack 9, win 63, length 0"


def test_data_shows_its_range_which_may_wrap() -> None:
    text = line(seq=2**32 - 2, ack=9, flags="PA", window=63, payload=b"hello")
    assert text == "Flags [P.], seq 4294967294:3, ack 9, win 63, length 5"


def test_a_reset_and_an_urgent_segment() -> None:
    assert line(seq=7, flags="R", window=0) == "Flags [R], seq 7, win 0, length 0"
    assert line(flags="UA", urg=3, window=1) == "Flags [.U], ack 0, win 1, urg 3, length 0"


def test_sack_blocks_and_a_cookie() -> None:
    assert "options [nop,nop,sack 2 {1:2}{5:9}]" in line(flags="A", sacks=[(1, 2), (5, 9)])
    assert "options [tfo cookiereq,nop,nop]" in line(flags="S", cookie=b"")
    assert "options [tfo cookie 61626364,nop,nop]" in line(flags="S", cookie=b"abcd")
    assert "options [exp-tfo cookiereq]" in line(flags="S", cookie=b"", cookie_experimental=True)
    assert f"md5 {'00' * 16}" in line(flags="S", md5=bytes(16))


def test_options_nobody_knows() -> None:
    assert option_text(99, b"\1\2") == "unknown-99 0x0102"
    assert option_text(2, b"\1") == "unknown-2 0x01"
    assert option_text(254, b"\1\2\3") == "exp-010203"
    assert option_text(0, b"") == "eol"


def test_a_bad_checksum_is_said() -> None:
    assert "bad cksum" in format_packet(SYN[:-1] + b"\x0b")


@pytest.mark.parametrize(
    ("bits", "text"),
    [(0x02, "S"), (0x12, "S."), (0x18, "P."), (0x04, "R"), (0x11, "F."), (0xC2, "SEW"), (0, "none"), (0x1C2, "SEWe")],
)
def test_flags_are_tcpdumps_letters(bits: int, text: str) -> None:
    assert flags_text(bits) == text


@pytest.mark.parametrize(
    ("code", "info", "text"),
    [
        (0, 0, "net 10.0.0.1 unreachable"),
        (1, 0, "host 10.0.0.1 unreachable"),
        (2, 0, "10.0.0.1 protocol 6 unreachable"),
        (3, 0, "10.0.0.1 tcp port 80 unreachable"),
        (4, 1400, "10.0.0.1 unreachable - need to frag (mtu 1400)"),
        (13, 0, "host 10.0.0.1 unreachable - admin prohibited filter"),
        (99, 0, "10.0.0.1 unreachable - #99"),
    ],
)
def test_unreachable_errors(code: int, info: int, text: str) -> None:
    packet = icmp_error(0x0A0000FE, 0x0A000002, icmp.ICMP_DEST_UNREACH, code, info, SYN)
    assert format_packet(packet) == f"IP 10.0.0.254 > 10.0.0.2: ICMP {text}, length 68"


@pytest.mark.parametrize(
    ("icmp_type", "code", "info", "text"),
    [
        (8, 0, 0x10002, "echo request, id 1, seq 2"),
        (0, 0, 0x10002, "echo reply, id 1, seq 2"),
        (11, 0, 0, "time exceeded in-transit"),
        (11, 1, 0, "ip reassembly time exceeded"),
        (4, 0, 0, "source quench"),
        (5, 1, 0x0A000003, "redirect ? to host 10.0.0.3"),
        (12, 0, 20 << 24, "parameter problem - octet 20"),
        (3, 3, 0, "? port ? unreachable"),
        (77, 5, 0, "type-#77, code 5"),
    ],
)
def test_other_icmp_messages(icmp_type: int, code: int, info: int, text: str) -> None:
    packet = icmp_packet("10.0.0.2", "10.0.0.1", icmp_type, code, info)
    assert format_packet(packet) == f"IP 10.0.0.2 > 10.0.0.1: ICMP {text}, length 8"


@pytest.mark.parametrize(
    ("proto", "frag_off", "text"),
    [(17, 0, "ip-proto-17, length 4"), (6, 1480, "ip-proto-6, fragment at 1480, length 4")],
)
def test_another_protocol_and_a_later_fragment(proto: int, frag_off: int, text: str) -> None:
    h = Ipv4Header()
    h.proto, h.frag_off, h.total_len, h.saddr, h.daddr = proto, frag_off, 24, 1, 2
    b = PacketBuffer(24)
    emit_ipv4(b, 0, h)
    assert format_packet(b.read(0, 24)) == f"IP 0.0.0.1 > 0.0.0.2: {text}"


def test_what_is_not_a_packet_says_why() -> None:
    assert format_packet(b"") == "IP [truncated], length 0"
    assert format_packet(b"\x60" + bytes(39)) == "IP [not IPv4], length 40"
    assert format_packet(SYN[:10] + b"\0\0" + SYN[12:]) == "IP [bad checksum], length 60"


@given(st.binary(max_size=80))
def test_any_bytes_make_a_line(raw: bytes) -> None:
    assert "\n" not in format_packet(raw)


@given(st.integers(0, 39), st.binary(min_size=1, max_size=20))
def test_any_options_make_a_line(place: int, garbage: bytes) -> None:
    packet = bytearray(SYN)
    packet[20 + place : 20 + place + len(garbage)] = garbage
    assert format_packet(bytes(packet[: len(SYN)])).startswith("IP ")
