"""The NAT stage of the live kernel: what is counted there, what is said of it, what the next connect() then does."""

from __future__ import annotations

import json
import re
import shlex
import socket
import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fourtuple.cli.main import main
from fourtuple.doctor.finding import Finding, Fix
from fourtuple.doctor.findings import Diagnosis, Question, diagnose
from fourtuple.doctor.nat_stage import NatGroup, nat_groups
from fourtuple.doctor.reading import Reading
from fourtuple.live import sockets
from fourtuple.live.snapshot import Snapshot, take_snapshot
from fourtuple.live.snapshot_file import decode, encode
from tests.cli.schema import check, load
from tests.doctor.nat import BEHIND, CLIENT, NAT_ADDRESS, OTHER_ADDRESS, PORT, SERVER, Natted, await_closing
from tests.live.space import needs_root

pytestmark = needs_root
SUBJECT = f"{SERVER}:{PORT}"
TEN = "ip daddr 203.0.113.1 tcp dport 443 snat to 10.77.0.9:2000-2009"


@pytest.fixture
def natted() -> Iterator[Natted]:
    with Natted() as made:
        yield made


def snapshot(natted: Natted) -> Snapshot:
    return take_snapshot(natted.client.path, routes=False)


def examine(natted: Natted, **asked: Any) -> Diagnosis:
    return diagnose(Reading.of_snapshot(snapshot(natted)), Question(**asked))


def nat_finding(natted: Natted, **asked: Any) -> Finding:
    (found,) = [each for each in examine(natted, **asked).findings if each.kind.startswith("nat")]
    return found


def group(natted: Natted) -> NatGroup:
    system = snapshot(natted).system
    (found,) = nat_groups(system, (6, 18))
    return found


def fix_of(found: Finding, words: str) -> Fix:
    return next(fix for fix in found.fixes if words in fix.what)


def type_in(natted: Natted, fix: Fix) -> None:
    """What the user would type, without the words that enter the namespace."""
    words = shlex.split(fix.command)
    assert words[:2] == ["nsenter", f"--net={natted.client.path}"]
    natted.client.command(*words[2:])


# ------------------------------------------------------------------------------------------ full


def test_a_full_nat_range_drops_the_next_syn_and_all_ports_of_the_address_help(natted: Natted) -> None:
    natted.snat(TEN)
    natted.hold(10)
    found = nat_finding(natted)
    assert (found.kind, found.severity, found.subject) == ("nat-full", "critical", SUBJECT)
    assert found.evidence[0] == "10 of 10 ports taken (2000–2009, of `ip t post: snat`)"
    before = natted.insert_failed()
    waiting = natted.client.try_connect(SERVER, PORT)
    assert not natted.dial()
    dropped = natted.insert_failed() - before
    waits = sockets(natted.client.path, states=["SYN_SENT"])
    assert len(waits) == 2 <= dropped <= 2 + sum(waits.retrans)  # each SYN of both
    type_in(natted, fix_of(found, "all ports"))
    before = natted.insert_failed()
    assert natted.dial()
    assert natted.insert_failed() == before
    waiting.settimeout(5)
    waiting.send(b"x")  # the SYN sent again gets through as well


def test_one_port_less_and_the_next_syn_finds_it(natted: Natted) -> None:
    natted.snat(TEN)
    natted.hold(9)
    found = nat_finding(natted)
    assert (found.kind, found.severity) == ("nat-near-full", "warning")
    assert group(natted).refused == (0.0, 0.0)
    assert natted.dial()
    assert nat_finding(natted).kind == "nat-full"


def test_a_second_nat_address_in_turn_lets_every_other_syn_through(natted: Natted) -> None:
    natted.snat(TEN)
    natted.hold(10)
    fix = fix_of(nat_finding(natted), "second NAT address")
    type_in(natted, fix)
    assert sorted(natted.dial() for _ in range(2)) == [False, True]
    used = {flows.address: flows.used for flows in natted.tracked().flows}
    assert used[NAT_ADDRESS] == 10 and sum(used.values()) == 11


