"""The small world in which the kernel and our engine are compared: addresses, devices, ports, and the record of a run.

Three links lead from the client to the peer: `v0`, which the routes prefer, and `v1`, `v2`, which only a socket bound
to them (SO_BINDTODEVICE) uses.  The peer listens on `answers`, port 80 and 443, on each link separately, so that equal
4-tuples on two links are two connections there as well.  `silent` is nobody: a SYN to it is dropped, the socket stays
in SYN_SENT and holds its 4-tuple until it is closed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

DEVICES = ("v0", "v1", "v2")
HTTP, HTTPS = 80, 443
# A destination is a number: which host, which port.
DESTINATIONS = (("answers", HTTP), ("answers", HTTPS), ("silent", HTTP), ("silent", HTTPS))
ANSWERING = (0, 1)

PERIOD_US = 10_000_000  # secure_seq.c EPHEMERAL_PORT_SHUFFLE_PERIOD

# Last numbers of the addresses: two of ours, the peer's, nobody's.
HOSTS = {"first": 1, "second": 5, "answers": 2, "silent": 3}

NO_PORTS = "\n"  # of ip_local_reserved_ports: an empty write changes nothing

# What a record line is about; each is one step.
BIND, LISTEN, CONNECT, UNCONNECT, CLOSE = "bind", "listen", "connect", "unconnect", "close"
TIME_WAIT, FIN_WAIT2, FINISH, SET, AGE = "time_wait", "fin_wait2", "finish", "set", "age"
SOCKET = "socket"  # no step: it belongs to the call that follows


class Options(NamedTuple):
    """What is set on a socket before its first call."""

    reuse: bool = False
    reuseport: bool = False
    no_port: bool = False
    device: str = ""
    range: tuple[int, int] | None = None


class Line(NamedTuple):
    """One call and how it ended: 0, a port, or -errno; times of CLOCK_MONOTONIC in us, before and after."""

    op: str
    sock: int
    args: Any
    outcome: int
    begin_us: int
    end_us: int


DIRECTED = 0  # the seed of the history that is not random (episodes.py)


@dataclass
class History:
    """What the kernel did, line by line; `epoch_us` is a moment at which it re-hashes all destinations.

    `whole` is False where it ended early, as a call fell on a border of time.
    """

    seed: int
    net: str
    """the first three numbers of all addresses"""
    epoch_us: int
    lines: list[Line] = field(default_factory=list)
    whole: bool = True

    def address(self, who: str) -> str:
        """Address of 'first' and 'second' (ours), 'answers' and 'silent' (theirs); 'any' is the wildcard."""
        if who == "any":
            return "0.0.0.0"
        return f"{self.net}.{HOSTS[who]}"

    def steps(self) -> int:
        """Lines that count."""
        return sum(line.op != SOCKET for line in self.lines)

    def to_json(self) -> list[Any]:
        """As plain lists, for `from_json`."""
        return [self.seed, self.net, self.epoch_us, self.lines, self.whole]

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(self.to_json()))


def load(path: Path) -> History:
    """What `save` wrote."""
    return from_json(json.loads(path.read_text()))


def from_json(data: list[Any]) -> History:
    """The same from what json.loads gave."""
    seed, net, epoch_us, lines, whole = data
    return History(seed, net, epoch_us, [Line(*line) for line in lines], whole)
