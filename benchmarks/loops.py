"""The loops that are timed, compiled as the engine is: a call of Python costs more than what it would measure.

Here: setting up sockets, calling the port search and connect() in a row, and the kernel's way of searching, compiled.
Not here: what the loops are run on, and what is said of it (ports.py, destinations.py).

Rules
1. A loop is at least a thousand calls, or batches with the clock read round each; the clock's own cost is taken off.
2. What is not the subject (the socket's row, its closing) stays outside the clock.
"""

from __future__ import annotations

import errno
from time import perf_counter_ns

from fourtuple.columns import allocate_columns
from fourtuple.inet.hashinfo import InetHashinfo
from fourtuple.inet.hashtables import (
    inet_hash_connect,
    inet_put_port,
    inet_sk_port_offset,
    inet_unhash,
    search_port,
    set_search_range,
)
from fourtuple.inet.portset import RESERVED, SHUT, portset_next_open, portset_test
from fourtuple.inet.secrets import perturb_start
from fourtuple.inet.siphash import siphash_2u64
from fourtuple.inet.sock_table import sk_alloc, sk_free_inet
from fourtuple.inet.tuple_index import index_first

_SOURCE = 0x0A000001
_DPORT = 443
_M32 = 0xFFFFFFFF
_M64 = 0xFFFFFFFFFFFFFFFF
_EADDRNOTAVAIL = errno.EADDRNOTAVAIL
_SHUT = SHUT
_RESERVED = RESERVED
# Knuth's MMIX generator: which socket is closed, where a search starts.
_LCG_A = 6364136223846793005
_LCG_C = 1442695040888963407


class Rows:
    """The sockets that are open, the option set that new ones have, and the state of a random generator."""

    __slots__ = ("sk", "n", "opts", "seed")

    def __init__(self, most: int) -> None:
        self.sk = allocate_columns((("sk", "I"),), most)["sk"]
        self.n = 0
        self.opts = 0
        self.seed = 1


def _random_below(rows: Rows, n: int) -> int:
    rows.seed = (rows.seed * _LCG_A + _LCG_C) & _M64
    wide = rows.seed >> 32
    return wide * n >> 32


def clock_cost(n: int) -> int:
    """Nanoseconds of n readings of the clock, as `connect_rounds` makes them."""
    start = perf_counter_ns()
    for _ in range(n):
        perf_counter_ns()
    return perf_counter_ns() - start


def new_row(h: InetHashinfo, daddr: int, opts: int = 0) -> int:
    """A socket as tcp_v4_connect() has it before the search: addresses, destination port, options set."""
    sk = sk_alloc(h.sks)
    h.sks.saddr[sk] = _SOURCE
    h.sks.daddr[sk] = daddr
    h.sks.dport[sk] = _DPORT
    h.sks.opts[sk] = opts
    return sk


def _close(h: InetHashinfo, sk: int) -> int:
    inet_unhash(h, sk)
    inet_put_port(h, sk)
    sk_free_inet(h.sks, sk)
    return 0


def _connect(h: InetHashinfo, rows: Rows, daddr: int, now_us: int) -> int:
    sk = new_row(h, daddr, rows.opts)
    port = inet_hash_connect(h, sk, now_us)
    if port < 0:
        sk_free_inet(h.sks, sk)
    else:
        rows.sk[rows.n] = sk
        rows.n += 1
    return port


def fill(h: InetHashinfo, rows: Rows, n: int, daddr: int, dests: int, now_us: int) -> int:
    """Connect n sockets to the destinations daddr, daddr + 1 .. in turn; how many got a port."""
    for i in range(n):
        if _connect(h, rows, daddr + i % dests, now_us) < 0:
            return i
    return n


def close_newest(h: InetHashinfo, rows: Rows, n: int) -> int:
    """Close the last n."""
    for _ in range(n):
        rows.n -= 1
        _close(h, rows.sk[rows.n])
    return 0


def close_random(h: InetHashinfo, rows: Rows, n: int) -> int:
    """Close any n."""
    for _ in range(n):
        i = _random_below(rows, rows.n)
        _close(h, rows.sk[i])
        rows.n -= 1
        rows.sk[i] = rows.sk[rows.n]
    return 0


def connect_rounds(
    h: InetHashinfo, rows: Rows, batch: int, rounds: int, daddr: int, dests: int, shuffle: bool, now_us: int
) -> int:
    """Nanoseconds of batch * rounds calls of inet_hash_connect().

    Each to one of `dests` destinations by chance.  After a batch as many are closed: the same, or with `shuffle` any.
    """
    took = 0
    for _ in range(rounds):
        for i in range(batch):
            rows.sk[rows.n + i] = new_row(h, daddr + _random_below(rows, dests), rows.opts)
        start = perf_counter_ns()
        for i in range(batch):
            inet_hash_connect(h, rows.sk[rows.n + i], now_us)
        took += perf_counter_ns() - start
        rows.n += batch
        if shuffle:
            close_random(h, rows, batch)
        else:
            close_newest(h, rows, batch)
    return took


