"""--loss and --rtt: the grammar, the kinds of packets, what is lost, what is late."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from fourtuple.clock import ManualClock
from fourtuple.phy.fault import DelayDevice, FaultDevice, LossRule, packet_kinds, parse_loss
from fourtuple.phy.memory import MemoryDevice, memory_pair
from tests.phy.packets import ACK, FIN, PSH, RST, SYN, ipv4, ipv6_tcp, receive, send, tcp

FOREVER = 1 << 62


def no_chance() -> float:
    raise AssertionError("no rule asked for chance")


def lossy(
    text: str, rng: Callable[[], float] = no_chance, limit: int | None = None
) -> tuple[FaultDevice, MemoryDevice, list[tuple[bytes, str]]]:
    """A device that loses by `text`, its other end, and the list of what was lost by which rule."""
    near, far = memory_pair(limit=limit)
    lost: list[tuple[bytes, str]] = []
    return FaultDevice(near, parse_loss(text), rng, lambda packet, rule: lost.append((packet, rule.text))), far, lost


@pytest.mark.parametrize(
    ("text", "rules"),
    [
        ("syn:1", [LossRule("syn:1", "", "syn", ((1, 1),), 0.0)]),
        ("syn:1,3", [LossRule("syn:1,3", "", "syn", ((1, 1), (3, 3)), 0.0)]),
        ("synack:1", [LossRule("synack:1", "", "synack", ((1, 1),), 0.0)]),
        ("5%", [LossRule("5%", "", "", (), 0.05)]),
        ("0.5%", [LossRule("0.5%", "", "", (), 0.005)]),
        ("tx:2", [LossRule("tx:2", "tx", "", ((2, 2),), 0.0)]),
        ("rx:3-5", [LossRule("rx:3-5", "rx", "", ((3, 5),), 0.0)]),
        ("data:4-", [LossRule("data:4-", "", "data", ((4, FOREVER),), 0.0)]),
        ("rst", [LossRule("rst", "", "rst", ((1, FOREVER),), 0.0)]),
        ("rx-ack:10%", [LossRule("rx-ack:10%", "rx", "ack", (), 0.1)]),
        ("Syn : 1 , 3", [LossRule("syn:1,3", "", "syn", ((1, 1), (3, 3)), 0.0)]),
        (
            "syn:1,3,tx-ack:1,5%",
            [
                LossRule("syn:1,3", "", "syn", ((1, 1), (3, 3)), 0.0),
                LossRule("tx-ack:1", "tx", "ack", ((1, 1),), 0.0),
                LossRule("5%", "", "", (), 0.05),
            ],
        ),
    ],
)
def test_a_loss_text_means_these_rules(text: str, rules: list[LossRule]) -> None:
    assert list(parse_loss(text)) == rules


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "'' is not a rule"),
        ("sin:1", "'sin:1' is not a rule"),
        ("3", "'3' is not a rule"),
        ("rst,3", "'3' is not a rule"),
        ("tx-rx:1", "'tx-rx:1' is not a rule"),
        ("syn:", "'' in 'syn:' is not a number"),
        ("syn:0", "'0' in 'syn:0' is not a number"),
        ("syn:x", "'x' in 'syn:x' is not a number"),
        ("syn:4-2", "'4-2' in 'syn:4-2' runs backwards"),
        ("101%", "more than 100%"),
        ("syn:1,,ack:1", "'' is not a rule"),
    ],
)
def test_a_wrong_loss_text_is_refused_with_one_line(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=r"^--loss: ") as caught:
        parse_loss(text)
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("packet", "kinds"),
    [
        (tcp(SYN), {"", "tcp", "syn"}),
        (tcp(SYN, payload=b"fast open"), {"", "tcp", "syn", "data"}),
        (tcp(SYN | ACK), {"", "tcp", "synack"}),
        (tcp(ACK), {"", "tcp", "ack"}),
        (tcp(ACK, options=bytes(12)), {"", "tcp", "ack"}),
        (tcp(ACK | PSH, payload=b"x"), {"", "tcp", "data"}),
        (tcp(ACK | FIN), {"", "tcp", "fin"}),
        (tcp(ACK | FIN, payload=b"x"), {"", "tcp", "fin", "data"}),
        (tcp(RST), {"", "tcp", "rst"}),
        (tcp(RST | ACK), {"", "tcp", "rst"}),
        (ipv6_tcp(SYN), {"", "tcp", "syn"}),
        (ipv6_tcp(ACK, b"x"), {"", "tcp", "data"}),
        (ipv4("1.2.3.4", "5.6.7.8", 1, bytes(8)), {"", "icmp"}),
        (ipv4("1.2.3.4", "5.6.7.8", 6, tcp(SYN)[20:], fragment=3), {""}),
        (ipv4("1.2.3.4", "5.6.7.8", 17, bytes(8)), {""}),
        (b"stump", {""}),
        (b"", {""}),
    ],
)
def test_a_packet_is_of_these_kinds(packet: bytes, kinds: set[str]) -> None:
    assert packet_kinds(memoryview(packet)) == kinds


def test_the_first_syn_is_lost_and_the_second_arrives() -> None:
    device, far, lost = lossy("syn:1")
    first, second = tcp(SYN, seq=1), tcp(SYN, seq=2)
    assert send(device, first) == 1
    assert receive(far) == []
    send(device, second)
    assert receive(far) == [second]
    assert lost == [(first, "syn:1")]


def test_a_synack_is_lost_on_its_way_in() -> None:
    device, far, lost = lossy("synack:1")
    synack = tcp(SYN | ACK)
    send(far, synack, synack, tcp(ACK))
    assert receive(device) == [synack, tcp(ACK)]
    assert lost == [(synack, "synack:1")]


def test_a_batch_keeps_its_order_round_the_lost_ones() -> None:
    device, far, _ = lossy("tx:2,4-5")
    packets = [tcp(ACK, seq=i) for i in range(1, 7)]
    assert send(device, *packets) == 6
    assert receive(far) == [packets[0], packets[2], packets[5]]


def test_each_direction_is_counted_by_itself_when_the_rule_names_one() -> None:
    device, far, _ = lossy("rx-ack:1")
    send(device, tcp(ACK, seq=1))
    send(far, tcp(ACK, seq=2), tcp(ACK, seq=3))
    assert receive(far) == [tcp(ACK, seq=1)]
    assert receive(device) == [tcp(ACK, seq=3)]


def test_every_rule_counts_also_the_packets_that_another_rule_loses() -> None:
    device, far, lost = lossy("syn:1,tx:1-2")
    packets = [tcp(SYN, seq=1), tcp(ACK, seq=2), tcp(ACK, seq=3)]
    send(device, *packets)
    assert receive(far) == [packets[2]]
    assert [rule for _, rule in lost] == ["syn:1", "tx:1-2"]


def test_a_batch_lost_as_a_whole_does_not_hide_what_comes_behind_it() -> None:
    device, far, _ = lossy("rx:1-2")
    send(far, b"1", b"2", b"3")
    assert receive(device, max_packets=2) == [b"3"]


def test_a_packet_refused_by_a_full_device_is_judged_once() -> None:
    device, far, lost = lossy("tx:3", limit=1)
    assert send(device, b"1", b"2", b"3") == 1
    assert send(device, b"2", b"3") == 0
    assert receive(far) == [b"1"]
    assert send(device, b"2", b"3") == 2
    assert receive(far) == [b"2"]
    assert lost == [(b"3", "tx:3")]


def test_a_percentage_asks_chance_once_for_each_packet_both_ways() -> None:
    draws = iter([0.04, 0.05, 0.99, 0.0])
    device, far, lost = lossy("5%", lambda: next(draws))
    send(device, b"a", b"b")
    send(far, b"c", b"d")
    assert receive(far) == [b"b"]
    assert receive(device) == [b"c"]
    assert [packet for packet, _ in lost] == [b"a", b"d"]


def test_the_same_seed_loses_the_same_packets() -> None:
    def run(seed: int) -> list[bytes]:
        device, far, _ = lossy("30%", random.Random(seed).random)
        send(device, *(bytes([i]) for i in range(100)))
        return receive(far, max_packets=100)

    assert run(7) == run(7) != run(8)
    assert 40 < len(run(7)) < 95


def delayed(rtt_us: int) -> tuple[DelayDevice, MemoryDevice, ManualClock]:
    near, far = memory_pair()
    clock = ManualClock(1_000_000)
    return DelayDevice(near, rtt_us, clock.now_us), far, clock


def test_a_packet_sent_leaves_after_half_the_rtt() -> None:
    device, far, clock = delayed(30_000)
    assert send(device, b"x") == 1
    assert device.next_due() == 1_015_000
    clock.advance(14_999)
    receive(device)
    assert receive(far) == []
    clock.advance(1)
    assert receive(device) == []
    assert receive(far) == [b"x"]
    assert device.next_due() is None


def test_a_packet_received_arrives_after_the_other_half() -> None:
    device, far, clock = delayed(30_001)
    send(far, b"x")
    assert receive(device) == []
    assert device.next_due() == 1_015_001
    clock.advance(15_001)
    assert receive(device) == [b"x"]


def test_packets_that_found_no_room_are_due_at_once() -> None:
    device, far, clock = delayed(10)
    send(far, b"1", b"2")
    receive(device)
    clock.advance(5)
    assert receive(device, max_packets=1) == [b"1"]
    assert device.next_due() == clock.now_us()
    assert receive(device) == [b"2"]


def test_a_full_inner_device_keeps_late_packets_in_order() -> None:
    near, far = memory_pair(limit=1)
    clock = ManualClock()
    device = DelayDevice(near, 0, clock.now_us)
    assert send(device, b"1", b"2") == 2
    assert device.next_due() == 0
    assert receive(far) == [b"1"]
    receive(device)
    assert receive(far) == [b"2"]


def test_wrappers_stack_and_the_delay_below_is_seen_from_above() -> None:
    delay, far, _ = delayed(20)
    device = FaultDevice(delay, parse_loss("tx:1"), no_chance)
    send(device, b"lost")
    assert device.next_due() is None
    send(device, b"late")
    assert device.next_due() == 1_000_010
    assert receive(far) == []
