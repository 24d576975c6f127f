"""ip_route_connect(): route, source and errno, each rule by itself (tests/kernel compares them all with the kernel)."""

from __future__ import annotations

from errno import EHOSTUNREACH, EINVAL

import pytest

from fourtuple.address import parse_ipv4
from fourtuple.ip.fib import Fib
from fourtuple.ip.route import dst_metric_advmss, ip_route_connect, ip_route_input
from fourtuple.ip.rtnetlink import RTN_BROADCAST, RTN_LOCAL, RTN_MULTICAST, RTN_UNICAST
from tests.ip.hosts import device, error, make_fib, route, run_all, source


def test_an_address_on_the_link_goes_out_by_its_device() -> None:
    fib = make_fib()
    found = route(fib, "10.9.0.2")
    assert (source(fib, "10.9.0.2"), device(fib, "10.9.0.2")) == ("10.9.0.1", "tun0")
    assert (found.rt.rt_type, found.rt.is_local, found.rt.gateway, found.rt.mtu) == (RTN_UNICAST, False, 0, 1500)


def test_without_a_route_it_is_enetunreach() -> None:
    assert error(make_fib(), "10.8.0.1") == "ENETUNREACH"


@pytest.mark.parametrize(
    ("kind", "name"),
    [("blackhole", "EINVAL"), ("unreachable", "EHOSTUNREACH"), ("prohibit", "EACCES"), ("throw", "ENETUNREACH")],
)
def test_an_error_route_answers_with_its_errno(kind: str, name: str) -> None:
    assert error(make_fib(f"route add {kind} 10.8.0.0/24"), "10.8.0.1") == name


def test_an_own_address_is_reached_over_loopback_from_itself() -> None:
    fib = make_fib()
    found = route(fib, "10.9.0.1")
    assert (source(fib, "10.9.0.1"), device(fib, "10.9.0.1")) == ("10.9.0.1", "lo")
    assert (found.rt.rt_type, found.rt.is_local, found.rt.dev_loopback, found.rt.mtu) == (RTN_LOCAL, True, True, 65535)


def test_a_secondary_address_is_reached_from_its_primary() -> None:
    assert source(make_fib("addr add 10.9.0.3/24 dev tun0"), "10.9.0.3") == "10.9.0.1"


def test_any_of_127_is_reached_from_127_0_0_1() -> None:
    assert source(make_fib(), "127.0.0.5") == "127.0.0.1"


def test_destination_zero_is_loopback_or_the_source() -> None:
    fib = make_fib()
    assert route(fib, "0.0.0.0").daddr == parse_ipv4("127.0.0.1")
    assert route(fib, "0.0.0.0", "10.9.0.1").daddr == parse_ipv4("10.9.0.1")


def test_a_loopback_source_does_not_leave_the_host() -> None:
    assert error(make_fib(), "10.9.0.2", "127.0.0.1") == "EINVAL"


def test_a_foreign_source_needs_anysrc() -> None:
    fib = make_fib()
    assert error(fib, "10.9.0.2", "10.9.0.79") == "ENETUNREACH"
    assert route(fib, "10.9.0.2", "10.9.0.79", anysrc=True).saddr == parse_ipv4("10.9.0.79")


@pytest.mark.parametrize(
    ("daddr", "kind"),
    [("224.0.0.1", RTN_MULTICAST), ("255.255.255.255", RTN_BROADCAST), ("10.9.0.255", RTN_BROADCAST)],
)
def test_groups_are_told_by_the_type_of_the_route(daddr: str, kind: int) -> None:
    fib = make_fib("route add 224.0.0.0/4 dev tun0")
    assert route(fib, daddr, "10.9.0.1").rt.rt_type == kind


def test_a_device_without_a_route_is_taken_to_be_on_link() -> None:
    fib = make_fib()
    assert (source(fib, "10.7.0.1", oif="tun1"), device(fib, "10.7.0.1", oif="tun1")) == ("10.5.0.1", "tun1")


def test_a_device_that_is_down_or_absent() -> None:
    fib = make_fib("link set tun1 down")
    assert error(fib, "10.9.0.2", oif=fib.device("tun1").ifindex) == "ENETUNREACH"
    assert error(fib, "10.9.0.2", oif=99) == "ENODEV"


def test_a_mark_chooses_another_table() -> None:
    fib = make_fib(
        "addr add 10.9.0.3/24 dev tun0; route add default dev tun1;"
        "route add default dev tun0 src 10.9.0.3 table 100; rule add fwmark 7 table 100"
    )
    assert (source(fib, "10.7.0.1"), source(fib, "10.7.0.1", mark=7)) == ("10.5.0.1", "10.9.0.3")


