"""Blocking drivers: they move packets between a Host and its device and let time pass until a call is over.

Lives here: Station (a Host on a device), Runner (what every driver does), PollRunner (a real device, real time).
Does not live here: simulated time (sim_loop.py), asyncio, sockets for other programs.

Rules
1. One thread.  Nothing happens to a Host outside of a call of its Runner.
2. A call returns a value or -errno, as the Host's verb does, and never a Wait.
3. Order of one round: timers that are due, packets to send, packets that arrived; until nothing moves.
"""

from __future__ import annotations

import errno
import select
from array import array
from collections.abc import Callable

from fourtuple.address import parse_ipv4
from fourtuple.clock import MonotonicClock
from fourtuple.host import Host
from fourtuple.phy.device import HEADROOM, Device, next_due
from fourtuple.sock.af_inet import pack_sockaddr_in
from fourtuple.sock.wait import Outcome, Wait

_BATCH = 256
_MOST_SELECT = 1024  # FD_SETSIZE
_EXACT_US = 50_000  # 0.1 % of it is the slack that every sleep has (prctl(2), PR_SET_TIMERSLACK)


class Station:
    """A Host on a device: packets out leave from the Host's own queue, packets in pass through a buffer here."""

    def __init__(self, host: Host, device: Device, is_real_time: bool = False) -> None:
        self.host = host
        self.device = device
        self.is_real_time = is_real_time
        self.is_blocked = False
        """Whether the device has refused packets, which wait in the Host."""
        self._rx = bytearray(_BATCH * (device.mtu + HEADROOM))
        self._rx_offsets, self._rx_lengths = array("I", bytes(4 * _BATCH)), array("I", bytes(4 * _BATCH))

    def pump(self, now: int) -> bool:
        """Take what arrived, run timers, send what there is; whether anything moved.

        Packets come first: an ACK that lies in the device must not find its segment sent again.
        """
        received = self._receive(now)
        due = self.host.next_timeout()
        timed = due is not None and due <= now
        if timed:
            self.host.handle_timeout(now, late=self.is_real_time)
        return self._transmit() or timed or received

    def _receive(self, now: int) -> bool:
        n = self.device.read_batch(self._rx, self._rx_offsets, self._rx_lengths, _BATCH)
        if n:
            self.host.receive(self._rx, self._rx_offsets, self._rx_lengths, n, now, self.device.name)
        return n > 0

    def _transmit(self) -> bool:
        taken = self.host.transmit_to(self.device.write_batch)
        self.is_blocked = self.host.has_packets()
        return taken > 0

    @property
    def is_waiting(self) -> bool:
        """Whether the Host has packets that the device has not refused."""
        return self.host.has_packets() and not self.is_blocked

    def next_due(self) -> int | None:
        """When the Host or the device wants to be called again."""
        dues = [due for due in (self.host.next_timeout(), next_due(self.device)) if due is not None]
        return min(dues, default=None)


