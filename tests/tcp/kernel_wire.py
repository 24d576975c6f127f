"""One Host on a TUN whose other end is the kernel, and kernel sockets in that namespace driven by the test itself.

    with KernelWire() as w:
        ours, theirs = w.pair()          # a descriptor of the Host, a kernel socket
        w.until(lambda: ...)             # lets packets and time pass

Needs root: the kernel sockets are made by entering the namespace for a moment.
"""

from __future__ import annotations

import ctypes
import errno
import heapq
import os
import random
import select
import socket
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from fourtuple.address import parse_ipv4
from fourtuple.clock import MonotonicClock
from fourtuple.host import Host
from fourtuple.phy.device import Device, WrappedDevice
from fourtuple.phy.fault import DelayDevice, FaultDevice, parse_loss
from fourtuple.shell.loop import Station
from fourtuple.shell.netns import PrivateNamespace
from fourtuple.sock.af_inet import pack_sockaddr_in
from fourtuple.sock.syscall import SOCK_NONBLOCK, SOCK_STREAM

OURS, THEIRS, PORT = "10.64.0.2", "10.64.0.1", 7000
EAGAIN = -errno.EAGAIN
_CLONE_NEWNET = 0x40000000


@contextmanager
def inside(pid: int) -> Iterator[None]:
    """This thread is in the network namespace of `pid`."""
    libc = ctypes.CDLL(None, use_errno=True)
    home, there = (os.open(f"/proc/{who}/ns/net", os.O_RDONLY | os.O_CLOEXEC) for who in ("thread-self", pid))
    try:
        if libc.setns(there, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
        yield
    finally:
        libc.setns(home, _CLONE_NEWNET)
        os.close(home)
        os.close(there)


def open_namespace(tun: str, address: str = THEIRS) -> PrivateNamespace:
    """A private namespace; the test is skipped where there is none, or without root."""
    if os.geteuid():
        pytest.skip("needs root: kernel sockets in a private namespace")
    try:
        return PrivateNamespace.start(tun=tun, kernel_address=f"{address}/24", txqueuelen=10_000)
    except OSError as error:
        pytest.skip(f"no TUN here: {error.strerror}")


class Seen(WrappedDevice):
    """Every packet that passes: (time_us, outgoing, bytes).  What we send and `refuse` refuses is lost."""

    def __init__(self, inner: Device, now_us: Callable[[], int]) -> None:
        super().__init__(inner)
        self._now_us = now_us
        self.packets: list[tuple[int, bool, bytes]] = []
        self.refuse: Callable[[bytes], Any] = lambda packet: False
        self.keep = True

    def read_batch(self, ring: Any, offsets: array[int], lengths: array[int], max_packets: int) -> int:
        n = self.inner.read_batch(ring, offsets, lengths, max_packets)
        self._note(False, ring, offsets, lengths, n)
        return n

    def write_batch(self, buf: Any, offsets: array[int], lengths: array[int], n: int) -> int:
        view = memoryview(buf).cast("B")
        for i in range(n):
            if self.refuse(bytes(view[offsets[i] : offsets[i] + lengths[i]])):
                continue
            if not self.inner.write_batch(buf, offsets[i : i + 1], lengths[i : i + 1], 1):
                return i
            self._note(True, buf, offsets[i : i + 1], lengths[i : i + 1], 1)
        return n

    def _note(self, outgoing: bool, ring: Any, offsets: array[int], lengths: array[int], n: int) -> None:
        if self.keep:
            view = memoryview(ring).cast("B")
            for i in range(n):
                self.packets.append((self._now_us(), outgoing, bytes(view[offsets[i] : offsets[i] + lengths[i]])))


class KernelWire:
    """See the module.  `loss` is a --loss text, chance seeded."""

    def __init__(self, loss: str = "", rtt_us: int = 0, seed: int = 1, keep: bool = False, **sysctls: str) -> None:
        self.namespace = open_namespace("ftk0")
        self.clock = MonotonicClock()
        device: Device = self.namespace.device
        if rtt_us:
            device = DelayDevice(device, rtt_us, self.clock.now_us)
        if loss:
            device = FaultDevice(device, parse_loss(loss), random.Random(seed).random)
        self.seen = Seen(device, self.clock.now_us)
        self.seen.keep = keep
        names = {"net.ipv4." + name: value for name, value in sysctls.items()}
        self.host = Host(seed=seed, now_us=self.clock.now_us(), sysctl=names, max_sockets=256)
        self.host.add_link("ft0", addrs=(OURS + "/24",))
        self.host.add_route("default", dev="ft0")
        self.seen_name()
        self.station = Station(self.host, self.seen)
        self.sockets: list[socket.socket] = []
        self.apps: list[Callable[[], bool]] = []

    def seen_name(self) -> None:
        self.namespace.device.name = "ft0"

    def __enter__(self) -> KernelWire:
        return self

    def __exit__(self, *exception: object) -> None:
        for sock in self.sockets:
            sock.close()
        self.namespace.close()

    def sysctl(self, name: str, value: str) -> None:
        """In the kernel's namespace."""
        self.namespace.request("sysctl", name="net.ipv4." + name, value=value)

    @property
    def now(self) -> int:
        return self.clock.now_us()

    # ---------------------------------------------------------------------------------------------- sockets

    def kernel_socket(self) -> socket.socket:
        with inside(self.namespace.pid):
            sock = socket.socket()
        sock.setblocking(False)
        self.sockets.append(sock)
        return sock

    def kernel_listener(self, port: int = PORT, rcvbuf: int = 0, sndbuf: int = 0) -> socket.socket:
        sock = self.kernel_socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if rcvbuf:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        if sndbuf:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, sndbuf)
        sock.bind((THEIRS, port))
        sock.listen(64)
        return sock

    def our_socket(self) -> int:
        return self.host.sys_socket(type=SOCK_STREAM | SOCK_NONBLOCK, now=self.now)

    def connect(self, port: int = PORT, setup: Callable[[int], None] | None = None) -> int:
        """connect() to its end: the descriptor; AssertionError when it fails."""
        fd = self.our_socket()
        if setup:
            setup(fd)
        address = pack_sockaddr_in(parse_ipv4(THEIRS), port)
        assert self.host.sys_connect(fd, address, now=self.now) == -errno.EINPROGRESS
        assert self.until(lambda: self.poll(fd) & select.POLLOUT), "no connection"
        assert self.so_error(fd) == 0
        return fd

    def pair(
        self, rcvbuf: int = 0, sndbuf: int = 0, setup: Callable[[int], None] | None = None
    ) -> tuple[int, socket.socket]:
        """A connection of ours to a kernel socket."""
        listener = self.kernel_listener(rcvbuf=rcvbuf, sndbuf=sndbuf)
        fd = self.connect(setup=setup)
        assert self.until(lambda: bool(select.select([listener], [], [], 0)[0]))
        peer, _ = listener.accept()
        peer.setblocking(False)
        self.sockets.append(peer)
        listener.close()
        return fd, peer

    def poll(self, fd: int) -> int:
        bits: int = self.host.sys_poll(fd, now=self.now)
        return bits

    def so_error(self, fd: int) -> int:
        value = self.host.sys_getsockopt(fd, socket.SOL_SOCKET, socket.SO_ERROR)
        assert isinstance(value, bytes)
        return int.from_bytes(value, "little")

    def option(self, fd: int, level: int, name: int, value: int | bytes) -> None:
        raw = value if isinstance(value, bytes) else value.to_bytes(4, "little", signed=True)
        assert self.host.sys_setsockopt(fd, level, name, raw, now=self.now) == 0

    def send(self, fd: int, data: Any) -> int:
        """Non-blocking."""
        n: int = self.host.sys_send(fd, data, 0x4000, now=self.now)
        return n

    def recv(self, fd: int, size: int = 65536) -> Any:
        """Non-blocking."""
        return self.host.sys_recv(fd, size, now=self.now)

    def close(self, fd: int) -> None:
        self.host.sys_close(fd, now=self.now)
        self.pump()

    def state(self, fd: int) -> str:
        rows = [row for row in self.host.sockets() if row.state != "LISTEN"]
        return rows[0].state if rows else "CLOSED"

    def states(self) -> list[str]:
        return sorted(row.state for row in self.host.sockets())

    # ---------------------------------------------------------------------------------------------- time

    def pump(self) -> None:
        while self.station.pump(self.now):
            pass

    def run(self, seconds: float) -> None:
        """Let time pass."""
        self.until(lambda: False, seconds)

    def until(self, done: Callable[[], Any], seconds: float = 8.0) -> bool:
        """Let packets move, and the apps work, until `done()`; false when time is up."""
        give_up = self.now + int(seconds * 1e6)
        poll = select.poll()
        poll.register(self.namespace.device.fileno(), select.POLLIN)
        while True:
            moved = self.station.pump(self.now)
            for app in self.apps:
                moved = app() or moved
            if done():
                self.pump()
                return True
            if self.now > give_up:
                return False
            if not moved:
                due = self.station.next_due()
                wait = 5 if self.apps else 20  # an app may have become able to work without a packet
                if due is not None:
                    wait = max(0, min(wait, -(-(due - self.now) // 1000)))
                poll.poll(wait)


class Bridge:
    """Two kernels, each in its namespace with a TUN, and this process between them; a context manager."""

    def __init__(self, rtt_us: int = 0) -> None:
        self.server = open_namespace("ftk0", THEIRS)
        self.client = open_namespace("ftk1", OURS)
        self.clock = MonotonicClock()
        self.rtt_us = rtt_us
        self.packets: list[tuple[int, bool, bytes]] = []
        self.apps: list[Callable[[], bool]] = []
        self._flying: list[tuple[int, int, Device, bytes]] = []
        self._ring = bytearray(64 * 2048)
        self._offsets, self._lengths = array("I", bytes(256)), array("I", bytes(256))
        self._sockets: list[socket.socket] = []
        self._serial = 0

    def __enter__(self) -> Bridge:
        return self

    def __exit__(self, *exception: object) -> None:
        for sock in self._sockets:
            sock.close()
        self.server.close()
        self.client.close()

    def _socket(self, namespace: PrivateNamespace) -> socket.socket:
        with inside(namespace.pid):
            sock = socket.socket()
        sock.setblocking(False)
        self._sockets.append(sock)
        return sock

    def pair(self) -> tuple[socket.socket, socket.socket]:
        """The client's and the server's end of a connection."""
        listener, client = self._socket(self.server), self._socket(self.client)
        listener.bind((THEIRS, PORT))
        listener.listen(8)
        assert client.connect_ex((THEIRS, PORT)) == errno.EINPROGRESS
        assert self.until(lambda: bool(select.select([listener], [], [], 0)[0]))
        server, _ = listener.accept()
        server.setblocking(False)
        self._sockets.append(server)
        return client, server

    def _step(self) -> bool:
        moved = False
        for source, target, outgoing in ((self.client, self.server, True), (self.server, self.client, False)):
            while n := source.device.read_batch(self._ring, self._offsets, self._lengths, 64):
                moved = True
                for i in range(n):
                    start = self._offsets[i]
                    packet = bytes(self._ring[start : start + self._lengths[i]])
                    now = self.clock.now_us()
                    self.packets.append((now, outgoing, packet))
                    self._serial += 1
                    heapq.heappush(self._flying, (now + self.rtt_us // 2, self._serial, target.device, packet))
        while self._flying and self._flying[0][0] <= self.clock.now_us():
            _, _, device, packet = heapq.heappop(self._flying)
            device.write_batch(packet, array("I", (0,)), array("I", (len(packet),)), 1)
            moved = True
        return moved

    def run(self, seconds: float) -> None:
        """Let time pass."""
        self.until(lambda: False, seconds)

    def until(self, done: Callable[[], Any], seconds: float = 8.0) -> bool:
        """Let packets move until `done()`; false when time is up."""
        give_up = self.clock.now_us() + int(seconds * 1e6)
        poll = select.poll()
        for namespace in (self.server, self.client):
            poll.register(namespace.device.fileno(), select.POLLIN)
        while not done():
            if self.clock.now_us() > give_up:
                return False
            moved = self._step()
            for app in self.apps:
                moved = app() or moved
            if not moved:
                poll.poll(1)
        return True


def open_bridge(rtt_us: int = 0) -> Bridge:
    return Bridge(rtt_us)


class Reader:
    """Reads a stream to its end; `read` is non-blocking."""

    def __init__(self, read: Callable[[int], Any], size: Callable[[], int] = lambda: 65536) -> None:
        self._read, self._size = read, size
        self.parts: list[bytes] = []
        self.ended: Any = None

    def __call__(self) -> bool:
        moved = False
        while self.ended is None:
            try:
                data = self._read(self._size())
            except BlockingIOError:
                return moved
            except OSError as error:
                data = -(error.errno or 0)
            if data == EAGAIN:
                return moved
            moved = True
            if isinstance(data, bytes) and data:
                self.parts.append(data)
            else:
                self.ended = data
        return moved

    @property
    def data(self) -> bytes:
        return b"".join(self.parts)


class Writer:
    """Writes `data`, then calls `finish`; `write` is non-blocking."""

    def __init__(
        self,
        write: Callable[[Any], int],
        data: bytes,
        finish: Callable[[], Any] = lambda: None,
        size: Callable[[], int] = lambda: 1 << 20,
    ) -> None:
        self._write, self._left, self._finish, self._size = write, memoryview(data), finish, size
        self.done = False
        self.error = 0

    def __call__(self) -> bool:
        moved = False
        while not self.done:
            if not self._left:
                self.done = True
                self._finish()
                return True
            try:
                n = self._write(self._left[: self._size()])
            except BlockingIOError:
                return moved
            except OSError as error:
                n = -(error.errno or 0)
            if n == EAGAIN:
                return moved
            if n < 0:
                self.error, self.done = n, True
                return True
            self._left = self._left[n:]
            moved = True
        return moved
