"""What `fourtuple` runs first: Ctrl-C while the rest is being imported ends it quietly, as it does later on.

Rule: nothing is imported here that takes time to import.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys

from fourtuple.cli.exits import INTERRUPTED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import NoReturn


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    """Nothing has been begun, so nothing has to be put in order."""
    os._exit(INTERRUPTED)


def _end(code: int) -> int:
    """Leave now: taking apart what was imported takes Python 10 ms, of which nobody has anything."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):
        return code  # Python itself deals with streams that are closed or full
    atexit._run_exitfuncs()
    os._exit(code)


def main() -> int:
    """Import the command line and run it; returns the exit code."""
    try:
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored, as by nohup
            signal.signal(signal.SIGINT, _leave)
        from fourtuple.cli.main import main as run

        if signal.getsignal(signal.SIGINT) is _leave:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        return _end(run())
    except KeyboardInterrupt:  # in the lines of this function
        return INTERRUPTED
