"""What will not fit is said before the start, with the change; and the kernel agrees."""

from __future__ import annotations

import array
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from fourtuple.dial.facts import read_facts, sysctls_of
from fourtuple.dial.kernel import run_kernel
from fourtuple.dial.kernel_count import socket_bytes
from fourtuple.dial.plan import DialPlan, Target
from fourtuple.dial.preflight import (
    SOCKET_BYTES,
    Facts,
    half_open_room,
    ports_of_pair,
    preflight,
    seconds_to_open,
)
from fourtuple.dial.report import DialReport, Fit
from fourtuple.dial.user import run_user
from fourtuple.dial.wiring import transmit_queue
from fourtuple.live import sockets
from fourtuple.shell.netns import PrivateNamespace
from fourtuple.shell.sim_wire import open_sim
from fourtuple.shell.wire import Setup
from tests.live.space import Space, needs_root

ONE = (Target("10.64.1.1", 80),)
IP_TRANSPARENT = 19
PORTS = "local ports for each source and target"
ACCEPT_QUEUE = "accept queue of each listener"
HALF_OPEN = "half-open connections of each listener"
FILES = "descriptors of each process"


@pytest.fixture
def space() -> Iterator[Space]:
    with Space() as made:
        made.sysctl("net.core.somaxconn", 65535)
        made.sysctl("net.ipv4.tcp_tw_reuse", 0)
        yield made


def plan_for(connections: int, **rest: Any) -> DialPlan:
    return DialPlan(connections, **({"targets": ONE, "stack": "kernel"} | rest))


def line(plan: DialPlan, facts: Facts, what: str) -> Fit:
    (found,) = [each for each in preflight(plan, facts) if each.what == what]
    return found


def lines(plan: DialPlan, facts: Facts) -> set[str]:
    return {each.what for each in preflight(plan, facts)}


def told(plan: DialPlan, facts: Facts, what: str) -> tuple[int, int | None, bool, str]:
    found = line(plan, facts, what)
    return found.need, found.have, found.fits, found.change


# ------------------------------------------------------------------------------------------ ports


@pytest.mark.parametrize(
    ("facts", "ports"),
    [
        (Facts(), 28_232),
        (Facts(port_low=10, port_high=13), 4),
        (Facts(port_low=10, port_high=14), 4),  # of odd size: each search leaves one out
        (Facts(port_low=10, port_high=14, step_1=True), 5),
        (Facts(port_low=10, port_high=14, profile="4.2"), 5),  # before 4.6 there were no parities
        (Facts(port_low=10, port_high=10), 1),
        (Facts(reserved=((1, 32768), (40000, 40009), (60999, 60999))), 28_232 - 12),
        (Facts(port_low=10, port_high=11, reserved=((10, 11),)), 0),
    ],
)
def test_ports_are_those_that_every_search_of_the_engine_finds(facts: Facts, ports: int) -> None:
    assert ports_of_pair(facts) == ports


def test_what_fits_needs_no_change() -> None:
    assert told(plan_for(28_232), Facts(), PORTS) == (28_232, 28_232, True, "")


def test_ports_that_are_taken_already_do_not_count() -> None:
    assert told(plan_for(20), Facts(taken=28_220), PORTS)[:3] == (20, 12, False)


def test_one_connection_more_than_there_are_ports_does_not_fit_and_the_changes_are_named() -> None:
    change = 'sysctl -w net.ipv4.ip_local_port_range="1024 65535", or --sources with 2 addresses, or 2 targets'
    assert told(plan_for(28_233), Facts(), PORTS) == (28_233, 28_232, False, change)
    change = "--range 1024-65535, or --sources 10.64.0.2-10.64.0.3, or 2 targets"
    assert told(plan_for(28_233, stack="user"), Facts(private=True), PORTS)[3] == change


def test_where_no_port_is_left_by_the_reserved_ones_fewer_of_them_is_the_change() -> None:
    facts = Facts(private=True, reserved=((1, 65535),))
    assert told(plan_for(4, stack="user"), facts, PORTS) == (4, 0, False, "a shorter --reserve")
    change = "sysctl -w net.ipv4.ip_local_reserved_ports="
    assert told(plan_for(4), facts, PORTS)[3] == change


