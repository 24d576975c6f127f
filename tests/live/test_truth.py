"""What sockets() says of a namespace is what the test itself made there, and what /proc and ss say."""

from __future__ import annotations

import os
import random
import socket
import time
from collections import Counter
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from fourtuple.live import Socket, SocketTable, sockets
from fourtuple.live.socket_table import INBOUND, NO_PORT, NO_PORT_KNOWN, V6ONLY, V6SOCK
from tests.live.space import IP_BIND_ADDRESS_NO_PORT, Space, needs_root

pytestmark = needs_root

Name = tuple[str, int, str, int]
_TCP_DEFER_ACCEPT = 9
_SO_BINDTODEVICE = 25


@pytest.fixture
def space() -> Iterator[Space]:
    with Space() as made:
        yield made


def read(space: Space, **filters: Any) -> SocketTable:
    return sockets(space.path, **filters)


def named(table: SocketTable) -> dict[Name, Socket]:
    rows = {(row.saddr, row.sport, row.daddr, row.dport): row for row in table}
    assert len(rows) == len(table)
    return rows


def name_of(one: socket.socket) -> Name:
    return (*one.getsockname()[:2], *one.getpeername()[:2])


def bound_name(one: socket.socket) -> Name:
    address, port = one.getsockname()[:2]
    return (address, port, "::" if ":" in address else "0.0.0.0", 0)


def row_of(space: Space, one: socket.socket) -> Socket:
    """The row of a socket, found by its inode."""
    (row,) = [row for row in read(space) if row.inode == os.fstat(one.fileno()).st_ino]
    return row


def settled(space: Space, name: Name, state: str) -> Socket:
    """The row, when it has come to that state: packets on loopback wait for their turn, too."""
    for _ in range(200):
        row = named(read(space)).get(name)
        if row and row.state == state:
            return row
        time.sleep(0.01)
    raise AssertionError(f"{row} does not come to {state}")


def test_an_empty_namespace_has_no_sockets(space: Space) -> None:
    table = read(space)
    assert len(table) == 0
    assert list(table) == []
    assert len(table.group_by_destination()) == 0
    assert table.source == "sock_diag"
    assert table.consistent


def test_a_listener_and_both_ends_of_a_connection(space: Space) -> None:
    listener = space.listen()
    client, server = space.pair(listener)
    rows = named(read(space))
    assert {name: row.state for name, row in rows.items()} == {
        bound_name(listener): "LISTEN",
        name_of(client): "ESTABLISHED",
        name_of(server): "ESTABLISHED",
    }
    assert rows[name_of(server)].flags & INBOUND
    assert not rows[name_of(client)].flags & INBOUND
    assert {row.family for row in rows.values()} == {socket.AF_INET}


def test_ipv6_addresses(space: Space) -> None:
    listener = space.listen("2001:db8:77::1")
    client, server = space.pair(listener)
    table = read(space)
    rows = named(table)
    assert set(rows) == {bound_name(listener), name_of(client), name_of(server)}
    assert {row.family for row in rows.values()} == {socket.AF_INET6}
    assert all(row.flags & V6SOCK for row in rows.values())
    assert table.addresses6 == [bytes(16), socket.inet_pton(socket.AF_INET6, "2001:db8:77::1")]


def test_ipv4_over_an_ipv6_socket_is_ipv4_at_both_ends(space: Space) -> None:
    listener = space.socket(socket.AF_INET6)
    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    listener.bind(("::", 0))
    listener.listen()
    port = listener.getsockname()[1]
    client, server = space.connect("127.0.0.1", port), listener.accept()[0]
    mapped = space.connect("::ffff:127.0.0.1", port)
    rows = named(read(space))
    server_row = rows[("127.0.0.1", port, *client.getsockname())]
    mapped_row = rows[("127.0.0.1", mapped.getsockname()[1], "127.0.0.1", port)]
    assert (server_row.family, server_row.flags & (V6SOCK | INBOUND)) == (socket.AF_INET, V6SOCK | INBOUND)
    assert (mapped_row.family, mapped_row.flags & (V6SOCK | INBOUND)) == (socket.AF_INET, V6SOCK)
    assert rows[("::", port, "::", 0)].family == socket.AF_INET6
    assert not rows[("::", port, "::", 0)].flags & V6ONLY
    server.close()


