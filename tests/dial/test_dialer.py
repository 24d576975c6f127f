"""The Dialer alone, over one Host: packets from a peer made by hand, in any order; nothing it counts may drift."""

from __future__ import annotations

import errno
from array import array
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fourtuple.address import parse_ipv4
from fourtuple.dial.dialer import (
    IN_FLIGHT,
    OPEN,
    Dialer,
    dial_abort,
    dial_answered,
    dial_begin,
    dial_close,
    dial_close_some,
    dial_count_ports,
    dial_next_open,
    dial_probe_some,
    dial_reset_closing,
    dial_sweep,
    dial_take,
)
from fourtuple.host import Host
from fourtuple.tcp.states import TCP_FIN_WAIT2
from fourtuple.wire.build import FLAG_LETTERS, TcpPacket, icmp_packet, parse_packet, tcp_packet

OURS, PEER, OTHER, PORT = "10.9.0.1", "10.9.0.2", "10.9.0.3", 80
START_US = 1_000_000_000
ISS = 7_000
FIN, SYN, RST = (FLAG_LETTERS[letter] for letter in "FSR")
MS = 1_000


@dataclass
class Attempt:
    """What the peer knows of one SYN."""

    syn: TcpPacket
    raw: bytes
    fin_seq: int = field(default=0)
    """Sequence number behind our FIN, when there was one."""
    sent: int = 1
    """How much the peer has sent: its SYN."""

    def packet(self, flags: str, seq: int = 0, payload: bytes = b"") -> bytes:
        syn = self.syn
        ack = self.fin_seq or (syn.seq + 1) & 0xFFFFFFFF
        options: dict[str, Any] = {"mss": 1460} if "S" in flags else {}
        found = tcp_packet(
            syn.dst, syn.src, syn.dport, syn.sport, seq or ISS + self.sent, ack, flags, payload=payload, **options
        )
        self.sent += len(payload) + ("F" in flags)
        return found

    def synack(self) -> bytes:
        return self.packet("SA", ISS)

    def refusal(self) -> bytes:
        return self.packet("RA", ISS)

    def reset(self) -> bytes:
        return self.packet("R")

    def unreachable(self, code: int = 1) -> bytes:
        return icmp_packet(self.syn.dst, self.syn.src, 3, code, payload=self.raw[:28])


