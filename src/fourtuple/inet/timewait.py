"""TimeWaitTable: rows of TIME_WAIT, and of FIN_WAIT2 that no socket holds any more.

Here: the columns, allocation, and the FIFO of those that end 60 s after their last packet (all last equally long, so
order of arrival is order of death).  A FIN_WAIT2 row is on the timer wheel instead.  What a segment does to a row is
in tcp/minisocks.py, what a row does to the port search in inet/dest.py and inet/hashtables.py.
"""

from __future__ import annotations

import errno

from fourtuple.columns import Code, allocate_columns

_ENOBUFS = errno.ENOBUFS

TIMEWAIT_COLUMNS: tuple[tuple[str, Code], ...] = (
    ("saddr", "I"), ("daddr", "I"), ("dest", "I"), ("num", "H"), ("dport", "H"), ("bound_dev", "H"),
    ("substate", "B"), ("flags", "I"), ("opts", "H"), ("snd_nxt", "I"), ("rcv_nxt", "I"), ("rcv_wnd", "I"),
    ("ts_recent", "I"), ("ts_recent_stamp", "I"), ("ts_offset", "I"), ("entry_ms", "I"), ("dst", "H"),
    ("rcv_wscale", "B"), ("bind_next", "I"), ("bind_prev", "I"), ("dest_next", "I"), ("dest_prev", "I"),
    ("fifo_next", "I"), ("fifo_prev", "I"), ("due_us", "Q"), ("timer", "I"),
)  # fmt: skip

_SLOTS = (
    *[name for name, _ in TIMEWAIT_COLUMNS],
    *("max_rows", "used", "high_water", "free_head", "columns", "fifo_head", "fifo_tail"),
)


class TimeWaitTable:
    """Rows 1..max_rows; row 0 means none.  A row starts zeroed."""

    __slots__ = _SLOTS

    def __init__(self, max_rows: int) -> None:
        self.max_rows = max_rows
        self.used = 0
        self.high_water = 0
        self.free_head = 0
        self.fifo_head = 0
        self.fifo_tail = 0
        self.columns: dict[str, memoryview] = allocate_columns(TIMEWAIT_COLUMNS, max_rows + 1)
        self._attach_identity()
        self._attach_links()

    def _attach_identity(self) -> None:
        columns = self.columns
        self.saddr = columns["saddr"]
        self.daddr = columns["daddr"]
        self.dest = columns["dest"]
        self.num = columns["num"]
        self.dport = columns["dport"]
        self.bound_dev = columns["bound_dev"]
        self.substate = columns["substate"]
        self.flags = columns["flags"]
        self.opts = columns["opts"]
        self.snd_nxt = columns["snd_nxt"]
        self.rcv_nxt = columns["rcv_nxt"]
        self.rcv_wnd = columns["rcv_wnd"]
        self.ts_recent = columns["ts_recent"]
        self.ts_recent_stamp = columns["ts_recent_stamp"]
        self.ts_offset = columns["ts_offset"]
        self.entry_ms = columns["entry_ms"]
        self.dst = columns["dst"]
        self.rcv_wscale = columns["rcv_wscale"]

    def _attach_links(self) -> None:
        columns = self.columns
        self.bind_next = columns["bind_next"]
        self.bind_prev = columns["bind_prev"]
        self.dest_next = columns["dest_next"]
        self.dest_prev = columns["dest_prev"]
        self.fifo_next = columns["fifo_next"]
        self.fifo_prev = columns["fifo_prev"]
        self.due_us = columns["due_us"]
        self.timer = columns["timer"]


def tw_alloc(table: TimeWaitTable) -> int:
    """A zeroed row, or -ENOBUFS."""
    if table.free_head != 0:
        tw = table.free_head
        table.free_head = table.fifo_next[tw]
        table.fifo_next[tw] = 0
    elif table.high_water < table.max_rows:
        table.high_water += 1
        tw = table.high_water
    else:
        return -_ENOBUFS
    table.used += 1
    return tw


def tw_free(table: TimeWaitTable, tw: int) -> None:
    """Give a row back; it is in no list any more."""
    table.saddr[tw] = 0
    table.daddr[tw] = 0
    table.dest[tw] = 0
    table.num[tw] = 0
    table.dport[tw] = 0
    table.bound_dev[tw] = 0
    table.substate[tw] = 0
    table.flags[tw] = 0
    table.opts[tw] = 0
    table.snd_nxt[tw] = 0
    table.rcv_nxt[tw] = 0
    table.rcv_wnd[tw] = 0
    table.ts_recent[tw] = 0
    table.ts_recent_stamp[tw] = 0
    table.ts_offset[tw] = 0
    table.entry_ms[tw] = 0
    table.dst[tw] = 0
    table.rcv_wscale[tw] = 0
    table.bind_next[tw] = 0
    table.bind_prev[tw] = 0
    table.dest_next[tw] = 0
    table.dest_prev[tw] = 0
    table.fifo_prev[tw] = 0
    table.due_us[tw] = 0
    table.timer[tw] = 0
    table.fifo_next[tw] = table.free_head
    table.free_head = tw
    table.used -= 1


def tw_fifo_append(table: TimeWaitTable, tw: int, due_us: int) -> None:
    """Row tw dies at due_us, not earlier than any row in the FIFO."""
    table.due_us[tw] = due_us
    table.fifo_prev[tw] = table.fifo_tail
    table.fifo_next[tw] = 0
    if table.fifo_tail != 0:
        table.fifo_next[table.fifo_tail] = tw
    else:
        table.fifo_head = tw
    table.fifo_tail = tw


def tw_fifo_remove(table: TimeWaitTable, tw: int) -> None:
    """Take row tw out of the FIFO; nothing happens when it is not in it (due_us 0)."""
    if table.due_us[tw] == 0:
        return
    before = table.fifo_prev[tw]
    after = table.fifo_next[tw]
    if before != 0:
        table.fifo_next[before] = after
    else:
        table.fifo_head = after
    if after != 0:
        table.fifo_prev[after] = before
    else:
        table.fifo_tail = before
    table.fifo_next[tw] = 0
    table.fifo_prev[tw] = 0
    table.due_us[tw] = 0
