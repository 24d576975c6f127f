"""Each refusal has its own reason and one thing to do: from an errno and what the machine looks like."""

from __future__ import annotations

import errno
import os

import pytest

from fourtuple.shell.refusal import Machine, Refusal, explain_refusal, read_machine

CLONE = {"kernel.unprivileged_userns_clone": "0"}
APPARMOR = {"kernel.apparmor_restrict_unprivileged_userns": "1"}
OFF = {"user.max_user_namespaces": "0"}
NO_NET = {"user.max_user_namespaces": "100", "user.max_net_namespaces": "0"}
DOCKER = "docker run --device /dev/net/tun ..."

NODE = [
    (
        errno.EACCES,
        Machine(node_mode="0600"),
        "permission denied (mode 0600)",
        "sudo chmod 0666",
    ),
    (errno.EACCES, Machine(), "/dev/net/tun: permission denied", "sudo chmod 0666 /dev/net/tun"),
    (errno.EPERM, Machine(container=True), "not permitted (the device list of this container)", DOCKER),
    (errno.ENOENT, Machine(), "/dev/net/tun does not exist", "sudo modprobe tun"),
    (errno.ENOENT, Machine(container=True), "/dev/net/tun does not exist", DOCKER),
    (errno.ENODEV, Machine(), "no TUN driver behind it (ENODEV)", "sudo modprobe tun"),
    (errno.ENXIO, Machine(container=True), "no TUN driver behind it (ENXIO)", "sudo modprobe tun on the host"),
]


@pytest.mark.parametrize(("code", "machine", "reason", "todo"), NODE)
def test_the_device_node(code: int, machine: Machine, reason: str, todo: str) -> None:
    check(explain_refusal("tun-open", code, machine), reason, todo)


def test_a_device_node_for_all_would_not_open_the_machines_own_network() -> None:
    refusal = explain_refusal("tun-host-open", errno.EACCES, Machine(node_mode="0600"))
    assert refusal == ("/dev/net/tun: permission denied (mode 0600)", "sudo fourtuple ...")
    assert explain_refusal("tun-host-open", errno.ENOENT, Machine()).todo == "sudo modprobe tun"


NAMESPACE = [
    (errno.ENOSPC, Machine(OFF), "user namespaces are off (user.max_user_namespaces = 0)", "user.max_user_namespaces="),
    (errno.ENOSPC, Machine(NO_NET), "network namespaces are off (user.max_net_namespaces = 0)", "max_net_namespaces="),
    (errno.ENOSPC, Machine({"user.max_user_namespaces": "7"}), "no more namespaces for this user", "lsns"),
    (errno.EUSERS, Machine(), "no more namespaces for this user", "lsns"),
    (errno.EPERM, Machine(CLONE), "for root only (kernel.unprivileged_userns_clone = 0)", "userns_clone=1"),
    (errno.EPERM, Machine(APPARMOR), "AppArmor forbids user namespaces", "restrict_unprivileged_userns=0"),
    (errno.EACCES, Machine(APPARMOR, label="unconfined"), "AppArmor forbids", "restrict_unprivileged_userns=0"),
    (errno.EPERM, Machine(seccomp=True), "a seccomp filter forbids user namespaces", "outside the sandbox"),
    (errno.EPERM, Machine(seccomp=True, container=True), "a seccomp filter forbids", "seccomp=unconfined"),
    # Docker on Ubuntu: the restriction is for unconfined programs, this one is confined and has a filter.
    (errno.EPERM, Machine(APPARMOR, True, "docker-default (enforce)"), "a seccomp filter forbids", "sandbox"),
    (errno.EPERM, Machine(), "user namespaces are forbidden (unshare: EPERM; a security module, or a chroot)", "sudo"),
    (errno.EINVAL, Machine(), "this kernel has no user or no network namespaces (CONFIG_USER_NS, CONFIG_NET_NS)", ""),
]


@pytest.mark.parametrize(("code", "machine", "reason", "todo"), NAMESPACE)
@pytest.mark.parametrize("step", ["unshare", "unshare-user", "unshare-second"])
def test_entering_a_namespace(step: str, code: int, machine: Machine, reason: str, todo: str) -> None:
    check(explain_refusal(step, code, machine), reason, todo)


INSIDE = [
    # Ubuntu 24.04: unshare() succeeds, and then the capabilities are missing.
    ("uid_map", errno.EPERM, Machine(APPARMOR, label="unprivileged_userns (enforce)"), "AppArmor forbids", "userns=0"),
    ("tun-setiff", errno.EPERM, Machine(APPARMOR), "AppArmor forbids user namespaces", "userns=0"),
    ("veth", errno.EPERM, Machine(APPARMOR), "AppArmor forbids user namespaces", "userns=0"),
    ("packet-socket", errno.EPERM, Machine(APPARMOR), "AppArmor forbids user namespaces", "userns=0"),
    ("packet-socket", errno.EPERM, Machine(seccomp=True), "a seccomp filter forbids packet sockets", "--wire tun"),
    ("veth", errno.EOPNOTSUPP, Machine(), "this kernel has no veth driver", "sudo modprobe veth"),
    ("packet-socket", errno.EAFNOSUPPORT, Machine(), "this kernel has no packet sockets", "sudo modprobe af_packet"),
    ("tun-host-setiff", errno.EPERM, Machine(), "permission denied (TUNSETIFF needs CAP_NET_ADMIN)", "sudo fourtuple"),
]


@pytest.mark.parametrize(("step", "code", "machine", "reason", "todo"), INSIDE)
def test_what_is_missing_inside(step: str, code: int, machine: Machine, reason: str, todo: str) -> None:
    check(explain_refusal(step, code, machine), reason, todo)


@pytest.mark.parametrize("step", ["tun-open", "uid_map", "tun-setiff", "tun", "veth", "packet-socket", "unshare"])
def test_what_we_know_nothing_of_keeps_the_kernels_own_words(step: str) -> None:
    assert explain_refusal(step, errno.EIO, Machine(), "ft0: it broke") == Refusal("ft0: it broke", "")
    assert explain_refusal(step, errno.EIO, Machine()) == Refusal(f"{step}: input/output error", "")


def test_every_reason_is_one_line_that_fits() -> None:
    rows = [(code, machine, "tun-open") for code, machine, _, _ in NODE]
    rows += [(code, machine, "unshare") for code, machine, _, _ in NAMESPACE]
    rows += [(code, machine, step) for step, code, machine, _, _ in INSIDE]
    for code, machine, step in rows:
        for text in explain_refusal(step, code, machine):
            assert "\n" not in text
            assert len(text) <= 100


def test_the_machine_is_read_without_complaint() -> None:
    machine = read_machine()
    assert all(value for value in machine.sysctls.values())
    with open("/proc/self/status") as status:
        assert machine.seccomp == ("Seccomp:\t2" in status.read())
    assert bool(machine.node_mode) == os.path.exists("/dev/net/tun")


def check(found: Refusal, reason: str, todo: str) -> None:
    """The texts are in it."""
    assert reason in found.reason
    assert todo in found.todo
    assert bool(todo) == bool(found.todo)
