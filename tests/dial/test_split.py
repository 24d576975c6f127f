"""A dial divided among workers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fourtuple.dial.part import Part
from fourtuple.dial.plan import DialPlan, Target, http_get
from fourtuple.phy.fault import parse_loss
from fourtuple.shell.netns import Server
from fourtuple.shell.wire import Setup


def plan_of(connections: int, targets: int, sources: int, **rest: Any) -> DialPlan:
    return DialPlan(
        connections,
        tuple(Target(f"10.9.{i >> 8}.{i & 255}", 80) for i in range(targets)),
        tuple(f"10.8.{i >> 8}.{i & 255}" for i in range(sources)),
        **rest,
    )


PLANS = st.builds(plan_of, st.integers(1, 3000), st.integers(1, 40), st.integers(0, 300), rate=st.floats(0, 1e6))
WORKERS = st.integers(1, 64)


@given(PLANS, WORKERS, st.booleans())
def test_shares_sum_up_and_nobody_has_nothing_to_do(plan: DialPlan, workers: int, own: bool) -> None:
    parts = plan.split(workers, own)
    assert len(parts) == min(workers, plan.connections)
    assert sum(part.connections for part in parts) == plan.connections
    assert sum(part.rate for part in parts) == pytest.approx(plan.rate)
    assert len({part.seed for part in parts}) == len({part.name for part in parts}) == len(parts)
    assert {part.processes for part in parts} == {1}


@given(PLANS, WORKERS)
def test_no_two_workers_have_a_source_and_target_in_common_where_there_are_enough(plan: DialPlan, workers: int) -> None:
    parts = plan.split(workers)
    if max(len(plan.sources), len(plan.targets)) < len(parts):
        return
    pairs = [(source, target) for part in parts for source in part.sources or ("",) for target in part.targets]
    assert len(set(pairs)) == len(pairs)
    assert set(pairs) <= {(source, target) for source in plan.sources or ("",) for target in plan.targets}


@given(PLANS, WORKERS)
def test_a_pair_gets_as_many_connections_as_from_one_worker(plan: DialPlan, workers: int) -> None:
    """A queue or a port range that is long enough for one worker is so for several."""
    parts = plan.split(workers)
    for units in ("sources", "targets"):
        numbers = [len(getattr(part, units)) for part in parts]
        if sum(numbers) == len(getattr(plan, units)) > 0:  # these were divided
            for part, n in zip(parts, numbers, strict=True):
                assert abs(part.connections - plan.connections * n / sum(numbers)) < 1


@given(st.builds(plan_of, st.integers(1, 3000), st.integers(1, 40), st.just(0)), WORKERS)
def test_with_addresses_of_their_own_all_have_all_targets(plan: DialPlan, workers: int) -> None:
    parts = plan.split(workers, own_sources=True)
    assert {part.targets for part in parts} == {plan.targets}
    assert max(part.connections for part in parts) - min(part.connections for part in parts) <= 1


def test_sources_are_divided_into_neighbours_so_that_few_routes_lead_to_them() -> None:
    parts = plan_of(1000, 3, 256).split(2)
    assert [(part.sources[0], part.sources[-1]) for part in parts] == [
        ("10.8.0.0", "10.8.0.127"),
        ("10.8.0.128", "10.8.0.255"),
    ]


def test_three_targets_among_two_workers() -> None:
    """The worker with two of them gets two thirds: each target gets 100."""
    parts = plan_of(300, 3, 0).split(2)
    assert [(part.connections, len(part.targets)) for part in parts] == [(100, 1), (200, 2)]


def test_a_part_is_the_same_after_its_way_through_a_pipe() -> None:
    plan = plan_of(10, 2, 3, talk=http_get(0.5, "/", "x"), range=(1024, 2047))
    setup = Setup(
        servers=(("10.9.0.0", 80), Server("10.9.1.0/24", 81, "hold", 500)),
        loss=tuple(parse_loss("syn:1-3,5%")),
        sysctls={"net.ipv4.tcp_syn_retries": "2"},
        sources=("10.8.0.0/24",),
        peer_sysctls={"net.core.somaxconn": "9"},
    )
    part = Part(plan, setup, "ft1", 7, "10.64.2.2/24", ("10.8.0.0/30",), "/proc/1/ns/net", True, True)
    assert Part.from_json(json.loads(json.dumps(part.to_json()))) == part
