"""Servers that hold: connections wait in the kernel's accept queue, where they cost no descriptor.

Lives here: the listener of kind `hold`, and Site: one or many listeners that were asked for as one server.
Does not live here: kinds that serve (_netns_servers.py).

Whoever asked takes connections from the queue, oldest first: sample() keeps them open and sends back what they send,
drain() closes them, a few in each round of the loop, so that the control socket is heard in between, and no more at
once than the client's device has room for: a FIN that is dropped there comes again, and again, with all that follow.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import time
from fcntl import ioctl

from fourtuple.shell._netns_servers import BACKLOG, OUT_OF_FILES, Connection, Listener, Loop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_COUNT_EVERY, _PATIENCE = 0.001, 0.2
_FIONREAD = 0x541B  # asm-generic/ioctls.h
_NOTHING = bytes(4)
_READ_SIZE = 65536
_UNACKED = 24
"""Where tcpi_unacked is in struct tcp_info: of a listener, the length of its accept queue (tcp.c:tcp_get_info)."""
_MOST_LISTENERS = 256
"""Of one server. A network with more addresses gets a single listener at any address, with one accept queue."""


class HoldListener(Listener):
    """A listener that accepts when it is told to."""

    def __init__(self, loop: Loop, ip: str, port: int, backlog: int) -> None:
        self.echoed = 0
        """Sampled connections that have got back what they sent."""
        self._per_round = 0
        self._pace = Pace()
        super().__init__(loop, ip, port, "hold", backlog)

    def resume(self) -> None:
        if self._per_round:
            self.loop.add(self.sock.fileno(), select.EPOLLIN, self._drain)

    def queued(self) -> int:
        """How many connections wait."""
        info = self.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 32)
        return int(struct.unpack_from("I", info, _UNACKED)[0])

    def drain(self, per_round: int, pace: Pace) -> None:
        """Accept and close from now on; the sampled ones are closed at once. 0: stop."""
        if self in self.loop.paused:
            self.loop.paused.remove(self)
        self.loop.remove(self.sock.fileno())
        self._per_round, self._pace = per_round, pace
        if per_round:
            for fd in list(self.connections):
                self.close_connection(fd)
        self.resume()

    def _drain(self, events: int) -> None:
        # accept() would build an object for each.
        accept, close = self.sock._accept, os.close  # type: ignore[attr-defined]
        allowed = self._pace.take(self._per_round)
        if not allowed:
            self.loop.remove(self.sock.fileno())
            if self._pace.total:
                self.loop.later.append(self._go_on)
        for i in range(allowed):
            try:
                fd, _ = accept()
            except OSError as error:
                self._pace.give_back(allowed - i)
                if error.errno in OUT_OF_FILES:
                    self.pause()
                return
            self.accepted += 1
            if ioctl(fd, _FIONREAD, _NOTHING) != _NOTHING:
                _read_all(fd)
            close(fd)

    def _go_on(self) -> None:
        """After a pause, in which it may have been closed, or told to drain anew."""
        fd = self.sock.fileno()
        if fd >= 0:
            self.loop.remove(fd)
            self.resume()

    def sample(self, most: int) -> list[tuple[str, int, str]]:
        """Accept up to `most` connections and keep them: (their address, their port, our address) of each."""
        found: list[tuple[str, int, str]] = []
        while len(found) < most:
            try:
                sock, peer = self.sock.accept()
            except BlockingIOError:
                break
            self.accepted += 1
            sock.setblocking(False)
            found.append((peer[0], peer[1], sock.getsockname()[0]))
            _Sampled(self, sock.detach(), peer).take_what_is_there()
        return found


class Pace:
    """How many connections may be closed now, of all listeners together, so that `most` FINs wait for their ACK.

    `count` says how many sockets are closing. When none has gone for 200 ms, after which the kernel repeats a FIN
    anyway, they count no longer: a dead client ends no drain.
    """

    def __init__(self, most: int = 0, total: int = 0, count: Callable[[], int] = lambda: 0) -> None:
        self.most = most
        self.total = total or -1
        """How many more; -1: no end."""
        self._count = count
        self._left = self._stuck = 0
        self._counted = self._moved = 0.0

    def take(self, wanted: int) -> int:
        """Up to `wanted`; 0: later. The kernel is asked at most once in a millisecond."""
        now = time.monotonic()
        if not self._left and now - self._counted >= _COUNT_EVERY:
            self._counted = now
            self._left = self._room(now)
        taken = min(wanted, self._left)
        if self.total >= 0:
            taken = min(taken, self.total)
            self.total -= taken
        self._left -= taken
        return taken

    def give_back(self, count: int) -> None:
        """What was taken and not used."""
        self._left += count
        if self.total >= 0:
            self.total += count

    def _room(self, now: float) -> int:
        count = self._count()
        if count < self._stuck + self.most:
            self._moved = now
        elif now - self._moved > _PATIENCE:
            self._stuck = count
        self._stuck = min(self._stuck, count)
        return max(0, self.most + self._stuck - count)


class _Sampled(Connection):
    """Sends back what it gets, and counts once in `echoed`."""

    __slots__ = ("_counted", "_listener")

    def __init__(self, server: HoldListener, fd: int, peer: tuple[str, int]) -> None:
        self._counted, self._listener = False, server
        super().__init__(server, fd, peer)

    def take_what_is_there(self) -> None:
        if ioctl(self._fd, _FIONREAD, _NOTHING) != _NOTHING:
            self._ready(select.EPOLLIN)

    def _take(self, data: bytes) -> None:
        if not data:
            self._ending = True
            return
        self._out += data
        self._listener.echoed += not self._counted
        self._counted = True


def _read_all(fd: int) -> None:
    """Closing a connection with data that nobody has read would be a RST instead of a FIN (tcp.c:__tcp_close)."""
    os.set_blocking(fd, False)
    try:
        while os.read(fd, _READ_SIZE):
            pass
    except OSError:
        pass  # EAGAIN, or reset: there is nothing to wait for


class Site:
    """A server as it was asked for: kind, port, and an address or a network, each of whose addresses it listens at."""

    def __init__(self, loop: Loop, ip: str, port: int, kind: str, backlog: int) -> None:
        self.ip, self.port, self.kind, self.backlog = ip, port, kind, backlog or BACKLOG
        self.listeners: list[Listener] = []
        self._loop = loop
        self.start()

    def start(self) -> None:
        """Listen; counts begin at 0. OSError (EADDRINUSE) if somebody else listens there by now."""
        if self.listeners:
            return
        try:
            for address in addresses_of(self.ip):
                self.listeners.append(self._listener(address))
                self.port = self.listeners[0].port
        except OSError:
            self.stop()
            raise

    def _listener(self, address: str) -> Listener:
        if self.kind == "hold":
            return HoldListener(self._loop, address, self.port, self.backlog)
        return Listener(self._loop, address, self.port, self.kind, self.backlog)

    def stop(self) -> None:
        """See Listener.close."""
        for listener in self.listeners:
            listener.close()
        self.listeners = []

    def holders(self) -> list[HoldListener]:
        found = [listener for listener in self.listeners if isinstance(listener, HoldListener)]
        if self.listeners and not found:
            raise OSError(errno.EINVAL, f"port {self.port} has a server of kind {self.kind!r}, only `hold` can do this")
        return found


def addresses_of(ip: str) -> list[str]:
    """The addresses to listen at for "10.0.0.1", or for a network "10.0.0.0/29" (IPv4)."""
    if "/" not in ip:
        return [ip]
    first, count = network_of(ip)
    if count > _MOST_LISTENERS:
        return ["0.0.0.0"]
    return [socket.inet_ntoa(struct.pack("!I", first + i)) for i in range(count)]


def network_of(ip: str) -> tuple[int, int]:
    """(first address, how many) of an IPv4 network as text; what is set behind its prefix is ignored."""
    address, _, length = ip.partition("/")
    try:
        (number,) = struct.unpack("!I", socket.inet_aton(address) if address.count(".") == 3 else b"")
        prefix = int(length)
        if not 0 < prefix <= 32:
            raise ValueError
    except (OSError, ValueError, struct.error):
        raise ValueError(f"not an IPv4 network: {ip!r} (they look like 10.64.1.0/29)") from None
    count = 1 << (32 - prefix)
    return number & -count, count
