"""A machine's sockets and sysctls in the tables of inet/, so that the engine's own code answers questions about it.

Lives here: loading, and what is not known about each port.  Does not live here: asking (ask.py), what the answers mean
to a user (doctor/), any rule of the port search (inet/).

Rules
1. IPv4 and IPv6 share the bind buckets, by port number, as in the kernel; so they share these tables.  An IPv6 address
   is a 32-bit key that no TCP socket over IPv4 can have: 224.0.0.0/4 with the number of the address in the low 28 bits,
   and 127.255.255.255, a broadcast address, for ::1, so that the engine's loopback rule holds.  Both wildcards are 0.
2. Nobody can see how a connected socket got its port.  Where connect() chose it, others may join its bucket, where
   bind() did they may not.  Each port has a certainty; `assume` then makes one of three worlds: a hypothetical binder
   is in each bucket in doubt, in those that look bound, or in none.
3. A TIME_WAIT counts as made 60 s before it ends, and as one with timestamps if this namespace uses them, unless it
   is known (`stamps_known`).
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from fourtuple.columns import Code, allocate_columns
from fourtuple.inet.bind import bucket_join, bucket_leave
from fourtuple.inet.connection_sock import inet_csk_update_fastreuse
from fourtuple.inet.dest import dest_add, dest_get, dest_new_map, dest_tw_append
from fourtuple.inet.flags import BINDADDR_LOCK, BINDPORT_LOCK, CONNECT_BIND, HASHED
from fourtuple.inet.hashinfo import InetHashinfo
from fourtuple.inet.hashtables import inet_hash
from fourtuple.inet.portset import RESERVED, portset_test
from fourtuple.inet.secrets import BootSecrets
from fourtuple.inet.sock_table import SockTable, sk_alloc
from fourtuple.inet.timewait import tw_alloc, tw_fifo_append
from fourtuple.inet.tuple_index import index_first, index_insert, index_next
from fourtuple.live._decode import NO_PORT, SocketColumns
from fourtuple.live._group import INBOUND
from fourtuple.sysctl import Sysctls

if TYPE_CHECKING:
    from fourtuple.live.socket_table import SocketTable

# certainty of a port: may connect() join its bucket?
NONE, JOINABLE, LIKELY_JOINABLE, LIKELY_SHUT, SHUT = 0, 1, 2, 3, 4
# worlds for `assume_world`
OPTIMISTIC, LIKELY, PESSIMISTIC = 0, 1, 2
# what `assume` puts a hypothetical binder on, by world: certainties from..to
_DOUBTS = {OPTIMISTIC: (9, 0), LIKELY: (LIKELY_SHUT, LIKELY_SHUT), PESSIMISTIC: (LIKELY_JOINABLE, LIKELY_SHUT)}

_NONE, _JOINABLE, _LIKELY_JOINABLE, _LIKELY_SHUT, _SHUT = NONE, JOINABLE, LIKELY_JOINABLE, LIKELY_SHUT, SHUT
_V6_KEYS = 0xE0000000
MADE_UP_KEYS = 0xE8000000
"""From here to 0xEFFFFFFF: addresses that stand for nobody's (doctor/remake.py)."""
LOOPBACK6_KEY = 0x7FFFFFFF
_LOOPBACK6 = LOOPBACK6_KEY
_ONE6 = int.from_bytes(b"\0\0\0\1", sys.byteorder)
_NOBODY = 0xFFFFFFFF
_MANY = 0xFFFFFFFE
_SMALL = 16  # destinations with fewer sockets are judged by their parity together
_AF_INET = 2
_FIN_WAIT2, _TIME_WAIT, _CLOSE, _LISTEN, _BOUND = 5, 6, 7, 10, 13
_TIME_WAIT_TIMER = 3  # idiag_timer of a socket without a struct sock
_TW_MS = 60_000  # TCP_TIMEWAIT_LEN
_INBOUND, _NO_PORT, _STAMPED = INBOUND, NO_PORT, 128
_ASK_FLAG = 2
_LOCKS = BINDPORT_LOCK | BINDADDR_LOCK
_HASHED, _CONNECT_BIND, _RESERVED = HASHED, CONNECT_BIND, RESERVED

