"""What `fourtuple` runs first: Ctrl-C while the rest is being imported ends it quietly, as it does later on.

Rule: nothing is imported here that takes time to import.
"""

from __future__ import annotations

import os
import signal

from fourtuple.cli.exits import INTERRUPTED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import NoReturn


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    """Nothing has been begun, so nothing has to be put in order."""
    os._exit(INTERRUPTED)


def main() -> int:
    """Import the command line and run it; returns the exit code."""
    try:
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored, as by nohup
            signal.signal(signal.SIGINT, _leave)
        from fourtuple.cli.main import main as run

        if signal.getsignal(signal.SIGINT) is _leave:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        return run()
    except KeyboardInterrupt:  # in the lines of this function
        return INTERRUPTED
