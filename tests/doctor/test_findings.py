"""A namespace of the live kernel made sick in a known way: the doctor names it, its owner and a fix, and the fix helps.

Each fix that is a command is run as it is printed; then the next real connect() does what was predicted.
"""

from __future__ import annotations

import errno
import os
import re
import shlex
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from fourtuple.doctor.finding import Finding, Fix
from fourtuple.doctor.findings import Diagnosis, Question, diagnose
from fourtuple.doctor.reading import Reading
from fourtuple.live.cgroups import group_named
from fourtuple.live.snapshot import take_snapshot
from tests.doctor.sick import HIGH, LOW, OTHER_SOURCE, PORTS, SOURCE, A, B, C, Sick
from tests.live.space import needs_root

pytestmark = needs_root


@pytest.fixture
def sick() -> Iterator[Sick]:
    with Sick() as made:
        yield made


def examine(sick: Sick, **asked: Any) -> Diagnosis:
    reading = Reading.of_snapshot(take_snapshot(sick.path, routes=False))
    return diagnose(reading, Question(**asked))


def finding(sick: Sick, kind: str, **asked: Any) -> Finding:
    """The only one of that kind."""
    found = examine(sick, **asked).findings
    (wanted,) = [each for each in found if each.kind == kind]
    return wanted


def kinds(sick: Sick) -> set[str]:
    return {each.kind for each in examine(sick).findings}


def fix_of(found: Finding, scope: str, words: str = "") -> Fix:
    """The first fix of a scope that says so."""
    return next(fix for fix in found.fixes if fix.scope == scope and words in f"{fix.what} {fix.command}")


def type_in(sick: Sick, fix: Fix) -> None:
    """What the user would type, without the words that enter the namespace: the test is in it."""
    for command in fix.command.split(" && "):
        words = shlex.split(command)
        assert words[0] == "nsenter" and words[1] == f"--net={sick.path}"
        if words[2] != "sysctl":
            sick.command(*words[2:])
            continue
        assert words[2:4] == ["sysctl", "-w"]
        name, _, value = words[4].partition("=")
        sick.sysctl(name, value)


def connected(sick: Sick, count: int) -> None:
    """So many connections to a listener there (a SYN without an answer is a finding of its own, after a second)."""
    listener = sick.listen(SOURCE, 9000, backlog=1024)
    for _ in range(count):
        sick.pair(listener)


def names_us(found: Finding, sockets: int) -> bool:
    """This process is the owner, of so many."""
    return any(holder.pids == (os.getpid(),) and holder.sockets == sockets for holder in found.held_by)


def test_a_healthy_namespace_has_nothing_wrong(sick: Sick) -> None:
    connected(sick, 40)
    found = examine(sick)
    assert (found.findings, found.exit_code, len(found.predictions)) == ((), 0, 1)


# ------------------------------------------------------------------------------------------ full, half full


def test_full_is_eaddrnotavail_now_and_a_wider_range_helps(sick: Sick) -> None:
    sick.hold(PORTS, A)
    found = finding(sick, "full")
    assert (found.severity, found.subject, found.cause) == ("critical", "203.0.113.1:443", "connections")
    assert found.title == f"the next connect() from {SOURCE} fails: EADDRNOTAVAIL"
    assert names_us(found, PORTS)
    assert sick.dial(A) == errno.EADDRNOTAVAIL
    fix = fix_of(found, "namespace", "wider")
    assert fix.after is not None
    type_in(sick, fix)
    low, high = fix.what_if["ip_local_port_range"].split("-")
    assert fix.after.free.is_exact
    assert fix.after.free.likely == int(high) - int(low) + 1 - PORTS
    assert sick.dial(A) == errno.EINPROGRESS


