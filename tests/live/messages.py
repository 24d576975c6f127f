"""inet_diag answers built with struct, independently of the decoder, and what they should become."""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple

from hypothesis import strategies as st

SEQUENCE = 77
DONE, ERROR, OVERRUN, NOOP = 3, 2, 4, 1
DIAG = 20
MAPPED = bytes(10) + b"\xff\xff"


class Message(NamedTuple):
    """The fields of an inet_diag_msg that are read, addresses as the kernel sends them: 4 or 16 bytes."""

    family: int
    state: int
    timer: int
    retrans: int
    sport: int
    dport: int
    src: bytes
    dst: bytes
    ifindex: int
    expires: int
    rqueue: int
    wqueue: int
    uid: int
    inode: int
    attributes: bytes = b""

    def body(self) -> bytes:
        fixed = struct.pack("=BBBB", self.family, self.state, self.timer, self.retrans)
        ports = struct.pack("!HH", self.sport, self.dport)
        addresses = self.src.ljust(16, b"\0") + self.dst.ljust(16, b"\0")
        numbers = (self.ifindex, 1, 2, self.expires, self.rqueue, self.wqueue, self.uid, self.inode)
        return fixed + ports + addresses + struct.pack("=8I", *numbers) + self.attributes


def attribute(kind: int, payload: bytes) -> bytes:
    raw = struct.pack("=HH", 4 + len(payload), kind) + payload
    return raw + bytes(-len(raw) % 4)


def framed(body: bytes, kind: int = DIAG, flags: int = 2, sequence: int = SEQUENCE) -> bytes:
    raw = struct.pack("=IHHII", 16 + len(body), kind, flags, sequence, 4711) + body
    return raw + bytes(-len(raw) % 4)


def done(code: int = 0, flags: int = 2) -> bytes:
    return framed(struct.pack("=i", code), DONE, flags)


v4 = st.binary(min_size=4, max_size=4)
v6 = st.one_of(st.just(bytes(16)), st.builds(lambda a: MAPPED + a, v4), st.binary(min_size=16, max_size=16))
# Few different addresses, so that they repeat.
some_v6 = st.sampled_from([bytes([n]) * 16 for n in range(20)] + [bytes(16), MAPPED + b"\x7f\0\0\1", MAPPED + bytes(4)])
u8, u16, u32 = (st.integers(0, 2**bits - 1) for bits in (8, 16, 32))
attributes = st.lists(
    st.one_of(
        st.builds(attribute, st.integers(0, 40), st.binary(max_size=20)),
        st.builds(attribute, st.sampled_from([11, 21, 22]), st.binary(max_size=14)),
    ),
    max_size=4,
).map(b"".join)


def _message(family: int, addresses: st.SearchStrategy[bytes]) -> st.SearchStrategy[Message]:
    return st.builds(
        Message, st.just(family), u8, u8, u8, u16, u16, addresses, addresses, u32, u32, u32, u32, u32, u32, attributes
    )


messages = st.one_of(_message(socket.AF_INET, v4), _message(socket.AF_INET6, st.one_of(v6, some_v6)))
