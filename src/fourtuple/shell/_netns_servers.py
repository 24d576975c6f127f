"""TCP servers inside the private namespace: kernel sockets, one epoll loop, nothing a client does can end them.

Lives here: the loop's handlers: listeners and connections of each kind.
Does not live here: the control socket and its commands (_netns_helper.py), the kind `hold` (_netns_hold.py).
Runs in the helper process, so it imports little: start-up time is part of every demo.

Kinds
    http      answers each request with 200 and a small text that names the server; keep-alive and pipelining as asked
              by the client; GET /bytes/N answers with N bytes
    echo      sends back what it gets, then closes after the client
    discard   reads and throws away
    sink      accepts, reads nothing, holds until the client closes: its receive window fills up
    closed    no listener: the kernel answers with RST
"""

from __future__ import annotations

import errno
import os
import select
import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Handler = Callable[[int], None]

BACKLOG = 4096
_READ_SIZE = 65536
_MAX_HEAD = 65536
_MAX_BODY = 1 << 20
_MAX_ANSWER = 1 << 26
_ACCEPTS_PER_EVENT = 256
_MILLISECOND = 0.001
OUT_OF_FILES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_GONE = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR


class Loop:
    """An epoll set and who handles which descriptor."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Handler] = {}
        self.paused: list[Listener] = []
        """Listeners that ran out of descriptors; they go on when a connection closes."""
        self.later: list[Callable[[], None]] = []
        """To be called once, in a millisecond or a little more."""

    def add(self, fd: int, events: int, handler: Handler) -> None:
        self._epoll.register(fd, events)
        self._handlers[fd] = handler

    def change(self, fd: int, events: int) -> None:
        self._epoll.modify(fd, events)

    def remove(self, fd: int) -> None:
        if self._handlers.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def close_connection(self, fd: int) -> None:
        self.remove(fd)
        os.close(fd)
        while self.paused:
            self.paused.pop().resume()

    def run_once(self) -> None:
        for fd, events in self._epoll.poll(_MILLISECOND if self.later else None):
            handler = self._handlers.get(fd)
            if handler is not None:  # an earlier handler of this round may have removed it
                handler(events)
        due, self.later = self.later, []
        for call in due:
            call()


class Listener:
    """One listening socket and the connections that came in through it."""

    def __init__(self, loop: Loop, ip: str, port: int, kind: str, backlog: int = BACKLOG) -> None:
        self.loop, self.kind = loop, kind
        self.accepted = self.requests = 0
        self.connections: set[int] = set()
        """Their descriptors."""
        self.sock = socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_STREAM)
        try:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.sock.setblocking(False)
            self.sock.bind((ip, port))
            self.sock.listen(backlog)
        except BaseException:
            self.sock.close()
            raise
        self.ip, self.port = self.sock.getsockname()[:2]
        self.resume()

    def resume(self) -> None:
        self.loop.add(self.sock.fileno(), select.EPOLLIN, self._accept)

    def pause(self) -> None:
        """No descriptor is left: go on when a connection closes."""
        self.loop.remove(self.sock.fileno())
        self.loop.paused.append(self)

    def close(self) -> None:
        """End as a killed server does: connections get FIN, those that nobody accepted RST."""
        if self in self.loop.paused:
            self.loop.paused.remove(self)
        self.loop.remove(self.sock.fileno())
        self.sock.close()
        for fd in list(self.connections):
            self.close_connection(fd)

    def close_connection(self, fd: int) -> None:
        self.connections.discard(fd)
        self.loop.close_connection(fd)

    def _accept(self, events: int) -> None:
        for _ in range(_ACCEPTS_PER_EVENT):
            try:
                sock, peer = self.sock.accept()
            except OSError as error:
                if error.errno in OUT_OF_FILES:
                    self.pause()
                return  # EAGAIN: all taken; ECONNABORTED and network errors: the next event tells
            self.accepted += 1
            sock.setblocking(False)
            Connection(self, sock.detach(), peer)


class Connection:
    """One accepted connection of any kind."""

    __slots__ = ("_ending", "_events", "_fd", "_in", "_out", "_peer", "_server")

    def __init__(self, server: Listener, fd: int, peer: tuple[str, int]) -> None:
        self._server, self._fd, self._peer = server, fd, peer
        self._in = b""
        self._out = bytearray()
        self._ending = False  # nothing more will be read; close when all is written
        self._events = _GONE if server.kind == "sink" else select.EPOLLIN
        server.connections.add(fd)
        server.loop.add(fd, self._events, self._ready)

    def _ready(self, events: int) -> None:
        try:
            self._serve(events)
        except Exception:  # reset, broken pipe: the client is gone. Whatever else it was: only this connection ends
            self._server.close_connection(self._fd)

    def _serve(self, events: int) -> None:
        if self._server.kind == "sink":
            self._server.close_connection(self._fd)
            return
        if events & select.EPOLLERR:
            raise ConnectionResetError
        if events & (select.EPOLLIN | select.EPOLLHUP) and not self._ending:
            self._take(os.read(self._fd, _READ_SIZE))
        self._flush()

    def _take(self, data: bytes) -> None:
        if not data:
            self._ending = True
        elif self._server.kind == "echo":
            self._out += data
        elif self._server.kind == "http":
            self._in += data
            self._answer_requests()

    def _flush(self) -> None:
        if self._out:
            try:
                del self._out[: os.write(self._fd, self._out)]
            except BlockingIOError:
                pass
        if self._ending and not self._out:
            self._server.close_connection(self._fd)
        else:
            self._wait_for(select.EPOLLOUT if self._out else select.EPOLLIN)

    def _wait_for(self, events: int) -> None:
        """Reading stops while an answer waits to be written: a client that never reads costs no memory here."""
        if events != self._events:
            self._events = events
            self._server.loop.change(self._fd, events)

    def _answer_requests(self) -> None:
        while not self._ending:
            head, separator, rest = self._in.partition(b"\r\n\r\n")
            if not separator:
                if len(self._in) > _MAX_HEAD:
                    self._respond(431, b"the request head is too large\n", keep=False)
                return
            body_size = _content_length(head)
            if body_size < 0 or body_size > _MAX_BODY:
                self._respond(400, b"this server cannot read that request body\n", keep=False)
            elif len(rest) < body_size:
                return
            else:
                self._in = rest[body_size:]
                self._answer(head)

    def _answer(self, head: bytes) -> None:
        self._server.requests += 1
        words = head.split(b"\r\n", 1)[0].split(b" ")
        if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
            self._respond(400, b"not an HTTP/1.1 request\n", keep=False)
            return
        status, body = self._content(words[1])
        self._respond(status, body, _keeps_alive(head, words[2]), head_only=words[0] == b"HEAD")

    def _content(self, target: bytes) -> tuple[int, bytes]:
        if not target.startswith(b"/bytes/"):
            text = f"hello from {self._server.ip}:{self._server.port}, a Linux kernel socket in a private namespace\n"
            return 200, text.encode() + f"you are {self._peer[0]}:{self._peer[1]}\n".encode()
        size = target[len(b"/bytes/") :]
        if not size.isdigit() or len(size) > 8 or int(size) > _MAX_ANSWER:
            return 404, f"/bytes/N: N is at most {_MAX_ANSWER}\n".encode()
        return 200, bytes(int(size))

    def _respond(self, status: int, body: bytes, keep: bool, head_only: bool = False) -> None:
        reason = {200: "OK", 400: "Bad Request", 404: "Not Found", 431: "Request Header Fields Too Large"}[status]
        self._out += (
            f"HTTP/1.1 {status} {reason}\r\nServer: fourtuple-netns\r\nContent-Type: text/plain\r\n"
            f"Content-Length: {len(body)}\r\nConnection: {'keep-alive' if keep else 'close'}\r\n\r\n"
        ).encode()
        if not head_only:
            self._out += body
        self._ending = not keep


def _header(head: bytes, name: bytes) -> bytes:
    """The value of a header field, lower case; empty if absent."""
    for line in head.split(b"\r\n")[1:]:
        field, _, value = line.partition(b":")
        if field.strip().lower() == name:
            return value.strip().lower()
    return b""


def _content_length(head: bytes) -> int:
    """Size of the request body; -1 if it cannot be known (chunked, nonsense)."""
    if _header(head, b"transfer-encoding"):
        return -1
    value = _header(head, b"content-length") or b"0"
    return int(value) if value.isdigit() and len(value) < 12 else -1


def _keeps_alive(head: bytes, version: bytes) -> bool:
    """RFC 9112 section 9.3: HTTP/1.1 stays open unless told otherwise, HTTP/1.0 the other way round."""
    connection = _header(head, b"connection")
    return connection != b"close" if version == b"HTTP/1.1" else connection == b"keep-alive"
