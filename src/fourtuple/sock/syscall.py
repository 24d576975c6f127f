"""The system calls of a socket (net/socket.c): descriptor and address of the caller here, ProtoOps behind them.

Lives here: the descriptor look-up, the copy of an address from the caller, and their order; `raise_errno`, the one
place where -errno becomes an exception.  Does not live here: what a call does (af_inet.py, stream.py, options.py).

Rules
1. `task` is the caller; every call returns a value, -errno, or a Wait.
2. Order of errors: EBADF, then the address (EINVAL, EFAULT), then ENOTSOCK (ERR-05).
3. An address is bytes; None stands for a pointer that cannot be read, and so does one shorter than `addrlen` (ERR-04).
4. A call that sleeps keeps its file open, whatever happens to the descriptor.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable
from typing import NoReturn

from fourtuple.errors import Report, make_error
from fourtuple.inet.hashinfo import inet_sk_get_local_port_range
from fourtuple.kernel_map import FN_CONNECT_RETURNS, FN_SOCKFD_LOOKUP, FN_SYS_BIND, FN_SYS_CONNECT
from fourtuple.sock.af_inet import (
    AF_INET,
    AF_UNSPEC,
    SIZEOF_SA_FAMILY,
    SIZEOF_SOCKADDR_IN,
    inet_create,
    inet_stream_connect,
    pack_sockaddr_in,
    sk_state,
    sockaddr_family,
    sockaddr_in,
)
from fourtuple.sock.file import FASYNC, O_APPEND, O_DIRECT, O_NOATIME, O_NONBLOCK, O_RDWR, File, Socket, Task
from fourtuple.sock.options import do_getsockopt, do_setsockopt
from fourtuple.sock.sol_tcp import TFO_CLIENT_ENABLE
from fourtuple.sock.stream import MSG_DONTWAIT, MSG_FASTOPEN, MSG_OOB, Buffer
from fourtuple.sock.wait import Outcome, Wait
from fourtuple.tcp.info import errqueue_pop
from fourtuple.trace import trace

NULL = None
SIZEOF_SOCKADDR_STORAGE = 128
SOCK_STREAM, SOCK_DGRAM, SOCK_RAW, SOCK_PACKET, SOCK_MAX = 1, 2, 3, 10, 11
SOCK_CLOEXEC, SOCK_NONBLOCK = 0o2000000, 0o4000
SOCK_TYPE_MASK = 0xF
AF_MAX = 46
IPPROTO_TCP, IPPROTO_MAX = 6, 263
POLLNVAL = 32
ALWAYS_POLLED = 8 | 16  # POLLERR and POLLHUP come unasked
F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC = 0, 1, 2, 3, 4, 1030
FD_CLOEXEC = 1
FIONBIO = 0x5421
_SETFL_MASK = O_APPEND | O_NONBLOCK | O_DIRECT | O_NOATIME | FASYNC


# ---------------------------------------------------------------------------------------------- helpers


def move_addr_to_kernel(address: bytes | None, addrlen: int) -> bytes | int:
    """The `addrlen` bytes of the caller's sockaddr, or -EINVAL, -EFAULT.  Length 0 reads nothing, so NULL will do."""
    if not 0 <= addrlen <= SIZEOF_SOCKADDR_STORAGE:
        return -errno.EINVAL
    if addrlen == 0:
        return b""
    if address is None or len(address) < addrlen:
        return -errno.EFAULT
    return bytes(address[:addrlen])


def sock_from_file(file: File) -> Socket | None:
    """The socket behind a file; None if it is something else."""
    return file.socket


def sockfd_lookup(task: Task, fd: int) -> Socket | int:
    """Descriptor -> socket: -EBADF or -ENOTSOCK."""
    file = task.files.fget(fd)
    if file is None:
        return -errno.EBADF
    return _socket_of(task, fd, file)


