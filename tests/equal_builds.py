"""One long scenario, printed packet by packet: the same in the compiled and in the uncompiled engine.

tests/test_equal_builds.py runs it in both and compares.  Which engine it is, is decided before this is imported.
"""

from __future__ import annotations

import random
import struct
import sys

from fourtuple.host import Host, Sent
from fourtuple.mib import mib_snapshot
from fourtuple.wire.build import IcmpPacket, TcpPacket, parse_packet, tcp_packet
from fourtuple.wire.icmp import icmp_error

AF_INET, SOCK_STREAM_NONBLOCK = 2, 1 | 0o4000


def sockaddr(ip: str, port: int) -> bytes:
    return struct.pack("=H", AF_INET) + struct.pack("!H4s8x", port, bytes(map(int, ip.split("."))))


class Scenario:
    """A Host, and a peer that answers at random: accepts, refuses, ignores, sends data, closes."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.now = 10_000_000
        self.host = Host(seed=seed, now_us=self.now, sysctl={"net.ipv4.tcp_tw_reuse": "1"})
        self.host.add_link("tun0", addrs=["10.9.0.1/16"])
        self.fds: list[int] = []
        self.lines: list[str] = []
        self.unanswered: list[TcpPacket] = []

    def record(self) -> None:
        for sent in self.host.take_packets():
            self.lines.append(f"{sent.time_us} {sent.device} {sent.packet.hex()}")
            self.note(sent)

    def note(self, sent: Sent) -> None:
        packet = parse_packet(sent.packet)
        assert not isinstance(packet, IcmpPacket)
        if isinstance(packet, TcpPacket):
            self.unanswered.append(packet)

    def connect(self) -> None:
        fd = self.host.sys_socket(AF_INET, SOCK_STREAM_NONBLOCK)
        if self.chance.random() < 0.2:
            self.host.sys_bind(fd, sockaddr("10.9.0.1", self.chance.choice([0, 5000, 5001, 40000])))
        peer = sockaddr(f"10.9.0.{self.chance.randrange(2, 6)}", 80)
        self.lines.append(f"connect {self.host.sys_connect(fd, peer)}")
        self.fds.append(fd)

    def answer(self) -> None:
        packet = self.unanswered.pop(self.chance.randrange(len(self.unanswered)))
        syn = bool(packet.flags & 2)
        payload = b"" if syn else bytes(self.chance.randrange(0, 1400))
        flags = self.chance.choice(["SA", "SA", "SA", "RA", "S"] if syn else ["A", "PA", "PA", "FA", "RA"])
        end = packet.seq + len(packet.payload) + syn + (packet.flags & 1)
        seq = 77 if syn else packet.ack
        options = {"mss": 1460, "sack_ok": True, "wscale": 7} if syn else {}
        timestamp = (self.now // 1000, packet.timestamp[0]) if packet.timestamp else None
        reply = tcp_packet("10.9.0.2", "10.9.0.1", packet.dport, packet.sport, seq, end % 2**32, flags,
                           timestamp=timestamp, payload=payload, **options)  # fmt: skip
        reply = reply[:12] + packet_address(packet.dst) + reply[16:]
        self.host.receive_packet(repaired(reply), self.now)

    def unreachable(self) -> None:
        packet = self.unanswered.pop()
        quoted = tcp_packet("10.9.0.1", "10.9.0.2", packet.sport, packet.dport, packet.seq)[:28]
        quoted = quoted[:16] + packet_address(packet.dst) + quoted[20:]
        self.host.receive_packet(
            icmp_error(0x0A090009, 0x0A090001, 3, self.chance.randrange(16), 1200, quoted), self.now
        )

    def traffic(self) -> None:
        fd = self.chance.choice(self.fds)
        what = self.chance.randrange(4)
        if what == 0:
            self.lines.append(f"send {self.host.sys_send(fd, bytes(self.chance.randrange(1, 5000)))!r}")
        elif what == 1:
            self.lines.append(f"recv {self.host.sys_recv(fd, 4096)!r}")
        elif what == 2:
            self.lines.append(f"shutdown {self.host.sys_shutdown(fd, 1)}")
        else:
            self.fds.remove(fd)
            self.lines.append(f"close {self.host.sys_close(fd)}")

    def run(self, steps: int) -> None:
        for _ in range(steps):
            draw = self.chance.random()
            if draw < 0.35 or not self.fds:
                self.connect()
            elif draw < 0.65 and self.unanswered:
                self.answer()
            elif draw < 0.68 and self.unanswered:
                self.unreachable()
            elif draw < 0.85:
                self.traffic()
            else:
                self.now += self.chance.choice([100, 40_000, 1_000_000, 3_000_000])
                self.host.handle_timeout(self.now)
            self.record()
        self.lines.append(str(sorted(mib_snapshot(self.host.net.mib).items())))


def packet_address(value: int | str) -> bytes:
    return value.to_bytes(4, "big") if isinstance(value, int) else bytes(map(int, value.split(".")))


def repaired(packet: bytes) -> bytes:
    """The packet with both checksums computed anew."""
    from fourtuple.wire.buffer import PacketBuffer
    from fourtuple.wire.tcp import seal_segment

    buffer = PacketBuffer(bytearray(packet))
    seal_segment(buffer, 0)
    return bytes(buffer.view)


def main() -> None:
    """Write the scenario's lines to stdout."""
    scenario = Scenario(seed=2024)
    scenario.run(1500)
    sys.stdout.write("\n".join(scenario.lines))