def test_a_connection_that_nobody_answers_is_in_syn_sent_with_its_timer(space: Space) -> None:
    client = space.try_connect("203.0.113.9", 443)
    row = row_of(space, client)
    assert (row.state, row.saddr, row.daddr, row.dport) == ("SYN_SENT", "10.77.0.1", "203.0.113.9", 443)
    assert row.timer == 1
    assert 0 < row.expires_ms <= 1000


def test_a_handshake_held_open_by_defer_accept_is_in_syn_recv(space: Space) -> None:
    listener = space.socket()
    listener.setsockopt(socket.IPPROTO_TCP, _TCP_DEFER_ACCEPT, 30)
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    client = space.connect(*listener.getsockname())
    row = named(read(space))[(*listener.getsockname(), *client.getsockname())]
    assert row.state == "SYN_RECV"
    assert row.flags & INBOUND


def test_the_half_closed_states(space: Space) -> None:
    listener = space.listen()
    client, server = space.pair(listener)
    client.shutdown(socket.SHUT_WR)
    assert settled(space, name_of(client), "FIN_WAIT2").inode == os.fstat(client.fileno()).st_ino
    assert settled(space, name_of(server), "CLOSE_WAIT").inode == os.fstat(server.fileno()).st_ino


def test_a_socket_closed_first_stays_in_time_wait_without_an_owner(space: Space) -> None:
    listener = space.listen()
    client, server = space.pair(listener)
    name = name_of(client)
    client.close()
    settled(space, name, "FIN_WAIT2")
    server.close()
    row = settled(space, name, "TIME_WAIT")
    assert (row.inode, row.timer) == (0, 3)
    assert set(named(read(space, states=["TIME_WAIT"]))) == {name}
    assert 0 < row.expires_ms <= 60_000


def test_sockets_that_are_only_bound_are_listed(space: Space) -> None:
    made = []
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::1")):
        made.append(space.socket(family))
        made[-1].bind((address, 0))
    table = read(space)
    assert {name: row.state for name, row in named(table).items()} == {bound_name(each): "BOUND" for each in made}
    assert table.bound_known


def test_bind_address_no_port_is_told_per_socket(space: Space) -> None:
    listener = space.listen()
    late = space.socket()
    late.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
    late.bind(("127.0.0.7", 0))
    assert len(read(space, states=["BOUND"])) == 0  # it has no port yet
    late.connect(listener.getsockname())
    early = space.connect(*listener.getsockname(), source=("127.0.0.7", 0))
    known = NO_PORT_KNOWN | NO_PORT
    assert row_of(space, late).flags & known == known
    assert row_of(space, early).flags & known == NO_PORT_KNOWN


def test_the_device_that_a_socket_is_bound_to(space: Space) -> None:
    client = space.socket()
    client.setsockopt(socket.SOL_SOCKET, _SO_BINDTODEVICE, b"hole0")
    client.setblocking(False)
    client.connect_ex(("203.0.113.9", 80))
    assert row_of(space, client).ifindex == space.ifindex()


def test_uid_queues_and_cgroup(space: Space) -> None:
    listener = space.listen(backlog=7)
    client, server = space.pair(listener)
    waiting = space.connect(*listener.getsockname())
    client.sendall(b"x" * 1234)
    os.fchown(client.fileno(), 65534, -1)
    rows = {row.inode: row for row in read(space)}
    by_socket = [rows[os.fstat(each.fileno()).st_ino] for each in (listener, client, server)]
    assert [(row.rqueue, row.wqueue) for row in by_socket] == [(1, 7), (0, 0), (1234, 0)]
    assert [row.uid for row in by_socket] == [0, 65534, 0]
    with open("/proc/self/cgroup") as file:
        (path,) = [line.strip().removeprefix("0::") for line in file if line.startswith("0::")]
    assert by_socket[1].cgroup == os.stat(f"/sys/fs/cgroup{path}").st_ino
    waiting.close()


def test_v6only_is_told(space: Space) -> None:
    listener = space.socket(socket.AF_INET6)
    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    listener.bind(("::", 0))
    listener.listen()
    assert row_of(space, listener).flags & V6ONLY


