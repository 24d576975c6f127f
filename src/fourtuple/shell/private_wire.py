"""The wires that end in a private network namespace: the kernel there is the peer.

tun     a TUN device
veth    a packet socket on a veth pair, where there is no usable /dev/net/tun
"""

from __future__ import annotations

from typing import Any

from fourtuple.clock import MonotonicClock
from fourtuple.phy.tun import TunDevice
from fourtuple.shell.loop import PollRunner
from fourtuple.shell.netns import NamespaceRefused, PrivateNamespace
from fourtuple.shell.refusal import explain_refusal, read_machine
from fourtuple.shell.wire import (
    DEVICE,
    PEER_ADDRESS,
    PREFIX,
    Setup,
    Wire,
    WireKind,
    WireUnavailable,
    our_host,
    probe_by_opening,
    wrapped,
)


def open_tun(setup: Setup) -> Wire:
    """A TUN in a private namespace.  WireUnavailable when this machine does not allow it."""
    return _open_private("tun", setup)


def open_veth(setup: Setup) -> Wire:
    """A packet socket on a veth pair.  WireUnavailable when this machine does not allow it."""
    return _open_private("veth", setup)


def _open_private(kind: str, setup: Setup) -> Wire:
    namespace = open_namespace(kind, setup)
    try:
        return _wire(kind, setup, namespace)
    except BaseException:
        namespace.close()
        raise


def open_namespace(kind: str, setup: Setup, **devices: Any) -> PrivateNamespace:
    """Ours, with what `setup` wants on the other side; `devices`: see PrivateNamespace.start.  WireUnavailable."""
    try:
        return PrivateNamespace.start(
            DEVICE,
            f"{PEER_ADDRESS}/{PREFIX}",
            servers=setup.served(),
            txqueuelen=setup.txqueuelen,
            kind=kind,
            sysctls=setup.peer_sysctls,
            **devices,
        )
    except NamespaceRefused as error:
        refusal = explain_refusal(error.step, error.errno or 0, read_machine(), str(error.strerror))
        raise WireUnavailable(error.errno, refusal.reason, refusal.todo) from None
    except OSError as error:
        raise WireUnavailable(error.errno, error.strerror or str(error)) from None


def _wire(kind: str, setup: Setup, namespace: PrivateNamespace) -> Wire:
    clock = MonotonicClock()
    host = our_host(setup, clock.now_us())
    rtt_us = setup.rtt_us or 0
    tap = wrapped(namespace.device, setup, rtt_us, clock.now_us)
    way = "root" if namespace.way == "root" else "no root"
    where = f"{kind} {DEVICE}, private network namespace ({way})"
    return Wire(kind, where, setup, host, PollRunner(host, tap), tap, rtt_us, namespace, namespace.close)


def wire_on(device: TunDevice, address: str, setup: Setup, where: str) -> Wire:
    """A wire whose end is `address` ("10.64.2.2/24") on a TUN of a namespace that somebody else looks after."""
    clock = MonotonicClock()
    host = our_host(setup, clock.now_us(), device.name, address)
    tap = wrapped(device, setup, setup.rtt_us or 0, clock.now_us)
    return Wire("tun", where, setup, host, PollRunner(host, tap), tap, setup.rtt_us or 0, on_close=device.close)


TUN = WireKind(
    "tun",
    "private namespace",
    "user namespaces, /dev/net/tun",
    open_tun,
    lambda: probe_by_opening(open_tun),
)
VETH = WireKind(
    "veth",
    "private namespace",
    "user namespaces only",
    open_veth,
    lambda: probe_by_opening(open_veth),
)
