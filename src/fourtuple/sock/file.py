"""File, Socket, the descriptor table and the caller: struct file, struct socket, files_struct, task_struct.

Lives here: what a descriptor is.  Does not live here: any rule of a protocol.  A connection is a row of the socket
table; a Socket is a view on its row and exists only for descriptors, so rows made in bulk have none.

Rules
1. A new descriptor takes the lowest free number (alloc_fd).
2. dup() shares the File, and with it O_NONBLOCK; the socket is released with the last descriptor.
3. An O_PATH descriptor is invisible to every call but close, dup and fcntl (fdget).
"""

from __future__ import annotations

import errno
import heapq
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fourtuple.sock.af_inet import ProtoOps
    from fourtuple.tcp.net import Net

# include/uapi/asm-generic/fcntl.h
O_RDWR = 0o2
O_APPEND = 0o2000
O_NONBLOCK = 0o4000
O_DIRECT = 0o40000
O_NOATIME = 0o1000000
FASYNC = 0o20000


class Socket:
    """struct socket: the face of connection row `sk` towards descriptors.

    `disconnects` counts disconnections as sk_disconnects does; `kept_options` holds options that are stored and read
    back but decide nothing here.
    """

    __slots__ = ("disconnects", "kept_options", "net", "ops", "sk", "type")

    def __init__(self, net: Net, sk: int, ops: ProtoOps, type_: int) -> None:
        self.net = net
        self.sk = sk
        self.ops = ops
        self.type = type_
        self.disconnects = 0
        self.kept_options: dict[tuple[int, int], int] = {}

    @property
    def state(self) -> int:
        """SS_UNCONNECTED, SS_CONNECTING ...: column ss_state."""
        return self.net.sks.ss_state[self.sk]

    @state.setter
    def state(self, value: int) -> None:
        self.net.sks.ss_state[self.sk] = value


class File:
    """struct file: what dup() shares.  `kind` is 'socket' or names what else it is; `socket` is None then."""

    __slots__ = ("count", "flags", "kind", "path_only", "socket")

    def __init__(self, kind: str, socket: Socket | None = None, flags: int = O_RDWR, path_only: bool = False) -> None:
        self.kind = kind
        self.socket = socket
        self.flags = flags
        self.path_only = path_only
        self.count = 0


class Files:
    """files_struct: descriptors of one process.  0..2 are taken; `limit` is RLIMIT_NOFILE."""

    __slots__ = ("_freed", "_next", "close_on_exec", "limit", "table")

    def __init__(self, limit: int = 1 << 20, first: int = 3) -> None:
        self.limit = limit
        self.table: dict[int, File] = {}
        self.close_on_exec: set[int] = set()
        self._freed: list[int] = []
        self._next = first

    def fget(self, fd: int) -> File | None:
        """The file, but not an O_PATH one: what nearly every call uses."""
        file = self.table.get(fd)
        return None if file is None or file.path_only else file

    def fget_raw(self, fd: int) -> File | None:
        """The file, O_PATH or not."""
        return self.table.get(fd)

    def install(self, file: File, lowest: int = 0) -> int:
        """Give `file` the lowest free number from `lowest`, or return -EMFILE."""
        fd = self._reserve(lowest)
        if fd >= 0:
            self.table[fd] = file
            file.count += 1
        return fd

    def remove(self, fd: int) -> File | None:
        """Free the number; the file it had, its count one lower."""
        file = self.table.pop(fd, None)
        if file is not None:
            file.count -= 1
            self.close_on_exec.discard(fd)
            heapq.heappush(self._freed, fd)
        return file

    def is_full(self) -> bool:
        """No number is free."""
        return not self._freed and self._next >= self.limit

    def _reserve(self, lowest: int) -> int:
        if lowest > 0:
            return self._reserve_from(lowest)
        if self._freed:
            return heapq.heappop(self._freed)
        if self._next >= self.limit:
            return -errno.EMFILE
        self._next += 1
        return self._next - 1

    def _reserve_from(self, lowest: int) -> int:
        """F_DUPFD: rare, so it may search."""
        fd = lowest
        while fd in self.table or fd < 3:
            fd += 1
        if fd >= self.limit:
            return -errno.EMFILE
        while self._next <= fd:
            heapq.heappush(self._freed, self._next)
            self._next += 1
        self._freed.remove(fd)
        heapq.heapify(self._freed)
        return fd


class Task:
    """The caller (kernel: current): its descriptors, its user and its capabilities in one network namespace.

    Root with every capability by default.
    """

    __slots__ = ("cap_net_admin", "cap_net_bind_service", "cap_net_raw", "files", "net", "uid")

    def __init__(self, net: Net, uid: int = 0, privileged: bool = True, max_files: int = 1 << 20) -> None:
        self.net = net
        self.uid = uid
        self.files = Files(max_files)
        self.cap_net_bind_service = privileged
        self.cap_net_raw = privileged
        self.cap_net_admin = privileged