def test_an_ipv6_only_listener_did_not_accept_an_ipv4_connection(space: Space) -> None:
    """Same port, another socket: no INBOUND for the client that was bound to it."""
    listener = space.socket(socket.AF_INET6)
    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    listener.bind(("::", 0))
    listener.listen()
    other = space.listen()
    client = space.connect(*other.getsockname(), source=("127.0.0.1", listener.getsockname()[1]))
    assert not row_of(space, client).flags & INBOUND


def crowd(space: Space, connections: int) -> tuple[list[socket.socket], list[socket.socket]]:
    """Many connections from several sources to several listeners, some of them closed: TIME_WAITs."""
    space.sysctl("net.core.somaxconn", 8192)
    space.sysctl("net.ipv4.tcp_max_syn_backlog", 8192)
    listeners = [space.listen("127.0.0.1", 0, 8192), space.listen("10.77.0.1", 0, 8192), space.listen("::1", 0, 8192)]
    clients = []
    for i in range(connections):
        listener = listeners[i % 3]
        client, server = space.pair(listener)
        clients.append(client)
        if i % 5 == 0:
            if i % 2:
                client.close()
                server.close()
            else:
                server.close()
                client.close()
    return listeners, [client for client in clients if client.fileno() >= 0]


def settle(space: Space, time_waits: int) -> None:
    """Until all that was closed has come to TIME_WAIT."""
    for _ in range(200):
        if read(space).count_by_state().get(6) == time_waits:
            return
        time.sleep(0.01)
    raise AssertionError(f"{read(space)}, not {time_waits} in TIME_WAIT")


def proc_rows(space: Space) -> Counter[tuple[int, Name]]:
    """State and name of every line of /proc/net/tcp and tcp6, parsed here."""
    found: Counter[tuple[int, Name]] = Counter()
    for file in ("tcp", "tcp6"):
        for line in space.command("cat", f"/proc/thread-self/net/{file}").splitlines()[1:]:
            local, remote, state = line.split()[1:4]
            found[int(state, 16), (*_end(local), *_end(remote))] += 1
    return found


def _end(text: str) -> tuple[str, int]:
    address, port = text.split(":")
    words = [int.from_bytes(bytes.fromhex(address[i : i + 8]), "little") for i in range(0, len(address), 8)]
    raw = b"".join(word.to_bytes(4, "big") for word in words)
    return str(ip_address(raw)), int(port, 16)


def ss_rows(space: Space, *condition: str) -> Counter[tuple[str, Name]]:
    names = {"ESTAB": "ESTABLISHED", "TIME-WAIT": "TIME_WAIT", "CLOSE-WAIT": "CLOSE_WAIT"}
    found: Counter[tuple[str, Name]] = Counter()
    for line in space.command("ss", "-Htan", *condition).splitlines():
        state, _, _, local, remote = line.split()[:5]
        found[names.get(state, state), (*_ss_end(local), *_ss_end(remote))] += 1
    return found


def _ss_end(text: str) -> tuple[str, int]:
    address, _, port = text.rpartition(":")
    address = address.strip("[]").partition("%")[0]
    return ("0.0.0.0" if address == "*" else address), 0 if port == "*" else int(port)


def our_rows(table: SocketTable) -> Counter[tuple[str, Name]]:
    return Counter((row.state, (row.saddr, row.sport, row.daddr, row.dport)) for row in table)


def test_thousands_of_sockets_are_those_of_proc_and_of_ss(space: Space) -> None:
    listeners, clients = crowd(space, 2000)
    settle(space, 400)
    table = read(space)
    ours = our_rows(table)
    assert max(ours.values()) == 1
    assert ours == ss_rows(space)
    numbers = Counter((table.state[i], (r.saddr, r.sport, r.daddr, r.dport)) for i, r in enumerate(table))
    assert numbers == proc_rows(space)
    states = Counter(state for state, _ in ours.elements())
    assert states["LISTEN"] == 3
    assert states["TIME_WAIT"] == 400
    assert states["ESTABLISHED"] == 2 * len(clients) == 3200

    # By destination: the clients' ends, and the 200 TIME_WAITs on their side.
    destinations = table.group_by_destination()
    by_name = {(d.daddr, d.dport): d for d in destinations}
    assert set(by_name) == {listener.getsockname()[:2] for listener in listeners}
    assert sum(d.counts[1] for d in destinations) == len(clients)
    assert sum(d.counts[6] for d in destinations) == 200


