"""Interfaces, addresses and the route that connect() would take, from rtnetlink.

Lives here: what the kernel says.  Does not live here: sysctls and limits (system.py).

Rules
1. Every function looks at the namespace that the calling thread is in; run_in() is for the others.
2. Where RTM_GETROUTE and connect() differ, connect() is right: 0.0.0.0 and :: mean this machine; without an IPv6 route
   connect() says EADDRNOTAVAIL where RTM_GETROUTE says ENETUNREACH.  A UDP connect(), which sends nothing, tells.
"""

from __future__ import annotations

import errno
import os
import struct
from _socket import (
    AF_INET,
    AF_INET6,
    IPPROTO_TCP,
    SOCK_CLOEXEC,
    SOCK_DGRAM,
    if_nametoindex,
    inet_ntop,
    inet_pton,
    socket,
)
from collections.abc import Iterable
from typing import NamedTuple

from fourtuple.live.netlink import Netlink, attribute, attributes, number, text
from fourtuple.live.refusal import CannotRead

_NETLINK_ROUTE = 0
# include/uapi/linux/rtnetlink.h, if_link.h, if_addr.h
_RTM_GETLINK, _RTM_GETADDR, _RTM_GETROUTE, _RTM_GETNEIGH = 18, 22, 26, 30
_IFF_UP, _IFF_LOOPBACK = 0x1, 0x8
_IFLA_IFNAME, _IFLA_MTU, _IFLA_AF_SPEC, _IFLA_INET6_CONF = 3, 4, 26, 2
_DEVCONF_DISABLE_IPV6 = 26
_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS = 1, 2, 8
_IFA_F_DADFAILED, _IFA_F_DEPRECATED, _IFA_F_TENTATIVE = 0x08, 0x20, 0x40
_RTA_DST, _RTA_SRC, _RTA_OIF, _RTA_GATEWAY, _RTA_PREFSRC = 1, 2, 4, 5, 7
_RTA_UID, _RTA_IP_PROTO, _RTA_DPORT = 25, 27, 29
_RTN_LOCAL, _RTN_BROADCAST, _RTN_MULTICAST = 2, 3, 5
_RTMSG_SIZE = 12
_NDMSG_SIZE, _NDA_DST = 12, 1
_ADDRESS_SIZES = {int(AF_INET): 4, int(AF_INET6): 16}
_NUD_INCOMPLETE, _NUD_FAILED = 0x01, 0x20
_IN_VAIN = _NUD_INCOMPLETE | _NUD_FAILED


class Interface(NamedTuple):
    """A device."""

    ifindex: int
    name: str
    is_up: bool
    is_loopback: bool
    mtu: int = 0
    disable_ipv6: bool | None = None
    """net.ipv6.conf.NAME.disable_ipv6; None: this device or this kernel has no IPv6 at all."""


class Address(NamedTuple):
    """An address of this machine."""

    family: int
    address: str
    prefix_length: int
    interface: int
    """Index of its device."""
    is_usable: bool = True
    """False: IPv6 duplicate address detection is not over, or has failed."""
    is_deprecated: bool = False
    """An old temporary or renumbered address: kept for old connections, not chosen for new ones."""


class Route(NamedTuple):
    """What connect() to a destination would do before it looks for a port."""

    destination: str
    port: int = 0
    bound: str = ""
    """The source address asked about; "": connect() chooses."""
    source: str = ""
    """The source address that it would use; "" when it fails."""
    interface: int = 0
    gateway: str = ""
    is_local: bool = False
    """The destination is this machine."""
    error: str = ""
    """The name of the errno that connect() would fail with at once, before any port is looked at."""


def read_interfaces() -> tuple[Interface, ...]:
    """Every device.  Raises CannotRead."""
    return tuple(map(_interface, _dump(_RTM_GETLINK, "interfaces", 16)))


def read_addresses() -> tuple[Address, ...]:
    """Every IPv4 and IPv6 address.  Raises CannotRead."""
    messages = _dump(_RTM_GETADDR, "addresses", 8)
    return tuple(_address(message) for message in messages if message[0] in (AF_INET, AF_INET6))


def read_failed_neighbours() -> frozenset[str]:
    """Addresses on the links that ARP or neighbour discovery has asked for, so far in vain.  Raises CannotRead."""
    found = set()
    for message in _dump(_RTM_GETNEIGH, "neighbours", _NDMSG_SIZE):
        (state,) = struct.unpack_from("=H", message, 8)
        raw = dict(attributes(message, _NDMSG_SIZE)).get(_NDA_DST, b"")
        if state & _IN_VAIN and len(raw) == _ADDRESS_SIZES.get(message[0]):
            found.add(inet_ntop(message[0], raw))
    return frozenset(found)


def _dump(kind: int, what: str, size: int) -> list[bytes]:
    """Messages that are at least as long as their fixed part."""
    try:
        with Netlink(_NETLINK_ROUTE) as netlink:
            return [message for message in netlink.dump(kind, bytes(size)) if len(message) >= size]
    except OSError as error:
        raise CannotRead(error.errno or errno.EIO, f"{what} (rtnetlink)") from None


def _interface(message: bytes) -> Interface:
    index, flags = struct.unpack_from("=iI", message, 4)
    found = dict(attributes(message, 16))
    return Interface(
        index,
        text(found.get(_IFLA_IFNAME, b"")),
        bool(flags & _IFF_UP),
        bool(flags & _IFF_LOOPBACK),
        number(found.get(_IFLA_MTU, b"")),
        _disable_ipv6(found.get(_IFLA_AF_SPEC, b"")),
    )


