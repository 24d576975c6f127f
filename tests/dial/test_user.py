"""A dial over our own stack, on the simulated wire: pace, phases, redials, talk, and whether the report is true."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest

from fourtuple.address import parse_ipv4
from fourtuple.dial.plan import DialPlan, Talk, Target, http_get
from fourtuple.dial.report import DialReport, Progress
from fourtuple.dial.user import Pace, UserDial
from fourtuple.dial.wiring import Wiring, setup_of
from fourtuple.host import Host
from fourtuple.phy.fault import parse_loss
from fourtuple.shell.sim_wire import open_sim
from fourtuple.shell.wire import PEER_ADDRESS, Wire
from fourtuple.sock.af_inet import pack_sockaddr_in
from fourtuple.sock.syscall import SOCK_NONBLOCK, SOCK_STREAM

PORT, TALKS = 8080, 7
TARGET = Target(PEER_ADDRESS, PORT)
NOBODY = Target(PEER_ADDRESS, 9)
HOLE = Target("203.0.113.7", 80)  # the simulated peer does not answer for it
S = 1_000_000


@dataclass
class Peer:
    """A server on the simulated peer, port 7: what it says when it is asked, and when."""

    answer: Callable[[bytes], bytes] = bytes.upper
    delay_us: int = 0
    greeting: bytes = b""
    most: int = 1 << 30
    """Requests until it closes."""
    host: Host = field(init=False)
    open: dict[int, int] = field(default_factory=dict)
    """Descriptor -> requests of it."""
    due: list[tuple[int, int, bytes]] = field(default_factory=list)

    def start(self, wire: Wire) -> None:
        self.host = wire.runner.stations[1].host
        self.listener = self.host.sys_socket(type=SOCK_STREAM | SOCK_NONBLOCK)
        assert self.host.sys_bind(self.listener, pack_sockaddr_in(parse_ipv4(PEER_ADDRESS), TALKS)) == 0
        assert self.host.sys_listen(self.listener, 4096) == 0
        wire.runner.apps.append(self)

    def __call__(self, now: int) -> bool:
        while (fd := self.host.sys_accept(self.listener, SOCK_NONBLOCK, now=now)) >= 0:
            self.open[fd] = 0
            self._say(fd, self.greeting, now)
        for fd in list(self.open):
            data = self.host.sys_recv(fd, 1 << 20, now=now)
            if isinstance(data, bytes):
                self._hear(fd, data, now)
        while self.due and self.due[0][0] <= now:
            _, fd, text = self.due.pop(0)
            self._say(fd, text, now)
        return False

    def _hear(self, fd: int, data: bytes, now: int) -> None:
        self.open[fd] += 1
        if data:
            self.due.append((now + self.delay_us, fd, self.answer(data)))
        if not data or self.open[fd] >= self.most:
            self._say(fd, self.answer(data) if data else b"", now)
            self.due = [one for one in self.due if one[1] != fd]
            del self.open[fd]
            self.host.sys_close(fd, now=now)

    def _say(self, fd: int, text: bytes, now: int) -> None:
        if text:
            self.host.sys_send(fd, text, now=now)


@dataclass
class Ran:
    """A dial that is over, and what it said on the way."""

    report: DialReport
    dial: UserDial
    progress: list[Progress]
    wire: Wire


def plan_for(connections: int, *targets: Target, **rest: Any) -> DialPlan:
    return DialPlan(connections, targets or (TARGET,), wire="sim", **({"seed": 1} | rest))


def run(
    plan: DialPlan,
    loss: str = "",
    rtt_us: int = 1000,
    peer: Peer | None = None,
    stop: Callable[[UserDial], bool] = lambda dial: False,
    each: Callable[[UserDial], None] = lambda dial: None,
) -> Ran:
    """Dial; the accounts must be right at every progress call and in the end, and nothing may be left."""
    wiring = Wiring(((PEER_ADDRESS, PORT),), loss=parse_loss(loss) if loss else (), rtt_us=rtt_us)
    wire = open_sim(setup_of(plan, wiring))
    if peer is not None:
        peer.start(wire)
    seen: list[Progress] = []

    def on_progress(now: Progress) -> None:
        seen.append(now)
        d = dial.dialer
        assert now.begun == now.in_flight + now.failed + d.established
        assert d.established == now.open + now.lost + d.closed
        each(dial)

    dial = UserDial(plan, wire, on_progress, lambda: stop(dial))
    ran = Ran(dial.run(), dial, seen, wire)
    check(ran)
    return ran


def check(ran: Ran) -> None:
    report, counts = ran.report, ran.report.connections
    assert counts.begun == counts.failed + counts.established
    assert counts.established == counts.lost + counts.closed
    assert counts.failed == sum(one.count for one in report.failures if one.phase == "connect")
    assert counts.lost == sum(one.count for one in report.failures if one.phase == "open")
    assert counts.failed == sum(one.failed for one in report.targets)
    assert counts.established == sum(one.established for one in report.targets)
    assert report.times.handshake_us.count == counts.established
    assert report.syn.sent_again_segments == report.counters.get("TcpExt.TCPSynRetrans", 0)
    last = report.timeline[-1]
    assert last[1:4] == [counts.begun, counts.established, counts.failed]
    assert all(a[i] <= b[i] for a, b in pairwise(report.timeline) for i in range(4))
    check_nothing_left(ran)
    assert DialReport.from_json(report.to_json()).connections == counts


def check_nothing_left(ran: Ran) -> None:
    stack, net = ran.dial.stack, ran.wire.host.net
    assert (stack.sockets, net.orphans, net.tx.count, len(net.cold)) == (0, 0, 0, 0)
    assert net.wheel.armed == sum(timer != 0 for timer in net.h.tw.timer) <= stack.time_waits
    assert (ran.dial.dialer.noted, ran.dial.dialer.others, ran.dial.dialer.readable) == (0, [], [])
    assert not ran.dial.talker or not ran.dial.talker._turns


def failures(report: DialReport) -> dict[tuple[str, str], int]:
    return {(one.errno, one.phase): one.count for one in report.failures}


# ---------------------------------------------------------------------------------------------- pace


def test_the_rate_is_kept_from_the_first_connection_on() -> None:
    pace = Pace(plan_for(1000, rate=100), 5 * S)
    assert [pace.scheduled(5 * S + at) for at in (0, S // 100, S, 3 * S)] == [1, 2, 101, 301]
    pace.begun = 1
    assert pace.next_us(5 * S) == 5 * S + 10_000


def test_a_ramp_is_half_the_rate_on_average() -> None:
    pace = Pace(plan_for(10_000, rate=100, ramp_s=10), 0)
    assert [pace.scheduled(at * S) for at in (0, 5, 10, 11)] == [1, 1 + 125, 1 + 500, 1 + 600]


def test_what_may_begin_is_the_least_of_window_rest_and_rate() -> None:
    pace = Pace(plan_for(1000, rate=100, window=20), 0)
    pace.begun = 10
    assert [pace.allowed(busy, S) for busy in (0, 15, 20, 25)] == [20, 5, 0, 0]
    assert [pace.allowed(0, at * S // 100) for at in (9, 10, 12)] == [0, 1, 3]
    pace.begun = 995
    assert pace.allowed(0, 100 * S) == 5


@pytest.mark.parametrize(("rate", "ramp", "seconds"), [(100, 0, 4.99), (1000, 0, 0.499), (100, 4, 6.99), (0.5, 0, 998)])
def test_a_dial_takes_as_long_as_its_rate_says(rate: float, ramp: float, seconds: float) -> None:
    ran = run(plan_for(500, rate=rate, ramp_s=ramp), rtt_us=0)
    assert ran.report.seconds.open == pytest.approx(seconds, rel=0.005, abs=0.002)
    assert ran.report.connections.established == 500


def test_the_timeline_shows_the_rate() -> None:
    ran = run(plan_for(1000, rate=100))
    rows = ran.report.timeline
    assert [round(row[0]) for row in rows[:9]] == list(range(1, 10))
    assert all(abs(row[2] - 100 * row[0]) <= 2 for row in rows[:9])


def test_no_more_than_the_window_is_in_flight() -> None:
    ran = run(plan_for(500, window=8, rate=500), each=lambda dial: None)
    assert max(now.in_flight for now in ran.progress) <= 8


# ---------------------------------------------------------------------------------------------- phases


def test_progress_comes_ten_times_a_second_and_names_the_phase() -> None:
    ran = run(plan_for(100, rate=100, hold_s=2))
    assert [now.phase for now in ran.progress].count("hold") in (19, 20)
    assert all(0.09 < b.seconds - a.seconds < 0.16 for a, b in pairwise(ran.progress))
    assert ran.progress[5].rate == pytest.approx(100, rel=0.1)


def test_hold_is_as_long_as_asked_and_all_stay_open() -> None:
    ran = run(plan_for(100, hold_s=3.25))
    report = ran.report
    assert report.seconds.hold == pytest.approx(3.25, abs=0.001)
    assert {now.open for now in ran.progress if now.phase == "hold"} == {100}
    assert report.seconds.total == pytest.approx(sum((report.seconds.open, report.seconds.hold, report.seconds.close)))
    assert (report.connections.peak_open, report.connections.closed, report.exit) == (100, 100, 0)
    assert (report.left.sockets, report.left.timers, report.left.packets) == (0, 0, 0)


def test_a_stop_while_opening_closes_what_is_open() -> None:
    plan = plan_for(1000, TARGET, HOLE, rate=100, hold_s=30, window=500)
    report = run(plan, stop=lambda dial: dial._seconds() > 2).report
    assert (report.seconds.open, report.seconds.hold) == (pytest.approx(2, abs=0.1), 0)
    assert failures(report) == {("ECANCELED", "connect"): report.connections.failed}
    assert report.targets[1].failed == pytest.approx(100, abs=5)
    assert report.connections.closed == report.targets[0].established == pytest.approx(100, abs=5)


def test_a_stop_while_holding_ends_the_hold() -> None:
    report = run(plan_for(100, hold_s=30), stop=lambda dial: dial._seconds() > 2).report
    assert report.seconds.hold == pytest.approx(2, abs=0.1)
    assert (report.connections.closed, report.exit) == (100, 0)


def test_a_stop_while_closing_waits_no_longer_and_resets_what_is_left() -> None:
    def stop(dial: UserDial) -> bool:
        return dial.phase == "close" and dial._seconds() > 0.05

    ran = run(plan_for(2000, window=2000), loss="tx-fin", stop=stop)
    assert ran.report.seconds.close < 0.1
    assert 0 < ran.report.left.sockets < 2000
    assert ran.report.connections.closed == 2000
    ran.dial.stack.wait(1)
    assert peer_established(ran) == 0


def peer_established(ran: Ran) -> int:
    return int(ran.wire.runner.stations[1].host.net.mib.TcpCurrEstab)


def test_fins_without_an_answer_are_left_then_reset_after_ten_seconds() -> None:
    ran = run(plan_for(50), loss="tx-fin")
    assert ran.report.seconds.close == pytest.approx(10, abs=0.1)
    assert (ran.report.left.sockets, ran.report.left.timers) == (50, 50)
    assert ran.report.counters["Tcp.OutRsts"] == 50
    ran.dial.stack.wait(1)
    assert peer_established(ran) == 0


def test_close_by_rst() -> None:
    ran = run(plan_for(50, close="rst"))
    assert (ran.report.counters["Tcp.OutRsts"], ran.dial.stack.time_waits) == (50, 0)


@pytest.mark.parametrize(("rate", "ramp"), [(0.3, 0.0), (50.0, 0.0), (7e6, 0.0), (300.0, 2.0), (1e7, 3600.0)])
def test_the_time_to_look_again_is_that_of_the_next_one(rate: float, ramp: float) -> None:
    pace = Pace(plan_for(500, TARGET, rate=rate, ramp_s=ramp, window=500), start_us=77)
    now, looks = 77, 0
    while pace.begun < 500 and looks < 700:
        pace.begun += pace.allowed(0, now)
        due = pace.next_us(now)
        assert due - now == 50_000 or pace.begun == 500 or pace.allowed(0, due) >= 1
        assert due - now <= 3 or pace.allowed(0, due - 2) == 0  # rounding
        now, looks = due, looks + (due - now < 50_000)
    assert pace.begun == 500  # not a look each microsecond


# ---------------------------------------------------------------------------------------------- failures, redials


def test_failures_are_counted_by_target_and_reason() -> None:
    ran = run(plan_for(90, TARGET, NOBODY, HOLE, timeout_s=1.0))
    report = ran.report
    assert failures(report) == {("ECONNREFUSED", "connect"): 30, ("ETIMEDOUT", "connect"): 30}
    assert [(one.established, one.failed) for one in report.targets] == [(30, 0), (0, 30), (0, 30)]
    refused, late = sorted(report.failures, key=lambda one: one.first_s)
    assert (refused.errno, refused.function, late.errno) == ("ECONNREFUSED", "tcp_reset", "ETIMEDOUT")
    # TCP would have gone on: none of its functions has said so.
    assert (late.function, late.meaning) == ("", "not connected within 1 s, the timeout of this dial")
    assert 1.0 <= late.first_s <= 1.2
    assert (report.exit, report.connections.peak_open) == (10, 30)


@pytest.mark.parametrize(("timeout", "syns"), [(0.5, 0), (2.5, 2), (4.25, 4)])
def test_a_timeout_counts_from_the_first_syn(timeout: float, syns: int) -> None:
    report = run(plan_for(10, HOLE, timeout_s=timeout)).report
    assert failures(report) == {("ETIMEDOUT", "connect"): 10}
    assert timeout <= report.seconds.open <= timeout * 1.126 + 0.021
    assert report.syn.sent_again_segments == 10 * syns
    assert report.exit == 22


def test_a_refused_one_is_dialed_again_after_pauses_that_double() -> None:
    report = run(plan_for(20, TARGET, NOBODY, redial=3)).report
    assert (report.connections.begun, report.connections.redialed) == (20 + 30, 30)
    assert failures(report) == {("ECONNREFUSED", "connect"): 40}
    assert report.seconds.open == pytest.approx(0.2 + 0.4 + 0.8, abs=0.05)
    assert [(one.established, one.failed) for one in report.targets] == [(10, 0), (0, 40)]


def test_a_long_pause_of_one_does_not_hold_up_the_others() -> None:
    plan = plan_for(2, HOLE, NOBODY, redial=5, timeout_s=0.5)
    ran = run(plan)
    assert failures(ran.report) == {("ECONNREFUSED", "connect"): 6, ("ETIMEDOUT", "connect"): 6}
    assert ran.report.seconds.open == pytest.approx(6 * 0.5 + 0.2 * 31, abs=0.5)


def test_a_redial_goes_out_from_the_source_that_it_had() -> None:
    plan = plan_for(8, NOBODY, sources=("10.99.0.1", "10.99.0.2"), redial=2)
    wire = open_sim(setup_of(plan, Wiring(sources=("10.99.0.0/30",), rtt_us=1000)))
    dial = UserDial(plan, wire)
    dial.run()
    assert list(dial.dialer.route_begun) == [12, 12]


def test_rows_that_are_missing_are_failures_and_dialed_again() -> None:
    report = run(plan_for(30, TARGET, NOBODY, max_sockets=10, redial=1, rate=1000)).report
    counts = report.connections
    assert counts.established == 10
    assert failures(report)[("ENOBUFS", "connect")] > 0
    assert counts.begun == 30 + counts.redialed == 10 + counts.failed


def test_a_full_range_is_said_at_once() -> None:
    report = run(plan_for(100, range=(40000, 40063))).report
    assert failures(report) == {("EADDRNOTAVAIL", "connect"): 36}
    assert (report.connections.peak_open, report.ports.distinct, report.ports.busiest.connections) == (64, 64, 1)


def test_ports_are_shared_by_targets() -> None:
    targets = tuple(Target(f"10.64.1.{i}", PORT) for i in range(4))
    plan = plan_for(256, *targets, range=(40000, 40063))
    report = UserDial(plan, open_sim(setup_of(plan, Wiring((("10.64.1.0/29", PORT),))))).run()
    assert (report.connections.established, report.ports.distinct, report.ports.busiest.connections) == (256, 64, 4)
    assert [one.established for one in report.targets] == [64] * 4


def test_a_server_that_closes_is_dialed_again_and_the_peak_is_remembered() -> None:
    peer = Peer(most=1)
    talk = Talk(1.0, (("send", "x"), ("expect", "X")))
    plan = plan_for(10, Target(PEER_ADDRESS, TALKS), talk=talk, hold_s=1.5, redial=1)
    report = run(plan, peer=peer).report
    assert report.connections.peak_open == 10
    assert 10 <= failures(report)[("FIN", "open")] <= 20
    assert report.connections.established == 10 + report.connections.redialed


@pytest.mark.parametrize("loss", ["30%", "synack:30%", "tx-ack:50%"])
def test_under_loss_the_accounts_are_right_and_all_are_opened(loss: str) -> None:
    report = run(plan_for(300, hold_s=40, keepalive_s=5), loss=loss).report
    assert report.connections.established >= 298
    assert report.syn.sent_again_connections <= 300


def test_the_same_seed_is_the_same_dial() -> None:
    plan = plan_for(200, TARGET, NOBODY, HOLE, timeout_s=2, redial=1, rate=150, seed=7)
    one, other = (run(plan, loss="10%").report for _ in range(2))
    for name in (
        "connections",
        "failures",
        "times",
        "passed_over",
        "syn",
        "targets",
        "counters",
        "timeline",
        "seconds",
    ):
        assert getattr(one, name) == getattr(other, name)
    again = run(plan_for(200, TARGET, NOBODY, HOLE, timeout_s=2, redial=1, rate=150, seed=8), loss="10%").report
    assert again.counters != one.counters


# ---------------------------------------------------------------------------------------------- talk

SERVER = Target(PEER_ADDRESS, TALKS)
ECHO = Talk(1.0, (("send", "ping"), ("expect", "PING")))


def talk(peer: Peer, script: Talk = ECHO, connections: int = 10, hold_s: float = 4.99, **rest: Any) -> Ran:
    return run(plan_for(connections, SERVER, talk=script, hold_s=hold_s, **rest), peer=peer)


def test_each_connection_has_its_turn_once_in_every_s() -> None:
    ran = talk(Peer())
    count = ran.report.talk
    assert count is not None
    assert 48 <= count.requests == count.responses <= 50
    assert (count.unexpected, count.bytes_sent, count.bytes_received) == (0, 4 * count.requests, 4 * count.requests)
    response = ran.report.times.response_us
    assert response is not None and response.count == count.responses
    assert (response.minimum(), response.maximum()) == (1_000_000, 1_000_000)  # ns: the round trip


@pytest.mark.parametrize("connections", [1, 3])
def test_turns_are_not_late_when_they_are_many_a_second(connections: int) -> None:
    count = talk(Peer(), Talk(0.02, ECHO.script), connections, hold_s=2).report.talk
    assert count is not None and count.requests == pytest.approx(connections * 100, rel=0.03)


def test_turns_are_spread_over_the_time() -> None:
    peer = Peer()
    asked: list[int] = []

    def answer(data: bytes) -> bytes:
        asked.append(peer.host.now_us)
        return data.upper()

    peer.answer = answer
    talk(peer)
    gaps = [b - a for a, b in pairwise(asked)]
    assert max(gaps[10:]) <= 110_000 and min(gaps[10:]) >= 90_000


def test_a_slow_server_is_not_asked_more_often_than_it_answers() -> None:
    peer = Peer(delay_us=2_500_000)
    count = talk(peer).report.talk
    assert count is not None
    assert 10 <= count.responses <= count.requests <= 20
    assert count.unexpected == 0


def test_an_answer_without_the_text_is_unexpected_and_the_next_turn_asks_anew() -> None:
    peer = Peer(answer=lambda data: b"HTTP/1.1 503 Busy\r\n\r\n")
    count = talk(peer, http_get(1.0, "/", "peer")).report.talk
    assert count is not None
    assert (count.responses, count.unexpected) == (0, count.requests)
    assert count.requests >= 20


def test_an_answer_in_many_segments_is_one_response() -> None:
    peer = Peer(answer=lambda data: b"HTTP/1.1 200 OK\r\nContent-Length: 20000\r\n\r\n" + b"x" * 20_000)
    count = talk(peer, http_get(1.0, "/", "peer"), 3).report.talk
    assert count is not None
    assert (count.responses, count.unexpected) == (count.requests, 0)
    assert count.bytes_received == count.responses * (len("HTTP/1.1 200 OK\r\nContent-Length: 20000\r\n\r\n") + 20_000)


def test_a_greeting_that_comes_early_waits_for_the_script() -> None:
    script = Talk(1.0, (("expect", "220 "), ("send", "quit"), ("expect", "QUIT")))
    count = talk(Peer(greeting=b"220 hello\r\n"), script, hold_s=1.5).report.talk
    assert count is not None
    assert (count.requests, count.responses, count.unexpected) == (10, 20, 0)


def test_a_greeting_that_nobody_expects_is_unexpected() -> None:
    count = talk(Peer(greeting=b"220 hello\r\n"), hold_s=1.95).report.talk
    assert count is not None
    assert (count.responses, count.unexpected) == (count.requests, 10)


def test_a_text_longer_than_the_buffer_is_sent_whole() -> None:
    size = 300_000
    script = Talk(10.0, (("send", "a" * size), ("expect", "done")))
    heard = {"n": 0}

    def answer(data: bytes) -> bytes:
        heard["n"] += len(data)
        return b"done" if heard["n"] == size else b""

    count = talk(Peer(answer=answer), script, 1, hold_s=12).report.talk
    assert count is not None
    assert (count.requests, count.responses, count.bytes_sent) == (1, 1, size)


def test_a_server_that_closes_with_its_answer_is_heard_first() -> None:
    ran = talk(Peer(most=1), hold_s=1.5)
    count = ran.report.talk
    assert count is not None
    assert 6 <= count.requests == count.responses == failures(ran.report)[("FIN", "open")]


def test_a_script_of_sends_only_reads_what_comes() -> None:
    count = talk(Peer(), Talk(1.0, (("send", "hello"),))).report.talk
    assert count is not None
    assert (count.responses, count.unexpected, count.bytes_received) == (0, 0, count.bytes_sent)


def test_refused_connections_do_not_talk() -> None:
    ran = run(plan_for(3, NOBODY, talk=ECHO, hold_s=1))
    assert ran.report.talk is not None and ran.report.talk.requests == 0
    assert ran.report.connections.failed == 3 and ran.report.failures[0].number == errno.ECONNREFUSED
