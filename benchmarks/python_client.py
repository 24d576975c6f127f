"""The kernel's client as Python programs use it: non-blocking connect() with epoll, or asyncio.

`python -m benchmarks.python_client epoll|sock_connect|open_connection` reads commands as the C programs do:

    run N WINDOW PORTS     -> ns, CPU ns, how many were established; they end by RST outside the clock
"""

from __future__ import annotations

import asyncio
import resource
import select
import socket
import struct
import sys
import time
from collections.abc import Awaitable, Callable

from benchmarks.native import FAR, FIRST_PORT

_LINGER_0 = struct.pack("ii", 1, 0)


class Epoll:
    """socket, connect_ex, epoll: `window` in flight."""

    def __init__(self) -> None:
        self.open: list[socket.socket] = []

    def run(self, n: int, window: int, ports: int) -> int:
        """n handshakes; how many were established."""
        begun = done = 0
        waiting: dict[int, socket.socket] = {}
        with select.epoll() as epoll:
            while begun < n or waiting:
                while begun < n and len(waiting) < window:
                    sock = self._begin(FIRST_PORT + begun % ports)
                    waiting[sock.fileno()] = sock
                    epoll.register(sock.fileno(), select.EPOLLOUT)
                    begun += 1
                for fd, _ in epoll.poll(2.0, window):
                    sock = waiting.pop(fd)
                    epoll.unregister(fd)
                    done += sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        return done

    def _begin(self, port: int) -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setblocking(False)
        sock.connect_ex((FAR, port))
        self.open.append(sock)
        return sock

    def reset_all(self) -> None:
        for sock in self.open:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_0)
            sock.close()
        self.open.clear()


class Asyncio:
    """`window` tasks, each connecting again and again by one of asyncio's two ways."""

    def __init__(self, way: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._connect: Callable[[int], Awaitable[None]] = getattr(self, "_" + way)
        self._sockets: list[socket.socket] = []
        self._writers: list[asyncio.StreamWriter] = []

    def run(self, n: int, window: int, ports: int) -> int:
        """n handshakes; how many were established."""
        return self._loop.run_until_complete(self._all(n, window, ports))

    async def _all(self, n: int, window: int, ports: int) -> int:
        turns = iter(range(n))

        async def worker() -> None:
            for i in turns:
                await self._connect(FIRST_PORT + i % ports)

        await asyncio.gather(*(worker() for _ in range(window)))
        return len(self._sockets) + len(self._writers)

    async def _sock_connect(self, port: int) -> None:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setblocking(False)
        await self._loop.sock_connect(sock, (FAR, port))
        self._sockets.append(sock)

    async def _open_connection(self, port: int) -> None:
        _, writer = await asyncio.open_connection(FAR, port)
        self._writers.append(writer)

    def reset_all(self) -> None:
        for sock in self._sockets:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_0)
            sock.close()
        for writer in self._writers:
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_0)
            writer.transport.abort()
        self._sockets.clear()
        self._writers.clear()
        self._loop.run_until_complete(asyncio.sleep(0.01))


def main(way: str) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    client = Epoll() if way == "epoll" else Asyncio(way)
    for line in sys.stdin:
        _, *numbers = line.split()
        start, cpu = time.perf_counter_ns(), time.process_time_ns()
        done = client.run(*map(int, numbers))
        print(time.perf_counter_ns() - start, time.process_time_ns() - cpu, done, flush=True)
        client.reset_all()


if __name__ == "__main__":
    main(sys.argv[1])
