"""`why` against the live kernel: a failure is made, the path is named, what is named is put right, and it works."""

from __future__ import annotations

import errno
import os
import re
import socket
from collections.abc import Iterator

import pytest

from fourtuple.doctor.why import (
    NO,
    OPEN,
    PATHS,
    YES,
    Explanation,
    UnknownErrno,
    explain,
    find_errno,
    number_of,
    paths_of,
)
from fourtuple.doctor.why_checks import CHECKS
from fourtuple.doctor.why_reading import ask_machine, ask_snapshot
from fourtuple.errors import REASONS
from fourtuple.sysctl import Sysctls
from tests.kernel.oracle import SHARED
from tests.live.space import IP_BIND_ADDRESS_NO_PORT, Space, needs_root

AWAY = "203.0.113.1"


@pytest.fixture
def space() -> Iterator[Space]:
    with Space() as made:
        yield made


def ask(space: Space, name: str, *where: tuple[str, int], call: str = "connect", **known: object) -> Explanation:
    return explain(name, ask_machine(space.path, where, **known), call)  # type: ignore[arg-type]


def functions(found: Explanation, mark: str = YES) -> list[str]:
    return [verdict.path.function for verdict in found.verdicts if verdict.mark == mark]


def errno_of(space: Space, address: str, port: int) -> str:
    """What connect() says that does not block."""
    client = space.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    client.setblocking(False)
    return errno.errorcode.get(client.connect_ex((address, port)), "")


# ------------------------------------------------------------------------------------------ the words


@pytest.mark.parametrize(
    "word",
    ["99", "EADDRNOTAVAIL", "eaddrnotavail", "[Errno 99]", "errno 99", "-99", "Cannot assign requested address",
     "OSError: [Errno 99] Cannot assign requested address", "cannot ASSIGN requested address",
     "connect: EADDRNOTAVAIL (Cannot assign requested address)"],
)  # fmt: skip
def test_every_way_to_say_an_errno(word: str) -> None:
    assert find_errno(word) == "EADDRNOTAVAIL"


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("EADDRNTAVAIL", "Did you mean EADDRNOTAVAIL?"),
        ("adress already in use", "Did you mean EADDRINUSE?"),
        ("2", "ENOENT (No such file or directory): connect(), bind(), listen() and socket() never give it"),
        ("9999", "is no errno"),
        ("", "is no errno"),
        ("x" * 1000, "is no errno"),
    ],
)
def test_what_is_no_errno_of_these_calls(word: str, text: str) -> None:
    with pytest.raises(UnknownErrno, match=re.escape(text)) as caught:
        find_errno(word)
    assert len(str(caught.value)) < 120


# ------------------------------------------------------------------------------------------ the paths


def test_all_errnos_that_the_catalogue_has_of_connect_are_here() -> None:
    rows = (SHARED / "CATALOGUE.md").read_text().splitlines()
    told = {name for row in rows if row.startswith("| ERR-") for name in re.findall(r'"(E[A-Z]+)"', row)}
    assert told <= {path.errno for path in PATHS if path.call == "connect"} | {"EFAULT"}


def test_facts_are_rows_of_the_catalogue_that_name_the_errno_or_its_rule() -> None:
    rows = {row.split()[1]: row for row in (SHARED / "CATALOGUE.md").read_text().splitlines() if row.startswith("| ")}
    for path in PATHS:
        for fact in path.facts:
            assert "verified" in rows[fact] and "unverified" not in rows[fact], fact


def test_what_the_stack_says_of_an_errno_is_among_the_paths() -> None:
    for call, code in REASONS:
        if call in ("connect", "bind"):
            assert paths_of(errno.errorcode[code], call), (call, code)


def test_paths_are_whole() -> None:
    for path in PATHS:
        assert number_of(path.errno)
        assert path.check in CHECKS or not path.check
        assert path.call in ("connect", "bind", "listen", "socket")
    assert {path.check for path in PATHS} - {""} == set(CHECKS)
    assert len({(path.call, path.errno, path.function, path.when) for path in PATHS}) == len(PATHS)


# ------------------------------------------------------------------------------------------ which one it is

pytestmark = needs_root


def fill(space: Space, low: int = 40000, high: int = 40003) -> None:
    space.sysctl("net.ipv4.ip_local_port_range", f"{low} {high}")
    for _ in range(high - low + 1):
        space.try_connect(AWAY, 80)


