"""connect(): a kernel socket, connected, set up so that it meets neither the 50 % cliff nor itself.

Lives here: the blocking call.  Does not live here: the asyncio one (streams.py), what both do (race.py).
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable

from fourtuple.errors import make_error
from fourtuple.live.race import Choices, PortRange, Race, Target, interleave
from fourtuple.live.source_pool import SourcePool

POOL = SourcePool()
"""What is known of destinations: shared by all calls of the process, and read again after a second."""


def connect(
    address: tuple[str, int],
    *,
    sources: Iterable[str] | None = None,
    timeout: float | None = 30.0,
    port_range: PortRange | bool | None = None,
    attempt_delay: float = 0.25,
    retries: int = 7,
    family: int = socket.AF_UNSPEC,
) -> socket.socket:
    """A blocking socket, connected to (host, port).

    sources        local addresses to choose among, by free 4-tuples towards this destination (counted by the kernel,
                   remembered for a second); bound with IP_BIND_ADDRESS_NO_PORT, so that no port is taken from other
                   destinations.  None: the one that the route gives
    timeout        seconds for all attempts together, the name not included; None: the kernel's, 131 s
    port_range     IP_LOCAL_PORT_RANGE.  None: set to the whole range of the namespace once the destination has used
                   45 % of it, where a connect() without it begins to walk over half of the range; True: always;
                   False: never; (low, high): these ports only.  A kernel without it (before 6.3) does as with False,
                   but with (low, high) it is an error
    attempt_delay  seconds after which the next address of the host is tried beside the last (RFC 8305: 0.01 to 2)
    retries        how many further sources may be tried when one has no port left, or no route
    family         AF_INET, AF_INET6, or AF_UNSPEC for both in turn

    A socket that was connected to itself (nobody listens there, and the kernel chose that very port) is closed and
    another port is tried.  Raises a ConnectError: an OSError with the kernel's errno whose `.report["attempts"]` names
    destination, source, call, errno and seconds of each; socket.gaierror for a name that is none; ValueError.
    """
    choices = make_choices(sources, timeout, port_range, attempt_delay, retries)
    race = Race(find_targets(address, family, choices), choices, POOL)
    running = race.run()
    try:
        while True:
            seconds = next(running)
            race.epoll.poll(seconds)
    except StopIteration as end:
        connected: socket.socket = end.value
    finally:
        running.close()
    connected.setblocking(True)
    return connected


def make_choices(
    sources: Iterable[str] | None,
    timeout: float | None,
    port_range: PortRange | bool | None,
    attempt_delay: float,
    retries: int,
) -> Choices:
    """The arguments, checked.  Raises ValueError."""
    if timeout is not None and not timeout > 0:
        raise ValueError(f"timeout must be more than 0 seconds, or None, not {timeout!r}")
    if not 0.01 <= attempt_delay <= 2:
        raise ValueError(f"attempt_delay must be 0.01 to 2 seconds (RFC 8305), not {attempt_delay!r}")
    if retries < 0:
        raise ValueError(f"retries must not be negative: {retries!r}")
    if not (port_range is None or isinstance(port_range, bool)):
        low, high = port_range
        if not 1 <= low <= high <= 65535:
            raise ValueError(f"port_range must be (low, high) within 1 to 65535, True, False or None: {port_range!r}")
    if isinstance(sources, str):
        raise ValueError(f"sources must be a list of addresses, not one text: [{sources!r}]")
    own = tuple(map(_source, dict.fromkeys(sources or ())))
    if sources is not None and not own:
        raise ValueError("sources is empty: None leaves the choice to the route")
    return Choices(own, timeout, port_range, attempt_delay, retries)


def _source(text: str) -> Target:
    try:
        found = socket.getaddrinfo(text, 0, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (socket.gaierror, UnicodeError):
        raise ValueError(f"sources: {text!r} is no IPv4 or IPv6 address") from None
    return Target(found[0][0], found[0][4])


def find_targets(address: tuple[str, int], family: int, choices: Choices) -> list[Target]:
    """Addresses of the host, in the order to try them.  Raises socket.gaierror, ConnectError."""
    return order(socket.getaddrinfo(*address, family, socket.SOCK_STREAM, socket.IPPROTO_TCP), choices)


def order(found: Iterable[tuple[int, int, int, str, tuple[object, ...]]], choices: Choices) -> list[Target]:
    """What getaddrinfo() found: families in turn, without those that no source has."""
    targets = interleave(dict.fromkeys(Target(each[0], each[4]) for each in found))
    usable = [target for target in targets if not choices.sources or choices.sources_of(target.family)]
    if not usable:
        raise _no_family(targets, choices)
    return usable


def _no_family(targets: list[Target], choices: Choices) -> OSError:
    error = make_error("connect", errno.EAFNOSUPPORT)
    error.report["reason"] = "no source is of the family of any address of the destination"
    error.report["attempts"] = []
    tried = ", ".join(target.destination[0] for target in targets)
    sources = ", ".join(source.destination[0] for source in choices.sources)
    error.strerror = f"{error.report['reason']} (destination {tried}; sources {sources})"
    return error
