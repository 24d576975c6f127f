"""The network of world.py on the live kernel: two namespaces, three veth pairs, listeners on the far side."""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import time
from pathlib import Path

from tests.kernel.port_judge.world import DEVICES, HTTP, HTTPS

CLONE_NEWNET = 0x40000000
LIBC = ctypes.CDLL(None, use_errno=True)
PROBE = 9
LINK_PATIENCE_S = 20
Listeners = dict[tuple[int, str], socket.socket]


def _new_namespace() -> int:
    """Move this process into a fresh network namespace; a descriptor of it."""
    if LIBC.unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare(CLONE_NEWNET)")
    return os.open("/proc/self/ns/net", os.O_RDONLY)


def _enter(namespace: int) -> None:
    if LIBC.setns(namespace, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def _ip(lines: list[str]) -> None:
    done = subprocess.run(["ip", "-batch", "-"], input="\n".join(lines), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)


def set_sysctl(name: str, value: str) -> int:
    """Write one of the present namespace: 0 or -errno."""
    try:
        Path("/proc/sys", name.replace(".", "/")).write_text(value)
    except OSError as error:
        return -(error.errno or 0)
    return 0


def _mac(side: int, link: int) -> str:
    return f"02:00:00:00:0{side}:0{link}"


def _wire(far: int) -> None:
    """The pairs, made on this side; fixed MAC addresses, so that nobody has to ask for them."""
    lines = ["link set lo up"]
    for k, device in enumerate(DEVICES):
        there = f"peer name p{k} address {_mac(2, k)} netns /proc/{os.getpid()}/fd/{far}"
        lines += [f"link add {device} address {_mac(1, k)} type veth {there}", f"link set {device} up"]
    _ip(lines)


def _address_client(net: str) -> None:
    lines = [f"addr add {net}.1/32 dev v0", f"addr add {net}.5/32 dev v0"]
    for k, device in enumerate(DEVICES):
        for host in (2, 3):
            lines.append(f"route add {net}.{host}/32 dev {device} src {net}.1 metric {10 + k}")
            lines.append(f"neigh add {net}.{host} lladdr {_mac(2, k)} dev {device} nud permanent")
    _ip(lines)


def _address_peer(net: str) -> None:
    lines = ["link set lo up", f"addr add {net}.2/32 dev lo"]
    for k in range(len(DEVICES)):
        lines.append(f"link set p{k} up")
        for host in (1, 5):
            lines.append(f"route add {net}.{host}/32 dev p{k} src {net}.2 metric {10 + k}")
            lines.append(f"neigh add {net}.{host} lladdr {_mac(1, k)} dev p{k} nud permanent")
    _ip(lines)


def _quiet() -> None:
    """No IPv6 chatter, and answers may come on any link."""
    for name in ("all", "default"):
        set_sysctl(f"net.ipv6.conf.{name}.disable_ipv6", "1")
        set_sysctl(f"net.ipv4.conf.{name}.rp_filter", "0")


def _listen(net: str) -> Listeners:
    found = {}
    for k, device in enumerate(DEVICES):
        for port in (HTTP, HTTPS):
            s = socket.socket()
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, f"p{k}".encode())
            s.bind((f"{net}.2", port))
            s.listen(1024)
            s.setblocking(False)
            found[port, device] = s
    return found


def _datagram_socket(device: str, address: tuple[str, int]) -> socket.socket:
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
    s.bind(address)
    s.settimeout(0.005)
    return s


def _carries(sender: socket.socket, receiver: socket.socket) -> bool:
    """Does a datagram arrive?"""
    try:
        sender.sendto(b"?", receiver.getsockname())
        return receiver.recv(1) == b"?"
    except OSError:
        return False


def _wait_for_links(pairs: list[tuple[socket.socket, socket.socket]]) -> None:
    """Until each carries packets both ways: the kernel activates a link later, and a SYN lost to that costs 1 s."""
    deadline = time.monotonic() + LINK_PATIENCE_S
    for near, far in pairs:
        while not (_carries(near, far) and _carries(far, near)):
            if time.monotonic() > deadline:
                raise RuntimeError(f"a veth link carries nothing {LINK_PATIENCE_S} s after it was set up")
        near.close()
        far.close()


def build(net: str) -> Listeners:
    """Make the world and stay in the client's namespace; the peer's listeners.  All of it ends with this process."""
    far = _new_namespace()
    _quiet()
    near = _new_namespace()
    _quiet()
    _wire(far)
    _address_client(net)
    _enter(far)
    _address_peer(net)
    listeners = _listen(net)
    ends = [_datagram_socket(f"p{k}", (f"{net}.2", PROBE)) for k in range(len(DEVICES))]
    _enter(near)
    _wait_for_links([(_datagram_socket(v, (f"{net}.1", PROBE)), end) for v, end in zip(DEVICES, ends, strict=True)])
    os.close(far)
    os.close(near)
    return listeners
