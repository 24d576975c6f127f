"""Handshakes: ours, the least that C can do over a TUN, and the kernel's own client from C and from Python.

All connect to listeners that accept nobody, so all of the listener's work runs inside the client's own system calls
and is in the client's CPU time alike.  Connections end by RST, outside the clock.  Every round begins with another
client: what one leaves behind (sockets that the kernel is still taking apart) falls on each of the others in turn.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median

from benchmarks.live_sockets import inside
from benchmarks.native import FIRST_PORT, Native, Program
from benchmarks.report import Goal, Table, goals_table, say
from benchmarks.tun import WINDOW, Ours, our_wire
from fourtuple.phy.tun import VNET_HDR_LEN
from fourtuple.shell.netns import PrivateNamespace
from fourtuple.shell.wire import PEER_ADDRESS

FLOOR, SCAPY = "10.64.0.3", "10.64.0.4"
PORTS = 8
# Below half of the ports of a destination, so that the kernel's client is not made slow by its search.
HANDSHAKES = 15_000
SLOW, VERY_SLOW = 3, 50
"""The slow ones make so many times fewer."""
SERVER_SYSCTLS = {
    "net.core.somaxconn": "65535",
    "net.ipv4.tcp_max_syn_backlog": "65535",
    "net.ipv4.tcp_syncookies": "0",
}
TXQUEUELEN = 2000
TARGETS = [(PEER_ADDRESS, FIRST_PORT + i) for i in range(PORTS)]
C_LIMIT, KERNEL_LIMIT = 0.85, 1.4
OURS, ITERATED, MINIMAL_C, KERNEL_C = "ours", "ours, connect_many()", "minimal C", "kernel, C"
PYTHON = {"epoll": "kernel, Python, epoll", "sock_connect": "kernel, asyncio sock_connect",
          "open_connection": "kernel, asyncio open_connection"}  # fmt: skip
_REST_S = 0.05

Run = Callable[[int], tuple[float, float, float]]
"""n handshakes -> ns, CPU ns of the client, CPU ns of the whole machine; each for one handshake."""


def run(quick: bool) -> list[Table]:
    """All of them in turn, several times; ratios are taken within a round."""
    n, rounds = (600, 2) if quick else (HANDSHAKES, 14)
    with ExitStack() as stack:
        runs = compare(clients(stack), n, rounds)
    table = Table(
        "handshakes",
        f"Handshakes to the kernel's listener, {WINDOW} in flight, one core: ns each",
        ("", "client's CPU", "whole machine's", "handshakes/s", "its CPU / ours"),
        notes=(
            "ours: the Stack of `fourtuple dial` over a TUN, by rounds, or iterating over connect_many(), which gives",
            "a result for each. minimal C: tun_client.c on the same TUN, packets without a stack. kernel: non-blocking",
            "connect() over veth from C (kernel_client.c, poll) and from Python. The listener's work is in each.",
            f"{n:,} handshakes a run (asyncio {n // SLOW:,}), medians of {rounds}, each round begun by another client.",
            "whole machine's: to 10 ms, and whatever else ran on it. Other stacks: " + others() + ".",
        ),
    )
    ratios = {name: median(one[name][1] / one[OURS][1] for one in runs) for name in runs[0]}
    for name in ratios:
        took, cpu, machine = (median(one[name][i] for one in runs) for i in range(3))
        table.rows.append((name, cpu, machine, round(1e9 / took), ratios[name]))
    return [table, _targets({name: median(one[name][1] for one in runs) for name in ratios}, ratios)]


def others() -> str:
    """What else is compared, if it is here."""
    return f"scapy {'over the same TUN, without a stack' if find_spec('scapy') else 'not installed'}"


def _targets(cpu: dict[str, float], ratios: dict[str, float]) -> Table:
    goals = [
        Goal.at_least("handshake: minimal C / ours, CPU ns", cpu[OURS], cpu[MINIMAL_C], ratios[MINIMAL_C], C_LIMIT),
        Goal.at_least("handshake: kernel's C client / ours, CPU ns", cpu[OURS], cpu[KERNEL_C], ratios[KERNEL_C],
                      KERNEL_LIMIT),
    ]  # fmt: skip
    table = goals_table(goals, "Handshakes, against the targets")
    table.name, table.goals = "handshakes targets", goals
    return table


def compare(contestants: dict[str, Run], n: int, rounds: int) -> list[dict[str, tuple[float, float, float]]]:
    """Every one in each round, in an order that is turned by one each time; the first runs warm up and do not count."""
    names = list(contestants)
    for name in names:
        contestants[name](n)
    found = []
    for i in range(rounds):
        order = names[i % len(names) :] + names[: i % len(names)]
        say(f"handshakes: round {i + 1} of {rounds}")
        one = {}
        for name in order:
            time.sleep(_REST_S)
            one[name] = contestants[name](n)
        found.append(one)
    return found


def clients(stack: ExitStack, python: bool = True) -> dict[str, Run]:
    """Ready to run; `python`: also those that are written in it."""
    namespace = stack.enter_context(
        PrivateNamespace.start(txqueuelen=TXQUEUELEN, vnet_hdr=True, sysctls=SERVER_SYSCTLS)
    )
    fd = namespace.device.fileno()
    listener = stack.enter_context(Native("listener", namespace.pid))
    floor = stack.enter_context(Native("tun_client", fd, VNET_HDR_LEN, FLOOR, PEER_ADDRESS, pass_fds=(fd,)))
    kernel = stack.enter_context(Native("kernel_client"))
    ours = Ours(our_wire(namespace, HANDSHAKES + 64), TARGETS)

    def over_tun(
        client: Callable[[int], tuple[int, ...]], end: Callable[[], None] = lambda: None, slower: int = 1
    ) -> Run:
        def one(n: int) -> tuple[float, float, float]:
            listener.ask("open", PORTS)
            result = measured(client, n // slower)
            end()
            listener.ask("close")
            return result

        return one

    def from_python(way: str) -> Run:
        command = inside(kernel.pid, sys.executable, "-m", "benchmarks.python_client", way)
        program = stack.enter_context(Program(way, command))

        def one(n: int) -> tuple[float, float, float]:
            kernel.ask("listen", PORTS)
            result = measured(partial(ask, program), n if way == "epoll" else n // SLOW)
            kernel.ask("release")
            return result

        return one

    found: dict[str, Run] = {
        OURS: over_tun(ours.run, ours.reset_all),
        MINIMAL_C: over_tun(partial(ask, floor)),
        KERNEL_C: partial(measured, partial(ask, kernel)),
    }
    if python:
        found[ITERATED] = over_tun(ours.run_iterated, ours.reset_all)
        if find_spec("scapy"):
            command = [sys.executable, "-m", "benchmarks.scapy_client"]
            words = [str(word) for word in (fd, VNET_HDR_LEN, SCAPY, PEER_ADDRESS)]
            scapy = stack.enter_context(Program("scapy", command + words, pass_fds=(fd,)))
            found["scapy"] = over_tun(partial(ask, scapy), slower=VERY_SLOW)
        found |= {name: from_python(way) for way, name in PYTHON.items()}
    return found


def ask(program: Program, n: int) -> tuple[int, ...]:
    return tuple(program.ask("run", n, WINDOW, PORTS))


def measured(client: Callable[[int], tuple[int, ...]], n: int) -> tuple[float, float, float]:
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
