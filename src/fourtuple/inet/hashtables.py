"""net/ipv4/inet_hashtables.c: which port a connect() gets, and which socket a packet belongs to.

`inet_hash_connect` -> `_inet_hash_connect` (range, parity, hashed start) -> `_inet_check_established` (is the 4-tuple
free).  The result is exactly that of the kernel's scan over ip_local_port_range, without walking it: the scan is a
run of "not this one" over ports that are `shut` (reserved, or in a bucket that bind() made) or in the destination's map
of used ports, and both are bit sets.  inet/scan.py is the same search written as the kernel's loop; a property test
holds the two equal in port, distance and table_perturb.

The order is that of the Host's KernelProfile.  6.18's has the path to itself; `variant` leads older kernels (one
counter instead of table_perturb, one pass of step 1) and ip_local_port_step_width (7.1) to
_inet_hash_connect_variant().

Time comes in as `now_us`.  No packets here.
"""

from __future__ import annotations

import errno
from math import gcd

from fourtuple.inet.bind import bucket_join, bucket_leave, bucket_move
from fourtuple.inet.dest import (
    dest_add,
    dest_find,
    dest_get,
    dest_is_clear_of,
    dest_new_map,
    dest_remove,
    dest_ripen,
    tw_is_ripe,
    tw_may_ever_reuse,
)
from fourtuple.inet.flags import BIND_MOVED, CONNECT_BIND, HASHED
from fourtuple.inet.hashinfo import InetHashinfo, PortRange, inet_sk_get_local_port_range, refresh_sysctls
from fourtuple.inet.portset import EMPTY, RESERVED, SHUT, portset_add, portset_next_open, portset_test
from fourtuple.inet.scan import explain_search
from fourtuple.inet.secrets import get_random_u32_below, perturb_start
from fourtuple.inet.secure_seq import secure_ipv4_port_ephemeral
from fourtuple.inet.timewait_sock import inet_twsk_release
from fourtuple.inet.tuple_index import index_erase, index_first, index_insert, index_next
from fourtuple.kernel_map import FN__INET_CHECK_ESTABLISHED, FN__INET_HASH_CONNECT, FN_INET_HASH_CONNECT, FN_PORT_FOUND
from fourtuple.kernel_profile import FROM_EVEN, FROM_NEXT
from fourtuple.trace import trace

_M32 = 0xFFFFFFFF
_EADDRNOTAVAIL = errno.EADDRNOTAVAIL
_TCP_LISTEN = 10
_CONNECT_BIND = CONNECT_BIND
_HASHED = HASHED
_BIND_MOVED = BIND_MOVED
_PERTURB_MASK = 0xFFFF
_EMPTY = EMPTY
_RESERVED = RESERVED
_SHUT = SHUT
_FROM_NEXT = FROM_NEXT
_FROM_EVEN = FROM_EVEN
_TEN_SECONDS = 10_000_000
# A search that had to ask the ehash this often builds the destination's map, if that would be at least a third dense.
_ROWS_A_PORT = 16  # rows that are looked at in the time of one look-up of a port
_PATIENCE = 64


def set_search_range(h: InetHashinfo, sk: int) -> None:
    """The search's numbers: two parity passes over an even number of ports, or one pass of step 1 (PORT-05, -27).

    With IP_LOCAL_PORT_RANGE the latter, since 6.8; before 4.6 always.
    """
    numbers = h.range
    if numbers.generation == h.sysctl.generation and h.sks.opts[sk] == 0:
        return
    local = (inet_sk_get_local_port_range(h, sk) and h.local_range_step_1) or h.port_order != 0
    numbers.high += 1
    numbers.remaining = numbers.high - numbers.low
    numbers.step = 1 if local else 2
    if not local and numbers.remaining > 1:
        numbers.remaining -= numbers.remaining & 1
    if h.sks.opts[sk] == 0:
        numbers.generation = h.sysctl.generation


def inet_sk_port_offset(h: InetHashinfo, sk: int, now_us: int) -> int:
    """Keyed hash of source, destination and destination port, changed every 10 s (PORT-40, -41)."""
    if h.one_counter:
        now_us = _hash_time(h, now_us)
    return secure_ipv4_port_ephemeral(
        h.sks.saddr[sk], h.sks.daddr[sk], h.sks.dport[sk], now_us, h.secrets.port_k0, h.secrets.port_k1
    )


