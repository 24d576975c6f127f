"""net/ipv4/inet_hashtables.c: which port a connect() gets, and which socket a packet belongs to.

`inet_hash_connect` -> `_inet_hash_connect` (range, parity, hashed start) -> `_inet_check_established` (is the 4-tuple
free).  The result is exactly that of the kernel's scan over ip_local_port_range, without walking it: the scan is a
run of "not this one" over ports that are `shut` (reserved, or in a bucket that bind() made) or in the destination's map
of used ports, and both are bit sets.  inet/scan.py is the same search written as the kernel's loop; a property test
holds the two equal in port, distance and table_perturb.

Time comes in as `now_us`.  No packets here.
"""

from __future__ import annotations

import errno

from fourtuple.inet.bind import BindTable, bucket_join, bucket_leave, bucket_replace
from fourtuple.inet.dest import (
    DENSE,
    DestTable,
    dest_add,
    dest_find,
    dest_get,
    dest_is_clear_of,
    dest_new_map,
    dest_remove,
    dest_ripen,
    dest_tw_append,
    dest_tw_remove,
    tw_is_ripe,
    tw_may_ever_reuse,
)
from fourtuple.inet.flags import BINDPORT_LOCK, CONNECT_BIND, DEAD, HASHED, REUSE, REUSEPORT, TRANSPARENT
from fourtuple.inet.portset import (
    EMPTY,
    RESERVED,
    SHUT,
    PortSets,
    portset_add,
    portset_next_open,
    portset_test,
)
from fourtuple.inet.scan import explain_search
from fourtuple.inet.secrets import BootSecrets, get_random_u32_below, perturb_start
from fourtuple.inet.secure_seq import secure_ipv4_port_ephemeral
from fourtuple.inet.sock_options import SockOptions
from fourtuple.inet.sock_table import SockTable
from fourtuple.inet.timewait import TimeWaitTable, tw_fifo_remove, tw_free
from fourtuple.inet.tuple_index import ColumnGroup, TupleIndex, index_erase, index_first, index_insert, index_next
from fourtuple.kernel_map import FN__INET_CHECK_ESTABLISHED, FN__INET_HASH_CONNECT, FN_INET_HASH_CONNECT, FN_PORT_FOUND
from fourtuple.sysctl import Sysctls
from fourtuple.trace import Tracer, trace

_M32 = 0xFFFFFFFF
_EADDRNOTAVAIL = errno.EADDRNOTAVAIL
_TCP_LISTEN = 10
_TCP_TIME_WAIT = 6
_CONNECT_BIND = CONNECT_BIND
_HASHED = HASHED
_DEAD = DEAD
_BINDPORT_LOCK = BINDPORT_LOCK
_TW_FLAGS = REUSE | REUSEPORT | TRANSPARENT | CONNECT_BIND
_PERTURB_MASK = 0xFFFF
_EMPTY = EMPTY
_RESERVED = RESERVED
_SHUT = SHUT
# A search that had to ask the ehash this often builds the destination's map, if that would be at least a third dense.
_PATIENCE = 64


class PortRange:
    """The numbers of one search: ports low..high-1, `remaining` offsets, `step` 2 (parity passes) or 1.

    `own` is the destination of the socket, `unbound` the same destination without its device (0: nobody is connected
    there), with their maps.  `certain`: the maps hold every 4-tuple of theirs, so what is not in them need not be
    looked up.  `generation`: that of the sysctls if the range is the namespace's own, else 0.
    """

    __slots__ = (
        "generation", "low", "high", "remaining", "step", "own", "unbound", "own_map", "unbound_map", "certain",
    )  # fmt: skip

    def __init__(self) -> None:
        self.generation = 0
        self.low = 0
        self.high = 0
        self.remaining = 0
        self.step = 0
        self.own = 0
        self.unbound = 0
        self.own_map = 0
        self.unbound_map = 0
        self.certain = False


