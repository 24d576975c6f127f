"""From a destination to a route and a source address: ip_route_connect() and what it is made of (net/ipv4/route.c).

Here: Rtable (what a socket keeps of a route), Route (the answer to a connection), the rules of
ip_route_output_key_hash_rcu() in the kernel's order, learned path MTUs, and whether a received packet is local.
Not here: tables, addresses and devices (fib.py).

Rule 1: an Rtable is interned by its content and never changes; `fib.rtables[i].index == i`.
Rule 2: answers are kept until fib.generation moves; a socket that keeps an Rtable compares the generation.
Rule 3: time comes in only to learn and to expire path MTUs.
"""

from __future__ import annotations

from errno import EHOSTUNREACH, EINVAL, ENETUNREACH, ENOBUFS, ENODEV
from typing import TYPE_CHECKING

from fourtuple.address import INADDR_BROADCAST, INADDR_LOOPBACK, is_loopback, is_multicast
from fourtuple.ip.devinet import NetDevice, inet_select_addr
from fourtuple.ip.fib_table import NO_METRICS, FibRoute, Flow, PathMtu
from fourtuple.ip.rtnetlink import (
    LOOPBACK_IFINDEX,
    RT_SCOPE_HOST,
    RT_SCOPE_LINK,
    RTN_BROADCAST,
    RTN_LOCAL,
    RTN_MULTICAST,
    RTN_UNICAST,
)

if TYPE_CHECKING:
    from fourtuple.ip.fib import Fib

IP_MAX_MTU = 65535
IP_HEADERS = 40  # IPv4 and TCP header, no options
_MAX_MTU, _HEADERS = IP_MAX_MTU, IP_HEADERS
_LOCAL_MULTICAST = 0xE00000  # 224.0.0.0/24
_MOST_RTABLES = 65536  # a socket keeps a u16
_MOST_ROUTES_KEPT = 16384  # per device asked for; then the cache starts anew
_MOST_PATH_MTUS = 10240  # of one route: FNHE_HASH_SIZE * FNHE_RECLAIM_DEPTH, as the kernel


class Rtable:
    """What a socket needs to know of a route (struct rtable): equal contents are one object. Metrics: 0 is unset."""

    __slots__ = (
        "advmss",
        "dev",
        "dev_loopback",
        "ecn",
        "gateway",
        "hoplimit",
        "index",
        "initcwnd",
        "initrwnd",
        "is_local",
        "mtu",
        "mtu_locked",
        "quickack",
        "rt_type",
        "rto_min_us",
        "window",
    )

    index: int
    """Place in fib.rtables."""
    rt_type: int
    """RTN_UNICAST, RTN_LOCAL, RTN_BROADCAST or RTN_MULTICAST."""
    dev: int
    """Index of the device packets leave by; the loopback device for a local destination."""
    gateway: int
    """Next hop, or 0: the destination itself is on the link."""
    mtu: int
    """Path MTU: learned, else the route's, else the device's; at most 65535."""
    mtu_locked: bool
    """No path MTU discovery: DF is not set."""
    advmss: int
    """MSS to advertise; 0: derive it from the MTU with dst_metric_advmss()."""
    window: int
    """Clamp of the advertised window."""
    initrwnd: int
    """Initial receive window in segments."""
    initcwnd: int
    """Initial congestion window in segments."""
    hoplimit: int
    """TTL."""
    rto_min_us: int
    """Lower bound of the retransmission timeout."""
    ecn: bool
    """Ask for ECN whatever tcp_ecn says (RTAX_FEATURE_ECN)."""
    quickack: bool
    """No delayed ACKs."""
    is_local: bool
    """RTCF_LOCAL: packets come back to this host."""
    dev_loopback: bool
    """The device is a loopback device."""

    def __init__(self, index: int, rt_type: int, dev: int, dev_loopback: bool) -> None:
        self.index = index
        self.rt_type = rt_type
        self.dev = dev
        self.dev_loopback = dev_loopback
        self.is_local = dev_loopback or rt_type in (RTN_LOCAL, RTN_BROADCAST)
        self.gateway = self.mtu = self.advmss = self.window = self.initrwnd = self.initcwnd = 0
        self.hoplimit = self.rto_min_us = 0
        self.mtu_locked = self.ecn = self.quickack = False


class Route:
    """The answer to ip_route_connect(): an Rtable and both addresses. Shared: not to be changed."""

    __slots__ = ("daddr", "rt", "saddr")

    rt: Rtable
    saddr: int
    daddr: int

    def __init__(self, rt: Rtable, saddr: int, daddr: int) -> None:
        self.rt = rt
        self.saddr = saddr
        self.daddr = daddr