def test_a_rule_for_the_source_is_met_by_the_second_lookup() -> None:
    fib = make_fib("rule add from 10.9.0.1 table 100; route add 10.9.0.2/32 dev tun1 table 100")
    assert (source(fib, "10.9.0.2"), device(fib, "10.9.0.2")) == ("10.9.0.1", "tun1")


def test_device_down_takes_the_route_and_up_brings_it_back() -> None:
    fib = make_fib("link set tun0 down")
    assert error(fib, "10.9.0.2") == "ENETUNREACH"
    run_all(fib, "link set tun0 up")
    assert source(fib, "10.9.0.2") == "10.9.0.1"


def test_an_address_that_went_is_no_source_any_more() -> None:
    fib = make_fib("addr add 10.9.0.3/24 dev tun0")
    assert source(fib, "10.9.0.2", "10.9.0.3") == "10.9.0.3"
    run_all(fib, "addr del 10.9.0.3/24 dev tun0")
    assert error(fib, "10.9.0.2", "10.9.0.3") == "ENETUNREACH"


def test_a_gateway_is_the_next_hop() -> None:
    fib = make_fib("route add default via 10.9.0.7")
    assert route(fib, "8.8.8.8").rt.gateway == parse_ipv4("10.9.0.7")


def test_metrics_reach_the_rtable() -> None:
    fib = make_fib(
        "route add 10.8.0.0/24 dev tun0 mtu lock 1000 advmss 900 window 10000 initrwnd 2 initcwnd 3 "
        "hoplimit 7 rto_min 50ms features ecn quickack 1"
    )
    rt = route(fib, "10.8.0.1").rt
    assert (rt.mtu, rt.mtu_locked, rt.advmss, rt.window, rt.initrwnd, rt.initcwnd) == (1000, True, 900, 10000, 2, 3)
    assert (rt.hoplimit, rt.rto_min_us, rt.ecn, rt.quickack) == (7, 50_000, True, True)


@pytest.mark.parametrize(("metrics", "mss"), [("", 1460), ("mtu 1000", 960), ("advmss 900", 900), ("mtu 200", 256)])
def test_the_advertised_mss_is_the_metric_or_follows_the_mtu(metrics: str, mss: int) -> None:
    fib = make_fib(f"route add 10.8.0.0/24 dev tun0 {metrics}")
    assert dst_metric_advmss(route(fib, "10.8.0.1").rt, fib.sysctls.min_adv_mss) == mss


def test_the_advertised_mss_on_loopback() -> None:
    assert dst_metric_advmss(route(make_fib(), "127.0.0.1").rt, 256) == 65495


def test_equal_contents_are_one_rtable_at_its_index() -> None:
    fib = make_fib("route add 10.8.0.0/24 dev tun0; route add 10.7.0.0/24 dev tun0 mtu 1400")
    first, same, other = (route(fib, d).rt for d in ("10.9.0.2", "10.8.0.1", "10.7.0.1"))
    assert first is same
    assert first is not other
    assert [rt.index for rt in fib.rtables] == list(range(len(fib.rtables)))


def test_an_answer_is_kept_until_something_changes() -> None:
    fib = make_fib()
    first = route(fib, "10.9.0.2")
    assert route(fib, "10.9.0.2") is first
    before = fib.generation
    run_all(fib, "route add 10.9.0.2/32 dev tun1")
    assert fib.generation > before
    assert device(fib, "10.9.0.2") == "tun1"


def test_the_cache_is_bounded() -> None:
    fib = make_fib("route add default dev tun0")
    for daddr in range(parse_ipv4("30.0.0.0"), parse_ipv4("30.0.80.0")):
        ip_route_connect(fib, daddr, 0, 0)
    assert len(fib.route_caches[0]) <= 16384


def test_addresses_above_2_31_are_not_confused() -> None:
    fib = make_fib("route add default dev tun0; route add 200.0.0.0/8 dev tun1; addr add 250.0.0.1/32 dev tun0")
    assert [device(fib, d) for d in ("8.8.8.8", "200.0.0.1", "201.0.0.1")] == ["tun0", "tun1", "tun0"]
    assert source(fib, "200.0.0.1", "250.0.0.1") == "250.0.0.1"


# Learned path MTUs


def learn(fib: Fib, daddr: str, mtu: int, now_us: int = 0) -> int:
    return fib.update_pmtu(route(fib, daddr).rt, parse_ipv4(daddr), mtu, now_us).mtu


def test_a_learned_mtu_is_for_one_destination_and_ends_after_ten_minutes() -> None:
    fib = make_fib()
    assert learn(fib, "10.9.0.2", 1400) == 1400
    assert [route(fib, d).rt.mtu for d in ("10.9.0.2", "10.9.0.3")] == [1400, 1500]
    assert fib.next_pmtu_expiry() == 600_000_000
    fib.expire_pmtu(599_999_999)
    assert route(fib, "10.9.0.2").rt.mtu == 1400
    fib.expire_pmtu(600_000_000)
    assert (route(fib, "10.9.0.2").rt.mtu, fib.next_pmtu_expiry()) == (1500, None)


