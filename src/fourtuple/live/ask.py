"""Questions to the loaded tables: what the port search finds at each port, and from each start.

Lives here: asking, and counting the answers.  Does not live here: loading (tables.py), any rule of the search: each
answer is one of inet/hashtables.py.  Asking changes nothing.
"""

from __future__ import annotations

from fourtuple.columns import allocate_columns
from fourtuple.inet.hashtables import _inet_check_established, search_port, set_search_range, tcp_twsk_unique
from fourtuple.inet.portset import RESERVED, portset_test
from fourtuple.inet.tuple_index import index_first, index_insert, index_next
from fourtuple.kernel_map import (
    LOOK_BUCKET_BOUND,
    LOOK_ESTABLISHED,
    LOOK_FREE,
    LOOK_JOINED,
    LOOK_RESERVED,
    LOOK_TIME_WAIT,
    LOOK_TW_REUSED,
)
from fourtuple.live.tables import Tables

_RESERVED = RESERVED
_LOOK_RESERVED, _LOOK_BOUND, _LOOK_ESTABLISHED = LOOK_RESERVED, LOOK_BUCKET_BOUND, LOOK_ESTABLISHED
_LOOK_TIME_WAIT, _LOOK_REUSED, _LOOK_FREE, _LOOK_JOINED = LOOK_TIME_WAIT, LOOK_TW_REUSED, LOOK_FREE, LOOK_JOINED
_SPAN = 65_538  # room for the ports, and for the sum behind the last one of each parity


class Census:
    """Sockets by state of some destinations: `counts[16 * i + state]` of the i-th of them."""

    __slots__ = ("slot_of", "counts", "views")

    def __init__(self, t: Tables, dests: list[int]) -> None:
        self.views = allocate_columns((("slot_of", "I"),), t.h.dests.high_water + 1)
        self.views |= allocate_columns((("counts", "I"),), 16 * (len(dests) + 1))
        self.slot_of, self.counts = self.views["slot_of"], self.views["counts"]
        for i, dest in enumerate(dests):
            self.views["slot_of"][dest] = i + 1

    def by_state(self, i: int) -> dict[int, int]:
        """State -> sockets, states that occur only."""
        counts = self.views["counts"]
        return {state: n for state in range(16) if (n := counts[16 * (i + 1) + state])}


class Walk:
    """What ask_every_start() found: how many ports each start passes over (histogram), and of which kinds in all."""

    __slots__ = ("views", "starts", "failed", "most", "passed", "skips", "conflicts", "time_waits", "histogram", "sums")

    def __init__(self) -> None:
        self.views = allocate_columns((("histogram", "I"), ("sums", "I")), 3 * _SPAN)
        self.histogram = self.views["histogram"]
        self.sums = self.views["sums"]
        self.starts = 0
        self.failed = 0
        self.most = 0
        self.passed = 0
        self.skips = 0
        self.conflicts = 0
        self.time_waits = 0


def prepare_probe(t: Tables, saddr: int, daddr: int, dport: int, device: int, option: tuple[int, int] | None) -> None:
    """Make the probe a socket that wants to connect there; `option` is its IP_LOCAL_PORT_RANGE."""
    sks = t.h.sks
    sks.saddr[t.probe], sks.daddr[t.probe], sks.dport[t.probe] = saddr, daddr, dport
    sks.bound_dev[t.probe] = device
    low, high = option or (0, 0)
    sks.opts[t.probe] = sks.options.replaced(0, port_low=low, port_high=high)
    set_search_range(t.h, t.probe)


def look_at_ports(t: Tables, sk: int, low: int, high: int) -> None:
    """verdict[port] = LOOK_* for low..high: what the search of sk finds there (as inet/scan.py:look_at).

    Where the engine has a map of the destination nothing is looked up: 28,000 look-ups in the ehash of half a million
    sockets are 10 ms.
    """
    search_port(t.h, sk, 0, t.now_us)  # finds the destination and brings its map up to date
    _put_back(t)
    mapped = t.h.range.unbound == 0 and (t.h.range.own == 0 or t.h.range.own_map != 0)
    port = low
    while port <= high:
        t.verdict[port] = _look_at(t, sk, port, mapped)
        port += 1
    if mapped and t.h.range.own != 0:
        _mark_time_waits(t, t.h.range.own)


