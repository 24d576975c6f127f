"""The driver of a simulated wire: two Hosts back to back on a clock that jumps, the peer answering HTTP.

Lives here: SimRunner and the peer's server.  Does not live here: topologies and workloads (sim/).
Nothing here takes real time, and the same seed gives the same run.
"""

from __future__ import annotations

import errno

from fourtuple.address import parse_ipv4
from fourtuple.clock import ManualClock
from fourtuple.host import Host
from fourtuple.shell.loop import Runner, Station
from fourtuple.sock.af_inet import pack_sockaddr_in
from fourtuple.sock.syscall import SOCK_NONBLOCK, SOCK_STREAM

START_US = 1_000_000_000
"""A machine that has been up for 1,000 s: a timestamp of 0 means "none" to TCP."""
_BACKLOG = 4096


class SimRunner(Runner):
    """Hosts on simulated devices that share one ManualClock."""

    is_virtual = True

    def __init__(self, stations: list[Station], clock: ManualClock) -> None:
        super().__init__(stations)
        self.clock = clock

    def now_us(self) -> int:
        return self.clock.now_us()

    def sleep_until(self, when: int | None) -> bool:
        """Jump there.  With nothing to wait for, nothing will ever happen."""
        if when is None:
            return False
        self.clock.advance(max(0, when - self.clock.now_us()))
        return True


class HttpPeer:
    """A small HTTP server on a Host: every request gets the same kind of answer, then the connection is closed."""

    def __init__(self, host: Host, address: str, port: int) -> None:
        self.host = host
        self.address, self.port = address, port
        self.requests = 0
        self._connections: dict[int, bytes] = {}
        self._listener = _listen(host, address, port, _BACKLOG)

    def __call__(self, now: int) -> bool:
        """Serve whatever can be served now; whether there was anything."""
        moved = self._accept(now)
        for fd in list(self._connections):
            moved = self._serve(fd, now) or moved
        return moved

    def _accept(self, now: int) -> bool:
        moved = False
        while (fd := self.host.sys_accept(self._listener, SOCK_NONBLOCK, now=now)) >= 0:
            self._connections[fd] = b""
            moved = True
        return moved

    def _serve(self, fd: int, now: int) -> bool:
        data = self.host.sys_recv(fd, 65536, now=now)
        if data == -errno.EAGAIN:
            return False
        if isinstance(data, bytes) and data:
            self._connections[fd] += data
            if b"\r\n\r\n" not in self._connections[fd]:
                return True
            self.requests += 1
            self.host.sys_send(fd, self._answer(), now=now)
        del self._connections[fd]
        self.host.sys_close(fd, now=now)
        return True

    def _answer(self) -> bytes:
        body = f"Hello from {self.address}:{self.port}, request {self.requests}.\n".encode()
        head = (
            f"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        return head.encode() + body


class HoldPeer:
    """A listener that never accepts: connections wait in its accept queue."""

    def __init__(self, host: Host, address: str, port: int, backlog: int) -> None:
        self.listener = _listen(host, address, port, backlog or _BACKLOG)


def _listen(host: Host, address: str, port: int, backlog: int) -> int:
    fd = host.sys_socket(type=SOCK_STREAM | SOCK_NONBLOCK)
    _must(host.sys_bind(fd, pack_sockaddr_in(parse_ipv4(address), port)))
    _must(host.sys_listen(fd, backlog))
    return fd


def _must(err: int) -> None:
    if err < 0:
        raise OSError(-err, "the simulated peer cannot listen")