class InetHashinfo:
    """The tables of one network namespace (struct inet_hashinfo), and what the search needs beside them."""

    __slots__ = (
        "sks", "tw", "ehash", "sets", "bind", "dests", "sysctl", "secrets", "tracer", "listeners", "tw_recycled",
        "last_distance", "sysctl_generation", "range", "reserved_ranges",
    )  # fmt: skip

    def __init__(self, sks: SockTable, sysctl: Sysctls, secrets: BootSecrets, max_tw: int) -> None:
        self.sks = sks
        self.tw = TimeWaitTable(max_tw)
        self.ehash = TupleIndex(
            ColumnGroup(sks.saddr, sks.daddr, sks.sport, sks.dport),
            ColumnGroup(self.tw.saddr, self.tw.daddr, self.tw.num, self.tw.dport),
            secrets.ehash_secret,
            max(sks.max_sockets, max_tw),
        )
        most = sks.max_sockets + max_tw
        self.sets = PortSets(most * 4 // DENSE + 64)  # a map has DENSE / 4 connections or more
        self.bind = BindTable(sks, self.tw, self.sets)
        self.dests = DestTable(most, self.tw, self.sets, secrets.ehash_secret)
        self.sysctl = sysctl
        self.secrets = secrets
        self.tracer: Tracer | None = None
        self.listeners: dict[int, list[int]] = {}
        self.tw_recycled = 0
        self.last_distance = 0
        self.range = PortRange()
        self.reserved_ranges: tuple[tuple[int, int], ...] = ()
        self.sysctl_generation = sysctl.generation
        refresh_sysctls(self)


def refresh_sysctls(h: InetHashinfo) -> int:
    """Take over the sysctls that the bit sets depend on."""
    h.sysctl_generation = h.sysctl.generation
    h.dests.set_reuse(h.sysctl.tcp_tw_reuse, h.sysctl.tcp_tw_reuse_delay)
    if h.sysctl.reserved_ranges != h.reserved_ranges:
        h.reserved_ranges = h.sysctl.reserved_ranges
        h.bind.reserve(h.reserved_ranges)
    return 0


def inet_sk_get_local_port_range(h: InetHashinfo, sk: int) -> bool:
    """Fill h.range's low and high (inclusive); true when IP_LOCAL_PORT_RANGE is set on the socket.

    A bound outside the namespace's range is ignored, each on its own (PORT-28).
    """
    low = h.sysctl.port_low
    high = h.sysctl.port_high
    local = False
    h.range.generation = 0
    if h.sks.opts[sk] != 0:
        options = h.sks.option_sets[h.sks.opts[sk]]
        own_low = options.port_low
        own_high = options.port_high
        local = own_low != 0 or own_high != 0
        if own_low != 0 and low <= own_low <= high:
            low = own_low
        if own_high != 0 and low <= own_high <= high:
            high = own_high
    h.range.low = low
    h.range.high = high
    return local


def set_search_range(h: InetHashinfo, sk: int) -> None:
    """The search's numbers: two parity passes over an even number of ports, or one pass of step 1 (PORT-05, -27)."""
    numbers = h.range
    if numbers.generation == h.sysctl.generation and h.sks.opts[sk] == 0:
        return
    local = inet_sk_get_local_port_range(h, sk)
    numbers.high += 1
    numbers.remaining = numbers.high - numbers.low
    numbers.step = 1 if local else 2
    if not local and numbers.remaining > 1:
        numbers.remaining -= numbers.remaining & 1
    if h.sks.opts[sk] == 0:
        numbers.generation = h.sysctl.generation


def inet_sk_port_offset(h: InetHashinfo, sk: int, now_us: int) -> int:
    """Keyed hash of source, destination and destination port, changed every 10 s (PORT-40, -41)."""
    return secure_ipv4_port_ephemeral(
        h.sks.saddr[sk], h.sks.daddr[sk], h.sks.dport[sk], now_us, h.secrets.port_k0, h.secrets.port_k1
    )


def inet_hash_connect(h: InetHashinfo, sk: int, now_us: int) -> int:
    """Give sk a local port and put it into the ehash: the port, or -EADDRNOTAVAIL.

    saddr, daddr, dport, bound_dev of the row are set.  With a port already bound (num != 0) there is no search, only
    the check of the 4-tuple.  `h.tw_recycled` names the TIME_WAIT row that was reused (freed by now), 0 if none.
    """
    if h.sysctl_generation != h.sysctl.generation:
        refresh_sysctls(h)
    h.tw_recycled = 0
    h.last_distance = 0
    port_offset = inet_sk_port_offset(h, sk, now_us)
    if h.tracer is not None:
        trace(h.tracer, FN_INET_HASH_CONNECT, sk, port_offset >> 32, h.sks.num[sk])
    if h.sks.num[sk] != 0:
        return _connect_bound(h, sk, now_us)
    return _inet_hash_connect(h, sk, port_offset, now_us)


def _connect_bound(h: InetHashinfo, sk: int, now_us: int) -> int:
    port = h.sks.num[sk]
    error = _inet_check_established(h, sk, port, False, now_us)
    if h.tracer is not None:
        trace(h.tracer, FN__INET_HASH_CONNECT, sk, port)
        trace(h.tracer, FN__INET_CHECK_ESTABLISHED, sk, port, error)
    if error != 0:
        return error
    _record_identity(h, sk, port)
    if h.tw_recycled != 0:
        _inet_twsk_release(h, h.tw_recycled, 0)
    return port


def _inet_hash_connect(h: InetHashinfo, sk: int, port_offset: int, now_us: int) -> int:
    """The search: first the ports of the range's low parity from the hashed start on, then the others."""
    set_search_range(h, sk)
    numbers = h.range
    index = port_offset & _PERTURB_MASK
    start = ((port_offset >> 32) + perturb_start(h.secrets, index)) & _M32
    offset = start % numbers.remaining
    if numbers.step == 2:
        offset -= offset & 1
    if h.tracer is not None:
        trace(h.tracer, FN__INET_HASH_CONNECT, sk, numbers.low, numbers.high - 1, offset, numbers.step)
        explain_search(h, sk, offset, now_us)
    port = search_port(h, sk, offset, now_us)
    moved = 0
    if port >= 0:
        moved = _perturb(h, index)
        _take(h, sk, port)
    if h.tracer is not None:
        trace(h.tracer, FN_PORT_FOUND, sk, port, h.last_distance // numbers.step, moved)
    return port


def _perturb(h: InetHashinfo, index: int) -> int:
    """Move the next start past this port by a random step, or by the distance walked if that is more (PORT-03, -49)."""
    step = h.range.step
    advance = get_random_u32_below(h.secrets, 8) * step
    if h.last_distance > advance:
        advance = h.last_distance
    wide = h.secrets.table_perturb[index]
    h.secrets.table_perturb[index] = (wide + advance + step) & _M32
    return advance + step


def _take(h: InetHashinfo, sk: int, port: int) -> None:
    """The port is sk's: into the ehash, the bucket and the destination."""
    _record_identity(h, sk, port)
    bucket_join(h.bind, port, sk << 1, True)
    h.sks.flags[sk] |= _CONNECT_BIND
    dest = h.range.own
    if dest == 0:
        dest = dest_get(h.dests, h.sks.saddr[sk], h.sks.daddr[sk], h.sks.dport[sk], h.sks.bound_dev[sk])
    h.sks.dest[sk] = dest
    dest_add(h.dests, dest, port)
    if h.tw_recycled != 0:
        _inet_twsk_release(h, h.tw_recycled, dest)
    if h.dests.count[dest] >= h.dests.dense and h.dests.map_index[dest] == 0:
        build_map(h, dest)


def search_port(h: InetHashinfo, sk: int, offset: int, now_us: int) -> int:
    """The port the kernel's scan would end at, or -EADDRNOTAVAIL; sk does not have it yet.

    `h.range` holds the range, `offset` where the first pass starts.  A TIME_WAIT in the way is out of the ehash
    afterwards, and `h.tw_recycled`.
    """
    _look_up_dests(h, sk, (now_us // 1000) & _M32)
    if h.range.step == 1:
        return _pass_of_all(h, h.range, sk, offset, now_us)
    port = -_EADDRNOTAVAIL
    if not _first_half_is_taken(h, h.range):
        port = _pass_of_parity(h, h.range, sk, offset, now_us)
    if port < 0 and h.range.remaining > 1:
        port = _pass_of_parity(h, h.range, sk, offset + 1, now_us)
    return port


def _first_half_is_taken(h: InetHashinfo, numbers: PortRange) -> bool:
    """True when the first pass would find nothing.  Asked when that is likely: it is one search more, or one less."""
    if numbers.own_map == _EMPTY or h.dests.count[numbers.own] * 2 < numbers.remaining:
        return False
    return portset_next_open(h.sets, _SHUT, numbers.own_map, numbers.unbound_map, numbers.low, numbers.high - 1) < 0


def _look_up_dests(h: InetHashinfo, sk: int, now_ms: int) -> None:
    """A socket bound to a device meets those of its device and those of none, another only the latter (PORT-26)."""
    dev = h.sks.bound_dev[sk]
    h.range.own = dest_find(h.dests, h.sks.saddr[sk], h.sks.daddr[sk], h.sks.dport[sk], dev)
    h.range.own_map = h.dests.map_index[h.range.own]
    h.range.certain = _map_is_certain(h, h.range.own, now_ms)
    h.range.unbound = 0
    h.range.unbound_map = 0
    if dev != 0:
        h.range.unbound = dest_find(h.dests, h.sks.saddr[sk], h.sks.daddr[sk], h.sks.dport[sk], 0)
        h.range.unbound_map = h.dests.map_index[h.range.unbound]
        if not _map_is_certain(h, h.range.unbound, now_ms):
            h.range.certain = False


def _map_is_certain(h: InetHashinfo, dest: int, now_ms: int) -> bool:
    """Bring a map up to now; true when all that is not in it is free: no 4-tuples, or a map and no TIME_WAITs."""
    if dest == 0:
        return True
    if h.dests.map_index[dest] == 0:
        return False
    if h.dests.tw_head[dest] == 0:
        return True
    dest_ripen(h.dests, dest, now_ms)
    return False


def _pass_of_parity(h: InetHashinfo, numbers: PortRange, sk: int, offset: int, now_us: int) -> int:
    """One parity pass: from low + offset up to the end of the range, then from where the scan wraps to.

    In a range of odd size the wrap lands on low + 2, not on low: unless the start is low itself, the pass leaves low
    out and takes the last port instead.
    """
    first = numbers.low + offset
    candidates = (numbers.remaining + 1) >> 1
    before_wrap = ((numbers.high - 1 - first) >> 1) + 1
    if before_wrap > candidates:
        before_wrap = candidates
    port = _first_free(h, sk, first, first + 2 * (before_wrap - 1), now_us)
    if port >= 0:
        h.last_distance = port - first
        return port
    if before_wrap == candidates:
        return -_EADDRNOTAVAIL
    wrapped = first + 2 * before_wrap - numbers.remaining
    port = _first_free(h, sk, wrapped, wrapped + 2 * (candidates - before_wrap - 1), now_us)
    if port >= 0:
        h.last_distance = 2 * before_wrap + port - wrapped
    return port


def _pass_of_all(h: InetHashinfo, numbers: PortRange, sk: int, offset: int, now_us: int) -> int:
    """The one pass of IP_LOCAL_PORT_RANGE: both parities, step 1."""
    first = numbers.low + offset
    port = _nearest_free(h, sk, first, numbers.high - 1, now_us)
    if port >= 0:
        h.last_distance = port - first
        return port
    if offset == 0:
        return -_EADDRNOTAVAIL
    port = _nearest_free(h, sk, numbers.low, first - 1, now_us)
    if port >= 0:
        h.last_distance = numbers.high - first + port - numbers.low
    return port


def _nearest_free(h: InetHashinfo, sk: int, first: int, last: int, now_us: int) -> int:
    """Lowest port of first..last that the socket may have, or -EADDRNOTAVAIL."""
    while first <= last:
        port = _next_of_both(h, h.range, first, last)
        if port < 0:
            return -_EADDRNOTAVAIL
        if _may_have(h, sk, port, now_us):
            return port
        first = port + 1
    return -_EADDRNOTAVAIL


def _next_of_both(h: InetHashinfo, numbers: PortRange, first: int, last: int) -> int:
    same = portset_next_open(h.sets, _SHUT, numbers.own_map, numbers.unbound_map, first, last)
    if same == first or first == last:
        return same
    other = portset_next_open(h.sets, _SHUT, numbers.own_map, numbers.unbound_map, first + 1, last)
    if same < 0 or 0 <= other < same:
        return other
    return same


def _first_free(h: InetHashinfo, sk: int, first: int, last: int, now_us: int) -> int:
    """Lowest port of first, first + 2 .. last that the socket may have, or -EADDRNOTAVAIL."""
    asked = 0
    while first <= last:
        port = portset_next_open(h.sets, _SHUT, h.range.own_map, h.range.unbound_map, first, last)
        if port < 0:
            return -_EADDRNOTAVAIL
        if _may_have(h, sk, port, now_us):
            return port
        first = port + 2
        asked += 1
        if asked == _PATIENCE:
            _lose_patience(h, h.range.own, now_us)
    return -_EADDRNOTAVAIL


def _lose_patience(h: InetHashinfo, dest: int, now_us: int) -> None:
    if h.dests.map_index[dest] == 0 and h.dests.count[dest] * 3 >= h.dests.dense:
        build_map(h, dest)
        h.range.own_map = h.dests.map_index[dest]
        _map_is_certain(h, dest, (now_us // 1000) & _M32)


def _may_have(h: InetHashinfo, sk: int, port: int, now_us: int) -> bool:
    """A port without a bucket is free as it is; in a bucket the 4-tuple decides."""
    if h.bind.owners[port] == 0 or h.range.certain:
        return True
    if h.range.unbound == 0 and dest_is_clear_of(h.dests, h.range.own, port):
        return True
    return _inet_check_established(h, sk, port, True, now_us) == 0


def _record_identity(h: InetHashinfo, sk: int, port: int) -> None:
    h.sks.num[sk] = port
    h.sks.sport[sk] = port
    h.sks.flags[sk] |= _HASHED
    index_insert(h.ehash, sk << 1)


def _inet_check_established(h: InetHashinfo, sk: int, lport: int, searching: bool, now_us: int) -> int:
    """0 when the 4-tuple of sk with port lport is free, or a TIME_WAIT gives it up (which is then `h.tw_recycled`).

    A match counts when it is bound to no device or to the same one (inet_match).  -EADDRNOTAVAIL otherwise.  Where two
    match (one bound, one not) the kernel asks only the newer; here both have to agree.
    """
    given_up = 0
    entry = index_first(h.ehash, h.sks.saddr[sk], h.sks.daddr[sk], lport, h.sks.dport[sk])
    dev = h.sks.bound_dev[sk]
    while entry != 0:
        row = entry >> 1
        bound = h.tw.bound_dev[row] if entry & 1 else h.sks.bound_dev[row]
        if bound == 0 or bound == dev:
            if not entry & 1 or not tcp_twsk_unique(h, row, searching, now_us):
                return -_EADDRNOTAVAIL
            given_up = row
        entry = index_next(h.ehash)
    if given_up != 0:
        _take_over(h, sk, given_up)
    return 0


def _take_over(h: InetHashinfo, sk: int, tw: int) -> None:
    """sk goes on where the old sequence space of the TIME_WAIT ended; the row leaves the ehash."""
    wide = h.tw.snd_nxt[tw]
    seq = (wide + 65535 + 2) & _M32
    h.sks.write_seq[sk] = seq if seq != 0 else 1
    h.sks.ts_recent[sk] = h.tw.ts_recent[tw]
    h.sks.ts_recent_stamp[sk] = h.tw.ts_recent_stamp[tw]
    h.tw_recycled = tw
    index_erase(h.ehash, tw << 1 | 1)


def tcp_twsk_unique(h: InetHashinfo, tw: int, searching: bool, now_us: int) -> bool:
    """May the 4-tuple of this TIME_WAIT be taken over?

    Needs timestamps (PAWS protects the new connection).  A search also needs tcp_tw_reuse and its delay, a socket that
    bound the port itself does not (TW-02, -06).  kernel: net/ipv4/tcp_ipv4.c:tcp_twsk_unique.
    """
    if h.tw.ts_recent_stamp[tw] == 0:
        return False
    if not searching:
        return True
    return tw_may_ever_reuse(h.dests, tw) and tw_is_ripe(h.dests, tw, (now_us // 1000) & _M32)


def build_map(h: InetHashinfo, dest: int) -> None:
    """Make the map of a destination: ports with owners are looked up until all its 4-tuples are found."""
    used = dest_new_map(h.dests, dest)
    missing = h.dests.count[dest] if used != _EMPTY else 0
    port = h.dests.lowest[dest]
    while missing != 0 and port <= h.dests.highest[dest]:
        if h.bind.owners[port] != 0 and _holds(h, dest, port):
            portset_add(h.sets, used, port)
            missing -= 1
        port += 1


def _holds(h: InetHashinfo, dest: int, port: int) -> bool:
    entry = index_first(h.ehash, h.dests.saddr[dest], h.dests.daddr[dest], port, h.dests.dport[dest])
    while entry != 0:
        owner = h.tw.dest[entry >> 1] if entry & 1 else h.sks.dest[entry >> 1]
        if owner == dest:
            return True
        entry = index_next(h.ehash)
    return False


# -- in and out of the tables


def inet_hash(h: InetHashinfo, sk: int) -> int:
    """A listener goes to the listener table, any other socket to the ehash."""
    if h.sks.flags[sk] & _HASHED:
        return 0
    h.sks.flags[sk] |= _HASHED
    if h.sks.sk_state[sk] == _TCP_LISTEN:
        h.listeners.setdefault(h.sks.num[sk], []).append(sk)
        return 0
    index_insert(h.ehash, sk << 1)
    return 0


def inet_unhash(h: InetHashinfo, sk: int) -> int:
    """Out of the listener table or the ehash; nothing happens when it is in neither."""
    sks = h.sks
    if not sks.flags[sk] & _HASHED:
        return 0
    sks.flags[sk] &= ~_HASHED & _M32
    if not _unhash_established(h, sk):
        listeners = h.listeners[sks.num[sk]]
        listeners.remove(sk)
        if not listeners:
            del h.listeners[sks.num[sk]]
    return 0


def _unhash_established(h: InetHashinfo, sk: int) -> bool:
    if not index_erase(h.ehash, sk << 1):
        return False
    if h.sks.dest[sk] != 0:
        dest_remove(h.dests, h.sks.dest[sk], h.sks.sport[sk])
        h.sks.dest[sk] = 0
    return True


def inet_put_port(h: InetHashinfo, sk: int) -> None:
    """Leave the bind bucket.  inet_num is cleared, inet_sport is not (ST-05)."""
    port = h.sks.num[sk]
    if port == 0:
        return
    bucket_leave(h.bind, port, sk << 1, h.sks.flags[sk] & _CONNECT_BIND != 0)
    h.sks.num[sk] = 0
    h.sks.flags[sk] &= ~_CONNECT_BIND & _M32


def inet_inherit_port(h: InetHashinfo, listener: int, child: int) -> None:
    """An accepted child shares its listener's bucket, and keeps it closed to connect() (PORT-20)."""
    port = h.sks.num[listener]
    h.sks.num[child] = port
    h.sks.sport[child] = port
    bucket_join(h.bind, port, child << 1, False)


def set_bound_dev(h: InetHashinfo, sk: int, ifindex: int) -> None:
    """SO_BINDTODEVICE: the device is part of the destination that the port map belongs to."""
    h.sks.bound_dev[sk] = ifindex
    if h.sks.dest[sk] == 0:
        return
    dest_remove(h.dests, h.sks.dest[sk], h.sks.sport[sk])
    h.sks.dest[sk] = dest_get(h.dests, h.sks.saddr[sk], h.sks.daddr[sk], h.sks.dport[sk], ifindex)
    dest_add(h.dests, h.sks.dest[sk], h.sks.sport[sk])


def inet_bhash2_update_saddr(h: InetHashinfo, sk: int, saddr: int) -> None:
    """The local address of a bound socket changes; owners are found by address in the list, so nothing moves."""
    h.sks.saddr[sk] = saddr


def inet_bhash2_reset_saddr(h: InetHashinfo, sk: int) -> None:
    """The automatic source address is forgotten (SRC-05)."""
    h.sks.saddr[sk] = 0


# -- TIME_WAIT


def inet_twsk_hashdance(h: InetHashinfo, sk: int, tw: int) -> None:
    """TIME_WAIT row tw takes the place of sk in ehash, bucket and destination; sk is in none of them afterwards.

    But a socket with a descriptor keeps a port that bind() locked: then both are in the bucket.
    """
    port = h.sks.num[sk]
    dest = h.sks.dest[sk]
    h.tw.saddr[tw] = h.sks.saddr[sk]
    h.tw.daddr[tw] = h.sks.daddr[sk]
    h.tw.num[tw] = port
    h.tw.dport[tw] = h.sks.dport[sk]
    h.tw.bound_dev[tw] = h.sks.bound_dev[sk]
    h.tw.opts[tw] = h.sks.opts[sk]
    h.tw.flags[tw] = h.sks.flags[sk] & _TW_FLAGS
    h.tw.dest[tw] = dest
    if h.sks.userlocks[sk] & _BINDPORT_LOCK and not h.sks.flags[sk] & _DEAD:
        bucket_join(h.bind, port, tw << 1 | 1, False)
    else:
        bucket_replace(h.bind, port, sk << 1, tw << 1 | 1)
        h.sks.num[sk] = 0
    index_erase(h.ehash, sk << 1)
    index_insert(h.ehash, tw << 1 | 1)
    if dest != 0:
        dest_tw_append(h.dests, dest, tw)
    h.sks.dest[sk] = 0
    h.sks.flags[sk] &= ~(_HASHED | _CONNECT_BIND) & _M32


def inet_twsk_kill(h: InetHashinfo, tw: int) -> None:
    """The row ends: out of everything, and free.  Its wheel node, if any, is the caller's."""
    index_erase(h.ehash, tw << 1 | 1)
    _inet_twsk_release(h, tw, 0)


def _inet_twsk_release(h: InetHashinfo, tw: int, heir: int) -> None:
    """What is left of a row that is out of the ehash: bucket, destination, FIFO, the row.

    `heir`: destination of the socket whose search took the 4-tuple over.  If it is the same one, its map has the port
    again, for the new socket, and only the count goes down.
    """
    bucket_leave(h.bind, h.tw.num[tw], tw << 1 | 1, h.tw.flags[tw] & _CONNECT_BIND != 0)
    dest = h.tw.dest[tw]
    if dest != 0:
        dest_tw_remove(h.dests, dest, tw)
        if dest == heir:
            h.dests.count[dest] -= 1
        else:
            dest_remove(h.dests, dest, h.tw.num[tw])
    tw_fifo_remove(h.tw, tw)
    tw_free(h.tw, tw)


def inet_twsk_enter_time_wait(h: InetHashinfo, tw: int, now_ms: int) -> None:
    """FIN_WAIT2 -> TIME_WAIT: from now on the row counts as newly made for tcp_tw_reuse_delay."""
    h.tw.substate[tw] = _TCP_TIME_WAIT
    h.tw.entry_ms[tw] = now_ms
    dest = h.tw.dest[tw]
    if dest != 0:
        dest_tw_remove(h.dests, dest, tw)
        dest_tw_append(h.dests, dest, tw)


# -- lookup


def inet_lookup_established(h: InetHashinfo, saddr: int, sport: int, daddr: int, hnum: int, dif: int) -> int:
    """Entry (`row << 1 | is_tw`) of the socket for a packet from saddr:sport to daddr:hnum on device dif, or 0."""
    entry = index_first(h.ehash, daddr, saddr, hnum, sport)
    while entry != 0:
        row = entry >> 1
        bound = h.tw.bound_dev[row] if entry & 1 else h.sks.bound_dev[row]
        if bound == 0 or bound == dif:
            return entry
        entry = index_next(h.ehash)
    return 0


def inet_lookup_listener(h: InetHashinfo, daddr: int, hnum: int, dif: int) -> int:
    """Row of the best listener for a SYN to daddr:hnum: an exact address before the wildcard, a device before none."""
    best = 0
    high_score = 0
    for sk in h.listeners.get(hnum, ()):
        score = _compute_score(h, sk, daddr, dif)
        if score > high_score:
            best, high_score = sk, score
    return best


def _compute_score(h: InetHashinfo, sk: int, daddr: int, dif: int) -> int:
    saddr = h.sks.saddr[sk]
    bound = h.sks.bound_dev[sk]
    if saddr not in (0, daddr) or bound not in (0, dif):
        return 0
    return 1 + (2 if bound else 0) + (4 if saddr else 0)


def port_is_reserved(h: InetHashinfo, port: int) -> bool:
    """inet_is_local_reserved_port."""
    return portset_test(h.sets, _RESERVED, port) != 0


def sock_options(h: InetHashinfo, sk: int) -> SockOptions:
    """The option set of a socket."""
    return h.sks.option_sets[h.sks.opts[sk]]
