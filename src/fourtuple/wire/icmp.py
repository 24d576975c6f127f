"""ICMP (RFC 792): parse a message, build an error that quotes a packet.

What does not live here: what an error means to a socket (ip/icmp).
"""

from __future__ import annotations

from fourtuple.wire.buffer import PacketBuffer, get16, get32, put32
from fourtuple.wire.checksum import fold, ones_sum
from fourtuple.wire.ipv4 import BAD_CHECKSUM, TRUNCATED, Ipv4Header, emit_ipv4

# Types and codes: include/uapi/linux/icmp.h, RFC 792, RFC 1122 (3.2.2.1), RFC 1812 (5.2.7.1).
ICMP_ECHOREPLY = 0
ICMP_DEST_UNREACH = 3
ICMP_SOURCE_QUENCH = 4
ICMP_REDIRECT = 5
ICMP_ECHO = 8
ICMP_TIME_EXCEEDED = 11
ICMP_PARAMETERPROB = 12

ICMP_NET_UNREACH = 0
ICMP_HOST_UNREACH = 1
ICMP_PROT_UNREACH = 2
ICMP_PORT_UNREACH = 3
ICMP_FRAG_NEEDED = 4
ICMP_SR_FAILED = 5
ICMP_NET_UNKNOWN = 6
ICMP_HOST_UNKNOWN = 7
ICMP_HOST_ISOLATED = 8
ICMP_NET_ANO = 9
ICMP_HOST_ANO = 10
ICMP_NET_UNR_TOS = 11
ICMP_HOST_UNR_TOS = 12
ICMP_PKT_FILTERED = 13
ICMP_PREC_VIOLATION = 14
ICMP_PREC_CUTOFF = 15

ICMP_EXC_TTL = 0
ICMP_EXC_FRAGTIME = 1

# RFC 1812, 4.3.2.3: an error should not exceed 576 bytes; the kernel quotes up to that (net/ipv4/icmp.c:__icmp_send).
ERROR_MAX = 576

_TRUNCATED = TRUNCATED
_BAD_CHECKSUM = BAD_CHECKSUM


class IcmpHeader:
    """The fields of one ICMP message: `info` is the second 32-bit word, `mtu` its low half (FRAG_NEEDED, RFC 1191).

    inner_off and inner_len are what follows the 8-byte header: in an error, the packet that it quotes.
    """

    __slots__ = ("checksum", "code", "info", "inner_len", "inner_off", "mtu", "type")

    def __init__(self) -> None:
        self.type = 0
        self.code = 0
        self.checksum = 0
        self.info = 0
        self.mtu = 0
        self.inner_off = 0
        self.inner_len = 0


def parse_icmp(b: PacketBuffer, off: int, length: int, h: IcmpHeader) -> int:
    """Read the message in [off, off + length), checksum included: 0, TRUNCATED or BAD_CHECKSUM."""
    end = off
    end += length
    if length < 8 or end > b.size:
        return _TRUNCATED
    if fold(ones_sum(b, off, length, 0)) != 0:
        return _BAD_CHECKSUM
    h.type = b.data[off]
    h.code = b.data[off + 1]
    h.checksum = get16(b, off + 2)
    h.info = get32(b, off + 4)
    h.mtu = h.info & 0xFFFF
    h.inner_off = off + 8
    h.inner_len = length - 8
    return 0


def emit_icmp(b: PacketBuffer, off: int, length: int, icmp_type: int, code: int, info: int) -> int:
    """Write the 8-byte header before a body already at off + 8, checksum over `length` bytes in all; 8 or TRUNCATED."""
    end = off
    end += length
    if length < 8 or end > b.size:
        return _TRUNCATED
    word = icmp_type << 24 | code << 16
    put32(b, off, word)
    put32(b, off + 4, info)
    put32(b, off, word | fold(ones_sum(b, off, length, 0)))
    return 8


def icmp_error(
    saddr: int, daddr: int, icmp_type: int, code: int, info: int, quoted: bytes, *, ttl: int = 64, ident: int = 0
) -> bytes:
    """An IPv4+ICMP error from `saddr` to `daddr` that quotes the packet `quoted`, at most 576 bytes in all.

    As from a Linux router: precedence 6 in the TOS (0xC0), no DF. `info` is the second word (the MTU for FRAG_NEEDED).
    """
    inner = quoted[: ERROR_MAX - 28]
    b = PacketBuffer(28 + len(inner))
    b.write(28, inner)
    emit_icmp(b, 20, 8 + len(inner), icmp_type, code, info)
    ip = Ipv4Header()
    ip.tos = 0xC0
    ip.total_len = b.size
    ip.ident = ident
    ip.ttl = ttl
    ip.proto = 1
    ip.saddr = saddr
    ip.daddr = daddr
    emit_ipv4(b, 0, ip)
    return b.read(0, b.size)
