"""How many ports a connect() passes over: predicted from one reading, against where many real connects end up.

The kernel's start is hidden, but the port that it ends at is not: behind a run of g ports in use it stands for g + 1
starts, which pass over 0 to g ports, each as likely as the other.
"""

from __future__ import annotations

import errno
import random
from collections.abc import Iterator

import pytest

from fourtuple.doctor.cost import Kinds, connect_cost
from tests.doctor.sick import LOW, SOURCE, Sick
from tests.live.space import needs_root

pytestmark = needs_root

PORTS = 100
DESTINATIONS = 120


@pytest.fixture
def sick() -> Iterator[Sick]:
    with Sick() as made:
        made.range(LOW, LOW + PORTS - 1)
        yield made


def destination(number: int) -> tuple[str, int]:
    return f"203.0.113.{number + 1}", 443


def use(sick: Sick, used: list[int]) -> None:
    """The same local ports towards every destination."""
    for number in range(DESTINATIONS):
        for port in used:
            sick.hold(1, destination(number), own_range=(port, port))


def runs_before(used: set[int], port: int) -> int:
    """How many ports in use, of its parity, stand right before it in the circle of its parity."""
    run = 0
    at = port
    while True:
        at = at - 2 if at - 2 >= LOW else at - 2 + PORTS
        if at not in used or run >= PORTS // 2:
            return run
        run += 1


def means(sick: Sick, used: list[int], whole_parity: int) -> tuple[float, float, float]:
    """Mean passed over: predicted, observed, and three standard errors of the observation."""
    predicted = {sick.state().predict(SOURCE, *destination(n)).passed.mean for n in range(3)}
    assert len(predicted) == 1
    runs = []
    for number in range(DESTINATIONS):
        (port,) = sick.hold(1, destination(number))
        runs.append(runs_before(set(used), port))
    observed = whole_parity + sum(runs) / 2 / DESTINATIONS
    mean = sum(runs) / DESTINATIONS
    variance = sum((run - mean) ** 2 for run in runs) / DESTINATIONS / 4
    return predicted.pop(), observed, 3 * (variance / DESTINATIONS) ** 0.5


def test_runs_in_the_first_parity_are_passed_over_from_every_start_alike(sick: Sick) -> None:
    used = [*range(LOW, LOW + 20, 2), *range(LOW + 30, LOW + 34, 2), *range(LOW + 50, LOW + 80, 2)]
    use(sick, used)
    predicted, observed, error = means(sick, used, 0)
    assert abs(predicted - observed) <= error


def test_past_the_cliff_the_whole_first_parity_comes_before(sick: Sick) -> None:
    dice = random.Random(5)
    used = [*range(LOW, LOW + PORTS, 2), *dice.sample(range(LOW + 1, LOW + PORTS, 2), 18)]
    use(sick, used)
    predicted, observed, error = means(sick, used, PORTS // 2)
    assert abs(predicted - observed) <= error


def test_the_whole_distribution_follows_from_the_runs(sick: Sick) -> None:
    used = list(range(LOW + 10, LOW + 30, 2))
    for port in used:
        sick.hold(1, destination(0), own_range=(port, port))
    passed = sick.state().predict(SOURCE, *destination(0)).passed
    assert passed.mean == pytest.approx(sum(range(11)) / 50)
    # 40 of 50 starts pass over nothing, ten of them 1 to 10 ports
    assert (passed.p50, passed.p95, passed.max) == (0, 8, 10)


def test_a_search_that_fails_has_passed_over_all(sick: Sick) -> None:
    sick.hold(PORTS, destination(0))
    found = sick.state().predict(SOURCE, *destination(0))
    assert (found.passed.mean, found.passed.p50, found.passed.max) == (PORTS, PORTS, PORTS)
    assert found.failing_share == 1
    assert sick.dial(destination(0)) == errno.EADDRNOTAVAIL
    assert found.cost_us.likely == pytest.approx(connect_cost(Kinds(conflicts=PORTS), 1.0, PORTS).likely)


def test_the_measured_costs_are_inside_the_predicted_ranges() -> None:
    """The table that the model was made from: ports passed over, and the p5 or p50 of the time in us."""
    half = 14_116
    for kinds, measured_us in (
        (Kinds(), (3.7, 5.2, 8.0)),
        (Kinds(skips=half), (380, 384)),
        (Kinds(conflicts=half), (670, 720, 1500)),
        (Kinds(conflicts=2 * half), (1600, 2000)),
        (Kinds(time_waits=half), (2080, 2580)),
        (Kinds(time_waits=2 * half), (6770,)),
    ):
        cost = connect_cost(kinds, 1.0, 30_000)
        assert all(cost.low <= us <= cost.high for us in measured_us), (kinds, cost)
