"""What is said of a namespace is what its kernel says: /proc/sys, `ip`, and connect() itself are the judges."""

from __future__ import annotations

import errno
import json
import os
import resource
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fourtuple.kernel_profile import PROFILES
from fourtuple.live import CannotRead
from fourtuple.live.netns import find_netns, run_in
from fourtuple.live.system import nearest_profile, read_limits, read_system, route_towards, routes_towards
from fourtuple.sysctl_table import SYSCTLS
from tests.live.space import Space, needs_root
from tests.sandbox import PYTHON, Sandbox, run

pytestmark = needs_root


@pytest.fixture
def space() -> Iterator[Space]:
    with Space() as made:
        yield made


# ------------------------------------------------------------------------------------------ sysctls


def _proc_sys(name: str) -> str | None:
    path = Path("/proc/sys", *name.split("."))
    return path.read_text().rstrip("\n") if path.exists() else None


def test_every_sysctl_is_that_of_the_namespace(space: Space) -> None:
    changed = {
        "net.ipv4.ip_local_port_range": "20001\t20999",
        "net.ipv4.ip_local_reserved_ports": "20005,20010-20020",
        "net.ipv4.tcp_tw_reuse": "1",
        "net.ipv4.tcp_congestion_control": "reno",
        "net.ipv4.tcp_rmem": "4096\t70000\t80000",
        "net.ipv6.conf.all.disable_ipv6": "1",
    }
    for name, value in changed.items():
        space.sysctl(name, value)
    system = read_system(space.path)
    real = space.run(lambda: {row.name: _proc_sys(row.name) for row in SYSCTLS})
    assert {name: real[name] for name in changed} == changed
    assert system.absent == tuple(name for name, value in real.items() if value is None)
    shown = {name: system.sysctls.get(name) for name, value in real.items() if value is not None}
    assert shown == {name: value for name, value in real.items() if value is not None}
    assert (system.sysctls.port_low, system.sysctls.port_high) == (20001, 20999)
    assert system.sysctls.reserved_ranges == ((20005, 20005), (20010, 20020))
    assert system.unread == ()


def test_reserved_ports_longer_than_a_page_are_read_whole(space: Space) -> None:
    ports = range(1001, 9001, 2)
    space.sysctl("net.ipv4.ip_local_reserved_ports", ",".join(map(str, ports[:700])))
    for start in range(0, len(ports), 700):  # one write takes a page; each sets the whole list
        listed = read_system(space.path).sysctls.get("net.ipv4.ip_local_reserved_ports")
        more = ",".join(map(str, ports[start : start + 700]))
        space.command("sysctl", "-qw", f"net.ipv4.ip_local_reserved_ports={','.join(filter(None, [listed, more]))}")
    real = space.run(lambda: _proc_sys("net.ipv4.ip_local_reserved_ports"))
    assert read_system(space.path).sysctls.get("net.ipv4.ip_local_reserved_ports") == real


def test_what_cannot_be_read_or_understood_is_named_and_everything_else_is_there(tmp_path: Path) -> None:
    (tmp_path / "closed").write_text("1\n")
    (tmp_path / "strange").write_text("as you like it\n")
    tmp_path.chmod(0o755)
    (tmp_path / "closed").chmod(0o600)
    program = (
        "from fourtuple.live.system import read_system; s = read_system();"
        "print(*s.unread, s.sysctls.tcp_fin_timeout, s.sysctls.tcp_sack, s.sysctls.port_low, sep='\\n')"
    )
    script = (
        f"mount --bind {tmp_path}/closed /proc/sys/net/ipv4/tcp_sack;"
        f"mount --bind {tmp_path}/strange /proc/sys/net/ipv4/tcp_fin_timeout;"
        f'exec setpriv --reuid 65534 --regid 65534 --clear-groups {PYTHON} -c "$0"'
    )
    done = run(Sandbox(uid=0), "/bin/sh", "-c", script, program)
    assert (done.returncode, done.stderr) == (0, "")
    low = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0]
    assert done.stdout.splitlines() == [
        "sysctl net.ipv4.tcp_sack: Permission denied; taken to be '1'",
        "sysctl net.ipv4.tcp_fin_timeout: 'as you like it' is not understood; taken to be '60'",
        "60",
        "1",
        low,
    ]


