"""Goes over a recorded history with our engine: could the engine have done what the kernel did, step by step?

A call that draws nothing has to end in the same errno or port.  A call that draws has to be able to:

- connect(): of the starts that are possible by now (hidden.py), those are kept from which the engine's own search ends
  as the kernel's did, and each is moved on by the engine's own eight advances.  None left: refuted.  Then the engine
  makes the call itself from one of them, and has to take that very port.
- bind(addr, 0), listen(): there has to be a draw with which the engine ends as the kernel did; with it it goes on.

`model` is what is believed of the hidden state; the true one asks the engine, wrong ones (models.py) must be refuted.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import Any

from tests.kernel.port_judge import world
from tests.kernel.port_judge.engine import Advances, Engine
from tests.kernel.port_judge.hidden import Hidden
from tests.kernel.port_judge.world import History, Line, Options

SHOWN = 25
Key = tuple[int, int, int]


class Refuted(AssertionError):
    """The engine cannot have done this."""


class Model:
    """How the hidden start of a search moves: as the engine moves it."""

    name = "the engine's own"

    def __init__(self) -> None:
        self._advances = Advances()

    def offset(self, start: int, step: int) -> int:
        """Offset of the first port looked at, of a start modulo the number of ports."""
        return start - (start & 1) if step == 2 else start

    def advances(self, distance: int, step: int) -> Sequence[int]:
        """By how much the start may have moved after a port was found at this distance."""
        return self._advances.of(distance, step)

    def after_failure(self, moved: int) -> int:
        """By how much it has moved after a search that found nothing, when the engine moved it by `moved`."""
        return moved

    def epoch(self, keyed_hash: int) -> int:
        """What the start has to be learned anew with."""
        return keyed_hash


class Judge:
    """One history, one engine; `run()` raises Refuted at the first line that cannot be.

    `searches` of connect() were judged; `telling` of them could have ended otherwise, by what was known before.
    """

    def __init__(self, history: History, model: Model | None = None) -> None:
        self.history = history
        self.model = model or Model()
        self.engine = Engine(history)
        self.hidden: dict[Key, Hidden] = {}
        self.hashes: dict[Key, int] = {}
        self.at = 0
        self.steps = 0
        self.searches = 0
        self.telling = 0

    def run(self, steps: int | None = None) -> int:
        """Judge so many steps (all); how many were judged."""
        for at, line in enumerate(self.history.lines):
            if steps is not None and self.steps >= steps:
                break
            self.at = at
            self.engine.at(line.begin_us)
            self._judge(line)
            self.steps += line.op != world.SOCKET
        return self.steps

    def _judge(self, line: Line) -> None:
        engine, op, n = self.engine, line.op, line.sock
        if op == world.CONNECT:
            self._connect(line)
        elif op == world.SOCKET:
            engine.socket(n, Options(*line.args))
        elif op == world.BIND and line.args[1] == 0 and not engine.options[n].no_port:
            self._draw(line, lambda: engine.bind(n, *line.args))
        elif op == world.LISTEN and engine.is_without_port(n):
            self._draw(line, lambda: engine.listen(n))
        elif op == world.BIND:
            self._same(line, engine.bind(n, *line.args))
        elif op == world.SET:
            self._same(line, engine.set(*line.args))
        elif op != world.AGE:
            self._same(line, getattr(engine, op)(n))

    # -- calls that draw nothing

    def _same(self, line: Line, outcome: int) -> None:
        if outcome != line.outcome:
            self._refuse(f"the kernel says {say(line.outcome)}, the engine {say(outcome)}")

    # -- bind(addr, 0) and listen()

    def _draw(self, line: Line, call: Any) -> None:
        """The engine must be able to draw what the kernel drew."""
        engine = self.engine
        notes, seen = engine.bucket_notes(), set()
        for _ in engine.draws_for(line.sock, line.outcome):
            outcome = call()
            if outcome == line.outcome:
                return
            seen.add(outcome)
            if outcome >= 0:
                engine.take_back(line.sock, notes)
        self._refuse(f"the kernel drew {say(line.outcome)}, the engine {', '.join(map(say, sorted(seen)))} only")

    # -- connect()

    def _connect(self, line: Line) -> None:
        engine, n = self.engine, line.sock
        if not engine.searches(n):
            self._same(line, engine.connect(n, line.args))
            return
        key = engine.key(n, line.args)
        port_offset, ports, step = engine.prepare(n, key)
        hidden = self._candidates(key, port_offset)
        hidden.widen(ports)
        ends = self._ends(hidden.residues(ports), step)
        kept = [(start, walked) for start, (port, walked) in ends.items() if port == line.outcome]
        if not kept:
            self._refuse_start(line, hidden, ends)
        self.searches += 1
        self.telling += len(kept) < len(ends)
        moved = self._commit(line, port_offset, hidden.one(ports, kept[0][0]) + hidden.modulus)
        if line.outcome < 0:
            hidden.keep(ports, [(start, (0,)) for start, _ in kept])
            hidden.move(self.model.after_failure(moved))
        else:
            hidden.keep(ports, [(start, tuple(self.model.advances(walked, step))) for start, walked in kept])

    def _candidates(self, key: Key, port_offset: int) -> Hidden:
        """What may be known of this destination's start; nothing when it was re-hashed since."""
        epoch = self.model.epoch(port_offset)
        if self.hashes.get(key) != epoch:
            self.hashes[key] = epoch
            self.hidden[key] = Hidden()
        return self.hidden[key]

    def _ends(self, starts: list[int], step: int) -> dict[int, tuple[int, int]]:
        """(port, distance) of the engine's search from each start; two of one parity share a search."""
        known: dict[int, tuple[int, int]] = {}
        ends = {}
        for start in starts:
            offset = self.model.offset(start, step)
            if offset not in known:
                known[offset] = self.engine.search(offset)
            ends[start] = known[offset]
        return ends

    def _commit(self, line: Line, port_offset: int, start: int) -> int:
        """Let the engine make the call from this start; by how much it moved it."""
        engine = self.engine
        engine.force_start(port_offset, start)
        before = engine.perturbed(port_offset)
        self._same(line, engine.connect(line.sock, line.args))
        return (engine.perturbed(port_offset) - before) & 0xFFFFFFFF

    # -- a refusal, with what led to it

    def _refuse_start(self, line: Line, hidden: Hidden, ends: dict[int, tuple[int, int]]) -> None:
        found = ", ".join(f"{start} -> {say(port)}" for start, (port, _) in list(ends.items())[:40])
        some = hidden.candidates()
        self._refuse(
            f"the kernel took {say(line.outcome)}; starts possible modulo {hidden.modulus}: {len(some)}: {some[:20]}\n"
            f"from them the engine's search ends so (start modulo the range -> port): {found}"
        )

    def _refuse(self, why: str) -> None:
        lines = self.history.lines
        begin = max(0, self.at - SHOWN)
        last = "\n".join(f"  {describe(line)}" for line in lines[begin : self.at + 1])
        raise Refuted(
            f"step {self.steps} of seed {self.history.seed}: {why}\nthe last lines, as the kernel ran them:\n{last}\n"
            f"again: python -m tests.kernel.port_judge --seed {self.history.seed} --steps {self.steps + 1}"
        )


def say(outcome: int) -> str:
    """An outcome in words."""
    return errno.errorcode.get(-outcome, str(outcome)) if outcome < 0 else str(outcome)


def describe(line: Line) -> str:
    """One line of a history."""
    args = line.args
    if line.op == world.SOCKET:
        options = Options(*args)
        args = {name: value for name, value in options._asdict().items() if value}
    elif line.op == world.CONNECT:
        args = world.DESTINATIONS[args]
    return f"{line.begin_us / 1e6:.6f} {line.op} #{line.sock} {'' if args is None else args} -> {say(line.outcome)}"
