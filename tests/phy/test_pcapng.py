"""The pcapng writer and the device round it, read back by a reader of the test's own.  tshark judges in tests/shell."""

from __future__ import annotations

import errno
import io
import os
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fourtuple.phy.captions import CallableCaptions, Captions
from fourtuple.phy.fault import FaultDevice, LossRule, parse_loss
from fourtuple.phy.memory import MemoryDevice, memory_pair
from fourtuple.phy.pcapng import SNAPLEN, PcapDevice, PcapngWriter
from tests.phy.packets import ACK, SYN, receive, send, tcp
from tests.phy.pcapng_reader import Capture, read_pcapng

PACKETS = [tcp(flags, seq=i) for i, flags in enumerate((SYN, ACK, SYN | ACK, ACK))]


class Clock:
    """Every look is a nanosecond later."""

    def __init__(self) -> None:
        self.ns = 5_000_000_000

    def __call__(self) -> int:
        self.ns += 1
        return self.ns


class Rig:
    """A PcapDevice on one end of a memory pair; `peer` is the other end."""

    def __init__(self, captions: Captions | None = None, loss: str = "", limit: int | None = None) -> None:
        self.file = io.BytesIO()
        self.writer = PcapngWriter(self.file)
        self.ours, self.peer = memory_pair(names=("ft0", "peer0"), limit=limit)
        inner: MemoryDevice | FaultDevice = self.ours
        if loss:
            inner = FaultDevice(inner, parse_loss(loss), lambda: 1.0, lambda packet, rule: self.on_drop(packet, rule))
        self.device = PcapDevice(inner, self.writer, Clock(), captions)

    def on_drop(self, packet: bytes, rule: LossRule) -> None:
        self.device.on_drop(packet, rule)

    def read(self) -> Capture:
        return read_pcapng(self.file.getvalue())

    def told(self) -> list[tuple[bytes, bool, str]]:
        return [(p.data, p.outgoing, p.comment) for p in self.read().packets]


# ------------------------------------------------------------------------------------------------ the format

texts = st.text(max_size=40)


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 2**63), st.binary(max_size=70), st.booleans(), texts), max_size=20
    ),
    st.lists(st.tuples(texts, texts), min_size=3, max_size=3),
    texts,
)
def test_what_is_written_is_read_back(
    packets: list[tuple[int, int, bytes, bool, str]], interfaces: list[tuple[str, str]], application: str
) -> None:
    file = io.BytesIO()
    writer = PcapngWriter(file, application)
    for name, description in interfaces:
        writer.add_interface(name, description)
    for packet in packets:
        writer.add_packet(*packet)
    capture = read_pcapng(file.getvalue())
    assert [(p.interface, p.time_ns, p.data, p.outgoing, p.comment) for p in capture.packets] == packets
    assert [
        (i.options.get(2, b"").decode(), i.options.get(3, b"").decode(), i.linktype, i.options[9])
        for i in capture.interfaces
    ] == [(name, description, 101, b"\x09") for name, description in interfaces]
    assert capture.options.get(4, b"").decode() == application
    assert capture.options[3].decode() == f"{os.uname().sysname} {os.uname().release}"
    assert writer.packets == len(packets)


def test_a_packet_longer_than_wireshark_takes_is_cut_and_says_how_long_it_was() -> None:
    file = io.BytesIO()
    writer = PcapngWriter(file)
    writer.add_packet(writer.add_interface("x"), 1, bytes(SNAPLEN + 3), True)
    (packet,) = read_pcapng(file.getvalue()).packets
    assert (len(packet.data), packet.length) == (SNAPLEN, SNAPLEN + 3)


def test_a_comment_longer_than_an_option_is_cut_between_characters() -> None:
    file = io.BytesIO()
    writer = PcapngWriter(file)
    writer.add_packet(writer.add_interface("x"), 1, b"", True, "é" * 40_000)
    assert read_pcapng(file.getvalue()).packets[0].comment == "é" * 32_767


def test_text_that_is_no_unicode_and_time_before_1970_do_no_harm() -> None:
    file = io.BytesIO()
    writer = PcapngWriter(file)
    writer.add_packet(writer.add_interface("a\udcff"), -5, b"x", True, "\ud800")
    capture = read_pcapng(file.getvalue())
    assert (capture.interfaces[0].options[2], capture.packets[0].time_ns, capture.packets[0].comment) == (b"a?", 0, "?")


def test_nothing_is_written_before_there_is_an_interface() -> None:
    file = io.BytesIO()
    PcapngWriter(file)
    assert file.getvalue() == b""


# ------------------------------------------------------------------------------------------------ the device


def test_packets_have_direction_time_and_order() -> None:
    rig = Rig()
    send(rig.device, *PACKETS[:2])
    send(rig.peer, PACKETS[2])
    assert receive(rig.device) == [PACKETS[2]]
    send(rig.device, PACKETS[3])
    capture = rig.read()
    assert [(p.data, p.outgoing, p.time_ns) for p in capture.packets] == [
        (PACKETS[0], True, 5_000_000_001),
        (PACKETS[1], True, 5_000_000_001),
        (PACKETS[2], False, 5_000_000_002),
        (PACKETS[3], True, 5_000_000_003),
    ]
    assert capture.interfaces[0].options[2] == b"ft0"


