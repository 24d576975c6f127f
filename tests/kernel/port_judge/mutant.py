"""python -m tests.kernel.port_judge.mutant COPY HISTORY...: judge with the package that is in COPY.

Prints the first line of a refusal, or of the exception that the changed engine ran into; nothing when all is possible.
"""

from __future__ import annotations

import sys
from pathlib import Path

import fourtuple
from tests.kernel.port_judge.judge import Judge, Refuted
from tests.kernel.port_judge.world import load


def main() -> None:
    copy, *histories = sys.argv[1:]
    assert Path(fourtuple.__file__).parent == Path(copy), fourtuple.__file__
    for name in histories:
        judge = Judge(load(Path(name)))
        try:
            judge.run()
        except Refuted as refuted:
            print(f"{Path(name).stem}: {str(refuted).splitlines()[0]}")  # noqa: T201  the answer
            return
        except Exception as error:
            print(f"{Path(name).stem}: step {judge.steps}: {error!r}")  # noqa: T201
            return


if __name__ == "__main__":
    main()
