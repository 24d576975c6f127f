"""Why a wire cannot be opened here, and one thing to do about it: a pure function of what was tried and seen.

Lives here: the reasons, and reading what they depend on.  Does not live here: trying (_netns_helper.py).

Steps, in the order in which they are tried:
    unshare, unshare-user   entering a namespace, as root or with a user namespace      uid_map   becoming root in it
    tun-open, tun-setiff    the device node, and the interface behind it                tun       its mtu
    unshare-second, veth, packet-socket                                                 the pair and our socket on it
    tun-host-open, tun-host-setiff                          the same two on the machine's own network
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from fourtuple.phy import tun

_MAX_USER, _MAX_NET = "user.max_user_namespaces", "user.max_net_namespaces"
_CLONE = "kernel.unprivileged_userns_clone"
_APPARMOR = "kernel.apparmor_restrict_unprivileged_userns"
_SYSCTLS = (_MAX_USER, _MAX_NET, _CLONE, _APPARMOR)
_CONTAINER_MARKS = ("/.dockerenv", "/run/.containerenv", "/run/systemd/container")
_DENIED = (errno.EPERM, errno.EACCES)
_SUDO = "sudo fourtuple ..."


class Refusal(NamedTuple):
    """One line why, and one thing to do ("": nothing that we know of)."""

    reason: str
    todo: str = ""


@dataclass(frozen=True)
class Machine:
    """What the reasons depend on, besides the errno."""

    sysctls: Mapping[str, str] = field(default_factory=dict)
    """Those of _SYSCTLS that this kernel has."""
    seccomp: bool = False
    """A filter is on this process."""
    label: str = ""
    """The AppArmor profile of this process, `unconfined` or "" for none."""
    container: bool = False
    node_mode: str = ""
    """Of /dev/net/tun: `0600`; "" when there is none."""


def explain_refusal(step: str, code: int, machine: Machine, message: str = "") -> Refusal:
    """What stood in the way at `step`; `message` is used where we know no better."""
    found = None
    if step in ("tun-open", "tun-host-open"):
        found = _no_node(code, machine)
        if found and step == "tun-host-open" and code == errno.EACCES:
            found = Refusal(found.reason, _SUDO)
    elif step in ("unshare", "unshare-user", "unshare-second"):
        found = _no_namespace(code, machine)
    elif step == "tun-host-setiff" and code in _DENIED:
        found = Refusal(f"{tun.PATH}: permission denied (TUNSETIFF needs CAP_NET_ADMIN)", _SUDO)
    elif code in _DENIED:
        found = _denied_inside(step, machine)
    elif (step, code) in _MISSING:
        found = _MISSING[step, code]
    return found or Refusal(message or f"{step}: {os.strerror(code).lower()}")


_MISSING = {
    ("veth", errno.EOPNOTSUPP): Refusal("this kernel has no veth driver", "sudo modprobe veth"),
    ("packet-socket", errno.EAFNOSUPPORT): Refusal("this kernel has no packet sockets", "sudo modprobe af_packet"),
}


def _no_node(code: int, machine: Machine) -> Refusal | None:
    """open() of the device node."""
    in_container = "docker run --device /dev/net/tun ..."
    if code == errno.EACCES:
        who = f" (mode {machine.node_mode})" if machine.node_mode else ""
        return Refusal(
            f"{tun.PATH}: permission denied{who}", f"sudo chmod 0666 {tun.PATH}   (opening it grants no privilege)"
        )
    if code == errno.EPERM:
        return Refusal(f"{tun.PATH}: not permitted (the device list of this container)", in_container)
    if code == errno.ENOENT:
        return Refusal(f"{tun.PATH} does not exist", in_container if machine.container else "sudo modprobe tun")
    if code in (errno.ENODEV, errno.ENXIO):
        where = " on the host" if machine.container else ""
        return Refusal(f"{tun.PATH}: no TUN driver behind it ({errno.errorcode[code]})", f"sudo modprobe tun{where}")
    return None


def _no_namespace(code: int, machine: Machine) -> Refusal | None:
    """unshare(): user_namespaces(7), namespaces(7)."""
    if code in (errno.ENOSPC, errno.EUSERS):
        return _no_room(machine)
    if code in (errno.EINVAL, errno.ENOSYS):
        return Refusal("this kernel has no user or no network namespaces (CONFIG_USER_NS, CONFIG_NET_NS)")
    return _denied_namespace(machine) if code in _DENIED else None


def _no_room(machine: Machine) -> Refusal:
    for name, what in ((_MAX_USER, "user"), (_MAX_NET, "network")):
        if machine.sysctls.get(name) == "0":
            return Refusal(f"{what} namespaces are off ({name} = 0)", f"sudo sysctl {name}=10000")
    return Refusal(
        f"no more namespaces for this user ({_MAX_USER}, {_MAX_NET})",
        "lsns -t user -t net   (shows who has them)",
    )


def _denied_namespace(machine: Machine) -> Refusal:
    if machine.sysctls.get(_CLONE) == "0":
        return Refusal(f"user namespaces are for root only ({_CLONE} = 0)", f"sudo sysctl {_CLONE}=1")
    if _apparmor_restricts(machine):
        return _apparmor()
    if machine.seccomp:
        return Refusal(
            "a seccomp filter forbids user namespaces (unshare: EPERM)",
            "docker run --security-opt seccomp=unconfined ..." if machine.container else "start it outside the sandbox",
        )
    return Refusal(
        "user namespaces are forbidden (unshare: EPERM; a security module, or a chroot)", "sudo fourtuple ..."
    )


def _denied_inside(step: str, machine: Machine) -> Refusal | None:
    """The namespace was entered, and then its owner's rights were missing: what AppArmor's restriction looks like."""
    if _apparmor_restricts(machine):
        return _apparmor()
    if step == "packet-socket" and machine.seccomp:
        return Refusal("a seccomp filter forbids packet sockets (socket: EPERM)", "--wire tun needs none")
    return None


def _apparmor_restricts(machine: Machine) -> bool:
    """The restriction is for unconfined programs; they are put under the profile `unprivileged_userns`."""
    return machine.sysctls.get(_APPARMOR) == "1" and machine.label.partition(" ")[0] in (
        "",
        "unconfined",
        "unprivileged_userns",
    )


def _apparmor() -> Refusal:
    return Refusal(f"AppArmor forbids user namespaces ({_APPARMOR} = 1)", f"sudo sysctl {_APPARMOR}=0")


def read_machine() -> Machine:
    """What can be seen from here; what cannot be read counts as absent."""
    sysctls = {name: _read("/proc/sys/" + name.replace(".", "/")) for name in _SYSCTLS}
    return Machine(
        {name: value for name, value in sysctls.items() if value},
        "\nSeccomp:\t2" in _read("/proc/self/status"),
        _read("/proc/self/attr/apparmor/current") or _read("/proc/self/attr/current").rstrip("\0"),
        any(os.path.exists(mark) for mark in _CONTAINER_MARKS),
        _node_mode(),
    )


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _node_mode() -> str:
    try:
        return f"{stat.S_IMODE(os.stat(tun.PATH).st_mode):04o}"
    except OSError:
        return ""
