"""NETLINK_SOCK_DIAG: the question, as bytes, and the loop that takes the answer into columns.

Lives here: the request, the filter that the kernel runs, errors of the kernel in words.
Does not live here: the decoder (_decode.py), namespaces (netns.py), the public call (reader.py).

The request is that of TCPDIAG_GETSOCK (inet_diag_req): with AF_UNSPEC it lists IPv4 and IPv6 in one walk of the
kernel's tables.  SOCK_DIAG_BY_FAMILY needs a walk a family, between which sockets come and go; the rows are the same.
"""

from __future__ import annotations

import errno
import struct
from _socket import AF_INET, AF_INET6, MSG_TRUNC, SO_RCVTIMEO, SOL_SOCKET

from fourtuple.live._decode import DONE, ERROR, FULL, MALFORMED, Datagram, SocketColumns, decode, grow
from fourtuple.live.refusal import CannotRead
from fourtuple.live.socket_filter import Prefix, SocketFilter

NETLINK_SOCK_DIAG = 4
_TCPDIAG_GETSOCK = 18
_NLM_F_REQUEST, _NLM_F_DUMP = 0x001, 0x300
_INET_DIAG_REQ_BYTECODE = 1
_WANT_INFO = 1 << 1  # INET_DIAG_INFO: struct tcp_info
# include/uapi/linux/inet_diag.h; of a pair the first is about the source.
_GE, _LE, _COND = (2, 4), (3, 5), (7, 8)
_JMP = 1
_NOT_SOURCE = -7  # ours: a _COND about the source that must fail
_ANY_PORT = -1
# The kernel fills at most 32 KiB a datagram (af_netlink.c:netlink_recvmsg), whatever the buffer.
DATAGRAM = 1 << 16
_TIMEOUT_S = 10

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Sequence

Condition = tuple[int, bytes]
"""An operation of the kernel's filter and what follows it; all must hold."""


def conditions(wanted: SocketFilter) -> list[Condition]:
    """The operations of the kernel's filter."""
    prefixes = [prefix for prefix in (wanted.saddr, wanted.daddr) if prefix is not None]
    found: list[Condition] = []
    for family in sorted({wanted.family or 0, *(prefix.family for prefix in prefixes)} - {0}):
        found += _family(family)
    for is_source, ports in ((True, wanted.sport), (False, wanted.dport)):
        if ports is not None:
            codes = (_GE[not is_source], _LE[not is_source])
            found += [(code, struct.pack("=BBH", 0, 0, port)) for code, port in zip(codes, ports, strict=True)]
    for is_source, prefix in ((True, wanted.saddr), (False, wanted.daddr)):
        if prefix is not None:
            found.append((_COND[not is_source], _operand(prefix)))
    return found


def _family(family: int) -> list[Condition]:
    """AF_INET also is what an AF_INET6 socket with v4-mapped addresses is about, so AF_INET6 is not."""
    any_ipv4 = _operand(Prefix(AF_INET, bytes(4), 0))
    if family == AF_INET:
        return [(_COND[0], any_ipv4)]
    return [(_COND[0], _operand(Prefix(AF_INET6, bytes(16), 0))), (_NOT_SOURCE, any_ipv4)]


def _operand(prefix: Prefix) -> bytes:
    """struct inet_diag_hostcond; the kernel takes v4-mapped addresses for IPv4 here."""
    return struct.pack("=BBHi", prefix.family, prefix.length, 0, _ANY_PORT) + prefix.address


def bytecode(operations: Sequence[Condition]) -> bytes:
    """The filter (struct inet_diag_bc_op): an operation is followed by where to go on when it holds and when not.

    Arriving at the end accepts, 4 bytes past it refuses.
    """
    sizes = [4 + len(operand) + 4 * (code < 0) for code, operand in operations]
    left = sum(sizes)
    program = b""
    for (code, operand), size in zip(operations, sizes, strict=True):
        if code < 0:  # holds: to the jump that refuses; fails: past the jump
            program += (
                struct.pack("=BBH", -code, size - 4, size) + operand + struct.pack("=BBH", _JMP, 4, left - size + 8)
            )
        else:
            program += struct.pack("=BBH", code, size, left + 4) + operand
        left -= size
    return program


def request(sequence: int, wanted: SocketFilter, idle: bool = False) -> bytes:
    """The datagram that asks for sockets, `idle`: with their struct tcp_info."""
    body = struct.pack("=BBBB48xII", 0, 0, 0, _WANT_INFO if idle else 0, wanted.states, 0)
    program = bytecode(conditions(wanted))
    if program:
        body += struct.pack("=HH", 4 + len(program), _INET_DIAG_REQ_BYTECODE) + program
    flags = _NLM_F_REQUEST | _NLM_F_DUMP
    return struct.pack("=IHHII", 16 + len(body), _TCPDIAG_GETSOCK, flags, sequence, 0) + body


def read(connection: socket, message: bytes, columns: SocketColumns, datagram: Datagram) -> None:
    """Ask, and take the whole answer into the columns, which were cleared for the sequence number of the message."""
    try:
        connection.connect((0, 0))  # from now on only the kernel may send to it
        connection.setsockopt(SOL_SOCKET, SO_RCVTIMEO, struct.pack("@ll", _TIMEOUT_S, 0))
        connection.send(message)
        while not take(columns, datagram, connection.recv_into(datagram.view, 0, MSG_TRUNC)):
            pass
    except CannotRead:
        raise
    except OSError as error:
        raise refused(error.errno or errno.EIO) from None


def take(columns: SocketColumns, datagram: Datagram, length: int) -> bool:
    """One datagram of the answer; True when it was the last."""
    if length > datagram.size or length == 0:
        raise refused(errno.EMSGSIZE)
    offset = decode(columns, datagram, 0, length)
    while columns.stop == FULL:
        grow(columns)
        offset = decode(columns, datagram, offset, length)
    if columns.stop == ERROR:
        raise refused(columns.error)
    if columns.stop == MALFORMED:
        raise refused(errno.EBADMSG)
    return columns.stop == DONE


_REASONS = {
    errno.ENOENT: ("the kernel has no tcp_diag", "modprobe tcp_diag"),
    errno.EOPNOTSUPP: ("the kernel has no inet_diag", "modprobe inet_diag tcp_diag"),
    errno.EPROTONOSUPPORT: ("this kernel has no sock_diag", ""),
    errno.EAFNOSUPPORT: ("netlink is not allowed here", ""),
    errno.EPERM: ("not allowed here", "a seccomp or security rule"),
    errno.EACCES: ("not allowed here", "a seccomp or security rule"),
    errno.EAGAIN: (f"no answer for {_TIMEOUT_S} s", "try again"),
    errno.ENOBUFS: ("the kernel was out of buffers, more than once", "try again"),
    errno.ENOMEM: ("the kernel was out of memory", "try again"),
    errno.EMSGSIZE: ("an answer larger than any kernel is known to send", "please report it"),
    errno.EBADMSG: ("an answer that is no netlink message", "please report it"),
}


def refused(code: int) -> CannotRead:
    """The exception for an errno of the kernel, or of the answer."""
    reason, advice = _REASONS.get(code, ("", ""))
    return CannotRead(code, "TCP sockets (sock_diag)", advice, reason)
