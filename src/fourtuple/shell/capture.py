"""What `-w` needs between a capture file and a wire: the time of its packets, and whose trace names them.

Lives here: Capture.  Does not live here: the format (phy/pcapng.py), the comments (phy/captions.py), the file.

Rule: on a simulated wire time is the engine's, which begins at 1,000 s after 1970; several such wires in one file
follow each other, each beginning at a whole second.  On a real wire time is the machine's.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from fourtuple.phy.captions import TraceCaptions
from fourtuple.phy.device import Device
from fourtuple.phy.pcapng import PcapDevice, PcapngWriter
from fourtuple.shell.loop import Runner
from fourtuple.trace import Tracer

_SECOND_NS = 1_000_000_000


class Capture:
    """Puts one wire into a pcapng file: give it to Setup.  For another wire make another one with the same writer."""

    def __init__(self, writer: PcapngWriter, description: str = "") -> None:
        self.writer = writer
        self.description = description
        """Of the interface, for people."""
        self._device: PcapDevice | None = None
        self._runner: Runner | None = None
        self._now_ns: Callable[[], int] = time.time_ns

    def wrap(self, device: Device, profile: str) -> PcapDevice:
        """The device with its packets captured; call watch() before the first of them."""
        captions = TraceCaptions(self._tracer, profile)
        self._device = PcapDevice(device, self.writer, lambda: self._now_ns(), captions, self.description)
        return self._device

    def watch(self, runner: Runner) -> None:
        """Time and trace come from here."""
        self._runner = runner
        self._now_ns = self._virtual_clock(runner) if runner.is_virtual else _wall_clock()

    def _virtual_clock(self, runner: Runner) -> Callable[[], int]:
        behind = self.writer.last_ns - runner.now_us() * 1000
        ahead = 0 if behind < 0 or not self.writer.packets else (behind // _SECOND_NS + 1) * _SECOND_NS
        return lambda: runner.now_us() * 1000 + ahead

    def _tracer(self) -> Tracer | None:
        return None if self._runner is None else self._runner.host.net.tracer

    def flush(self) -> None:
        """Write what is still held back."""
        if self._device is not None:
            self._device.flush()


def _wall_clock() -> Callable[[], int]:
    """The date, in steps of the monotonic clock: it does not jump while we look."""
    offset = time.time_ns() - time.monotonic_ns()
    return lambda: time.monotonic_ns() + offset
