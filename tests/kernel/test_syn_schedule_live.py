"""The first seconds of SYN schedules, ours and the kernel's: SYNs, their gaps, the errno.

Each case has a namespace of its own (the sysctls are read when a timer fires) with a TUN that swallows packets, and
all run at once, each in a thread: unshare() is of the calling thread.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import subprocess
import threading
import time
from itertools import pairwise
from typing import Any

import pytest

from fourtuple.phy.tun import open_tun_fd
from fourtuple.sim.syn_schedule import SynSchedule, syn_schedule
from tests.kernel.netns import _unshare, in_namespace, needs_kernel

RETRIES, LINEAR = "net.ipv4.tcp_syn_retries", "net.ipv4.tcp_syn_linear_timeouts"
RTO_MAX = "net.ipv4.tcp_rto_max_ms"
WATCHED_S = 4.0
LATE = 1.125  # the kernel's timer wheel: a timer fires at most one eighth late, never early
TICK_S, BUSY_S = 0.004, 0.6  # one jiffy; how long this process may have to wait for a processor

CASES: dict[str, dict[str, Any]] = {
    "default": {},
    "linear 0": {"sysctls": {LINEAR: "0"}},
    "retries 1": {"sysctls": {RETRIES: "1"}},
    "retries 1, linear 0": {"sysctls": {RETRIES: "1", LINEAR: "0"}},
    "TCP_SYNCNT 1, linear 0": {"sysctls": {LINEAR: "0"}, "syncnt": 1},
    "TCP_SYNCNT 1": {"syncnt": 1},
    "TCP_USER_TIMEOUT 0.5 s": {"user_timeout_ms": 500},
    "TCP_USER_TIMEOUT 1.5 s": {"user_timeout_ms": 1500},
    "TCP_USER_TIMEOUT 2.5 s, linear 0": {"sysctls": {LINEAR: "0"}, "user_timeout_ms": 2500},
    "rto_max 1 s, retries 2, linear 0": {"sysctls": {RETRIES: "2", LINEAR: "0", RTO_MAX: "1000"}},
}


def _prepare(sysctls: dict[str, str]) -> int:
    """A TUN through which nothing comes back: its descriptor."""
    tun = open_tun_fd("t0")
    for command in ("addr add 10.64.0.2/24 dev t0", "link set t0 up"):
        subprocess.run(["ip", *command.split()], check=True)
    for name, value in sysctls.items():
        with open("/proc/sys/" + name.replace(".", "/"), "w") as file:
            file.write(value)
    return tun


def _watch(sysctls: dict[str, str] | None = None, syncnt: int = 0, user_timeout_ms: int = 0) -> dict[str, Any]:
    """When SYNs left in the first seconds, and how the attempt had ended by then."""
    _unshare()
    tun = _prepare(sysctls or {})
    client = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    client.setblocking(False)
    if syncnt:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_SYNCNT, syncnt)
    if user_timeout_ms:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, user_timeout_ms)
    with client:
        assert client.connect_ex(("10.64.0.1", 80)) == errno.EINPROGRESS
        return _until_it_ends(tun, client, time.monotonic())


def _until_it_ends(tun: int, client: socket.socket, start: float) -> dict[str, Any]:
    sent: list[float] = []
    end = None
    poll = select.poll()
    poll.register(tun, select.POLLIN)
    poll.register(client, select.POLLOUT)
    while end is None and (left := start + WATCHED_S - time.monotonic()) > 0:
        for fd, _ in poll.poll(left * 1000):
            now = time.monotonic() - start
            if fd == client.fileno():
                end = [now, client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)]
            elif (
                (packet := os.read(tun, 2048))[0] >> 4 == 4 and packet[9] == socket.IPPROTO_TCP and packet[20 + 13] == 2
            ):
                sent.append(now)
    return {"sent": sent, "end": end}


def _watch_all(cases: dict[str, dict[str, Any]]) -> dict[str, Any]:
    seen: dict[str, Any] = {}

    def watch(name: str) -> None:
        try:
            seen[name] = _watch(**cases[name])
        except Exception as error:
            seen[name] = {"error": repr(error)}

    threads = [threading.Thread(target=watch, args=(name,)) for name in cases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return seen


def _surely_seen(schedule: SynSchedule) -> list[float]:
    """The moments that even the latest timers bring within the time watched, the end among them."""
    moments = [us / 1e6 for us in (*schedule.sent_us, schedule.end_us)]
    return [at for at in moments if at * LATE < WATCHED_S - 0.2]


def _check(ours: SynSchedule, seen: dict[str, Any]) -> None:
    """Assert that the kernel's first seconds are those of `ours`."""
    expected = _surely_seen(ours)
    ends = len(expected) > len(ours.sent_us)
    assert (seen["end"] is not None) == ends
    moments = list(seen["sent"])
    if ends:
        assert len(seen["sent"]) == len(ours.sent_us)
        assert seen["end"][1] == ours.errno
        moments.append(seen["end"][0])
    assert len(moments) >= len(expected)
    for nominal, real in zip(pairwise(expected), pairwise(moments), strict=False):
        gap, real_gap = nominal[1] - nominal[0], real[1] - real[0]
        assert gap - TICK_S - 0.05 <= real_gap <= gap * LATE + BUSY_S


def _is_kept(case: str, seen: dict[str, Any]) -> bool:
    try:
        _check(syn_schedule(**CASES[case]), seen)
    except (AssertionError, KeyError):
        return False
    return True


@pytest.fixture(scope="module")
def kernel() -> dict[str, Any]:
    """What the kernel did, by case; once more for those that a busy machine may have spoilt."""
    seen: dict[str, Any] = in_namespace(_watch_all, CASES)
    again = {case: CASES[case] for case in CASES if not _is_kept(case, seen[case])}
    return seen | (in_namespace(_watch_all, again) if again else {})


@needs_kernel
@pytest.mark.parametrize("case", CASES)
def test_the_kernel_keeps_our_schedule(kernel: dict[str, Any], case: str) -> None:
    assert "error" not in kernel[case], kernel[case]
    _check(syn_schedule(**CASES[case]), kernel[case])


@needs_kernel
@pytest.mark.parametrize(
    ("case", "wrong"),
    [
        ("default", "linear 0"),
        ("linear 0", "default"),
        ("retries 1", "retries 1, linear 0"),
        ("retries 1", "default"),
        ("TCP_SYNCNT 1", "default"),
        ("TCP_USER_TIMEOUT 2.5 s, linear 0", "TCP_USER_TIMEOUT 1.5 s"),
        ("TCP_USER_TIMEOUT 1.5 s", "default"),
    ],
)
def test_a_wrong_schedule_would_be_noticed(kernel: dict[str, Any], case: str, wrong: str) -> None:
    with pytest.raises(AssertionError):
        _check(syn_schedule(**CASES[wrong]), kernel[case])
