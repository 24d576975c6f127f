"""What is counted while kernel sockets are dialed, and the report that comes of it.

Lives here: counters, histograms, memory and CPU.  Does not live here: the sockets' life (kernel.py).

Rule: files in /proc that are read while descriptors may have run out are opened at the start.
"""

from __future__ import annotations

import os
import resource
import socket
import time
from collections import Counter
from collections.abc import Iterable

from fourtuple.dial import kernel_socket
from fourtuple.dial.failures import describe
from fourtuple.dial.histogram import Histogram, hist_record
from fourtuple.dial.kernel_socket import Connection
from fourtuple.dial.plan import DialPlan
from fourtuple.dial.preflight import SOCKET_BYTES
from fourtuple.dial.report import (
    MOST_ROWS,
    Asked,
    Busiest,
    Connections,
    Cpu,
    DialReport,
    FailureCount,
    Left,
    Memory,
    Ports,
    Progress,
    Seconds,
    Syn,
    TargetCount,
    Times,
    coarsened,
)
from fourtuple.live.system import read_counters

SELF_CONNECT = "self-connect"
"""In place of the call that failed."""
# A socket, its inode, file, dentry, bind buckets (bhash, bhash2), place in an epoll set.
_OBJECTS = ("TCP", "sock_inode_cache", "filp", "dentry", "tcp_bind_bucket", "tcp_bind2_bucket", "eventpoll_epi")
_MIB = 1 << 20
_MOST_ROWS = 4 * MOST_ROWS


class Count:
    """The counters of one dial."""

    def __init__(self, plan: DialPlan) -> None:
        self.plan = plan
        self.connections = Connections()
        self.open = self.in_flight = 0
        self.connect_ns = Histogram()
        self.handshake_ns = Histogram()
        self.syn = Syn()
        self._failures: dict[tuple[int, str, tuple[str, str] | None], FailureCount] = {}
        self._targets = [TargetCount(target.address, target.port) for target in plan.targets]
        self._timeline: list[list[float]] = []
        self._last = (0.0, 0)
        self._open_s = self._opening_cpu = 0.0
        self._ports: Counter[int] = Counter()
        self._memory = MemoryMeter()
        self._counters = counters()
        self._cpu = _cpu()
        self._date = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())

    def close(self) -> None:
        """Whatever happened; calling it again does nothing."""
        self._memory.close()

    # ---------------------------------------------------------------------------------------- as it happens

    def begun(self) -> None:
        self.connections.begun += 1
        self.in_flight += 1

    def opened(self, connection: Connection, sock: socket.socket, now_ns: int) -> None:
        """It is established: how long that took is the kernel's own round trip, unless a SYN was sent again."""
        self.in_flight -= 1
        self.open += 1
        self.connections.established += 1
        self.connections.peak_open = max(self.connections.peak_open, self.open)
        self._targets[connection.route.target].established += 1
        rtt_us, resent = kernel_socket.rtt_and_resent(sock)
        if resent:
            self._sent_again(resent)
        hist_record(self.handshake_ns, now_ns - connection.began_ns if resent else rtt_us * 1000)

    def failed(self, connection: Connection, call: str, code: int, seconds: float, ours: bool) -> None:
        """`ours`: not an error of the kernel's, but the plan's timeout."""
        self.in_flight -= 1
        self.connections.failed += 1
        self._targets[connection.route.target].failed += 1
        if connection.sock is not None:
            resent = kernel_socket.rtt_and_resent(connection.sock)[1]
            if resent:
                self._sent_again(resent)
        self._note(code, "connect", seconds, self._why(call, ours))

    def _sent_again(self, segments: int) -> None:
        self.syn.sent_again_connections += 1
        self.syn.sent_again_segments += segments

    def _why(self, call: str, ours: bool) -> tuple[str, str] | None:
        """Function and meaning, where the errno alone does not tell."""
        if ours:
            return "", f"not connected within {self.plan.timeout_s:g} s, the timeout of this dial"
        if call == SELF_CONNECT:
            return "tcp_rcv_synsent_state_process", "nobody listens there: the socket was connected to itself"
        if call == "bind":
            return "__inet_bind", "the source address is not one of this machine"
        return None

    def lost(self, code: int, seconds: float) -> None:
        """By an error, or (0) by the peer's FIN."""
        self.open -= 1
        self.connections.lost += 1
        self._note(code, "open", seconds, None)

    def _note(self, code: int, phase: str, seconds: float, why: tuple[str, str] | None) -> None:
        known = self._failures.get((code, phase, why))
        if known is None:
            name, *told = describe(code, phase)
            function, meaning = why or told
            known = FailureCount(name, code, 0, phase, function, meaning, round(seconds, 6))
            self._failures[code, phase, why] = known
        known.count += 1

    def redialed(self) -> None:
        self.connections.redialed += 1

    def closed(self) -> None:
        self.open -= 1
        self.connections.closed += 1

    def progress(self, seconds: float, phase: str) -> Progress:
        """Where it is; a row of the timeline too."""
        c = self.connections
        self._timeline.append([round(seconds, 3), c.begun, c.established, c.failed, self.open])
        if len(self._timeline) > _MOST_ROWS:
            self._timeline = coarsened(self._timeline)
        self._memory.look()
        then, before = self._last
        self._last = seconds, c.established
        rate = (c.established - before) / (seconds - then) if seconds > then else 0.0
        return Progress(
            seconds,
            phase,
            c.begun,
            self.in_flight,
            self.open,
            c.failed,
            rate,
            c.lost,
            self.connect_ns,
            self.handshake_ns,
        )

    # ---------------------------------------------------------------------------------------- the report

    def end_of_open(self, seconds: float, open_ones: Iterable[Connection]) -> None:
        """The CPU time first: asking each socket for its port is not part of opening it."""
        user, system = _cpu()
        self._opening_cpu = user - self._cpu[0] + system - self._cpu[1]
        self._open_s = seconds
        self._memory.look()
        self._ports.update(kernel_socket.local_port(each.sock) for each in open_ones if each.sock and each.is_open)

    def finished(self, held_s: float, total_s: float, left: int) -> DialReport:
        """The report.  `left`: sockets that should be closed."""
        user, system = _cpu()
        busiest = self._ports.most_common(1)
        return DialReport(
            version=_version(),
            host=socket.gethostname(),
            date=self._date,
            stack="kernel",
            seed=None,
            asked=Asked.of(self.plan),
            connections=self.connections,
            failures=sorted(self._failures.values(), key=lambda each: -each.count),
            seconds=Seconds(self._open_s, held_s - self._open_s, total_s - held_s, total_s),
            cpu_s=Cpu(user - self._cpu[0], system - self._cpu[1], self._opening_cpu),
            times=Times(self.connect_ns, self.handshake_ns),
            syn=self.syn,
            memory=self._memory.report(self.connections.peak_open),
            ports=Ports(len(self._ports), Busiest(*busiest[0]) if busiest else Busiest()),
            targets=self._targets,
            counters=_grown(self._counters, counters()),
            left=Left(sockets=left),
            timeline=coarsened(self._timeline),
        )


