"""Handshakes by scapy over a TUN: packets built and read as its users do; there is no stack behind them.

`python -m benchmarks.scapy_client FD VNET_HDR_LEN CLIENT SERVER` reads commands as tun_client.c does:

    run N WINDOW PORTS     -> ns, CPU ns, how many were established; they end by RST outside the clock
"""

from __future__ import annotations

import os
import select
import sys
import time
from importlib import import_module
from typing import Any

from benchmarks.native import FIRST_PORT

_FIRST_LOCAL = 20_000
_OPTIONS = [("MSS", 1460), ("SAckOK", b""), ("Timestamp", (1, 0)), ("NOP", None), ("WScale", 7)]


class Client:
    """Ports are taken in order; each has at most one connection to each port of the server."""

    def __init__(self, fd: int, header: int, client: str, server: str) -> None:
        inet = import_module("scapy.layers.inet")
        self._ip: Any = inet.IP
        self._tcp: Any = inet.TCP
        self._fd, self._header = fd, bytes(header)
        self._addresses = {"src": client, "dst": server}
        self._open: list[tuple[int, int, int]] = []
        self._begun = 0

    def _send(self, sport: int, dport: int, **fields: Any) -> None:
        packet = self._ip(**self._addresses) / self._tcp(sport=sport, dport=dport, **fields)
        os.write(self._fd, self._header + bytes(packet))

    def run(self, n: int, window: int, ports: int) -> int:
        """n handshakes; how many were established."""
        last = self._begun + n
        waiting: set[int] = set()
        while self._begun < last or waiting:
            while self._begun < last and len(waiting) < window:
                sport = _FIRST_LOCAL + self._begun % 40_000
                self._send(sport, FIRST_PORT + self._begun % ports, flags="S", seq=self._begun, options=_OPTIONS)
                waiting.add(sport)
                self._begun += 1
            if not select.select([self._fd], [], [], 2.0)[0]:
                break
            self._take(waiting)
        return n - len(waiting)

    def _take(self, waiting: set[int]) -> None:
        segment = self._ip(os.read(self._fd, 2048)[len(self._header) :])[self._tcp]
        if segment.flags == "SA" and segment.dport in waiting:
            waiting.remove(segment.dport)
            stamp = dict(option for option in segment.options if option[0] == "Timestamp")["Timestamp"]
            options = [("NOP", None), ("NOP", None), ("Timestamp", (1, stamp[0]))]
            self._send(segment.dport, segment.sport, flags="A", seq=segment.ack, ack=segment.seq + 1, options=options)
            self._open.append((segment.dport, segment.sport, segment.ack))

    def reset_all(self) -> None:
        for sport, dport, seq in self._open:
            self._send(sport, dport, flags="R", seq=seq)
        self._open.clear()


def main(fd: str, header: str, client: str, server: str) -> None:
    scapy = Client(int(fd), int(header), client, server)
    for line in sys.stdin:
        _, *numbers = line.split()
        start, cpu = time.perf_counter_ns(), time.process_time_ns()
        done = scapy.run(*map(int, numbers))
        print(time.perf_counter_ns() - start, time.process_time_ns() - cpu, done, flush=True)
        scapy.reset_all()


if __name__ == "__main__":
    main(*sys.argv[1:])
