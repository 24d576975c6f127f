"""Whatever arrives: nothing raises, and what is malformed, damaged, fragmented or foreign changes no connection.

The packets are valid ones for a connection in each state, damaged byte by byte, cut, lengthened, or put together anew
with right checksums and any fields.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fourtuple.host import Host
from fourtuple.wire.build import icmp_packet, internet_checksum, parse_packet, tcp_packet
from fourtuple.wire.icmp import icmp_error

HOST, PEER, OTHER = "10.9.0.1", "10.9.0.2", "10.9.0.77"
AF_INET, SOCK_STREAM, SOCK_NONBLOCK, ESTABLISHED = 2, 1, 0o4000, 1
START = 5_000_000


def sockaddr(ip: str, port: int) -> bytes:
    return struct.pack("=H", AF_INET) + struct.pack("!H4s8x", port, bytes(map(int, ip.split("."))))


class World:
    """A Host on one link, with a connection in SYN_SENT, one established with data in flight, and a listener."""

    def __init__(self) -> None:
        self.host = Host(seed=1, now_us=START)
        self.host.add_link("tun0", addrs=["10.9.0.1/24"])
        self.syn = self.connect(80)
        self.established = self.connect(81)
        self.host.receive_packet(self.answer(self.established, "SA", seq=1000, synack=True))
        fd = self.fds[-1]
        self.host.sys_send(fd, b"hello")
        listener = self.host.sys_socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK)
        assert self.host.sys_bind(listener, sockaddr(HOST, 7000)) == 0
        assert self.host.sys_listen(listener, 8) == 0
        self.host.take_packets()

    fds: list[int]

    def connect(self, port: int) -> bytes:
        fd = self.host.sys_socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK)
        self.fds = [*getattr(self, "fds", []), fd]
        assert self.host.sys_connect(fd, sockaddr(PEER, port)) == -115  # EINPROGRESS
        (sent,) = self.host.take_packets()
        return sent.packet

    def answer(self, syn: bytes, flags: str, seq: int, synack: bool = False, payload: bytes = b"") -> bytes:
        view = parse_packet(syn)
        options = {"mss": 1460, "sack_ok": True, "wscale": 7} if synack else {}
        return tcp_packet(PEER, HOST, view.dport, view.sport, seq, view.seq + 1, flags,
                          timestamp=(77, view.timestamp[0]), payload=payload, **options)  # fmt: skip

    def packets(self) -> list[bytes]:
        """A valid packet of each kind."""
        quoted = self.syn[:28]
        return [
            self.answer(self.syn, "SA", 5000, synack=True),
            self.answer(self.syn, "RA", 0),
            self.answer(self.syn, "S", 5000, synack=True),
            self.answer(self.established, "A", 1001),
            self.answer(self.established, "PA", 1001, payload=b"data"),
            self.answer(self.established, "FA", 1001),
            self.answer(self.established, "RA", 1001),
            icmp_error(int.from_bytes(bytes([10, 9, 0, 9])), int.from_bytes(bytes([10, 9, 0, 1])), 3, 1, 0, quoted),
            icmp_error(int.from_bytes(bytes([10, 9, 0, 9])), int.from_bytes(bytes([10, 9, 0, 1])), 3, 4, 1200, quoted),
            tcp_packet(OTHER, HOST, 4000, 7000, 1, 0, "S", mss=1460),
        ]

    def state(self) -> list[object]:
        """Everything the rows of sockets and the tables say."""
        sks = self.host.net.sks
        rows = range(1, sks.high_water + 1)
        columns = [[column[row] for row in rows] for name, column in sorted(sks.columns.items()) if name != "pending"]
        return [columns, sorted(self.host.sockets()), self.host.net.h.tw.used]


def is_intact(packet: bytes) -> bool:
    """Would a strict reader accept it: header, lengths, both checksums, not a fragment?"""
    if len(packet) < 20 or packet[0] >> 4 != 4:
        return False
    header, total = (packet[0] & 15) * 4, int.from_bytes(packet[2:4])
    if header < 20 or header > total or total > len(packet) or internet_checksum(packet[:header]) != 0:
        return False
    if packet[6] & 0x3F or packet[7] or packet[9] not in (1, 6):
        return False
    body = packet[header:total]
    if packet[9] == 1:
        return internet_checksum(body) == 0
    pseudo = packet[12:20] + struct.pack("!BBH", 0, 6, len(body))
    return internet_checksum(pseudo + body) == 0


def test_the_valid_packets_are_valid_and_each_does_something() -> None:
    for index, packet in enumerate(World().packets()):
        world = World()
        before = world.state()
        assert is_intact(packet)
        world.host.receive_packet(packet)
        if index not in (3,):  # a pure ACK of nothing new changes the timestamp at most
            assert world.state() != before or world.host.take_packets()


edits = st.lists(st.tuples(st.integers(0, 200), st.integers(1, 255)), min_size=1, max_size=4)


@given(st.integers(0, 9), edits)
def test_a_damaged_packet_changes_nothing(which: int, damage: list[tuple[int, int]]) -> None:
    world = World()
    packet = bytearray(world.packets()[which])
    for position, bits in damage:
        packet[position % len(packet)] ^= bits
    if is_intact(bytes(packet)):
        return  # two flips that cancel out: no receiver can tell
    before = world.state()
    world.host.receive_packet(bytes(packet))
    assert world.state() == before


@pytest.mark.parametrize("which", range(10))
def test_every_single_byte_of_every_packet_is_protected(which: int) -> None:
    world = World()
    packet = world.packets()[which]
    before = world.state()
    for position in range(len(packet)):
        for bits in (1, 0x80, 0xFF):
            damaged = bytearray(packet)
            damaged[position] ^= bits
            if not is_intact(bytes(damaged)):
                world.host.receive_packet(bytes(damaged))
    assert world.state() == before


@pytest.mark.parametrize("which", range(10))
def test_a_packet_cut_anywhere_changes_nothing(which: int) -> None:
    world = World()
    packet = world.packets()[which]
    before = world.state()
    for length in range(len(packet)):
        world.host.receive_packet(packet[:length])
    assert world.state() == before


@pytest.mark.parametrize("which", range(10))
def test_bytes_behind_the_packet_are_padding(which: int) -> None:
    world, padded = World(), World()
    world.host.receive_packet(world.packets()[which])
    padded.host.receive_packet(padded.packets()[which] + b"\xff" * 7)
    assert padded.state() == world.state()


def with_header(packet: bytes, offset: int, new: bytes) -> bytes:
    """The packet with some bytes of the IP header replaced and its checksum right again."""
    header = bytearray(packet[:20])
    header[offset : offset + len(new)] = new
    header[10:12] = b"\0\0"
    header[10:12] = internet_checksum(bytes(header)).to_bytes(2, "big")
    return bytes(header) + packet[20:]


FOREIGN: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("first fragment", lambda p: with_header(p, 6, b"\x20\x00")),
    ("last fragment", lambda p: with_header(p, 6, b"\x00\x01")),
    ("another protocol", lambda p: with_header(p, 9, b"\x11")),
    ("another version", lambda p: b"\x65" + p[1:]),
    ("to somebody else", lambda p: with_header(p, 16, bytes([10, 9, 0, 200]))),
    ("to the broadcast address", lambda p: with_header(p, 16, bytes([10, 9, 0, 255]))),
    ("a total length beyond the packet", lambda p: with_header(p, 2, (len(p) + 1).to_bytes(2, "big"))),
    ("a total length within the header", lambda p: with_header(p, 2, b"\x00\x13")),
]


@pytest.mark.parametrize("which", range(10))
@pytest.mark.parametrize(("name", "change"), FOREIGN, ids=[name for name, _ in FOREIGN])
def test_what_is_not_for_us_changes_nothing(which: int, name: str, change: Callable[[bytes], bytes]) -> None:
    world = World()
    before = world.state()
    world.host.receive_packet(change(world.packets()[which]))
    assert world.state() == before


u8, u16, u32 = st.integers(0, 255), st.integers(0, 2**16 - 1), st.integers(0, 2**32 - 1)


@given(data=st.data())
def test_any_segment_with_right_checksums_is_taken_without_an_exception(data: st.DataObject) -> None:
    world = World()
    syn = parse_packet(data.draw(st.sampled_from([world.syn, world.established])))
    for _ in range(data.draw(st.integers(1, 12))):
        near = st.integers(-3, 3).map(lambda d: (syn.seq + d) % 2**32) | u32
        body = bytearray(
            struct.pack("!HHIIBBHHH", syn.dport, syn.sport, data.draw(st.integers(998, 1010) | u32), data.draw(near),
                        data.draw(st.sampled_from([0x50, 0x80, 0xF0]) | u8), data.draw(u8), data.draw(u16), 0,
                        data.draw(u16)) + data.draw(st.binary(max_size=60))
        )  # fmt: skip
        source, target = bytes([10, 9, 0, 2]), bytes([10, 9, 0, 1])
        pseudo = source + target + struct.pack("!BBH", 0, 6, len(body))
        body[16:18] = internet_checksum(pseudo + bytes(body)).to_bytes(2, "big")
        header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(body), 1, 0, 64, 6, 0, source, target)
        world.host.receive_packet(with_header(header + bytes(body), 8, b"\x40"))
    world.host.take_packets()
    world.host.handle_timeout(START + data.draw(st.integers(0, 200_000_000)))


@given(u8, u8, u32, st.binary(max_size=60))
def test_any_icmp_message_is_taken_without_an_exception(icmp_type: int, code: int, info: int, body: bytes) -> None:
    world = World()
    for quoted in (body, world.syn[:20] + body, world.syn[:28]):
        world.host.receive_packet(icmp_packet("10.9.0.9", HOST, icmp_type, code, info, quoted))


@given(st.binary(max_size=120))
def test_noise_changes_nothing(noise: bytes) -> None:
    world = World()
    before = world.state()
    for packet in (noise, b"\x45\x00" + noise, world.syn[:20] + noise):
        if not is_intact(packet):
            world.host.receive_packet(packet)
    assert world.state() == before
