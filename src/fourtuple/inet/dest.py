"""DestTable: destinations that connect() has chosen ports for, and the map of the ports in use towards each.

A destination is (saddr, daddr, dport, bound device): everything of the 4-tuple but the local port.  The rule for its
map (`used`): a port is in it when a connect-bound 4-tuple of this destination is in the ehash and the port search may
not take it; a TIME_WAIT that may be reused by now is not in it.  Sockets that are bound otherwise never count here,
their whole port is in BindTable.shut.

- A map is built when a destination is dense, and given back when it has shrunk to a quarter of that; without one the
  search asks the ehash port by port.
- TIME_WAITs are a FIFO per destination in the order of `entry_ms`.  They become reusable in that order, so a query
  moves the cursor of the map over those that have become ripe since the last one.  Rows that can never be reused (no
  timestamps, FIN_WAIT2, not loopback under tcp_tw_reuse=2) are stepped over and stay in the map.
- A change of a sysctl that matters starts the cursor anew (`reuse_generation`).
"""

from __future__ import annotations

from fourtuple.columns import Code, allocate_records
from fourtuple.inet.portset import OWN, PortSets, portset_add, portset_alloc, portset_discard, portset_free
from fourtuple.inet.timewait import TimeWaitTable
from fourtuple.inet.tuple_index import ColumnGroup, TupleIndex, index_erase, index_first, index_insert

_TCP_TIME_WAIT = 6
_M32 = 0xFFFFFFFF
_LOOPBACK_NET = 127
_LOOPBACK_IFINDEX = 1  # include/net/flow.h LOOPBACK_IFINDEX

# Of a map: the first TIME_WAIT that is not known to be reusable, and the `reuse_generation` this is true for.
_CURSOR = OWN
_RIPE = OWN + 1

# From this many 4-tuples on a destination has a map: 8,320 bytes for 1,024 connections.
DENSE = 1024

# 32 bytes: a search at random reads one cache line.
DEST_FIELDS: tuple[tuple[str, Code], ...] = (
    ("saddr", "I"), ("daddr", "I"), ("dport", "H"), ("dev", "H"), ("count", "I"), ("map_index", "I"), ("tw_head", "I"),
    ("tw_tail", "I"), ("lowest", "H"), ("highest", "H"),
)  # fmt: skip


class DestTable:
    """Interned destinations, rows 1..max_rows; `map_index` is the port set of a dense one (0: none).

    All ports of a row's 4-tuples are from `lowest` to `highest`.  A free row chains through tw_tail.
    """

    __slots__ = (
        "max_rows", "used", "last", "high_water", "free_head", "index", "sets", "tw", "saddr", "daddr",
        "dport", "dev", "count", "tw_head", "tw_tail", "map_index", "lowest", "highest", "tw_reuse",
        "tw_reuse_delay", "reuse_generation", "dense", "tw_seconds", "fin_wait2_reuse",
    )  # fmt: skip

    def __init__(self, max_rows: int, tw: TimeWaitTable, sets: PortSets, secret: int) -> None:
        columns = allocate_records(DEST_FIELDS, max_rows + 1)
        self.max_rows = max_rows
        self.used = 0
        self.last = 0
        self.high_water = 0
        self.free_head = 0
        self.tw = tw
        self.sets = sets
        self.saddr = columns["saddr"]
        self.daddr = columns["daddr"]
        self.dport = columns["dport"]
        self.dev = columns["dev"]
        self.count = columns["count"]
        self.tw_head = columns["tw_head"]
        self.tw_tail = columns["tw_tail"]
        self.map_index = columns["map_index"]
        self.lowest = columns["lowest"]
        self.highest = columns["highest"]
        self.tw_reuse = 0
        self.tw_reuse_delay = 0
        self.tw_seconds = 0
        self.fin_wait2_reuse = False
        self.reuse_generation = 1
        self.dense = DENSE
        group = ColumnGroup(self.saddr, self.daddr, self.dev, self.dport)
        self.index = TupleIndex(group, group, secret, max_rows)

    def set_reuse(self, tw_reuse: int, tw_reuse_delay: int) -> None:
        """tcp_tw_reuse and tcp_tw_reuse_delay (ms) from now on."""
        if (tw_reuse, tw_reuse_delay) != (self.tw_reuse, self.tw_reuse_delay):
            self.tw_reuse = tw_reuse
            self.tw_reuse_delay = tw_reuse_delay
            self.reuse_generation += 1


