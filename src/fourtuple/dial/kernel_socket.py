"""One kernel socket of a dial: set up, connected, asked what became of it.

Lives here: system calls on one socket.  Does not live here: which one is when (kernel.py).
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable
from typing import NamedTuple

from fourtuple.live.socket_options import WHOLE_RANGE, set_no_port, set_port_range

CLOSE_WITH_RESET = struct.pack("=ii", 1, 0)  # SO_LINGER: no FIN, no TIME_WAIT
_INFO_SIZE = 104
# include/uapi/linux/tcp.h: struct tcp_info, tcpi_rtt in us, tcpi_total_retrans
_RTT, _TOTAL_RETRANS = 68, 100


class Route(NamedTuple):
    """From where to where."""

    source: str
    """"": the route of the kernel gives it."""
    address: str
    port: int
    target: int
    """Which of the plan's."""


class Setup(NamedTuple):
    """What every socket gets before connect()."""

    port_range: tuple[int, int] | None = None
    """IP_LOCAL_PORT_RANGE; WHOLE_RANGE changes only the search: each port once, from step 1."""
    keepalive_s: int = 0


class Connection:
    """A socket and what a dial knows of it."""

    __slots__ = ("began_ns", "is_fresh", "is_open", "redials", "route", "sock")

    def __init__(self, route: Route, redials: int) -> None:
        self.route = route
        self.redials = redials
        """How often it was dialed before."""
        self.sock: socket.socket | None = None
        self.began_ns = 0
        self.is_open = False
        self.is_fresh = False
        """In flight, and counted in the window."""


def connect(connection: Connection, setup: Setup, clock: Callable[[], int]) -> tuple[str, int, int]:
    """(call, errno, ns inside connect()): errno is 0 once the SYN is out; else `call` is the one that failed."""
    call = "socket"
    try:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        connection.sock = sock
        route = connection.route
        call = "setsockopt"
        _set_options(sock, setup)
        if route.source:
            # Without this bind() takes a port of its own, from all destinations.
            set_no_port(sock)
            call = "bind"
            sock.bind((route.source, 0))
        call = "connect"
        before = clock()
        code = sock.connect_ex((route.address, route.port))
        return call, 0 if code == errno.EINPROGRESS else code, clock() - before
    except OSError as error:
        return call, error.errno or errno.EIO, 0


def _set_options(sock: socket.socket, setup: Setup) -> None:
    if setup.port_range:
        try:
            set_port_range(sock, *setup.port_range)
        except OSError as error:
            if error.errno != errno.ENOPROTOOPT or setup.port_range != WHOLE_RANGE:  # before Linux 6.3
                raise
    if setup.keepalive_s:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, setup.keepalive_s)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, setup.keepalive_s)


def pending_error(sock: socket.socket) -> int:
    """SO_ERROR, which reading clears."""
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


def is_itself(sock: socket.socket) -> bool:
    """Connected to itself: nobody listens there, and the kernel chose that very port (simultaneous open)."""
    try:
        return bool(sock.getsockname() == sock.getpeername())
    except OSError:
        return False


def rtt_and_resent(sock: socket.socket) -> tuple[int, int]:
    """TCP_INFO: round trip in us, and segments sent again; until there is data, that is of the SYN."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_SIZE)
    return struct.unpack_from("=I", info, _RTT)[0], struct.unpack_from("=I", info, _TOTAL_RETRANS)[0]


def local_port(sock: socket.socket) -> int:
    """0 when it has none any more."""
    port: int = sock.getsockname()[1]
    return port


def close(sock: socket.socket, reset: bool) -> None:
    """By FIN, or by RST."""
    if reset:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, CLOSE_WITH_RESET)
    sock.close()
