"""IpNet: the part of a network namespace that ip/ needs (kernel: struct net, the netns_ipv4 and mib members).

tcp/net.py extends it.  Time is `now_us`, set by whoever calls in; the scratch headers are reused for every packet, so
a function that keeps a field of one must copy it.
"""

from __future__ import annotations

import array
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fourtuple.inet.secrets import BootSecrets
from fourtuple.ip.fib_table import FibClock
from fourtuple.ip.route import Route, Rtable, ip_route_connect, ip_route_input_is_local
from fourtuple.ip.txqueue import TxQueue
from fourtuple.mib import Mib
from fourtuple.sysctl import Sysctls
from fourtuple.wire.icmp import IcmpHeader
from fourtuple.wire.ipv4 import Ipv4Header

if TYPE_CHECKING:
    from fourtuple.trace import Tracer

_ROUTE_SLOTS = 256


class IpNet:
    """Addresses and routes (`fib`), sysctls, counters, packets on their way out (`tx`) and to itself (`loopback`)."""

    __slots__ = (
        "err_ip", "fib", "fib_clock", "fib_generation", "local_addr", "local_addresses", "loopback", "mib", "now_us",
        "protocols", "route_keys", "route_oifs", "routes", "rtables", "rx_dev", "rx_icmp", "rx_ip", "secrets", "sniff",
        "sysctl", "tracer", "tx", "tx_ip",
    )  # fmt: skip

    fib: Any
    fib_clock: FibClock
    tracer: Tracer | None
    sniff: Callable[[str, int, bytes], None] | None
    protocols: dict[int, Any]
    local_addresses: Any
    route_keys: memoryview
    route_oifs: memoryview
    routes: list[Route | None]
    rtables: list[Rtable]

    def __init__(self, fib: object, sysctl: Sysctls, secrets: BootSecrets) -> None:
        self.fib = fib
        self.fib_clock = self.fib.clock
        self.sysctl = sysctl
        self.secrets = secrets
        self.mib = Mib()
        self.tx = TxQueue()
        self.loopback = TxQueue(1 << 16)
        self.tracer = None
        self.now_us = 0
        self.rx_dev = 0
        self.protocols = {}
        self.sniff = None
        self.tx_ip = Ipv4Header()
        self.rx_ip = Ipv4Header()
        self.err_ip = Ipv4Header()
        self.rx_icmp = IcmpHeader()
        self.fib_generation = 0xFFFFFFFF
        self.local_addr = 0
        self.local_addresses = frozenset()
        self.route_keys = memoryview(array.array("Q", bytes(8 * _ROUTE_SLOTS)))
        self.route_oifs = memoryview(array.array("I", bytes(4 * _ROUTE_SLOTS)))
        self.routes = [None] * _ROUTE_SLOTS
        self.rtables = self.fib.rtables


def net_refresh(net: IpNet) -> None:
    """Forget what was learned from `fib` if it has changed since; once at the start of each call into the engine."""
    generation = net.fib_clock.generation
    if generation != net.fib_generation:
        net.fib_generation = generation
        net.local_addr = 0
        net.local_addresses = net.fib.local_addresses
        net.routes = [None] * 256


def net_route(net: IpNet, daddr: int, saddr: int, oif: int) -> Route | int:
    """ip_route_connect() without mark and TOS, remembered in a direct-mapped cache; net_refresh() has run."""
    wide = daddr
    key = wide << 32 | saddr
    slot = (key ^ key >> 32 ^ key >> 8 ^ key >> 40 ^ oif) & 255
    if net.route_keys[slot] == key and net.route_oifs[slot] == oif:
        hit = net.routes[slot]
        if hit is not None:
            return hit
    found = ip_route_connect(net.fib, daddr, saddr, oif)
    if not isinstance(found, int):
        net.route_keys[slot] = key
        net.route_oifs[slot] = oif
        net.routes[slot] = found
    return found


def ip_is_local(net: IpNet, daddr: int, saddr: int, dev: int) -> bool:
    """Whether a packet from saddr to daddr that came in on `dev` is for this host (route.c: RTN_LOCAL)."""
    if daddr == net.local_addr and saddr >> 28 < 0xE and dev > 1:
        if saddr >> 24 != 127 and saddr not in net.local_addresses:
            return True
    if not ip_route_input_is_local(net.fib, daddr, saddr, dev if dev > 1 else 0):
        return False
    if dev > 1:
        net.local_addr = daddr
    return True
