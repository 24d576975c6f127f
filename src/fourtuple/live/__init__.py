"""The live kernel: its TCP sockets, read fast, from any network namespace, without a dependency.

    >>> from fourtuple.live import sockets
    >>> table = sockets(dport=5432)               # all TCP sockets to port 5432: the kernel does the filtering
    >>> table.count_by_state()                    # {1: 212, 6: 40}: ESTABLISHED, TIME_WAIT
    >>> for s in table: print(s.state, s.daddr)   # a named tuple a socket; columns (table.sport, ...) are 100 x faster

The public names are imported when they are first used.
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False  # neither typing nor socket is imported: together they take as long as reading 10,000 sockets
if TYPE_CHECKING:
    from typing import Any

    from fourtuple.live.connecting import connect as connect
    from fourtuple.live.netns import Netns as Netns
    from fourtuple.live.netns import all_netns as all_netns
    from fourtuple.live.netns import find_netns as find_netns
    from fourtuple.live.owners import Owner as Owner
    from fourtuple.live.owners import Owners as Owners
    from fourtuple.live.owners import owners_of as owners_of
    from fourtuple.live.probe import Measured as Measured
    from fourtuple.live.probe import PoisonMap as PoisonMap
    from fourtuple.live.probe import measure_connect as measure_connect
    from fourtuple.live.probe import poison_map as poison_map
    from fourtuple.live.reader import all_sockets as all_sockets
    from fourtuple.live.reader import sockets as sockets
    from fourtuple.live.refusal import CannotRead as CannotRead
    from fourtuple.live.rows import Destination as Destination
    from fourtuple.live.rows import Socket as Socket
    from fourtuple.live.snapshot import Snapshot as Snapshot
    from fourtuple.live.snapshot import SnapshotError as SnapshotError
    from fourtuple.live.snapshot import take_snapshot as take_snapshot
    from fourtuple.live.socket_table import Destinations as Destinations
    from fourtuple.live.socket_table import SocketTable as SocketTable
    from fourtuple.live.streams import open_connection as open_connection
    from fourtuple.live.system import System as System
    from fourtuple.live.system import read_system as read_system
    from fourtuple.live.system import route_towards as route_towards

_HOME = {
    "CannotRead": "refusal",
    "Destination": "rows",
    "Destinations": "socket_table",
    "Measured": "probe",
    "Netns": "netns",
    "Owner": "owners",
    "Owners": "owners",
    "PoisonMap": "probe",
    "Snapshot": "snapshot",
    "SnapshotError": "snapshot",
    "Socket": "rows",
    "SocketTable": "socket_table",
    "System": "system",
    "all_netns": "netns",
    "all_sockets": "reader",
    "connect": "connecting",
    "find_netns": "netns",
    "measure_connect": "probe",
    "open_connection": "streams",
    "owners_of": "owners",
    "poison_map": "probe",
    "read_system": "system",
    "route_towards": "system",
    "sockets": "reader",
    "take_snapshot": "snapshot",
}

__all__ = [*_HOME]


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'fourtuple.live' has no attribute {name!r}")
    return getattr(import_module(f"fourtuple.live.{home}"), name)
