"""TCP MD5 signatures (RFC 2385): which key a peer has, and the digest of a segment."""

from __future__ import annotations

import hashlib
import hmac

from fourtuple.inet.sock_options import SockOptions
from fourtuple.wire.buffer import PacketBuffer


def tcp_md5_do_lookup(opts: SockOptions, addr: int) -> bytes | None:
    """Key for the peer `addr`: the longest prefix that holds it."""
    best: bytes | None = None
    best_len = -1
    for prefix, length, key in opts.md5_keys:
        mask = 0xFFFFFFFF << (32 - length) & 0xFFFFFFFF
        if addr & mask == prefix & mask and length > best_len:
            best, best_len = key, length
    return best


def tcp_v4_md5_hash(b: PacketBuffer, off: int, length: int, saddr: int, daddr: int, key: bytes) -> bytes:
    """Digest of the TCP segment in [off, off + length): pseudo-header, header without options, payload, key."""
    segment = b.read(off, length)
    header_len = (segment[12] >> 4) * 4
    pseudo = saddr.to_bytes(4, "big") + daddr.to_bytes(4, "big") + b"\0\x06" + length.to_bytes(2, "big")
    header = segment[:16] + b"\0\0" + segment[18:20]
    return hashlib.md5(pseudo + header + segment[header_len:] + key, usedforsecurity=False).digest()


def tcp_inbound_md5_ok(
    b: PacketBuffer, off: int, length: int, saddr: int, daddr: int, digest_off: int, key: bytes
) -> bool:
    """Whether the digest in a received segment is right."""
    expected = tcp_v4_md5_hash(b, off, length, saddr, daddr, key)
    return hmac.compare_digest(expected, b.read(digest_off, 16))
