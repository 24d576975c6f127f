"""A dial over our own stack: open, hold, talk, close, and the report of it.

Lives here: when connections begin (window, rate, ramp, redials), the phases, what is measured.
Does not live here: a round of the stack (stack.py), what is said (talk.py), the report's form (report.py).
"""

from __future__ import annotations

import array
import errno
import gc
import math
import platform
import resource
from collections import deque
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from heapq import heappop, heappush
from pathlib import Path

import fourtuple
from fourtuple.address import format_ipv4
from fourtuple.dial.dialer import dial_count_ports
from fourtuple.dial.failures import describe
from fourtuple.dial.plan import DialPlan
from fourtuple.dial.report import Asked, Busiest, DialReport, FailureCount, Left, OnProgress, Progress, TargetCount
from fourtuple.dial.stack import AT_ONCE, Stack, milliseconds, routes_of
from fourtuple.dial.talk import Talker
from fourtuple.mib import mib_snapshot
from fourtuple.shell.wire import Wire
from fourtuple.tcp.states import TCP_SYN_SENT

CLOSE_PATIENCE_S = 10.0
"""How long the other side has to answer our last FIN."""
_TELL_US = 100_000
_MOST_REDIALS = 63  # the Dialer has six bits for it
_BACKOFF_US = 200_000  # before a connection is opened again
_PAGE = resource.getpagesize()


class Pace:
    """How many connections may begin at a time: `window` in flight, `rate` a second after a ramp."""

    def __init__(self, plan: DialPlan, start_us: int) -> None:
        self.plan = plan
        self.count = plan.connections
        self.window = plan.window
        self.rate = plan.rate
        self.ramp_us = plan.ramp_s * 1e6
        self.start_us = start_us
        self.begun = 0

    def allowed(self, busy: int, now: int) -> int:
        """With `busy` attempts that may still be answered."""
        n = min(self.window - busy, self.count - self.begun)
        if self.rate:
            n = min(n, int(self.scheduled(now)) - self.begun)
        return max(n, 0)

    def scheduled(self, now: int) -> float:
        """How many should have begun by now."""
        return self.plan.scheduled(now - self.start_us)

    def next_us(self, now: int) -> int:
        """When to look again if the rate is what stands in the way."""
        if not self.rate or self.begun >= self.count:
            return now + _TELL_US
        flat = self.begun * 1e6 / self.rate  # us, had there been no ramp
        in_ramp = flat < self.ramp_us / 2
        due = self.start_us + math.ceil(math.sqrt(2 * self.ramp_us * flat) if in_ramp else flat + self.ramp_us / 2)
        return min(due, now + 50_000) if due > now else now + 1000  # the window stands in the way


