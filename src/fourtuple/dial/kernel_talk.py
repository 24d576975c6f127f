"""What kernel sockets say while they are held: the rules of talk.py, with send() and recv().

Rule: sockets are watched for edges, so whatever can be read is read at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from fourtuple.dial.histogram import Histogram, hist_record
from fourtuple.dial.kernel_socket import Connection
from fourtuple.dial.plan import Talk
from fourtuple.dial.report import TalkCount

_MOST_AT_ONCE = 256
_READ = 65536
_LONGEST_ANSWER = 1 << 20
_S = 1_000_000_000


class _Turn(NamedTuple):
    """Where a connection is in its script."""

    step: int
    asked_ns: int
    heard: bytes


class KernelTalker:
    """Has connections talk; `count` and `response_ns` say what came of it."""

    def __init__(self, talk: Talk, clock: Callable[[], int]) -> None:
        self._every_ns = int(talk.every_s * _S)
        self._script = [(step, text.encode()) for step, text in talk.script]
        self._clock = clock
        self.count = TalkCount()
        self.response_ns = Histogram()
        self._turns: dict[Connection, _Turn] = {}
        self._order: list[Connection] = []
        self._last_ns = clock()
        self._due = 0.0

    def round(self, now: int, is_open: int, connections: Iterable[Connection]) -> None:
        """Give their turns to those whose time has come: turns are spread evenly over every_s."""
        self._due = min(self._due + is_open * (now - self._last_ns) / self._every_ns, float(is_open))
        self._last_ns = now
        n = min(int(self._due), _MOST_AT_ONCE)
        self._due -= n
        for _ in range(n):
            if not self._order:
                self._order = [each for each in connections if each.is_open][::-1]
            self._next_turn(self._order.pop(), now)

    def patience_ns(self, is_open: int) -> int:
        """Until the next turn."""
        return max(1_000_000, int((1.0 - self._due) * self._every_ns / is_open)) if is_open else self._every_ns

    def _next_turn(self, connection: Connection, now: int) -> None:
        if connection.sock is not None and connection not in self._turns:
            self._go_on(connection, _Turn(0, now, b""))

    def _go_on(self, connection: Connection, turn: _Turn) -> None:
        """Take steps until something is waited for."""
        step, asked_ns, heard = turn
        while step < len(self._script):
            kind, text = self._script[step]
            if kind == "send":
                self._send(connection, text)
                asked_ns, heard = self._clock(), b""
            elif text in heard:
                self.count.responses += 1
                hist_record(self.response_ns, self._clock() - asked_ns)
                heard = b""
            else:
                self._turns[connection] = _Turn(step, asked_ns, heard)
                return
            step += 1
        self._turns.pop(connection, None)

    def _send(self, connection: Connection, text: bytes) -> None:
        self.count.requests += 1
        try:
            assert connection.sock is not None
            self.count.bytes_sent += connection.sock.send(text)
        except OSError:
            pass  # the buffer is full, or the connection has ended, which is an event of its own

    def readable(self, connection: Connection) -> int | None:
        """Read what is there: None while the connection stands, else the errno of its end, 0 for a FIN."""
        assert connection.sock is not None
        while True:
            try:
                data = connection.sock.recv(_READ)
            except BlockingIOError:
                return None
            except OSError as error:
                return error.errno or 0
            if not data:
                return 0
            self._hear(connection, data)

    def _hear(self, connection: Connection, data: bytes) -> None:
        self.count.bytes_received += len(data)
        turn = self._turns.get(connection)
        if turn is None:
            self.count.unexpected += 1
        else:
            self._go_on(connection, turn._replace(heard=(turn.heard + data)[-_LONGEST_ANSWER:]))

    def forget(self, connection: Connection) -> None:
        """It has ended."""
        self._turns.pop(connection, None)
