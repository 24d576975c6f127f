"""Who uses the ports of NAT addresses: the TCP entries of connection tracking, counted by what they compete for.

Lives here: NFNL_SUBSYS_CTNETLINK, asked and counted.  Does not live here: rules (nat_rules.py), judging (doctor/).

Rules
1. An entry's reply tuple is unique in its zone: (destination, its port) -> (NAT address, NAT port).  So the groups are
   those of (zone, destination, its port, NAT address).
2. Connections that go out under the NAT address without a translation (this machine's own) take its ports as well.
3. One entry at a time, nothing is kept of it but its port; memory is bounded by MOST_GROUPS and MOST_ENTRIES.

Layout: include/uapi/linux/netfilter/nfnetlink_conntrack.h; attributes in the order of ctnetlink_fill_info().
"""

from __future__ import annotations

import errno
import os
import struct
from _socket import AF_INET, AF_INET6, inet_ntop
from array import array
from collections.abc import Callable, Iterable
from typing import NamedTuple

from fourtuple.live.netlink import Netlink, attribute, attributes

NETLINK_NETFILTER = 12
MOST_ENTRIES = 1 << 20
MOST_GROUPS = 100_000
MOST_KEPT = 50
_CT_GET, _CT_STATS = 1 << 8 | 1, 1 << 8 | 4
_NESTED = 0x8000
_ORIGINAL, _REPLY, _STATUS, _PROTOINFO, _FILTER = 1, 2, 3, 4, 25
_TUPLE_IP, _TUPLE_PROTO, _TUPLE_ZONE, _PROTO_NUM, _ZONE = 1, 2, 3, 1, 18
_SOURCE_PORT, _DESTINATION_PORT = 2, 3
_FILTER_ORIGINAL, _BY_PROTOCOL = 1, 1 << 3  # CTA_FILTER_F_CTA_PROTO_NUM
_IPS_SRC_NAT = 0x10
_TCP_TIME_WAIT = 7  # enum tcp_conntrack; beyond it CLOSE and SYN_SENT2
_TCP = 6
_PROTOINFO_KIND = struct.pack("=H", _PROTOINFO | _NESTED)
_INSERT_FAILED, _DROP = 9, 10
_NO_FILTER = (errno.EINVAL, errno.EOPNOTSUPP, errno.EPROTONOSUPPORT)


class NatFlows(NamedTuple):
    """TCP connections that compete for the ports of one NAT address towards one destination."""

    address: str
    destination: str
    port: int
    used: int
    """Entries, so ports."""
    closing: int
    """Of them in TIME_WAIT or CLOSE: there for nf_conntrack_tcp_timeout_time_wait."""
    several_clients: bool
    """Connections of more than one source address."""
    ports: str
    """Bit map of the used ports, a hexadecimal number."""
    closing_ports: str


class Tracked(NamedTuple):
    """What was counted."""

    entries: int = 0
    """TCP entries looked at."""
    flows: tuple[NatFlows, ...] = ()
    """The fullest groups."""
    insert_failed: int | None = None
    """Connections whose tuple was taken, so their packet was dropped, since the namespace was made; None: not known."""
    dropped: int | None = None
    reason: str = ""
    """What was not counted, and why."""


def read_tracked(families: Iterable[int], nat_addresses: Iterable[str], size_of: Callable[[str], int]) -> Tracked:
    """The groups of the namespace that the calling thread is in, of these address families.

    `size_of`: how many ports a NAT address has at least.
    """
    count = _Count(frozenset(nat_addresses))
    try:
        for family in families:
            _count(family, count)
        failed, dropped = _statistics()
    except OSError as error:
        return Tracked(reason=_refusal(error.errno or 0))
    whole = count.entries < MOST_ENTRIES and not count.left_out
    reason = "" if whole else f"NAT ports: only the first {count.entries:,} connections were counted"
    return Tracked(count.entries, count.fullest(size_of), failed, dropped, reason)