@pytest.mark.parametrize(
    ("release", "name"),
    [
        ("6.18.44-fc-v669", "6.18"),
        ("7.3.0", "7.1"),
        ("99.0-rc1", "7.1"),
        ("6.12.9", "6.5"),
        ("6.18-rc1", "6.18"),
        ("", "7.1"),
        ("x.y", "7.1"),
    ],
)
def test_a_kernel_runs_by_the_newest_profile_that_is_not_newer(release: str, name: str) -> None:
    assert nearest_profile(release).name == name


@pytest.mark.parametrize("release", ["2.6.18", "1.2"])
def test_a_kernel_older_than_every_profile_runs_by_the_oldest(release: str) -> None:
    oldest = min(PROFILES, key=lambda name: tuple(map(int, name.split("."))))
    assert nearest_profile(release).name == oldest


# ------------------------------------------------------------------------------------------ interfaces and addresses


def _ip(space: Space, *words: str) -> Any:
    return json.loads(space.command("ip", "-j", *words))


def test_interfaces_and_addresses_are_those_of_ip(space: Space) -> None:
    space.ip("link set hole0 mtu 1400")
    space.ip("link add down0 type veth peer name down1")
    space.ip("addr add 10.9.8.7/32 dev lo")
    system = read_system(space.path)
    told = _ip(space, "addr")
    assert {(d.ifindex, d.name, d.is_up, d.is_loopback, d.mtu) for d in system.interfaces} == {
        (d["ifindex"], d["ifname"], "UP" in d["flags"], "LOOPBACK" in d["flags"], d["mtu"]) for d in told
    }
    assert {(a.family, a.address, a.prefix_length, a.interface) for a in system.addresses} == {
        (socket.AF_INET if a["family"] == "inet" else socket.AF_INET6, a["local"], a["prefixlen"], d["ifindex"])
        for d in told
        for a in d["addr_info"]
    }
    assert system.loopback_is_up and system.has_loopback6 and system.ipv6
    assert system.interface(1) == next(d for d in system.interfaces if d.name == "lo")


def test_lo_down_and_ipv6_disabled_on_one_device_are_seen(space: Space) -> None:
    space.sysctl("net.ipv6.conf.hole0.disable_ipv6", 1)
    space.ip("link set lo down")
    system = read_system(space.path)
    disabled = {device.name: device.disable_ipv6 for device in system.interfaces}
    assert (disabled["lo"], disabled["hole0"], disabled["peer0"]) == (False, True, False)
    assert not system.loopback_is_up
    assert not system.has_loopback6
    space.ip("link set hole0 mtu 1000")  # too small for IPv6: the device has none any more
    assert read_system(space.path).interface(space.ifindex()).disable_ipv6 is None  # type: ignore[union-attr]


def test_an_address_that_may_not_be_used_yet_is_marked(space: Space) -> None:
    space.ip("addr add 2001:db8:77::2/64 dev hole0 nodad preferred_lft 0")
    space.sysctl("net.ipv6.conf.peer0.dad_transmits", 100)  # one a second
    space.ip("addr add 2001:db8:78::3/64 dev peer0")
    found = {entry.address: (entry.is_usable, entry.is_deprecated) for entry in read_system(space.path).addresses}
    assert found["2001:db8:77::1"] == (True, False)
    assert found["2001:db8:77::2"] == (True, True)
    assert found["2001:db8:78::3"] == (False, False)


# ------------------------------------------------------------------------------------------ routes

DESTINATIONS = [
    "127.0.0.1", "127.9.9.9", "10.77.0.1", "10.77.0.9", "203.0.113.5", "198.51.100.1", "192.0.2.7", "192.0.2.8",
    "192.0.2.9", "0.0.0.0", "255.255.255.255", "10.77.0.255", "224.0.0.1", "8.8.8.8", "::1", "::", "2001:db8:77::1",
    "2001:db8:77::9", "2001:db8:99::1", "2001:db8:55::1", "fe80::1", "ff02::1",
]  # fmt: skip


