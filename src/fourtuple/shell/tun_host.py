"""The wire `tun-host`: a TUN in the machine's own network namespace, so that whoever the machine reaches can be called.

Lives here: device, subnet, what the machine must allow.  Does not live here: the NAT table (nat.py).

Rules
1. Nothing outlives the process, kill -9 included: the TUN goes with its descriptor, its address and route with the TUN,
   the table with its netlink socket, the claim on the subnet with its own socket.
2. No setting of the machine is changed.  net.ipv4.ip_forward has to be on for NAT; who wants that switches it on.
3. Several may run at once, each with device, subnet and table of its own.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress

from fourtuple.address import format_ipv4, parse_ipv4, parse_prefix
from fourtuple.clock import MonotonicClock
from fourtuple.host import Host
from fourtuple.phy import link, tun
from fourtuple.phy.tun import TunDevice
from fourtuple.shell.loop import PollRunner
from fourtuple.shell.refusal import explain_refusal, read_machine
from fourtuple.shell.wire import Availability, Setup, Wire, WireKind, WireUnavailable, network_text, wrapped

_TUNGETIFF = 0x800454D2  # linux/if_tun.h
_NAME_PATTERN = "ft%d"  # the kernel fills in the first free number
_MTU = 1500
_MASK = 0xFFFFFF00
# Tried in this order: ours, its neighbours, then the ends of the other private ranges.
_BASES = ("10.64.0.0", "172.31.128.0", "192.168.128.0")
_EACH = (256, 128, 128)
_FORWARD = "/proc/sys/net/ipv4/ip_forward"


def open_tun_host(setup: Setup) -> Wire:
    """A TUN of this machine, with NAT if `setup.nat`.  WireUnavailable when that cannot be."""
    if setup.nat:
        _check_forwarding()
    with ExitStack() as undo:
        device = _open_device()
        undo.callback(device.close)
        subnet, notes = _claim_subnet(device.name, undo)
        for source in (setup.source, *setup.sources):
            _check_source(source, subnet)
        _configure(device.name, subnet)
        if setup.nat:
            notes += _open_nat(device.name, subnet, undo)
        clock = MonotonicClock()
        host = _our_host(setup, device.name, subnet, clock.now_us())
        tap = wrapped(device, setup, setup.rtt_us or 0, clock.now_us)
        runner = PollRunner(host, tap)
        where = f"tun-host {device.name}, the real network, {'with' if setup.nat else 'no'} NAT"
        on_close = undo.pop_all().close
        return Wire("tun-host", where, setup, host, runner, tap, setup.rtt_us or 0, on_close=on_close, notes=notes)


def probe_tun_host() -> Availability:
    """Whether this process may make the interface: one is made for a moment, never up, without an address."""
    start = time.monotonic_ns()
    try:
        _open_device().close()
    except WireUnavailable as error:
        return Availability(False, None, error.errno or 0, str(error.strerror), error.todo)
    return Availability(True, (time.monotonic_ns() - start) // 1000)


TUN_HOST = WireKind("tun-host", "the real network", "CAP_NET_ADMIN", open_tun_host, probe_tun_host)


# ------------------------------------------------------------------------------------------------ the device


def _open_device() -> TunDevice:
    step, fd = "tun-host-open", -1
    try:
        fd = tun.open_node()
        step = "tun-host-setiff"
        tun.attach(fd, _NAME_PATTERN)
        answer = fcntl.ioctl(fd, _TUNGETIFF, bytes(40))
    except OSError as error:
        if fd >= 0:
            os.close(fd)
        refusal = explain_refusal(step, error.errno or errno.EIO, read_machine(), str(error.strerror))
        raise WireUnavailable(error.errno, *refusal) from None
    return TunDevice(fd, answer[:16].rstrip(b"\0").decode(), _MTU)


def _configure(name: str, subnet: int) -> None:
    """The machine's end: the first address of the subnet, and no IPv6, which would chatter on the wire."""
    with suppress(OSError), open(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6", "w") as file:
        file.write("1")
    try:
        link.set_mtu(name, _MTU)
        link.set_up(name)
        link.add_address(name, f"{format_ipv4(subnet + 1)}/24")
    except OSError as error:
        raise WireUnavailable(error.errno, str(error.strerror)) from None


def _our_host(setup: Setup, name: str, subnet: int, now_us: int) -> Host:
    """Our end: the second address of the subnet, everything else through the machine."""
    host = Host(
        seed=setup.seed, now_us=now_us, sysctl=setup.sysctls, max_sockets=setup.max_sockets, profile=setup.profile
    )
    device = host.add_link(name, addrs=(f"{format_ipv4(subnet + 2)}/24",))
    host.add_route("default", dev=name)
    source = parse_ipv4(setup.source) if setup.source else 0
    if source > subnet + 2:
        host.fib.add_address(device, source, 32)
    there = {f"{format_ipv4(number)}/32" for number in (subnet + 2, source)}
    for text in dict.fromkeys(map(network_text, setup.sources)):
        if text not in there:
            host.add_route(text, dev=name, type="local")
    return host


def _check_source(source: str, subnet: int) -> None:
    """An address or network of ours must be one that the machine sends to our device."""
    number, length = parse_prefix(network_text(source)) if source else (0, 32)
    if not number or subnet + 2 <= number <= number + (1 << 32 - length) - 1 <= subnet + 254:
        return
    span = f"{format_ipv4(subnet + 2)} to {format_ipv4(subnet + 254)}"
    raise WireUnavailable(errno.EADDRNOTAVAIL, f"no answer would find its way to {source}", f"an address from {span}")


# ------------------------------------------------------------------------------------------------ the subnet


def _claim_subnet(name: str, undo: ExitStack) -> tuple[int, tuple[str, ...]]:
    """A /24 that nothing else uses, and a remark if it is not the usual one."""
    routed = list(read_routes())
    for subnet in candidates():
        if not is_routed(subnet, routed) and _claim(subnet, undo):
            usual = parse_ipv4(_BASES[0])
            text = f"{name} is {format_ipv4(subnet)}/24, as {format_ipv4(usual)}/24 is in use"
            return subnet, () if subnet == usual else (text,)
    ranges = "10.64.0.0/16, 172.31.128.0/17, 192.168.128.0/17"
    raise WireUnavailable(errno.EADDRINUSE, f"no /24 of {ranges} is free", "ip route   (shows who has them)")


def candidates() -> Iterator[int]:
    """The subnets that may be ours, the usual one first."""
    for base, count in zip(_BASES, _EACH, strict=True):
        for i in range(count):
            yield parse_ipv4(base) + (i << 8)


def is_routed(subnet: int, routed: Iterable[tuple[int, int]]) -> bool:
    """Whether a route (network, mask) covers part of the subnet, or all of it; a default route does not count."""
    return any(mask and (network ^ subnet) & mask & _MASK == 0 for network, mask in routed)


def read_routes() -> Iterator[tuple[int, int]]:
    """(network, mask) of every route of the main table."""
    with suppress(OSError), open("/proc/net/route") as file:
        for line in list(file)[1:]:
            words = line.split()
            yield _swapped(words[1]), _swapped(words[7])


def _swapped(text: str) -> int:
    """The table prints the bytes of an address as they lie in memory."""
    return int(struct.unpack(">I", struct.pack("=I", int(text, 16)))[0])


def _claim(subnet: int, undo: ExitStack) -> bool:
    """Reserve it among ourselves: an abstract socket name is of one network namespace, and ends with its process."""
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        claim.bind(f"\0fourtuple-tun-host-{format_ipv4(subnet)}")
    except OSError:
        claim.close()
        return False
    undo.callback(claim.close)
    return True


# ------------------------------------------------------------------------------------------------ NAT


def _check_forwarding() -> None:
    try:
        with open(_FORWARD) as file:
            is_on = file.read().strip() != "0"
    except OSError:
        is_on = True
    if not is_on:
        raise WireUnavailable(
            errno.ENETUNREACH,
            "--nat: this machine forwards nothing (net.ipv4.ip_forward = 0)",
            "sudo sysctl net.ipv4.ip_forward=1   (for the whole machine, until you set it back)",
        )


def _open_nat(name: str, subnet: int, undo: ExitStack) -> tuple[str, ...]:
    """The table, in force; a remark if a firewall is going to drop what it lets through."""
    from fourtuple.shell.nat import INSTALL, Nft, forward_dropper, masquerade

    try:
        nft = Nft()
        undo.callback(nft.close)
        masquerade(nft, f"fourtuple_{name}", f"{format_ipv4(subnet)}/24", name)
    except OSError as error:
        todo = INSTALL if error.errno == errno.ENOENT else ""
        raise WireUnavailable(error.errno, f"--nat: {error.strerror}", todo) from None
    chain = forward_dropper(nft)
    way = " ".join(f"iptables -I FORWARD -{side} {name} -j ACCEPT;" for side in "io") if chain == "FORWARD" else ""
    return (
        (f"a firewall drops what is forwarded: let {name} pass in chain {chain}. {way}".rstrip("; ."),) if chain else ()
    )
