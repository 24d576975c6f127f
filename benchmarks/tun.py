"""Our stack on the TUN of a private namespace that other clients use too: what several benchmarks need.

Not here: what is measured.
"""

from __future__ import annotations

import time

from fourtuple.clock import MonotonicClock
from fourtuple.dial.stack import Stack, routes_of
from fourtuple.host import Host
from fourtuple.phy.device import Device
from fourtuple.shell.loop import PollRunner
from fourtuple.shell.netns import PrivateNamespace
from fourtuple.shell.tap import TapDevice
from fourtuple.shell.wire import Setup, Wire, our_host

WINDOW = 128
"""Handshakes in flight, of every client."""
_PATIENCE_S = 60.0


def our_wire(
    namespace: PrivateNamespace | None, max_sockets: int, device: Device | None = None, address: str = ""
) -> Wire:
    """A fresh Host of ours, on the namespace's device as `fourtuple dial` has it, or on another one."""
    setup = Setup(max_sockets=max_sockets, reserve=max_sockets)
    clock = MonotonicClock()
    if device is None:
        assert namespace is not None
        device, host = namespace.device, our_host(setup, clock.now_us())
    else:
        host = Host(now_us=clock.now_us(), max_sockets=max_sockets, reserve=max_sockets)
        host.add_link(device.name, addrs=(address,))
    tap = TapDevice(device, clock.now_us)
    return Wire("tun", "tun", setup, host, PollRunner(host, tap), tap, 0, namespace)


class Ours:
    """A Stack that opens connections to `targets` in turn, by rounds as the dial does, and ends them by RST."""

    def __init__(self, wire: Wire, targets: list[tuple[str, int]]) -> None:
        self.stack = Stack(wire, time_connects=True)
        self.stack.dialer.set_routes(routes_of(targets, ()))
        self._targets = targets

    def run(self, n: int) -> tuple[int, int, int]:
        """(ns, CPU ns, how many were established) of n handshakes."""
        stack, d = self.stack, self.stack.dialer
        first, last, give_up = d.established, d.begun + n, time.monotonic() + _PATIENCE_S
        start, cpu = time.perf_counter_ns(), time.process_time_ns()
        while d.established - first < n and time.monotonic() < give_up:
            room = min(WINDOW - d.in_flight + d.stalled, last - d.begun)
            if not stack.round(max(room, 0)):
                stack.sleep(stack.runner.now_us() + 20_000)
        return time.perf_counter_ns() - start, time.process_time_ns() - cpu, d.established - first

    def run_iterated(self, n: int) -> tuple[int, int, int]:
        """The same by connect_many(): a result for each comes to Python."""
        start, cpu = time.perf_counter_ns(), time.process_time_ns()
        done = sum(error == 0 for _, error in self.stack.connect_many(self._targets, n, window=WINDOW))
        return time.perf_counter_ns() - start, time.process_time_ns() - cpu, done

    def reset_all(self) -> None:
        """End all of them."""
        self.stack.close_all(reset=True)
