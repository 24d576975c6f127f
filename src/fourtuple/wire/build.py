"""Packets as values: build IPv4 packets from arguments, and see a packet as a frozen dataclass.

For tests, the simulator and the formatter: plain Python round the same codecs. The engine does not use it.
Addresses may be host-order ints or dotted text, flags bits or letters ("S", "SA", tcpdump's "S.").
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fourtuple.wire.buffer import PacketBuffer
from fourtuple.wire.checksum import fold, ones_sum
from fourtuple.wire.icmp import IcmpHeader, emit_icmp, parse_icmp
from fourtuple.wire.ipv4 import PROTO_ICMP, PROTO_TCP, Ipv4Header, emit_ipv4, parse_ipv4
from fourtuple.wire.tcp import OPT_EOL, OPT_NOP, TcpHeader, emit_segment, parse_tcp, seal_segment, verify_tcp

FLAG_LETTERS = {"F": 1, "S": 2, "R": 4, "P": 8, "A": 16, ".": 16, "U": 32, "E": 64, "W": 128, "e": 256}

REASONS = {
    -1: "truncated",
    -2: "not IPv4",
    -3: "bad header length",
    -4: "bad total length",
    -5: "bad checksum",
}


@dataclass(frozen=True, slots=True)
class IpPacket:
    """An IPv4 packet of any protocol; `payload` is the innermost one known."""

    src: int
    dst: int
    proto: int
    ttl: int
    tos: int
    ident: int
    df: bool
    mf: bool
    frag_off: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class TcpPacket(IpPacket):
    """A TCP segment in IPv4; an absent option is 0 (mss), None, False or empty."""

    sport: int
    dport: int
    seq: int
    ack: int
    flags: int
    window: int
    urg: int
    header_len: int
    checksum_ok: bool
    mss: int
    wscale: int | None
    sack_ok: bool
    timestamp: tuple[int, int] | None
    """(TSval, TSecr)"""
    sacks: tuple[tuple[int, int], ...]
    cookie: bytes | None
    """the Fast Open cookie; b"" is a request for one"""
    md5: bytes | None
    options: tuple[tuple[int, bytes], ...]
    """every option as it stands on the wire: (kind, body)"""


@dataclass(frozen=True, slots=True)
class IcmpPacket(IpPacket):
    """An ICMP message in IPv4; `payload` is what follows its 8 bytes: in an error, the quoted packet."""

    type: int
    code: int
    info: int


def address(value: int | str) -> int:
    """A host-order int from dotted text; an int comes back as it is."""
    if isinstance(value, int):
        return value
    octets = [int(part) for part in value.split(".")]
    if len(octets) != 4:
        raise ValueError(f"not an IPv4 address: {value!r}")
    return int.from_bytes(bytes(octets), "big")


def flag_bits(flags: int | str) -> int:
    """Flag bits from letters; an int comes back as it is."""
    if isinstance(flags, int):
        return flags
    bits = 0
    for letter in flags:
        bits |= FLAG_LETTERS[letter]
    return bits


def tcp_packet(
    src: int | str,
    dst: int | str,
    sport: int,
    dport: int,
    seq: int = 0,
    ack: int = 0,
    flags: int | str = 0,
    window: int = 65535,
    *,
    mss: int = 0,
    wscale: int | None = None,
    sack_ok: bool = False,
    timestamp: tuple[int, int] | None = None,
    sacks: Sequence[tuple[int, int]] = (),
    cookie: bytes | None = None,
    cookie_experimental: bool = False,
    md5: bytes | None = None,
    urg: int = 0,
    payload: bytes = b"",
    ttl: int = 64,
    tos: int = 0,
    ident: int = 0,
    df: bool = True,
) -> bytes:
    """An IPv4 TCP segment with right checksums, options in Linux's order; ValueError when they exceed 40 bytes."""
    h = TcpHeader()
    h.sport = sport
    h.dport = dport
    h.seq = seq
    h.ack = ack
    h.flags = flag_bits(flags)
    h.window = window
    h.urg = urg
    h.mss = mss
    h.wscale = -1 if wscale is None else wscale
    h.sack_perm = int(sack_ok)
    if timestamp is not None:
        h.has_ts = 1
        h.tsval, h.tsecr = timestamp
    _set_sacks(h, sacks)
    if cookie is not None:
        h.tfo_len = len(cookie)
        h.tfo_cookie = cookie
        h.tfo_exp = int(cookie_experimental)
    h.md5 = int(md5 is not None)
    ip = _ip_header(src, dst, PROTO_TCP, ttl, tos, ident, df)
    return _segment(ip, h, payload, md5)


def _set_sacks(h: TcpHeader, sacks: Sequence[tuple[int, int]]) -> None:
    padded = [*sacks, *[(0, 0)] * (4 - len(sacks))]
    h.n_sack = len(sacks)
    h.sack_start = [start for start, _ in padded]
    h.sack_end = [end for _, end in padded]