def _socket_of(task: Task, fd: int, file: File) -> Socket | int:
    sock = sock_from_file(file)
    if sock is None:
        return -errno.ENOTSOCK
    if task.net.tracer is not None:
        trace(task.net.tracer, FN_SOCKFD_LOOKUP, sock.sk, fd, sock.sk, sock.state, sk_state(sock))
    return sock


def _file_and_socket(task: Task, fd: int) -> tuple[File, Socket] | int:
    sock = sockfd_lookup(task, fd)
    if isinstance(sock, int):
        return sock
    return task.files.table[fd], sock


def _asleep(file: File, wait: Outcome, restart: Callable[[], Outcome] | None) -> Outcome:
    """A call that sleeps holds its file and can start again."""
    if isinstance(wait, Wait):
        file.count += 1
        wait.restart = restart
        wait.at_end(lambda: fput(file))
    return wait


def fput(file: File) -> Outcome:
    """One user of the file less; the last one releases the socket."""
    file.count -= 1
    return _release_if_unused(file)


def _release_if_unused(file: File) -> Outcome:
    if file.count > 0 or file.socket is None:
        return 0
    sock, file.socket = file.socket, None
    return sock.ops.release(sock)


# ---------------------------------------------------------------------------------------------- socket, close, dup


def sys_socket(task: Task, family: int, type_: int, protocol: int = 0) -> int:
    """socket(2): a descriptor.  Only AF_INET stream sockets exist here."""
    kind, flags = type_ & SOCK_TYPE_MASK, type_ & ~SOCK_TYPE_MASK
    if flags & ~(SOCK_CLOEXEC | SOCK_NONBLOCK):
        return -errno.EINVAL
    if family != AF_INET:
        return -errno.EAFNOSUPPORT
    if kind >= SOCK_MAX or not 0 <= protocol < IPPROTO_MAX:
        return -errno.EINVAL
    if kind != SOCK_STREAM:
        return -errno.ESOCKTNOSUPPORT
    if protocol not in (0, IPPROTO_TCP):
        return -errno.EPROTONOSUPPORT
    sock = inet_create(task, kind)
    return sock if isinstance(sock, int) else sock_map_fd(task, sock, flags)


def sock_map_fd(task: Task, sock: Socket, flags: int) -> int:
    """A descriptor for a new socket; without one the socket is released again."""
    file = File("socket", sock, O_RDWR | (O_NONBLOCK if flags & SOCK_NONBLOCK else 0))
    fd = task.files.install(file)
    if fd < 0:
        _release_if_unused(file)
    elif flags & SOCK_CLOEXEC:
        task.files.close_on_exec.add(fd)
    return fd


def sys_close(task: Task, fd: int) -> Outcome:
    """close(2).  A Wait only with SO_LINGER; the descriptor is gone all the same."""
    file = task.files.remove(fd)
    return -errno.EBADF if file is None else _release_if_unused(file)


def sys_dup(task: Task, fd: int, lowest: int = 0) -> int:
    """dup(2): another descriptor of the same file."""
    file = task.files.fget_raw(fd)
    return -errno.EBADF if file is None else task.files.install(file, lowest)


def sys_fcntl(task: Task, fd: int, command: int, argument: int = 0) -> int:
    """fcntl(2): F_GETFL, F_SETFL, F_GETFD, F_SETFD, F_DUPFD, F_DUPFD_CLOEXEC."""
    file = task.files.fget_raw(fd)
    if file is None:
        return -errno.EBADF
    if command in (F_DUPFD, F_DUPFD_CLOEXEC):
        return _dup_from(task, fd, argument, command == F_DUPFD_CLOEXEC)
    if command == F_GETFD:
        return FD_CLOEXEC if fd in task.files.close_on_exec else 0
    if command == F_SETFD:
        (task.files.close_on_exec.add if argument & FD_CLOEXEC else task.files.close_on_exec.discard)(fd)
        return 0
    if command == F_GETFL:
        return file.flags
    if file.path_only:
        return -errno.EBADF
    if command != F_SETFL:
        return -errno.EINVAL
    file.flags = (file.flags & ~_SETFL_MASK) | (argument & _SETFL_MASK)
    return 0


