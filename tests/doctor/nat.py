"""Namespaces of the live kernel with source NAT between them: a client, a server, perhaps somebody behind the client.

The client (10.77.0.1, also 10.77.0.9 and 10.77.0.10) reaches the server (203.0.113.1) over a pair of veth; it forwards
for 10.88.0.2, if there is such a one.
"""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack
from types import TracebackType

from fourtuple.live.ctnetlink import Tracked
from fourtuple.live.system import read_system
from tests.live.space import Space

SERVER, PORT = "203.0.113.1", 443
SERVER6 = "2001:db8:77::2"
CLIENT, NAT_ADDRESS, OTHER_ADDRESS = "10.77.0.1", "10.77.0.9", "10.77.0.10"
BEHIND = "10.88.0.2"
CHAIN = "ip t post"


class Natted:
    """`client` has the rules: snat(...)."""

    def __init__(self, behind: bool = False) -> None:
        self._stack = ExitStack()
        self._behind = behind

    def __enter__(self) -> Natted:
        try:
            self.client = self._stack.enter_context(Space())
            self.server = self._stack.enter_context(Space("idle0"))
            self._connect()
            if self._behind:
                self.behind = self._stack.enter_context(Space("idle1"))
                self._forward()
            self.listener = self.server.listen(SERVER, PORT, backlog=4096)
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self._stack.close()

    def _connect(self) -> None:
        client, server = self.client, self.server
        client.ip("link set hole0 arp on")
        for address in (NAT_ADDRESS, OTHER_ADDRESS):
            client.ip(f"addr add {address}/24 dev hole0")
        server.ip("addr del 10.77.0.1/24 dev idle0")
        client.ip(f"link set peer0 netns {_thread(server)} name to_client")
        server.ip(f"addr add {SERVER}/24 dev to_client")
        server.ip("link set to_client up")
        server.ip("route add 10.77.0.0/24 dev to_client")
        client.command("nft", "add table ip t; add chain ip t post { type nat hook postrouting priority 100; }")

    def _forward(self) -> None:
        self.client.ip("link add to_behind type veth peer name to_client")
        self.client.ip(f"link set to_client netns {_thread(self.behind)}")
        self.client.ip("addr add 10.88.0.1/24 dev to_behind")
        self.client.ip("link set to_behind up")
        self.client.sysctl("net.ipv4.ip_forward", 1)
        self.behind.ip(f"addr add {BEHIND}/24 dev to_client")
        self.behind.ip("link set to_client up")
        self.behind.ip("route del 203.0.113.0/24")
        self.behind.ip("route add 203.0.113.0/24 via 10.88.0.1")

    def snat(self, rule: str, chain: str = CHAIN) -> None:
        """The only rule of the chain."""
        self.client.command("nft", f"flush chain {chain}; add rule {chain} {rule}")

    def hold(self, count: int) -> list[socket.socket]:
        """So many connections to the server that are established."""
        made = []
        for _ in range(count):
            one = self.client.socket()
            one.settimeout(5)
            one.connect((SERVER, PORT))
            made.append(one)
        return made

    def fill(self, low: int, high: int, matching: str = "tcp dport 443") -> None:
        """Take all these NAT ports: of at most 128 each one is found."""
        for first in range(low, high + 1, 128):
            last = min(first + 127, high)
            self.snat(f"{matching} snat to {NAT_ADDRESS}:{first}-{last}")
            self.hold(last - first + 1)

    def dial(self) -> bool:
        """Whether one connect() gets through before its SYN is sent again."""
        one = self.client.socket()
        one.settimeout(0.3)
        return one.connect_ex((SERVER, PORT)) == 0

    def tracked(self) -> Tracked:
        found = read_system(self.client.path).nat.tracked
        assert found is not None
        return found

    def insert_failed(self) -> int:
        return self.tracked().insert_failed or 0


def _thread(space: Space) -> str:
    """Of a namespace, for `ip link set netns`."""
    return space.path.split("/")[4]


def await_closing(natted: Natted, count: int) -> None:
    for _ in range(100):
        if sum(flows.closing for flows in natted.tracked().flows) >= count:
            return
        time.sleep(0.01)
    raise AssertionError(f"no {count} closing entries")
