"""Findings about the ports of the whole namespace: who takes them from everybody, and how the range is set."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from fourtuple.doctor.finding import CRITICAL, NOTE, WARNING, Finding, Fix
from fourtuple.doctor.fixes import NODE_PORTS, Fixes, effect, on_kubernetes_node, ordered
from fourtuple.doctor.reading import TIME_WAIT, Holder
from fourtuple.doctor.words import duration, grouped, percent, plural, port_list, some_of
from fourtuple.live.tables import LIKELY_SHUT

if TYPE_CHECKING:
    from fourtuple.doctor.answers import HeldPort, Prediction
    from fourtuple.doctor.reading import Reading

_HOARD_SHARE, _FEW_PORTS = 0.01, 10
_PRIVILEGED = 1024
_EVERYBODY = "every destination"


def port_findings(reading: Reading, fixes: Fixes) -> Iterator[Finding]:
    """All of this module."""
    yield from nothing_left(reading, fixes)
    yield from bind_before_connect(reading, fixes)
    yield from listeners_in_range(reading)
    yield from reserved_parity(reading, fixes)
    yield from odd_range(reading, fixes)
    yield from range_over_others(reading)


def nothing_left(reading: Reading, fixes: Fixes) -> Iterator[Finding]:
    """No port for anybody: reserved ports, bind() and listeners have the whole range."""
    anywhere = reading.state.anywhere()
    if not anywhere.errno:
        return
    shut = anywhere.shut_sure_ports + anywhere.shut_likely_ports
    parts = [(anywhere.reserved_ports, "reserved"), (shut, "taken by bind() or listen()")]
    surely = "fails" if anywhere.errno_certain else "most likely fails"
    yield Finding(
        "full",
        CRITICAL,
        _EVERYBODY,
        f"the next connect() {surely}, wherever it goes: {anywhere.errno}",
        (f"{plural(anywhere.ports_in_range, 'port')}: " + ", ".join(f"{grouped(n)} {what}" for n, what in parts if n),),
        (),
        "__inet_hash_connect: a port that is reserved, or that bind() took, is passed over whoever asks",
        ordered([_fewer_reserved(reading, fixes, anywhere), fixes.wider_range(anywhere)]),
        ("ulimit -n", "TIME_WAIT", "another source or destination (no port for these either)"),
        anywhere.reasons if anywhere.inferred else (),
        "reserved" if anywhere.reserved_ports > shut else "bound",
        anywhere,
    )


def _fewer_reserved(reading: Reading, fixes: Fixes, anywhere: Prediction) -> Fix | None:
    """Give back the reserved ports of the range, but those that somebody listens on."""
    low, high = reading.port_range
    left = port_list(port for port in reading.reserved if not low <= port <= high or port in reading.listeners)
    changes = {"ip_local_reserved_ports": left}
    then = fixes.after(changes, anywhere)
    if then.errno:
        return None
    command = reading.sysctl("ip_local_reserved_ports", left or '""')
    return Fix("namespace", "reserve fewer ports", command, effect(then), then, changes)


def bind_before_connect(reading: Reading, fixes: Fixes) -> Iterator[Finding]:
    """Ports that bind() took: nobody else's connect() can share them."""
    low, high = reading.port_range
    certainty = bytes(reading.state.tables.certainty[low : high + 1])
    if sum(certainty.count(c) for c in range(LIKELY_SHUT, 8)) < _FEW_PORTS:
        return
    held = [h for h in reading.state.ports_not_joinable("likely") if h.kind in ("bound", "connected", "time_wait")]
    if len(held) >= _FEW_PORTS:
        yield _bind_before_connect(reading, fixes, held)


