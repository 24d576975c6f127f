"""Dials by several processes: against the kernel in a private namespace, and with processes that die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fourtuple.dial.part import Part
from fourtuple.dial.plan import DialPlan, Target, expand
from fourtuple.dial.processes import Crew, open_processes, run_processes
from fourtuple.dial.report import DialReport, Progress
from fourtuple.dial.wiring import Wiring, setup_of
from fourtuple.phy import tun
from fourtuple.shell.wire import Setup, WireUnavailable
from tests.sandbox import PYTHON, Sandbox, run

needs_tun = pytest.mark.skipif(
    os.geteuid() != 0 or not os.path.exists(tun.PATH), reason="needs root and /dev/net/tun (unprivileged: see --wire)"
)
PORT = 8080


def plan_to(network: str, connections: int, **rest: Any) -> tuple[DialPlan, Wiring]:
    """Two processes, unless told otherwise, to all addresses of `network`, where connections are held."""
    values = {"processes": 2, "wire": "tun", "close": "rst"} | rest
    targets = tuple(Target(address, PORT) for address in expand(network))
    return DialPlan(connections, targets, **values), Wiring(servers=((network, PORT),))


def dial(
    plan: DialPlan, wiring: Wiring, in_hold: Callable[[Crew], None] | None = None, **rest: Any
) -> tuple[DialReport, list[Progress]]:
    """`in_hold` is called once, when all is open."""
    seen: list[Progress] = []

    def on_progress(progress: Progress) -> None:
        if in_hold and progress.phase == "hold" and not any(one.phase == "hold" for one in seen):
            in_hold(crew)
        seen.append(progress)

    with open_processes(plan, setup_of(plan, wiring)) as crew:
        report = crew.run(on_progress, **rest)
    return report, seen


def is_alive(pid: int) -> bool:
    """A zombie is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for_end(pids: list[int]) -> None:
    for _ in range(1000):
        if not any(is_alive(pid) for pid in pids):
            return
        time.sleep(0.01)
    raise AssertionError(f"still there: {[pid for pid in pids if is_alive(pid)]}")


# ------------------------------------------------------------------------------------------ all is well


@needs_tun
def test_two_processes_have_what_the_kernel_counts() -> None:
    counts: list[dict[str, Any]] = []

    def look(crew: Crew) -> None:
        assert crew.namespace is not None
        counts.append(crew.namespace.request("counts"))
        counts.append(crew.namespace.request("sample", port=PORT, n=2000))

    report, seen = dial(*plan_to("10.65.0.0/30", 2000, hold_s=0.5), look)
    assert counts[0]["established"] == counts[0]["queued"] == 2000
    assert Counter(peer for peer, _, _ in counts[1]["peers"]) == {"10.64.0.2": 1000, "10.64.1.2": 1000}
    done = report.connections
    assert (done.begun, done.established, done.peak_open, done.failed, done.closed) == (2000, 2000, 2000, 0, 2000)
    assert [(one.name, one.share, one.established, one.error) for one in report.workers] == [
        ("process 1", 0.5, 1000, None),
        ("process 2", 0.5, 1000, None),
    ]
    assert {(target.address, target.established) for target in report.targets} == {
        (f"10.65.0.{i}", 500) for i in range(4)
    }
    assert (report.processes, report.asked.connections, report.asked.targets.count, report.exit) == (2, 2000, 4, 0)
    assert report.wire.startswith("tun ft0-ft1, private network namespace")
    assert (report.times.handshake_us.count, report.counters["Tcp.ActiveOpens"]) == (2000, 2000)
    assert (report.left.sockets, report.left.packets) == (0, 0)
    phases = [progress.phase for progress in seen]
    assert phases == sorted(phases, key=("open", "hold", "close").index)
    assert max(progress.open for progress in seen) == 2000


