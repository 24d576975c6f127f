"""The TCP header and its options (RFC 9293): parse, emit, checksum, and a whole IPv4+TCP segment in one call.

What lives here: bytes <-> TcpHeader, in Linux's option layout. What does not: what an option means to a connection.
Rules: parsing is as tolerant as tcp_parse_options (net/ipv4/tcp_input.c): a bad option ends the parsing, silently;
emitting writes what the fields say, in the order of tcp_options_write (net/ipv4/tcp_output.c). One call a packet.
"""

from __future__ import annotations

from fourtuple.wire.buffer import PacketBuffer, get16, get32, put16, put32
from fourtuple.wire.checksum import fold, ones_sum, pseudo_header_sum
from fourtuple.wire.ipv4 import BAD_HEADER_LEN, BAD_TOTAL_LEN, TRUNCATED, Ipv4Header, emit_ipv4

FIN = 1 << 0
SYN = 1 << 1
RST = 1 << 2
PSH = 1 << 3
ACK = 1 << 4
URG = 1 << 5
ECE = 1 << 6
CWR = 1 << 7
AE = 1 << 8  # accurate ECN (RFC 9768), once NS

# Option kinds (IANA tcp-parameters).
OPT_EOL = 0
OPT_NOP = 1
OPT_MSS = 2
OPT_WSCALE = 3
OPT_SACK_PERM = 4
OPT_SACK = 5
OPT_TIMESTAMP = 8
OPT_MD5 = 19  # RFC 2385
OPT_FASTOPEN = 34  # RFC 7413
OPT_EXPERIMENT = 254  # RFC 6994; carries Fast Open when its magic follows

FASTOPEN_MAGIC = 0xF989  # the experiment's id, RFC 7413 appendix A
COOKIE_MIN = 4  # RFC 7413, 4.1.1
COOKIE_MAX = 16

_TRUNCATED = TRUNCATED
_BAD_HEADER_LEN = BAD_HEADER_LEN
_BAD_TOTAL_LEN = BAD_TOTAL_LEN
_SYN = SYN
_NOP = OPT_NOP
_MSS = OPT_MSS
_WSCALE = OPT_WSCALE
_SACK_PERM = OPT_SACK_PERM
_SACK = OPT_SACK
_TIMESTAMP = OPT_TIMESTAMP
_MD5 = OPT_MD5
_FASTOPEN = OPT_FASTOPEN
_EXPERIMENT = OPT_EXPERIMENT
_FASTOPEN_MAGIC = FASTOPEN_MAGIC
_COOKIE_MIN = COOKIE_MIN
_COOKIE_MAX = COOKIE_MAX

# First words of options as Linux aligns them.
_NOP_NOP_MD5 = 0x01011312
_NOP_NOP_TS = 0x0101080A
_SACK_PERM_TS = 0x0402080A
_NOP_NOP_SACK_PERM = 0x01010402


class TcpHeader:
    """The fields and options of one TCP header; offsets are into the PacketBuffer.

    mss 0, wscale -1, tfo_len -1 and has_ts, sack_perm, md5, n_sack 0 mean that the option is absent. wscale is as
    received, not clamped to 14. tfo_len 0 is a cookie request; tfo_cookie is read by emit only (a parse leaves
    the bytes at tfo_off). From Python assign sack_start and sack_end as whole lists of four: their items are copies.
    """

    __slots__ = (
        "ack",
        "checksum",
        "dport",
        "flags",
        "has_ts",
        "header_len",
        "md5",
        "md5_off",
        "mss",
        "n_sack",
        "payload_len",
        "payload_off",
        "sack_end",
        "sack_perm",
        "sack_start",
        "seq",
        "sport",
        "tfo_cookie",
        "tfo_exp",
        "tfo_len",
        "tfo_off",
        "tsecr",
        "tsval",
        "urg",
        "window",
        "wscale",
    )

    mss: int
    wscale: int
    sack_perm: int
    has_ts: int
    tsval: int
    tsecr: int
    n_sack: int
    tfo_len: int
    tfo_exp: int
    tfo_off: int
    md5: int
    md5_off: int

    def __init__(self) -> None:
        self.sport = 0
        self.dport = 0
        self.seq = 0
        self.ack = 0
        self.flags = 0
        self.window = 0
        self.checksum = 0
        self.urg = 0
        self.header_len = 20
        self.payload_off = 0
        self.payload_len = 0
        self.sack_start = [0, 0, 0, 0]
        self.sack_end = [0, 0, 0, 0]
        self.tfo_cookie = b""
        clear_options(self)


