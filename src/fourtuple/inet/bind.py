"""BindTable: bhash, the bind buckets, as columns by port.

A bucket exists while it has owners.  Its state decides who may join it (net/ipv4/inet_hashtables.c):

- connect() joins a bucket only when fastreuse and fastreuseport are both -1: when every owner got its port from
  connect().  The port is in the set SHUT when it may not.  Since 6.18 (d57f4b874946) a bucket heals as soon as the last
  other owner leaves (`heals`), so that is nearly the same as `bound[port] > 0`; before, when all owners are gone.
- Nearly: the kernel keeps that state per (port, address), and a socket whose address comes later (bound to the
  wildcard, then connected) does not close an address that connect() has opened.  It is BIND_MOVED and not in `bound`;
  the port stays shut until any owner leaves, and is then open although that socket has it.  When it changes its
  address again the port stays open until the next bind(), though from then on it is in `bound`: it is astray.
- Before 3.9 there is no fastreuseport (`has_reuseport`): it stays -1, and a bind() with SO_REUSEADDR that joins a
  bucket of connect()s does not close it.
- bind() looks at fastreuse > 0 and fastreuseport > 0 for its fast way, else at every owner (inet/connection_sock.py).

Owners are a linked list of encoded rows (`row << 1 | is_tw`).  There is no bhash2 object per (port, address): its
owners are those of the list with that address, and a million connections would be a million pairs.
"""

from __future__ import annotations

from fourtuple.columns import Code, allocate_columns
from fourtuple.inet.flags import BIND_MOVED, CONNECT_BIND, TW_BIND_MOVED
from fourtuple.inet.portset import (
    RESERVED,
    SHUT,
    PortSets,
    portset_add,
    portset_clear,
    portset_discard,
    portset_test,
)
from fourtuple.inet.sock_table import SockTable
from fourtuple.inet.timewait import TimeWaitTable

FASTREUSEPORT_ANY = 1
FASTREUSEPORT_STRICT = 2
_RESERVED = RESERVED
_SHUT = SHUT
_CONNECT_BIND = CONNECT_BIND
_BIND_MOVED = BIND_MOVED
_TW_BIND_MOVED = TW_BIND_MOVED
_M32 = 0xFFFFFFFF

BUCKET_COLUMNS: tuple[tuple[str, Code], ...] = (
    ("head", "I"), ("owners", "I"), ("bound", "I"), ("fastreuse", "b"), ("fastreuseport", "b"), ("fastuid", "I"),
    ("fast_saddr", "I"),
)  # fmt: skip


class BindTable:
    """Bucket columns for the 65,536 ports.

    Of `sets`, RESERVED is ip_local_reserved_ports, SHUT what connect() passes over: those and the buckets of bind().
    `moved`: how many owners are BIND_MOVED or astray: their ports may be open, and no map has their 4-tuples.
    """

    __slots__ = (
        "sks", "tw", "head", "owners", "bound", "fastreuse", "fastreuseport", "fastuid", "fast_saddr", "sets", "moved",
        "heals", "has_reuseport",
    )  # fmt: skip

    def __init__(
        self, sks: SockTable, tw: TimeWaitTable, sets: PortSets, heals: bool = True, has_reuseport: bool = True
    ) -> None:
        self.sks = sks
        self.tw = tw
        self.sets = sets
        self.moved = 0
        self.heals = heals
        self.has_reuseport = has_reuseport
        columns = allocate_columns(BUCKET_COLUMNS, 65536)
        self.head = columns["head"]
        self.owners = columns["owners"]
        self.bound = columns["bound"]
        self.fastreuse = columns["fastreuse"]
        self.fastreuseport = columns["fastreuseport"]
        self.fastuid = columns["fastuid"]
        self.fast_saddr = columns["fast_saddr"]

    def reserve(self, ranges: tuple[tuple[int, int], ...]) -> None:
        """Make `ranges` (inclusive pairs) the reserved ports."""
        portset_clear(self.sets, RESERVED)
        for low, high in ranges:
            for port in range(low, high + 1):
                portset_add(self.sets, RESERVED, port)
        portset_clear(self.sets, SHUT)
        for port in range(65536):
            if self.is_bound(port) or portset_test(self.sets, RESERVED, port):
                portset_add(self.sets, SHUT, port)

    def is_bound(self, port: int) -> bool:
        """Is the bucket closed to connect(), whether the port is reserved or not?"""
        return self.owners[port] != 0 and (self.fastreuse[port] >= 0 or self.fastreuseport[port] >= 0)

    def owner_list(self, port: int) -> list[int]:
        """Encoded owners of a bucket, newest first."""
        found = []
        owner = self.head[port]
        while owner != 0:
            found.append(owner)
            owner = bucket_next(self, owner)
        return found