def _bind_before_connect(reading: Reading, fixes: Fixes, held: list[HeldPort]) -> Finding:
    low, high = reading.port_range
    ports = {h.port for h in held}
    kinds = {kind: sum(h.kind == kind for h in held) for kind in ("bound", "connected", "time_wait")}
    names = {"bound": "bound only", "connected": "connected (inferred from their parity)", "time_wait": "TIME_WAIT"}
    seen = ", ".join(f"{grouped(n)} {names[kind]}" for kind, n in kinds.items() if n)
    if reading.probed is not None:
        seen = "found by trying each port"
    holders = _holders_of(reading, held)
    who = some_of([h.name for h in holders if h.pids], 1)
    taken = f"{who} holds {plural(len(ports), 'port')}" if who else f"{plural(len(ports), 'port')} held"
    anywhere = reading.state.anywhere()
    then = fixes.after({"bind_no_port": "1"}, anywhere)
    return Finding(
        "bind-before-connect",
        WARNING if len(held) >= _HOARD_SHARE * (high - low + 1) else NOTE,
        "bind() before connect()",
        f"{taken} by bind(addr, 0): "
        f"none can be shared, {percent(len(ports) / (high - low + 1))} of the range is gone for {_EVERYBODY}",
        (seen,),
        holders,
        "inet_csk_get_port: a port that bind() chose is its owner's; __inet_hash_connect passes over it, whoever asks",
        ordered(
            [
                Fix("socket", "setsockopt(IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT = 24, 1) before bind()",
                    effect=f"{effect(then)} for a new destination, once all bind so", after=then,
                    what_if={"bind_no_port": "1"}, caution="Linux 4.2+; CPython 3.11+ and PHP 8.3+ have the name"),
                Fix("process", "no bind() at all where the source address does not matter", effect="the same"),
            ]
        ),
        ("TIME_WAIT", "a wider range (helps until it is eaten, too)"),
        ("connected sockets whose ports have the parity that bind(addr, 0) takes first",) if kinds["connected"] else (),
        "bound",
        anywhere,
    )  # fmt: skip


def _holders_of(reading: Reading, held: list[HeldPort]) -> tuple[Holder, ...]:
    if reading.owners is None:
        return ()
    ports = {h.port for h in held}
    sockets = reading.sockets
    return reading.holders(
        row for row in range(len(sockets)) if sockets.sport[row] in ports and sockets.state[row] != TIME_WAIT
    )


def listeners_in_range(reading: Reading) -> Iterator[Finding]:
    """Servers whose port a connect() may take while they are down."""
    low, high = reading.port_range
    ports = sorted(port for port in reading.listeners if low <= port <= high and port not in reading.reserved)
    if not ports:
        return
    rows = [reading.listeners[port] for port in ports]
    names = [f"{reading.who(row)} :{port}".strip() for port, row in zip(ports, rows, strict=True)]
    reserved = port_list(reading.reserved.union(ports))
    yield Finding(
        "listener-in-range",
        NOTE,
        f"{plural(len(ports), 'listener')} inside the range",
        some_of(names),
        (),
        reading.holders(rows),
        "while it listens connect() passes over the port; while it restarts connect() may take it: bind() EADDRINUSE",
        (
            Fix("process", "a port below the range for servers", effect="never in the way"),
            Fix("namespace", "reserve them" + (" (not those that bind(0) chose)" if len(ports) > 1 else ""),
                reading.sysctl("ip_local_reserved_ports", reserved),
                "connect() and bind(0) leave them alone", what_if={"ip_local_reserved_ports": reserved}),
        ),
    )  # fmt: skip


def reserved_parity(reading: Reading, fixes: Fixes) -> Iterator[Finding]:
    """Reserved ports that take most of one parity."""
    low, high = reading.port_range
    inside = [port for port in reading.reserved if low <= port <= high]
    first = sum((port - low) % 2 == 0 for port in inside)
    of_first = (high - low) // 2 + 1
    if not inside or first < 0.5 * of_first:
        return
    anywhere = reading.state.anywhere()
    if anywhere.errno:
        return  # nothing_left() says it
    parity = "odd" if low & 1 else "even"
    yield Finding(
        "reserved-parity",
        WARNING,
        "ip_local_reserved_ports",
        f"{grouped(first)} of the {grouped(of_first)} {parity} ports are reserved, and those are looked at first",
        (
            f"{plural(len(inside), 'reserved port')} in the range; each connect() anywhere passes over "
            f"{plural(round(anywhere.passed.mean), 'port')}: {duration(anywhere.cost_us.likely)}, "
            f"{duration(anywhere.baseline_us.likely)} without",
        ),
        (),
        "__inet_hash_connect: a reserved port is passed over like one in use, one by one",
        ordered([fixes.port_range_option(anywhere), _other_parity_first(reading, fixes, anywhere)]),
        ("TIME_WAIT, open connections",),
        (),
        "reserved",
        anywhere,
    )