def _really(destination: str, source: str = "") -> tuple[str, str]:
    """(source, errno) of a real connect()."""
    family = socket.AF_INET6 if ":" in destination else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as client:
        client.setblocking(False)
        if source:
            client.bind((source, 0))
        code = client.connect_ex((destination, 9))
        if code not in (0, errno.EINPROGRESS, errno.ECONNREFUSED):
            return "", errno.errorcode[code]
        return client.getsockname()[0], ""


def _add_routes(space: Space) -> None:
    space.ip("addr add 10.77.0.2/24 dev hole0")
    space.ip("addr add 10.88.0.1/32 dev lo")
    space.ip("route add 198.51.100.0/24 dev hole0 src 10.88.0.1")
    for kind, address in (("unreachable", "192.0.2.7"), ("prohibit", "192.0.2.8"), ("blackhole", "192.0.2.9")):
        space.ip(f"route add {kind} {address}")
    space.ip("route add default via 2001:db8:77::fe dev hole0")
    space.ip("route add 2001:db8:99::/48 via 2001:db8:77::fe dev hole0")


@pytest.mark.parametrize("ill", ["", "no IPv6", "lo down", "nothing up"])
def test_source_and_errno_are_those_of_connect(space: Space, ill: str) -> None:
    _add_routes(space)
    if ill == "no IPv6":
        space.sysctl("net.ipv6.conf.all.disable_ipv6", 1)
    if ill in ("lo down", "nothing up"):
        space.ip("link set lo down")
    if ill == "nothing up":
        space.ip("link set hole0 down")
    routes = routes_towards([(to, 9, "") for to in DESTINATIONS], space.path)
    real = space.run(lambda: {to: _really(to) for to in DESTINATIONS})
    assert {route.destination: (route.source, route.error) for route in routes} == real
    if ill == "no IPv6":
        assert real["::1"] == ("", "EADDRNOTAVAIL")


def test_a_bound_source_is_kept_and_rules_about_it_are_obeyed(space: Space) -> None:
    _add_routes(space)
    space.ip("rule add from 10.77.0.2 lookup 77")
    space.ip("route add unreachable default table 77")
    asked = [(to, 9, source) for to in ("203.0.113.5", "10.77.0.9") for source in ("10.77.0.1", "10.77.0.2")]
    routes = routes_towards(asked, space.path)
    real = space.run(lambda: [_really(to, source) for to, _, source in asked])
    assert [(route.source, route.error) for route in routes] == real
    assert ("", "EHOSTUNREACH") in real


def test_a_rule_about_the_port_is_obeyed(space: Space) -> None:
    space.ip("addr add 10.77.0.2/24 dev hole0")
    space.ip("rule add ipproto tcp dport 9 lookup 78")
    space.ip("route add 203.0.113.0/24 dev hole0 src 10.77.0.2 table 78")
    assert space.run(_really, "203.0.113.5") == ("10.77.0.2", "")
    assert route_towards("203.0.113.5", 9, netns=space.path).source == "10.77.0.2"
    assert route_towards("203.0.113.5", 10, netns=space.path).source == "10.77.0.1"


def test_device_gateway_and_what_is_local_are_told(space: Space) -> None:
    _add_routes(space)
    far, here, link = routes_towards(
        [("2001:db8:99::1", 9, ""), ("10.77.0.1", 9, ""), (f"fe80::5%{space.ifindex()}", 9, "")], space.path
    )
    assert (far.interface, far.gateway, far.is_local) == (space.ifindex(), "2001:db8:77::fe", False)
    assert (here.interface, here.gateway, here.is_local) == (1, "", True)
    assert link.source.startswith("fe80::") and link.interface == space.ifindex()


@pytest.mark.parametrize("word", ["10.0.0", "example.org", "", "::1::", "fe80::1%nodevice", "1.2.3.4\0"])
def test_what_is_no_address_is_refused(word: str) -> None:
    with pytest.raises(ValueError, match=r"is no IPv4 or IPv6 address|there is no device"):
        route_towards(word)


