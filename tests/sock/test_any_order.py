"""Whatever a program calls and a peer sends, in any order: no exception, and nothing is left when all is closed."""

from __future__ import annotations

from array import array

from hypothesis import given, settings
from hypothesis import strategies as st

from fourtuple.address import parse_ipv4
from fourtuple.host import EVENT_BITS, Host
from fourtuple.sock.af_inet import pack_sockaddr_in
from fourtuple.sock.wait import Wait
from tests.kernel.oracle import ko

PLACES = (
    ("10.9.0.2", 80), ("10.9.0.2", 81), ("127.0.0.1", 7000), ("127.0.0.1", 9), ("10.9.0.1", 7000), ("10.9.0.1", 0),
    ("0.0.0.0", 7000), ("0.0.0.0", 0), ("10.7.0.1", 80), ("224.0.0.1", 80),
)  # fmt: skip
ADDRESSES = [pack_sockaddr_in(parse_ipv4(host), port) for host, port in PLACES] + [b"\0\0", b"\2\0", b""]
SOCKETS = st.integers(3, 8)
CALLS = st.one_of(
    st.tuples(st.just("socket"), st.booleans()),
    st.tuples(st.sampled_from(["connect", "bind"]), SOCKETS, st.sampled_from(ADDRESSES)),
    st.tuples(st.sampled_from(["listen", "accept", "close", "dup", "recv", "recverr"]), SOCKETS),
    st.tuples(st.just("shutdown"), SOCKETS, st.integers(0, 2)),
    st.tuples(st.just("send"), SOCKETS, st.integers(0, 100_000)),
    st.tuples(st.just("option"), SOCKETS, st.sampled_from([(1, 2), (1, 15), (1, 9), (6, 1), (6, 3), (6, 12), (0, 24)])),
    st.tuples(st.just("linger"), SOCKETS, st.integers(0, 1)),
    st.tuples(st.just("peer"), st.sampled_from(["SA", "RA", "A", "FA", "S", "R", "SFA", ""]), st.integers(-1, 2)),
    st.tuples(st.just("signal"), st.booleans()),
    st.tuples(st.just("time"), st.sampled_from([1_000, 250_000, 1_100_000, 61_000_000])),
)


class World:
    """A Host, its sleeping calls, and the last SYN seen, which the peer answers."""

    def __init__(self):
        self.host = Host(now_us=1_000_000)
        self.host.add_link("tun0", 1500, ["10.9.0.1/24"])
        self.waits = []
        self.last = None

    def step(self, call, *arguments):
        result = getattr(self, "do_" + call)(*arguments)
        if isinstance(result, Wait):
            self.waits.append(result)
        self.waits = [wait for wait in self.waits if not wait.is_done() and wait.poll() is not None]
        for sent in self.host.take_packets():
            packet = ko.Pkt(sent.time_us, sent.packet)
            if packet.flags and "S" in packet.flags:
                self.last = packet

    def do_socket(self, nonblock):
        return self.host.sys_socket(2, 1 | (0o4000 if nonblock else 0)) if len(self.host.task.files.table) < 6 else 0

    def do_connect(self, fd, address):
        return self.host.sys_connect(fd, address)

    def do_bind(self, fd, address):
        return self.host.sys_bind(fd, address)

    def do_listen(self, fd):
        return self.host.sys_listen(fd, 1)

    def do_accept(self, fd):
        return self.host.sys_accept(fd)

    def do_close(self, fd):
        return self.host.sys_close(fd)

    def do_dup(self, fd):
        return self.host.sys_dup(fd) if len(self.host.task.files.table) < 6 else 0

    def do_recv(self, fd):
        return self.host.sys_recv(fd, 1000)

    def do_recverr(self, fd):
        return self.host.sys_recv_errqueue(fd)

    def do_shutdown(self, fd, how):
        return self.host.sys_shutdown(fd, how)

    def do_send(self, fd, size):
        return self.host.sys_send(fd, bytes(size))

    def do_option(self, fd, option):
        return self.host.sys_setsockopt(fd, *option, b"\1\0\0\0")

    def do_linger(self, fd, seconds):
        return self.host.sys_setsockopt(fd, 1, 13, b"\1\0\0\0" + bytes([seconds, 0, 0, 0]))

    def do_peer(self, flags, ahead):
        if self.last is not None:
            p = self.last
            self.host.receive_packet(ko.tcp4(p.dst, p.src, p.dport, p.sport, 5000, p.seq + 1 + ahead, flags))

    def do_signal(self, restart):
        if self.waits:
            self.waits[0].signal(restart)

    def do_time(self, us):
        self.host.handle_timeout(self.host.now_us + us)
        for wait in self.waits:
            wait.poll(self.host.now_us)

    def close_all(self):
        """Every descriptor and every sleeping call, then time for all that TCP still has to say."""
        for _ in range(3):
            for fd in list(self.host.task.files.table):
                self.host.sys_close(fd)
            for wait in self.waits:
                wait.signal(False)
            self.waits = []
        for _ in range(200):
            self.host.handle_timeout(self.host.now_us + 60_000_000)


@settings(max_examples=150)
@given(st.lists(CALLS, min_size=5, max_size=40))
def test_nothing_raises_and_nothing_is_left(calls):
    world = World()
    world.step("socket", True)
    for call in calls:
        world.step(*call)
    world.close_all()
    net = world.host.net
    assert net.sks.used == 0
    assert net.h.tw.used == 0
    assert net.wheel.armed == 0
    assert net.cold == {}
    assert net.requests == {}
    assert net.orphans == 0


def test_closing_very_many_connections_without_asking_for_events_overflows_nothing() -> None:
    host = Host(seed=3, now_us=1_000_000, max_sockets=64)
    host.add_link("tun0", addrs=["10.9.0.1/24"])
    rows = array("Q", bytes(8 * 64))
    for _ in range(40):  # many more events than there are rows
        assert host.connect_many(0x0A090002, 80, 64, rows) == 64
        for sk in rows:
            host.close_row(sk)
        host.take_packets()
    assert host.connect_many(0x0A090002, 80, 1, rows) == 1
    seen = array("Q", bytes(8 * 64))
    count = host.events(seen)
    assert len({event >> EVENT_BITS for event in seen[:count]}) == count <= 1