_NOW_US = 1_000_000_000
"""The engine's time at which a machine was read: any, but later than a TIME_WAIT can be old."""
_SPARE = 65_536 + 64

_PORT_COLUMNS: tuple[tuple[str, Code], ...] = (
    ("certainty", "B"), ("verdict", "B"), ("phantom", "I"), ("doubtful", "I"), ("first_dest", "I"),
)  # fmt: skip


class Tables:
    """The engine's tables `h` of one namespace, and what is known about each port.

    sk_row tw_row   row of the SocketTable behind a row of h.sks, h.tw (0xFFFFFFFF: none)
    certainty       by port: NONE (nobody), JOINABLE, LIKELY_JOINABLE, LIKELY_SHUT, SHUT
    verdict         by port: LOOK_* of the last look_at_ports()
    probe           a row of h.sks to ask with: it is in no table
    """

    __slots__ = (
        "h", "columns", "sockets", "views", "loopback6", "probe", "twice", "dense", "low", "high", "now_us", "world",
        "certainty", "verdict", "drop", "sk_row", "tw_row", "phantom", "doubtful", "first_dest", "order",
        "first_parity", "second_parity",
    )  # fmt: skip

    def __init__(self, h: InetHashinfo, columns: SocketColumns, sockets: SocketTable, drop: memoryview) -> None:
        self.h = h
        self.columns = columns
        self.sockets = sockets
        self.now_us = _NOW_US
        self.world = OPTIMISTIC
        self.twice = 0
        self.dense = h.dests.dense
        self.low, self.high = h.sysctl.port_low, h.sysctl.port_high
        self.loopback6 = find_loopback6(columns)
        self.drop = drop
        self._allocate(h.sks.max_sockets, h.tw.max_rows)
        self.probe = sk_alloc(h.sks)
        self.sk_row[self.probe] = _NOBODY
        h.sks.high_water += 65_536  # the hypothetical binders, a row a port

    def _allocate(self, max_sockets: int, max_tw: int) -> None:
        views = allocate_columns(_PORT_COLUMNS, 65_536)
        views |= allocate_columns((("sk_row", "I"),), max_sockets + 1)
        views |= allocate_columns((("tw_row", "I"), ("order", "I")), max_tw + 1)
        self.views = views
        self.certainty, self.verdict, self.phantom = views["certainty"], views["verdict"], views["phantom"]
        self.doubtful, self.first_dest = views["doubtful"], views["first_dest"]
        self.sk_row, self.tw_row, self.order = views["sk_row"], views["tw_row"], views["order"]

    def take_parities(self) -> None:
        """Room for the counts by destination that weigh_ports() makes."""
        rows = self.h.dests.high_water + 1
        views = allocate_columns((("first_parity", "I"), ("second_parity", "I")), rows)
        self.first_parity, self.second_parity = views["first_parity"], views["second_parity"]