def _dup_from(task: Task, fd: int, lowest: int, close_on_exec: bool) -> int:
    if not 0 <= lowest < task.files.limit:
        return -errno.EINVAL
    new = sys_dup(task, fd, lowest)
    if new >= 0 and close_on_exec:
        task.files.close_on_exec.add(new)
    return new


# ---------------------------------------------------------------------------------------------- connect, bind


def sys_connect(task: Task, fd: int, address: bytes | None, addrlen: int) -> Outcome:
    """connect(2)."""
    file = task.files.fget(fd)
    if task.net.tracer is not None:
        _trace_connect(task, fd, address, file)
    row = _row_of(file)
    result = _connect_file(task, fd, file, address, addrlen)
    if isinstance(result, Wait):
        result.at_end(lambda: _trace_return(task, row, result.result))
    else:
        _trace_return(task, row, result)
    return result


def _trace_return(task: Task, row: int, result: Outcome) -> None:
    if task.net.tracer is not None and isinstance(result, int):
        trace(task.net.tracer, FN_CONNECT_RETURNS, row, result)


def _connect_file(task: Task, fd: int, file: File | None, address: bytes | None, addrlen: int) -> Outcome:
    if file is None:
        return -errno.EBADF
    moved = move_addr_to_kernel(address, addrlen)
    if isinstance(moved, int):
        return moved
    sock = _socket_of(task, fd, file)
    if isinstance(sock, int):
        return sock
    outcome = sock.ops.connect(sock, moved, file.flags)
    return _asleep(file, outcome, lambda: sys_connect(task, fd, address, addrlen))


def _row_of(file: File | None) -> int:
    return file.socket.sk if file is not None and file.socket is not None else 0


def _trace_connect(task: Task, fd: int, address: bytes | None, file: File | None) -> None:
    daddr, dport = sockaddr_in(address) if address is not None and len(address) >= 8 else (0, 0)
    nonblock = 1 if file is not None and file.flags & O_NONBLOCK else 0
    tracer = task.net.tracer
    assert tracer is not None
    trace(tracer, FN_SYS_CONNECT, _row_of(file), fd, daddr, dport, nonblock)


def sys_bind(task: Task, fd: int, address: bytes | None, addrlen: int) -> int:
    """bind(2).  Here the descriptor is found to be a socket before the address is read."""
    if task.net.tracer is not None:
        daddr, dport = sockaddr_in(address) if address is not None and len(address) >= 8 else (0, 0)
        trace(task.net.tracer, FN_SYS_BIND, _row_of(task.files.fget(fd)), fd, daddr, dport)
    sock = sockfd_lookup(task, fd)
    if isinstance(sock, int):
        return sock
    moved = move_addr_to_kernel(address, addrlen)
    return moved if isinstance(moved, int) else sock.ops.bind(task, sock, moved)


# ------------------------------------------------------------------------------------- listen, accept, shutdown


def sys_listen(task: Task, fd: int, backlog: int) -> int:
    """listen(2); the backlog is at most net.core.somaxconn, a negative one counts as huge."""
    sock = sockfd_lookup(task, fd)
    if isinstance(sock, int):
        return sock
    return sock.ops.listen(sock, min(backlog & 0xFFFFFFFF, task.net.sysctl.somaxconn))


def sys_accept(task: Task, fd: int, flags: int = 0) -> Outcome:
    """accept4(2): the new descriptor.  Ask sys_getpeername for the address."""
    if flags & ~(SOCK_CLOEXEC | SOCK_NONBLOCK):
        return -errno.EINVAL
    found = _file_and_socket(task, fd)
    if isinstance(found, int):
        return found
    if task.files.is_full():
        return -errno.EMFILE
    file, sock = found
    outcome = sock.ops.accept(sock, file.flags)
    if isinstance(outcome, Wait):
        outcome.then(lambda result: _accepted(task, result, flags))
        return _asleep(file, outcome, lambda: sys_accept(task, fd, flags))
    return _accepted(task, outcome, flags)


