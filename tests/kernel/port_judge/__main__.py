"""python -m tests.kernel.port_judge [--seed N] [--steps N] [--save DIR]: judge the engine by the live kernel (root)."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from tests.kernel.port_judge.session import histories, verdict


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.kernel.port_judge", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="of the first history (default 1; 0: the directed one)")
    parser.add_argument("--steps", type=int, default=100_000, help="over all histories (default 100,000)")
    parser.add_argument("--save", type=Path, metavar="DIR", help="keep each history as DIR/SEED.json")
    args = parser.parse_args()
    began, judged = time.monotonic(), 0
    for history in histories(args.seed, args.steps):
        if args.save:
            history.save(args.save / f"{history.seed}.json")
        why = verdict(history)
        judged += history.steps()
        print(f"seed {history.seed}: {history.steps()} steps: {why or 'possible'}")  # noqa: T201  a command
        if why:
            return 1
    print(f"{judged} steps in {time.monotonic() - began:.1f} s: the engine could have done all of it")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
