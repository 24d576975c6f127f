"""Reports as a dial would write them, made up: nothing is measured."""

from __future__ import annotations

from collections.abc import Iterable

from fourtuple.dial.histogram import Histogram, hist_record
from fourtuple.dial.report import (
    Asked,
    Busiest,
    Connections,
    Cpu,
    DialReport,
    FailureCount,
    Fit,
    Memory,
    Named,
    Ports,
    Seconds,
    Syn,
    TalkCount,
    TargetCount,
    Times,
)


def histogram(values: Iterable[tuple[int, int]]) -> Histogram:
    """Of (value, how often)."""
    found = Histogram()
    for value, times in values:
        for _ in range(times):
            hist_record(found, value)
    return found


def times() -> Times:
    """Per mille as in a real run: p50 31 µs and 88 µs."""
    connect = histogram([(31_000, 60), (44_000, 35), (120_000, 4), (4_100_000, 1)])
    return Times(connect, histogram([(88_000, 80), (130_000, 18), (410_000, 2)]))


def timeline(total: int, seconds: int, failed: int = 0) -> list[list[float]]:
    """Opened evenly, held 3 s, closed in one."""
    rows: list[list[float]] = []
    for i in range(seconds + 1):
        done, bad = total * i // seconds, failed * i // seconds
        rows.append([float(i), done, done - bad, bad, done - bad])
    rows.append([seconds + 3.0, total, total - failed, failed, total - failed])
    rows.append([seconds + 4.0, total, total - failed, failed, 0])
    return rows


def all_well(total: int = 200_000, host: str = "web-17", seed: int = 7) -> DialReport:
    """Everything opened, held and closed."""
    each = total // 8
    return DialReport(
        version="0.1.0",
        host=host,
        date="2026-01-02T03:04:05Z",
        wire="tun ft0, private namespace (no root)",
        seed=seed,
        asked=Asked(
            total,
            Named(8, [f"10.64.1.{i}:8080" for i in range(8)]),
            Named(1, ["10.64.0.2"]),
            20_000.0,
            hold_s=30.0,
            window=128,
            range=[32768, 60999],
        ),
        preflight=[Fit("ports to one destination", each, 28_232, True), Fit("memory (MiB)", 32, 7_900, True)],
        connections=Connections(total, total, total, closed=total),
        seconds=Seconds(10.0, 30.0, 2.5, 42.5),
        cpu_s=Cpu(7.25, 3.5, 8.5),
        times=times(),
        passed_over=histogram([(0, 30), (6_100, 60), (14_100, 10)]),
        syn=Syn(12, 12),
        memory=Memory(63.5, 31.5, 165.0, 0),
        ports=Ports(28_230, Busiest(41_872, 8)),
        targets=[TargetCount(f"10.64.1.{i}", 8080, each, 0) for i in range(8)],
        counters={"TcpExt.TCPSynRetrans": 12},
        timeline=timeline(total, 10),
    )


def refused() -> FailureCount:
    """The usual way to fail."""
    return FailureCount("ECONNREFUSED", 111, 1_200, "connect", "tcp_reset", "the peer answered with a reset", 3.25)


def some_failed() -> DialReport:
    """A backlog too short, one server that ends in the middle, talk that goes wrong at times."""
    report = all_well(20_000)
    report.preflight.insert(
        0, Fit("accept queue of a listener", 2_500, 128, False, "sysctl -w net.core.somaxconn=2500")
    )
    report.connections = Connections(20_600, 18_500, 18_300, 1_500, 200, 600, 18_300)
    report.failures = [
        refused(),
        FailureCount("ETIMEDOUT", 110, 300, "connect", "tcp_write_timeout", "nobody answered the SYNs", 9.0),
        FailureCount("ECONNRESET", 104, 200, "open", "tcp_reset", "the peer reset the connection", 5.5),
    ]
    report.targets[3] = TargetCount("10.64.1.3", 8080, 1_000, 1_500)
    report.asked.talk = {"every_s": 1.0, "script": [["send", "PING\r\n"], ["expect", "PONG"]]}
    report.talk = TalkCount(40_000, 39_800, 3, 2_400_000, 9_552_000)
    report.times.response_us = histogram([(150_000, 90), (900_000, 10)])
    report.syn = Syn(320, 1_910, 4)
    report.timeline = timeline(20_000, 10, 1_500)
    report.left.sockets = 2
    return report


def all_failed(code: str = "EADDRNOTAVAIL", number: int = 99) -> DialReport:
    """Nothing was ever open."""
    report = all_well(100)
    report.connections = Connections(100, 0, 0, 100)
    report.failures = [FailureCount(code, number, 100, "connect", "__inet_hash_connect", "no local port is left", 0.0)]
    report.targets = [TargetCount("10.64.1.0", 8080, 0, 100)]
    report.times, report.passed_over = Times(), Histogram()
    report.ports, report.syn, report.counters = Ports(), Syn(), {}
    report.timeline = [[0.0, 0, 0, 0, 0], [0.5, 100, 0, 100, 0]]
    return report
