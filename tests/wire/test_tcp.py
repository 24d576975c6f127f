"""The TCP codec: Linux's option layout byte for byte, tolerant parsing, checksums against struct."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fourtuple.wire import tcp
from fourtuple.wire.buffer import PacketBuffer
from fourtuple.wire.build import internet_checksum
from fourtuple.wire.ipv4 import BAD_HEADER_LEN, BAD_TOTAL_LEN, TRUNCATED, Ipv4Header, parse_ipv4
from fourtuple.wire.tcp import (
    TcpHeader,
    clear_options,
    emit_segment,
    emit_tcp,
    finish_tcp,
    options_length,
    parse_tcp,
    seal_segment,
    seal_segment_partial,
    verify_tcp,
)

U8 = st.integers(0, 255)
U16 = st.integers(0, 2**16 - 1)
U32 = st.integers(0, 2**32 - 1)
A, B = 0x0A000001, 0xC0A80102

PLAIN_FIELDS = ("sport", "dport", "seq", "ack", "flags", "window", "urg")
OPTION_FIELDS = ("mss", "wscale", "sack_perm", "has_ts", "tsval", "tsecr", "n_sack", "tfo_len", "tfo_exp", "md5")
NO_OPTIONS = dict.fromkeys(OPTION_FIELDS, 0) | {"wscale": -1, "tfo_len": -1}

PLAIN = st.tuples(U16, U16, U32, U32, st.integers(0, 511), U16, U16)


def header(**fields: object) -> TcpHeader:
    h = TcpHeader()
    for name, value in fields.items():
        setattr(h, name, value)
    return h


def options_of(h: TcpHeader) -> dict[str, int]:
    return {name: getattr(h, name) for name in OPTION_FIELDS}


def segment(options: bytes = b"", flags: int = tcp.SYN, payload: bytes = b"", doff: int | None = None) -> bytes:
    words = 5 + len(options) // 4 if doff is None else doff
    return struct.pack("!HHIIHHHH", 1, 2, 3, 4, words << 12 | flags, 5, 6, 7) + options + payload


def parse(raw: bytes) -> TcpHeader:
    # The buffer ends with the segment: reading on would be an error in the pure and in the checked build.
    h = TcpHeader()
    assert parse_tcp(PacketBuffer(bytearray(raw)), 0, len(raw), h) == 0
    return h


def parse_options(options: bytes, flags: int = tcp.SYN) -> dict[str, int]:
    """What differs from a header without options."""
    padded = options + b"\0" * (-len(options) % 4)
    found = options_of(parse(segment(padded, flags)))
    return {name: value for name, value in found.items() if value != NO_OPTIONS[name]}


def emitted_options(**fields: object) -> bytes:
    b = PacketBuffer(bytearray(b"\xee" * 60))
    length = emit_tcp(b, 0, header(**fields))
    assert b.read(length, 60) == b"\xee" * (60 - length)
    return b.read(20, length - 20)


# The rows of the catalogue: what a live 6.18 kernel sends.
TS = struct.pack("!BBII", 8, 10, 1000, 2000)
TIMESTAMP = {"has_ts": 1, "tsval": 1000, "tsecr": 2000}
MSS = b"\2\4\5\xb4"
SACK_OK = b"\4\2"
WSCALE = b"\1\3\3\x0a"
SYN_FIELDS = {"mss": 1460, "sack_perm": 1, "wscale": 10, **TIMESTAMP}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        pytest.param(SYN_FIELDS, MSS + SACK_OK + TS + WSCALE, id="SYN-01 default"),
        pytest.param({**SYN_FIELDS, "has_ts": 0}, MSS + b"\1\1" + SACK_OK + WSCALE, id="SYN-06 no timestamps"),
        pytest.param({**SYN_FIELDS, "sack_perm": 0}, MSS + b"\1\1" + TS + WSCALE, id="SYN-07 no SACK"),
        pytest.param({**SYN_FIELDS, "wscale": -1}, MSS + SACK_OK + TS, id="SYN-08 no window scaling"),
        pytest.param({"mss": 1460}, MSS, id="SYN-09 MSS alone"),
        pytest.param(
            {**SYN_FIELDS, "has_ts": 0, "md5": 1},
            b"\1\1\x13\x12" + bytes(16) + MSS + b"\1\1" + SACK_OK + WSCALE,
            id="SYN-21 MD5 first",
        ),
        pytest.param(
            {**SYN_FIELDS, "tfo_len": 0}, MSS + SACK_OK + TS + WSCALE + b"\x22\2\1\1", id="TFO-01 cookie request"
        ),
        pytest.param(
            {**SYN_FIELDS, "tfo_len": 8, "tfo_cookie": b"12345678"},
            MSS + SACK_OK + TS + WSCALE + b"\x22\x0a12345678\1\1",
            id="TFO-02 cookie",
        ),
        pytest.param(
            {"mss": 1460, "tfo_len": 0, "tfo_exp": 1}, MSS + b"\xfe\4\xf9\x89", id="experimental cookie request"
        ),
        pytest.param(
            {"tfo_len": 6, "tfo_exp": 1, "tfo_cookie": b"abcdef"},
            b"\xfe\x0a\xf9\x89abcdef\1\1",
            id="experimental cookie",
        ),
        pytest.param(TIMESTAMP, b"\1\1" + TS, id="RSP-01 ACK"),
        pytest.param({}, b"", id="RSP-13 nothing negotiated"),
        pytest.param({"wscale": 0}, b"\1\3\3\0", id="a window scale of 0 is an option too"),
        pytest.param(
            {"n_sack": 2, "sack_start": [1, 3, 9, 9], "sack_end": [2, 4, 9, 9], **TIMESTAMP},
            b"\1\1" + TS + b"\1\1\5\x12" + struct.pack("!4I", 1, 2, 3, 4),
            id="SACK blocks after the timestamp",
        ),
    ],
)
def test_options_stand_where_linux_puts_them(fields: dict[str, object], expected: bytes) -> None:
    assert emitted_options(**fields) == expected
    assert options_length(header(**fields)) == len(expected)


def test_a_short_cookie_is_padded_and_a_long_one_cut_to_its_declared_length() -> None:
    assert emitted_options(tfo_len=4, tfo_cookie=b"ab") == b"\x22\6ab\0\0\1\1"
    assert emitted_options(tfo_len=4, tfo_cookie=b"abcdef") == b"\x22\6abcd\1\1"


def test_the_digest_is_left_to_the_caller_at_md5_off() -> None:
    b = PacketBuffer(100)
    h = header(md5=1)
    assert emit_tcp(b, 10, h) == 40
    assert h.md5_off == 34
    b.write(h.md5_off, b"d" * 16)
    back = TcpHeader()
    assert parse_tcp(b, 10, 40, back) == 0
    assert (back.md5, back.md5_off) == (1, 34)


def test_more_than_forty_bytes_of_options_are_refused() -> None:
    b = PacketBuffer(bytearray(b"\xee" * 200))
    h = header(n_sack=4, **TIMESTAMP)
    assert emit_tcp(b, 0, h) == BAD_HEADER_LEN
    assert emit_segment(b, 0, Ipv4Header(), h, 0) == BAD_HEADER_LEN
    assert b.read(0, 200) == b"\xee" * 200


def test_a_header_that_does_not_fit_the_buffer_is_not_written() -> None:
    b = PacketBuffer(bytearray(b"\xee" * 59))
    assert emit_tcp(b, 40, TcpHeader()) == TRUNCATED
    assert emit_tcp(b, 2**32 - 4, TcpHeader()) == TRUNCATED
    assert emit_segment(b, 0, Ipv4Header(), TcpHeader(), 20) == TRUNCATED
    assert emit_segment(b, 2**32 - 4, Ipv4Header(), TcpHeader(), 0) == TRUNCATED
    assert b.read(0, 59) == b"\xee" * 59


@given(PLAIN)
def test_the_fixed_header_is_that_of_struct(values: tuple[int, ...]) -> None:
    sport, dport, seq, ack, flags, window, urg = values
    b = PacketBuffer(20)
    assert emit_tcp(b, 0, header(**dict(zip(PLAIN_FIELDS, values, strict=True)))) == 20
    assert b.read(0, 20) == struct.pack("!HHIIHHHH", sport, dport, seq, ack, 5 << 12 | flags, window, 0, urg)


def syn_options() -> st.SearchStrategy[dict[str, object]]:
    """Fields whose options fit in 40 bytes."""
    timestamp = st.one_of(st.none(), st.tuples(U32, U32))
    cookie = st.one_of(
        st.none(), st.just(b""), st.integers(2, 8).flatmap(lambda n: st.binary(min_size=4, max_size=2 * n))
    )
    fields = st.tuples(U16, st.integers(-1, 255), st.integers(0, 1), timestamp, cookie, st.integers(0, 1))
    return fields.map(as_fields).filter(lambda f: options_length(header(**f)) <= 40)


def as_fields(values: tuple[int, int, int, tuple[int, int] | None, bytes | None, int]) -> dict[str, object]:
    mss, wscale, sack_perm, timestamp, cookie, md5 = values
    even = None if cookie is None else cookie[: len(cookie) & ~1]
    fields: dict[str, object] = {"mss": mss, "wscale": wscale, "sack_perm": sack_perm, "md5": md5}
    if timestamp is not None:
        fields |= {"has_ts": 1, "tsval": timestamp[0], "tsecr": timestamp[1]}
    if even is not None:
        fields |= {"tfo_len": len(even), "tfo_cookie": even}
    return fields


@given(PLAIN, syn_options(), st.binary(max_size=50), st.integers(0, 12))
def test_a_syn_comes_back_as_it_was_emitted(
    values: tuple[int, ...], fields: dict[str, object], payload: bytes, off: int
) -> None:
    h = header(**dict(zip(PLAIN_FIELDS, values, strict=True)), **fields)
    h.flags |= tcp.SYN
    b = PacketBuffer(off + 60 + len(payload))
    length = emit_tcp(b, off, h)
    b.write(off + length, payload)
    back = TcpHeader()
    assert parse_tcp(b, off, length + len(payload), back) == 0
    assert [getattr(back, n) for n in PLAIN_FIELDS] == [getattr(h, n) for n in PLAIN_FIELDS]
    assert options_of(back) == options_of(h)
    assert (back.header_len, back.payload_off, back.payload_len) == (length, off + length, len(payload))
    if h.tfo_len > 0:
        assert b.read(back.tfo_off, back.tfo_len) == h.tfo_cookie


@given(st.lists(st.tuples(U32, U32), min_size=1, max_size=3), U32, U32)
def test_sack_blocks_come_back(blocks: list[tuple[int, int]], tsval: int, tsecr: int) -> None:
    start, end = ([edge[i] for edge in blocks] + [0] * (4 - len(blocks)) for i in (0, 1))
    h = header(n_sack=len(blocks), sack_start=start, sack_end=end, has_ts=1, tsval=tsval, tsecr=tsecr, flags=tcp.ACK)
    b = PacketBuffer(60)
    length = emit_tcp(b, 0, h)
    back = TcpHeader()
    assert parse_tcp(b, 0, length, back) == 0
    assert list(zip(back.sack_start, back.sack_end, strict=True))[: back.n_sack] == blocks
    assert (back.tsval, back.tsecr) == (tsval, tsecr)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", TRUNCATED),
        (segment()[:19], TRUNCATED),
        (segment(doff=4), BAD_HEADER_LEN),
        (segment(doff=0), BAD_HEADER_LEN),
        (segment(doff=6), TRUNCATED),
        (segment(doff=15), TRUNCATED),
        (segment(b"\1\1\1\1"), 0),
    ],
)
def test_each_bad_header_has_its_reason(raw: bytes, reason: int) -> None:
    assert parse_tcp(PacketBuffer(bytearray(raw)), 0, len(raw), TcpHeader()) == reason


def test_a_length_beyond_the_buffer_is_truncated() -> None:
    b = PacketBuffer(bytearray(segment()))
    assert parse_tcp(b, 1, 20, TcpHeader()) == TRUNCATED
    assert parse_tcp(b, 2**32 - 1, 2**32 - 1, TcpHeader()) == TRUNCATED
    assert not verify_tcp(b, 2**32 - 1, 20, A, B)


def test_all_nine_flags_are_read_and_the_reserved_bits_are_not() -> None:
    assert parse(segment(flags=0x1FF)).flags == 0x1FF
    assert parse(segment(flags=0xE00)).flags == 0


@pytest.mark.parametrize(
    ("options", "found"),
    [
        pytest.param(MSS + SACK_OK + TS + WSCALE, {"mss": 1460, "sack_perm": 1, "wscale": 10, **TIMESTAMP}, id="all"),
        pytest.param(b"\3\3\xff", {"wscale": 255}, id="a scale above 14 is recorded raw"),
        pytest.param(b"\0" + MSS, {}, id="nothing counts after the end of the list"),
        pytest.param(b"\x63\4zz" + MSS, {"mss": 1460}, id="unknown kinds are skipped"),
        pytest.param(b"\2\3\5" + b"\3\3\7", {"wscale": 7}, id="an MSS of the wrong size is ignored"),
        pytest.param(b"\4\3\0" + b"\3\3\7", {"wscale": 7}, id="a SACK-permitted of the wrong size is ignored"),
        pytest.param(b"\3\4\7\7" + MSS, {"mss": 1460}, id="a window scale of the wrong size is ignored"),
        pytest.param(b"\x08\x09" + bytes(7) + b"\1\1\1", {}, id="a timestamp of the wrong size is ignored"),
        pytest.param(MSS + b"\3\1\7\1", {"mss": 1460}, id="a length of 1 ends the parsing"),
        pytest.param(MSS + b"\3\0\7\1", {"mss": 1460}, id="a length of 0 ends the parsing"),
        pytest.param(MSS + b"\4\5\0\0", {"mss": 1460}, id="a length beyond the header ends the parsing"),
        pytest.param(MSS + b"\1\1\1\3", {"mss": 1460}, id="a kind without a length ends the parsing"),
        pytest.param(b"\2\4\0\0", {}, id="an MSS of 0 is no MSS"),
        pytest.param(MSS + b"\2\4\0\0", {"mss": 1460}, id="an MSS of 0 does not undo an earlier one"),
        pytest.param(MSS + b"\2\4\2\x18", {"mss": 536}, id="of two MSS the last counts"),
        pytest.param(b"\x22\2", {"tfo_len": 0}, id="a cookie request"),
        pytest.param(b"\x22\x0612ab", {"tfo_len": 4}, id="a cookie"),
        pytest.param(b"\x22\x05123", {}, id="a cookie of odd length is ignored"),
        pytest.param(b"\x22\x0412", {}, id="a cookie of 2 bytes is none"),
        pytest.param(b"\x22\x0612ab\x22\x0412", {}, id="and undoes an earlier one"),
        pytest.param(b"\x22\x14" + b"c" * 18, {}, id="a cookie of 18 bytes is none"),
        pytest.param(b"\xfe\x08\xf9\x891234", {"tfo_len": 4, "tfo_exp": 1}, id="an experimental cookie"),
        pytest.param(b"\xfe\x08\xf9\x881234", {}, id="another experiment"),
        pytest.param(b"\x13\x12" + b"d" * 16, {"md5": 1}, id="MD5"),
        pytest.param(b"\x13\x10" + b"d" * 14, {}, id="MD5 of the wrong size"),
        pytest.param(b"\5\x0a" + bytes(8), {"n_sack": 1}, id="SACK"),
        pytest.param(b"\5\x0b" + bytes(9), {}, id="SACK of the wrong size"),
        pytest.param(b"\5\2" + b"\1\1", {}, id="SACK without blocks"),
        pytest.param(b"\5\x22" + bytes(32), {"n_sack": 4}, id="four SACK blocks"),
        pytest.param(b"\1\1" + b"\x08\x0a" + bytes(8), {"has_ts": 1}, id="the usual timestamp alone"),
        pytest.param(b"\1\1" + b"\x08\x0a" + bytes(8) + SACK_OK, {"has_ts": 1, "sack_perm": 1}, id="and not alone"),
    ],
)
def test_options_of_a_syn(options: bytes, found: dict[str, int]) -> None:
    assert parse_options(options) == found


@pytest.mark.parametrize("flags", [tcp.ACK, tcp.RST | tcp.ACK, tcp.FIN])
def test_handshake_options_count_in_a_syn_only(flags: int) -> None:
    assert parse_options(MSS + SACK_OK + TS + WSCALE + b"\x22\2\1\1", flags) == TIMESTAMP


def test_a_header_used_again_forgets_the_options_of_before() -> None:
    b = PacketBuffer(bytearray(segment(MSS + SACK_OK + TS + WSCALE) + segment(b"\x13\x12" + b"d" * 16 + b"\1\1")))
    h = TcpHeader()
    assert parse_tcp(b, 0, 40, h) == 0
    assert parse_tcp(b, 40, 40, h) == 0
    assert options_of(h) == NO_OPTIONS | {"md5": 1}
    clear_options(h)
    assert options_of(h) == NO_OPTIONS


@given(st.binary(min_size=20, max_size=100), st.binary(min_size=8, max_size=8), st.integers(5, 15))
def test_what_surrounds_a_segment_is_not_looked_at(raw: bytes, around: bytes, words: int) -> None:
    raw = raw[:12] + bytes([words << 4 | raw[12] & 1]) + raw[13:]
    views = []
    for edge in (b"\0" * 8, around):
        h = TcpHeader()
        result = parse_tcp(PacketBuffer(bytearray(edge + raw + edge)), 8, len(raw), h)
        views.append((result, options_of(h), h.sack_start[: h.n_sack], h.sack_end[: h.n_sack]))
    assert views[0] == views[1]


@given(st.binary(max_size=70))
def test_any_bytes_parse_to_zero_or_a_known_reason(raw: bytes) -> None:
    h = TcpHeader()
    result = parse_tcp(PacketBuffer(bytearray(raw)), 0, len(raw), h)
    assert result in (0, TRUNCATED, BAD_HEADER_LEN)
    if result == 0:
        assert h.payload_off + h.payload_len == len(raw)
        assert h.n_sack <= 4
        assert h.tfo_len < 0 or h.tfo_off + h.tfo_len <= h.header_len
        assert not h.md5 or h.md5_off + 16 <= h.header_len


@given(st.binary(max_size=40), st.sampled_from([tcp.SYN, tcp.ACK, tcp.SYN | tcp.ACK]))
def test_any_option_bytes_are_survived(options: bytes, flags: int) -> None:
    parse_options(options, flags)


@given(U32, U32, st.binary(min_size=20, max_size=300), st.integers(0, 9))
def test_the_checksum_is_that_of_struct(saddr: int, daddr: int, raw: bytes, off: int) -> None:
    b = PacketBuffer(bytearray(off) + bytearray(raw))
    finish_tcp(b, off, len(raw), saddr, daddr)
    zeroed = raw[:16] + b"\0\0" + raw[18:]
    pseudo = struct.pack("!IIBBH", saddr, daddr, 0, 6, len(raw))
    expected = internet_checksum(pseudo + zeroed)
    assert b.read(off, len(raw)) == raw[:16] + struct.pack("!H", expected) + raw[18:]
    assert verify_tcp(b, off, len(raw), saddr, daddr)


@given(st.binary(min_size=20, max_size=80), st.integers(0, 79), st.integers(1, 255))
def test_a_changed_byte_is_always_noticed(raw: bytes, place: int, change: int) -> None:
    b = PacketBuffer(bytearray(raw))
    finish_tcp(b, 0, len(raw), A, B)
    b.data[place % len(raw)] ^= change
    assert not verify_tcp(b, 0, len(raw), A, B)


def emitted_segment(payload: bytes, off: int = 0, **fields: object) -> tuple[PacketBuffer, Ipv4Header, TcpHeader]:
    ip, h = Ipv4Header(), header(sport=40000, dport=80, seq=7, flags=tcp.SYN, window=64240, **fields)
    ip.saddr, ip.daddr, ip.df, ip.ident = A, B, True, 77
    b = PacketBuffer(off + 100 + len(payload))
    start = emit_segment(b, off, ip, h, len(payload))
    assert start == off + 20 + h.header_len == h.payload_off
    b.write(start, payload)
    return b, ip, h


def assert_good_segment(b: PacketBuffer, off: int, payload: bytes) -> None:
    ip, h = Ipv4Header(), TcpHeader()
    assert parse_ipv4(b, off, b.size - off, ip) == 0
    assert (ip.saddr, ip.daddr, ip.df, ip.ident, ip.proto) == (A, B, True, 77, 6)
    assert parse_tcp(b, off + 20, ip.total_len - 20, h) == 0
    assert b.read(h.payload_off, h.payload_len) == payload
    assert verify_tcp(b, off + 20, ip.total_len - 20, A, B)


def test_a_segment_without_payload_is_complete_after_one_call() -> None:
    b, ip, h = emitted_segment(b"", off=5, **SYN_FIELDS)
    assert (ip.total_len, h.header_len, h.payload_len) == (60, 40, 0)
    assert_good_segment(b, 5, b"")


@given(st.binary(min_size=1, max_size=200), st.integers(0, 9))
def test_a_segment_with_payload_is_complete_once_sealed(payload: bytes, off: int) -> None:
    b, ip, h = emitted_segment(payload, off, **TIMESTAMP)
    assert (ip.total_len, h.payload_len) == (52 + len(payload), len(payload))
    seal_segment(b, off)
    assert_good_segment(b, off, payload)
    seal_segment(b, off)  # may be done again, as after a changed payload
    assert_good_segment(b, off, payload)


def test_sealing_steps_over_ip_options() -> None:
    ip_head = struct.pack("!BBHHHBBHII", 0x46, 0, 44, 77, 0x4000, 64, 6, 0, A, B) + b"\1\1\1\0"
    b = PacketBuffer(bytearray(ip_head + segment()))
    seal_segment(b, 0)
    assert parse_ipv4(b, 0, 44, Ipv4Header()) == 0
    assert verify_tcp(b, 24, 20, A, B)


def test_a_partial_checksum_is_completed_by_summing_the_segment() -> None:
    b, _, _ = emitted_segment(b"payload!", **TIMESTAMP)
    seal_segment_partial(b, 0)
    # What a device does with NEEDS_CSUM: checksum from csum_start, stored at csum_offset.
    b.write(36, struct.pack("!H", internet_checksum(b.read(20, 40))))
    assert_good_segment(b, 0, b"payload!")


def test_a_packet_is_at_most_65535_bytes() -> None:
    b = PacketBuffer(70000)
    assert emit_segment(b, 0, Ipv4Header(), TcpHeader(), 65495) == 40
    assert emit_segment(b, 0, Ipv4Header(), TcpHeader(), 65496) == BAD_TOTAL_LEN
    assert emit_segment(b, 0, Ipv4Header(), TcpHeader(), 2**32 - 1) == BAD_TOTAL_LEN