def test_a_range_of_addresses_does_not_help_one_client(natted: Natted) -> None:
    """What the caution says: the address is chosen by client and destination."""
    natted.snat(f"tcp dport 443 snat to {NAT_ADDRESS}-{OTHER_ADDRESS}:2000-2009")
    natted.hold(10)
    assert not natted.dial()
    assert [flows.used for flows in natted.tracked().flows] == [10]
    assert nat_finding(natted).kind == "nat-full"


def test_without_nat_the_destination_is_reached_under_the_own_address(natted: Natted) -> None:
    natted.snat(TEN)
    natted.hold(10)
    for _ in range(10):
        natted.listener.accept()[0].close()
    type_in(natted, fix_of(nat_finding(natted), "no NAT"))
    assert natted.dial()
    accepted, peer = natted.listener.accept()
    accepted.close()
    assert peer[0] == CLIENT


def test_another_port_of_the_server_has_nat_ports_of_its_own(natted: Natted) -> None:
    natted.snat(f"meta l4proto tcp snat to {NAT_ADDRESS}:2000-2009")
    natted.hold(10)
    assert fix_of(nat_finding(natted), "another address or port").effect == "10 NAT ports of its own"
    natted.server.listen(SERVER, 8443)
    with socket_of(natted) as other:
        other.connect((SERVER, 8443))
    assert not natted.dial()


@contextmanager
def socket_of(natted: Natted) -> Iterator[socket.socket]:
    made = natted.client.socket()
    made.settimeout(5)
    yield made


def test_closing_entries_make_it_an_interval(natted: Natted) -> None:
    natted.snat(TEN)
    for one in natted.hold(10)[:4]:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        one.close()
    await_closing(natted, 4)
    found = group(natted)
    assert (found.used, found.closing, found.free, found.refused) == (10, 4, 0, (0.0, 1.0))
    finding = nat_finding(natted)
    assert (finding.kind, finding.severity) == ("nat-near-full", "critical")
    assert any("sequence number" in text for text in finding.inferred)
    through = sum(natted.dial() for _ in range(6))
    assert through <= 4


def test_asked_about_another_destination_it_is_not_said(natted: Natted) -> None:
    natted.snat(TEN)
    natted.hold(10)
    assert nat_finding(natted, addresses=(SERVER,), port=PORT).kind == "nat-full"
    assert examine(natted, addresses=("203.0.113.9",)).findings == ()
    assert examine(natted, port=80).findings == ()


def test_a_syn_that_nat_drops_is_not_said_to_have_met_a_silent_server(natted: Natted) -> None:
    natted.snat(TEN)
    natted.hold(10)
    one = natted.client.socket()
    one.settimeout(1.4)
    assert one.connect_ex((SERVER, PORT))
    found = examine(natted).findings
    assert [each.kind for each in found] == ["nat-full"]
    assert "1 socket here waits in SYN_SENT, the SYN sent again" in found[0].evidence


# ------------------------------------------------------------------------------------------ ranges over 128


@pytest.mark.parametrize(("free", "scattered"), [(10, False), (40, False), (2, True)])
def test_how_many_syns_find_no_port_of_a_wide_range(natted: Natted, free: int, scattered: bool) -> None:
    """400 ports.  What would leave is counted by its port, and dropped before conntrack keeps it: nothing changes."""
    low, high = 2000, 2399
    if scattered:
        gaps = [low + 60 * n for n in range(free)]
        for first, last in zip([low - 1, *gaps], [*gaps, high + 1], strict=True):
            if last - first > 1:
                natted.fill(first + 1, last - 1)
    else:
        gaps = [*range(high - free + 1, high + 1)]
        natted.fill(low, high - free)
    natted.snat(f"tcp dport 443 snat to {NAT_ADDRESS}:{low}-{high}")
    expected = group(natted).refused
    assert expected.low == expected.high
    assert group(natted).free == free
    tries = 400
    natted.client.command(
        "nft", "add chain ip t after { type filter hook postrouting priority 200; }; "
        f"add rule ip t after tcp dport 443 tcp flags syn tcp sport {{ {', '.join(map(str, gaps))} }} counter drop; "
        "add rule ip t after tcp dport 443 tcp flags syn counter drop",
    )  # fmt: skip
    for _ in range(tries):
        one = natted.client.socket()
        one.setblocking(False)
        one.connect_ex((SERVER, PORT))
        one.close()
    listing = natted.client.command("nft", "list chain ip t after")
    found, missed = (int(line.split("packets ")[1].split()[0]) for line in listing.splitlines() if "packets" in line)
    assert found + missed == tries
    error = (expected.low * (1 - expected.low) / tries) ** 0.5
    assert abs(missed / tries - expected.low) < 4 * error + 0.001