def bucket_next(bind: BindTable, owner: int) -> int:
    """The owner after `owner` in its bucket, or 0."""
    row = owner >> 1
    if owner & 1:
        return bind.tw.bind_next[row]
    return bind.sks.bind_next[row]


def _bucket_prev(bind: BindTable, owner: int) -> int:
    row = owner >> 1
    if owner & 1:
        return bind.tw.bind_prev[row]
    return bind.sks.bind_prev[row]


def _link(bind: BindTable, owner: int, before: int, after: int) -> None:
    _set_prev(bind, owner, before)
    _set_next(bind, owner, after)


def _set_next(bind: BindTable, owner: int, after: int) -> None:
    row = owner >> 1
    if owner & 1:
        bind.tw.bind_next[row] = after
    else:
        bind.sks.bind_next[row] = after


def _set_prev(bind: BindTable, owner: int, before: int) -> None:
    row = owner >> 1
    if owner & 1:
        bind.tw.bind_prev[row] = before
    else:
        bind.sks.bind_prev[row] = before


def bucket_join(bind: BindTable, port: int, owner: int, connect_bind: bool) -> None:
    """inet_bind_hash: put an owner into the bucket; a bucket that connect() makes starts at -1, -1."""
    first = bind.head[port]
    if first == 0 and connect_bind:
        bind.fastreuse[port] = -1
        bind.fastreuseport[port] = -1
    _link(bind, owner, 0, first)
    if first != 0:
        _set_prev(bind, first, owner)
    bind.head[port] = owner
    bind.owners[port] += 1
    if connect_bind:
        return
    if _is_moved(bind, owner):
        bind.moved += 1
        return
    if first != 0 and _has_astray(bind, port):  # the TIME_WAIT of one
        bind.moved += 1
        bind.bound[port] += 1
        return
    if bind.has_reuseport or bind.fastreuse[port] >= 0:
        portset_add(bind.sets, _SHUT, port)
    bind.bound[port] += 1


def bucket_leave(bind: BindTable, port: int, owner: int, connect_bind: bool) -> None:
    """Take an owner out; the bucket heals when the last one that connect() did not bind has left, or all have."""
    before = _bucket_prev(bind, owner)
    after = bucket_next(bind, owner)
    if before != 0:
        _set_next(bind, before, after)
    else:
        bind.head[port] = after
    if after != 0:
        _set_prev(bind, after, before)
    _link(bind, owner, 0, 0)
    bind.owners[port] -= 1
    if connect_bind and bind.moved == 0 and bind.heals:
        return
    if not connect_bind:
        if _is_moved(bind, owner):
            bind.moved -= 1
        else:
            if _has_astray(bind, port):
                bind.moved -= 1
            bind.bound[port] -= 1
    if bind.bound[port] == 0 and (bind.heals or bind.owners[port] == 0):
        _heal(bind, port)


def _heal(bind: BindTable, port: int) -> None:
    bind.fastreuse[port] = -1
    bind.fastreuseport[port] = -1
    if not portset_test(bind.sets, _RESERVED, port):
        portset_discard(bind.sets, _SHUT, port)


