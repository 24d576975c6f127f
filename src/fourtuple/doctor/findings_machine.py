"""Findings about the namespace and the machine: loopback, routes, conntrack, descriptors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from fourtuple.doctor.finding import CRITICAL, NOTE, WARNING, Finding, Fix
from fourtuple.doctor.reading import Holder
from fourtuple.doctor.words import endpoint, grouped, percent, plural, some_of

if TYPE_CHECKING:
    from fourtuple.doctor.reading import Reading
    from fourtuple.live.rtnetlink import Route
    from fourtuple.live.system import Limits

_WARN, _CRITICAL = 0.8, 0.95


def machine_findings(reading: Reading) -> Iterator[Finding]:
    """All of this module but route_finding()."""
    yield from loopback(reading)
    yield from conntrack(reading)
    yield from descriptors(reading)
    yield from failed_connects(reading)


def loopback(reading: Reading) -> Iterator[Finding]:
    """The commonest EADDRNOTAVAIL in containers: connect(::1) where there is no ::1."""
    system = reading.system
    if not system.interfaces:
        return  # not to be read
    if not system.loopback_is_up:
        yield _loopback_down(reading)
    elif system.ipv6 and not system.has_loopback6:
        yield _no_loopback6(reading)


def _loopback_down(reading: Reading) -> Finding:
    was_up = any(address.address.startswith("127.") for address in reading.system.addresses)
    over4 = "gets no answer (ETIMEDOUT)" if was_up else "is ENETUNREACH"
    over6 = f", to ::1 {_errno6(reading)}" if reading.system.ipv6 else ""
    return Finding(
        "loopback-down",
        WARNING,
        "lo",
        f"lo is down: connect() to 127.0.0.1 {over4}{over6}",
        (),
        (),
        "ip_route_output_flow, ip6_dst_lookup: 127.0.0.0/8 and ::1 come with lo",
        (_lo_up(reading),),
        ("ports, TIME_WAIT, ulimit -n",),
    )


def _errno6(reading: Reading) -> str:
    """Of connect() to a missing ::1: a source address is chosen first, and only then a route is missed."""
    others = any(":" in address.address for address in reading.system.addresses)
    return "ENETUNREACH" if others else "EADDRNOTAVAIL"


def is_loopback(address: str) -> bool:
    """127.0.0.0/8 and ::1."""
    return address == "::1" or address.startswith("127.")


def loopback_asked_for(reading: Reading, address: str) -> Iterator[Finding]:
    """What loopback() mentions is what is wrong, for those who ask about it."""
    for finding in loopback(reading):
        if finding.kind == "loopback-down" or address == "::1":
            yield finding._replace(severity=CRITICAL)


def _lo_up(reading: Reading) -> Fix:
    command = reading.in_namespace("ip link set lo up")
    return Fix("namespace", "bring it up", command, "connect() to 127.0.0.1 and ::1 finds a port")


def _no_loopback6(reading: Reading) -> Finding:
    disabled = any(device.disable_ipv6 for device in reading.system.interfaces if device.is_loopback)
    sysctl = reading.in_namespace("sysctl -w net.ipv6.conf.lo.disable_ipv6=0")
    add = reading.in_namespace("ip -6 addr add ::1/128 dev lo")
    why = "net.ipv6.conf.lo.disable_ipv6 is 1" if disabled else "the address is missing from lo"
    return Finding(
        "no-ipv6-loopback",
        NOTE,
        "::1",
        f"connect() to ::1 is {_errno6(reading)}: {why}",
        ("`localhost` means ::1 first in most runtimes; those that do not go on to 127.0.0.1 fail",),
        (),
        "ip6_dst_lookup: no IPv6 source address, or no route; no port has been looked at",
        (
            Fix("process", "127.0.0.1 instead of localhost", effect="connect() over IPv4"),
            Fix("namespace", "IPv6 on lo", sysctl if disabled else add, "connect() to ::1 finds a port"),
        ),
        ("ports, TIME_WAIT, ulimit -n",),
    )


def route_finding(reading: Reading, route: Route) -> Iterator[Finding]:
    """A destination that connect() refuses before it looks for a port."""
    if not route.error:
        return
    function = "ip6_dst_lookup" if ":" in route.destination else "ip_route_output_flow"
    yield Finding(
        "no-route",
        CRITICAL,
        route.destination,
        f"connect() fails at once: {route.error}",
        (),
        (),
        f"{function}: no route, or no source address for it",
        (
            Fix("namespace", "see which route there is", reading.in_namespace(f"ip route get {route.destination}"),
                "a device and a source address, or the same error"),
        ),
        ("ports (none was looked at)", "TIME_WAIT", "ulimit -n"),
    )  # fmt: skip


def conntrack(reading: Reading) -> Iterator[Finding]:
    """A table that is full drops SYNs: ETIMEDOUT, not EADDRNOTAVAIL."""
    table = reading.system.conntrack
    if table is None or not table.maximum or table.used < _WARN * table.maximum:
        return
    use = table.used / table.maximum
    wait = f"; closed ones stay {table.time_wait_s} s (nf_conntrack_tcp_timeout_time_wait)" if table.time_wait_s else ""
    yield Finding(
        "conntrack",
        CRITICAL if use >= _CRITICAL else WARNING,
        "conntrack",
        f"{percent(use)} full: {grouped(table.used)} of {grouped(table.maximum)} entries; then SYNs are dropped",
        (f"connect() then times out, without an errno of its own{wait}",),
        (),
        "__nf_conntrack_alloc: nf_conntrack: table full, dropping packet (dmesg)",
        (
            Fix("machine", "a larger table", f"sysctl -w net.netfilter.nf_conntrack_max={2 * table.maximum}",
                f"{percent(use / 2)} full"),
            Fix("machine", "or no tracking for this traffic: nft notrack", effect="no entries"),
        ),
        ("ip_local_port_range", "TIME_WAIT sockets"),
    )  # fmt: skip


def descriptors(reading: Reading) -> Iterator[Finding]:
    """Processes near their limit: socket() says EMFILE then."""
    for pid, limit in reading.limits.items():
        if limit.used is not None and limit.soft and limit.used >= _WARN * limit.soft:
            yield _descriptors(reading, pid, limit)


def _descriptors(reading: Reading, pid: int, limit: Limits) -> Finding:
    used = limit.used or 0
    owners = reading.owners.by_inode.values() if reading.owners else ()
    name = next((owner.name for owner in owners if owner.pid == pid), f"pid {pid}")
    higher = limit.hard if limit.hard > limit.soft else 2 * limit.soft
    return Finding(
        "descriptors",
        CRITICAL if used >= _CRITICAL * limit.soft else WARNING,
        name,
        f"{grouped(used)} of {grouped(limit.soft)} descriptors are open: then socket() and accept() say EMFILE",
        (),
        (),
        "__alloc_fd: RLIMIT_NOFILE; connect() is not reached",
        (
            Fix("process", "raise it while it runs" + ("" if higher == limit.hard else " (root: above the hard limit)"),
                f"prlimit --pid {pid} --nofile={higher}:{max(higher, limit.hard)}", f"{percent(used / higher)} used"),
        ),
        ("ports",),
    )  # fmt: skip


def failed_connects(reading: Reading) -> Iterator[Finding]:
    """Seen as they happened (--watch)."""
    count = sum(each.calls for each in reading.failed) + reading.failed_elsewhere
    if not count:
        return
    where = [f"{grouped(each.calls)} to {endpoint(each.destination, each.port)}" for each in reading.failed]
    yield Finding(
        "failed-connects",
        CRITICAL,
        "connect()",
        f"{plural(count, 'call')} failed with EADDRNOTAVAIL since the reading before, on this machine",
        (some_of(where),) if where else (),
        tuple(Holder(each.command, (each.pid,), each.calls) for each in reading.failed),
        "inet_sock_set_state: SYN_SENT to CLOSE without a local port; no counter in /proc/net moves",
    )
