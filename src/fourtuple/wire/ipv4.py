"""The IPv4 header (RFC 791): parse and emit. Options are stepped over, never written.

What does not live here: IPv6, fragments put together, routing. Reason codes are negative and shared by all codecs.
"""

from __future__ import annotations

from fourtuple.wire.buffer import PacketBuffer, get16, get32, put32
from fourtuple.wire.checksum import fold, ones_sum

# Why a parse failed. The kernel's drop reasons in ip_rcv_core: NOT_SPECIFIED, IP_INHDR, IP_CSUM, PKT_TOO_SMALL.
TRUNCATED = -1  # fewer bytes than the headers say
BAD_VERSION = -2
BAD_HEADER_LEN = -3
BAD_TOTAL_LEN = -4  # total length shorter than the header
BAD_CHECKSUM = -5

PROTO_ICMP = 1
PROTO_TCP = 6

_TRUNCATED = TRUNCATED
_BAD_VERSION = BAD_VERSION
_BAD_HEADER_LEN = BAD_HEADER_LEN
_BAD_TOTAL_LEN = BAD_TOTAL_LEN
_BAD_CHECKSUM = BAD_CHECKSUM


class Ipv4Header:
    """The fields of one IPv4 header; `header_len` and `frag_off` in bytes."""

    __slots__ = (
        "checksum",
        "daddr",
        "df",
        "frag_off",
        "header_len",
        "ident",
        "mf",
        "proto",
        "saddr",
        "tos",
        "total_len",
        "ttl",
        "version",
    )

    def __init__(self) -> None:
        self.version = 4
        self.header_len = 20
        self.tos = 0
        self.total_len = 20
        self.ident = 0
        self.df = False
        self.mf = False
        self.frag_off = 0
        self.ttl = 64
        self.proto = 6
        self.saddr = 0
        self.daddr = 0
        self.checksum = 0


def parse_ipv4(b: PacketBuffer, off: int, length: int, h: Ipv4Header) -> int:
    """Read the header of the packet in [off, off + length): 0, or the reason why the packet is no good.

    The checks and their order are ip_rcv_core's. Bytes after total_len (padding) are allowed; the fields are
    only meaningful when 0 is returned.
    """
    end = off  # widened before the sum: 32-bit offsets wrap in C
    end += length
    if length < 20 or end > b.size:
        return _TRUNCATED
    h.version = b.data[off] >> 4
    h.header_len = (b.data[off] & 0x0F) * 4
    if h.version != 4:
        return _BAD_VERSION
    if h.header_len < 20:
        return _BAD_HEADER_LEN
    if h.header_len > length:
        return _TRUNCATED
    if fold(ones_sum(b, off, h.header_len, 0)) != 0:
        return _BAD_CHECKSUM
    h.total_len = get16(b, off + 2)
    if h.total_len > length:
        return _TRUNCATED
    if h.total_len < h.header_len:
        return _BAD_TOTAL_LEN
    _read_fields(b, off, h)
    return 0


def _read_fields(b: PacketBuffer, off: int, h: Ipv4Header) -> None:
    h.tos = b.data[off + 1]
    h.ident = get16(b, off + 4)
    frag = get16(b, off + 6)
    h.df = (frag & 0x4000) != 0
    h.mf = (frag & 0x2000) != 0
    h.frag_off = (frag & 0x1FFF) * 8
    h.ttl = b.data[off + 8]
    h.proto = b.data[off + 9]
    h.checksum = get16(b, off + 10)
    h.saddr = get32(b, off + 12)
    h.daddr = get32(b, off + 16)


def emit_ipv4(b: PacketBuffer, off: int, h: Ipv4Header) -> int:
    """Write a 20-byte header with its checksum from the fields; return 20, or TRUNCATED when it does not fit.

    `total_len` is the caller's; version, header_len and checksum of `h` are set to what was written.
    """
    end = off
    end += 20
    if end > b.size:
        return _TRUNCATED
    h.version = 4
    h.header_len = 20
    frag = h.frag_off >> 3 & 0x1FFF
    if h.df:
        frag |= 0x4000
    if h.mf:
        frag |= 0x2000
    word = 0x4500 | h.tos
    total = word + h.total_len + h.ident + frag
    put32(b, off, word << 16 | h.total_len)
    put32(b, off + 4, h.ident << 16 | frag)
    word = h.ttl << 8 | h.proto
    total += word
    total += h.saddr
    total += h.daddr
    h.checksum = fold(total)
    put32(b, off + 8, word << 16 | h.checksum)
    put32(b, off + 12, h.saddr)
    put32(b, off + 16, h.daddr)
    return 20
