"""How long connections have carried nothing: read from the live kernel, counted by owner, closed as the fix says."""

from __future__ import annotations

import io
import os
import socket
import time
from collections.abc import Iterator

import pytest

from fourtuple.cli.doctor_json import document
from fourtuple.doctor.findings import Diagnosis, Question, diagnose
from fourtuple.doctor.idle import idle_connections
from fourtuple.doctor.reading import LISTEN, Reading
from fourtuple.doctor.what_if import what_if
from fourtuple.live import sockets
from fourtuple.live.owners import owners_of
from fourtuple.live.snapshot import Snapshot, read, write
from fourtuple.live.socket_table import IDLE_UNKNOWN
from fourtuple.live.system import read_system
from tests.doctor.sick import LOW, SOURCE, Sick
from tests.live.space import needs_root

pytestmark = needs_root

HERE = (SOURCE, 9000)
OVER_S = 1.5
PAIRS, SENDING, RECEIVING = 60, 11, 7
BUSY = SENDING + RECEIVING
PORTS = 100
ASKED = Question((SOURCE,), 9000, idle_s=OVER_S)
Pair = tuple[socket.socket, socket.socket]


@pytest.fixture(scope="module")
def sick() -> Iterator[Sick]:
    """60 connections of a range of 100 ports, made some time ago."""
    with Sick() as made:
        made.range(LOW, LOW + PORTS - 1)
        listener = made.listen(*HERE)
        made.pairs = [made.pair(listener) for _ in range(PAIRS)]  # type: ignore[attr-defined]
        time.sleep(OVER_S + 0.1)
        yield made


def reading(sick: Sick, owners: bool = False) -> Reading:
    """Right after 11 clients have sent, and 7 have received, something."""
    pairs: list[Pair] = sick.pairs  # type: ignore[attr-defined]
    for client, server in pairs[:SENDING]:
        client.send(b"x")
        server.recv(1)
    for client, server in pairs[SENDING:BUSY]:
        server.send(b"x")
        client.recv(1)
    table = sockets(sick.path, idle=True)
    return Reading(table, read_system(sick.path), owners_of(table) if owners else None)


def to_here(found: Diagnosis) -> int:
    return next(i for i, p in enumerate(found.predictions) if (p.destination, p.port) == HERE)


def test_those_that_neither_sent_nor_received_are_counted_and_no_others(sick: Sick) -> None:
    made = reading(sick)
    found = idle_connections(made, made.state.predict(SOURCE, *HERE), OVER_S)
    assert found is not None
    assert (found.connections, found.of) == (PAIRS - BUSY, PAIRS)


def test_each_side_has_its_own_time_and_listeners_have_none(sick: Sick) -> None:
    table = reading(sick).sockets
    assert table.idle_ms is not None
    pairs: list[Pair] = sick.pairs  # type: ignore[attr-defined]
    busy = {client.getsockname()[1] for client, _ in pairs[:BUSY]}
    for row in range(len(table)):
        if table.state[row] == LISTEN:
            assert table.idle_ms[row] == IDLE_UNKNOWN
        else:
            is_busy = bool({table.sport[row], table.dport[row]} & busy)
            assert (table.idle_ms[row] < 1000 * OVER_S) == is_busy


def test_without_being_asked_for_nothing_is_known(sick: Sick) -> None:
    made = Reading(sockets(sick.path), read_system(sick.path))
    assert made.sockets.idle_ms is None
    assert idle_connections(made, made.state.predict(SOURCE, *HERE), OVER_S) is None


def test_the_finding_says_how_many_and_whose_and_what_closing_them_brings(sick: Sick) -> None:
    found = diagnose(reading(sick, owners=True), ASKED)
    finding = next(each for each in found.findings if each.prediction)
    (fact,) = [line for line in finding.evidence if "no data" in line]
    assert fact.startswith(f"no data for > 1.5 s on {PAIRS - BUSY} of {PAIRS} connections: {PAIRS - BUSY} ")
    assert f"[{os.getpid()}]" in fact
    pool = next(fix for fix in finding.fixes if fix.scope == "process")
    assert pool.what.endswith(f"; {PAIRS - BUSY} have been idle for > 1.5 s")
    assert pool.after is not None
    assert (pool.after.used_in_range_ports, pool.after.free.likely) == (BUSY, PORTS - BUSY)
    then = what_if(found.reading.state, pool.what_if).predict_again([finding.prediction or pool.after])
    assert then == [pool.after]


def test_the_json_of_it(sick: Sick) -> None:
    found = diagnose(reading(sick), ASKED)
    made = document([found])["destinations"][to_here(found)]["idle"]
    assert made == {"over_s": OVER_S, "connections": PAIRS - BUSY, "of": PAIRS, "held_by": []}


def test_a_snapshot_answers_the_same_and_one_without_times_still_loads(sick: Sick) -> None:
    made = reading(sick)
    for table in (made.sockets, sockets(sick.path)):
        for hidden in (False, True):
            taken = Snapshot(table, made.system)
            file = io.BytesIO()
            write([taken.anonymized() if hidden else taken], file)
            (back,) = read(io.BytesIO(file.getvalue()))
            if table.idle_ms is None:
                assert back.sockets.idle_ms is None
            else:
                assert back.sockets.idle_ms is not None
                assert back.sockets.idle_ms.tolist() == table.idle_ms.tolist()


def test_closing_those_that_are_idle_brings_what_was_predicted(sick: Sick) -> None:
    """The last of this module, as it closes them: by the server first, so that no TIME_WAIT keeps a port of ours."""
    made = reading(sick)
    p = made.state.predict(SOURCE, *HERE)
    then = what_if(made.state, {"close": f"idle/{OVER_S}/{SOURCE}:9000"}).predict_again([p])[0]
    pairs: list[Pair] = sick.pairs  # type: ignore[attr-defined]
    for client, server in pairs[BUSY:]:
        server.close()
        client.close()
    assert then.free.likely == PORTS - BUSY
    real = sick.state().predict(SOURCE, *HERE)
    assert real.by_state.get("ESTABLISHED") == BUSY
