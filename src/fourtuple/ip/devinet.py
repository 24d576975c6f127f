"""Devices and their IPv4 addresses (net/ipv4/devinet.c): which is primary, and which one serves as a source.

Here: NetDevice, IfAddress, inet_select_addr(). Not here: the routes that an address brings (fib.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from errno import EEXIST, EINVAL

from fourtuple.address import prefix_mask
from fourtuple.ip.rtnetlink import RT_SCOPE_HOST, RT_SCOPE_LINK, RT_SCOPE_UNIVERSE

IPV4_MIN_MTU = 68  # RFC 791; a device with less has no IPv4 (devinet.c:inetdev_valid_mtu)


@dataclass(slots=True, eq=False)
class IfAddress:
    """One address of a device (struct in_ifaddr). `address` differs from `local` on a point-to-point link only."""

    local: int
    address: int
    prefixlen: int
    broadcast: int = 0
    scope: int = RT_SCOPE_UNIVERSE
    secondary: bool = False

    @property
    def mask(self) -> int:
        return prefix_mask(self.prefixlen)

    @property
    def prefix(self) -> int:
        return self.address & self.mask

    def matches(self, address: int) -> bool:
        """inet_ifa_match(): in the prefix of this address."""
        return (address ^ self.address) & self.mask == 0

    def same_prefix(self, other: IfAddress) -> bool:
        return self.prefixlen == other.prefixlen and self.matches(other.address)


class NetDevice:
    """A network device. Changed only through Fib, which keeps the routes in step."""

    __slots__ = ("addresses", "ifindex", "loopback", "mtu", "name", "up")

    def __init__(self, name: str, ifindex: int, mtu: int = 1500, *, loopback: bool = False) -> None:
        self.name = name
        self.ifindex = ifindex
        self.mtu = mtu
        self.loopback = loopback
        self.up = False
        self.addresses: list[IfAddress] = []

    def __repr__(self) -> str:
        return f"<NetDevice {self.ifindex}: {self.name} mtu {self.mtu} {'up' if self.up else 'down'}>"

    def insert_address(self, ifa: IfAddress) -> int:
        """__inet_insert_ifa: primaries by scope, the narrowest first; a second one in a prefix is secondary, last."""
        ifa.secondary = False
        place = 0
        for at, other in enumerate(self.addresses):
            if not other.secondary and ifa.scope <= other.scope:
                place = at + 1
            if other.prefixlen == ifa.prefixlen and other.matches(ifa.address):
                if other.local == ifa.local:
                    return -EEXIST
                if other.scope != ifa.scope:
                    return -EINVAL
                ifa.secondary = True
        self.addresses.insert(len(self.addresses) if ifa.secondary else place, ifa)
        return 0

    def primary_of(self, ifa: IfAddress) -> IfAddress:
        """The address whose prefix route and preferred source `ifa` uses: itself unless it is secondary."""
        if not ifa.secondary:
            return ifa
        return next(other for other in self.addresses if not other.secondary and other.same_prefix(ifa))


def _first_within(dev: NetDevice, scope: int) -> int:
    """devinet.c:in_dev_select_addr."""
    for ifa in dev.addresses:
        if not ifa.secondary and ifa.scope != RT_SCOPE_LINK and ifa.scope <= scope:
            return ifa.local
    return 0


def _best_on(dev: NetDevice, dst: int, scope: int) -> int:
    """First primary address of the device in the scope; one whose prefix holds `dst` comes first."""
    address = 0
    for ifa in dev.addresses:
        if ifa.secondary or min(ifa.scope, RT_SCOPE_HOST) > scope:
            continue
        if not dst or ifa.matches(dst):
            return ifa.local
        address = address or ifa.local
    return address


def inet_select_addr(devices: Iterable[NetDevice], dev: NetDevice, dst: int, scope: int) -> int:
    """devinet.c:inet_select_addr: a source on `dev`, else on any device in order of index, else 0."""
    address = _best_on(dev, dst, scope)
    if address:
        return address
    return next((found for other in devices if (found := _first_within(other, scope))), 0)
