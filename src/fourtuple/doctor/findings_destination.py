"""Findings about one destination: ports that run out, the cliff, SYNs without an answer, connections left half open.

The kernel's rules behind them: net/ipv4/inet_hashtables.c, __inet_hash_connect and __inet_check_established.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from fourtuple.doctor.finding import CRITICAL, NOTE, WARNING, Finding, Fix
from fourtuple.doctor.fixes import LOCAL_PORT_RANGE, OPTION_SINCE, Fixes, ordered
from fourtuple.doctor.idle import idle_evidence
from fourtuple.doctor.predict import ODD_RANGE
from fourtuple.doctor.reading import CLOSE_WAIT, SYN_SENT
from fourtuple.doctor.time_waits import TimeWaits, time_wait_ages
from fourtuple.doctor.words import duration, endpoint, grouped, percent, plural, port_list

if TYPE_CHECKING:
    from fourtuple.doctor.answers import Prediction
    from fourtuple.doctor.reading import Reading

_FULL_RULE = "__inet_hash_connect: a port is free while its 4-tuple (source, port, destination, port) is not in use"
_CLIFF_RULE = "__inet_hash_connect looks at all ports of one parity before the first of the other"
_MANY_SHARE = 0.2
_NEAR_CLIFF = 0.9
"""Share of the first parity."""
_RESENT_OFTEN = 3
_MANY_CLOSE_WAIT = 100
_DETAILED = 6
"""Destinations with a finding of their own; where more are ill, one cause is behind them."""


def destination_findings(
    reading: Reading, predictions: Sequence[Prediction], fixes: Fixes, warn: float, crit: float
) -> Iterator[Finding]:
    """One for each destination that is near its limits."""
    ill = [p for p in predictions if p.errno or p.fill >= warn]
    for p in ill[:_DETAILED]:
        yield _ports_finding(reading, p, fixes, crit)
    for p in predictions:
        waiting = p.by_state.get("TIME_WAIT", 0)
        if p not in ill and waiting >= _MANY_SHARE * p.ports_in_range:
            yield _time_wait(reading, p, fixes)


def _ports_finding(reading: Reading, p: Prediction, fixes: Fixes, crit: float) -> Finding:
    kind, severity, title = _state_of(p, crit, _first_parity_ports(reading))
    rows = reading.rows_to(p)
    holders = reading.holders(rows)
    idle = fixes.idle(p)
    return Finding(
        kind,
        severity,
        endpoint(p.destination, p.port),
        title,
        (*_evidence(p), *_time_wait_evidence(reading, p), *([idle_evidence(idle)] if idle else [])),
        holders,
        _FULL_RULE if kind in ("full", "near-full") else _CLIFF_RULE,
        _helping(
            [
                fixes.port_range_option(p) if kind != "full" else None,
                fixes.pool(p, holders, idle) if p.by_state.get("ESTABLISHED", 0) else None,
                keep_alive() if _cause(p) == "time-wait" else None,
                fixes.other_source(p),
                fixes.other_destination(p) if p.errno else None,
                fixes.tcp_tw_reuse(p),
                fixes.wider_range(p),
            ]
        ),
        tuple(_not_it(reading, p, fixes, kind)),
        p.reasons if p.inferred else (),
        _cause(p),
        p,
    )


def _helping(fixes: Sequence[Fix | None]) -> tuple[Fix, ...]:
    """In order, without those after which connect() fails as before."""
    return ordered(fix for fix in fixes if fix and not (fix.after and fix.after.errno))


def _state_of(p: Prediction, crit: float, first: str) -> tuple[str, str, str]:
    """Kind, severity, title."""
    if p.errno:
        surely = "fails" if p.errno_certain else "most likely fails"
        source = "" if p.source == "*" else f" from {p.source}"
        return "full", CRITICAL, f"the next connect(){source} {surely}: {p.errno}"
    severity = CRITICAL if p.fill >= crit else WARNING
    if p.fill >= crit:
        return "near-full", severity, f"{plural(p.free.likely, 'port')} left, then EADDRNOTAVAIL{_cost_clause(p)}"
    if p.to_cliff_ports.likely == 0:
        return "past-cliff", severity, f"past half: {_are_taken(first)} first"
    if _first_share(p) >= _NEAR_CLIFF:
        left = plural(p.to_cliff_ports.likely, "connection")
        return "near-cliff", severity, f"{left} more, then each connect() walks {first} first"
    cliff = plural(p.to_cliff_ports.likely, "connection")
    return "filling", severity, f"{percent(p.fill)} of the ports are in use; the cliff is {cliff} away"


def _are_taken(first: str) -> str:
    one = first.startswith("the one")
    return f"{first} {'is' if one else 'are'} taken, each connect() walks {'over it' if one else 'them all'}"


def _first_parity_ports(reading: Reading) -> str:
    """`all 14 116 even ports`; of 3 ports in all the last one is out of reach."""
    low, high = reading.port_range
    number = 1 if high - low == 2 else (high - low) // 2 + 1
    parity = "odd" if low & 1 else "even"
    return f"the one {parity} port" if number == 1 else f"all {grouped(number)} {parity} ports"


def _first_share(p: Prediction) -> float:
    return 1 - p.free_first.likely / max(1, (p.ports_in_range + 1) // 2)


def _cost_clause(p: Prediction) -> str:
    if p.to_cliff_ports.likely or p.cost_us.likely < 2 * p.baseline_us.likely:
        return ""
    return f"; past half, so each connect() takes {duration(p.cost_us.likely)}"


def _evidence(p: Prediction) -> Iterator[str]:
    states = ", ".join(f"{grouped(n)} {name}" for name, n in sorted(p.by_state.items(), key=lambda pair: -pair[1]))
    own = f"{grouped(p.used_in_range_ports)} by this destination's" + (f" ({states})" if states else "")
    taken = p.ports_in_range - p.free.likely
    inferred = min(p.shut_likely_ports, taken - p.used_in_range_ports - p.reserved_ports - p.shut_sure_ports)
    others = [
        (p.reserved_ports, "reserved"),
        (p.shut_sure_ports, "by listeners and bound sockets"),
        (max(0, inferred), "by bind(addr, 0), inferred"),
    ]
    if p.ports_in_range == 3:
        others.append((taken - p.used_in_range_ports - sum(n for n, _ in others), "that no search looks at"))
    parts = [own, *(f"{grouped(n)} {what}" for n, what in others if n > 0)]
    yield f"{grouped(taken)} of {plural(p.ports_in_range, 'port')} taken: {', '.join(parts)}"
    if not p.errno and p.passed.mean >= 1:
        cost = p.cost_us
        yield (
            f"each connect() passes over {plural(round(p.passed.mean), 'port')} on average, "
            f"{grouped(p.passed.p95)} in one of 20: {duration(cost.low)} to {duration(cost.high)}, "
            f"{duration(p.baseline_us.likely)} when empty"
        )
    if not p.free.is_exact:
        free = f"{grouped(p.free.low)} to {grouped(p.free.high)} ports free"
        yield f"{free}, {grouped(p.free.likely)} most likely" if p.inferred else f"{free}: {ODD_RANGE}"
    if 0 < p.failing_share < 1:
        yield f"the next connect() fails from {percent(p.failing_share)} of the starts that its search may have"


def _time_wait_evidence(reading: Reading, p: Prediction) -> Iterator[str]:
    if reading.state.sockets.stamps_known and (ages := time_wait_ages(reading, p)).all:
        yield _stamps(ages)
    if _cause(p) != "time-wait":
        return
    waiting = plural(p.by_state["TIME_WAIT"], "connection")
    yield f"TIME_WAIT: {waiting} that this side closed first; each keeps its port for 60 s"
    if p.time_wait_blocking_ports and reading.system.sysctls.tcp_tw_reuse == 2:
        yield "tcp_tw_reuse is 2: it takes over TIME_WAITs towards 127.0.0.0/8 and ::1 only"


def _stamps(ages: TimeWaits) -> str:
    """What tcp_tw_reuse takes over, or would; after --probe."""
    text = f"{grouped(ages.stamped)} of {plural(ages.all, 'TIME_WAIT')} had timestamps: tcp_tw_reuse takes no others"
    young = f"; {grouped(ages.young)} of them are too young, the last for {grouped(ages.young_ms)} ms more"
    return text + young * bool(ages.young)


def _cause(p: Prediction) -> str:
    waiting = min(p.by_state.get("TIME_WAIT", 0), p.used_in_range_ports)
    shares = {
        "connections": p.used_in_range_ports - waiting,
        "time-wait": waiting,
        "bound": p.shut_sure_ports + p.shut_likely_ports,
        "reserved": p.reserved_ports,
    }
    return max(shares, key=shares.__getitem__)


def _not_it(reading: Reading, p: Prediction, fixes: Fixes, kind: str) -> Iterator[str]:
    yield _ulimit(reading)
    table = reading.system.conntrack
    if table is None:
        yield "conntrack (off, or not to be seen)"
    elif not table.maximum or table.used < 0.8 * table.maximum:
        yield f"conntrack ({grouped(table.used)} of {grouped(table.maximum)})"
    if why := fixes.why_no_tw_reuse(p):
        yield why
    if kind == "full" and reading.kernel_version >= OPTION_SINCE:
        yield f"{LOCAL_PORT_RANGE} (takes the cliff away, adds no port)"


def _ulimit(reading: Reading) -> str:
    """Descriptors give EMFILE from socket(), never EADDRNOTAVAIL."""
    known = [limit for limit in reading.limits.values() if limit.used is not None and limit.soft]
    if not known:
        return "ulimit -n (that is EMFILE)"
    worst = max(known, key=lambda limit: (limit.used or 0) / limit.soft)
    return f"ulimit -n ({grouped(worst.used or 0)} of {grouped(worst.soft)})"


def _time_wait(reading: Reading, p: Prediction, fixes: Fixes) -> Finding:
    waiting = p.by_state["TIME_WAIT"]
    fix = fixes.tcp_tw_reuse(p)
    return Finding(
        "time-wait",
        NOTE,
        endpoint(p.destination, p.port),
        f"{plural(waiting, 'TIME_WAIT')}: connections are closed by this side and their ports wait 60 s",
        tuple(_evidence(p)),
        (),
        "tcp_time_wait: who closes first keeps the 4-tuple for TCP_TIMEWAIT_LEN = 60 s; no sysctl shortens that",
        ordered([keep_alive(), fix]),
        tuple(filter(None, [fixes.why_no_tw_reuse(p), "tcp_fin_timeout (FIN_WAIT2 only)"])),
        p.reasons if p.inferred else (),
        "time-wait",
        p,
    )


def keep_alive() -> Fix:
    """What ends TIME_WAITs for good."""
    return Fix("process", "keep connections and reuse them, or let the server close first", effect="no TIME_WAIT here")


# ------------------------------------------------------------------------------------------ by state of the sockets


def resent_syns(reading: Reading) -> Iterator[Finding]:
    """Destinations that do not answer."""
    sockets, groups = reading.sockets, reading.groups
    if not reading.rows_in_state(SYN_SENT):
        return
    for g in range(len(groups)):
        rows = [row for row in groups.rows(g) if sockets.state[row] == SYN_SENT] if groups.count(g, SYN_SENT) else []
        resent = [row for row in rows if sockets.retrans[row]]
        if resent:
            yield _resent(reading, g, rows, resent)


def _resent(reading: Reading, g: int, rows: list[int], resent: list[int]) -> Finding:
    groups, sockets = reading.groups, reading.sockets
    address, port = sockets.address(groups.family[g], groups.daddr[g]), groups.dport[g]
    most = max(sockets.retrans[row] for row in resent)
    through = groups.count(g, 1)
    often = most >= _RESENT_OFTEN or len(resent) >= _RESENT_OFTEN
    answers = f"{plural(through, 'other')} to it are ESTABLISHED" if through else "nobody is connected to it"
    where = "loss, or its accept queue is full" if through else "a firewall that drops, a wrong route, or it is down"
    sysctls = reading.system.sysctls
    retries = sysctls.tcp_syn_retries + sysctls.tcp_syn_linear_timeouts
    return Finding(
        "resent-syn",
        WARNING if often else NOTE,
        endpoint(address, port),
        f"no answer: {plural(len(resent), 'SYN')} sent again, up to {most} time{'s' * (most > 1)}",
        (f"{grouped(len(rows))} in SYN_SENT, {grouped(len(resent))} of them resent; {answers}: {where}",),
        reading.holders(resent),
        f"tcp_retransmit_timer: ETIMEDOUT after {retries} SYNs sent again (tcp_syn_retries): fourtuple syn-schedule",
        (
            Fix("process", "a timeout of its own for connect(): settimeout(), SO_SNDTIMEO",
                effect="fails when the program wants, not the kernel"),
            Fix("server", "see where the SYN ends", f"tcpdump -n host {address} and port {port}", "SYN out, none in"),
        ),
        ("ports (a SYN was sent, so one was found)",),
    )  # fmt: skip


def close_waits(reading: Reading) -> Iterator[Finding]:
    """Destinations that have closed connections which the program here keeps."""
    groups = reading.groups
    least = max(_MANY_CLOSE_WAIT, 0.01 * (reading.port_range[1] - reading.port_range[0] + 1))
    if reading.sockets.count_by_state().get(CLOSE_WAIT, 0) < least:
        return
    for g in range(len(groups)):
        count = groups.count(g, CLOSE_WAIT)
        if count >= least:
            rows = [row for row in groups.rows(g) if reading.sockets.state[row] == CLOSE_WAIT]
            yield Finding(
                "close-wait",
                WARNING,
                endpoint(reading.sockets.address(groups.family[g], groups.daddr[g]), groups.dport[g]),
                f"{plural(count, 'connection')} in CLOSE_WAIT: the peer has closed, the program here has not",
                (),
                reading.holders(rows),
                "tcp_fin: CLOSE_WAIT lasts until the program calls close(); the kernel never ends it",
                (
                    Fix(
                        "process",
                        "close() when recv() returns b'' or an error",
                        effect="each frees a port and a descriptor",
                    ),
                ),
                ("TIME_WAIT, tcp_tw_reuse, tcp_fin_timeout",),
            )


def self_connected(reading: Reading) -> Iterator[Finding]:
    """Sockets connected to themselves."""
    sockets, groups = reading.sockets, reading.groups
    for g in range(len(groups)):
        if groups.saddr[g] == groups.daddr[g]:
            port = groups.dport[g]
            rows = [row for row in groups.rows(g) if sockets.sport[row] == port and sockets.state[row] != 6]
            if rows:
                yield _self_connected(reading, g, rows)


def _self_connected(reading: Reading, g: int, rows: list[int]) -> Finding:
    groups = reading.groups
    port = groups.dport[g]
    subject = endpoint(reading.sockets.address(groups.family[g], groups.daddr[g]), port)
    reserved = port_list(reading.reserved | {port})
    return Finding(
        "self-connected",
        WARNING,
        subject,
        "a socket is connected to itself: it reads what it writes, and the server cannot listen there",
        (f"nobody listened on {port}, connect() was tried again and again, and once got {port} as its own port",),
        reading.holders(rows),
        "tcp_rcv_synsent_state_process: a SYN that meets its own socket is a simultaneous open (RFC 9293 3.5)",
        (
            Fix("process", "after connect(): if getsockname() == getpeername(), close and try again later",
                effect="the port is free for the server"),
            Fix("namespace", f"reserve {port}, so that connect() never takes it",
                reading.sysctl("ip_local_reserved_ports", reserved),
                "ECONNREFUSED while no server is there", what_if={"ip_local_reserved_ports": reserved}),
        ),
    )  # fmt: skip
