"""SockTable: the columns of a connection that the tables of inet/ read and write; tcp/sock.py adds TCP's own.

A socket is a row number; row 0 is never used and means "no socket".  A handle is the row with its generation, so that
a handle kept too long is noticed.  A full table is -ENOBUFS.
"""

from __future__ import annotations

import errno

from fourtuple.columns import Code, allocate_columns
from fourtuple.inet.sock_options import OptionSets, SockOptions

_ENOBUFS = errno.ENOBUFS
_M32 = 0xFFFFFFFF

INET_COLUMNS: tuple[tuple[str, Code], ...] = (
    ("saddr", "I"), ("daddr", "I"), ("dest", "I"), ("sport", "H"), ("num", "H"), ("dport", "H"), ("bound_dev", "H"),
    ("sk_state", "B"), ("userlocks", "B"), ("flags", "I"), ("opts", "H"), ("bind_next", "I"), ("bind_prev", "I"),
    ("generation", "H"), ("write_seq", "I"), ("ts_recent", "I"), ("ts_recent_stamp", "I"),
)  # fmt: skip


class SockTable:
    """Rows 1..max_sockets of the inet columns.  `option_sets` is the list of interned SockOptions."""

    __slots__ = (
        "max_sockets", "used", "high_water", "free_head", "columns", "saddr", "daddr", "dest", "sport", "num", "dport",
        "bound_dev", "sk_state", "userlocks", "flags", "opts", "option_sets", "bind_next", "bind_prev", "generation",
        "write_seq", "ts_recent", "ts_recent_stamp", "options",
    )  # fmt: skip

    def __init__(self, max_sockets: int, more_columns: tuple[tuple[str, Code], ...] = ()) -> None:
        self.max_sockets = max_sockets
        self.used = 0
        self.high_water = 0
        self.free_head = 0
        self.columns: dict[str, memoryview] = allocate_columns(INET_COLUMNS + more_columns, max_sockets + 1)
        self.options = OptionSets()
        self.option_sets: list[SockOptions] = self.options.sets
        self._attach()

    def _attach(self) -> None:
        columns = self.columns
        self.saddr = columns["saddr"]
        self.daddr = columns["daddr"]
        self.dest = columns["dest"]
        self.sport = columns["sport"]
        self.num = columns["num"]
        self.dport = columns["dport"]
        self.bound_dev = columns["bound_dev"]
        self.sk_state = columns["sk_state"]
        self.userlocks = columns["userlocks"]
        self.flags = columns["flags"]
        self.opts = columns["opts"]
        self.bind_next = columns["bind_next"]
        self.bind_prev = columns["bind_prev"]
        self.generation = columns["generation"]
        self.write_seq = columns["write_seq"]
        self.ts_recent = columns["ts_recent"]
        self.ts_recent_stamp = columns["ts_recent_stamp"]


def sk_alloc(table: SockTable) -> int:
    """A zeroed row, or -ENOBUFS.  (Freeing zeroes: a row that was never used is zero already.)"""
    if table.free_head != 0:
        sk = table.free_head
        table.free_head = table.bind_next[sk]
        table.bind_next[sk] = 0
    elif table.high_water < table.max_sockets:
        table.high_water += 1
        sk = table.high_water
    else:
        return -_ENOBUFS
    table.used += 1
    return sk


def sk_free_inet(table: SockTable, sk: int) -> None:
    """Give row sk back; handles to it are stale from now on.  TCP zeroes its own columns in `sk_free`."""
    table.generation[sk] = (table.generation[sk] + 1) & 0xFFFF
    table.saddr[sk] = 0
    table.daddr[sk] = 0
    table.dest[sk] = 0
    table.sport[sk] = 0
    table.num[sk] = 0
    table.dport[sk] = 0
    table.bound_dev[sk] = 0
    table.sk_state[sk] = 0
    table.userlocks[sk] = 0
    table.flags[sk] = 0
    table.opts[sk] = 0
    table.bind_prev[sk] = 0
    table.write_seq[sk] = 0
    table.ts_recent[sk] = 0
    table.ts_recent_stamp[sk] = 0
    table.bind_next[sk] = table.free_head
    table.free_head = sk
    table.used -= 1


def sk_handle(table: SockTable, sk: int) -> int:
    """Generation and row as one int."""
    wide = table.generation[sk]
    return wide << 32 | sk


def sk_resolve(table: SockTable, handle: int) -> int:
    """Row of a handle, or 0 when that socket is gone."""
    sk = handle & _M32
    if sk > table.max_sockets or table.generation[sk] != handle >> 32:
        return 0
    return sk
