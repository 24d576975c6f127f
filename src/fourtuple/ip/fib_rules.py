"""Policy rules: which table is asked for which packet (net/core/fib_rules.c, net/ipv4/fib_rules.c)."""

from __future__ import annotations

from dataclasses import dataclass
from errno import EACCES, EINVAL, ENETUNREACH
from types import MappingProxyType

from fourtuple.address import prefix_mask
from fourtuple.ip.fib_table import INET_DSCP_MASK, Flow
from fourtuple.ip.rtnetlink import RT_TABLE_DEFAULT, RT_TABLE_LOCAL, RT_TABLE_MAIN, RTPROT_BOOT, RTPROT_KERNEL

# fib4_rule_action
ERROR_OF_ACTION = MappingProxyType({"unreachable": -ENETUNREACH, "prohibit": -EACCES, "blackhole": -EINVAL})


@dataclass(frozen=True, slots=True)
class FibRule:
    """One policy rule. Fields left at 0 match everything."""

    priority: int
    table: int = 0
    action: str = "lookup"
    """'lookup' asks `table`; 'unreachable', 'prohibit' and 'blackhole' answer an errno."""
    src: int = 0
    src_len: int = 0
    dst: int = 0
    dst_len: int = 0
    mark: int = 0
    mark_mask: int = 0
    tos: int = 0
    oif: int = 0
    protocol: int = RTPROT_BOOT
    """Who made it. One of the user's may repeat one of the kernel's."""

    def matches(self, flow: Flow) -> bool:
        """fib_rule_match() and fib4_rule_match()."""
        return not (
            (self.oif and self.oif != flow.oif)
            or (self.mark ^ flow.mark) & self.mark_mask
            or (flow.saddr ^ self.src) & prefix_mask(self.src_len)
            or (flow.daddr ^ self.dst) & prefix_mask(self.dst_len)
            or (self.tos and self.tos != flow.tos & INET_DSCP_MASK)
        )

    def repeats(self, other: FibRule) -> bool:
        """rule_exists(): refused next to `other`. Addresses and TOS count only where this rule has them."""
        return (
            (self.priority, self.table, self.action, self.mark, self.mark_mask, self.oif, self.protocol)
            == (other.priority, other.table, other.action, other.mark, other.mark_mask, other.oif, other.protocol)
            and (not self.src_len or (self.src, self.src_len) == (other.src, other.src_len))
            and (not self.dst_len or (self.dst, self.dst_len) == (other.dst, other.dst_len))
            and (not self.tos or self.tos == other.tos)
        )


def default_rules() -> list[FibRule]:
    """fib_default_rules_init."""
    places = (0, RT_TABLE_LOCAL), (32766, RT_TABLE_MAIN), (32767, RT_TABLE_DEFAULT)
    return [FibRule(priority, table, protocol=RTPROT_KERNEL) for priority, table in places]


def default_priority(rules: list[FibRule]) -> int:
    """fib_default_rule_pref: just before the second rule, when that leaves room."""
    return rules[1].priority - 1 if len(rules) > 1 and rules[1].priority else 0


def insert_rule(rules: list[FibRule], rule: FibRule) -> None:
    """In order of priority, after its equals."""
    at = 0
    while at < len(rules) and rules[at].priority <= rule.priority:
        at += 1
    rules.insert(at, rule)