class Bench:
    """A Host with a Dialer, a clock, and everything it sent."""

    def __init__(self, max_sockets: int = 64, targets: tuple[str, ...] = (PEER,), **sysctls: str) -> None:
        values = {f"net.ipv4.{name}": value for name, value in sysctls.items()}
        self.host = Host(seed=1, now_us=START_US, max_sockets=max_sockets, sysctl=values)
        self.host.add_link("ft0", addrs=(f"{OURS}/24",))
        self.host.add_route("default", dev="ft0")
        self.now = START_US
        self.ends: list[tuple[int, bool, int]] = []
        routes = [(0, parse_ipv4(target), PORT) for target in targets]
        self.d = Dialer(self.host.net, routes, None, lambda sk, error, was, redials: self._ended(error, was, redials))
        self.attempts: list[Attempt] = []
        self.packets: list[TcpPacket] = []

    def _ended(self, error: int, was_open: bool, redials: int) -> None:
        self.ends.append((error, was_open, redials))

    def call(self, verb: Any, *arguments: Any) -> int:
        self.host.enter(self.now)
        try:
            result = int(verb(self.d, *arguments))
        finally:
            self.host.leave()
        self._transmit()
        return result

    def begin(self, n: int = 1, redials: int = 0) -> list[Attempt]:
        before = len(self.attempts)
        self.call(dial_begin, n, redials)
        return self.attempts[before:]

    def _transmit(self) -> None:
        for sent in self.host.take_packets():
            packet = parse_packet(sent.packet)
            assert isinstance(packet, TcpPacket)
            self.packets.append(packet)
            known = self.attempt_of(packet)
            if packet.flags == SYN and known is None:
                self.attempts.append(Attempt(packet, sent.packet))
            elif known is not None and packet.flags & FIN:
                known.fin_seq = (packet.seq + len(packet.payload) + 1) & 0xFFFFFFFF

    def attempt_of(self, packet: TcpPacket) -> Attempt | None:
        key = packet.sport, packet.dst
        known = [each for each in self.attempts if (each.syn.sport, each.syn.dst) == key]
        if known and packet.flags == SYN and known[-1].syn.seq != packet.seq:
            return None  # the port is used again
        return known[-1] if known else None

    def arrive(self, *packets: bytes, take: bool = True) -> None:
        """All of them in one batch."""
        if packets:
            ring = b"".join(packets)
            lengths = array("I", [len(packet) for packet in packets])
            offsets = array("I", [sum(lengths[:i]) for i in range(len(lengths))])
            self.host.receive(bytearray(ring), offsets, lengths, len(packets), self.now, "ft0")
        self._transmit()
        if take:
            self.call(dial_take)

    def open(self, n: int = 1) -> list[Attempt]:
        found = self.begin(n)
        self.arrive(*(each.synack() for each in found))
        return found

    def pass_time(self, us: int) -> None:
        """Timers run; events are taken."""
        self.now += us
        self.host.handle_timeout(self.now)
        self._transmit()
        self.call(dial_take)

    def phases(self) -> tuple[int, int]:
        """(in flight, open) by the rows."""
        bits = [phase & 3 for phase in self.d.phase]
        return bits.count(IN_FLIGHT), bits.count(OPEN)

    def check(self) -> None:
        """Rules 1 and 2 of the Dialer."""
        d = self.d
        assert d.begun == d.in_flight + d.failed + d.established
        assert d.established == d.open + d.lost + d.closed
        assert self.phases() == (d.in_flight, d.open)
        assert (d.failed, d.lost) == (sum(not was for _, was, _ in self.ends), sum(was for _, was, _ in self.ends))
        assert d.fresh == sum(d.fresh_at) <= d.in_flight
        assert d.stalled == d.in_flight - d.fresh
        assert d.handshake_ns.count == d.established
        assert not d.others

    def check_empty(self) -> None:
        """Nothing is left once TIME_WAIT is over."""
        self.check()
        d, net = self.d, self.host.net
        assert (d.in_flight, d.open, d.noted, d.readable) == (0, 0, 0, [])
        self.call(dial_reset_closing)
        self.pass_time(130_000_000)
        h = net.h
        assert (net.sks.used, net.wheel.armed, h.tw.used, net.orphans) == (0, 0, 0, 0)
        assert (h.ehash.entries(), sum(h.bind.owners), h.dests.used) == ([], 0, 0)
        assert (len(net.cold), net.dirty_count, net.tx.count, net.mib.TcpCurrEstab) == (0, 0, 0, 0)


def outcome(bench: Bench) -> tuple[int, ...]:
    """begun, failed, established, lost, closed."""
    d = bench.d
    return d.begun, d.failed, d.established, d.lost, d.closed


# ---------------------------------------------------------------------------------------------- one thing each


def test_a_syn_ack_opens_a_connection_and_the_time_is_that_of_the_handshake() -> None:
    bench = Bench()
    (one,) = bench.begin()
    assert bench.phases() == (1, 0)
    bench.now += 3_500
    bench.arrive(one.synack())
    bench.check()
    assert outcome(bench) == (1, 0, 1, 0, 0)
    assert bench.d.handshake_ns.minimum() == bench.d.handshake_ns.maximum() == 3_500_000
    assert bench.d.resent == 0


@pytest.mark.parametrize("again", [1, 3])
def test_a_second_syn_ack_opens_nothing(again: int) -> None:
    bench = Bench()
    (one,) = bench.begin()
    bench.arrive(*[one.synack()] * (1 + again))
    bench.check()
    assert outcome(bench) == (1, 0, 1, 0, 0)


def test_a_reset_in_the_batch_of_the_syn_ack_is_a_connection_that_was_lost() -> None:
    bench = Bench()
    (one,) = bench.begin()
    bench.arrive(one.synack(), one.reset())
    bench.check()
    assert (outcome(bench), bench.ends) == ((1, 0, 1, 1, 0), [(errno.ECONNRESET, True, 0)])
    bench.check_empty()


def test_a_fin_in_the_batch_of_the_syn_ack_is_a_connection_that_was_lost() -> None:
    bench = Bench()
    (one,) = bench.begin()
    bench.arrive(one.synack(), one.packet("FA"))
    bench.check()
    assert (outcome(bench), bench.ends) == ((1, 0, 1, 1, 0), [(0, True, 0)])
    bench.arrive(one.packet("A"))  # of our FIN
    bench.check_empty()


