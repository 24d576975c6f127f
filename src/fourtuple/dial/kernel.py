"""run_kernel(): a dial with kernel sockets, set up so that they meet neither the 50 % cliff nor themselves.

Lives here: the loop: begin, wait, take events, hold, close.  Does not live here: one socket (kernel_socket.py), another
network namespace (kernel_child.py), counting (kernel_count.py).

Rules
1. A socket is in `_connections` from connect() until it failed, was lost or was closed; whatever ends the dial, all are
   closed.
2. begun = in flight + failed + established; established = open + lost + closed.
3. Nothing waits but the epoll, and that not beyond the next thing to do.
"""

from __future__ import annotations

import errno
import resource
import select
import time
from collections import deque
from collections.abc import Callable
from contextlib import closing
from itertools import islice

from fourtuple.dial import kernel_socket
from fourtuple.dial.histogram import hist_record
from fourtuple.dial.kernel_count import SELF_CONNECT, Count
from fourtuple.dial.kernel_socket import Connection, Route, Setup
from fourtuple.dial.kernel_talk import KernelTalker
from fourtuple.dial.plan import DialPlan
from fourtuple.dial.report import DialReport, OnProgress
from fourtuple.live.netns import find_netns
from fourtuple.live.socket_options import WHOLE_RANGE, read_port_range

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fourtuple.live.netns import Spec

ShouldStop = Callable[[], bool]

_FRESH_NS = 20_000_000  # a handshake that takes longer than this waits for a SYN that is sent again
_BACKOFF_NS = 200_000_000  # before a connection is opened again
_TICK_NS = 100_000_000
_CLOSE_AT_ONCE = 256
_S = 1_000_000_000
# tcp_reset: in SYN_SENT it is ECONNREFUSED, so with these the connection was there before.
_RESET_LATER = (errno.ECONNRESET, errno.EPIPE)
_EDGES = select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET
_GONE = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR


def run_kernel(
    plan: DialPlan,
    on_progress: OnProgress | None = None,
    should_stop: ShouldStop | None = None,
    *,
    netns: Spec = None,
    is_private: bool = False,
    step_1: bool = False,
) -> DialReport:
    """Carry out `plan` with kernel sockets.  Blocks; `should_stop` is asked ten times a second and more.

    netns       where the sockets are: a pid, a name, a path; None: here
    is_private  that namespace is ours: sources that it does not have are added to its lo, plan.range becomes its
                ip_local_port_range.  Elsewhere plan.range is an IP_LOCAL_PORT_RANGE on each socket, within the
                namespace's own range
    step_1      IP_LOCAL_PORT_RANGE on each socket (Linux 6.3): the port search has no cliff at half of the range

    Another namespace is entered by a process of its own (kernel_child.py).  Raises CannotRead when it may not be.
    """
    if netns is None and not is_private:
        report = KernelDial(plan, on_progress, should_stop, step_1).run()
    else:
        from fourtuple.dial.kernel_child import run_in_child

        report = run_in_child(plan, on_progress, should_stop, netns, is_private, step_1)
    report.wire = _wire(is_private, netns)
    return report


def _wire(is_private: bool, netns: Spec) -> str:
    """A phrase for people."""
    if is_private:
        return "lo, private network namespace"
    return "this network namespace" if netns is None else f"network namespace {find_netns(netns).label}"


