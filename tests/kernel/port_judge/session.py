"""Records histories and judges them: what the tests do, and `python -m tests.kernel.port_judge`.

A history is recorded by a child process, in namespaces that end with it, under addresses drawn for it: the kernel's
hash does not know namespaces, so nobody else may connect between the same addresses at that time.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from functools import cache

from tests.kernel.netns import in_namespace
from tests.kernel.port_judge.judge import Judge, Model, Refuted
from tests.kernel.port_judge.recorder import record
from tests.kernel.port_judge.world import DIRECTED, History, from_json

STEPS_EACH = 5_000
STEPS = int(os.environ.get("FOURTUPLE_JUDGE_STEPS", "100000"))
# A refusal has to be found again in one of so many recordings of the same seed, see `doubts`.
RECORDINGS = 3
# Once that many were not, the next refusal counts at once: chance alone makes one in some hundred runs.
MOST_DROPPED = 2 + STEPS // 500_000
# A history that could not be recorded is tried so often; and so many may be used for each that is needed.
TRIES = 4
MOST_HISTORIES = 20

dropped: list[str] = []


def recorded(seed: int, steps: int = STEPS_EACH) -> History:
    """What the live kernel does in a new history of this seed; once more, a few times, where that could not be seen."""
    chance, reasons = random.SystemRandom(), []
    for _ in range(TRIES):
        net = f"10.{chance.randrange(16, 240)}.{chance.randrange(256)}"
        try:
            history = from_json(in_namespace(record, seed, net, steps))
        except ValueError:
            reasons.append("the recorder was killed, or hung")
        except (RuntimeError, OSError) as error:
            reasons.append(str(error).strip())
        else:
            if history.whole or (seed != DIRECTED and history.steps() > 0):
                return history
            reasons.append(f"step {history.steps()} fell on a border of time, where its outcome is left to chance")
    raise RuntimeError(f"seed {seed} could not be recorded in {TRIES} tries:\n" + "\n".join(reasons))


def histories(first_seed: int, steps: int) -> Iterator[History]:
    """Histories of consecutive seeds, until they have so many steps together; some end early, see recorder.py."""
    most = MOST_HISTORIES * (steps // STEPS_EACH + 1)
    for seed in range(first_seed, first_seed + most):
        if steps <= 0:
            return
        history = recorded(seed, min(steps, STEPS_EACH))
        steps -= history.steps()
        yield history
    if steps > 0:
        raise RuntimeError(f"{most} histories, and {steps} steps are missing: the machine is too busy to see the order")


@cache
def some_histories() -> list[History]:
    """The first few, kept for the tests that judge them with faults."""
    return list(histories(1, 3 * STEPS_EACH))


@cache
def sound_histories() -> list[History]:
    """Those of them that the engine finds possible: one may be refused by chance, see `doubts`."""
    return [history for history in some_histories() if not verdict(history)]


@cache
def directed_history() -> tuple[History, str]:
    """The one of episodes.py, and why the engine cannot have done it; waits up to 10 s for a re-hash.

    Refused once, and possible when the kernel runs it again, it is the second.
    """
    history = recorded(DIRECTED)
    why = verdict(history)
    if why:
        again = recorded(DIRECTED)
        if not verdict(again):
            dropped.append(why)
            return again, ""
    return history, why


def verdict(history: History, model: Model | None = None, steps: int | None = None) -> str:
    """Empty when the engine can have done what the kernel did, else why not."""
    try:
        Judge(history, model).run(steps)
    except Refuted as refuted:
        return str(refuted)
    return ""


def doubts(history: History) -> str:
    """A refusal that comes back when the kernel runs the same seed again; `dropped` keeps those that do not.

    One destination in 65,536 shares its entry of table_perturb with another: then a start moves that nobody has moved.
    """
    why = verdict(history)
    if not why:
        return ""
    if len(dropped) >= MOST_DROPPED or any(verdict(recorded(history.seed)) for _ in range(RECORDINGS)):
        return why
    dropped.append(why)
    return ""