def test_what_arrived_is_written_once_the_host_has_had_it() -> None:
    asked: list[str] = []

    def comment(packet: bytes, outgoing: bool) -> str:
        asked.append("comment")
        return "taken"

    rig = Rig(CallableCaptions(comment))
    send(rig.peer, *PACKETS[:2])
    receive(rig.device)
    assert (asked, rig.told()) == ([], [])
    receive(rig.device)
    assert rig.told() == [(PACKETS[0], False, "taken"), (PACKETS[1], False, "taken")]


@pytest.mark.parametrize("end", ["flush", "close"])
def test_flush_and_close_write_what_is_held_back(end: str) -> None:
    rig = Rig()
    send(rig.peer, PACKETS[0])
    receive(rig.device)
    getattr(rig.device, end)()
    getattr(rig.device, end)()
    assert rig.told() == [(PACKETS[0], False, "")]


def test_a_refused_packet_is_written_when_it_is_taken() -> None:
    rig = Rig(limit=1)
    assert send(rig.device, *PACKETS[:2]) == 1
    assert [data for data, _, _ in rig.told()] == [PACKETS[0]]
    rig.peer.incoming.clear()
    assert send(rig.device, PACKETS[1]) == 1
    assert [data for data, _, _ in rig.told()] == PACKETS[:2]


def test_a_lost_packet_is_written_and_says_by_which_rule() -> None:
    rig = Rig(CallableCaptions(lambda packet, outgoing: "it"), loss="syn:1,rx-ack:1")
    twin = PACKETS[0]
    send(rig.device, twin, twin, PACKETS[1])
    send(rig.peer, PACKETS[1], PACKETS[2])
    assert receive(rig.device) == [PACKETS[2]]
    rig.device.flush()
    assert rig.told() == [
        (twin, True, "it · lost (syn:1)"),
        (twin, True, "it"),
        (PACKETS[1], True, "it"),
        (PACKETS[1], False, "it · lost (rx-ack:1)"),
        (PACKETS[2], False, "it"),
    ]
    assert list(rig.peer.incoming) == [twin, PACKETS[1]]


def test_without_captions_a_lost_packet_still_says_so() -> None:
    rig = Rig(loss="syn:1")
    send(rig.device, PACKETS[0])
    assert rig.told() == [(PACKETS[0], True, "lost (syn:1)")]


def test_several_devices_share_a_file() -> None:
    rig = Rig()
    other = PcapDevice(MemoryDevice("eth7"), rig.writer, Clock(), None, "the second")
    send(rig.device, PACKETS[0])
    send(other, PACKETS[1])
    capture = rig.read()
    assert [(p.interface, p.data) for p in capture.packets] == [(0, PACKETS[0]), (1, PACKETS[1])]
    assert [i.options.get(3, b"") for i in capture.interfaces] == [b"", b"the second"]


def test_the_packets_themselves_are_not_changed() -> None:
    rig = Rig()
    send(rig.device, *PACKETS)
    assert list(rig.peer.incoming) == PACKETS
    send(rig.peer, *PACKETS)
    assert receive(rig.device) == PACKETS


def test_a_pause_passes_packets_unseen() -> None:
    rig = Rig(loss="syn:1")
    rig.device.paused = True
    send(rig.device, *PACKETS)
    send(rig.peer, *PACKETS)
    assert receive(rig.device) == PACKETS
    rig.device.paused = False
    send(rig.device, PACKETS[0])
    assert [data for data, _, _ in rig.told()] == [PACKETS[0]]


class FullFile:
    """A disk with room for some bytes."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.data = b""

    def write(self, data: bytes) -> None:
        if len(self.data) + len(data) > self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.data += data

    def flush(self) -> None:
        pass


def test_a_full_disk_ends_the_capture_and_not_the_connection() -> None:
    file = FullFile(400)
    writer = PcapngWriter(file)
    ours, peer = memory_pair()
    device = PcapDevice(ours, writer, Clock())
    assert [send(device, packet) for packet in PACKETS] == [1, 1, 1, 1]
    assert list(peer.incoming) == PACKETS
    assert writer.error is not None and writer.error.errno == errno.ENOSPC
    assert 0 < writer.packets < 4
    assert [p.data for p in read_pcapng(file.data).packets] == PACKETS[: writer.packets]


def test_a_device_that_dies_while_sending_leaves_a_whole_file() -> None:
    class Dead(MemoryDevice):
        def write_batch(self, *_: object) -> int:
            raise OSError(errno.EIO, "down")

    file = io.BytesIO()
    device = PcapDevice(Dead(), PcapngWriter(file), Clock())
    for _ in range(2):
        with pytest.raises(OSError, match="down"):
            device.write_batch(PACKETS[0], array("I", [0]), array("I", [len(PACKETS[0])]), 1)
    assert read_pcapng(file.getvalue()).packets == []


@given(st.lists(st.tuples(st.booleans(), st.binary(min_size=1, max_size=100)), max_size=12))
def test_any_bytes_pass_and_are_kept(packets: list[tuple[bool, bytes]]) -> None:
    rig = Rig()
    for outgoing, data in packets:
        if outgoing:
            send(rig.device, data)
        else:
            send(rig.peer, data)
            assert receive(rig.device) == [data]
    rig.device.close()
    assert [(p.outgoing, p.data) for p in rig.read().packets] == packets