def dest_find(dests: DestTable, saddr: int, daddr: int, dport: int, dev: int) -> int:
    """Row of a destination that has 4-tuples, or 0.  Many a search is for the destination of the one before."""
    dest = dests.last
    if dests.daddr[dest] != daddr or dests.dport[dest] != dport or dests.saddr[dest] != saddr or dests.dev[dest] != dev:
        dest = index_first(dests.index, saddr, daddr, dev, dport) >> 1
        dests.last = dest
    return dest


def dest_get(dests: DestTable, saddr: int, daddr: int, dport: int, dev: int) -> int:
    """Row of a destination, made if there is none yet; 0 when the table is full."""
    dest = dest_find(dests, saddr, daddr, dport, dev)
    if dest != 0:
        return dest
    if dests.free_head != 0:
        dest = dests.free_head
        dests.free_head = dests.tw_tail[dest]
        dests.tw_tail[dest] = 0
    elif dests.high_water < dests.max_rows:
        dests.high_water += 1
        dest = dests.high_water
    else:
        return 0
    dests.used += 1
    dests.saddr[dest] = saddr
    dests.daddr[dest] = daddr
    dests.dport[dest] = dport
    dests.dev[dest] = dev
    dests.lowest[dest] = 0xFFFF
    dests.highest[dest] = 0
    index_insert(dests.index, dest << 1)
    dests.last = dest
    return dest


def dest_release(dests: DestTable, dest: int) -> None:
    """Give back a destination without 4-tuples, with its map."""
    if dests.last == dest:
        dests.last = 0
    index_erase(dests.index, dest << 1)
    if dests.map_index[dest] != 0:
        _drop_map(dests, dest)
    dests.tw_tail[dest] = dests.free_head
    dests.free_head = dest
    dests.used -= 1


def dest_new_map(dests: DestTable, dest: int) -> int:
    """An empty map for `dest`, to be filled with every 4-tuple it has, TIME_WAITs included; 0 when there is no room."""
    used = portset_alloc(dests.sets)
    if used != 0:
        dests.map_index[dest] = used
        dests.sets.words[used + _CURSOR] = dests.tw_head[dest]
        dests.sets.words[used + _RIPE] = dests.reuse_generation
    return used


def _drop_map(dests: DestTable, dest: int) -> None:
    portset_free(dests.sets, dests.map_index[dest])
    dests.map_index[dest] = 0


def dest_add(dests: DestTable, dest: int, port: int) -> None:
    """A connect-bound 4-tuple of this destination went into the ehash."""
    dests.count[dest] += 1
    if port < dests.lowest[dest]:
        dests.lowest[dest] = port
    if port > dests.highest[dest]:
        dests.highest[dest] = port
    if dests.map_index[dest] != 0:
        portset_add(dests.sets, dests.map_index[dest], port)


def dest_is_clear_of(dests: DestTable, dest: int, port: int) -> bool:
    """True when no 4-tuple of the destination can have this port, known without a look-up."""
    return port < dests.lowest[dest] or port > dests.highest[dest]


def dest_remove(dests: DestTable, dest: int, port: int) -> None:
    """A connect-bound 4-tuple left the ehash; the last one takes the destination along."""
    dests.count[dest] -= 1
    if dests.count[dest] == 0:
        dest_release(dests, dest)
    elif dests.map_index[dest] != 0:
        portset_discard(dests.sets, dests.map_index[dest], port)
        if dests.count[dest] * 4 < dests.dense:
            _drop_map(dests, dest)


