"""sockets(): the public call.  Has the kernel asked, again if need be, and procfs read where it cannot be.

What is asked for is checked in socket_filter.py, the question is in sock_diag.py, the answer in socket_table.py.
"""

from __future__ import annotations

import errno
import os
import time
from _socket import AF_INET, AF_INET6, SOCK_CLOEXEC, SOCK_RAW, socket

from fourtuple.live import sock_diag
from fourtuple.live._decode import Datagram, SocketColumns, take_idle
from fourtuple.live.netns import Netns, all_netns, find_netns, run_in
from fourtuple.live.refusal import CannotRead
from fourtuple.live.socket_filter import SocketFilter
from fourtuple.live.socket_table import TCP_BOUND, SocketTable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import TypedDict, Unpack

    from fourtuple.live.netns import Spec
    from fourtuple.live.socket_filter import Port

    class Filters(TypedDict, total=False):
        """What may be asked for; see sockets()."""

        families: Iterable[int]
        states: Iterable[int | str] | None
        sport: Port | None
        dport: Port | None
        saddr: str | None
        daddr: str | None
        retries: int
        idle: bool


_AF_NETLINK = 16
_ROWS = 1 << 18  # pages that nothing was written to cost nothing: 12 MB of addresses, not of memory
_ADDRESSES = 1 << 10
_BOUND_SINCE = (6, 8)
_TRANSIENT = frozenset({errno.ENOBUFS, errno.ENOMEM, errno.EAGAIN, errno.EBUSY})
_CANNOT_BE_ASKED = frozenset(
    {errno.ENOENT, errno.EOPNOTSUPP, errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT, errno.EPERM, errno.EACCES, errno.ENOSYS}
)


def sockets(
    netns: Spec = None,
    *,
    families: Iterable[int] = (AF_INET, AF_INET6),
    states: Iterable[int | str] | None = None,
    sport: Port | None = None,
    dport: Port | None = None,
    saddr: str | None = None,
    daddr: str | None = None,
    retries: int = 3,
    idle: bool = False,
) -> SocketTable:
    """The TCP sockets of a network namespace, from the kernel's own table (NETLINK_SOCK_DIAG).  Needs no privilege.

    netns     None (where this process is), a name in /run/netns, a pid (number or digits), a path, a Netns; another
              one takes root
    families  AF_INET and AF_INET6 mean the addresses: v4-mapped ones are IPv4
    states    numbers (TCP_*, 13 for BOUND) or names ("ESTABLISHED", "BOUND"); None for all of them
    sport dport   a port, or (low, high)
    saddr daddr   "10.0.0.1", "10.0.0.0/8", "2001:db8::/32"
    retries   how often to ask again when the kernel says that its table changed meanwhile; then `consistent` is False
    idle      also for how long each connection has been idle: the column `idle_ms` (0.3 us a socket more)

    All filters run in the kernel: what does not match costs next to nothing.  About 1 us a socket, all but a few
    percent of it in the kernel.  Raises CannotRead (an OSError: one line), ValueError for a filter that means nothing.
    """
    wanted = SocketFilter(families, states, sport, dport, saddr, daddr)
    namespace = find_netns(netns)
    started = time.perf_counter()
    try:
        columns, consistent = _read(namespace, wanted, retries, idle)
    except CannotRead as refusal:
        if refusal.errno not in _CANNOT_BE_ASKED:
            raise
        return _from_procfs(namespace, wanted, refusal, started)
    return SocketTable(
        columns,
        namespace,
        "sock_diag",
        consistent,
        bound_known=bool(wanted.states >> TCP_BOUND & 1) and _lists_bound(columns),
        listeners_known=wanted.shows_listeners,
        elapsed_s=time.perf_counter() - started,
    )


def all_sockets(**filters: Unpack[Filters]) -> tuple[list[SocketTable], list[str]]:
    """A table for every network namespace that can be seen, and one line for each that could not be read."""
    namespaces, unseen = all_netns()
    tables = []
    for namespace in namespaces:
        try:
            tables.append(sockets(namespace, **filters))
        except CannotRead as error:
            unseen.append(str(error))
    return tables, unseen


def _read(netns: Netns, wanted: SocketFilter, retries: int, idle: bool) -> tuple[SocketColumns, bool]:
    """The rows; False: the kernel says that they may not fit together."""
    columns = SocketColumns(_ROWS, _ADDRESSES, int.from_bytes(os.urandom(8), "little"))
    if idle:
        take_idle(columns)
    datagram = Datagram(sock_diag.DATAGRAM)
    retries = max(retries, 0)
    for sequence in range(1, retries + 2):
        columns.clear(sequence)
        try:
            _ask(netns, sock_diag.request(sequence, wanted, idle), columns, datagram)
        except CannotRead as error:
            if error.errno not in _TRANSIENT or sequence > retries:
                raise
        else:
            if not columns.interrupted:
                return columns, True
    return columns, False


def _ask(netns: Netns, request: bytes, columns: SocketColumns, datagram: Datagram) -> None:
    try:
        connection = run_in(netns, lambda: socket(_AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, sock_diag.NETLINK_SOCK_DIAG))
    except CannotRead:
        raise
    except OSError as error:
        raise sock_diag.refused(error.errno or errno.EIO) from None
    try:
        sock_diag.read(connection, request, columns, datagram)
    finally:
        connection.close()


def _lists_bound(columns: SocketColumns) -> bool:
    """This kernel lists sockets that are bound only: it has just done so, or is new enough."""
    if TCP_BOUND in columns.views["state"][: columns.count].tobytes():
        return True
    release = os.uname().release.split(".")
    return tuple(int(part) if part.isdigit() else 0 for part in release[:2]) >= _BOUND_SINCE


def _from_procfs(netns: Netns, wanted: SocketFilter, refusal: CannotRead, started: float) -> SocketTable:
    """The table by the other way; where that is closed as well, the first refusal is the one to hear."""
    from fourtuple.live import procfs

    try:
        rows = procfs.read(netns, wanted)
    except CannotRead:
        raise refusal from None
    return SocketTable.of(
        rows,
        netns=netns,
        source="procfs",
        bound_known=False,
        listeners_known=wanted.shows_listeners,
        taken_at=time.time(),
        elapsed_s=time.perf_counter() - started,
    )
