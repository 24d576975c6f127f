"""Stack: results, handles, columns and the verbs on them, on the simulated wire; its peer is looked at directly."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from itertools import islice
from typing import Any

import pytest

from fourtuple.address import parse_ipv4
from fourtuple.dial.dialer import OPEN
from fourtuple.dial.plan import DialPlan, Target
from fourtuple.dial.stack import Result, Stack, routes_of
from fourtuple.dial.user import run_user
from fourtuple.host import Host
from fourtuple.phy.fault import parse_loss
from fourtuple.shell.netns import Server
from fourtuple.shell.sim_wire import open_sim
from fourtuple.shell.wire import OUR_ADDRESS, PEER_ADDRESS, Setup
from fourtuple.tcp.states import TCP_ESTABLISHED

PORT = 8080
TARGET = (PEER_ADDRESS, PORT)
NOBODY = (PEER_ADDRESS, 9)
HOLE = ("203.0.113.7", 80)  # the simulated peer does not answer for it


def open_stack(*servers: Server, **rest: Any) -> Stack:
    return Stack(open_sim(Setup(servers or (Server(*TARGET, "hold"),), seed=1, rtt_us=1000, **rest)))


@pytest.fixture
def stack() -> Iterator[Stack]:
    with open_stack() as opened:
        yield opened
        opened.close_all(reset=True)
        check_empty(opened)


def peer_of(stack: Stack) -> Host:
    return stack.runner.stations[1].host


def check_empty(stack: Stack) -> None:
    d, net = stack.dialer, stack.host.net
    stack.wait(130)
    assert (d.in_flight, d.open, d.noted, d.others, d.readable) == (0, 0, 0, [], [])
    assert (stack.sockets, stack.time_waits, net.wheel.armed, net.orphans) == (0, 0, 0, 0)
    assert (net.h.ehash.entries(), sum(net.h.bind.owners), net.h.dests.used, len(net.cold)) == ([], 0, 0, 0)


def handles(results: list[Result]) -> list[int]:
    assert {result.errno for result in results} == {0}
    return [result.handle for result in results]


def established_there(stack: Stack) -> int:
    return int(peer_of(stack).net.mib.TcpCurrEstab)


def connect(stack: Stack, count: int = 1, **rest: Any) -> list[int]:
    found = handles(list(stack.connect_many([TARGET], count, **rest)))
    stack.wait(0.002)  # until the last ACK has arrived
    return found


# ---------------------------------------------------------------------------------------------- connect_many


def test_each_attempt_has_one_result(stack: Stack) -> None:
    found = list(stack.connect_many([TARGET, NOBODY], 300))
    stack.wait(0.01)
    assert [result.errno for result in found].count(0) == 150
    assert [result.errno for result in found].count(errno.ECONNREFUSED) == 150
    assert len({result.handle for result in found if not result.errno}) == 150 == established_there(stack)
    assert set(stack.connections) == {result.handle for result in found if not result.errno}


def test_no_more_than_the_window_is_in_flight(stack: Stack) -> None:
    seen = set()
    for _ in stack.connect_many([TARGET], 50, window=7):
        seen.add(stack.dialer.in_flight)
    assert max(seen) <= 7
    assert len(stack.connections) == 50


def test_lost_syns_do_not_hold_up_the_others() -> None:
    with open_stack() as stack:
        begun = stack.runner.now_us()
        found = stack.connect_many([HOLE] * 9 + [TARGET], 1000, window=10, timeout=8.0)
        assert [result.errno for result in islice(found, 100)] == [0] * 100
        assert stack.runner.now_us() - begun < 3_100_000  # 100 windows of 20 to 30 ms
        assert [result.errno for result in found] == [errno.ETIMEDOUT] * 900


def test_a_timeout_is_kept_within_an_eighth(stack: Stack) -> None:
    begun = stack.runner.now_us()
    assert {result.errno for result in stack.connect_many([HOLE], 3, timeout=1.0)} == {errno.ETIMEDOUT}
    assert 1_000_000 <= stack.runner.now_us() - begun <= 1_125_000


def test_whoever_stops_iterating_stops_dialing_and_the_next_call_has_its_own_results_only(stack: Stack) -> None:
    first = list(islice(stack.connect_many([TARGET], 1000, window=20), 5))
    begun = stack.dialer.begun
    assert begun <= 45 and len(first) == 5
    second = connect(stack, 30)
    assert len(second) == 30 and not set(second) & {result.handle for result in first}
    stack.wait(0.1)
    assert len(stack.connections) == begun + 30 == established_there(stack)


def test_a_stop_with_attempts_in_flight_leaves_them_to_later_calls(stack: Stack) -> None:
    iterator = stack.connect_many([HOLE, TARGET], 10, window=10)
    assert next(iterator).errno == 0
    iterator.close()
    assert (stack.dialer.in_flight, len(stack.connections)) == (5, 5)
    assert len(connect(stack, 3)) == 3  # and not those of before
    assert (stack.dialer.in_flight, len(stack.connections)) == (5, 8)
    earlier = stack._in_flight()
    late = list(stack.connect_many([HOLE], 3, timeout=0.5))  # the five end in the meantime
    assert [result.errno for result in late] == [errno.ETIMEDOUT] * 3
    assert not earlier & {result.handle for result in late}
    stack.close_all()
    assert stack.sockets == 0


def test_connections_can_be_closed_while_others_are_opened(stack: Stack) -> None:
    for handle, error in stack.connect_many([TARGET], 200, window=16):
        assert error == 0 == stack.close(handle)
    assert (stack.dialer.closed, len(stack.connections)) == (200, 0)


def test_no_room_is_said_after_all_results() -> None:
    with open_stack(max_sockets=10) as stack:
        iterator = stack.connect_many([TARGET], 100)
        assert len(handles(list(islice(iterator, 10)))) == 10
        with pytest.raises(OSError) as caught:
            next(iterator)
        assert caught.value.errno == errno.ENOBUFS
        assert (len(stack.connections), stack.dialer.in_flight) == (10, 0)
        stack.close_all(reset=True)
        check_empty(stack)


def test_rows_of_attempts_that_failed_are_used_again() -> None:
    with open_stack(max_sockets=10) as stack:
        found = list(stack.connect_many([NOBODY], 100))
        assert [result.errno for result in found] == [errno.ECONNREFUSED] * 100


def test_sources_take_turns_and_have_their_own_ports() -> None:
    ports = {"net.ipv4.ip_local_port_range": "40000 40003"}
    with open_stack(sources=("10.99.0.0/30",), sysctls=ports) as stack:
        sources = [f"10.99.0.{i}" for i in (1, 2)]
        opened = connect(stack, 8, sources=sources)
        seen = [stack.connections.column(name)[handle & 0xFFFFFFFF] for handle in opened for name in ("saddr", "sport")]
        assert sorted(zip(seen[::2], seen[1::2], strict=True)) == [
            (parse_ipv4(source), port) for source in sources for port in range(40000, 40004)
        ]
        (full,) = stack.connect_many([TARGET], 1, sources=sources[:1])
        assert full.errno == errno.EADDRNOTAVAIL


def test_neighbouring_routes_differ_in_their_target() -> None:
    found = routes_of([("10.0.0.1", 1), ("10.0.0.2", 2)], ["10.0.1.1", "10.0.1.2"])
    assert [(saddr & 0xFF, daddr & 0xFF, dport) for saddr, daddr, dport in found] == [
        (1, 1, 1),
        (1, 2, 2),
        (2, 1, 1),
        (2, 2, 2),
    ]
    assert len(routes_of([("10.0.0.1", 1)], ["10.0.1.1", "10.0.1.2"], 1)) == 1
    with pytest.raises(ValueError, match="route"):
        list(open_stack().connect_many([], 1))


# ---------------------------------------------------------------------------------------------- handles and columns


def test_columns_say_what_the_engine_has_and_cannot_be_written(stack: Stack) -> None:
    opened = connect(stack, 20)
    table = stack.connections
    rows = [handle & 0xFFFFFFFF for handle in opened]
    assert [len(table.column(name)) for name in ("sport", "phase")] == [table.rows + 1] * 2
    ports = {table.column("sport")[row] for row in rows}
    theirs = {row.rport for row in peer_of(stack).sockets() if row.state == "ESTABLISHED"}
    assert ports == theirs and len(ports) == 20
    assert {table.column("daddr")[row] for row in rows} == {parse_ipv4(PEER_ADDRESS)}
    assert {table.column("saddr")[row] for row in rows} == {parse_ipv4(OUR_ADDRESS)}
    assert {table.column("dport")[row] for row in rows} == {PORT}
    assert {table.column("sk_state")[row] for row in rows} == {TCP_ESTABLISHED}
    assert {table.column("phase")[row] for row in rows} == {OPEN}
    assert {table.column("srtt")[row] // 8 for row in rows} == {1000} == {table.rtt_us(handle) for handle in opened}
    for name, _ in table.NAMES:
        with pytest.raises(TypeError):
            table.column(name)[1] = 0
    with pytest.raises(KeyError, match="no column 'speed'"):
        table.column("speed")


def test_a_handle_of_before_is_nobodys(stack: Stack) -> None:
    (first,) = connect(stack)
    assert stack.close(first, reset=True) == 0
    (second,) = connect(stack)
    assert second & 0xFFFFFFFF == first & 0xFFFFFFFF and second != first
    for call in (stack.close, stack.recv, lambda handle: stack.send(handle, b"x")):
        assert call(first) == -errno.ENOTCONN
    assert (stack.connections.rtt_us(first), stack.connections.rtt_us(second)) == (0.0, 1000.0)
    assert list(stack.connections) == [second]


def test_a_handle_of_a_closing_connection_is_nobodys(stack: Stack) -> None:
    (one,) = connect(stack)
    assert stack.close(one) == 0
    assert stack.sockets == 1  # the FIN is under way
    assert (stack.close(one), stack.send(one, b"x"), stack.connections.rtt_us(one)) == (-errno.ENOTCONN,) * 2 + (0.0,)


@pytest.mark.parametrize("handle", [0, 1, 99_999_999, 1 << 32 | 1])
def test_a_number_that_was_never_a_handle(stack: Stack, handle: int) -> None:
    assert (stack.close(handle), stack.recv(handle), stack.connections.rtt_us(handle)) == (-errno.ENOTCONN,) * 2 + (0,)


# ---------------------------------------------------------------------------------------------- data


def test_an_answer_and_the_end_of_the_stream_are_read_as_from_a_socket() -> None:
    with open_stack(Server(*TARGET, "http")) as stack:
        (one,) = connect(stack)
        assert stack.recv(one) == -errno.EAGAIN
        request = b"GET / HTTP/1.1\r\nHost: peer\r\n\r\n"
        assert stack.send(one, request) == len(request)
        stack.wait(0.1)  # the server has closed by now
        assert len(stack.connections) == 1
        data = stack.recv(one)
        assert isinstance(data, bytes) and data.startswith(b"HTTP/1.1 200 OK\r\n")
        assert stack.recv(one) == b""
        assert (stack.recv(one), stack.dialer.lost) == (-errno.ENOTCONN, 1)
        stack.close_all()
        check_empty(stack)


def test_on_readable_hears_of_data() -> None:
    with open_stack(Server(*TARGET, "http")) as stack:
        heard: list[int] = []
        stack.on_readable = heard.append
        opened = connect(stack, 3)
        stack.send(opened[1], b"GET / HTTP/1.1\r\n\r\n")
        stack.wait(0.1)
        assert set(heard) == {opened[1] & 0xFFFFFFFF}


def test_a_peer_that_closes_without_a_word_ends_it(stack: Stack) -> None:
    peer = peer_of(stack)
    (one,) = connect(stack)
    fd = peer.sys_accept(first_listener(peer))
    assert peer.sys_close(fd, now=stack.runner.now_us()) == 0
    stack.wait(0.01)
    assert (stack.recv(one), stack.dialer.lost, list(stack.connections)) == (-errno.ENOTCONN, 1, [])


def first_listener(peer: Host) -> int:
    return min(fd for fd in range(8) if peer.sys_getsockname(fd) != -errno.EBADF)


def test_waiting_ends_in_time_however_much_arrives() -> None:
    with open_stack() as stack:
        stack.runner.apps.append(lambda now: True)  # something moves in every round
        stack.runner.now_us = iter(range(10**9, 10**12, 10_000)).__next__  # type: ignore[method-assign]
        assert stack.wait(1.0) is False
        assert stack.wait(1.0, lambda: True) is True


# ---------------------------------------------------------------------------------------------- keepalive, close


def test_keepalive_is_answered_by_all_that_live(stack: Stack) -> None:
    opened = connect(stack, 300)
    assert stack.keepalive() == 300
    peer = peer_of(stack)
    before = peer.net.mib.TcpInSegs
    stack.close(opened[0])
    stack.wait(0.6)
    assert stack.keepalive() == 299
    assert peer.net.mib.TcpInSegs - before >= 299


def test_keepalive_counts_no_answer_that_did_not_come() -> None:
    with open_stack(loss=parse_loss("tx-ack:4-")) as stack:  # three handshakes, then nothing of ours arrives
        connect(stack, 3)
        assert stack.keepalive(patience=1.0) == 0


@pytest.mark.parametrize("reset", [False, True])
def test_closing_all_ends_both_sides(stack: Stack, reset: bool) -> None:
    connect(stack, 1000)
    assert established_there(stack) == 1000
    assert stack.close_all(reset=reset) == 0
    stack.wait(0.002)
    assert (stack.dialer.closed, len(stack.connections), established_there(stack)) == (1000, 0, 0 if reset else 1000)
    states = {row.state for row in peer_of(stack).sockets()} - {"LISTEN"}
    assert states == (set() if reset else {"CLOSE_WAIT"})  # nobody has accepted and closed them there
    assert stack.time_waits == (0 if reset else 1000)
    assert stack.host.net.mib.TcpOutRsts == (1000 if reset else 0)


def test_closing_gives_up_attempts_in_flight(stack: Stack) -> None:
    assert len(list(islice(stack.connect_many([HOLE, TARGET], 20, window=20), 10))) == 10
    assert stack.close_all() == 0
    assert (stack.dialer.failed, stack.dialer.closed) == (10, 10)


def test_fins_that_nobody_answers_are_waited_for_no_longer_than_the_patience() -> None:
    with open_stack(loss=parse_loss("tx-fin")) as stack:
        connect(stack, 2000)
        begun = stack.runner.now_us()
        assert stack.close_all(patience=3.0) == 2000
        assert 3_000_000 <= stack.runner.now_us() - begun <= 3_000_000 + 8 * 30_000  # 256 FINs in 20 ms
        assert stack.reset_closing() == 2000
        stack.wait(0.1)
        assert (stack.sockets, established_there(stack)) == (0, 0)
        check_empty(stack)


def test_an_iteration_goes_on_after_a_close_of_all(stack: Stack) -> None:
    iterator = stack.connect_many([HOLE, TARGET], 40, window=10)
    found = [next(iterator)]
    stack.close_all()
    found += [next(iterator) for _ in range(9)]
    assert sorted(result.errno for result in found) == [0] * 5 + [errno.ECANCELED] * 5


@pytest.mark.parametrize(
    ("port", "count", "wrong"),
    [
        (70000, 1, {}),  # not port 4464, to which it would shrink in 16 bits
        (-1, 1, {}),
        (8080, -1, {}),
        (8080, 1, {"window": 0}),
        (8080, 1, {"timeout": -0.1}),
    ],
)
def test_what_nobody_can_mean_is_a_value_error(stack: Stack, port: int, count: int, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"at least|no port"):
        next(stack.connect_many([(PEER_ADDRESS, port)], count, **wrong))
    assert stack.dialer.begun == 0


def test_no_connections_are_no_results(stack: Stack) -> None:
    assert list(stack.connect_many([TARGET], 0)) == []


def test_a_timeout_below_the_clock_is_one_all_the_same(stack: Stack) -> None:
    begun = stack.runner.now_us()
    (result,) = stack.connect_many([HOLE], 1, timeout=1e-6)
    assert (result.errno, stack.runner.now_us() - begun < 1_000_000) == (errno.ETIMEDOUT, True)  # not TCP's 131 s


def test_a_second_iteration_inside_the_first_is_refused(stack: Stack) -> None:
    first = stack.connect_many([TARGET], 20, window=4)
    next(first)
    with pytest.raises(RuntimeError, match="another connect_many"):
        next(stack.connect_many([HOLE], 20))
    assert [result.errno for result in first] == [0] * 19
    assert len(list(stack.connect_many([TARGET], 3))) == 3


def test_no_more_begin_at_once_than_answers_are_read(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else answers lie unread until their attempts count as lost, and all the others begin beside them."""
    begun: list[int] = []
    one_round = Stack.round

    def count(self: Stack, begin: int = 0) -> bool:
        begun.append(begin)
        return one_round(self, begin)

    monkeypatch.setattr(Stack, "round", count)
    connect(stack, 1000, window=1000)
    assert max(begun) == 256
    begun.clear()
    report = run_user(DialPlan(1000, (Target(*TARGET),), window=1000, wire="sim"), stack.wire)
    assert (report.connections.established, max(begun)) == (1000, 256)


def test_after_its_end_each_handle_is_nobodys() -> None:
    with open_stack() as stack:
        (handle,) = connect(stack)
    gone = -errno.ENOTCONN
    assert (stack.send(handle, b"x"), stack.recv(handle), stack.close(handle)) == (gone, gone, gone)
