"""What the probes say is what the test bound itself, and what real connect()s then meet; and no packet gets out."""

from __future__ import annotations

import errno
import json
import os
import random
import socket
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fourtuple.live import CannotRead, measure_connect, poison_map, probe, socket_options, sockets
from fourtuple.live.probe import LOOPBACK, REPAIR
from fourtuple.live.socket_options import set_no_port, set_port_range, set_repair, set_reuse
from tests.kernel.netns import in_namespace
from tests.live.packets import Capture
from tests.live.space import Space, needs_root

pytestmark = needs_root

both_ways = pytest.mark.parametrize("way", [REPAIR, LOOPBACK])
NOWHERE = ("203.0.113.7", 443)


@pytest.fixture
def space() -> Iterator[Space]:
    with Space() as made:
        yield made


def small_range(space: Space, low: int = 40000, high: int = 40031) -> None:
    space.sysctl("net.ipv4.ip_local_port_range", f"{low} {high}")


def bound(space: Space, name: tuple[Any, ...], *prepare: Callable[[socket.socket], None]) -> socket.socket:
    made = space.socket(socket.AF_INET6 if ":" in name[0] else socket.AF_INET)
    for each in prepare:
        each(made)
    made.bind(name)
    return made


def leave_time_wait(client: socket.socket, server: socket.socket) -> None:
    """The client closes first."""
    client.close()
    assert server.recv(1) == b""
    server.close()


def connects_until_it_fails(space: Space, most: int) -> tuple[int, int]:
    """How many connect()s to one destination work, and the errno of the next."""
    for count in range(most):
        client = space.socket()
        client.setblocking(False)
        code = client.connect_ex(NOWHERE)
        if code != errno.EINPROGRESS:
            return count, code
    return most, 0


# ------------------------------------------------------------------------------------------ the map


@both_ways
def test_the_ports_that_bind_took_are_found_and_no_others(space: Space, way: str) -> None:
    listener = space.listen("127.0.0.1", 5000)
    small_range(space)
    space.sysctl("net.ipv4.ip_local_reserved_ports", "40020-40021,40025")
    shut = {
        bound(space, ("127.0.0.1", 40001)),
        bound(space, ("0.0.0.0", 0)),
        bound(space, ("10.77.0.1", 40004), set_reuse),
        bound(space, ("::1", 40006, 0, 0)),
        space.listen("0.0.0.0", 40008),
        space.connect("127.0.0.1", 5000, ("127.0.0.1", 40010)),
    }
    took = {each.getsockname()[1] for each in shut}
    client = space.connect("127.0.0.1", 5000, ("127.0.0.1", 40012))
    first, second = (listener.accept()[0] for _ in range(2))
    leave_time_wait(client, second)
    client, server = space.pair(listener)
    leave_time_wait(client, server)  # of connect()'s own choice: takes nothing
    space.connect("127.0.0.1", 5000)
    sharer = bound(space, ("10.77.0.1", 0), set_no_port)
    sharer.setblocking(False)
    sharer.connect_ex(("203.0.113.9", 1))

    found = poison_map(space.path, way=way)
    first.close()

    assert set(found.shut) == took | {40012}
    assert found.reserved == (40020, 40021, 40025)
    assert (found.undecided, found.notes, found.way) == ((), (), way)
    assert (found.port_low, found.port_high, found.asked) == (40000, 40031, 32)
    assert found.joinable == 32 - len(found.shut) - 3
    assert connects_until_it_fails(space, 33) == (found.joinable, errno.EADDRNOTAVAIL)


@both_ways
def test_a_port_is_open_again_when_its_binder_is_gone_and_others_share_it(space: Space, way: str) -> None:
    small_range(space)
    binder = bound(space, ("10.77.0.1", 40003))
    assert poison_map(space.path, way=way).shut == (40003,)
    binder.close()
    assert poison_map(space.path, way=way).shut == ()


