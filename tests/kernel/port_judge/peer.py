"""The peer of world.py as our engine meets it: answers a SYN, closes second.  Packets are made by hand, with checksums.

It keeps no state but what to say next on each connection; nothing is lost, so nothing is sent twice.
"""

from __future__ import annotations

import struct
from typing import Any

SYN, FIN, ACK = 2, 1, 16
ISS = 1000
M32 = 0xFFFFFFFF
Key = tuple[str, int, int, int]


def _checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF


def _packet(src: int, dst: int, sport: int, dport: int, seq: int, ack: int, flags: int, options: bytes) -> bytes:
    header = struct.pack("!HHIIBBHHH", sport, dport, seq & M32, ack & M32, 20 + len(options) << 2, flags, 65535, 0, 0)
    segment = header + options
    pseudo = struct.pack("!IIHH", src, dst, 6, len(segment))
    segment = segment[:16] + struct.pack("!H", _checksum(pseudo + segment)) + segment[18:]
    ip = struct.pack("!BBHHHBBHII", 0x45, 0, 20 + len(segment), 0, 0x4000, 64, 6, 0, src, dst)
    return ip[:10] + struct.pack("!H", _checksum(ip)) + ip[12:] + segment


def _timestamp(options: bytes) -> int | None:
    """TSval, if the option is there."""
    i = 0
    while i < len(options) and options[i] != 0:
        if options[i] == 8:
            return struct.unpack_from("!I", options, i + 2)[0]
        i += 1 if options[i] == 1 else options[i + 1]
    return None


class Peer:
    """Takes what a Host sends to `address`, and answers into it."""

    def __init__(self, host: Any, address: int) -> None:
        self.host = host
        self.address = address
        self.seen: dict[Key, tuple[int, bool]] = {}

    def take(self) -> None:
        """Everything that was sent: SYNs are answered, of the rest the end of the sequence space is kept."""
        while self.host.has_packets():
            for sent in self.host.take_packets():
                self._look(sent.device, sent.packet)

    def _look(self, device: str, packet: bytes) -> None:
        src, dst = struct.unpack_from("!II", packet, 12)
        if dst != self.address:
            return
        sport, dport, seq, _, offset, flags = struct.unpack_from("!HHIIBB", packet, 20)
        key = device, src, sport, dport
        if flags & SYN:
            stamp = _timestamp(packet[40 : 20 + (offset >> 2)])
            self.seen[key] = seq + 1, stamp is not None
            options = struct.pack("!BBH", 2, 4, 1460)
            if stamp is not None:
                options += struct.pack("!BBBBII", 1, 1, 8, 10, 1, stamp)
            self._say(key, ISS, SYN | ACK, options)
        elif flags & FIN:
            self.seen[key] = seq + 1, self.seen[key][1]

    def acknowledge(self, key: Key, flags: int = 0) -> None:
        """ACK of all that came, with a FIN if asked."""
        options = struct.pack("!BBBBII", 1, 1, 8, 10, 2, 1) if self.seen[key][1] else b""
        self._say(key, ISS + 1, ACK | flags, options)

    def _say(self, key: Key, seq: int, flags: int, options: bytes) -> None:
        device, src, sport, dport = key
        packet = _packet(self.address, src, dport, sport, seq, self.seen[key][0], flags, options)
        self.host.receive_packet(packet, device=device)
