"""What `why` asks about, read from a machine or a snapshot: the sockets of one process, routes, silent neighbours."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fourtuple.doctor.reading import Reading
from fourtuple.doctor.why import Asked, Target
from fourtuple.live.netns import find_netns, run_in
from fourtuple.live.owners import owners_of
from fourtuple.live.reader import sockets as read_sockets
from fourtuple.live.refusal import CannotRead
from fourtuple.live.rtnetlink import read_failed_neighbours
from fourtuple.live.system import read_limits, read_system, routes_towards

if TYPE_CHECKING:
    from fourtuple.live.netns import Netns, Spec
    from fourtuple.live.system import Limits

_MOST_TARGETS = 5
_NO_GROUP_STATES = (10, 13)
_PREFIX, _END = "socket:[", "]"


def ask_machine(
    netns: Spec = None,
    where: Sequence[tuple[str, int]] = (),
    pid: int = 0,
    is_bound: bool | None = None,
    source: tuple[str, int] | None = None,
    owners: bool = False,
) -> Asked:
    """Read a network namespace: that of the process if one is named and no other is.  Raises CannotRead.

    `owners`: also find the processes behind all sockets, which takes longest.
    """
    if pid and not os.path.exists(f"/proc/{pid}"):
        raise CannotRead(3, f"pid {pid}", "", "there is no such process")
    namespace = find_netns(f"/proc/{pid}/ns/net" if pid and netns is None else netns)
    table = read_sockets(namespace)
    reading = Reading(table, read_system(namespace), owners_of(table) if owners else None, _limits(pid))
    rows = _rows_of(reading, pid) if pid else frozenset()
    places = tuple(where) or _destinations(reading, rows)
    targets = _with_routes(places, source, namespace)
    silent = _failed_neighbours(namespace)
    return Asked(reading, targets, bool(where), pid, rows, is_bound, source, silent)


def ask_snapshot(reading: Reading, where: Sequence[tuple[str, int]] = (), pid: int = 0) -> Asked:
    """The same of what a file holds."""
    owned = reading.owners.by_inode if reading.owners else {}
    inodes = {inode for inode, owner in owned.items() if owner.pid == pid}
    rows = frozenset(row for row, inode in enumerate(reading.sockets.inode) if inode in inodes)
    routes = {(route.destination, route.port): route for route in reading.routes}
    places = tuple(where) or _destinations(reading, rows)
    return Asked(reading, tuple(Target(*place, routes.get(place)) for place in places), bool(where), pid, rows)


def _limits(pid: int) -> dict[int, Limits]:
    try:
        return {pid: read_limits(pid)} if pid else {}
    except CannotRead:
        return {}


def _rows_of(reading: Reading, pid: int) -> frozenset[int]:
    """Rows of the sockets that a process holds.  Raises CannotRead."""
    inodes = set()
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):
            try:
                link = os.readlink(f"/proc/{pid}/fd/{name}")
            except FileNotFoundError:
                continue  # closed meanwhile
            if link.startswith(_PREFIX):
                inodes.add(int(link.removeprefix(_PREFIX).removesuffix(_END)))
    except OSError as error:
        advice = "another user's: needs root" if os.geteuid() else "needs CAP_SYS_PTRACE"
        raise CannotRead(error.errno or 5, f"descriptors of pid {pid}", advice) from None
    return frozenset(row for row, inode in enumerate(reading.sockets.inode) if inode in inodes)


def _destinations(reading: Reading, rows: frozenset[int]) -> tuple[tuple[str, int], ...]:
    """Where most connections of a process go to: the inbound ones belong to no group."""
    s = reading.sockets
    groups = s.group_by_destination()
    of = groups.group_of
    outgoing = (row for row in rows if s.state[row] not in _NO_GROUP_STATES and of[row] < len(groups))
    counts = Counter((s.address(s.family[row], s.daddr[row]), s.dport[row]) for row in outgoing)
    return tuple(place for place, _ in counts.most_common(_MOST_TARGETS))


def _with_routes(
    places: Sequence[tuple[str, int]], source: tuple[str, int] | None, namespace: Netns
) -> tuple[Target, ...]:
    bound = source[0] if source and source[0] not in ("0.0.0.0", "::") else ""
    made = []
    for address, port in places:
        try:
            route = routes_towards([(address, port, bound)], namespace)[0] if address else None
        except (CannotRead, ValueError):
            route = None
        made.append(Target(address, port, route))
    return tuple(made)


def _failed_neighbours(namespace: Netns) -> frozenset[str] | None:
    try:
        return run_in(namespace, read_failed_neighbours)
    except OSError:
        return None
