"""From a plan to a wire: what has to be put on it, on our side and, where the other side is ours, on that one.

Lives here: the Setup of a dial.  Does not live here: wires (shell/), what is done over them (user.py, kernel.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fourtuple.dial.plan import DialPlan, expand
from fourtuple.phy.fault import LossRule
from fourtuple.shell.netns import Server
from fourtuple.shell.wire import OUR_ADDRESS, Setup

_LEAST_QUEUE = 4096
_MOST_QUEUE = 1 << 19
"""Of a TUN: its ring of pointers is one kmalloc(), of 4 MiB at most (ptr_ring.h)."""
_SPARE_BACKLOG = 1024
PRIVATE = ("tun", "veth", "auto", "sim")
"""Wires whose other side is ours to set up."""


@dataclass(frozen=True)
class Wiring:
    """What a dial wants of its wire beside the plan.

    `servers` are (address or network, port); `server` is their kind: `hold`, `http`, `echo`, `discard`, `closed`.
    """

    servers: tuple[tuple[str, int], ...] = ()
    server: str = "hold"
    sources: tuple[str, ...] = ()
    """Addresses and networks that the plan's sources are from."""
    loss: tuple[LossRule, ...] = ()
    rtt_us: int | None = None
    nat: bool = False
    profile: str = "6.18"
    reserved: str = ""
    peer_sysctls: tuple[tuple[str, str], ...] = ()


def listen_backlog(plan: DialPlan) -> int:
    """Of each listener: room for all that may wait there at once."""
    return plan.connections + _SPARE_BACKLOG


def served(plan: DialPlan, wiring: Wiring) -> tuple[Server, ...]:
    """The servers of a private namespace."""
    return tuple(Server(address, port, wiring.server, listen_backlog(plan)) for address, port in wiring.servers)


def transmit_queue(plan: DialPlan) -> int:
    """Packets of a TUN that wait for us: several for each handshake in flight."""
    return min(max(_LEAST_QUEUE, 8 * plan.window), _MOST_QUEUE)


def setup_of(plan: DialPlan, wiring: Wiring) -> Setup:
    """What to open the wire of `plan` with."""
    return Setup(
        servers=served(plan, wiring) if plan.wire in PRIVATE else (),
        sources=tuple(text for text in _networks(wiring.sources) if text != OUR_ADDRESS),
        txqueuelen=transmit_queue(plan),
        peer_sysctls=dict(wiring.peer_sysctls),
        loss=wiring.loss,
        rtt_us=wiring.rtt_us,
        seed=plan.seed,
        sysctls=_sysctls(plan, wiring),
        max_sockets=plan.rows,
        reserve=min(plan.connections, plan.rows),
        profile=wiring.profile,
        nat=wiring.nat,
    )


def _networks(texts: Sequence[str]) -> list[str]:
    """A range `10.0.0.1-10.0.0.9` is no network: its addresses."""
    return [part for text in texts for part in (expand(text) if "-" in text else [text])]


def _sysctls(plan: DialPlan, wiring: Wiring) -> dict[str, str]:
    found = {}
    if plan.range:
        found["net.ipv4.ip_local_port_range"] = f"{plan.range[0]} {plan.range[1]}"
    if wiring.reserved:
        found["net.ipv4.ip_local_reserved_ports"] = wiring.reserved
    if plan.keepalive_s:
        found["net.ipv4.tcp_keepalive_time"] = str(plan.keepalive_s)
    return found


def addresses_of(texts: Sequence[str]) -> tuple[str, ...]:
    """All addresses of `10.0.0.1`, `10.0.0.0/29`, each once."""
    return tuple(dict.fromkeys(address for text in texts for address in expand(text)))
