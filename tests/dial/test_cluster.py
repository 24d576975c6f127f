"""Dials on a Dask cluster: a LocalCluster with processes, and clusters that are not there."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fourtuple.dial.cluster import ClusterUnavailable, _started, run_on_cluster
from fourtuple.dial.plan import DialPlan, Target, expand
from fourtuple.dial.report import DialReport, Progress
from fourtuple.dial.wiring import Wiring
from fourtuple.phy import tun
from tests.dial.test_processes import wait_for_end

if TYPE_CHECKING:
    from distributed import LocalCluster

needs_tun = pytest.mark.skipif(
    os.geteuid() != 0 or not os.path.exists(tun.PATH), reason="needs root and /dev/net/tun (unprivileged: see --wire)"
)
NETWORK, PORT = "10.65.0.0/31", 8080


def plan_of(connections: int, **rest: Any) -> tuple[DialPlan, Wiring]:
    targets = tuple(Target(address, PORT) for address in expand(NETWORK))
    values = {"wire": "tun", "close": "rst"} | rest
    return DialPlan(connections, targets, **values), Wiring(servers=((NETWORK, PORT),))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Two workers, which Dask's nannies start anew when they die."""
    from dask import config
    from distributed import LocalCluster

    options = {"threads_per_worker": 1, "dashboard_address": ":0", "silence_logs": logging.CRITICAL}
    directory = config.set({"temporary-directory": str(tmp_path_factory.mktemp("dask"))})
    with directory, LocalCluster(n_workers=2, processes=True, **options) as made:
        yield made


def dial(cluster: LocalCluster, plan: DialPlan, wiring: Wiring, *rest: Any, **more: Any) -> DialReport:
    cluster.wait_for_workers(2)  # one may have been killed
    address = cluster.scheduler_address.replace("tcp://", "dask://")
    return run_on_cluster(address, plan, wiring, *rest, **more)


def pids(cluster: LocalCluster) -> dict[str, int]:
    """By the names that a report gives the workers."""
    return {worker.worker_address.partition("://")[2]: worker.pid for worker in cluster.workers.values()}


def children_of(pid: int) -> list[int]:
    """And theirs."""
    own: list[int] = []
    for each in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):  # a thread that has ended
            own += [int(child) for child in each.read_text().split()]
    return own + [each for child in own for each in children_of(child)]


@needs_tun
def test_each_worker_dials_its_share_and_all_hold_together(cluster: LocalCluster) -> None:
    ready: list[list[str]] = []
    seen: list[Progress] = []
    plan, wiring = plan_of(400, hold_s=0.7)
    report = dial(cluster, plan, wiring, seen.append, on_ready=ready.append)
    done = report.connections
    assert (done.begun, done.established, done.peak_open, done.failed, done.closed) == (400, 400, 400, 0, 400)
    assert ready == [sorted(pids(cluster))]
    assert [(one.name, one.share, one.established, one.error) for one in report.workers] == [
        (name, 0.5, 200, None) for name in ready[0]
    ]
    assert [(target.address, target.established) for target in report.targets] == [
        ("10.65.0.0", 200),
        ("10.65.0.1", 200),
    ]
    assert (report.processes, report.asked.connections, report.exit) == (2, 400, 0)
    assert report.wire.startswith("tun ft0, private network namespace")
    assert max(progress.open for progress in seen) == 400


@needs_tun
def test_a_worker_that_is_killed_is_named_with_its_share_and_the_other_goes_on(cluster: LocalCluster) -> None:
    killed: list[str] = []
    children: list[int] = []

    def on_progress(progress: Progress) -> None:
        if progress.open >= 100 and not killed:
            name, pid = sorted(pids(cluster).items())[0]
            killed.append(name)
            children.extend(children_of(pid))
            os.kill(pid, signal.SIGKILL)

    report = dial(cluster, *plan_of(1000, rate=500.0), on_progress)
    assert len(children) >= 2  # a process that dials, a private namespace
    lost, other = report.workers
    assert (lost.name, lost.share, lost.connections) == (killed[0], 0.5, 500)
    assert str(lost.error).startswith("the worker has gone, with ")
    assert (other.established, other.error) == (500, None)
    assert (report.connections.established, report.exit) == (500, 10)
    wait_for_end(children)


