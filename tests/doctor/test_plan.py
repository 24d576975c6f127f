"""A plan's arithmetic against numbers worked out by hand, its simulation against the arithmetic and the live kernel."""

from __future__ import annotations

import errno
import random
from collections.abc import Iterator

import pytest

from fourtuple.doctor.answers import as_json
from fourtuple.doctor.plan import Workload, demand_of, plan, simulate
from fourtuple.doctor.simulate import Load, Pair
from fourtuple.sysctl import Sysctls
from tests.doctor.sick import LOW, A, Sick
from tests.live.space import needs_root


@pytest.fixture
def sick() -> Iterator[Sick]:
    with Sick() as made:
        yield made


def small(**changes: object) -> Workload:
    """1,000 ports; 20 connections a second for 10 s."""
    defaults: dict[str, object] = {"rate_per_s": 20, "hold_s": 10, "port_low": 40000, "port_high": 40999}
    return Workload(**(defaults | changes))  # type: ignore[arg-type]


def test_the_demand_is_what_littles_law_says() -> None:
    demand = demand_of(Workload(500, 60))
    assert (demand.open_at_once, demand.time_waits, demand.four_tuples) == (30_000, 30_000, 60_000)
    assert demand.fill == 60_000 / 28_232
    assert demand_of(Workload(500, 60, server_closes_first=True)).four_tuples == 30_000
    assert demand_of(Workload(500, 60, tcp_tw_reuse=1)).four_tuples == 30_500
    assert demand_of(Workload(500, 60, requests_per_connection=20)).four_tuples == 3_000
    assert demand_of(Workload(500, 60, sources=2, dests=3)).four_tuples_per_pair == 10_000


def test_a_load_that_does_not_fit_says_when_and_what_would_help() -> None:
    found = plan(small(rate_per_s=100, budget_us=20.0))
    # 100/s for 10 s and 60 s of TIME_WAIT: 7,000 for 1,000 ports, half of them gone after 5 s, all after 10
    assert (found.fits, found.demand.four_tuples, found.cliff_after_s, found.full_after_s) == (False, 7_000, 5, 10)
    assert found.now.failing_share == pytest.approx(6 / 7, abs=0.05)
    assert any(line.startswith("EADDRNOTAVAIL: 7000 four-tuples for 1000 ports") for line in found.why_not)
    assert {option.text for option in found.options} >= {
        "keep-alive, 20 requests each: 5/s",
        "15 source addresses",
        "15 destinations (addresses or ports)",
        "range 1024-65535",
    }
    for option in found.options:
        assert option.outcome.failing_share == 0
        assert option.outcome.cost_us.likely <= 20
        assert option.headroom >= 1
    assert as_json(found)["options"][0]["workload"]["rate_per_s"] == 100


def test_a_load_below_half_fits_and_has_no_options() -> None:
    found = plan(small(rate_per_s=5, hold_s=30, budget_us=20))
    assert (found.fits, found.why_not, found.options, found.cliff_after_s) == (True, (), (), None)
    assert found.now.fill == pytest.approx(0.45, abs=0.05)


@pytest.mark.parametrize(
    "load",
    [
        small(server_closes_first=True),
        small(rate_per_s=8),
        small(rate_per_s=13),
        small(rate_per_s=60, tcp_tw_reuse=1),
        small(rate_per_s=12, local_port_range_option=True),
    ],
)
def test_the_simulation_fills_as_the_arithmetic_says(load: Workload) -> None:
    assert simulate(load).fill == pytest.approx(demand_of(load).fill, rel=0.08)


@pytest.mark.compiled_only
def test_the_option_on_the_socket_takes_the_cliff_away() -> None:
    past_half = small(rate_per_s=10)
    assert simulate(past_half).passed.mean > 150
    stepped = simulate(small(rate_per_s=10, local_port_range_option=True))
    assert stepped.passed.p95 < 20
    assert plan(small(rate_per_s=10, budget_us=10)).options[0].text == "IP_LOCAL_PORT_RANGE on the sockets"


@pytest.mark.compiled_only
def test_the_same_seed_gives_the_same_plan() -> None:
    load = small(rate_per_s=100, budget_us=20)
    assert plan(load, seed=7) == plan(load, seed=7)


def test_numbers_that_make_no_sense_are_one_line() -> None:
    for bad in (
        {"rate_per_s": 0}, {"hold_s": -1}, {"dests": 0}, {"sources": 0}, {"budget_us": 0.0},
        {"port_low": 5, "port_high": 4}, {"port_high": 70_000}, {"requests_per_connection": 0},
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"."):
            small(**bad)


def test_a_simulated_pair_holds_what_littles_law_says() -> None:
    sysctls = Sysctls()
    sysctls.port_low, sysctls.port_high = 40000, 40099
    pair = Pair(sysctls, Load(1.0, 5.0, True, False), 3)
    pair.settle()
    measured = pair.run(2_000)
    assert measured.failed == 0
    assert measured.open_at_once == pytest.approx(5, rel=0.15)
    assert measured.time_waits == pytest.approx(60, rel=0.1)


@pytest.mark.compiled_only
@needs_root
def test_churn_past_half_passes_over_what_the_kernels_passes_over(sick: Sick) -> None:
    """300 of 400 ports held, one closed at random for each one opened: how often the second parity is used."""
    dice = random.Random(2)
    held = []
    kernel = 0
    for turn in range(3_300):
        if len(held) == 300:
            held.pop(dice.randrange(300)).close()
        client = sick.client()
        assert client.connect_ex(A) == errno.EINPROGRESS
        held.append(client)
        if turn >= 1_300:
            kernel += (client.getsockname()[1] - LOW) % 2
    sysctls = Sysctls()
    sysctls.port_low, sysctls.port_high = LOW, LOW + 399
    pair = Pair(sysctls, Load(10.0, 30.0, False, False), 2)
    pair.settle()
    pair.run(1_300)
    ours = sum(passed >= 200 for passed in pair.run(2_000).passed)
    # a third of the ports in use are of the second parity, so a third of what is opened must be, too
    assert kernel / 2_000 == pytest.approx(1 / 3, abs=0.05)
    assert ours / 2_000 == pytest.approx(1 / 3, abs=0.05)
