"""What of a dial will not fit, before it starts: ports, queues, descriptors, memory; and the change that makes it fit.

Lives here: one function a limit, each from the plan and the facts alone.  Does not live here: reading the facts
(facts.py), the rules of the port search (inet/ is asked), what is done about it.

Rules
1. A line that does not fit says what fails then, as the kernel would: it was tried.
2. A line that fits may still have a `change`: then it only goes faster with it.
3. `need` and `have` are counts in the unit that `what` names; `have` is None where there is no limit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from fourtuple.address import format_ipv4, parse_ipv4
from fourtuple.dial.plan import DialPlan
from fourtuple.dial.report import Fit
from fourtuple.doctor.words import grouped, plural
from fourtuple.inet.hashinfo import InetHashinfo
from fourtuple.inet.hashtables import set_search_range
from fourtuple.inet.portset import RESERVED, portset_test
from fourtuple.inet.secrets import BootSecrets
from fourtuple.inet.sock_table import SockTable, sk_alloc
from fourtuple.kernel_profile import profile_named
from fourtuple.sysctl import Sysctls

MIB = 1 << 20
OURS_BYTES = 165
"""Of a connection in our stack, no timer armed."""
QUEUED_BYTES = 2_900
"""In a kernel's accept queue: struct tcp_sock and the request, slab waste included (6.18, x86-64)."""
SOCKET_BYTES = 4_300
"""A kernel socket with inode, file, dentry, bind buckets, a place in an epoll set: a client's, or an accepted one."""
NAT_PORTS = 64_512
"""nf_nat_l4proto_unique_tuple: a source port of 1024 or more is replaced by one of 1024-65535."""
_SPARE_FILES = 16
_WIDE = (1024, 65535)
_TW_S = 60
# Time of one handshake of each stack on one core, measured (docs/performance.md); and of one port passed over.
_HANDSHAKE_US = {"user": 17.0, "kernel": 50.0}
_PASSED_OVER_US = 0.055
_PRIVATE_SOURCES = (("10.64.0.2", 253), ("10.65.0.1", 65_534))


@dataclass(frozen=True)
class Facts:
    """What the machine, the namespace and the wire allow.  None: not known, or no limit."""

    port_low: int = 32768
    port_high: int = 60999
    """ip_local_port_range of whoever connects: our stack, or the kernel."""
    reserved: tuple[tuple[int, int], ...] = ()
    profile: str = "6.18"
    step_1: bool = False
    """Kernel sockets with IP_LOCAL_PORT_RANGE."""
    taken: int = 0
    """Ports that are in use already for the fullest (source, target)."""
    private: bool = False
    """The server is in our own namespace: its kernel is this one, and its settings are ours to change."""
    accepts: bool = True
    """The server takes connections out of its accept queue."""
    listeners: int | None = None
    """How many there are; None: one for each target."""
    backlog: int | None = None
    """Of each listener: what listen() was given, at most net.core.somaxconn."""
    syn_backlog: int | None = None
    """net.ipv4.tcp_max_syn_backlog."""
    syncookies: bool = True
    files: int | None = None
    """RLIMIT_NOFILE of the process that connects, the hard limit."""
    files_used: int = 0
    memory_bytes: int | None = None
    """MemAvailable."""
    conntrack_max: int | None = None
    """net.netfilter.nf_conntrack_max; None: no connection tracking on the way."""
    conntrack_used: int = 0
    txqueuelen: int | None = None
    """Packets from the kernel that wait for us in a TUN device."""
    nat: bool = False
    """Connections leave under an address that they share."""


def preflight(plan: DialPlan, facts: Facts) -> list[Fit]:
    """A line for each limit that this dial may meet, those that do not fit first."""
    lines = [line for check in _CHECKS for line in check(plan, facts)]
    return sorted(lines, key=lambda line: (line.fits, not line.change))


def ports_of_pair(facts: Facts) -> int:
    """How many connections one source can have to one target at once: as many ports as every search can find."""
    sysctls = Sysctls(profile_named(facts.profile))
    sysctls.port_low, sysctls.port_high = facts.port_low, facts.port_high
    sysctls.reserved_ranges = facts.reserved
    sks = SockTable(1)
    h = InetHashinfo(sks, sysctls, BootSecrets(0), 1)
    sk = sk_alloc(sks)
    if facts.step_1:
        sks.opts[sk] = sks.options.replaced(0, port_low=facts.port_low, port_high=facts.port_high)
    set_search_range(h, sk)
    numbers = h.range
    reserved = sum(portset_test(h.sets, RESERVED, port) for port in range(numbers.low, numbers.high))
    return max(0, numbers.remaining - reserved)


def ports(plan: DialPlan, facts: Facts) -> Iterator[Fit]:
    """More than these: EADDRNOTAVAIL from connect()."""
    need, have = _of_pair(plan), ports_of_pair(facts) - facts.taken
    fits = need <= have
    yield Fit(
        "local ports for each source and target", need, max(0, have), fits, "" if fits else _more_ports(plan, facts)
    )


