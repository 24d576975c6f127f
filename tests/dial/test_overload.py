"""A dial that is too much for somebody: the live kernel as the other side, in a private namespace.

Each time: the report is what the kernel counts, what can be recovered is, and nothing is left on our side.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from fourtuple.dial import user
from fourtuple.dial.plan import DialPlan, Target
from fourtuple.dial.report import DialReport, Progress
from fourtuple.dial.user import UserDial
from fourtuple.dial.wiring import Wiring, setup_of
from fourtuple.phy import tun
from fourtuple.phy.fault import parse_loss
from fourtuple.shell.netns import PrivateNamespace, Server
from fourtuple.shell.private_wire import open_tun
from fourtuple.shell.wire import PEER_ADDRESS, Wire
from tests.dial.test_user import failures

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not os.path.exists(tun.PATH), reason="needs root and /dev/net/tun (unprivileged: see --wire)"
)
PORT = 8080
TARGET = Target(PEER_ADDRESS, PORT)


@pytest.fixture(autouse=True)
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A FIN that the other side cannot answer is not waited for 10 s."""
    monkeypatch.setattr(user, "CLOSE_PATIENCE_S", 1.0)


class Overload:
    """A wire to a private namespace, and what the kernel there counted while all was open."""

    def __init__(self, plan: DialPlan, loss: str = "", backlog: int = 0, queue: int = 0, **sysctls: str) -> None:
        self.plan = plan
        setup = setup_of(plan, Wiring(((PEER_ADDRESS, PORT),), loss=parse_loss(loss) if loss else ()))
        if backlog:
            setup = replace(setup, servers=(Server(PEER_ADDRESS, PORT, "hold", backlog),))
        self.wire = open_tun(replace(setup, txqueuelen=queue or setup.txqueuelen))
        for name, value in sysctls.items():
            self.namespace.request("sysctl", name=f"net.ipv4.{name}", value=value)
        self.there: dict[str, Any] = {}

    @property
    def namespace(self) -> PrivateNamespace:
        found = self.wire.namespace
        assert found is not None
        return found

    def __enter__(self) -> Overload:
        return self

    def __exit__(self, *exception: object) -> None:
        self.wire.close()

    def run(self, each: Callable[[Progress], None] = lambda now: None) -> DialReport:
        dial = UserDial(self.plan, self.wire, lambda now: self._look(dial, now, each))
        report = dial.run()
        check(report)
        check_nothing_left(dial)
        self.counters = self.namespace.request("counters")
        return report

    def _look(self, dial: UserDial, now: Progress, each: Callable[[Progress], None]) -> None:
        assert now.begun == now.in_flight + now.failed + dial.dialer.established
        assert dial.dialer.established == now.open + now.lost + dial.dialer.closed
        if now.phase == "hold":
            self.there = self.namespace.request("counts")
        each(now)


def check(report: DialReport) -> None:
    counts = report.connections
    assert counts.begun == counts.failed + counts.established == report.asked.connections + counts.redialed
    assert counts.established == counts.lost + counts.closed
    assert counts.failed == sum(one.count for one in report.failures if one.phase == "connect")
    assert counts.lost == sum(one.count for one in report.failures if one.phase == "open")
    assert (counts.established, counts.failed) == (report.targets[0].established, report.targets[0].failed)
    assert report.times.handshake_us.count == counts.established
    assert report.syn.sent_again_segments == report.counters.get("TcpExt.TCPSynRetrans", 0)


def check_nothing_left(dial: UserDial) -> None:
    net, d = dial.stack.host.net, dial.dialer
    assert (dial.stack.sockets, net.orphans, net.tx.count, len(net.cold), net.dirty_count) == (0, 0, 0, 0, 0)
    assert net.wheel.armed == sum(timer != 0 for timer in net.h.tw.timer)
    assert (d.noted, d.others, d.readable, d.in_flight, d.open, d.stalled) == (0, [], [], 0, 0, 0)
    time_waits = dial.stack.time_waits
    assert (len(net.h.ehash.entries()), sum(net.h.bind.owners)) == (time_waits, time_waits)


def plan_for(connections: int, **rest: Any) -> DialPlan:
    return DialPlan(connections, (TARGET,), wire="tun", **({"hold_s": 0.25} | rest))


def test_without_overload_both_sides_count_the_same() -> None:
    with Overload(plan_for(2000)) as over:
        report = over.run()
        assert report.connections.established == over.there["established_inuse"] == over.there["queued"] == 2000
        assert report.counters["Tcp.ActiveOpens"] == over.counters["Tcp.PassiveOpens"] == 2000
        assert (report.exit, report.left.sockets, report.left.timers, report.left.packets) == (0, 0, 0, 0)


# ---------------------------------------------------------------------------------------------- the server's queues


def test_a_full_syn_backlog_costs_a_second_and_no_connection() -> None:
    plan = plan_for(90, window=90)  # three quarters of the backlog are for strangers
    with Overload(plan, tcp_max_syn_backlog="64", tcp_syncookies="0") as over:
        report = over.run()
        assert over.counters["TcpExt.ListenDrops"] == report.syn.sent_again_segments > 0
        assert report.connections.established == over.there["established_inuse"] == 90
        assert report.times.handshake_us.maximum() > 10**9


def test_syn_cookies_cost_no_connection() -> None:
    """2: as if the backlog were full for every SYN (1 needs a full accept queue too, which drops SYNs all the same)."""
    with Overload(plan_for(600, window=600), tcp_syncookies="2") as over:
        report = over.run()
        cookies = over.counters["TcpExt.SyncookiesSent"], over.counters["TcpExt.SyncookiesRecv"]
        assert (600, 600) == cookies == (report.connections.established, over.there["established_inuse"])