# ------------------------------------------------------------------------------------------ netfilter, limits, counters


def test_conntrack_counts_the_connections_of_the_namespace(space: Space) -> None:
    space.command("nft", "add table ip t; add chain ip t c { type filter hook output priority 0; }; "
                         "add rule ip t c ct state new counter")  # fmt: skip
    listener = space.listen()
    for _ in range(3):
        space.pair(listener)
    found = read_system(space.path).conntrack
    assert found is not None and found.used == 3
    assert found.maximum == int(Path("/proc/sys/net/netfilter/nf_conntrack_max").read_text())
    assert found.time_wait_s == 120


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ("masquerade", ("ip t post: masquerade",)),
        ("snat to 10.77.0.9", ("ip t post: snat",)),
        ("jump sub; add rule ip t sub masquerade random", ("ip t sub: masquerade",)),
        ("counter accept", ()),
    ],
)
def test_source_nat_is_found(space: Space, rule: str, told: tuple[str, ...]) -> None:
    space.command(
        "nft", "add table ip t; add chain ip t sub; "
        f"add chain ip t post {{ type nat hook postrouting priority 100; }}; add rule ip t post {rule}",
    )  # fmt: skip
    nat = read_system(space.path).nat
    assert (nat.is_known, nat.rules, nat.reason) == (True, told, "")


def test_destination_nat_is_not_taken_for_it(space: Space) -> None:
    space.command("nft", "add table ip t; add chain ip t pre { type nat hook prerouting priority -100; }; "
                         "add rule ip t pre dnat to 10.77.0.9")  # fmt: skip
    assert read_system(space.path).nat.rules == ()


def test_without_privilege_all_but_nat_is_read() -> None:
    program = (
        "from fourtuple.live.system import read_system; s = read_system();"
        "print(s.nat.is_known, s.nat.reason, bool(s.addresses), bool(s.interfaces), bool(s.counters), s.unread,"
        "s.files.nr_open > 0, s.conntrack is not None, sep='|')"
    )
    done = run(Sandbox(), PYTHON, "-c", program)
    has_conntrack = os.path.exists("/proc/sys/net/netfilter/nf_conntrack_max")
    assert (done.stderr, done.stdout) == (
        "",
        f"False|NAT rules can only be read by root (CAP_NET_ADMIN)|True|True|True|()|True|{has_conntrack}\n",
    )


def test_counters_are_those_of_the_namespace(space: Space) -> None:
    listener = space.listen()
    for _ in range(3):
        space.pair(listener)
    counters = read_system(space.path).counters
    assert (counters["Tcp:ActiveOpens"], counters["Tcp:PassiveOpens"], counters["Tcp:CurrEstab"]) == (3, 3, 6)
    assert "Tcp:AttemptFails" not in counters


def test_limits_of_a_process() -> None:
    limits = read_limits(os.getpid())
    assert (limits.soft, limits.hard) == resource.getrlimit(resource.RLIMIT_NOFILE)
    assert limits.used is not None and limits.used >= 3


def test_limits_of_nobody_and_of_a_process_that_is_not_ours() -> None:
    with pytest.raises(CannotRead, match=r"^limits of pid 4194305: there is no such process$"):
        read_limits(4_194_305)
    program = f"from fourtuple.live.system import read_limits; l = read_limits({os.getpid()}); print(l.soft, l.used)"
    assert run(Sandbox(), PYTHON, "-c", program).stdout == f"{resource.getrlimit(resource.RLIMIT_NOFILE)[0]} None\n"


def test_a_namespace_that_there_is_not_is_one_line() -> None:
    with pytest.raises(CannotRead, match=r"^network namespace nowhere: there is no /run/netns/nowhere"):
        read_system("nowhere")


def test_reading_leaves_this_process_where_it_was(space: Space) -> None:
    before = os.stat("/proc/thread-self/ns/net").st_ino
    read_system(space.path)
    assert os.stat("/proc/thread-self/ns/net").st_ino == before
    inside = run_in(find_netns(space.path), lambda: os.stat("/proc/thread-self/ns/net").st_ino)
    assert read_system(space.path).netns_inode == inside != before
