"""Dialer: very many connections of one Host, begun and watched without an object or a descriptor each.

Here: beginning connections along routes in turn, what becomes of them, closing them; what is counted on the way.
Not here: packets, clocks, sleeping (stack.py), what is said on a connection (talk.py).

Rules
1. A connection belongs to the Dialer from dial_begin() until it failed, was lost or was closed: `phase[row]` says which
   it is.  Its row lives on until the Dialer closes it, so a row in `phase` is never somebody else's.
2. An attempt ends in exactly one of `established` and `failed`; a connection in exactly one of `lost` and `closed`.
   begun = in_flight + failed + established; established = open + lost + closed.
3. The Dialer takes all events of its Host; what concerns other sockets goes to `others`.
4. `stalled` are the attempts in flight that nothing has answered for 20 to 30 ms: their SYNs or the answers are lost.
5. No call takes long, however many rows there are: what looks at all of them goes on where it stopped.
"""

from __future__ import annotations

import array
import errno
from collections.abc import Callable
from typing import Any

from fourtuple.columns import allocate_columns
from fourtuple.dial.histogram import Histogram, hist_record
from fourtuple.inet.flags import BINDADDR_LOCK, DEAD, KEEPOPEN, LINGER
from fourtuple.inet.sock_table import sk_handle
from fourtuple.tcp.close import tcp_close
from fourtuple.tcp.constants import EVENT_BITS
from fourtuple.tcp.ipv4 import tcp_v4_connect
from fourtuple.tcp.net import Net, tcp_jiffies
from fourtuple.tcp.output import tcp_send_active_reset, tcp_xmit_probe_skb
from fourtuple.tcp.sock import last_ack_time
from fourtuple.tcp.states import TCP_CLOSE, TCP_CLOSE_WAIT, TCP_ESTABLISHED, TCP_SYN_SENT
from fourtuple.tcp.tcp import tcp_done, tcp_init_sock

_M32 = 0xFFFFFFFF
_LISTED = 0x80  # of `pending`: see tcp/net.py
_EV_IN, _EV_ERR = 2, 8
_TIMED_ROUNDS = 3  # connect() is timed in one round of four: reading the clock takes longer than the search

IN_FLIGHT, OPEN = 1, 2
"""In the two lowest bits of `phase`: an attempt, a live connection."""
_NOT_OURS, _IN_FLIGHT, _OPEN = 0, IN_FLIGHT, OPEN
PHASE = 3
"""Its bits in the column `phase`."""
_PHASE = PHASE  # of `phase`; above it: how often this connection was dialed before
_REDIALS_SHIFT = 2
_SLOT_US, _SLOTS = 10_000, 3  # of `fresh`
_MOST_ROWS, _MOST_LOOKED_AT = 1 << 17, 512  # in one call of dial_sweep()


class Dialer:
    """Connections along `routes`, a list of (source or 0, destination, port): addresses and ports as ints.

    `clock_ns` times each connect(); None: they are not timed.  `on_end` hears of each connection that failed or was
    lost: (row, errno or 0 for a FIN, was it open, times dialed before), before its row is given back.

    `is_reading`: somebody reads what comes (`readable`), so a connection with unread data is open after the peer's FIN.
    """

    __slots__ = (
        "begun", "clock_ns", "closed", "connect_ns", "cursor", "established", "failed", "fresh", "fresh_at",
        "handshake_ns", "in_flight", "is_keeping", "is_reading", "lost", "net", "next_route", "noted", "on_end", "open",
        "others", "passed_over", "phase", "readable", "resent", "resent_segments", "results", "rounds", "route_begun",
        "route_count", "route_daddr", "route_dport", "route_saddr", "since", "slot", "stalled", "swept",
    )  # fmt: skip

    def __init__(
        self,
        net: Net,
        routes: list[tuple[int, int, int]],
        clock_ns: Callable[[], int] | None = None,
        on_end: Callable[[int, int, bool, int], None] | None = None,
    ) -> None:
        self.net = net
        columns = allocate_columns((("phase", "B"), ("since", "I")), net.sks.max_sockets + 1)
        self.phase = columns["phase"]
        self.since = columns["since"]  # ms clock of the first SYN of a slow attempt, or 0: a page is rarely touched
        self.noted = 0
        self.clock_ns: Any = clock_ns
        self.on_end: Any = on_end
        self.results: Any = None
        self.readable: list[int] = []
        self.others: list[int] = []
        self.connect_ns = Histogram()
        self.handshake_ns = Histogram()
        self.passed_over = Histogram()
        self.rounds = self.cursor = self.swept = 0
        self.fresh = self.slot = 0
        self.fresh_at = memoryview(array.array("I", bytes(4 * (_SLOTS + 1))))
        self.begun = self.in_flight = self.established = self.open = 0
        self.failed = self.lost = self.closed = self.resent = self.resent_segments = self.stalled = 0
        self.is_keeping = False
        self.is_reading = False
        self.set_routes(routes)

    def set_routes(self, routes: list[tuple[int, int, int]]) -> None:
        """Begin the next connections along these; `route_begun` counts anew."""
        if not routes:
            raise ValueError("a Dialer needs a route")
        self.route_count = len(routes)
        self.next_route = 0
        self.route_saddr = memoryview(array.array("I", [route[0] for route in routes]))
        self.route_daddr = memoryview(array.array("I", [route[1] for route in routes]))
        self.route_dport = memoryview(array.array("I", [route[2] for route in routes]))
        self.route_begun = memoryview(array.array("I", bytes(4 * len(routes))))


