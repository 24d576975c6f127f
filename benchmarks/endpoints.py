"""55,800 connections to two endpoints, 98.8 % of the port range: ours, and the kernel's client with and without help.

Past half of the range the kernel's connect() looks at tens of thousands of ports one by one, and takes milliseconds;
with IP_LOCAL_PORT_RANGE set on the socket it looks at odd and even ports alike, and finds one at once, until the end.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from statistics import median
from typing import NamedTuple

from benchmarks.native import Native
from benchmarks.report import Goal, Table, goals_table, say
from benchmarks.tun import WINDOW, our_wire
from fourtuple.dial.plan import DialPlan, Target
from fourtuple.dial.user import UserDial
from fourtuple.phy.tun import VNET_HDR_LEN
from fourtuple.shell.netns import PrivateNamespace, Server
from fourtuple.shell.wire import PEER_ADDRESS

PORTS = (7000, 7001)
RANGE = 28_232
CONNECTIONS, QUICK = 55_800, 4_000
FLOOR = "10.64.0.3"
CHUNK = 1800
LIMIT_S, FACTOR = 1.5, 40


class Took(NamedTuple):
    """Seconds, elapsed and of CPU."""

    elapsed: float
    cpu: float


Client = Callable[[int], Took]


class Endpoints:
    """The two servers in a namespace with a TUN; each run finds them with empty queues."""

    def __init__(self, stack: ExitStack) -> None:
        servers = [Server(PEER_ADDRESS, port, "hold", backlog=CONNECTIONS) for port in PORTS]
        self.namespace = stack.enter_context(PrivateNamespace.start(servers=servers, txqueuelen=2000, vnet_hdr=True))
        fd = self.namespace.device.fileno()
        command = ("tun_client", fd, VNET_HDR_LEN, FLOOR, PEER_ADDRESS)
        self._c = stack.enter_context(Native(*command, pass_fds=(fd,)))

    def _again(self) -> None:
        for port in PORTS:
            self.namespace.request("stop_server", port=port)
            self.namespace.request("start_server", port=port)

    def ours(self, n: int) -> Took:
        """The dial of `fourtuple dial`, a fresh Host."""
        plan = DialPlan(n, tuple(Target(PEER_ADDRESS, port) for port in PORTS), window=WINDOW, close="rst")
        report = UserDial(plan, our_wire(self.namespace, plan.rows)).run()
        self._again()
        return _all_of(n, report.connections.established, report.seconds.open, report.cpu_s.opening)

    def minimal_c(self, n: int) -> Took:
        took, cpu, done = self._c.ask("run", n, WINDOW, len(PORTS))
        self._again()
        return _all_of(n, done, took / 1e9, cpu / 1e9)


def kernel(client: Native, own_range: bool, n: int) -> Took:
    """kernel_client.c: 18,000 sockets a process, the processes one after the other."""
    client.ask("listen", len(PORTS))
    total = [0, 0, 0]
    start = time.monotonic()
    while total[2] < n:
        wanted = min(CHUNK, n - total[2])
        answer = client.ask("hold", wanted, WINDOW, len(PORTS), int(own_range))
        total = [a + b for a, b in zip(total, answer, strict=True)]
        say(f"kernel's client: {total[2]:,} of {n:,} open after {time.monotonic() - start:.0f} s")
        if answer[2] != wanted:
            break
    client.ask("release")
    return _all_of(n, total[2], total[0] / 1e9, total[1] / 1e9)


def _all_of(n: int, done: int, elapsed: float, cpu: float) -> Took:
    if done != n:
        raise RuntimeError(f"{done:,} of {n:,} connections were established")
    return Took(elapsed, cpu)


def run(quick: bool) -> list[Table]:
    """The fast ones in turn, several times, each round begun by another one; then the kernel's plain connect()."""
    n, rounds = (QUICK, 1) if quick else (CONNECTIONS, 6)
    with ExitStack() as stack:
        ends = Endpoints(stack)
        client = stack.enter_context(Native("kernel_client"))
        clients: dict[str, Client] = {
            "ours": ends.ours,
            "minimal C": ends.minimal_c,
            "kernel, IP_LOCAL_PORT_RANGE": partial(kernel, client, True),
        }
        ends.minimal_c(min(n, 2000))
        runs = rotated(clients, n, rounds)
        runs_of = {name: [one[name] for one in runs] for name in clients}
        runs_of["kernel, plain connect()"] = [kernel(client, False, n)]
    return _tables(n, {name: Took(*map(median, zip(*took, strict=True))) for name, took in runs_of.items()}, runs_of)


def rotated(clients: dict[str, Client], n: int, rounds: int) -> list[dict[str, Took]]:
    """Every client in each round, in an order that is turned by one each time."""
    names = list(clients)
    found = []
    for i in range(rounds):
        order = names[i % len(names) :] + names[: i % len(names)]
        found.append({name: clients[name](n) for name in order})
    return found


def _tables(n: int, middle: dict[str, Took], runs_of: dict[str, list[Took]]) -> list[Table]:
    ours = middle["ours"]
    table = Table(
        "endpoints",
        f"{n:,} connections to two endpoints, {50 * n / RANGE:.1f} % of the port range",
        ("", "CPU s", "seconds", "its CPU / ours", "its time / ours"),
        notes=(
            f"{WINDOW} in flight. kernel: non-blocking connect() in C over veth, 18,000 sockets a process.",
            f"Medians of {len(runs_of['ours'])} rounds, each begun by another one; plain connect() once.",
        ),
    )
    for name, took in middle.items():
        row = (name, took.cpu, took.elapsed, took.cpu / ours.cpu, took.elapsed / ours.elapsed)
        table.rows.append(row)
    if n != CONNECTIONS:
        return [table]
    plain, helped = middle["kernel, plain connect()"], middle["kernel, IP_LOCAL_PORT_RANGE"]
    label = f"{n:,} to 2 endpoints"
    goals = [
        Goal.at_most(f"{label}: CPU s", ours.cpu, LIMIT_S, "s", middle["minimal C"].cpu),
        Goal.at_least(f"{label}: kernel / ours, CPU s", ours.cpu, plain.cpu, plain.cpu / ours.cpu, FACTOR),
        Goal.at_least(f"{label}: IP_LOCAL_PORT_RANGE / ours", ours.cpu, helped.cpu, helped.cpu / ours.cpu, 1),
    ]
    targets = goals_table(goals, "Two endpoints, against the targets")
    targets.name, targets.goals = "endpoints targets", goals
    return [table, targets]
