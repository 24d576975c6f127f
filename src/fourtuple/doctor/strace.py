"""What strace has printed, or any log with errno lines: which call failed, how often, to where, bound before or not.

Lives here: lines -> Log.  Does not live here: what an errno means (why.py).

Rules
1. Nothing raises, whatever the bytes: what is not understood is counted.
2. A descriptor is known by (pid, number).  A thread that never made it finds the one that another thread made last.
3. A call that is cut in two (`<unfinished ...>`, `resumed`) is one call.
4. AF_UNIX, netlink and UDP sockets are left out, and counted.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

CALLS = ("socket", "bind", "connect", "listen", "setsockopt", "getsockopt", "close", "accept", "accept4")
_LONGEST_LINE = 4096
_MOST_GROUPS = 10_000

_HEAD = re.compile(
    r"^(?:\[pid\s+(?P<a>\d{1,10})\]\s+|(?P<b>\d{1,10})\s+)?(?:\+?\s*[\d:]+(?:\.\d+)?\s+)?(?P<rest>[a-z<].*)$"
)
_CALL = re.compile(r"^(?P<name>[a-z0-9_]+)\((?P<args>.*)\)\s+=\s+(?P<ret>-?\d+|\?)(?P<end>.*)$")
_CUT = re.compile(r"^(?P<name>[a-z0-9_]+)\((?P<args>.*?),?\s*<unfinished \.\.\.>$")
_RESUMED = re.compile(r"^<\.\.\. (?P<name>[a-z0-9_]+) resumed>(?P<rest>.*)$")
_ERRNO = re.compile(r"^(?:<[^>]*>)?\s+(E[A-Z0-9]+)\b")
_FD = re.compile(r"^\s*(\d{1,9})\b")
_PORT = re.compile(r"sin6?_port=htons\((\d+)\)")
_ADDRESS = re.compile(r'inet_addr\("([0-9.]{7,15})"\)|inet_pton\(AF_INET6, "([0-9a-fA-F:.]{2,45})"')
_FAMILY = re.compile(r"sa_family=(AF_[A-Z0-9]+)")
_SO_ERROR = re.compile(r"SO_ERROR, \[(E[A-Z0-9]+|\d{1,4})\]")
_LOGGED = re.compile(r"\berrno[\s:=\]]{1,3}(\d{1,4})\b|\b(E[A-Z]{4,14})\b", re.IGNORECASE)
_ENDPOINT = re.compile(r"(?<![\d.])(\d{1,3}(?:\.\d{1,3}){3})(?:['\"]?,\s*|:)(\d+)\b|\[([0-9a-fA-F:]{2,39})\]:(\d+)\b")


@dataclass(frozen=True)
class Failed:
    """One kind of failing call."""

    call: str
    """connect, bind, listen; "" in a log that does not say."""
    errno: str
    address: str = ""
    port: int = 0
    bound: str = ""
    """What bind() was given before, as `0.0.0.0:0`; "" when there was none."""
    has_port: bool | None = None
    """bind() gave the socket a port before; None: the log cannot tell."""
    at_once: bool = True
    """connect() itself returned it to a socket that does not block; False: it may be the network's answer."""
    options: tuple[str, ...] = ()
    """Of setsockopt(), those that matter for ports."""

    @property
    def family(self) -> int:
        """4, 6, or 0 when there is no address."""
        return 0 if not self.address else 6 if ":" in self.address and "." not in self.address else 4


@dataclass
class Log:
    """What a file has."""

    is_strace: bool = False
    lines: int = 0
    calls: int = 0
    """connect(), bind() and listen() calls on TCP sockets."""
    in_progress: int = 0
    """connect() calls that returned EINPROGRESS: their end is in SO_ERROR."""
    other_sockets: int = 0
    """Calls on AF_UNIX, netlink or UDP sockets."""
    failed: dict[Failed, int] = field(default_factory=dict)
    pids: dict[Failed, set[int]] = field(default_factory=dict)

    def count(self, failed: Failed, pid: int) -> None:
        """One more of a kind; a log with endlessly many kinds keeps the first ones."""
        if failed in self.failed or len(self.failed) < _MOST_GROUPS:
            self.failed[failed] = self.failed.get(failed, 0) + 1
            self.pids.setdefault(failed, set()).add(pid)

    @property
    def ranked(self) -> list[tuple[Failed, int]]:
        """The most frequent first."""
        return sorted(self.failed.items(), key=lambda each: -each[1])


