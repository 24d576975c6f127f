"""Trace records as text: depth, columns, long port searches, the packets' ladder, the chart."""

from __future__ import annotations

import io
from itertools import count

import pytest

from fourtuple import kernel_map as km
from fourtuple.cli.chart import Series, buckets, nanoseconds, render_chart
from fourtuple.cli.ladder import Packet, packet_words, render_ladder
from fourtuple.cli.render import render_steps, shorten_scans, wrap
from fourtuple.cli.steps import Names, describe, duration
from fourtuple.cli.terminal import Line, Terminal
from fourtuple.doctor.words import grouped
from fourtuple.trace import Record
from fourtuple.wire.build import tcp_packet
from tests.cli.golden import check_golden

SERVER, CLIENT = 0x0A400001, 0x0A400002
NAMES = Names({2: "ft0"}, lambda entry: "10.64.0.9:80" if entry == 6 else "", lost={0: "syn:1"})


class Recorder:
    """Makes records at 1.2 us from each other."""

    def __init__(self) -> None:
        self.now_ns = 5_000_000
        self.records: list[Record] = []

    def __call__(self, fn: int, a: int = 0, b: int = 0, c: int = 0, d: int = 0, after_us: float = 1.2) -> None:
        self.now_ns += round(after_us * 1000)
        self.records.append(Record(self.now_ns, fn, 1, a, b, c, d, self.now_ns // 1000))


def begin(r: Recorder) -> None:
    """A connect() up to its port search."""
    r(km.FN_SYS_CONNECT, 3, SERVER, 8080, 0)
    r(km.FN_SOCKFD_LOOKUP, 3, 1, 1, 7)
    r(km.FN_INET_STREAM_CONNECT, 1, 7)
    r(km.FN_TCP_V4_CONNECT, SERVER, 8080)
    r(km.FN_IP_ROUTE_CONNECT, 0, CLIENT, 2, 0)
    r(km.FN_TCP_SET_STATE, 7, 2)
    r(km.FN_INET_HASH_CONNECT, 0x5A3C91E0)
    r(km.FN__INET_HASH_CONNECT, 32768, 60999, 17112, 2)


def handshake_with_a_lost_syn() -> list[Record]:
    r = Recorder()
    begin(r)
    r(km.FN_PORT_LOOK, 49880, km.LOOK_ESTABLISHED, 4)
    r(km.FN_PORT_LOOK, 49882, km.LOOK_RESERVED)
    r(km.FN_PORT_LOOK, 49884, km.LOOK_TIME_WAIT, 41_000)
    r(km.FN_PORT_LOOK, 49886, km.LOOK_BUCKET_BOUND, 8)
    r(km.FN_PORT_LOOK, 49888, km.LOOK_JOINED, 6)
    r(km.FN_PORT_FOUND, 49888, 4, 10)
    r(km.FN_SECURE_TCP_SEQ_AND_TS_OFF, 0x5A3C91E0, 0x1C07)
    r(km.FN_TCP_CONNECT, 1460, 64240, 10, 7)
    r(km.FN_TCP_TRANSMIT_SKB, 2, 0x5A3C91E0)
    r(km.FN_IP_QUEUE_XMIT, 60, 2, 64)
    r(km.FN_TCP_RESET_XMIT_TIMER, 1, 1_000_000)
    r(km.FN_INET_WAIT_FOR_CONNECT, -1)
    r(km.FN_TCP_RETRANSMIT_TIMER, 0, 1_000_000, 0, 2, after_us=1_000_000)
    r(km.FN_TCP_RETRANSMIT_SKB, 2, 0x5A3C91E0, 1, 1)
    r(km.FN_TCP_TRANSMIT_SKB, 2, 0x5A3C91E0)
    r(km.FN_IP_QUEUE_XMIT, 60, 2, 64)
    r(km.FN_TCP_RESET_XMIT_TIMER, 1, 1_000_000)
    r(km.FN_IP_RCV, 60, SERVER, 6, after_us=31_000)
    r(km.FN_TCP_V4_RCV, 0x12, 77, 0x5A3C91E1)
    r(km.FN_INET_LOOKUP_ESTABLISHED, 2)
    r(km.FN_TCP_RCV_STATE_PROCESS, 2, 0x12, 77, 78)
    r(km.FN_TCP_RCV_SYNSENT_STATE_PROCESS, 0x12, 77, 0x5A3C91E1)
    r(km.FN_TCP_FINISH_CONNECT, 0, 65535, 1448)
    r(km.FN_TCP_SET_STATE, 2, 1)
    r(km.FN_TCP_SEND_ACK, 0x5A3C91E1, 78)
    r(km.FN_TCP_TRANSMIT_SKB, 0x10, 0x5A3C91E1, 78)
    r(km.FN_CONNECT_RETURNS, 0)
    return r.records


def full_range(ports: int = 2000) -> list[Record]:
    r = Recorder()
    begin(r)
    for parity in (0, 1):
        for port in range(40_000 + parity, 40_000 + ports, 2):
            verdict = km.LOOK_RESERVED if parity and port % 7 == 0 else km.LOOK_ESTABLISHED
            r(km.FN_PORT_LOOK, port, verdict, 4, after_us=0.3)
    r(km.FN_PORT_FOUND, -99)
    r(km.FN_CONNECT_RETURNS, -99)
    return r.records


def terminal(width: int, boxes: bool = True, ascii_only: bool = False) -> Terminal:
    return Terminal(io.StringIO(), False, boxes, ascii_only, width, True)


def written(lines: list[Line], to: Terminal) -> str:
    to.print(*lines)
    assert isinstance(to.stream, io.StringIO)
    return to.stream.getvalue()


STORIES = {"handshake": handshake_with_a_lost_syn, "full": full_range}


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("story", STORIES)
def test_a_trace_fits_its_width(story: str, width: int) -> None:
    to = terminal(width)
    text = written(render_steps(describe(STORIES[story](), NAMES, virtual=False), to), to)
    assert max(map(len, text.splitlines())) <= width
    check_golden(f"{story}-{width}.txt", text)


def test_a_verbose_trace_shows_every_function() -> None:
    to = terminal(120)
    text = written(render_steps(describe(handshake_with_a_lost_syn(), NAMES, False, verbose=True), to), to)
    check_golden("handshake-verbose.txt", text)


def test_in_ascii_the_columns_still_line_up() -> None:
    to = terminal(100, ascii_only=True)
    text = written(render_steps(describe(handshake_with_a_lost_syn(), NAMES, False), to), to)
    assert text.isascii()
    check_golden("handshake-ascii.txt", text)


def test_on_a_virtual_clock_a_time_is_shown_when_it_moves() -> None:
    records = [
        Record(0, km.FN_SYS_CONNECT, 1, 3, SERVER, 80, 0, 5_000),
        Record(0, km.FN_SOCKFD_LOOKUP, 1, 3, 1, 1, 7, 5_000),
        Record(0, km.FN_TCP_RETRANSMIT_TIMER, 1, 0, 1_000_000, 0, 2, 1_005_000),
    ]
    steps = describe(records, NAMES, virtual=True)
    assert [step.time_us for step in steps] == [0, None, 1_000_000]


def test_depth_follows_the_callers() -> None:
    steps = describe(handshake_with_a_lost_syn(), NAMES, False, verbose=True)
    depths = {step.name: step.depth for step in steps}
    assert depths["__sys_connect"] == 0
    assert depths["tcp_v4_connect"] == 2
    assert depths["tcp_reset_xmit_timer"] == 1  # the second time: below tcp_retransmit_timer
    assert depths["ip_rcv"] == 0
    assert depths["tcp_finish_connect"] == 4


def test_a_step_whose_caller_says_nothing_is_below_the_last_one() -> None:
    r = Recorder()
    r(km.FN_SYS_CONNECT, 3, SERVER, 80)
    r(km.FN_TCP_SET_STATE, 2, 7)
    assert [step.depth for step in describe(r.records, NAMES, False)] == [0, 1]


def test_an_unknown_function_is_shown_by_its_number() -> None:
    (step,) = describe([Record(0, 250, 1, 0, 0, 0, 0, 0)], NAMES, False)
    assert (step.name, step.text) == ("function 250", "")


def looks(*ports: int) -> list[str]:
    r = Recorder()
    for port in ports:
        r(km.FN_PORT_LOOK, port, km.LOOK_ESTABLISHED, 4)
    return [step.name for step in shorten_scans(describe(r.records, NAMES, False))]


def test_a_short_search_is_shown_whole() -> None:
    assert looks(40000, 40002) == ["│ 40000  in use", "└ 40002  in use"]
    assert len(looks(*range(40000, 40014, 2))) == 7


def test_a_long_search_is_a_line_for_each_parity_pass() -> None:
    ports = [*range(40000, 40100, 2), *range(40001, 40101, 2)]
    assert looks(*ports) == [
        "│ 40000  in use",
        "│ 40002  in use",
        "│ 40004  in use",
        "│ … 47 more even",
        "│ … 49 more odd",
        "└ 40099  in use",
    ]


def test_a_search_of_step_1_is_one_pass() -> None:
    assert looks(*range(40000, 40100))[3:5] == ["│ … 96 more", "└ 40099  in use"]


@pytest.mark.parametrize(
    ("us", "text"),
    [
        (0, "0 µs"),
        (12.4, "12 µs"),
        (999, "999 µs"),
        (1_500, "1.5 ms"),
        (31_000, "31.0 ms"),
        (1_031_000, "1.031 s"),
        (131_000_000, "131.0 s"),
    ],
)
def test_durations_have_units(us: float, text: str) -> None:
    assert duration(us) == text


@pytest.mark.parametrize(
    ("ns", "text"), [(420, "420 ns"), (3_700, "3.7 µs"), (6_000, "6.0 µs"), (720_000, "720 µs"), (1.7e6, "1.7 ms")]
)
def test_short_durations_have_units(ns: float, text: str) -> None:
    assert nanoseconds(ns) == text


def test_numbers_are_grouped() -> None:
    assert (grouped(999), grouped(28_232)) == ("999", "28 232")


def test_wrapping_cuts_at_spaces_and_keeps_long_words() -> None:
    assert wrap("a bb ccc dddd", 4, 6) == ["a bb", "ccc", "dddd"]
    assert wrap("abcdefgh i", 4, 4) == ["abcdefgh", "i"]
    assert wrap("", 4, 4) == []


SYN = tcp_packet(CLIENT, SERVER, 49886, 8080, 0x5A3C91E0, flags="S", window=64240, mss=1460)
SYN_ACK = tcp_packet(SERVER, CLIENT, 8080, 49886, 0x1C0FFEE0, 0x5A3C91E1, "SA")
ACK = tcp_packet(CLIENT, SERVER, 49886, 8080, 0x5A3C91E1, 0x1C0FFEE1, "A")
DATA = tcp_packet(SERVER, CLIENT, 8080, 49886, 0x1C0FFEE1, 0x5A3C91E1, "PA", payload=b"x" * 1200)


def test_the_ladder_shows_who_sent_what_and_what_was_lost() -> None:
    to = terminal(80)
    packets = [
        Packet(24, True, SYN, "syn:1"),
        Packet(1_000_031, True, SYN),
        Packet(1_031_000, False, SYN_ACK),
        Packet(1_031_020, True, ACK),
        Packet(1_040_000, False, DATA, "data:1"),
    ]
    text = written(render_ladder(packets, ("10.64.0.2:49886", "10.64.0.1:8080"), to), to)
    check_golden("ladder-80.txt", text)


def test_a_long_exchange_keeps_its_ends() -> None:
    to = terminal(80)
    text = written(render_ladder([Packet(i, True, SYN) for i in range(50)], ("a", "b"), to), to)
    assert len(text.splitlines()) == 18
    assert "… 34 more" in text


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("rule", ["5%", "syn:1", "rx-synack:1,2,3-9,11-13,50%", "tx-syn:" + "1," * 40 + "50"])
def test_the_right_end_of_the_ladder_is_straight(width: int, rule: str) -> None:
    to = terminal(width)
    packets = [
        Packet(0, outgoing, data, lost)
        for data in (SYN, SYN_ACK, ACK, DATA)
        for outgoing in (True, False)
        for lost in ("", rule)
    ]
    _head, *rungs = written(render_ladder(packets, ("10.64.0.2:49886", "10.64.0.1:8080"), to), to).splitlines()
    assert {len(rung) for rung in rungs} == {max(map(len, rungs))}
    assert max(map(len, rungs)) <= width
    assert all(rung.endswith("│") and ("lost" in rung) == (i % 2 == 1) for i, rung in enumerate(rungs))


def test_what_is_no_packet_is_said_in_one_line() -> None:
    assert packet_words(b"nonsense").startswith("IP [")


def test_a_bucket_is_a_median() -> None:
    assert buckets([1, 2, 30, 4, 5, 60], 2) == [2, 5]
    assert buckets([1, 2], 4) == [1, 1, 2, 2]


def test_a_chart_of_one_level_has_labels_above_and_below() -> None:
    to = terminal(80)
    text = written(render_chart([Series("ours", [3_700.0, 3_800.0] * 50, "good", "o")], to, 8, "in use"), to)
    assert [line.split()[0] + " µs" for line in text.splitlines() if "┤" in line] == ["10 µs", "1 µs"]


@pytest.mark.parametrize("boxes", [True, False])
def test_the_chart_shows_the_cliff(boxes: bool) -> None:
    to = terminal(80, boxes, not boxes)
    numbers = count()
    kernel = [5_000 + next(numbers) % 7 * 100 for _ in range(500)] + [
        90_000 + next(numbers) % 5 * 900 for _ in range(500)
    ]
    ours = [1_100 + next(numbers) % 3 * 50 for _ in range(1000)]
    series = [Series("kernel", kernel, "odd", "k"), Series("ours", ours, "good", "o")]
    check_golden(f"chart-{'boxes' if boxes else 'ascii'}.txt", written(render_chart(series, to, 8, "in use"), to))