def _refusal(code: int) -> str:
    if code in (errno.EPERM, errno.EACCES):
        return "NAT ports in use can only be read by root (CAP_NET_ADMIN)"
    if code in _NO_FILTER:
        return "NAT ports in use: no ctnetlink in this kernel (modprobe nf_conntrack_netlink)"
    return f"NAT ports in use: {os.strerror(code)}"


def _count(family: int, count: _Count) -> None:
    """TCP only, by the kernel's own filter (Linux 5.8); by hand where it has none."""
    header = struct.pack("=BBH", family, 0, 0)
    protocol = attribute(_TUPLE_PROTO | _NESTED, attribute(_PROTO_NUM, b"\6"))
    wanted = attribute(_ORIGINAL | _NESTED, protocol)
    wanted += attribute(_FILTER | _NESTED, attribute(_FILTER_ORIGINAL, struct.pack("=I", _BY_PROTOCOL)))
    try:
        _ask(header + wanted, family, count)
    except OSError as error:
        if error.errno not in _NO_FILTER:
            raise
        _ask(header, family, count)


def _ask(request: bytes, family: int, count: _Count) -> None:
    """A socket a question: a dump that is left early would be in the way of the next."""
    with Netlink(NETLINK_NETFILTER) as netlink:
        count.take(netlink.messages(_CT_GET, request), family)


def _statistics() -> tuple[int, int]:
    """insert_failed and drop, of all CPUs together."""
    failed = dropped = 0
    with Netlink(NETLINK_NETFILTER) as netlink:
        for message in netlink.messages(_CT_STATS, bytes(4)):
            found = dict(attributes(message, 4))
            failed += int.from_bytes(found.get(_INSERT_FAILED, b""), "big")
            dropped += int.from_bytes(found.get(_DROP, b""), "big")
    return failed, dropped


class _Layout:
    """Where things are in an entry of one family without zones: all of them, nearly always."""

    def __init__(self, family: int) -> None:
        self.family = family
        self.size = size = 4 if family == AF_INET else 16
        # nfgenmsg; then twice: tuple, its addresses (source, destination), its protocol (number, two ports)
        self.client = 4 + 12
        self.server = 4 + 4 + 4 + 2 * (4 + size) + 4 + 3 * 8 + 12
        self.address = self.server + size + 4
        self.protocol = self.address + size + 4 + 4
        self.server_port = self.protocol + 8
        self.port = self.server_port + 8
        self.status = self.port + 4
        self.status_head = struct.pack("=HH", 8, _STATUS)
        self.port_head = struct.pack("=HH", 6, _DESTINATION_PORT)

    def fits(self, message: bytes) -> bool:
        """Each part is where it should be, and it is about TCP."""
        return (
            len(message) >= self.status + 8
            and message[self.status : self.status + 4] == self.status_head
            and message[self.port - 4 : self.port] == self.port_head
            and message[self.protocol] == _TCP
        )


_KEY4, _KEY6 = (at.server_port + 2 - at.server for at in map(_Layout, (AF_INET, AF_INET6)))


class _Group:
    """Ports of one reply tuple, each doubled, the lowest bit for one that is closing."""

    __slots__ = ("client", "is_nat", "ports", "several")

    def __init__(self, client: bytes) -> None:
        self.client = client
        self.ports = array("I")
        self.several = False
        self.is_nat = False