def _hash_time(h: InetHashinfo, now_us: int) -> int:
    """The hash changes every 10 s of what it is given; here that is the profile's period, or never."""
    return now_us // h.rehash_period_us * _TEN_SECONDS if h.rehash_period_us != 0 else 0


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
        inet_twsk_release(h, h.tw_recycled, 0)
    return port


def _inet_hash_connect(h: InetHashinfo, sk: int, port_offset: int, now_us: int) -> int:
    """The search: first the ports of the range's low parity from the hashed start on, then the others."""
    set_search_range(h, sk)
    if h.variant:
        return _inet_hash_connect_variant(h, sk, port_offset, now_us)
    numbers = h.range
    index = port_offset & _PERTURB_MASK
    start = ((port_offset >> 32) + perturb_start(h.secrets, index)) & _M32
    offset = start % numbers.remaining
    if numbers.step == 2:
        offset -= offset & 1
    if h.tracer is not None:
        _trace_search(h, sk, offset, now_us)
    port = search_port(h, sk, offset, now_us)
    moved = 0
    if port >= 0:
        moved = _perturb(h, index)
        _take(h, sk, port)
    if h.tracer is not None:
        trace(h.tracer, FN_PORT_FOUND, sk, port, h.last_distance // numbers.step, moved)
    return port


def _trace_search(h: InetHashinfo, sk: int, offset: int, now_us: int) -> int:
    numbers = h.range
    if h.tracer is not None:
        step = numbers.step | numbers.stride << 8
        trace(h.tracer, FN__INET_HASH_CONNECT, sk, numbers.low, numbers.high - 1, offset, step)
        explain_search(h, sk, offset, now_us)
    return 0


def _inet_hash_connect_variant(h: InetHashinfo, sk: int, port_offset: int, now_us: int) -> int:
    """The search of kernels before 5.12, and that of ip_local_port_step_width; the range is set."""
    index = port_offset & _PERTURB_MASK
    numbers = h.range
    offset = _counter_offset(h, port_offset >> 32) if h.one_counter else _table_offset(h, port_offset, index)
    if numbers.step == 2:
        offset = offset >> 1 << 1
    numbers.stride = _random_stride(h) if h.step_width != 0 and numbers.remaining > 1 else 0
    if h.tracer is not None:
        _trace_search(h, sk, offset, now_us)
    if numbers.stride != 0:
        port = search_port_strided(h, sk, offset, now_us)
    else:
        port = search_port(h, sk, offset, now_us)
    moved = 0
    if port >= 0:
        moved = _move_counter(h) if h.one_counter else _perturb(h, index)
        _take(h, sk, port)
    if h.tracer is not None:
        trace(h.tracer, FN_PORT_FOUND, sk, port, h.last_distance // numbers.step, moved)
    return port


def _table_offset(h: InetHashinfo, port_offset: int, index: int) -> int:
    start = ((port_offset >> 32) + perturb_start(h.secrets, index)) & _M32
    return start % h.range.remaining


def _counter_offset(h: InetHashinfo, hashed: int) -> int:
    """Where a scan before 5.12 starts: the hash and one counter for the whole machine."""
    start = (hashed + h.secrets.connect_hint) & _M32
    if h.port_order == _FROM_NEXT:
        start = (start + 1) & _M32
    elif h.port_order == _FROM_EVEN:
        start -= start & 1
    return start % h.range.remaining


def _move_counter(h: InetHashinfo) -> int:
    """A success moves the counter past the ports walked; by an even number since 4.2."""
    wide = h.last_distance
    if h.port_order == _FROM_NEXT:
        wide += 1
    else:
        wide += 2
        wide -= wide & 1
    h.secrets.connect_hint = (h.secrets.connect_hint + wide) & _M32
    return wide


def _random_stride(h: InetHashinfo) -> int:
    """ip_local_port_step_width: a random step up to it, coprime with the candidates of a pass (RFC 6056, 3.3.5)."""
    candidates = h.range.remaining // h.range.step
    most = h.step_width if h.step_width < candidates else candidates
    stride = get_random_u32_below(h.secrets, most) + 1
    while stride <= most and gcd(stride, candidates) != 1:
        stride += 1
    return (stride if stride <= most else 1) * h.range.step


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
        inet_twsk_release(h, h.tw_recycled, dest)
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


def search_port_strided(h: InetHashinfo, sk: int, offset: int, now_us: int) -> int:
    """The same with a stride: port by port, as neighbours in the order are no neighbours in a bit set."""
    _look_up_dests(h, sk, (now_us // 1000) & _M32)
    port = _strided_pass(h, h.range, sk, offset, now_us)
    if port < 0 and h.range.step == 2:
        port = _strided_pass(h, h.range, sk, offset + 1, now_us)
    return port


def _strided_pass(h: InetHashinfo, numbers: PortRange, sk: int, offset: int, now_us: int) -> int:
    port = numbers.low + offset
    walked = 0
    while walked < numbers.remaining:
        if port >= numbers.high:
            port -= numbers.remaining
        if not _is_passed_over(h, numbers, port) and _may_have(h, sk, port, now_us):
            h.last_distance = walked
            return port
        walked += numbers.step
        port += numbers.stride
    return -_EADDRNOTAVAIL


def _is_passed_over(h: InetHashinfo, numbers: PortRange, port: int) -> bool:
    taken = portset_test(h.sets, _SHUT, port) | portset_test(h.sets, numbers.own_map, port)
    return (taken | portset_test(h.sets, numbers.unbound_map, port)) != 0


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
    if h.bind.moved != 0:
        h.range.certain = False  # their ports may be open, and their 4-tuples are in no map


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
    """The one pass of IP_LOCAL_PORT_RANGE, and of kernels before 4.6: both parities, step 1."""
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
    if h.range.unbound == 0 and h.bind.moved == 0 and dest_is_clear_of(h.dests, h.range.own, port):
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
    """Make the map of a destination: rows or ports, whichever are fewer, are looked at until all 4-tuples are found.

    64 destinations that get a map in the same round of a dial must not make it last for 30 ms.
    """
    used = dest_new_map(h.dests, dest)
    missing = h.dests.count[dest] if used != _EMPTY else 0
    port = h.dests.lowest[dest]
    if h.sks.high_water + h.tw.high_water < _ROWS_A_PORT * (h.dests.highest[dest] - port):
        missing = _map_rows(h, dest, used, missing)
    while missing != 0 and port <= h.dests.highest[dest]:
        if h.bind.owners[port] != 0 and _holds(h, dest, port):
            portset_add(h.sets, used, port)
            missing -= 1
        port += 1


def _map_rows(h: InetHashinfo, dest: int, used: int, missing: int) -> int:
    """Put the ports of a destination's sockets and TIME_WAITs into its map; how many of `missing` were not found."""
    row = 1
    while missing != 0 and row <= h.sks.high_water:
        if h.sks.dest[row] == dest:
            portset_add(h.sets, used, h.sks.num[row])
            missing -= 1
        row += 1
    row = 1
    while missing != 0 and row <= h.tw.high_water:
        if h.tw.dest[row] == dest:
            portset_add(h.sets, used, h.tw.num[row])
            missing -= 1
        row += 1
    return missing


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
    h.sks.userlocks[sk] &= ~_BIND_MOVED & 0xFF


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
    """The local address of a socket changes; owners are found by address in the list, so nothing moves there."""
    if h.sks.num[sk] != 0 and h.bind.heals:
        bucket_move(h.bind, sk, saddr)
    h.sks.saddr[sk] = saddr


def inet_bhash2_reset_saddr(h: InetHashinfo, sk: int) -> None:
    """The automatic source address is forgotten (SRC-05)."""
    inet_bhash2_update_saddr(h, sk, 0)


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
    if (saddr != 0 and saddr != daddr) or (bound != 0 and bound != dif):
        return 0
    return 1 + (2 if bound != 0 else 0) + (4 if saddr != 0 else 0)


def port_is_reserved(h: InetHashinfo, port: int) -> bool:
    """inet_is_local_reserved_port."""
    return portset_test(h.sets, _RESERVED, port) != 0
