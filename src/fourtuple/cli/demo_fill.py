"""The last chapter of the demo: a range filled to EADDRNOTAVAIL, and what each connect() costs, ours and the kernel's.

Rule: like is compared with like.  Both are non-blocking connect() calls to a remote peer: port search, SYN built and
queued.  No handshake and no device is in the time of either.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from fourtuple.address import parse_ipv4
from fourtuple.cli.chart import Series, nanoseconds, render_chart
from fourtuple.cli.demo import SERVER, Stage
from fourtuple.cli.render import paragraph
from fourtuple.cli.story import explanation_lines, summary_lines, trace_lines
from fourtuple.cli.terminal import Line
from fourtuple.doctor.words import grouped
from fourtuple.kernel_map import FN__INET_HASH_CONNECT
from fourtuple.sock.af_inet import pack_sockaddr_in, sockaddr_in
from fourtuple.sock.syscall import SOCK_NONBLOCK, SOCK_STREAM

if TYPE_CHECKING:
    from fourtuple.shell.wires import Wire

LOW, HIGH = 40_000, 44_095
_BATCH = 64
_FAILURES = 5


@dataclass(frozen=True)
class Filled:
    """One durations list: ns of each success, in order, and of the failure that ended it."""

    ns: Sequence[int]
    errno: int
    last_ns: int
    ports: Sequence[int] = ()
    """Which port each success got."""

    @property
    def three(self) -> tuple[float, float, float]:
        """The median below half, the median past half, and the failure."""
        middle = len(self.ns) // 2
        return median(self.ns[:middle]), median(self.ns[middle:]), float(self.last_ns)


def full_range(stage: Stage) -> None:
    """Fill, measure, draw; then look at the connect() that fails."""
    from fourtuple.cli.attempt import Request

    ports = HIGH - LOW + 1
    stage.chapter(
        f"A range of {grouped(ports)} ports, filled",
        "The kernel looks at the ports of one parity first. Past half full, each connect() walks all of them in vain: "
        "the 50 % cliff. Ours finds the same port, in the same order, without the walk.",
    )
    with stage.open(ports=f"{LOW} {HIGH}") as wire:
        ours = fill(wire, stage)
        kernel = _kernel_fill(wire, stage)
        attempt = stage.attempt(wire, Request(*SERVER))
    if stage.page is not None:
        stage.page.ours, stage.page.kernel, stage.page.ports = ours, kernel, (LOW, HIGH)
    curves = [Series("kernel", kernel.ns, "odd", "k")] if kernel else []
    stage.print(*render_chart([*curves, Series("ours", ours.ns, "good", "o")], stage.out, 8, "in use"))
    stage.print([], *_comparison(ours, kernel, stage))
    stage.print([], *trace_lines(attempt, stage.out, start=FN__INET_HASH_CONNECT), [])
    stage.print(*summary_lines(attempt, stage.out), [], *explanation_lines(attempt, stage.out))


def fill(wire: Wire, stage: Stage) -> Filled:
    """Connect to the server until no port is left; every connection is really made and held."""
    host, runner = wire.host, wire.runner
    address = pack_sockaddr_in(parse_ipv4(SERVER[0]), SERVER[1])
    clock = time.perf_counter_ns
    wire.tap.limit = 0
    durations: list[int] = []
    ports: list[int] = []
    while True:
        fd = host.sys_socket(type=SOCK_STREAM | SOCK_NONBLOCK, now=runner.now_us())
        start = clock()
        code = host.sys_connect(fd, address)
        took = clock() - start
        if code != -errno.EINPROGRESS:
            wire.tap.limit = 1000
            return Filled(durations, -code, _time_failures(wire, fd, address), ports)
        durations.append(took)
        ports.append(_local_port(wire, fd))
        if len(durations) % _BATCH == 0:
            runner.pump()
            stage.progress.say(f"connecting: {grouped(len(durations))} of {grouped(HIGH - LOW + 1)} ports …")


def _local_port(wire: Wire, fd: int) -> int:
    name = wire.host.sys_getsockname(fd)
    return sockaddr_in(name)[1] if isinstance(name, bytes) else 0


def _time_failures(wire: Wire, fd: int, address: bytes) -> int:
    """The median of a few, as the kernel's: a search in vain changes nothing, and one call may be a hiccup."""
    clock = time.perf_counter_ns
    durations: list[int] = []
    for _ in range(_FAILURES):
        start = clock()
        wire.host.sys_connect(fd, address)
        durations.append(clock() - start)
    return round(median(durations))


def _kernel_fill(wire: Wire, stage: Stage) -> Filled | None:
    """The same done by the kernel in the namespace; None where there is none."""
    if wire.namespace is None:
        return None
    stage.progress.say("the kernel does the same …")
    result = wire.namespace.request("fill", low=LOW, high=HIGH)
    return Filled(result["ns"], result["errno"], result["last_ns"], result["ports"])


def _comparison(ours: Filled, kernel: Filled | None, stage: Stage) -> list[Line]:
    """Three numbers each: below half, above half, when full."""
    head = ("", "below half", "past half", "EADDRNOTAVAIL")
    rows = [("●", "k", "kernel", "odd", kernel)] if kernel else []
    rows.append(("●", "o", "ours", "good", ours))
    lines: list[Line] = [[("".join(text.rjust(15) if i else text.ljust(12) for i, text in enumerate(head)), "dim")]]
    for dot, letter, name, style, filled in rows:
        mark = dot if stage.out.boxes else letter
        lines.append(
            [(f"   {mark} {name}".ljust(12), style), ("".join(nanoseconds(ns).rjust(15) for ns in filled.three), "")]
        )
    if kernel:
        ratios = [theirs / max(1.0, mine) for theirs, mine in zip(kernel.three, ours.three, strict=True)]
        lines.append([("".ljust(12), ""), ("".join(f"×{ratio:.1f}".rjust(15) for ratio in ratios), "dim")])
    lines += paragraph(_note(kernel), stage.out.width, 3, "dim")
    return [[(stage.out.glyphs(text), style) for text, style in line] for line in lines]


def _note(kernel: Filled | None) -> str:
    what = "one non-blocking connect(): port search, SYN built; no handshake, no device"
    return what if kernel else what + "; the kernel's cost needs a real wire"