@needs_tun
def test_sources_are_divided_and_each_leads_back_to_its_process() -> None:
    """An address of the first device's network is behind the second one, and a target is where its network would be."""
    sources = ("10.64.0.2", "10.64.0.3", "10.64.0.4", "10.64.0.5", "10.66.0.0")
    peers: list[Any] = []

    def look(crew: Crew) -> None:
        assert crew.namespace is not None
        peers.extend(crew.namespace.request("sample", port=PORT, n=100)["peers"])

    report, _ = dial(*plan_to("10.64.1.0/31", 100, sources=sources, hold_s=0.3), look)
    assert (report.connections.established, report.connections.peak_open) == (100, 100)
    assert Counter(peer for peer, _, _ in peers) == dict.fromkeys(sources, 20)
    assert Counter(target for _, _, target in peers) == {"10.64.1.0": 50, "10.64.1.1": 50}
    assert [one.connections for one in report.workers] == [40, 60]


@needs_tun
def test_kernel_sockets_of_two_processes() -> None:
    counts: list[dict[str, Any]] = []

    def look(crew: Crew) -> None:
        assert crew.namespace is not None
        counts.append(crew.namespace.request("counts"))

    report, _ = dial(*plan_to("10.65.0.0/31", 400, stack="kernel", hold_s=0.3), look)
    assert counts[0]["queued"] == 400
    done = report.connections
    assert (done.begun, done.established, done.peak_open, done.failed, done.closed) == (400, 400, 400, 0, 400)
    assert (report.stack, report.wire) == ("kernel", "lo, private network namespace")
    assert len(report.workers) == 2


_AS_NOBODY = """
from fourtuple.dial.plan import DialPlan, Target
from fourtuple.dial.processes import run_processes
from fourtuple.dial.wiring import Wiring
for stack in ("user", "kernel"):
    plan = DialPlan(100, (Target("10.65.0.1", 8080),), wire="tun", stack=stack, processes=2)
    report = run_processes(plan, Wiring(servers=(("10.65.0.1", 8080),)))
    print(report.connections.established, report.wire)
"""


@needs_tun
def test_nobody_may_do_it_too() -> None:
    done = run(Sandbox(), PYTHON, "-c", _AS_NOBODY)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "100 tun ft0-ft1, private network namespace (no root)",
        "100 lo, private network namespace",
    ]


def test_there_are_no_more_processes_than_connections() -> None:
    report = run_processes(*plan_to("10.65.0.0/31", 2, wire="sim", processes=5))
    assert [(one.connections, one.established) for one in report.workers] == [(1, 1), (1, 1)]


def test_each_process_has_a_simulated_world_of_its_own() -> None:
    ready: list[str] = []
    plan, wiring = plan_to("10.65.0.0/31", 300, wire="sim", hold_s=30.0, processes=3)
    report = run_processes(plan, wiring, on_ready=lambda where, notes: ready.append(where))
    assert report.connections.established == 300
    assert ready == [report.wire]
    assert report.wire.startswith("sim")
    assert report.seconds.hold == 30.0


def test_stopping_closes_what_is_open_and_reports_it() -> None:
    plan, wiring = plan_to("10.65.0.0/31", 2000, wire="veth", rate=1000.0)
    seen: list[Progress] = []
    report = run_processes(plan, wiring, seen.append, lambda: bool(seen) and seen[-1].open >= 100)
    done = report.connections
    assert 100 <= done.established == done.closed < 2000
    assert {one.error for one in report.workers} == {None}


# ------------------------------------------------------------------------------------------ who dies


@needs_tun
def test_a_process_that_is_killed_is_named_with_its_share_and_the_other_goes_on() -> None:
    plan, wiring = plan_to("10.65.0.0/31", 1000, rate=1000.0)
    with open_processes(plan, setup_of(plan, wiring)) as crew:
        victim = crew.pids[1]

        def on_progress(progress: Progress) -> None:
            if progress.open >= 100 and is_alive(victim):
                os.kill(victim, signal.SIGKILL)

        report = crew.run(on_progress)
    lost, other = report.workers
    assert (lost.name, lost.share, lost.connections) == ("process 2", 0.5, 500)
    assert lost.error is not None
    assert lost.error.startswith("ended by SIGKILL, with ")
    assert (other.name, other.established, other.error) == ("process 1", 500, None)
    assert (report.connections.established, report.exit) == (500, 10)
    wait_for_end(crew.pids)