def _of_pair(plan: DialPlan) -> int:
    return -(-plan.connections // (max(1, len(plan.sources)) * len(plan.targets)))


def _more_ports(plan: DialPlan, facts: Facts) -> str:
    changes = [_wider_range(plan, facts)]
    room = ports_of_pair(facts) - facts.taken
    if room > 0:
        changes.append(_more_sources(-(-plan.connections // (room * len(plan.targets))), facts))
        changes.append(plural(-(-plan.connections // (room * max(1, len(plan.sources)))), "target"))
    elif facts.reserved and not changes[0]:
        changes.append("a shorter --reserve" if plan.stack == "user" else "sysctl -w net.ipv4.ip_local_reserved_ports=")
    return ", or ".join(filter(None, changes))


def _wider_range(plan: DialPlan, facts: Facts) -> str:
    """ "" where even the widest would not do."""
    low, high = _WIDE
    wide = Facts(port_low=low, port_high=high, reserved=facts.reserved, profile=facts.profile, step_1=facts.step_1)
    if ports_of_pair(wide) - facts.taken < _of_pair(plan):
        return ""
    if plan.stack == "user" or facts.private:
        return f"--range {low}-{high}"
    return f'sysctl -w net.ipv4.ip_local_port_range="{low} {high}"'


def _more_sources(count: int, facts: Facts) -> str:
    if not facts.private:
        return f"--sources with {grouped(count)} addresses"
    for first, most in _PRIVATE_SOURCES:
        if count <= most:
            return f"--sources {first}-{format_ipv4(parse_ipv4(first) + count - 1)}"
    return ""


def cliff(plan: DialPlan, facts: Facts) -> Iterator[Fit]:
    """The kernel's connect() walks over every port of one parity once those are used up."""
    need, half = _of_pair(plan) + facts.taken, ports_of_pair(facts) // 2
    if plan.stack != "kernel" or facts.step_1 or need <= half:
        return
    change = f"--step-1: past half of the range each connect() walks over {grouped(half)} ports first"
    yield Fit("ports before connect() gets slow", need, half, True, change)


def nat(plan: DialPlan, facts: Facts) -> Iterator[Fit]:
    """More than these: SYNs are dropped, ETIMEDOUT."""
    if not facts.nat:
        return
    need = -(-plan.connections // len(plan.targets))
    fits = need <= NAT_PORTS
    change = "" if fits else f"{-(-plan.connections // NAT_PORTS)} targets: all sources leave under one address"
    yield Fit("ports of the NAT address for each target", need, NAT_PORTS, fits, change)


def accept_queue(plan: DialPlan, facts: Facts) -> Iterator[Fit]:
    """A full queue drops SYNs: they are sent again after 1, 2, 4 s ..., ETIMEDOUT in the end."""
    if facts.backlog is None:
        return
    waiting = min(plan.window, plan.connections) if facts.accepts else plan.connections
    need = -(-waiting // (facts.listeners or len(plan.targets)))
    # sk_acceptq_is_full: more than the backlog, so there is room for one beyond it.
    have = facts.backlog + 1
    fits = need <= have
    change = (
        "" if fits else f"net.core.somaxconn={need} and listen({need}) at the server" + _or_targets(plan, need, have)
    )
    yield Fit("accept queue of each listener", need, have, fits, change)


def _or_targets(plan: DialPlan, need: int, have: int) -> str:
    return ", or " + plural(-(-need * len(plan.targets) // have), "target")


def syn_queue(plan: DialPlan, facts: Facts) -> Iterator[Fit]:
    """With tcp_syncookies the queue has no end (answers are cookies then); without them SYNs are dropped."""
    if facts.syn_backlog is None or facts.syncookies:
        return
    need = -(-min(plan.window, plan.connections) // (facts.listeners or len(plan.targets)))
    have = half_open_room(facts)
    fits = need <= have
    change = "" if fits else f"net.ipv4.tcp_max_syn_backlog={-(-need * 4 // 3)} at the server, or --window {have}"
    yield Fit("half-open connections of each listener", need, have, fits, change)


def half_open_room(facts: Facts) -> int:
    """tcp_conn_request: without cookies the last quarter of tcp_max_syn_backlog is for peers known before."""
    most = facts.syn_backlog or 0
    # It drops when most - queued < most >> 2, and when the queue is longer than the listener's backlog.
    room = most - (most >> 2) + 1
    return room if facts.backlog is None else min(room, facts.backlog + 1)


def descriptors(plan: DialPlan, facts: Facts) -> Iterator[Fit]:
    """More than these: EMFILE from socket()."""
    if plan.stack != "kernel" or facts.files is None:
        return
    spare = facts.files_used + _SPARE_FILES
    need = -(-plan.connections // plan.processes) + spare
    fits = need <= facts.files
    change = ""
    if not fits:
        change = f"ulimit -n {need}" + _or_processes(plan, facts.files - spare) + ", or --stack user, which needs none"
    yield Fit("descriptors of each process", need, facts.files, fits, change)


def _or_processes(plan: DialPlan, room: int) -> str:
    return f", or --processes {-(-plan.connections // room)}" if room > 0 else ""


def server_descriptors(plan: DialPlan, facts: Facts) -> Iterator[Fit]:
    """More than these: the others stay in the accept queue, established and never answered."""
    if not (facts.private and facts.accepts) or facts.files is None:
        return
    need = plan.connections + _SPARE_FILES
    fits = need <= facts.files
    other = (
        # A server that is to answer has to accept.
        f"at most {plural(max(0, facts.files - _SPARE_FILES), 'connection')}"
        if plan.talk
        else "--server hold, which leaves them in the accept queue"
    )
    change = "" if fits else f"{other}, or ulimit -n {need}"
    yield Fit("descriptors of the server", need, facts.files, fits, change)


def rows(plan: DialPlan, facts: Facts) -> Iterator[Fit]:
    """More than these: ENOBUFS."""
    if plan.stack != "user" or not plan.max_sockets:
        return
    fits = plan.connections <= plan.max_sockets
    change = "" if fits else f"--max-sockets {plan.connections}, or none: it then fits the connections"
    yield Fit("rows of the socket table", plan.connections, plan.max_sockets, fits, change)


def memory(plan: DialPlan, facts: Facts) -> Iterator[Fit]:
    """More than this: the kernel ends a process of its choice."""
    if facts.memory_bytes is None:
        return
    each = OURS_BYTES if plan.stack == "user" else SOCKET_BYTES
    if facts.private:
        each += SOCKET_BYTES if facts.accepts else QUEUED_BYTES
    need, have = -(-plan.connections * each // MIB), facts.memory_bytes // MIB
    most = facts.memory_bytes // each
    change = (
        ""
        if need <= have
        else f"at most {plural(most, 'connection')}: each takes {grouped(each)} bytes here" + _or_ours(plan)
    )
    yield Fit("memory (MiB)", need, have, need <= have, change)


def _or_ours(plan: DialPlan) -> str:
    return f"; --stack user takes {OURS_BYTES}" if plan.stack == "kernel" else ""


def conntrack(plan: DialPlan, facts: Facts) -> Iterator[Fit]:
    """More than these: packets are dropped (nf_conntrack: table full), ETIMEDOUT."""
    if not facts.conntrack_max:  # 0: no limit
        return
    need = facts.conntrack_used + plan.connections
    fits = need <= facts.conntrack_max
    change = "" if fits else f"sysctl -w net.netfilter.nf_conntrack_max={need}, or nft notrack for this traffic"
    yield Fit("connection tracking entries", need, facts.conntrack_max, fits, change)


def device_queue(plan: DialPlan, facts: Facts) -> Iterator[Fit]:
    """A TUN that is full drops what the kernel answers: it sends again after a second."""
    if plan.stack != "user" or facts.txqueuelen is None:
        return
    need = min(plan.window, plan.connections)
    fits = need <= facts.txqueuelen
    change = "" if fits else f"--window {facts.txqueuelen}, or txqueuelen {need} of the device"
    yield Fit("packets that wait in the device", need, facts.txqueuelen, fits, change)


def time_wait(plan: DialPlan, facts: Facts) -> Iterator[Fit]:
    """Whoever closes first keeps the ports for a minute: the next dial of this size has to find others."""
    if plan.stack != "kernel" or facts.private or plan.close != "fin":
        return
    need, have = 2 * _of_pair(plan) + facts.taken, ports_of_pair(facts)
    change = f"--close rst, or {_TW_S} s between two dials: TIME_WAIT keeps the ports that long" if need > have else ""
    yield Fit(f"ports for two such dials within {_TW_S} s", need, have, True, change)


def duration(plan: DialPlan, facts: Facts) -> Iterator[Fit]:
    """How long opening takes, about; then it holds and closes."""
    yield Fit("time to open (s)", round(seconds_to_open(plan, facts)), None, True)


def seconds_to_open(plan: DialPlan, facts: Facts) -> float:
    """By the rate that was asked for, or by what one core manages."""
    each = _HANDSHAKE_US[plan.stack] / plan.processes
    seconds = plan.connections * each / 1e6
    if plan.stack == "kernel" and not facts.step_1:
        half = ports_of_pair(facts) // 2
        pairs = max(1, len(plan.sources)) * len(plan.targets)
        seconds += max(0, _of_pair(plan) + facts.taken - half) * pairs * half * _PASSED_OVER_US / 1e6
    return max(seconds, plan.ramp_s / 2 + plan.connections / plan.rate) if plan.rate else seconds


_CHECKS: tuple[Callable[[DialPlan, Facts], Iterator[Fit]], ...] = (
    ports, nat, accept_queue, syn_queue, descriptors, server_descriptors, rows, memory, conntrack, device_queue, cliff,
    time_wait, duration,
)  # fmt: skip
