"""When a SYN that nobody answers is sent again, and when connect() gives up: asked of the engine, in simulated time.

Lives here: one Host whose packets go nowhere, its timers run as they fall due, and what was seen.
Does not live here: any rule about timeouts; those are in tcp/timer.py, and nothing here computes a time.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from fourtuple.address import parse_ipv4
from fourtuple.host import Host
from fourtuple.kernel_map import FN_TCP_RESET_XMIT_TIMER, FN_TCP_RETRANSMIT_TIMER, FN_TCP_WRITE_TIMEOUT
from fourtuple.sock.af_inet import pack_sockaddr_in
from fourtuple.sock.option_kinds import IPPROTO_TCP
from fourtuple.sock.sol_tcp import TCP_SYNCNT, TCP_USER_TIMEOUT
from fourtuple.sock.wait import Wait
from fourtuple.trace import Record, Tracer, records
from fourtuple.wire.tcp import SYN

_NO_SYSCTLS: Mapping[str, str] = MappingProxyType({})

_START_US = 1_000_000_000
"""A machine that has been up for 1,000 s: a timestamp of 0 means "none" to TCP."""

_MOST_TIMEOUTS = 300
"""More than any setting allows: 127 tcp_syn_retries + 127 tcp_syn_linear_timeouts."""

_PORTS = "net.ipv4.ip_local_"
"""Sysctls that say which ports may be used: no time depends on them, and there may be none left."""

# What set the wait behind a SYN
FIRST, LINEAR, DOUBLED, CAPPED, USER_TIMEOUT = "first", "linear", "doubled", "capped", "user_timeout"
# Why connect() gave up
RETRIES, BUDGET = "retries", "budget"


@dataclass(frozen=True)
class SynSchedule:
    """The SYNs of one connect() that nobody answers."""

    profile: str
    sent_us: tuple[int, ...]
    """Each SYN, from connect() on."""
    end_us: int
    """When connect() gives up."""
    errno: int
    """With what: ETIMEDOUT."""
    rules: tuple[str, ...] = field(default=())
    """For each SYN what set the wait behind it: first, linear, doubled, capped (TCP_RTO_MAX) or user_timeout."""
    ended_by: str = RETRIES
    """retries (all used up), budget (the time they stand for is over) or user_timeout."""

    @property
    def gaps_us(self) -> tuple[int, ...]:
        """The wait behind each SYN."""
        return tuple(b - a for a, b in zip(self.sent_us, (*self.sent_us[1:], self.end_us), strict=True))


def syn_schedule(
    profile: str = "6.18", sysctls: Mapping[str, str] = _NO_SYSCTLS, syncnt: int = 0, user_timeout_ms: int = 0
) -> SynSchedule:
    """Run one connect() into a black hole.

    `sysctls` are full names and texts; `syncnt` is TCP_SYNCNT and `user_timeout_ms` TCP_USER_TIMEOUT, 0: not set.
    OSError with Linux's errno for a value that it refuses, ValueError for an unknown profile.
    """
    tracer = Tracer(None, capacity=4096)
    used = {name: text for name, text in sysctls.items() if not name.startswith(_PORTS)}
    host = Host(now_us=_START_US, sysctl=used, max_sockets=16, trace=tracer, profile=profile)
    host.add_link("ft0", addrs=("10.64.0.2/24",))
    fd = host.sys_socket()
    _set(host, fd, "TCP_SYNCNT", TCP_SYNCNT, syncnt)
    _set(host, fd, "TCP_USER_TIMEOUT", TCP_USER_TIMEOUT, user_timeout_ms)
    wait = host.sys_connect(fd, pack_sockaddr_in(parse_ipv4("10.64.0.1"), 80))
    if not isinstance(wait, Wait):
        raise OSError(-wait, "connect() did not begin")
    sent = _run(host, wait)
    return _observed(profile, sent, host.now_us, -wait.result, list(records(tracer)), user_timeout_ms)


def _set(host: Host, fd: int, name: str, option: int, value: int) -> None:
    if value and (err := host.sys_setsockopt(fd, IPPROTO_TCP, option, struct.pack("=I", value & 0xFFFFFFFF))) < 0:
        raise OSError(-err, f"{name} = {value}")


def _run(host: Host, wait: Wait) -> list[int]:
    """Let time pass until the call returns; when its SYNs left."""
    sent = _syns(host)
    for _ in range(_MOST_TIMEOUTS):
        due = host.next_timeout()
        if wait.is_done() or due is None:
            break
        host.handle_timeout(due)
        sent += _syns(host)
        wait.poll()
    if not wait.is_done():
        raise OSError(errno.ETIME, f"no end after {len(sent)} SYNs")
    return sent


def _syns(host: Host) -> list[int]:
    """Times of the SYNs that are to be sent; nobody gets them."""
    return [sent.time_us for sent in host.take_packets() if sent.packet[20 + 13] & SYN]


def _observed(
    profile: str, sent: list[int], end_us: int, code: int, trace: list[Record], user_timeout_ms: int
) -> SynSchedule:
    start = sent[0]
    last = [record for record in trace if record.fn == FN_TCP_WRITE_TIMEOUT][-1]
    used_up = last.b >= last.c
    ended_by = RETRIES if used_up else USER_TIMEOUT if user_timeout_ms else BUDGET
    return SynSchedule(profile, tuple(at - start for at in sent), end_us - start, code, _rules(trace), ended_by)


def _rules(trace: list[Record]) -> tuple[str, ...]:
    """Told from what the timer reported: its timeout and backoff before, and what it was set to."""
    fired = [record for record in trace if record.fn == FN_TCP_RETRANSMIT_TIMER]
    armed = [record.b for record in trace if record.fn == FN_TCP_RESET_XMIT_TIMER]
    rules = [FIRST]
    for this, following, delay in zip(fired, fired[1:], armed[1:], strict=False):
        if delay < following.b:
            rules.append(USER_TIMEOUT)
        elif following.c == this.c:
            rules.append(LINEAR)
        else:
            rules.append(DOUBLED if following.b == 2 * this.b else CAPPED)
    return tuple(rules)
