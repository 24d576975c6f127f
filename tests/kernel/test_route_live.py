"""The live kernel judges ip/: the same `ip` commands, the same connect() calls; errno, source and MTU must agree."""

from __future__ import annotations

import itertools
import os
import random
import socket
import struct

import pytest

from fourtuple.address import parse_ipv4
from fourtuple.ip.fib import Fib
from fourtuple.sim.iproute import run_ip
from tests.kernel.netns import in_namespace, needs_kernel
from tests.kernel.routing import (
    IP_MTU,
    Question,
    differences,
    kernel_ip,
    open_tun,
    put_to_kernel,
    put_to_ours,
)

pytestmark = needs_kernel

TWO_LINKS = [
    "link set lo up",
    "addr add 10.9.0.1/24 dev tun0",
    "link set tun0 up",
    "addr add 10.5.0.1/16 dev tun1",
    "link set tun1 up",
]


def judge(*steps: str | Question) -> None:
    asked: list[str | list[object]] = [step if isinstance(step, str) else list(step) for step in steps]
    assert differences(asked, in_namespace(put_to_kernel, asked), put_to_ours(asked)) == []


DESTINATIONS = [
    "10.9.0.2",
    "10.9.0.1",
    "10.9.0.3",
    "10.9.0.255",
    "10.9.0.0",
    "10.8.0.1",
    "127.0.0.1",
    "127.0.0.5",
    "0.0.0.0",
    "224.0.0.1",
    "239.1.1.1",
    "255.255.255.255",
    "10.5.0.9",
    "127.255.255.255",
    "10.5.255.255",
    "10.5.0.1",
    "0.1.2.3",
    "240.0.0.1",
]
SOURCES = [
    None,
    *["10.9.0.1", "10.9.0.3", "10.5.0.1", "127.0.0.1", "10.77.0.1", "10.9.0.255", "224.0.0.5", "127.0.0.9", "10.8.0.1"],
]
EVERY_QUESTION = [
    Question(daddr, saddr, oif, 0, 0, how)
    for daddr, saddr, oif, how in itertools.product(
        DESTINATIONS, SOURCES, [None, "lo", "tun0", "tun1"], ["", "freebind", "transparent"]
    )
]


@pytest.mark.parametrize(
    "more",
    [
        [],
        ["addr add 10.9.0.3/24 dev tun0"],
        ["route add default dev tun1"],
        ["route add default via 10.9.0.9"],
        ["link set tun0 down"],
        ["link set lo down"],
        ["addr del 10.9.0.1/24 dev tun0"],
        ["rule add from 10.9.0.1 table 100", "route add unreachable default table 100"],
    ],
    ids=lambda more: "; ".join(more) or "plain",
)
def test_every_destination_from_every_source_by_every_device(more: list[str]) -> None:
    judge(*TWO_LINKS, *more, *EVERY_QUESTION)


def ask(*daddrs: str) -> list[Question]:
    return [Question(d, s, o) for d in daddrs for s in (None, "10.9.0.1", "10.5.0.1") for o in (None, "tun0", "tun1")]


def test_route_types_answer_with_their_errno() -> None:
    """ERR-18"""
    kinds = ["unreachable", "prohibit", "blackhole", "throw", "local", "broadcast", "multicast"]
    routes = [f"route add {kind} 10.8.{i}.0/24{' dev tun0' if i > 3 else ''}" for i, kind in enumerate(kinds)]
    judge(*TWO_LINKS, *routes, *ask(*[f"10.8.{i}.1" for i in range(len(kinds))]))


def test_a_throw_goes_on_to_the_next_table() -> None:
    judge(
        *TWO_LINKS,
        "route add throw 10.8.0.0/24 table 100",
        "route add 10.8.0.0/16 dev tun1",
        "rule add table 100",
        *ask("10.8.0.1"),
    )


def test_source_is_that_of_the_route() -> None:
    """SRC-01"""
    judge(
        *TWO_LINKS,
        "addr add 10.9.0.3/24 dev tun0",
        "addr add 10.9.1.1/24 dev tun0",
        "route add 10.8.0.0/24 dev tun0 src 10.9.0.3",
        "route add 10.8.1.0/24 via 10.9.1.7",
        "route add 10.8.2.0/24 dev tun0",
        "route add 10.8.3.0/24 dev tun0 src 10.77.0.1",
        *ask("10.8.0.1", "10.8.1.1", "10.8.2.1", "10.8.3.1"),
    )


