"""Logs: what strace 6.1 has printed of a real program, and lines of programs' own logs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fourtuple.doctor.strace import Failed, Log, read_log
from fourtuple.doctor.why import PATHS, paths_of, still_possible

TO_9 = 'connect({fd}, {{sa_family=AF_INET, sin_port=htons(9), sin_addr=inet_addr("127.0.0.1")}}, 16)'
BIND_0 = 'bind({fd}, {{sa_family=AF_INET, sin_port=htons(0), sin_addr=inet_addr("127.0.0.1")}}, 16)'
SOCKET = "socket(AF_INET, SOCK_STREAM|SOCK_CLOEXEC, IPPROTO_IP)"
NO_ADDRESS = "= -1 EADDRNOTAVAIL (Cannot assign requested address)"

RECORDED = (Path(__file__).parent / "strace.txt").read_text()


def read(text: str) -> Log:
    return read_log(line + b"\n" for line in text.encode().splitlines())


def only(log: Log) -> Failed:
    ((failed, _),) = log.ranked
    return failed


def test_a_recorded_run_is_told_call_by_call() -> None:
    log = read(RECORDED)
    assert log.is_strace
    told = {(f.call, f.errno, f.address, f.port, f.bound, f.has_port): n for f, n in log.failed.items()}
    assert told == {
        ("connect", "ECONNREFUSED", "127.0.0.1", 9, "127.0.0.1:0", False): 1,  # IP_BIND_ADDRESS_NO_PORT
        ("connect", "ECONNREFUSED", "127.0.0.1", 9, "", False): 3,  # two at once, one from SO_ERROR
        ("connect", "ECONNREFUSED", "::1", 9, "", False): 1,
        ("bind", "EADDRINUSE", "127.0.0.1", 5999, "", True): 1,
        ("connect", "EINVAL", "203.0.113.1", 80, "127.0.0.1:0", True): 1,
        ("bind", "EADDRNOTAVAIL", "203.0.113.7", 0, "", False): 1,
    }
    assert (log.in_progress, log.other_sockets) == (1, 3)  # AF_UNIX once, UDP twice
    assert all(pids == {4711} for pids in log.pids.values())


def test_a_loopback_source_is_among_the_paths_that_are_left() -> None:
    failed = next(f for f in read(RECORDED).failed if f.errno == "EINVAL")
    left = still_possible(paths_of("EINVAL", "connect"), failed.family, failed.has_port, failed.at_once)
    assert "__mkroute_output" in {path.function for path in left}
    assert not [path for path in left if path.family == 6]


@pytest.mark.parametrize(
    ("before", "functions"),
    [
        ((), ["__inet_hash_connect", "__inet_hash_connect"]),
        ((BIND_0.format(fd=3) + " = 0",), ["__inet_check_established"]),
        (
            ("setsockopt(3, SOL_IP, IP_BIND_ADDRESS_NO_PORT, [1], 4) = 0", BIND_0.format(fd=3) + " = 0"),
            ["__inet_hash_connect", "__inet_hash_connect"],
        ),
    ],
)
def test_whether_bind_came_before_decides_which_path_it_can_be(before: tuple[str, ...], functions: list[str]) -> None:
    failed = only(read("\n".join([SOCKET + " = 3", *before, TO_9.format(fd=3) + NO_ADDRESS.rjust(60)])))
    left = still_possible(paths_of(failed.errno, failed.call), failed.family, failed.has_port, failed.at_once)
    assert [path.function for path in left] == functions


def test_a_call_cut_in_two_is_one_call() -> None:
    log = read(
        f"[pid 11] {SOCKET} = 3\n"
        f"[pid 12] {SOCKET} = 3\n"
        f"[pid 11] {TO_9.format(fd=3)[:-1]} <unfinished ...>\n"
        f"[pid 12] {TO_9.format(fd=3).replace('127.0.0.1', '10.0.0.2')[:-1]} <unfinished ...>\n"
        f"[pid 12] <... connect resumed>) {NO_ADDRESS}\n"
        "[pid 11] <... connect resumed>) = 0\n"
    )
    assert (only(log).address, log.pids[only(log)], log.calls) == ("10.0.0.2", {12}, 2)


@pytest.mark.parametrize(
    "head",
    [
        "",
        "4711  ",
        "[pid  4711] ",
        "10:17:48.182721 ",
        "4711 1700000000.123456 ",
        "[pid 1] 10:17:48 ",
        "     0.000123 ",
    ],
)
def test_every_way_that_strace_begins_a_line(head: str) -> None:
    assert only(read(f"{head}{TO_9.format(fd=3)} {NO_ADDRESS} <0.000012>")).address == "127.0.0.1"


@pytest.mark.parametrize("fd", ["3<socket:[81023]>", "3<TCP:[81023]>", "3<TCP:[127.0.0.1:4->127.0.0.1:9]>"])
def test_descriptors_that_strace_has_decoded(fd: str) -> None:
    log = read(f"{SOCKET} = {fd}\n{BIND_0.format(fd=fd)} = 0\n{TO_9.format(fd=fd)} {NO_ADDRESS}")
    assert (only(log).bound, only(log).address) == ("127.0.0.1:0", "127.0.0.1")


def test_a_number_that_is_used_again_is_another_socket() -> None:
    log = read(f"{SOCKET} = 3\n{BIND_0.format(fd=3)} = 0\nclose(3) = 0\n{SOCKET} = 3\n{TO_9.format(fd=3)} {NO_ADDRESS}")
    assert only(log).bound == ""


def test_without_the_socket_call_nobody_knows_whether_it_was_bound() -> None:
    assert only(read(f"{TO_9.format(fd=3)} {NO_ADDRESS}")).has_port is None


@pytest.mark.parametrize(
    ("line", "errno", "to"),
    [
        ("OSError: [Errno 99] Cannot assign requested address", "EADDRNOTAVAIL", ("", 0)),
        ("ConnectionRefusedError: [Errno 111] Connect call failed ('10.0.0.1', 80)", "ECONNREFUSED", ("10.0.0.1", 80)),
        ("dial tcp 10.1.2.3:443: connect: cannot assign requested address", "EADDRNOTAVAIL", ("10.1.2.3", 443)),
        ("Error: connect EADDRNOTAVAIL [2001:db8::1]:443 - Local", "EADDRNOTAVAIL", ("2001:db8::1", 443)),
        ("connect() to 10.0.0.1:80 failed (110: Connection timed out)", "ETIMEDOUT", ("10.0.0.1", 80)),
        ("write failed: errno=98", "EADDRINUSE", ("", 0)),
    ],
)
def test_lines_of_other_logs(line: str, errno: str, to: tuple[str, int]) -> None:
    log = read(line)
    assert not log.is_strace
    assert (only(log).errno, (only(log).address, only(log).port)) == (errno, to)


@pytest.mark.parametrize(
    "line", ["", "all is well", "[Errno 2] No such file", "SERVED 200", "Invalid argument", "errno 0"]
)
def test_lines_about_something_else(line: str) -> None:
    assert read(line).failed == {}


@given(st.lists(st.binary(max_size=120), max_size=20))
def test_any_bytes_are_read(lines: list[bytes]) -> None:
    log = read_log(lines)
    assert log.lines == len(lines)


@given(st.data())
def test_a_damaged_recording_is_read(data: st.DataObject) -> None:
    raw = bytearray(RECORDED.encode())
    for at in data.draw(st.lists(st.integers(0, len(raw) - 1), max_size=40)):
        raw[at] = data.draw(st.integers(0, 255))
    log = read_log(bytes(raw).splitlines())
    assert sum(log.failed.values()) <= 60
    for failed in log.failed:
        assert 0 <= failed.port <= 99_999


def test_a_line_without_an_end_takes_no_time() -> None:
    """The patterns look at 4,096 characters of it, and none of them walks them again and again."""
    for piece in (b"connect(", b"(((((((", b"= -1 E", b"<... connect resumed>", b"[pid 1] ", b"1 ", b"('1.2.3.4', 1"):
        assert read_log([piece * 100_000]).lines == 1


def test_every_path_can_be_left() -> None:
    """No path is shut out by its own facts."""
    for path in PATHS:
        assert path in still_possible(PATHS, path.family, path.bound, False), re.escape(path.function)


@pytest.mark.parametrize("port", ["65536", "99999", "99999999999999"])
def test_a_number_that_no_port_has_is_no_endpoint(port: str) -> None:
    call = f'connect(3, {{sa_family=AF_INET, sin_port=htons({port}), sin_addr=inet_addr("127.0.0.1")}}, 16)'
    failed = only(read(f"{SOCKET} = 3\n{call} {NO_ADDRESS}"))
    assert (failed.errno, failed.address, failed.port) == ("EADDRNOTAVAIL", "", 0)
    failed = only(read(f"OSError: [Errno 111] Connection refused: 10.0.0.1:{port}"))
    assert (failed.errno, failed.address, failed.port) == ("ECONNREFUSED", "", 0)
