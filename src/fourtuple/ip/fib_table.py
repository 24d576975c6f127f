"""One routing table: routes by prefix, the longest match first (net/ipv4/fib_trie.c), and what a route is.

Here: Flow (the question), FibRoute (the answer), FibTable, and asking the tables where the user has made no rules.
Not here: which tables the rules ask (fib_rules.py, fib.py), how a route is checked before it goes in
(fib_semantics.py), what is made of the answer (route.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from errno import EAGAIN, ENETUNREACH
from typing import TYPE_CHECKING

from fourtuple.address import prefix_mask
from fourtuple.ip.rtnetlink import (
    ERROR_OF_TYPE,
    RT_SCOPE_HOST,
    RT_SCOPE_NOWHERE,
    RT_SCOPE_UNIVERSE,
    RT_TABLE_DEFAULT,
    RT_TABLE_MAIN,
    RTN_UNICAST,
    RTPROT_BOOT,
)

if TYPE_CHECKING:
    from fourtuple.ip.route import Rtable

INET_DSCP_MASK = 0xFC
_DSCP_MASK = INET_DSCP_MASK
_RTN_UNICAST = RTN_UNICAST


class FibClock:
    """The generation of the tables, in a place of its own: compiled code compares it for every packet."""

    __slots__ = ("generation",)

    def __init__(self) -> None:
        self.generation = 0


class Flow:
    """What is looked up (struct flowi4). The lookup fills in addresses and device as it decides them."""

    __slots__ = ("anysrc", "daddr", "mark", "oif", "saddr", "scope", "tos")

    def __init__(
        self,
        daddr: int,
        saddr: int = 0,
        oif: int = 0,
        mark: int = 0,
        tos: int = 0,
        scope: int = RT_SCOPE_UNIVERSE,
        anysrc: bool = False,
    ) -> None:
        self.daddr = daddr
        self.saddr = saddr
        self.oif = oif
        self.mark = mark
        self.tos = tos & _DSCP_MASK
        self.scope = scope
        self.anysrc = anysrc


@dataclass(frozen=True, slots=True)
class Metrics:
    """Metrics of a route (RTAX_*); 0 is unset."""

    mtu: int = 0
    mtu_locked: bool = False
    advmss: int = 0
    window: int = 0
    initrwnd: int = 0
    initcwnd: int = 0
    hoplimit: int = 0
    rto_min_us: int = 0
    ecn: bool = False
    quickack: bool = False


NO_METRICS = Metrics()


@dataclass(frozen=True, slots=True)
class PathMtu:
    """A path MTU learned for one destination (struct fib_nh_exception)."""

    mtu: int
    locked: bool
    expires_us: int


class FibRoute:
    """One route (struct fib_alias and its fib_info with one next hop)."""

    __slots__ = (
        "exceptions", "gateway", "metrics", "nh_scope", "oif", "onlink", "prefix", "prefixlen", "prefsrc", "priority",
        "protocol", "rth_generation", "rth_output", "scope", "table", "tos", "type",
    )  # fmt: skip

    prefix: int
    prefixlen: int
    type: int
    table: int
    scope: int
    priority: int
    tos: int
    oif: int
    gateway: int
    onlink: bool
    prefsrc: int
    metrics: Metrics
    protocol: int
    nh_scope: int
    """Scope of the next hop: nowhere for a local address, host for an on-link route, link for a gateway."""
    exceptions: dict[int, PathMtu]
    """Destination -> path MTU."""
    rth_output: Rtable | None
    """The Rtable that the last lookup made of this route (fib_nh_common's nhc_pcpu_rth_output), None at first ..."""
    rth_generation: int
    """... good while fib.generation is this."""

    def __init__(
        self, prefix: int, prefixlen: int, type: int = RTN_UNICAST, table: int = RT_TABLE_MAIN, priority: int = 0
    ) -> None:
        self.prefix = prefix
        self.prefixlen = prefixlen
        self.type = type
        self.table = table
        self.priority = priority
        self.scope = RT_SCOPE_UNIVERSE
        self.tos = self.oif = self.gateway = self.prefsrc = 0
        self.onlink = False
        self.metrics = NO_METRICS
        self.protocol = RTPROT_BOOT
        self.nh_scope = RT_SCOPE_HOST
        self.exceptions = {}
        self.rth_output = None
        self.rth_generation = 0

    @property
    def order(self) -> tuple[int, int, int]:
        """fib_find_alias(): in one prefix the higher table (local before main), the higher TOS, the lower metric."""
        return -self.table, -self.tos, self.priority

    @property
    def survives_down(self) -> bool:
        """fib_sync_down_dev() spares local addresses when their device goes down."""
        return self.nh_scope == RT_SCOPE_NOWHERE

    def same_route(self, other: FibRoute) -> bool:
        """Equal but for protocol and learned MTUs: a second one is refused."""
        return self._identity() == other._identity()

    def _identity(self) -> tuple[object, ...]:
        return (self.type, self.scope, self.oif, self.gateway, self.onlink, self.prefsrc, self.metrics, self.protocol)

    def answer(self, flow: Flow) -> FibRoute | int | None:
        """fib_table_lookup(), one alias: the route, the errno of its type, or None if it is not for this flow."""
        if (self.tos and self.tos != flow.tos) or self.scope < flow.scope:
            return None
        if self.type != _RTN_UNICAST:
            error = ERROR_OF_TYPE.get(self.type)
            if error is not None:
                return error
        return None if flow.oif and flow.oif != self.oif else self


class FibTable:
    """Routes of one table; or of local and main together, which share one trie until the first custom rule."""

    __slots__ = ("_lengths",)

    def __init__(self) -> None:
        # (mask, {prefix: routes in order}) with the longest mask first; only lengths in use are present.
        self._lengths: list[tuple[int, dict[int, list[FibRoute]]]] = []

    def __iter__(self) -> Iterator[FibRoute]:
        for _, buckets in self._lengths:
            for routes in buckets.values():
                yield from routes

    def lookup(self, flow: Flow) -> FibRoute | int:
        """The route for the flow, the negative errno of an error route, or -EAGAIN: ask the next table."""
        daddr = flow.daddr
        for mask, buckets in self._lengths:
            routes = buckets.get(daddr & mask)
            if routes is None:
                continue
            for route in routes:
                found = route.answer(flow)
                if found is not None:
                    return found
        return -EAGAIN

    def at(self, prefix: int, prefixlen: int) -> list[FibRoute]:
        """Routes to exactly this prefix, in order."""
        mask = prefix_mask(prefixlen)
        return next((list(b.get(prefix, ())) for m, b in self._lengths if m == mask), [])

    def insert(self, route: FibRoute, *, first: bool = False) -> None:
        """Put it after its equals, or before them."""
        routes = self._buckets(prefix_mask(route.prefixlen)).setdefault(route.prefix, [])
        key = route.order
        at = 0
        while at < len(routes) and (routes[at].order < key or (not first and routes[at].order == key)):
            at += 1
        routes.insert(at, route)

    def replace(self, old: FibRoute, new: FibRoute) -> None:
        """Put `new` in the very place of `old`."""
        routes = self._buckets(prefix_mask(old.prefixlen))[old.prefix]
        routes[routes.index(old)] = new

    def remove(self, route: FibRoute) -> None:
        mask = prefix_mask(route.prefixlen)
        buckets = self._buckets(mask)
        routes = buckets[route.prefix]
        routes.remove(route)
        if not routes:
            del buckets[route.prefix]
        if not buckets:
            self._lengths = [pair for pair in self._lengths if pair[0] != mask]

    def _buckets(self, mask: int) -> dict[int, list[FibRoute]]:
        for m, buckets in self._lengths:
            if m == mask:
                return buckets
        made: dict[int, list[FibRoute]] = {}
        self._lengths.append((mask, made))
        self._lengths.sort(key=lambda pair: -pair[0])
        return made


def lookup_without_rules(tables: dict[int, FibTable], flow: Flow) -> FibRoute | int:
    """ip_fib.h:fib_lookup without rules of the user: main, which local shares, then default; or -errno."""
    for number in (RT_TABLE_MAIN, RT_TABLE_DEFAULT):
        table = tables.get(number)
        if table is not None:
            found = table.lookup(flow)
            if found != -EAGAIN:
                return found
    return -ENETUNREACH