def load(sockets: SocketTable, sysctls: Sysctls, drop: memoryview | None = None, spare: int = 0) -> Tables:
    """The engine's tables with these sockets in them, and the certainty of every port.

    `drop`: a byte a row of `sockets`, those not 0 are left out.  `spare`: rows for sockets to come.
    """
    columns = sockets._columns
    time_waits = count_time_waits(columns)
    sks = SockTable(columns.count - time_waits + spare + _SPARE)
    h = InetHashinfo(sks, sysctls, BootSecrets(0), time_waits + spare)
    h.ehash._install(max(256, (columns.count + spare) * 4 // 3 + 64))
    if drop is None:
        drop = allocate_columns((("drop", "B"),), max(columns.count, 1))["drop"]
    tables = Tables(h, columns, sockets, drop)
    enter_bound(tables)
    enter_connected(tables)
    order_time_waits(tables)
    enter_time_waits(tables, _ASK_FLAG if sockets.stamps_known else 1 if sysctls.tcp_timestamps else 0)
    fill_dests(tables)
    weigh_again(tables)
    return tables


def weigh_again(t: Tables) -> None:
    """The certainty of every port, after sockets have come or gone."""
    t.take_parities()
    weigh_ports(t)


def assume_world(t: Tables, world: int) -> None:
    """Decide every doubt: in favour of connect() (OPTIMISTIC), by what is likely, or against it (PESSIMISTIC)."""
    t.world = world
    assume(t, *_DOUBTS[world])
    doubted = world == PESSIMISTIC and not t.sockets.stamps_known
    reuse = 0 if doubted else t.h.sysctl.tcp_tw_reuse
    t.h.dests.set_reuse(reuse, t.h.sysctl.tcp_tw_reuse_delay)


def key_of(t: Tables, family: int, value: int) -> int:
    """The engine's key of an address column's value."""
    return _key(t, family, value)


def address_of(t: Tables, key: int) -> tuple[int, str]:
    """(family 4 or 6, text) of a key; `*` for 0 and for an IPv6 address that no socket has."""
    if key == 0:
        return 4, "*"
    if key == _LOOPBACK6:
        return 6, "::1"
    if _V6_KEYS <= key <= 0xEFFFFFFF:
        known = key - _V6_KEYS < t.columns.used6
        return 6, t.sockets.address(10, key - _V6_KEYS) if known else "*"
    return 4, f"{key >> 24}.{key >> 16 & 255}.{key >> 8 & 255}.{key & 255}"


# -- loading


def count_time_waits(c: SocketColumns) -> int:
    """Rows that will be TIME_WAIT rows: FIN_WAIT2 without a socket, too."""
    found = 0
    for row in range(c.count):
        if _is_time_wait(c, row):
            found += 1
    return found


def _is_time_wait(c: SocketColumns, row: int) -> bool:
    if c.state[row] == _TIME_WAIT:
        return True
    return c.state[row] == _FIN_WAIT2 and c.timer[row] == _TIME_WAIT_TIMER


def find_loopback6(c: SocketColumns) -> int:
    """The number of ::1 among the IPv6 addresses, 0xFFFFFFFF if it is not there."""
    for i in range(c.used6):
        at = i
        at *= 4
        if c.words6[at + 3] == _ONE6 and c.words6[at] == 0 and c.words6[at + 1] == 0 and c.words6[at + 2] == 0:
            return i
    return _NOBODY


def _key(t: Tables, family: int, value: int) -> int:
    if family == _AF_INET or value == 0:
        return value
    if value == t.loopback6:
        return _LOOPBACK6
    return _V6_KEYS | value


def _device(ifindex: int) -> int:
    """The engine has 16 bits for a device; on a machine that has made more, high numbers share."""
    return ifindex if ifindex <= 0xFFFF else 0x8000 | (ifindex & 0x7FFF)


def enter_bound(t: Tables) -> int:
    """Listeners and sockets that are bound only: their ports are shut."""
    c = t.columns
    for row in range(c.count):
        if (c.state[row] == _LISTEN or c.state[row] == _BOUND) and c.sport[row] != 0 and t.drop[row] == 0:
            sk = _new_sock(t, row)
            t.h.sks.sk_state[sk] = c.state[row] if c.state[row] == _LISTEN else _CLOSE
            t.h.sks.userlocks[sk] = _LOCKS
            inet_csk_update_fastreuse(t.h, sk, c.sport[row])
            bucket_join(t.h.bind, c.sport[row], sk << 1, False)
            if c.state[row] == _LISTEN:
                inet_hash(t.h, sk)
    return 0


def _new_sock(t: Tables, row: int) -> int:
    sk = sk_alloc(t.h.sks)
    t.sk_row[sk] = row
    t.h.sks.saddr[sk] = _key(t, t.columns.family[row], t.columns.saddr[row])
    t.h.sks.daddr[sk] = _key(t, t.columns.family[row], t.columns.daddr[row])
    t.h.sks.sport[sk] = t.columns.sport[row]
    t.h.sks.num[sk] = t.columns.sport[row]
    t.h.sks.dport[sk] = t.columns.dport[row]
    if t.columns.ifindex[row] != 0:  # a page that nothing is written to costs nothing, so no zeros either
        t.h.sks.bound_dev[sk] = _device(t.columns.ifindex[row])
    return sk


def _is_there(t: Tables, row: int) -> bool:
    """The 4-tuple has been entered: the kernel lists a socket twice when it moves meanwhile."""
    saddr = _key(t, t.columns.family[row], t.columns.saddr[row])
    entry = index_first(
        t.h.ehash,
        saddr,
        _key(t, t.columns.family[row], t.columns.daddr[row]),
        t.columns.sport[row],
        t.columns.dport[row],
    )
    while entry != 0:
        bound = t.h.tw.bound_dev[entry >> 1] if entry & 1 else t.h.sks.bound_dev[entry >> 1]
        if bound == _device(t.columns.ifindex[row]):
            return True
        entry = index_next(t.h.ehash)
    return False


def enter_connected(t: Tables) -> None:
    """Sockets with a peer.  An accepted one shares its listener's bucket; of the others, connect() may have made it."""
    for row in range(t.columns.count):
        if (
            t.columns.state[row] == _LISTEN
            or t.columns.state[row] == _BOUND
            or t.drop[row] != 0
            or _is_time_wait(t.columns, row)
        ):
            continue
        if t.columns.sport[row] == 0 or _is_there(t, row):
            t.twice += 1
            continue
        sk = _new_sock(t, row)
        t.h.sks.sk_state[sk] = t.columns.state[row]
        t.h.sks.flags[sk] = _HASHED
        index_insert(t.h.ehash, sk << 1)
        if t.columns.flags[row] & _INBOUND:
            bucket_join(t.h.bind, t.columns.sport[row], sk << 1, False)
        else:
            bucket_join(t.h.bind, t.columns.sport[row], sk << 1, True)
            t.h.sks.flags[sk] |= _CONNECT_BIND
            t.h.sks.dest[sk] = _count_dest(
                t, t.h.sks.saddr[sk], t.h.sks.daddr[sk], t.h.sks.dport[sk], t.h.sks.bound_dev[sk]
            )


def _count_dest(t: Tables, saddr: int, daddr: int, dport: int, dev: int) -> int:
    """The destination's row; it is counted for now, so that fill_dests() knows which ones get a map."""
    dest = dest_get(t.h.dests, saddr, daddr, dport, dev)
    t.h.dests.count[dest] += 1
    return dest


def _remaining(c: SocketColumns, row: int) -> int:
    return c.expires_ms[row] if c.expires_ms[row] < _TW_MS else _TW_MS


def order_time_waits(t: Tables) -> None:
    """Rows of TIME_WAITs in `order`, those that end first, first: counted by ms (in the columns of the sums)."""
    i = 0
    while i < 65_536:
        t.doubtful[i] = 0
        i += 1
    for row in range(t.columns.count):
        if _is_time_wait(t.columns, row):
            t.doubtful[_remaining(t.columns, row) + 1] += 1
    i = 1
    while i < 65_536:
        t.doubtful[i] += t.doubtful[i - 1]
        i += 1
    for row in range(t.columns.count):
        if _is_time_wait(t.columns, row):
            k = _remaining(t.columns, row)
            t.order[t.doubtful[k]] = row
            t.doubtful[k] += 1


def enter_time_waits(t: Tables, timestamps: int) -> None:
    """All TIME_WAITs in the order in which they end, which is that in which they were made."""
    i = 0
    while i < t.h.tw.max_rows:
        if i >= t.doubtful[65_535]:
            break
        _enter_time_wait(t, t.order[i], timestamps)
        i += 1


def _enter_time_wait(t: Tables, row: int, timestamps: int) -> None:
    if t.drop[row] != 0 or t.columns.sport[row] == 0 or _is_there(t, row):
        t.twice += 1
        return
    tw = tw_alloc(t.h.tw)
    remaining = _remaining(t.columns, row)
    wide = remaining
    t.tw_row[tw] = row
    t.h.tw.saddr[tw] = _key(t, t.columns.family[row], t.columns.saddr[row])
    t.h.tw.daddr[tw] = _key(t, t.columns.family[row], t.columns.daddr[row])
    t.h.tw.num[tw] = t.columns.sport[row]
    t.h.tw.dport[tw] = t.columns.dport[row]
    t.h.tw.bound_dev[tw] = _device(t.columns.ifindex[row])
    t.h.tw.substate[tw] = t.columns.state[row]
    t.h.tw.ts_recent_stamp[tw] = timestamps
    if timestamps == _ASK_FLAG:
        t.h.tw.ts_recent_stamp[tw] = 1 if t.columns.flags[row] & _STAMPED != 0 else 0
    t.h.tw.entry_ms[tw] = t.now_us // 1000 - (_TW_MS - remaining)
    index_insert(t.h.ehash, tw << 1 | 1)
    if t.columns.state[row] == _TIME_WAIT:
        tw_fifo_append(t.h.tw, tw, t.now_us + 1000 * wide)
    if t.columns.flags[row] & _INBOUND:
        bucket_join(t.h.bind, t.columns.sport[row], tw << 1 | 1, False)
        return
    t.h.tw.flags[tw] = _CONNECT_BIND
    bucket_join(t.h.bind, t.columns.sport[row], tw << 1 | 1, True)
    t.h.tw.dest[tw] = _count_dest(t, t.h.tw.saddr[tw], t.h.tw.daddr[tw], t.h.tw.dport[tw], t.h.tw.bound_dev[tw])


def fill_dests(t: Tables) -> None:
    """Count again, now with the ports, and with maps where the engine has maps."""
    dest = 1
    while dest <= t.h.dests.high_water:
        if t.h.dests.count[dest] >= t.dense:
            dest_new_map(t.h.dests, dest)
        t.h.dests.count[dest] = 0
        dest += 1
    i = 1
    while i <= t.h.sks.high_water:
        if t.h.sks.dest[i] != 0:
            dest_add(t.h.dests, t.h.sks.dest[i], t.h.sks.sport[i])
        i += 1
    i = 1
    while i <= t.h.tw.high_water:
        if t.h.tw.dest[i] != 0:
            dest_add(t.h.dests, t.h.tw.dest[i], t.h.tw.num[i])
            dest_tw_append(t.h.dests, t.h.tw.dest[i], i)
        i += 1


# -- what is not known


def weigh_ports(t: Tables) -> None:
    """The certainty of every port.

    The kernel says of a socket whether it has IP_BIND_ADDRESS_NO_PORT: then connect() chose the port (a number in
    bind() would overrule it, but who asks for one does not set it).  So it did for a row that load() left out and that
    is there all the same: connected anew, in the engine (doctor/remake.py).  Two
    sockets of one source on a port: bind() would have refused the second.  Otherwise parity is evidence, as connect()
    begins with the ports of the range's first parity and bind(addr, 0) with the others.
    """
    _note_owners(t)
    _pool_small(t)
    parity_tells = _first_parity_was_open(t)
    _pass_judgement(t, parity_tells)


def _note_owners(t: Tables) -> None:
    i = 0
    while i < 65_536:
        t.doubtful[i] = 0
        t.first_dest[i] = 0
        i += 1
    i = 1
    while i <= t.h.sks.high_water:
        if t.h.sks.dest[i] != 0:
            sure = t.columns.flags[t.sk_row[i]] & _NO_PORT != 0 or t.drop[t.sk_row[i]] != 0
            _note_owner(t, t.h.sks.dest[i], t.h.sks.sport[i], sure)
        i += 1
    i = 1
    while i <= t.h.tw.high_water:
        if t.h.tw.dest[i] != 0:
            sure = t.columns.flags[t.tw_row[i]] & _NO_PORT != 0 or t.drop[t.tw_row[i]] != 0  # --probe says so, only
            _note_owner(t, t.h.tw.dest[i], t.h.tw.num[i], sure)
        i += 1


def _note_owner(t: Tables, dest: int, port: int, sure: bool) -> None:
    """first_dest: the only doubtful destination on a port, or _MANY when several speak for connect()."""
    if sure:
        t.first_dest[port] = _MANY
        return
    t.doubtful[port] += 1
    if t.first_dest[port] == 0:
        t.first_dest[port] = dest
    elif t.first_dest[port] != _MANY and t.h.dests.saddr[t.first_dest[port]] == t.h.dests.saddr[dest]:
        t.first_dest[port] = _MANY
    if t.low <= port <= t.high:
        if (port - t.low) & 1:
            t.second_parity[dest] += 1
        else:
            t.first_parity[dest] += 1


def _pool_small(t: Tables) -> None:
    """Destinations with few sockets tell nothing alone: those of a machine are counted together, in row 0."""
    dest = 1
    while dest <= t.h.dests.high_water:
        if t.h.dests.count[dest] < _SMALL:
            t.first_parity[0] += t.first_parity[dest]
            t.second_parity[0] += t.second_parity[dest]
        dest += 1


def _looks_bound(t: Tables, dest: int) -> bool:
    if t.h.dests.count[dest] < _SMALL:
        dest = 0
    return t.second_parity[dest] >= 4 and t.second_parity[dest] > 2 * t.first_parity[dest]


def _first_parity_was_open(t: Tables) -> bool:
    """Parity tells nothing where listeners, bound sockets or reserved ports hold most of the first one."""
    port = t.low
    closed = 0
    while port <= t.high:
        if t.h.bind.bound[port] != 0 or portset_test(t.h.sets, _RESERVED, port):
            closed += 1
        port += 2
    return closed * 4 < (t.high - t.low + 2)


def _pass_judgement(t: Tables, parity_tells: bool) -> None:
    port = 0
    while port < 65_536:
        t.certainty[port] = _judge_port(t, port, parity_tells)
        port += 1


def _judge_port(t: Tables, port: int, parity_tells: bool) -> int:
    if t.h.bind.owners[port] == 0:
        return _NONE
    if t.h.bind.bound[port] != 0:
        return _SHUT
    if t.doubtful[port] == 0:
        return _JOINABLE
    if parity_tells and t.first_dest[port] != _MANY and _looks_bound(t, t.first_dest[port]):
        return _LIKELY_SHUT
    return _LIKELY_JOINABLE


def assume(t: Tables, least: int, most: int) -> None:
    """A hypothetical binder in each bucket of the range with a certainty of least..most, none in the others."""
    port = t.low
    while port <= t.high:
        wanted = least <= t.certainty[port] <= most
        if wanted and t.phantom[port] == 0:
            _add_phantom(t, port)
        elif not wanted and t.phantom[port] != 0:
            bucket_leave(t.h.bind, port, t.phantom[port] << 1, False)
            t.phantom[port] = 0
        port += 1


def _add_phantom(t: Tables, port: int) -> None:
    """A row of its own stands for the binder of each port: those behind the probe."""
    sk = t.probe + 1 + port
    t.sk_row[sk] = _NOBODY
    t.h.sks.num[sk] = port
    bucket_join(t.h.bind, port, sk << 1, False)
    t.h.bind.fastreuse[port] = 0  # inet_csk_update_fastreuse of a socket without SO_REUSEADDR
    t.phantom[port] = sk
