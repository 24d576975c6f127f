"""A network namespace of the test's own, whose sockets the test makes: a thread that lives in it."""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import threading
from collections.abc import Callable
from queue import SimpleQueue
from types import TracebackType
from typing import Any, TypeVar

import pytest

from tests.kernel.netns import CLONE_NEWNET

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes network namespaces")

IP_BIND_ADDRESS_NO_PORT = 24
T = TypeVar("T")


class Space:
    """lo is up; `device` leads to nowhere: what is sent to 203.0.113.0/24 is lost.  A context manager.

    Sockets made by `socket()` are closed, and the namespace is gone, at the end.
    """

    def __init__(self, device: str = "hole0") -> None:
        self._device = device
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._sockets: list[socket.socket] = []
        self._thread = threading.Thread(target=self._live)
        self.path = ""
        """/proc/.../ns/net of it."""

    def __enter__(self) -> Space:
        self._thread.start()
        try:
            self.path = self.run(_unshare)
            self.ip("link set lo up")
            self.ip(f"link add {self._device} type veth peer name peer0")
            self.ip(f"link set {self._device} arp off")
            self.ip("link set peer0 up")
            self.ip(f"addr add 10.77.0.1/24 dev {self._device}")
            self.ip(f"addr add 2001:db8:77::1/64 dev {self._device} nodad")
            self.ip(f"link set {self._device} up")
            self.ip(f"route add 203.0.113.0/24 dev {self._device}")
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        for each in self._sockets:
            each.close()
        self._end()

    def _end(self) -> None:
        self._work.put(None)
        self._thread.join()

    def _live(self) -> None:
        while (job := self._work.get()) is not None:
            job()

    def run(self, function: Callable[..., T], *args: Any) -> T:
        """function(*args), called in the namespace; its exception is raised here."""
        done: SimpleQueue[tuple[bool, Any]] = SimpleQueue()

        def job() -> None:
            try:
                done.put((True, function(*args)))
            except BaseException as error:
                done.put((False, error))

        self._work.put(job)
        worked, value = done.get()
        if not worked:
            raise value
        return value  # type: ignore[no-any-return]

    def command(self, *line: str) -> str:
        """What a program prints that is run in the namespace."""
        done = self.run(lambda: subprocess.run(line, check=True, capture_output=True, text=True))
        return done.stdout

    def ip(self, line: str) -> None:
        self.command("ip", *line.split())

    def sysctl(self, name: str, value: object) -> None:
        def write() -> None:
            with open(f"/proc/sys/{name.replace('.', '/')}", "w") as file:
                file.write(str(value))

        self.run(write)

    def ifindex(self) -> int:
        return self.run(socket.if_nametoindex, self._device)

    def socket(self, family: int = socket.AF_INET) -> socket.socket:
        made = self.run(socket.socket, family, socket.SOCK_STREAM)
        self._sockets.append(made)
        return made

    def keep(self, made: socket.socket) -> socket.socket:
        """To be closed at the end."""
        self._sockets.append(made)
        return made

    def listen(self, host: str = "127.0.0.1", port: int = 0, backlog: int = 128) -> socket.socket:
        listener = self.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        listener.bind((host, port))
        listener.listen(backlog)
        return listener

    def connect(self, host: str, port: int, source: tuple[str, int] | None = None) -> socket.socket:
        client = self.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        if source:
            client.bind(source)
        client.connect((host, port))
        return client

    def pair(self, listener: socket.socket, host: str | None = None) -> tuple[socket.socket, socket.socket]:
        """A connection to a listener: the client's end and the server's."""
        name = listener.getsockname()
        client = self.connect(host or name[0], name[1])
        server, _ = listener.accept()
        self._sockets.append(server)
        return client, server

    def try_connect(self, host: str, port: int) -> socket.socket:
        """A socket in SYN_SENT, when nobody answers."""
        client = self.socket()
        client.setblocking(False)
        client.connect_ex((host, port))
        return client


def _unshare() -> str:
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare(CLONE_NEWNET)")
    return f"/proc/{os.getpid()}/task/{threading.get_native_id()}/ns/net"
