"""What is predicted of a sick namespace is what its kernel does: how many more connects succeed, and the errno."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Iterator

import pytest

from tests.doctor.sick import (
    HIGH,
    LOW,
    OTHER_SOURCE,
    PORTS,
    SOURCE,
    A,
    B,
    C,
    Sick,
)
from tests.live.space import needs_root

pytestmark = needs_root


@pytest.fixture
def sick() -> Iterator[Sick]:
    with Sick() as made:
        yield made


def test_nothing_connected_leaves_every_port_and_all_is_certain(sick: Sick) -> None:
    found = sick.state().predict(None, *A)
    assert (found.free.low, found.free.likely, found.free.high, found.inferred) == (PORTS, PORTS, PORTS, ())
    assert sick.succeeding(A) == (PORTS, "EADDRNOTAVAIL")


def test_half_full_is_the_cliff(sick: Sick) -> None:
    sick.hold(PORTS // 2, A)
    found = sick.state().predict(None, *A)
    assert found.by_state == {"SYN_SENT": PORTS // 2}
    assert (found.to_cliff_ports.high, found.free_second.low, found.fill) == (0, PORTS // 2, 0.5)
    assert (found.passed.p50, found.passed.max, found.errno) == (PORTS // 2, PORTS // 2, "")
    assert found.with_port_range is not None
    assert (found.with_port_range.passed.max, found.with_port_range.free.likely) == (1, PORTS // 2)
    assert found.source == SOURCE
    assert sick.succeeding(A) == (found.free.low, "EADDRNOTAVAIL")


def test_full_is_eaddrnotavail_for_this_destination_and_no_other(sick: Sick) -> None:
    sick.hold(PORTS, A)
    state = sick.state()
    found, other = state.predict(SOURCE, *A), state.predict(SOURCE, *B)
    assert (found.errno, found.errno_certain, found.free.high, found.fill) == ("EADDRNOTAVAIL", True, 0, 1.0)
    assert sick.succeeding(A) == (0, "EADDRNOTAVAIL")
    assert (other.errno, other.errno_certain, other.free.low, other.free.likely) == ("", False, 0, PORTS)
    assert "free" in other.inferred
    assert other.reasons
    assert sick.succeeding(B) == (other.free.likely, "EADDRNOTAVAIL")


@pytest.mark.parametrize("order", [(A, B), (B, A)], ids=["full first", "full last"])
def test_a_destination_past_half_beside_a_full_one_is_no_hoarder(
    sick: Sick, order: tuple[tuple[str, int], ...]
) -> None:
    for to in order:
        sick.hold(PORTS if to == A else 230, to)
    found = sick.state().predict(SOURCE, *B)
    assert found.errno == ""
    assert found.free.low <= found.free.likely == 170
    assert sick.succeeding(B)[0] == 170


def test_a_bind_hoarder_is_known_by_its_parity(sick: Sick) -> None:
    sick.hold(100, C, bind=(SOURCE, 0))
    state = sick.state()
    found = state.predict(SOURCE, *A)
    assert (found.free.low, found.free.likely, found.free.high) == (PORTS - 100, PORTS - 100, PORTS)
    assert (found.shut_likely_ports, found.shut_sure_ports) == (100, 0)
    assert {port.certainty for port in state.ports_not_joinable()} == {"likely"}
    assert sick.succeeding(A) == (PORTS - 100, "EADDRNOTAVAIL")


def test_a_crawler_that_binds_first_is_known_by_the_parity_of_all_its_destinations(sick: Sick) -> None:
    for host in range(60):
        sick.hold(1, (f"203.0.113.{host + 50}", 443), bind=(SOURCE, 0))
    found = sick.state().predict(SOURCE, *A)
    assert found.free.likely == PORTS - 60
    assert sick.succeeding(A) == (PORTS - 60, "EADDRNOTAVAIL")


def test_connect_chosen_ports_of_no_port_sockets_are_shared_for_certain(sick: Sick) -> None:
    ports = sick.hold(100, C, bind=(SOURCE, 0), no_port=True)
    assert {port % 2 for port in ports} == {0}
    found = sick.state().predict(SOURCE, *A)
    assert found.free.is_exact
    assert found.inferred == ()
    assert sick.succeeding(A) == (found.free.low, "EADDRNOTAVAIL")


def test_bound_sockets_that_never_connect_shut_their_ports(sick: Sick) -> None:
    for _ in range(60):
        sick.client(bind=(SOURCE, 0))
    state = sick.state()
    found = state.anywhere()
    assert (found.free.low, found.free.high, found.shut_sure_ports) == (PORTS - 60, PORTS - 60, 60)
    assert {(port.kind, port.certainty) for port in state.ports_not_joinable("sure")} == {("bound", "sure")}
    assert sick.succeeding(A) == (PORTS - 60, "EADDRNOTAVAIL")


def test_reserved_ports_that_eat_a_parity(sick: Sick) -> None:
    sick.sysctl("net.ipv4.ip_local_reserved_ports", ",".join(str(port) for port in range(LOW, HIGH, 2)))
    state = sick.state()
    found = state.predict(SOURCE, *A)
    assert (found.free.low, found.to_cliff_ports.high, found.reserved_ports) == (PORTS // 2, 0, PORTS // 2)
    assert (found.passed.p50, state.summary.reserved_in_range) == (PORTS // 2, PORTS // 2)
    assert sick.succeeding(A) == (PORTS // 2, "EADDRNOTAVAIL")


def test_a_listener_in_the_range_and_what_it_accepted(sick: Sick) -> None:
    listener = sick.listen(SOURCE, LOW + 10)
    sick.pair(listener)
    state = sick.state()
    found = state.predict(SOURCE, *A)
    assert (found.free.high, found.shut_sure_ports) == (PORTS - 1, 1)
    held = state.ports_not_joinable("sure")
    assert [(port.port, port.kind) for port in held] == [(LOW + 10, "listen")]
    assert held[0].inode
    done, error = sick.succeeding(A)
    assert found.free.low <= done == found.free.likely
    assert error == "EADDRNOTAVAIL"


def test_an_accepted_connection_goes_on_holding_the_port_of_a_listener_that_is_gone(sick: Sick) -> None:
    listener = sick.listen(SOURCE, LOW + 10)
    sick.pair(listener)
    listener.close()
    found = sick.state().predict(SOURCE, *A)
    done, _ = sick.succeeding(A)
    assert done == PORTS - 1
    assert found.free.low <= done <= found.free.high


def test_users_of_ip_local_port_range_take_both_parities_and_share(sick: Sick) -> None:
    ports = sick.hold(100, C, own_range=(LOW, LOW + 99))
    assert len(set(ports)) == 100
    found = sick.state().predict(SOURCE, *A)
    assert (found.free.likely, found.shut_likely_ports) == (PORTS, 0)
    assert found.free.low <= PORTS - 100
    assert sick.succeeding(A) == (PORTS, "EADDRNOTAVAIL")


def test_a_socket_with_ip_local_port_range_of_its_own(sick: Sick) -> None:
    sick.hold(30, A, own_range=(LOW, LOW + 49))
    found = sick.state().predict(SOURCE, *A, port_range=(LOW, LOW + 49))
    assert found.free.likely == 20
    assert sick.succeeding(A, own_range=(LOW, LOW + 49)) == (20, "EADDRNOTAVAIL")


def test_a_second_source_has_ports_of_its_own(sick: Sick) -> None:
    sick.hold(PORTS, A, bind=(SOURCE, 0), no_port=True)
    state = sick.state()
    full, fresh = state.predict(SOURCE, *A), state.predict(OTHER_SOURCE, *A)
    assert (full.errno, fresh.errno, fresh.free.low) == ("EADDRNOTAVAIL", "", PORTS)
    assert fresh.passed.max == 0
    assert sick.succeeding(A, bind=(OTHER_SOURCE, 0), no_port=True) == (PORTS, "EADDRNOTAVAIL")


def test_explicit_ports_with_so_reuseaddr_are_not_shared(sick: Sick) -> None:
    for port in range(LOW, LOW + 20):
        sick.hold(1, B, bind=(SOURCE, port), reuse=True)
        sick.hold(1, C, bind=(SOURCE, port), reuse=True)
    found = sick.state().predict(SOURCE, *A)
    done, _ = sick.succeeding(A)
    assert done == PORTS - 20
    assert found.free.low <= done <= found.free.high


def test_ipv6_and_ipv4_share_the_buckets(sick: Sick) -> None:
    six = ("2001:db8:77::99", 443)
    sick.hold(150, six, family=socket.AF_INET6)
    for _ in range(40):
        sick.client(bind=(SOURCE, 0))
    state = sick.state()
    found = state.predict(None, *six)
    assert (found.family, found.used, found.source, found.shut_sure_ports) == (6, 150, "2001:db8:77::1", 40)
    assert found.free.likely == PORTS - 150 - 40
    assert sick.succeeding(six, family=socket.AF_INET6) == (found.free.likely, "EADDRNOTAVAIL")


@pytest.mark.parametrize("host", ["::", "0.0.0.0"])
def test_a_wildcard_listener_shuts_its_port_for_both_families(sick: Sick, host: str) -> None:
    sick.listen(host, LOW + 4)
    for to, family in ((A, socket.AF_INET), (("2001:db8:77::99", 443), socket.AF_INET6)):
        found = sick.state().predict(None, *to)
        assert (found.shut_sure_ports, found.free.likely) == (1, PORTS - 1)
        assert sick.succeeding(to, family=family) == (PORTS - 1, "EADDRNOTAVAIL")


def test_v4_mapped_sockets_are_ipv4(sick: Sick) -> None:
    sick.hold(PORTS // 2, (f"::ffff:{A[0]}", A[1]), family=socket.AF_INET6)
    found = sick.state().predict(SOURCE, *A)
    assert (found.used, found.family, found.free.likely) == (PORTS // 2, 4, PORTS // 2)
    assert sick.succeeding(A) == (PORTS // 2, "EADDRNOTAVAIL")


def test_a_range_of_odd_size(sick: Sick) -> None:
    sick.range(LOW, LOW + 10)
    taken = sick.hold(3, A)
    found = sick.state().predict(SOURCE, *A)
    done, error = sick.succeeding(A)
    assert found.free.low <= done <= found.free.high
    in_doubt = int(not {LOW, LOW + 10} <= set(taken))
    assert (found.free.high - found.free.low, error) == (in_doubt, "EADDRNOTAVAIL")


@pytest.mark.parametrize(("reuse", "address"), [(0, "127.0.0.1"), (2, SOURCE), (1, SOURCE), (2, "127.0.0.1")])
def test_time_waits_block_until_they_may_be_reused(sick: Sick, reuse: int, address: str) -> None:
    sick.sysctl("net.ipv4.tcp_tw_reuse", reuse)
    sick.sysctl("net.ipv4.tcp_tw_reuse_delay", 200)
    sick.time_waits(80, (address, 9000))
    sick.listen(address, 9000, backlog=4096)
    time.sleep(0.3)
    found = sick.state().predict(address, address, 9000)
    reusable = reuse == 1 or (reuse == 2 and address == "127.0.0.1")
    assert found.by_state == {"TIME_WAIT": 80}
    assert found.free.likely == (PORTS if reusable else PORTS - 80)
    assert (found.time_wait_blocking_ports, found.time_wait_reusable_ports) == ((0, 80) if reusable else (80, 0))
    done, _ = sick.succeeding((address, 9000))
    assert found.free.low <= done <= found.free.high
    assert done == found.free.likely


def test_time_waits_count_for_their_destination_only_if_connect_chose_their_port(sick: Sick) -> None:
    sick.sysctl("net.ipv4.tcp_tw_reuse", 0)
    sick.time_waits(50, (SOURCE, 9000))
    found = sick.state().predict(SOURCE, *A)
    assert found.free.likely == PORTS
    assert sick.succeeding(A) == (PORTS, "EADDRNOTAVAIL")


def test_time_waits_of_bound_sockets_block_their_port_for_everybody(sick: Sick) -> None:
    sick.time_waits(40, (SOURCE, 9000), source=(SOURCE, 0))
    found = sick.state().predict(SOURCE, *A)
    assert (found.free.likely, found.shut_likely_ports) == (PORTS - 40, 40)
    assert sick.succeeding(A) == (PORTS - 40, "EADDRNOTAVAIL")


def _make_sick(sick: Sick, dice: random.Random) -> None:
    """A few of everything, in a random order."""
    ways = [
        lambda n: sick.hold(n, dice.choice([A, B, C])),
        lambda n: sick.hold(n, dice.choice([A, C]), bind=(SOURCE, 0)),
        lambda n: sick.hold(n, dice.choice([A, B]), bind=(SOURCE, 0), no_port=True),
        lambda n: sick.hold(n, dice.choice([A, B]), bind=(OTHER_SOURCE, 0), no_port=True),
        lambda n: sick.hold(n, dice.choice([B, C]), own_range=(LOW, LOW + 150)),
        lambda n: [sick.client(bind=(SOURCE, 0)) for _ in range(n)],
        lambda n: sick.hold(n, ("2001:db8:77::99", 443), family=socket.AF_INET6),
        lambda n: [sick.pair(sick.listen(SOURCE, 0)) for _ in range(n // 8)],
    ]
    for way in dice.sample(ways, 6):
        way(dice.randrange(8, 40))


@pytest.mark.parametrize("seed", range(8))
def test_a_mixture_of_everything(sick: Sick, seed: int) -> None:
    dice = random.Random(seed)
    sick.sysctl("net.ipv4.ip_local_reserved_ports", f"{LOW + 20}-{LOW + 20 + seed},{HIGH}")
    _make_sick(sick, dice)
    to = dice.choice([A, B, ("203.0.113.77", 8080)])
    source = dice.choice([SOURCE, OTHER_SOURCE])
    found = sick.state().predict(source, *to)
    done, error = sick.succeeding(to, bind=(source, 0), no_port=True)
    assert found.free.low <= done <= found.free.high
    assert error == "EADDRNOTAVAIL"