def test_data_and_a_fin_in_the_batch_of_the_syn_ack_wait_for_a_reader() -> None:
    bench = Bench()
    bench.d.is_reading = True
    (one,) = bench.begin()
    bench.arrive(one.synack(), one.packet("PA", payload=b"220 hello"), one.packet("FA"))
    bench.check()
    assert (outcome(bench), bench.d.readable) == ((1, 0, 1, 0, 0), [1])


def test_a_fin_without_data_ends_it_for_a_reader_too() -> None:
    bench = Bench()
    bench.d.is_reading = True
    (one,) = bench.open()
    bench.arrive(one.packet("FA"))
    assert (bench.ends, bench.d.readable) == ([(0, True, 0)], [])


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Attempt.refusal, errno.ECONNREFUSED),
        (Attempt.unreachable, errno.EHOSTUNREACH),
        (lambda one: one.unreachable(0), errno.ENETUNREACH),
        (lambda one: one.unreachable(3), errno.ECONNREFUSED),
    ],
)
def test_what_the_network_says_is_the_errno(answer: Any, error: int) -> None:
    bench = Bench()
    (one,) = bench.begin(redials=5)
    bench.arrive(answer(one))
    bench.check()
    assert (outcome(bench), bench.ends) == ((1, 1, 0, 0, 0), [(error, False, 5)])
    bench.check_empty()


def test_an_errno_of_connect_itself_is_a_failure_at_once() -> None:
    bench = Bench(ip_local_port_range="40000 40001")
    bench.begin(5)
    bench.check()
    assert bench.d.failed == 3
    assert bench.ends == [(errno.EADDRNOTAVAIL, False, 0)] * 3
    bench.call(dial_abort, 10)
    bench.check_empty()


def test_no_row_ends_the_round_and_nothing_else() -> None:
    bench = Bench(max_sockets=3)
    assert bench.call(dial_begin, 5, 0) == 3
    bench.check()
    assert outcome(bench) == (3, 0, 0, 0, 0)


def test_a_syn_sent_again_is_counted_and_timed_from_the_first_one() -> None:
    bench = Bench()
    (one,) = bench.begin()
    bench.now += 400_000
    assert bench.call(dial_sweep, 0) == 0
    bench.pass_time(650_000)
    bench.now += 10_000
    bench.arrive(one.synack())
    bench.check()
    assert (bench.d.resent, bench.d.resent_segments, bench.d.noted) == (1, 1, 0)
    assert bench.d.handshake_ns.maximum() == 1_060_000_000


def test_a_slow_answer_leaves_no_stamp_for_the_next_owner_of_the_row() -> None:
    bench = Bench(max_sockets=1)
    (one,) = bench.begin()
    bench.now += 500_000
    bench.call(dial_sweep, 0)
    bench.arrive(one.synack())
    assert bench.d.noted == 0


def test_resent_syns_of_attempts_that_fail_are_counted_as_the_kernel_counts_them() -> None:
    bench = Bench(tcp_syn_retries="2", tcp_syn_linear_timeouts="0")
    bench.begin(3)
    for _ in range(8):
        bench.pass_time(1_000_000)
    bench.check()
    assert bench.ends == [(errno.ETIMEDOUT, False, 0)] * 3
    assert (bench.d.resent, bench.d.resent_segments) == (3, bench.host.net.mib.TcpExtTCPSynRetrans) == (3, 6)


def test_the_sweep_gives_up_what_is_as_old_as_the_timeout_counted_from_the_first_syn() -> None:
    bench = Bench()
    bench.begin(2)
    bench.pass_time(1_200_000)  # both were sent again
    bench.begin(1)
    bench.now += 299_000
    bench.call(dial_sweep, 1_500)
    assert bench.d.failed == 0
    bench.now += 1_000
    bench.call(dial_sweep, 1_500)
    bench.check()
    assert (bench.ends, bench.d.in_flight) == ([(errno.ETIMEDOUT, False, 0)] * 2, 1)


def test_a_sweep_of_many_goes_on_where_it_stopped() -> None:
    bench = Bench(max_sockets=5_000)
    bench.begin(5_000)
    bench.now += 100_000
    failed = []
    while bench.call(dial_sweep, 50):
        failed.append(bench.d.failed)
    assert failed == list(range(512, 5_000, 512))  # no call does more
    assert (bench.d.failed, bench.d.swept) == (5_000, 0)
    bench.check_empty()


