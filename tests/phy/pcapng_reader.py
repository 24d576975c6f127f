"""A small reader of pcapng, written from the draft alone, to judge the writer.  It checks every length and padding."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field


@dataclass
class Interface:
    """An interface description block."""

    linktype: int
    snaplen: int
    options: dict[int, bytes]


@dataclass
class Packet:
    """An enhanced packet block."""

    interface: int
    time_ns: int
    length: int
    data: bytes
    outgoing: bool
    comment: str


@dataclass
class Capture:
    """A file of one section."""

    options: dict[int, bytes]
    interfaces: list[Interface] = field(default_factory=list)
    packets: list[Packet] = field(default_factory=list)


def read_pcapng(data: bytes) -> Capture:
    """Everything in the file; AssertionError where it is not well-formed."""
    capture: Capture | None = None
    at = 0
    while at < len(data):
        kind, size = struct.unpack_from("<II", data, at)
        assert size % 4 == 0 and size >= 12 and at + size <= len(data)
        assert struct.unpack_from("<I", data, at + size - 4) == (size,)
        body = data[at + 8 : at + size - 4]
        at += size
        if kind == 0x0A0D0D0A:
            assert capture is None
            capture = Capture(_section(body))
            continue
        assert capture is not None
        if kind == 1:
            linktype, reserved, snaplen = struct.unpack_from("<HHI", body)
            assert reserved == 0
            capture.interfaces.append(Interface(linktype, snaplen, _options(body[8:])))
        else:
            assert kind == 6
            capture.packets.append(_packet(body))
            assert capture.packets[-1].interface < len(capture.interfaces)
    assert capture is not None
    return capture


def _section(body: bytes) -> dict[int, bytes]:
    assert struct.unpack_from("<IHHq", body) == (0x1A2B3C4D, 1, 0, -1)
    return _options(body[16:])


def _packet(body: bytes) -> Packet:
    interface, high, low, kept, length = struct.unpack_from("<IIIII", body)
    end = 20 + kept
    padding = -kept % 4
    assert body[end : end + padding] == bytes(padding)
    options = _options(body[end + padding :])
    (flags,) = struct.unpack("<I", options[2])
    assert flags in (1, 2)
    return Packet(interface, high << 32 | low, length, body[20:end], flags == 2, options.get(1, b"").decode())


def _options(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    at = 0
    while at < len(data):
        code, size = struct.unpack_from("<HH", data, at)
        value = data[at + 4 : at + 4 + size]
        assert len(value) == size
        at += 4 + size + -size % 4
        if code == 0:
            assert (size, at) == (0, len(data))
            return found
        assert code not in found
        found[code] = value
    assert not data
    return found