@dataclass
class _Socket:
    """What the log has told about a descriptor."""

    is_tcp: bool = True
    is_known: bool = False
    """Its socket() call was seen."""
    bound: str = ""
    has_port: bool = False
    to: tuple[str, int] = ("", 0)
    is_pending: bool = False
    options: tuple[str, ...] = ()


class _Reader:
    def __init__(self) -> None:
        self.log = Log()
        self.sockets: dict[tuple[int, int], _Socket] = {}
        self.last: dict[int, _Socket] = {}
        self.cut: dict[tuple[int, str], str] = {}

    def line(self, text: str) -> None:
        """One line of either kind of file."""
        self.log.lines += 1
        head = _HEAD.match(text)
        if not (head and self._strace(int(head["a"] or head["b"] or 0), head["rest"])):
            self._logged(text)

    def _strace(self, pid: int, rest: str) -> bool:
        """False: it is no line of strace."""
        if match := _CUT.match(rest):
            if match["name"] in CALLS and len(self.cut) < _MOST_GROUPS:
                self.cut[pid, match["name"]] = match["args"]
            return True
        if match := _RESUMED.match(rest):
            rest = f"{match['name']}({self.cut.pop((pid, match['name']), '')}{match['rest']}"
        match = _CALL.match(rest)
        if not match:
            return False
        self.log.is_strace = True
        if match["name"] in CALLS:
            error = _ERRNO.match(match["end"])
            self._called(pid, match["name"], match["args"], match["ret"], error[1] if error else "")
        return True

    def _called(self, pid: int, name: str, args: str, ret: str, error: str) -> None:
        if name == "socket":
            self._made(pid, args, ret)
        elif name in ("accept", "accept4"):
            if ret.isdigit():
                self._new(pid, int(ret), _Socket(is_known=True))
        elif fd := _FD.match(args):
            if name == "close":
                self.sockets.pop((pid, int(fd[1])), None)
            else:
                self._on(pid, self._socket(pid, int(fd[1])), name, args, error)

    def _made(self, pid: int, args: str, ret: str) -> None:
        is_tcp = args.startswith(("AF_INET", "PF_INET")) and "SOCK_STREAM" in args
        if ret.isdigit():
            self._new(pid, int(ret), _Socket(is_tcp, True))

    def _new(self, pid: int, fd: int, made: _Socket) -> None:
        if len(self.sockets) < 1 << 17:
            self.sockets[pid, fd] = made
            self.last[fd] = made

    def _socket(self, pid: int, fd: int) -> _Socket:
        found = self.sockets.get((pid, fd)) or self.last.get(fd)
        if found is None:
            found = _Socket()
            self._new(pid, fd, found)
        return found

    def _on(self, pid: int, socket: _Socket, name: str, args: str, error: str) -> None:
        """A call on a descriptor."""
        family = _FAMILY.search(args)
        if not socket.is_tcp or (family and family[1] not in ("AF_INET", "AF_INET6", "AF_UNSPEC")):
            self.log.other_sockets += name in ("connect", "bind")
        elif name == "setsockopt":
            socket.options += tuple(o for o in _OPTIONS if o in args and not error and o not in socket.options)
        elif name == "getsockopt":
            self._so_error(pid, socket, args)
        elif name == "connect":
            self._connect(pid, socket, args, error)
        else:
            self._bind(pid, socket, name, args, error)

    def _so_error(self, pid: int, socket: _Socket, args: str) -> None:
        """The end of a connect() that does not block."""
        found = _SO_ERROR.search(args)
        if not found or not socket.is_pending:
            return
        socket.is_pending = False
        name = errno.errorcode.get(int(found[1]), "") if found[1].isdigit() else found[1]
        if name:
            self._fail(pid, socket, "connect", name, socket.to, False)

    def _connect(self, pid: int, socket: _Socket, args: str, error: str) -> None:
        self.log.calls += 1
        socket.to = _endpoint(args)
        if error == "EINPROGRESS":
            self.log.in_progress += 1
            socket.is_pending = True
        elif error and error != "EALREADY":
            # A blocking connect() returns the network's answer too; it looks the same in the log.
            self._fail(pid, socket, "connect", error, socket.to, False)

    def _bind(self, pid: int, socket: _Socket, name: str, args: str, error: str) -> None:
        self.log.calls += 1
        where = _endpoint(args) if name == "bind" else (socket.bound.rpartition(":")[0], _port_of(socket.bound))
        if error:
            self._fail(pid, socket, name, error, where, True)
        elif name == "bind":
            socket.bound = _joined(*where)
            socket.has_port = bool(where[1]) or "IP_BIND_ADDRESS_NO_PORT" not in socket.options

    def _fail(self, pid: int, socket: _Socket, call: str, name: str, to: tuple[str, int], at_once: bool) -> None:
        has_port = bool(to[1]) if call == "bind" else socket.has_port
        known: bool | None = has_port if socket.is_known or socket.bound or call == "bind" else None
        self.log.count(Failed(call, name, *to, socket.bound, known, at_once, socket.options), pid)

    def _logged(self, text: str) -> None:
        """A line of a program's own log."""
        name = _logged_errno(text)
        if name:
            found = _ENDPOINT.search(text)
            where = _checked(found[1] or found[3], found[2] or found[4]) if found else ("", 0)
            self.log.count(Failed("", name, *where, at_once=False), 0)


