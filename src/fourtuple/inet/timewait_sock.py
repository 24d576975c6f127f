"""net/ipv4/inet_timewait_sock.c: a TIME_WAIT takes the place of its socket in the tables, and leaves them.

The rows themselves are in timewait.py, who decides that one ends or is taken over in tcp/minisocks.py and
hashtables.py.
"""

from __future__ import annotations

from fourtuple.inet.bind import bucket_join, bucket_leave, bucket_replace
from fourtuple.inet.dest import dest_remove, dest_tw_append, dest_tw_remove
from fourtuple.inet.flags import (
    BIND_MOVED,
    BINDPORT_LOCK,
    CONNECT_BIND,
    DEAD,
    HASHED,
    REUSE,
    REUSEPORT,
    TRANSPARENT,
    TW_BIND_MOVED,
)
from fourtuple.inet.hashinfo import InetHashinfo
from fourtuple.inet.timewait import tw_fifo_remove, tw_free
from fourtuple.inet.tuple_index import index_erase, index_insert

_M32 = 0xFFFFFFFF
_TCP_TIME_WAIT = 6
_CONNECT_BIND = CONNECT_BIND
_HASHED = HASHED
_DEAD = DEAD
_BINDPORT_LOCK = BINDPORT_LOCK
_BIND_MOVED = BIND_MOVED
_TW_BIND_MOVED = TW_BIND_MOVED
_TW_FLAGS = REUSE | REUSEPORT | TRANSPARENT | CONNECT_BIND


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
    if h.sks.userlocks[sk] & _BIND_MOVED:
        h.tw.flags[tw] |= _TW_BIND_MOVED
    h.tw.dest[tw] = dest
    if h.sks.userlocks[sk] & _BINDPORT_LOCK and not h.sks.flags[sk] & _DEAD:
        bucket_join(h.bind, port, tw << 1 | 1, False)
    else:
        bucket_replace(h.bind, port, sk << 1, tw << 1 | 1)
        h.sks.num[sk] = 0
        h.sks.userlocks[sk] &= ~_BIND_MOVED & 0xFF
    index_erase(h.ehash, sk << 1)
    index_insert(h.ehash, tw << 1 | 1)
    if dest != 0:
        dest_tw_append(h.dests, dest, tw)
    h.sks.dest[sk] = 0
    h.sks.flags[sk] &= ~(_HASHED | _CONNECT_BIND) & _M32


def inet_twsk_kill(h: InetHashinfo, tw: int) -> None:
    """The row ends: out of everything, and free.  Its wheel node, if any, is the caller's."""
    index_erase(h.ehash, tw << 1 | 1)
    inet_twsk_release(h, tw, 0)


def inet_twsk_release(h: InetHashinfo, tw: int, heir: int) -> None:
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
    """FIN_WAIT2 -> TIME_WAIT: for tcp_tw_reuse_delay it counts as made at now_ms, which may be when it was made."""
    h.tw.substate[tw] = _TCP_TIME_WAIT
    if h.tw.entry_ms[tw] == now_ms:
        h.dests.reuse_generation += 1  # it keeps its place, which the cursor of a map may have passed
        return
    h.tw.entry_ms[tw] = now_ms
    dest = h.tw.dest[tw]
    if dest != 0:
        dest_tw_remove(h.dests, dest, tw)
        dest_tw_append(h.dests, dest, tw)
