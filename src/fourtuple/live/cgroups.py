"""Control groups: the name of a process's or a socket's group, and the container or service that it stands for.

Lives here: /proc/PID/cgroup, /sys/fs/cgroup, the naming habits of container engines and systemd.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import NamedTuple

_MOUNTS = "/proc/thread-self/mountinfo"
_SHORT_ID = 12
_MOST_DIRECTORIES = 100_000
# The longest names first: a 64-digit id, with the engine in front of it or as a directory above it.
_SCOPE = (
    r"(?:^|/)(?:(docker|cri-containerd|crio|libpod|containerd)[-:])?"
    r"([0-9a-f]{64}|[0-9a-f]{32}-[0-9]{6,})(?:\.scope)?(?=/|$)"
)
_LXC = r"(?:^|/)lxc(?:\.payload\.|/)([^/]+)"
_NSPAWN = r"(?:^|/)(?:systemd-nspawn@(.+?)\.service|machine-(.+?)\.scope)(?=/|$)"
_POD = r"(?:^|[/-])pod([0-9a-f]{8}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{12}|[0-9a-f]{32})(?=/|\.|$)"
_UNIT = r"[^/]+\.(?:service|socket|mount|scope)(?=/|$)"
_ESCAPE = r"\\x([0-9a-f]{2})"
_ENGINES = {"cri-containerd": "containerd", "crio": "cri-o", "libpod": "podman"}


class Group(NamedTuple):
    """A control group as people speak of it."""

    path: str
    container: str = ""
    """`docker 3f2a1b2c3d4e`, `lxc web`; "" for none."""
    pod: str = ""
    """The uid of a Kubernetes pod."""
    unit: str = ""
    """A systemd unit, outside containers: `nginx.service`."""

    @property
    def name(self) -> str:
        """The container, the unit, or the path: the first that there is."""
        return self.container or self.unit or self.path


def group_named(path: str) -> Group:
    """What the path of a group tells."""
    container = _container(path)
    pod = re.search(_POD, path)
    units = re.findall(_UNIT, path)
    # The innermost service; a scope (a login, an app) only where there is no service.
    unit = "" if container else next((u for u in reversed(units) if u.endswith(".service")), units[-1] if units else "")
    return Group(path, container, pod[1].replace("_", "-") if pod else "", _unescaped(unit))


def _container(path: str) -> str:
    found = re.search(_SCOPE, path)
    if found:
        engine = _ENGINES.get(found[1] or "", found[1] or "")
        if not engine and "/docker/" in path:
            engine = "docker"
        return f"{engine or 'container'} {found[2][:_SHORT_ID]}"
    found = re.search(_LXC, path)
    if found:
        return f"lxc {found[1]}"
    found = re.search(_NSPAWN, path)
    return f"nspawn {_unescaped(found[1] or found[2])}" if found else ""


def _unescaped(unit: str) -> str:
    """systemd writes bytes that a file name or a unit may not have as \\xNN."""
    return re.sub(_ESCAPE, lambda match: chr(int(match[1], 16)), unit)


def path_of_process(text: str) -> str:
    """The most telling path in /proc/PID/cgroup: version 2, or where that is the root, version 1's."""
    paths = {}
    for line in text.splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        paths[controllers] = path
    own = paths.pop("", "") or "/"
    if own != "/":
        return own
    named = paths.pop("name=systemd", "/")
    return named if named != "/" else max(paths.values(), key=len, default="/")


def paths_by_id(ids: Iterable[int]) -> dict[int, str]:
    """Paths of the version 2 groups with these ids, which are the inode numbers of their directories.

    Groups outside of what is mounted here, or that have ended, are missing.
    """
    wanted = set(ids) - {0}
    found: dict[int, str] = {}
    root = _mount() if wanted else ""
    if root:
        _walk(root, wanted, found)
    return found


def _mount() -> str:
    """Where version 2 is mounted; "" if it is not."""
    try:
        with open(_MOUNTS) as file:
            return next((line.split(" ", 5)[4] for line in file if " - cgroup2 " in line), "")
    except OSError:
        return ""


def _walk(root: str, wanted: set[int], found: dict[int, str]) -> None:
    """Directory by directory until all are found; a directory of link count 2 has none in it."""
    left = [root]
    for _ in range(_MOST_DIRECTORIES):
        if not left or len(found) == len(wanted):
            return
        path = left.pop()
        try:
            status = os.stat(path)
            if status.st_ino in wanted:
                found[status.st_ino] = path[len(root) :] or "/"
            if status.st_nlink != 2:
                with os.scandir(path) as entries:
                    left += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError:
            continue  # it has ended, or is not for us to see
