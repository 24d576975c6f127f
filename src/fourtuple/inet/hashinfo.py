"""InetHashinfo: the tables of one network namespace, and the numbers of a port search.

Here: what they are made of, how sysctls, KernelProfile and IP_LOCAL_PORT_RANGE reach them.  Not here: the search
(hashtables.py).
"""

from __future__ import annotations

from fourtuple.inet.bind import BindTable
from fourtuple.inet.dest import DENSE, DestTable
from fourtuple.inet.portset import PortSets
from fourtuple.inet.secrets import BootSecrets
from fourtuple.inet.sock_table import SockTable
from fourtuple.inet.timewait import TimeWaitTable
from fourtuple.inet.tuple_index import ColumnGroup, TupleIndex
from fourtuple.sysctl import Sysctls
from fourtuple.trace import Tracer


class PortRange:
    """The numbers of one search: ports low..high-1, `remaining` offsets, `step` 2 (parity passes) or 1.

    `stride`: from one port looked at to the next, where ip_local_port_step_width drew one; else 0, and it is `step`.
    `own` is the destination of the socket, `unbound` the same destination without its device (0: nobody is connected
    there), with their maps.  `certain`: the maps hold every 4-tuple of theirs, so what is not in them need not be
    looked up.  `generation`: that of the sysctls if the range is the namespace's own, else 0.
    """

    __slots__ = (
        "generation", "low", "high", "remaining", "step", "stride", "own", "unbound", "own_map", "unbound_map",
        "certain",
    )  # fmt: skip

    def __init__(self) -> None:
        self.generation = 0
        self.low = 0
        self.high = 0
        self.remaining = 0
        self.step = 0
        self.stride = 0
        self.own = 0
        self.unbound = 0
        self.own_map = 0
        self.unbound_map = 0
        self.certain = False


class InetHashinfo:
    """The tables of one network namespace (struct inet_hashinfo), and what the search needs beside them."""

    __slots__ = (
        "sks", "tw", "ehash", "sets", "bind", "dests", "sysctl", "secrets", "tracer", "listeners", "tw_recycled",
        "last_distance", "sysctl_generation", "range", "reserved_ranges", "variant", "port_order", "one_counter",
        "local_range_step_1", "bind_step_1", "rehash_period_us", "step_width",
    )  # fmt: skip

    def __init__(self, sks: SockTable, sysctl: Sysctls, secrets: BootSecrets, max_tw: int) -> None:
        self.sks = sks
        self.tw = TimeWaitTable(max_tw)
        self.ehash = TupleIndex(
            ColumnGroup(sks.saddr, sks.daddr, sks.sport, sks.dport),
            ColumnGroup(self.tw.saddr, self.tw.daddr, self.tw.num, self.tw.dport),
            secrets.ehash_secret,
            max(sks.max_sockets, max_tw),
        )
        most = sks.max_sockets + max_tw
        self.sets = PortSets(most * 4 // DENSE + 64)  # a map has DENSE / 4 connections or more
        profile = sysctl.profile
        self.bind = BindTable(sks, self.tw, self.sets, profile.bucket_heals, profile.has_reuseport)
        self.dests = DestTable(most, self.tw, self.sets, secrets.ehash_secret)
        self.dests.tw_seconds = profile.tw_reuse_seconds
        self.dests.fin_wait2_reuse = profile.fin_wait2_reuse
        self.port_order = profile.port_order
        self.one_counter = profile.one_counter
        self.local_range_step_1 = profile.local_range_step_1
        self.bind_step_1 = profile.bind_step_1
        self.rehash_period_us = profile.port_rehash_period_us
        self.step_width = 0
        self.variant = False
        self.sysctl = sysctl
        self.secrets = secrets
        self.tracer: Tracer | None = None
        self.listeners: dict[int, list[int]] = {}
        self.tw_recycled = 0
        self.last_distance = 0
        self.range = PortRange()
        self.reserved_ranges: tuple[tuple[int, int], ...] = ()
        self.sysctl_generation = sysctl.generation
        refresh_sysctls(self)


def refresh_sysctls(h: InetHashinfo) -> int:
    """Take over the sysctls that the bit sets depend on."""
    h.sysctl_generation = h.sysctl.generation
    # 2, loopback only, came with 4.19: before, anything but 0 was on.
    reuse = 1 if h.one_counter and h.sysctl.tcp_tw_reuse != 0 else h.sysctl.tcp_tw_reuse
    h.dests.set_reuse(reuse, h.sysctl.tcp_tw_reuse_delay)
    h.step_width = h.sysctl.ip_local_port_step_width
    h.variant = h.one_counter or h.step_width != 0
    h.range.stride = 0
    if h.sysctl.reserved_ranges != h.reserved_ranges:
        h.reserved_ranges = h.sysctl.reserved_ranges
        h.bind.reserve(h.reserved_ranges)
    return 0


def inet_sk_get_local_port_range(h: InetHashinfo, sk: int) -> bool:
    """Fill h.range's low and high (inclusive); true when IP_LOCAL_PORT_RANGE is set on the socket.

    A bound outside the namespace's range is ignored, each on its own (PORT-28).
    """
    low = h.sysctl.port_low
    high = h.sysctl.port_high
    local = False
    h.range.generation = 0
    if h.sks.opts[sk] != 0:
        options = h.sks.option_sets[h.sks.opts[sk]]
        own_low = options.port_low
        own_high = options.port_high
        local = own_low != 0 or own_high != 0
        if own_low != 0 and low <= own_low <= high:
            low = own_low
        if own_high != 0 and low <= own_high <= high:
            high = own_high
    h.range.low = low
    h.range.high = high
    return local
