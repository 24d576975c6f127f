"""What netfilter adds to the limits of connect(): the connection tracking table, and source NAT.

Rule: every function looks at the namespace that the calling thread is in.
"""

from __future__ import annotations

import errno
import os
import struct
from functools import partial
from typing import NamedTuple

from fourtuple.live.ctnetlink import NETLINK_NETFILTER, Tracked, read_tracked
from fourtuple.live.nat_rules import SourceNat, source_nat
from fourtuple.live.netlink import Netlink, attributes, text

# include/uapi/linux/netfilter/nf_tables.h: NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GET*
_GETCHAIN, _GETRULE = 10 << 8 | 4, 10 << 8 | 7
_CHAIN_TYPE = 7
_NFGENMSG = struct.pack("=BBH", 0, 0, 0)
_MOST_RULES = 20_000
_AF_INET, _AF_INET6 = 2, 10
_ALL_PORTS = 65535 - 1024 + 1
_LEGACY = {"ip_tables_names": "iptables", "ip6_tables_names": "ip6tables"}


class Conntrack(NamedTuple):
    """The connection tracking table; each connection through it takes an entry."""

    used: int
    maximum: int
    """0: no limit."""
    time_wait_s: int | None = None
    """How long the entry of a closed connection stays."""
    established_s: int | None = None


class Nat(NamedTuple):
    """Rules that give outgoing connections another source address, and perhaps another port."""

    is_known: bool = False
    """False: the rules could not be read, or not all of them; `reason` says why."""
    rules: tuple[str, ...] = ()
    """`ip nat POSTROUTING: masquerade`."""
    reason: str = ""
    sources: tuple[SourceNat, ...] = ()
    """The same rules, taken apart."""
    tracked: Tracked | None = None
    """The ports in use; None: there is no such rule, so nobody has looked."""


def read_conntrack() -> Conntrack | None:
    """Use and limit of the table; None where there is none, or this namespace may not see it."""
    count, maximum = _read("count"), _read("max")
    if count is None or maximum is None:
        return None
    return Conntrack(count, maximum, _read("tcp_timeout_time_wait"), _read("tcp_timeout_established"))


def _read(name: str) -> int | None:
    try:
        with open(f"/proc/sys/net/netfilter/nf_conntrack_{name}") as file:
            return int(file.read())
    except (OSError, ValueError):
        return None


def read_nat() -> Nat:
    """Source NAT rules of nftables and iptables-nft; whether the older iptables have a nat table."""
    try:
        with Netlink(NETLINK_NETFILTER) as netlink:
            found = _nft_rules(netlink)
    except OSError as error:
        return _unknown(error.errno or 0)
    legacy = [program for name, program in _LEGACY.items() if _has_nat_table(name)]
    reason = _unread_rules(legacy)
    if len(found) >= _MOST_RULES:
        reason = f"there are more than {_MOST_RULES:,} rules"
    sources = tuple(filter(None, map(source_nat, found)))
    rules = tuple(dict.fromkeys(source.name for source in sources))
    return Nat(not reason, rules, reason, sources, _tracked(sources, legacy))


def _tracked(sources: tuple[SourceNat, ...], legacy: list[str]) -> Tracked | None:
    """Ports in use: asked only where something may change them, as it takes about 5 µs a connection."""
    families = {_AF_INET6 if source.where.startswith("ip6 ") else _AF_INET for source in sources}
    if any(source.where.startswith("inet ") for source in sources):
        families = {_AF_INET, _AF_INET6}
    families |= {_AF_INET if program == "iptables" else _AF_INET6 for program in legacy}
    addresses = [source.first for source in sources if source.first]
    return read_tracked(sorted(families), addresses, partial(_least_ports, sources)) if families else None


def _least_ports(sources: tuple[SourceNat, ...], address: str) -> int:
    """Of the rules that may give this address the narrowest range."""
    rules = [rule for rule in sources if rule.high and (rule.first != rule.last or rule.first in ("", address))]
    return min([rule.high - rule.low + 1 for rule in rules], default=_ALL_PORTS)


def _unknown(code: int) -> Nat:
    if code in (errno.EPERM, errno.EACCES):
        return Nat(False, reason="NAT rules can only be read by root (CAP_NET_ADMIN)")
    if code in (errno.EINVAL, errno.EPROTONOSUPPORT, errno.EOPNOTSUPP, errno.EAFNOSUPPORT):
        return _without_nft()
    return Nat(False, reason=f"NAT rules: {os.strerror(code)}")


def _without_nft() -> Nat:
    """A kernel without nf_tables."""
    legacy = [program for name, program in _LEGACY.items() if _has_nat_table(name)]
    return Nat(not legacy, (), _unread_rules(legacy), (), _tracked((), legacy))


def _unread_rules(legacy: list[str]) -> str:
    return f"{' and '.join(legacy)} (legacy) have a nat table, whose rules are not read" if legacy else ""


def _nft_rules(netlink: Netlink) -> list[bytes]:
    """Every rule, if there is a chain of type nat at all: where there is none, the others need not be looked at."""
    chains = netlink.dump(_GETCHAIN, _NFGENMSG, _MOST_RULES)
    if not any(text(dict(attributes(chain, 4)).get(_CHAIN_TYPE, b"")) == "nat" for chain in chains):
        return []
    return netlink.dump(_GETRULE, _NFGENMSG, _MOST_RULES)


def _has_nat_table(name: str) -> bool:
    try:
        with open(f"/proc/thread-self/net/{name}") as file:
            return "nat" in file.read().split()
    except OSError:
        return False