def _ip_header(src: int | str, dst: int | str, proto: int, ttl: int, tos: int, ident: int, df: bool) -> Ipv4Header:
    ip = Ipv4Header()
    ip.saddr = address(src)
    ip.daddr = address(dst)
    ip.proto = proto
    ip.ttl = ttl
    ip.tos = tos
    ip.ident = ident
    ip.df = df
    return ip


def _segment(ip: Ipv4Header, h: TcpHeader, payload: bytes, md5: bytes | None) -> bytes:
    b = PacketBuffer(80 + len(payload))
    start = emit_segment(b, 0, ip, h, len(payload))
    if start < 0:
        raise ValueError(REASONS[start])
    b.write(start, payload)
    if md5 is not None:
        b.write(h.md5_off, md5[:16])
    seal_segment(b, 0)
    return b.read(0, ip.total_len)


def icmp_packet(
    src: int | str,
    dst: int | str,
    icmp_type: int,
    code: int = 0,
    info: int = 0,
    payload: bytes = b"",
    *,
    ttl: int = 64,
    tos: int = 0,
    ident: int = 0,
    df: bool = False,
) -> bytes:
    """An IPv4 ICMP message; for an error that quotes a packet see wire.icmp.icmp_error."""
    b = PacketBuffer(28 + len(payload))
    ip = _ip_header(src, dst, PROTO_ICMP, ttl, tos, ident, df)
    ip.total_len = b.size
    b.write(28, payload)
    emit_ipv4(b, 0, ip)
    emit_icmp(b, 20, b.size - 20, icmp_type, code, info)
    return b.read(0, b.size)


def parse_packet(packet: bytes | bytearray | memoryview) -> IpPacket:
    """The packet as a TcpPacket, an IcmpPacket, or an IpPacket for another protocol or a later fragment.

    ValueError names what is wrong with a packet that the stack would drop unread; a bad TCP checksum is only noted.
    """
    b = PacketBuffer(bytearray(packet))
    ip = Ipv4Header()
    _check(parse_ipv4(b, 0, b.size, ip))
    off = ip.header_len
    length = ip.total_len - off
    if ip.proto == PROTO_TCP and ip.frag_off == 0:
        return _tcp_view(b, ip, off, length)
    if ip.proto == PROTO_ICMP and ip.frag_off == 0:
        return _icmp_view(b, ip, off, length)
    return IpPacket(*_ip_fields(ip), b.read(off, length))


def _check(reason: int) -> None:
    if reason < 0:
        raise ValueError(REASONS[reason])


def _ip_fields(ip: Ipv4Header) -> tuple[int, int, int, int, int, int, bool, bool, int]:
    return (ip.saddr, ip.daddr, ip.proto, ip.ttl, ip.tos, ip.ident, ip.df, ip.mf, ip.frag_off)


def _tcp_view(b: PacketBuffer, ip: Ipv4Header, off: int, length: int) -> TcpPacket:
    h = TcpHeader()
    _check(parse_tcp(b, off, length, h))
    return TcpPacket(
        *_ip_fields(ip),
        b.read(h.payload_off, h.payload_len),
        sport=h.sport,
        dport=h.dport,
        seq=h.seq,
        ack=h.ack,
        flags=h.flags,
        window=h.window,
        urg=h.urg,
        header_len=h.header_len,
        checksum_ok=verify_tcp(b, off, length, ip.saddr, ip.daddr),
        mss=h.mss,
        wscale=None if h.wscale < 0 else h.wscale,
        sack_ok=bool(h.sack_perm),
        timestamp=(h.tsval, h.tsecr) if h.has_ts else None,
        sacks=tuple(zip(h.sack_start, h.sack_end, strict=True))[: h.n_sack],
        cookie=None if h.tfo_len < 0 else b.read(h.tfo_off, h.tfo_len),
        md5=b.read(h.md5_off, 16) if h.md5 else None,
        options=tuple(walk_options(b.read(off + 20, h.header_len - 20))),
    )


def _icmp_view(b: PacketBuffer, ip: Ipv4Header, off: int, length: int) -> IcmpPacket:
    h = IcmpHeader()
    _check(parse_icmp(b, off, length, h))
    return IcmpPacket(*_ip_fields(ip), b.read(h.inner_off, h.inner_len), type=h.type, code=h.code, info=h.info)


def walk_options(options: bytes) -> Iterator[tuple[int, bytes]]:
    """Each option as (kind, body), up to the end of the list or the first one with an impossible length."""
    p = 0
    while p < len(options):
        kind = options[p]
        size = 1
        if kind not in (OPT_EOL, OPT_NOP):
            size = options[p + 1] if p + 1 < len(options) else 0
            if size < 2 or p + size > len(options):
                return
        yield kind, options[p + 2 : p + size]
        if kind == OPT_EOL:
            return
        p += size


def internet_checksum(data: bytes) -> int:
    """The RFC 1071 checksum of `data`."""
    return fold(ones_sum(PacketBuffer(bytearray(data)), 0, len(data), 0))
