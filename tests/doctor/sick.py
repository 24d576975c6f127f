"""A namespace of the live kernel made sick in a known way, what the doctor predicts there, and what is true there."""

from __future__ import annotations

import errno
import socket
import struct
import time
from typing import Any

from fourtuple.doctor.predict import State
from fourtuple.live import sockets
from fourtuple.sysctl import Sysctls
from tests.live.space import IP_BIND_ADDRESS_NO_PORT, Space

LOW, HIGH = 40_000, 40_399
PORTS = HIGH - LOW + 1
SOURCE, OTHER_SOURCE = "10.77.0.1", "10.77.0.2"
A, B, C = ("203.0.113.1", 443), ("203.0.113.2", 443), ("203.0.113.3", 80)
IP_LOCAL_PORT_RANGE = 51
SYSCTLS = (
    "ip_local_port_range", "ip_local_reserved_ports", "tcp_tw_reuse", "tcp_tw_reuse_delay", "tcp_timestamps",
    "ip_autobind_reuse",
)  # fmt: skip


class Sick(Space):
    """A range of 400 ports; 203.0.113.0/24 never answers: a connect() there stays in SYN_SENT and holds its 4-tuple."""

    def __enter__(self) -> Sick:
        super().__enter__()
        self.range(LOW, HIGH)
        self.ip(f"addr add {OTHER_SOURCE}/24 dev hole0")
        return self

    def range(self, low: int, high: int) -> None:
        self.sysctl("net.ipv4.ip_local_port_range", f"{low} {high}")

    def state(self) -> State:
        return State(sockets(self.path), self.sysctls())

    def sysctls(self) -> Sysctls:
        found = Sysctls()
        for name in SYSCTLS:
            text = self.run(_read, f"/proc/sys/net/ipv4/{name}")
            assert found.set(f"net.ipv4.{name}", text) == 0
        return found

    def client(self, **options: Any) -> socket.socket:
        """`bind`: (address, port); `no_port`, `reuse`: flags; `own_range`: IP_LOCAL_PORT_RANGE; `family`."""
        made = self.socket(options.get("family", socket.AF_INET))
        made.setblocking(False)
        if options.get("no_port"):
            made.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        if options.get("reuse"):
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if "own_range" in options:
            low, high = options["own_range"]
            made.setsockopt(socket.IPPROTO_IP, IP_LOCAL_PORT_RANGE, struct.pack("=I", high << 16 | low))
        if "bind" in options:
            made.bind(options["bind"])
        return made

    def dial(self, to: tuple[str, int], **options: Any) -> int:
        """The errno of one connect(), EINPROGRESS when it is on its way."""
        return self.client(**options).connect_ex(to)

    def hold(self, count: int, to: tuple[str, int], **options: Any) -> list[int]:
        """Local ports of so many connects that succeed, and are held."""
        ports = []
        for _ in range(count):
            client = self.client(**options)
            code = client.connect_ex(to)
            assert code in (0, errno.EINPROGRESS), errno.errorcode[code]
            ports.append(client.getsockname()[1])
        return ports

    def succeeding(self, to: tuple[str, int], limit: int = 2 * PORTS, **options: Any) -> tuple[int, str]:
        """How many further connects succeed, and the errno of the one that does not."""
        for done in range(limit):
            code = self.dial(to, **options)
            if code not in (0, errno.EINPROGRESS):
                return done, errno.errorcode[code]
        return limit, ""

    def time_waits(self, count: int, to: tuple[str, int], source: tuple[str, int] | None = None) -> None:
        """So many TIME_WAITs of ours at a listener there (an address of this namespace); `source`: bound before."""
        listener = self.listen(*to, backlog=1024)
        pairs = [self._pair_from(listener, to, source) for _ in range(count)]
        for client, _ in pairs:
            client.close()
        for _, server in pairs:
            server.close()
        listener.close()
        self._await_time_waits(count)

    def _pair_from(
        self, listener: socket.socket, to: tuple[str, int], source: tuple[str, int] | None
    ) -> tuple[socket.socket, socket.socket]:
        client = self.connect(*to, source)
        server, _ = listener.accept()
        self._sockets.append(server)
        return client, server

    def _await_time_waits(self, count: int) -> None:
        for _ in range(200):
            if len(sockets(self.path, states=["TIME_WAIT"])) >= count:
                return
            time.sleep(0.01)
        raise AssertionError(f"no {count} TIME_WAITs")


def _read(path: str) -> str:
    with open(path) as file:
        return file.read().strip()
