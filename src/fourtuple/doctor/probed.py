"""What --probe has found out, put into a reading: then nothing about the ports is inferred any more.

Lives here: a socket table that says what was found.  Does not live here: asking the kernel (live/probe.py).

A port that was found shut without anybody to be seen on it gets a bound socket without an owner; sockets on a port
that was found open have had it chosen by connect(), which is what IP_BIND_ADDRESS_NO_PORT says of a socket.
TIME_WAITs that had timestamps are STAMPED: which of them tcp_tw_reuse takes over is then known (live/time_wait.py).
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from fourtuple.doctor.findings_machine import is_loopback
from fourtuple.doctor.predict import State
from fourtuple.doctor.reading import BOUND, FIN_WAIT2, LISTEN, TIME_WAIT, Reading
from fourtuple.doctor.words import endpoint
from fourtuple.live.socket_table import INBOUND, NO_PORT, NO_PORT_KNOWN, STAMPED, SocketTable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fourtuple.doctor.answers import Prediction
    from fourtuple.live.probe import Measured, PoisonMap

_NEW_ROW = {"family": 2, "state": BOUND}
_BYTE_ORDER = sys.byteorder
_AF_INET = 2
_TIME_WAIT_TIMER = 3  # idiag_timer of a socket without a struct sock
_TRIES = 20
_MOST_MEASURED = 5
_WOULD_TAKE = "each would take over a TIME_WAIT (tcp_tw_reuse)"


def probe(reading: Reading) -> PoisonMap:
    """Try every port, and make the reading's state say what was found.  Raises CannotRead."""
    from fourtuple.live.probe import poison_map

    found = poison_map(reading.sockets.netns)
    owners = reading.owners.by_inode if reading.owners else None
    table = table_with(reading.sockets, found)
    _stamp(reading, table)
    reading.state = State(table, reading.system.sysctls, owners=owners)
    reading.probed = found
    return found


def _stamp(reading: Reading, table: SocketTable) -> None:
    """Which TIME_WAITs have timestamps: what tcp_tw_reuse goes by.  One that has ended meanwhile has none."""
    timer = reading.sockets.timer
    rows = reading.rows_in_state(TIME_WAIT)
    rows += [row for row in reading.rows_in_state(FIN_WAIT2) if timer[row] == _TIME_WAIT_TIMER]
    if not rows:
        return
    from fourtuple.live.refusal import CannotRead
    from fourtuple.live.time_wait import read_time_waits

    try:
        found = read_time_waits(reading.sockets.netns)
    except CannotRead as error:
        if _matter(reading, rows):
            reading.unread += (f"--probe: {error}",)
        return
    stamped = {each.four_tuple for each in found if each.has_timestamps}
    for row in rows:
        family = table.family[row]
        source, destination = (_raw(table, family, column[row]) for column in (table.saddr, table.daddr))
        if (source, table.sport[row], destination, table.dport[row]) in stamped:
            table.flags[row] |= STAMPED
    table.stamps_known = True


def _matter(reading: Reading, rows: Sequence[int]) -> bool:
    """tcp_tw_reuse is in force for one of these TIME_WAITs: 2 is for loopback only (tcp_twsk_unique)."""
    reuse, table = reading.system.sysctls.tcp_tw_reuse, reading.sockets
    return reuse == 1 or (
        reuse == 2 and any(is_loopback(table.address(table.family[row], table.daddr[row])) for row in rows)
    )


def _raw(table: SocketTable, family: int, value: int) -> bytes:
    """An address of a row as the kernel has it."""
    return value.to_bytes(4, "big") if family == _AF_INET else table.addresses6[value]


def table_with(table: SocketTable, found: PoisonMap) -> SocketTable:
    """The same sockets, with what was found about their ports."""
    shut, undecided = set(found.shut), {*found.undecided, *found.reserved}
    asked = {port for port in range(found.port_low, found.port_high + 1) if port not in undecided}
    packed = {name: bytearray(column) for name, column in table.pack().items()}
    flags, seen = packed["flags"], set()
    for row in range(len(table)):
        port = table.sport[row]
        if table.state[row] in (LISTEN, BOUND) or flags[row] & INBOUND:
            seen.add(port)
        elif port in asked and port not in shut:
            flags[row] |= NO_PORT | NO_PORT_KNOWN
        elif port in shut:
            flags[row] &= ~(NO_PORT | NO_PORT_KNOWN) & 0xFF
    sizes = {name: getattr(table, name).itemsize for name in packed if name != "addresses6"}
    _add_bound(packed, sizes, sorted(shut - seen))
    return SocketTable.unpack(
        {name: bytes(column) for name, column in packed.items()},
        netns=table.netns,
        source=table.source,
        consistent=table.consistent,
        bound_known=table.bound_known,
        listeners_known=table.listeners_known,
        taken_at=table.taken_at,
        elapsed_s=table.elapsed_s,
    )


def _add_bound(packed: dict[str, bytearray], sizes: dict[str, int], ports: Sequence[int]) -> None:
    for port in ports:
        values = {**_NEW_ROW, "sport": port}
        for name, size in sizes.items():
            packed[name] += values.get(name, 0).to_bytes(size, _BYTE_ORDER)


def measure(reading: Reading, predictions: Sequence[Prediction], warn: float) -> dict[int, Measured]:
    """What the kernel's own search does for those that are near their limits, by their place in the list.

    Empty without CAP_NET_ADMIN.
    """
    from fourtuple.live.probe import measure_connect
    from fourtuple.live.refusal import CannotRead

    found: dict[int, Measured] = {}
    ill = [i for i, p in enumerate(predictions) if (p.errno or p.fill >= warn) and "*" not in (p.source, p.destination)]
    for i in ill[:_MOST_MEASURED]:
        p = predictions[i]
        if p.time_wait_reusable_ports:
            reading.unread += (f"--probe: connect() to {endpoint(p.destination, p.port)} not measured: {_WOULD_TAKE}",)
            continue
        try:
            found[i] = measure_connect((p.destination, p.port), p.source, tries=_TRIES, netns=reading.sockets.netns)
        except (CannotRead, ValueError):
            continue  # not allowed, or a link-local address without its device
    return found