_OPTIONS = ("IP_BIND_ADDRESS_NO_PORT", "IP_LOCAL_PORT_RANGE", "SO_REUSEADDR", "SO_REUSEPORT", "IPV6_V6ONLY")


def _endpoint(args: str) -> tuple[str, int]:
    address, port = _ADDRESS.search(args), _PORT.search(args)
    return _checked((address[1] or address[2]) if address else "", port[1] if port else "0")


def _checked(address: str, port: str) -> tuple[str, int]:
    """A number that no port has is no port: then nothing is known of where to."""
    return (address, int(port)) if len(port) <= 5 and int(port) <= 65535 else ("", 0)


def _joined(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _port_of(text: str) -> int:
    port = text.rpartition(":")[2]
    return int(port) if port.isdigit() else 0


def _logged_errno(text: str) -> str:
    from fourtuple.doctor.why import NAMES, text_of

    for match in _LOGGED.finditer(text):
        name = errno.errorcode.get(int(match[1]), "") if match[1] else match[2]
        if name in NAMES:
            return name
    folded = text.casefold()
    return next((name for name in _TOLD if text_of(name).casefold() in folded), "")


_TOLD = ("EADDRNOTAVAIL", "EADDRINUSE", "ECONNREFUSED", "ETIMEDOUT", "ENETUNREACH", "EHOSTUNREACH", "ECONNRESET")
"""Whose messages are looked for where no number is: others' ("Invalid argument") are said of anything."""


def read_log(lines: Iterable[bytes]) -> Log:
    """What strace has printed, or a program; any bytes."""
    reader = _Reader()
    for line in lines:
        reader.line(line[:_LONGEST_LINE].decode("utf-8", "replace").rstrip("\r\n"))
    return reader.log


def read_file(path: str) -> Log:
    """The same from a file, or from "-".  Raises OSError."""
    import sys

    if path != "-":
        with open(path, "rb") as file:
            return read_log(_lines_of(file))
    raw = getattr(sys.stdin, "buffer", None)
    return read_log(_lines_of(raw) if raw else (line.encode() for line in sys.stdin))


def _lines_of(file: BinaryIO) -> Iterator[bytes]:
    """Lines, the endless ones in pieces."""
    while line := file.readline(1 << 16):
        yield line