def test_a_full_range_is_the_port_search(space: Space) -> None:
    fill(space)
    assert errno_of(space, AWAY, 80) == "EADDRNOTAVAIL"
    found = ask(space, "EADDRNOTAVAIL", (AWAY, 80), is_bound=False)
    assert functions(found) == ["__inet_hash_connect"]
    assert found.it[0].text == "4 of 4 ports cannot be had to 203.0.113.1:80 from 10.77.0.1: 4 SYN_SENT"
    assert functions(found, NO) == ["__inet_check_established", "ip6_dst_lookup"]


def test_another_port_of_the_same_host_is_not_full(space: Space) -> None:
    fill(space)
    assert errno_of(space, AWAY, 81) == "EINPROGRESS"
    found = ask(space, "EADDRNOTAVAIL", (AWAY, 82))
    assert not found.it
    assert "ports are free to 203.0.113.1:82" in found.verdicts[0].text


def test_reserved_ports_are_named(space: Space) -> None:
    space.sysctl("net.ipv4.ip_local_port_range", "40000 40003")
    space.sysctl("net.ipv4.ip_local_reserved_ports", "40000-40003")
    assert errno_of(space, AWAY, 80) == "EADDRNOTAVAIL"
    found = ask(space, "EADDRNOTAVAIL", (AWAY, 80))
    assert found.it[0].text.endswith(": 4 reserved")


def test_a_range_that_is_all_reserved_is_why_though_nobody_is_connected(space: Space) -> None:
    space.sysctl("net.ipv4.ip_local_port_range", "40000 40003")
    space.sysctl("net.ipv4.ip_local_reserved_ports", "40000-40003")
    found = ask(space, "EADDRNOTAVAIL")
    assert found.it[0].text == "4 of 4 ports cannot be had to any destination: 4 reserved"


def test_a_process_is_asked_about_where_it_connects_to(space: Space) -> None:
    fill(space)
    found = ask(space, "EADDRNOTAVAIL", pid=os.getpid())
    assert "203.0.113.1:80" in found.it[0].text
    assert found.verdicts[2].text == f"pid {os.getpid()} has no bound, unconnected socket now"


def test_a_bound_socket_whose_pair_exists(space: Space) -> None:
    first = space.socket()
    second = space.socket()
    for each in (first, second):
        each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        each.bind(("10.77.0.1", 45000))
        each.setblocking(False)
    assert first.connect_ex((AWAY, 80)) == errno.EINPROGRESS
    assert second.connect_ex((AWAY, 80)) == errno.EADDRNOTAVAIL
    by_source = ask(space, "EADDRNOTAVAIL", (AWAY, 80), is_bound=True, source=("10.77.0.1", 45000))
    by_pid = ask(space, "EADDRNOTAVAIL", (AWAY, 80), pid=os.getpid())
    for found in (by_source, by_pid):
        assert functions(found) == ["__inet_check_established"]
        assert "10.77.0.1:45000 SYN_SENT" in found.it[0].text
    assert found.verdicts[0].mark == NO


@pytest.mark.parametrize("address", ["::1", "2001:db8:5::1"])
def test_ipv6_switched_off(space: Space, address: str) -> None:
    space.sysctl("net.ipv6.conf.all.disable_ipv6", 1)
    assert errno_of(space, address, 80) == "EADDRNOTAVAIL"
    found = ask(space, "EADDRNOTAVAIL", (address, 80))
    assert functions(found) == ["ip6_dst_lookup"]
    assert found.verdicts[0].text == "it fails before a port is looked at"
    if address == "::1":
        assert found.it[0].text == "net.ipv6.conf.lo.disable_ipv6 is 1"
        space.sysctl("net.ipv6.conf.lo.disable_ipv6", 0)
        space.ip("-6 addr replace ::1/128 dev lo nodad")
        assert errno_of(space, address, 80) != "EADDRNOTAVAIL"


def test_without_a_destination_a_missing_loopback_address_is_told(space: Space) -> None:
    space.sysctl("net.ipv6.conf.all.disable_ipv6", 1)
    assert functions(ask(space, "EADDRNOTAVAIL")) == ["ip6_dst_lookup"]


