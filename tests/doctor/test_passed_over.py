"""How many ports a connect() passes over: predicted from one reading, against where many real connects end up.

The kernel's start is hidden, but the port that it ends at is not: behind a run of g ports in use it stands for g + 1
starts, which pass over 0 to g ports, each as likely as the other.

That holds for destinations that nobody has connected to since the machine was started: the next connect() begins
behind the port of the last one, of another namespace too (table_perturb is the machine's).  So each try has
destinations of its own.
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
TRIES = 2  # one in 300 is further off than three standard errors
NOBODY = ("203.0.113.1", 443)


@pytest.fixture
def sick() -> Iterator[Sick]:
    with Sick() as made:
        made.range(LOW, LOW + PORTS - 1)
        yield made


def strangers(number: int) -> list[tuple[str, int]]:
    """Destinations that nobody has connected to."""
    port = random.SystemRandom().randrange(1024, 32768)
    return [(f"203.0.113.{host + 1}", port) for host in range(number)]


def use(sick: Sick, used: list[int], destinations: list[tuple[str, int]]) -> None:
    """The same local ports towards every destination."""
    for to in destinations:
        for port in used:
            sick.hold(1, to, own_range=(port, port))


def runs_before(used: set[int], port: int) -> int:
    """How many ports in use, of its parity, stand right before it in the circle of its parity."""
    run = 0
    at = port
    while True:
        at = at - 2 if at - 2 >= LOW else at - 2 + PORTS
        if at not in used or run >= PORTS // 2:
            return run
        run += 1


def agrees(sick: Sick, used: list[int], whole_parity: int) -> bool:
    """The mean passed over is predicted within three standard errors of what is observed."""
    destinations = strangers(DESTINATIONS)
    use(sick, used, destinations)
    predicted = {sick.state().predict(SOURCE, *to).passed.mean for to in destinations[:3]}
    assert len(predicted) == 1
    observed, error = observe(sick, used, destinations)
    return abs(predicted.pop() - whole_parity - observed) <= 3 * error


def observe(sick: Sick, used: list[int], destinations: list[tuple[str, int]]) -> tuple[float, float]:
    """Mean passed over in the parity that ports are found in, one connect() each, and its standard error."""
    passed = []
    for to in destinations:
        (port,) = sick.hold(1, to)
        passed.append(runs_before(set(used), port) / 2)
    mean = sum(passed) / len(passed)
    variance = sum((each - mean) ** 2 for each in passed) / len(passed)
    return mean, (variance / len(passed)) ** 0.5


def test_runs_in_the_first_parity_are_passed_over_from_every_start_alike(sick: Sick) -> None:
    used = [*range(LOW, LOW + 20, 2), *range(LOW + 30, LOW + 34, 2), *range(LOW + 50, LOW + 80, 2)]
    assert any(agrees(sick, used, 0) for _ in range(TRIES))


def test_past_the_cliff_the_whole_first_parity_comes_before(sick: Sick) -> None:
    dice = random.Random(5)
    used = [*range(LOW, LOW + PORTS, 2), *dice.sample(range(LOW + 1, LOW + PORTS, 2), 18)]
    assert any(agrees(sick, used, PORTS // 2) for _ in range(TRIES))


def test_the_whole_distribution_follows_from_the_runs(sick: Sick) -> None:
    used = list(range(LOW + 10, LOW + 30, 2))
    for port in used:
        sick.hold(1, NOBODY, own_range=(port, port))
    passed = sick.state().predict(SOURCE, *NOBODY).passed
    assert passed.mean == pytest.approx(sum(range(11)) / 50)
    # 40 of 50 starts pass over nothing, ten of them 1 to 10 ports
    assert (passed.p50, passed.p95, passed.max) == (0, 8, 10)


def test_a_search_that_fails_has_passed_over_all(sick: Sick) -> None:
    sick.hold(PORTS, NOBODY)
    found = sick.state().predict(SOURCE, *NOBODY)
    assert (found.passed.mean, found.passed.p50, found.passed.max) == (PORTS, PORTS, PORTS)
    assert found.failing_share == 1
    assert sick.dial(NOBODY) == errno.EADDRNOTAVAIL
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
