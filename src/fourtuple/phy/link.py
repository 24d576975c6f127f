"""Network interfaces of the namespace we are in: up, mtu, queue length, addresses, routes. No `ip` command.

Lives here: a few ioctls (netdevice(7)) and rtnetlink requests (rtnetlink(7)).
Does not live here: creating interfaces (tun.py, veth.py), undoing: in a private namespace nothing has to be undone.
Addresses are text, with a prefix length: "10.64.0.1/24", "93.184.216.34/32", "fd00::1/64".
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct

# linux/sockios.h
_SIOCGIFFLAGS, _SIOCSIFFLAGS = 0x8913, 0x8914
_SIOCGIFMTU, _SIOCSIFMTU = 0x8921, 0x8922
_IFF_UP, _IFF_NOARP = 1, 0x80
# linux/netlink.h, linux/rtnetlink.h, linux/if_addr.h
_NLMSG_ERROR = 2
_NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_EXCL, _NLM_F_CREATE = 1, 4, 0x200, 0x400
_RTM_NEWLINK, _RTM_NEWADDR, _RTM_NEWROUTE = 16, 20, 24
_IFLA_TXQLEN = 13
_IFA_ADDRESS, _IFA_LOCAL, _IFA_F_NODAD = 1, 2, 2
_RTA_DST, _RTA_OIF, _RTA_PREFSRC = 1, 4, 7
_RT_TABLE_MAIN, _RT_TABLE_LOCAL, _RTPROT_STATIC = 254, 255, 4
_RT_SCOPE_LINK, _RT_SCOPE_HOST, _RTN_UNICAST, _RTN_LOCAL = 253, 254, 1, 2


def _ifreq_int(name: str, value: int) -> bytes:
    return struct.pack("16si20x", name.encode(), value)


def _ioctl(request: int, request_name: str, name: str, value: int = 0) -> int:
    """One interface ioctl whose argument and answer are an int."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        try:
            answer = fcntl.ioctl(handle, request, _ifreq_int(name, value))
        except OSError as error:
            raise OSError(error.errno, f"{name}: {os.strerror(error.errno or 0)} ({request_name})") from None
    return int(struct.unpack_from("i", answer, 16)[0])


def set_up(name: str, arp: bool = True) -> None:
    """`ip link set NAME up`, without `arp` also `arp off`."""
    flags = _ioctl(_SIOCGIFFLAGS, "SIOCGIFFLAGS", name) & 0xFFFF
    _ioctl(_SIOCSIFFLAGS, "SIOCSIFFLAGS", name, flags | _IFF_UP | (0 if arp else _IFF_NOARP))


def get_mtu(name: str) -> int:
    return _ioctl(_SIOCGIFMTU, "SIOCGIFMTU", name)


def set_mtu(name: str, mtu: int) -> None:
    """Set the mtu; asks first, so that a device that has it already needs no privilege."""
    if get_mtu(name) != mtu:
        _ioctl(_SIOCSIFMTU, "SIOCSIFMTU", name, mtu)


def _parse(address: str) -> tuple[int, bytes, int]:
    """(family, address bytes, prefix length) of "10.0.0.1/24"; without a length, the whole address."""
    text, _, length = address.partition("/")
    family = socket.AF_INET6 if ":" in text else socket.AF_INET
    try:
        raw = socket.inet_pton(family, text)
        prefix = int(length) if length else 8 * len(raw)
    except (OSError, ValueError):
        prefix = -1
    if not 0 <= prefix <= 128 or (family == socket.AF_INET and prefix > 32):
        raise ValueError(f"not an address with a prefix length: {address!r}")
    return family, raw, prefix


def attribute(kind: int, value: bytes) -> bytes:
    """A netlink attribute, padded to the boundary where the next one begins (netlink(7))."""
    return struct.pack("HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def rtnetlink(kind: int, body: bytes, what: str, create: bool = True) -> None:
    """One request to the kernel; raises OSError with what it answers."""
    flags = _NLM_F_REQUEST | _NLM_F_ACK | (_NLM_F_CREATE | _NLM_F_EXCL if create else 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
        netlink.send(struct.pack("IHHII", 16 + len(body), kind, flags, 1, 0) + body)
        answer = netlink.recv(65536)
    answer_kind, code = struct.unpack_from("H", answer, 4)[0], struct.unpack_from("i", answer, 16)[0]
    if answer_kind == _NLMSG_ERROR and code:
        raise OSError(-code, f"{what}: {os.strerror(-code)} (rtnetlink)")


def set_txqueuelen(name: str, packets: int) -> None:
    """`ip link set NAME txqueuelen PACKETS`. SIOCSIFTXQLEN wants root of the machine; rtnetlink, of the namespace."""
    body = struct.pack("BxHiII", socket.AF_UNSPEC, 0, socket.if_nametoindex(name), 0, 0)
    body += attribute(_IFLA_TXQLEN, struct.pack("I", packets))
    rtnetlink(_RTM_NEWLINK, body, f"set txqueuelen {packets} of {name}", create=False)


def add_address(name: str, address: str) -> None:
    """`ip address add ADDRESS dev NAME`. FileExistsError (EEXIST) if it is there already."""
    family, raw, prefix = _parse(address)
    flags = _IFA_F_NODAD if family == socket.AF_INET6 else 0
    body = struct.pack("BBBBI", family, prefix, flags, 0, socket.if_nametoindex(name))
    body += attribute(_IFA_LOCAL, raw) + attribute(_IFA_ADDRESS, raw)
    rtnetlink(_RTM_NEWADDR, body, f"add address {address} to {name}")


def add_route(name: str, destination: str, source: str | None = None) -> None:
    """`ip route add DESTINATION dev NAME [src SOURCE]`; "0.0.0.0/0" is the default route."""
    preferred = b"" if source is None else attribute(_RTA_PREFSRC, _parse(source)[1])
    kind = bytes((_RT_TABLE_MAIN, _RTPROT_STATIC, _RT_SCOPE_LINK, _RTN_UNICAST))
    _new_route(name, destination, kind, preferred, f"add route {destination} through {name}")


def add_local_route(destination: str) -> None:
    """`ip route add local DESTINATION dev lo`: every address of the network is ours, without one entry for each."""
    kind = bytes((_RT_TABLE_LOCAL, _RTPROT_STATIC, _RT_SCOPE_HOST, _RTN_LOCAL))
    _new_route("lo", destination, kind, b"", f"make {destination} local")


def _new_route(name: str, destination: str, kind: bytes, attributes: bytes, what: str) -> None:
    """`kind` is table, protocol, scope and type (struct rtmsg)."""
    family, raw, prefix = _parse(destination)
    body = struct.pack("BBBB4sI", family, prefix, 0, 0, kind, 0)
    body += attribute(_RTA_DST, raw) + attribute(_RTA_OIF, struct.pack("I", socket.if_nametoindex(name)))
    rtnetlink(_RTM_NEWROUTE, body + attributes, what)
