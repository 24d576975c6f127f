"""The wire `sim`: a second Host is the peer, on a clock that jumps; no kernel at all."""

from __future__ import annotations

from fourtuple.address import parse_ipv4
from fourtuple.clock import ManualClock
from fourtuple.host import Host
from fourtuple.phy.memory import memory_pair
from fourtuple.shell.loop import Station
from fourtuple.shell.sim_loop import START_US, HttpPeer, SimRunner
from fourtuple.shell.wire import (
    DEVICE,
    PEER_ADDRESS,
    PREFIX,
    Setup,
    Wire,
    WireKind,
    can_serve,
    our_host,
    probe_by_opening,
    wrapped,
)

SIM_RTT_US = 10_000
_PEER_DEVICE = "peer0"


def open_sim(setup: Setup) -> Wire:
    """Two Hosts back to back."""
    clock = ManualClock(START_US)
    ours, theirs = memory_pair(names=(DEVICE, _PEER_DEVICE))
    rtt_us = SIM_RTT_US if setup.rtt_us is None else setup.rtt_us
    host = our_host(setup, START_US)
    tap = wrapped(ours, setup, rtt_us, clock.now_us)
    peer = Host(seed=setup.seed + 1, now_us=START_US, max_sockets=setup.max_sockets)
    peer.add_link(_PEER_DEVICE, addrs=(f"{PEER_ADDRESS}/{PREFIX}",))
    peer.add_route("default", dev=_PEER_DEVICE)
    runner = SimRunner([Station(host, tap), Station(peer, theirs)], clock)
    for address, port in setup.servers:
        if can_serve(address, port):
            if address != PEER_ADDRESS:
                peer.fib.add_address(peer.fib.device(_PEER_DEVICE), parse_ipv4(address), 32)
            runner.apps.append(HttpPeer(peer, address, port))
    return Wire("sim", "sim, no kernel and no real time", setup, host, runner, tap, rtt_us)


SIM = WireKind("sim", "simulated hosts, own clock", "nothing", open_sim, lambda: probe_by_opening(open_sim))
