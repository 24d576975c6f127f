"""The live kernel as one side of the comparison: each call of a history, made on real sockets, and its outcome.

Every method returns 0, a port, or -errno.  A port is what getsockname() says after a call that may have chosen one.
"""

from __future__ import annotations

import errno
import select
import socket
import struct
import time

from tests.kernel.port_judge import links
from tests.kernel.port_judge.world import ANSWERING, DESTINATIONS, DEVICES, History, Options

IP_BIND_ADDRESS_NO_PORT, IP_LOCAL_PORT_RANGE = 24, 51
LINGER_RST = struct.pack("ii", 1, 0)
AF_UNSPEC_ADDRESS = struct.pack("=H14x", 0)
NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST = 4, 20, 1
TCP_FIN_WAIT2, TCP_TIME_WAIT = 5, 6
# Waits end as soon as what they wait for is there; this only bounds them.  A lost SYN is sent again after 1, 3, 7 s.
PATIENCE_S = 10.0
_libc_connect = links.LIBC.connect

Tuple = tuple[int, str, int, str]


def _diag_request(ours: tuple[str, int], theirs: tuple[str, int], ifindex: int) -> bytes:
    """Ask sock_diag for one socket, or TIME_WAIT, by its 4-tuple (linux/inet_diag.h: inet_diag_req_v2)."""
    ends = struct.pack("!HH", ours[1], theirs[1])
    addresses = b"".join(socket.inet_aton(host).ljust(16, b"\0") for host in (ours[0], theirs[0]))
    body = struct.pack("=BBBBI", socket.AF_INET, socket.IPPROTO_TCP, 0, 0, 0xFFFFFFFF) + ends + addresses
    body += struct.pack("=III", ifindex, 0xFFFFFFFF, 0xFFFFFFFF)
    return struct.pack("=IHHII", 16 + len(body), SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, 1, 0) + body


def _wait_for(s: socket.socket, call):
    """call(), once more when it had to wait: packets between the namespaces may be a moment late."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return call()
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise
            select.select([s], [], [], 0.1)


class Kernel:
    """Sockets by number, and the far ends of those that are connected."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.listeners = links.build(history.net)
        self.targets = [(history.address(who), port) for who, port in DESTINATIONS]
        self.diag = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG)
        self.diag.settimeout(PATIENCE_S)
        self.socks: dict[int, socket.socket] = {}
        self.devices: dict[int, str] = {}
        self.rows: dict[int, bytes] = {}
        self.far: dict[int, socket.socket] = {}
        self.waiting: dict[tuple[str, int, int, str], socket.socket] = {}
        self.returned_us = 0  # when the last connect() itself came back

    def socket(self, n: int, options: Options) -> int:
        s = socket.socket()
        s.setblocking(False)
        if options.reuse:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if options.reuseport:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if options.no_port:
            s.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        if options.device:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, options.device.encode())
        if options.range is not None:
            low, high = options.range
            s.setsockopt(socket.IPPROTO_IP, IP_LOCAL_PORT_RANGE, struct.pack("=I", high << 16 | low))
        self.socks[n] = s
        self.devices[n] = options.device or DEVICES[0]
        return 0

    def bind(self, n: int, who: str, port: int) -> int:
        s = self.socks[n]
        try:
            s.bind((self.history.address(who), port))
        except OSError as error:
            return -error.errno
        return s.getsockname()[1]

    def listen(self, n: int) -> int:
        s = self.socks[n]
        try:
            s.listen(5)
        except OSError as error:
            return -error.errno
        return s.getsockname()[1]

    def connect(self, n: int, destination: int) -> int:
        """The port of an attempt that is under way or done, or -errno."""
        s = self.socks[n]
        error = s.connect_ex(self.targets[destination])
        self.returned_us = time.monotonic_ns() // 1000
        if error not in (0, errno.EINPROGRESS):
            return -error
        address, port = s.getsockname()
        if destination in ANSWERING and n not in self.far:
            self.far[n] = self._far_end(address, port, DESTINATIONS[destination][1], self.devices[n])
        return port

    def _far_end(self, address: str, port: int, dport: int, device: str) -> socket.socket:
        listener = self.listeners[dport, device]
        while (address, port, dport, device) not in self.waiting:
            child, peer = _wait_for(listener, listener.accept)
            child.setblocking(False)
            self.waiting[*peer, dport, device] = child
        return self.waiting.pop((address, port, dport, device))

    def unconnect(self, n: int) -> int:
        error = 0
        if _libc_connect(self.socks[n].fileno(), AF_UNSPEC_ADDRESS, 16) < 0:
            error = links.ctypes.get_errno()
        self._drop_far_end(n)
        return -error

    def close(self, n: int) -> int:
        """Without a FIN: the port is free at once."""
        s = self.socks.pop(n)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_RST)
        s.close()
        self._drop_far_end(n)
        return 0

    def _drop_far_end(self, n: int) -> None:
        if n in self.far:
            self.far.pop(n).close()

    def time_wait(self, n: int) -> int:
        """Our FIN first, then the peer's, then close(): what is left is a TIME_WAIT."""
        s = self.socks.pop(n)
        far = self.far.pop(n)
        s.shutdown(socket.SHUT_WR)
        assert _wait_for(far, lambda: far.recv(1)) == b""
        far.close()
        assert _wait_for(s, lambda: s.recv(1)) == b""
        s.close()
        return 0

    def fin_wait2(self, n: int) -> int:
        """close() while the peer keeps its side open, but acknowledges at once."""
        far = self.far[n]
        s = self.socks.pop(n)
        question = _diag_request(s.getsockname(), s.getpeername(), socket.if_nametoindex(self.devices[n]))
        s.close()
        assert _wait_for(far, lambda: far.recv(1)) == b""
        far.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)  # an ACK that is due goes out now
        self.rows[n] = question
        self._wait_for_state(question, TCP_FIN_WAIT2)
        return 0

    def _state(self, question: bytes) -> int:
        """State of the socket asked for; 0 when there is none."""
        self.diag.send(question)
        answer = self.diag.recv(4096)
        kind = struct.unpack_from("=H", answer, 4)[0]
        return answer[17] if kind == SOCK_DIAG_BY_FAMILY else 0

    def finish(self, n: int) -> int:
        """The peer closes at last what fin_wait2 left half open."""
        self._drop_far_end(n)
        self._wait_for_state(self.rows.pop(n), TCP_TIME_WAIT)
        return 0

    def _wait_for_state(self, question: bytes, state: int) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while self._state(question) != state:
            assert time.monotonic() < deadline, f"state {state} within {PATIENCE_S} s"
            time.sleep(0.0002)

    def set(self, name: str, value: str) -> int:
        return links.set_sysctl(name, value)
