"""A tap on a device: a copy of every packet with its time, direction and fate.  It changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fourtuple.phy.device import Device, WrappedDevice
from fourtuple.phy.fault import LossRule

if TYPE_CHECKING:
    from array import array

    from _typeshed import ReadableBuffer, WriteableBuffer


@dataclass
class TappedPacket:
    """One packet as our end saw it."""

    time_us: int
    outgoing: bool
    data: bytes
    lost: str = ""
    """The rule that lost it; empty: it went through."""


class TapDevice(WrappedDevice):
    """Copies what passes into `packets`, oldest first, at most `limit`; put it outside of all that loses packets.

    Give `on_drop` to the FaultDevice inside, so that lost packets are known as such.
    """

    def __init__(self, inner: Device, now_us: Callable[[], int], limit: int = 100_000) -> None:
        super().__init__(inner)
        self._now_us = now_us
        self.limit = limit
        self.packets: list[TappedPacket] = []
        self._unjudged: int | None = None  # while writing: from here on packets may still be lost

    def read_batch(self, ring: WriteableBuffer, offsets: array[int], lengths: array[int], max_packets: int) -> int:
        """See Device.read_batch."""
        n = self.inner.read_batch(ring, offsets, lengths, max_packets)
        self._note(False, ring, offsets, lengths, 0, n)
        return n

    def write_batch(self, buf: ReadableBuffer, offsets: array[int], lengths: array[int], n: int) -> int:
        """See Device.write_batch.  What the device did not take is not noted: it will be offered again."""
        first = self._unjudged = len(self.packets)
        self._note(True, buf, offsets, lengths, 0, n)
        try:
            taken = self.inner.write_batch(buf, offsets, lengths, n)
        finally:
            self._unjudged = None
        del self.packets[first + taken :]
        return taken

    def _note(
        self, outgoing: bool, buf: ReadableBuffer, offsets: array[int], lengths: array[int], first: int, end: int
    ) -> None:
        view = memoryview(buf).cast("B")
        for i in range(first, min(end, first + self.limit - len(self.packets))):
            data = bytes(view[offsets[i] : offsets[i] + lengths[i]])
            self.packets.append(TappedPacket(self._now_us(), outgoing, data))

    def on_drop(self, packet: bytes, rule: LossRule) -> None:
        """For FaultDevice: this packet was lost by that rule."""
        if self._unjudged is None:
            self.packets.append(TappedPacket(self._now_us(), False, packet, rule.text))
            return
        for i in range(self._unjudged, len(self.packets)):
            if self.packets[i].data == packet:
                self.packets[i].lost = rule.text
                self._unjudged = i + 1
                return