def test_of_a_full_destination_the_other_address_of_this_machine_has_all_ports(sick: Sick) -> None:
    sick.hold(PORTS, A)
    found = finding(sick, "full")
    fix = fix_of(found, "socket")
    assert f'bind(("{OTHER_SOURCE}", 0))' in fix.what
    assert fix.after is not None and (fix.after.errno, fix.after.free.likely) == ("", PORTS)
    assert sick.succeeding(A, bind=(OTHER_SOURCE, 0), no_port=True) == (fix.after.free.likely, "EADDRNOTAVAIL")


def test_of_a_full_destination_another_port_of_the_server_has_all_ports(sick: Sick) -> None:
    sick.hold(PORTS, A)
    fix = fix_of(finding(sick, "full"), "server")
    assert fix.after is not None
    assert sick.succeeding((A[0], 8443)) == (fix.after.free.likely, "EADDRNOTAVAIL")


def test_what_does_not_help_a_full_destination_is_said_and_is_so(sick: Sick) -> None:
    sick.hold(PORTS, A)
    found = finding(sick, "full")
    assert any("IP_LOCAL_PORT_RANGE" in text for text in found.not_it)
    assert sick.dial(A, own_range=(LOW, HIGH)) == errno.EADDRNOTAVAIL
    assert any("tcp_tw_reuse (no TIME_WAIT" in text for text in found.not_it)
    assert any(text.startswith("ulimit -n (") for text in found.not_it)


def test_closing_the_connections_of_the_named_process_frees_what_is_predicted(sick: Sick) -> None:
    listener = sick.listen(SOURCE, 9000, backlog=1024)
    pairs = [sick.pair(listener) for _ in range(PORTS)]
    found = finding(sick, "full")
    fix = fix_of(found, "process", "pool")
    assert fix.after is not None and (fix.after.free.likely, fix.after.errno) == (PORTS, "")
    assert f"[{os.getpid()}]" in fix.what
    for client, server in pairs:
        server.close()  # closing first, it is the server's side that keeps TIME_WAITs
        client.close()
    assert sick.succeeding((SOURCE, 9000))[0] == PORTS