def dest_tw_append(dests: DestTable, dest: int, tw: int) -> None:
    """TIME_WAIT row tw is the newest of its destination; its 4-tuple is counted already."""
    last = dests.tw_tail[dest]
    dests.tw.dest_prev[tw] = last
    dests.tw.dest_next[tw] = 0
    if last != 0:
        dests.tw.dest_next[last] = tw
    else:
        dests.tw_head[dest] = tw
    dests.tw_tail[dest] = tw
    used = dests.map_index[dest]
    if used != 0 and dests.sets.words[used + _CURSOR] == 0:
        dests.sets.words[used + _CURSOR] = tw


def dest_tw_remove(dests: DestTable, dest: int, tw: int) -> None:
    """Take row tw out of the FIFO of its destination."""
    before = dests.tw.dest_prev[tw]
    after = dests.tw.dest_next[tw]
    if before != 0:
        dests.tw.dest_next[before] = after
    else:
        dests.tw_head[dest] = after
    if after != 0:
        dests.tw.dest_prev[after] = before
    else:
        dests.tw_tail[dest] = before
    used = dests.map_index[dest]
    if used != 0 and dests.sets.words[used + _CURSOR] == tw:
        dests.sets.words[used + _CURSOR] = after
    dests.tw.dest_next[tw] = 0
    dests.tw.dest_prev[tw] = 0


def tw_may_ever_reuse(dests: DestTable, tw: int) -> bool:
    """tcp_twsk_unique without the clock: timestamps seen, not FIN_WAIT2, tcp_tw_reuse 1, or 2 and loopback."""
    if dests.tw.ts_recent_stamp[tw] == 0 or dests.tw_reuse == 0:
        return False
    if dests.tw.substate[tw] != _TCP_TIME_WAIT and not dests.fin_wait2_reuse:
        return False
    if dests.tw_reuse == 1:
        return True
    return (
        dests.tw.bound_dev[tw] == _LOOPBACK_IFINDEX
        or dests.tw.daddr[tw] >> 24 == _LOOPBACK_NET
        or dests.tw.saddr[tw] >> 24 == _LOOPBACK_NET
    )


def tw_is_ripe(dests: DestTable, tw: int, now_ms: int) -> bool:
    """tcp_tw_reuse_delay has passed since the row was made (6.14: in milliseconds, strictly more).

    Before, `tw_seconds` turns of the clock's second have.
    """
    wide = now_ms
    age = (wide - dests.tw.entry_ms[tw]) & _M32
    if dests.tw_seconds != 0:
        return (age + 999 - wide % 1000) // 1000 >= dests.tw_seconds and age <= 0x7FFFFFFF
    delay = dests.tw_reuse_delay
    return delay < age <= 0x7FFFFFFF


def dest_ripen(dests: DestTable, dest: int, now_ms: int) -> None:
    """Take the TIME_WAITs that have become reusable out of the map of `dest` (which has one)."""
    used = dests.map_index[dest]
    if dests.sets.words[used + _RIPE] != dests.reuse_generation:
        _restart(dests, dest, used)
    tw = dests.sets.words[used + _CURSOR]
    while tw != 0:
        if tw_may_ever_reuse(dests, tw):
            if not tw_is_ripe(dests, tw, now_ms):
                break
            portset_discard(dests.sets, used, dests.tw.num[tw])
        tw = dests.tw.dest_next[tw]
    dests.sets.words[used + _CURSOR] = tw


def _restart(dests: DestTable, dest: int, used: int) -> None:
    tw = dests.tw_head[dest]
    while tw != 0:
        portset_add(dests.sets, used, dests.tw.num[tw])
        tw = dests.tw.dest_next[tw]
    dests.sets.words[used + _CURSOR] = dests.tw_head[dest]
    dests.sets.words[used + _RIPE] = dests.reuse_generation
