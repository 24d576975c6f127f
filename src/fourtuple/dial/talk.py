"""What connections say while they are held: a script of sends and expects, each connection every n seconds.

Rules
1. Every open connection has its turn once in `every_s`, in the order of rows: turns are spread evenly over the time.
2. A connection that has not finished its script when its turn comes again is left to finish: a slow server is not
   asked more often than it answers.
3. An answer is over when the text expected has come; what comes without being expected is read and counted.
"""

from __future__ import annotations

from typing import NamedTuple

from fourtuple.dial.dialer import dial_lose, dial_next_open
from fourtuple.dial.histogram import Histogram, hist_record
from fourtuple.dial.plan import Talk
from fourtuple.dial.report import TalkCount
from fourtuple.dial.stack import Stack
from fourtuple.inet.sock_table import sk_handle
from fourtuple.tcp.recvmsg import tcp_recvmsg
from fourtuple.tcp.sendmsg import tcp_sendmsg

_MOST_AT_ONCE = 256
_READ = 65536
_LONGEST_ANSWER = 1 << 20


class _Turn(NamedTuple):
    """Where a connection is in its script."""

    step: int
    asked_us: int
    heard: bytes


class Talker:
    """Has the connections of a Stack talk; `count` and `response_ns` say what came of it."""

    def __init__(self, stack: Stack, talk: Talk) -> None:
        self.stack = stack
        self.every_us = int(talk.every_s * 1e6)
        self.script = [(step, text.encode()) for step, text in talk.script]
        self.count = TalkCount()
        self.response_ns = Histogram()
        self._turns: dict[int, _Turn] = {}
        self._cursor = 0
        self._last_us = 0
        self._due = 0.0

    def start(self) -> None:
        """From now on connections have turns."""
        self._last_us = self.stack.runner.now_us()
        self.stack.dialer.is_talking = True
        self.stack.on_readable = self._readable

    def stop(self) -> None:
        """No more turns; answers under way are waited for no longer."""
        self.stack.dialer.is_talking = False
        self.stack.on_readable = None
        self._turns.clear()

    def round(self, now: int) -> bool:
        """Give their turns to the connections whose time has come; whether there were any."""
        is_open = self.stack.dialer.open
        if not is_open:
            return False
        self._due = min(self._due + is_open * (now - self._last_us) / self.every_us, float(is_open))
        self._last_us = now
        n = min(int(self._due), _MOST_AT_ONCE)
        self._due -= n
        if n == 0:
            return False
        self.stack.host.enter(now)
        try:
            for _ in range(n):
                self._next_turn(now)
        finally:
            self.stack.host.leave()
        return True

    def _next_turn(self, now: int) -> None:
        sk = dial_next_open(self.stack.dialer, self._cursor)
        if sk == 0:
            sk = dial_next_open(self.stack.dialer, 0)
        self._cursor = sk
        if sk and self._key(sk) not in self._turns:
            self._go_on(sk, _Turn(0, now, b""))

    def _key(self, sk: int) -> int:
        return int(sk_handle(self.stack.host.net.sks, sk))

    def _go_on(self, sk: int, turn: _Turn) -> None:
        """Take steps until something is waited for."""
        step, asked_us, heard = turn
        while step < len(self.script):
            kind, text = self.script[step]
            if kind == "send":
                sent = tcp_sendmsg(self.stack.host.net, sk, text)
                self.count.requests += 1
                self.count.bytes_sent += max(sent, 0)
                asked_us, heard = self.stack.runner.now_us(), b""
            elif text in heard:
                self._answered(asked_us)
                heard = b""
            else:
                self._turns[self._key(sk)] = _Turn(step, asked_us, heard)
                return
            step += 1
        self._turns.pop(self._key(sk), None)

    def _answered(self, asked_us: int) -> None:
        self.count.responses += 1
        hist_record(self.response_ns, max(self.stack.runner.now_us() - asked_us, 0) * 1000)

    def _readable(self, sk: int) -> None:
        """Data, an error or the end of the stream on a connection of ours."""
        self.stack.host.enter(self.stack.runner.now_us())
        try:
            self._read(sk)
        finally:
            self.stack.host.leave()

    def _read(self, sk: int) -> None:
        while True:
            data = tcp_recvmsg(self.stack.host.net, sk, _READ, 0)
            if isinstance(data, int):
                return  # nothing more; an error is an event of its own
            if not data:
                self._turns.pop(self._key(sk), None)
                dial_lose(self.stack.dialer, sk)  # the end of the stream
                return
            self._hear(sk, data)

    def _hear(self, sk: int, data: bytes) -> None:
        self.count.bytes_received += len(data)
        turn = self._turns.get(self._key(sk))
        if turn is None:
            self.count.unexpected += 1
        else:
            self._go_on(sk, turn._replace(heard=(turn.heard + data)[-_LONGEST_ANSWER:]))
