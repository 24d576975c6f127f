"""TxQueue: packets that wait for a device: one arena of bytes and a column each for offset, length, device and time.

A packet is written in place: reserve room, write it, commit it.  Nothing is freed singly; the owner empties the whole
queue (tx_reset) once the device has taken it.  The arena may move when it grows: take `tx.buffer` anew after a reserve.
"""

from __future__ import annotations

import array

from fourtuple.wire.buffer import PacketBuffer

_ARENA_BYTES = 1 << 18
_SLOTS = 1024


class TxQueue:
    """`count` packets; packet i is `lengths[i]` bytes at `offsets[i]` of `buffer`, for device `devs[i]`."""

    __slots__ = ("buffer", "count", "devs", "lengths", "offsets", "slots", "tail", "times")

    buffer: PacketBuffer
    offsets: memoryview
    lengths: memoryview
    devs: memoryview
    times: memoryview

    def __init__(self, arena_bytes: int = _ARENA_BYTES) -> None:
        self.buffer = PacketBuffer(arena_bytes)
        self.count = 0
        self.tail = 0
        self.slots = _SLOTS
        self.offsets = memoryview(array.array("I", bytes(4 * _SLOTS)))
        self.lengths = memoryview(array.array("I", bytes(4 * _SLOTS)))
        self.devs = memoryview(array.array("I", bytes(4 * _SLOTS)))
        self.times = memoryview(array.array("Q", bytes(8 * _SLOTS)))


def tx_reserve(tx: TxQueue, size: int) -> int:
    """Offset of `size` free bytes; a second reserve without a commit in between gives the same bytes again."""
    if tx.tail + size > tx.buffer.size:
        _grow_buffer(tx, tx.tail + size)
    return tx.tail


def tx_commit(tx: TxQueue, off: int, length: int, dev: int, now_us: int) -> None:
    """Append the packet of `length` bytes that was written at `off`."""
    if tx.count == tx.slots:
        _grow_slots(tx)
    tx.offsets[tx.count] = off
    tx.lengths[tx.count] = length
    tx.devs[tx.count] = dev
    tx.times[tx.count] = now_us
    tx.count += 1
    tx.tail = (off + length + 7) >> 3 << 3


def tx_reset(tx: TxQueue) -> None:
    """Forget all packets."""
    tx.count = 0
    tx.tail = 0


def tx_packet(tx: TxQueue, i: int) -> bytes:
    """A copy of packet i."""
    return tx.buffer.read(tx.offsets[i], tx.lengths[i])


def _grow_buffer(tx: TxQueue, needed: int) -> None:
    size = tx.buffer.size
    while size < needed:
        size *= 2
    bigger = PacketBuffer(size)
    bigger.view[: tx.tail] = tx.buffer.view[: tx.tail]
    tx.buffer = bigger


def _grow_slots(tx: TxQueue) -> None:
    tx.offsets = memoryview(array.array("I", bytes(tx.offsets) * 2))
    tx.lengths = memoryview(array.array("I", bytes(tx.lengths) * 2))
    tx.devs = memoryview(array.array("I", bytes(tx.devs) * 2))
    tx.times = memoryview(array.array("Q", bytes(tx.times) * 2))
    tx.slots *= 2