def ip_route_connect(
    fib: Fib, daddr: int, saddr: int, oif: int, mark: int = 0, tos: int = 0, anysrc: bool = False
) -> Route | int:
    """Route, source and destination of a connection, or -errno (route.h:ip_route_connect).

    `daddr` 0 is this host, `saddr` 0 lets the route choose, `oif` 0 is any device. `anysrc` is IP_TRANSPARENT. A route
    of type RTN_MULTICAST or RTN_BROADCAST is an answer; TCP makes ENETUNREACH of it. With both addresses given this is
    one lookup, so a reply without a socket uses it too.
    """
    if mark or tos or anysrc:
        return _connect(fib, Flow(daddr, saddr, oif, mark, tos, anysrc=anysrc))
    wide = daddr
    key = wide << 32 | saddr
    cache = fib.route_caches.get(oif)
    if cache is None or len(cache) >= _MOST_ROUTES_KEPT:
        cache = fib.route_caches[oif] = {}
    answer = cache.get(key)
    if answer is None:
        answer = cache[key] = _connect(fib, Flow(daddr, saddr, oif))
    return answer


def _connect(fib: Fib, flow: Flow) -> Route | int:
    """Twice when an address is missing: the second lookup sees both, and may meet a rule for that source."""
    if not flow.daddr or not flow.saddr:
        oif = flow.oif
        rt = ip_route_output_key_hash_rcu(fib, flow)
        if isinstance(rt, int):
            return rt
        flow.oif = oif
    rt = ip_route_output_key_hash_rcu(fib, flow)
    return rt if isinstance(rt, int) else Route(rt, flow.saddr, flow.daddr)


class _Output:
    """Which way out a rule chose: device, type, and the route if a table had one (struct fib_result)."""

    __slots__ = ("dev", "rt_type", "route")

    def __init__(self, dev: NetDevice, rt_type: int, route: FibRoute | None) -> None:
        self.dev = dev
        self.rt_type = rt_type
        self.route = route


def ip_route_output_key_hash_rcu(fib: Fib, flow: Flow) -> Rtable | int:
    """route.c: the Rtable for the flow, or -errno; fills in the flow's source, destination and device.

    The rules are asked in turn; each answers with a way out, an errno, or None: not my case.
    """
    way = _source_rules(fib, flow)
    if way is None and flow.oif:
        way = _device_rules(fib, flow)
    if way is None and not flow.daddr:
        way = _to_this_host(fib, flow)
    if way is None:
        way = _by_table(fib, flow)
    return way if isinstance(way, int) else _mkroute_output(fib, flow, way)


def _source_rules(fib: Fib, flow: Flow) -> _Output | int | None:
    """A source that was given must be an address of this host (SRC-03, SRC-10), and not a group."""
    saddr = flow.saddr
    if not saddr:
        return None
    if is_multicast(saddr) or saddr == INADDR_BROADCAST:
        return -EINVAL
    to_group = flow.oif == 0 and (is_multicast(flow.daddr) or flow.daddr == INADDR_BROADCAST)
    if flow.anysrc and not to_group:
        return None
    dev = fib.ip_dev_find(saddr)
    if dev is None:
        return -ENETUNREACH
    if not to_group:
        return None
    flow.oif = dev.ifindex
    return _Output(dev, RTN_UNICAST, None)


def _device_rules(fib: Fib, flow: Flow) -> _Output | int | None:
    """A device that was given must be up; broadcasts and link-local groups leave by it without a route."""
    dev = fib.devices.get(flow.oif)
    if dev is None:
        return -ENODEV
    if not dev.up:
        return -ENETUNREACH
    daddr = flow.daddr
    if daddr >> 8 == _LOCAL_MULTICAST or daddr == INADDR_BROADCAST:
        flow.saddr = flow.saddr or _select(fib, dev, RT_SCOPE_LINK)
        return _Output(dev, RTN_UNICAST, None)
    if not flow.saddr:
        if is_multicast(daddr):
            flow.saddr = _select(fib, dev, flow.scope)
        elif not daddr:
            flow.saddr = _select(fib, dev, RT_SCOPE_HOST)
    return None


def _select(fib: Fib, dev: NetDevice, scope: int) -> int:
    return inet_select_addr(fib.devices.values(), dev, 0, scope)


