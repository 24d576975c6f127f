"""Fib: tables against a plain model, addresses and the routes they bring, rules, refusals."""

from __future__ import annotations

from errno import EADDRNOTAVAIL, EAGAIN, EEXIST, EINVAL, ENETDOWN, ENETUNREACH, ENODEV, ENOENT, ESRCH

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fourtuple.address import format_prefix, parse_ipv4, prefix_mask
from fourtuple.ip.fib import Fib
from fourtuple.ip.fib_rules import FibRule
from fourtuple.ip.fib_table import FibRoute, FibTable, Flow
from fourtuple.ip.rtnetlink import (
    RT_TABLE_LOCAL,
    RT_TABLE_MAIN,
    RTN_BROADCAST,
    RTN_LOCAL,
    RTN_MULTICAST,
    RTN_UNICAST,
)
from tests.ip.hosts import make_fib, run_all

NAMES = {RTN_UNICAST: "unicast", RTN_LOCAL: "local", RTN_BROADCAST: "broadcast"}


def shown(fib: Fib, dev: str) -> list[str]:
    """The routes by a device, as 'type prefix'."""
    oif = fib.device(dev).ifindex
    routes = {id(r): r for table in fib.tables.values() for r in table if r.oif == oif}.values()
    return sorted(f"{NAMES[r.type]} {format_prefix(r.prefix, r.prefixlen)}" for r in routes)


prefixes = st.tuples(st.integers(0, 32), st.integers(0, 2**32 - 1), st.integers(0, 2)).map(
    lambda t: (t[1] & 0xFF0000FF & prefix_mask(t[0]), t[0], t[2])
)


@given(st.lists(prefixes, max_size=20), st.lists(st.integers(0, 30)), st.integers(0, 2**32 - 1))
def test_a_lookup_finds_the_longest_prefix_then_the_lowest_metric(
    made: list[tuple[int, int, int]], removed: list[int], daddr: int
) -> None:
    table, held = FibTable(), []
    for prefix, length, metric in made:
        route = FibRoute(prefix, length, priority=metric)
        table.insert(route)
        held.append(route)
    for at in removed:
        if at < len(held):
            table.remove(held.pop(at))
    daddr &= 0xFF0000FF
    fitting = [r for r in held if daddr & prefix_mask(r.prefixlen) == r.prefix]
    expected = min(fitting, key=lambda r: (-r.prefixlen, r.priority), default=-EAGAIN)
    assert table.lookup(Flow(daddr)) is expected or (expected == -EAGAIN and table.lookup(Flow(daddr)) == -EAGAIN)
    assert sorted(map(id, table)) == sorted(map(id, held))


def test_an_address_brings_local_broadcast_and_connected_routes() -> None:
    assert shown(make_fib(), "tun0") == ["broadcast 10.9.0.255/32", "local 10.9.0.1/32", "unicast 10.9.0.0/24"]
    assert shown(make_fib(), "lo") == ["broadcast 127.255.255.255/32", "local 127.0.0.0/8", "local 127.0.0.1/32"]


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("10.1.1.1/32", ["local 10.1.1.1/32"]),
        ("10.1.1.2/31", ["local 10.1.1.2/32", "unicast 10.1.1.2/31"]),
        ("10.1.1.1/32 peer 10.2.2.2/32", ["local 10.1.1.1/32", "unicast 10.2.2.2/32"]),
        (
            "10.1.1.1/24 brd 10.1.1.99",
            ["broadcast 10.1.1.255/32", "broadcast 10.1.1.99/32", "local 10.1.1.1/32", "unicast 10.1.1.0/24"],
        ),
    ],
)
def test_what_other_addresses_bring(address: str, expected: list[str]) -> None:
    fib = Fib()
    run_all(fib, f"link add d0; link set d0 up; addr add {address} dev d0")
    assert shown(fib, "d0") == expected


def test_down_leaves_the_local_addresses_only() -> None:
    assert shown(make_fib("link set tun0 down"), "tun0") == ["local 10.9.0.1/32"]


def test_an_address_on_a_device_that_is_down_is_local() -> None:
    fib = Fib()
    run_all(fib, "link add d0; addr add 10.1.1.1/24 dev d0")
    assert (shown(fib, "d0"), fib.inet_addr_type(parse_ipv4("10.1.1.1"))) == (["local 10.1.1.1/32"], RTN_LOCAL)


def test_a_second_address_in_a_prefix_is_secondary_and_goes_with_its_primary() -> None:
    fib = make_fib("addr add 10.9.0.3/24 dev tun0; addr add 10.9.0.4/25 dev tun0")
    tun0 = fib.device("tun0")
    assert [(a.local & 255, a.secondary) for a in tun0.addresses] == [(1, False), (4, False), (3, True)]
    assert fib.del_address(tun0, parse_ipv4("10.9.0.1"), 24) == 0
    assert [a.local & 255 for a in tun0.addresses] == [4]


def test_the_last_address_takes_every_route_of_the_device_along() -> None:
    fib = make_fib("route add 10.8.0.0/16 dev tun0; addr del 10.9.0.1/24 dev tun0")
    assert shown(fib, "tun0") == []


def test_a_route_whose_source_went_goes_too() -> None:
    fib = make_fib("addr add 10.9.1.1/24 dev tun0; route add 10.8.0.0/16 dev tun1 src 10.9.1.1")
    assert fib.del_address(fib.device("tun0"), parse_ipv4("10.9.1.1"), 24) == 0
    assert fib.fib_lookup(Flow(parse_ipv4("10.8.0.1"))) == -ENETUNREACH