def test_the_default_range_is_mapped_exactly(space: Space) -> None:
    chosen = random.Random(4).sample(range(32768, 61000), 50)
    for port in chosen:
        bound(space, ("0.0.0.0", port))
    found = poison_map(space.path)
    assert (found.way, found.asked) == (REPAIR, 28232)
    assert set(found.shut) == set(chosen)
    assert found.undecided == ()


_AS_NOBODY = """
import json
from fourtuple.live import CannotRead, measure_connect, poison_map, probe
found = poison_map()
try:
    measure_connect(("203.0.113.7", 443))
except CannotRead as error:
    refusal = str(error)
try:
    poison_map(way=probe.REPAIR)
except CannotRead as error:
    print(json.dumps([probe.poison_way(), found.way, found.shut, len(found.undecided), refusal, str(error)]))
"""


def test_nobody_maps_the_default_range_over_loopback(space: Space) -> None:
    chosen = random.Random(5).sample(range(32768, 61000), 50)
    for port in chosen:
        bound(space, ("0.0.0.0", port))
    python = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", sys.executable, "-c", _AS_NOBODY)
    way, used, shut, undecided, refusal, forced = json.loads(space.command(*python))
    assert (way, used, undecided) == (LOOPBACK, LOOPBACK, 0)
    assert shut == sorted(chosen)
    assert refusal == (
        "the cost of connect(): Operation not permitted (needs root or CAP_NET_ADMIN; without, it is estimated)"
    )
    assert forced == (
        "the map of ports that bind() took: Operation not permitted (CAP_NET_ADMIN for TCP_REPAIR; loopback needs none)"
    )


@both_ways
def test_only_the_ports_asked_for_are_probed(space: Space, way: str) -> None:
    small_range(space)
    bound(space, ("0.0.0.0", 40007))
    found = poison_map(space.path, [40007, 40008], way=way)
    assert (found.shut, found.asked, found.probed, found.joinable) == ((40007,), 2, 2, 1)


def test_ports_outside_the_range_are_judged_by_their_sockets(space: Space) -> None:
    listener = space.listen("127.0.0.1", 5000)
    space.connect("127.0.0.1", 5000, ("127.0.0.1", 6000))
    server, _ = listener.accept()
    bound(space, ("127.0.0.1", 7000))
    small_range(space)
    found = poison_map(space.path, [5000, 6000, 7000, 8000])
    server.close()
    assert (found.shut, found.undecided, found.probed, found.joinable) == ((5000, 7000), (6000,), 0, 1)
    assert found.notes == (
        "1 port undecided: outside net.ipv4.ip_local_port_range, and the list of sockets does not tell",
    )