def test_longest_prefix_then_metric() -> None:
    judge(
        *TWO_LINKS,
        "route add 10.8.0.0/16 dev tun0 metric 5",
        "route add 10.8.0.0/16 dev tun1 metric 3",
        "route add 10.8.0.0/16 dev tun1 metric 3",
        "route add 10.8.4.0/24 dev tun0",
        *ask("10.8.0.1", "10.8.4.1"),
        "route del 10.8.0.0/16 metric 3",
        *ask("10.8.0.1", "10.8.4.1"),
        "route del 10.8.0.0/16",
        "route del 10.8.0.0/16",
        *ask("10.8.0.1", "10.8.4.1"),
    )


def test_a_mark_selects_another_table() -> None:
    """SRC-09"""
    judge(
        *TWO_LINKS,
        "addr add 10.9.0.3/24 dev tun0",
        "route add default dev tun1",
        "route add default dev tun0 src 10.9.0.3 table 100",
        "rule add fwmark 1 table 100",
        "rule add fwmark 0x10/0xf0 priority 50 prohibit",
        *[Question("10.7.0.1", None, None, mark) for mark in (0, 1, 2, 0x10, 0x11, 0x91)],
    )


def test_any_address_of_a_local_prefix_is_a_source_until_it_goes() -> None:
    """SRC-08"""
    questions = [Question(d, s) for d in ("10.9.0.2", "10.6.1.1") for s in (None, "10.6.7.8", "10.6.0.0")]
    judge(
        *TWO_LINKS,
        "route add local 10.6.0.0/16 dev lo",
        *questions,
        "route del local 10.6.0.0/16 dev lo",
        *questions,
    )


def test_local_and_main_share_one_longest_match_until_the_first_rule() -> None:
    questions = ask("10.9.0.2", "10.9.0.1", "10.4.0.1")
    judge(
        *TWO_LINKS,
        "route add local 10.0.0.0/8 dev lo",
        *questions,
        "rule add fwmark 77 table 100",
        *questions,
        "rule del fwmark 77 table 100",
        *questions,
    )


def test_the_route_decides_the_mtu() -> None:
    judge(
        *TWO_LINKS,
        "route add 10.8.0.0/24 dev tun0 mtu 1000",
        "route add 10.8.1.0/24 dev tun0 mtu lock 1200",
        "route add 10.8.2.0/24 via 10.9.0.2 mtu lock 1200",
        "route add 10.8.3.0/24 dev tun0 mtu 70000",
        *ask("10.8.0.1", "10.8.1.1", "10.8.2.1", "10.8.3.1", "10.9.0.2"),
        "link set tun0 mtu 1400",
        *ask("10.8.0.1", "10.8.1.1", "10.8.2.1", "10.8.3.1", "10.9.0.2"),
    )


def test_a_source_is_gone_when_its_address_is() -> None:
    """SRC-10: the socket was bound before; ours asks with the source that bind() accepted."""

    def kernel() -> int:
        fd = open_tun("tun0")
        for command in ("link set lo up", "addr add 10.9.0.1/24 dev tun0", "addr add 10.9.0.3/24 dev tun0"):
            kernel_ip(command)
        kernel_ip("link set tun0 up")
        with socket.socket() as sock:
            sock.bind(("10.9.0.3", 0))
            kernel_ip("addr del 10.9.0.3/24 dev tun0")
            answer = sock.connect_ex(("10.9.0.2", 80))
        os.close(fd)
        return answer

    fib = Fib()
    fib.add_device("tun0")
    for command in ("link set lo up", "addr add 10.9.0.1/24 dev tun0", "link set tun0 up"):
        run_ip(fib, command)
    ours = fib.ip_route_connect(parse_ipv4("10.9.0.2"), parse_ipv4("10.9.0.3"), 0)
    assert ours == -in_namespace(kernel)


# Learned path MTUs


def _checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _needs_fragmentation(packet: bytes, mtu: int) -> bytes:
    """The ICMP answer of a router to `packet` (RFC 792, RFC 1191)."""
    icmp = bytearray(struct.pack("!BBHHH", 3, 4, 0, 0, mtu) + packet[:28])
    struct.pack_into("!H", icmp, 2, _checksum(bytes(icmp)))
    head = bytearray(
        struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(icmp), 0, 0, 64, 1, 0, packet[16:20], packet[12:16])
    )
    struct.pack_into("!H", head, 10, _checksum(bytes(head)))
    return bytes(head + icmp)


