"""ConnectError and its kinds: OSError with the real errno and a machine-readable `.report`.

Lives here: the classes, and what is known about an (operation, errno) pair: the kernel function that says it, why,
and what helps.  Does not live here: the decision (inet/, ip/, tcp/, sock/ return -errno) and the one place that
raises (sock/syscall.py).

Rules
1. `except ConnectionRefusedError`, `TimeoutError`, `PermissionError`, `BlockingIOError` work as they do with Python's
   own sockets: a kind inherits from the class to which Python maps its errno.
2. `.report` holds plain dicts, lists, strings and ints: it goes to JSON as it is.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Any

Report = dict[str, Any]


class ConnectError(OSError):
    """A system call on a fourtuple socket failed.  `errno` is what Linux gives.

    `report`: `call`, `errno` (its name), `function` (the kernel function that decides), `reason` (one sentence),
    `frees` (what would make it work, a list of sentences), `four_tuple` (saddr, sport, daddr, dport or None), `ports`
    (what a port search looked at, or None).
    """

    def __init__(self, code: int, text: str, report: Report | None = None) -> None:
        super().__init__(code, text)
        self.report: Report = report or {}


class ConnectPending(ConnectError, BlockingIOError):
    """EINPROGRESS, EALREADY, EAGAIN: not an end, only not yet."""


class ConnectRefused(ConnectError, ConnectionRefusedError):
    """ECONNREFUSED: a reset, or ICMP port unreachable, answered the SYN."""


class ConnectReset(ConnectError, ConnectionResetError):
    """ECONNRESET: a reset ended the connection, or the attempt was taken back."""


class ConnectAborted(ConnectError, ConnectionAbortedError):
    """ECONNABORTED: the attempt had failed and SO_ERROR had already told why."""


class ConnectTimeout(ConnectError, TimeoutError):
    """ETIMEDOUT: no answer within the whole schedule of retransmissions."""


class ConnectForbidden(ConnectError, PermissionError):
    """EACCES, EPERM: a prohibit route, or a privilege that is missing."""


class ConnectInterrupted(ConnectError, InterruptedError):
    """EINTR: a signal ended the wait; the attempt itself goes on."""


class ConnectBroken(ConnectError, BrokenPipeError):
    """EPIPE: nothing can be sent on this socket any more."""


class NoLocalPort(ConnectError):
    """EADDRNOTAVAIL: no local port is left for this destination, or the address is not ours."""


class LocalPortInUse(ConnectError):
    """EADDRINUSE: bind() or listen() found the port, or all ports, taken."""


class NoRoute(ConnectError):
    """ENETUNREACH, EHOSTUNREACH and their like: the destination cannot be reached."""


class WrongState(ConnectError):
    """EISCONN, ENOTCONN: the socket is not in a state for this call."""


KINDS: dict[int, type[ConnectError]] = {
    errno.EINPROGRESS: ConnectPending,
    errno.EALREADY: ConnectPending,
    errno.EAGAIN: ConnectPending,
    errno.ECONNREFUSED: ConnectRefused,
    errno.ECONNRESET: ConnectReset,
    errno.ECONNABORTED: ConnectAborted,
    errno.ETIMEDOUT: ConnectTimeout,
    errno.EACCES: ConnectForbidden,
    errno.EPERM: ConnectForbidden,
    errno.EINTR: ConnectInterrupted,
    errno.EPIPE: ConnectBroken,
    errno.ESHUTDOWN: ConnectBroken,
    errno.EADDRNOTAVAIL: NoLocalPort,
    errno.EADDRINUSE: LocalPortInUse,
    errno.ENETUNREACH: NoRoute,
    errno.EHOSTUNREACH: NoRoute,
    errno.EHOSTDOWN: NoRoute,
    errno.ENONET: NoRoute,
    errno.EISCONN: WrongState,
    errno.ENOTCONN: WrongState,
}

# Names where two errnos share a number: the one that the manual pages use.
_NAMES = {errno.EAGAIN: "EAGAIN", errno.EOPNOTSUPP: "EOPNOTSUPP"}


def errno_name(code: int) -> str:
    """'ECONNREFUSED' for 111; the number as text when it has no name."""
    return _NAMES.get(code) or errno.errorcode.get(code, str(code))


@dataclass(frozen=True)
class Reason:
    """Who says it, why, and what helps."""

    function: str
    """the kernel function that decides"""
    reason: str
    """one sentence"""
    frees: tuple[str, ...] = ()
    """what would make the call work"""


_UNSPEC = "connect() with AF_UNSPEC takes the socket back to its fresh state"

REASONS: dict[tuple[str, int], Reason] = {
    ("connect", errno.EADDRNOTAVAIL): Reason(
        "__inet_hash_connect",
        "every local port that this socket may use is taken for this destination",
        (
            "a socket to this destination is closed, or its TIME_WAIT ends (60 s)",
            "a wider net.ipv4.ip_local_port_range, or fewer ip_local_reserved_ports",
            "another source address: bind((address, 0)) with IP_BIND_ADDRESS_NO_PORT",
            "net.ipv4.tcp_tw_reuse=1 reuses TIME_WAITs that have timestamps after tcp_tw_reuse_delay",
        ),
    ),
    ("connect", errno.ECONNREFUSED): Reason(
        "tcp_reset",
        "the peer answered the SYN with a reset, or ICMP port unreachable came",
        ("a listener on that port",),
    ),
    ("connect", errno.ETIMEDOUT): Reason(
        "tcp_write_timeout",
        "nobody answered the SYN, nor any of its retransmissions",
        ("net.ipv4.tcp_syn_retries, TCP_SYNCNT or TCP_USER_TIMEOUT end the wait earlier or later",),
    ),
    ("connect", errno.ENETUNREACH): Reason(
        "ip_route_connect",
        "no route leads to the destination, or the bound source is not a local address",
        ("a route to the destination", "a source address that this host has"),
    ),
    ("connect", errno.EHOSTUNREACH): Reason(
        "ip_route_connect", "an unreachable route, or ICMP host unreachable, forbids the destination"
    ),
    ("connect", errno.EACCES): Reason("ip_route_connect", "a prohibit route forbids the destination"),
    ("connect", errno.EINPROGRESS): Reason(
        "__inet_stream_connect",
        "the SYN is out; the socket is non-blocking or SO_SNDTIMEO is over",
        ("wait until the socket is writable, then read SO_ERROR",),
    ),
    ("connect", errno.EALREADY): Reason(
        "__inet_stream_connect", "the attempt of an earlier connect() is not decided yet", ("wait for it", _UNSPEC)
    ),
    ("connect", errno.EISCONN): Reason(
        "__inet_stream_connect", "the socket is connected, was connected, or listens", (_UNSPEC,)
    ),
    ("connect", errno.ECONNABORTED): Reason(
        "__inet_stream_connect", "the attempt failed and SO_ERROR was read before", ("connect() again starts anew",)
    ),
    ("connect", errno.EINTR): Reason(
        "inet_wait_for_connect", "a signal came; the attempt goes on", ("connect() again waits for its end",)
    ),
    ("connect", errno.EPIPE): Reason("__inet_stream_connect", "another caller disconnected the socket meanwhile"),
    ("connect", errno.EINVAL): Reason(
        "__inet_stream_connect", "the address is too short, or shutdown() jammed the socket", (_UNSPEC,)
    ),
    ("connect", errno.EAFNOSUPPORT): Reason("tcp_v4_connect", "the address is not AF_INET"),
    ("connect", errno.EFAULT): Reason("move_addr_to_kernel", "the address cannot be read"),
    ("bind", errno.EADDRINUSE): Reason(
        "inet_csk_get_port",
        "the port conflicts with a socket that has it, or no port is free",
        ("SO_REUSEADDR or SO_REUSEPORT on both sockets", "IP_BIND_ADDRESS_NO_PORT leaves the choice to connect()"),
    ),
    ("bind", errno.EADDRNOTAVAIL): Reason(
        "__inet_bind", "the address is not local", ("ip_nonlocal_bind, IP_FREEBIND or IP_TRANSPARENT",)
    ),
    ("bind", errno.EACCES): Reason(
        "__inet_bind", "the port is below ip_unprivileged_port_start", ("CAP_NET_BIND_SERVICE",)
    ),
    ("bind", errno.EINVAL): Reason("__inet_bind", "the socket has a port already, or the address is too short"),
    ("send", errno.EPIPE): Reason("tcp_sendmsg", "the socket is not connected, or its sending side is shut"),
    ("recv", errno.ENOTCONN): Reason("tcp_recvmsg", "the socket is not connected"),
    ("shutdown", errno.ENOTCONN): Reason("inet_shutdown", "the socket is not connected"),
}

_ANYWHERE: dict[int, Reason] = {
    errno.EBADF: Reason("fdget", "the descriptor is not open"),
    errno.ENOTSOCK: Reason("sock_from_file", "the descriptor is not a socket"),
    errno.EAGAIN: Reason("sock_sndtimeo", "the call would have to wait"),
    errno.EMFILE: Reason("alloc_fd", "the descriptor table is full", ("close a descriptor",)),
    errno.ENOBUFS: Reason("sk_alloc", "the socket table is full", ("a larger max_sockets", "close a socket")),
    errno.ENOPROTOOPT: Reason("sock_setsockopt", "no such socket option"),
    errno.ECONNRESET: Reason("tcp_reset", "the peer reset the connection"),
}


def reason_for(call: str, code: int) -> Reason:
    """What is known about this errno of this call."""
    found = REASONS.get((call, code)) or _ANYWHERE.get(code)
    return found or Reason("", f"{call}() gives {errno_name(code)}")


def make_error(call: str, code: int, four_tuple: Report | None = None, ports: Report | None = None) -> ConnectError:
    """The exception for positive errno `code` of `call`, its report filled in."""
    why = reason_for(call, code)
    report: Report = {
        "call": call,
        "errno": errno_name(code),
        "function": why.function,
        "reason": why.reason,
        "frees": list(why.frees),
        "four_tuple": four_tuple,
        "ports": ports,
    }
    return KINDS.get(code, ConnectError)(code, why.reason, report)
