"""Raw netlink for small questions: one request, the answer's messages, their attributes.

Lives here: framing.
Does not live here: what is asked (rtnetlink.py, netfilter.py), sockets by the thousand (sock_diag.py).

Rule: any bytes are safe; an answer that is no netlink message is an OSError(EBADMSG).
"""

from __future__ import annotations

import errno
import os
import struct
import sys
from _socket import AF_NETLINK, MSG_TRUNC, SO_RCVTIMEO, SOCK_CLOEXEC, SOCK_RAW, SOL_SOCKET, socket
from collections.abc import Iterator
from itertools import islice
from types import TracebackType

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_ERROR, _DONE = 2, 3
_REQUEST, _DUMP, _MULTI = 0x001, 0x300, 0x002
_TYPE_MASK = 0x3FFF  # without NLA_F_NESTED and NLA_F_NET_BYTEORDER
_DATAGRAM = 1 << 16
_TIMEOUT_S = 10


class Netlink:
    """A netlink socket of the namespace that the calling thread is in."""

    def __init__(self, protocol: int) -> None:
        self._socket = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol)
        self._socket.connect((0, 0))  # from now on only the kernel may send to it
        self._socket.setsockopt(SOL_SOCKET, SO_RCVTIMEO, struct.pack("@ll", _TIMEOUT_S, 0))
        self._sequence = 0

    def __enter__(self) -> Netlink:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._socket.close()

    def ask(self, kind: int, body: bytes) -> bytes:
        """The one message that answers.  Raises OSError with the kernel's errno."""
        self._send(kind, _REQUEST, body)
        for _, _, message in self._receive():
            return message
        raise OSError(errno.EBADMSG, os.strerror(errno.EBADMSG))

    def dump(self, kind: int, body: bytes, at_most: int = 1 << 20) -> list[bytes]:
        """All messages of a dump, the first `at_most` of them.  Raises OSError with the kernel's errno."""
        return list(islice(self.messages(kind, body), at_most))

    def messages(self, kind: int, body: bytes) -> Iterator[bytes]:
        """The messages of a dump as they come: none is kept.  Raises OSError with the kernel's errno."""
        self._send(kind, _REQUEST | _DUMP, body)
        while True:
            for got, flags, message in self._receive():
                if got == _DONE or not flags & _MULTI:
                    return
                yield message

    def _send(self, kind: int, flags: int, body: bytes) -> None:
        self._sequence += 1
        self._socket.send(_HEADER.pack(_HEADER.size + len(body), kind, flags, self._sequence, 0) + body)

    def _receive(self) -> Iterator[tuple[int, int, bytes]]:
        """Messages of one datagram: type, flags, body; those of an earlier question are left out."""
        data = self._socket.recv(_DATAGRAM, MSG_TRUNC)
        at = 0
        while at + _HEADER.size <= len(data):
            length, kind, flags, sequence, _ = _HEADER.unpack_from(data, at)
            if length < _HEADER.size or at + length > len(data):
                raise OSError(errno.EBADMSG, os.strerror(errno.EBADMSG))
            body = data[at + _HEADER.size : at + length]
            at += length + 3 & ~3
            if sequence != self._sequence:
                continue
            if kind == _ERROR:
                _raise_error(body)
            yield kind, flags, body


def _raise_error(body: bytes) -> None:
    code = -struct.unpack_from("=i", body)[0] if len(body) >= 4 else errno.EBADMSG
    if code > 0:
        raise OSError(code, os.strerror(code))


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute of a request."""
    return _ATTRIBUTE.pack(4 + len(value), kind) + value + bytes(-len(value) % 4)


def attributes(data: bytes, start: int = 0) -> Iterator[tuple[int, bytes]]:
    """Attributes (struct nlattr) of a message or of another attribute: type, value; ends where they make no sense."""
    while start + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, start)
        if length < _ATTRIBUTE.size or start + length > len(data):
            return
        yield kind & _TYPE_MASK, data[start + _ATTRIBUTE.size : start + length]
        start += length + 3 & ~3


def text(value: bytes) -> str:
    """A string attribute."""
    return value.split(b"\0", 1)[0].decode("utf-8", "replace")


def number(value: bytes) -> int:
    """An integer attribute in this machine's byte order, of any width."""
    return int.from_bytes(value, sys.byteorder)
