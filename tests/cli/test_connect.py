"""`fourtuple connect` from end to end, on the simulated wire; on a real TUN where this machine allows it."""

from __future__ import annotations

import errno
import io
import json
import os
import re
from typing import Any

import pytest

from fourtuple.cli.attempt import Attempt, Request
from fourtuple.cli.main import main
from fourtuple.cli.story import answer_lines
from fourtuple.cli.terminal import Terminal, text_of
from fourtuple.shell.wires import Setup, open_sim, open_tun
from tests.cli.golden import check_golden
from tests.cli.schema import check, load

SERVER = "10.64.0.1:8080"


def connect(
    capsys: pytest.CaptureFixture[str], *options: str, to: str = SERVER, wire: str = "sim"
) -> tuple[int, str, str]:
    """(exit code, stdout, stderr)."""
    code = main(["connect", to, "--wire", wire, "--seed", "7", *options])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def report(capsys: pytest.CaptureFixture[str], *options: str, **where: str) -> dict[str, Any]:
    """The JSON document, found to be what the schema says."""
    code, out, err = connect(capsys, "--json", *options, **where)
    document: dict[str, Any] = json.loads(out)
    check(load("connect-1"), document)
    assert document["exit"] == code
    assert err == (f"fourtuple: {document['result']['errno']} ({_meaning(document)})\n" if code == 29 else "")
    return document


def _meaning(document: dict[str, Any]) -> str:
    return os.strerror(getattr(errno, document["result"]["errno"]))


# ------------------------------------------------------------------------------------------------ text

