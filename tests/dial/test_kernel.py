"""run_kernel() against listeners of the test's own, in a network namespace of the test's own."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fourtuple.dial import kernel, kernel_socket
from fourtuple.dial.kernel import allowed_by, routes, run_kernel
from fourtuple.dial.kernel_socket import CLOSE_WITH_RESET
from fourtuple.dial.plan import DialPlan, Talk, Target, http_get
from fourtuple.dial.report import DialReport, FailureCount, Progress
from fourtuple.live import sockets
from fourtuple.live.refusal import CannotRead
from fourtuple.shell.netns import PrivateNamespace, Server
from tests.live.space import Space, needs_root
from tests.sandbox import PYTHON, Sandbox, run

pytestmark = needs_root
HOLE = Target("203.0.113.7", 80)  # what is sent there is lost


@pytest.fixture
def space() -> Iterator[Space]:
    with Space() as made:
        made.sysctl("net.core.somaxconn", 65535)
        made.sysctl("net.ipv4.tcp_tw_reuse", 0)
        yield made


def target_of(listener: socket.socket) -> Target:
    return Target(*listener.getsockname())


def plan_for(target: Target, connections: int, **rest: Any) -> DialPlan:
    return DialPlan(connections, (target,), stack="kernel", **rest)


def dial(space: Space, plan: DialPlan, hold: Callable[[], None] = lambda: None, **rest: Any) -> DialReport:
    """`hold` is called once, in the namespace, when the connections are open."""
    called = []

    def on_progress(progress: Progress) -> None:
        assert progress.begun == progress.in_flight + progress.failed + report_of_open(progress)
        if progress.phase == "hold" and not called:
            called.append(True)
            hold()

    report: DialReport = space.run(lambda: run_kernel(plan, on_progress, **rest))
    counts = report.connections
    assert counts.begun == counts.failed + counts.established
    assert counts.established == counts.lost + counts.closed
    assert report.left.sockets == 0
    return report


def report_of_open(progress: Progress) -> int:
    """Established until now, less those that were closed since: only while none was closed it is exact."""
    return (
        progress.begun - progress.in_flight - progress.failed
        if progress.phase == "close"
        else progress.open + progress.lost
    )


def only_failure(report: DialReport) -> FailureCount:
    (failure,) = report.failures
    return failure


def accept(listener: socket.socket, count: int) -> list[socket.socket]:
    return [listener.accept()[0] for _ in range(count)]


def close_all(each: list[socket.socket], reset: bool = False) -> None:
    for sock in each:
        if reset:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, CLOSE_WITH_RESET)
        sock.close()


def test_two_thousand_connections_are_open_at_once_in_the_kernels_own_count(space: Space) -> None:
    listener = space.listen("10.77.0.1", 8080, backlog=4096)
    target, seen = target_of(listener), []

    def count() -> None:
        seen.extend(sockets(dport=target.port, states=["ESTABLISHED"]).sport.tolist())

    report = dial(space, plan_for(target, 2000, hold_s=0.05), count)
    assert len(seen) == len(set(seen)) == 2000
    assert (report.connections.established, report.connections.peak_open) == (2000, 2000)
    assert (report.ports.distinct, report.ports.busiest.connections) == (2000, 1)
    assert report.times.connect_us.count == report.times.handshake_us.count == 2000
    assert report.counters["Tcp.ActiveOpens"] == report.counters["Tcp.PassiveOpens"] == 2000
    assert (report.failures, report.exit, report.memory.descriptors) == ([], 0, 2000)
    assert report.targets[0].established == 2000
    again = DialReport.from_json(report.to_json())
    assert (again.times, again.connections, again.counters) == (report.times, report.connections, report.counters)


def test_sources_and_targets_are_combined_so_that_ports_are_shared(space: Space) -> None:
    space.sysctl("net.ipv4.ip_local_port_range", "40000 40063")
    space.ip("addr add 10.77.0.2/24 dev lo")
    listeners = [space.listen("10.77.0.1", port, backlog=512) for port in (8080, 8081)]
    plan = DialPlan(256, tuple(map(target_of, listeners)), ("10.77.0.1", "10.77.0.2"), stack="kernel")
    report = dial(space, plan)
    assert (report.connections.established, report.ports.distinct, report.ports.busiest.connections) == (256, 64, 4)
    assert [each.established for each in report.targets] == [128, 128]


def test_a_refusal_is_econnrefused_and_every_socket_of_it_is_closed(space: Space) -> None:
    report = dial(space, plan_for(Target("10.77.0.1", 1), 50))
    failure = only_failure(report)
    assert (failure.errno, failure.number, failure.count, failure.phase) == ("ECONNREFUSED", 111, 50, "connect")
    assert failure.function == "tcp_reset"
    assert (report.connections.failed, report.targets[0].failed, report.exit) == (50, 50, 21)


def test_no_answer_is_etimedout_and_its_syns_were_sent_again(space: Space) -> None:
    report = dial(space, plan_for(HOLE, 20, timeout_s=1.3))
    failure = only_failure(report)
    assert (failure.errno, failure.number, failure.count) == ("ETIMEDOUT", 110, 20)
    assert failure.meaning == "not connected within 1.3 s, the timeout of this dial"
    assert report.syn.sent_again_connections == report.syn.sent_again_segments == 20  # after 1 s, each
    assert (report.counters["TcpExt.TCPSynRetrans"], report.exit) == (20, 22)


def most_in_flight(space: Space, plan: DialPlan) -> int:
    seen = []
    space.run(lambda: run_kernel(plan, lambda progress: seen.append(progress.in_flight)))
    return max(seen)


def test_the_window_bounds_what_is_in_flight(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "_FRESH_NS", 1 << 62)
    assert most_in_flight(space, plan_for(HOLE, 30, window=10, timeout_s=0.25)) == 10


def test_handshakes_without_an_answer_for_20_ms_are_no_longer_in_the_window(space: Space) -> None:
    assert most_in_flight(space, plan_for(HOLE, 30, window=10, timeout_s=0.5)) == 30


def test_a_full_accept_queue_is_etimedout_for_those_beyond_it(space: Space) -> None:
    listener = space.listen("10.77.0.1", 8080, backlog=9)
    report = dial(space, plan_for(target_of(listener), 30, timeout_s=0.3))
    failure = only_failure(report)
    assert (report.connections.established, failure.errno, failure.count) == (10, "ETIMEDOUT", 20)
    assert report.counters["TcpExt.ListenOverflows"] == 20
    assert report.exit == 10


def test_a_syn_that_was_lost_at_first_is_counted_and_its_wait_is_in_the_handshake(space: Space) -> None:
    listener = space.listen("10.77.0.1", 8080, backlog=1)
    accepted: list[socket.socket] = []

    def on_progress(progress: Progress) -> None:
        if progress.open == 2 and not accepted:
            accepted.extend(accept(listener, 2))

    report: DialReport = space.run(lambda: run_kernel(plan_for(target_of(listener), 3), on_progress))
    close_all(accepted)
    assert (report.connections.established, report.syn.sent_again_connections) == (3, 1)
    assert report.times.handshake_us.maximum() >= 1_000_000_000  # ns: the first RTO


def test_a_reset_while_it_is_held_is_a_lost_connection(space: Space) -> None:
    listener = space.listen("10.77.0.1", 8080, backlog=64)
    plan = plan_for(target_of(listener), 20, hold_s=0.1)
    report = dial(space, plan, lambda: close_all(accept(listener, 5), reset=True))
    failure = only_failure(report)
    assert (failure.errno, failure.number, failure.count, failure.phase) == ("ECONNRESET", 104, 5, "open")
    assert (report.connections.lost, report.connections.closed, report.exit) == (5, 15, 10)


def test_the_peers_fin_while_it_is_held_is_a_lost_connection_without_an_errno(space: Space) -> None:
    listener = space.listen("10.77.0.1", 8080, backlog=64)
    plan = plan_for(target_of(listener), 20, hold_s=0.1)
    report = dial(space, plan, lambda: close_all(accept(listener, 5)))
    failure = only_failure(report)
    assert (failure.errno, failure.number, failure.count, failure.phase) == ("FIN", 0, 5, "open")


def test_a_reset_before_the_handshake_was_noticed_is_a_lost_connection_too(
    space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener = space.listen("10.77.0.1", 8080, backlog=64)
    connect = kernel_socket.connect

    def connect_and_be_reset(*arguments: Any) -> tuple[str, int, int]:
        found = connect(*arguments)
        close_all(accept(listener, 1), reset=True)
        return found

    monkeypatch.setattr(kernel_socket, "connect", connect_and_be_reset)
    report = dial(space, plan_for(target_of(listener), 4))
    failure = only_failure(report)
    assert (failure.errno, failure.count, failure.phase) == ("ECONNRESET", 4, "open")
    assert (report.connections.established, report.connections.lost, report.connections.failed) == (4, 4, 0)


def test_a_lost_connection_is_opened_again_to_its_own_target(space: Space) -> None:
    first, second = (space.listen("10.77.0.1", port, backlog=64) for port in (8080, 8081))
    plan = DialPlan(20, (target_of(first), target_of(second)), stack="kernel", hold_s=0.4, redial=1)
    report = dial(space, plan, lambda: close_all(accept(second, 5), reset=True))
    assert [each.established for each in report.targets] == [10, 15]
    assert (report.connections.redialed, report.connections.closed) == (5, 20)


def test_a_failed_connection_is_opened_again_as_often_as_asked(space: Space) -> None:
    report = dial(space, plan_for(Target("10.77.0.1", 1), 4, redial=2))
    counts = report.connections
    assert (counts.begun, counts.failed, counts.redialed, only_failure(report).count) == (12, 12, 8, 12)


def test_no_port_left_is_eaddrnotavail(space: Space) -> None:
    space.sysctl("net.ipv4.ip_local_port_range", "40000 40031")
    listener = space.listen("10.77.0.1", 8080, backlog=64)
    report = dial(space, plan_for(target_of(listener), 40))
    failure = only_failure(report)
    assert (report.connections.established, failure.errno, failure.count) == (32, "EADDRNOTAVAIL", 8)
    assert failure.function == "__inet_hash_connect"


def test_a_foreign_source_is_eaddrnotavail_of_bind(space: Space) -> None:
    listener = space.listen("10.77.0.1", 8080)
    report = dial(space, plan_for(target_of(listener), 3, sources=("192.0.2.1",)))
    failure = only_failure(report)
    assert (failure.errno, failure.count, failure.function) == ("EADDRNOTAVAIL", 3, "__inet_bind")
    assert report.times.connect_us.count == 0


def test_a_socket_that_met_itself_is_no_connection(space: Space) -> None:
    space.sysctl("net.ipv4.ip_local_port_range", "40000 40000")
    report = dial(space, plan_for(Target("127.0.0.1", 40000), 1))
    failure = only_failure(report)
    assert (failure.errno, failure.function) == ("ECONNREFUSED", "tcp_rcv_synsent_state_process")
    assert report.connections.established == 0


def test_the_soft_limit_of_descriptors_is_raised_for_the_dial_alone(space: Space) -> None:
    listener = space.listen("10.77.0.1", 8080, backlog=256)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    low = max(map(int, os.listdir("/proc/self/fd"))) + 40, before[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, low)
    try:
        report = dial(space, plan_for(target_of(listener), 100))
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == low
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert report.connections.established == 100


def test_a_fin_leaves_time_wait_and_a_reset_does_not(space: Space) -> None:
    for port, close, waiting in ((8080, "fin", 10), (8081, "rst", 0)):
        listener = space.listen("10.77.0.1", port, backlog=64)
        dial(space, plan_for(target_of(listener), 10, close=close))
        close_all(accept(listener, 10))
        assert len(space.run(lambda: sockets(dport=port, states=["TIME_WAIT"]))) == waiting  # noqa: B023


def test_a_dial_that_is_stopped_gives_up_attempts_and_closes_what_is_open(space: Space) -> None:
    listener = space.listen("10.77.0.1", 8080, backlog=64)
    plan = DialPlan(20, (target_of(listener), HOLE), stack="kernel", hold_s=60)
    asked = iter([False, False])
    report = dial(space, plan, should_stop=lambda: next(asked, True))
    failure = only_failure(report)
    assert (failure.errno, failure.count, report.connections.closed) == ("ECANCELED", 10, 10)


def test_connections_talk_in_turn_and_their_answers_are_timed() -> None:
    with PrivateNamespace.start(servers=[Server("10.64.0.1", 8080, "http")]) as namespace:
        talk = http_get(0.2, "/bytes/10", "10.64.0.1")
        plan = DialPlan(20, (Target("10.64.0.1", 8080),), stack="kernel", hold_s=0.7, talk=talk)
        report = run_kernel(plan, netns=namespace.pid, is_private=True)
        requests = namespace.request("stats", port=8080)["requests"]
    assert report.talk is not None
    assert report.times.response_us is not None
    assert report.talk.responses == report.times.response_us.count >= 40
    assert report.talk.responses <= requests <= report.talk.requests <= report.talk.responses + 20  # at the end of hold
    assert (report.talk.unexpected, report.connections.lost) == (0, 0)
    assert report.talk.bytes_received > report.talk.responses * 10


def test_what_comes_unasked_is_counted_and_read(space: Space) -> None:
    listener = space.listen("10.77.0.1", 8080, backlog=64)
    talk = Talk(60, (("send", "ping"), ("expect", "pong")))
    accepted: list[socket.socket] = []

    def shout() -> None:
        accepted.extend(accept(listener, 4))
        for sock in accepted:
            sock.sendall(b"hello")

    report = dial(space, plan_for(target_of(listener), 4, hold_s=0.1, talk=talk), shout)
    close_all(accepted)
    assert report.talk is not None
    assert (report.talk.unexpected, report.talk.bytes_received, report.talk.requests) == (4, 20, 0)


def test_a_peer_that_hangs_up_on_a_talking_connection_is_a_loss(space: Space) -> None:
    listener = space.listen("10.77.0.1", 8080, backlog=64)
    talk = Talk(60, (("send", "ping"), ("expect", "pong")))
    plan = plan_for(target_of(listener), 6, hold_s=0.1, talk=talk)
    report = dial(
        space, plan, lambda: (close_all(accept(listener, 2)), close_all(accept(listener, 1), reset=True), None)[2]
    )
    assert [(each.errno, each.count) for each in report.failures] == [("FIN", 2), ("ECONNRESET", 1)]


def test_keepalive_is_answered_on_all(space: Space) -> None:
    listener = space.listen("10.77.0.1", 8080, backlog=64)
    report = dial(space, plan_for(target_of(listener), 10, keepalive_s=1, hold_s=1.3))
    assert report.counters["TcpExt.TCPKeepAlive"] == 10
    assert report.connections.lost == 0


def test_with_step_1_no_port_is_looked_at_twice_and_all_are_used(space: Space) -> None:
    space.sysctl("net.ipv4.ip_local_port_range", "40000 40030")  # of odd size: its last port is out of reach otherwise
    listener = space.listen("10.77.0.1", 8080, backlog=64)
    report = dial(space, plan_for(target_of(listener), 31), step_1=True)
    assert report.connections.established == report.ports.distinct == 31


def test_a_range_of_the_plan_is_an_option_of_each_socket(space: Space) -> None:
    listener = space.listen("10.77.0.1", 8080, backlog=64)
    ports: list[int] = []

    def look() -> None:
        ports.extend(sockets(dport=target_of(listener).port).sport.tolist())

    dial(space, plan_for(target_of(listener), 8, range=(40000, 40007)), look)
    assert sorted(ports) == list(range(40000, 40008))


def test_routes_are_every_source_with_every_target_neighbours_to_different_targets() -> None:
    plan = DialPlan(1, (Target("10.0.0.1", 80), Target("10.0.0.2", 81)), ("10.1.0.1", "10.1.0.2"), stack="kernel")
    assert [(route.source[-1], route.address[-1], route.port) for route in routes(plan)] == [
        ("1", "1", 80), ("1", "2", 81), ("2", "1", 80), ("2", "2", 81),
    ]  # fmt: skip


def test_the_rate_grows_along_the_ramp_and_then_stays() -> None:
    plan = plan_for(HOLE, 10_000, rate=1000, ramp_s=4)
    assert [allowed_by(plan, seconds) for seconds in (0, 2, 4, 5, 60)] == [1, 501, 2001, 3001, 10_000]
    assert allowed_by(replace(plan, rate=0), 0) == 10_000


# ------------------------------------------------------------------------------------------ another namespace


def test_in_a_private_namespace_sources_are_added_and_the_range_is_set() -> None:
    with PrivateNamespace.start(servers=[Server("10.64.0.1", 8080, "echo")]) as namespace:
        phases = []
        plan = DialPlan(
            200, (Target("10.64.0.1", 8080),), ("10.64.0.2", "10.64.0.3"), stack="kernel", range=(20000, 20099),
            hold_s=0.05,
        )  # fmt: skip
        report = run_kernel(plan, lambda each: phases.append(each.phase), netns=namespace.pid, is_private=True)
        stats = namespace.request("stats", port=8080)
    assert (report.connections.established, report.connections.closed, report.exit) == (200, 200, 0)
    assert (report.ports.distinct, report.ports.busiest.connections) == (100, 2)
    assert stats["accepted"] == 200
    assert phases == sorted(phases, key=["open", "hold", "close"].index)
    assert report.memory.kernel_mb > 0


def test_a_dial_elsewhere_is_stopped_from_here() -> None:
    with PrivateNamespace.start(servers=[Server("10.64.0.1", 8080, "echo")]) as namespace:
        plan = DialPlan(10, (Target("10.64.0.1", 8080),), stack="kernel", hold_s=60)
        phases: list[str] = []
        report = run_kernel(
            plan, lambda each: phases.append(each.phase), lambda: "hold" in phases, netns=namespace.pid, is_private=True
        )
    assert (report.connections.established, report.connections.closed) == (10, 10)


def test_a_namespace_that_there_is_not_is_refused_in_one_line() -> None:
    with pytest.raises(CannotRead, match="there is no /proc/"):
        run_kernel(plan_for(HOLE, 1), netns="/proc/4194305/ns/net")


_AS_NOBODY = """
from fourtuple.dial.kernel import run_kernel
from fourtuple.dial.plan import DialPlan, Target
from fourtuple.shell.netns import PrivateNamespace, Server
with PrivateNamespace.start(servers=[Server("10.64.0.1", 8080, "echo")]) as namespace:
    plan = DialPlan(20, (Target("10.64.0.1", 8080),), ("10.64.0.2",), stack="kernel")
    report = run_kernel(plan, netns=namespace.pid, is_private=True)
    print(namespace.way, report.connections.established, report.exit)