def test_each_change_of_the_ports_makes_it_fit() -> None:
    plan = plan_for(100_000, stack="user")
    facts = Facts(private=True)
    assert line(plan, facts, PORTS).change == "--sources 10.64.0.2-10.64.0.5, or 4 targets"
    assert line(replace(plan, sources=tuple("abcd")), facts, PORTS).fits
    assert not line(replace(plan, sources=tuple("abc")), facts, PORTS).fits
    assert line(replace(plan, targets=ONE * 4), facts, PORTS).fits
    assert not line(replace(plan, targets=ONE * 3), facts, PORTS).fits


def test_many_sources_come_from_a_network_with_room() -> None:
    plan = plan_for(10_000_000, stack="user")
    assert line(plan, Facts(private=True), PORTS).change == "--sources 10.65.0.1-10.65.1.99, or 355 targets"


def test_past_half_the_kernels_connect_is_slow_unless_it_has_a_range_of_its_own() -> None:
    what = "ports before connect() gets slow"
    need, have, fits, change = told(plan_for(14_117), Facts(), what)
    assert (need, have, fits) == (14_117, 14_116, True)
    assert change == "--step-1: past half of the range each connect() walks over 14 116 ports first"
    assert what not in lines(plan_for(14_116), Facts())
    assert what not in lines(plan_for(14_117), Facts(step_1=True))
    assert what not in lines(plan_for(14_117, stack="user"), Facts())


def test_behind_nat_all_sources_share_the_ports_of_one_address() -> None:
    what = "ports of the NAT address for each target"
    plan = plan_for(100_000, stack="user", sources=tuple("abcd"))
    change = "2 targets: all sources leave under one address"
    assert told(plan, Facts(nat=True), what) == (100_000, 64_512, False, change)
    assert line(replace(plan, targets=ONE * 2), Facts(nat=True), what).fits
    assert what not in lines(plan, Facts())


def test_two_dials_within_a_minute_share_the_ports_with_time_wait() -> None:
    what = "ports for two such dials within 60 s"
    need, have, fits, change = told(plan_for(15_000), Facts(), what)
    assert (need, have, fits) == (30_000, 28_232, True)
    assert change == "--close rst, or 60 s between two dials: TIME_WAIT keeps the ports that long"
    assert line(plan_for(14_000), Facts(), what).change == ""
    assert what not in lines(plan_for(15_000, close="rst"), Facts())


# ------------------------------------------------------------------------------------------ the server


def test_a_server_that_does_not_accept_needs_room_for_all_in_its_accept_queue() -> None:
    facts = Facts(private=True, accepts=False, backlog=4096)
    change = "net.core.somaxconn=10000 and listen(10000) at the server, or 3 targets"
    assert told(plan_for(10_000), facts, ACCEPT_QUEUE) == (10_000, 4097, False, change)
    assert line(plan_for(10_000), replace(facts, backlog=10_000), ACCEPT_QUEUE).fits
    assert line(plan_for(10_000, targets=ONE * 3), facts, ACCEPT_QUEUE).fits
    assert not line(plan_for(10_000, targets=ONE * 3), replace(facts, listeners=1), ACCEPT_QUEUE).fits


def test_a_server_that_accepts_needs_room_for_the_window() -> None:
    facts = Facts(private=True, backlog=100)
    assert told(plan_for(10_000, window=128), facts, ACCEPT_QUEUE)[:3] == (128, 101, False)
    assert line(plan_for(10_000, window=101), facts, ACCEPT_QUEUE).fits
    assert ACCEPT_QUEUE not in lines(plan_for(10_000), Facts())


def test_half_open_connections_have_an_end_only_without_syncookies() -> None:
    facts = Facts(private=True, backlog=4096, syn_backlog=128, syncookies=False)
    change = "net.ipv4.tcp_max_syn_backlog=171 at the server, or --window 97"
    assert told(plan_for(10_000, window=128), facts, HALF_OPEN) == (128, 97, False, change)
    assert line(plan_for(10_000, window=97), facts, HALF_OPEN).fits
    assert line(plan_for(10_000, window=128), replace(facts, syn_backlog=171), HALF_OPEN).fits
    assert HALF_OPEN not in lines(plan_for(10_000), replace(facts, syncookies=True))


