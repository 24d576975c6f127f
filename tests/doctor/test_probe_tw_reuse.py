"""With tcp_tw_reuse in force --probe knows which TIME_WAITs the next connect() takes over: the count stays exact."""

from __future__ import annotations

import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from fourtuple.doctor.findings import Question, diagnose
from fourtuple.doctor.probed import probe
from fourtuple.doctor.reading import Reading
from fourtuple.doctor.time_waits import time_wait_ages
from fourtuple.doctor.what_if import what_if
from fourtuple.live import sockets
from fourtuple.live.system import read_system
from fourtuple.live.time_wait import read_time_waits
from tests.doctor.sick import OTHER_SOURCE, PORTS, SOURCE, C, Sick
from tests.live.space import needs_root

pytestmark = needs_root

HERE = (SOURCE, 9000)
DELAY_MS, OLD_S = 100, 0.2
"""Older than tcp_tw_reuse_delay."""
LONGEST_MS = 60_000


@pytest.fixture
def sick() -> Iterator[Sick]:
    with Sick() as made:
        made.sysctl("net.ipv4.tcp_tw_reuse_delay", DELAY_MS)
        made.sysctl("net.ipv4.tcp_tw_reuse", 0)  # until all are made: else one takes over another's port
        yield made


def probed(sick: Sick) -> Reading:
    reading = Reading(sockets(sick.path), read_system(sick.path))
    probe(reading)
    assert reading.unread == read_system(sick.path).unread
    return reading


def stamped_and_not(sick: Sick, stamped: int = 40, without: int = 30, to: tuple[str, int] = HERE) -> None:
    """TIME_WAITs of connections with timestamps, and of others."""
    sick.time_waits(stamped, to)
    sick.sysctl("net.ipv4.tcp_timestamps", 0)
    sick.time_waits(without, to)
    sick.sysctl("net.ipv4.tcp_timestamps", 1)


def count(sick: Sick) -> int:
    return len(sockets(sick.path, states=["TIME_WAIT"]))


@pytest.mark.parametrize("bound", [False, True], ids=["by connect()", "by bind()"])
def test_old_ones_with_timestamps_are_free_and_the_others_are_not(sick: Sick, bound: bool) -> None:
    """A port that bind() took is not taken over, however old its TIME_WAIT is."""
    stamped_and_not(sick)
    if bound:
        sick.time_waits(20, HERE, source=(SOURCE, 0))
    sick.sysctl("net.ipv4.tcp_tw_reuse", 1)
    sick.hold(25, C, bind=(SOURCE, 0))
    time.sleep(OLD_S)
    sick.listen(*HERE, backlog=4096)
    before = count(sick)
    found = probed(sick).state.predict(SOURCE, *HERE)
    assert count(sick) == before, "the probe takes none over"
    free = PORTS - 30 - 20 * bound - 25
    assert (found.inferred, found.free.low, found.free.high) == ((), free, free)
    assert found.time_wait_reusable_ports == 40
    assert sick.succeeding(HERE) == (free, "EADDRNOTAVAIL")


def test_young_ones_are_not_free_yet(sick: Sick) -> None:
    stamped_and_not(sick)
    sick.sysctl("net.ipv4.tcp_tw_reuse_delay", LONGEST_MS)
    sick.sysctl("net.ipv4.tcp_tw_reuse", 1)
    sick.listen(*HERE, backlog=4096)
    found = probed(sick).state.predict(SOURCE, *HERE)
    assert (found.inferred, found.free.low, found.free.high) == ((), PORTS - 70, PORTS - 70)
    assert sick.succeeding(HERE) == (PORTS - 70, "EADDRNOTAVAIL")


@pytest.mark.parametrize("to", [("127.0.0.1", 9000), HERE, ("::1", 9000)], ids=["lo", "own address", "lo6"])
def test_where_it_is_2_only_those_of_loopback(sick: Sick, to: tuple[str, int]) -> None:
    """The default."""
    stamped_and_not(sick, to=to)
    sick.sysctl("net.ipv4.tcp_tw_reuse", 2)
    time.sleep(OLD_S)
    sick.listen(*to, backlog=4096)
    found = probed(sick).state.predict(None, *to)
    free = PORTS - 70 + 40 * (to != HERE)
    assert (found.inferred, found.free.low, found.free.high) == ((), free, free)
    family = socket.AF_INET6 if ":" in to[0] else socket.AF_INET
    assert sick.succeeding(to, family=family) == (free, "EADDRNOTAVAIL")


def test_the_iterator_names_every_time_wait_of_this_namespace_and_says_which_had_timestamps(sick: Sick) -> None:
    stamped_and_not(sick, 5, 3)
    stamped_and_not(sick, 4, 2, ("::1", 9001))
    stamped_and_not(sick, 2, 1, (f"::ffff:{SOURCE}", 9002))
    found = read_time_waits(sick.path)
    listed = {(row.saddr, row.sport, row.daddr, row.dport) for row in sockets(sick.path, states=["TIME_WAIT"])}
    names = {(text(each.source), each.sport, text(each.destination), each.dport) for each in found}
    assert names == listed
    assert len(found) == 17
    assert sum(each.has_timestamps for each in found if each.dport == 9000) == 5
    assert sum(each.has_timestamps for each in found if each.dport == 9001) == 4
    assert sum(each.has_timestamps for each in found if each.dport == 9002) == 2