def dial_begin(d: Dialer, n: int, redials: int) -> int:
    """Begin `n` connections, dialed `redials` times before; how many.  Fewer: there is no row for the next (ENOBUFS).

    All other errors of connect() are counted, told to `on_end`, and do not end the round.
    """
    _turn_slots(d)
    timed = d.clock_ns is not None and d.rounds & _TIMED_ROUNDS == 0
    d.rounds += 1
    before = 0
    after = 0
    if timed:
        before = d.clock_ns()
    for i in range(n):
        if _connect_next(d, redials) < 0:
            return i
        if timed:
            after = d.clock_ns()
            hist_record(d.connect_ns, after - before)
            before = after
    return n


def _connect_next(d: Dialer, redials: int) -> int:
    net = d.net
    sks = net.sks
    row = tcp_init_sock(net)
    if row < 0:
        return row
    sk = row
    i = d.next_route
    d.next_route = i + 1 if i + 1 < d.route_count else 0
    if d.route_saddr[i] != 0:
        # bind() with IP_BIND_ADDRESS_NO_PORT: the address is locked, the port is left to connect().
        sks.saddr[sk] = d.route_saddr[i]
        sks.userlocks[sk] |= BINDADDR_LOCK
    if d.is_keeping:
        sks.flags[sk] |= KEEPOPEN
    d.phase[sk] = redials << _REDIALS_SHIFT | _IN_FLIGHT
    d.begun += 1
    d.in_flight += 1
    d.route_begun[i] += 1
    err = tcp_v4_connect(net, sk, d.route_daddr[i], d.route_dport[i])
    if err < 0:
        sks.daddr[sk] = d.route_daddr[i]
        sks.dport[sk] = d.route_dport[i]
        d.in_flight -= 1
        _end_attempt(d, sk, -err)
    else:
        d.fresh += 1
        d.fresh_at[d.slot & _SLOTS] += 1
        hist_record(d.passed_over, net.h.last_distance // net.h.range.step)
    return 0


def _turn_slots(d: Dialer) -> None:
    """Attempts are counted by the 10 ms in which they began; after three such slots they are not fresh any more."""
    slot = d.net.now_us // _SLOT_US & _M32
    steps = 0
    while d.slot != slot and steps <= _SLOTS:
        d.slot = (d.slot + 1) & _M32
        steps += 1
        d.fresh -= d.fresh_at[(d.slot + 1) & _SLOTS]
        d.fresh_at[(d.slot + 1) & _SLOTS] = 0
    d.slot = slot
    d.stalled = d.in_flight - d.fresh if d.in_flight > d.fresh else 0


def _not_in_flight(d: Dialer, age_us: int) -> None:
    """An attempt that began so long ago has come to its end."""
    d.in_flight -= 1
    slot = (d.net.now_us - age_us) // _SLOT_US & _M32
    if (d.slot - slot) & _M32 < _SLOTS and d.fresh_at[slot & _SLOTS] > 0:
        d.fresh -= 1
        d.fresh_at[slot & _SLOTS] -= 1
    d.stalled = d.in_flight - d.fresh if d.in_flight > d.fresh else 0


def _age_us(d: Dialer, sk: int) -> int:
    """Since the first SYN of an attempt without an answer."""
    age = (tcp_jiffies(d.net) - d.net.sks.retrans_stamp[sk]) & _M32
    return age * 1000


def _end_attempt(d: Dialer, sk: int, error: int) -> None:
    d.failed += 1
    if d.net.sks.total_retrans[sk] != 0:
        _count_resent(d, sk)
    if d.noted:
        _take_note(d, sk)
    _let_go(d, sk, error, False)


def _count_resent(d: Dialer, sk: int) -> None:
    d.resent += 1
    d.resent_segments += d.net.sks.total_retrans[sk]


def _let_go(d: Dialer, sk: int, error: int, was_open: bool) -> None:
    """The end of a connection that was not ours to choose."""
    redials = d.phase[sk] >> _REDIALS_SHIFT
    d.phase[sk] = _NOT_OURS
    if d.on_end is not None:
        d.on_end(sk, error, was_open, redials)
    if d.results is not None:
        d.results.append((sk_handle(d.net.sks, sk), error))
    tcp_close(d.net, sk, 0)


def dial_take(d: Dialer) -> int:
    """Take notice of what happened to connections; how many events there were."""
    net = d.net
    sks = net.sks
    count = net.dirty_count
    _turn_slots(d)
    for i in range(count):
        sk = net.dirty[i]
        bits = sks.pending[sk] ^ _LISTED
        sks.pending[sk] = 0
        phase = d.phase[sk] & _PHASE
        if phase == _IN_FLIGHT:
            phase = _attempt_event(d, sk, bits)
        if phase == _OPEN:
            _open_event(d, sk, bits)
        elif phase == _NOT_OURS and bits != 0 and sks.sk_state[sk] != 0 and sks.flags[sk] & DEAD == 0:
            d.others.append(sk_handle(sks, sk) << EVENT_BITS | bits)
    # Closing makes no events of its own rows (they are nobody's then), so the list is as it was.
    net.dirty_count = 0
    return count


def _attempt_event(d: Dialer, sk: int, bits: int) -> int:
    """An event of an attempt; _OPEN when it is a connection now."""
    sks = d.net.sks
    state = sks.sk_state[sk]
    if state == TCP_ESTABLISHED or state == TCP_CLOSE_WAIT:
        _established(d, sk)
        return _OPEN
    if state == TCP_CLOSE:
        if sks.snd_una[sk] == sks.snd_nxt[sk]:  # the SYN was acknowledged, the reset came in the same batch
            _established(d, sk)
            return _OPEN
        _not_in_flight(d, _age_us(d, sk))
        _end_attempt(d, sk, sks.err[sk])
    return _IN_FLIGHT


def _established(d: Dialer, sk: int) -> None:
    sks = d.net.sks
    d.phase[sk] = d.phase[sk] & ~_PHASE & 0xFF | _OPEN
    d.established += 1
    d.open += 1
    if sks.total_retrans[sk] != 0:
        _not_in_flight(d, _SLOTS * _SLOT_US)  # no younger: a timer has run
        _established_late(d, sk)
    else:
        micros = sks.srtt[sk] >> 3
        _not_in_flight(d, micros)
        hist_record(d.handshake_ns, micros * 1000)
        if d.noted:
            _take_note(d, sk)
    if d.results is not None:
        d.results.append((sk_handle(sks, sk), 0))


def _established_late(d: Dialer, sk: int) -> None:
    """A SYN was sent again: the time since the first one, which the row no longer knows."""
    sks = d.net.sks
    since = _take_note(d, sk)
    micros = sks.srtt[sk] >> 3
    if since != 0:
        micros = (tcp_jiffies(d.net) - since) & _M32
        micros *= 1000
    hist_record(d.handshake_ns, micros * 1000)
    _count_resent(d, sk)


def _open_event(d: Dialer, sk: int, bits: int) -> None:
    sks = d.net.sks
    state = sks.sk_state[sk]
    unread = sks.rcv_nxt[sk] - sks.copied_seq[sk]
    if state == TCP_CLOSE_WAIT:
        unread -= 1  # the FIN
    if d.is_reading and state != TCP_CLOSE and unread & _M32 != 0:
        if bits & _EV_IN:
            d.readable.append(sk)
    elif state == TCP_CLOSE or state == TCP_CLOSE_WAIT:
        dial_lose(d, sk)


def dial_lose(d: Dialer, sk: int) -> None:
    """An open connection has ended without us: by an error, or (0) by the peer's FIN."""
    d.open -= 1
    d.lost += 1
    _let_go(d, sk, d.net.sks.err[sk], True)


def dial_sweep(d: Dialer, timeout_ms: int) -> int:
    """Look at attempts in flight: note since when slow ones wait, give up those of `timeout_ms` or more (0: none).

    1: there are more, go on soon; 0: that were all.  Each is to be seen twice in the second before its SYN goes again.
    """
    sks = d.net.sks
    looked_at = 0
    sk = d.swept + 1
    last = d.swept + _MOST_ROWS
    while d.in_flight > 0 and sk <= sks.high_water:
        if sk > last or looked_at >= _MOST_LOOKED_AT:
            d.swept = sk - 1
            return 1
        if d.phase[sk] & _PHASE == _IN_FLIGHT:
            looked_at += 1
            _look_at(d, sk, timeout_ms)
        sk += 1
    d.swept = 0
    return 0


def _look_at(d: Dialer, sk: int, timeout_ms: int) -> None:
    sks = d.net.sks
    age = _age_us(d, sk) // 1000
    if timeout_ms != 0 and age >= timeout_ms and sks.sk_state[sk] == TCP_SYN_SENT:
        _not_in_flight(d, age * 1000)
        _end_attempt(d, sk, errno.ETIMEDOUT)
    elif sks.total_retrans[sk] == 0:
        d.noted += d.since[sk] == 0
        d.since[sk] = sks.retrans_stamp[sk] or 1


def _take_note(d: Dialer, sk: int) -> int:
    """What _look_at() noted of an attempt that is over; 0: nothing."""
    since = d.since[sk]
    if since != 0:
        d.since[sk] = 0
        d.noted -= 1
    return since


def dial_close_some(d: Dialer, n: int, reset: bool) -> int:
    """Close up to `n` open connections, by RST or by FIN; how many there were.  Begins anew after the last one."""
    net = d.net
    sks = net.sks
    done = 0
    sk = d.cursor + 1
    while done < n and sk <= sks.high_water:
        if d.phase[sk] & _PHASE == _OPEN:
            _close_open(d, sk, reset)
            done += 1
        d.cursor = sk
        sk += 1
    if sk > sks.high_water:
        d.cursor = 0
    return done


def _close_open(d: Dialer, sk: int, reset: bool) -> None:
    if reset:
        d.net.sks.flags[sk] |= LINGER  # for 0 s
    d.phase[sk] = _NOT_OURS
    d.open -= 1
    d.closed += 1
    tcp_close(d.net, sk, 0)


def dial_close(d: Dialer, sk: int, reset: bool) -> int:
    """Close one connection: 0, or -ENOTCONN when it is not an open one of ours."""
    if d.phase[sk] & _PHASE != _OPEN:
        return -errno.ENOTCONN
    _close_open(d, sk, reset)
    return 0


def dial_abort(d: Dialer, n: int) -> int:
    """Give up to `n` attempts in flight up, in silence (they have no connection to reset); how many there were."""
    sks = d.net.sks
    done = 0
    sk = d.swept
    for _ in range(sks.high_water):
        if done == n or d.in_flight == 0:
            break
        sk = sk + 1 if sk < sks.high_water else 1
        if d.phase[sk] & _PHASE == _IN_FLIGHT:
            _not_in_flight(d, _age_us(d, sk))
            _end_attempt(d, sk, errno.ECANCELED)
            done += 1
    d.swept = sk
    return done


def dial_reset_closing(d: Dialer) -> int:
    """End what is still being closed, by RST: the peer has not answered our FIN for too long; how many."""
    sks = d.net.sks
    done = 0
    for sk in range(1, sks.high_water + 1):
        if d.phase[sk] & _PHASE == _NOT_OURS and sks.flags[sk] & DEAD and sks.sk_state[sk] != TCP_CLOSE:
            tcp_send_active_reset(d.net, sk)
            tcp_done(d.net, sk)
            done += 1
    return done


def dial_probe_some(d: Dialer, n: int) -> int:
    """Send a keepalive probe on up to `n` open connections, from the cursor on; how many.  0: all have one."""
    sks = d.net.sks
    done = 0
    sk = d.cursor + 1
    while done < n and sk <= sks.high_water:
        if d.phase[sk] & _PHASE == _OPEN and sks.sk_state[sk] == TCP_ESTABLISHED:
            tcp_xmit_probe_skb(d.net, sk, False)
            done += 1
        d.cursor = sk
        sk += 1
    return done


def dial_answered(d: Dialer, since_ms: int) -> int:
    """How many open connections have heard an ACK at `since_ms` (ms clock) or later."""
    sks = d.net.sks
    count = 0
    for sk in range(1, sks.high_water + 1):
        if d.phase[sk] & _PHASE == _OPEN and (last_ack_time(sks, sk) - since_ms) & _M32 < 1 << 31:
            count += 1
    return count


class _PortCounts:
    """A typed view: a million boxed additions would be a pause of 40 ms."""

    __slots__ = ("counts",)

    def __init__(self, counts: array.array[int]) -> None:
        self.counts = memoryview(counts)


def dial_count_ports(d: Dialer, counts: array.array[int]) -> int:
    """Add one to counts[p], an array("I"), for each open connection from local port p; how many connections."""
    sks = d.net.sks
    into = _PortCounts(counts)
    total = 0
    for sk in range(1, sks.high_water + 1):
        if d.phase[sk] & _PHASE == _OPEN:
            into.counts[sks.num[sk]] += 1
            total += 1
    return total


def dial_next_open(d: Dialer, sk: int) -> int:
    """The first open connection behind row `sk`; 0 when there is none."""
    sk += 1
    while sk <= d.net.sks.high_water:
        if d.phase[sk] & _PHASE == _OPEN:
            return sk
        sk += 1
    return 0
