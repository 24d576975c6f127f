"""Stack: our TCP client stack on an open wire, for very many connections: no object and no descriptor each.

    with Stack.open() as stack:
        for result in stack.connect_many([("10.64.0.1", 8080)], 1000):
            if result.errno == 0:
                stack.send(result.handle, b"hello")
        stack.wait(0.1)
        print(len(stack.connections), stack.connections.rtt_us(result.handle))

Lives here: one round of packets, timers, new connections and events; the verbs on connections by handle.
Does not live here: what a round does in the engine (dialer.py), how many connections a dial wants and when (user.py).

Rules
1. One thread.  Nothing happens unless a method runs: connect_many() while it is iterated, wait(), close_all().
2. A handle is a row with its generation: one that is kept too long is -ENOTCONN, never somebody else's connection.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, TypeVar

from fourtuple.address import parse_ipv4
from fourtuple.columns import Code
from fourtuple.dial.dialer import (
    OPEN,
    Dialer,
    dial_answered,
    dial_begin,
    dial_close,
    dial_close_some,
    dial_probe_some,
    dial_sweep,
    dial_take,
)
from fourtuple.inet.sock_table import sk_handle, sk_resolve
from fourtuple.shell.loop import Station
from fourtuple.shell.wire import Setup, Wire
from fourtuple.tcp.net import tcp_jiffies
from fourtuple.tcp.recvmsg import tcp_recvmsg
from fourtuple.tcp.sendmsg import tcp_sendmsg

STALL_US = 20_000
"""Attempts that nothing answers for so long are not waited for with new ones: their SYNs or the answers are lost."""
SWEEP_US = 400_000
_CLOSING_AT_ONCE = 256
_PROBES_AT_ONCE = 256
_PHASE = 3
_T = TypeVar("_T")


class Result(NamedTuple):
    """One attempt: `errno` is 0 for a connection."""

    handle: int
    errno: int


class Connections:
    """The live connections as read-only columns, one item a row: `column("sport")[handle & 0xFFFFFFFF]`.

    Nothing is copied: a column is a memoryview of the engine's own memory, which numpy.frombuffer() takes too.
    `phase` is 2 in the rows that are open; other rows are not connections, whatever the other columns say.
    """

    NAMES: tuple[tuple[str, Code], ...] = (
        ("saddr", "I"), ("daddr", "I"), ("sport", "H"), ("dport", "H"), ("sk_state", "B"), ("srtt", "I"),
        ("snd_cwnd", "I"), ("total_retrans", "H"),
    )  # fmt: skip
    """Column and format: addresses and ports in host order, srtt in 1/8 us."""

    def __init__(self, dialer: Dialer) -> None:
        self._dialer = dialer

    def __len__(self) -> int:
        return self._dialer.open

    def __iter__(self) -> Iterator[int]:
        """Handles of the open connections."""
        sks = self._dialer.net.sks
        phase = self._dialer.phase
        return (sk_handle(sks, sk) for sk in range(1, sks.high_water + 1) if phase[sk] & _PHASE == OPEN)

    @property
    def rows(self) -> int:
        """Rows 1 to this one have ever been used."""
        return int(self._dialer.net.sks.high_water)

    def column(self, name: str) -> memoryview:
        """A column of NAMES, or `phase`: read-only, from row 0 (which is never used) to the last row used."""
        if name != "phase" and name not in dict(self.NAMES):
            raise KeyError(f"no column {name!r}: phase, {', '.join(known for known, _ in self.NAMES)}")
        whole = memoryview(self._dialer.phase) if name == "phase" else self._dialer.net.sks.columns[name]
        return whole[: self.rows + 1].toreadonly()

    def rtt_us(self, handle: int) -> float:
        """Smoothed round trip of one connection in us; 0 when it is gone."""
        sks = self._dialer.net.sks
        sk = sk_resolve(sks, handle)
        return sks.srtt[sk] / 8 if sk else 0.0


class Stack:
    """See the module.  `wire` is an open wire of shell/wires.py and is closed with the Stack."""

    def __init__(self, wire: Wire, time_connects: bool = False) -> None:
        self.wire = wire
        self.runner = wire.runner
        self.host = wire.host
        self.station: Station = self.runner.stations[0]
        if wire.setup.capture is None:
            self.station.device = wire.tap.inner  # a tap keeps every packet: nobody asks for them here
        clock = time.perf_counter_ns if time_connects else None
        self.dialer = Dialer(self.host.net, [(0, 0, 0)], clock, None)
        self.connections = Connections(self.dialer)
        self.on_readable: Callable[[int], None] | None = None
        """Hears of each connection (its row) with something to read; without it data waits in the engine."""
        self._swept_us = self._moved_us = self.runner.now_us()
        self.refused = 0
        self.timeout_ms = 0
        """Of an attempt; 0: TCP's own."""

    @classmethod
    def open(cls, wire: str = "auto", setup: Setup | None = None) -> Stack:
        """Open a wire and a Stack on it.  WireUnavailable when this machine does not let us."""
        from fourtuple.shell.wires import open_wire

        return cls(open_wire(wire, setup or Setup()))

    def __enter__(self) -> Stack:
        return self

    def __exit__(self, *exception: object) -> None:
        self.wire.close()

    # ------------------------------------------------------------------------------------------ one round

    def round(self, begin: int = 0, redials: int = 0) -> bool:
        """Begin connections, move packets, run timers, take events once; whether anything moved.

        `refused` is how many could not begin because the stack has no row for them (Setup.max_sockets).
        """
        now = self.runner.now_us()
        self.refused = begin - self._begin(begin, redials, now) if begin > 0 else 0
        moved = self.runner.pump_once() or begin > 0
        self._take_events()
        if moved:
            self._moved_us = now
        elif now - self._moved_us >= STALL_US:
            self.dialer.stalled = self.dialer.in_flight
        if now - self._swept_us >= SWEEP_US:
            self._sweep(now)
        return moved

    def _begin(self, n: int, redials: int, now: int) -> int:
        self.host.enter(now)
        try:
            return int(dial_begin(self.dialer, n, redials))
        finally:
            self.host.leave()

    def _take_events(self) -> None:
        d = self.dialer
        dial_take(d)
        if d.stalled > d.in_flight:
            d.stalled = d.in_flight
        if d.readable and self.on_readable is not None:
            rows, d.readable = d.readable, []
            for sk in rows:
                self.on_readable(sk)

    def _sweep(self, now: int) -> None:
        self._swept_us = now
        dial_sweep(self.dialer, self.timeout_ms)

    def sleep(self, until_us: int) -> None:
        """Until a packet comes or a timer is due, at most until `until_us`."""
        dues = [until_us, self._swept_us + SWEEP_US if self.dialer.in_flight else until_us]
        if self.dialer.in_flight > self.dialer.stalled:
            dues.append(self._moved_us + STALL_US)
        dues += [due for due in (station.next_due() for station in self.runner.stations) if due is not None]
        self.runner.sleep_until(min(dues))

    def wait(self, seconds: float, done: Callable[[], bool] = lambda: False) -> bool:
        """Let time pass for so long, or until `done()`; whether it was done."""
        until = self.runner.now_us() + int(seconds * 1e6)
        while not done():
            if not self.round():
                if self.runner.now_us() >= until:
                    return done()
                self.sleep(until)
        return True

    # ------------------------------------------------------------------------------------------ connections

    def connect_many(
        self,
        targets: Iterable[tuple[str, int]],
        count: int,
        *,
        sources: Iterable[str] = (),
        window: int = 128,
        timeout: float = 0.0,
    ) -> Iterator[Result]:
        """Open `count` connections to `targets` in turn, `window` at a time; each result as it comes.

        `sources`: addresses of ours to connect from, in turn.  `timeout`: seconds for one attempt (0: TCP's own).
        Whoever stops iterating stops dialing; attempts in flight go on with the next call of any method.
        OSError ENOBUFS when the stack has no room for another connection (Setup.max_sockets).
        """
        d = self.dialer
        d.set_routes(routes_of(targets, sources))
        self.timeout_ms = int(timeout * 1000)
        d.results = []
        goal = d.begun + count
        try:
            while d.begun < goal or d.in_flight or d.results:
                want = min(window - (d.in_flight - d.stalled), goal - d.begun)
                moved = self.round(max(want, 0))
                if self.refused:
                    raise OSError(errno.ENOBUFS, "no room for another connection: max_sockets is reached")
                results, d.results = d.results, []
                for handle, error in results:
                    yield Result(handle, error)
                if not moved and not results:
                    self.sleep(self.runner.now_us() + STALL_US)
        finally:
            d.results = None

    def send(self, handle: int, data: bytes) -> int:
        """send(2): how many bytes were queued, or -errno."""
        return self._verb(handle, lambda sk: int(tcp_sendmsg(self.host.net, sk, data)))

    def recv(self, handle: int, size: int = 65536) -> bytes | int:
        """recv(2): what has arrived, b"" at the end of the stream, or -errno (-EAGAIN: nothing yet)."""
        return self._verb(handle, lambda sk: tcp_recvmsg(self.host.net, sk, size, 0))

    def _verb(self, handle: int, verb: Callable[[int], _T]) -> _T | int:
        sk = sk_resolve(self.host.net.sks, handle)
        if sk == 0 or self.dialer.phase[sk] & _PHASE != OPEN:
            return -errno.ENOTCONN
        self.host.enter(self.runner.now_us())
        try:
            return verb(sk)
        finally:
            self.host.leave()

    def close(self, handle: int, reset: bool = False) -> int:
        """close(2) of one connection, by FIN or by RST: 0, or -ENOTCONN."""
        return self._verb(handle, lambda sk: int(dial_close(self.dialer, sk, reset)))

    def close_all(
        self, reset: bool = False, patience: float = 10.0, on_round: Callable[[], None] = lambda: None
    ) -> int:
        """Close every open connection, wait until the other side knows; how many sockets are left (0: none).

        `patience`: seconds without any progress after which it gives up.  A FIN that is answered leaves a TIME_WAIT.
        """
        self.dialer.cursor = 0
        given_up_us = self.runner.now_us() + int(patience * 1e6)
        left = self.sockets
        while left:
            self._close_some(reset)
            moved = self.round()
            on_round()
            now = self.runner.now_us()
            if self.sockets < left:
                left, given_up_us = self.sockets, now + int(patience * 1e6)
            elif now >= given_up_us:
                break
            elif not moved and not self.dialer.open:
                self.sleep(given_up_us)
        return self.sockets

    def _close_some(self, reset: bool) -> None:
        closing = self.sockets - self.dialer.open - self.dialer.in_flight
        if self.dialer.open and closing < _CLOSING_AT_ONCE:
            self.host.enter(self.runner.now_us())
            dial_close_some(self.dialer, _CLOSING_AT_ONCE - closing, reset)
            self.host.leave()

    def keepalive(self, patience: float = 5.0) -> int:
        """Send a keepalive probe on every open connection; how many were answered within `patience` of the last."""
        since = tcp_jiffies(self.host.net)
        self.dialer.cursor = 0
        while self._probe_some():
            self.round()
        until = self.runner.now_us() + int(patience * 1e6)
        while self.runner.now_us() < until:
            if self.round():
                continue
            if self._answered(since) >= self.dialer.open:
                break
            self.sleep(min(until, self.runner.now_us() + STALL_US))
        return self._answered(since)

    def _probe_some(self) -> int:
        self.host.enter(self.runner.now_us())
        try:
            return int(dial_probe_some(self.dialer, _PROBES_AT_ONCE))
        finally:
            self.host.leave()

    def _answered(self, since_ms: int) -> int:
        return int(dial_answered(self.dialer, since_ms))

    @property
    def sockets(self) -> int:
        """Rows in use: connections, attempts, and those that are being closed; no TIME_WAITs."""
        return int(self.host.net.sks.used)

    @property
    def time_waits(self) -> int:
        """TIME_WAITs of ours."""
        return int(self.host.net.h.tw.used)


def routes_of(targets: Iterable[tuple[str, int]], sources: Iterable[str]) -> list[tuple[int, int, int]]:
    """Every source with every target, so that neighbours differ in their target."""
    from_all = [parse_ipv4(source) for source in sources] or [0]
    to_all = [(parse_ipv4(address), port) for address, port in targets]
    return [(saddr, daddr, dport) for saddr in from_all for daddr, dport in to_all]
