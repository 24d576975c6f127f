"""CannotRead: the one exception of everything that reads the live kernel."""

from __future__ import annotations

import os


class CannotRead(OSError):
    """Something of the live machine could not be read: the errno, and one line that says what, why and what to do.

    `what` is the thing, as in the line; `advice` may be "".
    """

    def __init__(self, code: int, what: str, advice: str = "", reason: str = "") -> None:
        super().__init__(code, f"{what}: {reason or os.strerror(code)}" + (f" ({advice})" if advice else ""))
        self.what = what
        self.advice = advice

    def __str__(self) -> str:
        return str(self.strerror)