"""


def test_nobody_dials_in_a_namespace_of_its_own_user_namespace() -> None:
    done = run(Sandbox(), PYTHON, "-c", _AS_NOBODY)
    assert (done.stdout, done.stderr) == ("user 20 0\n", "")


_FEW_FILES = """
import resource
from fourtuple.dial.kernel import run_kernel
from fourtuple.dial.plan import DialPlan, Target
from fourtuple.shell.netns import PrivateNamespace, Server
with PrivateNamespace.start(servers=[Server("10.64.0.1", 8080, "echo")]) as namespace:
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    report = run_kernel(DialPlan(100, (Target("10.64.0.1", 8080),), stack="kernel"), netns=namespace.pid)
    (failure,) = report.failures
    print(failure.errno, failure.number, failure.count, report.connections.established, report.connections.closed)
"""


def test_no_descriptor_left_is_emfile_and_those_that_were_opened_are_held_and_closed() -> None:
    done = subprocess.run([sys.executable, "-c", _FEW_FILES], capture_output=True, text=True, timeout=60)
    name, number, failed, established, closed = done.stdout.split()
    assert (name, number, done.stderr) == ("EMFILE", "24", "")
    assert int(failed) + int(established) == 100
    assert 50 <= int(established) == int(closed) < 64


_DIES = """
import os
from fourtuple.dial.kernel import run_kernel
from fourtuple.dial.plan import DialPlan, Target
def on_progress(progress):
    if progress.phase == "hold":
        os.kill(os.getpid(), 9)
