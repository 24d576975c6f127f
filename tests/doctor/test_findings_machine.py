"""Findings about tables that a test must not fill for everybody: judged from records."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fourtuple.doctor.finding import KINDS, Finding, Fix
from fourtuple.doctor.findings import Question, diagnose
from fourtuple.doctor.fixes import ordered
from fourtuple.doctor.reading import Holder, Reading
from fourtuple.doctor.words import duration, grouped, percent, plural, port_list, some_of, time_left
from fourtuple.live import sockets
from fourtuple.live.netfilter import Conntrack, Nat
from fourtuple.live.owners import Owners
from fourtuple.live.rtnetlink import Interface
from fourtuple.live.system import Limits, read_system


def reading(limits: dict[int, Limits] | None = None, **changes: object) -> Reading:
    """This machine with some of its facts replaced."""
    changes.setdefault("nat", Nat(True))
    changes.setdefault("conntrack", None)
    system = replace(read_system(), **changes)  # type: ignore[arg-type]
    return Reading(sockets(dport=1), system, Owners(), limits)


def found(of: Reading, kind: str) -> list[Finding]:
    return [each for each in diagnose(of, Question()).findings if each.kind == kind]


@pytest.mark.parametrize(
    ("used", "severity"), [(79_999, None), (80_000, "warning"), (95_000, "critical"), (100_000, "critical")]
)
def test_conntrack(used: int, severity: str | None) -> None:
    findings = found(reading(conntrack=Conntrack(used, 100_000, 120)), "conntrack")
    assert [each.severity for each in findings] == ([severity] if severity else [])
    if findings:
        assert "nf_conntrack_max=200000" in findings[0].fixes[0].command


def test_a_conntrack_table_without_a_limit_is_never_full() -> None:
    assert found(reading(conntrack=Conntrack(1_000_000, 0)), "conntrack") == []


@pytest.mark.parametrize(("used", "severity"), [(700, None), (850, "warning"), (1_000, "critical"), (None, None)])
def test_descriptors(used: int | None, severity: str | None) -> None:
    findings = found(reading({7: Limits(7, 1_024, 4_096, used)}), "descriptors")
    assert [each.severity for each in findings] == ([severity] if severity else [])
    if findings:
        assert findings[0].fixes[0].command == "prlimit --pid 7 --nofile=4096:4096"


def test_source_nat_is_mentioned() -> None:
    (finding,) = found(reading(nat=Nat(True, ("ip nat POSTROUTING: masquerade",))), "nat")
    assert (finding.severity, "masquerade" in finding.title) == ("note", True)


def test_a_kernel_without_ipv6_has_no_loopback6_to_miss() -> None:
    lo = (Interface(1, "lo", True, True),)
    assert found(reading(ipv6=False, interfaces=lo, addresses=()), "no-ipv6-loopback") == []
    assert len(found(reading(ipv6=True, interfaces=lo, addresses=()), "no-ipv6-loopback")) == 1


def test_interfaces_that_could_not_be_read_tell_nothing() -> None:
    assert not found(reading(interfaces=(), addresses=()), "loopback-down")


@pytest.mark.parametrize(
    ("label", "command"),
    [
        ("", "sysctl -w net.ipv4.tcp_tw_reuse=1"),
        ("web", "ip netns exec web sysctl -w net.ipv4.tcp_tw_reuse=1"),
        ("pid 4711", "nsenter -t 4711 -n sysctl -w net.ipv4.tcp_tw_reuse=1"),
        ("/run/docker/netns/x", "nsenter --net=/run/docker/netns/x sysctl -w net.ipv4.tcp_tw_reuse=1"),
    ],
)
def test_a_command_acts_on_the_namespace_that_was_read(label: str, command: str) -> None:
    assert reading(netns=label).sysctl("tcp_tw_reuse", "1") == command


def test_every_kind_has_its_place() -> None:
    ranks = [Finding(kind, "warning", "", "").rank for kind in KINDS]
    assert ranks == sorted(ranks) and len(set(KINDS)) == len(KINDS)


def test_fixes_that_there_are_not_are_left_out() -> None:
    assert ordered([None, Fix("machine", "b"), Fix("socket", "a")]) == (Fix("socket", "a"), Fix("machine", "b"))


def test_a_holder_of_several_processes_shows_the_first_and_the_last() -> None:
    assert Holder("uwsgi", (2211, 2212, 2258), 3).name == "uwsgi[2211-2258]"
    assert Holder("nginx", (9,), 3).name == "nginx[9]"
    assert Holder("owner unknown", (), 3).name == "owner unknown"


def test_numbers_are_said_with_their_units() -> None:
    assert [percent(x) for x in (0.0, 0.004, 0.5, 0.9996, 1.0)] == ["0 %", "<1 %", "50 %", "99 %", "100 %"]
    assert [duration(us) for us in (5.6, 780, 1_700, 2_100_000)] == ["6 µs", "780 µs", "1.7 ms", "2.1 s"]
    assert [time_left(s) for s in (38.9, 260, 11_100, 90_000)] == ["38 s", "4m 20s", "3h 05m", "> 1 day"]
    assert (grouped(28232), plural(1, "port"), plural(28232, "port")) == ("28 232", "1 port", "28 232 ports")
    assert port_list([82, 80, 81, 90]) == "80-82,90"
    assert some_of(["a", "b", "c"], 2) == "a, b and 1 more"