@pytest.mark.parametrize(
    ("kind", "name"),
    [("unreachable", "EHOSTUNREACH"), ("prohibit", "EACCES"), ("blackhole", "EINVAL"), ("throw", "ENETUNREACH")],
)
@pytest.mark.parametrize("net", ["198.51.100", "2001:db8:5:"])
def test_routes_that_refuse(space: Space, kind: str, name: str, net: str) -> None:
    six = ":" in net
    address = f"{net}:1" if six else f"{net}.1"
    space.ip(f"{'-6 ' * six}route add {kind} {net}{':/64' if six else '.0/24'}")
    assert errno_of(space, address, 80) == name
    found = ask(space, name, (address, 80))
    assert functions(found) == ["ip_route_connect, ip6_dst_lookup_flow"]


def test_a_route_that_is_there_is_not_the_reason(space: Space) -> None:
    found = ask(space, "ENETUNREACH", (AWAY, 80))
    assert not found.it
    assert found.verdicts[0].text == "there is a route: dev hole0, source 10.77.0.1"


@pytest.mark.parametrize("address", ["224.0.0.1", "10.77.0.255", "255.255.255.255", "ff02::1"])
def test_addresses_of_many(space: Space, address: str) -> None:
    assert errno_of(space, address, 80) == "ENETUNREACH"
    assert "tcp_v4_connect, tcp_v6_connect" in functions(ask(space, "ENETUNREACH", (address, 80)))


def test_link_local_without_a_device(space: Space) -> None:
    assert errno_of(space, "fe80::1", 80) == "EINVAL"
    assert functions(ask(space, "EINVAL", ("fe80::1", 80))) == ["tcp_v6_connect"]


def test_a_loopback_source_to_elsewhere(space: Space) -> None:
    client = space.socket()
    client.bind(("127.0.0.1", 0))
    assert client.connect_ex((AWAY, 80)) == errno.EINVAL
    found = ask(space, "EINVAL", (AWAY, 80), is_bound=True, source=client.getsockname())
    assert "__mkroute_output" in functions(found)


def test_nobody_listens(space: Space) -> None:
    assert errno_of(space, "10.77.0.1", 8080) == "EINPROGRESS"
    found = ask(space, "ECONNREFUSED", ("10.77.0.1", 8080))
    assert functions(found) == ["tcp_reset"]
    listener = space.listen("127.0.0.1", 8080)
    found = ask(space, "ECONNREFUSED", ("10.77.0.1", 8080))
    assert found.it[0].text == "nobody here listens on 10.77.0.1:8080; only on 127.0.0.1:8080 LISTEN"
    listener.close()
    space.listen("0.0.0.0", 8080)
    assert functions(ask(space, "ECONNREFUSED", ("10.77.0.1", 8080)), NO) == ["tcp_reset"]


@pytest.mark.parametrize(("only6", "mark"), [(0, NO), (1, YES)])
def test_a_listener_on_any_ipv6_address_takes_ipv4_too(space: Space, only6: int, mark: str) -> None:
    listener = space.socket(socket.AF_INET6)
    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only6)
    listener.bind(("::", 8080))
    listener.listen()
    client = space.socket()
    assert client.connect_ex(("127.0.0.1", 8080)) == (errno.ECONNREFUSED if only6 else 0)
    assert ask(space, "ECONNREFUSED", ("127.0.0.1", 8080)).verdicts[0].mark == mark


def test_another_machine_has_to_be_asked_there(space: Space) -> None:
    assert functions(ask(space, "ECONNREFUSED", (AWAY, 80)), OPEN) == ["tcp_reset", "tcp_v4_err, tcp_v6_err"]


def test_a_full_accept_queue(space: Space) -> None:
    listener = space.listen("127.0.0.1", 8080, backlog=1)
    clients = [space.try_connect("127.0.0.1", 8080) for _ in range(4)]
    assert any(client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) == b"\x02" for client in clients)
    assert "tcp_conn_request" in functions(ask(space, "ETIMEDOUT", ("127.0.0.1", 8080)))
    for _ in range(2):
        space.keep(listener.accept()[0])
    assert "tcp_conn_request" not in functions(ask(space, "ETIMEDOUT", ("127.0.0.1", 8080)))


