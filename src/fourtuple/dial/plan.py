"""DialPlan: what a dial is to do, as plain values, so that it can be sent to another process or machine.

Here: the plan, its checks, its division among several workers.  Not here: how it is carried out (user.py, kernel.py).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from fourtuple.address import format_ipv4, parse_ipv4, parse_prefix

MOST_CONNECTIONS = 1 << 24
_MOST_ADDRESSES = 1 << 16


@dataclass(frozen=True, order=True)
class Target:
    """A server: address and port."""

    address: str
    port: int

    def __str__(self) -> str:
        return f"{self.address}:{self.port}"


@dataclass(frozen=True)
class Talk:
    """What each connection says while it is held, every `every_s` seconds.

    `script` is steps of ("send", text) and ("expect", text): an answer has to contain the text.
    """

    every_s: float
    script: tuple[tuple[str, str], ...]

    def __post_init__(self) -> None:
        if self.every_s <= 0:
            raise ValueError("a connection talks every n seconds: n is more than 0")
        for step, text in self.script:
            if step not in ("send", "expect") or not text:
                raise ValueError(f"a step is send or expect with a text, not {step!r} {text!r}")


def http_get(every_s: float, path: str, host: str) -> Talk:
    """GET `path` on a connection that is kept alive, answered by 200."""
    request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"
    return Talk(every_s, (("send", request), ("expect", "HTTP/1.1 200")))


@dataclass(frozen=True)
class DialPlan:
    """Open `connections` to `targets` in turn, hold them, close them.  Times in seconds, rates per second."""

    connections: int
    targets: tuple[Target, ...]
    sources: tuple[str, ...] = ()
    """Addresses to connect from, in turn; none: the route decides."""
    stack: str = "user"
    wire: str = "auto"
    rate: float = 0.0
    """0: as fast as it goes."""
    ramp_s: float = 0.0
    """The rate grows from 0 to `rate` in this time."""
    hold_s: float = 0.0
    timeout_s: float = 0.0
    """Of one connection attempt; 0: TCP's own (tcp_syn_retries)."""
    window: int = 128
    """Handshakes in flight; those without an answer for 20 ms no longer count."""
    redial: int = 0
    """How often a connection that failed or was lost is opened again."""
    keepalive_s: int = 0
    """0: no keepalive."""
    talk: Talk | None = None
    range: tuple[int, int] | None = None
    """ip_local_port_range of our own stack."""
    seed: int = 0
    max_sockets: int = 0
    """Rows of our stack; 0: as many as the connections need."""
    close: str = "fin"
    """`fin`, or `rst` (SO_LINGER of 0 seconds)."""
    processes: int = 1
    name: str = ""
    """Of the worker that carries it out."""

    def __post_init__(self) -> None:
        if not 0 < self.connections <= MOST_CONNECTIONS:
            raise ValueError(f"between 1 and {MOST_CONNECTIONS:,} connections, not {self.connections:,}")
        if not self.targets:
            raise ValueError("a dial needs a target")
        if self.window < 1 or self.redial < 0 or self.processes < 1 or self.keepalive_s < 0:
            raise ValueError("window and processes are at least 1, redial and keepalive at least 0")
        if min(self.rate, self.ramp_s, self.hold_s, self.timeout_s) < 0:
            raise ValueError("rates and times are not negative")
        if self.stack not in ("user", "kernel") or self.close not in ("fin", "rst"):
            raise ValueError("the stack is user or kernel, the close fin or rst")

    @property
    def rows(self) -> int:
        """Sockets that our stack needs at once."""
        return self.max_sockets or self.connections + 64

    def scheduled(self, passed_us: float) -> float:
        """How many connections should have begun after so long: the rate grows along a line, then stays."""
        ramp_us = self.ramp_s * 1e6
        ramped = min(passed_us, ramp_us)
        grown = ramped * ramped / (2 * ramp_us) if ramp_us else 0.0
        return (grown + passed_us - ramped) * self.rate / 1e6 + 1

    def split(self, workers: int, own_sources: bool = False) -> list[DialPlan]:
        """One plan each for up to `workers`: sources are divided if there are enough, else targets, else the count.

        Two workers never have the same (source, target), where sources or targets are enough: no port is taken twice.
        With `own_sources` each worker has addresses of its own where the plan names none: then nothing is divided.
        Each (source, target) gets as many connections as one worker would have given it, give or take one.
        """
        own_sources = own_sources and not self.sources
        workers = min(workers, self.connections)
        enough = [name for name in ("sources", "targets") if len(getattr(self, name)) >= workers]
        divided = enough[0] if enough and not own_sources else ""
        # Nobody's share is 0: what is more than the connections is not divided at all.
        whole = min(len(getattr(self, divided)), self.connections) if divided else workers
        cuts = [whole * i // workers for i in range(workers + 1)]
        return [self._part(i, divided, cuts[i], cuts[i + 1], whole) for i in range(workers)]

    def _part(self, i: int, divided: str, low: int, high: int, whole: int) -> DialPlan:
        """Worker i of those that together have `whole` units: `low` up to `high` of them."""

        def share(total: int) -> int:
            return total * high // whole - total * low // whole

        mine: dict[str, Any] = {divided: getattr(self, divided)[low:high]} if divided else {}
        return replace(
            self,
            connections=share(self.connections),
            rate=self.rate * (high - low) / whole,
            max_sockets=max(1, share(self.max_sockets)) if self.max_sockets else 0,
            processes=1,
            seed=self.seed + i,
            name=f"{self.name or 'process'} {i + 1}",
            **mine,
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values; from_json() takes them back."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> DialPlan:
        """The plan that to_json() described."""
        known = dict(values)
        known["targets"] = tuple(Target(**target) for target in known["targets"])
        known["sources"] = tuple(known["sources"])
        known["range"] = tuple(known["range"]) if known["range"] else None
        if known["talk"]:
            script = tuple((step, text) for step, text in known["talk"]["script"])
            known["talk"] = Talk(known["talk"]["every_s"], script)
        return cls(**known)


def expand(text: str) -> list[str]:
    """The addresses of `10.0.0.1`, `10.0.0.0/29` (all of them) or `10.0.0.1-10.0.0.9`.  ValueError otherwise."""
    if "-" in text:
        low, high = (parse_ipv4(end) for end in text.split("-", 1))
    else:
        prefix, length = parse_prefix(text) if "/" in text else (parse_ipv4(text), 32)
        low = prefix & ~((1 << (32 - length)) - 1)
        high = low + (1 << (32 - length)) - 1
    if high < low:
        raise ValueError(f"{text}: the first address is above the last")
    if high - low >= _MOST_ADDRESSES:
        raise ValueError(f"{text}: at most {_MOST_ADDRESSES:,} addresses")
    return [format_ipv4(address) for address in range(low, high + 1)]