def _disable_ipv6(specs: bytes) -> bool | None:
    """From the array of IPv6 sysctls that the kernel sends along."""
    values = dict(attributes(dict(attributes(specs)).get(AF_INET6, b""))).get(_IFLA_INET6_CONF, b"")
    at = 4 * _DEVCONF_DISABLE_IPV6
    return any(values[at : at + 4]) if len(values) >= at + 4 else None


def _address(message: bytes) -> Address:
    family, prefix, flags, _, index = struct.unpack_from("=BBBBI", message)
    found = dict(attributes(message, 8))
    flags = number(found.get(_IFA_FLAGS, bytes([flags])))
    raw = found.get(_IFA_LOCAL) or found.get(_IFA_ADDRESS, b"")
    return Address(
        family,
        _text_of(family, raw),
        prefix,
        index,
        not flags & (_IFA_F_TENTATIVE | _IFA_F_DADFAILED),
        bool(flags & _IFA_F_DEPRECATED),
    )


def _text_of(family: int, raw: bytes) -> str:
    return inet_ntop(family, raw) if len(raw) == (4 if family == AF_INET else 16) else ""


def find_routes(asked: Iterable[tuple[str, int, str]]) -> tuple[Route, ...]:
    """Routes towards (destination, port, source or "").  Raises CannotRead, ValueError for what is no address."""
    try:
        with Netlink(_NETLINK_ROUTE) as netlink:
            return tuple(_route(netlink, *question) for question in asked)
    except OSError as error:
        raise CannotRead(error.errno or errno.EIO, "routes (rtnetlink)") from None


def find_route(destination: str, port: int = 0, source: str = "") -> Route:
    """What connect() would do; `source` is the address that the socket is bound to."""
    return find_routes([(destination, port, source)])[0]


def _packed(address: str) -> tuple[int, bytes]:
    family = AF_INET6 if ":" in address else AF_INET
    try:
        return family, inet_pton(family, address.partition("%")[0])
    except (OSError, ValueError):
        raise ValueError(f"{address!r} is no IPv4 or IPv6 address") from None


def _scope(destination: str) -> int:
    """The device behind the % of a link-local address: a number or a name; 0 for none."""
    name = destination.partition("%")[2]
    if name.isascii() and name.isdigit():
        return int(name) & 0x7FFFFFFF
    try:
        return if_nametoindex(name) if name else 0
    except (OSError, ValueError):
        raise ValueError(f"{destination!r}: there is no device {name!r} here") from None


def _is_link_local(raw: bytes) -> bool:
    return len(raw) == 16 and raw[0] == 0xFE and raw[1] & 0xC0 == 0x80


def _route(netlink: Netlink, destination: str, port: int, source: str) -> Route:
    family, raw = _packed(destination)
    scope = _scope(destination)
    if len(raw) == 16 and raw[0] == 0xFF:
        return Route(destination, port, source, error="ENETUNREACH")  # tcp_v6_connect looks at this first
    if not any(raw) or (_is_link_local(raw) and not scope):
        return _told_by_udp(family, destination, port, source)
    try:
        message = netlink.ask(_RTM_GETROUTE, _question(family, raw, port, source, scope))
    except OSError:
        return _told_by_udp(family, destination, port, source)
    if len(message) < _RTMSG_SIZE or message[7] in (_RTN_BROADCAST, _RTN_MULTICAST):
        return Route(destination, port, source, error="ENETUNREACH")  # tcp_v4_connect refuses both
    found = dict(attributes(message, _RTMSG_SIZE))
    return Route(
        destination,
        port,
        source,
        source or _text_of(family, found.get(_RTA_PREFSRC, b"")),
        number(found.get(_RTA_OIF, b"")),
        _text_of(family, found.get(_RTA_GATEWAY, b"")),
        message[7] == _RTN_LOCAL,
    )


def _question(family: int, raw: bytes, port: int, source: str, scope: int) -> bytes:
    """struct rtmsg and attributes, as the route lookup of a TCP socket of ours has them (ip rules may look)."""
    from_ = _packed(source)[1] if source else b""
    body = struct.pack("=BBBBBBBBI", family, 8 * len(raw), 8 * len(from_), 0, 0, 0, 0, 0, 0)
    body += attribute(_RTA_DST, raw) + (attribute(_RTA_SRC, from_) if from_ else b"")
    body += attribute(_RTA_UID, struct.pack("=I", os.geteuid())) + attribute(_RTA_IP_PROTO, bytes([IPPROTO_TCP]))
    body += attribute(_RTA_OIF, struct.pack("=I", scope)) if scope else b""
    return body + (attribute(_RTA_DPORT, struct.pack("!H", port)) if port else b"")


def _told_by_udp(family: int, destination: str, port: int, source: str) -> Route:
    """The same lookup by connect() of a UDP socket: its source address, or its errno."""
    probe = socket(family, SOCK_DGRAM | SOCK_CLOEXEC)
    try:
        if source:
            probe.bind((source, 0))
        scope = (0, _scope(destination)) if family == AF_INET6 else ()
        probe.connect((destination.partition("%")[0], port or 9, *scope))
        return Route(destination, port, source, probe.getsockname()[0], is_local=not any(_packed(destination)[1]))
    except OSError as error:
        return Route(destination, port, source, error=errno.errorcode.get(error.errno or 0, str(error.errno)))
    finally:
        probe.close()