def _look_at(t: Tables, sk: int, port: int, mapped: bool) -> int:
    if portset_test(t.h.sets, _RESERVED, port):
        return _LOOK_RESERVED
    if t.h.bind.owners[port] == 0:
        return _LOOK_FREE
    if t.h.bind.bound[port] != 0:
        return _LOOK_BOUND
    if mapped:
        return _LOOK_ESTABLISHED if portset_test(t.h.sets, t.h.range.own_map, port) else _LOOK_JOINED
    if _inet_check_established(t.h, sk, port, True, t.now_us) == 0:
        if t.h.tw_recycled == 0:
            return _LOOK_JOINED
        _put_back(t)
        return _LOOK_REUSED
    return _who_holds(t, sk, port)


def _mark_time_waits(t: Tables, dest: int) -> None:
    """A map says which ports may be had; which of them are TIME_WAITs is in the destination's list."""
    tw = t.h.dests.tw_head[dest]
    while tw != 0:
        port = t.h.tw.num[tw]
        if t.verdict[port] == _LOOK_ESTABLISHED:
            t.verdict[port] = _LOOK_TIME_WAIT
        elif t.verdict[port] == _LOOK_JOINED:
            t.verdict[port] = _LOOK_REUSED
        tw = t.h.tw.dest_next[tw]


def _put_back(t: Tables) -> None:
    """A search takes the TIME_WAIT that it reuses out of the ehash; this was only a question."""
    if t.h.tw_recycled != 0:
        index_insert(t.h.ehash, t.h.tw_recycled << 1 | 1)
        t.h.tw_recycled = 0


def _who_holds(t: Tables, sk: int, port: int) -> int:
    """ESTABLISHED or TIME_WAIT: the first that stands in the way on a port that the search may not have."""
    dev = t.h.sks.bound_dev[sk]
    entry = index_first(t.h.ehash, t.h.sks.saddr[sk], t.h.sks.daddr[sk], port, t.h.sks.dport[sk])
    while entry != 0:
        bound = t.h.tw.bound_dev[entry >> 1] if entry & 1 else t.h.sks.bound_dev[entry >> 1]
        if (bound == 0 or bound == dev) and not (entry & 1 and tcp_twsk_unique(t.h, entry >> 1, True, t.now_us)):
            return _LOOK_TIME_WAIT if entry & 1 else _LOOK_ESTABLISHED
        entry = index_next(t.h.ehash)
    return _LOOK_ESTABLISHED


def ask_every_start(t: Tables, w: Walk, sk: int) -> None:
    """Ask the port search of sk from each start it may have; t.verdict is that of sk, and t.h.range is set.

    passed counts ports as the kernel walks them: the whole first parity when the port is of the second.
    """
    step = t.h.range.step
    _clear(w)
    _sum_kinds(t, w)
    offset = 0
    while offset < t.h.range.remaining:
        port = search_port(t.h, sk, offset, t.now_us)
        _put_back(t)
        w.starts += 1
        if port < 0:
            w.failed += 1
            passed = t.h.range.remaining
        else:
            second = step == 2 and (port - t.h.range.low - offset) & 1 != 0
            passed = t.h.last_distance // step
            if second:
                passed += (t.h.range.remaining + 1) >> 1
            _add_kinds(t, w, offset, port, second)
        w.histogram[passed] += 1
        w.passed += passed
        if passed > w.most:
            w.most = passed
        offset += step
    if w.failed != 0:
        _add_all_kinds(t, w)


def _clear(w: Walk) -> None:
    passed = 0
    while passed <= w.most:
        w.histogram[passed] = 0
        passed += 1
    w.starts = 0
    w.failed = 0
    w.most = 0
    w.passed = 0
    w.skips = 0
    w.conflicts = 0
    w.time_waits = 0


