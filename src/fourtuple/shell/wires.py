"""The list of wires, and the choice among them.

Lives here: which kinds there are, and what `auto` takes.  Does not live here: any kind of wire.

    tun     a real device in a private network namespace; the kernel is the peer
    veth    the same without /dev/net/tun, by a packet socket
    sim     a second Host, on a clock that jumps; no kernel at all
    tun-host    a TUN on the machine's own network: whoever the machine reaches is the peer; never by `auto`

A new kind is a module with a WireKind and a line in KINDS here.
"""

from __future__ import annotations

from collections.abc import Callable

from fourtuple.shell.private_wire import TUN, VETH, open_tun, open_veth
from fourtuple.shell.sim_wire import SIM, SIM_RTT_US, open_sim
from fourtuple.shell.tun_host import TUN_HOST, open_tun_host
from fourtuple.shell.wire import (
    DEVICE,
    OUR_ADDRESS,
    PEER_ADDRESS,
    Availability,
    Setup,
    Wire,
    WireKind,
    WireUnavailable,
    added_source,
    can_be_a_peer,
    can_serve,
)

__all__ = [
    "AUTO",
    "DEVICE",
    "KINDS",
    "OUR_ADDRESS",
    "PEER_ADDRESS",
    "SIM_RTT_US",
    "Availability",
    "Setup",
    "Wire",
    "WireKind",
    "WireUnavailable",
    "added_source",
    "can_be_a_peer",
    "can_serve",
    "open_sim",
    "open_tun",
    "open_tun_host",
    "open_veth",
    "open_wire",
]

KINDS = {kind.name: kind for kind in (SIM, TUN, VETH, TUN_HOST)}
AUTO = ("tun", "veth", "sim")
"""What `auto` tries, best first; the last needs nothing."""


def open_wire(name: str, setup: Setup, on_fallback: Callable[[str], None] = lambda text: None) -> Wire:
    """Open the wire of that name; `auto` is the first of AUTO that works.

    `on_fallback` hears one phrase when that is not the best one: which it is, and why the better ones are not.
    """
    if name != "auto":
        return KINDS[name].open(setup)
    refusals: dict[str, list[str]] = {}
    for candidate in AUTO[:-1]:
        try:
            wire = KINDS[candidate].open(setup)
        except WireUnavailable as error:
            refusals.setdefault(str(error.strerror), []).append(candidate)
        else:
            break
    else:
        wire = KINDS[AUTO[-1]].open(setup)
    if refusals:
        on_fallback(_fallback_phrase(wire.name, refusals))
    return wire


def _fallback_phrase(taken: str, refusals: dict[str, list[str]]) -> str:
    """`wire veth, as tun does not work here: /dev/net/tun: ...`; a reason that two share is given once."""
    reasons = "; ".join(f"{', '.join(names)}: {reason}" for reason, names in refusals.items())
    return f"using {taken}, not {reasons}"
