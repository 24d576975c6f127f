"""Two Hosts joined by a wire that loses, doubles and reorders packets, on a clock that jumps.

j = Joined(seed=1, loss=0.1)
a, b = j.pair()             # the client's and the server's end
j.run(lambda: ...)
"""

from __future__ import annotations

import errno
import heapq
import random
from collections.abc import Callable
from typing import Any

from fourtuple.address import parse_ipv4
from fourtuple.host import Host
from fourtuple.sock.af_inet import pack_sockaddr_in
from fourtuple.sock.syscall import SOCK_NONBLOCK, SOCK_STREAM

CLIENT, SERVER, PORT = "10.7.0.1", "10.7.0.2", 80
START_US = 1_000_000_000
EAGAIN = -errno.EAGAIN
DONTWAIT = 0x4000


class End:
    """A descriptor of one of the Hosts, its calls non-blocking."""

    def __init__(self, joined: Joined, host: Host, fd: int) -> None:
        self.joined, self.host, self.fd = joined, host, fd

    def send(self, data: Any) -> int:
        n: int = self.host.sys_send(self.fd, data, DONTWAIT, now=self.joined.now)
        return n

    def recv(self, size: int = 65536) -> Any:
        return self.host.sys_recv(self.fd, size, DONTWAIT, now=self.joined.now)

    def shutdown(self, how: int = 1) -> int:
        return self.host.sys_shutdown(self.fd, how, now=self.joined.now)

    def close(self) -> None:
        self.host.sys_close(self.fd, now=self.joined.now)

    def option(self, level: int, name: int, value: int | bytes) -> None:
        raw = value if isinstance(value, bytes) else value.to_bytes(4, "little", signed=True)
        assert self.host.sys_setsockopt(self.fd, level, name, raw, now=self.joined.now) == 0

    def poll(self) -> int:
        bits: int = self.host.sys_poll(self.fd, now=self.joined.now)
        return bits

    def error(self) -> int:
        """SO_ERROR."""
        value = self.host.sys_getsockopt(self.fd, 1, 4)
        assert isinstance(value, bytes)
        return int.from_bytes(value, "little")

    def states(self) -> list[str]:
        return [row.state for row in self.host.sockets() if row.state != "LISTEN"]


