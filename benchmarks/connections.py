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
from benchmarks.report import Table, verdict
from fourtuple.host import Host

DADDR = 0x0A010001
DESTS = 40
WARM = 1000
PAGE = 4096


def world(n: int) -> tuple[Host, Peer]:
    host = Host(max_sockets=n)
    device = host.add_link("tun0", addrs=("10.0.0.1/8",))
    host.enter(1_000_000)
    return host, Peer(host.net, DADDR, DESTS, device.ifindex, 256)


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def speed(n: int) -> dict[str, float]:
    """Engine time and memory of n handshakes, after WARM others."""
    host, peer = world(n + WARM)
    handshakes(peer, WARM)
    before, cpu = resident(), time.process_time_ns()
    took = handshakes(peer, n)
    cpu = time.process_time_ns() - cpu
    grown = resident() - before
    assert host.counter("Tcp.CurrEstab") == n + WARM
    assert host.next_timeout() is None  # no timer armed
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


def pauses(n: int) -> dict[str, float]:
    """The slowest single call while n connections are made."""
    _, peer = world(n)
    slow_begin, begin_at, slow_deliver, deliver_at = slowest_calls(peer, n)
    return {
        "connect_us": slow_begin / 1000,
        "connect_at": begin_at,
        "receive_us": slow_deliver / 1000,
        "receive_at": deliver_at,
    }


def child(what: str, n: int) -> dict[str, float]:
    """One measurement in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.connections", what, str(n)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    result: dict[str, float] = json.loads(output)
    return result


def run(quick: bool) -> list[Table]:
    """Speed and memory (medians of several processes), the worst pause, and what a connection's bytes are."""
    n, runs = (20_000, 1) if quick else (1_000_000, 5)
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
        ("engine, CPU ns a handshake", "engine_ns", 2400),
        ("bytes a connection", "bytes_each", 165),
        ("  columns of its row, if all were written to", "columns_bytes", None),
        ("  its slot in the ehash", "ehash_bytes", None),
        ("gc.collect() at the end, ms", "gc_ms", 5),
        ("resident set at the end, MB", "rss_mb", 200 if n >= 1_000_000 else None),
    ):
        value = middle[key]
        table.rows.append((what, value, limit, "" if limit is None else verdict(value, limit)))
    for what, key in (("connect()", "connect"), ("packet in", "receive")):
        worst = sorted(slow, key=lambda result: result[f"{key}_us"])[len(slow) // 2]
        label = f"slowest {what}, us (connection {worst[f'{key}_at']:,})"
        table.rows.append((label, worst[f"{key}_us"], None, ""))
    return [table]


if __name__ == "__main__":
    print(json.dumps({"speed": speed, "pauses": pauses}[sys.argv[1]](int(sys.argv[2]))))
