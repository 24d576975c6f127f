"""Connections made again by the engine, as programs would have made them under other habits.

Lives here: which connections, and over which addresses.  Does not live here: why (what_if.py).

An address that stands for one more source or destination is made up: from 232.0.0.0/5, where no TCP socket can be.
"""

from __future__ import annotations

from typing import Protocol

from fourtuple.doctor.predict import State
from fourtuple.inet.hashtables import inet_hash_connect
from fourtuple.inet.sock_table import sk_alloc, sk_free_inet
from fourtuple.inet.timewait import tw_alloc, tw_fifo_append
from fourtuple.inet.timewait_sock import inet_twsk_hashdance
from fourtuple.live import tables as live_tables
from fourtuple.live.socket_table import INBOUND
from fourtuple.live.tables import Tables
from fourtuple.sysctl import Sysctls

_LISTEN, _TIME_WAIT, _BOUND = 10, 6, 13
_TW_MS = 60_000


class Change(Protocol):
    """What is needed of what_if.py's."""

    state: State
    sysctls: Sysctls
    drop: bytearray
    option: tuple[int, int] | None
    sources: int
    dests: int
    no_port: bool
    notes: list[str]


class _Turns:
    """Whose turn it is among the sources and destinations that stand for one of each."""

    def __init__(self, sources: int, dests: int) -> None:
        self._sources = sources
        self._dests = dests
        self._count: dict[tuple[int, int, int], int] = {}
        self._made_up: dict[tuple[int, int], int] = {}

    def next(self, saddr: int, daddr: int, dport: int) -> tuple[int, int]:
        """The addresses of the next connection to one destination."""
        turn = self._count.get((saddr, daddr, dport), 0)
        self._count[saddr, daddr, dport] = turn + 1
        return self._one_of(saddr, turn % self._sources), self._one_of(daddr, turn // self._sources % self._dests)

    def _one_of(self, address: int, turn: int) -> int:
        if turn == 0:
            return address
        return self._made_up.setdefault((address, turn), live_tables.MADE_UP_KEYS + len(self._made_up))


def remake(change: Change) -> Tables:
    """The tables with the connections concerned made again; `drop` and `notes` of the change are added to."""
    rows = _rows_to_remake(change)
    for row in rows:
        change.drop[row] = 1
    t = live_tables.load(change.state.sockets, change.sysctls, memoryview(change.drop), spare=len(rows))
    turns = _Turns(change.sources, change.dests)
    failed = sum(not _connect_again(t, change, row, turns) for row in rows)
    live_tables.weigh_again(t)
    _tell(change, len(rows), failed)
    return t


def _tell(change: Change, made: int, failed: int) -> None:
    change.notes.append(f"{made} connections made again by the engine, as if all had been replaced")
    if failed:
        change.notes.append(f"{failed} of them do not fit: EADDRNOTAVAIL")
    for count, what in ((change.sources, "source"), (change.dests, "destination")):
        if count > 1:
            change.notes.append(f"each row shows one of {count} {what}s, the others are alike")


def _rows_to_remake(change: Change) -> list[int]:
    """Connections whose port connect() seems to have chosen; with bind_no_port those where bind() did, too.

    TIME_WAITs last, and of these the ones first that end first: in the order in which they were made.
    """
    sockets, before = change.state.sockets, change.state.tables
    rows = []
    for row in range(len(sockets)):
        state = sockets.state[row]
        if change.drop[row] or state == _LISTEN or sockets.flags[row] & INBOUND:
            continue
        bound = state == _BOUND or before.certainty[sockets.sport[row]] >= live_tables.LIKELY_SHUT
        if bound and not (change.no_port and _was_bound_by_number(change, row)):
            continue
        if bound or change.sources > 1 or change.dests > 1:
            rows.append(row)
    return sorted(rows, key=lambda row: sockets.expires_ms[row] if sockets.state[row] == _TIME_WAIT else -1)


def _was_bound_by_number(change: Change, row: int) -> bool:
    """A port of the range: for the option to matter, bind() has to have been asked for any port."""
    return bool(change.sysctls.port_low <= change.state.sockets.sport[row] <= change.sysctls.port_high)


def _connect_again(t: Tables, change: Change, row: int, turns: _Turns) -> bool:
    sockets = change.state.sockets
    if sockets.state[row] == _BOUND:
        return True  # with the option it has no port until it connects
    family = sockets.family[row]
    saddr = live_tables.key_of(t, family, sockets.saddr[row])
    daddr = live_tables.key_of(t, family, sockets.daddr[row])
    sks = t.h.sks
    sk = sk_alloc(sks)
    t.sk_row[sk] = row
    sks.saddr[sk], sks.daddr[sk] = turns.next(saddr, daddr, sockets.dport[row])
    sks.dport[sk] = sockets.dport[row]
    if change.option:
        sks.opts[sk] = sks.options.replaced(0, port_low=change.option[0], port_high=change.option[1])
    if inet_hash_connect(t.h, sk, t.now_us) < 0:
        sk_free_inet(sks, sk)
        return False
    sks.sk_state[sk] = sockets.state[row]
    if sockets.state[row] == _TIME_WAIT:
        _become_time_wait(t, sk, row)
    return True


def _become_time_wait(t: Tables, sk: int, row: int) -> None:
    tw = tw_alloc(t.h.tw)
    remaining = min(t.columns.expires_ms[row], _TW_MS)
    t.tw_row[tw] = row
    t.h.tw.substate[tw] = _TIME_WAIT
    t.h.tw.ts_recent_stamp[tw] = 1 if t.h.sysctl.tcp_timestamps else 0
    t.h.tw.entry_ms[tw] = t.now_us // 1000 - (_TW_MS - remaining)
    inet_twsk_hashdance(t.h, sk, tw)
    tw_fifo_append(t.h.tw, tw, t.now_us + 1000 * remaining)
    sk_free_inet(t.h.sks, sk)
