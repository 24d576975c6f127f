"""What connections say while they are held: a script of sends and expects, each connection every n seconds.

Rules
1. Every open connection has its turn once in `every_s`, in the order of rows: turns are spread evenly over the time.
2. A connection that has not finished its script when its turn comes again is left to finish: a slow server is not
   asked more often than it answers.
3. An answer is over when the text expected has come; what comes after it belongs to it.  One that has come without
   that text, and has not grown from one turn to the next, is `unexpected`, and the script begins anew.
4. What comes before the script waits for it if it begins with `expect`; else it is `unexpected`.
"""

from __future__ import annotations

import errno
from typing import NamedTuple

from fourtuple.dial.dialer import OPEN, PHASE, dial_lose, dial_next_open
from fourtuple.dial.histogram import Histogram, hist_record
from fourtuple.dial.plan import Talk
from fourtuple.dial.report import TalkCount
from fourtuple.dial.stack import Stack
from fourtuple.inet.sock_table import sk_handle, sk_resolve
from fourtuple.tcp.recvmsg import tcp_recvmsg
from fourtuple.tcp.sendmsg import tcp_sendmsg

_MOST_AT_ONCE = 256
_READ = 65536
_LONGEST_ANSWER = 1 << 20
_TRY_AGAIN_US = 5_000  # to send what found no room


class _Turn(NamedTuple):
    """Where a connection is in its script."""

    step: int
    asked_us: int
    heard: bytes = b""
    unsent: bytes = b""
    seen: int = 0
    """How much of the answer had come when it was its turn before."""


class Talker:
    """Has the connections of a Stack talk; `count` and `response_ns` say what came of it."""

    def __init__(self, stack: Stack, talk: Talk) -> None:
        self.stack = stack
        self.every_us = int(talk.every_s * 1e6)
        self.script = [(step, text.encode()) for step, text in talk.script]
        self.count = TalkCount()
        self.response_ns = Histogram()
        self._turns: dict[int, _Turn] = {}
        self._blocked: list[int] = []
        self._asked = bytearray(stack.host.net.sks.max_sockets + 1)  # 1: this row has sent something
        self._cursor = 0
        self._last_us = 0
        self._due = 0.0

    def start(self) -> None:
        """From now on connections have turns."""
        self._last_us = self.stack.runner.now_us()
        self.stack.dialer.is_reading = True
        self.stack.on_readable = self._readable

    def stop(self) -> None:
        """No more turns; answers under way are waited for no longer."""
        self.count.unexpected += sum(turn.heard != b"" for turn in self._turns.values())
        self.stack.dialer.is_reading = False
        self.stack.on_readable = None
        self._turns.clear()
        self._blocked.clear()

    def round(self, now: int) -> bool:
        """Give their turns to the connections whose time has come; whether there were any."""
        is_open = self.stack.dialer.open
        self._due = min(self._due + is_open * (now - self._last_us) / self.every_us, float(is_open))
        self._last_us = now
        n = min(int(self._due), _MOST_AT_ONCE)
        self._due -= n
        if n == 0 and not self._blocked:
            return False
        self.stack.host.enter(now)
        try:
            self._send_blocked()
            for _ in range(n):
                self._next_turn(now)
        finally:
            self.stack.host.leave()
        return n > 0

    def next_us(self, now: int) -> int:
        """When round() has something to do again."""
        is_open = self.stack.dialer.open
        turn = now + self.every_us if not is_open else now + int((1.0 - self._due) * self.every_us / is_open) + 1
        return min(turn, now + _TRY_AGAIN_US) if self._blocked else max(turn, now + 1)

    def forget(self, sk: int) -> None:
        """This connection has ended."""
        self._asked[sk] = 0
        if self._turns:
            self._turns.pop(self._key(sk), None)

    def _next_turn(self, now: int) -> None:
        sk = dial_next_open(self.stack.dialer, self._cursor)
        if sk == 0:
            sk = dial_next_open(self.stack.dialer, 0)
        self._cursor = sk
        if sk == 0:
            return
        key = self._key(sk)
        turn = self._turns.get(key)
        if turn is None:
            self._go_on(sk, _Turn(0, now))
            if self._waits_for_us:
                self._read(sk)
        elif turn.heard and len(turn.heard) == turn.seen:
            self.count.unexpected += 1
            self._go_on(sk, _Turn(0, now))
        else:
            self._turns[key] = turn._replace(seen=len(turn.heard))

    @property
    def _waits_for_us(self) -> bool:
        """Whether what comes is left unread until it is expected."""
        return bool(self.script) and self.script[0][0] == "expect"

    def _key(self, sk: int) -> int:
        return int(sk_handle(self.stack.host.net.sks, sk))

    def _go_on(self, sk: int, turn: _Turn) -> None:
        """Take steps until something is waited for."""
        key = self._key(sk)
        while turn.step < len(self.script):
            kind, text = self.script[turn.step]
            if kind == "send":
                self.count.requests += 1
                self._asked[sk] = 1
                turn = _Turn(turn.step + 1, self.stack.runner.now_us(), b"", self._send(sk, text))
                if turn.unsent:
                    self._blocked.append(key)
                    self._turns[key] = turn
                    return
            elif text in turn.heard:
                self._answered(turn.asked_us)
                turn = _Turn(turn.step + 1, turn.asked_us)
            else:
                self._turns[key] = turn
                return
        self._turns.pop(key, None)

    def _send(self, sk: int, text: bytes) -> bytes:
        """What found no room; nothing after an error, which is an event of its own."""
        sent = tcp_sendmsg(self.stack.host.net, sk, text)
        if sent < 0:
            return text if sent == -errno.EAGAIN else b""
        self.count.bytes_sent += sent
        return text[sent:]

    def _send_blocked(self) -> None:
        """The rest of long texts."""
        blocked, self._blocked = self._blocked, []
        for key in blocked:
            turn = self._turns.get(key)
            sk = sk_resolve(self.stack.host.net.sks, key)
            if turn is None or sk == 0 or self.stack.dialer.phase[sk] & PHASE != OPEN:
                continue
            turn = turn._replace(unsent=self._send(sk, turn.unsent))
            self._turns[key] = turn
            if turn.unsent:
                self._blocked.append(key)
            else:
                self._go_on(sk, turn)

    def _answered(self, asked_us: int) -> None:
        self.count.responses += 1
        hist_record(self.response_ns, max(self.stack.runner.now_us() - asked_us, 0) * 1000)

    def _readable(self, sk: int) -> None:
        """Data on a connection of ours, perhaps with the end of the stream."""
        if self._waits_for_us and self._key(sk) not in self._turns:
            return
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
                dial_lose(self.stack.dialer, sk)  # the end of the stream
                return
            self._hear(sk, data)

    def _hear(self, sk: int, data: bytes) -> None:
        self.count.bytes_received += len(data)
        turn = self._turns.get(self._key(sk))
        if turn is None:
            self.count.unexpected += not self._asked[sk]
            return
        turn = turn._replace(heard=(turn.heard + data)[-_LONGEST_ANSWER:])
        if turn.unsent:
            self._turns[self._key(sk)] = turn
        else:
            self._go_on(sk, turn)
