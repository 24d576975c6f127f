"""A device made of two queues, for simulation and tests. No descriptor, no clock: a packet written is there at once."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from fourtuple.phy.device import deliver

if TYPE_CHECKING:
    from array import array

    from _typeshed import ReadableBuffer, WriteableBuffer


class MemoryDevice:
    """Reads from `incoming` and writes to `outgoing`, two queues of bytes that anybody may fill and empty.

    `limit` is the length at which `outgoing` takes no more (a full transmit queue); None: never full.
    """

    def __init__(self, name: str = "memory", mtu: int = 1500, limit: int | None = None) -> None:
        self.name = name
        self.mtu = mtu
        self.limit = limit
        self.incoming: deque[bytes] = deque()
        self.outgoing: deque[bytes] = deque()

    def fileno(self) -> int | None:
        return None

    def read_batch(self, ring: WriteableBuffer, offsets: array[int], lengths: array[int], max_packets: int) -> int:
        """See Device.read_batch."""
        return deliver(self.incoming, ring, offsets, lengths, max_packets)

    def write_batch(self, buf: ReadableBuffer, offsets: array[int], lengths: array[int], n: int) -> int:
        """See Device.write_batch."""
        if self.limit is not None:
            n = min(n, max(0, self.limit - len(self.outgoing)))
        view = memoryview(buf).cast("B")
        for i in range(n):
            self.outgoing.append(bytes(view[offsets[i] : offsets[i] + lengths[i]]))
        return n

    def close(self) -> None:
        """Nothing to give back; queued packets stay, as they do on a wire."""


def memory_pair(
    mtu: int = 1500, names: tuple[str, str] = ("memory-a", "memory-b"), limit: int | None = None
) -> tuple[MemoryDevice, MemoryDevice]:
    """Two devices back to back: what one writes the other reads, in order, with nothing lost."""
    a, b = MemoryDevice(names[0], mtu, limit), MemoryDevice(names[1], mtu, limit)
    a.incoming, b.incoming = b.outgoing, a.outgoing
    return a, b
