"""Fib: devices, addresses, routing tables and policy rules of one network namespace (net/ipv4/fib_frontend.c).

Here: every change to them, with the routes that an address or a device brings or takes away, and fib_lookup().
Not here: what a lookup means for a connection (route.py), the checks on a route (fib_semantics.py), text
(sim/iproute.py).

Rule 1: a change that takes effect calls changed(), which moves `generation` and drops the caches of route.py.
Rule 2: methods answer 0 or -errno as the kernel's netlink does; only a name that does not exist raises.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from errno import EADDRNOTAVAIL, EAGAIN, EEXIST, EINVAL, ENETUNREACH, ENOENT, ESRCH
from typing import TYPE_CHECKING

from fourtuple.address import INADDR_ANY, INADDR_BROADCAST, INADDR_LOOPBACK, is_loopback, is_multicast, prefix_mask
from fourtuple.ip import route as _route
from fourtuple.ip.devinet import IPV4_MIN_MTU, IfAddress, NetDevice
from fourtuple.ip.fib_rules import ERROR_OF_ACTION, FibRule, default_priority, default_rules, insert_rule
from fourtuple.ip.fib_semantics import fib_create_info
from fourtuple.ip.fib_table import (
    INET_DSCP_MASK,
    NO_METRICS,
    FibClock,
    FibRoute,
    FibTable,
    Flow,
    Metrics,
    PathMtu,
    lookup_without_rules,
)
from fourtuple.ip.rtnetlink import (
    RT_SCOPE_HOST,
    RT_SCOPE_LINK,
    RT_SCOPE_NOWHERE,
    RT_SCOPE_UNIVERSE,
    RT_TABLE_LOCAL,
    RT_TABLE_MAIN,
    RTN_ANYCAST,
    RTN_BROADCAST,
    RTN_LOCAL,
    RTN_MULTICAST,
    RTN_UNICAST,
    RTPROT_BOOT,
    RTPROT_KERNEL,
)
from fourtuple.sysctl import Sysctls

if TYPE_CHECKING:
    from fourtuple.ip.route import Route, Rtable

LOOPBACK_MTU = 65536
IP_MAX_MTU = 65535


def default_table(route_type: int) -> int:
    """The table of a route that names none (iproute2's choice)."""
    return RT_TABLE_LOCAL if route_type in (RTN_LOCAL, RTN_BROADCAST, RTN_ANYCAST) else RT_TABLE_MAIN


def default_scope(route_type: int, gateway: int) -> int:
    """The scope of a route that names none (iproute2's choice)."""
    if route_type == RTN_LOCAL:
        return RT_SCOPE_HOST
    if route_type in (RTN_BROADCAST, RTN_MULTICAST, RTN_ANYCAST) or (route_type == RTN_UNICAST and not gateway):
        return RT_SCOPE_LINK
    return RT_SCOPE_UNIVERSE


def _routes_of_address(dev: NetDevice, ifa: IfAddress) -> list[FibRoute]:
    """fib_add_ifaddr: the routes an address brings to a device that is up."""
    primary = dev.primary_of(ifa)
    made = [_magic(dev, RTN_LOCAL, ifa.local, 32, primary)]
    if ifa.broadcast not in (0, INADDR_BROADCAST):
        made.append(_magic(dev, RTN_BROADCAST, ifa.broadcast, 32, primary))
    if ifa.prefix and not ifa.secondary and (ifa.prefix != ifa.local or ifa.prefixlen < 32):
        made.append(_magic(dev, RTN_LOCAL if dev.loopback else RTN_UNICAST, ifa.prefix, ifa.prefixlen, primary))
        if ifa.prefixlen < 31:
            made.append(_magic(dev, RTN_BROADCAST, ifa.prefix | ~ifa.mask & INADDR_BROADCAST, 32, primary))
    return made


def _magic(dev: NetDevice, route_type: int, prefix: int, prefixlen: int, primary: IfAddress) -> FibRoute:
    """fib_magic: a route made by the kernel, with the primary address as preferred source."""
    route = FibRoute(prefix, prefixlen, route_type, RT_TABLE_MAIN if route_type == RTN_UNICAST else RT_TABLE_LOCAL)
    route.scope = RT_SCOPE_HOST if route_type == RTN_LOCAL else RT_SCOPE_LINK
    route.oif, route.prefsrc, route.protocol = dev.ifindex, primary.local, RTPROT_KERNEL
    return route


def _place(route: FibRoute) -> tuple[int, ...]:
    return route.prefix, route.prefixlen, route.type, route.table, route.oif, route.prefsrc


def _find_address(dev: NetDevice, local: int, prefixlen: int | None, address: int) -> IfAddress | int:
    """inet_rtm_deladdr: the address to delete; with a length that one must fit, and the peer be in its prefix."""
    for ifa in dev.addresses:
        if ifa.local == local and (prefixlen is None or (prefixlen == ifa.prefixlen and ifa.matches(address))):
            return ifa
    return -EADDRNOTAVAIL


def _synced(known: PathMtu, mtu: int, before: int) -> PathMtu:
    """fib_nhc_update_mtu: a learned MTU never exceeds the device's, and grows with it where it was the device's."""
    if known.locked:
        return PathMtu(mtu, False, known.expires_us) if mtu <= known.mtu else known
    return dataclasses.replace(known, mtu=mtu) if mtu < known.mtu or before == known.mtu else known


class Fib:
    """Routing of one namespace. A new one has a loopback device that is down, and nothing else.

    `sysctls` gives route.min_pmtu, route.mtu_expires and route.min_adv_mss.
    """

    def __init__(self, sysctls: Sysctls | None = None) -> None:
        self.sysctls = sysctls or Sysctls()
        self.clock = FibClock()
        self.devices: dict[int, NetDevice] = {}
        self.tables: dict[int, FibTable] = {}
        self.rules = default_rules()
        self.has_custom_rules = False
        self.rtables: list[Rtable] = []
        self.rtable_index: dict[tuple[object, ...], Rtable] = {}
        self.route_caches: dict[int, dict[int, Route | int]] = {}
        self.input_cache: dict[int, int] = {}
        self.local_addresses: dict[int, list[NetDevice]] = {}  # the latest device to get it comes first
        self.add_device("lo", LOOPBACK_MTU, loopback=True)

    @property
    def generation(self) -> int:
        """Another one means that what was looked up before may be wrong."""
        return self.clock.generation

    def changed(self) -> None:
        """Something that a lookup depends on is different now (rt_cache_flush)."""
        self.clock.generation += 1
        self.route_caches.clear()
        self.input_cache.clear()

    # Devices

    def add_device(self, name: str, mtu: int = 1500, *, loopback: bool = False) -> NetDevice:
        """A new device, down and without address; ValueError if the name is taken."""
        if any(dev.name == name for dev in self.devices.values()):
            raise ValueError(f"device {name!r} exists")
        dev = NetDevice(name, max(self.devices, default=0) + 1, mtu, loopback=loopback)
        self.devices[dev.ifindex] = dev
        self.changed()
        return dev

    def device(self, name: str) -> NetDevice:
        """The device of that name; KeyError lists those that exist."""
        for dev in self.devices.values():
            if dev.name == name:
                return dev
        raise KeyError(f"no device {name!r}; there are: {', '.join(d.name for d in self.devices.values())}")

    def set_device_up(self, dev: NetDevice, up: bool) -> None:
        """fib_netdev_event: routes of the addresses come with up; all but local addresses go with down (SRC-06)."""
        if up == dev.up:
            return
        dev.up = up
        if not up:
            self._flush(r for r in self._routes() if r.oif == dev.ifindex and not r.survives_down)
        elif dev.loopback:
            self.add_address(dev, INADDR_LOOPBACK, 8)
        if up:
            for ifa in dev.addresses:
                self._add_routes_of(dev, ifa)
        self.changed()

    def set_device_mtu(self, dev: NetDevice, mtu: int) -> int:
        """0, or -EINVAL outside 68 (below it Linux takes IPv4 from the device) to 65535. Learned path MTUs follow."""
        if mtu < IPV4_MIN_MTU or (mtu > IP_MAX_MTU and not dev.loopback):
            return -EINVAL
        before, dev.mtu = dev.mtu, mtu
        for route in self._routes():
            if route.oif == dev.ifindex:
                route.exceptions = {d: _synced(e, mtu, before) for d, e in route.exceptions.items()}
        self.changed()
        return 0

    # Addresses

    def add_address(
        self,
        dev: NetDevice,
        local: int,
        prefixlen: int,
        *,
        peer: int = 0,
        broadcast: int = 0,
        scope: int | None = None,
    ) -> int:
        """Give `dev` an address: 0, -EEXIST or -EINVAL. Its routes come with it: local, broadcast and connected."""
        if scope is None:
            scope = RT_SCOPE_HOST if is_loopback(local) else RT_SCOPE_UNIVERSE
        ifa = IfAddress(local, peer or local, prefixlen, broadcast, scope)
        err = dev.insert_address(ifa)
        if err == 0:
            self.local_addresses.setdefault(local, []).insert(0, dev)
            self._add_routes_of(dev, ifa)
            self.changed()
        return err

    def del_address(self, dev: NetDevice, local: int, prefixlen: int | None = None, *, peer: int = 0) -> int:
        """Take an address away: 0 or -EADDRNOTAVAIL. A primary takes its secondaries along (promote_secondaries=0)."""
        gone = _find_address(dev, local, prefixlen, peer or local)
        if isinstance(gone, int):
            return gone
        victims = [gone]
        if not gone.secondary:
            victims += [ifa for ifa in dev.addresses if ifa.secondary and ifa.same_prefix(gone)]
        brought = [route for ifa in victims for route in _routes_of_address(dev, ifa)]
        dev.addresses = [ifa for ifa in dev.addresses if ifa not in victims]
        self._flush_brought(dev, brought)
        for ifa in victims:
            self._forget_holder(ifa.local, dev)
            self._forget_source(ifa.local)
        if not dev.addresses:
            self._flush(r for r in self._routes() if r.oif == dev.ifindex)
        self.changed()
        return 0

    def _forget_holder(self, address: int, dev: NetDevice) -> None:
        holders = self.local_addresses[address]
        holders.remove(dev)
        if not holders:
            del self.local_addresses[address]

    def _forget_source(self, address: int) -> None:
        """fib_sync_down_addr: routes of the main table that prefer a source which is gone go too."""
        if self.inet_addr_type(address) != RTN_LOCAL:
            self._flush(r for r in self._routes() if r.prefsrc == address and r.table == RT_TABLE_MAIN)

    def _add_routes_of(self, dev: NetDevice, ifa: IfAddress) -> None:
        """fib_add_ifaddr: all of them if the device is up, else only the local one."""
        for route in _routes_of_address(dev, ifa)[: None if dev.up else 1]:
            if not any(route.same_route(r) for r in self._table(route.table).at(route.prefix, route.prefixlen)):
                if fib_create_info(self, route) == 0:
                    self._table(route.table).insert(route)

    def _flush_brought(self, dev: NetDevice, brought: list[FibRoute]) -> None:
        """fib_del_ifaddr: the routes that addresses brought, but for those that the remaining ones bring too."""
        kept = {_place(route) for ifa in dev.addresses for route in _routes_of_address(dev, ifa)}
        gone = {_place(route) for route in brought} - kept
        self._flush(r for r in self._routes() if r.protocol == RTPROT_KERNEL and _place(r) in gone)

    # Routes

    def add_route(
        self,
        prefix: int,
        prefixlen: int,
        *,
        type: int = RTN_UNICAST,
        dev: NetDevice | None = None,
        gateway: int = 0,
        prefsrc: int = 0,
        priority: int = 0,
        table: int | None = None,
        scope: int | None = None,
        tos: int = 0,
        onlink: bool = False,
        metrics: Metrics = NO_METRICS,
        protocol: int = RTPROT_BOOT,
        mode: str = "add",
    ) -> int:
        """Add a route: 0 or -errno. `mode` 'add' refuses what is there, 'replace' takes its place, 'append' follows."""
        if prefix & ~prefix_mask(prefixlen):
            return -EINVAL
        route = FibRoute(prefix, prefixlen, type, default_table(type) if table is None else table)
        route.scope = default_scope(type, gateway) if scope is None else scope
        route.oif, route.gateway, route.onlink = dev.ifindex if dev else 0, gateway, onlink
        route.prefsrc, route.priority, route.tos = prefsrc, priority, tos
        route.metrics, route.protocol = metrics, protocol
        return self._insert(route, mode)

    def _insert(self, route: FibRoute, mode: str) -> int:
        """fib_table_insert."""
        err = fib_create_info(self, route)
        if err:
            return err
        table = self._table(route.table)
        equals = [r for r in table.at(route.prefix, route.prefixlen) if r.order == route.order]
        if equals and mode == "add":
            return -EEXIST
        twin = next((r for r in equals if r.same_route(route)), None)
        if twin is not None:
            return 0 if mode == "replace" and twin is equals[0] else -EEXIST
        if equals and mode == "replace":
            table.replace(equals[0], route)
        else:
            table.insert(route)
        self.changed()
        return 0

    def del_route(
        self,
        prefix: int,
        prefixlen: int,
        *,
        type: int | None = None,
        dev: NetDevice | None = None,
        gateway: int = 0,
        prefsrc: int = 0,
        priority: int = 0,
        table: int | None = None,
        scope: int | None = None,
        tos: int = 0,
    ) -> int:
        """Remove the first route that fits what is given: 0, -EINVAL (host bits set) or -ESRCH (none)."""
        if prefix & ~prefix_mask(prefixlen):
            return -EINVAL
        number = default_table(type or RTN_UNICAST) if table is None else table
        for r in self._routes_at(number, prefix, prefixlen):
            if (
                r.tos == tos
                and (type is None or r.type == type)
                and (dev is None or r.oif == dev.ifindex)
                and (not gateway or r.gateway == gateway)
                and (not prefsrc or r.prefsrc == prefsrc)
                and (not priority or r.priority == priority)
                and (scope in (None, RT_SCOPE_NOWHERE) or r.scope == scope)
            ):
                self._flush([r])
                self.changed()
                return 0
        return -ESRCH

    def flush_table(self, table: int) -> None:
        """Remove every route of a table but those that the kernel made."""
        self._flush(r for r in self._routes() if r.table == table and r.protocol != RTPROT_KERNEL)
        self.changed()

    def _routes(self) -> list[FibRoute]:
        """Every route of every table, once."""
        return [r for table in dict.fromkeys(self.tables.values()) for r in table]

    def _routes_at(self, table: int, prefix: int, prefixlen: int) -> list[FibRoute]:
        held = self.tables.get(table)
        return [] if held is None else [r for r in held.at(prefix, prefixlen) if r.table == table]

    def _flush(self, routes: Iterable[FibRoute]) -> None:
        for route in list(routes):
            self.tables[route.table].remove(route)

    def _table(self, number: int) -> FibTable:
        """fib_new_table: local and main share one trie, so one longest match, until the first custom rule."""
        if number in (RT_TABLE_LOCAL, RT_TABLE_MAIN) and not self.has_custom_rules:
            shared = self.tables.setdefault(RT_TABLE_MAIN, FibTable())
            return self.tables.setdefault(number, shared)
        return self.tables.setdefault(number, FibTable())

    # Rules

    def add_rule(self, rule: FibRule, *, default: bool = False) -> int:
        """Add a policy rule: 0, -EEXIST or -EINVAL. With `default` the priority is chosen as the kernel does."""
        if rule.tos & ~INET_DSCP_MASK:
            return -EINVAL
        if default:
            rule = dataclasses.replace(rule, priority=default_priority(self.rules))
        if any(rule.repeats(other) for other in self.rules):
            return -EEXIST
        self._unmerge()
        insert_rule(self.rules, rule)
        self.changed()
        return 0

    def del_rule(self, **given: int | str) -> int:
        """Remove the first rule whose fields have the values given: 0 or -ENOENT."""
        rule = next((r for r in self.rules if all(getattr(r, k) == v for k, v in given.items())), None)
        if rule is None:
            return -ENOENT
        self._unmerge()
        self.rules.remove(rule)
        self.changed()
        return 0

    def _unmerge(self) -> None:
        """fib_unmerge: from the first rule of the user on, local and main are two tables for good."""
        if self.has_custom_rules:
            return
        self.has_custom_rules = True
        shared = self.tables.get(RT_TABLE_MAIN)
        if shared is None:
            return
        self.tables[RT_TABLE_LOCAL], self.tables[RT_TABLE_MAIN] = FibTable(), FibTable()
        for route in shared:
            self.tables[route.table].insert(route)

    # Lookups

    def fib_lookup(self, flow: Flow) -> FibRoute | int:
        """ip_fib.h:fib_lookup: the route for the flow, or -errno."""
        if self.has_custom_rules:
            return self._lookup_by_rules(flow)
        return lookup_without_rules(self.tables, flow)

    def _lookup_by_rules(self, flow: Flow) -> FibRoute | int:
        """fib_rules_lookup: the first rule that fits and has an answer decides."""
        for rule in self.rules:
            if not rule.matches(flow):
                continue
            if rule.action != "lookup":
                return ERROR_OF_ACTION[rule.action]
            table = self.tables.get(rule.table)
            found = -EAGAIN if table is None else table.lookup(flow)
            if found != -EAGAIN:
                return found
        return -ENETUNREACH

    def inet_addr_type(self, address: int, *, table: int = RT_TABLE_LOCAL) -> int:
        """fib_frontend.c:inet_addr_type: RTN_* of an address: what bind() asks about a source."""
        if address in (INADDR_ANY, INADDR_BROADCAST):
            return RTN_BROADCAST
        if is_multicast(address):
            return RTN_MULTICAST
        held = self.tables.get(table)
        route = -ESRCH if held is None else held.lookup(Flow(address))
        return RTN_UNICAST if isinstance(route, int) else route.type

    def ip_dev_find(self, address: int) -> NetDevice | None:
        """devinet.c:__ip_dev_find: the device that has the address, or that a local route gives it to (SRC-08)."""
        holders = self.local_addresses.get(address)
        if holders:
            return holders[0]
        table = self.tables.get(RT_TABLE_LOCAL)
        route = -ESRCH if table is None else table.lookup(Flow(address))
        return None if isinstance(route, int) or route.type != RTN_LOCAL else self.devices[route.oif]

    # What a connection asks (route.py)

    def ip_route_connect(
        self, daddr: int, saddr: int, oif: int, mark: int = 0, tos: int = 0, anysrc: bool = False
    ) -> Route | int:
        """Route and addresses for a connection, or -errno; see route.ip_route_connect."""
        return _route.ip_route_connect(self, daddr, saddr, oif, mark, tos, anysrc)

    def ip_route_input_is_local(self, daddr: int, saddr: int = 0, iif: int = 0) -> bool:
        """Whether a received packet is for this host; see route.ip_route_input_is_local."""
        return _route.ip_route_input_is_local(self, daddr, saddr, iif)

    def update_pmtu(
        self, rt: Rtable, daddr: int, mtu: int, now_us: int, saddr: int = 0, oif: int = 0, mark: int = 0
    ) -> Rtable:
        """A smaller path MTU for one destination; see route.update_pmtu."""
        return _route.update_pmtu(self, rt, Flow(daddr, saddr, oif, mark), mtu, now_us)

    def next_pmtu_expiry(self) -> int | None:
        """When the earliest learned path MTU expires (us), or None."""
        return min((e.expires_us for r in self._routes() for e in r.exceptions.values()), default=None)

    def expire_pmtu(self, now_us: int) -> None:
        """Forget learned path MTUs whose time is over."""
        for route in self._routes():
            live = {d: e for d, e in route.exceptions.items() if e.expires_us > now_us}
            if len(live) != len(route.exceptions):
                route.exceptions = live
                self.changed()