# ------------------------------------------------------------------------------------------ who is counted


def truth(natted: Natted) -> Counter[tuple[str, str, int]]:
    """TCP entries of /proc/net/nf_conntrack by NAT address, destination, port: of the reply, the second half."""
    found: Counter[tuple[str, str, int]] = Counter()
    for line in natted.client.run(Path("/proc/thread-self/net/nf_conntrack").read_text).splitlines():
        if " tcp " in line:
            reply = dict(word.split("=") for word in line.split()[8:] if "=" in word)
            found[reply["dst"], reply["src"], int(reply["sport"])] += 1
    return found


def test_the_counts_are_those_of_proc(natted: Natted) -> None:
    natted.snat(TEN)
    natted.hold(7)
    natted.snat(f"tcp dport 8443 snat to {OTHER_ADDRESS}:3000-3100")
    natted.server.listen(SERVER, 8443)
    for _ in range(5):
        with socket_of(natted) as one:
            one.connect((SERVER, 8443))
    found = {(flows.address, flows.destination, flows.port): flows.used for flows in natted.tracked().flows}
    assert not Path("/proc/net/nf_conntrack").exists() or found == truth(natted)
    assert found == {(NAT_ADDRESS, SERVER, PORT): 7, (OTHER_ADDRESS, SERVER, 8443): 5}


def test_connections_of_this_machine_take_ports_from_those_behind_it() -> None:
    with Natted(behind=True) as natted:
        natted.snat("oifname hole0 masquerade")
        for space, source in ((natted.client, CLIENT), (natted.behind, BEHIND)):
            space.connect(SERVER, PORT, (source, 40_000))
        assert not natted.client.command("nft", "list ruleset").count("drop")
        (flows,) = natted.tracked().flows
        assert (flows.address, flows.used, flows.several_clients) == (CLIENT, 2, True)
        assert int(flows.ports, 16) >> 40_000 & 1
        found = group(natted)
        assert (found.low, found.high, found.used, found.is_inferred) == (1024, 65535, 2, False)
        note = nat_finding(natted)
        assert (note.kind, note.severity) == ("nat", "note")
        assert note.evidence[0] == f"fullest: {CLIENT} to {SUBJECT}, 2 of 64 512 ports taken"


def test_who_is_behind_a_gateway_is_counted_there_and_meets_the_same_end() -> None:
    """The gateway has no socket of its own for those; what it says is true of them, and its fix helps them."""
    with Natted(behind=True) as natted:
        natted.snat(TEN)
        natted.hold(4)
        for _ in range(6):
            natted.behind.connect(SERVER, PORT)
        found = nat_finding(natted)
        assert (found.kind, found.subject) == ("nat-full", SUBJECT)
        assert natted.tracked().flows[0].several_clients
        assert len(sockets(natted.client.path)) == 4
        one = natted.behind.socket()
        one.settimeout(0.3)
        with pytest.raises(TimeoutError):
            one.connect((SERVER, PORT))
        type_in(natted, fix_of(found, "all ports"))
        natted.behind.connect(SERVER, PORT)


def test_one_client_that_keeps_its_ports_cannot_run_out_before_its_own_range(natted: Natted) -> None:
    natted.client.sysctl("net.ipv4.ip_local_port_range", "40000 40009")
    natted.snat(f"snat to {NAT_ADDRESS}")
    natted.hold(10)
    found = group(natted)
    assert (found.used, found.is_shared, found.refused) == (10, False, (0.0, 0.0))
    assert {each.kind for each in examine(natted).findings} == {"full", "nat"}


