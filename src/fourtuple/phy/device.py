"""The device protocol: what the shell and the simulator need from anything that carries packets.

Lives here: the protocol, the base class of wrappers, and the packing of packets into a ring.
Does not live here: any real device, the poll loop.

Rules
1. A packet is one whole IP packet (IPv4 or IPv6), no link header. A device moves bytes and never looks at them
   (wrappers may).
2. No call blocks. `fileno()` is what to poll for reading; None means "no descriptor: call read_batch() when you expect
   something".
3. Buffers belong to the caller (any object with the buffer protocol; of a wire.buffer.PacketBuffer pass its `view`). A
   device keeps no reference to them after the call.
4. Room: a ring must have room for at least one packet of `mtu` bytes plus HEADROOM; for a good batch, some 64 of them.
   Packets are packed into it one behind the other, each at a multiple of ALIGN, so small packets share pages.
5. Errors: "not now" is a short count, never an exception. A device that is dead (down, deleted) raises OSError.
6. One thread at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from fourtuple.phy.io import ALIGN, HEADROOM

if TYPE_CHECKING:
    from array import array
    from collections import deque

    from _typeshed import ReadableBuffer, WriteableBuffer

__all__ = ["ALIGN", "HEADROOM", "Device", "TimedDevice", "WrappedDevice", "deliver", "next_due"]


class Device(Protocol):
    """Carries whole IP packets; see the rules of this module."""

    @property
    def name(self) -> str:
        """What people call it: `ft0`, `memory-a`."""

    @property
    def mtu(self) -> int:
        """The largest packet, in bytes, IP header included."""

    def fileno(self) -> int | None:
        """The descriptor to poll for reading, or None."""

    def read_batch(self, ring: WriteableBuffer, offsets: array[int], lengths: array[int], max_packets: int) -> int:
        """Take what has arrived, up to `max_packets`, into `ring`; return how many (0: nothing now).

        Packet i is ring[offsets[i] : offsets[i] + lengths[i]]. `offsets` and `lengths` are array('I') with room for
        `max_packets`. A count below `max_packets` may also mean that the ring is full: poll again.
        Raises OSError when the device is gone, ValueError when an array or the ring is too small.
        """

    def write_batch(self, buf: ReadableBuffer, offsets: array[int], lengths: array[int], n: int) -> int:
        """Send packets 0..n-1 of `buf` in order; return how many were taken.

        Fewer than `n`: the device is full (EAGAIN, ENOBUFS); offer the rest again, first packet first.
        Raises OSError when the device is gone or refuses the first packet as malformed (EINVAL).
        """

    def close(self) -> None:
        """Give the device back. Calling it again does nothing."""


@runtime_checkable
class TimedDevice(Protocol):
    """A device that holds packets for a while (a delay line): it must be called again at `next_due()`."""

    def next_due(self) -> int | None:
        """When the next held packet is due, in us, or None. Call read_batch() then: it also sends what is due."""


def next_due(device: Device) -> int | None:
    """`device.next_due()`, or None for a device that holds nothing back."""
    return device.next_due() if isinstance(device, TimedDevice) else None


class WrappedDevice:
    """Base of wrappers (fault, delay, pcap, trace): passes everything on to `inner`."""

    def __init__(self, inner: Device) -> None:
        self.inner = inner

    @property
    def name(self) -> str:
        return self.inner.name

    @property
    def mtu(self) -> int:
        return self.inner.mtu

    def fileno(self) -> int | None:
        return self.inner.fileno()

    def read_batch(self, ring: WriteableBuffer, offsets: array[int], lengths: array[int], max_packets: int) -> int:
        return self.inner.read_batch(ring, offsets, lengths, max_packets)

    def write_batch(self, buf: ReadableBuffer, offsets: array[int], lengths: array[int], n: int) -> int:
        return self.inner.write_batch(buf, offsets, lengths, n)

    def next_due(self) -> int | None:
        return next_due(self.inner)

    def close(self) -> None:
        self.inner.close()


def deliver(
    queue: deque[bytes], ring: WriteableBuffer, offsets: array[int], lengths: array[int], max_packets: int
) -> int:
    """Move packets from the head of `queue` into `ring` as read_batch() promises; the rest stays queued."""
    view = memoryview(ring).cast("B")
    position = count = 0
    while queue and count < max_packets:
        size = len(queue[0])
        if position + size > len(view):
            if count == 0:
                raise ValueError(f"a ring of {len(view)} bytes has no room for a packet of {size}")
            break
        view[position : position + size] = queue.popleft()
        offsets[count] = position
        lengths[count] = size
        count += 1
        position = -(-(position + size) // ALIGN) * ALIGN
    return count
