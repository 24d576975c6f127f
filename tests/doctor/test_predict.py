"""A reading made of rows: what is chosen, how it is named, what may be inferred, and what two readings tell."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest

from fourtuple.doctor.answers import Interval
from fourtuple.doctor.predict import ODD_RANGE, State, as_json, compare
from fourtuple.live import Socket, SocketTable
from fourtuple.live.socket_table import NO_PORT, NO_PORT_KNOWN
from fourtuple.sysctl import Sysctls

LOW, HIGH = 40_000, 40_099
ME, ALSO_ME, PEER, OTHER = "10.0.0.2", "10.0.0.3", "10.1.0.1", "10.1.0.2"
SURE = NO_PORT_KNOWN | NO_PORT


@dataclass(frozen=True)
class Who:
    pid: int
    command: str


def settings(**texts: object) -> Sysctls:
    found = Sysctls()
    for name, text in ({"ip_local_port_range": f"{LOW} {HIGH}"} | texts).items():
        assert found.set(f"net.ipv4.{name}", str(text)) == 0
    return found


def row(port: int, to: str = PEER, state: str = "ESTABLISHED", **more: object) -> Socket:
    fields: dict[str, object] = {"saddr": ME, "dport": 443, "inode": port, "flags": SURE}
    return Socket(2, state, sport=port, daddr=to, **(fields | more))  # type: ignore[arg-type]


def reading(*rows: Socket, at: float = 100.0, **texts: object) -> State:
    return State(SocketTable.of(rows, taken_at=at), settings(**texts))


def evens(count: int, to: str = PEER, **more: object) -> list[Socket]:
    return [row(LOW + 2 * i, to, **more) for i in range(count)]


def test_destinations_are_those_with_a_share_of_the_range_the_fullest_first() -> None:
    state = reading(*evens(10), *evens(30, OTHER), row(LOW, "10.1.0.3"), *evens(20, dport=80))
    found = state.destinations(minimum_share=0.05)
    assert [(p.destination, p.port, p.used) for p in found] == [(OTHER, 443, 30), (PEER, 80, 20), (PEER, 443, 10)]
    assert state.count_small == 1
    assert [p.destination for p in state.destinations(at_most=1)] == [OTHER]
    assert [p.port for p in state.destinations(destination=PEER)] == [80, 443]
    assert [p.destination for p in state.destinations(port=443, destination="10.1.0.3")] == ["10.1.0.3"]
    assert state.destinations(destination="10.9.9.9") == []


def test_each_source_has_a_row_of_its_own_and_predict_takes_the_usual_one() -> None:
    state = reading(*evens(10), *evens(20, saddr=ALSO_ME))
    assert {(p.source, p.used) for p in state.destinations()} == {(ME, 10), (ALSO_ME, 20)}
    assert state.predict(None, PEER, 443).source == ALSO_ME
    assert state.predict(None, "10.9.9.9", 443).source == "*"
    assert state.predict(None, "2001:db8::9", 443).destination == "2001:db8::9"
    with pytest.raises(ValueError, match="not an IPv6 address"):
        state.predict(None, "example", 443)


def test_states_are_named_and_counted() -> None:
    state = reading(
        *evens(3),
        row(40_050, state="SYN_SENT"),
        row(40_052, state="TIME_WAIT", timer=3, expires_ms=9),
        row(40_054, OTHER),
    )
    found = state.predict(ME, PEER, 443)
    assert found.by_state == {"ESTABLISHED": 3, "SYN_SENT": 1, "TIME_WAIT": 1}
    assert (found.used, found.used_in_range_ports, found.time_wait_blocking_ports) == (5, 5, 1)
    assert state.summary.by_state == {"ESTABLISHED": 4, "SYN_SENT": 1, "TIME_WAIT": 1}


def test_the_distance_to_the_cliff_and_to_the_end() -> None:
    found = reading(*evens(40)).predict(ME, PEER, 443)
    assert found.to_cliff_ports == Interval(10, 10, 10)
    assert found.to_full_ports == Interval(60, 60, 60)
    assert (found.fill, found.errno, found.errno_certain, found.inferred) == (0.4, "", True, ())


def test_a_full_range_costs_a_search_over_all_of_it() -> None:
    state = reading(*(row(port) for port in range(LOW, HIGH + 1)))
    found = state.predict(ME, PEER, 443)
    assert (found.errno, found.failing_share, found.passed.mean) == ("EADDRNOTAVAIL", 1.0, 100)
    assert found.cost_us.low < found.cost_us.likely < found.cost_us.high
    assert found.with_port_range is not None
    assert found.with_port_range.errno == "EADDRNOTAVAIL"


def test_reserved_ports_and_a_busy_listener_count_whatever_the_destination() -> None:
    rows = [row(LOW + 30, "0.0.0.0", "LISTEN", saddr="0.0.0.0", dport=0, flags=0), row(LOW + 30, OTHER, flags=0)]
    state = reading(*rows, ip_local_reserved_ports=f"{LOW}-{LOW + 9},80")
    state.owners = {LOW + 30: Who(901, "nginx")}
    found = state.anywhere()
    assert (found.reserved_ports, found.shut_sure_ports, found.free.likely) == (10, 1, 89)
    assert state.summary.reserved_in_range == 10
    held = state.ports_not_joinable()
    assert [port.kind for port in held] == ["reserved"] * 10 + ["listen"]
    assert (held[-1].port, held[-1].pid, held[-1].command, held[-1].certainty) == (LOW + 30, 901, "nginx", "sure")


def test_what_cannot_be_seen_is_an_interval_and_says_so() -> None:
    state = reading(*evens(20, flags=0))
    found = state.predict(ME, OTHER, 443)
    assert found.free == Interval(80, 100, 100)
    assert (found.doubtful_ports, found.shut_likely_ports) == (20, 0)
    assert {"free", "fill", "to_full_ports"} <= set(found.inferred)
    assert [line.split(" ")[0] for line in found.reasons] == ["20"]
    assert found.passed.max == 0
    assert found.passed_if_bound.max == 20
    own = state.predict(ME, PEER, 443)  # there they are in the way, however they were bound
    assert own.free == Interval(80, 80, 80)
    assert (own.inferred, own.reasons, own.doubtful_ports) == ((), (), 0)
    assert {port.certainty for port in state.ports_not_joinable("possible")} == {"possible"}


def test_a_port_range_of_the_socket_has_no_cliff() -> None:
    state = reading(*evens(40))
    found = state.predict(ME, PEER, 443, port_range=(LOW, LOW + 49))
    assert (found.free.likely, found.to_cliff_ports.likely, found.with_port_range) == (25, 25, None)
    assert found.passed.max == 1


def test_an_odd_first_port_makes_odd_the_first_parity() -> None:
    state = reading(ip_local_port_range=f"{LOW + 1} {HIGH}")
    assert (state.summary.first_parity, state.summary.odd_sized) == ("odd", True)
    assert reading().summary.odd_sized is False
    found = state.anywhere()
    assert (found.free, found.reasons) == (
        Interval(98, 99, 99), (ODD_RANGE,),
    )  # fmt: skip


def test_two_readings_give_a_rate_and_the_time_left() -> None:
    earlier = reading(*evens(20), *evens(30, OTHER), at=100.0)
    later = reading(*evens(30)[2:], *evens(25, OTHER), at=102.0)
    rates = {p.destination: p.rate for p in compare(earlier, later, later.destinations())}
    growing, shrinking = rates[PEER], rates[OTHER]
    assert growing is not None
    assert shrinking is not None
    assert (growing.growth_per_s, growing.opened_per_s, growing.closed_per_s) == (4.0, 5.0, 1.0)
    assert (growing.cliff_in_s, growing.full_in_s) == (22 / 4, 72 / 4)
    assert (shrinking.growth_per_s, shrinking.cliff_in_s, shrinking.full_in_s) == (-2.5, None, None)


def test_what_has_come_is_zero_seconds_away() -> None:
    later = reading(*evens(50), at=102.0)
    (found,) = compare(reading(*evens(50)), later, later.destinations())
    assert found.rate is not None
    assert (found.rate.cliff_in_s, found.rate.full_in_s, found.rate.growth_per_s) == (0.0, None, 0.0)


def test_readings_have_to_be_in_order() -> None:
    with pytest.raises(ValueError, match="not later"):
        compare(reading(at=5.0), reading(at=5.0), [])


def test_everything_goes_to_json() -> None:
    state = reading(*evens(50), row(LOW + 1, "10.1.0.3", flags=0))
    later = reading(*evens(50), row(LOW + 1), at=101.0)
    found = compare(state, later, later.destinations())
    text = json.loads(json.dumps(as_json([found, state.summary, state.ports_not_joinable("possible")])))
    assert text[0][0]["free"] == {"low": 49, "likely": 49, "high": 49}
    assert text[0][0]["rate"]["seconds_between"] == 1.0
    assert text[1]["ports_in_range"] == 100


def test_no_sockets_at_all() -> None:
    state = reading()
    assert (state.destinations(), state.ports_not_joinable("possible"), state.summary.sockets) == ([], [], 0)
    assert state.anywhere().free == Interval(100, 100, 100)


def test_a_range_of_one_port() -> None:
    state = reading(row(LOW), ip_local_port_range=f"{LOW} {LOW}")
    assert state.predict(ME, PEER, 443).errno == "EADDRNOTAVAIL"
    assert state.predict(ME, OTHER, 443).errno == ""
    assert state.predict(ME, PEER, 443).to_cliff_ports == Interval(0, 0, 0)


def test_of_a_range_of_three_no_search_looks_at_the_last_port() -> None:
    three = f"{LOW} {LOW + 2}"
    found = reading(ip_local_port_range=three).anywhere()
    assert (found.free, found.reasons, found.fill) == (Interval(2, 2, 2), (), 0.0)
    full = reading(row(LOW), row(LOW + 1), ip_local_port_range=three).predict(ME, PEER, 443)
    assert (full.errno, full.free, full.fill) == ("EADDRNOTAVAIL", Interval(0, 0, 0), 1.0)
    assert full.with_port_range is not None
    assert (full.with_port_range.errno, full.with_port_range.free) == ("", Interval(1, 1, 1))
