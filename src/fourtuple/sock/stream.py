"""Sending and receiving on a stream socket: what a blocking send() or recv() adds to TCP (net/core/stream.c, tcp.c).

Lives here: how long a call waits, and what it returns when the wait ends early.  Does not live here: the data
(tcp/tcp.py moves it without waiting).

Rules
1. A blocking send() returns when all is queued, a blocking recv() when the low-water mark (MSG_WAITALL: all) is there.
2. An error, a timeout or a signal after some bytes returns the count; the error stays for the next call.
3. A send() that sleeps in SYN_SENT holds back the handshake's ACK: its data will carry it (ST-31).
"""

from __future__ import annotations

import errno

from fourtuple.sock.file import Socket
from fourtuple.sock.wait import SIGNAL, Outcome, Wait, sock_intr_errno
from fourtuple.tcp.sendmsg import net_pending_write
from fourtuple.tcp.states import TCPF_SYN_RECV, TCPF_SYN_SENT

# include/linux/socket.h
MSG_OOB = 0x1
MSG_PEEK = 0x2
MSG_DONTWAIT = 0x40
MSG_WAITALL = 0x100
MSG_ERRQUEUE = 0x2000
MSG_FASTOPEN = 0x20000000

Buffer = bytes | bytearray | memoryview


class _Send:
    """One send(): how much is queued, how it failed."""

    __slots__ = ("data", "error", "sent", "sock", "waits_for_handshake")

    def __init__(self, sock: Socket, data: Buffer) -> None:
        self.sock = sock
        self.data = memoryview(data).cast("B")
        self.sent = 0
        self.error = 0
        self.waits_for_handshake = False

    def attempt(self) -> bool:
        """Queue what fits; is the call over?"""
        sock = self.sock
        if self.waits_for_handshake and _in_handshake(sock):
            return False
        while True:
            n = sock.ops.prot.sendmsg(sock.net, sock.sk, self.data[self.sent :])
            if n < 0:
                self.error = n
                return n != -errno.EAGAIN
            self.sent += n
            if self.sent == len(self.data):
                return True

    def result(self) -> int:
        return self.sent or self.error


class _Receive:
    """One recv(): what has come, how it failed."""

    __slots__ = ("chunks", "error", "flags", "got", "size", "sock", "target")

    def __init__(self, sock: Socket, size: int, flags: int) -> None:
        lowat = sock.net.sks.option_sets[sock.net.sks.opts[sock.sk]].rcvlowat
        self.sock = sock
        self.size = size
        self.flags = flags & MSG_PEEK
        self.target = size if flags & MSG_WAITALL else min(lowat, size)
        self.chunks: list[bytes] = []
        self.got = 0
        self.error = 0

    def attempt(self) -> bool:
        """Take what is there; is the call over?"""
        sock = self.sock
        while True:
            answer = sock.ops.prot.recvmsg(sock.net, sock.sk, self.size - self.got, self.flags)
            if isinstance(answer, int):
                self.error = answer
                return answer != -errno.EAGAIN
            self.error = 0  # EAGAIN of an earlier try: the end of the stream is no error
            self.chunks.append(answer)
            self.got += len(answer)
            if not answer or self.got >= self.target or self.flags & MSG_PEEK:
                return True

    def result(self) -> bytes | int:
        return b"".join(self.chunks) if self.got or not self.error else self.error


def _in_handshake(sock: Socket) -> bool:
    return bool(1 << sock.net.sks.sk_state[sock.sk] & (TCPF_SYN_SENT | TCPF_SYN_RECV))


def inet_sendmsg(sock: Socket, data: Buffer, timeo: int) -> Outcome:
    """send(2): bytes queued, -errno, or a Wait of at most `timeo` us (-1: no end, 0: never)."""
    send = _Send(sock, data)
    if send.attempt() or timeo == 0:
        return send.result()
    send.waits_for_handshake = _in_handshake(sock)
    if send.waits_for_handshake:
        net_pending_write(sock.net, sock.sk, 1)
    return _sleep(sock, send, timeo)


def inet_recvmsg(sock: Socket, size: int, flags: int, timeo: int) -> Outcome:
    """recv(2): the bytes (b'' at the end), -errno, or a Wait of at most `timeo` us."""
    receive = _Receive(sock, size, flags)
    if receive.attempt() or timeo == 0:
        return receive.result()
    return _sleep(sock, receive, timeo)


def _sleep(sock: Socket, call: _Send | _Receive, timeo: int) -> Wait:
    """Try again whenever something may have changed."""
    deadline = None if timeo < 0 else sock.net.now_us + timeo

    def finish(why: str) -> Outcome:
        _awake(sock, call)
        result = call.result()
        if why == SIGNAL and result == -errno.EAGAIN:
            return sock_intr_errno(deadline)
        return result

    return Wait(call.attempt, finish, deadline)


def _awake(sock: Socket, call: _Send | _Receive) -> None:
    if isinstance(call, _Send) and call.waits_for_handshake:
        call.waits_for_handshake = False
        net_pending_write(sock.net, sock.sk, -1)
