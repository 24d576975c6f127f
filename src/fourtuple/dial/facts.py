"""Reading what a dial meets: the settings of the namespaces, this process's descriptors, the machine's memory.

Lives here: reading.  Does not live here: what follows from it (preflight.py).

Rule: what cannot be read is None in the Facts, and no line of the preflight.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from fourtuple.dial.plan import DialPlan
from fourtuple.dial.preflight import Facts
from fourtuple.live import sockets
from fourtuple.live.netns import find_netns, run_in
from fourtuple.live.refusal import CannotRead
from fourtuple.live.system import nearest_profile
from fourtuple.sysctl import Sysctls
from fourtuple.sysctl_parse import write_unchecked
from fourtuple.sysctl_table import BY_NAME

if TYPE_CHECKING:
    from fourtuple.live.netns import Spec

ReadSysctl: TypeAlias = Callable[[str], str]
"""The text of a sysctl, as PrivateNamespace.request("sysctl", name=...)["value"]; OSError when there is none."""

_MOST_READ = 16  # targets: each takes a dump of the kernel's table
_RANGE, _RESERVED = "net.ipv4.ip_local_port_range", "net.ipv4.ip_local_reserved_ports"


def read_facts(
    plan: DialPlan,
    server: ReadSysctl | None = None,
    *,
    backlog: int | None = None,
    accepts: bool = True,
    listeners: int | None = None,
    txqueuelen: int | None = None,
    is_nat: bool = False,
    step_1: bool = False,
    profile: str = "6.18",
    reserved: str = "",
    is_private: bool = False,
    netns: Spec = None,
) -> Facts:
    """The facts for `plan`.

    server      sysctls of the private namespace that the server is in; None: the server is not ours
    backlog     what its listen() was given; `accepts`: it takes connections out of the queue
    listeners   how many there are; None: one for each target
    profile     the Linux that our stack imitates; `reserved`: its ip_local_reserved_ports
    is_private  there will be a private namespace, which is not there yet: it has the defaults of a new one
    netns       where kernel sockets are made, when that is not the private namespace
    """
    is_private = is_private or server is not None
    is_kernel = plan.stack == "kernel"
    client = server if is_private else sysctls_of(netns)
    low, high, shut = _range(plan, client if is_kernel else None, reserved)
    conntrack_max, conntrack_used = _conntrack(client) if is_kernel or is_nat else (None, 0)
    return Facts(
        port_low=low,
        port_high=high,
        reserved=shut,
        profile=nearest_profile(os.uname().release).name if is_kernel else profile,
        step_1=step_1 and is_kernel,
        taken=_taken(plan, netns) if is_kernel and not is_private else 0,
        private=is_private,
        accepts=accepts,
        listeners=listeners,
        backlog=_least(backlog, _number(server, "net.core.somaxconn")),
        syn_backlog=_number(server, "net.ipv4.tcp_max_syn_backlog"),
        syncookies=_number(server, "net.ipv4.tcp_syncookies") != 0,
        files=file_limit(),
        files_used=len(os.listdir("/proc/self/fd")),
        memory_bytes=memory_available(),
        conntrack_max=conntrack_max,
        conntrack_used=conntrack_used,
        txqueuelen=txqueuelen,
        nat=is_nat,
    )


def sysctls_of(netns: Spec = None) -> ReadSysctl:
    """Reads those of a namespace that this process may enter; None: its own."""

    def read(name: str) -> str:
        def here() -> str:
            with open("/proc/sys/" + name.replace(".", "/")) as file:
                return file.read().strip()

        return run_in(find_netns(netns), here)

    return read


def _number(read: ReadSysctl | None, name: str) -> int | None:
    if read is None:
        return None
    try:
        return int(read(name))
    except (OSError, ValueError):
        return None


def _least(*numbers: int | None) -> int | None:
    """A backlog is not known unless listen() was ours; somaxconn then bounds it."""
    if numbers[0] is None:
        return None
    return min(number for number in numbers if number is not None)


def _range(plan: DialPlan, client: ReadSysctl | None, reserved: str) -> tuple[int, int, tuple[tuple[int, int], ...]]:
    """ip_local_port_range and ip_local_reserved_ports of whoever connects: a kernel that `client` reads, or we."""
    sysctls = Sysctls()
    texts = {name: _text(client, name) for name in (_RANGE, _RESERVED)} if client else {_RESERVED: reserved}
    for name, text in texts.items():
        try:
            write_unchecked(sysctls, BY_NAME[name], text)
        except ValueError:
            pass  # the default stands
    low, high = plan.range or (sysctls.port_low, sysctls.port_high)
    return low, high, sysctls.reserved_ranges


def _text(read: ReadSysctl, name: str) -> str:
    """ "" when it cannot be read."""
    try:
        return read(name)
    except OSError:
        return ""


def _conntrack(read: ReadSysctl | None) -> tuple[int | None, int]:
    """Maximum and use.  A table that nothing is in is not on the way: its hooks are there only if a rule needs them."""
    used = _number(read, "net.netfilter.nf_conntrack_count")
    return (_number(read, "net.netfilter.nf_conntrack_max"), used) if used else (None, 0)


def _taken(plan: DialPlan, netns: Spec) -> int:
    """Ports that the fullest of the (source, target) has already, TIME_WAITs included."""
    try:
        return max(_most_to(target.address, target.port, plan.sources, netns) for target in plan.targets[:_MOST_READ])
    except CannotRead:
        return 0


def _most_to(address: str, port: int, sources: tuple[str, ...], netns: Spec) -> int:
    table = sockets(daddr=address, dport=port, netns=netns)
    destinations = table.group_by_destination()
    every = (destinations[number] for number in destinations.largest(len(sources) or 1))
    return max((each.total for each in every if not sources or each.saddr in sources), default=0)


def file_limit() -> int | None:
    """RLIMIT_NOFILE, the hard limit."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return None if hard == resource.RLIM_INFINITY else hard


def memory_available() -> int | None:
    """MemAvailable, in bytes."""
    try:
        with open("/proc/meminfo") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return None