def test_attempts_count_as_stalled_after_20_to_30_ms_whatever_happens_to_others() -> None:
    bench = Bench()
    bench.begin(10)
    stalled = []
    for _ in range(4):
        bench.now += 10 * MS
        bench.arrive(*(each.synack() for each in bench.begin(1)))
        bench.check()
        stalled.append(bench.d.stalled)
    assert stalled == [0, 0, 10, 10]
    bench.arrive(bench.attempts[0].synack())
    bench.check()
    assert bench.d.stalled == 9


def test_stalled_is_right_again_after_any_pause() -> None:
    bench = Bench()
    bench.begin(5)
    bench.pass_time(500_000)
    bench.begin(3)
    bench.check()
    assert (bench.d.stalled, bench.d.fresh) == (5, 3)


def test_events_of_other_sockets_go_to_others() -> None:
    bench = Bench()
    fd = bench.host.sys_socket(type=1 | 0o4000, now=bench.now)
    assert fd >= 0
    rows = array("I", [0])
    assert bench.host.connect_many(parse_ipv4(PEER), 99, 1, rows, bench.now) == 1
    bench._transmit()
    bench.arrive(bench.attempts[-1].refusal())
    assert len(bench.d.others) == 1


def test_closing_connections_have_nothing_to_say_to_others() -> None:
    bench = Bench()
    opened = bench.open(3)
    bench.call(dial_close_some, 3, False)
    bench.arrive(*(each.packet("A") for each in opened))
    bench.arrive(opened[0].packet("FA"), opened[1].reset())
    assert bench.d.others == []
    bench.check_empty()


def test_close_begins_anew_behind_the_last_row() -> None:
    bench = Bench()
    bench.open(5)
    assert [bench.call(dial_close_some, 2, True) for _ in range(4)] == [2, 2, 1, 0]
    bench.open(1)
    assert bench.call(dial_close_some, 9, True) == 1
    assert [packet.flags & RST for packet in bench.packets].count(RST) == 6
    bench.check_empty()


def test_only_an_open_connection_can_be_closed() -> None:
    bench = Bench()
    bench.begin()
    assert bench.call(dial_close, 1, False) == -errno.ENOTCONN
    bench.arrive(bench.attempts[0].synack())
    assert bench.call(dial_close, 1, False) == 0
    assert bench.call(dial_close, 1, False) == -errno.ENOTCONN
    bench.check()


def test_what_the_peer_never_acknowledges_is_reset_in_the_end() -> None:
    bench = Bench()
    opened = bench.open(4)
    bench.call(dial_close_some, 3, False)
    bench.arrive(opened[0].packet("A"))
    bench.packets.clear()
    assert bench.call(dial_reset_closing) == 2
    assert [bool(packet.flags & RST) for packet in bench.packets] == [True, True]
    assert bench.phases() == (0, 1)
    bench.call(dial_close_some, 1, True)
    bench.check_empty()


def test_probes_go_to_each_open_connection_once_and_answers_are_told_from_older_acks() -> None:
    bench = Bench()
    opened = bench.open(5)
    bench.now += 5 * MS
    bench.packets.clear()
    assert [bench.call(dial_probe_some, 3) for _ in range(3)] == [3, 2, 0]
    assert len({packet.sport for packet in bench.packets}) == 5
    since = bench.now // MS
    assert bench.call(dial_answered, since) == 0
    bench.arrive(*(each.packet("A") for each in opened[:2]))
    assert bench.call(dial_answered, since) == 2


def test_ports_and_rows_of_open_connections_are_found() -> None:
    bench = Bench(targets=(PEER, OTHER), ip_local_port_range="40000 40001")
    opened = bench.open(4)
    bench.call(dial_close, 2, True)
    ports = array("I", bytes(4 * 65536))
    assert bench.call(dial_count_ports, ports) == sum(ports) == 3
    assert {opened[i].syn.sport for i in (0, 2, 3)} == {port for port in (40000, 40001) if ports[port]}
    assert [bench.call(dial_next_open, row) for row in (0, 1, 2, 3, 4)] == [1, 3, 3, 4, 0]


