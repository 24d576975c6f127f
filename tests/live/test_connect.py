"""connect() and open_connection() on the live kernel: which source, which port, which error; nothing left behind."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fourtuple.errors import ConnectError, ConnectRefused, ConnectTimeout, NoLocalPort, NoRoute
from fourtuple.live import connect, connecting, open_connection, socket_options, sockets, streams
from fourtuple.live.race import Target, interleave
from fourtuple.live.source_pool import SourcePool
from tests.live.space import Space, needs_root

pytestmark = needs_root

IP_LOCAL_PORT_RANGE = 51
WHOLE = 65535 << 16 | 1
SERVER = ("10.77.0.1", 5000)
HOLE = ("203.0.113.7", 443)

Call = Callable[..., socket.socket]


@pytest.fixture
def space() -> Iterator[Space]:
    with Space() as made:
        for host in (2, 3, 4):
            made.ip(f"addr add 10.77.0.{host}/24 dev hole0")
        yield made


@pytest.fixture(autouse=True)
def pool(monkeypatch: pytest.MonkeyPatch) -> SourcePool:
    """Nothing is known yet; and what is found out is remembered, as time stands still."""
    made = SourcePool(clock=lambda: 0.0)
    monkeypatch.setattr(connecting, "POOL", made)
    monkeypatch.setattr(streams, "POOL", made)
    return made


@pytest.fixture(params=["connect", "open_connection"])
def call(request: pytest.FixtureRequest, space: Space) -> Call:
    """Either function, called in the namespace; the socket is closed with the namespace."""

    async def streamed(*args: Any, **kwargs: Any) -> socket.socket:
        _, writer = await open_connection(*args, **kwargs)
        kept = writer.get_extra_info("socket").dup()
        writer.close()
        return kept

    def inside(*args: Any, **kwargs: Any) -> socket.socket:
        made = connect(*args, **kwargs) if request.param == "connect" else asyncio.run(streamed(*args, **kwargs))
        space.keep(made)
        return made

    return lambda *args, **kwargs: space.run(lambda: inside(*args, **kwargs))


def small_range(space: Space, low: int = 40000, high: int = 40007) -> None:
    space.sysctl("net.ipv4.ip_local_port_range", f"{low} {high}")


def fill(space: Space, source: str, destination: tuple[str, int], count: int) -> list[int]:
    """Connections of another program, which chooses the ports as most do; the ports."""
    ports = []
    for _ in range(count):
        client = space.socket(socket.AF_INET6 if ":" in source else socket.AF_INET)
        client.setsockopt(socket.IPPROTO_IP, socket_options.IP_BIND_ADDRESS_NO_PORT, 1)
        client.bind((source, 0))
        client.setblocking(False)
        assert client.connect_ex(destination) in (0, errno.EINPROGRESS)
        ports.append(client.getsockname()[1])
    return ports


def port_range_of(sock: socket.socket) -> int:
    return int(struct.unpack("=I", sock.getsockopt(socket.IPPROTO_IP, IP_LOCAL_PORT_RANGE, 4))[0])


def tried(error: ConnectError) -> list[tuple[str | None, str, str]]:
    return [(each["source"], each["call"], each["errno"]) for each in error.report["attempts"]]


# ------------------------------------------------------------------------------------------ sources


def test_the_source_with_most_room_is_chosen(space: Space, call: Call) -> None:
    space.listen(*SERVER)
    small_range(space)
    fill(space, "10.77.0.2", SERVER, 5)
    fill(space, "10.77.0.3", SERVER, 2)
    fill(space, "10.77.0.4", SERVER, 4)
    fill(space, "10.77.0.3", (SERVER[0], 5001), 8)  # of no interest: towards another port
    chosen = call(SERVER, sources=["10.77.0.2", "10.77.0.3", "10.77.0.4"])
    assert chosen.getsockname()[0] == "10.77.0.3"
    assert chosen.getpeername() == SERVER


def test_sources_are_used_in_turn_while_there_is_room(space: Space, call: Call) -> None:
    space.listen(*SERVER)
    names = ["10.77.0.2", "10.77.0.3", "10.77.0.4"]
    assert [call(SERVER, sources=names).getsockname()[0] for _ in range(6)] == names * 2


def test_a_source_found_full_is_followed_by_the_next(space: Space, call: Call, pool: SourcePool) -> None:
    space.listen(*SERVER)
    small_range(space)
    names = ["10.77.0.2", "10.77.0.3"]
    assert call(SERVER, sources=names).getsockname()[0] == "10.77.0.2"  # and from now on it is remembered
    fill(space, "10.77.0.2", SERVER, 7)
    fill(space, "10.77.0.3", SERVER, 1)
    assert space.run(pool.use, SERVER).by_room(names) == ["10.77.0.3", "10.77.0.2"]
    assert call(SERVER, sources=names).getsockname()[0] == "10.77.0.3"
    assert space.run(pool.use, SERVER).by_room(names) == names, "equal as far as is known"
    assert call(SERVER, sources=names).getsockname()[0] == "10.77.0.3"
    assert space.run(pool.use, SERVER).by_room(names) == ["10.77.0.3", "10.77.0.2"], "the full one is not tried again"


def test_all_sources_full_is_eaddrnotavail_with_each_of_them_named(space: Space, call: Call) -> None:
    small_range(space)
    for name in ("10.77.0.2", "10.77.0.3"):
        fill(space, name, HOLE, 8)
    with pytest.raises(NoLocalPort) as caught:
        call(HOLE, sources=["10.77.0.2", "10.77.0.3"])
    assert caught.value.errno == errno.EADDRNOTAVAIL
    assert tried(caught.value) == [
        ("10.77.0.2", "connect", "EADDRNOTAVAIL"),
        ("10.77.0.3", "connect", "EADDRNOTAVAIL"),
    ]
    assert str(caught.value) == (
        "[Errno 99] every local port that this socket may use is taken for this destination (tried 203.0.113.7:443 "
        "from 10.77.0.2 EADDRNOTAVAIL, 203.0.113.7:443 from 10.77.0.3 EADDRNOTAVAIL)"
    )
    assert caught.value.report["function"] == "__inet_hash_connect"
    assert len(sockets(space.path)) == 16


def test_no_more_sources_are_tried_than_allowed(space: Space, call: Call) -> None:
    small_range(space)
    for name in ("10.77.0.2", "10.77.0.3", "10.77.0.4"):
        fill(space, name, HOLE, 8)
    with pytest.raises(NoLocalPort) as caught:
        call(HOLE, sources=["10.77.0.2", "10.77.0.3", "10.77.0.4"], retries=1)
    assert [source for source, _, _ in tried(caught.value)] == ["10.77.0.2", "10.77.0.3"]


def test_without_sources_a_full_range_is_tried_once(space: Space, call: Call) -> None:
    small_range(space)
    fill(space, "10.77.0.1", HOLE, 8)
    with pytest.raises(NoLocalPort) as caught:
        call(HOLE)
    assert tried(caught.value) == [(None, "connect", "EADDRNOTAVAIL")]


def test_a_source_that_is_not_ours_is_passed_over(space: Space, call: Call) -> None:
    space.listen(*SERVER)
    assert call(SERVER, sources=["10.99.0.1", "10.77.0.3"]).getsockname()[0] == "10.77.0.3"
    with pytest.raises(NoLocalPort) as caught:
        call(SERVER, sources=["10.99.0.1"])
    assert tried(caught.value) == [("10.99.0.1", "bind", "EADDRNOTAVAIL")]
    assert caught.value.report["reason"] == "the address is not local"


def test_a_refusal_is_not_tried_from_another_source(space: Space, call: Call) -> None:
    with pytest.raises(ConnectRefused) as caught:
        call(SERVER, sources=["10.77.0.2", "10.77.0.3"])
    assert tried(caught.value) == [("10.77.0.2", "connect", "ECONNREFUSED")]


@pytest.mark.parametrize(
    ("first", "second", "source"),
    [(("10.77.0.1", 5000), ("10.77.0.1", 5001), "10.77.0.2"), (("::1", 5000), ("::1", 5001), "::1")],
)
def test_a_port_is_shared_with_other_destinations(
    space: Space, call: Call, first: tuple[str, int], second: tuple[str, int], source: str
) -> None:
    space.listen(*first)
    space.listen(*second)
    small_range(space, 40000, 40000)
    a = call(first, sources=[source])
    b = call(second, sources=[source])
    assert a.getsockname() == b.getsockname()
    assert a.getsockname()[:2] == (source, 40000)


def test_ipv6_sources_are_counted_as_well(space: Space, call: Call) -> None:
    for host in (1, 2, 3):
        space.ip(f"addr add 2001:db8:88::{host}/128 dev lo nodad")
    space.listen("2001:db8:88::1", 5000)
    small_range(space)
    fill(space, "2001:db8:88::2", ("2001:db8:88::1", 5000), 5)
    names = ["2001:db8:88::2", "2001:db8:88::3"]
    assert {call(("2001:db8:88::1", 5000), sources=names).getsockname()[0] for _ in range(3)} == {names[1]}


def test_what_is_counted_is_what_is_there(space: Space, pool: SourcePool) -> None:
    small_range(space)
    fill(space, "10.77.0.2", HOLE, 3)
    fill(space, "10.77.0.3", HOLE, 5)
    outside = space.socket()
    outside.bind(("10.77.0.3", 39999))
    outside.setblocking(False)
    outside.connect_ex(HOLE)
    use = space.run(pool.use, HOLE)
    assert dict(use.ports) == {"10.77.0.2": 3, "10.77.0.3": 5}
    assert (use.range_low, use.range_high, use.is_odd) == (40000, 40007, False)
    assert use.by_room(["10.77.0.3", "10.77.0.2", "10.77.0.9"]) == ["10.77.0.9", "10.77.0.2", "10.77.0.3"]
    assert space.run(pool.use, ("203.0.113.7", 80)).ports == {}


def test_what_was_counted_is_counted_again_after_a_second(space: Space) -> None:
    now = [0.0]
    pool = SourcePool(clock=lambda: now[0])
    small_range(space)
    fill(space, "10.77.0.2", HOLE, 4)
    assert space.run(pool.use, HOLE).ports["10.77.0.2"] == 4
    fill(space, "10.77.0.2", HOLE, 2)
    now[0] = 0.99
    assert space.run(pool.use, HOLE).ports["10.77.0.2"] == 4
    now[0] = 1.0
    assert space.run(pool.use, HOLE).ports["10.77.0.2"] == 6


# ------------------------------------------------------------------------------------------ ranges of ports


def test_past_half_the_whole_range_is_searched_at_once(space: Space, call: Call) -> None:
    space.listen(*SERVER)
    small_range(space, 40000, 40255)
    taken = fill(space, "10.77.0.1", SERVER, 118)
    assert all(port % 2 == 0 for port in taken), "ten even ports are left, which connect() alone would use first"
    clients = [call(SERVER) for _ in range(10)]
    assert 1 in {client.getsockname()[1] % 2 for client in clients}
    assert {port_range_of(client) for client in clients} == {WHOLE}


def test_past_half_every_port_is_used(space: Space, call: Call) -> None:
    space.listen(*SERVER)
    small_range(space, 40000, 40031)
    taken = fill(space, "10.77.0.1", SERVER, 15)
    own = [call(SERVER).getsockname()[1] for _ in range(17)]
    assert sorted(taken + own) == list(range(40000, 40032))
    with pytest.raises(NoLocalPort):
        call(SERVER)


def test_before_half_the_kernels_order_is_kept(space: Space, call: Call) -> None:
    space.listen(*SERVER)
    small_range(space, 40000, 40255)
    fill(space, "10.77.0.1", SERVER, 100)
    client = call(SERVER)
    assert client.getsockname()[1] % 2 == 0
    assert port_range_of(client) == 0


@pytest.mark.parametrize(("asked", "option"), [(True, WHOLE), (False, 0), ((40101, 40101), 40101 << 16 | 40101)])
def test_a_range_asked_for_is_set(space: Space, call: Call, asked: Any, option: int) -> None:
    space.listen(*SERVER)
    small_range(space, 40000, 40255)
    fill(space, "10.77.0.1", SERVER, 128)
    client = call(SERVER, port_range=asked)
    assert port_range_of(client) == option
    if asked is False:
        assert client.getsockname()[1] % 2 == 1


def test_the_last_port_of_an_odd_range_is_used(space: Space, call: Call) -> None:
    space.listen(*SERVER)
    small_range(space, 40000, 40002)
    assert sorted(fill(space, "10.77.0.1", SERVER, 2)) == [40000, 40001]
    with pytest.raises(OSError, match="Cannot assign requested address"):
        space.connect(*SERVER)
    assert call(SERVER).getsockname()[1] == 40002


def test_the_last_port_of_an_odd_range_is_found_where_others_took_the_rest(space: Space, call: Call) -> None:
    space.listen(*SERVER)
    small_range(space, 40000, 40002)
    first = call(SERVER)  # a third of the range is in use, as far as is remembered
    assert port_range_of(first) == 0
    fill(space, "10.77.0.1", SERVER, 1)
    assert call(SERVER).getsockname()[1] == 40002


def test_a_kernel_without_the_options_is_no_hindrance(
    space: Space, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    space.listen(*SERVER)
    for name in ("IP_LOCAL_PORT_RANGE", "IP_BIND_ADDRESS_NO_PORT"):
        monkeypatch.setattr(socket_options, name, 250)  # which no kernel has: ENOPROTOOPT
    client = call(SERVER, sources=["10.77.0.2"], port_range=True)
    assert client.getsockname()[0] == "10.77.0.2"
    with pytest.raises(ConnectError) as caught:
        call(SERVER, port_range=(40000, 40010))
    assert (caught.value.errno, tried(caught.value)) == (errno.ENOPROTOOPT, [(None, "setsockopt", "ENOPROTOOPT")])


# ------------------------------------------------------------------------------------------ itself


def test_a_socket_connected_to_itself_is_refused(space: Space, call: Call) -> None:
    itself = ("127.0.0.1", 40000)
    with space.socket() as careless:
        socket_options.set_port_range(careless, 40000, 40000)
        careless.connect(itself)
        assert careless.getpeername() == careless.getsockname() == itself
        careless.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("=ii", 1, 0))
    with pytest.raises(ConnectRefused) as caught:
        call(itself, port_range=(40000, 40000))
    assert caught.value.errno == errno.ECONNREFUSED
    assert tried(caught.value) == [(None, "connect", "self-connect"), (None, "connect", "EADDRNOTAVAIL")]
    assert caught.value.report["reason"] == "nobody listens there: the socket was connected to itself"
    assert len(sockets(space.path)) == 0, "not even a TIME_WAIT"


def test_after_a_self_connect_another_port_is_tried(space: Space, call: Call) -> None:
    small_range(space, 40000, 40001)
    answers = set()
    for _ in range(20):
        with pytest.raises(ConnectRefused) as caught:
            call(("127.0.0.1", 40000), port_range=True)
        answers.add(tuple(outcome for _, _, outcome in tried(caught.value)))
    assert answers == {("ECONNREFUSED",), ("self-connect", "ECONNREFUSED")}
    assert len(sockets(space.path)) == 0


# ------------------------------------------------------------------------------------------ several addresses


def resolve(monkeypatch: pytest.MonkeyPatch, *addresses: tuple[str, int]) -> None:
    """`many.test` has these addresses."""
    real = socket.getaddrinfo

    def answer(host: str, *args: Any, **kwargs: Any) -> list[Any]:
        if host != "many.test":
            return real(host, *args, **kwargs)
        return [found for name, port in addresses for found in real(name, port, type=socket.SOCK_STREAM)]

    monkeypatch.setattr(socket, "getaddrinfo", answer)


def test_a_first_address_that_is_silent_is_overtaken(space: Space, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    space.listen("127.0.0.1", 5000)
    resolve(monkeypatch, ("2001:db8:77::9", 5000), ("203.0.113.9", 5000), ("127.0.0.1", 5000))
    client = call(("many.test", 5000), attempt_delay=0.01)
    assert client.getpeername() == ("127.0.0.1", 5000)
    assert {row.state for row in sockets(space.path)} <= {"LISTEN", "ESTABLISHED", "SYN_RECV"}, "no attempt goes on"


def test_an_address_that_fails_is_followed_at_once(space: Space, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    space.listen("127.0.0.1", 5000)
    resolve(monkeypatch, ("198.51.100.1", 1), ("127.0.0.1", 1), ("127.0.0.1", 5000))
    client = call(("many.test", 5000), attempt_delay=2, timeout=1)
    assert client.getpeername() == ("127.0.0.1", 5000)


def test_of_several_errors_the_one_that_got_furthest_is_raised(
    space: Space, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve(monkeypatch, ("198.51.100.1", 1), ("127.0.0.1", 1))
    with pytest.raises(ConnectRefused) as caught:
        call(("many.test", 1))
    assert [each["errno"] for each in caught.value.report["attempts"]] == ["ENETUNREACH", "ECONNREFUSED"]
    assert caught.value.report["four_tuple"]["daddr"] == "127.0.0.1"


def test_silence_on_all_addresses_is_a_timeout_of_ours(
    space: Space, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve(monkeypatch, ("2001:db8:77::9", 5000), ("203.0.113.9", 5000))
    with pytest.raises(ConnectTimeout) as caught:
        call(("many.test", 5000), attempt_delay=0.01, timeout=0.1)
    assert caught.value.errno == errno.ETIMEDOUT
    assert str(caught.value) == (
        "[Errno 110] not connected within 0.1 s (timeout=) (tried [2001:db8:77::9]:5000 ETIMEDOUT, "
        "203.0.113.9:5000 ETIMEDOUT)"
    )
    assert all(each["local_port"] for each in caught.value.report["attempts"])
    assert len(sockets(space.path)) == 0


def test_families_take_turns() -> None:
    def target(family: int, host: str) -> Target:
        return Target(family, (host, 1))

    six = [target(10, name) for name in ("a::", "b::", "c::")]
    four = [target(2, name) for name in ("1.0.0.0", "2.0.0.0")]
    assert interleave([*six, *four]) == [six[0], four[0], six[1], four[1], six[2]]
    assert interleave([four[0], *six]) == [four[0], *six]


def test_addresses_of_a_family_without_a_source_are_left_out(
    space: Space, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    space.listen("127.0.0.1", 5000)
    resolve(monkeypatch, ("2001:db8:77::9", 5000), ("127.0.0.1", 5000))
    assert call(("many.test", 5000), sources=["127.0.0.5"], timeout=1).getsockname()[0] == "127.0.0.5"
    with pytest.raises(ConnectError) as caught:
        call(("127.0.0.1", 5000), sources=["::1"])
    assert caught.value.errno == errno.EAFNOSUPPORT
    assert str(caught.value) == (
        "[Errno 97] no source is of the family of any address of the destination (destination 127.0.0.1; sources ::1)"
    )


# ------------------------------------------------------------------------------------------ the rest


def test_what_is_returned_carries_bytes(space: Space) -> None:
    listener = space.listen(*SERVER)
    client = space.keep(space.run(lambda: connect(SERVER)))
    server = space.keep(listener.accept()[0])
    assert client.getblocking()
    client.sendall(b"ping")
    assert server.recv(4) == b"ping"


def test_streams_carry_bytes(space: Space) -> None:
    listener = space.listen(*SERVER)

    async def talk() -> bytes:
        reader, writer = await open_connection(SERVER, limit=1 << 10)
        server = space.keep(listener.accept()[0])
        writer.write(b"ping")
        await writer.drain()
        server.sendall(server.recv(4) + b"!\n")
        line = await reader.readline()
        writer.close()
        await writer.wait_closed()
        return line

    assert space.run(lambda: asyncio.run(talk())) == b"ping!\n"


def test_a_cancelled_task_leaves_no_socket(space: Space) -> None:
    async def give_up() -> None:
        task = asyncio.create_task(open_connection(HOLE))
        while len(sockets(states=["SYN_SENT"])) == 0:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    space.run(lambda: asyncio.run(give_up()))
    assert len(sockets(space.path)) == 0


@pytest.mark.parametrize("address", [("127.0.0.1", 1), ("198.51.100.1", 1), SERVER])
def test_no_descriptor_is_lost(space: Space, call: Call, address: tuple[str, int]) -> None:
    space.listen(*SERVER, backlog=1).close()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(ConnectError):
            call(address, sources=None, timeout=0.5)
    assert len(os.listdir("/proc/self/fd")) == before


def test_ipv6_that_is_off_is_not_called_a_lack_of_ports(space: Space, call: Call) -> None:
    space.sysctl("net.ipv6.conf.all.disable_ipv6", 1)
    with pytest.raises(NoLocalPort) as caught:
        call(("::1", 5000))
    assert caught.value.report["reason"] == (
        "this machine has no source address for the destination: IPv6 is off there (disable_ipv6), or lo is down"
    )
    assert caught.value.report["frees"] == [
        "net.ipv6.conf.lo.disable_ipv6=0 and `ip link set lo up`, or 127.0.0.1 in place of ::1"
    ]


def test_no_route_has_the_kernels_errno(space: Space, call: Call) -> None:
    with pytest.raises(NoRoute) as caught:
        call(("198.51.100.1", 443))
    assert caught.value.errno == errno.ENETUNREACH


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"timeout": 0}, "timeout must be more than 0 seconds"),
        ({"attempt_delay": 5}, "attempt_delay must be 0.01 to 2 seconds"),
        ({"retries": -1}, "retries must not be negative"),
        ({"port_range": (5, 4)}, "port_range must be"),
        ({"port_range": (0, 70000)}, "port_range must be"),
        ({"sources": "10.0.0.1"}, "sources must be a list"),
        ({"sources": []}, "sources is empty"),
        ({"sources": ["example"]}, "'example' is no IPv4 or IPv6 address"),
    ],
)
def test_arguments_that_mean_nothing_are_refused(call: Call, wrong: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        call(("127.0.0.1", 1), **wrong)
