"""Wires: what a Host can be put on, each opened ready for a call to one server.

Lives here: the choice, and setting up Host, device and peer.  Does not live here: what is then done on the wire.

    tun     a real device in a private network namespace; the kernel is the peer
    sim     a second Host, on a clock that jumps; no kernel at all
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from fourtuple.address import (
    INADDR_ANY,
    INADDR_BROADCAST,
    format_prefix,
    is_loopback,
    is_multicast,
    parse_ipv4,
    prefix_mask,
)
from fourtuple.clock import ManualClock, MonotonicClock
from fourtuple.host import Host
from fourtuple.phy.device import Device
from fourtuple.phy.fault import DelayDevice, FaultDevice, LossRule
from fourtuple.phy.memory import memory_pair
from fourtuple.shell.loop import PollRunner, Runner, Station
from fourtuple.shell.netns import PrivateNamespace, Server
from fourtuple.shell.sim_loop import START_US, HttpPeer, SimRunner
from fourtuple.shell.tap import TapDevice

DEVICE = "ft0"
OUR_ADDRESS = "10.64.0.2"
PEER_ADDRESS = "10.64.0.1"
SIM_RTT_US = 10_000
_PREFIX = 24
_SUBNET_BROADCAST = parse_ipv4(OUR_ADDRESS) | ~prefix_mask(_PREFIX) & 0xFFFFFFFF


class WireUnavailable(OSError):
    """The wire cannot be opened here; strerror says why and what to do."""


@dataclass(frozen=True)
class Setup:
    """What to put on the wire."""

    servers: tuple[tuple[str, int], ...] = ((PEER_ADDRESS, 8080),)
    """Where HTTP is served; an address is made local to the peer."""
    source: str = ""
    """An address of ours besides OUR_ADDRESS."""
    loss: tuple[LossRule, ...] = ()
    rtt_us: int | None = None
    """Added delay; None: nothing on a real wire, SIM_RTT_US on a simulated one."""
    seed: int = 0
    sysctls: Mapping[str, str] = field(default_factory=dict)
    max_sockets: int = 65_536
    profile: str = "6.18"
    """The kernel that our end imitates (KernelProfile)."""


class Wire:
    """An open wire: `runner` drives `host`; `tap` has the packets; `namespace` only on a TUN.  A context manager."""

    def __init__(
        self, name: str, setup: Setup, host: Host, runner: Runner, tap: TapDevice, namespace: PrivateNamespace | None
    ) -> None:
        self.name = name
        self.setup = setup
        self.host = host
        self.runner = runner
        self.tap = tap
        self.namespace = namespace

    @property
    def rtt_us(self) -> int:
        """The delay that was added, both ways together."""
        return _rtt_us(self.setup, self.name == "sim")

    @property
    def where(self) -> str:
        """One phrase for people."""
        if self.namespace is None:
            return "sim, no kernel and no real time"
        way = "root" if self.namespace.way == "root" else "no root"
        return f"tun {DEVICE}, private network namespace ({way})"

    def close(self) -> None:
        """Give everything back."""
        if self.namespace is not None:
            self.namespace.close()

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def open_wire(name: str, setup: Setup, on_fallback: Callable[[str], None] = lambda reason: None) -> Wire:
    """Open `tun` or `sim`; `auto` is the first that works, and `on_fallback` hears why the better one did not."""
    if name == "sim":
        return open_sim(setup)
    try:
        return open_tun(setup)
    except WireUnavailable as reason:
        if name != "auto":
            raise
        on_fallback(str(reason.strerror))
        return open_sim(setup)


def open_tun(setup: Setup) -> Wire:
    """A TUN in a private namespace.  WireUnavailable when this machine does not allow it."""
    servers = [Server(address, port) for address, port in setup.servers if can_serve(address, port)]
    try:
        namespace = PrivateNamespace.start(tun=DEVICE, kernel_address=f"{PEER_ADDRESS}/{_PREFIX}", servers=servers)
    except OSError as error:
        subject = f"{error.filename}: " if error.filename else ""
        raise WireUnavailable(error.errno, subject + (error.strerror or str(error))) from None
    host = _our_host(setup, MonotonicClock().now_us())
    tap = _wrapped(namespace.device, setup, _rtt_us(setup, False), MonotonicClock().now_us)
    return Wire("tun", setup, host, PollRunner(host, tap), tap, namespace)


def open_sim(setup: Setup) -> Wire:
    """Two Hosts back to back."""
    clock = ManualClock(START_US)
    ours, theirs = memory_pair(names=(DEVICE, "peer0"))
    host = _our_host(setup, START_US)
    tap = _wrapped(ours, setup, _rtt_us(setup, True), clock.now_us)
    peer = Host(seed=setup.seed + 1, now_us=START_US, max_sockets=setup.max_sockets)
    peer.add_link("peer0", addrs=(f"{PEER_ADDRESS}/{_PREFIX}",))
    peer.add_route("default", dev="peer0")
    runner = SimRunner([Station(host, tap), Station(peer, theirs)], clock)
    for address, port in setup.servers:
        if can_serve(address, port):
            if address != PEER_ADDRESS:
                peer.fib.add_address(peer.fib.device("peer0"), parse_ipv4(address), 32)
            runner.apps.append(HttpPeer(peer, address, port))
    return Wire("sim", setup, host, runner, tap, None)


def can_be_a_peer(address: str) -> bool:
    """Whether another machine could have this address: not 0.0.0.0, loopback, multicast, broadcast, nor our own."""
    number = parse_ipv4(address)
    special = number == INADDR_ANY or is_loopback(number) or is_multicast(number)
    return not (special or number in (INADDR_BROADCAST, _SUBNET_BROADCAST) or address == OUR_ADDRESS)


def can_serve(address: str, port: int) -> bool:
    """Whether a server could listen there; port 0 is nobody's."""
    return port != 0 and can_be_a_peer(address)


def added_source(setup: Setup) -> str:
    """The source address that our device gets besides its own; "" for none: special ones, and those of the peer."""
    theirs = {PEER_ADDRESS, *(address for address, _ in setup.servers)}
    return setup.source if setup.source and setup.source not in theirs and can_be_a_peer(setup.source) else ""


def _our_host(setup: Setup, now_us: int) -> Host:
    host = Host(
        seed=setup.seed, now_us=now_us, sysctl=setup.sysctls, max_sockets=setup.max_sockets, profile=setup.profile
    )
    device = host.add_link(DEVICE, addrs=(format_prefix(parse_ipv4(OUR_ADDRESS), _PREFIX),))
    host.add_route("default", dev=DEVICE)
    if added := added_source(setup):
        host.fib.add_address(device, parse_ipv4(added), 32)
    return host


def _rtt_us(setup: Setup, simulated: bool) -> int:
    return (SIM_RTT_US if simulated else 0) if setup.rtt_us is None else setup.rtt_us


def _wrapped(device: Device, setup: Setup, rtt_us: int, now_us: Callable[[], int]) -> TapDevice:
    """Delay inside, loss around it, the tap outermost: it sees what we sent, lost or not."""
    if rtt_us:
        device = DelayDevice(device, rtt_us, now_us)
    if not setup.loss:
        return TapDevice(device, now_us)
    chance = random.Random(setup.seed).random
    tap = TapDevice(FaultDevice(device, setup.loss, chance, lambda packet, rule: tap.on_drop(packet, rule)), now_us)
    return tap
