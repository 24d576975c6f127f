"""The second choice of a port: what source NAT leaves for the next connection to a destination.

Lives here: how full a NAT address is, and how likely a SYN finds no port.  Does not live here: reading (live/
ctnetlink.py), what is said about it (findings_nat.py).

The rules of nf_nat_core.c (Linux 6.18), as get_unique_tuple() and nf_nat_l4proto_unique_tuple() have them:
1. A rule without ports keeps the connection's own port unless its tuple is taken; one with ports keeps it if it is one
   of them.  `random` and `fully-random` always draw.
2. Else runs of neighbours are tried, each from a random start: 128 ports, then 64, 32, 16, 8; a range of at most 128
   is tried once, whole.  So a SYN may find none while there are some.
3. The last 32 of a run may take over an entry in TIME_WAIT or CLOSE if the new connection's sequence number is ahead
   (Linux 6.7, nf_nat_used_tuple_harder): about half of them, so with closing entries the answer is an interval.
4. Who finds none is dropped by __nf_conntrack_confirm: `insert_failed`, no errno; the SYN sent again tries again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from fourtuple.address import parse_ipv4, parse_ipv6

if TYPE_CHECKING:
    from fourtuple.live.ctnetlink import NatFlows
    from fourtuple.live.nat_rules import SourceNat
    from fourtuple.live.system import System

ANY_PORT = (1024, 65535)
"""Where a rule has no ports: for connections from 1024 on."""
MOST_ATTEMPTS = 128
_LEAST_ATTEMPTS = 16
_TAKES_OVER = 32
_TAKES_OVER_SINCE = (6, 7)
_RTO_MAX_S = 120


class Chance(NamedTuple):
    """A probability, between two bounds: what closing entries give decides."""

    low: float
    high: float


class NatGroup:
    """One NAT address towards one destination, under one range of ports."""

    def __init__(self, flows: NatFlows, rule: SourceNat | None, ports: tuple[int, int], inferred: bool) -> None:
        self.flows = flows
        self.rule = rule
        """None: no rule that is known gives this address."""
        self.low, self.high = ports
        self.is_inferred = inferred
        """Several rules may have given the address: it is the range that fits."""
        self.takes_over = True
        self.own_range = ANY_PORT
        """Ports that the clients come from: ip_local_port_range of this namespace."""

    @property
    def size(self) -> int:
        """Ports of the range."""
        return self.high - self.low + 1

    @cached_property
    def _taken(self) -> int:
        return int(self.flows.ports, 16) >> self.low & (1 << self.size) - 1

    @cached_property
    def _firm(self) -> int:
        """Those that nobody takes over."""
        closing = int(self.flows.closing_ports, 16) >> self.low if self.takes_over else 0
        return self._taken & ~closing

    @property
    def used(self) -> int:
        """Ports of the range that are taken."""
        return self._taken.bit_count()

    @property
    def closing(self) -> int:
        """Of them those that may be taken over."""
        return self.used - self._firm.bit_count()

    @property
    def free(self) -> int:
        """Ports of the range that nobody has."""
        return self.size - self.used

    @property
    def fill(self) -> float:
        """Share of the range that is taken."""
        return self.used / self.size

    @property
    def is_shared(self) -> bool:
        """The range may run out: it is not that each connection of the only client keeps its port."""
        return self._must_search(self._taken) > 0

    @cached_property
    def refused(self) -> Chance:
        """How likely the next SYN finds no port."""
        if not self.used:
            return Chance(0.0, 0.0)
        low = self._must_search(self._firm) * _search(self._taken, self._firm, self.size)
        return Chance(low, self._must_search(self._taken) * _search(self._taken, self._taken, self.size))

    def _must_search(self, taken: int) -> float:
        """How likely the client's own port cannot stay; the client's port is drawn from its own range."""
        low, high = max(self.low, self.own_range[0]), min(self.high, self.own_range[1])
        if (self.rule is not None and self.rule.random) or low > high:
            return 1.0
        if (low, high) == self.own_range and not self.flows.several_clients:
            return 0.0  # it takes none of its own ports twice
        within = taken >> (low - self.low) & (1 << (high - low + 1)) - 1
        free = high - low + 1 - within.bit_count()
        return 1 - free / (self.own_range[1] - self.own_range[0] + 1)

    def under(self, ports: tuple[int, int]) -> NatGroup:
        """The same connections under a rule with other ports."""
        rule = self.rule._replace(low=0, high=0, random="") if self.rule else None
        made = NatGroup(self.flows, rule, ports, self.is_inferred)
        made.takes_over, made.own_range = self.takes_over, self.own_range
        return made


def _search(taken: int, firm: int, size: int) -> float:
    """How likely every run ends without a port.  `taken`: bits of all used ports, `firm`: of those not taken over."""
    found = 1.0
    attempts = min(size, MOST_ATTEMPTS)
    while found:
        found *= _run_fails(taken, firm, size, attempts)
        if attempts >= size or attempts < _LEAST_ATTEMPTS:
            break
        attempts //= 2
    return found


def _run_fails(taken: int, firm: int, size: int, attempts: int) -> float:
    """Share of the starts from which no port of a run is to be had; runs go round the end of the range."""
    before = max(attempts - _TAKES_OVER, 0)
    whole = (1 << size) - 1
    fails = _runs(firm, size, attempts - before)
    fails = (fails >> before | fails << (size - before)) & whole
    if before:
        fails &= _runs(taken, size, before)
    return fails.bit_count() / size


def _runs(bits: int, size: int, length: int) -> int:
    """Bit n where n and the length - 1 behind it are set, round the end."""
    found = bits | bits << size
    have = 1
    while have < length:
        step = min(have, length - have)
        found &= found >> step
        have += step
    return found & (1 << size) - 1


# ------------------------------------------------------------------------------------------ from a reading


def nat_groups(system: System, kernel: tuple[int, int]) -> tuple[NatGroup, ...]:
    """What was counted, the fullest first."""
    tracked = system.nat.tracked
    if tracked is None:
        return ()
    own = {address.address for address in system.addresses}
    made = [_group(flows, system.nat.sources, own) for flows in tracked.flows]
    for group in made:
        group.takes_over = kernel >= _TAKES_OVER_SINCE
        group.own_range = (system.sysctls.port_low, system.sysctls.port_high)
    return tuple(sorted(made, key=lambda group: (-group.refused.high, -group.fill)))


def _group(flows: NatFlows, rules: Sequence[SourceNat], own: set[str]) -> NatGroup:
    """The rule is not told by an entry: the one of those with this address whose ports are the narrowest that fit."""
    by_range: Mapping[tuple[int, int], SourceNat] = {_ports(r): r for r in reversed(rules) if _gives(r, flows, own)}
    if not by_range:
        return NatGroup(flows, None, ANY_PORT, True)
    taken = int(flows.ports, 16)
    fitting = [ports for ports in by_range if not taken >> (ports[1] + 1) and not taken & (1 << ports[0]) - 1]
    ports = min(fitting, key=_size) if fitting else max(by_range, key=_size)
    return NatGroup(flows, by_range[ports], ports, len(by_range) > 1 or by_range[ports].from_map)


def _ports(rule: SourceNat) -> tuple[int, int]:
    return (rule.low, rule.high) if rule.high else ANY_PORT


def _size(ports: tuple[int, int]) -> int:
    return ports[1] - ports[0]


def _gives(rule: SourceNat, flows: NatFlows, own: set[str]) -> bool:
    """Whether a rule may have given a connection its address."""
    family = rule.where.split(" ")[0]
    if family in ("ip", "ip6") and (family == "ip6") != (":" in flows.address):
        return False
    if rule.from_map:
        return True
    if not rule.first:
        return not own or flows.address in own  # masquerade: the address of the device that it leaves by
    if (":" in rule.first) != (":" in flows.address):
        return False
    return _number(rule.first) <= _number(flows.address) <= _number(rule.last)


def _number(address: str) -> int:
    return parse_ipv6(address) if ":" in address else parse_ipv4(address)


def syns_and_seconds(system: System) -> tuple[int, int]:
    """How many SYNs a connect() sends that nobody answers, and after how long it gives up.

    tcp_write_timeout(): at the first timeout past what tcp_syn_retries doubled timeouts take.  The engine itself
    (sim/syn_schedule.py) takes 80 ms to load; a test holds the two together.
    """
    sysctls = system.sysctls
    budget = sum(map(_timeout, range(sysctls.tcp_syn_retries + 1)))
    syns = seconds = 0
    while seconds < budget:
        seconds += _timeout(max(0, syns - sysctls.tcp_syn_linear_timeouts))
        syns += 1
    return syns, seconds


def _timeout(backoff: int) -> int:
    return min(1 << min(backoff, 7), _RTO_MAX_S)