def _sum_kinds(t: Tables, w: Walk) -> None:
    """sums: how many ports of a kind there are below a port, of its parity if the search goes by parity."""
    step = t.h.range.step
    low = t.h.range.low
    high = t.h.range.high
    at = low
    while at < low + step:
        w.sums[at] = 0
        w.sums[_SPAN + at] = 0
        w.sums[2 * _SPAN + at] = 0
        at += 1
    port = low
    while port < high:
        at = port + step
        w.sums[at] = w.sums[port]
        w.sums[_SPAN + at] = w.sums[_SPAN + port]
        w.sums[2 * _SPAN + at] = w.sums[2 * _SPAN + port]
        if t.verdict[port] == _LOOK_RESERVED or t.verdict[port] == _LOOK_BOUND:
            w.sums[at] += 1
        elif t.verdict[port] == _LOOK_ESTABLISHED:
            w.sums[_SPAN + at] += 1
        elif t.verdict[port] == _LOOK_TIME_WAIT:
            w.sums[2 * _SPAN + at] += 1
        port += 1


def _add_kinds(t: Tables, w: Walk, offset: int, port: int, second: bool) -> None:
    """The kinds of ports between the start and the port found."""
    first = t.h.range.low + offset
    if second:
        first += 1
        w.skips += _whole_parity(t, w, 0, offset)
        w.conflicts += _whole_parity(t, w, _SPAN, offset)
        w.time_waits += _whole_parity(t, w, 2 * _SPAN, offset)
    w.skips += _between(t, w, 0, first, port)
    w.conflicts += _between(t, w, _SPAN, first, port)
    w.time_waits += _between(t, w, 2 * _SPAN, first, port)


def _end(t: Tables, first: int) -> int:
    """The first number behind the range that is of the parity of `first` (step 2), or just behind it."""
    if t.h.range.step == 2 and (t.h.range.high - first) & 1:
        return t.h.range.high + 1
    return t.h.range.high


def _whole_parity(t: Tables, w: Walk, kind: int, offset: int) -> int:
    return w.sums[kind + _end(t, t.h.range.low + offset)]


def _between(t: Tables, w: Walk, kind: int, first: int, port: int) -> int:
    """Ports of a kind from first on to before port, round the end of the range if need be."""
    if port >= first:
        return w.sums[kind + port] - w.sums[kind + first]
    return w.sums[kind + _end(t, first)] - w.sums[kind + first] + w.sums[kind + port]


def _add_all_kinds(t: Tables, w: Walk) -> None:
    """A failed search has looked at everything; both parities if it goes by parity."""
    failed = w.failed
    parity = 0
    while parity < t.h.range.step:
        w.skips += failed * _whole_parity(t, w, 0, parity)
        w.conflicts += failed * _whole_parity(t, w, _SPAN, parity)
        w.time_waits += failed * _whole_parity(t, w, 2 * _SPAN, parity)
        parity += 1


def rank(w: Walk, wanted: int) -> int:
    """The number of ports passed over by the `wanted`-th start of them all, the best first."""
    seen = 0
    passed = 0
    while passed < w.most:
        seen += w.histogram[passed]
        if seen >= wanted:
            break
        passed += 1
    return passed


def count_states(t: Tables, census: Census) -> None:
    """Fill the census; row 0 counts all sockets of other destinations."""
    i = 1
    while i <= t.h.sks.high_water:
        if t.h.sks.dest[i] != 0:
            census.counts[16 * census.slot_of[t.h.sks.dest[i]] + (t.h.sks.sk_state[i] & 15)] += 1
        i += 1
    i = 1
    while i <= t.h.tw.high_water:
        if t.h.tw.dest[i] != 0:
            census.counts[16 * census.slot_of[t.h.tw.dest[i]] + (t.h.tw.substate[i] & 15)] += 1
        i += 1


def mark_ports(t: Tables, dest: int) -> None:
    """verdict[port] = 1 where the destination has a socket, else 0."""
    port = 0
    while port < 65_536:
        t.verdict[port] = 0
        port += 1
    i = 1
    while i <= t.h.sks.high_water:
        if t.h.sks.dest[i] == dest:
            t.verdict[t.h.sks.sport[i]] = 1
        i += 1
    i = 1
    while i <= t.h.tw.high_water:
        if t.h.tw.dest[i] == dest:
            t.verdict[t.h.tw.num[i]] = 1
        i += 1
