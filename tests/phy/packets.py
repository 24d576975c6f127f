"""Hand-made packets for the tests of devices: struct only, nothing of ours, so that they can judge ours."""

from __future__ import annotations

import socket
import struct
from array import array
from typing import Any

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16


def checksum(data: bytes) -> int:
    """RFC 1071."""
    data += b"\0" * (len(data) & 1)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ipv4(src: str, dst: str, protocol: int, payload: bytes, fragment: int = 0) -> bytes:
    head = struct.pack(
        "!BBHHHBBH4s4s",
        *(0x45, 0, 20 + len(payload), 1, fragment, 64, protocol, 0),
        *(socket.inet_aton(src), socket.inet_aton(dst)),
    )
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload


def tcp(
    flags: int,
    src: tuple[str, int] = ("10.64.0.2", 40000),
    dst: tuple[str, int] = ("10.64.0.1", 80),
    seq: int = 1000,
    ack: int = 0,
    payload: bytes = b"",
    options: bytes = b"",
) -> bytes:
    """An IPv4 packet with one TCP segment, checksums filled in."""
    size = 20 + len(options)
    head = struct.pack("!HHIIBBHHH", src[1], dst[1], seq, ack, size // 4 << 4, flags, 65535, 0, 0) + options
    pseudo = socket.inet_aton(src[0]) + socket.inet_aton(dst[0]) + struct.pack("!HH", 6, size + len(payload))
    segment = head[:16] + struct.pack("!H", checksum(pseudo + head + payload)) + head[18:] + payload
    return ipv4(src[0], dst[0], 6, segment)


def ipv6_tcp(flags: int, payload: bytes = b"") -> bytes:
    """An IPv6 packet with one TCP segment; checksum left out."""
    head = struct.pack("!HHIIBBHHH", 40000, 80, 1000, 0, 0x50, flags, 65535, 0, 0)
    return struct.pack("!IHBB", 6 << 28, len(head) + len(payload), 6, 64) + bytes(32) + head + payload


class Segment:
    """The fields of a received IPv4/TCP packet."""

    def __init__(self, packet: bytes) -> None:
        start = (packet[0] & 15) * 4
        self.src, self.dst = socket.inet_ntoa(packet[12:16]), socket.inet_ntoa(packet[16:20])
        self.sport, self.dport, self.seq, self.ack, offset, self.flags = struct.unpack_from("!HHIIBB", packet, start)
        self.payload = packet[start + (offset >> 4) * 4 :]


def send(device: Any, *packets: bytes) -> int:
    """Write packets as one batch; how many the device took."""
    offsets, lengths, position = array("I"), array("I"), 0
    for packet in packets:
        offsets.append(position)
        lengths.append(len(packet))
        position += len(packet)
    return int(device.write_batch(b"".join(packets), offsets, lengths, len(packets)))


def receive(device: Any, max_packets: int = 16, ring_size: int = 65536) -> list[bytes]:
    """One read_batch(), as a list of packets."""
    ring = bytearray(ring_size)
    offsets, lengths = array("I", bytes(4 * max_packets)), array("I", bytes(4 * max_packets))
    n = device.read_batch(ring, offsets, lengths, max_packets)
    return [bytes(ring[offsets[i] : offsets[i] + lengths[i]]) for i in range(n)]
