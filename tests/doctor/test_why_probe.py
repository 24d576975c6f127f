"""`why --probe`: the kernel's own errno decides which path it is, and no packet is sent."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from fourtuple.doctor.why import NO, OPEN, YES, explain
from fourtuple.doctor.why_probe import ask_kernel
from fourtuple.doctor.why_reading import ask_machine
from tests.doctor.sick import HIGH, LOW, PORTS, SOURCE, A, Sick
from tests.live.packets import Capture
from tests.live.space import needs_root

pytestmark = needs_root

FULL = "EADDRNOTAVAIL"
NEAR = 12


@pytest.fixture
def sick() -> Iterator[Sick]:
    with Sick() as made:
        yield made


def marks(sick: Sick, errno: str, where: tuple[str, int]) -> dict[str, tuple[str, str]]:
    """Check (or function) -> mark and text, of connect() after a probe."""
    asked = ask_kernel(ask_machine(sick.path, [where]), sick.path)
    found = explain(errno, asked, "connect")
    return {each.path.check or each.path.function: (each.mark, each.text) for each in found.verdicts}


def full(sick: Sick) -> None:
    assert len(sick.hold(PORTS, A)) == PORTS


def test_a_full_destination_is_the_port_search_and_nothing_else(sick: Sick) -> None:
    full(sick)
    found = marks(sick, FULL, A)
    assert found["no_port"][0] == YES
    assert found["no_port"][1].startswith("the kernel gives EADDRNOTAVAIL for 203.0.113.1:443: 400 of 400 ports")
    assert found["own_range"][0] == NO
    assert found["no_source6"][0] == NO


def test_while_the_kernel_finds_a_port_it_is_not_the_search(sick: Sick) -> None:
    sick.hold(PORTS - NEAR, A)
    found = marks(sick, FULL, A)
    assert found["no_port"][0] == NO
    assert "of 10.77.0.1 for 203.0.113.1:443: connect() does not fail at once" in found["no_port"][1]
    assert found["own_range"][0] == OPEN


def test_ports_that_bind_took_without_a_trace_are_found_out(sick: Sick) -> None:
    """By number, of both parities, connected elsewhere: the list of sockets says that they are free."""
    for port in range(LOW, HIGH + 1):
        sick.hold(1, ("203.0.113.9", 80), bind=(SOURCE, port))
    asked = ask_machine(sick.path, [A])
    (before,) = [each for each in explain(FULL, asked, "connect").verdicts if each.path.check == "no_port"]
    mark, text = marks(sick, FULL, A)["no_port"]
    assert (before.mark, mark) == (NO, YES)
    assert text.startswith("the kernel gives EADDRNOTAVAIL for 203.0.113.1:443; ")
    assert "look free, so bind() took them" in text


def test_without_an_ipv6_source_no_port_was_looked_at(sick: Sick) -> None:
    sick.ip("-6 addr flush dev hole0")
    sick.ip("-6 route add 2001:db8:99::/64 dev hole0")
    sick.sysctl("net.ipv6.conf.all.disable_ipv6", 1)
    found = marks(sick, FULL, ("::1", 80))
    assert found["no_source6"][0] == YES
    assert found["no_port"] == (NO, "it fails before a port is looked at")


def test_another_errno_than_the_one_asked_about_is_named(sick: Sick) -> None:
    found = marks(sick, FULL, ("198.51.100.1", 80))
    assert found["no_port"] == (NO, "the kernel gives ENETUNREACH for 198.51.100.1:80")
    assert marks(sick, "ENETUNREACH", ("198.51.100.1", 80))["route"][0] == YES


# ------------------------------------------------------------------------------------------ the program

_WHY = (sys.executable, "-m", "fourtuple.cli.main", "why")
_NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all")


def why(sick: Sick, *words: str, before: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    line = [*before, *_WHY, *words]
    return sick.run(lambda: subprocess.run(line, capture_output=True, text=True, timeout=60))


def test_the_program_says_what_it_does_and_sends_nothing(sick: Sick) -> None:
    full(sick)
    capture = Capture(sick)
    done = why(sick, FULL, "--dest", "203.0.113.1:443", "--probe")
    assert capture.devices() == []
    capture.close()
    assert done.returncode == 0
    assert "--probe opens and closes one socket under TCP_REPAIR" in done.stdout
    assert "it is number 1." in done.stdout


def test_the_json_has_the_kernels_answer(sick: Sick) -> None:
    document: dict[str, Any] = json.loads(why(sick, "99", "--dest", "203.0.113.1:443", "--probe", "--json").stdout)
    (one,) = document["probe"]
    assert (one["address"], one["errno"], one["source"]) == ("203.0.113.1", None, SOURCE)
    assert LOW <= one["local_port"] <= HIGH


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("99", "--probe"), 2, "--probe needs a destination"),
        (("99", "--probe", "--dest", "203.0.113.1:443"), 77, "needs root or CAP_NET_ADMIN"),
    ],
)
def test_what_cannot_be_probed_is_one_line(sick: Sick, words: tuple[str, ...], code: int, says: str) -> None:
    done = why(sick, *words, before=_NOBODY if code == 77 else ())
    assert (done.returncode, says in done.stderr, done.stderr.count("\n")) == (code, True, 1)


# ------------------------------------------------------------------------------------------ neighbours


@pytest.mark.parametrize("nobody", ["10.78.0.9", "2001:db8:78::9"])
def test_a_neighbour_that_does_not_answer_is_seen_in_both_families(sick: Sick, nobody: str) -> None:
    sick.ip("link add near0 type veth peer name near1")
    sick.ip("addr add 10.78.0.1/24 dev near0")
    sick.ip("addr add 2001:db8:78::1/64 dev near0 nodad")
    sick.ip("link set near0 up")
    sick.ip("link set near1 up")
    before = marks_unprobed(sick, nobody)
    client = sick.socket(socket.AF_INET6 if ":" in nobody else socket.AF_INET)
    client.setblocking(False)
    client.connect_ex((nobody, 80))
    assert before == (OPEN, f"no failure is remembered for {nobody}; ip neigh show {nobody}")
    assert marks_unprobed(sick, nobody) == (YES, f"nobody answers for {nobody}")


def marks_unprobed(sick: Sick, address: str) -> tuple[str, str]:
    found = explain("EHOSTUNREACH", ask_machine(sick.path, [(address, 80)]), "connect")
    (one,) = [each for each in found.verdicts if each.path.check == "neighbour"]
    return one.mark, one.text
