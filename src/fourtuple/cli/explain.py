"""Why a connect() failed and what helps: sentences made from what the attempt saw."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass

from fourtuple import kernel_map as km
from fourtuple.cli.attempt import Attempt
from fourtuple.cli.steps import grouped
from fourtuple.errors import errno_name, reason_for
from fourtuple.sysctl import Sysctls

_WIDER = ((15000, 64999), (1024, 65535))


@dataclass(frozen=True)
class Explanation:
    """An errno with its reason."""

    errno: str
    meaning: str
    """strerror."""
    function: str
    """The kernel function that decides."""
    reason: str
    frees: tuple[str, ...] = ()
    not_it: tuple[str, ...] = ()


def explain(attempt: Attempt) -> Explanation:
    """The explanation of `attempt.error`."""
    code = attempt.error
    if code == errno.EADDRNOTAVAIL and not attempt.bind_code:
        return _no_port(attempt)
    if code == errno.ENETUNREACH and _found_a_route(attempt):
        return _no_single_host(attempt)
    known = reason_for("bind" if attempt.bind_code else "connect", code)
    reason = known.reason
    if code == errno.EDEADLK:
        reason = "nothing is left that could ever end this wait: the simulated connect() would sleep for ever"
    return Explanation(errno_name(code), os.strerror(code), known.function, reason, known.frees)


def _found_a_route(attempt: Attempt) -> bool:
    return any(record.fn == km.FN_IP_ROUTE_CONNECT and record.a == 0 for record in attempt.records)


def _no_single_host(attempt: Attempt) -> Explanation:
    """tcp_v4_connect() refuses a route whose flags say RTCF_MULTICAST or RTCF_BROADCAST."""
    return Explanation(
        "ENETUNREACH",
        os.strerror(errno.ENETUNREACH),
        "tcp_v4_connect",
        f"{attempt.request.address} is a multicast or broadcast address, and TCP connects two hosts",
        ("the address of one host",),
    )


def _no_port(attempt: Attempt) -> Explanation:
    if any(record.fn == km.FN__INET_HASH_CONNECT and record.d == 0 for record in attempt.records):
        return _bound_port(attempt)
    sysctl = attempt.wire.host.sysctls
    low, high = sysctl.port_low, sysctl.port_high
    tuple_text = f"{attempt.local_address}:* → {attempt.request.address}:{attempt.request.port}"
    counts = attempt.verdicts
    unseen = high - low + 1 - counts.total()
    if set(counts) == {km.LOOK_ESTABLISHED} and not unseen:
        reason = f"every port of {low}–{high} has this exact four-tuple already: {tuple_text}"
    else:
        parts = ", ".join(f"{grouped(number)} {_WHY[verdict]}" for verdict, number in counts.most_common())
        reason = f"no port of {low}–{high} can be had for {tuple_text}: {parts}"
    if unseen > 0:
        reason += f"; {unseen} not looked at, as Linux walks an even number of ports"
    return Explanation(
        "EADDRNOTAVAIL",
        os.strerror(errno.EADDRNOTAVAIL),
        "__inet_hash_connect",
        reason,
        tuple(_frees(attempt, sysctl)),
        tuple(_not_it(attempt)),
    )


_WHY = {
    km.LOOK_ESTABLISHED: "have this four-tuple already",
    km.LOOK_RESERVED: "reserved",
    km.LOOK_BUCKET_BOUND: "held by a bind()",
    km.LOOK_TIME_WAIT: "in TIME_WAIT",
}


def _bound_port(attempt: Attempt) -> Explanation:
    request = attempt.request
    return Explanation(
        "EADDRNOTAVAIL",
        os.strerror(errno.EADDRNOTAVAIL),
        "__inet_check_established",
        f"port {request.source_port} was chosen by bind(), so no other is tried, and its four-tuple is taken",
        ("no port in bind(): connect() then finds a free one",),
    )


def _frees(attempt: Attempt, sysctl: Sysctls) -> Iterator[str]:
    low, high = sysctl.port_low, sysctl.port_high
    ports = high - low + 1
    for wider_low, wider_high in _WIDER:
        if wider_low <= low and wider_high >= high and (wider_low, wider_high) != (low, high):
            more = grouped(wider_high - wider_low + 1 - ports)
            yield f'a wider range: sysctl -w net.ipv4.ip_local_port_range="{wider_low} {wider_high}"  +{more} ports'
            break
    walked = ports & ~1 if ports > 1 else ports
    yield f"another source address, server port or server address  +{grouped(walked)} each"
    counts = attempt.verdicts
    if counts[km.LOOK_RESERVED]:
        yield f"fewer net.ipv4.ip_local_reserved_ports  +{grouped(counts[km.LOOK_RESERVED])}"
    if counts[km.LOOK_TIME_WAIT]:
        number = grouped(counts[km.LOOK_TIME_WAIT])
        yield f"time: a TIME_WAIT lasts 60 s; net.ipv4.tcp_tw_reuse=1 lets it be taken over after 1 s  +{number}"
    if counts[km.LOOK_BUCKET_BOUND]:
        number = grouped(counts[km.LOOK_BUCKET_BOUND])
        yield f"IP_BIND_ADDRESS_NO_PORT where a program binds nothing but its address  +{number}"


def _not_it(attempt: Attempt) -> Iterator[str]:
    yield "closing connections to other destinations"
    yield "a larger ulimit -n"
    if not attempt.verdicts[km.LOOK_TIME_WAIT]:
        yield "tcp_tw_reuse"