def _accepted(task: Task, result: Socket | int, flags: int) -> int:
    return result if isinstance(result, int) else sock_map_fd(task, result, flags)


def sys_shutdown(task: Task, fd: int, how: int) -> int:
    """shutdown(2)."""
    sock = sockfd_lookup(task, fd)
    return sock if isinstance(sock, int) else sock.ops.shutdown(sock, how)


# ---------------------------------------------------------------------------------------------- send, receive


def sys_sendto(
    task: Task, fd: int, data: Buffer, flags: int = 0, address: bytes | None = None, addrlen: int = 0
) -> Outcome:
    """sendto(2): bytes queued.  The address counts with MSG_FASTOPEN only.  No SIGPIPE here: -EPIPE says it."""
    found = _file_and_socket(task, fd)
    if isinstance(found, int):
        return found
    file, sock = found
    moved = move_addr_to_kernel(address, addrlen) if address is not None else b""
    if isinstance(moved, int):
        return moved
    if flags & MSG_OOB:
        return -errno.EOPNOTSUPP
    if flags & MSG_DONTWAIT:
        return _send(task, file, sock, data, flags, moved, file.flags | O_NONBLOCK)
    outcome = _send(task, file, sock, data, flags, moved, file.flags)
    return _asleep(file, outcome, lambda: sys_sendto(task, fd, data, flags, address, addrlen))


def _send(task: Task, file: File, sock: Socket, data: Buffer, flags: int, address: bytes, file_flags: int) -> Outcome:
    if flags & MSG_FASTOPEN:
        outcome = tcp_sendmsg_fastopen(task, sock, address, file_flags)
        if isinstance(outcome, Wait):
            outcome.then(lambda err: err if err < 0 else sock.ops.sendmsg(sock, data, file_flags))
            return outcome
        if outcome < 0:
            return outcome
    return sock.ops.sendmsg(sock, data, file_flags)


def tcp_sendmsg_fastopen(task: Task, sock: Socket, address: bytes, file_flags: int) -> Outcome:
    """MSG_FASTOPEN without a cookie, and there never is one here: connect first, then send."""
    unspec = len(address) >= SIZEOF_SA_FAMILY and sockaddr_family(address) == AF_UNSPEC
    if not task.net.sysctl.tcp_fastopen & TFO_CLIENT_ENABLE or unspec:
        return -errno.EOPNOTSUPP
    return inet_stream_connect(sock, address, file_flags)


def sys_recvfrom(task: Task, fd: int, size: int, flags: int = 0) -> Outcome:
    """recv(2): bytes, b'' at the end of the stream."""
    found = _file_and_socket(task, fd)
    if isinstance(found, int):
        return found
    file, sock = found
    if size < 0 or flags & MSG_OOB:
        return -errno.EINVAL
    file_flags = file.flags | (O_NONBLOCK if flags & MSG_DONTWAIT else 0)
    outcome = sock.ops.recvmsg(sock, size, flags, file_flags)
    return _asleep(file, outcome, lambda: sys_recvfrom(task, fd, size, flags))


def sys_recvmsg_errqueue(task: Task, fd: int) -> dict[str, object] | int:
    """recvmsg(2) with MSG_ERRQUEUE: one entry (errno, origin, type, code, info, offender, ...) or -EAGAIN."""
    sock = sockfd_lookup(task, fd)
    if isinstance(sock, int):
        return sock
    return errqueue_pop(sock.net, sock.sk) or -errno.EAGAIN


# ---------------------------------------------------------------------------------------------- the rest


def sys_setsockopt(task: Task, fd: int, level: int, name: int, value: bytes | None) -> int:
    """setsockopt(2); None is a pointer that cannot be read."""
    sock = sockfd_lookup(task, fd)
    if isinstance(sock, int):
        return sock
    return -errno.EFAULT if value is None else do_setsockopt(task, sock, level, name, bytes(value))


def sys_getsockopt(task: Task, fd: int, level: int, name: int, size: int) -> bytes | int:
    """getsockopt(2): at most `size` bytes."""
    sock = sockfd_lookup(task, fd)
    return sock if isinstance(sock, int) else do_getsockopt(task, sock, level, name, size)