plan = DialPlan(5, (Target("10.64.0.1", 8080),), stack="kernel", hold_s=60)
run_kernel(plan, on_progress, netns=NETNS, is_private=True)
"""


def test_when_the_caller_is_killed_the_connections_are_closed() -> None:
    with PrivateNamespace.start(servers=[Server("10.64.0.1", 8080, "echo")]) as namespace:
        program = _DIES.replace("NETNS", str(namespace.pid))
        done = subprocess.run([sys.executable, "-c", program], timeout=60)
        assert done.returncode == -signal.SIGKILL
        for _ in range(500):
            if namespace.request("stats", port=8080)["established"] == 0:
                break
            time.sleep(0.01)
        assert namespace.request("stats", port=8080)["established"] == 0
        assert namespace.request("stats", port=8080)["accepted"] == 5


def test_a_dialing_process_that_is_killed_is_an_error_and_no_reader_who_has_gone() -> None:
    with PrivateNamespace.start(servers=[Server("10.64.0.1", 8080, "hold")]) as namespace:

        def on_progress(progress: Progress) -> None:
            children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
            for pid in {int(pid) for pid in children} - {namespace.pid} if progress.phase == "hold" else ():
                os.kill(pid, signal.SIGKILL)

        plan = DialPlan(5, (Target("10.64.0.1", 8080),), stack="kernel", hold_s=60)
        # A BrokenPipeError ends the command line in silence, with exit code 0.
        with pytest.raises(ChildProcessError, match="ended without a report"):
            run_kernel(plan, on_progress, netns=namespace.pid, is_private=True)
