"""The column of 6.18 in docs/profiles.md, where a kernel can be asked in a moment: the rules of the ports.

TCP_REPAIR makes connect() choose a port and send nothing.
"""

from __future__ import annotations

import errno
import socket
import struct
import subprocess

from tests.kernel.netns import in_namespace, needs_kernel
from tests.test_profiles import CELLS

TCP_REPAIR, IP_LOCAL_PORT_RANGE = 19, 51
OTHER = "127.0.0.3"

pytestmark = needs_kernel


def _set_up(ports: str) -> None:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with open("/proc/sys/net/ipv4/ip_local_port_range", "w") as f:
        f.write(ports)


def _connect(dport: int, sock: socket.socket | None = None, option: bytes = b"") -> tuple[int, socket.socket]:
    sock = sock or socket.socket()
    sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
    if option:
        sock.setsockopt(socket.IPPROTO_IP, IP_LOCAL_PORT_RANGE, option)
    try:
        sock.connect(("127.0.0.1", dport))
    except OSError as error:
        return -(error.errno or errno.EIO), sock
    return sock.getsockname()[1], sock


def _bind(addr: str, port: int, reuse: bool = False) -> socket.socket:
    sock = socket.socket()
    if reuse:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((addr, port))
    return sock


def _first_ports(option: bytes = b"") -> list[int]:
    _set_up("40000 40007")
    held = [_bind("0.0.0.0", port) for port in (40002, 40004, 40006)]
    for sock in held:
        sock.listen()
    pairs = [_connect(dport, option=option) for dport in range(100, 200)]
    return sorted({port for port, _ in pairs})


def _bind_parities() -> list[int]:
    _set_up("40000 49999")
    held = [_bind("127.0.0.1", 0) for _ in range(24)]
    return sorted({sock.getsockname()[1] & 1 for sock in held})


def _joined_by_reuse() -> int:
    _set_up("40000 40000")
    first, held = _connect(80)
    binder = _bind(OTHER, 40000, reuse=True)
    second, third = _connect(443)
    del held, binder, third
    return second if first == 40000 else first


def _after_the_binder_left() -> list[int]:
    _set_up("40000 40000")
    ports_and_socks = [_connect(80)]
    binder = _bind(OTHER, 40000)
    ports_and_socks.append(_connect(443))
    binder.close()
    ports_and_socks += [_connect(444), _connect(8080)]
    return [port for port, _ in ports_and_socks]


def test_the_order_of_connect() -> None:
    assert set(in_namespace(_first_ports)) == CELLS["port_order"][1]["6.18"]


def test_the_order_with_ip_local_port_range() -> None:
    ports = in_namespace(_first_ports, struct.pack("=I", 40007 << 16 | 40000))
    assert set(ports) == CELLS["local_range_step_1"][1]["6.18"]


def test_the_parity_of_bind_0() -> None:
    assert set(in_namespace(_bind_parities)) == CELLS["bind_step_1"][1]["6.18"]


def test_a_bucket_that_a_reusing_bind_joined_is_closed() -> None:
    assert in_namespace(_joined_by_reuse) == CELLS["has_reuseport"][1]["6.18"]


def test_a_bucket_opens_again_when_the_binder_leaves() -> None:
    first, while_bound, *after = in_namespace(_after_the_binder_left)
    assert (first, while_bound) == (40000, -errno.EADDRNOTAVAIL)
    assert tuple(after) == CELLS["bucket_heals"][1]["6.18"]
