"""Checks on a route before it goes into a table (net/ipv4/fib_semantics.c:fib_create_info and fib_check_nh).

Here: what is refused, with the kernel's errno, and the scope of the next hop. Not here: the tables (fib.py).
"""

from __future__ import annotations

from errno import EINVAL, ENETDOWN, ENODEV
from typing import TYPE_CHECKING

from fourtuple.ip.fib_table import INET_DSCP_MASK, FibRoute, Flow
from fourtuple.ip.rtnetlink import (
    ERROR_OF_TYPE,
    RT_SCOPE_HOST,
    RT_SCOPE_LINK,
    RT_SCOPE_NOWHERE,
    RT_SCOPE_UNIVERSE,
    RT_TABLE_LOCAL,
    RT_TABLE_MAIN,
    RTN_LOCAL,
    RTN_UNICAST,
    SCOPE_OF_TYPE,
)

if TYPE_CHECKING:
    from fourtuple.ip.fib import Fib


def fib_create_info(fib: Fib, route: FibRoute) -> int:
    """Check `route` and fill in its next hop: 0 or -errno."""
    if route.tos & ~INET_DSCP_MASK:
        return -EINVAL
    if route.scope > RT_SCOPE_HOST or SCOPE_OF_TYPE.get(route.type, RT_SCOPE_UNIVERSE) > route.scope:
        return -EINVAL
    if route.type in ERROR_OF_TYPE:
        return -EINVAL if route.oif or route.gateway else 0
    err = _check_nexthop(fib, route)
    if err == 0 and route.prefsrc and not _valid_prefsrc(fib, route):
        err = -EINVAL
    return err


def _check_nexthop(fib: Fib, route: FibRoute) -> int:
    if route.scope == RT_SCOPE_HOST:
        return _check_local(fib, route)
    if not route.gateway:
        return _check_on_link(fib, route)
    return _check_onlink_gateway(fib, route) if route.onlink else _check_gateway(fib, route)


def _check_local(fib: Fib, route: FibRoute) -> int:
    """A local address: a device, up or down, and no gateway."""
    if route.gateway:
        return -EINVAL
    route.nh_scope = RT_SCOPE_NOWHERE
    return 0 if route.oif in fib.devices else -ENODEV


def _check_on_link(fib: Fib, route: FibRoute) -> int:
    """fib_check_nh_nongw."""
    if route.onlink:
        return -EINVAL
    route.nh_scope = RT_SCOPE_HOST
    return _check_device(fib, route.oif)


def _check_device(fib: Fib, oif: int) -> int:
    dev = fib.devices.get(oif)
    if dev is None:
        return -ENODEV
    return 0 if dev.up else -ENETDOWN


def _check_onlink_gateway(fib: Fib, route: FibRoute) -> int:
    """fib_check_nh_v4_gw with RTNH_F_ONLINK: the gateway is not looked up."""
    if route.scope >= RT_SCOPE_LINK:
        return -EINVAL
    err = _check_device(fib, route.oif)
    if err == 0 and fib.inet_addr_type(route.gateway) != RTN_UNICAST:
        err = -EINVAL
    route.nh_scope = RT_SCOPE_LINK
    return err


def _check_gateway(fib: Fib, route: FibRoute) -> int:
    """fib_check_nh_v4_gw: the gateway must be nearer than the route, through the table itself or through all."""
    flow = Flow(route.gateway, oif=route.oif, scope=max(route.scope + 1, RT_SCOPE_LINK))
    table = fib.tables.get(route.table) if route.table not in (0, RT_TABLE_MAIN) else None
    found: FibRoute | int = -EINVAL if table is None else table.lookup(flow)
    if isinstance(found, int):
        found = fib.fib_lookup(flow)
    if isinstance(found, int):
        return found
    if found.type not in (RTN_UNICAST, RTN_LOCAL):
        return -EINVAL
    route.nh_scope, route.oif = found.scope, found.oif
    return _check_device(fib, route.oif)


def _valid_prefsrc(fib: Fib, route: FibRoute) -> bool:
    """fib_valid_prefsrc: an address of this host, or the destination of the local route itself."""
    if route.type == RTN_LOCAL and route.prefix == route.prefsrc:
        return True
    tables = [RT_TABLE_LOCAL]
    if route.table not in (RT_TABLE_MAIN, RT_TABLE_LOCAL):
        tables.insert(0, route.table)
    return any(fib.inet_addr_type(route.prefsrc, table=table) == RTN_LOCAL for table in tables)