_PROGRAM = """
import sys
from fourtuple.dial.cluster import run_on_cluster
from fourtuple.dial.plan import DialPlan, Target
from fourtuple.dial.wiring import Wiring
plan = DialPlan(2000, (Target("10.65.0.1", 8080),), wire="veth", rate=200.0, hold_s=60.0)
wiring = Wiring(servers=(("10.65.0.1", 8080),))
run_on_cluster(sys.argv[1], plan, wiring, lambda progress: print(progress.open, flush=True))
"""


def test_nothing_is_left_on_the_workers_of_a_dial_whose_client_dies(cluster: LocalCluster) -> None:
    cluster.wait_for_workers(2)
    address = cluster.scheduler_address.replace("tcp://", "dask://")
    with subprocess.Popen([sys.executable, "-c", _PROGRAM, address], stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        for _ in client.stdout:
            children = [child for pid in pids(cluster).values() for child in children_of(pid)]
            if len(children) >= 4:  # of each worker a process that dials, and a private namespace
                break
        client.kill()
    assert len(children) >= 4
    wait_for_end(children)


def test_stopping_closes_what_is_open_on_all_workers(cluster: LocalCluster) -> None:
    seen: list[Progress] = []
    plan, wiring = plan_of(2000, wire="veth", rate=500.0)
    report = dial(cluster, plan, wiring, seen.append, lambda: bool(seen) and seen[-1].open >= 50)
    done = report.connections
    assert 50 <= done.established == done.closed < 2000
    assert {one.error for one in report.workers} == {None}


def test_what_stands_in_the_way_on_each_worker_is_named(cluster: LocalCluster) -> None:
    report = dial(cluster, *plan_of(100, wire="sim", range=(9, 1)))
    assert [str(one.error) for one in report.workers] == ["net.ipv4.ip_local_port_range=9 1: refused as Linux does"] * 2
    assert (report.connections.begun, report.exit) == (0, 29)


def test_a_local_cluster_is_started_and_ended_for_one_dial() -> None:
    ready: list[list[str]] = []
    report = run_on_cluster("dask://local", *plan_of(100, wire="sim"), on_ready=ready.append)
    assert len(ready[0]) == len(report.workers) == os.cpu_count()
    assert (report.connections.established, report.exit) == (100, 0)


def test_no_scheduler_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fourtuple.dial.cluster._CONNECT_S", 0.5)
    with pytest.raises(ClusterUnavailable, match=r"no Dask scheduler answers at 127\.0\.0\.1:9") as caught:
        run_on_cluster("dask://127.0.0.1:9", *plan_of(10))
    assert "dask scheduler" in caught.value.todo


def test_dask_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ClusterUnavailable, match="Dask is not installed here") as caught:
        run_on_cluster("dask://local", *plan_of(10))
    assert caught.value.todo == "pip install 'fourtuple[cluster]'"


@pytest.mark.parametrize("address", ["10.0.0.1:8786", "dask://", "spark://local"])
def test_an_address_that_is_no_cluster(address: str) -> None:
    with pytest.raises(ValueError, match="say dask://HOST:PORT"):
        run_on_cluster(address, *plan_of(10))


@pytest.mark.parametrize("failures", [0, 2, 3])
def test_a_cluster_that_does_not_come_up_is_started_again(failures: int) -> None:
    made: list[int] = []

    def make(**options: object) -> str:
        made.append(1)
        if len(made) <= failures:
            raise RuntimeError("Nanny failed to start.")
        return "cluster"

    if failures == 3:
        with pytest.raises(ClusterUnavailable, match="Nanny failed to start"):
            _started(make)  # type: ignore[arg-type]
    else:
        assert _started(make) == "cluster"  # type: ignore[arg-type,comparison-overlap]
    assert len(made) == min(failures + 1, 3)