def text(raw: bytes) -> str:
    return socket.inet_ntop(socket.AF_INET if len(raw) == 4 else socket.AF_INET6, raw)


def test_what_would_take_time_waits_over_is_not_measured(sick: Sick) -> None:
    """measure_connect() is a connect() to the kernel: it would take over a TIME_WAIT at each try."""
    sick.range(40_000, 40_099)
    sick.time_waits(60, HERE)
    sick.sysctl("net.ipv4.tcp_tw_reuse", 1)
    sick.hold(30, C, bind=(OTHER_SOURCE, 0))
    time.sleep(OLD_S)
    reading = Reading(sockets(sick.path), read_system(sick.path))
    probe(reading)
    diagnosis = diagnose(reading, Question((SOURCE,), 9000, warn=0.1))
    assert count(sick) == 60
    assert diagnosis.measured == {}
    assert any("would take over a TIME_WAIT" in line for line in reading.unread)


@pytest.mark.parametrize("seed", range(3))
def test_in_a_mixture_of_old_and_young_stamped_and_not_by_bind_and_by_connect(seed: int) -> None:
    """A busy machine may let the young ones grow old meanwhile: then once more, with a longer time between."""
    for between_s in (1.0, 3.0, 9.0):
        with Sick() as sick:
            if mixture_is_exact(sick, random.Random(seed), between_s):
                return
    pytest.fail("the young ones grew old before all was counted")


def mixture_is_exact(sick: Sick, dice: random.Random, between_s: float) -> bool:
    """False: it took so long that nothing can be said."""
    sick.sysctl("net.ipv4.tcp_tw_reuse", 0)
    mixed_time_waits(sick, dice)
    sick.hold(dice.randrange(60), C, bind=dice.choice([(SOURCE, 0), (OTHER_SOURCE, 0)]))
    old_at = time.monotonic()
    time.sleep(between_s)
    young_at = time.monotonic()
    mixed_time_waits(sick, dice)
    delay_s = time.monotonic() - old_at - 0.1  # sock_diag counts in jiffies
    sick.sysctl("net.ipv4.tcp_tw_reuse_delay", int(1000 * delay_s))
    sick.sysctl("net.ipv4.tcp_tw_reuse", 1)
    sick.listen(*HERE, backlog=4096)
    reading = probed(sick)
    found = reading.state.predict(SOURCE, *HERE)
    ages = time_wait_ages(reading, found)
    done = sick.succeeding(HERE)
    if time.monotonic() - young_at > delay_s - 0.1:
        return False
    assert (found.inferred, found.free.is_exact) == ((), True)
    assert 0 < ages.young < ages.stamped < ages.all
    assert 0 < found.time_wait_reusable_ports <= ages.stamped - ages.young
    assert done == (found.free.likely, "EADDRNOTAVAIL")
    return True


def mixed_time_waits(sick: Sick, dice: random.Random) -> None:
    stamped_and_not(sick, dice.randrange(10, 40), dice.randrange(10, 30))
    sick.time_waits(dice.randrange(5, 20), HERE, source=dice.choice([None, (SOURCE, 0), (OTHER_SOURCE, 0)]))


_DOCTOR = (sys.executable, "-m", "fourtuple.cli.main", "doctor", "--probe", HERE[0])
_NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all")


@pytest.mark.parametrize(("reuse", "says"), [(1, True), (2, False)])
def test_without_privilege_it_stays_open_and_is_said_where_it_matters(sick: Sick, reuse: int, says: bool) -> None:
    sick.range(40_000, 40_099)
    sick.time_waits(60, HERE)
    sick.sysctl("net.ipv4.tcp_tw_reuse", reuse)
    time.sleep(OLD_S)
    done = sick.run(lambda: subprocess.run([*_NOBODY, *_DOCTOR], capture_output=True, text=True, timeout=60))
    assert (done.returncode, done.stderr) == ((0, "") if reuse == 1 else (10, ""))
    assert ("timestamps of TIME_WAITs: Operation not permitted" in done.stdout) is says
    assert count(sick) == 60


def test_what_tcp_tw_reuse_would_bring_is_exact_too(sick: Sick) -> None:
    stamped_and_not(sick)
    time.sleep(OLD_S)
    sick.listen(*HERE, backlog=4096)
    state = probed(sick).state
    changed = what_if(state, {"tcp_tw_reuse": "1"})
    (then,) = changed.predict_again([state.predict(SOURCE, *HERE)])
    assert (changed.notes, then.free.low, then.free.high) == ((), PORTS - 30, PORTS - 30)
    sick.sysctl("net.ipv4.tcp_tw_reuse", 1)
    assert sick.succeeding(HERE) == (PORTS - 30, "EADDRNOTAVAIL")