def clear_options(h: TcpHeader) -> None:
    """Mark every option as absent."""
    h.mss = 0
    h.wscale = -1
    h.sack_perm = 0
    h.has_ts = 0
    h.tsval = 0
    h.tsecr = 0
    h.n_sack = 0
    h.tfo_len = -1
    h.tfo_exp = 0
    h.tfo_off = 0
    h.md5 = 0
    h.md5_off = 0


def parse_tcp(b: PacketBuffer, off: int, length: int, h: TcpHeader) -> int:
    """Read header and options of the segment in [off, off + length): 0, TRUNCATED or BAD_HEADER_LEN.

    `length` is the IP payload's. The checksum is not judged (verify_tcp). MSS, window scale and SACK-permitted
    count in a SYN only, as in the kernel; whether the others may count is for the connection to say.
    """
    end = off  # widened before the sum: 32-bit offsets wrap in C
    end += length
    if length < 20 or end > b.size:
        return _TRUNCATED
    word = get32(b, off + 12)
    header_len = word >> 28 << 2
    if header_len < 20:
        return _BAD_HEADER_LEN
    if header_len > length:
        return _TRUNCATED
    h.header_len = header_len
    h.flags = word >> 16 & 0x1FF
    h.window = word & 0xFFFF
    h.payload_off = off + header_len
    h.payload_len = length - header_len
    _read_fields(b, off, h)
    clear_options(h)
    if header_len > 20:
        _parse_options(b, off + 20, off + header_len, h)
    return 0


def _read_fields(b: PacketBuffer, off: int, h: TcpHeader) -> None:
    h.sport = get16(b, off)
    h.dport = get16(b, off + 2)
    h.seq = get32(b, off + 4)
    h.ack = get32(b, off + 8)
    h.checksum = get16(b, off + 16)
    h.urg = get16(b, off + 18)


def _parse_options(b: PacketBuffer, start: int, end: int, h: TcpHeader) -> None:
    if end - start == 12 and get32(b, start) == _NOP_NOP_TS:  # nearly every segment: tcp_parse_aligned_timestamp
        _parse_timestamp(b, start + 2, h)
        return
    p = start
    while p < end:
        kind = b.data[p]
        if kind == _NOP:
            p += 1
            continue
        if kind == 0 or end - p < 2:
            return
        size = b.data[p + 1]
        if size < 2 or size > end - p:
            return
        if kind == _TIMESTAMP and size == 10:
            _parse_timestamp(b, p, h)
        elif kind == _SACK:
            _parse_sack(b, p, size, h)
        elif kind == _MD5 and size == 18:
            h.md5 = 1
            h.md5_off = p + 2
        elif h.flags & _SYN:
            _parse_syn_option(b, p, size, h)
        p += size


def _parse_timestamp(b: PacketBuffer, p: int, h: TcpHeader) -> None:
    h.has_ts = 1
    h.tsval = get32(b, p + 2)
    h.tsecr = get32(b, p + 6)


def _parse_sack(b: PacketBuffer, p: int, size: int, h: TcpHeader) -> None:
    if size < 10 or (size - 2) & 7:
        return
    n = min((size - 2) >> 3, 4)
    h.n_sack = n
    p += 2
    i = 0
    while i < n:
        h.sack_start[i] = get32(b, p)
        h.sack_end[i] = get32(b, p + 4)
        p += 8
        i += 1


