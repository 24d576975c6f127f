"""A million connections, ESTABLISHED at once in the kernel's own count: opened by one process over a TUN, and closed.

The other side is a server in a fresh private namespace that accepts nobody until it is told to: all of its work for a
handshake runs inside the client's own system calls and is in the client's CPU time alike.  Ours is the dial of
`fourtuple dial`, in a process of its own: `python -m benchmarks.million ours <n> <part>` prints one line of JSON.
The minimal C client does nothing but the handshakes, towards the same kind of server.

A connection's life, in the last run of ours: opened; 10,000 say a byte and hear it; a keepalive each; one half is
closed by the server, the other by us, by FIN both ways; then both tables are empty after TIME_WAIT.
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.connections import MILLION, available, meminfo
from benchmarks.live_sockets import inside
from benchmarks.native import Native
from benchmarks.report import Cell, Goal, Table, goals_table, say
from fourtuple.address import parse_ipv4
from fourtuple.dial.plan import DialPlan, Target, expand
from fourtuple.dial.report import Progress
from fourtuple.dial.user import UserDial, resident
from fourtuple.dial.wiring import Wiring, setup_of
from fourtuple.inet.sock_table import sk_handle
from fourtuple.phy.tun import VNET_HDR_LEN
from fourtuple.shell.netns import PrivateNamespace, Server
from fourtuple.shell.wire import Wire
from fourtuple.shell.wires import open_wire

NETWORK, ADDRESSES, FIRST_ADDRESS, PORT = "10.64.128.0/26", 64, "10.64.128.0", 7000
FLOOR = "10.64.0.3"
# The queue has room for the FINs of the whole sample, which the server closes at once.
WINDOW, TXQUEUELEN, SAMPLE = 128, 12_000, 10_000
KERNEL_BYTES = 5_000
"""Of kernel memory for a connection: here only its server side, but that grows in slabs."""
TIME_WAIT_S = 60
KERNEL_PORTS, HELD_BY_ONE = 8, 18_000
CPU_LIMIT, RSS_MB, BYTES_EACH, PAUSE_MS = 1.15, 200, 165, 10
MOST_BEHIND = 8_000
_PATIENCE_S, _ASK_S = 30.0, 0.01
_COUNT = "from fourtuple.live import sockets; print(sockets().count_by_state()[1])"


def fits(n: int) -> str:
    """Why it does not fit into memory, "" when it does."""
    need, have = n * KERNEL_BYTES + (1 << 28), available()
    return "" if need <= have else f"{n:,} connections take {need >> 20:,} MB of memory, {have >> 20:,} are free"


def settle() -> None:
    """Until the kernel has taken apart what the last run left: that work must not fall into the next one's time."""
    slab = meminfo("Slab")
    for _ in range(60):
        time.sleep(0.5)
        before, slab = slab, meminfo("Slab")
        if before - slab < 1 << 20:
            return


