"""Runs a history on the live kernel and writes down what it does, so that judges can go over it as often as they like.

Two things depend on the moment: the re-hash of all destinations every 10 s, and when a TIME_WAIT may be reused.  Where
a connect() would fall on the border of either, it waits; where it fell on it nonetheless, as something else had the
CPU, the history ends.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import Any

from tests.kernel.port_judge import world
from tests.kernel.port_judge.episodes import EPISODES, Player
from tests.kernel.port_judge.generator import Generator
from tests.kernel.port_judge.jiffies import BORDER_US, epoch_border_us, to_border_us
from tests.kernel.port_judge.kernel import Kernel
from tests.kernel.port_judge.world import DIRECTED, PERIOD_US, History, Line

# TIME_WAITs last 60 s: a history is over before the first of them ends.
LONGEST_US = 45_000_000
# A directed history begins that long before a re-hash, or after it.
LEFT_S = 0.6
# A recorder that hangs is ended by the kernel.
MOST_S = 90


class Unclear(Exception):
    """A connect() fell on a border of time."""


def _now() -> int:
    return time.monotonic_ns() // 1000


class Recorder:
    """One history in the making: `random()` or `directed()` is the whole of it."""

    def __init__(self, seed: int, net: str) -> None:
        self.history = History(seed, net, epoch_border_us())
        self.kernel = Kernel(self.history)
        self.begin_us = _now()
        self.tw_reuse, self.delay_ms = 2, 1000
        self.keys: dict[int, tuple[str, int]] = {}
        self.who: dict[int, str] = {}
        self.old: dict[tuple[str, int], list[tuple[int, int]]] = {}

    def random(self, steps: int) -> None:
        """What the generator says, until there are so many steps."""
        generator, counted = Generator(self.history.seed), 0
        while counted < steps and _now() - self.begin_us < LONGEST_US:
            op, n, args = generator.next()
            outcome = self.step(op, n, args)
            generator.heard(op, n, args, outcome)
            counted += op != world.SOCKET

    def directed(self) -> None:
        """Every episode once, the last of them over a re-hash, the others not."""
        if self._until_rehash_s() < LEFT_S:
            time.sleep(self._until_rehash_s())
        player = Player(self.step)
        for episode in EPISODES:
            player.play(episode)

    def step(self, op: str, n: int, args: Any) -> int:
        """Make one call and write it down; its outcome."""
        if op == world.CONNECT:
            self.keys[n] = key = self.who.get(n, "first"), args
            self._wait_for_time_waits(key)
            while self._wait_for_epoch():
                self._wait_for_time_waits(key)
        begin = _now()
        outcome = self._call(op, n, args)
        end = _now()
        if op == world.CONNECT:
            self._check_borders(key, begin, self.kernel.returned_us)
        self._remember(op, n, args, outcome, begin, end)
        self.history.lines.append(Line(op, n, args, outcome, begin, end))
        return outcome

    def _call(self, op: str, n: int, args: Any) -> int:
        kernel = self.kernel
        if op == world.AGE:
            time.sleep(args / 1000 if args is not None else self._until_rehash_s())
            return 0
        if op in (world.BIND, world.SET):
            return kernel.bind(n, *args) if op == world.BIND else kernel.set(*args)
        if op in (world.SOCKET, world.CONNECT):
            return kernel.socket(n, args) if op == world.SOCKET else kernel.connect(n, args)
        return getattr(kernel, op)(n)

    def _remember(self, op: str, n: int, args: Any, outcome: int, begin: int, end: int) -> None:
        if op == world.SET and args[0] == "net.ipv4.tcp_tw_reuse":
            self.tw_reuse = int(args[1])
        elif op == world.SET and args[0] == "net.ipv4.tcp_tw_reuse_delay":
            self.delay_ms = int(args[1])
        elif op == world.BIND and outcome >= 0:
            self.who[n] = "second" if args[0] == "second" else "first"
        elif op in (world.TIME_WAIT, world.FIN_WAIT2, world.FINISH):  # a FIN without timestamp leaves FIN_WAIT2's age
            self.old.setdefault(self.keys[n], []).append((begin, end))

    # -- borders

    def _until_rehash_s(self) -> float:
        ahead = (self.history.epoch_us - _now()) % PERIOD_US
        return (ahead + BORDER_US + 1000) / 1e6

    def _wait_for_epoch(self) -> bool:
        """Did it have to wait?"""
        left = to_border_us(self.history.epoch_us, _now())
        if not -BORDER_US < left < BORDER_US:
            return False
        time.sleep((left + BORDER_US + 1000) / 1e6)
        return True

    def _unclear(self, born: tuple[int, int], begin: int, end: int) -> bool:
        """May this TIME_WAIT have been too young at one end of the call, and old enough at the other?"""
        oldest = end // 1000 - born[0] // 1000
        youngest = begin // 1000 - born[1] // 1000
        return youngest <= self.delay_ms < oldest

    def _wait_for_time_waits(self, key: tuple[str, int]) -> None:
        if self.tw_reuse != 1:
            return
        now = _now()
        while any(self._unclear(born, now, now + 1000) for born in self.old.get(key, ())):
            time.sleep(0.0003)
            now = _now()

    def _check_borders(self, key: tuple[str, int], begin: int, end: int) -> None:
        if self.tw_reuse == 1 and any(self._unclear(born, begin, end) for born in self.old.get(key, ())):
            raise Unclear
        before, after = (to_border_us(self.history.epoch_us, at) for at in (begin, end))
        if min(abs(before), abs(after)) < BORDER_US or before > 0 > after > -PERIOD_US // 4:
            raise Unclear


def _keep_the_cpu() -> None:
    """On one CPU packets stay in order: each has a backlog of its own.  Ahead of other work there, where allowed."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, -20)


def record(seed: int, net: str, steps: int) -> list[Any]:
    """A history as plain lists; to be called in a process of its own, whose namespaces end with it."""
    signal.alarm(MOST_S)
    _keep_the_cpu()
    recorder = Recorder(seed, net)
    try:
        if seed == DIRECTED:
            recorder.directed()
        else:
            recorder.random(steps)
    except Unclear:
        recorder.history.whole = False
    return recorder.history.to_json()
