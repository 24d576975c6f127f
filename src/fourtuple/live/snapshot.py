"""Snapshot: all that the doctor asks of a network namespace, taken at one moment, kept in a file, with names taken out.

Lives here: the value, and taking it.  Does not live here: the file's layout (snapshot_file.py), anonymize.py.

    snapshots = take_all()                    every network namespace; take_snapshot("web") for one
    write(snapshots, "here.snap")             20,000 sockets: some 200 kB
    read("here.snap")[0].sockets              on any machine
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from fourtuple.live.netns import all_netns, find_netns
from fourtuple.live.owners import Owners, find_owners
from fourtuple.live.reader import sockets as read_sockets
from fourtuple.live.refusal import CannotRead
from fourtuple.live.rtnetlink import Route
from fourtuple.live.system import Limits, System, read_limits, read_system, routes_towards

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike
    from typing import BinaryIO

    from fourtuple.live.netns import Netns, Spec
    from fourtuple.live.owners import Owner
    from fourtuple.live.socket_table import SocketTable
    from fourtuple.sysctl import Sysctls

_MOST_ROUTES = 200
_MOST_LIMITS = 100
_LINK_LOCAL = "fe80:"


class SnapshotError(ValueError):
    """A file that is no snapshot, or not whole, or could not be read: one line."""


@dataclass(frozen=True)
class Snapshot:
    """One network namespace at one moment."""

    sockets: SocketTable
    system: System
    routes: tuple[Route, ...] = ()
    """What connect() would do towards the destinations with most sockets."""
    owners: Owners | None = None
    """None: not asked for."""
    limits: dict[int, Limits] = field(default_factory=dict)
    """By pid, of the processes with most sockets."""
    is_anonymized: bool = False
    unseen: tuple[str, ...] = ()
    """A line for each network namespace that take_all() could not read; in its first snapshot only."""

    @property
    def host(self) -> str:
        """The machine's name."""
        return self.system.hostname

    @property
    def kernel(self) -> str:
        """As `uname -r`."""
        return self.system.kernel

    @property
    def taken_at(self) -> float:
        """When the sockets were read, in seconds since 1970."""
        return self.sockets.taken_at

    @property
    def netns(self) -> str:
        """The namespace's label; "" for the one that the reader was in."""
        return self.system.netns

    @property
    def sysctls(self) -> Sysctls:
        """The sysctls of the connect path."""
        return self.system.sysctls

    @property
    def owner_of(self) -> dict[int, Owner]:
        """Inode -> Owner, as far as known."""
        return self.owners.by_inode if self.owners else {}

    @property
    def unread(self) -> tuple[str, ...]:
        """A line for each thing that could not be read."""
        return (*self.unseen, *self.system.unread, *(self.owners.unread if self.owners else ()))

    def anonymized(self) -> Snapshot:
        """The same structure with other addresses and names; ports and numbers stay."""
        from fourtuple.live.anonymize import Aliases

        return Aliases().snapshot(self)


def take_snapshot(netns: Spec = None, owners: bool = True, routes: bool = True) -> Snapshot:
    """The network namespace here, or another: a name, a pid, a path.  Raises CannotRead if it cannot be entered."""
    snapshot = _take(find_netns(netns), routes)
    return _with_owners([snapshot])[0] if owners else snapshot


def take_all(owners: bool = True, routes: bool = True) -> list[Snapshot]:
    """Every network namespace that can be seen, this one first; `unseen` of the first tells of the others."""
    namespaces, unseen = all_netns()
    taken = []
    for namespace in namespaces:
        try:
            taken.append(_take(namespace, routes))
        except CannotRead as error:
            unseen.append(str(error))
    taken[:1] = [replace(first, unseen=tuple(unseen)) for first in taken[:1]]
    return _with_owners(taken) if owners else taken


def _take(netns: Netns, routes: bool) -> Snapshot:
    sockets, system = read_sockets(netns, idle=True), read_system(netns)
    if not routes:
        return Snapshot(sockets, system)
    try:
        return Snapshot(sockets, system, routes_towards(_destinations(sockets), netns))
    except CannotRead as error:
        return Snapshot(sockets, replace(system, unread=(*system.unread, str(error))))


def _destinations(sockets: SocketTable) -> list[tuple[str, int, str]]:
    """Where most connections go to: what routes_towards() takes."""
    groups = sockets.group_by_destination()
    found: dict[tuple[str, int, str], None] = {}
    for group in groups.largest(_MOST_ROUTES):
        address = sockets.address(groups.family[group], groups.daddr[group])
        device = sockets.ifindex[groups.rows(group)[0]]
        if address.startswith(_LINK_LOCAL):
            if not device:
                continue  # which link, the kernel does not tell
            address = f"{address}%{device}"
        found[address, groups.dport[group], ""] = None
    return list(found)


def _with_owners(snapshots: list[Snapshot]) -> list[Snapshot]:
    """The same with owners and their limits: /proc is gone through once for all namespaces."""
    inodes = [inode for snapshot in snapshots for inode in snapshot.sockets.inode]
    cgroups = {number for snapshot in snapshots for number in snapshot.sockets.cgroup}
    everything = find_owners(inodes, cgroups)
    found = []
    for snapshot in snapshots:
        own = everything.restricted_to(snapshot.sockets) if len(snapshots) > 1 else everything
        found.append(replace(snapshot, owners=own, limits=_limits(own)))
    return found


def _limits(owners: Owners) -> dict[int, Limits]:
    """Of those who hold most sockets."""
    found = {}
    for pid, _ in Counter(owner.pid for owner in owners.by_inode.values()).most_common(_MOST_LIMITS):
        try:
            found[pid] = read_limits(pid)
        except CannotRead:
            continue  # it has ended, or turned into another user's
    return found


def write(snapshots: Sequence[Snapshot], file: str | PathLike[str] | BinaryIO) -> int:
    """Write one file; returns its size in bytes.  Raises OSError when it cannot be written."""
    import os

    from fourtuple.live.snapshot_file import encode

    data = encode(snapshots)
    if isinstance(file, (str, os.PathLike)):
        with open(file, "wb") as opened:
            opened.write(data)
    else:
        file.write(data)
    return len(data)


def read(file: str | PathLike[str] | BinaryIO) -> list[Snapshot]:
    """What write() was given, from a path, an open file, or "-" (standard input).  Raises SnapshotError."""
    import os
    import sys

    from fourtuple.live.snapshot_file import decode_file

    if file == "-":
        return decode_file(sys.stdin.buffer, "standard input")
    if not isinstance(file, (str, os.PathLike)):
        return decode_file(file, str(getattr(file, "name", "the snapshot")))
    name = os.fsdecode(file)
    try:
        with open(file, "rb") as opened:
            return decode_file(opened, name)
    except (OSError, ValueError) as error:
        if isinstance(error, SnapshotError):
            raise
        raise SnapshotError(f"{name}: {getattr(error, 'strerror', None) or error}") from None
