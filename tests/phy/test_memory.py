"""Devices in memory."""

from __future__ import annotations

from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fourtuple.phy.device import ALIGN, TimedDevice, WrappedDevice, next_due
from fourtuple.phy.memory import MemoryDevice, memory_pair
from tests.phy.packets import receive, send


def test_what_one_end_writes_the_other_reads_in_order() -> None:
    a, b = memory_pair()
    assert send(a, b"one", b"two") == 2
    assert send(b, b"three") == 1
    assert receive(b) == [b"one", b"two"]
    assert receive(a) == [b"three"]
    assert receive(a) == []


def test_a_single_device_is_fed_and_emptied_by_hand() -> None:
    device = MemoryDevice()
    device.incoming.append(b"in")
    send(device, b"out")
    assert receive(device) == [b"in"]
    assert list(device.outgoing) == [b"out"]


def test_a_full_queue_takes_part_of_the_batch_and_the_rest_later() -> None:
    a, b = memory_pair(limit=2)
    assert send(a, b"1", b"2", b"3") == 2
    assert send(a, b"3") == 0
    assert receive(b) == [b"1", b"2"]
    assert send(a, b"3") == 1


def test_a_batch_ends_at_max_packets_and_at_the_end_of_the_ring() -> None:
    a, b = memory_pair()
    send(a, *(bytes(100) for _ in range(5)))
    assert len(receive(b, max_packets=2)) == 2
    assert len(receive(b, ring_size=112 + 100)) == 2
    assert len(receive(b)) == 1


def test_a_ring_smaller_than_the_first_packet_is_an_error_and_loses_nothing() -> None:
    a, b = memory_pair()
    send(a, bytes(100))
    with pytest.raises(ValueError, match="no room for a packet of 100"):
        receive(b, ring_size=99)
    assert receive(b) == [bytes(100)]


@given(st.lists(st.binary(min_size=1, max_size=200), max_size=20))
def test_packets_start_at_aligned_offsets_and_come_out_unchanged(packets: list[bytes]) -> None:
    device = MemoryDevice()
    device.incoming.extend(packets)
    ring, offsets, lengths = bytearray(20 * 224), array("I", bytes(80)), array("I", bytes(80))
    n = device.read_batch(ring, offsets, lengths, 20)
    assert [bytes(ring[offsets[i] : offsets[i] + lengths[i]]) for i in range(n)] == packets
    assert all(offset % ALIGN == 0 for offset in offsets[:n])


def test_a_memory_device_has_no_descriptor_and_holds_nothing_back() -> None:
    device = MemoryDevice("wire", mtu=9000)
    assert device.fileno() is None
    assert not isinstance(device, TimedDevice)
    assert next_due(device) is None


def test_a_wrapper_passes_everything_on() -> None:
    a, b = memory_pair(mtu=1400, names=("left", "right"))
    wrapped = WrappedDevice(a)
    assert (wrapped.name, wrapped.mtu, wrapped.fileno(), wrapped.next_due()) == ("left", 1400, None, None)
    send(wrapped, b"x")
    send(b, b"y")
    assert receive(b) == [b"x"]
    assert receive(wrapped) == [b"y"]
    wrapped.close()
