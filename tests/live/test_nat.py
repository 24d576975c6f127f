"""Source NAT rules taken apart, and the entries of connection tracking counted, as the kernel sends them."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fourtuple.live import ctnetlink
from fourtuple.live.ctnetlink import NatFlows, Tracked, _Count, bit_map
from fourtuple.live.nat_rules import SourceNat, source_nat
from fourtuple.live.netfilter import Nat, _least_ports
from fourtuple.live.netlink import attribute
from fourtuple.live.reader import sockets
from fourtuple.live.snapshot import Snapshot
from fourtuple.live.snapshot_file import decode, encode
from fourtuple.live.system import read_system
from tests.live.space import Space, needs_root
from tests.live.test_snapshot import packed, refusal, unpacked

NESTED = 0x8000


@pytest.fixture
def space() -> Iterator[Space]:
    with Space() as made:
        yield made


# ------------------------------------------------------------------------------------------ rules


@needs_root
@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("masquerade", SourceNat("ip t post", "masquerade")),
        ("masquerade random", SourceNat("ip t post", "masquerade", random="random")),
        ("snat to 10.77.0.9", SourceNat("ip t post", "snat", 0, "10.77.0.9", "10.77.0.9")),
        (
            "snat to 10.77.0.9-10.77.0.20 persistent",
            SourceNat("ip t post", "snat", 0, "10.77.0.9", "10.77.0.20", persistent=True),
        ),
        (
            "tcp dport 443 snat to 10.77.0.9:2000-2015 fully-random",
            SourceNat("ip t post", "snat", 0, "10.77.0.9", "10.77.0.9", 2000, 2015, "fully-random"),
        ),
        ("tcp dport 443 masquerade to :1024-2047", SourceNat("ip t post", "masquerade", 0, "", "", 1024, 2047)),
        ("tcp dport 443 masquerade to :99", SourceNat("ip t post", "masquerade", 0, "", "", 99, 99)),
        (
            "snat to numgen inc mod 2 map { 0 : 10.77.0.9, 1 : 10.77.0.10 }",
            SourceNat("ip t post", "snat", from_map=True),
        ),
        (
            "meta l4proto tcp snat ip to ip daddr map { 10.0.0.1 : 10.77.0.9 . 30 }",
            SourceNat("ip t post", "snat", from_map=True),
        ),
    ],
)
def test_what_a_rule_gives(space: Space, statement: str, told: SourceNat) -> None:
    space.command(
        "nft", "add table ip t; add chain ip t post { type nat hook postrouting priority 100; }; "
        f"add rule ip t post {statement}",
    )  # fmt: skip
    (found,) = read_system(space.path).nat.sources
    listing = space.command("nft", "-a", "list", "chain", "ip", "t", "post").splitlines()
    line = next(line for line in listing if "snat to" in line or "masquerade" in line or "snat ip to" in line)
    assert found.handle == int(line.rpartition("# handle ")[2])
    assert found._replace(handle=0) == told


@needs_root
def test_rules_of_the_inet_family_and_ipv6(space: Space) -> None:
    space.command(
        "nft", "add table inet u; add chain inet u post { type nat hook postrouting priority 100; }; "
        "add rule inet u post tcp dport 443 snat ip6 to [2001:db8:77::9]:5000-5009",
    )  # fmt: skip
    (found,) = read_system(space.path).nat.sources
    address = "2001:db8:77::9"
    assert found._replace(handle=0) == SourceNat("inet u post", "snat", 0, address, address, 5000, 5009)


def target(family: int, name: bytes, revision: int, info: bytes) -> bytes:
    """A rule as iptables-nft makes it: an xt target in an expression of nft."""
    data = attribute(1, name + b"\0") + attribute(2, struct.pack(">I", revision)) + attribute(3, info)
    expression = attribute(1 | NESTED, attribute(1, b"target\0") + attribute(2 | NESTED, data))
    head = attribute(1, b"nat\0") + attribute(2, b"POSTROUTING\0") + attribute(3, struct.pack(">Q", 12))
    return struct.pack("=BBH", family, 0, 0) + head + attribute(4 | NESTED, expression)


COMPAT = struct.pack("=II4s4sHH", 1, 3, bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2]), 0, 0)[:16] + struct.pack(
    ">HH", 1024, 2047
)
RANGE = struct.pack("=I16s16s", 1 | 16, bytes([10, 0, 0, 1]), bytes([10, 0, 0, 1])) + bytes(4)
MASQUERADE6 = struct.pack("=I16s16s", 2, bytes(16), bytes(16)) + struct.pack(">HH", 7000, 7999)


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (
            target(2, b"SNAT", 0, COMPAT),
            SourceNat("ip nat POSTROUTING", "snat", 12, "10.0.0.1", "10.0.0.2", 1024, 2047, by_iptables=True),
        ),
        (
            target(2, b"SNAT", 2, RANGE + bytes(4)),
            SourceNat(
                "ip nat POSTROUTING", "snat", 12, "10.0.0.1", "10.0.0.1", random="fully-random", by_iptables=True
            ),
        ),
        (
            target(10, b"MASQUERADE", 0, MASQUERADE6),
            SourceNat("ip6 nat POSTROUTING", "masquerade", 12, "", "", 7000, 7999, by_iptables=True),
        ),
        (target(2, b"MASQUERADE", 0, b""), SourceNat("ip nat POSTROUTING", "masquerade", 12, by_iptables=True)),
        (target(2, b"DNAT", 2, RANGE), None),
    ],
)
def test_rules_of_iptables(message: bytes, told: SourceNat | None) -> None:
    assert source_nat(message) == told


@given(st.data())
def test_any_bytes_are_a_rule_or_none(data: st.DataObject) -> None:
    whole = bytearray(target(2, b"SNAT", 0, COMPAT))
    for _ in range(data.draw(st.integers(0, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    found = source_nat(bytes(whole[: data.draw(st.integers(4, len(whole)))]))
    assert found is None or 0 <= found.low <= found.high <= 65535


# ------------------------------------------------------------------------------------------ entries


def sides(client: str, server: str, sport: int, dport: int) -> bytes:
    """CTA_TUPLE_IP and CTA_TUPLE_PROTO."""
    family = socket.AF_INET6 if ":" in client else socket.AF_INET
    first = 3 if family == socket.AF_INET6 else 1
    pair = (socket.inet_pton(family, text) for text in (client, server))
    addresses = b"".join(attribute(first + i, value) for i, value in enumerate(pair))
    ports = b"".join(attribute(2 + i, struct.pack(">H", port)) for i, port in enumerate((sport, dport)))
    return attribute(1 | NESTED, addresses) + attribute(2 | NESTED, attribute(1, b"\6") + ports)


def entry(
    nat: str, port: int, status: int = 0x10, state: int = 3, zone: bytes = b"", client: str = "10.0.0.1"
) -> bytes:
    server = "2001:db8::5" if ":" in nat else "203.0.113.5"
    family = socket.AF_INET6 if ":" in nat else socket.AF_INET
    original, reply = sides(client, server, 40_000, 443) + zone, sides(server, nat, 443, port) + zone
    return (
        struct.pack("=BBH", family, 0, 0)
        + attribute(1 | NESTED, original)
        + attribute(2 | NESTED, reply)
        + attribute(3, struct.pack(">I", status))
        + attribute(7, bytes(4))
        + attribute(4 | NESTED, attribute(1 | NESTED, attribute(1, bytes([state]))))
    )


def counted(*messages: bytes, family: int = socket.AF_INET, nat: frozenset[str] = frozenset()) -> tuple[NatFlows, ...]:
    count = _Count(nat)
    count.take(messages, family)
    return count.fullest(lambda _: 1)


ZONE = attribute(3, struct.pack(">H", 7))


@pytest.mark.parametrize("zone", [b"", ZONE])
def test_entries_are_grouped_by_what_they_compete_for(zone: bytes) -> None:
    (found,) = counted(
        entry("192.0.2.9", 2000, zone=zone),
        entry("192.0.2.9", 2001, state=7, zone=zone),
        entry("192.0.2.9", 2002, state=8, zone=zone, client="10.0.0.2"),
    )
    assert found == NatFlows(
        "192.0.2.9", "203.0.113.5", 443, 3, 2, True, bit_map({2000, 2001, 2002}), bit_map({2001, 2002})
    )


def test_ipv6() -> None:
    (found,) = counted(entry("2001:db8::9", 2000, client="2001:db8::1"), family=socket.AF_INET6)
    assert found[:6] == ("2001:db8::9", "2001:db8::5", 443, 1, 0, False)


def test_untranslated_connections_count_where_their_address_is_one_of_nat() -> None:
    own, other = entry("192.0.2.9", 2000, status=8), entry("192.0.2.10", 2000, status=8)
    assert counted(own, other) == ()
    assert [flows.address for flows in counted(own, other, nat=frozenset({"192.0.2.9"}))] == ["192.0.2.9"]
    (found,) = counted(own, other, entry("192.0.2.9", 2001))
    assert (found.address, found.used) == ("192.0.2.9", 2)


def test_what_is_beyond_the_bounds_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctnetlink, "MOST_GROUPS", 2)
    count = _Count(frozenset())
    count.take([entry(f"192.0.2.{n}", 2000) for n in range(1, 6)], socket.AF_INET)
    assert (len(count.fullest(lambda _: 1)), count.left_out) == (2, 3)
    monkeypatch.setattr(ctnetlink, "MOST_ENTRIES", 3)
    count = _Count(frozenset())
    count.take([entry("192.0.2.1", port) for port in range(9)], socket.AF_INET)
    assert (count.entries, count.fullest(lambda _: 1)[0].used) == (3, 3)


def test_the_fullest_come_first_not_the_largest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctnetlink, "MOST_KEPT", 1)
    count = _Count(frozenset())
    count.take([entry("192.0.2.1", port) for port in range(2000, 2100)], socket.AF_INET)
    count.take([entry("192.0.2.2", port) for port in range(2000, 2010)], socket.AF_INET)
    rules = (SourceNat("ip t c", "snat", 1, "192.0.2.2", "192.0.2.2", 2000, 2015), SourceNat("ip t c", "snat", 2))
    (found,) = count.fullest(partial(_least_ports, rules))
    assert (found.address, found.used) == ("192.0.2.2", 10)


def test_zones_have_ports_of_their_own() -> None:
    other = attribute(3, struct.pack(">H", 8))
    found = counted(*(entry("192.0.2.9", 2000, zone=zone) for zone in (b"", ZONE, other)), entry("192.0.2.9", 2001))
    assert [(flows.address, flows.destination, flows.port, flows.used) for flows in found] == [
        ("192.0.2.9", "203.0.113.5", 443, used) for used in (2, 1, 1)
    ]


@given(st.data())
def test_any_bytes_are_an_entry_or_none(data: st.DataObject) -> None:
    whole = bytearray(entry("192.0.2.9", 2000))
    for _ in range(data.draw(st.integers(0, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(whole[: data.draw(st.integers(0, len(whole)))])
    for flows in counted(cut, cut + bytes(8)):
        assert flows.used == 1


@needs_root
def test_of_a_live_ipv6_table_the_counts_are_those_of_the_connections(space: Space) -> None:
    space.command(
        "nft", "add table ip6 t; add chain ip6 t post { type nat hook postrouting priority 100; }; "
        "add rule ip6 t post tcp dport 443 snat to [2001:db8:77::9]:5000-5009",
    )  # fmt: skip
    for _ in range(10):
        one = space.socket(socket.AF_INET6)
        one.setblocking(False)
        one.connect_ex(("2001:db8:77::99", 443))
    tracked = read_system(space.path).nat.tracked
    assert tracked is not None
    assert [flows[:6] for flows in tracked.flows] == [("2001:db8:77::9", "2001:db8:77::99", 443, 10, 0, False)]
    assert tracked.flows[0].ports == bit_map(range(5000, 5010))


@needs_root
@pytest.mark.parametrize("zone", ["ct zone set 7", "ct original zone set 7"])
def test_of_a_live_zone_the_entries_are_read(space: Space, zone: str) -> None:
    """In a zone of its own; with a zone of the original direction only, its reply is in none."""
    space.command(
        "nft", "add table ip t; add chain ip t raw { type filter hook output priority -300; }; "
        f"add rule ip t raw tcp dport 443 tcp sport 40000-49999 {zone}; "
        "add chain ip t post { type nat hook postrouting priority 100; }; "
        "add rule ip t post tcp dport 443 snat to 10.77.0.9:5000-5009",
    )  # fmt: skip
    for port in (40_000, 50_000):
        one = space.socket()
        one.setblocking(False)
        one.bind(("10.77.0.1", port))
        one.connect_ex(("203.0.113.9", 443))
    tracked = read_system(space.path).nat.tracked
    assert tracked is not None
    counts = [(flows.address, flows.destination, flows.port, flows.used) for flows in tracked.flows]
    both = ("10.77.0.9", "203.0.113.9", 443)
    assert counts == ([(*both, 2)] if "original" in zone else [(*both, 1), (*both, 1)])


@pytest.mark.parametrize(
    ("code", "words"),
    [(errno.EPERM, "by root"), (errno.EINVAL, "modprobe nf_conntrack_netlink"), (errno.ENOMEM, os.strerror(12))],
)
def test_what_cannot_be_counted_is_one_line(monkeypatch: pytest.MonkeyPatch, code: int, words: str) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(ctnetlink, "_ask", refuse)
    found = ctnetlink.read_tracked([socket.AF_INET], [], lambda _: 1)
    assert words in found.reason and "\n" not in found.reason
    assert found == Tracked(reason=found.reason)


# ------------------------------------------------------------------------------------------ a file


RULE = SourceNat("ip nat POSTROUTING", "snat", 7, "192.0.2.9", "192.0.2.9", 2000, 2999)
FLOWS = NatFlows("192.0.2.9", "203.0.113.5", 443, 2, 1, True, bit_map({2000, 2001}), bit_map({2001}))


def taken(rule: SourceNat = RULE, flows: NatFlows = FLOWS) -> Snapshot:
    nat = Nat(True, (rule.name,), "", (rule,), Tracked(5, (flows,), 3, 4))
    return Snapshot(sockets(dport=1), replace(read_system(), nat=nat))


def test_nat_comes_back_from_a_file() -> None:
    one = taken()
    assert decode(encode([one]))[0].system.nat == one.system.nat


def test_a_file_from_before_it_was_counted_is_read() -> None:
    header, body = unpacked(encode([taken()]))
    for key in ("sources", "tracked"):
        del header["namespaces"][0]["system"]["nat"][key]
    (back,) = decode(packed(header, body))
    assert back.system.nat == Nat(True, (RULE.name,))


@pytest.mark.parametrize(
    ("rule", "flows", "words"),
    [
        (RULE._replace(first="nowhere"), FLOWS, "is no address"),
        (RULE, FLOWS._replace(address=""), "is no address"),
        (RULE, FLOWS._replace(destination="1.2.3"), "is no address"),
        (RULE._replace(low=3000), FLOWS, "NAT port"),
        (RULE._replace(high=70_000), FLOWS, "NAT port"),
        (RULE, FLOWS._replace(port=-1), "NAT port"),
        (RULE, FLOWS._replace(ports="0x12"), "map of NAT ports"),
        (RULE, FLOWS._replace(closing_ports=""), "map of NAT ports"),
        (RULE, FLOWS._replace(ports="f" * 20_000), "map of NAT ports"),
    ],
)
def test_what_is_no_nat_is_refused(rule: SourceNat, flows: NatFlows, words: str) -> None:
    assert words in refusal(encode([taken(rule, flows)]))


def test_an_anonymous_file_keeps_the_numbers() -> None:
    nat = taken(RULE._replace(last="192.0.2.30")).anonymized().system.nat
    (rule,), tracked = nat.sources, nat.tracked
    assert tracked is not None
    assert (rule.where, rule.low, rule.high, rule.from_map) == ("ip TABLE CHAIN", 2000, 2999, True)
    assert tracked.flows[0]._replace(address="", destination="") == FLOWS._replace(address="", destination="")
    assert tracked.flows[0].address == rule.first != FLOWS.address
