"""What --probe has found out, put into a reading: then nothing about the ports is inferred any more.

Lives here: a socket table that says what was found.  Does not live here: asking the kernel (live/probe.py).

A port that was found shut without anybody to be seen on it gets a bound socket without an owner; sockets on a port
that was found open have had it chosen by connect(), which is what IP_BIND_ADDRESS_NO_PORT says of a socket.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from fourtuple.doctor.predict import State
from fourtuple.doctor.reading import BOUND, LISTEN, Reading
from fourtuple.live.socket_table import INBOUND, NO_PORT, NO_PORT_KNOWN, SocketTable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fourtuple.doctor.answers import Prediction
    from fourtuple.live.probe import Measured, PoisonMap

_NEW_ROW = {"family": 2, "state": BOUND}
_BYTE_ORDER = sys.byteorder
_TRIES = 20
_MOST_MEASURED = 5


def probe(reading: Reading) -> PoisonMap:
    """Try every port, and make the reading's state say what was found.  Raises CannotRead."""
    from fourtuple.live.probe import poison_map

    found = poison_map(reading.sockets.netns)
    owners = reading.owners.by_inode if reading.owners else None
    reading.state = State(table_with(reading.sockets, found), reading.system.sysctls, owners=owners)
    reading.probed = found
    return found


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
        try:
            found[i] = measure_connect((p.destination, p.port), p.source, tries=_TRIES, netns=reading.sockets.netns)
        except (CannotRead, ValueError):
            continue  # not allowed, or a link-local address without its device
    return found
