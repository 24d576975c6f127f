"""The engine as a simulator: connections a second of simulated time or not, with no device and no kernel.

ports, tables, timers    a row, a port by the kernel's search, the tables, a timer; no packet is built
two Hosts                every packet of each handshake is built by one Host and read by the other, in memory
"""

from __future__ import annotations

import time
from statistics import median

from benchmarks.peer import lives
from benchmarks.report import Goal, Table, goals_table
from fourtuple.address import parse_ipv4
from fourtuple.dial.dialer import Dialer, dial_begin, dial_take
from fourtuple.host import Host
from fourtuple.sock.af_inet import pack_sockaddr_in

OURS, PEER, PORT, DESTS = "10.0.0.1", "10.0.0.2", 443, 40
ALIVE, BATCH, QUEUE = 100_000, 256, 65_535
PER_PORT = 10_000
ALONE_LIMIT, PAIR_LIMIT = 1_000_000, 300_000
_START_US = 1_000_000_000


def alone(n: int) -> float:
    """Connections a second of CPU without packets, 100,000 alive."""
    host = Host(max_sockets=min(n, ALIVE) + 1, now_us=_START_US)
    return n * 1e9 / lives(host.net, n, min(n, ALIVE), parse_ipv4(OURS), parse_ipv4("10.1.0.1"), DESTS)


class Pair:
    """A client and a listener that never accepts, joined by a wire in memory."""

    def __init__(self, n: int) -> None:
        sysctl = {"net.core.somaxconn": str(QUEUE), "net.ipv4.tcp_max_syn_backlog": str(QUEUE)}
        self.ours, self.peer = (
            Host(seed=i, now_us=_START_US, max_sockets=n + 64, sysctl=sysctl, reserve=n) for i in range(2)
        )
        for host, address in ((self.ours, OURS), (self.peer, PEER)):
            host.add_link("eth0", addrs=(f"{address}/24",))
        ports = range(PORT, PORT + -(-n // PER_PORT))
        for port in ports:
            fd = self.peer.sys_socket()
            assert self.peer.sys_bind(fd, pack_sockaddr_in(parse_ipv4(PEER), port)) == 0
            assert self.peer.sys_listen(fd, QUEUE) == 0
        self.dialer = Dialer(self.ours.net, [(0, parse_ipv4(PEER), port) for port in ports])
        self.now = _START_US
        self.packets = 0

    def _carry(self, source: Host, target: Host) -> None:
        def deliver(ring: memoryview, offsets: memoryview, lengths: memoryview, n: int) -> int:
            target.receive(ring, offsets, lengths, n, self.now)
            self.packets += n
            return n

        source.transmit_to(deliver)

    def run(self, n: int) -> float:
        """Seconds of CPU, of both, for n handshakes."""
        d = self.dialer
        start = time.thread_time_ns()
        while d.established < n:
            self.now += 100
            self.ours.enter(self.now)
            dial_begin(d, min(BATCH, n - d.begun), 0)
            self.ours.leave()
            self._carry(self.ours, self.peer)
            self._carry(self.peer, self.ours)
            self._carry(self.ours, self.peer)
            dial_take(d)
            assert not d.in_flight
        return (time.thread_time_ns() - start) / 1e9


def run(quick: bool) -> list[Table]:
    """Medians of several runs, each with fresh Hosts."""
    n, pair_n, rounds = (20_000, 1_000, 1) if quick else (2_000_000, 50_000, 5)
    alone_s = median(alone(n) for _ in range(rounds))
    pairs = [Pair(pair_n) for _ in range(rounds)]
    pair_s = median(pair_n / pair.run(pair_n) for pair in pairs)
    packets = pairs[0].packets / pair_n
    table = Table(
        "simulation",
        "The engine as a simulator, one core: connections a second of CPU",
        ("", "connections/s", "packets/s", "ns each"),
        notes=(
            f"without packets: {n:,} connections to {DESTS} destinations, {min(n, ALIVE):,} at a time, then closed.",
            f"two Hosts: {pair_n:,} handshakes, {BATCH} at a time, client and listener; both ends' work is in it.",
            f"Medians of {rounds} runs.",
        ),
    )
    table.rows.append(("ports, tables and timers, no packets", round(alone_s), None, 1e9 / alone_s))
    table.rows.append(("two Hosts exchanging packets", round(pair_s), round(pair_s * packets), 1e9 / pair_s))
    goals = [
        _rate("simulated without packets, opened/s", alone_s, ALONE_LIMIT),
        _rate("simulated, two Hosts, opened/s", pair_s, PAIR_LIMIT),
    ]
    targets = goals_table(goals, "Simulation, against the targets")
    targets.name, targets.goals = "simulation targets", goals
    return [table, targets]


def _rate(what: str, rate: float, least: float) -> Goal:
    return Goal(what, round(rate), None, None, f">= {least:,}", "within" if rate >= least else "SHORT")