FILTERS: list[dict[str, Any]] = [
    {"states": ["LISTEN"]},
    {"states": ["TIME_WAIT", 10]},
    {"families": (socket.AF_INET,)},
    {"families": (socket.AF_INET6,)},
    {"daddr": "127.0.0.1"},
    {"saddr": "10.77.0.0/16"},
    {"saddr": "::1"},
    {"daddr": "::/0"},
    {"sport": (0, 40_000)},
    {"dport": (40_000, 65_535), "saddr": "127.0.0.0/8", "states": ["ESTABLISHED"]},
    {"families": (socket.AF_INET6,), "sport": (30_000, 50_000), "dport": (1, 65_535)},
    {"families": (socket.AF_INET,), "sport": (30_000, 50_000), "daddr": "10.0.0.0/8"},
    {"dport": 1},
]


def matches(row: Socket, wanted: dict[str, Any]) -> bool:
    """The meaning of the filters, once more."""
    for end in ("saddr", "daddr"):
        prefix = wanted.get(end)
        if prefix:
            network, address = ip_network(prefix), ip_address(getattr(row, end))
            if network.version != address.version or address not in network:
                return False
    for end in ("sport", "dport"):
        ports = wanted.get(end, (0, 65_535))
        low, high = ports if isinstance(ports, tuple) else (ports, ports)
        if not low <= getattr(row, end) <= high:
            return False
    numbers = {"LISTEN": 10, "TIME_WAIT": 6, "ESTABLISHED": 1}
    states = wanted.get("states")
    allowed = {each if isinstance(each, int) else numbers[each] for each in states or ()}
    families = wanted.get("families", (socket.AF_INET, socket.AF_INET6))
    return row.family in families and (not allowed or numbers.get(row.state) in allowed)


def test_every_filter_takes_what_it_says_and_nothing_else(space: Space) -> None:
    crowd(space, 120)
    settle(space, 24)
    dual = space.socket(socket.AF_INET6)
    dual.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    dual.bind(("::", 0))
    dual.listen()
    space.connect("127.0.0.1", dual.getsockname()[1])
    everything = list(read(space))
    ports = sorted({row.sport for row in everything})
    low, high = ports[len(ports) // 3], ports[len(ports) // 2]
    for wanted in [*FILTERS, {"sport": (low, high)}, {"dport": (low, high)}, {"sport": low}, {"dport": high}]:
        table = read(space, **wanted)
        expected = Counter((r.family, r.saddr, r.sport, r.daddr, r.dport) for r in everything if matches(r, wanted))
        assert Counter((r.family, r.saddr, r.sport, r.daddr, r.dport) for r in table) == expected, wanted
        assert table.listeners_known == (set(wanted) == {"states"})  # both have LISTEN


def test_ss_agrees_with_a_filter(space: Space) -> None:
    listeners, _ = crowd(space, 60)
    settle(space, 12)
    port = listeners[0].getsockname()[1]
    assert our_rows(read(space, dport=port)) == ss_rows(space, "dport", "=", f":{port}")
    assert our_rows(read(space, saddr="10.77.0.0/24")) == ss_rows(space, "src", "10.77.0.0/24")


def test_what_stays_is_seen_whatever_comes_and_goes(space: Space) -> None:
    listener = space.listen(backlog=4096)
    space.sysctl("net.ipv4.ip_local_port_range", "20000 60000")
    staying = {name_of(space.pair(listener)[0]) for _ in range(300)}
    comers = space.listen("127.0.0.2", backlog=4096)
    chance = random.Random(7)
    passing: list[tuple[socket.socket, socket.socket]] = []
    ends = time.monotonic() + 20
    for _ in range(30):
        for _ in range(40):
            if passing and chance.random() < 0.5:
                for end in passing.pop(chance.randrange(len(passing))):
                    end.close()
            else:
                passing.append(space.pair(comers))
        table = read(space)
        assert staying <= set(named(table))
        assert time.monotonic() < ends
