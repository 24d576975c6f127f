"""What a wire is: what to put on it, the open wire, and one entry for each kind of wire.

Lives here: Setup, Wire, WireKind, Availability, WireUnavailable, and what every kind of wire needs to build its end.
Does not live here: any kind of wire (private_wire.py, sim_wire.py, ...), the list of them (wires.py).
"""

from __future__ import annotations

import errno
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fourtuple.address import (
    INADDR_ANY,
    INADDR_BROADCAST,
    format_ipv4,
    format_prefix,
    is_loopback,
    is_multicast,
    parse_ipv4,
    parse_prefix,
    prefix_mask,
)
from fourtuple.host import Host
from fourtuple.phy.device import Device
from fourtuple.phy.fault import DelayDevice, FaultDevice, LossRule
from fourtuple.shell.capture import Capture
from fourtuple.shell.loop import Runner
from fourtuple.shell.netns import Server
from fourtuple.shell.tap import TapDevice

if TYPE_CHECKING:
    from fourtuple.shell.netns import PrivateNamespace

DEVICE = "ft0"
OUR_ADDRESS = "10.64.0.2"
PEER_ADDRESS = "10.64.0.1"
PREFIX = 24
_SUBNET_BROADCAST = parse_ipv4(OUR_ADDRESS) | ~prefix_mask(PREFIX) & 0xFFFFFFFF


class WireUnavailable(OSError):
    """The wire cannot be opened here: `strerror` is the reason in one line, `todo` one thing that would change it."""

    def __init__(self, code: int | None, reason: str, todo: str = "") -> None:
        super().__init__(code, reason)
        self.todo = todo


@dataclass(frozen=True)
class Setup:
    """What to put on the wire."""

    servers: tuple[tuple[str, int] | Server, ...] = ((PEER_ADDRESS, 8080),)
    """Where HTTP is served, (address, port), or a Server of any kind; an address or network is made local there."""
    source: str = ""
    """An address of ours besides OUR_ADDRESS."""
    loss: tuple[LossRule, ...] = ()
    rtt_us: int | None = None
    """Added delay; None: nothing on a real wire, SIM_RTT_US on a simulated one."""
    seed: int = 0
    sysctls: Mapping[str, str] = field(default_factory=dict)
    max_sockets: int = 65_536
    reserve: int = 0
    """Connections that are certain to come (Host)."""
    profile: str = "6.18"
    """The kernel that our end imitates (KernelProfile)."""
    nat: bool = False
    """On `tun-host`: send under the machine's own address."""
    capture: Capture | None = None
    """Where its packets are written."""
    sources: tuple[str, ...] = ()
    """More addresses and networks of ours ("10.99.0.0/24")."""
    txqueuelen: int = 1000
    """Packets that a TUN keeps for us; the kernel drops what is more."""
    peer_sysctls: Mapping[str, str] = field(default_factory=dict)
    """Of the kernel or simulated host on the other side, where that is ours."""

    def served(self) -> list[Server]:
        """The servers that can be, each as a Server."""
        servers = [one if isinstance(one, Server) else Server(*one) for one in self.servers]
        return [server for server in servers if can_serve(server.ip, server.port)]


@dataclass(frozen=True)
class Availability:
    """Whether a kind of wire can be used here."""

    works: bool
    start_us: int | None = None
    """How long it took to open one, measured."""
    code: int = 0
    """The errno behind a refusal."""
    reason: str = ""
    """Why not, in one line."""
    todo: str = ""
    """One thing to do about it."""


class Wire:
    """An open wire: `runner` drives `host`; `tap` has the packets.  A context manager."""

    def __init__(
        self,
        name: str,
        where: str,
        setup: Setup,
        host: Host,
        runner: Runner,
        tap: TapDevice,
        rtt_us: int = 0,
        namespace: PrivateNamespace | None = None,
        on_close: Callable[[], None] = lambda: None,
        notes: tuple[str, ...] = (),
    ) -> None:
        self.name = name
        self.where = where
        """One phrase for people: device, network, privilege."""
        self.setup = setup
        self.host = host
        self.runner = runner
        self.tap = tap
        self.rtt_us = rtt_us
        """The delay that was added, both ways together."""
        self.namespace = namespace
        """The kernel on the other side, where the wire ends in a private namespace."""
        self.notes = notes
        """What people should know of it, a line each."""
        self._on_close = on_close
        if setup.capture is not None:
            setup.capture.watch(runner)

    def close(self) -> None:
        """Give everything back.  Calling it again does nothing."""
        if self.setup.capture is not None:
            self.setup.capture.flush()
        on_close, self._on_close = self._on_close, lambda: None
        on_close()

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        # A dead helper's server refuses connections, and its veth is gone: whatever was seen then is no answer.
        patience = 0.2 if isinstance(error, OSError) else 0.0  # its end may come a moment after that of its veth
        may_be_lost = error is None or isinstance(error, OSError)
        lost = may_be_lost and self.namespace is not None and self.namespace.has_ended(patience)
        self.close()
        if lost:
            raise WireUnavailable(errno.EPIPE, "the helper process of the private namespace has been ended") from None