class Joined:
    """See the module.  Chances are per packet; `jitter_us` reorders."""

    def __init__(
        self,
        seed: int = 0,
        loss: float = 0.0,
        double: float = 0.0,
        delay_us: int = 5_000,
        jitter_us: int = 0,
        mtu: int = 1500,
        sysctls: tuple[dict[str, str], dict[str, str]] = ({}, {}),
    ) -> None:
        self.now = START_US
        self.random = random.Random(seed)
        self.loss, self.double, self.delay_us, self.jitter_us = loss, double, delay_us, jitter_us
        self.drop: Callable[[Host, bytes], bool] = lambda host, packet: False
        self.sent: list[tuple[int, Host, bytes]] = []
        self.keep = False
        self.hosts = []
        for i, address in enumerate((CLIENT, SERVER)):
            names = {"net.ipv4." + name: value for name, value in sysctls[i].items()}
            host = Host(seed=seed * 2 + i, now_us=START_US, max_sockets=64, sysctl=names)
            host.add_link("eth0", mtu=mtu, addrs=(address + "/24",))
            self.hosts.append(host)
        self.client, self.server = self.hosts
        self.apps: list[Callable[[], bool]] = []
        self._flying: list[tuple[int, int, int, bytes]] = []
        self._serial = 0

    def _send_all(self) -> None:
        for i, host in enumerate(self.hosts):
            for sent in host.take_packets():
                if self.keep:
                    self.sent.append((sent.time_us, host, sent.packet))
                if self.random.random() < self.loss or self.drop(host, sent.packet):
                    continue
                for _ in range(1 + (self.random.random() < self.double)):
                    self._serial += 1
                    late = self.random.randrange(self.jitter_us) if self.jitter_us else 0
                    due = max(sent.time_us, self.now) + self.delay_us + late
                    heapq.heappush(self._flying, (due, self._serial, 1 - i, sent.packet))

    def _settle(self) -> None:
        while True:
            moved = False
            for app in self.apps:
                moved = app() or moved
            self._send_all()
            if not moved:
                return

    def next_due(self) -> int | None:
        dues = [due for due in (host.next_timeout() for host in self.hosts) if due is not None]
        if self._flying:
            dues.append(self._flying[0][0])
        return min(dues, default=None)

    def step(self) -> bool:
        """Up to the next event; false when there will be none."""
        self._settle()
        due = self.next_due()
        if due is None:
            return False
        self.now = max(self.now, due)
        for host in self.hosts:
            timeout = host.next_timeout()
            if timeout is not None and timeout <= self.now:
                host.handle_timeout(self.now)
        self._send_all()
        while self._flying and self._flying[0][0] <= self.now:
            _, _, to, packet = heapq.heappop(self._flying)
            self.hosts[to].receive_packet(packet, self.now)
            self._send_all()
        self._settle()
        return True

    def run(self, done: Callable[[], Any] = lambda: False, seconds: float = 3600.0) -> bool:
        """Let time pass until `done()`; false when time is up."""
        give_up = self.now + int(seconds * 1e6)
        while True:
            self._settle()
            if done():
                return True
            due = self.next_due()
            if due is None or due > give_up:
                self.now = give_up
                return False
            self.step()

    # ---------------------------------------------------------------------------------------------- sockets

    def listen(self, backlog: int = 16) -> End:
        fd = self.server.sys_socket(type=SOCK_STREAM | SOCK_NONBLOCK, now=self.now)
        assert self.server.sys_bind(fd, pack_sockaddr_in(parse_ipv4(SERVER), PORT)) == 0
        assert self.server.sys_listen(fd, backlog) == 0
        return End(self, self.server, fd)

    def socket(self) -> End:
        return End(self, self.client, self.client.sys_socket(type=SOCK_STREAM | SOCK_NONBLOCK, now=self.now))

    def connect(self, end: End | None = None) -> End:
        """Begin to connect."""
        end = end or self.socket()
        address = pack_sockaddr_in(parse_ipv4(SERVER), PORT)
        assert self.client.sys_connect(end.fd, address, now=self.now) == -errno.EINPROGRESS
        return end

    def accept(self, listener: End) -> End:
        accepted: list[int] = []

        def done() -> bool:
            fd = self.server.sys_accept(listener.fd, SOCK_NONBLOCK, now=self.now)
            if fd >= 0:
                accepted.append(fd)
            return bool(accepted)

        assert self.run(done)
        return End(self, self.server, accepted[0])

    def pair(self) -> tuple[End, End]:
        """An established connection; the listener is closed."""
        listener = self.listen()
        a = self.connect()
        b = self.accept(listener)
        assert self.run(lambda: a.poll() & 4)
        listener.close()
        return a, b

    def leftovers(self) -> list[str]:
        """What is still there when all connections have ended: should be nothing."""
        found = []
        for name, host in zip(("client", "server"), self.hosts, strict=True):
            net = host.net
            found += [f"{name}: socket {row}" for row in host.sockets()]
            found += [f"{name}: row {sk}" for sk in range(1, net.sks.high_water + 1) if net.sks.sk_state[sk]]
            if host.next_timeout() is not None:
                found.append(f"{name}: a timer is armed")
            for table in ("cold", "requests", "oow_stamps"):
                if getattr(net, table):
                    found.append(f"{name}: {table} {getattr(net, table)}")
            if net.orphans:
                found.append(f"{name}: {net.orphans} orphans")
            if host.counter("Tcp.CurrEstab"):
                found.append(f"{name}: CurrEstab {host.counter('Tcp.CurrEstab')}")
        return found
