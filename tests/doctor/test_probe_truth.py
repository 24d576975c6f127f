"""After --probe nothing is inferred any more: so many connects succeed and no more, in namespaces sick in many ways."""

from __future__ import annotations

import errno
import json
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

import pytest

from fourtuple.doctor.findings import Question, diagnose
from fourtuple.doctor.probed import probe
from fourtuple.doctor.reading import Reading
from fourtuple.live import sockets
from fourtuple.live.probe import REPAIR
from fourtuple.live.socket_options import set_repair
from fourtuple.live.system import read_system
from tests.doctor.sick import HIGH, LOW, OTHER_SOURCE, PORTS, SOURCE, A, B, C, Sick
from tests.doctor.test_passed_over import TRIES, observe, strangers
from tests.live.packets import Capture
from tests.live.space import needs_root

pytestmark = needs_root

Sickness = Callable[[Sick], Any]
HERE = (SOURCE, 9000)


@pytest.fixture
def sick() -> Iterator[Sick]:
    with Sick() as made:
        yield made


def probed(sick: Sick) -> Reading:
    reading = Reading(sockets(sick.path), read_system(sick.path))
    found = probe(reading)
    assert (found.way, found.undecided) == (REPAIR, ())
    return reading


# ------------------------------------------------------------------------------------------ how many are free


def hoarder_without_a_pattern(sick: Sick) -> None:
    """Ports by number, of both parities: nothing in the list of sockets tells that bind() took them."""
    for port in random.Random(1).sample(range(LOW, HIGH), 90):
        sick.hold(1, C, bind=(SOURCE, port))


def hoarder_beside_sharers(sick: Sick) -> None:
    sick.hold(70, C, bind=(SOURCE, 0))
    sick.hold(60, B, bind=(SOURCE, 0), no_port=True)
    sick.hold(50, C)
    sick.hold(40, B, own_range=(LOW + 100, LOW + 250))
    sick.hold(45, A)


def hoarder_of_another_source(sick: Sick) -> None:
    sick.hold(55, A, bind=(OTHER_SOURCE, 0))
    sick.hold(55, B, bind=(OTHER_SOURCE, 0), no_port=True)
    sick.hold(230, A)


def hoarder_with_so_reuseaddr(sick: Sick) -> None:
    for port in range(LOW + 1, LOW + 121, 3):
        sick.hold(1, C, bind=(SOURCE, port), reuse=True)
        sick.hold(1, B, bind=(OTHER_SOURCE, port), reuse=True)


def reserved_and_held(sick: Sick) -> None:
    """Reserved after some of them had been taken, by bind() and by connect()."""
    sick.hold(60, C, bind=(SOURCE, 0))
    sick.hold(60, A)
    sick.sysctl("net.ipv4.ip_local_reserved_ports", f"{LOW}-{LOW + 49},{LOW + 101},{HIGH}-{HIGH + 9}")


def listeners_and_what_they_accepted(sick: Sick) -> None:
    for host in ("127.0.0.1", "0.0.0.0", "::1", SOURCE):
        listener = sick.listen(host, 0)
        for _ in range(6):
            sick.pair(listener, host if host != "0.0.0.0" else SOURCE)
    gone = sick.listen(SOURCE, 0)
    sick.pair(gone)
    gone.close()


def bound_only(sick: Sick) -> None:
    for _ in range(70):
        sick.client(bind=("0.0.0.0", 0))
    for _ in range(30):
        sick.client(bind=(OTHER_SOURCE, 0))


def time_waits_of_both_kinds(sick: Sick) -> None:
    sick.time_waits(50, HERE)
    sick.time_waits(40, HERE, source=(SOURCE, 0))


def ipv6_beside_it(sick: Sick) -> None:
    six = ("2001:db8:77::99", 443)
    sick.hold(50, six, family=socket.AF_INET6, bind=("2001:db8:77::1", 0))
    sick.hold(50, six, family=socket.AF_INET6)
    sick.hold(30, A)


SICKNESSES: tuple[Sickness, ...] = (
    hoarder_without_a_pattern,
    hoarder_beside_sharers,
    hoarder_of_another_source,
    hoarder_with_so_reuseaddr,
    reserved_and_held,
    listeners_and_what_they_accepted,
    bound_only,
    time_waits_of_both_kinds,
    ipv6_beside_it,
)  # fmt: skip