@dataclass(frozen=True)
class WireKind:
    """A kind of wire: how to get one, and how to find out whether that would work."""

    name: str
    reaches: str
    """Whom one can talk to: `private namespace`, `the real network`."""
    needs: str
    open: Callable[[Setup], Wire]
    """Raises WireUnavailable."""
    probe: Callable[[], Availability]
    """Never raises; leaves nothing behind."""


def probe_by_opening(open_one: Callable[[Setup], Wire]) -> Availability:
    """The plainest probe: open one, measure, close it."""
    start = time.monotonic_ns()
    try:
        wire = open_one(Setup(max_sockets=1024))
    except WireUnavailable as error:
        return Availability(False, None, error.errno or 0, str(error.strerror), error.todo)
    duration_us = (time.monotonic_ns() - start) // 1000
    wire.close()
    return Availability(True, duration_us)


def our_host(setup: Setup, now_us: int, name: str = DEVICE, address: str = f"{OUR_ADDRESS}/{PREFIX}") -> Host:
    """Our end: the device with its address, a default route through it."""
    host = Host(
        seed=setup.seed,
        now_us=now_us,
        sysctl=setup.sysctls,
        max_sockets=setup.max_sockets,
        reserve=setup.reserve,
        profile=setup.profile,
    )
    device = host.add_link(name, addrs=(address,))
    host.add_route("default", dev=name)
    if added := added_source(setup):
        host.fib.add_address(device, parse_ipv4(added), 32)
    for text in added_sources(setup):
        host.add_route(text, dev=name, type="local")
    return host


def wrapped(device: Device, setup: Setup, rtt_us: int, now_us: Callable[[], int]) -> TapDevice:
    """Delay inside, loss around it, capture and tap outermost: they see what we sent, lost or not."""
    if rtt_us:
        device = DelayDevice(device, rtt_us, now_us)
    watchers: list[Callable[[bytes, LossRule], None]] = []

    def on_drop(packet: bytes, rule: LossRule) -> None:
        for watcher in watchers:
            watcher(packet, rule)

    if setup.loss:
        device = FaultDevice(device, setup.loss, random.Random(setup.seed).random, on_drop)
    if setup.capture is not None:
        device = setup.capture.wrap(device, setup.profile)
        watchers.append(device.on_drop)
    tap = TapDevice(device, now_us)
    watchers.append(tap.on_drop)
    return tap


def can_be_a_peer(address: str) -> bool:
    """Whether another machine could have this address: not 0.0.0.0, loopback, multicast, broadcast, nor our own."""
    number = parse_ipv4(address)
    special = number == INADDR_ANY or is_loopback(number) or is_multicast(number)
    return not (special or number in (INADDR_BROADCAST, _SUBNET_BROADCAST) or address == OUR_ADDRESS)


def can_serve(address: str, port: int) -> bool:
    """Whether a server could listen there; port 0 is nobody's. A network (10.64.1.0/29) must not have us in it."""
    network, slash, _ = address.partition("/")
    return (
        port != 0
        and can_be_a_peer(network)
        and not (slash and _overlap(parse_prefix(address), parse_prefix(OUR_ADDRESS)))
    )


def added_source(setup: Setup) -> str:
    """The source address that our device gets besides its own; "" for none: special ones, and those of the peer."""
    return setup.source if setup.source and _can_be_ours(setup.source, _theirs(setup)) else ""


def added_sources(setup: Setup) -> list[str]:
    """The networks of Setup.sources that can be ours, as routes have them: nothing is set behind the prefix."""
    theirs = _theirs(setup)
    found = dict.fromkeys(network_text(text) for text in setup.sources if _can_be_ours(text, theirs))
    return [text for text in found if text not in (f"{OUR_ADDRESS}/32", f"{added_source(setup)}/32")]


def network_text(text: str) -> str:
    """10.64.1.7/24 -> 10.64.1.0/24."""
    number, length = parse_prefix(text)
    return format_prefix(number & prefix_mask(length), length)


def _theirs(setup: Setup) -> list[tuple[int, int]]:
    served = (one.ip if isinstance(one, Server) else one[0] for one in setup.servers)
    return [parse_prefix(text) for text in (PEER_ADDRESS, *served)]


def _can_be_ours(text: str, theirs: list[tuple[int, int]]) -> bool:
    ours = parse_prefix(text)
    return can_be_a_peer(format_ipv4(ours[0])) and not any(_overlap(ours, other) for other in theirs)


def _overlap(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two networks have an address in common."""
    return (one[0] ^ other[0]) & prefix_mask(min(one[1], other[1])) == 0
