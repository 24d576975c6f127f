"""Options of a kernel socket that CPython has no name for, and their values (include/uapi/linux/in.h, tcp.h)."""

from __future__ import annotations

import struct
from _socket import IPPROTO_IP, IPPROTO_TCP, SO_REUSEADDR, SOL_SOCKET

TYPE_CHECKING = False
if TYPE_CHECKING:
    from socket import socket

IP_BIND_ADDRESS_NO_PORT = 24
"""Linux 4.2: bind((address, 0)) leaves the port to connect(), which may share it between destinations."""
IP_LOCAL_PORT_RANGE = 51
"""Linux 6.3: the range of this socket; also, no parity and every port of it is looked at once."""
TCP_REPAIR = 19
"""Needs CAP_NET_ADMIN: connect() chooses a port and sends nothing; nor does close()."""

WHOLE_RANGE = (1, 65535)
"""As IP_LOCAL_PORT_RANGE: all of the namespace's range, whatever that is, since ends outside it are ignored."""


def set_port_range(sock: socket, low: int, high: int) -> None:
    """IP_LOCAL_PORT_RANGE; the same option for IPv4 and IPv6.  OSError ENOPROTOOPT before Linux 6.3."""
    sock.setsockopt(IPPROTO_IP, IP_LOCAL_PORT_RANGE, struct.pack("=I", high << 16 | low))


def set_no_port(sock: socket) -> None:
    """IP_BIND_ADDRESS_NO_PORT, for IPv4 and IPv6."""
    sock.setsockopt(IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)


def set_repair(sock: socket) -> None:
    """TCP_REPAIR.  OSError EPERM without CAP_NET_ADMIN."""
    sock.setsockopt(IPPROTO_TCP, TCP_REPAIR, 1)


def set_reuse(sock: socket) -> None:
    """SO_REUSEADDR: does not change what connect() finds; lets a server bind the port meanwhile."""
    sock.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)


def read_port_range() -> tuple[int, int]:
    """net.ipv4.ip_local_port_range of the namespace that the calling thread is in."""
    with open("/proc/sys/net/ipv4/ip_local_port_range") as file:
        low, high = file.read().split()
    return int(low), int(high)