class UserDial:
    """One dial of `plan` over `wire`; run() does it, `report` is filled in on the way."""

    def __init__(
        self,
        plan: DialPlan,
        wire: Wire,
        on_progress: OnProgress | None = None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.plan = plan
        self.stack = Stack(wire, time_connects=not wire.runner.is_virtual)
        self._counted = mib_snapshot(wire.host.net.mib)
        self.dialer = self.stack.dialer
        self.dialer.is_reading = False
        self.report = DialReport(
            version=fourtuple.__version__,
            host=platform.node(),
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            stack="user",
            wire=wire.where,
            seed=plan.seed,
            asked=Asked.of(plan),
        )
        self._on_progress = on_progress
        self._should_stop = should_stop
        targets = [(target.address, target.port) for target in plan.targets]
        self._routes = routes_of(targets, plan.sources, plan.connections)
        self._failed_at: dict[tuple[int, int], int] = {}
        self._failures: dict[tuple[int, str, bool], FailureCount] = {}
        self._again: list[tuple[int, int, int]] = []  # a heap: when, route, times dialed before
        self._route_at: dict[tuple[int, int, int], int] = {}
        self._redialed = 0
        self._start_us = self._told_us = self._row_us = self.stack.runner.now_us()
        self._recent: deque[tuple[int, int]] = deque(maxlen=11)
        self.phase = "open"
        self.talker = Talker(self.stack, plan.talk) if plan.talk else None

    # ------------------------------------------------------------------------------------------ phases

    def run(self) -> DialReport:
        """All phases.  `should_stop` ends those before the close: what is open is closed, the report is whole."""
        collects = gc.isenabled()
        gc.disable()  # connections are rows, and what a FIN in flight has would be walked again and again
        try:
            return self._run()
        finally:
            if collects:
                gc.enable()

    def _run(self) -> DialReport:
        before, rss = _cpu(), resident()
        self._open()
        opened = _cpu()
        self._note_peak(rss)
        self._hold()
        self._close()
        after = _cpu()
        cpu = self.report.cpu_s
        cpu.user, cpu.system = after[0] - before[0], after[1] - before[1]
        cpu.opening = sum(opened) - sum(before)
        self._fill_in()
        return self.report

    def _open(self) -> None:
        plan, d = self.plan, self.dialer
        d.set_routes(self._routes)
        d.on_end = self._on_end
        d.is_keeping = plan.keepalive_s > 0
        self.stack.timeout_ms = milliseconds(plan.timeout_s)
        if self.talker:
            self.talker.start()
        pace = Pace(plan, self.stack.runner.now_us())
        while (pace.begun < pace.count or d.in_flight or self._again) and not self._should_stop():
            now = self.stack.runner.now_us()
            self._redial(now)
            n = min(pace.allowed(d.in_flight - d.stalled, now), AT_ONCE)
            pace.begun += n
            if not self._round(n):
                self.stack.sleep(min(pace.next_us(now), self._next_us(now)))
        self.stack.abort()
        self.report.seconds.open = self._seconds()
        self._timeline_row()

    def _round(self, begin: int) -> bool:
        d = self.dialer
        moved = self.stack.round(begin)
        if self.stack.refused:
            first, d.next_route = d.next_route, (d.next_route + self.stack.refused) % d.route_count
            self._no_room([((first + i) % d.route_count, 0) for i in range(self.stack.refused)])
        if d.open > self.report.connections.peak_open:
            self.report.connections.peak_open = d.open
        if self.talker and self.talker.round(self.stack.runner.now_us()):
            moved = True
        self._tell()
        return moved

    def _no_room(self, missing: list[tuple[int, int]]) -> None:
        """The stack has no row for these (route, times dialed before): they failed, each of them."""
        d = self.dialer
        d.begun += len(missing)
        d.failed += len(missing)
        for route, redials in missing:
            d.route_begun[route] += 1
            self._note_failure(errno.ENOBUFS, *self._routes[route][1:])
            self._dial_again(route, redials)

    def _hold(self) -> None:
        self.phase = "hold"
        start = self.stack.runner.now_us()
        until = start + int(self.plan.hold_s * 1e6)
        while self.stack.runner.now_us() < until and not self._should_stop():
            now = self.stack.runner.now_us()
            self._redial(now)
            if not self._round(0):
                self.stack.sleep(min(until, self._next_us(now)))
        if self.talker:
            self.talker.stop()
        self.report.seconds.hold = (self.stack.runner.now_us() - start) / 1e6

    def _close(self) -> None:
        """What the other side does not answer in time, or after Ctrl-C, is counted in `left`, then reset."""
        self.phase = "close"
        self._again.clear()
        start = self.stack.runner.now_us()
        was_stopped = self._should_stop()

        def should_stop() -> bool:
            return not was_stopped and self._should_stop()

        self.stack.close_all(self.plan.close == "rst", CLOSE_PATIENCE_S, self._tell, should_stop)
        if self.dialer.open:
            self.stack.close_all(reset=True, patience=0.0, on_round=self._tell)
        self._note_left()
        self.stack.reset_closing()
        self.stack.round()
        self.report.seconds.close = (self.stack.runner.now_us() - start) / 1e6
        self.report.seconds.total = self._seconds()
        self._timeline_row()

    def _note_left(self) -> None:
        net = self.stack.host.net
        of_time_waits = array.array("I", net.h.tw.timer[: net.h.tw.high_water + 1])  # 0: it needs no timer of its own
        timers = net.wheel.armed - (len(of_time_waits) - of_time_waits.count(0))
        self.report.left = Left(self.stack.sockets, timers, net.tx.count)

    # ------------------------------------------------------------------------------------------ what went wrong

    def _on_end(self, sk: int, error: int, was_open: bool, redials: int) -> None:
        """A connection failed or was lost; its row is about to be given back."""
        sks = self.stack.host.net.sks
        if was_open:
            self._count_failure(error, "open")
        else:
            ours = error == errno.ETIMEDOUT and sks.sk_state[sk] == TCP_SYN_SENT  # TCP itself would have closed it
            self._note_failure(error, sks.daddr[sk], sks.dport[sk], ours)
        if self.talker:
            self.talker.forget(sk)
        if self.plan.redial and error != errno.ECANCELED:
            self._dial_again(self._route_of(sks.saddr[sk], sks.daddr[sk], sks.dport[sk]), redials)

    def _note_failure(self, error: int, daddr: int, dport: int, ours: bool = False) -> None:
        self._failed_at[daddr, dport] = self._failed_at.get((daddr, dport), 0) + 1
        self._count_failure(error, "connect", ours)

    def _dial_again(self, route: int, redials: int) -> None:
        """After a pause that doubles, unless it was dialed often enough."""
        if redials < min(self.plan.redial, _MOST_REDIALS) and self.phase != "close":
            due = self.stack.runner.now_us() + (_BACKOFF_US << min(redials, 5))
            heappush(self._again, (due, route, redials + 1))

    def _route_of(self, saddr: int, daddr: int, dport: int) -> int:
        if not self._route_at:
            self._route_at = {route: i for i, route in enumerate(self._routes)}
        found = self._route_at.get((saddr, daddr, dport))
        return self._route_at[0, daddr, dport] if found is None else found

    def _count_failure(self, number: int, phase: str, ours: bool = False) -> None:
        """`ours`: not an error of TCP's, but the plan's timeout."""
        failure = self._failures.get((number, phase, ours))
        if failure is None:
            name, function, meaning = describe(number, phase)
            if ours:
                function, meaning = "", f"not connected within {self.plan.timeout_s:g} s, the timeout of this dial"
            failure = FailureCount(name, number, 0, phase, function, meaning, round(self._seconds(), 3))
            self._failures[number, phase, ours] = failure
        failure.count += 1

    def _redial(self, now: int) -> None:
        """Open again what is due, each to its own target."""
        due: list[tuple[int, int]] = []
        d = self.dialer
        room = self.plan.window - (d.in_flight - d.stalled)
        while self._again and self._again[0][0] <= now and len(due) < room:
            due.append(heappop(self._again)[1:])
        if due:
            self._redialed += len(due)
            self._no_room(self.stack.begin_again(due))

    def _next_us(self, now: int) -> int:
        """When there is something to do besides packets."""
        dues: Iterable[int] = (
            max(self._told_us + _TELL_US, now + 1),
            max(self._again[0][0], now + 1000) if self._again else now + _TELL_US,
            self.talker.next_us(now) if self.talker else now + _TELL_US,
        )
        return min(dues)

    # ------------------------------------------------------------------------------------------ what is told

    def _seconds(self) -> float:
        return (self.stack.runner.now_us() - self._start_us) / 1e6

    def _tell(self) -> None:
        now = self.stack.runner.now_us()
        if now - self._told_us < _TELL_US:
            return
        self._told_us = now
        if now - self._row_us >= 1_000_000:
            self._timeline_row()
        if self._on_progress is not None:
            self._on_progress(self._progress(now))

    def _progress(self, now: int) -> Progress:
        d = self.dialer
        self._recent.append((now, d.established))
        (first_us, first), (last_us, last) = self._recent[0], self._recent[-1]
        rate = (last - first) * 1e6 / (last_us - first_us) if last_us > first_us else 0.0
        return Progress(
            self._seconds(),
            self.phase,
            d.begun,
            d.in_flight,
            d.open,
            d.failed,
            rate,
            d.lost,
            d.connect_ns,
            d.handshake_ns,
        )

    def _timeline_row(self) -> None:
        self._row_us = self.stack.runner.now_us()
        d = self.dialer
        row = [round(self._seconds(), 3), d.begun, d.established, d.failed, d.open]
        self.report.timeline.append([float(value) for value in row])

    def _note_peak(self, rss_before: int) -> None:
        """What is true while the most connections are open."""
        counts = array.array("I", bytes(4 * 65536))
        is_open = dial_count_ports(self.dialer, counts)
        most = max(counts)
        self.report.ports.distinct = 65536 - counts.count(0)
        self.report.ports.busiest = Busiest(counts.index(most) if most else 0, most)
        rss = resident()
        memory = self.report.memory
        memory.rss_mb, memory.rss_growth_mb = rss / 2**20, (rss - rss_before) / 2**20
        memory.bytes_per_connection = (rss - rss_before) / is_open if is_open else 0.0

    def _fill_in(self) -> None:
        d, report = self.dialer, self.report
        counts = report.connections
        counts.begun, counts.established, counts.failed = d.begun, d.established, d.failed
        counts.lost, counts.redialed, counts.closed = d.lost, self._redialed, d.closed
        report.failures = sorted(self._failures.values(), key=lambda failure: -failure.count)
        report.times.connect_us, report.times.handshake_us = d.connect_ns, d.handshake_ns
        report.passed_over = d.passed_over
        report.syn.sent_again_connections, report.syn.sent_again_segments = d.resent, d.resent_segments
        report.targets = self._targets()
        grown = {name: n - self._counted[name] for name, n in mib_snapshot(self.stack.host.net.mib).items()}
        report.counters = {name: n for name, n in grown.items() if n}
        if self.talker:
            report.talk, report.times.response_us = self.talker.count, self.talker.response_ns

    def _targets(self) -> list[TargetCount]:
        """Every attempt that did not fail was established."""
        begun: dict[tuple[int, int], int] = {}
        for i, (_, daddr, dport) in enumerate(self._routes):
            begun[daddr, dport] = begun.get((daddr, dport), 0) + self.dialer.route_begun[i]
        return [
            TargetCount(format_ipv4(daddr), dport, n - self._failed_at.get((daddr, dport), 0), failed)
            for (daddr, dport), n in begun.items()
            for failed in (self._failed_at.get((daddr, dport), 0),)
        ]


def run_user(
    plan: DialPlan,
    wire: Wire,
    on_progress: OnProgress | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> DialReport:
    """Carry out `plan` over our stack on an open wire, which is left open."""
    return UserDial(plan, wire, on_progress, should_stop).run()


def resident() -> int:
    """Resident set of this process, bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE


def _cpu() -> tuple[float, float]:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime, usage.ru_stime
