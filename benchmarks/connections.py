"""A million simulated connections through the whole engine: time, memory, pauses.

Each measurement is a process of its own, so that nothing is warm and nothing else is in its memory:
`python -m benchmarks.connections speed|pauses <n>` prints one line of JSON.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from benchmarks.peer import Peer, handshakes, slowest_calls
from benchmarks.report import Goal, Table, say, verdict
from fourtuple.host import Host

DADDR = 0x0A010001
DESTS = 40
MANY_DESTS = 400
MILLION = 1_000_000
ENGINE_NS, BYTES_EACH, RSS_MB, PAUSE_US = 2400, 165, 200, 10_000
WARM = 1000
PAGE = 4096


def world(n: int, dests: int) -> tuple[Host, Peer]:
    host = Host(max_sockets=n)
    device = host.add_link("tun0", addrs=("10.0.0.1/8",))
    host.enter(1_000_000)
    return host, Peer(host.net, DADDR, dests, device.ifindex, 256)


def available() -> int:
    """MemAvailable, bytes."""
    return meminfo("MemAvailable")


def meminfo(name: str) -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) << 10
    raise OSError(f"no {name} in /proc/meminfo")


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def speed(n: int, dests: int) -> dict[str, float]:
    """Engine time and memory of n handshakes, after WARM others."""
    host, peer = world(n + WARM, dests)
    handshakes(peer, WARM)
    before, cpu = resident(), time.process_time_ns()
    took = handshakes(peer, n)
    cpu = time.process_time_ns() - cpu
    grown = resident() - before
    assert host.counter("Tcp.CurrEstab") == n + WARM
    assert host.next_timeout() is None, "a timer is armed"
    start = time.perf_counter_ns()
    gc.collect()
    columns = host.net.sks.columns.values()
    ehash = host.net.h.ehash
    return {
        "engine_ns": took / n,
        "cpu_with_peer_ns": cpu / n,
        "bytes_each": grown / n,
        "gc_ms": (time.perf_counter_ns() - start) / 1e6,
        "columns_bytes": sum(column.itemsize for column in columns),
        "ehash_bytes": ehash.table.capacity * 4 / ehash.count,
        "rss_mb": resident() / 1e6,
    }


def pauses(n: int, dests: int) -> dict[str, float]:
    """The slowest single call while n connections are made."""
    _, peer = world(n, dests)
    slow_begin, begin_at, slow_deliver, deliver_at = slowest_calls(peer, n)
    return {
        "connect_us": slow_begin / 1000,
        "connect_at": begin_at,
        "receive_us": slow_deliver / 1000,
        "receive_at": deliver_at,
    }


def child(what: str, n: int, dests: int = DESTS) -> dict[str, float]:
    """One measurement in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.connections", what, str(n), str(dests)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    result: dict[str, float] = json.loads(output)
    return result


def run(quick: bool) -> list[Table]:
    """Speed and memory (medians of several processes), the worst pause, what the bytes are; then ten times more."""
    n, runs = (20_000, 1) if quick else (MILLION, 5)
    speeds = [child("speed", n) for _ in range(runs)]
    slow = [child("pauses", n) for _ in range(runs)]
    middle = {key: median(result[key] for result in speeds) for key in speeds[0]}
    table = Table(
        "connections",
        f"{n:,} connections to {DESTS} destinations, the peer simulated",
        ("", "measured", "limit", ""),
        notes=(
            f"Medians of {runs} processes. A handshake: socket, connect(), SYN out, SYN-ACK in, ACK out; 256 at once;",
            "the peer is not counted. Bytes: growth of the resident set after the first thousand; no timer is armed.",
            "Slowest call: CPU time, each timed by itself, in a process that only does this.",
        ),
    )
    for what, key, limit in (
        ("handshake, CPU ns", "engine_ns", ENGINE_NS),
        ("bytes a connection", "bytes_each", BYTES_EACH if n >= MILLION else None),
        ("  columns of its row, if all were written to", "columns_bytes", None),
        ("  its slot in the ehash", "ehash_bytes", None),
        ("gc.collect(), ms", "gc_ms", 5),
        ("resident set, MB", "rss_mb", RSS_MB if n >= MILLION else None),
    ):
        _judge(table, n, what, middle[key], limit)
    for what, key in (("connect()", "connect"), ("packet in", "receive")):
        worst = sorted(slow, key=lambda result: result[f"{key}_us"])[len(slow) // 2]
        label = f"slowest {what}, us (connection {worst[f'{key}_at']:,})"
        _judge(table, n, label, worst[f"{key}_us"], PAUSE_US)
    return [table] if quick else [table, ten_million()]


def ten_million() -> Table:
    """Once, with what is left of the memory said."""
    n = 10 * MILLION
    table = Table(
        "connections, 10 million",
        f"{n:,} connections to {MANY_DESTS} destinations, the peer simulated, one process",
        ("", "measured", "limit", ""),
    )
    free = available()
    if free < n * 2 * BYTES_EACH:
        table.notes = (f"not measured: it takes {n * BYTES_EACH >> 20:,} MB, {free >> 20:,} MB are available",)
        return table
    say(f"connections: {n:,}")
    found, slow = child("speed", n, MANY_DESTS), child("pauses", n, MANY_DESTS)
    _judge(table, n, "handshake, CPU ns", found["engine_ns"], ENGINE_NS)
    _judge(table, n, "bytes a connection", found["bytes_each"], BYTES_EACH)
    _judge(table, n, "resident set, MB", found["rss_mb"], None)
    for what, key in (("connect()", "connect"), ("packet in", "receive")):
        label = f"slowest {what}, us (connection {slow[f'{key}_at']:,.0f})"
        _judge(table, n, label, slow[f"{key}_us"], PAUSE_US)
    return table


def _judge(table: Table, n: int, what: str, value: float, limit: float | None) -> None:
    table.rows.append((what, value, limit, "" if limit is None else verdict(value, limit)))
    if limit is not None:
        plain = what.partition(" (")[0]
        table.goals.append(Goal.at_most(f"{n:,} simulated: {plain.strip()}", value, limit))


if __name__ == "__main__":
    dests = int(sys.argv[3]) if len(sys.argv) > 3 else DESTS
    print(json.dumps({"speed": speed, "pauses": pauses}[sys.argv[1]](int(sys.argv[2]), dests)))