def refused(h: InetHashinfo, rows: Rows, n: int, daddr: int, now_us: int) -> int:
    """n calls of inet_hash_connect() for one socket, to a destination without a free port; how many were refused."""
    sk = new_row(h, daddr, rows.opts)
    count = 0
    for _ in range(n):
        if inet_hash_connect(h, sk, now_us) == -_EADDRNOTAVAIL:
            count += 1
    sk_free_inet(h.sks, sk)
    return count


def hashes(n: int) -> int:
    """n SipHash-2-4 of 16 bytes, one after the other: what the machine does with pure arithmetic just now."""
    value = 0
    for _ in range(n):
        value = siphash_2u64(value, n, 1, 2)
    return value


# -- the search alone, from offsets by chance


def _offset(h: InetHashinfo, rows: Rows) -> int:
    return _random_below(rows, h.range.remaining) & ~1 & _M32


def offsets_alone(h: InetHashinfo, rows: Rows, sk: int, n: int) -> int:
    """What the loops below cost without a search."""
    set_search_range(h, sk)
    total = 0
    for _ in range(n):
        total += _offset(h, rows)
    return total


def searches(h: InetHashinfo, rows: Rows, sk: int, n: int, now_us: int) -> int:
    """n searches as connect() makes them: the destination is looked up, its map is searched; no port is taken."""
    set_search_range(h, sk)
    total = 0
    for _ in range(n):
        total += search_port(h, sk, _offset(h, rows), now_us)
    return total


def searches_at_random(h: InetHashinfo, rows: Rows, sk: int, n: int, daddr: int, dests: int, now_us: int) -> int:
    """The same, each for one of `dests` destinations by chance, and from where connect() would start."""
    set_search_range(h, sk)
    total = 0
    for _ in range(n):
        h.sks.daddr[sk] = daddr + _random_below(rows, dests)
        wide = inet_sk_port_offset(h, sk, now_us)
        offset = ((wide >> 32) + perturb_start(h.secrets, wide & 0xFFFF)) & _M32
        total += search_port(h, sk, offset % h.range.remaining & ~1 & _M32, now_us)
    return total


def offsets_at_random(h: InetHashinfo, rows: Rows, sk: int, n: int, daddr: int, dests: int, now_us: int) -> int:
    """What the loop above costs without the search."""
    set_search_range(h, sk)
    total = 0
    for _ in range(n):
        h.sks.daddr[sk] = daddr + _random_below(rows, dests)
        wide = inet_sk_port_offset(h, sk, now_us)
        offset = ((wide >> 32) + perturb_start(h.secrets, wide & 0xFFFF)) & _M32
        total += offset % h.range.remaining & ~1 & _M32
    return total


def bit_searches(h: InetHashinfo, rows: Rows, used: int, past_half: bool, n: int) -> int:
    """n searches of the bit sets only: SHUT and the map `used`."""
    total = 0
    for _ in range(n):
        total += _bit_search(h, used, past_half, _offset(h, rows))
    return total


def _bit_search(h: InetHashinfo, used: int, past_half: bool, offset: int) -> int:
    """Both parities, each from the offset on, as search_port() does it; a range of even size."""
    for parity in range(2):
        low = h.range.low + parity
        if past_half and parity == 0 and portset_next_open(h.sets, _SHUT, used, 0, low, h.range.high - 1) < 0:
            continue
        found = portset_next_open(h.sets, _SHUT, used, 0, low + offset, h.range.high - 1)
        if found < 0:
            found = portset_next_open(h.sets, _SHUT, used, 0, low, low + offset)
        if found >= 0:
            return found
    return -1


# -- the same search as the kernel's loop makes it, compiled: the rival


def kernel_scans(h: InetHashinfo, rows: Rows, sk: int, n: int) -> int:
    """n searches port by port; no port is taken.  There is no TIME_WAIT and no device on the benchmarks' tables."""
    set_search_range(h, sk)
    total = 0
    for _ in range(n):
        total += _kernel_scan(h, sk, _offset(h, rows))
    return total


def _kernel_scan(h: InetHashinfo, sk: int, offset: int) -> int:
    port = _kernel_pass(h, sk, offset)
    if port < 0:
        port = _kernel_pass(h, sk, offset + 1)
    return port


def _kernel_pass(h: InetHashinfo, sk: int, offset: int) -> int:
    port = h.range.low + offset
    walked = 0
    while walked < h.range.remaining:
        if port >= h.range.high:
            port -= h.range.remaining
        if _kernel_may_have(h, sk, port):
            return port
        port += 2
        walked += 2
    return -_EADDRNOTAVAIL


def _kernel_may_have(h: InetHashinfo, sk: int, port: int) -> bool:
    """Not reserved, no bucket or one that connect() may join, and nobody has the 4-tuple."""
    if portset_test(h.sets, _RESERVED, port):
        return False
    if h.bind.owners[port] == 0:
        return True
    if h.bind.fastreuse[port] >= 0 or h.bind.fastreuseport[port] >= 0:
        return False
    return index_first(h.ehash, h.sks.saddr[sk], h.sks.daddr[sk], port, h.sks.dport[sk]) == 0
