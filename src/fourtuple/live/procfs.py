"""/proc/net/tcp and tcp6: TCP sockets where sock_diag cannot be asked (gVisor, seccomp, kernels without tcp_diag).

Ten times slower, and without bound sockets, NO_PORT, devices and cgroups.
"""

from __future__ import annotations

import errno
import sys
from _socket import AF_INET, AF_INET6, inet_ntop, inet_pton

from fourtuple.live.netns import Netns, run_in
from fourtuple.live.refusal import CannotRead
from fourtuple.live.rows import Socket
from fourtuple.live.socket_filter import Prefix, SocketFilter
from fourtuple.live.socket_table import STATE_NAMES, STATE_NUMBERS, V6SOCK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_FILES = ("tcp", "tcp6")
_NEW_SYN_RECV = 12
_MAPPED = bytes(10) + b"\xff\xff"
_HZ = 100  # USER_HZ, which the timer column is in on every architecture of today


def read(netns: Netns, wanted: SocketFilter) -> list[Socket]:
    """The sockets, filtered here.  Raises CannotRead."""
    return run_in(netns, lambda: [row for name in _FILES for row in _rows(name) if _is_wanted(row, wanted)])


def _rows(name: str) -> Iterator[Socket]:
    path = f"/proc/thread-self/net/{name}"
    try:
        with open(path) as file:
            next(file, "")
            for line in file:
                yield parse(line)
    except FileNotFoundError:
        if name == "tcp":
            raise CannotRead(errno.ENOENT, f"TCP sockets ({path})", "is /proc mounted?") from None
    except OSError as error:
        raise CannotRead(error.errno or errno.EIO, f"TCP sockets ({path})") from None
    except (ValueError, IndexError):
        raise CannotRead(errno.EBADMSG, f"TCP sockets ({path})", "please report it", "an unknown format") from None


def parse(line: str) -> Socket:
    """One line of the file (tcp_ipv4.c:get_tcp4_sock)."""
    field = line.split()
    family, saddr, daddr, flags = _addresses(field[1].split(":")[0], field[2].split(":")[0])
    state = int(field[3], 16)
    wqueue, rqueue = field[4].split(":")
    timer, when = field[5].split(":")
    return Socket(
        family,
        STATE_NAMES.get(3 if state == _NEW_SYN_RECV else state, str(state)),
        inet_ntop(family, saddr),
        int(field[1].split(":")[1], 16),
        inet_ntop(family, daddr),
        int(field[2].split(":")[1], 16),
        flags=flags,
        timer=int(timer, 16) & 255,
        retrans=int(field[6], 16) & 255,
        uid=int(field[7]),
        inode=int(field[9]),
        expires_ms=int(when, 16) * 1000 // _HZ,
        rqueue=int(rqueue, 16),
        wqueue=int(wqueue, 16),
    )


def _addresses(local: str, remote: str) -> tuple[int, bytes, bytes, int]:
    """Family, both addresses, V6SOCK: v4-mapped ones are IPv4."""
    saddr, daddr = _bytes(local), _bytes(remote)
    if len(saddr) == 4:
        return AF_INET, saddr, daddr, 0
    if saddr.startswith(_MAPPED) and (daddr.startswith(_MAPPED) or not any(daddr)):
        return AF_INET, saddr[12:], daddr[12:], V6SOCK
    return AF_INET6, saddr, daddr, V6SOCK


def _bytes(text: str) -> bytes:
    """Words of 32 bits, each printed as a number of this machine."""
    return b"".join(int(text[i : i + 8], 16).to_bytes(4, sys.byteorder) for i in range(0, len(text), 8))


def _is_wanted(row: Socket, wanted: SocketFilter) -> bool:
    return (
        bool(wanted.states >> STATE_NUMBERS.get(row.state, 0) & 1)
        and wanted.family in (None, row.family)
        and all(
            ports is None or ports[0] <= port <= ports[1]
            for ports, port in ((wanted.sport, row.sport), (wanted.dport, row.dport))
        )
        and _is_in(wanted.saddr, row.family, row.saddr)
        and _is_in(wanted.daddr, row.family, row.daddr)
    )


def _is_in(prefix: Prefix | None, family: int, address: str) -> bool:
    return prefix is None or prefix.holds(family, inet_pton(family, address))
