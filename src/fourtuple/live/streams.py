"""open_connection(): connect() for asyncio, ending in its streams.

A module of its own, since importing asyncio takes 60 ms.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable
from functools import partial
from typing import Any

from fourtuple.live.connecting import POOL, make_choices, order
from fourtuple.live.race import PortRange, Race


async def open_connection(
    address: tuple[str, int],
    *,
    sources: Iterable[str] | None = None,
    timeout: float | None = 30.0,
    port_range: PortRange | bool | None = None,
    attempt_delay: float = 0.25,
    retries: int = 7,
    family: int = socket.AF_UNSPEC,
    **streams: Any,
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """asyncio.open_connection() over a socket set up as by connect(): same arguments, same errors.

    `streams` go to asyncio.open_connection(): limit, ssl, server_hostname (with ssl: the host, unless given).  The
    timeout, in seconds, is for the connection, not for TLS.  Ports in use are counted, and names looked up, by a thread
    of the loop's default executor.
    """
    choices = make_choices(sources, timeout, port_range, attempt_delay, retries)
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(*address, family=family, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    targets = order(found, choices)
    if choices.needs_counts:
        for target in targets:
            if not POOL.is_known(target.destination):
                await loop.run_in_executor(None, partial(POOL.use, target.destination))
    sock = await _run(Race(targets, choices, POOL))
    try:
        if streams.get("ssl"):
            streams.setdefault("server_hostname", address[0])
        return await asyncio.open_connection(sock=sock, **streams)
    except BaseException:
        sock.close()
        raise


async def _run(race: Race) -> socket.socket:
    """The race's end; a cancelled task closes its sockets."""
    running = race.run()
    try:
        while True:
            seconds = next(running)
            await _readable(race.epoll.fileno(), seconds)
    except StopIteration as end:
        connected: socket.socket = end.value
        return connected
    finally:
        running.close()


async def _readable(fd: int, seconds: float | None) -> None:
    """An epoll is readable when one of its sockets is ready."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(fd, ready.set)
    try:
        async with asyncio.timeout(seconds):
            await ready.wait()
    except TimeoutError:
        pass
    finally:
        loop.remove_reader(fd)
