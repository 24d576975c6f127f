"""What is said to be if: the change is then made on the live kernel, and it is so."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from fourtuple.doctor.predict import State
from fourtuple.doctor.what_if import KEYS, parse_changes, table, what_if
from fourtuple.live import SocketTable
from fourtuple.sysctl import Sysctls
from tests.doctor.sick import HIGH, LOW, OTHER_SOURCE, PORTS, SOURCE, A, B, C, Sick
from tests.live.space import needs_root


@pytest.fixture
def sick() -> Iterator[Sick]:
    with Sick() as made:
        yield made


@dataclass(frozen=True)
class Who:
    pid: int
    command: str


@needs_root
def test_a_wider_range(sick: Sick) -> None:
    sick.hold(PORTS, A)
    state = sick.state()
    changed = what_if(state, {"ip_local_port_range": f"{LOW - 100}-{HIGH}"})
    ((today, then),) = table(state, changed, state.destinations())
    assert (today.errno, then.errno, then.free.likely, then.ports_in_range) == ("EADDRNOTAVAIL", "", 100, PORTS + 100)
    assert then.fill == PORTS / (PORTS + 100)
    sick.range(LOW - 100, HIGH)
    assert sick.succeeding(A) == (100, "EADDRNOTAVAIL")


@needs_root
def test_reserved_ports(sick: Sick) -> None:
    changed = what_if(sick.state(), {"net.ipv4.ip_local_reserved_ports": f"{LOW}-{LOW + 99}"})
    assert changed.predict(SOURCE, *A).free.likely == PORTS - 100
    sick.sysctl("net.ipv4.ip_local_reserved_ports", f"{LOW}-{LOW + 99}")
    assert sick.succeeding(A) == (PORTS - 100, "EADDRNOTAVAIL")


@needs_root
def test_tcp_tw_reuse(sick: Sick) -> None:
    sick.sysctl("net.ipv4.tcp_tw_reuse", 0)
    sick.time_waits(60, (SOURCE, 9000))
    time.sleep(0.05)  # past the delay of 1 ms, and the kernel's tick
    state = sick.state()
    assert state.predict(SOURCE, SOURCE, 9000).free.likely == PORTS - 60
    slow = what_if(state, {"tcp_tw_reuse": "1", "tcp_tw_reuse_delay": "50000"})
    assert slow.predict(SOURCE, SOURCE, 9000).free.likely == PORTS - 60
    quick = what_if(state, {"tcp_tw_reuse": "1", "tcp_tw_reuse_delay": "1"}).predict(SOURCE, SOURCE, 9000)
    assert (quick.free.likely, quick.free.low, quick.time_wait_reusable_ports) == (PORTS, PORTS - 60, 60)
    sick.sysctl("net.ipv4.tcp_tw_reuse", 1)
    sick.sysctl("net.ipv4.tcp_tw_reuse_delay", 1)
    sick.listen(SOURCE, 9000, backlog=4096)
    assert sick.succeeding((SOURCE, 9000)) == (PORTS, "EADDRNOTAVAIL")


@needs_root
def test_a_second_source(sick: Sick) -> None:
    sick.hold(PORTS, A)
    changed = what_if(sick.state(), {"sources": "2"})
    found = changed.predict(SOURCE, *A)
    # half of them from this source, which fills the first parity: at the cliff, as it is with two real sources
    assert (found.free.likely, found.to_cliff_ports.likely, found.errno) == (PORTS // 2, 0, "")
    assert any("made again" in note for note in changed.notes)
    with Sick() as other:
        for source in (SOURCE, OTHER_SOURCE):
            other.hold(PORTS // 2, A, bind=(source, 0), no_port=True)
        real = other.state().predict(SOURCE, *A)
        assert (real.free, real.free_first) == (found.free, found.free_first)


@needs_root
def test_more_destinations(sick: Sick) -> None:
    sick.hold(300, A)
    changed = what_if(sick.state(), {"dests": "3"})
    assert [p.used for p in changed.destinations()] == [100]
    assert changed.predict(SOURCE, *A).free.likely == PORTS - 100


@needs_root
def test_ip_local_port_range_on_the_sockets(sick: Sick) -> None:
    sick.hold(PORTS // 2, A)
    state = sick.state()
    found = what_if(state, {"IP_LOCAL_PORT_RANGE": "on"}).predict(SOURCE, *A)
    assert (found.passed.max, found.free.likely) == (1, PORTS // 2)
    assert state.predict(SOURCE, *A).passed.p50 == PORTS // 2
    assert sick.succeeding(A, own_range=(LOW, HIGH)) == (PORTS // 2, "EADDRNOTAVAIL")


@needs_root
def test_programs_that_let_connect_choose_the_port(sick: Sick) -> None:
    for _ in range(50):
        sick.client(bind=(SOURCE, 0))
    sick.hold(100, C, bind=(SOURCE, 0))
    state = sick.state()
    assert state.predict(SOURCE, *A).free.likely == PORTS - 150
    found = what_if(state, {"bind_no_port": "1"}).predict(SOURCE, *A)
    assert (found.free.likely, found.free.is_exact) == (PORTS, True)


@needs_root
def test_connections_closed(sick: Sick) -> None:
    sick.hold(PORTS, A)
    sick.hold(50, B)
    state = sick.state()
    rows = [row for row in state.sockets if row.daddr == A[0]][:120]
    state.owners = {row.inode: Who(77, "crawler") for row in rows}
    for close, free in (
        ("pid/77", 120),
        ("command/crawler", 120),
        (f"inode/{rows[0].inode}", 1),
        (f"pid/77,inode/{rows[0].inode}", 120),
        (f"dest/{A[0]}:{A[1]}", PORTS),
        ("state/syn-sent", PORTS),
        ("pid/78", 0),
    ):
        assert what_if(state, {"close": close}).predict(SOURCE, *A).free.likely == free, close


def test_changes_add_up_and_the_first_state_stays_as_it_is() -> None:
    state = State(SocketTable.of([]), Sysctls())
    once = what_if(state, {"ip_local_port_range": "40000-40099"})
    twice = what_if(once, {"ip_local_reserved_ports": "40000-40049"})
    assert twice.anywhere().free.likely == 50
    assert twice.changes == {"ip_local_port_range": "40000-40099", "ip_local_reserved_ports": "40000-40049"}
    assert state.anywhere().ports_in_range == 28_232


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("ip_local_port_range", "9000-80"), ("ip_local_port_range", "x"), ("ip_local_reserved_ports", "99999"),
        ("tcp_tw_reuse", "3"), ("tcp_tw_reuse_delay", "-1"), ("sources", "0"), ("dests", "many"),
        ("IP_LOCAL_PORT_RANGE", "9-1"), ("bind_no_port", "yes"), ("close", "all"), ("close", "dest/10.0.0.1"),
        ("close", "state/OPEN"), ("close", "inode/x"), ("close", "dest/nowhere:80"),
    ],
)  # fmt: skip
def test_a_value_that_a_key_does_not_take_is_one_line(key: str, value: str) -> None:
    state = State(SocketTable.of([]), Sysctls())
    with pytest.raises(ValueError, match=r".") as refused:
        what_if(state, {key: value})
    assert "\n" not in str(refused.value)


def test_an_unknown_key_lists_those_there_are() -> None:
    with pytest.raises(ValueError, match="tcp_fin_timeout") as refused:
        parse_changes(["tcp_fin_timeout=5"])
    assert all(key in str(refused.value) for key in KEYS)
    with pytest.raises(ValueError, match="not KEY=VALUE"):
        parse_changes(["sources"])
    assert parse_changes(["net.ipv4.tcp_tw_reuse=1", "ip-local-port-range=1-2"]) == {
        "tcp_tw_reuse": "1",
        "ip_local_port_range": "1-2",
    }


def test_a_range_below_the_first_unprivileged_port_is_refused_with_its_sysctl() -> None:
    state = State(SocketTable.of([]), Sysctls())
    with pytest.raises(ValueError, match=r"begins below net\.ipv4\.ip_unprivileged_port_start, 1024"):
        what_if(state, {"ip_local_port_range": "1-65535"})
    with pytest.raises(ValueError, match="LOW-HIGH"):
        what_if(state, {"ip_local_port_range": "9-5"})