@both_ways
def test_a_range_changed_meanwhile_leaves_the_rest_undecided(
    space: Space, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_range(space, 40000, 40255)
    bound(space, ("0.0.0.0", 40009))
    pauses = iter(range(9))

    def another_program() -> None:
        if next(pauses) == 1:
            with open("/proc/sys/net/ipv4/ip_local_port_range", "w") as file:
                file.write("50000 50255")

    monkeypatch.setattr(os, "sched_yield", another_program)
    found = poison_map(space.path, way=way)
    assert found.shut == (40009,)
    assert found.undecided == tuple(range(40128, 40256))
    assert found.notes == ("128 ports undecided: net.ipv4.ip_local_port_range was changed meanwhile",)


def test_no_time_leaves_all_undecided(space: Space) -> None:
    small_range(space)
    found = poison_map(space.path, limit_s=-1.0)
    assert (found.probed, len(found.undecided), found.joinable) == (0, 32, 0)
    assert found.notes == ("32 ports undecided: the time limit was reached",)


def test_an_errno_that_says_nothing_ends_the_probe(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    small_range(space)
    real = probe._Prober.try_port
    answers = {40005: errno.EMFILE}
    monkeypatch.setattr(probe._Prober, "try_port", lambda self, port: answers.get(port) or real(self, port))
    found = poison_map(space.path)
    assert found.undecided == tuple(range(40005, 40032))
    assert found.notes == ("connect() gave EMFILE for port 40005: the probe was ended there",)


def test_a_kernel_without_the_option_says_so(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket_options, "IP_LOCAL_PORT_RANGE", 250)  # which no kernel has
    with pytest.raises(CannotRead) as caught:
        poison_map(space.path)
    assert caught.value.errno == errno.ENOPROTOOPT
    assert str(caught.value) == (
        "the map of ports that bind() took: this kernel has no IP_LOCAL_PORT_RANGE (needs Linux 6.3)"
    )


@both_ways
def test_the_target_is_never_the_port_itself(space: Space, way: str) -> None:
    space.sysctl("net.ipv4.ip_unprivileged_port_start", 1)
    small_range(space, 1, 40)
    space.listen("127.0.0.1", 2)
    found = poison_map(space.path, way=way)
    assert (found.shut, found.undecided) == ((2,), ())
    assert [row.state for row in sockets(space.path)] == ["LISTEN"]


@both_ways
def test_a_machine_with_lo_down_can_be_probed(space: Space, way: str) -> None:
    small_range(space)
    bound(space, ("0.0.0.0", 40007))
    space.ip("link set lo down")
    assert poison_map(space.path, way=way).shut == (40007,)


def _without_any_device() -> list[str]:
    refusals = []
    for way in (REPAIR, LOOPBACK):
        try:
            poison_map(way=way)
        except CannotRead as error:
            refusals.append(str(error))
    return refusals


def test_a_namespace_where_nothing_is_up_is_one_line() -> None:
    line = "the map of ports that bind() took: this machine cannot be connected to, as lo is down (`ip link set lo up`)"
    assert in_namespace(_without_any_device) == [line, line]


@pytest.mark.parametrize("ports", [[0], [65536], [-1, 40000]])
def test_what_is_no_port_is_refused(ports: list[int]) -> None:
    with pytest.raises(ValueError, match="ports are numbers from 1 to 65535"):
        poison_map(None, ports)


def test_an_unknown_way_is_refused() -> None:
    with pytest.raises(ValueError, match="way is 'TCP_REPAIR', 'loopback' or None"):
        poison_map(way="udp")


@pytest.mark.parametrize("prepare", [set_reuse, set_repair])
def test_a_server_can_bind_a_port_while_it_is_probed(space: Space, prepare: Callable[[socket.socket], None]) -> None:
    small_range(space)
    probing = space.socket()
    probing.setblocking(False)
    prepare(probing)
    set_port_range(probing, 40003, 40003)
    assert probing.connect_ex(NOWHERE) in (0, errno.EINPROGRESS)
    bound(space, ("0.0.0.0", 40003), set_reuse).listen()


# ------------------------------------------------------------------------------------------ packets and traces


@pytest.fixture
def capture(space: Space) -> Iterator[Capture]:
    made = Capture(space)
    client = space.try_connect(*NOWHERE)
    assert set(made.devices()) == {"hole0", "peer0"}, "the capture sees packets"
    client.close()
    yield made
    assert made.dropped() == 0
    made.close()


def test_under_tcp_repair_there_is_no_packet_at_all(space: Space, capture: Capture) -> None:
    small_range(space)
    bound(space, ("0.0.0.0", 40009))
    space.listen("127.0.0.1", 5000)
    poison_map(space.path, way=REPAIR)
    measure_connect(NOWHERE, netns=space.path)
    measure_connect(("2001:db8:77::9", 443), netns=space.path)
    measure_connect(("127.0.0.1", 5000), netns=space.path)
    measure_connect(("10.77.0.1", 5000), source="10.77.0.1", port_range=(40001, 40001), netns=space.path)
    assert capture.devices() == []


def test_on_loopback_each_port_takes_a_syn_and_a_reset(space: Space, capture: Capture) -> None:
    small_range(space)
    bound(space, ("0.0.0.0", 40009))
    before = lo_packets(space)
    found = poison_map(space.path, way=LOOPBACK)
    assert set(capture.devices()) == {"lo"}
    tried_first = 1  # to find out whether it works here
    assert lo_packets(space) - before == 2 * (found.joinable + tried_first)


def lo_packets(space: Space) -> int:
    (lo,) = json.loads(space.command("ip", "-j", "-s", "link", "show", "lo"))
    return int(lo["stats64"]["rx"]["packets"])


@both_ways
def test_no_socket_is_left_behind(space: Space, way: str) -> None:
    small_range(space)
    bound(space, ("0.0.0.0", 40009))
    before = [tuple(row) for row in sockets(space.path)]
    open_files = os.listdir("/proc/self/fd")
    poison_map(space.path, way=way)
    assert [tuple(row) for row in sockets(space.path)] == before
    assert len(os.listdir("/proc/self/fd")) == len(open_files)


# ------------------------------------------------------------------------------------------ the cost of connect()


def test_what_is_measured_is_the_kernels_choice(space: Space) -> None:
    small_range(space)
    found = measure_connect(NOWHERE, tries=30, netns=space.path)
    assert (found.errno, found.failed, found.tries, found.source) == ("", 0, 30, "10.77.0.1")
    assert len(found.ports) == 30
    assert all(port in range(40000, 40032, 2) for port in found.ports), "the first parity has room"
    assert 0 < found.cost_us.p5 <= found.cost_us.p50 <= found.cost_us.p95
    assert len(sockets(space.path)) == 0


def test_past_half_the_second_parity_is_chosen(space: Space) -> None:
    small_range(space)
    for _ in range(16):
        space.try_connect(*NOWHERE)
    assert {port % 2 for port in measure_connect(NOWHERE, netns=space.path).ports} == {1}
    elsewhere = measure_connect(("203.0.113.8", 443), netns=space.path)
    assert {port % 2 for port in elsewhere.ports} == {0}


def test_a_full_range_is_eaddrnotavail_for_this_destination_and_source_only(space: Space) -> None:
    small_range(space, 40000, 40003)
    space.ip("addr add 10.77.0.2/24 dev hole0")
    assert connects_until_it_fails(space, 9) == (4, errno.EADDRNOTAVAIL)
    full = measure_connect(NOWHERE, netns=space.path, tries=5)
    assert (full.errno, full.failed, full.tries, full.ports, full.source) == ("EADDRNOTAVAIL", 5, 5, (), "")
    assert measure_connect(("203.0.113.7", 80), netns=space.path).errno == ""
    other = measure_connect(NOWHERE, "10.77.0.2", netns=space.path)
    assert (other.errno, other.source) == ("", "10.77.0.2")


def test_a_range_of_the_socket_is_kept(space: Space) -> None:
    found = measure_connect(NOWHERE, port_range=(40001, 40001), tries=3, netns=space.path)
    assert found.ports == (40001, 40001, 40001)


def test_ipv6_is_measured(space: Space) -> None:
    small_range(space)
    found = measure_connect(("2001:db8:77::9", 443), "2001:db8:77::1", netns=space.path)
    assert (found.errno, found.source, found.failed) == ("", "2001:db8:77::1", 0)


def test_a_destination_without_a_route_gives_its_errno(space: Space) -> None:
    found = measure_connect(("198.51.100.1", 443), netns=space.path, tries=2)
    assert (found.errno, found.failed, found.ports) == ("ENETUNREACH", 2, ())


def test_a_source_that_is_not_ours_is_one_line(space: Space) -> None:
    with pytest.raises(CannotRead) as caught:
        measure_connect(NOWHERE, "10.99.0.1", netns=space.path)
    assert str(caught.value) == (
        "the cost of connect() from 10.99.0.1: Cannot assign requested address (an address of this machine)"
    )


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((("example.org", 443),), "'example.org', port 443: no address of IPv4 or IPv6"),
        ((NOWHERE, "::1"), "::1 and 203.0.113.7 are not of the same family"),
        ((NOWHERE, None, None, 0), "tries must be 1 to 1,000, not 0"),
        ((NOWHERE, None, None, 1001), "tries must be 1 to 1,000, not 1001"),
    ],
)
def test_what_means_nothing_is_refused(arguments: tuple[Any, ...], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        measure_connect(*arguments)
