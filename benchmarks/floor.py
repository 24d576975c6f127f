"""What CI holds to: a few ratios between programs run in turn, with generous margins, in less than a minute.

Each check is short, and is repeated when it fails: a shared machine may spoil one run, a regression spoils all.
`python -m benchmarks floor` prints one line a check and ends with 1 when one failed three times.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from statistics import median

from benchmarks import connections, handshakes, live_sockets
from benchmarks.kernel_search import DEVICE, PEERS, Kernel
from benchmarks.native import Native
from benchmarks.ports import World
from benchmarks.report import medians
from fourtuple.shell.netns import PrivateNamespace

TRIES = 3
_FILLING = 75.0


@dataclass(frozen=True)
class Check:
    """`measure` gives figures that must be at least, or at most, their limit."""

    measure: Callable[[], list[float]]
    limits: tuple[tuple[str, str, float], ...]
    """What it is, ">=" or "<=", the limit; one for each figure."""


def search() -> list[float]:
    """The kernel's search past half of the range, and ours: how many times more it takes."""
    with (
        PrivateNamespace.start(tun=DEVICE, kernel_address="10.88.0.1/16") as namespace,
        Native("kernel_search", namespace.pid, PEERS[0], 443) as program,
    ):
        kernel = Kernel(program, False)
        kernel.fill(_FILLING)
        world = World(_FILLING)
        p95s: list[float] = []
        (connect, rest, ours), _ = medians(
            [partial(kernel.connect_ns, p95s), kernel.bound_ns, partial(world.search_ns, 5000)], 3
        )
    return [(connect - rest) / ours]


def clients() -> list[float]:
    """CPU of the minimal C client and of the kernel's C client, each divided by ours."""
    with ExitStack() as stack:
        runs = handshakes.compare(handshakes.clients(stack, python=False), 5_000, 6)
    ours = handshakes.OURS
    return [median(one[name][1] / one[ours][1] for one in runs) for name in (handshakes.MINIMAL_C, handshakes.KERNEL_C)]


def memory() -> list[float]:
    """Bytes of an idle connection, and the slowest call in ms."""
    n = 200_000
    pause = connections.child("pauses", n)
    return [connections.child("speed", n)["bytes_each"], max(pause["connect_us"], pause["receive_us"]) / 1000]


def reading() -> list[float]:
    """`ss` divided by our reading of the same 20,000 sockets, CPU."""
    with PrivateNamespace.start(tun=live_sockets.DEVICE) as namespace, ExitStack() as stack:
        sockets = live_sockets.Sockets(namespace.pid, stack)
        sockets.grow(live_sockets.PER_DESTINATION)
        runs = [(sockets.ours(), sockets.ss()) for _ in range(5)]
    return [median(ss.call / ours.call for ours, ss in runs)]


CHECKS = (
    Check(search, (("the kernel's search past half / ours", ">=", 500),)),
    Check(
        clients,
        (("minimal C's CPU for a handshake / ours", ">=", 0.6), ("the kernel's C client's / ours", ">=", 1.0)),
    ),
    Check(memory, (("bytes of an idle connection", "<=", 180), ("slowest call, ms of CPU", "<=", 20))),
    Check(reading, (("ss / our reading of 20,000 sockets, CPU", ">=", 1.2),)),
)


def holds(value: float, sign: str, limit: float) -> bool:
    return value >= limit if sign == ">=" else value <= limit


def run(checks: tuple[Check, ...] = CHECKS) -> int:
    """Exit code: 0, or 1 when a check failed every time.  What this machine does not allow is said and passed over."""
    failed = 0
    for check in checks:
        try:
            failed += not _passes(check)
        except OSError as error:
            what = "; ".join(what for what, _, _ in check.limits)
            print(f"skip  {what}: not measured here: {error.strerror or error}", file=sys.stderr, flush=True)
    if failed:
        print(f"floor: {failed} of {len(checks)} checks failed {TRIES} times: a regression", file=sys.stderr)
    return 1 if failed else 0


def _passes(check: Check) -> bool:
    for attempt in range(1, TRIES + 1):
        values = check.measure()
        lines = [_line(value, *limit) for value, limit in zip(values, check.limits, strict=True)]
        if all(holds(value, sign, limit) for value, (_, sign, limit) in zip(values, check.limits, strict=True)):
            print("\n".join(f"ok    {line}" for line in lines), flush=True)
            return True
        again = "" if attempt == TRIES else "; measured again"
        print("\n".join(f"short {line}{again}" for line in lines), file=sys.stderr, flush=True)
    return False


def _line(value: float, what: str, sign: str, limit: float) -> str:
    return f"{what}: {value:,.3g}, floor {sign} {limit:g}"