def test_without_a_rule_nothing_is_counted(natted: Natted) -> None:
    natted.hold(2)
    assert snapshot(natted).system.nat.tracked is None


# ------------------------------------------------------------------------------------------ how it is said


def test_why_etimedout_names_the_full_range(natted: Natted, capsys: pytest.CaptureFixture[str]) -> None:
    natted.snat(TEN)
    natted.hold(10)
    for words, told in ((["--dest", SUBJECT], True), ([], True), (["--dest", "203.0.113.9:443"], False)):
        main(["why", "ETIMEDOUT", "-N", natted.client.path, "--json", *words])
        paths = json.loads(capsys.readouterr().out)["paths"]
        (verdict,) = [each for each in paths if each["function"] == "__nf_conntrack_confirm"]
        assert (verdict["verdict"] == "yes") == told
        assert (f"to {SUBJECT}: 10 of 10 ports taken of {NAT_ADDRESS}" in str(verdict)) == told


@pytest.mark.parametrize("width", [80, 120])
def test_a_command_can_be_pasted_from_the_page(
    natted: Natted, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    natted.snat(TEN)
    natted.hold(10)
    assert main(["doctor", "-N", natted.client.path, "--all"]) == 11
    out = capsys.readouterr().out
    assert re.search(rf"^✗ {SUBJECT} .* SYN dropped$", out, re.MULTILINE)
    pasted = re.sub(r" \\\n +", " ", out)
    commands = [line.strip() for line in pasted.splitlines() if "insert rule" in line]
    assert commands == [fix.command for fix in nat_finding(natted).fixes if fix.command]


def test_the_document_is_that_of_the_schema(natted: Natted, capsys: pytest.CaptureFixture[str]) -> None:
    natted.snat(TEN)
    natted.hold(10)
    assert not natted.dial()
    assert main(["doctor", "-N", natted.client.path, "--json"]) == 11
    document = json.loads(capsys.readouterr().out)
    check(load("doctor-1"), document)
    nat = document["namespaces"][0]["nat"]
    assert (nat["known"], nat["rules"]) == (True, ["ip t post: snat"])
    assert nat["insert_failed"] >= 1
    (found,) = nat["groups"]
    assert (found["address"], found["dst"], found["dport"]) == (NAT_ADDRESS, SERVER, PORT)
    assert (found["port_low"], found["port_high"], found["ports"], found["used"], found["free"]) == (
        2000,
        2009,
        10,
        10,
        0,
    )
    assert (found["syn_dropped_low"], found["syn_dropped_high"]) == (1, 1)


@pytest.mark.parametrize("words", ["all ports", "second NAT address", "no NAT"])
def test_in_a_table_for_both_families_the_commands_say_which(natted: Natted, words: str) -> None:
    natted.client.command(
        "nft", "delete table ip t; add table inet u; "
        "add chain inet u post { type nat hook postrouting priority 100; }",
    )  # fmt: skip
    natted.snat("tcp dport 443 snat ip to 10.77.0.9:2000-2009", "inet u post")
    natted.hold(10)
    type_in(natted, fix_of(nat_finding(natted), words))
    assert any(natted.dial() for _ in range(2))


# ------------------------------------------------------------------------------------------ a file


def test_a_snapshot_says_the_same_and_an_anonymous_one_under_other_names(natted: Natted) -> None:
    natted.snat(TEN)
    natted.hold(10)
    taken = snapshot(natted)
    (back,) = decode(encode([taken]))
    assert back.system.nat == taken.system.nat
    (hidden,) = decode(encode([taken.anonymized()]))
    assert not {"10.77.0", "203.0.113", "t post"} & {text for text in ("10.77.0", "203.0.113", "t post")
                                                     if text in str(hidden.system.nat)}  # fmt: skip
    (found,) = [f for f in diagnose(Reading.of_snapshot(hidden), Question()).findings if f.kind == "nat-full"]
    assert found.evidence[0].startswith("10 of 10 ports taken (2000–2009")