def _to_this_host(fib: Fib, flow: Flow) -> _Output:
    """Destination 0.0.0.0: the source, else 127.0.0.1 (ERR-21, ERR-22)."""
    flow.daddr = flow.saddr
    if not flow.daddr:
        flow.daddr = flow.saddr = INADDR_LOOPBACK
    flow.oif = LOOPBACK_IFINDEX
    return _Output(fib.devices[LOOPBACK_IFINDEX], RTN_LOCAL, None)


def _by_table(fib: Fib, flow: Flow) -> _Output | int:
    """What the routing tables say; where they say nothing, a device that was given is taken to be on link (SRC-07)."""
    found = fib.fib_lookup(flow)
    if isinstance(found, int):
        return _assume_on_link(fib, flow) if flow.oif else found
    if found.type == RTN_LOCAL:
        flow.saddr = flow.saddr or found.prefsrc or flow.daddr
        flow.oif = LOOPBACK_IFINDEX
        return _Output(fib.devices[LOOPBACK_IFINDEX], RTN_LOCAL, found)
    flow.saddr = flow.saddr or _preferred_source(fib, found)
    return _Output(fib.devices[found.oif], found.type, found)


def _assume_on_link(fib: Fib, flow: Flow) -> _Output:
    dev = fib.devices[flow.oif]
    flow.saddr = flow.saddr or _select(fib, dev, RT_SCOPE_LINK)
    return _Output(dev, RTN_UNICAST, None)


def _preferred_source(fib: Fib, route: FibRoute) -> int:
    """fib_result_prefsrc: `src` of the route, else an address of its device, preferably near the gateway (SRC-01)."""
    if route.prefsrc:
        return route.prefsrc
    return inet_select_addr(fib.devices.values(), fib.devices[route.oif], route.gateway, route.scope)


def _mkroute_output(fib: Fib, flow: Flow, way: _Output) -> Rtable | int:
    """route.c:__mkroute_output: the last checks, then the Rtable."""
    dev, rt_type, route = way.dev, way.rt_type, way.route
    if is_loopback(flow.saddr) and not dev.loopback:
        return -EINVAL  # ERR-25
    flow.oif = dev.ifindex
    if flow.daddr == INADDR_BROADCAST:
        rt_type = RTN_BROADCAST
    elif is_multicast(flow.daddr):
        rt_type = RTN_MULTICAST
    elif not flow.daddr:
        return -EINVAL
    if flow.daddr == INADDR_BROADCAST or (rt_type == RTN_MULTICAST and route is not None and route.prefixlen < 4):
        route = None
    known = None if route is None else route.exceptions.get(flow.daddr)
    return _rtable(fib, dev, rt_type, route, known)


def _rtable(fib: Fib, dev: NetDevice, rt_type: int, route: FibRoute | None, known: PathMtu | None) -> Rtable | int:
    """rt_set_nexthop: the Rtable for the route, or -errno; without a learned MTU the one that the route keeps."""
    if route is None or known is not None:
        return _intern(fib, dev, rt_type, route, known)
    kept = route.rth_output
    if kept is not None and route.rth_generation == fib.generation:
        return kept
    rt = _intern(fib, dev, rt_type, route, None)
    if not isinstance(rt, int):
        route.rth_output, route.rth_generation = rt, fib.generation
    return rt


def _intern(fib: Fib, dev: NetDevice, rt_type: int, route: FibRoute | None, known: PathMtu | None) -> Rtable | int:
    """The one Rtable with this content, or -ENOBUFS when there are too many kinds."""
    metrics = NO_METRICS if route is None else route.metrics
    gateway = route.gateway if route is not None and route.nh_scope == RT_SCOPE_LINK else 0
    locked = metrics.mtu_locked or (known is not None and known.locked)
    mtu = _path_mtu(dev.mtu, metrics.mtu, locked and gateway != 0, known)
    content = (rt_type, dev.ifindex, dev.loopback, gateway, mtu, locked, metrics)
    rt: Rtable | None = fib.rtable_index.get(content)
    if rt is not None:
        return rt
    if len(fib.rtables) >= _MOST_RTABLES:
        return -ENOBUFS
    rt = Rtable(len(fib.rtables), rt_type, dev.ifindex, dev.loopback)
    rt.gateway, rt.mtu, rt.mtu_locked = gateway, mtu, locked
    rt.advmss, rt.window = metrics.advmss, metrics.window
    rt.initrwnd, rt.initcwnd = metrics.initrwnd, metrics.initcwnd
    rt.hoplimit, rt.rto_min_us = metrics.hoplimit, metrics.rto_min_us
    rt.ecn, rt.quickack = metrics.ecn, metrics.quickack
    fib.rtables.append(rt)
    fib.rtable_index[content] = rt
    return rt


