"""run_ip(): every command that scenarios use is understood, and what is not understood is named."""

from __future__ import annotations

from errno import EADDRNOTAVAIL, EEXIST, ENETUNREACH

import pytest

from fourtuple.address import parse_ipv4
from fourtuple.ip.fib import Fib
from fourtuple.ip.fib_table import FibRoute, Flow, Metrics
from fourtuple.ip.rtnetlink import RT_SCOPE_HOST, RT_SCOPE_LINK, RT_SCOPE_UNIVERSE, RTN_LOCAL, RTN_UNREACHABLE
from fourtuple.sim.iproute import run_ip
from tests.ip.hosts import make_fib


def only(fib: Fib, prefix: str) -> FibRoute:
    """The one route to a prefix that a test just made."""
    routes = {id(r): r for t in fib.tables.values() for r in t if r.prefix == parse_ipv4(prefix)}
    (found,) = routes.values()
    return found


@pytest.mark.parametrize(
    "command",
    [
        "addr add 10.9.0.3/24 dev tun0",
        "-4 addr add 10.9.0.3/24 dev tun0",
        "ip addr add 10.9.0.3/24 brd + dev tun0",
        "address add 10.9.1.3/24 dev tun0 scope link",
        "addr del 10.9.0.1/24 dev tun0",
        "addr del 10.9.0.1 dev tun0",
        "link set lo up",
        "link set tun0 down",
        "link set dev tun0 mtu 1400 up",
        "link add tun2 mtu 9000 type dummy",
        "route add 224.0.0.0/4 dev tun0",
        "route add 10.8.0.0/24 dev tun0 src 10.9.0.1",
        "route add 10.9.0.2/32 dev tun0 src 10.9.0.1",
        "route add local 10.6.0.0/16 dev lo",
        "route add unreachable 10.8.0.0/24",
        "route add prohibit 10.8.0.0/24",
        "route add blackhole 10.8.0.0/24",
        "route add throw 10.8.0.0/24",
        "route add 10.8.0.0/24 dev tun0 advmss 900",
        "route add 10.8.0.0/24 dev tun0 window 10000",
        "route add 10.8.0.0/24 dev tun0 features ecn",
        "route add default via 10.9.0.2 dev tun0 metric 100 table 100",
        "route add default via 10.99.0.2 dev tun0 onlink",
        "route replace default dev tun0",
        "route append 10.8.0.0/24 dev tun0",
        "route flush cache",
        "route flush table main",
        "rule add fwmark 1 table 100",
        "rule add from 10.9.0.0/24 to 10.8.0.1 fwmark 0x10/0xf0 tos 0x10 oif tun0 priority 50 lookup main",
        "rule add priority 7 prohibit",
        "rule del priority 32766",
    ],
)
def test_understood(command: str) -> None:
    run_ip(make_fib(), command)


def test_metrics_and_the_units_of_rto_min() -> None:
    fib = make_fib()
    run_ip(
        fib, "route add 10.8.0.0/24 dev tun0 mtu lock 1000 initrwnd 2 initcwnd 3 quickack 1 rto_min 5ms hoplimit 300"
    )
    assert only(fib, "10.8.0.0").metrics == Metrics(
        mtu=1000, mtu_locked=True, initrwnd=2, initcwnd=3, quickack=True, rto_min_us=5000, hoplimit=255
    )
    for i, (text, us) in enumerate([("7", 7000), ("1s", 1_000_000), ("2000us", 2000)]):
        run_ip(fib, f"route add 10.8.{i + 1}.0/24 dev tun0 rto_min {text}")
        assert only(fib, f"10.8.{i + 1}.0").metrics.rto_min_us == us


def test_scope_and_table_follow_the_type() -> None:
    fib = make_fib()
    run_ip(fib, "route add 10.1.0.0/16 dev tun0")
    run_ip(fib, "route add 10.2.0.0/16 via 10.9.0.2")
    run_ip(fib, "route add local 10.3.0.0/16 dev lo")
    run_ip(fib, "route add unreachable 10.4.0.0/16")
    seen = [(r.type, r.table, r.scope) for r in (only(fib, f"10.{i}.0.0") for i in range(1, 5))]
    assert seen == [
        (1, 254, RT_SCOPE_LINK),
        (1, 254, RT_SCOPE_UNIVERSE),
        (RTN_LOCAL, 255, RT_SCOPE_HOST),
        (RTN_UNREACHABLE, 254, RT_SCOPE_UNIVERSE),
    ]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("", "the object .* is missing"),
        ("neigh show", "object 'neigh' is not known; there are: addr, link, route, rule"),
        ("addr show", "addr 'show' is not known"),
        ("addr add 10.9.0.3/24", "'dev DEVICE' is missing"),
        ("addr add 10.9.0/24 dev tun0", "the address: not an IPv4 address"),
        ("addr add 10.9.0.3/24 dev eth9", "no device 'eth9'; there are: lo, tun0, tun1"),
        ("addr add 10.9.0.3/24 dev tun0 label x", "'label' is not understood"),
        ("link set tun0 txqueuelen 5", "'txqueuelen' is not understood"),
        ("link set tun0 mtu many", "mtu: not a number: 'many'"),
        ("link add tun0", "device 'tun0' exists"),
        ("link del tun0", "link 'del' is not known"),
        ("route show", "route 'show' is not known"),
        ("route add 10.8.0.0/24 dev tun0 nexthop via 10.9.0.2", "'nexthop' is not understood"),
        ("route add 10.8.0.0/24 via", "via is missing at the end"),
        ("route add 10.8.0.0/24 dev tun0 features tso", "feature 'tso' is not known"),
        ("route add 10.8.0.0/24 dev tun0 rto_min soon", "rto_min: not a time"),
        ("route add nat 10.8.0.0/24", "the prefix: not an IPv4 address: 'nat'"),
        ("rule add uidrange 0-0 table 5", "'uidrange' is not understood"),
        ("rule add fwmark x table 5", "fwmark: not a mark"),
    ],
)
def test_what_is_not_understood_is_named(command: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run_ip(make_fib(), command)


@pytest.mark.parametrize(
    ("command", "error"),
    [
        ("addr add 10.9.0.1/24 dev tun0", EEXIST),
        ("addr del 10.9.0.9/24 dev tun0", EADDRNOTAVAIL),
        ("route add 10.9.0.0/24 dev tun0 proto kernel scope link src 10.9.0.1", EEXIST),
        ("route add 10.8.0.0/24 via 10.7.0.1", ENETUNREACH),
    ],
)
def test_what_the_kernel_refuses_is_its_oserror(command: str, error: int) -> None:
    with pytest.raises(OSError, match=f"ip {command}") as caught:
        run_ip(make_fib(), command)
    assert caught.value.errno == error


def test_a_refused_command_changes_nothing() -> None:
    fib = make_fib()
    before = fib.generation
    with pytest.raises(OSError, match="File exists"):
        run_ip(fib, "addr add 10.9.0.1/24 dev tun0")
    assert fib.generation == before
    assert fib.fib_lookup(Flow(parse_ipv4("10.8.0.1"))) == -ENETUNREACH