def test_a_larger_mtu_is_not_learned() -> None:
    fib = make_fib()
    assert [learn(fib, "10.9.0.2", m) for m in (1400, 1450, 1300)] == [1400, 1400, 1300]


def test_below_552_the_mtu_is_locked_at_552() -> None:
    fib = make_fib()
    assert learn(fib, "10.9.0.2", 300) == 552
    assert route(fib, "10.9.0.2").rt.mtu_locked


def test_a_locked_route_learns_nothing() -> None:
    assert learn(make_fib("route add 10.8.0.0/24 dev tun0 mtu lock 1300"), "10.8.0.1", 1000) == 1300


def test_the_same_mtu_again_renews_its_time_only_in_the_second_half() -> None:
    fib = make_fib()
    learn(fib, "10.9.0.2", 1400)
    learn(fib, "10.9.0.2", 1400, 299_000_000)
    assert fib.next_pmtu_expiry() == 600_000_000
    learn(fib, "10.9.0.2", 1400, 300_000_000)
    assert fib.next_pmtu_expiry() == 900_000_000


def test_a_device_whose_mtu_shrinks_takes_learned_ones_down() -> None:
    fib = make_fib()
    learn(fib, "10.9.0.2", 1400)
    run_all(fib, "link set tun0 mtu 1300")
    assert [route(fib, d).rt.mtu for d in ("10.9.0.2", "10.9.0.3")] == [1300, 1300]


# Received packets


def test_a_packet_for_an_own_address_is_local() -> None:
    fib = make_fib()
    me, peer = parse_ipv4("10.9.0.1"), parse_ipv4("10.9.0.2")
    assert fib.ip_route_input_is_local(me, peer, 2)
    assert fib.ip_route_input_is_local(parse_ipv4("10.5.0.1"), peer, 2)  # the weak host model
    assert not fib.ip_route_input_is_local(peer, me, 2)


@pytest.mark.parametrize(
    ("daddr", "saddr", "expected"),
    [
        ("10.9.0.1", "10.9.0.2", RTN_LOCAL),
        ("10.9.0.255", "10.9.0.2", RTN_BROADCAST),
        ("255.255.255.255", "0.0.0.0", RTN_BROADCAST),
        ("224.0.0.1", "10.9.0.2", RTN_MULTICAST),
        ("8.8.8.8", "10.9.0.2", -EHOSTUNREACH),
        ("10.9.0.77", "10.9.0.2", -EHOSTUNREACH),
        ("127.0.0.1", "10.9.0.2", -EINVAL),
        ("10.9.0.1", "127.0.0.1", -EINVAL),
        ("10.9.0.1", "10.9.0.1", -EINVAL),
        ("10.9.0.1", "224.0.0.1", -EINVAL),
        ("10.9.0.1", "255.255.255.255", -EINVAL),
        ("10.9.0.1", "0.0.0.0", -EINVAL),
    ],
)
def test_where_a_packet_from_outside_goes(daddr: str, saddr: str, expected: int) -> None:
    assert ip_route_input(make_fib(), parse_ipv4(daddr), parse_ipv4(saddr), 2) == expected


def test_a_packet_to_itself_needs_no_check_of_its_source() -> None:
    fib, me = make_fib(), parse_ipv4("10.9.0.1")
    assert fib.ip_route_input_is_local(me, me, 1)
    assert fib.ip_route_input_is_local(parse_ipv4("127.0.0.1"), parse_ipv4("127.0.0.1"), 1)


def test_destinations_of_one_route_share_what_it_keeps_and_groups_have_their_own() -> None:
    fib = make_fib("route add default dev tun0")
    kept = route(fib, "10.8.0.1").rt
    assert route(fib, "10.8.0.2").rt is kept
    assert route(fib, "224.1.2.3").rt.rt_type == RTN_MULTICAST  # by the same route
    assert route(fib, "255.255.255.255").rt.rt_type == RTN_BROADCAST
    assert route(fib, "10.8.0.3").rt is kept


def test_what_a_route_keeps_goes_with_the_mtu_of_its_device_and_with_one_that_was_learned() -> None:
    fib = make_fib("route add 10.8.0.0/16 via 10.9.0.2")
    assert route(fib, "10.8.0.1").rt.mtu == 1500
    fib.update_pmtu(route(fib, "10.8.0.1").rt, parse_ipv4("10.8.0.1"), 1400, 0)
    assert [route(fib, f"10.8.0.{i}").rt.mtu for i in (1, 2, 1)] == [1400, 1500, 1400]
    fib.set_device_mtu(fib.device("tun0"), 1300)
    assert [route(fib, f"10.8.0.{i}").rt.mtu for i in (1, 2, 3)] == [1300, 1300, 1300]