def _parse_syn_option(b: PacketBuffer, p: int, size: int, h: TcpHeader) -> None:
    kind = b.data[p]
    if kind == _MSS and size == 4:
        value = get16(b, p + 2)
        if value:  # an MSS of 0 is no MSS, and does not undo an earlier one
            h.mss = value
    elif kind == _WSCALE and size == 3:
        h.wscale = b.data[p + 2]
    elif kind == _SACK_PERM and size == 2:
        h.sack_perm = 1
    elif kind == _FASTOPEN:
        _parse_fastopen(p + 2, size - 2, 0, h)
    elif kind == _EXPERIMENT and size >= 4 and get16(b, p + 2) == _FASTOPEN_MAGIC:
        _parse_fastopen(p + 4, size - 4, 1, h)


def _parse_fastopen(cookie_off: int, length: int, experimental: int, h: TcpHeader) -> None:
    if length & 1:  # RFC 7413, 4.1.1: odd lengths are ignored
        return
    usable = length == 0 or (length >= _COOKIE_MIN and length <= _COOKIE_MAX)
    h.tfo_len = length if usable else -1
    h.tfo_exp = experimental
    h.tfo_off = cookie_off


def verify_tcp(b: PacketBuffer, off: int, length: int, saddr: int, daddr: int) -> bool:
    """Whether the checksum of the segment in [off, off + length) is right."""
    end = off
    end += length
    return end <= b.size and fold(ones_sum(b, off, length, pseudo_header_sum(saddr, daddr, 6, length))) == 0


def options_length(h: TcpHeader) -> int:
    """Bytes that emit_tcp will use for options, a multiple of 4; more than 40 do not fit a header."""
    n = 0
    if h.md5:
        n += 20
    if h.mss:
        n += 4
    if h.has_ts:
        n += 12
    elif h.sack_perm:
        n += 4
    if h.wscale >= 0:
        n += 4
    if h.n_sack:
        n += 4 + 8 * h.n_sack
    if h.tfo_len >= 0:
        n += (2 + 2 * h.tfo_exp + h.tfo_len + 3) >> 2 << 2
    return n


def emit_tcp(b: PacketBuffer, off: int, h: TcpHeader) -> int:
    """Write header and options from the fields, checksum 0; return the header's length, or TRUNCATED, BAD_HEADER_LEN.

    `header_len` and `payload_off` of `h` are set. With `md5` the digest is left zero at `md5_off` for the caller to
    fill in, before finish_tcp.
    """
    header_len = 20 + options_length(h)
    end = off
    end += header_len
    if header_len > 60:
        return _BAD_HEADER_LEN
    if end > b.size:
        return _TRUNCATED
    h.header_len = header_len
    h.payload_off = off + header_len
    put32(b, off, h.sport << 16 | h.dport)
    put32(b, off + 4, h.seq)
    put32(b, off + 8, h.ack)
    put32(b, off + 12, header_len << 26 | (h.flags & 0x1FF) << 16 | h.window)
    put32(b, off + 16, h.urg)
    if header_len > 20:
        _emit_options(b, off + 20, h)
    return header_len


def _emit_options(b: PacketBuffer, p: int, h: TcpHeader) -> None:
    """The order of tcp_options_write: SACK-permitted takes the place of the two NOPs before a timestamp."""
    if h.md5:
        _emit_md5(b, p, h)
        p += 20
    if h.mss:
        put32(b, p, 0x02040000 | h.mss)
        p += 4
    if h.has_ts:
        put32(b, p, _SACK_PERM_TS if h.sack_perm else _NOP_NOP_TS)
        put32(b, p + 4, h.tsval)
        put32(b, p + 8, h.tsecr)
        p += 12
    elif h.sack_perm:
        put32(b, p, _NOP_NOP_SACK_PERM)
        p += 4
    if h.wscale >= 0:
        put32(b, p, 0x01030300 | (h.wscale & 0xFF))
        p += 4
    if h.n_sack:
        p = _emit_sack(b, p, h)
    if h.tfo_len >= 0:
        _emit_fastopen(b, p, h)