def test_past_half_the_option_of_the_socket_takes_the_cliff_away(sick: Sick) -> None:
    sick.hold(PORTS // 2, A)
    found = finding(sick, "past-cliff")
    assert (found.severity, found.title) == (
        "warning",
        "past half: all 200 even ports are taken, each connect() walks them all first",
    )
    assert names_us(found, PORTS // 2)
    first = found.fixes[0]
    assert (first.scope, first.what_if) == ("socket", {"IP_LOCAL_PORT_RANGE": "on"})
    call = re.search(r"setsockopt\(.*\)\)", first.what)
    assert call is not None
    client = sick.client()
    names = {"setsockopt": client.setsockopt, "IPPROTO_IP": socket.IPPROTO_IP, "struct": struct}
    eval(call[0], names)  # as in the program that it is copied into
    assert struct.unpack("=I", client.getsockopt(socket.IPPROTO_IP, 51, 4)) == (HIGH << 16 | LOW,)
    assert client.connect_ex(A) == errno.EINPROGRESS
    assert client.getsockname()[1] % 2 == 1


def test_before_the_cliff_it_says_how_far_it_is(sick: Sick) -> None:
    sick.hold(190, A)
    found = finding(sick, "near-cliff")
    assert (found.severity, found.title) == (
        "warning",
        "10 connections more, then each connect() walks all 200 even ports first",
    )
    ports = sick.hold(11, A)
    assert [port % 2 for port in ports] == [0] * 10 + [1]


def test_near_the_end_it_is_critical_and_says_how_many_are_left(sick: Sick) -> None:
    sick.hold(PORTS - 7, A)
    found = finding(sick, "near-full")
    assert (found.severity, found.title.split(",")[0]) == ("critical", "7 ports left")
    assert sick.succeeding(A) == (7, "EADDRNOTAVAIL")


def test_thresholds_are_the_users(sick: Sick) -> None:
    connected(sick, 80)
    assert examine(sick).exit_code == 0
    assert examine(sick, warn=0.15).exit_code == 10
    assert examine(sick, warn=0.10, crit=0.15).exit_code == 11


def test_a_destination_over_ipv6(sick: Sick) -> None:
    to = ("2001:db8:77::99", 443)
    sick.hold(PORTS, to, family=socket.AF_INET6)
    found = finding(sick, "full")
    assert found.subject == "[2001:db8:77::99]:443"
    assert names_us(found, PORTS)
    assert sick.dial(to, family=socket.AF_INET6) == errno.EADDRNOTAVAIL
    type_in(sick, fix_of(found, "namespace", "wider"))
    assert sick.dial(to, family=socket.AF_INET6) == errno.EINPROGRESS


def test_two_sources_are_two_destinations(sick: Sick) -> None:
    sick.hold(PORTS, A, bind=(SOURCE, 0), no_port=True)
    sick.hold(30, A, bind=(OTHER_SOURCE, 0), no_port=True)
    rows = {p.source: p for p in examine(sick).predictions}
    assert (rows[SOURCE].errno, rows[OTHER_SOURCE].errno) == ("EADDRNOTAVAIL", "")
    assert rows[OTHER_SOURCE].free.likely == PORTS - 30
    assert sick.succeeding(A, bind=(OTHER_SOURCE, 0), no_port=True)[0] == PORTS - 30


# ------------------------------------------------------------------------------------------ TIME_WAIT


@contextmanager
def storm(count: int, to: tuple[str, int], **sysctls: int) -> Iterator[Sick]:
    """So many TIME_WAITs.  Another namespace that ends in that moment may take some along (Linux 6.18): then again."""
    for attempt in range(4):
        with Sick() as sick:
            for name, value in sysctls.items():
                sick.sysctl(f"net.ipv4.{name}", value)
            try:
                sick.time_waits(count, to)
            except AssertionError:
                if attempt == 3:
                    raise
                continue
            time.sleep(0.1)  # none is younger than a tick
            yield sick
            return


@pytest.fixture
def stormy() -> Iterator[Sick]:
    with storm(300, (SOURCE, 9000)) as made:
        yield made


def test_a_time_wait_storm_and_tcp_tw_reuse(stormy: Sick) -> None:
    sick = stormy
    found = finding(sick, "past-cliff")
    assert found.cause == "time-wait"
    assert any(text.startswith("tcp_tw_reuse is 2") for text in found.evidence)
    fix = fix_of(found, "namespace", "tcp_tw_reuse")
    assert fix.after is not None and fix.after.free.likely == PORTS
    sick.listen(SOURCE, 9000, backlog=4096)
    type_in(sick, fix)
    time.sleep(1.1)  # tcp_tw_reuse_delay
    assert sick.succeeding((SOURCE, 9000)) == (PORTS, "EADDRNOTAVAIL")


@pytest.fixture
def stormy_without_timestamps() -> Iterator[Sick]:
    with storm(PORTS, (SOURCE, 9000), tcp_timestamps=0) as made:
        yield made


def test_without_timestamps_tcp_tw_reuse_does_not_help_and_is_not_proposed(stormy_without_timestamps: Sick) -> None:
    sick = stormy_without_timestamps
    found = finding(sick, "full")
    assert not any("tcp_tw_reuse" in fix.command for fix in found.fixes)
    assert any(text.startswith("tcp_tw_reuse: does not help, tcp_timestamps is 0") for text in found.not_it)
    sick.sysctl("net.ipv4.tcp_tw_reuse", 1)
    sick.listen(SOURCE, 9000)
    time.sleep(1.1)
    assert sick.dial((SOURCE, 9000)) == errno.EADDRNOTAVAIL


@pytest.fixture
def stormy_loopback() -> Iterator[Sick]:
    with storm(300, ("127.0.0.1", 9000)) as made:
        yield made


def test_over_loopback_time_waits_are_reused_as_it_is(stormy_loopback: Sick) -> None:
    sick = stormy_loopback
    time.sleep(1.1)
    found = finding(sick, "time-wait")
    assert (found.severity, "TIME_WAIT: reusable as it is" in found.not_it) == ("note", True)
    sick.listen("127.0.0.1", 9000, backlog=4096)
    assert sick.succeeding(("127.0.0.1", 9000))[0] == PORTS


def test_time_waits_of_the_server_side_are_no_destination(sick: Sick) -> None:
    listener = sick.listen(SOURCE, 9000, backlog=1024)
    pairs = [sick.pair(listener) for _ in range(300)]
    for client, server in pairs:
        server.close()
        client.close()
    found = examine(sick)
    assert (found.exit_code, [each.kind for each in found.findings]) == (0, [])
    assert sick.succeeding((SOURCE, 9000))[0] == PORTS


# ------------------------------------------------------------------------------------------ ports that others took


def test_a_hoarder_by_bind_is_named_and_the_option_ends_it(sick: Sick) -> None:
    hoard = [sick.client(bind=(SOURCE, 0)) for _ in range(100)]
    found = finding(sick, "bind-before-connect")
    assert (found.severity, found.cause) == ("warning", "bound")
    assert "holds 100 ports by bind(addr, 0)" in found.title
    assert names_us(found, 100)
    assert sick.succeeding(A) == (PORTS - 100, "EADDRNOTAVAIL")
    fix = found.fixes[0]
    assert (fix.scope, fix.what_if) == ("socket", {"bind_no_port": "1"})
    assert fix.after is not None and fix.after.free.likely == PORTS
    for each in hoard:
        each.close()
    for _ in range(100):
        sick.client(bind=(SOURCE, 0), no_port=True)
    assert "bind-before-connect" not in kinds(sick)
    assert sick.succeeding(B) == (fix.after.free.likely, "EADDRNOTAVAIL")


def test_connected_hoarders_are_inferred_and_that_is_said(sick: Sick) -> None:
    sick.hold(80, C, bind=(SOURCE, 0))
    found = finding(sick, "bind-before-connect")
    assert found.inferred and "80 connected" in found.evidence[0]
    assert sick.succeeding(A)[0] == PORTS - 80


def test_users_of_no_port_are_no_hoarders(sick: Sick) -> None:
    sick.hold(100, C, bind=(SOURCE, 0), no_port=True)
    assert "bind-before-connect" not in kinds(sick)
    assert sick.succeeding(A)[0] == PORTS


def test_a_user_of_the_socket_option_is_no_hoarder_and_has_no_cliff(sick: Sick) -> None:
    sick.hold(240, A, own_range=(LOW, HIGH))
    (p,) = examine(sick).predictions
    assert p.to_cliff_ports.high > 0
    assert sick.succeeding(A)[0] == p.free.likely == PORTS - 240


def test_a_listener_in_the_range_is_named_and_reserving_its_port_protects_it(sick: Sick) -> None:
    port = LOW + 100
    listener = sick.listen("0.0.0.0", port)
    found = finding(sick, "listener-in-range")
    assert (found.severity, f"[{os.getpid()}] :{port}" in found.title) == ("note", True)
    assert names_us(found, 1)
    type_in(sick, fix_of(found, "namespace"))
    assert "listener-in-range" not in kinds(sick)
    listener.close()
    assert port not in sick.hold(PORTS - 1, A)
    sick.listen("0.0.0.0", port)


def test_a_wider_range_runs_over_a_listener_and_reserves_it_first(sick: Sick) -> None:
    listener = sick.listen("0.0.0.0", 16_379)
    sick.hold(PORTS, A)
    fix = fix_of(finding(sick, "full"), "namespace", "wider")
    assert ":16379" in fix.caution
    assert fix.command.index("ip_local_reserved_ports=16379") < fix.command.index("ip_local_port_range")
    type_in(sick, fix)
    assert fix.after is not None and fix.after.free.likely == 64_999 - 15_000 + 1 - PORTS - 1
    listener.close()
    assert sick.dial(A, own_range=(16_379, 16_379)) == errno.EADDRNOTAVAIL
    assert sick.dial(A, own_range=(16_380, 16_380)) == errno.EINPROGRESS


def test_reserved_ports_that_eat_a_parity(sick: Sick) -> None:
    sick.sysctl("net.ipv4.ip_local_reserved_ports", ",".join(str(port) for port in range(LOW, HIGH, 2)))
    found = finding(sick, "reserved-parity")
    assert found.severity == "warning"
    assert found.title.startswith("200 of the 200 even ports are reserved")
    assert sick.hold(1, A)[0] % 2 == 1
    fix = fix_of(found, "namespace")
    assert fix.after is not None and fix.after.passed.max <= 1
    type_in(sick, fix)
    ports = sick.hold(100, A)
    assert all(port % 2 for port in ports)
    assert "reserved-parity" not in kinds(sick)


def test_a_range_that_is_all_reserved_is_full_for_everybody(sick: Sick) -> None:
    sick.sysctl("net.ipv4.ip_local_reserved_ports", f"{LOW}-{HIGH},50000")
    assert sick.dial(A) == errno.EADDRNOTAVAIL
    found = finding(sick, "full")
    assert (found.severity, found.subject, found.cause) == ("critical", "every destination", "reserved")
    assert "reserved-parity" not in kinds(sick)
    assert found.evidence == ("400 ports: 400 reserved",)
    fix = fix_of(found, "namespace", "reserved_ports=50000")
    type_in(sick, fix)
    assert len(sick.hold(PORTS, A)) == PORTS
    assert kinds(sick).isdisjoint({"reserved-parity"})


def test_a_range_that_bind_has_eaten_is_full_for_everybody(sick: Sick) -> None:
    for _ in range(PORTS):
        sick.client(bind=(SOURCE, 0))
    assert sick.dial(A) == errno.EADDRNOTAVAIL
    found = finding(sick, "full")
    assert (found.severity, found.subject, found.cause) == ("critical", "every destination", "bound")
    assert examine(sick).exit_code == 11
    type_in(sick, fix_of(found, "namespace", "port_range"))
    assert sick.dial(A) == errno.EINPROGRESS


def test_a_fix_after_which_connect_fails_as_before_is_none(sick: Sick) -> None:
    sick.sysctl("net.ipv4.ip_local_reserved_ports", f"{LOW}-{HIGH}")
    found = examine(sick, addresses=(A[0],), port=A[1]).findings
    assert {fix.scope for each in found if each.kind == "full" for fix in each.fixes} == {"namespace"}


@pytest.mark.parametrize("ports", [(40_000, 40_001), (65_534, 65_535), (65_535, 65_535)])
def test_a_tiny_range_with_reserved_ports_has_no_other_parity_to_begin_with(sick: Sick, ports: tuple[int, int]) -> None:
    sick.range(*ports)
    sick.sysctl("net.ipv4.ip_local_reserved_ports", str(ports[0]))
    assert kinds(sick) & {"reserved-parity", "full"}


def test_the_root_control_group_is_nobody(sick: Sick) -> None:
    sick.hold(3, A)
    taken = take_snapshot(sick.path, routes=False)
    assert taken.owners is not None
    groups = {number: group_named("/") for number in taken.sockets.cgroup}
    owners = replace(taken.owners, by_inode={}, groups=groups)
    (holder,) = Reading(taken.sockets, taken.system, owners).holders(range(3))
    assert holder.name == "owner unknown"


def test_a_range_of_odd_size(sick: Sick) -> None:
    sick.range(LOW, LOW + 10)
    found = finding(sick, "odd-range")
    assert found.severity == "note"
    type_in(sick, found.fixes[0])
    assert "odd-range" not in kinds(sick)
    assert sick.succeeding(A)[0] == 12


def test_a_range_over_nodeports(sick: Sick) -> None:
    sick.range(29_000, 33_000)
    assert finding(sick, "range-over-nodeports").severity == "note"
    sick.listen("0.0.0.0", 10_250)
    found = finding(sick, "range-over-nodeports")
    assert (found.severity, "30000-32767" in found.title) == ("warning", True)
    type_in(sick, found.fixes[0])
    assert "range-over-nodeports" not in kinds(sick)
    assert sick.dial(A, own_range=(30_080, 30_080)) == errno.EADDRNOTAVAIL


def test_a_range_over_privileged_ports(sick: Sick) -> None:
    sick.sysctl("net.ipv4.ip_unprivileged_port_start", 0)
    sick.range(1_000, 2_001)
    found = finding(sick, "range-privileged")
    assert "1000-1023" in found.title
    type_in(sick, found.fixes[0])
    assert sick.dial(A, own_range=(1_010, 1_010)) == errno.EADDRNOTAVAIL
    assert "range-privileged" not in kinds(sick)


# ------------------------------------------------------------------------------------------ states


def test_a_self_connected_socket_is_named_and_reserving_the_port_prevents_the_next(sick: Sick) -> None:
    port = LOW + 50
    sick.range(port, port + 1)
    assert sick.dial(("127.0.0.1", port)) in (0, errno.EINPROGRESS)
    found = finding(sick, "self-connected")
    assert (found.subject, found.severity) == (f"127.0.0.1:{port}", "warning")
    assert names_us(found, 1)
    with pytest.raises(OSError, match="Address already in use"):
        sick.listen("127.0.0.1", port)
    for each in sick._sockets:
        each.close()
    type_in(sick, fix_of(found, "namespace"))
    with pytest.raises(ConnectionRefusedError):
        sick.connect("127.0.0.1", port)


def test_a_server_that_does_not_answer(sick: Sick) -> None:
    sick.hold(3, A)
    sick.hold(2, B)
    time.sleep(1.3)
    found = {each.subject: each for each in examine(sick).findings if each.kind == "resent-syn"}
    assert set(found) == {"203.0.113.1:443", "203.0.113.2:443"}
    assert [found[subject].severity for subject in sorted(found)] == ["warning", "note"]
    assert names_us(found["203.0.113.1:443"], 3)
    assert "3 SYNs sent again" in found["203.0.113.1:443"].title


def test_connections_that_the_program_forgets_to_close(sick: Sick) -> None:
    listener = sick.listen(SOURCE, 9000, backlog=1024)
    pairs = [sick.pair(listener) for _ in range(120)]
    for _, server in pairs:
        server.close()
    found = finding(sick, "close-wait")
    assert (found.subject, found.severity) == (f"{SOURCE}:9000", "warning")
    assert names_us(found, 120)
    assert "120 connections" in found.title
    for client, _ in pairs:
        client.close()
    assert "close-wait" not in kinds(sick)


# ------------------------------------------------------------------------------------------ loopback, routes


def _finds_a_port6(sick: Sick) -> bool:
    """The kernel takes an IPv6 address into use from a work queue, a moment after the command."""
    for _ in range(200):
        if _connect6(sick) in (errno.EINPROGRESS, errno.ECONNREFUSED):
            return True
        time.sleep(0.01)
    return False


def _connect6(sick: Sick) -> int:
    return sick.client(family=socket.AF_INET6).connect_ex(("::1", 9))


@pytest.mark.parametrize("others", [True, False])
def test_no_ipv6_on_lo_is_behind_eaddrnotavail_of_loopback6(sick: Sick, others: bool) -> None:
    sick.sysctl(f"net.ipv6.conf.{'lo' if others else 'all'}.disable_ipv6", 1)
    name = "ENETUNREACH" if others else "EADDRNOTAVAIL"
    assert errno.errorcode[_connect6(sick)] == name
    found = finding(sick, "no-ipv6-loopback")
    assert (found.severity, found.title) == ("note", f"connect() to ::1 is {name}: net.ipv6.conf.lo.disable_ipv6 is 1")
    asked = examine(sick, addresses=("::1",), port=9)
    assert ([each.kind for each in asked.findings], asked.exit_code) == (["no-ipv6-loopback"], 11)
    type_in(sick, fix_of(found, "namespace"))
    assert _finds_a_port6(sick)
    assert "no-ipv6-loopback" not in kinds(sick)
    assert examine(sick, addresses=("::1",), port=9).exit_code == 0


def test_an_address_missing_from_lo(sick: Sick) -> None:
    sick.ip("-6 addr del ::1/128 dev lo")
    assert _connect6(sick) == errno.ENETUNREACH
    found = finding(sick, "no-ipv6-loopback")
    assert "missing from lo" in found.title
    type_in(sick, fix_of(found, "namespace"))
    assert _finds_a_port6(sick)


def test_lo_that_was_taken_down(sick: Sick) -> None:
    sick.ip("link set lo down")
    found = finding(sick, "loopback-down")
    assert found.severity == "warning"
    assert found.title == "lo is down: connect() to 127.0.0.1 gets no answer (ETIMEDOUT), to ::1 ENETUNREACH"
    assert (sick.dial(("127.0.0.1", 9)), _connect6(sick)) == (errno.EINPROGRESS, errno.ENETUNREACH)
    asked = examine(sick, addresses=("127.0.0.1",), port=9)
    assert ([each.kind for each in asked.findings], asked.exit_code) == (["loopback-down"], 11)
    type_in(sick, found.fixes[0])
    with pytest.raises(ConnectionRefusedError):
        sick.connect("127.0.0.1", 9)
    assert "loopback-down" not in kinds(sick)


# ------------------------------------------------------------------------------------------ several things


def test_the_most_urgent_comes_first(sick: Sick) -> None:
    sick.hold(PORTS, A)
    sick.hold(PORTS // 2 + 10, B)
    sick.listen("127.0.0.1", 16_379)
    sick.sysctl("net.ipv6.conf.lo.disable_ipv6", 1)
    found = examine(sick)
    severities = [each.severity for each in found.findings]
    assert severities == sorted(severities, key=("critical", "warning", "note").index)
    assert (found.findings[0].kind, found.findings[0].subject, found.exit_code) == ("full", "203.0.113.1:443", 11)


def test_fixes_go_from_local_to_system_wide(sick: Sick) -> None:
    sick.hold(PORTS, A)
    order = ["socket", "process", "server", "namespace", "machine"]
    scopes = [order.index(fix.scope) for fix in finding(sick, "full").fixes]
    assert scopes == sorted(scopes) and len(set(scopes)) >= 3


def test_every_effect_of_a_fix_that_has_one_is_the_engines(sick: Sick) -> None:
    sick.hold(PORTS // 2 + 20, A)
    sick.hold(50, C, bind=(OTHER_SOURCE, 0), no_port=True)
    for fix in finding(sick, "past-cliff").fixes:
        if fix.after is not None:
            assert not fix.after.errno
            assert fix.after.fill < 0.55


def test_a_range_of_three_ports_has_two(sick: Sick) -> None:
    sick.range(LOW, LOW + 2)
    assert sick.succeeding(A) == (2, "EADDRNOTAVAIL")
    full = finding(sick, "full")
    assert full.evidence == ("3 of 3 ports taken: 2 by this destination's (2 SYN_SENT), 1 that no search looks at",)
    odd = finding(sick, "odd-range")
    assert odd.title == "3 ports, an odd number: no search looks at the last of them"
    type_in(sick, odd.fixes[0])
    assert sick.succeeding(A) == (2, "EADDRNOTAVAIL")