class Runner:
    """Drives Hosts until a call of the first one is over.  `stations[0]` is ours; `apps` are called in every round.

    Addresses are (text, port).  A subclass says what time it is and how to sleep.
    """

    is_virtual = False

    def __init__(self, stations: list[Station]) -> None:
        self.stations = stations
        self.host = stations[0].host
        self.apps: list[Callable[[int], bool]] = []

    def now_us(self) -> int:
        """The time of this wire."""
        raise NotImplementedError

    def sleep_until(self, when: int | None) -> bool:
        """Sleep until `when` (None: for ever) or until a packet may have come; False: nothing will ever happen."""
        raise NotImplementedError

    def pump(self) -> None:
        """Let everything happen that can happen now."""
        while self.pump_once():
            pass

    def pump_once(self) -> bool:
        now = self.now_us()
        moved = False
        for station in self.stations:
            moved = station.pump(now) or moved
        for app in self.apps:
            moved = app(now) or moved
        return moved

    def run_until(self, done: Callable[[], bool], deadline_us: int | None = None) -> bool:
        """Let time pass until `done()`, at most until `deadline_us`; whether it is done."""
        while True:
            self.pump()
            if done():
                return True
            if any(station.is_waiting for station in self.stations):
                continue  # done() tried a call again, and it sent something
            if deadline_us is not None and self.now_us() >= deadline_us:
                return False
            dues = [due for due in (station.next_due() for station in self.stations) if due is not None]
            if deadline_us is not None:
                dues.append(deadline_us)
            if not self.sleep_until(min(dues, default=None)):
                return False

    def finish(self, outcome: Outcome) -> Outcome:
        """The result of a system call, slept for if it is a Wait.  -EDEADLK: it would sleep for ever (simulation)."""
        if not isinstance(outcome, Wait):
            self.pump()
            return outcome
        wait = outcome
        while True:
            self.run_until(lambda: self._is_over(wait), wait.deadline_us)
            if wait.is_done() or self._is_over(wait):
                return wait.result
            if wait.deadline_us is None or self.now_us() < wait.deadline_us:
                return -errno.EDEADLK

    def _is_over(self, wait: Wait) -> bool:
        wait.poll(max(self.now_us(), self.host.now_us))
        return wait.is_done()

    # ------------------------------------------------------------------------------------------ system calls

    def socket(self) -> int:
        """A blocking TCP socket: its descriptor, or -errno."""
        return self.host.sys_socket(now=self.now_us())

    def bind(self, fd: int, address: tuple[str, int]) -> int:
        """bind(2)."""
        return self.host.sys_bind(fd, _sockaddr(address), now=self.now_us())

    def connect(self, fd: int, address: tuple[str, int]) -> int:
        """connect(2), slept through to its end: 0 or -errno."""
        result: int = self.finish(self.host.sys_connect(fd, _sockaddr(address), now=self.now_us()))
        return result

    def send(self, fd: int, data: bytes) -> int:
        """send(2) until everything is queued: the number of bytes, or -errno."""
        sent = 0
        while sent < len(data):
            n: int = self.finish(self.host.sys_send(fd, data[sent:], now=self.now_us()))
            if n < 0:
                return n
            sent += n
        return sent

    def recv(self, fd: int, size: int = 65536) -> bytes | int:
        """recv(2): bytes (b'' at the end), or -errno."""
        result: bytes | int = self.finish(self.host.sys_recv(fd, size, now=self.now_us()))
        return result

    def close(self, fd: int) -> int:
        """close(2); what it sends leaves."""
        result: int = self.finish(self.host.sys_close(fd, now=self.now_us()))
        return result


class PollRunner(Runner):
    """One Host on one real device with a descriptor, in real time."""

    def __init__(self, host: Host, device: Device) -> None:
        super().__init__([Station(host, device, is_real_time=True)])
        fd = device.fileno()
        if fd is None:
            raise ValueError(f"{device.name} has no descriptor to wait for")
        self._clock = MonotonicClock()
        self._fd = fd
        self._poll = select.poll() if fd >= _MOST_SELECT else None

    def now_us(self) -> int:
        return self._clock.now_us()

    def sleep_until(self, when: int | None) -> bool:
        """See Runner.  By select(2), which counts in microseconds: poll(2) would be up to a millisecond late.

        A long sleep ends a little early and the rest is slept in the next round: the kernel may be late by 0.1 % of
        what was asked for, a millisecond in a second (fs/select.c:select_estimate_accuracy).
        """
        left_us = None if when is None else max(0, when - self.now_us())
        if left_us is not None and left_us > _EXACT_US:
            left_us -= left_us // 500
        is_blocked = self.stations[0].is_blocked
        if self._poll is None:
            select.select([self._fd], [self._fd] if is_blocked else [], [], None if left_us is None else left_us / 1e6)
        else:
            self._poll.register(self._fd, select.POLLIN | (select.POLLOUT if is_blocked else 0))
            self._poll.poll(None if left_us is None else -(-left_us // 1000))
        return True


def _sockaddr(address: tuple[str, int]) -> bytes:
    return pack_sockaddr_in(parse_ipv4(address[0]), address[1])
