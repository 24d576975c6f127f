"""Why a connect() failed and what helps: sentences made from what the attempt saw."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass

from fourtuple import kernel_map as km
from fourtuple.address import format_ipv4
from fourtuple.cli.attempt import Attempt
from fourtuple.doctor.words import grouped
from fourtuple.errors import errno_name, reason_for
from fourtuple.inet.hashtables import port_is_reserved
from fourtuple.sysctl import Sysctls
from fourtuple.wire.build import IcmpPacket, parse_packet
from fourtuple.wire.text import icmp_text

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
    if message := last_icmp(attempt):
        return _icmp(code, message)
    if code == errno.ENETUNREACH and _found_a_route(attempt):
        return _no_single_host(attempt)
    if code == errno.EINVAL and attempt.request.source and not attempt.bind_code and not _found_a_route(attempt):
        return _no_such_source(attempt.request.source)
    known = reason_for("bind" if attempt.bind_code else "connect", code)
    reason = known.reason
    if code == errno.EDEADLK:
        reason = "nothing is left that could ever end this wait: the simulated connect() would sleep for ever"
    return _explanation(code, known.function, reason, known.frees)


def _explanation(
    code: int, function: str, reason: str, frees: tuple[str, ...] = (), not_it: tuple[str, ...] = ()
) -> Explanation:
    return Explanation(errno_name(code), os.strerror(code), function, reason, frees, not_it)


def _found_a_route(attempt: Attempt) -> bool:
    return any(record.fn == km.FN_IP_ROUTE_CONNECT and record.a == 0 for record in attempt.records)


def last_icmp(attempt: Attempt) -> IcmpPacket | None:
    """The ICMP message that ended a connect(): nothing else came behind it."""
    arrived = [packet.data for packet in attempt.segments if not packet.outgoing and not packet.lost]
    if not arrived or attempt.code in (errno.ETIMEDOUT, errno.EINPROGRESS):
        return None
    packet = parse_packet(arrived[-1])
    return packet if isinstance(packet, IcmpPacket) else None


def _icmp(code: int, message: IcmpPacket) -> Explanation:
    """tcp_v4_err() ends a connect() with what icmp_err_convert[] has for the message."""
    sender = format_ipv4(message.src)
    return _explanation(
        code,
        "tcp_v4_err",
        f"{sender} answered the SYN with an ICMP message: {icmp_text(message)}",
        (f"a route, or a firewall rule, that lets it pass at {sender}",),
    )


def _no_such_source(source: str) -> Explanation:
    """__mkroute_output() lets a loopback source out by lo only."""
    return _explanation(
        errno.EINVAL,
        "ip_route_connect",
        f"no packet with the source {source} may leave this host",
        ("no bind(), or one to an address of a real device",),
    )


def _no_single_host(attempt: Attempt) -> Explanation:
    """tcp_v4_connect() refuses a route whose flags say RTCF_MULTICAST or RTCF_BROADCAST."""
    return _explanation(
        errno.ENETUNREACH,
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
    return _explanation(
        errno.EADDRNOTAVAIL,
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
    return _explanation(
        errno.EADDRNOTAVAIL,
        "__inet_check_established",
        f"port {request.source_port} was chosen by bind(), so no other is tried, and its four-tuple is taken",
        ("no port in bind(): connect() then finds a free one",),
    )


def _frees(attempt: Attempt, sysctl: Sysctls) -> Iterator[str]:
    low, high = sysctl.port_low, sysctl.port_high
    h = attempt.wire.host.net.h
    for wider_low, wider_high in _WIDER:
        if not (wider_low <= low and wider_high >= high):
            continue
        more = sum(not port_is_reserved(h, port) for port in (*range(wider_low, low), *range(high + 1, wider_high + 1)))
        if more:
            wider = f'sysctl -w net.ipv4.ip_local_port_range="{wider_low} {wider_high}"'
            yield f"a wider range: {wider}  +{grouped(more)} port{'' if more == 1 else 's'}"
            break
    counts = attempt.verdicts
    if elsewhere := counts[km.LOOK_ESTABLISHED] + counts[km.LOOK_TIME_WAIT]:
        yield f"another source address, server port or server address  +{grouped(elsewhere)} each"
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
