"""Handshakes over a TUN to the kernel's listener: ours, the least that C can do, and the kernel's own client over veth.

All three connect to a listener that accepts nobody, so all of the listener's work runs inside the client's own system
calls and is in the client's CPU time alike.  Connections end by RST, outside the clock.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from benchmarks.native import Native
from benchmarks.report import Table, verdict
from fourtuple.address import parse_ipv4
from fourtuple.clock import MonotonicClock
from fourtuple.host import Host
from fourtuple.inet.flags import LINGER
from fourtuple.phy.device import Device
from fourtuple.phy.tun import VNET_HDR_LEN
from fourtuple.shell.loop import Station
from fourtuple.shell.netns import PrivateNamespace
from fourtuple.tcp.constants import EV_OUT

DEVICE, OURS, SERVER, FLOOR = "ftb1", "10.88.0.2", "10.88.0.1", "10.88.0.3"
PORTS, FIRST_PORT = 8, 7000
WINDOW = 128
# Below half of the ports of a destination, so that the kernel's client is not made slow by its search.
HANDSHAKES = 15_000
SERVER_SYSCTLS = (
    ("net.core.somaxconn", "65535"),
    ("net.ipv4.tcp_max_syn_backlog", "65535"),
    ("net.ipv4.tcp_syncookies", "0"),
)
TXQUEUELEN = 2 * HANDSHAKES
PATIENCE_US = 20_000_000


class Ours:
    """A Host on the TUN, `WINDOW` connections in flight; the same Host for every run."""

    def __init__(self, device: Device) -> None:
        self.host = Host(max_sockets=HANDSHAKES, now_us=MonotonicClock().now_us())
        self.host.add_link(device.name, addrs=(f"{OURS}/16",))
        self.station = Station(self.host, device)
        self.clock = MonotonicClock()
        self.rows = array("I", bytes(4 * HANDSHAKES))
        self.begun = 0

    def run(self, n: int) -> tuple[int, int, int]:
        """(ns, CPU ns, how many were established) of n handshakes."""
        self.begun = done = 0
        begin, pump, events = self._begin, self.station.pump, self.host.events
        out = array("Q", bytes(8 * WINDOW))
        give_up = self.clock.now_us() + PATIENCE_US
        start, cpu = time.perf_counter_ns(), time.process_time_ns()
        while done < n:
            now = self.clock.now_us()
            room = min(WINDOW - self.begun + done, n - self.begun)
            if room:
                begin(room, now)
            pump(now)
            for i in range(events(out)):
                done += out[i] & EV_OUT != 0
            if now > give_up:
                break
        return time.perf_counter_ns() - start, time.process_time_ns() - cpu, done

    def _begin(self, n: int, now: int) -> None:
        port = FIRST_PORT + self.begun // WINDOW % PORTS
        rows = array("I", bytes(4 * n))
        n = self.host.connect_many(parse_ipv4(SERVER), port, n, rows, now)
        self.rows[self.begun : self.begun + n] = rows[:n]
        self.begun += n

    def reset_all(self) -> None:
        """End the connections of the last run."""
        flags = self.host.net.sks.flags
        for row in self.rows[: self.begun]:
            flags[row] |= LINGER  # for 0 s: close() is a RST
            self.host.close_row(row, self.clock.now_us())
        while self.station.pump(self.clock.now_us()):
            pass
        self.host.events(array("Q", bytes(8)))


Run = Callable[[int], tuple[float, float, float]]
"""n handshakes -> ns, CPU ns of the client, CPU ns of the whole machine; each for one handshake."""


def run(quick: bool) -> list[Table]:
    """All three in turn, several times; ratios are taken within a round."""
    n, rounds = (600, 2) if quick else (HANDSHAKES, 9)
    with ExitStack() as stack:
        clients = _clients(stack)
        for client in clients.values():
            client(n)  # the first run pays for memory that is touched for the first time
        runs = [{name: client(n) for name, client in clients.items()} for _ in range(rounds)]
    table = Table(
        "handshakes",
        f"Handshakes to the kernel's listener, {WINDOW} in flight, one core: ns each",
        ("", "client's CPU", "whole machine's", "handshakes/s", "its CPU / ours"),
        notes=(
            "ours: Host and Station over a TUN. minimal C: tun_client.c on the same TUN, packets without a stack.",
            "kernel's client: kernel_client.c, non-blocking connect() over veth. The listener's work is in each.",
            f"{n:,} handshakes a run, medians of {rounds}; closed by RST outside the clock.",
            "whole machine's: to 10 ms, and whatever else ran on it.",
        ),
    )
    ratios = {name: median(one[name][1] / one["ours"][1] for one in runs) for name in clients}
    for name in clients:
        took, cpu, machine = (median(one[name][i] for one in runs) for i in range(3))
        table.rows.append((name, cpu, machine, round(1e9 / took), ratios[name]))
    return [table, _targets(ratios)]


def _targets(ratios: dict[str, float]) -> Table:
    table = Table("handshake targets", "Against the targets", ("", "measured", "at least", ""))
    for what, name, limit in (
        ("minimal C's CPU / ours", "minimal C", 0.85),
        ("CPU of the kernel's client / ours", "kernel's client", 1.4),
    ):
        table.rows.append((what, ratios[name], limit, verdict(limit, ratios[name])))
    return table


def _clients(stack: ExitStack) -> dict[str, Run]:
    namespace = stack.enter_context(
        PrivateNamespace.start(tun=DEVICE, kernel_address=f"{SERVER}/16", txqueuelen=TXQUEUELEN, vnet_hdr=True)
    )
    for name, value in SERVER_SYSCTLS:
        namespace.request("sysctl", name=name, value=value)
    device = namespace.device
    fd = device.fileno()
    listener = stack.enter_context(Native("listener", namespace.pid))
    floor = stack.enter_context(Native("tun_client", fd, VNET_HDR_LEN, FLOOR, SERVER, pass_fds=(fd,)))
    kernel = stack.enter_context(Native("kernel_client"))

    def listened(client: Callable[[int], tuple[int, ...]], end: Callable[[], None] = lambda: None) -> Run:
        def one(n: int) -> tuple[float, float, float]:
            listener.ask("open", PORTS)
            result = _measured(client, n)
            end()
            listener.ask("close")
            return result

        return one

    ours = Ours(device)
    return {
        "ours": listened(ours.run, ours.reset_all),
        "minimal C": listened(lambda n: tuple(floor.ask("run", n, WINDOW, PORTS))),
        "kernel's client": lambda n: _measured(lambda n: tuple(kernel.ask("run", n, WINDOW, PORTS)), n),
    }


def _measured(client: Callable[[int], tuple[int, ...]], n: int) -> tuple[float, float, float]:
    """One run, of which nothing may be lost."""
    before = _machine_ns()
    took, cpu, done = client(n)
    machine = _machine_ns() - before
    if done != n:
        raise RuntimeError(f"{done} of {n} handshakes were completed")
    return took / n, cpu / n, machine / n


def _machine_ns() -> int:
    """CPU time that all programs, the kernel and interrupts have used, to 10 ms."""
    user, nice, system, _idle, _iowait, irq, softirq = map(
        int, Path("/proc/stat").read_text().split("\n")[0].split()[1:8]
    )
    return (user + nice + system + irq + softirq) * 10_000_000
