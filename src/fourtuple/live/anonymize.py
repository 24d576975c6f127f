"""Other names for everything in a snapshot that tells whose machine it is; what the doctor computes stays the same.

Kept: ports, states, counts, times, sysctls, limits, inode numbers, which addresses are equal and of which kind
(loopback, private, link-local, public, ...; IPv4 or IPv6), 127.0.0.1, ::1 and the wildcards themselves, prefix lengths.
Replaced: addresses (IPv4 public ones by 198.18.0.0/15, IPv6 by 2001:db8::/32), names of the host, of namespaces,
devices, programs, control groups; pids and users (0 stays root); the kernel's local version.
Dropped: where NAT rules are (what they give stays), control groups' paths, texts about what could not be read that
hold names.

Rule: one `Aliases` for all that belongs together: the same thing has the same name in all of its snapshots.
"""

from __future__ import annotations

import re
from _socket import AF_INET, AF_INET6, inet_ntop, inet_pton
from array import array
from dataclasses import replace
from typing import TYPE_CHECKING

from fourtuple.live.cgroups import Group
from fourtuple.live.netns import Netns
from fourtuple.live.owners import Owner, Owners
from fourtuple.live.socket_table import SocketTable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from fourtuple.live.ctnetlink import NatFlows
    from fourtuple.live.nat_rules import SourceNat
    from fourtuple.live.netfilter import Nat
    from fourtuple.live.rtnetlink import Interface, Route
    from fourtuple.live.snapshot import Snapshot
    from fourtuple.live.system import Limits, System

# (first, prefix length, where the aliases begin): an address is of the first kind that holds it.
_KINDS4 = (
    (0x7F000000, 8, 0x7F000001),
    (0x0A000000, 8, 0x0A000000),
    (0xAC100000, 12, 0xAC100000),
    (0xC0A80000, 16, 0xC0A80000),
    (0x64400000, 10, 0x64400000),  # carriers' (RFC 6598)
    (0xA9FE0000, 16, 0xA9FE0000),
    (0xE0000000, 4, 0xE8000000),
    (0, 0, 0xC6120000),  # 198.18.0.0/15 (RFC 2544)
)
_FULL4, _OVERFLOW4 = 0x1FFFF, 0xF0000000  # more public addresses than 198.18.0.0/15 has go to 240.0.0.0/4
_SAME4 = frozenset({0, 0x7F000001, 0xFFFFFFFF})
_KINDS6 = (
    (b"\xfe\x80", 10, b"\xfe\x80"),
    (b"\xfc", 7, b"\xfd"),
    (b"\xff", 8, b"\xff\x0e"),
    (b"\x00\x64\xff\x9b" + bytes(8), 96, b"\x00\x64\xff\x9b"),  # NAT64 (RFC 6052)
    (b"", 0, b"\x20\x01\x0d\xb8"),
)
_MAPPED = bytes(10) + b"\xff\xff"
_SAME6 = frozenset({bytes(16), bytes(15) + b"\1"})
_VERSION = re.compile(r"\d+(?:\.\d+)*")
_FIRST_PID, _FIRST_UID = 1001, 1000


