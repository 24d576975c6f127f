"""The wire `sim`: a second Host is the peer, on a clock that jumps; no kernel at all."""

from __future__ import annotations

from fourtuple.address import parse_ipv4
from fourtuple.clock import ManualClock
from fourtuple.host import Host
from fourtuple.phy.memory import memory_pair
from fourtuple.shell._netns_hold import addresses_of
from fourtuple.shell.loop import Station
from fourtuple.shell.netns import Server
from fourtuple.shell.sim_loop import START_US, HoldPeer, HttpPeer, SimRunner
from fourtuple.shell.wire import (
    DEVICE,
    PEER_ADDRESS,
    PREFIX,
    Setup,
    Wire,
    WireKind,
    network_text,
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
    servers = setup.served()
    sysctls = {"net.core.somaxconn": str(max([4096, *(one.backlog for one in servers)]))} | dict(setup.peer_sysctls)
    peer = Host(seed=setup.seed + 1, now_us=START_US, sysctl=sysctls, max_sockets=setup.max_sockets)
    peer.add_link(_PEER_DEVICE, addrs=(f"{PEER_ADDRESS}/{PREFIX}",))
    peer.add_route("default", dev=_PEER_DEVICE)
    runner = SimRunner([Station(host, tap), Station(peer, theirs)], clock)
    for server in servers:
        _serve(peer, server, runner)
    return Wire("sim", "sim, no kernel and no real time", setup, host, runner, tap, rtt_us)


def _serve(peer: Host, server: Server, runner: SimRunner) -> None:
    """A listener for each address, as the private namespace has them; a large network shares one."""
    if "/" in server.ip:
        peer.add_route(network_text(server.ip), dev="lo", type="local")
    elif server.ip != PEER_ADDRESS:
        peer.fib.add_address(peer.fib.device(_PEER_DEVICE), parse_ipv4(server.ip), 32)
    for address in addresses_of(server.ip):
        if server.kind == "hold":
            HoldPeer(peer, address, server.port, server.backlog)
        elif server.kind != "closed":
            runner.apps.append(HttpPeer(peer, address, server.port))


SIM = WireKind("sim", "simulated hosts, own clock", "nothing", open_sim, lambda: probe_by_opening(open_sim))