def _emit_md5(b: PacketBuffer, p: int, h: TcpHeader) -> None:
    put32(b, p, _NOP_NOP_MD5)
    h.md5_off = p + 4
    i = 4
    while i < 20:
        put32(b, p + i, 0)
        i += 4


def _emit_sack(b: PacketBuffer, p: int, h: TcpHeader) -> int:
    n = h.n_sack
    put32(b, p, 0x01010502 + 8 * n)
    p += 4
    i = 0
    while i < n:
        put32(b, p, h.sack_start[i])
        put32(b, p + 4, h.sack_end[i])
        p += 8
        i += 1
    return p


def _emit_fastopen(b: PacketBuffer, p: int, h: TcpHeader) -> None:
    size = 2 + 2 * h.tfo_exp + h.tfo_len
    end = p + ((size + 3) >> 2 << 2)
    b.data[p] = _EXPERIMENT if h.tfo_exp else _FASTOPEN
    b.data[p + 1] = size
    if h.tfo_exp:
        put16(b, p + 2, _FASTOPEN_MAGIC)
    p += size - h.tfo_len
    h.tfo_off = p
    if h.tfo_len > 0:
        _emit_cookie(b, p, h)
    p += h.tfo_len
    while p < end:
        b.data[p] = _NOP
        p += 1


def _emit_cookie(b: PacketBuffer, p: int, h: TcpHeader) -> None:
    # The one place that needs the interpreter: a cookie is a bytes object.
    b.write(p, h.tfo_cookie[: h.tfo_len].ljust(h.tfo_len, b"\0"))


def finish_tcp(b: PacketBuffer, off: int, length: int, saddr: int, daddr: int) -> None:
    """Write the checksum of the segment in [off, off + length)."""
    put16(b, off + 16, 0)
    put16(b, off + 16, fold(ones_sum(b, off, length, pseudo_header_sum(saddr, daddr, 6, length))))


def emit_segment(b: PacketBuffer, off: int, ip: Ipv4Header, h: TcpHeader, payload_len: int) -> int:
    """Write IPv4 and TCP headers for `payload_len` bytes; return where the payload begins, or a negative reason.

    Without payload the segment is complete. Otherwise copy the payload in, then seal_segment(b, off).
    """
    header_len = 20 + options_length(h)
    total = payload_len  # widened
    total += 20 + header_len
    end = total
    end += off
    if header_len > 60:
        return _BAD_HEADER_LEN
    if total > 65535:
        return _BAD_TOTAL_LEN
    if end > b.size:
        return _TRUNCATED
    ip.proto = 6
    ip.total_len = total
    emit_ipv4(b, off, ip)
    emit_tcp(b, off + 20, h)
    h.payload_len = payload_len
    if payload_len == 0:
        finish_tcp(b, off + 20, header_len, ip.saddr, ip.daddr)
    return h.payload_off


def seal_segment(b: PacketBuffer, off: int) -> None:
    """Write both checksums of the IPv4+TCP packet at `off`, whose lengths are read from its header."""
    ip_len = (b.data[off] & 0x0F) * 4
    put16(b, off + 10, 0)
    put16(b, off + 10, fold(ones_sum(b, off, ip_len, 0)))
    finish_tcp(b, off + ip_len, get16(b, off + 2) - ip_len, get32(b, off + 12), get32(b, off + 16))


def seal_segment_partial(b: PacketBuffer, off: int) -> None:
    """Leave the TCP checksum to the device (virtio NEEDS_CSUM): write the pseudo-header's sum, not complemented."""
    ip_len = (b.data[off] & 0x0F) * 4
    seed = pseudo_header_sum(get32(b, off + 12), get32(b, off + 16), 6, get16(b, off + 2) - ip_len)
    put16(b, off + ip_len + 16, fold(seed) ^ 0xFFFF)
