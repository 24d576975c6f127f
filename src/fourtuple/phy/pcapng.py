"""Captures: packets in a pcapng file, each with interface, direction, time in nanoseconds and a comment.

Lives here: the writer of the format (draft-ietf-opsawg-pcapng) and PcapDevice, which puts a capture round any device.
Does not live here: which function sent or took a packet (captions.py), the choice of a file (cli/capture.py).

Rules
1. A capture never disturbs what it watches: an error of the file ends the capture and is kept in `error`, not raised.
2. A block is written whole, and nothing is kept back but packets that the Host has not processed yet: whatever ends the
   process, the file can be read up to there.
3. What became of a packet that arrived is known only once the Host has taken it in: it is written at the next call of
   the device, flush() or close().
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from fourtuple.phy.captions import Captions
from fourtuple.phy.device import Device, WrappedDevice

if TYPE_CHECKING:
    from array import array

    from _typeshed import ReadableBuffer, WriteableBuffer

    from fourtuple.phy.fault import LossRule

LINKTYPE_RAW = 101
"""Packets begin with their IPv4 or IPv6 header; the version field tells which."""
SNAPLEN = 262_144
"""More than any IP packet; Wireshark refuses longer ones (wiretap: WTAP_MAX_PACKET_SIZE_STANDARD)."""
# Block types.
_SHB, _IDB, _EPB = 0x0A0D0D0A, 1, 6
_BYTE_ORDER_MAGIC = 0x1A2B3C4D
# Options: of any block, then of each.
_OPT_END, _OPT_COMMENT = 0, 1
_SHB_HARDWARE, _SHB_OS, _SHB_USERAPPL = 2, 3, 4
_IF_NAME, _IF_DESCRIPTION, _IF_TSRESOL = 2, 3, 9
_EPB_FLAGS = 2
_NANOSECONDS = 9  # if_tsresol: time counts in 10^-9 s
_INBOUND, _OUTBOUND = 1, 2
_LONGEST_OPTION = 0xFFFF
_M64 = (1 << 64) - 1


class BinaryFile(Protocol):
    """What a capture is written to."""

    def write(self, data: bytes, /) -> object:
        """Take all of it."""

    def flush(self) -> object:
        """Hand it to the system."""


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("<HH", code, len(value)) + value + bytes(-len(value) % 4)


def _text(code: int, text: str) -> bytes:
    """An option of text; none for an empty one.  Cut where it would not fit, between two characters."""
    value = text.encode("utf-8", "replace")
    if len(value) > _LONGEST_OPTION:
        value = value[:_LONGEST_OPTION].decode("utf-8", "ignore").encode()
    return _option(code, value) if value else b""


def _block(kind: int, body: bytes, options: bytes) -> bytes:
    if options:
        options += _option(_OPT_END, b"")
    size = struct.pack("<I", 12 + len(body) + len(options))
    return struct.pack("<I", kind) + size + body + options + size


def section_header(hardware: str = "", system: str = "", application: str = "", comment: str = "") -> bytes:
    """The block that begins a file; its length is left open."""
    options = _text(_OPT_COMMENT, comment) + _text(_SHB_HARDWARE, hardware)
    options += _text(_SHB_OS, system) + _text(_SHB_USERAPPL, application)
    return _block(_SHB, struct.pack("<IHHq", _BYTE_ORDER_MAGIC, 1, 0, -1), options)


def interface_description(name: str, description: str = "") -> bytes:
    """The block of an interface that carries bare IP packets, timed in nanoseconds."""
    options = _text(_IF_NAME, name) + _text(_IF_DESCRIPTION, description)
    options += _option(_IF_TSRESOL, bytes((_NANOSECONDS,)))
    return _block(_IDB, struct.pack("<HHI", LINKTYPE_RAW, 0, SNAPLEN), options)


def enhanced_packet(interface: int, time_ns: int, data: bytes, outgoing: bool, comment: str = "") -> bytes:
    """The block of one packet; of one that is longer than SNAPLEN, the beginning."""
    kept = data[:SNAPLEN]
    high, low = divmod(max(0, time_ns) & _M64, 1 << 32)
    body = struct.pack("<IIIII", interface, high, low, len(kept), len(data)) + kept + bytes(-len(kept) % 4)
    flags = struct.pack("<I", _OUTBOUND if outgoing else _INBOUND)
    return _block(_EPB, body, _text(_OPT_COMMENT, comment) + _option(_EPB_FLAGS, flags))


class PcapngWriter:
    """A pcapng file being written.  `file` stays the caller's to close.

    `error`: why nothing is written any more (rule 1).  `packets`: how many were.
    """

    def __init__(self, file: BinaryFile, application: str = "fourtuple") -> None:
        self.file = file
        self.packets = 0
        self.interfaces = 0
        self.last_ns = 0
        """The latest time written."""
        self.error: OSError | None = None
        self._application = application

    def add_interface(self, name: str, description: str = "") -> int:
        """Announce an interface; its number for add_packet().  The first one begins the file."""
        if not self.interfaces:
            system = os.uname()
            self._write(section_header(system.machine, f"{system.sysname} {system.release}", self._application))
        self._write(interface_description(name, description))
        self.flush()
        self.interfaces += 1
        return self.interfaces - 1

    def add_packet(self, interface: int, time_ns: int, data: bytes, outgoing: bool, comment: str = "") -> None:
        """Append a packet."""
        self._write(enhanced_packet(interface, time_ns, data, outgoing, comment))
        self.packets += self.error is None
        self.last_ns = max(self.last_ns, time_ns)

    def flush(self) -> None:
        """Hand what was written to the system."""
        self._attempt(self.file.flush)

    def _write(self, block: bytes) -> None:
        self._attempt(lambda: self.file.write(block))

    def _attempt(self, action: Callable[[], object]) -> None:
        if self.error is not None:
            return
        try:
            action()
        except OSError as error:
            self.error = error


class PcapDevice(WrappedDevice):
    """Writes every packet of `inner` to a capture.

    `now_ns` gives the time of a packet, `captions` its comment.  To see lost packets put it round the FaultDevice and
    give that its `on_drop`.  close() and flush() write what is still held back; only close() closes the inner device.
    """

    def __init__(
        self,
        inner: Device,
        writer: PcapngWriter,
        now_ns: Callable[[], int],
        captions: Captions | None = None,
        description: str = "",
    ) -> None:
        super().__init__(inner)
        self.writer = writer
        self.captions = captions or Captions()
        self.paused = False
        """While true, packets pass unseen."""
        self._now_ns = now_ns
        self._interface = writer.add_interface(inner.name, description)
        self._arrived: list[tuple[int, bytes]] = []
        self._lost: list[tuple[bytes, str]] | None = None  # while sending: what was lost of it

    def read_batch(self, ring: WriteableBuffer, offsets: array[int], lengths: array[int], max_packets: int) -> int:
        """See Device.read_batch."""
        self.flush()
        n = self.inner.read_batch(ring, offsets, lengths, max_packets)
        if n and not self.paused:
            now, packets = self._now_ns(), _copies(ring, offsets, lengths, n)
            self._arrived = [(now, packet) for packet in packets]
            self.captions.arrived(packets)
        return n

    def write_batch(self, buf: ReadableBuffer, offsets: array[int], lengths: array[int], n: int) -> int:
        """See Device.write_batch.  What the device did not take is not written: it will be offered again."""
        self.flush()
        if self.paused:
            return self.inner.write_batch(buf, offsets, lengths, n)
        now, packets = self._now_ns(), _copies(buf, offsets, lengths, n)
        self._lost = []
        try:
            taken = self.inner.write_batch(buf, offsets, lengths, n)
            self._note_sent(now, packets[:taken], self._lost)
        finally:
            self._lost = None
        return taken

    def _note_sent(self, now: int, packets: list[bytes], lost: list[tuple[bytes, str]]) -> None:
        for packet in packets:
            comment = self.captions.sent(packet)
            if lost and lost[0][0] == packet:
                comment = _with_loss(comment, lost.pop(0)[1])
            self.writer.add_packet(self._interface, now, packet, True, comment)
        self.writer.flush()

    def on_drop(self, packet: bytes, rule: LossRule) -> None:
        """For FaultDevice: this packet was lost by that rule."""
        if self.paused:
            return
        if self._lost is not None:
            self._lost.append((packet, rule.text))
            return
        comment = _with_loss(self.captions.lost_on_arrival(packet), rule.text)
        self.writer.add_packet(self._interface, self._now_ns(), packet, False, comment)

    def flush(self) -> None:
        """Write what arrived before this call."""
        if not self._arrived:
            return
        arrived, self._arrived = self._arrived, []
        for (time_ns, packet), comment in zip(arrived, self.captions.taken(), strict=True):
            self.writer.add_packet(self._interface, time_ns, packet, False, comment)
        self.writer.flush()

    def close(self) -> None:
        """Write the rest and give the device back."""
        self.flush()
        self.inner.close()


def _with_loss(comment: str, rule: str) -> str:
    return f"{comment} · lost ({rule})" if comment else f"lost ({rule})"


def _copies(buf: ReadableBuffer, offsets: array[int], lengths: array[int], n: int) -> list[bytes]:
    view = memoryview(buf).cast("B")
    return [bytes(view[offsets[i] : offsets[i] + lengths[i]]) for i in range(n)]