def server(n: int) -> Server:
    return Server(NETWORK, PORT, "hold", backlog=n // ADDRESSES + 1000)


# ------------------------------------------------------------------------------------------------ ours


class Pauses:
    """The longest round of each phase, in CPU time of the thread: what other programs take does not count."""

    def __init__(self) -> None:
        self.phase = "open"
        self.worst: dict[str, tuple[float, float]] = {}
        self._cpu = 0
        self._start = time.perf_counter()

    def __call__(self, now: int) -> bool:
        cpu = time.thread_time_ns()
        took, self._cpu = (cpu - self._cpu) / 1e6 if self._cpu else 0.0, cpu
        if took > self.worst.get(self.phase, (0.0, 0.0))[0]:
            self.worst[self.phase] = took, time.perf_counter() - self._start
        return False

    def begin(self, phase: str) -> None:
        """What comes before its first round is no pause."""
        self.phase, self._cpu = phase, 0


class Life:
    """A dial, watched: `figures` is what was seen."""

    def __init__(self, plan: DialPlan, part: str, wire: Wire, available_before: int) -> None:
        self.whole, self.waits = part != "open", part == "whole"
        self.n, self.wire, self.before = plan.connections, wire, available_before
        assert wire.namespace is not None
        self.namespace = wire.namespace
        self.figures: dict[str, Any] = {}
        self.dial = UserDial(plan, wire, self._tell, self._round_is_the_last)
        self.pauses = Pauses()
        wire.runner.apps.append(self.pauses)
        self._was_held = False
        self._asked, self._accepted = 0.0, 0
        self._since = time.perf_counter()

    def run(self) -> dict[str, Any]:
        report = self.dial.run()
        self._took("close")
        counts = report.connections
        self.figures |= {
            "established": counts.established, "failed": counts.failed, "cpu_s": report.cpu_s.opening,
            "open_s": report.seconds.open, "rss_mb": report.memory.rss_mb * 1.048576,
            "bytes_each": report.memory.bytes_per_connection, "resent": report.syn.sent_again_segments,
            "left": report.left.sockets,
        }  # fmt: skip
        if self.whole:
            self._wait_for_empty_tables()
        self.figures["pause_ms"] = {phase: took for phase, (took, _) in self.pauses.worst.items()}
        self.figures["pause_at_s"] = {phase: at for phase, (_, at) in self.pauses.worst.items()}
        return self.figures

    def _tell(self, progress: Progress) -> None:
        if self.whole:
            say(f"ours: {progress.phase}, {progress.open:,} open")

    def _took(self, phase: str) -> None:
        now = time.perf_counter()
        self.figures[f"{phase}_took_s"] = now - self._since
        self.figures[f"{phase}_rss_mb"] = resident() / 1e6
        self._since = now

    def _round_is_the_last(self) -> bool:
        if self.dial.phase != "hold":
            return False
        if not self._was_held:
            self._was_held = True
            self._look()
        if self.whole and self.dial.dialer.open > self.n // 2:
            self._pace_server()
            return False
        if self.whole:
            self.namespace.request("drain", port=PORT, per_round=0)
            self._took("server_closes")
        return True

    def _pace_server(self) -> None:
        """It waits when we are behind: on a busy machine its FINs would fill the queue, be dropped, and return."""
        now = time.perf_counter()
        if now - self._asked < _ASK_S:
            return
        self._asked = now
        behind = self._accepted - self.dial.dialer.lost
        per_round = 0 if behind > MOST_BEHIND else 256
        self._accepted = self.namespace.request("drain", port=PORT, per_round=per_round)["accepted"]

    def _look(self) -> None:
        """All are open."""
        self._took("open")
        self.figures["kernel_bytes_each"] = (self.before - available() - resident()) / self.n
        self.figures["kernel_established"] = self.namespace.request("counts")["established_inuse"]
        self.figures["timers"] = self.wire.host.net.wheel.armed
        if not self.whole:
            return
        self.figures["sock_diag"] = self._sock_diag()
        self._took("count")
        self.pauses.begin("sample")
        self.figures["alive"] = self._sample()
        self._took("sample")
        self.pauses.begin("keepalive")
        self.figures["answered"] = self.dial.stack.keepalive(patience=_PATIENCE_S)
        self._took("keepalive")
        self._accepted = self.namespace.request("drain", port=PORT)["accepted"]
        self.pauses.begin("close")

    def _sock_diag(self) -> int:
        """How many are ESTABLISHED on the other side by a dump of its sockets."""
        command = inside(self.namespace.pid, sys.executable, "-c", _COUNT)
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    def _sample(self) -> int:
        """How many of a sample hear the byte that they say."""
        peers = self.namespace.request("sample", port=PORT, n=min(SAMPLE, self.n))["peers"]
        wanted = {(port, parse_ipv4(theirs)) for _, port, theirs in peers}
        stack = self.dial.stack
        sport, daddr, phase = (stack.connections.column(name) for name in ("sport", "daddr", "phase"))
        rows = [row for row, pair in enumerate(zip(sport, daddr, strict=True)) if phase[row] and pair in wanted]
        sks = self.wire.host.net.sks
        return self._exchange([sk_handle(sks, row) for row in rows])

    def _exchange(self, handles: list[int]) -> int:
        stack = self.dial.stack
        alive = 0
        for first in range(0, len(handles), WINDOW):
            some = set(handles[first : first + WINDOW])
            for handle in some:
                stack.send(handle, b"?")
            until = time.monotonic() + _PATIENCE_S
            while some and time.monotonic() < until:
                stack.round()
                some -= {handle for handle in some if stack.recv(handle) == b"?"}
            alive += len(handles[first : first + WINDOW]) - len(some)
        return alive

    def _wait_for_empty_tables(self) -> None:
        stack, namespace = self.dial.stack, self.namespace
        namespace.request("drain", port=PORT)
        until = time.monotonic() + _PATIENCE_S + self.n / 10_000
        while (found := namespace.request("counts"))["established_inuse"] and time.monotonic() < until:
            stack.wait(0.2)
            say(f"ours: close, {found['established_inuse']:,} left there")
        self.figures["our_time_waits"], self.figures["kernel_time_waits"] = stack.time_waits, found["time_wait"]
        self._took("server_answers")
        if not self.waits:
            return
        until = time.monotonic() + TIME_WAIT_S + _PATIENCE_S
        self.pauses.begin("time-wait")
        while time.monotonic() < until:
            stack.wait(1.0)
            found = namespace.request("counts")
            left = found["established_inuse"] + found["time_wait"]
            say(f"ours: TIME_WAIT, {stack.time_waits:,} here, {found['time_wait']:,} there")
            if not left and not stack.time_waits and not stack.sockets:
                break
        self.figures["our_rows_left"] = stack.sockets + stack.time_waits
        self.figures["kernel_rows_left"] = left
        self._took("time_wait")


def life(n: int, part: str) -> dict[str, Any]:
    """In this process: `open` only, `close` too, or the `whole` of it, TIME_WAIT included."""
    buckets = {"net.ipv4.tcp_max_tw_buckets": str(2 * n)}
    targets = tuple(Target(address, PORT) for address in expand(NETWORK))
    plan = DialPlan(n, targets, wire="tun", hold_s=600.0, window=WINDOW, close="rst" if part == "open" else "fin")
    setup = replace(
        setup_of(plan, Wiring()), servers=(server(n),), txqueuelen=TXQUEUELEN, sysctls=buckets, peer_sysctls=buckets
    )
    before = available()
    with open_wire("tun", setup) as wire:
        return Life(plan, part, wire, before).run()


def ours(n: int, part: str) -> dict[str, Any]:
    """The same in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.million", "ours", str(n), part]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    if found["established"] != n:
        raise RuntimeError(f"ours: {found['established']:,} of {n:,} were established")
    settle()
    return found


# ------------------------------------------------------------------------------------------------ the others


@contextmanager
def fresh_server(n: int) -> Iterator[PrivateNamespace]:
    """As `ours` has it."""
    with PrivateNamespace.start(servers=(server(n),), txqueuelen=TXQUEUELEN, vnet_hdr=True) as namespace:
        yield namespace


def minimal_c(n: int) -> dict[str, Any]:
    """The same number by tun_client.c, ended by RST."""
    with fresh_server(n) as namespace:
        fd = namespace.device.fileno()
        before = available()
        with Native("tun_client", fd, VNET_HDR_LEN, FLOOR, FIRST_ADDRESS, pass_fds=(fd,)) as client:
            took, cpu, done = client.ask("open", n, WINDOW, 1, ADDRESSES)
            established = namespace.request("counts")["established_inuse"]
            found = {
                "cpu_s": cpu / 1e9, "open_s": took / 1e9, "rss_mb": resident_of(client.pid) / 1e6,
                "kernel_bytes_each": (before - available()) / n,
            }  # fmt: skip
            client.ask("reset")
    if done != n or established != n:
        raise RuntimeError(f"minimal C: {done:,} of {n:,} were established, {established:,} in the kernel's count")
    settle()
    return found


def resident_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def kernel_client(n: int) -> dict[str, Any]:
    """The kernel's own sockets by kernel_client.c, as many as one process may have descriptors for; median of 3."""
    runs = []
    with Native("kernel_client") as client:
        client.ask("run", 1000, WINDOW, KERNEL_PORTS)
        for _ in range(3):
            client.ask("listen", KERNEL_PORTS)
            before = available()
            took, cpu, done = client.ask("hold", n, WINDOW, KERNEL_PORTS, 0)
            runs.append((cpu / 1e9, took / 1e9, (before - available()) / n))
            client.ask("release")
            settle()
            if done != n:
                raise RuntimeError(f"kernel's client: {done:,} of {n:,} were established")
    middle = (median(figures) for figures in zip(*runs, strict=True))
    return dict(zip(("cpu_s", "open_s", "kernel_bytes_each"), middle, strict=True))


# ------------------------------------------------------------------------------------------------ the section


def run(quick: bool) -> list[Table]:
    """Rounds in alternating order, after a run that pays for memory that no kernel has used yet."""
    n = 20_000 if quick else MILLION
    if why := fits(n):
        raise OSError(errno.ENOMEM, why)
    say("million: minimal C, first run")
    if not quick:
        minimal_c(n)
    rounds = [
        {"ours": ours(n, "open"), "c": minimal_c(n)},
        {"c": minimal_c(n), "ours": ours(n, "close" if quick else "whole")},
    ]
    if not quick:
        rounds.append({"ours": ours(n, "open"), "c": minimal_c(n)})
    kernel = kernel_client(min(n, HELD_BY_ONE))
    ratio = median(one["c"]["cpu_s"] / one["ours"]["cpu_s"] for one in rounds)
    return [_table(n, rounds, kernel), _goals(n, rounds, ratio)]


def _table(n: int, rounds: list[dict[str, Any]], kernel: dict[str, Any]) -> Table:
    whole = rounds[1]["ours"]
    table = Table(
        "million",
        f"{n:,} connections ESTABLISHED at once, opened by one process over a TUN",
        ("", "ours", "minimal C", "kernel's client"),
        notes=(
            f"Each towards a fresh server of {ADDRESSES} addresses, {WINDOW} in flight; {len(rounds)} rounds, medians,",
            f"the order turned round in every other. kernel's client: over veth, {min(n, HELD_BY_ONE):,}, as many as",
            "one process may have descriptors. Kernel memory: the whole machine's growth; over veth it is both ends'.",
            "At once in the kernel's count: "
            f"{whole['kernel_established']:,} (sockstat), {whole['sock_diag']:,} (sock_diag).",
            f"Closed by FIN: TIME_WAIT {whole['our_time_waits']:,} here, {whole['kernel_time_waits']:,} there"
            + ("." if "our_rows_left" in whole else ", not waited for."),
            *_seconds(whole),
            f"CPU us of ours and of minimal C by rounds: {_by_rounds(n, rounds)}.",
        ),
    )
    for what, key, factor in (
        ("CPU us a connection", "cpu_s", 1e6 / n),
        ("seconds to open", "open_s", 1.0),
        ("resident set, MB", "rss_mb", 1.0),
        ("kernel memory, bytes a connection", "kernel_bytes_each", 1.0),
    ):
        cells: list[Cell] = [
            median(one[who][key] * factor for one in rounds) if key in first_of(rounds, who) else None
            for who in ("ours", "c")
        ]
        scaled = kernel.get(key)
        if scaled is not None and key == "cpu_s":
            scaled *= 1e6 / min(n, HELD_BY_ONE)
        # Memory that other programs gave back meanwhile can make the growth negative: then it is not known.
        table.rows.append((what, *(cell if cell and float(cell) > 0 else None for cell in (*cells, scaled))))
    return table


def _by_rounds(n: int, rounds: list[dict[str, Any]]) -> str:
    return ", ".join(f"{one['ours']['cpu_s'] * 1e6 / n:.1f} and {one['c']['cpu_s'] * 1e6 / n:.1f}" for one in rounds)


def _seconds(whole: dict[str, Any]) -> list[str]:
    """How long each phase took, and what the program had in memory after it."""
    took = [key.removesuffix("_took_s") for key in whole if key.endswith("_took_s")]
    parts = [f"{phase.replace('_', ' ')} {whole[phase + '_took_s']:.1f}" for phase in took]
    sizes = [f"{phase.replace('_', ' ')} {whole[phase + '_rss_mb']:.0f}" for phase in took]
    return [f"Seconds: {', '.join(parts)}.", f"Resident MB after: {', '.join(sizes)}."]


def first_of(rounds: list[dict[str, Any]], who: str) -> dict[str, Any]:
    found: dict[str, Any] = rounds[0][who]
    return found


def _goals(n: int, rounds: list[dict[str, Any]], ratio: float) -> Table:
    both, whole = [one["ours"] for one in rounds], rounds[1]["ours"]
    cpu = {who: median(one[who]["cpu_s"] for one in rounds) * 1e6 / n for who in ("ours", "c")}
    each = median(one["bytes_each"] for one in both)
    rss = median(one["rss_mb"] for one in both)
    label = f"{n:,} open"
    goals = [
        Goal.at_least(f"{label}: minimal C / ours, CPU us", cpu["ours"], cpu["c"], ratio, 1 / CPU_LIMIT),
        Goal.exactly(f"{label}: in the kernel's count", whole["kernel_established"], n),
        Goal.exactly(f"{label}: timers armed", whole["timers"], 0),
        Goal.exactly(f"{label}: sample, a byte both ways", whole["alive"], min(SAMPLE, n)),
        Goal.exactly(f"{label}: keepalives answered", whole["answered"], n),
    ]
    if n >= MILLION:
        goals.append(Goal.at_most(f"{label}: resident set, MB", rss, RSS_MB))
        goals.append(Goal.at_most(f"{label}: bytes each", each, BYTES_EACH))
    for what, key in (("our rows", "our_rows_left"), ("kernel's sockets", "kernel_rows_left")):
        if key in whole:
            goals.append(Goal.exactly(f"{label}: {what} left at the end", whole[key], 0))
    for phase, took in whole["pause_ms"].items():
        if phase == "sample":
            continue  # which is mostly this program's own loop
        goals.append(Goal.at_most(f"{label}: longest round, {phase}, ms", took, PAUSE_MS))
    table = goals_table(goals, f"{label}, against the targets")
    table.name = "million targets"
    table.goals = goals
    return table


if __name__ == "__main__":
    print(json.dumps(life(int(sys.argv[2]), sys.argv[3])))
