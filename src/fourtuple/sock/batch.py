"""Many connections in one call: the loops that Host makes over sockets, compiled with the engine.

Here: beginning connections without descriptors, taking the events of all sockets.  Not here: what one socket does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import MutableSequence

from fourtuple.inet.sock_table import sk_handle
from fourtuple.tcp.close import tcp_close
from fourtuple.tcp.constants import EVENT_BITS
from fourtuple.tcp.ipv4 import tcp_v4_connect
from fourtuple.tcp.net import Net
from fourtuple.tcp.sock import SS_CONNECTING, SS_UNCONNECTED
from fourtuple.tcp.tcp import tcp_init_sock

_LISTED = 0x80  # of `pending`: see tcp/net.py


def connect_rows(net: Net, daddr: int, dport: int, n: int, out_rows: MutableSequence[int]) -> int:
    """Begin `n` connections to daddr:dport; their rows go to `out_rows`.  How many were begun; if none, -errno."""
    sks = net.sks
    for i in range(n):
        row = tcp_init_sock(net)
        if row < 0:
            return i or row
        sk = row
        sks.ss_state[sk] = SS_UNCONNECTED
        err = tcp_v4_connect(net, sk, daddr, dport)
        if err < 0:
            tcp_close(net, sk, 0)
            return i or err
        sks.ss_state[sk] = SS_CONNECTING
        out_rows[i] = sk
    return n


def take_events(net: Net, out: MutableSequence[int], first: int, room: int, later: deque[int]) -> int:
    """Empty the dirty list: events go to out[first:room], the rest to `later`; the number of those in `out`.

    An event is handle << EVENT_BITS | bits.  A row that was freed since has nothing to say.
    """
    sks = net.sks
    n = first
    for i in range(net.dirty_count):
        sk = net.dirty[i]
        bits = sks.pending[sk] ^ _LISTED
        sks.pending[sk] = 0
        if bits == 0:
            continue
        event = sk_handle(sks, sk) << EVENT_BITS | bits
        if n < room:
            out[n] = event
            n += 1
        else:
            later.append(event)
    net.dirty_count = 0
    return n