@pytest.mark.parametrize("close", ["fin", "rst"])
def test_a_full_accept_queue_is_told_as_far_as_a_client_can_know(close: str) -> None:
    """Linux answers a SYN and then drops the last ACK: ESTABLISHED for us, SYN_RECV there."""
    plan = plan_for(300, window=128, timeout_s=1.4, close=close)
    with Overload(plan, backlog=50) as over:
        report = over.run()
        known, there = report.connections.established, over.there["established_inuse"]
        assert there == over.there["queued"] == 51
        assert known >= there
        assert failures(report) == {("ETIMEDOUT", "connect"): 300 - known}
        assert over.counters["TcpExt.ListenOverflows"] > 0
        assert report.left.sockets == (0 if close == "rst" else known - there)
        assert report.exit == 10


def test_places_in_the_accept_queue_are_used_when_they_come_free() -> None:
    plan = plan_for(200, window=200, timeout_s=1.2, redial=8, hold_s=1.5)

    def drain(now: Progress) -> None:
        if now.seconds > 0.8 and not drained:
            drained.append(over.namespace.request("drain", port=PORT))

    drained: list[object] = []
    with Overload(plan, backlog=20) as over:
        report = over.run(drain)
        assert drained
        assert report.connections.established >= 200  # closed by the server at once, dialed again
        assert over.counters["TcpExt.ListenOverflows"] > 0


def test_a_server_that_ends_and_comes_back_without_redial() -> None:
    with Overload(plan_for(600, rate=400)) as over:
        report = over.run(restart(over, 0.4, 0.9))
        counts = report.connections
        assert failures(report) == {("ECONNRESET", "open"): counts.lost, ("ECONNREFUSED", "connect"): counts.failed}
        assert 80 <= counts.lost <= 250 and 80 <= counts.failed <= 300
        assert over.there["established_inuse"] == counts.established - counts.lost
        assert counts.peak_open >= max(counts.lost, counts.closed)


def test_a_server_that_ends_and_comes_back_with_redial() -> None:
    with Overload(plan_for(600, rate=400, redial=5, hold_s=0.5)) as over:
        report = over.run(restart(over, 0.4, 0.9))
        counts = report.connections
        assert counts.closed == over.there["established_inuse"] == counts.peak_open == 600
        assert counts.redialed == counts.lost + counts.failed > 100


def restart(over: Overload, stop_s: float, start_s: float) -> Callable[[Progress], None]:
    due = [(stop_s, "stop_server"), (start_s, "start_server")]

    def each(now: Progress) -> None:
        while due and now.seconds >= due[0][0]:
            over.namespace.request(due.pop(0)[1], port=PORT)

    return each


# ---------------------------------------------------------------------------------------------- the way there


def test_loss_is_recovered_by_tcp_and_by_redials() -> None:
    plan = plan_for(100, timeout_s=1.3, redial=4, hold_s=1.3, seed=3)
    with Overload(plan, loss="30%") as over:
        report = over.run()
        counts = report.connections
        assert set(failures(report)) <= {("ETIMEDOUT", "connect")}
        assert counts.failed > 0 and counts.established >= 95
        assert 0 <= counts.established - over.there["established_inuse"] <= 40  # the last ACK is lost, and again
        assert report.syn.sent_again_connections <= counts.begun


def test_a_full_transmit_queue_of_the_tun_drops_answers_which_come_again() -> None:
    with Overload(plan_for(16, window=16, hold_s=0.5, close="rst"), queue=4) as over:
        report = over.run()
        assert report.connections.established == 16
        assert report.syn.sent_again_segments > 0
        assert report.left.sockets == 0


# ---------------------------------------------------------------------------------------------- ours


def test_max_sockets_is_a_failure_of_those_beyond_it() -> None:
    with Overload(plan_for(150, max_sockets=100)) as over:
        report = over.run()
        assert failures(report) == {("ENOBUFS", "connect"): 50}
        assert report.connections.established == over.there["established_inuse"] == 100


def test_a_range_that_is_used_up_is_a_failure_of_those_beyond_it() -> None:
    with Overload(plan_for(100, range=(40000, 40063))) as over:
        report = over.run()
        assert failures(report) == {("EADDRNOTAVAIL", "connect"): 36}
        assert report.connections.established == over.there["established_inuse"] == report.ports.distinct == 64


# ---------------------------------------------------------------------------------------------- everything


def test_all_of_it_at_once_again_and_again_leaves_nothing() -> None:
    plan = plan_for(
        400, rate=1000, window=64, timeout_s=0.5, redial=2, max_sockets=250, range=(40000, 40499), close="rst"
    )  # fmt: skip
    seen = []
    with Overload(plan, "10%", 150, 16, tcp_max_syn_backlog="16", tcp_syncookies="0") as over:
        for _ in range(3):
            report = over.run(restart(over, 0.1, 0.3))
            seen.append(in_use(over.wire))
            assert report.connections.established > 0
            assert {kind for kind, _ in failures(report)} <= KINDS
    assert seen[-1][0] - seen[1][0] < 300  # objects of Python
    assert seen[-1][1] <= plan.rows


KINDS = {"ENOBUFS", "EADDRNOTAVAIL", "ECONNREFUSED", "ECONNRESET", "ETIMEDOUT", "FIN"}


def in_use(wire: Wire) -> tuple[int, int]:
    """(objects, rows ever used)."""
    gc.collect()
    return len(gc.get_objects()), wire.host.net.sks.high_water
