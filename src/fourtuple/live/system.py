"""What a network namespace and its machine allow: sysctls of the connect path, addresses, conntrack, NAT, limits.

Lives here: `System`, and reading it.  Does not live here: sockets (reader.py), who owns them (owners.py).

Rules
1. What cannot be read is named, in words, in `System.unread`; only an unreachable namespace is an exception.
2. A namespace has no file for a sysctl of the whole machine, nor an older kernel for a newer one: those are `absent`,
   and the field has the default of the profile.
3. Everything about the namespace is read by one thread in one visit.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from fourtuple.kernel_profile import PROFILES, KernelProfile
from fourtuple.live import rtnetlink
from fourtuple.live.netfilter import Conntrack, Nat, read_conntrack, read_nat
from fourtuple.live.netns import Netns, find_netns, run_in
from fourtuple.live.refusal import CannotRead
from fourtuple.live.rtnetlink import Address, Interface, Route
from fourtuple.sysctl import Sysctls
from fourtuple.sysctl_parse import write_unchecked
from fourtuple.sysctl_table import SYSCTLS, Sysctl

if TYPE_CHECKING:
    from fourtuple.live.netns import Spec

_FIRST_PID_NAMESPACE = 0xEFFFFFFC  # include/linux/proc_ns.h: PROC_PID_INIT_INO
_MARKS = {"/.dockerenv": "docker", "/run/.containerenv": "podman"}
_NO_VERSION = (1 << 30, 0)
_COUNTER_FILES = ("snmp", "netstat")
_COUNTER_GROUPS = ("Tcp:", "TcpExt:")


class Files(NamedTuple):
    """Limits on descriptors of the whole machine."""

    nr_open: int = 0
    """fs.nr_open: the highest that RLIMIT_NOFILE can be set to."""
    file_max: int = 0
    """fs.file-max: open files of everybody together."""
    used: int = 0


class Limits(NamedTuple):
    """Limits on descriptors of one process."""

    pid: int
    soft: int
    """RLIMIT_NOFILE, `ulimit -n`: connect() is not reached beyond it, socket() says EMFILE."""
    hard: int
    used: int | None = None
    """Open descriptors; None where they may not be counted."""


@dataclass(frozen=True)
class System:
    """Everything but the sockets of one network namespace, at one moment."""

    hostname: str
    kernel: str
    """As `uname -r`."""
    taken_at: float
    """Seconds since 1970."""
    netns: str
    """Label of the namespace; "" for the one that the reader was in."""
    netns_inode: int
    sysctls: Sysctls
    absent: tuple[str, ...] = ()
    """Sysctls that this kernel or this namespace does not have."""
    interfaces: tuple[Interface, ...] = ()
    addresses: tuple[Address, ...] = ()
    conntrack: Conntrack | None = None
    """None: there is none, or it is not to be seen from this namespace."""
    nat: Nat = field(default_factory=Nat)
    counters: dict[str, int] = field(default_factory=dict)
    """Of /proc/net/snmp and netstat, those of TCP that are not 0: `TcpExt:TCPSynRetrans`, since boot."""
    files: Files = field(default_factory=Files)
    ipv6: bool = True
    """This kernel has IPv6."""
    container: str = ""
    """What kind of container the reader was in: `docker`, `kubernetes`, `container`; "" for none."""
    unread: tuple[str, ...] = ()
    """A line for each thing that could not be read, and why."""

    @property
    def loopback_is_up(self) -> bool:
        """Some loopback device is up; without one 127.0.0.1 and ::1 cannot be reached."""
        return any(device.is_up for device in self.interfaces if device.is_loopback)

    @property
    def has_loopback6(self) -> bool:
        """::1 is an address of this machine."""
        return any(address.address == "::1" for address in self.addresses)

    def interface(self, ifindex: int) -> Interface | None:
        """The device of that index."""
        return next((device for device in self.interfaces if device.ifindex == ifindex), None)


def read_system(netns: Spec = None) -> System:
    """What can be read of a network namespace.  Raises CannotRead when there is none, or it may not be entered."""
    namespace = find_netns(netns)
    return run_in(namespace, lambda: _read_here(namespace))


def route_towards(destination: str, port: int = 0, source: str = "", netns: Spec = None) -> Route:
    """The source address and the device that connect() would use, or its errno, in that namespace; nothing is sent."""
    return routes_towards([(destination, port, source)], netns)[0]


def routes_towards(asked: Iterable[tuple[str, int, str]], netns: Spec = None) -> tuple[Route, ...]:
    """The same for many (destination, port, source or ""), in one visit."""
    return run_in(find_netns(netns), lambda: rtnetlink.find_routes(asked))


def _read_here(namespace: Netns) -> System:
    unread: list[str] = []
    uname = os.uname()
    sysctls, absent = _read_sysctls(nearest_profile(uname.release), unread)
    return System(
        uname.nodename,
        uname.release,
        time.time(),
        namespace.label,
        namespace.inode,
        sysctls,
        absent,
        _interfaces(unread),
        _addresses(unread),
        _conntrack(unread),
        read_nat(),
        read_counters(unread),
        _files(),
        os.path.isdir("/proc/sys/net/ipv6"),
        find_container(),
        tuple(unread),
    )


def _interfaces(unread: list[str]) -> tuple[Interface, ...]:
    try:
        return rtnetlink.read_interfaces()
    except CannotRead as error:
        unread.append(str(error))
        return ()


def _addresses(unread: list[str]) -> tuple[Address, ...]:
    try:
        return rtnetlink.read_addresses()
    except CannotRead as error:
        unread.append(str(error))
        return ()


def _conntrack(unread: list[str]) -> Conntrack | None:
    """None with a reason where the files are there and yet not to be read."""
    found = read_conntrack()
    if found is None and os.path.exists("/proc/sys/net/netfilter/nf_conntrack_count"):
        unread.append("conntrack: its use or its limit may not be read here")
    return found


# ------------------------------------------------------------------------------------------ sysctls


def nearest_profile(release: str) -> KernelProfile:
    """The profile of the newest kernel that is not newer than `release`, or else of the oldest.

    A release that is no version number gets the newest.
    """
    wanted = _version(release)
    profiles = sorted(PROFILES.values(), key=lambda profile: _version(profile.name))
    return ([profile for profile in profiles if _version(profile.name) <= wanted] or profiles[:1])[-1]


def _version(release: str) -> tuple[int, int]:
    """'6.18.44-fc' -> (6, 18); more than any there is for what does not look like that."""
    numbers = release.split("-")[0].split(".")[:2]
    if len(numbers) < 2 or not all(part.isascii() and part.isdigit() for part in numbers):
        return _NO_VERSION
    return int(numbers[0]), int(numbers[1])


def _read_sysctls(profile: KernelProfile, unread: list[str]) -> tuple[Sysctls, tuple[str, ...]]:
    """The values here, and the names of those that there are not."""
    sysctls, absent = Sysctls(profile), []
    for row in SYSCTLS:
        try:
            with open("/proc/sys/" + row.name.replace(".", "/")) as file:
                text = file.read().rstrip("\n")
        except FileNotFoundError:
            absent.append(row.name)
        except OSError as error:
            unread.append(f"sysctl {row.name}: {error.strerror}; taken to be {row.default!r}")
        else:
            if not store_sysctl(sysctls, row, text):
                unread.append(f"sysctl {row.name}: {text[:40]!r} is not understood; taken to be {row.default!r}")
    return sysctls, tuple(absent)


def store_sysctl(sysctls: Sysctls, row: Sysctl, text: str) -> bool:
    """Store what a kernel shows, in whatever order: no bounds, as its own may differ.  False: it is not understood."""
    try:
        write_unchecked(sysctls, row, text)
    except ValueError:
        return False
    sysctls.generation += 1
    return row.kind != "ports" or not text or bool(sysctls.reserved_ranges)


# ------------------------------------------------------------------------------------------ limits and counters


def _files() -> Files:
    used, _, most = (_words("/proc/sys/fs/file-nr") or ["0", "0", "0"])[:3]
    return Files(_number(_words("/proc/sys/fs/nr_open")), _number([most]), _number([used]))


def _words(path: str) -> list[str]:
    try:
        with open(path) as file:
            return file.read().split()
    except OSError:
        return []


def _number(words: list[str]) -> int:
    return int(words[0]) if words and words[0].isascii() and words[0].isdigit() else 0


def read_limits(pid: int) -> Limits:
    """The descriptor limits of a process.  Raises CannotRead."""
    what = f"limits of pid {pid}"
    try:
        with open(f"/proc/{pid}/limits") as file:
            line = next((line for line in file if line.startswith("Max open files")), "")
        soft, hard = map(int, line.split()[3:5])
    except OSError as error:
        reason = "there is no such process" if error.errno in (errno.ENOENT, errno.ESRCH) else ""
        advice = "" if reason else "another user's: needs root"
        raise CannotRead(error.errno or errno.EIO, what, advice, reason) from None
    except ValueError:
        raise CannotRead(errno.EBADMSG, what, "", "an unknown format") from None
    return Limits(pid, soft, hard, _count_files(pid))


def _count_files(pid: int) -> int | None:
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return None


def read_counters(unread: list[str]) -> dict[str, int]:
    """Of the namespace that the calling thread is in; a line in `unread` for a file that may not be read."""
    found: dict[str, int] = {}
    for name in _COUNTER_FILES:
        try:
            with open(f"/proc/thread-self/net/{name}") as file:
                lines = file.read().splitlines()
        except OSError as error:
            unread.append(f"counters of /proc/net/{name}: {error.strerror}")
            continue
        for heads, values in zip(lines[::2], lines[1::2], strict=False):
            found |= _counter_group(heads.split(), values.split())
    return found


def _counter_group(heads: list[str], values: list[str]) -> dict[str, int]:
    if not heads or heads[0] not in _COUNTER_GROUPS or heads[:1] != values[:1]:
        return {}
    pairs = zip(heads[1:], values[1:], strict=False)
    return {heads[0] + head: int(value) for head, value in pairs if value.lstrip("-").isdigit() and int(value)}


# ------------------------------------------------------------------------------------------ containers


def find_container() -> str:
    """What kind of container this process is in; "" when nothing tells of one."""
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        return "kubernetes"
    for path, name in _MARKS.items():
        if os.path.exists(path):
            return name
    engine = os.environ.get("container", "")  # noqa: SIM112 (systemd's convention is lower case)
    return engine or ("container" if _is_in_pid_namespace() else "")


def _is_in_pid_namespace() -> bool:
    try:
        return os.stat("/proc/self/ns/pid").st_ino != _FIRST_PID_NAMESPACE
    except OSError:
        return False
