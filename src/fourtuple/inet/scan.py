"""The port search as the kernel's loop runs it: the readable reference, and the explanation of a choice.

Looks only; nothing is taken.  inet/hashtables.py finds the same port without the walk, a property test holds the two
equal.  A trace runs this one, to say of every port looked at which rule passed it over.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING

from fourtuple.inet.dest import tw_is_ripe, tw_may_ever_reuse
from fourtuple.inet.flags import CONNECT_BIND
from fourtuple.inet.portset import RESERVED, portset_test
from fourtuple.inet.tuple_index import index_first, index_next
from fourtuple.kernel_map import (
    FN_PORT_LOOK,
    LOOK_BUCKET_BOUND,
    LOOK_ESTABLISHED,
    LOOK_FREE,
    LOOK_JOINED,
    LOOK_RESERVED,
    LOOK_TIME_WAIT,
    LOOK_TW_REUSED,
)
from fourtuple.trace import trace

if TYPE_CHECKING:
    from fourtuple.inet.hashinfo import InetHashinfo

_M32 = 0xFFFFFFFF
_GOOD = (LOOK_FREE, LOOK_JOINED, LOOK_TW_REUSED)

Visit = Callable[[int, int, int], None]


def scan_ports(h: InetHashinfo, sk: int, offset: int, now_us: int, visit: Visit | None = None) -> tuple[int, int]:
    """(port, distance walked) of the first port that may be had, or (-EADDRNOTAVAIL, 0).

    `h.range` holds the numbers, `offset` the first start; `visit(port, verdict, detail)` hears of every port.
    """
    found = _scan_pass(h, sk, offset, now_us, visit)
    if found is None and h.range.step == 2 and h.range.remaining > 1:
        found = _scan_pass(h, sk, offset + 1, now_us, visit)
    return found if found is not None else (-errno.EADDRNOTAVAIL, 0)


def _scan_pass(h: InetHashinfo, sk: int, offset: int, now_us: int, visit: Visit | None) -> tuple[int, int] | None:
    numbers = h.range
    stride = numbers.stride or numbers.step
    port = numbers.low + offset
    for distance in range(0, numbers.remaining, numbers.step):
        if port >= numbers.high:
            port -= numbers.remaining
        verdict, detail = look_at(h, sk, port, now_us)
        if visit is not None:
            visit(port, verdict, detail)
        if verdict in _GOOD:
            return port, distance
        port += stride
    return None


def look_at(h: InetHashinfo, sk: int, port: int, now_us: int) -> tuple[int, int]:
    """What the search finds at one port: (LOOK_* verdict, detail)."""
    bind = h.bind
    if portset_test(bind.sets, RESERVED, port):
        return LOOK_RESERVED, 0
    if bind.owners[port] == 0:
        return LOOK_FREE, 0
    if bind.fastreuse[port] >= 0 or bind.fastreuseport[port] >= 0:
        return LOOK_BUCKET_BOUND, _binder(h, port)
    return _look_at_tuple(h, sk, port, now_us)


def _binder(h: InetHashinfo, port: int) -> int:
    """An owner that connect() did not bind."""
    for owner in h.bind.owner_list(port):
        flags = h.tw.flags[owner >> 1] if owner & 1 else h.sks.flags[owner >> 1]
        if not flags & CONNECT_BIND:
            return owner
    return 0


def _look_at_tuple(h: InetHashinfo, sk: int, port: int, now_us: int) -> tuple[int, int]:
    """Every 4-tuple in the way has to give it up; the last one asked is reported."""
    sks = h.sks
    found = LOOK_JOINED, h.bind.head[port]
    entry = index_first(h.ehash, sks.saddr[sk], sks.daddr[sk], port, sks.dport[sk])
    while entry:
        row = entry >> 1
        bound = h.tw.bound_dev[row] if entry & 1 else sks.bound_dev[row]
        if bound in (0, sks.bound_dev[sk]):
            found = _look_at_time_wait(h, row, now_us) if entry & 1 else (LOOK_ESTABLISHED, entry)
            if found[0] != LOOK_TW_REUSED:
                break
        entry = index_next(h.ehash)
    return found


def _look_at_time_wait(h: InetHashinfo, tw: int, now_us: int) -> tuple[int, int]:
    now_ms = now_us // 1000 & _M32
    if tw_may_ever_reuse(h.dests, tw) and tw_is_ripe(h.dests, tw, now_ms):
        return LOOK_TW_REUSED, now_ms - h.tw.entry_ms[tw] & _M32
    return LOOK_TIME_WAIT, max(0, h.tw.due_us[tw] - now_us) // 1000


def explain_search(h: InetHashinfo, sk: int, offset: int, now_us: int) -> None:
    """Record in h.tracer every port that the search of sk looks at."""
    tracer = h.tracer
    assert tracer is not None

    def visit(port: int, verdict: int, detail: int) -> None:
        trace(tracer, FN_PORT_LOOK, sk, port, verdict, detail)

    scan_ports(h, sk, offset, now_us, visit)
