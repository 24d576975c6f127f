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
   So is each after the end of the Stack.
3. A connection that its peer has closed is gone as soon as all that it sent was read.
"""

from __future__ import annotations

import errno
import math
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import NamedTuple, TypeVar

from fourtuple.address import parse_ipv4
from fourtuple.columns import Code
from fourtuple.dial.dialer import (
    IN_FLIGHT,
    OPEN,
    PHASE,
    Dialer,
    dial_abort,
    dial_answered,
    dial_begin,
    dial_close,
    dial_close_some,
    dial_lose,
    dial_probe_some,
    dial_reset_closing,
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
"""What nothing answers for so long is not waited for with new ones: SYNs and FINs, or the answers to them, are lost."""
AT_ONCE = 256
"""Connections begun in one round: as many answers as one reads.  What lies unread for STALL_US counts as lost."""
SWEEP_US = 400_000
_LEAST_SWEEP_US = 20_000
_SLOT_US = 10_000
_ABORTED_AT_ONCE = 1024
_CLOSING_AT_ONCE = 256
_PROBES_AT_ONCE = 256
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
        return (sk_handle(sks, sk) for sk in range(1, sks.high_water + 1) if phase[sk] & PHASE == OPEN)

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
        return sks.srtt[sk] / 8 if self._dialer.phase[sk] & PHASE == OPEN else 0.0


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
        self.dialer.is_reading = True
        self.on_readable: Callable[[int], None] | None = None
        """Hears of each connection (its row) with something to read; without it data waits for recv()."""
        self._swept_us = self.runner.now_us()
        self._sweeping = False
        self._epoch_us = self._closing_before = 0
        self._is_closed = False
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

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        self._is_closed = True
        self.wire.__exit__(kind, error, traceback)

    # ------------------------------------------------------------------------------------------ one round

    def round(self, begin: int = 0) -> bool:
        """Begin connections, move packets, run timers, take events once; whether anything moved.

        `refused` is how many could not begin because the stack has no row for them (Setup.max_sockets).
        """
        now = self.runner.now_us()
        self.refused = begin - self._verb_of_dialer(dial_begin, begin, 0) if begin > 0 else 0
        moved = self.runner.pump_once() or begin > 0
        self._take_events()
        if self._sweeping or now - self._swept_us >= self._sweep_us:
            failed = self.dialer.failed
            self._sweep(now)
            moved = moved or self.dialer.failed > failed
        return moved

    def begin_again(self, routes: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
        """Begin one connection for each (index of a route, times dialed before); those for which there is no row."""
        d = self.dialer
        turn = d.next_route
        refused = []
        self.host.enter(self.runner.now_us())
        try:
            for route, redials in routes:
                d.next_route = route
                if dial_begin(d, 1, redials) == 0:
                    refused.append((route, redials))
        finally:
            d.next_route = turn
            self.host.leave()
        return refused

    def _take_events(self) -> None:
        d = self.dialer
        self._verb_of_dialer(dial_take)
        if d.readable:
            rows, d.readable = d.readable, []
            if self.on_readable is not None:
                for sk in rows:
                    self.on_readable(sk)

    def _verb_of_dialer(self, verb: Callable[..., int], *arguments: int) -> int:
        """What it sends to ourselves arrives at the end."""
        self.host.enter(max(self.runner.now_us(), self.host.now_us))
        try:
            return int(verb(self.dialer, *arguments))
        finally:
            self.host.leave()

    @property
    def _sweep_us(self) -> int:
        """Often enough for a timeout to be seen in time."""
        return min(SWEEP_US, max(self.timeout_ms * 125, _LEAST_SWEEP_US)) if self.timeout_ms else SWEEP_US

    def _sweep(self, now: int) -> None:
        if not self._sweeping:
            self._swept_us = now
        self._sweeping = self._verb_of_dialer(dial_sweep, self.timeout_ms) > 0

    def sleep(self, until_us: int) -> None:
        """Until a packet comes or a timer is due, at most until `until_us`."""
        d = self.dialer
        dues = [until_us, self._swept_us + self._sweep_us if d.in_flight else until_us]
        if self._sweeping:
            return
        if d.in_flight > d.stalled:
            dues.append((self.runner.now_us() // _SLOT_US + 1) * _SLOT_US)
        dues += [due for due in (station.next_due() for station in self.runner.stations) if due is not None]
        self.runner.sleep_until(min(dues))
        self._take_events()  # some may count as stalled now

    def wait(self, seconds: float, done: Callable[[], bool] = lambda: False) -> bool:
        """Let time pass for so long, or until `done()`; whether it was done."""
        until = self.runner.now_us() + int(seconds * 1e6)
        while not done():
            moved = self.round()
            if self.runner.now_us() >= until:
                return done()
            if not moved:
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
        OSError ENOBUFS, after all results, when the stack has no room for another connection (Setup.max_sockets).
        One at a time: RuntimeError while another is iterated.
        """
        if window < 1 or timeout < 0:
            raise ValueError("the window is at least 1, the timeout at least 0 s (TCP's own)")
        d = self.dialer
        if d.results is not None:
            raise RuntimeError("another connect_many() is not over yet: iterate it to its end, or close() it")
        if count == 0:
            return
        d.set_routes(routes_of(targets, sources, count))
        self.timeout_ms = milliseconds(timeout)
        earlier = self._in_flight() if d.in_flight else set()
        left = to_begin = count
        d.results = []
        try:
            while left:
                want = max(0, min(window - (d.in_flight - d.stalled), to_begin, AT_ONCE))
                moved = self.round(want)
                to_begin -= want - self.refused
                results, d.results = d.results, []
                for handle, error in results:
                    if handle not in earlier:
                        left -= 1
                        yield Result(handle, error)
                if self.refused and left == to_begin and not results:
                    raise OSError(errno.ENOBUFS, "no room for another connection: max_sockets is reached")
                if not results and (not moved or self.refused):
                    self.sleep(self.runner.now_us() + STALL_US)
        finally:
            d.results = None

    def _in_flight(self) -> set[int]:
        """Handles of the attempts in flight."""
        sks, phase = self.host.net.sks, self.dialer.phase
        rows = range(1, sks.high_water + 1)
        return {int(sk_handle(sks, sk)) for sk in rows if phase[sk] & PHASE == IN_FLIGHT}

    def send(self, handle: int, data: bytes) -> int:
        """send(2): how many bytes were queued, or -errno."""
        return self._verb(handle, lambda sk: int(tcp_sendmsg(self.host.net, sk, data)))

    def recv(self, handle: int, size: int = 65536) -> bytes | int:
        """recv(2): what has arrived, b"" at the end of the stream, or -errno (-EAGAIN: nothing yet).

        The end of the stream is that of the connection: it is closed on our side too.
        """
        return self._verb(handle, lambda sk: self._recv(sk, size))

    def _recv(self, sk: int, size: int) -> bytes | int:
        data: bytes | int = tcp_recvmsg(self.host.net, sk, size, 0)
        if data == b"" and size > 0:
            dial_lose(self.dialer, sk)
        return data

    def _verb(self, handle: int, verb: Callable[[int], _T]) -> _T | int:
        sk = sk_resolve(self.host.net.sks, handle)
        if sk == 0 or self._is_closed or self.dialer.phase[sk] & PHASE != OPEN:
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
        self,
        reset: bool = False,
        patience: float = 10.0,
        on_round: Callable[[], None] = lambda: None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> int:
        """Close every open connection, wait until the other side knows; how many sockets are left (0: none).

        Attempts in flight are given up.  `patience`: seconds to wait for answers to the last FIN, and for any progress
        before that.  A FIN that is answered leaves a TIME_WAIT.
        """
        self.abort()
        self.dialer.cursor = 0
        patience_us = int(patience * 1e6)
        given_up_us = self.runner.now_us() + patience_us
        while (self.sockets or self.host.has_packets()) and not should_stop():
            closed = self._close_some(reset)
            moved = self.round() or closed > 0
            on_round()
            now = self.runner.now_us()
            if closed:
                given_up_us = now + patience_us
            elif now >= given_up_us:
                break
            elif not moved:
                self.sleep(min(given_up_us, self._epoch_us + STALL_US) if self.dialer.open else given_up_us)
        return self.sockets

    def abort(self) -> None:
        """Give up all attempts in flight."""
        while self.dialer.in_flight:
            self._verb_of_dialer(dial_abort, _ABORTED_AT_ONCE)
            self.round()

    def reset_closing(self) -> int:
        """End by RST what is still being closed; how many."""
        return self._verb_of_dialer(dial_reset_closing)

    def _close_some(self, reset: bool) -> int:
        """As many as may be under way; how many.  A FIN that is not answered soon takes nobody's place."""
        d = self.dialer
        closing = self.sockets - d.open - d.in_flight
        now = self.runner.now_us()
        if now - self._epoch_us >= STALL_US or closing < self._closing_before:
            self._epoch_us, self._closing_before = now, closing
        room = _CLOSING_AT_ONCE - (closing - self._closing_before)
        if not d.open or room <= 0:
            return 0
        return self._verb_of_dialer(dial_close_some, room, reset)

    def keepalive(self, patience: float = 5.0) -> int:
        """Send a keepalive probe on every open connection; how many were answered within `patience` of the last.

        Linux answers the probes of a connection twice in a second, no more often (net.ipv4.tcp_invalid_ratelimit).
        """
        self.wait(0.002)  # the clock of ACKs counts in milliseconds: not those that came before
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
        return self._verb_of_dialer(dial_probe_some, _PROBES_AT_ONCE)

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


def milliseconds(seconds: float) -> int:
    """Rounded up: the least timeout is one too, and 0 is none."""
    return math.ceil(seconds * 1000)


def routes_of(
    targets: Iterable[tuple[str, int]], sources: Iterable[str], most: int | None = None
) -> list[tuple[int, int, int]]:
    """Every source with every target, the `most` first of them, so that neighbours differ in their target."""
    if most is not None and most < 0:
        raise ValueError(f"{most} connections: at least 0")
    from_all = [parse_ipv4(source) for source in sources] or [0]
    to_all = [(parse_ipv4(address), port) for address, port in targets]
    if wrong := [port for _, port in to_all if not 0 <= port <= 65535]:
        raise ValueError(f"{wrong[0]} is no port: 0 to 65535")
    every = ((saddr, daddr, dport) for saddr in from_all for daddr, dport in to_all)
    return list(islice(every, most))