def test_the_kernels_answers_have_to_fit_into_the_device() -> None:
    what = "packets that wait in the device"
    plan = plan_for(10_000, stack="user", window=2000)
    change = "--window 1000, or txqueuelen 2000 of the device"
    assert told(plan, Facts(txqueuelen=1000), what) == (2000, 1000, False, change)
    assert line(replace(plan, window=1000), Facts(txqueuelen=1000), what).fits
    assert what not in lines(replace(plan, stack="kernel"), Facts(txqueuelen=1000))


def test_a_tun_has_the_queue_of_the_widest_window() -> None:
    size = transmit_queue(plan_for(1, window=1 << 20))
    assert size < 8 << 20
    with PrivateNamespace.start(txqueuelen=size):  # EPERM when it is more than a TUN can have
        pass


# ------------------------------------------------------------------------------------------ this machine


def test_kernel_sockets_need_a_descriptor_each() -> None:
    facts = Facts(files=20_000, files_used=10)
    change = "ulimit -n 30026, or --processes 2, or --stack user, which needs none"
    assert told(plan_for(30_000), facts, FILES) == (30_026, 20_000, False, change)
    assert line(plan_for(30_000, processes=2), facts, FILES).fits
    assert FILES not in lines(plan_for(30_000, stack="user"), facts)
    assert FILES not in lines(plan_for(30_000), Facts(files=None))


def test_a_server_of_ours_that_accepts_needs_a_descriptor_each_too() -> None:
    what = "descriptors of the server"
    facts = Facts(private=True, files=20_000)
    change = "--server hold, which leaves them in the accept queue, or ulimit -n 30016"
    assert told(plan_for(30_000, stack="user"), facts, what) == (30_016, 20_000, False, change)
    assert what not in lines(plan_for(30_000), replace(facts, accepts=False))
    assert what not in lines(plan_for(30_000), replace(facts, private=False))


_FEW_FILES = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
from fourtuple.dial.plan import DialPlan, Target
from fourtuple.dial.user import run_user
from fourtuple.dial.wiring import transmit_queue
from fourtuple.live import sockets
from fourtuple.shell.wire import Setup
from fourtuple.shell.wires import open_wire
held = []
def on_progress(progress):
    if progress.phase == "hold" and not held:
        held.extend(sockets(wire.namespace.pid, sport=8080, states=["ESTABLISHED"]).inode)
with open_wire("tun", Setup()) as wire:
    run_user(DialPlan(100, (Target("10.64.0.1", 8080),), hold_s=0.3, close="rst"), wire, on_progress)
    print(len(held), sum(1 for inode in held if inode))
