"""The tap: every packet once, with its fate."""

from __future__ import annotations

from array import array

from fourtuple.phy.fault import FaultDevice, parse_loss
from fourtuple.phy.memory import memory_pair
from fourtuple.shell.tap import TapDevice
from fourtuple.wire.build import tcp_packet

SYN = tcp_packet("10.0.0.1", "10.0.0.2", 1, 2, flags="S")
ACK = tcp_packet("10.0.0.1", "10.0.0.2", 1, 2, flags="A")


def write(device: TapDevice, *packets: bytes) -> int:
    """Write them as one batch; how many were taken."""
    offsets, lengths = array("I"), array("I")
    for packet in packets:
        offsets.append(sum(lengths))
        lengths.append(len(packet))
    return device.write_batch(b"".join(packets), offsets, lengths, len(packets))


def read(device: TapDevice) -> int:
    """Read what is there; how many."""
    return device.read_batch(bytearray(100_000), array("I", bytes(40)), array("I", bytes(40)), 10)


def test_packets_are_noted_with_time_and_direction() -> None:
    ours, theirs = memory_pair()
    tap = TapDevice(ours, lambda: 42)
    theirs.outgoing.append(ACK)
    assert (write(tap, SYN, ACK), read(tap)) == (2, 1)
    assert [(p.time_us, p.outgoing, p.data, p.lost) for p in tap.packets] == [
        (42, True, SYN, ""),
        (42, True, ACK, ""),
        (42, False, ACK, ""),
    ]


def test_a_refused_packet_is_noted_when_it_is_taken() -> None:
    ours, theirs = memory_pair(limit=1)
    tap = TapDevice(ours, lambda: 0)
    assert write(tap, SYN, ACK) == 1
    assert [p.data for p in tap.packets] == [SYN]
    theirs.incoming.clear()
    assert write(tap, ACK) == 1
    assert [p.data for p in tap.packets] == [SYN, ACK]


def test_lost_packets_name_the_rule_that_lost_them() -> None:
    ours, theirs = memory_pair()
    tap = TapDevice(
        FaultDevice(ours, parse_loss("syn:1,rx-ack:1"), lambda: 1.0, lambda packet, rule: tap.on_drop(packet, rule)),
        lambda: 0,
    )
    write(tap, SYN, SYN, ACK)
    theirs.outgoing.append(ACK)
    assert read(tap) == 0
    assert [(p.outgoing, p.lost) for p in tap.packets] == [(True, "syn:1"), (True, ""), (True, ""), (False, "rx-ack:1")]


def test_a_tap_has_a_limit() -> None:
    tap = TapDevice(memory_pair()[0], lambda: 0, limit=1)
    write(tap, SYN, ACK)
    write(tap, ACK)
    assert len(tap.packets) == 1