def test_a_port_that_somebody_has(space: Space) -> None:
    space.listen("10.77.0.1", 8080)
    rival = space.socket()
    for address in ("10.77.0.1", "0.0.0.0"):
        with pytest.raises(OSError, match="Address already in use"):
            rival.bind((address, 8080))
        found = ask(space, "EADDRINUSE", (address, 8080), call="bind")
        assert functions(found) == ["inet_csk_get_port"]
        assert found.it[0].text == "10.77.0.1:8080 LISTEN"
    rival.bind(("127.0.0.1", 8080))
    found = ask(space, "EADDRINUSE", ("127.0.0.2", 8080), call="bind")
    assert found.verdicts[0].mark == NO


def test_bind_finds_no_port(space: Space) -> None:
    fill(space)
    rival = space.socket()
    with pytest.raises(OSError, match="Address already in use"):
        rival.bind(("10.77.0.1", 0))
    found = ask(space, "EADDRINUSE", ("10.77.0.1", 0), call="bind")
    assert functions(found) == ["inet_csk_find_open_port"]
    rival.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)  # the fix that is named
    assert IP_FIX in found.it[0].path.fix[0]
    rival.bind(("10.77.0.1", 0))
    rival.setblocking(False)
    assert rival.connect_ex((AWAY, 81)) == errno.EINPROGRESS


IP_FIX = "IP_BIND_ADDRESS_NO_PORT"


def test_an_address_of_others(space: Space) -> None:
    with pytest.raises(OSError, match="Cannot assign requested address"):
        space.socket().bind(("10.1.1.1", 0))
    found = ask(space, "EADDRNOTAVAIL", ("10.1.1.1", 0), call="bind")
    assert functions(found) == ["__inet_bind, __inet6_bind"]
    for own in ("10.77.0.1", "127.0.0.9", "0.0.0.0", ""):
        assert not ask(space, "EADDRNOTAVAIL", (own, 0), call="bind").it


def test_a_port_below_1024(space: Space) -> None:
    assert Sysctls().unprivileged_port_start == 1024
    assert functions(ask(space, "EACCES", ("", 80), call="bind")) == ["__inet_bind"]
    space.sysctl("net.ipv4.ip_unprivileged_port_start", 80)
    assert not ask(space, "EACCES", ("", 80), call="bind").it


def test_where_a_process_connects_to_is_not_what_it_binds_to(space: Space) -> None:
    fill(space)
    found = explain("EADDRNOTAVAIL", ask_machine(space.path, pid=os.getpid()), "bind")
    assert functions(found) == []


def test_an_unanswered_syn_is_seen_once_it_was_sent_again(space: Space) -> None:
    client = space.socket()
    client.settimeout(1.3)
    with pytest.raises(TimeoutError):
        client.connect((AWAY, 80))
    found = ask(space, "ETIMEDOUT", (AWAY, 80))
    assert functions(found) == ["tcp_write_timeout"]
    assert found.it[0].text == "1 socket in SYN_SENT, as to 203.0.113.1:80: 2 SYNs without an answer so far"


def test_nobody_on_the_link_answers(space: Space) -> None:
    space.ip("link set hole0 arp on")
    space.try_connect("10.77.0.77", 80)
    found = ask(space, "EHOSTUNREACH", ("10.77.0.77", 80))
    assert functions(found) == ["arp_error_report, ndisc_error_report"]
    assert found.it[0].text == "nobody answers for 10.77.0.77"
    assert not ask(space, "EHOSTUNREACH", ("10.77.0.78", 80)).it


def test_a_snapshot_is_asked_alike(space: Space) -> None:
    from fourtuple.doctor.reading import Reading
    from fourtuple.live import take_snapshot

    fill(space)
    taken = take_snapshot(space.path)
    found = explain("EADDRNOTAVAIL", ask_snapshot(Reading.of_snapshot(taken), ((AWAY, 80),)), "connect")
    assert functions(found) == ["__inet_hash_connect"]
    by_pid = explain("EADDRNOTAVAIL", ask_snapshot(Reading.of_snapshot(taken), (), os.getpid()))
    assert functions(by_pid) == ["__inet_hash_connect"]
    unknown = ask_snapshot(Reading.of_snapshot(taken), (("192.0.2.1", 80),))
    assert explain("ENETUNREACH", unknown).verdicts[0].text == "its route is not in the snapshot"