STORIES = {
    "plain": [],
    "http": ["--http"],
    "lost-syn": [
        "--loss",
        "syn:1",
        "--rtt",
        "30ms",
        "--range",
        "49000-49039",
        "--fill",
        "40%",
        "--reserve",
        "49010-49015",
    ],
    "full": ["--fill", "100%"],
    "past-half": ["--range", "40000-40999", "--fill", "60%"],
    "source": ["--source", "10.64.0.2:40000"],
    "verbose": ["-v"],
}


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("story", STORIES)
def test_the_text_of_a_run_is_known(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, story: str, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    _, out, err = connect(capsys, *STORIES[story])
    assert err == ""
    assert max(map(len, out.splitlines())) <= width
    check_golden(f"connect-{story}-{width}.txt", out)


def test_a_seed_repeats_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert connect(capsys, "--loss", "30%") == connect(capsys, "--loss", "30%")


def test_without_a_seed_one_is_drawn_and_printed(capsys: pytest.CaptureFixture[str]) -> None:
    main(["connect", SERVER, "--wire", "sim"])
    found = re.search(r"seed (\d+)", capsys.readouterr().out)
    assert found is not None


def test_quiet_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = connect(capsys, "-q")
    assert (code, out.count("\n")) == (0, 1)
    assert out.startswith("connect() = 0 in ")


def test_in_a_pipe_there_is_no_colour_and_there_are_no_boxes(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = connect(capsys, "--fill", "100%")
    assert "\x1b" not in out
    assert not set(out) & set("│└─▶◀█")


def test_colour_can_be_forced(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = connect(capsys, "--color", "always")
    assert "\x1b[32mconnect() = 0\x1b[0m" in out


def test_ascii_is_ascii(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = connect(capsys, "--ascii", "--loss", "syn:1", "--fill", "100%")
    assert out.isascii()


def test_an_empty_host_is_the_private_networks_server(capsys: pytest.CaptureFixture[str]) -> None:
    assert "10.64.0.1:8080" in connect(capsys, "-q", to=":8080")[1]


# ------------------------------------------------------------------------------------------------ results


def test_a_plain_connect(capsys: pytest.CaptureFixture[str]) -> None:
    document = report(capsys)
    assert document["result"]["errno"] is None
    assert document["source"]["address"] == "10.64.0.2"
    assert document["ports"]["verdicts"] == {"free": 1}
    functions = [step["function"] for step in document["steps"]]
    assert functions[:4] == ["__sys_connect", "sock_from_file", "inet_stream_connect", "tcp_v4_connect"]
    assert "tcp_finish_connect" in functions
    texts = [packet["text"] for packet in document["packets"] if packet["connect"]]
    assert [re.findall(r"Flags \[(.*?)\]", text)[0] for text in texts] == ["S", "S.", "."]


def test_a_page_from_the_server(capsys: pytest.CaptureFixture[str]) -> None:
    answer = report(capsys, "--http")["answer"]
    assert answer["status_line"] == "HTTP/1.1 200 OK"
    assert answer["body"] == "Hello from 10.64.0.1:8080, request 1.\n"


def test_text_can_be_sent(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = connect(capsys, "--send", "hello")
    assert code == 0
    assert "sent 5 bytes" in out


def test_a_lost_syn_is_sent_again_after_a_second(capsys: pytest.CaptureFixture[str]) -> None:
    document = report(capsys, "--loss", "syn:1", "--rtt", "30ms")
    assert document["result"]["duration_us"] == 1_030_000
    first, second, *_ = document["packets"]
    assert (first["lost"], first["time_us"]) == ("syn:1", 0)
    assert (second["lost"], second["time_us"]) == (None, 1_000_000)


def test_nobody_answers(capsys: pytest.CaptureFixture[str]) -> None:
    document = report(capsys, "--loss", "syn")
    assert (document["result"]["errno"], document["exit"]) == ("ETIMEDOUT", 22)
    assert document["result"]["duration_us"] == 131_000_000
    seconds = [packet["time_us"] / 1e6 for packet in document["packets"]]
    assert seconds == [0, 1, 2, 3, 4, 5, 7, 11, 19, 35, 67]


def test_a_full_range(capsys: pytest.CaptureFixture[str]) -> None:
    document = report(capsys, "--fill", "100%")
    assert (document["result"]["errno"], document["exit"]) == ("EADDRNOTAVAIL", 20)
    assert document["ports"]["prefilled"] == document["ports"]["looked_at"] == 28_232
    assert document["ports"]["verdicts"] == {"established": 28_232}
    assert document["ports"]["looks_left_out"] == 27_232
    assert document["packets"] == []
    assert "+21 768 ports" in document["result"]["explanation"]["frees"][0]


def test_the_cliff_past_half(capsys: pytest.CaptureFixture[str]) -> None:
    document = report(capsys, "--fill", "50%")
    assert document["exit"] == 0
    assert document["ports"]["verdicts"] == {"established": 14_116, "free": 1}
    assert document["source"]["port"] % 2 == 1


def test_reserved_ports_are_passed_over(capsys: pytest.CaptureFixture[str]) -> None:
    document = report(capsys, "--range", "40000-40005", "--reserve", "40000,40002,40004")
    assert document["ports"]["verdicts"] == {"reserved": 3, "free": 1}
    assert document["ports"]["reserved"] == [[40000, 40000], [40002, 40002], [40004, 40004]]


def test_a_port_bound_before_needs_no_search(capsys: pytest.CaptureFixture[str]) -> None:
    document = report(capsys, "--source", "10.64.0.2:40000")
    assert document["source"] == {"address": "10.64.0.2", "port": 40_000}
    assert document["ports"]["looked_at"] == 0
    assert document["steps"][0]["function"] == "__sys_bind"


def test_a_source_address_alone_leaves_the_port_to_connect(capsys: pytest.CaptureFixture[str]) -> None:
    document = report(capsys, "--source", "10.64.0.77")
    assert document["source"]["address"] == "10.64.0.77"
    assert document["ports"]["looked_at"] == 1


def test_nobody_listens_at_home(capsys: pytest.CaptureFixture[str]) -> None:
    document = report(capsys, to="127.0.0.1:9")
    assert (document["result"]["errno"], document["exit"]) == ("ECONNREFUSED", 21)


def test_multicast_is_unreachable(capsys: pytest.CaptureFixture[str]) -> None:
    document = report(capsys, to="224.0.0.1:80")
    assert (document["result"]["errno"], document["exit"]) == ("ENETUNREACH", 23)


def test_a_timeout_leaves_the_attempt_open(capsys: pytest.CaptureFixture[str]) -> None:
    document = report(capsys, "--loss", "syn", "--timeout", "2.5s")
    assert (document["result"]["errno"], document["exit"]) == ("EINPROGRESS", 29)
    assert document["result"]["duration_us"] == 2_500_000


def test_a_loopback_source_does_not_leave_the_machine(capsys: pytest.CaptureFixture[str]) -> None:
    document = report(capsys, "--source", "127.0.0.5:40000")
    assert (document["result"]["errno"], document["result"]["call"]) == ("EINVAL", "connect")
    assert document["exit"] == 29
    why = document["result"]["explanation"]
    assert (why["function"], why["reason"]) == (
        "ip_route_connect",
        "no packet with the source 127.0.0.5 may leave this host",
    )


def test_a_privileged_port_can_be_the_source_of_root(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(capsys, "--source", "10.64.0.2:22")["source"]["port"] == 22


def test_filling_towards_home_uses_the_loopback_source(capsys: pytest.CaptureFixture[str]) -> None:
    document = report(capsys, "--fill", "100%", to="127.0.0.1:9")
    assert (document["exit"], document["ports"]["verdicts"]) == (20, {"established": 28_232})


def test_the_watching_begins_with_the_call(capsys: pytest.CaptureFixture[str]) -> None:
    """Setting SO_SNDTIMEO or IP_BIND_ADDRESS_NO_PORT before is no part of connect()."""
    for options in (["--timeout", "5s"], ["--source", "10.64.0.77"]):
        assert report(capsys, *options)["steps"][0]["function"] in ("__sys_connect", "__sys_bind")


def test_the_syn_is_transmitted_before_its_timer_is_set(capsys: pytest.CaptureFixture[str]) -> None:
    functions = [step["function"] for step in report(capsys)["steps"]]
    first = functions.index("tcp_connect")
    assert functions[first : first + 4] == ["tcp_connect", "tcp_transmit_skb", "ip_local_out", "tcp_reset_xmit_timer"]


def test_a_loss_is_told_where_the_lost_packet_was_sent(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = connect(capsys, "--loss", "syn:2")
    sent = [line for line in out.splitlines() if " tcp_transmit_skb " in line]
    assert [("lost (syn:2)" in line) for line in sent] == [False, False]
    _, out, _ = connect(capsys, "--loss", "syn:1,synack:1")
    sent = [line for line in out.splitlines() if " tcp_transmit_skb " in line]
    assert [("lost (syn:1)" in line) for line in sent] == [True] + [False] * (len(sent) - 1)
    assert not any("lost (synack:1)" in line for line in sent)


def test_a_loss_is_told_in_a_narrow_terminal_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    rule = "tx-syn:1,1001,1002,1003"
    _, out, _ = connect(capsys, "--loss", rule)
    assert f"lost ({rule})" in out.partition("connect() = 0")[0].partition("10.64.0.2:")[0]


def test_in_a_narrow_terminal_a_search_in_vain_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert "none is left" in connect(capsys, "--fill", "100%")[1]


def test_nothing_is_wider_than_the_terminal_on_a_real_wire(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tun: str
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    _, out, _ = connect(capsys, "--fill", "100%", to="10.64.200.199:65535", wire=tun)
    assert "unwatched the same call takes" in " ".join(out.split())
    assert max(map(len, out.splitlines())) <= 80


def test_nobody_can_listen_on_port_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(capsys, to=":0")["exit"] == 21
    assert "peer  10.64.0.1, where nobody can listen on port 0\n" in connect(capsys, to=":0")[1]


def test_an_address_of_the_peer_is_no_source_of_ours(capsys: pytest.CaptureFixture[str]) -> None:
    document = report(capsys, "--source", "10.64.0.1")
    assert (document["result"]["errno"], document["result"]["call"]) == ("EADDRNOTAVAIL", "bind")


def test_a_source_address_that_was_added_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert "from  8.8.8.8, made an address of ours\n" in connect(capsys, "--source", "8.8.8.8")[1]
    assert "made an address of ours" not in connect(capsys, "--source", "10.64.0.2")[1]


def test_a_source_port_alone_is_bound_on_every_address(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(capsys, "--source", ":40000")["source"] == {"address": "10.64.0.2", "port": 40_000}


@pytest.mark.parametrize("address", ["224.0.0.1", "255.255.255.255", "10.64.0.255"])
def test_tcp_has_no_multicast_and_no_broadcast(capsys: pytest.CaptureFixture[str], address: str) -> None:
    why = report(capsys, to=f"{address}:80")["result"]["explanation"]
    assert why["function"] == "tcp_v4_connect"
    assert why["reason"] == f"{address} is a multicast or broadcast address, and TCP connects two hosts"
    assert f"peer  none: another machine cannot have {address}\n" in connect(capsys, to=f"{address}:80")[1]


def test_a_class_e_address_is_as_good_as_any(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(capsys, to="240.0.0.1:80")["exit"] == 0


def test_linux_leaves_out_one_port_of_an_odd_number(capsys: pytest.CaptureFixture[str]) -> None:
    document = report(capsys, "--range", "40000-40010", "--fill", "100%")
    assert (document["exit"], document["ports"]["looked_at"]) == (20, 10)
    why = document["result"]["explanation"]
    assert why["reason"].endswith("; 1 not looked at, as Linux walks an even number of ports")
    assert "every port" not in why["reason"]
    assert why["frees"][1] == "another source address, server port or server address  +10 each"


def test_what_helps_helps(capsys: pytest.CaptureFixture[str]) -> None:
    """Reserved ports stay reserved in a wider range, and for every destination."""
    why = report(capsys, "--range", "40000-40009", "--reserve", "1-39999,40002-40009,40011-65535", "--fill", "100%")
    frees = why["result"]["explanation"]["frees"]
    assert frees == [
        'a wider range: sysctl -w net.ipv4.ip_local_port_range="15000 64999"  +1 port',
        "another source address, server port or server address  +2 each",
        "fewer net.ipv4.ip_local_reserved_ports  +8",
    ]
    why = report(capsys, "--reserve", "1-65535")
    assert why["result"]["explanation"]["frees"] == ["fewer net.ipv4.ip_local_reserved_ports  +28 232"]


def test_one_held_four_tuple_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert "\nfill  1 four-tuple to " in connect(capsys, "--range", "40000-40000", "--fill", "100%")[1]


@pytest.mark.parametrize(
    ("answer", "lines"),
    [
        (
            b"HTTP/1.1 200 \x1b[31mOK\r\n\r\na\tb\r\n\x1b]0;x\x07",
            ["HTTP/1.1 200 �[31mOK · ", "  a       b", "  �]0;x�"],
        ),
        (b"HTTP/1.1 200 " + b"O" * 9000 + b"\r\n\r\n" + b"x" * 9000, ["HTTP/1.1 200 OO", "  xxxx"]),
        (b"\x1b" * 3000, ["no HTTP · 3 000 bytes in "]),
        (
            b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (1 << 20),
            ["HTTP/1.1 200 OK · 1 048 595 bytes in 0 µs, the rest was not", "  x"],
        ),
    ],
    ids=["escapes", "long lines", "nothing to show", "cut"],
)
def test_an_answer_is_told_in_lines_that_fit_and_obey_nothing(answer: bytes, lines: list[str]) -> None:
    with open_sim(Setup()) as wire:
        attempt = Attempt(Request("10.64.0.1", 8080, payload=b"x", wants_answer=True), wire, answer=answer)
        told = [
            text_of(line) for line in answer_lines(attempt, Terminal(io.StringIO(), False, False, False, 80, False))
        ]
    assert [line[: len(start)] for line, start in zip(told, lines, strict=True)] == lines
    assert all(line.isprintable() and len(line) <= 80 for line in told)


def test_bytes_that_are_no_text_can_be_sent(capsys: pytest.CaptureFixture[str]) -> None:
    assert "sent 1 byte" in connect(capsys, "--send", "\udcff")[1]


# ------------------------------------------------------------------------------------------------ the real wire


def test_real_packets_reach_the_kernels_server(capsys: pytest.CaptureFixture[str], tun: str) -> None:
    document = report(capsys, "--http", wire=tun)
    assert (document["exit"], document["wire"]["virtual_time"]) == (0, False)
    assert document["answer"]["status_line"] == "HTTP/1.1 200 OK"
    assert document["steps"][0]["time_us"] == 0


def test_a_real_syn_is_lost(capsys: pytest.CaptureFixture[str], tun: str) -> None:
    document = report(capsys, "--loss", "syn:1", wire=tun)
    assert document["exit"] == 0
    assert 1_000_000 <= document["result"]["duration_us"] < 2_000_000


def test_a_full_range_sends_no_real_packet(capsys: pytest.CaptureFixture[str], tun: str) -> None:
    document = report(capsys, "--fill", "100%", wire=tun)
    assert (document["exit"], document["packets"]) == (20, [])


def test_an_address_far_away_is_made_local_in_the_namespace(capsys: pytest.CaptureFixture[str], tun: str) -> None:
    code, out, _ = connect(capsys, to="203.0.113.7:80", wire=tun)
    assert code == 0
    assert "peer  an HTTP server at 203.0.113.7:80, made local in the namespace\n" in out


def test_no_packet_is_older_than_the_step_that_made_it(capsys: pytest.CaptureFixture[str], tun: str) -> None:
    document = report(capsys, wire=tun)
    at = {step["function"]: step["time_us"] for step in document["steps"]}
    syn, synack, ack = [packet["time_us"] for packet in document["packets"] if packet["connect"]]
    assert at["tcp_connect"] - 1 <= syn <= synack <= at["tcp_v4_rcv"] + 1 <= ack + 2


def test_a_real_wire_sleeps_by_the_microsecond(monkeypatch: pytest.MonkeyPatch, tun: str) -> None:
    """By the millisecond, --rtt 5ms became 7 ms."""
    asked: list[float] = []

    def select(readers: object, writers: object, others: object, timeout: float) -> None:
        asked.append(timeout)

    with open_tun(Setup()) as wire:
        monkeypatch.setattr("fourtuple.shell.loop.select.select", select)
        wire.runner.sleep_until(wire.runner.now_us() + 700)
    assert 0 <= asked[0] <= 0.0007


def test_a_descriptor_too_large_for_select_is_polled(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tun: str
) -> None:
    monkeypatch.setattr("fourtuple.shell.loop._MOST_SELECT", 0)
    assert report(capsys, "--rtt", "3ms", wire=tun)["exit"] == 0


def test_class_e_on_the_real_wire(capsys: pytest.CaptureFixture[str], tun: str) -> None:
    assert report(capsys, to="240.0.0.1:80", wire=tun)["exit"] == 0


def test_auto_takes_the_tun(capsys: pytest.CaptureFixture[str], tun: str) -> None:
    assert report(capsys, wire="auto")["wire"]["name"] == "tun"