class _Count:
    def __init__(self, nat_addresses: frozenset[str]) -> None:
        self.entries = 0
        self.left_out = 0
        self._nat_addresses = set(nat_addresses)
        self._groups: dict[bytes, _Group] = {}

    def take(self, messages: Iterable[bytes], family: int) -> None:
        """Each message once: this loop is what the answer costs, beside the kernel's own 3 µs a connection."""
        at = _Layout(family)
        status, port_at, protocol, server, end = at.status, at.port, at.protocol, at.server, at.server_port + 2
        client, client_end, status_head, port_head = at.client, at.client + at.size, at.status_head, at.port_head
        known, fits, least = self._groups, at.fits, status + 8
        for message in messages:
            zone = b""
            if (  # not fits(), spelled out
                message[status : status + 4] != status_head
                or message[port_at - 4 : port_at] != port_head
                or message[protocol] != _TCP
                or len(message) < least
            ):
                message, zone = _rebuilt(message)
                if not fits(message):
                    continue
            if self.entries >= MOST_ENTRIES:
                return
            self.entries += 1
            # what lies between the addresses and the port are the same headers in every entry
            key = message[server:end] + zone
            group = known.get(key) or self._new(key, message[client:client_end])
            if group is None:
                continue
            if message[client:client_end] != group.client:
                group.several = True
            closing = _is_closing(message, status)
            group.ports.append(message[port_at] << 9 | message[port_at + 1] << 1 | closing)
            if message[status + 7] & _IPS_SRC_NAT:
                group.is_nat = True

    def _new(self, key: bytes, client: bytes) -> _Group | None:
        if len(self._groups) >= MOST_GROUPS:
            self.left_out += 1
            return None
        made = self._groups[key] = _Group(client)
        return made

    def fullest(self, size_of: Callable[[str], int]) -> tuple[NatFlows, ...]:
        """The groups of NAT addresses that leave the smallest share of the ports."""
        named = [(*_endpoints(key), group) for key, group in self._groups.items()]
        nat = self._nat_addresses | {address for address, _, _, group in named if group.is_nat}
        chosen = [row for row in named if row[0] in nat]
        chosen.sort(key=lambda row: (-len(row[3].ports) / size_of(row[0]), *row[:3]))
        return tuple(_flows(*row) for row in chosen[:MOST_KEPT])


def _is_closing(message: bytes, status: int) -> bool:
    """By the state of CTA_PROTOINFO_TCP: behind status and timeout, nearly always."""
    if message[status + 18 : status + 20] == _PROTOINFO_KIND and len(message) > status + 28:
        return message[status + 28] >= _TCP_TIME_WAIT
    for kind, value in attributes(message, status):
        if kind == _PROTOINFO:
            return len(value) > 8 and value[8] >= _TCP_TIME_WAIT
    return False


def _rebuilt(message: bytes) -> tuple[bytes, bytes]:
    """An entry with more in it as one without, and the zone of its reply; (b"", b"") where it is none at all."""
    found = dict(attributes(message, 4))
    if _STATUS not in found:
        return b"", b""
    tuples, zone = b"", found.get(_ZONE, b"")
    for kind in (_ORIGINAL, _REPLY):
        parts = dict(attributes(found.get(kind, b"")))
        inside = b"".join(attribute(k | _NESTED, parts.get(k, b"")) for k in (_TUPLE_IP, _TUPLE_PROTO))
        tuples += attribute(kind | _NESTED, inside)
        if kind == _REPLY:
            zone = zone or parts.get(_TUPLE_ZONE, b"")
    made = message[:4] + tuples + attribute(_STATUS, found[_STATUS])
    return made + attribute(_PROTOINFO | _NESTED, found.get(_PROTOINFO, b"")), zone


def _endpoints(key: bytes) -> tuple[str, str, int]:
    """NAT address, destination, port; a zone may follow."""
    size, end = (16, _KEY6) if len(key) >= _KEY6 else (4, _KEY4)
    family = AF_INET6 if size == 16 else AF_INET
    server, address = key[:size], key[size + 4 : 2 * size + 4]
    return inet_ntop(family, address), inet_ntop(family, server), int.from_bytes(key[end - 2 : end], "big")


def _flows(address: str, destination: str, port: int, group: _Group) -> NatFlows:
    ports, closing = {each >> 1 for each in group.ports}, {each >> 1 for each in group.ports if each & 1}
    return NatFlows(
        address, destination, port, len(ports), len(closing), group.several, bit_map(ports), bit_map(closing)
    )


def bit_map(ports: Iterable[int]) -> str:
    """Ports as a hexadecimal number, bit n for port n."""
    found = bytearray(1 << 13)
    for port in ports:
        found[port >> 3] |= 1 << (port & 7)
    return f"{int.from_bytes(found, 'little'):x}"