def test_routes_take_turns_and_are_counted() -> None:
    bench = Bench(targets=(PEER, OTHER))
    bench.begin(5)
    assert list(bench.d.route_begun) == [3, 2]
    assert [each.syn.dst for each in bench.attempts] == [parse_ipv4(at) for at in (PEER, OTHER, PEER, OTHER, PEER)]


def test_an_attempt_that_is_given_up_says_nothing_to_the_peer() -> None:
    bench = Bench()
    bench.begin(3)
    bench.packets.clear()
    assert [bench.call(dial_abort, 2), bench.call(dial_abort, 2), bench.call(dial_abort, 2)] == [2, 1, 0]
    assert (bench.packets, bench.ends) == ([], [(errno.ECANCELED, False, 0)] * 3)
    bench.arrive(bench.attempts[0].synack())
    assert [packet.flags for packet in bench.packets] == [RST]
    bench.check_empty()


def test_state_of_a_closing_connection_goes_its_own_way() -> None:
    bench = Bench(tcp_fin_timeout="200")  # longer than TIME_WAIT: the row stays until the rest is short enough
    (one,) = bench.open()
    bench.call(dial_close, 1, False)
    bench.arrive(one.packet("A"))
    assert bench.host.net.sks.sk_state[1] == TCP_FIN_WAIT2
    bench.arrive(one.packet("FA"))
    assert (bench.host.net.sks.used, bench.host.net.h.tw.used) == (0, 1)
    bench.check_empty()


# ---------------------------------------------------------------------------------------------- in any order

PACKETS = ("synack", "refusal", "reset", "unreachable", "ack", "fin", "data", "data+fin")
STEP = st.one_of(
    st.tuples(st.just("begin"), st.integers(1, 6)),
    st.tuples(st.just("arrive"), st.lists(st.tuples(st.sampled_from(PACKETS), st.integers(0, 30)), max_size=4)),
    st.tuples(st.just("answer"), st.integers(1, 6)),
    st.tuples(st.just("pass"), st.sampled_from([1, 7 * MS, 25 * MS, 450 * MS, 1_100 * MS, 9_000 * MS])),
    st.tuples(st.just("sweep"), st.sampled_from([0, 5, 500])),
    st.tuples(st.just("close"), st.tuples(st.integers(1, 4), st.booleans())),
    st.tuples(st.just("close one"), st.tuples(st.integers(1, 20), st.booleans())),
    st.tuples(st.just("abort"), st.integers(1, 3)),
    st.tuples(st.just("probe"), st.integers(1, 9)),
    st.tuples(st.just("read"), st.booleans()),
)


def packet_of(one: Attempt, kind: str) -> list[bytes]:
    if kind == "data+fin":
        return [one.packet("PA", payload=b"x" * 9), one.packet("FA")]
    if kind in ("ack", "fin", "data"):
        flags, payload = {"ack": ("A", b""), "fin": ("FA", b""), "data": ("PA", b"hello")}[kind]
        return [one.packet(flags, payload=payload)]
    return [getattr(one, kind)()]


def do(bench: Bench, kind: str, how: Any) -> None:
    if kind == "begin":
        bench.begin(how)
    elif kind == "arrive":
        known = [(bench.attempts[i], what) for what, i in how if i < len(bench.attempts)]
        bench.arrive(*(packet for one, what in known for packet in packet_of(one, what)))
    elif kind == "answer":
        bench.arrive(*(one.synack() for one in bench.attempts[-how:]))
    elif kind == "pass":
        bench.pass_time(how)
    elif kind == "close":
        bench.call(dial_close_some, *how)
    elif kind == "close one":
        bench.call(dial_close, *how)
    elif kind == "read":
        bench.d.is_reading = how
        bench.d.readable = []
    else:
        bench.call({"sweep": dial_sweep, "abort": dial_abort, "probe": dial_probe_some}[kind], how)


@given(st.lists(STEP, max_size=25), st.sampled_from(["32768 60999", "40000 40004"]))
def test_nothing_is_lost_or_counted_twice_in_any_history(steps: list[tuple[str, Any]], ports: str) -> None:
    bench = Bench(max_sockets=20, targets=(PEER, OTHER), ip_local_port_range=ports)
    for kind, how in steps:
        do(bench, kind, how)
        bench.check()
    bench.d.readable = []
    bench.call(dial_abort, 100)
    bench.call(dial_close_some, 100, False)
    bench.call(dial_close_some, 100, False)
    bench.check_empty()
