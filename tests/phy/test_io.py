"""The batch loops on a descriptor, compiled and Python twin alike: a datagram socket pair plays the TUN."""

from __future__ import annotations

import errno
import os
import socket
from array import array
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from fourtuple.phy import io


class Loops(NamedTuple):
    read: Callable[..., int]
    write: Callable[..., int]


TWINS = [pytest.param(Loops(io.py_read_packets, io.py_write_packets), id="python")]
if io.COMPILED:
    TWINS.append(pytest.param(Loops(io.read_packets, io.write_packets), id="compiled"))
both = pytest.mark.parametrize("loops", TWINS)


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    a.setblocking(False)
    b.setblocking(False)
    with a, b:
        yield a, b


def room(n: int) -> array[int]:
    return array("I", bytes(4 * n))


@both
def test_packets_are_packed_at_multiples_of_sixteen(loops: Loops, ends: tuple[socket.socket, socket.socket]) -> None:
    for size in (40, 16, 1500):
        ends[1].send(bytes([size & 255]) * size)
    ring, offsets, lengths = bytearray(8192), room(8), room(8)
    assert loops.read(ends[0].fileno(), ring, 1500, offsets, lengths, 8, 0) == 3
    assert offsets.tolist()[:3] == [0, 48, 64]
    assert lengths.tolist()[:3] == [40, 16, 1500]
    assert ring[48:64] == bytes([16]) * 16


@both
def test_nothing_to_read_is_zero(loops: Loops, ends: tuple[socket.socket, socket.socket]) -> None:
    assert loops.read(ends[0].fileno(), bytearray(100), 100, room(1), room(1), 1, 0) == 0


@both
def test_reading_ends_when_the_largest_packet_might_not_fit(
    loops: Loops, ends: tuple[socket.socket, socket.socket]
) -> None:
    for _ in range(4):
        ends[1].send(bytes(64))
    ring = bytearray(1500 + 64)
    assert loops.read(ends[0].fileno(), ring, 1500, room(4), room(4), 4, 0) == 2
    assert loops.read(ends[0].fileno(), ring, 1500, room(4), room(4), 1, 0) == 1
    assert loops.read(ends[0].fileno(), ring, 1500, room(4), room(4), 4, 0) == 1


@both
def test_a_virtio_header_is_skipped_when_reading(loops: Loops, ends: tuple[socket.socket, socket.socket]) -> None:
    ends[1].send(b"h" * 10 + b"packet")
    ring, offsets, lengths = bytearray(100), room(1), room(1)
    assert loops.read(ends[0].fileno(), ring, 50, offsets, lengths, 1, 10) == 1
    assert (offsets[0], lengths[0]) == (10, 6)
    assert ring[10:16] == b"packet"


@both
def test_a_virtio_header_of_zeros_is_written(loops: Loops, ends: tuple[socket.socket, socket.socket]) -> None:
    assert loops.write(ends[0].fileno(), b"..packet", array("I", [2]), array("I", [6]), 1, bytes(10)) == 1
    assert ends[1].recv(100) == bytes(10) + b"packet"


@both
@pytest.mark.parametrize("header_size", [10, 64, 65])
@pytest.mark.parametrize("size", [1, 256, 257, 1500])
def test_header_and_packet_arrive_as_one_whatever_their_sizes(
    loops: Loops, ends: tuple[socket.socket, socket.socket], size: int, header_size: int
) -> None:
    header, packet = b"\xaa" * header_size, b"\x55" * size
    data = b"before" + packet + b"behind"
    assert loops.write(ends[0].fileno(), data, array("I", [6]), array("I", [size]), 1, header) == 1
    assert ends[1].recv(4096) == header + packet


@both
def test_packets_are_written_in_order(loops: Loops, ends: tuple[socket.socket, socket.socket]) -> None:
    assert loops.write(ends[0].fileno(), b"onetwo", array("I", [3, 0]), array("I", [3, 3]), 2, b"") == 2
    assert [ends[1].recv(10), ends[1].recv(10)] == [b"two", b"one"]


@both
def test_a_full_device_ends_the_batch_early(loops: Loops, ends: tuple[socket.socket, socket.socket]) -> None:
    n = 5000
    taken = loops.write(ends[0].fileno(), b"x", array("I", [0] * n), array("I", [1] * n), n, b"")
    assert 0 < taken < n
    assert loops.write(ends[0].fileno(), b"x", array("I", [0]), array("I", [1]), 1, b"") == 0


@both
def test_a_packet_outside_the_buffer_is_efault(loops: Loops, ends: tuple[socket.socket, socket.socket]) -> None:
    bad = array("I", [0, 1]), array("I", [4, 4])
    assert loops.write(ends[0].fileno(), b"four", *bad, 2, b"") == 1
    assert loops.write(ends[0].fileno(), b"four", bad[0][1:], bad[1][1:], 1, b"") == -errno.EFAULT


@both
def test_a_closed_descriptor_is_a_negative_errno(loops: Loops) -> None:
    fd = os.open("/dev/null", os.O_RDWR)
    os.close(fd)
    assert loops.read(fd, bytearray(10), 10, room(1), room(1), 1, 0) == -errno.EBADF
    assert loops.write(fd, b"x", array("I", [0]), array("I", [1]), 1, b"") == -errno.EBADF


@both
def test_arrays_that_are_too_short_or_of_another_width_are_refused(loops: Loops) -> None:
    with pytest.raises(ValueError, match="shorter"):
        loops.read(0, bytearray(10), 10, room(1), room(2), 2, 0)
    with pytest.raises(ValueError, match="'I'"):
        loops.write(0, b"x", array("Q", [0]), array("I", [1]), 1, b"")


@both
def test_a_ring_without_room_for_one_packet_is_refused(loops: Loops) -> None:
    with pytest.raises(ValueError, match="room"):
        loops.read(0, bytearray(1499), 1500, room(1), room(1), 1, 0)


@both
def test_a_read_only_ring_is_refused(loops: Loops, ends: tuple[socket.socket, socket.socket]) -> None:
    ends[1].send(b"x")
    with pytest.raises((BufferError, TypeError)):
        loops.read(ends[0].fileno(), bytes(10), 10, room(1), room(1), 1, 0)
