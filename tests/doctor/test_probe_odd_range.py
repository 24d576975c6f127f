"""A range of odd size after --probe: exact where it can be, and else one port more or less, which is said, with why.

The kernel rounds the number of candidates down to an even one, but wraps at the true end: a search of the first parity
that starts at the first port leaves out the last, any other leaves out the first.  The start is random.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fourtuple.doctor.findings import Question, diagnose
from fourtuple.doctor.probed import probe
from fourtuple.doctor.reading import Reading
from fourtuple.live import sockets
from fourtuple.live.system import read_system
from tests.doctor.sick import LOW, SOURCE, A, B, C, Sick
from tests.live.space import needs_root

pytestmark = needs_root

ODD = 41
LAST = LOW + ODD - 1
MANY = 40


@pytest.fixture
def sick() -> Iterator[Sick]:
    with Sick() as made:
        made.range(LOW, LAST)
        yield made


def probed(sick: Sick) -> Reading:
    reading = Reading(sockets(sick.path), read_system(sick.path))
    probe(reading)
    return reading


def take(sick: Sick, *ports: int) -> None:
    for port in ports:
        sick.client(bind=(SOURCE, port))


def test_with_both_ends_taken_the_count_is_exact(sick: Sick) -> None:
    take(sick, LOW, LAST, LOW + 7)
    sick.hold(5, A)
    found = probed(sick).state.predict(SOURCE, *A)
    assert (found.inferred, found.reasons, found.free.low, found.free.high) == ((), (), ODD - 8, ODD - 8)
    assert sick.succeeding(A) == (ODD - 8, "EADDRNOTAVAIL")


def test_with_ip_local_port_range_on_the_socket_every_port_is_in_reach(sick: Sick) -> None:
    sick.hold(9, B, bind=(SOURCE, 0))
    option = (LOW, LAST)
    found = probed(sick).state.predict(SOURCE, *A, port_range=option)
    assert (found.free.low, found.free.high) == (ODD - 9, ODD - 9)
    assert sick.succeeding(A, own_range=option) == (ODD - 9, "EADDRNOTAVAIL")


def test_otherwise_one_port_more_or_less_and_both_happen(sick: Sick) -> None:
    """The interval cannot be narrower: of many destinations some get all of its ports, some all but one."""
    take(sick, LOW + 3, LOW + 4)
    state = probed(sick).state
    seen = set()
    for number in range(MANY):
        to = (f"203.0.113.{number + 10}", 443)
        found = state.predict(SOURCE, *to)
        assert (found.inferred, found.free.low, found.free.high) == ((), ODD - 3, ODD - 2)
        done, code = sick.succeeding(to)
        assert code == "EADDRNOTAVAIL"
        seen.add(done)
    assert seen == {ODD - 3, ODD - 2}


@pytest.mark.parametrize("left", [LOW, LAST])
def test_of_one_port_left_the_start_decides(sick: Sick, left: int) -> None:
    """The first port is within reach of one start of 20, the last of all others."""
    take(sick, *(port for port in range(LOW, LAST + 1) if port != left))
    found = probed(sick).state.predict(SOURCE, *A)
    assert (found.free.low, found.free.high, found.errno) == (0, 1, "")
    share = 19 / 20 if left == LOW else 1 / 20
    assert abs(found.failing_share - share) < 1e-9
    failed = sum(sick.dial((f"203.0.113.{10 + n // 50}", 1000 + n)) == 99 for n in range(400))
    assert abs(failed / 400 - share) < 0.06


def test_the_text_says_that_and_why(sick: Sick) -> None:
    sick.hold(20, C, bind=(SOURCE, 0))
    found = diagnose(probed(sick), Question(("203.0.113.3",), 80))
    finding = next(each for each in found.findings if each.prediction)
    (line,) = [each for each in finding.evidence if "ports free" in each]
    assert line == (
        "20 to 21 ports free: in a range of odd size the random start of a search decides "
        "whether its first or its last port is left out"
    )