def _has_astray(bind: BindTable, port: int) -> bool:
    """Are the owners in `bound` astray?  All are, or none."""
    return bind.moved != 0 and bind.bound[port] != 0 and bind.fastreuse[port] < 0 and bind.fastreuseport[port] < 0


def _is_moved(bind: BindTable, owner: int) -> bool:
    if owner & 1:
        return bind.tw.flags[owner >> 1] & _TW_BIND_MOVED != 0
    return bind.sks.userlocks[owner >> 1] & _BIND_MOVED != 0


def _keeps_shut(bind: BindTable, owner: int) -> bool:
    flags = bind.tw.flags[owner >> 1] if owner & 1 else bind.sks.flags[owner >> 1]
    return flags & _CONNECT_BIND == 0 and not _is_moved(bind, owner)


def _owner_saddr(bind: BindTable, owner: int) -> int:
    return bind.tw.saddr[owner >> 1] if owner & 1 else bind.sks.saddr[owner >> 1]


def bucket_move(bind: BindTable, sk: int, saddr: int) -> None:
    """The address of a socket that has a port changes (inet_bhash2_update_saddr): who is there already decides."""
    port = bind.sks.num[sk]
    open_there = _is_open_at(bind, port, saddr, sk << 1)
    moved = _is_moved(bind, sk << 1)
    if open_there and not moved:
        if not _has_astray(bind, port):
            bind.moved += 1
        bind.sks.userlocks[sk] |= _BIND_MOVED
        bind.bound[port] -= 1
    elif moved and not open_there:
        bind.bound[port] += 1
        if not _has_astray(bind, port):
            bind.moved -= 1
        bind.sks.userlocks[sk] &= ~_BIND_MOVED & 0xFF


def _is_open_at(bind: BindTable, port: int, saddr: int, newcomer: int) -> bool:
    """Does the port have owners at this address, none of which keeps it closed to connect()?"""
    found = False
    owner = bind.head[port]
    while owner != 0:
        if owner != newcomer and _owner_saddr(bind, owner) == saddr:
            if _keeps_shut(bind, owner):
                return False
            found = True
        owner = bucket_next(bind, owner)
    return found


def bucket_claim(bind: BindTable, port: int, saddr: int) -> None:
    """bind() or listen() at this address: the port is closed by all there that connect() did not bind.

    Comes before the new fastreuse: who was astray no longer is.
    """
    if _has_astray(bind, port):
        bind.moved -= bind.bound[port]
        portset_add(bind.sets, _SHUT, port)
    owner = bind.head[port]
    while owner != 0 and bind.moved != 0:
        if _is_moved(bind, owner) and _owner_saddr(bind, owner) == saddr:
            _unmove(bind, port, owner)
        owner = bucket_next(bind, owner)


def _unmove(bind: BindTable, port: int, owner: int) -> None:
    if owner & 1:
        bind.tw.flags[owner >> 1] &= ~_TW_BIND_MOVED & _M32
    else:
        bind.sks.userlocks[owner >> 1] &= ~_BIND_MOVED & 0xFF
    bind.moved -= 1
    bind.bound[port] += 1
    portset_add(bind.sets, _SHUT, port)


def bucket_replace(bind: BindTable, port: int, old: int, new: int) -> None:
    """`new` takes the place of `old` in the owner list; both are of the same kind as to CONNECT_BIND."""
    before = _bucket_prev(bind, old)
    after = bucket_next(bind, old)
    _link(bind, new, before, after)
    if before != 0:
        _set_next(bind, before, new)
    else:
        bind.head[port] = new
    if after != 0:
        _set_prev(bind, after, new)
    _link(bind, old, 0, 0)
    if bind.moved != 0 and bind.bound[port] == 0:
        _heal(bind, port)  # one came and one left