"""


@needs_root
def test_past_the_servers_descriptors_connections_stay_in_its_accept_queue() -> None:
    done = subprocess.run([sys.executable, "-c", _FEW_FILES], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    established, accepted = map(int, done.stdout.split())
    assert established == 100
    assert 40 <= accepted < 64


def test_our_stack_has_the_rows_that_it_was_given() -> None:
    what = "rows of the socket table"
    plan = plan_for(100, stack="user", max_sockets=50)
    assert told(plan, Facts(), what) == (100, 50, False, "--max-sockets 100, or none: it then fits the connections")
    assert what not in lines(replace(plan, max_sockets=0), Facts())


def test_past_the_rows_the_dial_fails_as_was_said() -> None:
    plan = plan_for(20, stack="user", max_sockets=12, targets=(Target("10.64.0.1", 8080),))
    assert told(plan, Facts(), "rows of the socket table")[:3] == (20, 12, False)
    with open_sim(Setup(max_sockets=plan.rows)) as wire:
        report = run_user(plan, wire)
    assert (report.connections.established, report.failures[0].errno) == (12, "ENOBUFS")


def test_memory_is_that_of_both_ends_where_both_are_here() -> None:
    facts = Facts(memory_bytes=1 << 30)
    what = "memory (MiB)"
    million = plan_for(1_000_000, stack="user", sources=tuple(map(str, range(40))))
    assert told(million, facts, what) == (158, 1024, True, "")
    change = "at most 350 323 connections: each takes 3 065 bytes here"
    assert told(million, replace(facts, private=True, accepts=False), what) == (2924, 1024, False, change)
    kernel = replace(million, stack="kernel")
    change = "at most 249 707 connections: each takes 4 300 bytes here; --stack user takes 165"
    assert told(kernel, facts, what) == (4101, 1024, False, change)


def test_connection_tracking_has_an_entry_for_each() -> None:
    what = "connection tracking entries"
    facts = Facts(conntrack_max=1000, conntrack_used=10)
    change = "sysctl -w net.netfilter.nf_conntrack_max=1110, or nft notrack for this traffic"
    assert told(plan_for(1100), facts, what) == (1110, 1000, False, change)
    assert line(plan_for(990), facts, what).fits
    assert what not in lines(plan_for(990), Facts())


def test_time_is_that_of_the_rate_or_of_one_core() -> None:
    assert told(plan_for(10_000, rate=1000, ramp_s=4), Facts(), "time to open (s)") == (12, None, True, "")
    below, past = (seconds_to_open(plan_for(n), Facts()) for n in (14_000, 28_000))
    assert past > 10 * below  # the kernel's search past half
    assert seconds_to_open(plan_for(28_000), Facts(step_1=True)) == pytest.approx(2 * below)


def test_what_does_not_fit_comes_first() -> None:
    found = preflight(plan_for(30_000), Facts(files=20_000))
    assert [each.fits for each in found] == sorted(each.fits for each in found)
    assert [each.what for each in found if not each.fits] == [PORTS, FILES]


# ------------------------------------------------------------------------------------------ the kernel agrees


def dial(space: Space, plan: DialPlan) -> DialReport:
    return space.run(lambda: run_kernel(plan))


@needs_root
def test_past_the_ports_the_dial_fails_as_was_said(space: Space) -> None:
    space.sysctl("net.ipv4.ip_local_port_range", "40000 40031")
    space.sysctl("net.ipv4.ip_local_reserved_ports", "40000-40003")
    space.listen("10.77.0.1", 80, backlog=128)
    plan = plan_for(40, targets=(Target("10.77.0.1", 80),))
    facts = space.run(lambda: read_facts(plan))
    assert told(plan, facts, PORTS)[:3] == (40, 28, False)
    report = dial(space, plan)
    assert (report.connections.established, report.failures[0].errno) == (28, "EADDRNOTAVAIL")


@needs_root
def test_a_second_dial_within_a_minute_finds_the_ports_in_time_wait(space: Space) -> None:
    space.sysctl("net.ipv4.ip_local_port_range", "40000 40031")
    space.listen("10.77.0.1", 80, backlog=128)
    plan = plan_for(20, targets=(Target("10.77.0.1", 80),))
    facts = space.run(lambda: read_facts(plan))
    assert told(plan, facts, "ports for two such dials within 60 s")[:2] == (40, 32)
    assert dial(space, plan).connections.established == 20
    facts = space.run(lambda: read_facts(plan))
    assert told(plan, facts, PORTS)[:3] == (20, 12, False)
    assert dial(space, plan).connections.established == 12


@needs_root
@pytest.mark.parametrize("backlog", [3, 200])
def test_past_the_accept_queue_the_dial_fails_as_was_said(space: Space, backlog: int) -> None:
    space.sysctl("net.core.somaxconn", 50)
    space.listen("10.77.0.1", 80, backlog=backlog)
    plan = plan_for(100, targets=(Target("10.77.0.1", 80),), timeout_s=0.2)
    facts = space.run(lambda: read_facts(plan, sysctls_of(), backlog=backlog, accepts=False))
    room = min(backlog, 50) + 1
    assert told(plan, facts, ACCEPT_QUEUE)[:3] == (100, room, False)
    report = dial(space, plan)
    assert (report.connections.established, report.failures[0].errno) == (room, "ETIMEDOUT")


@needs_root
@pytest.mark.parametrize(("syn_backlog", "backlog", "room"), [(64, 4096, 49), (100, 4096, 76), (64, 20, 21)])
def test_as_many_half_open_connections_as_said_are_kept(
    space: Space, syn_backlog: int, backlog: int, room: int
) -> None:
    space.sysctl("net.ipv4.tcp_syncookies", 0)
    space.sysctl("net.ipv4.tcp_max_syn_backlog", syn_backlog)
    space.listen("10.77.0.1", 80, backlog=backlog)
    facts = space.run(lambda: read_facts(plan_for(1), sysctls_of(), backlog=backlog))
    assert half_open_room(facts) == room

    def knock() -> int:
        for _ in range(150):  # the answers go to where everything is lost
            knocker = space.keep(socket.socket())
            knocker.setblocking(False)
            knocker.setsockopt(socket.IPPROTO_IP, IP_TRANSPARENT, 1)
            knocker.bind(("203.0.113.9", 0))
            knocker.connect_ex(("10.77.0.1", 80))
        return len(sockets(states=["SYN_RECV"], sport=80))

    assert space.run(knock) == room


@needs_root
def test_a_device_keeps_as_many_packets_as_was_said() -> None:
    pings = [_ping(number) for number in range(30)]
    size = len(pings[0])
    ring = memoryview(bytearray(64 * 2048))
    offsets, lengths = (memoryview(array.array("I", bytes(4 * 64))) for _ in range(2))
    with PrivateNamespace.start(txqueuelen=10) as namespace:
        device = namespace.device
        for ping in pings:
            ring[:size], offsets[0], lengths[0] = ping, 0, size
            assert device.write_batch(ring, offsets, lengths, 1) == 1
        assert device.read_batch(ring, offsets, lengths, 64) == 10


def _ping(number: int) -> bytes:
    body = bytes((8, 0)) + _sum(bytes((8, 0, 0, 0, 0, 1, 0, number))) + bytes((0, 1, 0, number))
    addresses = socket.inet_aton("10.64.0.2") + socket.inet_aton("10.64.0.1")
    head = bytes((0x45, 0, 0, 28, 0, 0, 0, 0, 64, 1))
    return head + _sum(head + bytes(2) + addresses) + addresses + body


def _sum(data: bytes) -> bytes:
    total = sum(int.from_bytes(data[i : i + 2], "big") for i in range(0, len(data), 2))
    total = (total >> 16) + (total & 0xFFFF)
    return ((total + (total >> 16)) & 0xFFFF ^ 0xFFFF).to_bytes(2, "big")


@needs_root
def test_tracked_connections_take_an_entry_each(space: Space) -> None:
    space.command("nft", "add table ip t; add chain ip t c { type filter hook input priority 0; }")
    space.command("nft", "add rule ip t c ct state new accept")
    space.listen("10.77.0.1", 80, backlog=128)
    plan = plan_for(30, targets=(Target("10.77.0.1", 80),))
    dial(space, plan)
    facts = space.run(lambda: read_facts(plan))
    assert facts.conntrack_used == 30
    assert line(plan, facts, "connection tracking entries").need == 60


@needs_root
def test_without_a_rule_that_needs_it_there_is_no_connection_tracking(space: Space) -> None:
    assert space.run(lambda: read_facts(plan_for(1))).conntrack_max is None


def test_the_facts_of_this_process_and_machine_are_read() -> None:
    facts = read_facts(plan_for(1))
    assert facts.files == resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert facts.files_used >= 3
    assert facts.memory_bytes is not None
    assert facts.memory_bytes > 1 << 20
    assert not facts.private


def test_our_stack_has_its_own_range_and_no_reserved_ports() -> None:
    facts = read_facts(plan_for(1, stack="user"))
    assert (facts.port_low, facts.port_high, facts.reserved, facts.taken) == (32768, 60999, (), 0)
    assert read_facts(plan_for(1, stack="user", range=(1024, 2047))).port_high == 2047
    assert read_facts(plan_for(1, stack="user"), reserved="40000-40009").reserved == ((40000, 40009),)


@needs_root
def test_a_private_namespace_that_is_not_there_yet_has_the_defaults(space: Space) -> None:
    space.sysctl("net.ipv4.ip_local_port_range", "40000 40031")
    facts = space.run(lambda: read_facts(plan_for(1), is_private=True))
    assert (facts.port_low, facts.port_high, facts.private) == (32768, 60999, True)
    assert space.run(lambda: read_facts(plan_for(1))).port_low == 40000


def test_a_kernel_searches_as_its_version_does_whatever_we_imitate() -> None:
    assert read_facts(plan_for(1), profile="4.2").profile != "4.2"
    assert read_facts(plan_for(1, stack="user"), profile="4.2").profile == "4.2"


@needs_root
def test_the_size_of_a_socket_that_the_preflight_assumes_is_about_that_of_this_kernel() -> None:
    assert socket_bytes() == pytest.approx(SOCKET_BYTES, rel=0.25)