def _path_mtu(dev_mtu: int, metric: int, locked_gateway: bool, known: PathMtu | None) -> int:
    """ip_dst_mtu_maybe_forward: learned, else the metric, else the device's; 576 behind a gateway that locks it."""
    if known is not None:
        mtu = known.mtu
    elif metric:
        mtu = metric
    else:
        mtu = min(dev_mtu, 576) if locked_gateway else dev_mtu
    return min(mtu, IP_MAX_MTU)


def dst_metric_advmss(rt: Rtable, min_adv_mss: int) -> int:
    """dst_metric_advmss and ipv4_default_advmss: the MSS to advertise on this route, in bytes."""
    if rt.advmss:
        return rt.advmss
    mss = rt.mtu - _HEADERS if rt.mtu > _HEADERS else 0
    if mss < min_adv_mss:
        mss = min_adv_mss
    return mss if mss < _MAX_MTU - _HEADERS else _MAX_MTU - _HEADERS


def update_pmtu(fib: Fib, rt: Rtable, flow: Flow, mtu: int, now_us: int) -> Rtable:
    """route.c:__ip_rt_update_pmtu: learn a smaller path MTU for flow.daddr; answers the Rtable that holds from now on.

    Below sysctl route.min_pmtu the MTU is min_pmtu and locked. It is forgotten after sysctl route.mtu_expires seconds.
    """
    route = fib.fib_lookup(flow)
    if isinstance(route, int) or route.metrics.mtu_locked or rt.mtu < mtu:
        return rt
    locked = mtu < fib.sysctls.min_pmtu
    if locked:
        mtu = min(rt.mtu, fib.sysctls.min_pmtu)
    life_us = fib.sysctls.mtu_expires * 1_000_000
    known = route.exceptions.get(flow.daddr)
    if known is not None and known.mtu == mtu and not locked and now_us < known.expires_us - life_us // 2:
        return rt
    _remember(route, flow.daddr, PathMtu(mtu, locked, now_us + life_us))
    fib.changed()
    changed = _intern(fib, fib.devices[rt.dev], rt.rt_type, route, route.exceptions[flow.daddr])
    return rt if isinstance(changed, int) else changed


def _remember(route: FibRoute, daddr: int, path_mtu: PathMtu) -> None:
    """update_or_create_fnhe: bounded; the oldest makes room."""
    route.exceptions.pop(daddr, None)
    if len(route.exceptions) >= _MOST_PATH_MTUS:
        del route.exceptions[next(iter(route.exceptions))]
    route.exceptions[daddr] = path_mtu


def ip_route_input(fib: Fib, daddr: int, saddr: int, iif: int) -> int:
    """Where a received packet goes, without forwarding: RTN_LOCAL, RTN_BROADCAST, RTN_MULTICAST, or -errno: drop it.

    route.c:ip_route_input_slow. `iif` 0 or the loopback device: a packet of this host to itself, its source unchecked.
    """
    if iif > LOOPBACK_IFINDEX and _is_martian(fib, daddr, saddr):
        return -EINVAL
    kind: int | None = fib.input_cache.get(daddr)
    if kind is None:
        if len(fib.input_cache) >= _MOST_ROUTES_KEPT:
            fib.input_cache.clear()
        kind = fib.input_cache[daddr] = _input_type(fib, daddr)
    return kind


def _is_martian(fib: Fib, daddr: int, saddr: int) -> bool:
    """Addresses that never come from outside: groups and own addresses as source, 127/8 and 0 on either side."""
    if is_multicast(saddr) or saddr == INADDR_BROADCAST or saddr in fib.local_addresses:
        return True
    if is_loopback(saddr) or is_loopback(daddr):
        return True
    return not saddr and daddr != INADDR_BROADCAST and not is_multicast(daddr)


def _input_type(fib: Fib, daddr: int) -> int:
    if is_multicast(daddr):
        return RTN_MULTICAST
    if daddr == INADDR_BROADCAST:
        return RTN_BROADCAST
    route = fib.fib_lookup(Flow(daddr))
    if isinstance(route, int) or route.type not in (RTN_LOCAL, RTN_BROADCAST):
        return -EHOSTUNREACH
    return route.type


def ip_route_input_is_local(fib: Fib, daddr: int, saddr: int = 0, iif: int = 0) -> bool:
    """Whether a received packet is for a socket of this host. With `iif` 0 only the destination counts."""
    return ip_route_input(fib, daddr, saddr, iif) == RTN_LOCAL