def _mtu_to(daddr: str) -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect((daddr, 9))
        return sock.getsockopt(socket.SOL_IP, IP_MTU)


def _kernel_learns(setup: list[str], steps: list[list[object]]) -> list[int]:
    fd = open_tun("tun0")
    for command in setup:
        kernel_ip(command)
    out = []
    for daddr, mtu, look in steps:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.connect((daddr, 9))
            while True:
                try:
                    os.read(fd, 65536)
                except BlockingIOError:
                    break
            sock.send(b"x" * 100)
            os.write(fd, _needs_fragmentation(os.read(fd, 65536), int(str(mtu))))
        out.append(_mtu_to(str(look)))
    os.close(fd)
    return out


def _we_learn(setup: list[str], steps: list[list[object]]) -> list[int]:
    fib, out = Fib(), []
    fib.add_device("tun0")
    for command in setup:
        run_ip(fib, command)
    for daddr, mtu, look in steps:
        route = fib.ip_route_connect(parse_ipv4(str(daddr)), 0, 0)
        assert not isinstance(route, int)
        fib.update_pmtu(route.rt, route.daddr, int(str(mtu)), 0)
        seen = fib.ip_route_connect(parse_ipv4(str(look)), 0, 0)
        assert not isinstance(seen, int)
        out.append(seen.rt.mtu)
    return out


@pytest.mark.parametrize("route", ["dev tun0", "via 10.9.0.7", "dev tun0 mtu 1300", "dev tun0 mtu lock 1300"])
def test_a_smaller_mtu_is_learned_for_one_destination(route: str) -> None:
    setup = ["link set lo up", "addr add 10.9.0.1/24 dev tun0", "link set tun0 up", f"route add 10.8.0.0/16 {route}"]
    steps: list[list[object]] = [
        ["10.8.0.1", 1400, "10.8.0.1"],
        ["10.8.0.1", 1400, "10.8.0.2"],
        ["10.8.0.1", 1200, "10.8.0.1"],
        ["10.8.0.1", 1300, "10.8.0.1"],
        ["10.8.0.2", 400, "10.8.0.2"],
        ["10.8.0.2", 300, "10.8.0.2"],
        ["10.8.0.3", 1600, "10.8.0.3"],
        ["10.8.0.3", 552, "10.8.0.3"],
        ["10.8.0.3", 551, "10.8.0.3"],
    ]
    assert in_namespace(_kernel_learns, setup, steps) == _we_learn(setup, steps)


# Chance: random commands and questions, the same each run

ADDRESSES = [
    "10.9.0.1",
    "10.9.0.3",
    "10.9.0.9",
    "10.5.0.1",
    "10.5.1.1",
    "10.4.4.4",
    "10.3.3.2",
    "127.0.0.5",
    "10.6.0.1",
    "169.254.1.1",
]
PREFIXES = [
    "10.8.0.0/24",
    "10.8.0.0/16",
    "10.7.0.0/16",
    "10.9.0.0/24",
    "10.9.0.128/25",
    "10.6.0.0/16",
    "10.6.0.1/32",
    "10.9.0.2/32",
    "default",
    "10.0.0.0/8",
    "10.8.1.1/32",
    "127.5.0.0/16",
    "10.5.0.0/16",
    "0.0.0.0/1",
    "240.0.0.0/4",
    "224.0.0.0/4",
]
GATEWAYS = ["10.9.0.2", "10.9.0.3", "10.5.0.9", "10.8.0.1", "10.7.7.7", "10.6.0.1", "10.4.4.4"]
TARGETS = [
    *ADDRESSES,
    *GATEWAYS,
    *DESTINATIONS,
    *[
        "10.8.1.1",
        "10.8.200.1",
        "10.7.0.1",
        "10.9.0.130",
        "10.6.0.77",
        "10.1.1.1",
        "127.5.0.1",
        "8.8.8.8",
        "200.1.1.1",
        "241.1.1.1",
    ],
]
DEVICES = ["lo", "tun0", "tun1"]
ROUTE_KINDS = [
    "",
    "unicast ",
    "local ",
    "broadcast ",
    "multicast ",
    "unreachable ",
    "prohibit ",
    "blackhole ",
    "throw ",
]