class MemoryMeter:
    """This process's RSS, and what the kernel keeps for its sockets, which is in no process's RSS."""

    def __init__(self) -> None:
        self._statm = open("/proc/self/statm", "rb", buffering=0)  # noqa: SIM115 (closed by close())
        self._rss = self._most = self._read()
        self._each = socket_bytes()

    def look(self) -> None:
        """What it is now may be the most."""
        self._most = max(self._most, self._read())

    def _read(self) -> int:
        return int(os.pread(self._statm.fileno(), 128, 0).split()[1]) * resource.getpagesize()

    def report(self, peak: int) -> Memory:
        """With `peak` sockets."""
        grown = self._most - self._rss
        each = grown / peak + self._each if peak else 0.0
        return Memory(self._most / _MIB, grown / _MIB, each, peak, peak * self._each / _MIB)

    def close(self) -> None:
        self._statm.close()


def socket_bytes() -> int:
    """What the kernel keeps for one: its objects with their share of a slab, as this kernel has them if it tells root.

    The growth of all slabs would be less where freed objects are used again, and more by what others do.
    """
    try:
        with open("/proc/slabinfo") as file:
            rows = [line.split() for line in file]
    except OSError:
        return SOCKET_BYTES
    sizes = {row[0]: int(row[5]) * resource.getpagesize() // max(1, int(row[4])) for row in rows if row[1].isdigit()}
    return sum(sizes[name] for name in _OBJECTS) if sizes.keys() >= set(_OBJECTS) else SOCKET_BYTES


def counters() -> dict[str, int]:
    """Those of TCP in the namespace of the calling thread."""
    return read_counters([])


def _grown(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    """`TcpExt.TCPSynRetrans`; those that only count, and have moved."""
    moved = {name.replace(":", "."): value - before.get(name, 0) for name, value in after.items()}
    return {name: value for name, value in moved.items() if value > 0 and not name.endswith("CurrEstab")}


def _cpu() -> tuple[float, float]:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime, used.ru_stime


def _version() -> str:
    import fourtuple

    return fourtuple.__version__