def sys_getsockname(task: Task, fd: int) -> bytes | int:
    """getsockname(2): a sockaddr_in."""
    return _getname(task, fd, False)


def sys_getpeername(task: Task, fd: int) -> bytes | int:
    """getpeername(2): a sockaddr_in."""
    return _getname(task, fd, True)


def _getname(task: Task, fd: int, peer: bool) -> bytes | int:
    sock = sockfd_lookup(task, fd)
    if isinstance(sock, int):
        return sock
    name = sock.ops.getname(sock, peer)
    return name if isinstance(name, int) else pack_sockaddr_in(*name)


def sys_poll(task: Task, fd: int, events: int = 0xFFFF, timeout_us: int = 0) -> Outcome:
    """poll(2) of one descriptor: those of `events` that are true, with a timeout (-1: none) a Wait for the first.

    A bad descriptor is POLLNVAL, no error.
    """
    file = task.files.fget(fd)
    if file is None:
        return POLLNVAL
    sock = sock_from_file(file)
    if sock is None:
        return 0

    def mask() -> int:
        return sock.ops.poll(sock) & (events | ALWAYS_POLLED)

    if timeout_us == 0 or mask():
        return mask()
    deadline = None if timeout_us < 0 else task.net.now_us + timeout_us
    wait = Wait(lambda: mask() != 0, lambda why: -errno.EINTR if why == "signal" else mask(), deadline)
    return _asleep(file, wait, None)


def sys_ioctl(task: Task, fd: int, request: int, argument: int = 0) -> int:
    """ioctl(2): the number that SIOCINQ, SIOCOUTQ and SIOCOUTQNSD store; FIONBIO takes `argument`."""
    file = task.files.fget(fd)
    if file is None:
        return -errno.EBADF
    if request == FIONBIO:
        file.flags = file.flags | O_NONBLOCK if argument else file.flags & ~O_NONBLOCK
        return 0
    sock = sock_from_file(file)
    return -errno.ENOTTY if sock is None else sock.ops.ioctl(sock, request)


# ---------------------------------------------------------------------------------------------- exceptions


def raise_errno(task: Task, call: str, code: int, fd: int = -1, address: bytes | None = None) -> NoReturn:
    """Raise the ConnectError for -errno `code` of `call`, with its report."""
    file = task.files.fget(fd)
    sock = None if file is None else file.socket
    if sock is None:
        raise make_error(call, -code)
    ports = _ports(sock) if -code in (errno.EADDRNOTAVAIL, errno.EADDRINUSE) else None
    raise make_error(call, -code, _four_tuple(sock, address), ports)


def _dotted(address: int) -> str:
    return ".".join(str(part) for part in struct.pack("!I", address))


def _four_tuple(sock: Socket, address: bytes | None) -> Report:
    """What is known of the connection: the caller's destination, or the row's."""
    sks, sk = sock.net.sks, sock.sk
    daddr, dport = sks.daddr[sk], sks.dport[sk]
    if address is not None and len(address) >= SIZEOF_SOCKADDR_IN:
        daddr, dport = sockaddr_in(address)
    return {"saddr": _dotted(sks.saddr[sk]), "sport": sks.sport[sk], "daddr": _dotted(daddr), "dport": dport}


def _ports(sock: Socket) -> Report:
    """The ports among which a search chooses for this socket; a bound one has just its own."""
    h, num = sock.net.h, sock.net.sks.num[sock.sk]
    if num != 0:
        return {"low": num, "high": num, "candidates": 1, "own_range": False}
    own_range = inet_sk_get_local_port_range(h, sock.sk)
    low, high = h.range.low, h.range.high
    size = high - low + 1
    # An even number of ports takes part in the search by parity (PORT-05).
    candidates = size if own_range or size <= 1 else size & ~1
    return {"low": low, "high": high, "candidates": candidates, "own_range": bool(own_range)}
