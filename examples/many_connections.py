"""Two thousand connections to eight servers over our own stack, a message and its echo on each, FIN both ways.

Needs no root: the servers are in a private network namespace.  No connection has an object or a descriptor.
"""

from __future__ import annotations

from collections import Counter

from fourtuple import Stack
from fourtuple.shell.netns import Server
from fourtuple.shell.wires import Setup

COUNT = 2_000
ECHO = Server("10.64.1.0/29", 7000, kind="echo", backlog=COUNT)
TARGETS = [(f"10.64.1.{host}", 7000) for host in range(8)]


def main() -> None:
    """Open, talk, look, close."""
    with Stack.open(setup=Setup(servers=(ECHO,))) as stack:
        handles = [result.handle for result in stack.connect_many(TARGETS, COUNT) if result.errno == 0]
        for handle in handles:
            stack.send(handle, b"hello")
        answers = Counter[object]()
        stack.wait(10.0, lambda: _read(stack, handles, answers) == COUNT)

        sport, phase = stack.connections.column("sport"), stack.connections.column("phase")
        ports = Counter(port for port, how in zip(sport, phase, strict=True) if how == 2)  # 2: open
        port, shared = ports.most_common(1)[0]
        print(f"{len(stack.connections)} open, {answers[b'hello']} answered")
        print(f"{len(ports)} local ports; port {port} backs {shared} connections")
        print(f"{stack.close_all()} sockets left")


def _read(stack: Stack, handles: list[int], answers: Counter[object]) -> int:
    """What has come so far."""
    for handle in handles:
        data = stack.recv(handle)
        if isinstance(data, bytes):
            answers[data] += 1
    return answers.total()


if __name__ == "__main__":
    main()
