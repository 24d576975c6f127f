"""Sockets by destination, and which of them were accepted: one pass each over the columns.

Lives here: the hash table of (family, saddr, daddr, port), the passes.  Does not live here: anything about texts, or
what a destination means (socket_table.py).
"""

from __future__ import annotations

from fourtuple.columns import Code, allocate_columns
from fourtuple.live._decode import SocketColumns

NONE = 0xFFFFFFFF
STATES = 16
"""Row length of `counts`: state 13 is the last."""
INBOUND = 64

_NONE = NONE
_M64 = 0xFFFFFFFFFFFFFFFF
_MIX = 0x9E3779B97F4A7C15
_AF_INET, _AF_INET6 = 2, 10
_LISTEN, _BOUND = 10, 13
_V6ONLY, _INBOUND = 8, INBOUND

_KEY_FIELDS: tuple[tuple[str, Code], ...] = (("family", "B"), ("saddr", "I"), ("daddr", "I"), ("port", "H"))


class Keys:
    """A set of (family, saddr, daddr, port), numbered as they come; at most `room` of them."""

    __slots__ = ("count", "daddr", "family", "mask", "port", "saddr", "seed", "slots", "views")

    def __init__(self, room: int, seed: int) -> None:
        views = allocate_columns(_KEY_FIELDS, max(room, 1))
        size = 1 << (2 * room).bit_length()
        self.views = views
        self.family, self.saddr, self.daddr, self.port = views["family"], views["saddr"], views["daddr"], views["port"]
        self.slots = allocate_columns((("slots", "I"),), size)["slots"]
        self.mask = size - 1
        self.seed = seed
        self.count = 0


class Groups:
    """What group() fills: per row its group, per group its total and its count in each state, and the rows by group."""

    __slots__ = ("counts", "first", "group_of", "keys", "order", "total", "views")

    def __init__(self, rows: int, seed: int) -> None:
        self.keys = Keys(rows, seed)
        fields: tuple[tuple[str, Code], ...] = (("total", "I"), ("first", "I"), ("group_of", "I"), ("order", "I"))
        views = allocate_columns(fields, rows + 1)
        views["counts"] = allocate_columns((("counts", "I"),), STATES * max(rows, 1))["counts"]
        self.views = views
        self.total, self.first, self.counts = views["total"], views["first"], views["counts"]
        self.group_of, self.order = views["group_of"], views["order"]


def find(k: Keys, family: int, saddr: int, daddr: int, port: int) -> int:
    """The slot of a key: empty (0), or holding its number + 1."""
    wide = k.seed ^ saddr
    wide = (wide * _MIX) & _M64
    wide ^= wide >> 32
    wide ^= daddr
    low = port
    wide ^= (low << 8 | family) << 32
    wide = (wide * _MIX) & _M64
    slot = (wide >> 32) & k.mask
    while k.slots[slot] != 0:
        i = k.slots[slot] - 1
        if k.daddr[i] == daddr and k.port[i] == port and k.saddr[i] == saddr and k.family[i] == family:
            return slot
        slot = (slot + 1) & k.mask
    return slot


def number(k: Keys, family: int, saddr: int, daddr: int, port: int) -> int:
    """The number of a key, a new one if it was not there."""
    slot = find(k, family, saddr, daddr, port)
    if k.slots[slot] != 0:
        return k.slots[slot] - 1
    i = k.count
    k.count = i + 1
    k.slots[slot] = i + 1
    k.family[i] = family
    k.saddr[i] = saddr
    k.daddr[i] = daddr
    k.port[i] = port
    return i


def count_listeners(c: SocketColumns) -> int:
    """LISTEN rows: how large the set of them has to be."""
    found = 0
    for row in range(c.count):
        if c.state[row] == _LISTEN:
            found += 1
    return found


def mark_inbound(c: SocketColumns, listeners: Keys) -> int:
    """Set INBOUND where a listener has the local address and port, or the port and any address; returns how many.

    `listeners` is empty and has room for all of them, twice: [::] without V6ONLY also stands for 0.0.0.0.
    """
    for row in range(c.count):
        if c.state[row] == _LISTEN:
            number(listeners, c.family[row], c.saddr[row], 0, c.sport[row])
            if c.family[row] == _AF_INET6 and c.saddr[row] == 0 and not c.flags[row] & _V6ONLY:
                number(listeners, _AF_INET, 0, 0, c.sport[row])
    marked = 0
    for row in range(c.count):
        state = c.state[row]
        if state != _LISTEN and state != _BOUND and _is_listened(c, row, listeners):
            c.flags[row] |= _INBOUND
            marked += 1
    return marked


def _is_listened(c: SocketColumns, row: int, listeners: Keys) -> bool:
    family = c.family[row]
    port = c.sport[row]
    if listeners.slots[find(listeners, family, 0, 0, port)] != 0:
        return True
    return listeners.slots[find(listeners, family, c.saddr[row], 0, port)] != 0


def group(c: SocketColumns, g: Groups, inbound: bool) -> None:
    """Number the destinations, count, and sort the rows by them; `g` is new and has as many rows as `c`."""
    for row in range(c.count):
        state = c.state[row]
        if state == _LISTEN or state == _BOUND or (c.flags[row] & _INBOUND and not inbound):
            g.group_of[row] = _NONE
            continue
        i = number(g.keys, c.family[row], c.saddr[row], c.daddr[row], c.dport[row])
        g.group_of[row] = i
        g.total[i] += 1
        at = i
        g.counts[16 * at + (state & 15)] += 1
    _sort(c, g)


def _sort(c: SocketColumns, g: Groups) -> None:
    """order: the rows of group i, ascending, from first[i] to first[i + 1]; counted, so linear."""
    end = 0
    for i in range(g.keys.count):
        end += g.total[i]
        g.first[i] = end
    g.first[g.keys.count] = end
    row = c.count
    while row > 0:
        row -= 1
        i = g.group_of[row]
        if i != _NONE:
            g.first[i] -= 1
            g.order[g.first[i]] = row
