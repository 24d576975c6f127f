"""Source NAT statements of nftables rules, also of those that iptables-nft has made.

Lives here: what a rule gives a connection.  Does not live here: which connections it matches; asking for the rules
(netfilter.py); who uses the ports (ctnetlink.py).

Layouts: include/uapi/linux/netfilter/nf_tables.h (NFTA_*), nf_nat.h (nf_nat_range and its relatives).
"""

from __future__ import annotations

import struct
from _socket import AF_INET, AF_INET6, inet_ntop
from typing import NamedTuple

from fourtuple.live.netlink import attributes, text

_RULE_TABLE, _RULE_CHAIN, _RULE_HANDLE, _RULE_EXPRESSIONS = 1, 2, 3, 4
_EXPR_NAME, _EXPR_DATA = 1, 2
_IMMEDIATE_REGISTER, _IMMEDIATE_DATA, _DATA_VALUE = 1, 2, 1
_NAT_TYPE, _NAT_ADDRESSES, _NAT_PORTS, _NAT_FLAGS = 1, (3, 4), (5, 6), 7
_MASQ_FLAGS, _MASQ_PORTS = 1, (2, 3)
_TARGET_NAME, _TARGET_REVISION, _TARGET_INFO = 1, 2, 3
_SNAT = 0
_MAP_IPS, _PROTO_SPECIFIED, _RANDOM, _PERSISTENT, _FULLY_RANDOM = 1, 2, 4, 8, 16
_FAMILIES = {1: "inet", AF_INET: "ip", AF_INET6: "ip6"}
_COMPAT = struct.Struct("=II4s4s2s2s")  # nf_nat_ipv4_multi_range_compat: of IPv4, revision 0
_RANGE = struct.Struct("=I16s16s2s2s")  # nf_nat_range, and how nf_nat_range2 begins


class SourceNat(NamedTuple):
    """What a rule gives the connections that it matches: an address, perhaps a port."""

    where: str
    """`ip nat POSTROUTING`: family, table, chain."""
    action: str
    """masquerade or snat."""
    handle: int = 0
    """The rule's number in its table, for `nft replace rule`."""
    first: str = ""
    """Lowest address; "" where it is not fixed: of masquerade, or from a map."""
    last: str = ""
    low: int = 0
    """Lowest port; 0 where the rule has none: then a port stays unless it is taken."""
    high: int = 0
    random: str = ""
    """random, or fully-random: the port is always drawn."""
    persistent: bool = False
    by_iptables: bool = False
    from_map: bool = False
    """Its address or port is looked up, packet by packet."""

    @property
    def name(self) -> str:
        """`ip nat POSTROUTING: masquerade`."""
        return f"{self.where}: {self.action}".strip()


def source_nat(message: bytes) -> SourceNat | None:
    """What a rule (NFT_MSG_NEWRULE) says about source NAT; None: nothing."""
    found = dict(attributes(message, 4))
    where = " ".join([_FAMILIES.get(message[0], ""), *(text(found.get(k, b"")) for k in (_RULE_TABLE, _RULE_CHAIN))])
    registers: dict[bytes, bytes] = {}
    for _, expression in attributes(found.get(_RULE_EXPRESSIONS, b"")):
        parts = dict(attributes(expression))
        name, data = text(parts.get(_EXPR_NAME, b"")), dict(attributes(parts.get(_EXPR_DATA, b"")))
        if name == "immediate":
            value = dict(attributes(data.get(_IMMEDIATE_DATA, b"")))
            registers[data.get(_IMMEDIATE_REGISTER, b"")] = value.get(_DATA_VALUE, b"")
            continue
        made = _statement(name, data, registers, message[0])
        if made:
            return made._replace(where=where.strip(), handle=int.from_bytes(found.get(_RULE_HANDLE, b""), "big"))
    return None


def _statement(name: str, data: dict[int, bytes], registers: dict[bytes, bytes], family: int) -> SourceNat | None:
    if name == "masq":
        return _made("masquerade", data.get(_MASQ_FLAGS, b""), ("", ""), _values(data, registers, _MASQ_PORTS))
    if name == "nat" and int.from_bytes(data.get(_NAT_TYPE, b"\1"), "big") == _SNAT:
        low, high = (_address(value) for value in _values(data, registers, _NAT_ADDRESSES))
        made = _made("snat", data.get(_NAT_FLAGS, b""), (low, high), _values(data, registers, _NAT_PORTS))
        return made._replace(from_map=not low or (_NAT_PORTS[0] in data and not made.low))
    return _target(data, family) if name == "target" else None


def _values(data: dict[int, bytes], registers: dict[bytes, bytes], names: tuple[int, int]) -> tuple[bytes, bytes]:
    """What two registers are loaded with; the second is the first where there is none.  b"": from a map, or nothing."""
    low = registers.get(data.get(names[0], b""), b"")
    return low, registers.get(data[names[1]], b"") if names[1] in data else low


def _address(value: bytes) -> str:
    return inet_ntop(AF_INET6 if len(value) == 16 else AF_INET, value) if len(value) in (4, 16) else ""


def _made(action: str, flags: bytes | int, addresses: tuple[str, str], ports: tuple[bytes, bytes]) -> SourceNat:
    bits = flags if isinstance(flags, int) else int.from_bytes(flags, "big")
    low, high = sorted(int.from_bytes(port[:2], "big") for port in ports)  # as nf_nat_l4proto_unique_tuple sorts them
    random = "fully-random" if bits & _FULLY_RANDOM else "random" if bits & _RANDOM else ""
    return SourceNat("", action, 0, *addresses, low, high, random, bool(bits & _PERSISTENT))


def _target(data: dict[int, bytes], family: int) -> SourceNat | None:
    """-j MASQUERADE and -j SNAT of iptables-nft."""
    name, info = text(data.get(_TARGET_NAME, b"")), data.get(_TARGET_INFO, b"")
    if name not in ("MASQUERADE", "SNAT"):
        return None
    bare = SourceNat("", name.lower(), by_iptables=True)
    if family == AF_INET and not int.from_bytes(data.get(_TARGET_REVISION, b""), "big"):
        if len(info) < _COMPAT.size:
            return bare
        _, flags, *values = _COMPAT.unpack_from(info)
    elif len(info) >= _RANGE.size:
        flags, *values = _RANGE.unpack_from(info)
    else:
        return bare
    size = 4 if family == AF_INET else 16
    addresses = [_address(value[:size]) if flags & _MAP_IPS else "" for value in values[:2]]
    ports = values[2:] if flags & _PROTO_SPECIFIED else [b"", b""]
    made = _made(name.lower(), flags, (addresses[0], addresses[1]), (ports[0], ports[1]))
    return made._replace(by_iptables=True)