_PROGRAM = """
import os, sys
from tests.dial.test_processes import plan_to
from fourtuple.dial.processes import open_processes
from fourtuple.dial.wiring import setup_of
plan, wiring = plan_to("10.65.0.0/31", 1000, rate=500.0, hold_s=60.0)
with open_processes(plan, setup_of(plan, wiring)) as crew:
    said = []
    def on_progress(progress):
        if progress.open >= 100 and not said:
            said.append(True)
            print(*crew.pids, crew.namespace.pid, flush=True)
    crew.run(on_progress)
"""


@needs_tun
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_nothing_is_left_of_a_dial_whose_parent_dies(number: signal.Signals) -> None:
    command = [sys.executable, "-c", _PROGRAM]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 3
        assert all(is_alive(pid) for pid in pids)
        parent.send_signal(number)
        wait_for_end(pids)


@needs_tun
def test_the_end_of_the_namespace_is_the_end_of_the_dial() -> None:
    plan, wiring = plan_to("10.65.0.0/31", 1000, rate=500.0)
    with open_processes(plan, setup_of(plan, wiring)) as crew:
        namespace = crew.namespace
        assert namespace is not None

        def on_progress(progress: Progress) -> None:
            if progress.open >= 50 and not namespace.has_ended():
                os.kill(namespace.pid, signal.SIGKILL)

        with pytest.raises(WireUnavailable, match="helper process of the private namespace has been ended"):
            crew.run(on_progress)


# ------------------------------------------------------------------------------------------ what cannot be


def crew_of(*parts: Part) -> Crew:
    return Crew(parts[0].plan, list(parts))


def simulated(name: str, **setup: Any) -> Part:
    plan = DialPlan(50, (Target("10.64.0.1", PORT),), wire="sim", name=name)
    return Part(plan, replace(Setup(), **setup))


_BAD = {"net.ipv4.ip_local_port_range": "9 1"}


def test_a_process_without_its_wire_is_named_and_the_others_dial() -> None:
    with crew_of(simulated("good"), simulated("bad", sysctls=_BAD)) as crew:
        crew.start()
        report = crew.run()
    assert [(one.name, one.established, one.error is None) for one in report.workers] == [
        ("bad", 0, False),
        ("good", 50, True),
    ]
    assert "net.ipv4.ip_local_port_range" in str(report.workers[0].error)
    assert report.exit == 10


def test_what_stands_in_the_way_of_all_is_raised() -> None:
    with crew_of(simulated("bad", sysctls=_BAD), simulated("bad too", sysctls=_BAD)) as crew, pytest.raises(OSError):
        crew.start()


def test_a_bug_in_a_process_is_the_last_line_that_it_wrote() -> None:
    part = simulated("odd")
    odd = replace(part, plan=replace(part.plan, wire="carrier pigeon"))
    with crew_of(simulated("good"), odd) as crew:
        crew.start()
        report = crew.run()
    assert [one.error for one in report.workers] == ["KeyError: 'carrier pigeon'", None]


def test_fewer_sources_than_processes_cannot_be_shared() -> None:
    plan, wiring = plan_to("10.65.0.0/31", 100, sources=("10.66.0.1",))
    with pytest.raises(ValueError, match="2 processes cannot share 1 source address"):
        run_processes(plan, wiring)


def test_there_is_a_limit() -> None:
    plan, wiring = plan_to("10.65.0.0/31", 100, processes=65)
    with pytest.raises(ValueError, match="at most 64 processes"):
        run_processes(plan, wiring)
