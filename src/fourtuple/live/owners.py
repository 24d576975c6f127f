"""Who holds a socket: its process, by reading /proc/PID/fd as far as permission allows; its control group otherwise.

Lives here: inode -> Owner.  Does not live here: what a group's name means (cgroups.py).

Rules
1. Arguments of a command line are never read into an answer: they hold passwords.  A script's name is.
2. What could not be found out is counted and said: sockets without a process (TIME_WAIT, SYN_RECV, not accepted yet),
   processes that are not ours to look into, sockets that nobody seen here holds (another pid namespace, the kernel).
3. The owner of a socket that several processes hold is the one with the lowest pid; `holders` has them all.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

from fourtuple.live.cgroups import Group, group_named, path_of_process, paths_by_id

if TYPE_CHECKING:
    from fourtuple.live.socket_table import SocketTable

_PREFIX = "socket:["
_INTERPRETERS = ("python", "pypy", "node", "ruby", "perl", "php", "java", "bash", "sh", "dash", "deno", "bun", "lua")
_SCRIPT_OPTIONS = ("-m", "-jar")
_FLAGS = ("-u", "-O", "-OO", "-B", "-E", "-s", "-S", "-I", "-P", "-v", "-b", "-bb", "-server", "--inspect")
"""Options without a value behind them, -X... and NAME=VALUE aside."""
_LONGEST = 64


class Owner(NamedTuple):
    """A process that holds sockets."""

    pid: int
    command: str
    """What people call it: the program's name, with the script's or module's behind an interpreter's."""
    comm: str
    """The kernel's name of the main thread, 15 characters at most."""
    uid: int
    cgroup: str
    """Path of its control group."""
    container: str = ""
    unit: str = ""
    pod: str = ""
    pid_inside: int = 0
    """Its pid in its own pid namespace, where that is another."""

    @property
    def name(self) -> str:
        """`uwsgi[2211]`."""
        return f"{self.command}[{self.pid}]"


@dataclass(frozen=True)
class Owners:
    """Who holds the sockets that were asked about."""

    by_inode: dict[int, Owner] = field(default_factory=dict)
    holders: dict[int, tuple[int, ...]] = field(default_factory=dict)
    """Pids, of sockets that more than one process holds."""
    groups: dict[int, Group] = field(default_factory=dict)
    """By the `cgroup` of a socket: tells the container or service where its process may not be looked into."""
    without_process: int = 0
    """Sockets that no process holds: TIME_WAIT, SYN_RECV, connections not accepted yet, orphans."""
    not_found: int = 0
    """Sockets that some process holds, but none that could be looked into."""
    hidden_processes: int = 0
    """Processes whose descriptors may not be read."""
    unread: tuple[str, ...] = ()
    """The same in words."""

    def restricted_to(self, table: SocketTable) -> Owners:
        """What concerns the sockets of one table."""
        groups = {number: self.groups[number] for number in set(table.cgroup) & self.groups.keys()}
        return replace(self._of(list(table.inode)), groups=groups)

    def _of(self, sockets: list[int]) -> Owners:
        """What concerns these sockets."""
        wanted = set(sockets) - {0}
        found = {inode: self.by_inode[inode] for inode in wanted & self.by_inode.keys()}
        missing = len(wanted) - len(found)
        return Owners(
            found,
            {inode: self.holders[inode] for inode in wanted & self.holders.keys()},
            self.groups,
            sockets.count(0),
            missing,
            self.hidden_processes,
            tuple(_unread(missing, self.hidden_processes)),
        )


def owners_of(table: SocketTable) -> Owners:
    """Owners of all sockets of a table."""
    return find_owners(table.inode, table.cgroup)


def find_owners(inodes: Iterable[int], cgroups: Iterable[int] = ()) -> Owners:
    """Owners of the sockets with these inode numbers (0: a socket without a process), and names of these groups.

    Takes about 4 us for each open descriptor of this machine, whatever is asked.
    """
    sockets = list(inodes)
    pids, hidden = _scan(set(sockets) - {0})
    by_pid = {pid: _owner(pid) for pid in sorted({held[0] for held in pids.values()})}
    groups = {number: group_named(path) for number, path in paths_by_id(cgroups).items()}
    everything = Owners({inode: by_pid[held[0]] for inode, held in pids.items()},
                        {inode: tuple(held) for inode, held in pids.items() if len(held) > 1},
                        groups, hidden_processes=hidden)  # fmt: skip
    return everything._of(sockets)