class KernelDial:
    """One dial.  `range_is_set`: plan.range is the namespace's own already."""

    def __init__(
        self,
        plan: DialPlan,
        on_progress: OnProgress | None = None,
        should_stop: ShouldStop | None = None,
        step_1: bool = False,
        range_is_set: bool = False,
        clock: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        self.plan = plan
        self._on_progress = on_progress
        self._should_stop = should_stop or (lambda: False)
        self._clock = clock
        option = None if range_is_set else plan.range
        self._setup = Setup(option or (WHOLE_RANGE if step_1 else None), plan.keepalive_s)
        self._routes = routes(plan)
        self._next_route = 0
        self._meets_itself = _meets_itself(plan)
        self._connections: dict[int, Connection] = {}
        self._redials: deque[tuple[int, Route, int]] = deque()
        self._fresh: deque[Connection] = deque()
        self._by_age: deque[Connection] = deque()
        self._fresh_count = self._started = 0
        self._is_stopped = False
        self._talker = KernelTalker(plan.talk, clock) if plan.talk else None
        self._edges = _EDGES | (select.EPOLLIN if plan.talk else 0)
        self._phase = "open"
        self._start_ns = self._tick_ns = 0

    def run(self) -> DialReport:
        """From the first connect() to the last close()."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        try:
            with select.epoll() as self._epoll, closing(Count(self.plan)) as self.count:
                return self._run()
        finally:
            for connection in self._connections.values():
                if connection.sock:
                    connection.sock.close()
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    def _run(self) -> DialReport:
        count = self.count
        self._start_ns = self._tick_ns = self._clock()
        self._open()
        count.end_of_open(self._seconds(), self._connections.values())
        self._enter("hold")
        self._hold()
        held = self._seconds()
        self._enter("close")
        self._close_all()
        self._tick(self._clock())
        report = count.finished(held, self._seconds(), len(self._connections))
        if self._talker:
            report.talk, report.times.response_us = self._talker.count, self._talker.response_ns
        return report

    # ---------------------------------------------------------------------------------------- phases

    def _open(self) -> None:
        """Until every connection is open or has failed for good."""
        while not self._is_stopped and (self._left or self.count.in_flight):
            self._turn(None)
        if self._is_stopped:
            self._give_up()

    @property
    def _left(self) -> int:
        """Connections to begin."""
        return self.plan.connections - self._started + len(self._redials)

    def _hold(self) -> None:
        end = self._clock() + int(self.plan.hold_s * _S)
        while not self._is_stopped and self._clock() < end and self._has_any:
            self._turn(end)
        self._give_up()

    @property
    def _has_any(self) -> bool:
        return bool(self._connections or self._redials)

    def _close_all(self) -> None:
        reset = self.plan.close == "rst"
        while self._connections:
            for connection in list(islice(self._connections.values(), _CLOSE_AT_ONCE)):
                self._drop(connection, reset)
                self.count.closed()
            self._tick_if_due()

    def _give_up(self) -> None:
        """Attempts in flight, when there is no time left for them."""
        self._redials.clear()
        for connection in [each for each in self._connections.values() if not each.is_open]:
            self._fail(connection, "connect", errno.ECANCELED)
        self._redials.clear()

    def _enter(self, phase: str) -> None:
        self._phase = phase
        self._tick(self._clock())

    # ---------------------------------------------------------------------------------------- a turn

    def _turn(self, end: int | None) -> None:
        """Begin what may begin, wait for events at most until something is due, take them."""
        now = self._clock()
        self._end_old(now)
        self._redial_due(now)
        for _ in range(self._may_begin(now)):
            self._started += 1
            self._begin(self._routes[self._next_route], 0)
            self._next_route = (self._next_route + 1) % len(self._routes)
            if self._clock() - self._tick_ns >= _TICK_NS:  # a search that finds no port takes milliseconds
                break
        for fd, events in self._epoll.poll(self._patience(end)):
            connection = self._connections.get(fd)
            if connection is not None:  # an earlier event of this round may have ended it
                self._take(connection, events)
        if self._talker:
            self._talker.round(self._clock(), self.count.open, self._connections.values())
        self._tick_if_due()

    def _may_begin(self, now: int) -> int:
        room = self.plan.window - self._fresh_count
        allowed = allowed_by(self.plan, (now - self._start_ns) / _S)
        return max(0, min(room, allowed - self._started))

    def _patience(self, end: int | None) -> float:
        """Seconds until there is something to do but events."""
        now = self._clock()
        until = min(self._tick_ns + _TICK_NS, end or self._tick_ns + _TICK_NS)
        if self._redials:
            until = min(until, self._redials[0][0])
        if self._talker:
            until = min(until, now + self._talker.patience_ns(self.count.open))
        if self._started < self.plan.connections and self._fresh_count < self.plan.window:
            until = min(until, now + int(_S / self.plan.rate) if self.plan.rate else now)
        elif self._started < self.plan.connections:
            until = min(until, self._fresh[0].began_ns + _FRESH_NS)
        return max(0.0, (until - now) / _S)

    def _end_old(self, now: int) -> None:
        """Old handshakes leave the window; those beyond the timeout end."""
        while self._fresh and (now - self._fresh[0].began_ns >= _FRESH_NS or not self._fresh[0].is_fresh):
            self._age(self._fresh.popleft())
        limit = int(self.plan.timeout_s * _S)
        while limit and self._by_age and (now - self._by_age[0].began_ns >= limit or not _in_flight(self._by_age[0])):
            connection = self._by_age.popleft()
            if _in_flight(connection):
                self._fail(connection, "connect", errno.ETIMEDOUT, ours=True)

    def _age(self, connection: Connection) -> None:
        if connection.is_fresh:
            connection.is_fresh = False
            self._fresh_count -= 1

    # ---------------------------------------------------------------------------------------- one connection

    def _redial_due(self, now: int) -> None:
        """Open again what is due, each to its own target."""
        while self._redials and self._redials[0][0] <= now and self._fresh_count < self.plan.window:
            _, route, redials = self._redials.popleft()
            self.count.redialed()
            self._begin(route, redials)

    def _begin(self, route: Route, redials: int) -> None:
        connection = Connection(route, redials)
        self.count.begun()
        connection.began_ns = self._clock()
        call, code, ns = kernel_socket.connect(connection, self._setup, self._clock)
        if call == "connect":
            hist_record(self.count.connect_ns, ns)
        if code or connection.sock is None:
            self._fail(connection, call, code)
            return
        self._watch(connection, connection.sock.fileno())

    def _watch(self, connection: Connection, fd: int) -> None:
        self._connections[fd] = connection
        connection.is_fresh = True
        self._fresh_count += 1
        self._fresh.append(connection)
        if self.plan.timeout_s:
            self._by_age.append(connection)
        self._epoll.register(fd, self._edges)

    def _take(self, connection: Connection, events: int) -> None:
        sock = connection.sock
        assert sock is not None
        code = 0
        if not connection.is_open:
            code = kernel_socket.pending_error(sock)
            if (code and code not in _RESET_LATER) or (self._meets_itself and kernel_socket.is_itself(sock)):
                self._fail(connection, "connect" if code else SELF_CONNECT, code or errno.ECONNREFUSED)
                return
            self._age(connection)
            connection.is_open = True
            self.count.opened(connection, sock, self._clock())
        ended = self._talker.readable(connection) if self._talker and events & select.EPOLLIN else None
        if ended is not None or events & _GONE:
            self._lose(connection, code or ended or kernel_socket.pending_error(sock))

    def _fail(self, connection: Connection, call: str, code: int, ours: bool = False) -> None:
        self._age(connection)
        self.count.failed(connection, call, code, self._seconds(), ours)
        self._drop(connection, call == SELF_CONNECT)
        self._redial(connection)

    def _lose(self, connection: Connection, code: int) -> None:
        """Ended by the peer: an error, or (0) its FIN."""
        self.count.lost(code, self._seconds())
        self._drop(connection, False)
        self._redial(connection)

    def _redial(self, connection: Connection) -> None:
        if connection.redials < self.plan.redial and not self._is_stopped:
            due = self._clock() + (_BACKOFF_NS << min(connection.redials, 5))
            self._redials.append((due, connection.route, connection.redials + 1))

    def _drop(self, connection: Connection, reset: bool) -> None:
        sock, connection.sock = connection.sock, None
        if sock is not None:
            self._connections.pop(sock.fileno(), None)
            if self._talker:
                self._talker.forget(connection)
            kernel_socket.close(sock, reset)

    # ---------------------------------------------------------------------------------------- time

    def _seconds(self) -> float:
        return (self._clock() - self._start_ns) / _S

    def _tick_if_due(self) -> None:
        now = self._clock()
        if now - self._tick_ns >= _TICK_NS:
            self._tick(now)

    def _tick(self, now: int) -> None:
        self._tick_ns = now
        progress = self.count.progress(self._seconds(), self._phase)
        if self._on_progress is not None:
            self._on_progress(progress)
        self._is_stopped = self._is_stopped or self._should_stop()


def routes(plan: DialPlan) -> list[Route]:
    """Every source with every target, targets in turn first."""
    return [
        Route(source, target.address, target.port, number)
        for source in plan.sources or ("",)
        for number, target in enumerate(plan.targets)
    ]


def allowed_by(plan: DialPlan, seconds: float) -> int:
    """How many connections may have begun after `seconds`."""
    return min(plan.connections, int(plan.scheduled(seconds * 1e6))) if plan.rate else plan.connections


def _in_flight(connection: Connection) -> bool:
    return connection.sock is not None and not connection.is_open


def _meets_itself(plan: DialPlan) -> bool:
    """Whether a target's port may be chosen as the local one; in doubt it may."""
    try:
        low, high = read_port_range()
    except (OSError, ValueError):
        return True
    return any(low <= target.port <= high for target in plan.targets)