@pytest.mark.parametrize(
    ("address", "length", "expected"), [("10.9.0.1", 24, -EEXIST), ("10.9.0.1", 25, 0), ("10.9.0.2", 24, 0)]
)
def test_adding_an_address_twice(address: str, length: int, expected: int) -> None:
    fib = make_fib()
    assert fib.add_address(fib.device("tun0"), parse_ipv4(address), length) == expected


def test_deleting_an_address_that_is_not_there() -> None:
    fib = make_fib()
    tun0 = fib.device("tun0")
    assert fib.del_address(tun0, parse_ipv4("10.9.0.7")) == -EADDRNOTAVAIL
    assert fib.del_address(tun0, parse_ipv4("10.9.0.1"), 25) == -EADDRNOTAVAIL


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("0.0.0.0", RTN_BROADCAST),
        ("255.255.255.255", RTN_BROADCAST),
        ("10.9.0.255", RTN_BROADCAST),
        ("224.0.0.1", RTN_MULTICAST),
        ("127.9.9.9", RTN_LOCAL),
        ("10.9.0.1", RTN_LOCAL),
        ("10.9.0.2", RTN_UNICAST),
        ("8.8.8.8", RTN_UNICAST),
    ],
)
def test_the_type_of_an_address(address: str, kind: int) -> None:
    assert make_fib().inet_addr_type(parse_ipv4(address)) == kind


def test_the_kernels_refusals_of_a_route() -> None:
    fib = make_fib()
    tun0, prefix = fib.device("tun0"), parse_ipv4("10.8.0.0")
    down = fib.add_device("down0")
    assert fib.add_route(prefix | 1, 24, dev=tun0) == -EINVAL  # host bits
    assert fib.add_route(prefix, 24) == -ENODEV
    assert fib.add_route(prefix, 24, dev=down) == -ENETDOWN
    assert fib.add_route(prefix, 24, gateway=parse_ipv4("10.7.0.1")) == -ENETUNREACH
    assert fib.add_route(prefix, 24, dev=tun0, prefsrc=parse_ipv4("10.77.0.1")) == -EINVAL
    assert fib.add_route(prefix, 24, dev=tun0, tos=3) == -EINVAL
    assert fib.add_route(prefix, 24, dev=tun0) == 0
    assert fib.add_route(prefix, 24, dev=tun0) == -EEXIST
    assert fib.add_route(prefix, 24, dev=tun0, mode="append") == -EEXIST
    assert fib.add_route(prefix, 24, dev=tun0, priority=1) == 0
    assert fib.del_route(prefix, 24, priority=9) == -ESRCH


def test_replace_takes_the_place_of_the_first_equal() -> None:
    fib = make_fib("route add 10.8.0.0/24 dev tun0; route replace 10.8.0.0/24 dev tun1")
    found = fib.fib_lookup(Flow(parse_ipv4("10.8.0.1")))
    assert isinstance(found, FibRoute)
    assert found.oif == fib.device("tun1").ifindex
    assert fib.del_route(parse_ipv4("10.8.0.0"), 24) == 0
    assert fib.del_route(parse_ipv4("10.8.0.0"), 24) == -ESRCH


def test_local_and_main_are_one_table_until_the_first_rule() -> None:
    fib = make_fib()
    assert fib.tables[RT_TABLE_LOCAL] is fib.tables[RT_TABLE_MAIN]
    assert fib.add_rule(FibRule(100, 77, mark=1, mark_mask=1)) == 0
    assert fib.del_rule(priority=100) == 0
    assert fib.tables[RT_TABLE_LOCAL] is not fib.tables[RT_TABLE_MAIN]


def test_rules_without_a_priority_come_before_the_main_table() -> None:
    fib = make_fib("rule add from 10.9.0.1 table 100; rule add from 10.9.0.2 table 100")
    assert [r.priority for r in fib.rules] == [0, 32764, 32765, 32766, 32767]


def test_a_rule_can_be_deleted_by_what_it_says_once() -> None:
    fib = make_fib("rule add from 10.9.0.1 table 100")
    assert fib.del_rule(table=100) == 0
    assert fib.del_rule(table=100) == -ENOENT


def test_devices_have_distinct_names_and_rising_indexes() -> None:
    fib = make_fib()
    assert [d.ifindex for d in fib.devices.values()] == [1, 2, 3]
    with pytest.raises(ValueError, match="exists"):
        fib.add_device("tun0")
    with pytest.raises(KeyError, match="there are: lo, tun0, tun1"):
        fib.device("eth9")


def test_an_mtu_outside_ipv4_is_refused() -> None:
    fib = make_fib()
    assert [fib.set_device_mtu(fib.device("tun0"), m) for m in (67, 68, 65535, 65536)] == [-EINVAL, 0, 0, -EINVAL]


def test_each_change_moves_the_generation() -> None:
    fib = make_fib()
    seen = [fib.generation]
    for command in (
        "addr add 10.1.1.1/24 dev tun0",
        "route add 10.8.0.0/24 dev tun0",
        "route del 10.8.0.0/24",
        "rule add fwmark 1 table 5",
        "rule del fwmark 1",
        "link set tun0 mtu 1400",
        "link set tun0 down",
        "addr del 10.1.1.1/24 dev tun0",
    ):
        run_all(fib, command)
        seen.append(fib.generation)
    assert seen == sorted(set(seen))
