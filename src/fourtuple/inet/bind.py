"""BindTable: bhash, the bind buckets, as columns by port.

A bucket exists while it has owners.  Its state decides who may join it (net/ipv4/inet_hashtables.c):

- connect() joins a bucket only when fastreuse and fastreuseport are both -1: when every owner got its port from
  connect().  Since 6.18 (d57f4b874946) a bucket heals as soon as the last other owner leaves, so "closed to connect()"
  is the same as `bound[port] > 0`; the port is then in the set SHUT.
- bind() looks at fastreuse > 0 and fastreuseport > 0 for its fast way, else at every owner (inet/connection_sock.py).

Owners are a linked list of encoded rows (`row << 1 | is_tw`).  There is no bhash2 object per (port, address): its
owners are those of the list with that address, and a million connections would be a million pairs.
"""

from __future__ import annotations

from fourtuple.columns import Code, allocate_columns
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

BUCKET_COLUMNS: tuple[tuple[str, Code], ...] = (
    ("head", "I"), ("owners", "I"), ("bound", "I"), ("fastreuse", "b"), ("fastreuseport", "b"), ("fastuid", "I"),
    ("fast_saddr", "I"),
)  # fmt: skip


class BindTable:
    """Bucket columns for the 65,536 ports.

    Of `sets`, RESERVED is ip_local_reserved_ports, SHUT what connect() passes over: those and the buckets of bind().
    """

    __slots__ = (
        "sks", "tw", "head", "owners", "bound", "fastreuse", "fastreuseport", "fastuid", "fast_saddr", "sets",
    )  # fmt: skip

    def __init__(self, sks: SockTable, tw: TimeWaitTable, sets: PortSets) -> None:
        self.sks = sks
        self.tw = tw
        self.sets = sets
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
            if self.bound[port] != 0 or portset_test(self.sets, RESERVED, port):
                portset_add(self.sets, SHUT, port)

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


def _link(bind: BindTable, owner: int, before: int, after: int) -> None:
    row = owner >> 1
    if owner & 1:
        bind.tw.bind_prev[row] = before
        bind.tw.bind_next[row] = after
    else:
        bind.sks.bind_prev[row] = before
        bind.sks.bind_next[row] = after


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
    if not connect_bind:
        if bind.bound[port] == 0:
            portset_add(bind.sets, _SHUT, port)
        bind.bound[port] += 1


def bucket_leave(bind: BindTable, port: int, owner: int, connect_bind: bool) -> None:
    """Take an owner out; the bucket heals when the last one that connect() did not bind has left (6.18)."""
    row = owner >> 1
    before = bind.tw.bind_prev[row] if owner & 1 else bind.sks.bind_prev[row]
    after = bucket_next(bind, owner)
    if before != 0:
        _set_next(bind, before, after)
    else:
        bind.head[port] = after
    if after != 0:
        _set_prev(bind, after, before)
    _link(bind, owner, 0, 0)
    bind.owners[port] -= 1
    if not connect_bind:
        bind.bound[port] -= 1
        if bind.bound[port] == 0:
            _heal(bind, port)


def _heal(bind: BindTable, port: int) -> None:
    bind.fastreuse[port] = -1
    bind.fastreuseport[port] = -1
    if not portset_test(bind.sets, _RESERVED, port):
        portset_discard(bind.sets, _SHUT, port)


def bucket_replace(bind: BindTable, port: int, old: int, new: int) -> None:
    """`new` takes the place of `old` in the owner list; both are of the same kind as to CONNECT_BIND."""
    row = old >> 1
    before = bind.tw.bind_prev[row] if old & 1 else bind.sks.bind_prev[row]
    after = bucket_next(bind, old)
    _link(bind, new, before, after)
    if before != 0:
        _set_next(bind, before, new)
    else:
        bind.head[port] = new
    if after != 0:
        _set_prev(bind, after, new)
    _link(bind, old, 0, 0)
