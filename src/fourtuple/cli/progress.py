"""One line on stderr that says what is going on, for a terminal only, and leaves no trace."""

from __future__ import annotations

from fourtuple.cli.terminal import Terminal


class Progress:
    """say() replaces the line; clear() takes it away, before anything else is printed."""

    def __init__(self, err: Terminal) -> None:
        self._err = err
        self._shown = False

    def say(self, text: str) -> None:
        """Show this now."""
        if self._err.is_tty:
            self._err.stream.write("\r\x1b[K" + self._err.paint(self._err.glyphs(text)[: self._err.width - 1], "dim"))
            self._err.stream.flush()
            self._shown = True

    def clear(self) -> None:
        """Take it away."""
        if self._shown:
            self._err.stream.write("\r\x1b[K")
            self._err.stream.flush()
            self._shown = False
