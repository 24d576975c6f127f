"""How likely a SYN finds no NAT port: against a search of every start, port by port; and which rule gave an address."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fourtuple.doctor.finding import Finding
from fourtuple.doctor.findings import Question, diagnose
from fourtuple.doctor.nat_stage import ANY_PORT, Chance, NatGroup, nat_groups, syns_and_seconds
from fourtuple.doctor.reading import Reading
from fourtuple.live import sockets
from fourtuple.live.ctnetlink import NatFlows, Tracked, bit_map
from fourtuple.live.nat_rules import SourceNat
from fourtuple.live.netfilter import Conntrack, Nat
from fourtuple.live.rtnetlink import Address
from fourtuple.live.system import System, read_system
from fourtuple.sim.syn_schedule import syn_schedule

LOW = 2000
NAT_ADDRESS, SERVER = "192.0.2.9", "198.51.100.1"


def flows(used: set[int], closing: set[int] = frozenset(), several: bool = True) -> NatFlows:  # type: ignore[assignment]
    return NatFlows(
        NAT_ADDRESS, SERVER, 443, len(used), len(closing), several, bit_map(used), bit_map(closing)
    )  # fmt: skip


def rule(low: int = 0, high: int = 0, first: str = NAT_ADDRESS, last: str = "", **more: object) -> SourceNat:
    return SourceNat("ip nat POSTROUTING", "snat", 7, first, last or first, low, high, **more)  # type: ignore[arg-type]


def group(used: set[int], size: int, closing: set[int] = frozenset()) -> NatGroup:  # type: ignore[assignment]
    made = NatGroup(flows(used, closing), rule(LOW, LOW + size - 1), (LOW, LOW + size - 1), False)
    made.own_range = (40_000, 49_999)
    return made


def by_hand(taken: set[int], firm: set[int], size: int) -> float:
    """Rounds of runs, every start; a port ends the search if it is free, or among the last 32 and not firm."""
    attempts, chance = min(size, 128), 1.0
    while True:
        failing = 0
        for start in range(size):
            run = [(start + i) % size for i in range(attempts)]
            tail = run[-32:] if attempts > 32 else run
            failing += all(port in taken for port in run) and all(port in firm for port in tail)
        chance *= failing / size
        if attempts >= size or attempts < 16:
            return chance
        attempts //= 2


@given(st.integers(1, 330), st.data())
@settings(max_examples=60, deadline=None)
def test_every_start_of_every_run(size: int, data: st.DataObject) -> None:
    free = data.draw(st.sets(st.integers(0, size - 1), max_size=6))
    taken = set(range(size)) - free
    closing = data.draw(st.sets(st.sampled_from(sorted(taken)), max_size=6)) if taken else set()
    found = group({LOW + n for n in taken}, size, {LOW + n for n in closing})
    assert (found.used, found.free, found.closing) == (len(taken), len(free), len(closing))
    if taken:
        assert found.refused.low == pytest.approx(by_hand(taken, taken - closing, size))
        assert found.refused.high == pytest.approx(by_hand(taken, taken, size))


def test_a_range_of_128_is_searched_whole_and_one_of_129_is_not() -> None:
    assert group(set(range(LOW, LOW + 127)), 128).refused == (0.0, 0.0)
    assert group(set(range(LOW, LOW + 128)), 129).refused.high > 0


def test_before_linux_6_7_closing_entries_are_not_taken_over() -> None:
    system = system_with(rule(LOW, LOW + 3), flows({2000, 2001, 2002, 2003}, {2000}))
    assert nat_groups(system, (6, 6))[0].refused == (1.0, 1.0)
    assert nat_groups(system, (6, 7))[0].refused == (0.0, 1.0)


@pytest.mark.parametrize(
    ("ports", "random", "several", "shared"),
    [
        (ANY_PORT, "", False, False),
        (ANY_PORT, "", True, True),
        (ANY_PORT, "fully-random", False, True),
        (ANY_PORT, "random", False, True),
        ((2000, 2009), "", False, True),
    ],
)
def test_whether_the_range_can_run_out_for_the_clients(
    ports: tuple[int, int], random: str, several: bool, shared: bool
) -> None:
    used = flows(set(range(40_000, 40_010)), several=several)
    made = NatGroup(used, rule(random=random), ports, False)
    made.own_range = (40_000, 40_019)
    assert made.is_shared == shared


def test_half_of_the_own_ports_taken_by_others_is_half_of_the_searches() -> None:
    used = flows(set(range(1024, 65536)) - set(range(40_010, 40_020)))
    made = NatGroup(used, rule(), ANY_PORT, False)
    made.own_range = (40_000, 40_019)
    always = NatGroup(used, rule(random="random"), ANY_PORT, False)
    always.own_range = made.own_range
    assert made.refused.high == pytest.approx(always.refused.high / 2)
    assert 0.9 < always.refused.high < 1


# ------------------------------------------------------------------------------------------ which rule


def system_with(*parts: SourceNat | NatFlows, own: tuple[str, ...] = ()) -> System:
    rules = tuple(part for part in parts if isinstance(part, SourceNat))
    found = tuple(part for part in parts if isinstance(part, NatFlows))
    nat = Nat(True, tuple(dict.fromkeys(r.name for r in rules)), "", rules, Tracked(9, found, 0, 0))
    return replace(read_system(), nat=nat, addresses=tuple(Address(2, text, 24, 1) for text in own), conntrack=None)


MASQUERADE = SourceNat("ip nat POSTROUTING", "masquerade", 8)


@pytest.mark.parametrize(
    ("rules", "own", "ports", "inferred"),
    [
        ((rule(2000, 2999),), (), (2000, 2999), False),
        ((rule(2000, 2999), rule(1000, 3000)), (), (2000, 2999), True),
        ((rule(2400, 2999), rule(1000, 3000)), (), (1000, 3000), True),
        ((rule(2000, 2999, "192.0.2.1", "192.0.2.20"),), (), (2000, 2999), False),
        ((rule(2000, 2999, "192.0.2.1", "192.0.2.8"), MASQUERADE), (NAT_ADDRESS,), ANY_PORT, False),
        ((MASQUERADE, rule(2000, 2999, "192.0.2.1")), (NAT_ADDRESS,), ANY_PORT, False),
        ((MASQUERADE,), ("192.0.2.1",), ANY_PORT, True),
        ((rule(2000, 2999, "", from_map=True),), (), (2000, 2999), True),
        ((SourceNat("ip6 t c", "masquerade"),), (), ANY_PORT, True),
    ],
)
def test_the_range_is_that_of_the_rule_that_can_have_given_it(
    rules: tuple[SourceNat, ...], own: tuple[str, ...], ports: tuple[int, int], inferred: bool
) -> None:
    (found,) = nat_groups(system_with(*rules, flows({2300, 2301}), own=own), (6, 18))
    assert ((found.low, found.high), found.is_inferred) == (ports, inferred)


def findings(*parts: SourceNat | NatFlows) -> list[Finding]:
    system = system_with(*parts)
    found = diagnose(Reading(sockets(dport=1), system), Question()).findings
    return [each for each in found if each.kind.startswith("nat")]


def test_a_rule_of_iptables_is_mended_by_iptables() -> None:
    full = flows({2000, 2001})
    (found,) = findings(rule(2000, 2001, by_iptables=True), full)
    commands = [fix.command for fix in found.fixes if fix.command]
    match = "iptables -t nat -I POSTROUTING -d 198.51.100.1 -p tcp --dport 443"
    assert commands == [
        f"{match} -j SNAT --to-source 192.0.2.9",
        f"{match} -m statistic --mode random --probability 0.5 -j SNAT --to-source ADDRESS",
        f"{match} -j RETURN",
    ]


@pytest.mark.parametrize(("used", "kind"), [(79, "nat"), (80, "nat-near-full"), (100, "nat-full")])
def test_from_what_fill_it_is_said(used: int, kind: str) -> None:
    (found,) = findings(rule(2000, 2099), flows(set(range(2000, 2000 + used))))
    assert found.kind == kind


def test_of_rules_that_cannot_be_read_the_whole_range_is_assumed() -> None:
    """Legacy iptables: the entries are counted all the same."""
    (found,) = findings(flows(set(range(1024, 65536))))
    assert (found.kind, found.evidence[0]) == ("nat-full", "64 512 of 64 512 ports taken (1024–65535)")
    assert "is not known" in found.inferred[0]
    assert [fix.scope for fix in found.fixes] == ["process", "server"]


def test_that_nat_could_not_be_read_is_one_line_where_connections_are_tracked() -> None:
    reason = "NAT rules can only be read by root (CAP_NET_ADMIN)"
    table = sockets(dport=1)
    for used, told in ((0, ()), (5, (reason,))):
        system = replace(read_system(), nat=Nat(False, reason=reason), conntrack=Conntrack(used, 100))
        assert Reading(table, system).unread == told


def test_dropped_packets_without_a_full_range_are_races() -> None:
    system = system_with(rule(), flows({2000}))
    assert system.nat.tracked is not None
    system = replace(system, nat=system.nat._replace(tracked=system.nat.tracked._replace(insert_failed=3)))
    found = diagnose(Reading(sockets(dport=1), system), Question()).findings
    (note,) = [each for each in found if each.kind == "nat"]
    assert "insert_failed: 3 packets dropped since the namespace was made, of any protocol" in note.evidence
    assert "fully-random" in note.fixes[0].what


@pytest.mark.parametrize(("retries", "linear"), [(6, 4), (6, 0), (1, 0), (2, 4), (9, 0), (12, 9)])
def test_the_seconds_are_those_of_the_engine(retries: int, linear: int) -> None:
    system = read_system()
    system.sysctls.tcp_syn_retries, system.sysctls.tcp_syn_linear_timeouts = retries, linear
    values = {"net.ipv4.tcp_syn_retries": str(retries), "net.ipv4.tcp_syn_linear_timeouts": str(linear)}
    engine = syn_schedule("6.18", values)
    assert syns_and_seconds(system) == (len(engine.sent_us), engine.end_us // 1_000_000)


def test_nothing_taken_is_no_chance() -> None:
    assert group(set(), 10).refused == Chance(0.0, 0.0)
