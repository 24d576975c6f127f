"""Which path it is: each check looks at one cause, on one machine, and says yes, no or open, and what it saw.

Lives here: the checks.  Does not live here: what they look at (reading.py), the port search (the engine's).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from fourtuple.address import is_ipv4, is_multicast, parse_ipv4, prefix_mask
from fourtuple.doctor.reading import BOUND, LISTEN, SYN_SENT, TIME_WAIT
from fourtuple.doctor.why import NO, OPEN, YES, Asked, Target, Verdict
from fourtuple.doctor.why_path import Path
from fourtuple.doctor.words import endpoint, grouped, percent, plural, some_of
from fourtuple.live.socket_table import STATE_NAMES, V6ONLY

if TYPE_CHECKING:
    from fourtuple.doctor.answers import Prediction
    from fourtuple.doctor.reading import Reading

Answer = tuple[str, str]
_SAY_WHERE = "say --dest HOST:PORT"
_SAY_WHAT = "say --dest ADDRESS:PORT, what the program binds to"
_ANY = ("", "0.0.0.0", "::")


def judge(path: Path, asked: Asked) -> Verdict:
    """What is known about one path."""
    asked = replace(asked, targets=_targets_of(path, asked))
    mark, text = _ruled_out(path, asked) or _checked(path, asked)
    if asked.tried and path.call == "connect":
        from fourtuple.doctor.why_probe import by_probe

        full = max(_predictions(asked), key=lambda p: p.fill, default=None) if path.check == "no_port" else None
        mark, text = by_probe(path, asked, (mark, text), full)
    return Verdict(path, mark, text)


def _targets_of(path: Path, asked: Asked) -> tuple[Target, ...]:
    """connect() goes to an address; bind() asks for one, or for any, but not for where a process connects to."""
    if path.call == "connect":
        return tuple(target for target in asked.targets if target.address)
    return asked.targets if asked.is_named else ()


def _ruled_out(path: Path, asked: Asked) -> Answer | None:
    """By the family of the destination, or by whether the socket was bound."""
    if path.family and asked.targets and all(target.family != path.family for target in asked.targets):
        return NO, f"the {_noun(path)} is IPv{10 - path.family}"
    if path.call == "connect" and path.bound is not None and asked.is_bound is not None:
        if path.bound != asked.is_bound:
            return NO, "the socket was bound to a port before" if asked.is_bound else "the socket was not bound"
    return None


def _noun(path: Path) -> str:
    return "destination" if path.call == "connect" else "address"


def _checked(path: Path, asked: Asked) -> Answer:
    check = CHECKS.get(path.check)
    return (
        check(path, asked) if check else (OPEN, f"look at: {path.look}" if path.look else "only the program can tell")
    )


def _of_targets(asked: Asked, one: Callable[[Target], Answer], question: str = _SAY_WHERE) -> Answer:
    """The most telling answer about any of the targets."""
    if not asked.targets:
        return OPEN, question
    answers = [one(target) for target in asked.targets]
    return min(answers, key=lambda answer: (YES, OPEN, NO).index(answer[0]))


# ------------------------------------------------------------------------------------------ ports


def _no_port(path: Path, asked: Asked) -> Answer:
    blocked = [target for target in asked.targets if target.route and target.route.error]
    if blocked and len(blocked) == len(asked.targets):
        return NO, "it fails before a port is looked at"
    found = _predictions(asked)
    full = [p for p in found if p.errno]
    if full:
        return YES, _fullness(full[0]) + (f"; and {len(full) - 1} more like it" if len(full) > 1 else "")
    if not found:
        return NO, "nothing here uses a port of the range"
    fullest = max(found, key=lambda p: p.fill)
    free = grouped(fullest.free.likely)
    return NO, f"{free} of {grouped(fullest.ports_in_range)} ports are free {_pair(fullest)} now"


def _own_range(path: Path, asked: Asked) -> Answer:
    return OPEN, f"look at: {path.look}"


def _predictions(asked: Asked) -> list[Prediction]:
    state = asked.reading.state
    if not asked.targets:
        anywhere = state.anywhere()
        return [anywhere] if anywhere.errno else state.destinations(at_most=10)
    found: list[Prediction] = []
    for target in asked.targets:
        address = target.address.removeprefix("::ffff:")
        known = state.destinations(destination=address, port=target.port)
        source = asked.source[0] if asked.source and asked.source[0] not in _ANY else None
        if source:
            known = [p for p in known if p.source == source]
        found += known or [state.predict(source, address, target.port)]
    return found


def _pair(p: Prediction) -> str:
    """Where to, and from where if that is known."""
    if p.destination == "*":
        return "to any destination"
    return f"to {endpoint(p.destination, p.port)}" + (
        "" if p.source in _ANY or p.source == "*" else f" from {p.source}"
    )


def _fullness(p: Prediction) -> str:
    taken = p.ports_in_range - p.free.likely
    text = f"{grouped(taken)} of {grouped(p.ports_in_range)} ports cannot be had {_pair(p)}"
    parts = [f"{grouped(count)} {state}" for state, count in sorted(p.by_state.items(), key=lambda each: -each[1])]
    if p.reserved_ports:
        parts.append(f"{grouped(p.reserved_ports)} reserved")
    shut = p.shut_sure_ports + p.shut_likely_ports
    if shut:
        parts.append(f"{grouped(shut)} bound")
    return text + (f": {', '.join(parts)}" if parts else "") + ("" if p.errno_certain else " (inferred)")


def _bound_pair(path: Path, asked: Asked) -> Answer:
    sockets = asked.reading.sockets
    if asked.source and asked.source[1]:
        rows = [row for row in _rows_on_port(asked.reading, asked.source[1]) if _goes_to(asked, row)]
        if rows:
            return YES, f"port {asked.source[1]} has it: {_described(asked.reading, rows)}"
        return (NO, f"no connection from port {asked.source[1]} to it now") if asked.targets else (OPEN, _SAY_WHERE)
    if not asked.pid:
        return OPEN, "whether the socket was bound: strace -f -e trace=bind,connect"
    if not sockets.bound_known:
        return OPEN, "this kernel does not list bound sockets (Linux 6.8 does)"
    bound = [row for row in asked.rows if sockets.state[row] == BOUND]
    if not bound:
        return NO, f"pid {asked.pid} has no bound, unconnected socket now"
    ports = sorted({sockets.sport[row] for row in bound})
    held = [row for port in ports for row in _rows_on_port(asked.reading, port) if _goes_to(asked, row)]
    if held:
        return YES, f"bound, and the four-tuple is taken: {_described(asked.reading, held)}"
    return OPEN, f"pid {asked.pid} has bound, unconnected sockets: port {some_of([str(p) for p in ports])}"


def _rows_on_port(reading: Reading, port: int) -> list[int]:
    sport = reading.sockets.sport.tolist()
    return [row for row, each in enumerate(sport) if each == port]


def _goes_to(asked: Asked, row: int) -> bool:
    s = asked.reading.sockets
    where = (s.address(s.family[row], s.daddr[row]), s.dport[row])
    return any(where == (target.address.removeprefix("::ffff:"), target.port) for target in asked.targets)


def _described(reading: Reading, rows: Iterable[int]) -> str:
    """Who has a port, the listeners first."""
    sockets = reading.sockets
    ordered = sorted(rows, key=lambda row: sockets.state[row] != LISTEN)
    words = []
    for row in ordered:
        state = STATE_NAMES.get(sockets.state[row], str(sockets.state[row]))
        local = endpoint(sockets.address(sockets.family[row], sockets.saddr[row]), sockets.sport[row])
        words.append(f"{local} {state}" + (f" {who}" if (who := reading.who(row)) else ""))
    return some_of(words, 3)


def _port_held(path: Path, asked: Asked) -> Answer:
    port = next((target.port for target in asked.targets if target.port), 0)
    if not port:
        return OPEN, _SAY_WHAT
    rows = [row for row in _rows_on_port(asked.reading, port) if _conflicts(asked, row)]
    if path.call == "listen":
        rows = [row for row in rows if asked.reading.sockets.state[row] == LISTEN]
    if not rows:
        return NO, f"nobody has port {port} now"
    only_tw = all(asked.reading.sockets.state[row] == TIME_WAIT for row in rows)
    return YES, _described(asked.reading, rows) + ("; SO_REUSEADDR is enough" if only_tw else "")


def _port_shared(path: Path, asked: Asked) -> Answer:
    mark, text = _port_held(path, asked)
    return (OPEN, f"with SO_REUSEPORT on both it matters whose they are: {text}") if mark == YES else (mark, text)


def _conflicts(asked: Asked, row: int) -> bool:
    """Its local address meets one that is asked for."""
    sockets = asked.reading.sockets
    has = sockets.address(sockets.family[row], sockets.saddr[row])
    return any(has in _ANY or target.address in _ANY or has == target.address for target in asked.targets)


def _no_port_to_bind(path: Path, asked: Asked) -> Answer:
    if any(target.port for target in asked.targets):
        return NO, "a port was asked for"
    low, high = asked.reading.port_range
    reserved = {port for port in asked.reading.reserved if low <= port <= high}
    taken = {port for port in set(asked.reading.sockets.sport) if low <= port <= high} | reserved
    count = high - low + 1
    if len(taken) == count:
        return YES, f"all {grouped(count)} ports of {low}-{high} have a socket or are reserved"
    return NO, f"{grouped(count - len(taken))} of {grouped(count)} ports have no socket now"


def _low_port(path: Path, asked: Asked) -> Answer:
    first = asked.reading.system.sysctls.unprivileged_port_start

    def one(target: Target) -> Answer:
        if 0 < target.port < first:
            return YES, f"port {target.port} is below {first}"
        return NO, f"port {target.port} is not below {first}"

    return _of_targets(asked, one, _SAY_WHAT)


# ------------------------------------------------------------------------------------------ addresses and routes


def _no_source6(path: Path, asked: Asked) -> Answer:
    if not asked.targets:
        why = _missing6(asked, "::1")
        return (YES, f"for ::1 (and localhost, where it means ::1 first): {why}") if why else (NO, "::1 is here")
    return _of_targets(asked, lambda target: _source6(asked, target))


def _source6(asked: Asked, target: Target) -> Answer:
    if target.family == 4:
        return NO, "the destination is IPv4"
    if target.route is None:
        return OPEN, "its route is not in the snapshot"
    if target.route.error != "EADDRNOTAVAIL":
        return NO, f"source {target.route.source}" if target.route.source else f"its route says {target.route.error}"
    return YES, _missing6(asked, target.address) or "no IPv6 address of this machine can be its source"


def _missing6(asked: Asked, address: str) -> str:
    """Why there is no IPv6 source for it; "" when nothing is missing."""
    system = asked.reading.system
    if not system.interfaces:
        return ""
    if not system.ipv6:
        return "this kernel has no IPv6"
    if address == "::1":
        if not system.loopback_is_up:
            return "lo is down"
        if system.has_loopback6:
            return ""
        disabled = any(device.disable_ipv6 for device in system.interfaces if device.is_loopback)
        return "net.ipv6.conf.lo.disable_ipv6 is 1" if disabled else "lo has no ::1"
    usable = [a for a in system.addresses if a.family == 10 and a.is_usable and a.address != "::1"]
    return "" if usable else "no device has an IPv6 address"


def _route(path: Path, asked: Asked) -> Answer:
    def one(target: Target) -> Answer:
        route = target.route
        if route is None:
            return OPEN, "its route is not in the snapshot"
        if route.error == path.errno and _no_scope(path, replace(asked, targets=(target,)))[0] != YES:
            extra = "; lo is down" if not asked.reading.system.loopback_is_up and _is_loopback(target.address) else ""
            return YES, f"ip route get {target.address} says so{extra}"
        if route.error:
            return NO, f"its route says {route.error}"
        if route.is_local:
            return NO, f"{target.address} is this machine"
        device = asked.reading.system.interface(route.interface)
        way = f"dev {device.name}, " if device else ""
        return NO, f"there is a route: {way}source {route.source}"

    return _of_targets(asked, one)


def _is_loopback(address: str) -> bool:
    return address == "::1" or address.startswith("127.")


def _not_unicast(path: Path, asked: Asked) -> Answer:
    broadcasts = {0xFFFFFFFF}
    for each in asked.reading.system.addresses:
        if each.family == 2 and each.prefix_length < 31 and is_ipv4(each.address):
            broadcasts.add((parse_ipv4(each.address) | ~prefix_mask(each.prefix_length)) & 0xFFFFFFFF)

    def one(target: Target) -> Answer:
        address = target.address.lower().removeprefix("::ffff:")
        if is_ipv4(address):
            number = parse_ipv4(address)
            bad = is_multicast(number) or number in broadcasts
        else:
            bad = address.startswith("ff")
        return (YES, f"{address} is one") if bad else (NO, f"{address} is one host's")

    return _of_targets(asked, one)


def _no_scope(path: Path, asked: Asked) -> Answer:
    def one(target: Target) -> Answer:
        if not target.address.lower().startswith("fe80:"):
            return NO, "the destination is not link-local"
        return (NO, "it has a device") if "%" in target.address else (YES, f"{target.address} has none")

    return _of_targets(asked, one)


def _loopback_source(path: Path, asked: Asked) -> Answer:
    if asked.source is None:
        return OPEN, "what the socket was bound to: strace -f -e trace=bind,connect"
    if not asked.source[0].startswith("127."):
        return NO, f"bound to {asked.source[0] or 'no address'}"

    def one(target: Target) -> Answer:
        if target.route is None or target.route.is_local or _is_loopback(target.address):
            return NO, f"{target.address} is this machine"
        return YES, f"bound to {asked.source[0] if asked.source else ''}, and {target.address} is elsewhere"

    return _of_targets(asked, one)


def _neighbour(path: Path, asked: Asked) -> Answer:
    known = asked.failed_neighbours
    if known is None:
        return OPEN, f"look at: {path.look}"

    def one(target: Target) -> Answer:
        route = target.route
        if route and (route.is_local or route.error):
            return NO, f"{target.address} is this machine" if route.is_local else f"its route says {route.error}"
        hop = (route.gateway if route else "") or target.address
        if hop in known:
            return YES, f"nobody answers for {hop}" + ("" if hop == target.address else ", its gateway")
        return OPEN, f"no failure is remembered for {hop}; ip neigh show {hop}"

    return _of_targets(asked, one)


def _not_ours(path: Path, asked: Asked) -> Answer:
    own = {address.address for address in asked.reading.system.addresses}

    def one(target: Target) -> Answer:
        if target.address in _ANY:
            return NO, "any address was asked for"
        if target.address in own or (target.route and target.route.is_local):
            return NO, f"{target.address} is this machine's"
        return YES, f"{target.address} is not an address of this machine, which has {some_of(sorted(own), 3)}"

    return _of_targets(asked, one, _SAY_WHAT)


def _tentative(path: Path, asked: Asked) -> Answer:
    def one(target: Target) -> Answer:
        for each in asked.reading.system.addresses:
            if each.address == target.address and not each.is_usable:
                return YES, f"{each.address} is tentative, or a duplicate was found"
        return NO, "no address is tentative"

    return _of_targets(asked, one, _SAY_WHAT)


# ------------------------------------------------------------------------------------------ the other side


def _listeners(asked: Asked, target: Target) -> tuple[list[int], list[int]]:
    """Rows of listeners that take a connection to it, and of those on its port that do not."""
    s = asked.reading.sockets
    takes: list[int] = []
    others: list[int] = []
    for row in _rows_on_port(asked.reading, target.port):
        if s.state[row] != LISTEN:
            continue
        address = s.address(s.family[row], s.saddr[row])
        both = address == "::" and not s.flags[row] & V6ONLY
        fits = address == target.address or both or address == ("::" if target.family == 6 else "0.0.0.0")
        (takes if fits else others).append(row)
    return takes, others


def _is_here(target: Target) -> bool:
    return bool(target.route and target.route.is_local) or _is_loopback(target.address)


def _no_listener(path: Path, asked: Asked) -> Answer:
    def one(target: Target) -> Answer:
        if not _is_here(target):
            return OPEN, f"{target.address} is another machine: ask there"
        takes, others = _listeners(asked, target)
        if takes:
            return NO, f"somebody listens now: {_described(asked.reading, takes)}"
        there = f"; only on {_described(asked.reading, others)}" if others else ""
        return YES, f"nobody here listens on {endpoint(target.address, target.port)}{there}"

    return _of_targets(asked, one)


def _unanswered(path: Path, asked: Asked) -> Answer:
    s = asked.reading.sockets
    rows = [row for row in asked.reading.rows_in_state(SYN_SENT) if not asked.targets or _goes_to(asked, row)]
    if not rows:
        return OPEN, "no SYN is unanswered right now; look again while it hangs"
    resent = max(s.retrans[row] for row in rows)
    if not resent:
        return OPEN, f"{plural(len(rows), 'socket')} in SYN_SENT, none resent yet"
    to = endpoint(s.address(s.family[rows[0]], s.daddr[rows[0]]), s.dport[rows[0]])
    return YES, f"{plural(len(rows), 'socket')} in SYN_SENT, as to {to}: {resent + 1} SYNs without an answer so far"


def _accept_queue(path: Path, asked: Asked) -> Answer:
    s = asked.reading.sockets

    def one(target: Target) -> Answer:
        if not _is_here(target):
            return OPEN, f"{target.address} is another machine: ask there"
        takes, _ = _listeners(asked, target)
        for row in takes:
            # sk_acceptq_is_full: more than the backlog, so one more than listen() was told fits in.
            if s.rqueue[row] > s.wqueue[row]:
                return YES, f"{s.rqueue[row]} wait, backlog {s.wqueue[row]}: {_described(asked.reading, [row])}"
        return NO, "nobody listens there" if not takes else f"{s.rqueue[takes[0]]} wait, backlog {s.wqueue[takes[0]]}"

    return _of_targets(asked, one)


def _conntrack(path: Path, asked: Asked) -> Answer:
    table = asked.reading.system.conntrack
    if table is None or not table.maximum:
        return OPEN, "no tracking table can be seen from here"
    use = f"{grouped(table.used)} of {grouped(table.maximum)} entries ({percent(table.used / table.maximum)})"
    return (YES if table.used >= table.maximum else NO), use


def _nat_ports(path: Path, asked: Asked) -> Answer:
    from fourtuple.doctor.findings_nat import nat_answer

    if not asked.reading.system.nat.is_known and asked.reading.system.nat.tracked is None:
        return OPEN, asked.reading.system.nat.reason or "no NAT rules can be seen from here"
    found = nat_answer(asked.reading, [(target.address, target.port) for target in asked.targets])
    return (YES, found) if found else (NO, "no NAT range here is full")


# ------------------------------------------------------------------------------------------ descriptors


def _descriptors(path: Path, asked: Asked) -> Answer:
    limit = asked.reading.limits.get(asked.pid)
    if limit is None or limit.used is None:
        return OPEN, "say --pid PID" if not asked.pid else "the limits of that process may not be read"
    use = f"{grouped(limit.used)} of {grouped(limit.soft)} descriptors are open"
    return (YES if limit.used >= limit.soft else NO), use


def _all_files(path: Path, asked: Asked) -> Answer:
    files = asked.reading.system.files
    if not files.file_max:
        return OPEN, "look at: sysctl fs.file-nr"
    use = f"{grouped(files.used)} of {grouped(files.file_max)} files are open"
    return (YES if files.used >= files.file_max else NO), use


def _no_ipv6(path: Path, asked: Asked) -> Answer:
    return (NO, "this kernel has IPv6") if asked.reading.system.ipv6 else (YES, "there is no /proc/sys/net/ipv6")


CHECKS: dict[str, Callable[[Path, Asked], Answer]] = {
    "no_port": _no_port,
    "own_range": _own_range,
    "bound_pair": _bound_pair,
    "no_source6": _no_source6,
    "no_listener": _no_listener,
    "unanswered": _unanswered,
    "accept_queue": _accept_queue,
    "conntrack": _conntrack,
    "nat_ports": _nat_ports,
    "route": _route,
    "neighbour": _neighbour,
    "not_unicast": _not_unicast,
    "loopback_source": _loopback_source,
    "no_scope": _no_scope,
    "port_held": _port_held,
    "port_shared": _port_shared,
    "no_port_to_bind": _no_port_to_bind,
    "low_port": _low_port,
    "not_ours": _not_ours,
    "tentative": _tentative,
    "descriptors": _descriptors,
    "all_files": _all_files,
    "no_ipv6": _no_ipv6,
}