def _scan(wanted: set[int]) -> tuple[dict[int, list[int]], int]:
    """Inode -> pids that hold it, lowest first; and how many processes may not be looked into."""
    found: dict[int, list[int]] = {}
    hidden = 0
    names = {f"{_PREFIX}{inode}]": inode for inode in wanted}
    if not names:
        return found, hidden
    for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):
        try:
            held = _sockets_of(pid, names)
        except PermissionError:
            hidden += 1
        except OSError:
            pass  # it has ended
        else:
            for inode in held:
                found.setdefault(inode, []).append(pid)
    return found, hidden


def _sockets_of(pid: int, names: dict[str, int]) -> set[int]:
    """Which of the sockets a process holds."""
    directory = os.open(f"/proc/{pid}/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    held = set()
    readlink = os.readlink
    try:
        for fd in os.listdir(directory):
            try:
                inode = names.get(readlink(fd, dir_fd=directory))
            except FileNotFoundError:
                continue  # closed meanwhile
            if inode is not None:
                held.add(inode)
    finally:
        os.close(directory)
    return held


def _unread(not_found: int, hidden: int) -> list[str]:
    """In words, if it matters: where all owners are known, nothing else need be read."""
    if not not_found:
        return []
    what = f"owners of {not_found:,} socket{'s' * (not_found != 1)} not found"
    if hidden:
        others, needed = (" of other users", "root") if os.geteuid() else ("", "CAP_SYS_PTRACE")
        return [f"{what}: {hidden:,} process{'es' * (hidden != 1)}{others} may not be looked into (needs {needed})"]
    return [f"{what}: no process to be seen here holds them (another pid namespace, hidepid, the kernel, just ended)"]


# ------------------------------------------------------------------------------------------ a process


def _owner(pid: int) -> Owner:
    status = _read(pid, "status")
    comm = _field(status, "Name:")
    group = group_named(path_of_process(_read(pid, "cgroup")))
    inside = _field(status, "NSpid:").split()
    uid = _field(status, "Uid:").split()
    return Owner(
        pid,
        short_command(_read(pid, "cmdline").split("\0"), comm),
        comm,
        int(uid[1]) if len(uid) > 1 else -1,
        group.path,
        group.container,
        group.unit,
        group.pod,
        int(inside[-1]) if len(inside) > 1 else 0,
    )


def _read(pid: int, name: str) -> str:
    try:
        with open(f"/proc/{pid}/{name}", encoding="utf-8", errors="replace") as file:
            return file.read(1 << 16)
    except OSError:
        return ""


def _field(status: str, name: str) -> str:
    for line in status.splitlines():
        if line.startswith(name):
            return line[len(name) :].strip()
    return ""


def short_command(arguments: list[str], comm: str) -> str:
    """'python3 app.py' of ['/usr/bin/python3', '-u', '/srv/app.py', '--password', 'x']; never an option's value."""
    program = _base(arguments[0]) if arguments else ""
    if not program or " " in program or program.endswith(":"):
        # No command line, or one written over (`nginx: worker process`, `postgres: user db`): the first word is enough.
        return (program.split(" ")[0].rstrip(":") or comm or "?")[:_LONGEST]
    script = _script(arguments[1:]) if program.rstrip("0123456789.") in _INTERPRETERS else ""
    return f"{program} {script}".rstrip()[:_LONGEST]


def _script(arguments: list[str]) -> str:
    """The script or module; "" when the first word may be an option's value."""
    for i, argument in enumerate(arguments):
        if argument in _SCRIPT_OPTIONS:
            return f"{argument} {_base(arguments[i + 1])}" if i + 1 < len(arguments) else ""
        if not argument.startswith("-"):
            return _base(argument) if " " not in argument else ""
        if argument not in _FLAGS and "=" not in argument and not argument.startswith("-X"):
            return ""
    return ""


def _base(path: str) -> str:
    """The last part of a path, printable."""
    return "".join(c if c.isprintable() else "?" for c in path.rstrip("/").rpartition("/")[2])
