"""Random histories: what to do next, from what there is.  The same generator serves every seed; what the kernel chooses
(ports) goes back into it.

A history is a row of phases of some hundred steps.  A phase has a range, reserved ports, rules for TIME_WAIT and a
mood: `fill` runs ranges full, `churn` opens and closes, `bind` mixes kinds of bind(), `old` lives among TIME_WAITs, and
`full` churns one destination at the end of a range of some size, where each search tells where the next one begins;
`wide` has room, so that a start that jumps is seen.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from tests.kernel.port_judge import world
from tests.kernel.port_judge.world import ANSWERING, DESTINATIONS, Options

LOW = 40000
# Sizes odd and even, lows odd and even, most of them small enough to run full.
RANGES = (
    (40000, 40000), (40001, 40001), (40000, 40001), (40001, 40003), (40000, 40002), (40000, 40003), (40001, 40005),
    (40000, 40005), (40001, 40007), (40000, 40007), (40000, 40010), (40001, 40011), (40000, 40011), (40001, 40016),
    (40000, 40016), (40000, 40023), (40001, 40048), (40000, 40059), (40001, 40061), (40000, 40119), (40000, 40239),
    (39500, 40523),
)  # fmt: skip
SMALL = RANGES[:14]
WIDE = ((40001, 40061), (40000, 40030), (40001, 40044), (40000, 40059), (40000, 40044), (40001, 40048))
OWN_RANGES = (
    (40000, 40007), (40003, 40003), (40001, 40005), (40004, 40006), (40002, 0), (0, 40003), (39990, 40003),
    (40002, 50000), (50000, 50010), (40000, 40011), (40000, 40001),
)  # fmt: skip
RESERVED = (
    world.NO_PORTS,
    world.NO_PORTS,
    world.NO_PORTS,
    "40000",
    "40001",
    "40002-40003",
    "40000,40004",
    "40001-40003,40006",
    "40004-40009",
    "39990-40100",
)
MOODS = {
    #        connect bind listen close time_wait fin_wait2 finish unconnect again odd age
    "fill": (60, 3, 1, 14, 4, 1, 1, 3, 8, 1, 0.3),
    "churn": (38, 4, 1, 36, 6, 1, 1, 4, 6, 1, 0.5),
    "bind": (26, 22, 4, 26, 4, 1, 1, 4, 8, 2, 0.3),
    "old": (42, 4, 1, 14, 20, 3, 3, 3, 6, 1, 2),
    "full": (56, 0, 0, 40, 0, 0, 0, 1, 2, 0, 0),
    "wide": (56, 0, 0, 40, 0, 0, 0, 1, 2, 0, 0),
}
PLAIN = ("full", "wide")
KINDS = ("connect", "bind", "listen", "close", "time_wait", "fin_wait2", "finish", "unconnect", "again", "odd", "age")
SYSCTL = "net.ipv4."
DELAYS = ("1", "5", "25", "60000")


@dataclass
class Sock:
    """What the generator remembers of a socket."""

    number: int
    options: Options
    state: str = "fresh"
    """fresh, bound, listening, connected, gone (only its TIME_WAIT or FIN_WAIT2 is left)"""
    who: str = ""
    port: int = 0
    destination: int = -1


@dataclass
class Phase:
    mood: str
    low: int
    high: int
    destinations: tuple[int, ...]
    sources: tuple[str, ...]
    crowd: int
    left: int
    weights: list[float] = field(default_factory=list)


class Generator:
    """`next()` gives (op, socket, args); `heard(op, socket, args, outcome)` tells how it ended."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.count = 0
        self.socks: dict[int, Sock] = {}
        self.halves: list[Sock] = []
        self.queue: deque[tuple[str, int, Any]] = deque()
        self.tuples: dict[tuple[str, int, int], list[Sock]] = {}
        self.phase = self._new_phase()

    # -- phases

    def _new_phase(self) -> Phase:
        rng = self.rng
        mood = rng.choice(tuple(MOODS))
        full = mood == "full"
        low, high = rng.choice(WIDE if full else SMALL if rng.random() < 0.6 else RANGES)
        if mood == "wide":
            low, high = RANGES[-1]
        few = full or rng.random() < 0.5
        destinations = tuple(rng.sample(range(len(DESTINATIONS)), 1 if full else 2 if few else 4))
        phase = Phase(mood, low, high, destinations, ("first",) if few else ("first", "second"), 0, 0)
        phase.crowd = min(160, (high - low + 1) * (4 if few else 8) + 8)
        phase.left = rng.randrange(60, 300) + (high - low) * full
        phase.weights = list(MOODS[mood])
        self._sysctls(phase)
        return phase

    def _sysctls(self, phase: Phase) -> None:
        rng = self.rng
        self._set("ip_local_port_range", f"{phase.low} {phase.high}")
        self._set("ip_local_reserved_ports", world.NO_PORTS if phase.mood in PLAIN else rng.choice(RESERVED))
        self._set("tcp_tw_reuse", rng.choice("0111122"))
        self._set("tcp_tw_reuse_delay", rng.choice(DELAYS))
        if rng.random() < 0.3:
            self._set("ip_autobind_reuse", rng.choice("001"))
        if rng.random() < 0.4:
            self._set("tcp_timestamps", rng.choice("0011"))

    def _set(self, name: str, value: str) -> None:
        self.queue.append((world.SET, 0, (SYSCTL + name, value)))

    # -- the next call

    def next(self) -> tuple[str, int, Any]:
        while not self.queue:
            self.phase.left -= 1
            if self.phase.left < 0:
                self.phase = self._new_phase()
            else:
                self._plan(self.rng.choices(KINDS, self.phase.weights)[0])
        return self.queue.popleft()

    def _plan(self, kind: str) -> None:
        if kind in ("connect", "bind", "again") and len(self.socks) > self.phase.crowd:
            kind = "close"
        getattr(self, f"_plan_{kind}")()

    def _port(self) -> int:
        top = min(self.phase.high, self.phase.low + 30)
        return self.rng.randint(max(1, self.phase.low - 1), top + 1)

    def _destination(self) -> int:
        return self.rng.choice(self.phase.destinations)

    def _socket(self, options: Options) -> int:
        self.count += 1
        self.socks[self.count] = Sock(self.count, options)
        self.queue.append((world.SOCKET, self.count, options))
        return self.count

    def _options(self, reuse: float, no_port: float) -> Options:
        rng = self.rng
        if self.phase.mood in PLAIN:
            return Options(range=(self.phase.low, self.phase.high) if rng.random() < 0.1 else None)
        device = rng.choice(("v1", "v2", "v1")) if rng.random() < 0.2 else ""
        own = rng.choice(OWN_RANGES) if rng.random() < 0.12 else None
        return Options(rng.random() < reuse, rng.random() < reuse / 2, rng.random() < no_port, device, own)

    def _plan_connect(self) -> None:
        rng = self.rng
        how = rng.random() * (0.6 if self.phase.mood in PLAIN else 1)
        if how < 0.62:
            n = self._socket(self._options(0.1, 0.1))
        elif how < 0.82:
            n = self._socket(self._options(0.1, 1.0))
            self.queue.append((world.BIND, n, (rng.choice(self.phase.sources), 0)))
        else:
            n = self._socket(self._options(0.5, 0.0))
            port = 0 if how < 0.89 else self._port()
            self.queue.append((world.BIND, n, (rng.choice((*self.phase.sources, "any")), port)))
        self.queue.append((world.CONNECT, n, self._destination()))

    def _plan_bind(self) -> None:
        rng = self.rng
        n = self._socket(self._options(0.5, 0.1))
        port = 0 if rng.random() < 0.4 else self._port()
        self.queue.append((world.BIND, n, (rng.choice(("first", "second", "any")), port)))
        if rng.random() < 0.15:
            self.queue.append((world.LISTEN, n, None))

    def _plan_listen(self) -> None:
        n = self._pick("bound")
        if n is None or self.rng.random() < 0.3:
            n = self._socket(self._options(0.4, 0.0))
        self.queue.append((world.LISTEN, n, None))

    def _plan_close(self) -> None:
        if self.socks:
            self.queue.append((world.CLOSE, self._any(), None))

    def _plan_unconnect(self) -> None:
        n = self._pick("connected")
        if n is not None:
            self.queue.append((world.UNCONNECT, n, None))
            if self.rng.random() < 0.6:
                self.queue.append((world.CONNECT, n, self._destination()))

    def _plan_again(self) -> None:
        n = self._pick("fresh" if self.rng.random() < 0.6 else "bound")
        if n is not None:
            self.queue.append((world.CONNECT, n, self._destination()))

    def _plan_odd(self) -> None:
        """Calls that the state of the socket does not allow."""
        n = self._any() if self.socks else self._socket(Options())
        calls = [(world.BIND, n, ("first", self._port())), (world.LISTEN, n, None)]
        if self.socks[n].state != "listening":
            calls.append((world.CONNECT, n, self._destination()))
        self.queue.append(self.rng.choice(calls))

    def _plan_time_wait(self) -> None:
        sock = self._pick_alone()
        if sock is not None:
            self.queue.append((world.TIME_WAIT, sock.number, None))

    def _plan_fin_wait2(self) -> None:
        sock = self._pick_alone()
        if sock is not None:
            self.queue.append((world.FIN_WAIT2, sock.number, None))

    def _plan_finish(self) -> None:
        """Only where the peer's FIN cannot reach another socket."""
        alone = [half for half in self.halves if self.tuples[self._tuple(half)] == [half]]
        if alone:
            half = self.rng.choice(alone)
            self.halves.remove(half)
            self.queue.append((world.FINISH, half.number, None))

    def _plan_age(self) -> None:
        self.queue.append((world.AGE, 0, self.rng.choice((1, 2, 4))))

    # -- picking

    def _any(self) -> int:
        return self.rng.choice(list(self.socks))

    def _pick(self, state: str) -> int | None:
        found = [n for n, sock in self.socks.items() if sock.state == state]
        return self.rng.choice(found) if found else None

    def _pick_alone(self) -> Sock | None:
        """A connection to somebody who answers, whose packets no other socket or TIME_WAIT could get."""
        found = [s for s in self.socks.values() if s.state == "connected" and s.destination in ANSWERING]
        self.rng.shuffle(found)
        return next((s for s in found if len(self.tuples[self._tuple(s)]) == 1), None)

    # -- what came of it

    def _tuple(self, sock: Sock) -> tuple[str, int, int]:
        return "second" if sock.who == "second" else "first", sock.port, sock.destination

    def heard(self, op: str, n: int, args: Any, outcome: int) -> None:
        if op in (world.SET, world.AGE, world.SOCKET, world.FINISH):
            return
        sock = self.socks[n]
        if outcome >= 0:
            getattr(self, f"_heard_{op}")(sock, args, outcome)

    def _heard_bind(self, sock: Sock, args: Any, port: int) -> None:
        sock.who = args[0]
        sock.state = "bound"
        sock.port = port

    def _heard_listen(self, sock: Sock, args: Any, port: int) -> None:
        sock.state = "listening"

    def _heard_connect(self, sock: Sock, args: Any, port: int) -> None:
        if sock.state == "connected":
            return
        sock.state, sock.port, sock.destination = "connected", port, args
        same = self.tuples.setdefault(self._tuple(sock), [])
        # A TIME_WAIT that would have stood in the way was taken over.
        same[:] = [s for s in same if s.state != "gone" or s.options.device not in ("", sock.options.device)]
        same.append(sock)

    def _heard_unconnect(self, sock: Sock, args: Any, outcome: int) -> None:
        self._leave(sock)
        sock.state = "bound" if sock.who else "fresh"

    def _heard_close(self, sock: Sock, args: Any, outcome: int) -> None:
        self._leave(sock)
        del self.socks[sock.number]

    def _heard_time_wait(self, sock: Sock, args: Any, outcome: int) -> None:
        """Its tuple stays taken, as far as picking goes: whether it is reused is for the kernel to say."""
        del self.socks[sock.number]
        sock.state = "gone"

    def _heard_fin_wait2(self, sock: Sock, args: Any, outcome: int) -> None:
        del self.socks[sock.number]
        sock.state = "gone"
        self.halves.append(sock)

    def _leave(self, sock: Sock) -> None:
        if sock.state == "connected":
            self.tuples[self._tuple(sock)].remove(sock)