@pytest.mark.parametrize("to", [A, C, ("203.0.113.77", 8080)], ids=["A", "C", "nobody's"])
@pytest.mark.parametrize("make_sick", SICKNESSES, ids=lambda each: each.__name__)
def test_so_many_further_connects_succeed_and_the_next_fails(
    sick: Sick, make_sick: Sickness, to: tuple[str, int]
) -> None:
    make_sick(sick)
    found = probed(sick).state.predict(SOURCE, *to)
    assert found.inferred == ()
    assert found.free.is_exact
    assert 0 < found.free.likely < PORTS
    assert sick.succeeding(to) == (found.free.likely, "EADDRNOTAVAIL")


def test_the_ports_of_time_waits_towards_their_own_destination_are_counted(sick: Sick) -> None:
    sick.sysctl("net.ipv4.tcp_tw_reuse", 0)
    time_waits_of_both_kinds(sick)
    sick.listen(*HERE, backlog=4096)
    found = probed(sick).state.predict(SOURCE, *HERE)
    assert (found.inferred, found.free.low, found.free.high) == ((), PORTS - 90, PORTS - 90)
    assert sick.succeeding(HERE) == (PORTS - 90, "EADDRNOTAVAIL")


def everything(sick: Sick, dice: random.Random) -> None:
    """All sicknesses one over another, in a random order; the range that the test has is not full then."""
    ways: list[Callable[[int], Any]] = [
        lambda n: sick.hold(n, dice.choice([A, B, C])),
        lambda n: sick.hold(n, dice.choice([B, C]), bind=(SOURCE, 0)),
        lambda n: sick.hold(n, dice.choice([A, B]), bind=(SOURCE, 0), no_port=True),
        lambda n: sick.hold(n, dice.choice([B, C]), own_range=(LOW, LOW + 150)),
        lambda n: [sick.client(bind=(OTHER_SOURCE, 0)) for _ in range(n)],
        lambda n: sick.time_waits(n, HERE, source=dice.choice([None, (SOURCE, 0)])),
        lambda n: [sick.pair(sick.listen(SOURCE, 0)) for _ in range(n // 8)],
        lambda n: sick.hold(n, ("2001:db8:77::99", 443), family=socket.AF_INET6),
    ]
    dice.shuffle(ways)
    for way in ways:
        way(dice.randrange(8, 32))


@pytest.mark.parametrize("seed", range(6))
def test_so_many_succeed_in_a_mixture_of_everything(sick: Sick, seed: int) -> None:
    dice = random.Random(seed)
    everything(sick, dice)
    sick.sysctl("net.ipv4.ip_local_reserved_ports", f"{LOW + 20}-{LOW + 20 + 5 * seed},{HIGH}")
    to = dice.choice([A, B])
    found = probed(sick).state.predict(SOURCE, *to)
    assert (found.inferred, found.free.is_exact) == ((), True)
    assert sick.succeeding(to) == (found.free.likely, "EADDRNOTAVAIL")


def test_ports_of_sockets_that_an_older_kernel_does_not_list_are_found_all_the_same(sick: Sick) -> None:
    """Before 6.8 sock_diag tells nothing of sockets that are bound only; here a filter hides them."""
    bound_only(sick)
    reading = Reading(sockets(sick.path, states=["TIME_WAIT"]), read_system(sick.path))
    assert len(reading.sockets) == 0
    probe(reading)
    found = reading.state.predict(SOURCE, *A)
    assert (found.free.low, found.free.high) == (PORTS - 100, PORTS - 100)
    assert sick.succeeding(A) == (PORTS - 100, "EADDRNOTAVAIL")


# ------------------------------------------------------------------------------------------ what a connect() costs

WIDE = 4096
CONNECTS = 40
TIMES = 3


def real_cost_us(sick: Sick) -> float:
    """The median of connects that are made and closed again."""
    took = []
    for _ in range(CONNECTS):
        with sick.client() as client:
            start = time.perf_counter_ns()
            code = client.connect_ex(A)
            took.append((time.perf_counter_ns() - start) / 1000)
            assert code == errno.EINPROGRESS
    return median(took)


def measured_cost_us(sick: Sick) -> tuple[float, float, float]:
    """What --probe measures, and the range that is predicted after it."""
    found = diagnose(probed(sick), Question(("203.0.113.1",), 443))
    (measured,) = found.measured.values()
    cost = found.predictions[0].cost_us
    assert (measured.errno, measured.tries, measured.source) == ("", 20, SOURCE)
    return measured.cost_us.p50, cost.low, cost.high


def past_the_cliff(sick: Sick) -> None:
    sick.hold(WIDE // 2 + 100, A)


def hoarded(sick: Sick) -> None:
    """All of the first parity by number, and nobody is connected to A but few."""
    for port in range(LOW, LOW + WIDE, 2):
        sick.client(bind=(SOURCE, port))
    sick.hold(20, A)


@pytest.mark.parametrize("make_sick", [past_the_cliff, hoarded], ids=lambda each: each.__name__)
def test_what_is_measured_is_what_a_real_connect_takes(sick: Sick, make_sick: Sickness) -> None:
    """The one test with times: within a factor, and the machine may be busy with something else, so three tries."""
    sick.range(LOW, LOW + WIDE - 1)
    make_sick(sick)
    seen = []
    for _ in range(3):
        measured, low, high = measured_cost_us(sick)
        real = real_cost_us(sick)
        seen.append((measured, real, low, high))
        if real / TIMES <= measured <= real * TIMES and low / TIMES <= real <= high * TIMES:
            return
    pytest.fail(f"us measured, us of a real connect, predicted from, to: {seen}")


# ------------------------------------------------------------------------------------------ ports passed over

NARROW = 100
DESTINATIONS = 250


@pytest.mark.parametrize("is_past_the_cliff", [False, True])
def test_the_ports_passed_over_are_those_of_the_kernel(sick: Sick, is_past_the_cliff: bool) -> None:
    """bind() by number leaves no pattern: without the probe these ports are in doubt."""
    sick.range(LOW, LOW + NARROW - 1)
    dice = random.Random(7)
    first, second = range(LOW, LOW + NARROW, 2), range(LOW + 1, LOW + NARROW, 2)
    used = (
        [*first, *second[5:15], *dice.sample(second[20:], 12)] if is_past_the_cliff else [*first[5:20], *first[30:41]]
    )
    for port in used:
        sick.hold(1, C, bind=(SOURCE, port))
    whole_parity = NARROW // 2 if is_past_the_cliff else 0
    assert any(agrees(sick, used, whole_parity) for _ in range(TRIES + 2))


def agrees(sick: Sick, used: list[int], whole_parity: int) -> bool:
    """Within three standard errors; each try with destinations of its own."""
    destinations = strangers(DESTINATIONS)
    found = probed(sick).state.predict(SOURCE, *destinations[0])
    assert found.inferred == ()
    observed, error = observe(sick, used, destinations)
    return abs(found.passed.mean - whole_parity - observed) <= 3 * error


# ------------------------------------------------------------------------------------------ packets

_DOCTOR = (sys.executable, "-m", "fourtuple.cli.main", "doctor", "--probe", "--json")
_NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all")


@pytest.fixture
def capture(sick: Sick) -> Iterator[Capture]:
    made = Capture(sick)
    client = sick.try_connect(*A)
    assert set(made.devices()) == {"hole0", "peer0"}, "the capture sees packets"
    client.close()
    yield made
    assert made.dropped() == 0
    made.close()


def ill_in_silence(sick: Sick) -> None:
    """Past the cliff to A, and a hoarder; no socket has anything to send or to send again."""
    for _ in range(PORTS // 2 + 30):
        client = sick.client()
        set_repair(client)
        assert client.connect_ex(A) == 0
    for _ in range(40):
        sick.client(bind=(SOURCE, 0))
    sick.listen("127.0.0.1", HIGH)


def doctor(sick: Sick, *before: str) -> dict[str, Any]:
    """The program, in the namespace; ill means exit code 10 or 11."""
    done = sick.run(lambda: subprocess.run([*before, *_DOCTOR], capture_output=True, text=True, timeout=60))
    assert (done.returncode in (10, 11), done.stderr) == (True, "")
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def test_doctor_probe_sends_nothing_at_all_under_tcp_repair(sick: Sick, capture: Capture) -> None:
    ill_in_silence(sick)
    capture.devices()
    document = doctor(sick)
    assert document["namespaces"][0]["probe"]["way"] == "TCP_REPAIR"
    assert document["destinations"][0]["measured"]["tries"] == 20
    assert capture.devices() == []


def test_doctor_probe_of_nobody_sends_nothing_that_leaves_the_machine(sick: Sick, capture: Capture) -> None:
    ill_in_silence(sick)
    capture.devices()
    document = doctor(sick, *_NOBODY)
    free = document["destinations"][0]["free_interval"]
    assert document["namespaces"][0]["probe"]["way"] == "loopback"
    assert free["low"] == free["high"]
    assert set(capture.devices()) == {"lo"}
