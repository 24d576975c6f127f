"""The same `ip` commands and the same questions, put to the live kernel and to a Fib.

A command answers 0 or -errno. A question (destination, source, device, mark, tos, how) answers what a connected
socket shows: errno of bind(), of connect() with TCP and with UDP, source, path MTU; None where it never came.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import socket
import struct
import subprocess
from typing import NamedTuple

from fourtuple.address import format_ipv4, parse_ipv4
from fourtuple.ip.fib import Fib
from fourtuple.ip.rtnetlink import RTN_BROADCAST, RTN_LOCAL, RTN_MULTICAST
from fourtuple.sim.iproute import run_ip

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 1, 0x1000
SO_MARK, IP_MTU, IP_FREEBIND, IP_TRANSPARENT = 36, 14, 15, 19
DEVICES = ("tun0", "tun1")


class Question(NamedTuple):
    """A connect() to `daddr`; `how` is '', 'freebind' or 'transparent'."""

    daddr: str
    saddr: str | None = None
    oif: str | None = None
    mark: int = 0
    tos: int = 0
    how: str = ""


class Answer(NamedTuple):
    bind: str
    tcp: str | None = None
    udp: str | None = None
    source: str | None = None
    mtu: int | None = None


def _name(err: int) -> str:
    return errno.errorcode.get(abs(err), "OK")


# The kernel


def open_tun(name: str) -> int:
    """A TUN device in the present namespace; its descriptor keeps it."""
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    return fd


def kernel_ip(command: str) -> int:
    """0 or -errno, read from what `ip` says; -1 for a refusal without a known errno."""
    done = subprocess.run(["ip", *command.split()], capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return 0
    said = re.search(r"RTNETLINK answers: (.*)", done.stderr)
    known = {os.strerror(n): n for n in errno.errorcode}
    return -known[said.group(1).strip()] if said and said.group(1).strip() in known else -1


def _socket_for(q: Question, kind: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, kind)
    sock.setblocking(False)
    if q.how:
        sock.setsockopt(socket.SOL_IP, IP_FREEBIND if q.how == "freebind" else IP_TRANSPARENT, 1)
    if q.mark:
        sock.setsockopt(socket.SOL_SOCKET, SO_MARK, q.mark)
    if q.tos:
        sock.setsockopt(socket.SOL_IP, socket.IP_TOS, q.tos)
    if q.oif:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, q.oif.encode())
    if kind == socket.SOCK_DGRAM:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    return sock


def _try(call: object, address: tuple[str, int]) -> str:
    try:
        call(address)  # type: ignore[operator]
    except OSError as e:
        return _name(e.errno or 0)
    return "OK"


def ask_kernel(q: Question) -> Answer:
    with _socket_for(q, socket.SOCK_STREAM) as tcp, _socket_for(q, socket.SOCK_DGRAM) as udp:
        if q.saddr and (err := _try(tcp.bind, (q.saddr, 0))) != "OK":
            return Answer(err)
        tcp_said = _try(tcp.connect, (q.daddr, 9))
        if q.saddr:
            udp.bind((q.saddr, 0))
        udp_said = _try(udp.connect, (q.daddr, 9))
        if udp_said != "OK":
            return Answer("OK", tcp_said, udp_said)
        return Answer("OK", tcp_said, "OK", udp.getsockname()[0], udp.getsockopt(socket.SOL_IP, IP_MTU))


def put_to_kernel(steps: list[str | list[object]]) -> list[object]:
    """Commands and questions in order; run it in a namespace of its own."""
    tuns = [open_tun(name) for name in DEVICES]
    with open("/proc/sys/net/ipv6/conf/all/disable_ipv6", "w") as file:
        file.write("1")
    answers: list[object] = [
        kernel_ip(step) if isinstance(step, str) else ask_kernel(Question(*step))  # type: ignore[arg-type]
        for step in steps
    ]
    for fd in tuns:
        os.close(fd)
    return answers


# Ours


def our_ip(fib: Fib, command: str) -> int:
    try:
        run_ip(fib, command)
    except OSError as e:
        return -(e.errno or 0)
    return 0


def ask_ours(fib: Fib, q: Question) -> Answer:
    saddr = parse_ipv4(q.saddr) if q.saddr else 0
    if saddr:
        kind = fib.inet_addr_type(saddr)
        if kind not in (RTN_LOCAL, RTN_MULTICAST, RTN_BROADCAST) and not q.how:
            return Answer("EADDRNOTAVAIL")
        if kind in (RTN_MULTICAST, RTN_BROADCAST):
            saddr = 0
    oif = fib.device(q.oif).ifindex if q.oif else 0
    route = fib.ip_route_connect(parse_ipv4(q.daddr), saddr, oif, q.mark, q.tos, q.how == "transparent")
    if isinstance(route, int):
        return Answer("OK", _name(route), _name(route))
    group = route.rt.rt_type in (RTN_BROADCAST, RTN_MULTICAST)
    source = q.saddr or format_ipv4(route.saddr)
    return Answer("OK", "ENETUNREACH" if group else "EINPROGRESS", "OK", source, route.rt.mtu)


def put_to_ours(steps: list[str | list[object]]) -> list[object]:
    fib = Fib()
    for name in DEVICES:
        fib.add_device(name)
    return [
        our_ip(fib, step) if isinstance(step, str) else ask_ours(fib, Question(*step))  # type: ignore[arg-type]
        for step in steps
    ]


def differences(steps: list[str | list[object]], kernel: list[object], ours: list[object]) -> list[str]:
    """One line for each step that is answered differently."""
    out = []
    for step, k, o in zip(steps, kernel, ours, strict=True):
        if isinstance(step, str):
            known = isinstance(k, int) and k != -1
            if (k == 0) != (o == 0) or (known and k != o):
                out.append(f"ip {step}: kernel {_name(int(k))}, ours {_name(int(o))}")  # type: ignore[call-overload]
        elif tuple(k) != tuple(o):  # type: ignore[call-overload]
            said = Answer(*k), Answer(*o)  # type: ignore[misc]
            out.append(f"{Question(*step)}: kernel {tuple(said[0])}, ours {tuple(said[1])}")  # type: ignore[arg-type]
    return out