def _other_parity_first(reading: Reading, fixes: Fixes, anywhere: Prediction) -> Fix | None:
    low, high = reading.port_range
    if high - low < 2:
        return None  # nothing would be left
    changes = {"ip_local_port_range": f"{low + 1}-{high - 1 if (high - low) & 1 else high}"}
    then = fixes.after(changes, anywhere)
    if then.errno or then.cost_us.likely >= anywhere.cost_us.likely:
        return None
    words = changes["ip_local_port_range"].replace("-", " ")
    command = reading.sysctl("ip_local_port_range", words)
    what = "begin the range with the other parity (or reserve a block of ports, not every second)"
    return Fix("namespace", what, command, effect(then), then, changes)


def odd_range(reading: Reading, fixes: Fixes) -> Iterator[Finding]:
    """A range of an odd number of ports."""
    low, high = reading.port_range
    size = high - low + 1
    if size < 3 or not size & 1:
        return
    words = f"{low} {high + 1 if high < 65535 else high - 1}"
    changes = {"ip_local_port_range": words.replace(" ", "-")}
    then = fixes.after(changes, reading.state.anywhere())
    yield Finding(
        "odd-range",
        NOTE,
        f"range {low}-{high}",
        f"{grouped(size)} ports, an odd number: {_left_out(size)}",
        (),
        (),
        "__inet_hash_connect rounds the number of ports down to an even one, and wraps at the true end",
        (
            Fix("namespace", "an even number", reading.sysctl("ip_local_port_range", words),
                f"all {grouped(then.ports_in_range)} can be had", then, changes),
        ),
    )  # fmt: skip


def _left_out(size: int) -> str:
    """Of 3 ports a search can only start at the first."""
    return (
        "no search looks at the last of them" if size == 3 else "each search leaves out the first or the last of them"
    )


def range_over_others(reading: Reading) -> Iterator[Finding]:
    """A range that takes ports which belong to others."""
    low, high = reading.port_range
    top = min(high, _PRIVILEGED - 1)
    if low < _PRIVILEGED and not _all_reserved(reading, low, top):
        yield _overlap(reading, "range-privileged", WARNING, low, top, "ports of system services",
                       "connect() may take 22, 80 or 443 while their servers restart")  # fmt: skip
    if (
        low <= NODE_PORTS[1]
        and high >= NODE_PORTS[0]
        and not _all_reserved(reading, max(low, NODE_PORTS[0]), min(high, NODE_PORTS[1]))
    ):
        here = on_kubernetes_node(reading)
        why = "kube-proxy answers on them: a connection with such a source port gets its replies redirected"
        yield _overlap(reading, "range-over-nodeports", WARNING if here else NOTE, max(low, NODE_PORTS[0]),
                       min(high, NODE_PORTS[1]), "Kubernetes NodePorts" + ("" if here else " (matters on a node only)"),
                       why)  # fmt: skip


def _all_reserved(reading: Reading, low: int, high: int) -> bool:
    return all(port in reading.reserved for port in range(low, high + 1))


def _overlap(reading: Reading, kind: str, severity: str, low: int, high: int, what: str, why: str) -> Finding:
    range_low, range_high = reading.port_range
    reserved = port_list(reading.reserved.union(range(low, high + 1)))
    return Finding(
        kind,
        severity,
        f"range {range_low}-{range_high}",
        f"covers {low}-{high}, {what}",
        (why,),
        (),
        "ip_local_port_range: the kernel keeps nothing free in it but ip_local_reserved_ports",
        (
            Fix("namespace", "reserve them", reading.sysctl("ip_local_reserved_ports", reserved),
                f"connect() leaves {low}-{high} alone", what_if={"ip_local_reserved_ports": reserved}),
        ),
    )  # fmt: skip
