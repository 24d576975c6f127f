"""Network namespaces of this machine: named, found, entered for a moment.

Lives here: what a namespace is called, the list of all that can be seen, a socket in one of them.
Does not live here: what is read there (sock_diag.py, system.py), namespaces of our own making (shell/netns.py).

Rules
1. This process never changes its namespace: a thread of its own enters the other one and ends there.
2. /proc/sys/net is that of the thread which opens it; /proc/net is that of the process: say /proc/thread-self/net.
"""

from __future__ import annotations

import errno
import os

from fourtuple.live.refusal import CannotRead

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from socket import socket
    from typing import TypeAlias, TypeVar

    T = TypeVar("T")
    Spec: TypeAlias = "Netns | str | int | None"

_NAMED = "/run/netns"
_OWN = "/proc/thread-self/ns/net"
_CLONE_NEWNET = 0x40000000
_NS_GET_NSTYPE = 0xB703  # include/uapi/linux/nsfs.h
_NSFS_TYPE = " - nsfs "
# How mountinfo writes these in a path (seq_path); the backslash last, or it would make new ones.
_OCTAL = (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\"))


class Netns:
    """A network namespace."""

    __slots__ = ("inode", "is_current", "label", "path")

    def __init__(self, label: str, path: str, inode: int, is_current: bool) -> None:
        self.label = label
        """For people: its name, `pid 4711`, a path; "" for the one that this process is in."""
        self.path = path
        """What setns() takes."""
        self.inode = inode
        """Its number, as in `net:[4026531840]`: equal for the same namespace, whatever it is called."""
        self.is_current = is_current
        """This process is in it: nothing has to be entered."""

    def __repr__(self) -> str:
        return f"<Netns {self.label or 'of this process'}, net:[{self.inode}]>"


def find_netns(spec: Spec = None) -> Netns:
    """The namespace meant by a name in /run/netns, a pid (a number or digits), a path, or None (where we are).

    Raises CannotRead when there is none, or it is not for us to look at.
    """
    if isinstance(spec, Netns):
        return spec
    if spec is None:
        return Netns("", _OWN, _own_inode(), True)
    text = str(spec)
    if text.isascii() and text.isdigit() and not os.path.exists(f"{_NAMED}/{text}"):
        label, path = f"pid {text}", f"/proc/{text}/ns/net"
    elif "/" in text:
        label, path = text, text
    else:
        label, path = text, f"{_NAMED}/{text}"
    inode = _inode(path, f"network namespace {label}")
    return Netns(label, path, inode, inode == _own_inode())


def _own_inode() -> int:
    """0 without /proc, which is no reason not to read sockets."""
    try:
        return os.stat(_OWN).st_ino
    except OSError:
        return 0


def _inode(path: str, what: str) -> int:
    """The inode number of a namespace file; no other file will do."""
    from fcntl import ioctl

    try:
        with open(path, "rb") as file:
            inode = os.fstat(file.fileno()).st_ino
            kind = ioctl(file.fileno(), _NS_GET_NSTYPE)
    except OSError as error:
        if error.errno == errno.ENOTTY:
            kind = 0
        else:
            raise CannotRead(error.errno or errno.EIO, what, *_why(error, path)) from None
    except ValueError:
        raise CannotRead(errno.EINVAL, what, "a name, a pid or a path") from None
    if kind != _CLONE_NEWNET:
        raise CannotRead(errno.EINVAL, what, "see `ip netns` and /proc/PID/ns/net", f"{path} is no network namespace")
    return inode


def _why(error: OSError, path: str) -> tuple[str, str]:
    """Advice and reason."""
    if error.errno == errno.ENOENT:
        return ("a pid that runs, or a name of `ip netns`", f"there is no {path}")
    if error.errno in (errno.EACCES, errno.EPERM):
        return ("another user's: needs root", "")
    return ("", "")


def all_netns() -> tuple[list[Netns], list[str]]:
    """Every network namespace that can be seen, this one first; and a line for each thing not to be seen.

    Seen are those with a process of ours to see, a name, or a mount (container engines keep theirs so).
    """
    here = find_netns()
    found = {here.inode: here}
    unseen: list[str] = []
    for spec in _mounted():
        _add(found, unseen, spec, spec.removeprefix(_NAMED + "/"))
    hidden = 0
    for pid in _pids(unseen):
        try:
            inode = os.stat(f"/proc/{pid}/ns/net").st_ino
        except PermissionError:
            hidden += 1
        except OSError:
            pass  # it has ended
        else:
            if inode not in found:
                found[inode] = Netns(f"pid {pid}", f"/proc/{pid}/ns/net", inode, False)
    if hidden:
        who = f"{hidden} processes" if hidden > 1 else "1 process"
        unseen.append(f"{who} of other users: their network namespaces are not for us to see (needs root)")
    return list(found.values()), unseen


def _pids(unseen: list[str]) -> list[str]:
    try:
        return [name for name in os.listdir("/proc") if name.isdigit()]
    except OSError as error:
        unseen.append(f"processes: /proc: {error.strerror}")
        return []


def _add(found: dict[int, Netns], unseen: list[str], path: str, label: str) -> None:
    try:
        inode = _inode(path, f"network namespace {label}")
    except CannotRead as error:
        unseen.append(str(error))
    else:
        if inode not in found or not found[inode].label:
            found[inode] = Netns(label, path, inode, bool(found.get(inode)))


def _mounted() -> Iterator[str]:
    """Paths at which network namespaces are mounted."""
    try:
        with open("/proc/thread-self/mountinfo", errors="surrogateescape") as file:
            lines = [line for line in file if _NSFS_TYPE in line and " net:[" in line]
    except OSError:
        return
    for line in lines:
        path = line.split(" ", 5)[4]
        for octal, character in _OCTAL:
            path = path.replace(octal, character)
        yield path


def open_socket_in(netns: Netns, family: int, kind: int, protocol: int) -> socket:
    """A socket that belongs to another namespace for good; used from here like any other."""
    from socket import socket

    return run_in(netns, lambda: socket(family, kind, protocol))


def run_in(netns: Netns, function: Callable[[], T]) -> T:
    """The result of `function`, called in that namespace (by a thread that ends with it); its exception is raised here.

    Raises CannotRead when the namespace cannot be entered.
    """
    if netns.is_current:
        return function()
    results: list[T] = []
    failures: list[BaseException] = []

    def inside() -> None:
        try:
            _enter(netns)
            results.append(function())
        except BaseException as error:
            failures.append(error)

    from threading import Thread

    thread = Thread(target=inside, name=f"in {netns.label}")
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return results[0]


def _enter(netns: Netns) -> None:
    """setns() for the calling thread (os.setns came with Python 3.12)."""
    import ctypes  # 5 ms, which only those pay who look elsewhere

    what = f"network namespace {netns.label}"
    try:
        fd = os.open(netns.path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise CannotRead(error.errno or errno.EIO, what, *_why(error, netns.path)) from None
    try:
        if ctypes.CDLL(None, use_errno=True).setns(fd, _CLONE_NEWNET):
            raise CannotRead(ctypes.get_errno(), what, "to enter one needs root (CAP_SYS_ADMIN)")
    finally:
        os.close(fd)
