"""Numbers of include/uapi/linux/rtnetlink.h that routing needs, with the errno each route type answers with."""

from __future__ import annotations

from errno import EACCES, EAGAIN, EHOSTUNREACH, EINVAL
from types import MappingProxyType

RTN_UNSPEC = 0
RTN_UNICAST = 1
RTN_LOCAL = 2
RTN_BROADCAST = 3
RTN_ANYCAST = 4
RTN_MULTICAST = 5
RTN_BLACKHOLE = 6
RTN_UNREACHABLE = 7
RTN_PROHIBIT = 8
RTN_THROW = 9

ROUTE_TYPES = MappingProxyType(
    {
        "unicast": RTN_UNICAST,
        "local": RTN_LOCAL,
        "broadcast": RTN_BROADCAST,
        "anycast": RTN_ANYCAST,
        "multicast": RTN_MULTICAST,
        "blackhole": RTN_BLACKHOLE,
        "unreachable": RTN_UNREACHABLE,
        "prohibit": RTN_PROHIBIT,
        "throw": RTN_THROW,
    }
)

# fib_semantics.c:fib_props. A throw ends the search of one table only (ERR-18).
ERROR_OF_TYPE = MappingProxyType(
    {
        RTN_BLACKHOLE: -EINVAL,
        RTN_UNREACHABLE: -EHOSTUNREACH,
        RTN_PROHIBIT: -EACCES,
        RTN_THROW: -EAGAIN,
    }
)

RT_SCOPE_UNIVERSE = 0
RT_SCOPE_SITE = 200
RT_SCOPE_LINK = 253
RT_SCOPE_HOST = 254
RT_SCOPE_NOWHERE = 255

SCOPES = MappingProxyType(
    {
        "global": RT_SCOPE_UNIVERSE,
        "universe": RT_SCOPE_UNIVERSE,
        "site": RT_SCOPE_SITE,
        "link": RT_SCOPE_LINK,
        "host": RT_SCOPE_HOST,
        "nowhere": RT_SCOPE_NOWHERE,
    }
)

# The widest scope a route of a type may have (fib_props); 0, universe, for all others.
SCOPE_OF_TYPE = MappingProxyType(
    {
        RTN_LOCAL: RT_SCOPE_HOST,
        RTN_BROADCAST: RT_SCOPE_LINK,
        RTN_ANYCAST: RT_SCOPE_LINK,
    }
)

RT_TABLE_UNSPEC = 0
RT_TABLE_DEFAULT = 253
RT_TABLE_MAIN = 254
RT_TABLE_LOCAL = 255

TABLES = MappingProxyType({"default": RT_TABLE_DEFAULT, "main": RT_TABLE_MAIN, "local": RT_TABLE_LOCAL})

RTPROT_KERNEL = 2
RTPROT_BOOT = 3

LOOPBACK_IFINDEX = 1
