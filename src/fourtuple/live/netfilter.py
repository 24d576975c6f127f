"""What netfilter adds to the limits of connect(): the connection tracking table, and source NAT.

Rule: every function looks at the namespace that the calling thread is in.
"""

from __future__ import annotations

import errno
import os
import struct
from typing import NamedTuple

from fourtuple.live.netlink import Netlink, attributes, number, text

_NETLINK_NETFILTER = 12
# include/uapi/linux/netfilter/nf_tables.h: NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GET*
_GETCHAIN, _GETRULE = 10 << 8 | 4, 10 << 8 | 7
_CHAIN_TYPE = 7
_RULE_TABLE, _RULE_CHAIN, _RULE_EXPRESSIONS = 1, 2, 4
_EXPR_NAME, _EXPR_DATA, _NAT_TYPE, _TARGET_NAME = 1, 2, 1, 1
_NAT_SNAT = 0
_NFGENMSG = struct.pack("=BBH", 0, 0, 0)
_MOST_RULES = 20_000
_FAMILIES = {1: "inet", 2: "ip", 10: "ip6"}
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
        with Netlink(_NETLINK_NETFILTER) as netlink:
            found = _nft_rules(netlink)
    except OSError as error:
        return _unknown(error.errno or 0)
    legacy = [program for name, program in _LEGACY.items() if _has_nat_table(name)]
    reason = f"{' and '.join(legacy)} (legacy) have a nat table, whose rules are not read" if legacy else ""
    if len(found) >= _MOST_RULES:
        reason = f"there are more than {_MOST_RULES:,} rules"
    return Nat(not reason, tuple(dict.fromkeys(filter(None, map(_nat_rule, found)))), reason)


def _unknown(code: int) -> Nat:
    if code in (errno.EPERM, errno.EACCES):
        return Nat(False, reason="NAT rules can only be read by root (CAP_NET_ADMIN)")
    if code in (errno.EINVAL, errno.EPROTONOSUPPORT, errno.EOPNOTSUPP, errno.EAFNOSUPPORT):
        legacy = any(_has_nat_table(name) for name in _LEGACY)
        return Nat(not legacy, reason="iptables (legacy) have a nat table, whose rules are not read" if legacy else "")
    return Nat(False, reason=f"NAT rules: {os.strerror(code)}")


def _nft_rules(netlink: Netlink) -> list[bytes]:
    """Every rule, if there is a chain of type nat at all: where there is none, the others need not be looked at."""
    chains = netlink.dump(_GETCHAIN, _NFGENMSG, _MOST_RULES)
    if not any(text(dict(attributes(chain, 4)).get(_CHAIN_TYPE, b"")) == "nat" for chain in chains):
        return []
    return netlink.dump(_GETRULE, _NFGENMSG, _MOST_RULES)


def _nat_rule(message: bytes) -> str:
    """The rule in a few words if it is about source NAT, else ""."""
    found = dict(attributes(message, 4))
    for _, expression in attributes(found.get(_RULE_EXPRESSIONS, b"")):
        action = _action(dict(attributes(expression)))
        if action:
            where = (text(found.get(key, b"")) for key in (_RULE_TABLE, _RULE_CHAIN))
            return f"{' '.join([_FAMILIES.get(message[0], ''), *where])}: {action}".strip()
    return ""


def _action(expression: dict[int, bytes]) -> str:
    name, data = text(expression.get(_EXPR_NAME, b"")), dict(attributes(expression.get(_EXPR_DATA, b"")))
    if name == "masq":
        return "masquerade"
    if name == "nat" and number(data.get(_NAT_TYPE, b"\1")[-1:]) == _NAT_SNAT:
        return "snat"
    target = text(data.get(_TARGET_NAME, b"")) if name == "target" else ""
    return target.lower() if target in ("MASQUERADE", "SNAT") else ""


def _has_nat_table(name: str) -> bool:
    try:
        with open(f"/proc/thread-self/net/{name}") as file:
            return "nat" in file.read().split()
    except OSError:
        return False
