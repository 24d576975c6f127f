"""setsockopt() and getsockopt(): the tables of options, with the kernel's bounds and errnos.

Lives here: every option at SOL_SOCKET, IPPROTO_IP and IPPROTO_TCP that a client may set.  Does not live here: what an
option does (the readers of inet/flags.py and inet/sock_options.py do it), the values that TCP_INFO holds (tcp/).

Rules
1. An option is one line of a table: how it is set, how it is read.  None, or not in the Host's kernel: ENOPROTOOPT.
2. A value lives in the `flags` column (one bit), in the interned SockOptions (numbers), or, when nothing here reads it,
   in `Socket.kept_options`.
3. Bounds and answers were compared with 6.18.44, value by value (tests/kernel/test_options_live.py).  The kernel keeps
   some times in ticks; so does the profile (KernelProfile.hz).
"""

from __future__ import annotations

import errno

from fourtuple.sock.file import Socket, Task
from fourtuple.sock.option_kinds import IPPROTO_IP, IPPROTO_TCP, SOL_SOCKET, pack_int
from fourtuple.sock.sol_ip import (
    IP_FREEBIND,
    IP_LOCAL_PORT_RANGE,
    IP_MINTTL,
    IP_OPTIONS,
    IP_OPTIONS_TABLE,
    IP_TRANSPARENT,
    IP_TTL,
)
from fourtuple.sock.sol_socket import SO_BINDTODEVICE, SOCKET_OPTIONS
from fourtuple.sock.sol_tcp import TCP_CONGESTION, TCP_OPTIONS, TCP_ULP

OPTIONS = {SOL_SOCKET: SOCKET_OPTIONS, IPPROTO_IP: IP_OPTIONS_TABLE, IPPROTO_TCP: TCP_OPTIONS}

# Their value is not an int, so the common length check does not apply.
_STRINGS = {(SOL_SOCKET, SO_BINDTODEVICE), (IPPROTO_TCP, TCP_CONGESTION), (IPPROTO_TCP, TCP_ULP)}


# ---------------------------------------------------------------------------------------------- entry points


def do_setsockopt(task: Task, sock: Socket, level: int, name: int, value: bytes) -> int:
    """setsockopt(2) below the descriptor: 0 or -errno."""
    if level not in OPTIONS:
        return -errno.ENOPROTOOPT
    if len(value) < 4 and (level, name) not in _STRINGS:
        if level != IPPROTO_IP:
            return -errno.EINVAL
        value = _widened(name, value)
    option = OPTIONS[level].get(name)
    if option is None or option.set is None or (level, name) in task.net.sysctl.profile.absent_options:
        return -errno.ENOPROTOOPT
    return option.set(task, sock, value)


def _widened(name: int, value: bytes) -> bytes:
    """IPPROTO_IP takes one byte for an int, and none for 0, except where the value must be whole or not empty."""
    must_show = name in (IP_OPTIONS, IP_LOCAL_PORT_RANGE)
    if must_show or (not value and name in (IP_TTL, IP_FREEBIND, IP_TRANSPARENT, IP_MINTTL)):
        return value
    return pack_int(value[0] if value else 0)


def do_getsockopt(task: Task, sock: Socket, level: int, name: int, size: int) -> bytes | int:
    """getsockopt(2) below the descriptor: at most `size` bytes, or -errno."""
    if size < 0:
        return -errno.EINVAL
    option = OPTIONS.get(level, {}).get(name)
    if option is None or option.get is None or (level, name) in task.net.sysctl.profile.absent_options:
        return -errno.ENOPROTOOPT if level in OPTIONS else -errno.EOPNOTSUPP
    value = option.get(task, sock, size)
    if isinstance(value, int):
        return value
    if level == IPPROTO_IP and 0 < size < 4 and len(value) == 4 and value[1:] == b"\0\0\0":
        return value[:1]
    return value[:size]