class Dice:
    """Commands and questions by chance."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def pick(self, words: list[str]) -> str:
        return self.random.choice(words)

    def maybe(self, chance: float, before: str, words: list[str]) -> str:
        return before + self.pick(words) if self.random.random() < chance else ""

    def route(self, verb: str) -> str:
        kind = self.random.choices(ROUTE_KINDS, [12, 1, 4, 1, 1, 2, 2, 2, 2])[0]
        error = kind.strip() in ("unreachable", "prohibit", "blackhole", "throw")
        text = f"route {verb} {kind}{self.pick(PREFIXES)}"
        text += self.maybe(0.06 if error else 0.3, " via ", GATEWAYS)
        text += self.maybe(0.07 if error else 0.3 if verb == "del" else 0.75, " dev ", DEVICES)
        text += self.maybe(0.2, " src ", ADDRESSES)
        text += self.maybe(0.25, " metric ", ["0", "5", "10", "100"])
        text += self.maybe(0.25, " table ", ["100", "100", "main", "local", "default", "254", "7"])
        text += self.maybe(0.06, " scope ", ["link", "host", "global", "site"])
        text += self.maybe(0.06, " tos ", ["0x10", "8", "0x20", "3", "0"])
        if verb != "del":
            text += self.maybe(0.15, " mtu ", ["1000", "lock 1200", "70000", "lock 400"])
            text += self.maybe(0.1 if " via " in text else 0, " ", ["onlink"])
        return text

    def rule(self, verb: str) -> str:
        text = f"rule {verb}"
        text += self.maybe(0.3, " from ", [*ADDRESSES, "10.9.0.0/24", "all", "10.0.0.0/8"])
        text += self.maybe(0.3, " to ", ["10.8.0.0/16", "10.7.0.1", "all", "10.9.0.0/25"])
        text += self.maybe(0.35, " fwmark ", ["1", "2", "0x10/0xf0", "1/1"])
        text += self.maybe(0.1, " tos ", ["0x10", "8", "3"])
        text += self.maybe(0.1, " oif ", DEVICES)
        text += self.maybe(0.5, " priority ", ["100", "200", "32766", "40000", "0", "1"])
        tables = ["table 100", "table 100", "lookup 100", "table main", "table 7", "table local"]
        return f"{text} {self.pick([*tables, 'unreachable', 'prohibit', 'blackhole'])}"

    def address(self) -> str:
        verb, length = self.pick(["add", "add", "add", "del"]), self.pick(["24", "24", "16", "32", "31", "30", "8"])
        text = f"addr {verb} {self.pick(ADDRESSES)}/{length}"
        odd = ["brd +", "brd 10.9.0.99", "peer 10.9.9.9", "peer 10.9.9.9/24", "scope link", "scope host", "scope site"]
        return f"{text}{self.maybe(0.15, ' ', odd)} dev {self.pick(DEVICES)}"

    def command(self) -> str:
        kind = self.random.choices(
            ["address", "forget", "link", "add", "del", "rule", "no rule"], [22, 8, 12, 30, 10, 10, 8]
        )[0]
        if kind == "address":
            return self.address()
        if kind == "forget":
            return f"addr del {self.pick(ADDRESSES)} dev {self.pick(DEVICES)}"
        if kind == "link":
            return f"link set {self.pick(DEVICES)} {self.pick(['up', 'up', 'down', 'mtu 1400', 'mtu 900'])}"
        if kind in ("add", "del"):
            return self.route(self.pick(["add", "add", "add", "append", "replace"]) if kind == "add" else "del")
        return self.rule("add" if kind == "rule" else "del")

    def question(self) -> Question:
        r = self.random
        source = r.choice([None, None, None, r.choice(ADDRESSES), r.choice([*ADDRESSES, "10.6.0.77", "10.99.0.1"])])
        oif = r.choice([None, None, None, *DEVICES])
        how = r.choice(["", "", "freebind", "transparent"])
        return Question(
            self.pick(TARGETS), source, oif, r.choice([0, 0, 1, 2, 0x15]), r.choice([0, 0, 0, 0x10, 8]), how
        )


@pytest.mark.parametrize("rules", [False, True], ids=["without rules", "with rules"])
@pytest.mark.parametrize("seed", range(int(os.environ.get("FOURTUPLE_ROUTE_SEEDS", "12"))))
def test_any_commands_leave_both_with_the_same_routing(seed: int, rules: bool) -> None:
    dice = Dice(seed)
    steps: list[str | Question] = [*TWO_LINKS]
    for _ in range(30):
        command = dice.command()
        if rules or not command.startswith("rule"):
            steps += [command, *(dice.question() for _ in range(12))]
    judge(*steps)