class Aliases:
    """Old name -> new name, by kind of thing, numbered as they are met."""

    def __init__(self, known: Mapping[str, Sequence[int | str]] | None = None) -> None:
        """`known`: what `known()` of earlier ones gave, for the same names again."""
        self._numbers: dict[str, dict[object, int]] = {}
        for kind, things in (known or {}).items():
            for thing in things:
                self._number(kind, bytes.fromhex(str(thing)) if kind.startswith("ipv6") else thing)

    def known(self) -> dict[str, list[object]]:
        """Kind -> the old names in the order of their numbers, fit for JSON.  Whoever has it can undo the aliases."""
        return {
            kind: [thing.hex() if isinstance(thing, bytes) else thing for thing in numbers]
            for kind, numbers in self._numbers.items()
        }

    def _number(self, kind: str, thing: object) -> int:
        """1 for the first thing of its kind, and so on; the same for the same."""
        seen = self._numbers.setdefault(kind, {})
        return seen.setdefault(thing, len(seen) + 1)

    def _name(self, kind: str, thing: str) -> str:
        return f"{kind}-{self._number(kind, thing)}" if thing else ""

    # -------------------------------------------------------------------------------------- addresses

    def ipv4(self, value: int) -> int:
        """The alias of an address in host order."""
        if value in _SAME4:
            return value
        first, length, base = next(row for row in _KINDS4 if not (value ^ row[0]) >> (32 - row[1]) or not row[1])
        number = self._number(f"ipv4 {first:x}", value)
        if length == 0 and number >= _FULL4:
            return _OVERFLOW4 + number - _FULL4
        return base + number

    def ipv6(self, value: bytes) -> bytes:
        """The alias of 16 bytes."""
        if value in _SAME6:
            return value
        if value.startswith(_MAPPED):
            return _MAPPED + self.ipv4(int.from_bytes(value[12:], "big")).to_bytes(4, "big")
        first, _, base = next(row for row in _KINDS6 if _is_within(value, row[0], row[1]))
        number = self._number(f"ipv6 {first.hex()}", value)
        return base + number.to_bytes(16 - len(base), "big")

    def address(self, text: str) -> str:
        """The alias of an address as text; "" stays, and so does the device behind a %."""
        if not text:
            return ""
        host, percent, device = text.partition("%")
        if ":" in host:
            host = inet_ntop(AF_INET6, self.ipv6(inet_pton(AF_INET6, host)))
        else:
            host = inet_ntop(AF_INET, self.ipv4(int.from_bytes(inet_pton(AF_INET, host), "big")).to_bytes(4, "big"))
        return host + percent + device

    # -------------------------------------------------------------------------------------- a snapshot

    def snapshot(self, one: Snapshot) -> Snapshot:
        """The alias of all of it."""
        system = self._system(one.system)
        return replace(
            one,
            sockets=self._table(one.sockets, system),
            system=system,
            routes=tuple(self._route(route) for route in one.routes),
            owners=self._owners(one.owners) if one.owners else None,
            limits={limits.pid: limits for limits in map(self._limits, one.limits.values())},
            is_anonymized=True,
            unseen=("some network namespaces could not be read",) if one.unseen else (),
        )

    def _table(self, table: SocketTable, system: System) -> SocketTable:
        packed = table.pack()
        for name in ("saddr", "daddr"):
            packed[name] = self._address_column(table.family, getattr(table, name))
        packed["addresses6"] = b"".join(map(self.ipv6, table.addresses6))
        packed["uid"] = _column("I", table.uid, {uid: self._uid(uid) for uid in sorted(set(table.uid))})
        packed["cgroup"] = _column("Q", table.cgroup, {n: self._cgroup(n) for n in sorted(set(table.cgroup))})
        return SocketTable.unpack(
            packed,
            netns=Netns(system.netns, "", system.netns_inode, False),
            source=table.source,
            consistent=table.consistent,
            bound_known=table.bound_known,
            listeners_known=table.listeners_known,
            taken_at=table.taken_at,
            elapsed_s=table.elapsed_s,
        )

    def _address_column(self, families: Iterable[int], column: Sequence[int]) -> bytes:
        known: dict[int, int] = {}
        aliases = array("I", column)
        for row, family in enumerate(families):
            if family == AF_INET:
                value = aliases[row]
                if value not in known:
                    known[value] = self.ipv4(value)
                aliases[row] = known[value]
        return aliases.tobytes()

    def _uid(self, uid: int) -> int:
        return uid and _FIRST_UID - 1 + self._number("uid", uid)

    def _pid(self, pid: int) -> int:
        return pid if pid <= 1 else _FIRST_PID - 1 + self._number("pid", pid)

    def _cgroup(self, number: int) -> int:
        return number and self._number("cgroup id", number)

    def _system(self, system: System) -> System:
        version = _VERSION.match(system.kernel)
        return replace(
            system,
            hostname=self._name("host", system.hostname),
            kernel=version[0] if version else "",
            container="container" if system.container else "",
            netns=self._name("netns", system.netns),
            netns_inode=self._number("netns inode", system.netns_inode),
            interfaces=tuple(map(self._interface, system.interfaces)),
            addresses=tuple(entry._replace(address=self.address(entry.address)) for entry in system.addresses),
            nat=self._nat(system.nat),
        )

    def _nat(self, nat: Nat) -> Nat:
        return nat._replace(
            rules=tuple(f"rule: {rule.rpartition(': ')[2]}" for rule in nat.rules),
            sources=tuple(map(self._source_nat, nat.sources)),
            tracked=nat.tracked and nat.tracked._replace(flows=tuple(map(self._flows, nat.tracked.flows))),
        )

    def _source_nat(self, rule: SourceNat) -> SourceNat:
        """Of several addresses those in between have aliases elsewhere: as if from a map."""
        first, last = self.address(rule.first), self.address(rule.last)
        where = f"{rule.where.split(' ')[0]} TABLE CHAIN"
        return rule._replace(where=where, first=first, last=last, from_map=rule.from_map or first != last)

    def _flows(self, flows: NatFlows) -> NatFlows:
        return flows._replace(address=self.address(flows.address), destination=self.address(flows.destination))

    def _interface(self, device: Interface) -> Interface:
        return device._replace(name="lo" if device.is_loopback else f"dev{device.ifindex}")

    def _route(self, route: Route) -> Route:
        host, percent, _ = route.destination.partition("%")
        return route._replace(
            destination=self.address(host) + (f"%{route.interface}" if percent else ""),
            bound=self.address(route.bound),
            source=self.address(route.source),
            gateway=self.address(route.gateway),
        )

    def _limits(self, limits: Limits) -> Limits:
        return limits._replace(pid=self._pid(limits.pid))

    def _owners(self, owners: Owners) -> Owners:
        return replace(
            owners,
            by_inode={inode: self._owner(owner) for inode, owner in owners.by_inode.items()},
            holders={inode: tuple(map(self._pid, pids)) for inode, pids in owners.holders.items()},
            groups={self._cgroup(number): self._group(group) for number, group in owners.groups.items()},
        )

    def _owner(self, owner: Owner) -> Owner:
        group = self._group(Group(owner.cgroup, owner.container, owner.pod, owner.unit))
        command = self._name("program", owner.command)
        return Owner(
            self._pid(owner.pid),
            command,
            command[:15],
            self._uid(owner.uid),
            group.path,
            group.container,
            group.unit,
            group.pod,
            owner.pid_inside and 1,
        )

    def _group(self, group: Group) -> Group:
        return Group(
            f"/{self._name('group', group.path)}" if group.path.strip("/") else group.path,
            self._name("container", group.container),
            self._name("pod", group.pod),
            self._name("unit", group.unit),
        )


def _is_within(value: bytes, first: bytes, length: int) -> bool:
    """Whether a prefix of that length covers an address."""
    difference = int.from_bytes(value, "big") ^ int.from_bytes(first.ljust(16, b"\0"), "big")
    return not difference >> (128 - length)


def _column(code: str, column: Iterable[int], aliases: dict[int, int]) -> bytes:
    return array(code, map(aliases.__getitem__, column)).tobytes()
