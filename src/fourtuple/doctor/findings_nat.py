"""Findings about the NAT stage: a SYN that finds no port is dropped there, and connect() hears nothing of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from fourtuple.doctor.finding import CRITICAL, NOTE, WARNING, Finding, Fix
from fourtuple.doctor.fixes import ordered
from fourtuple.doctor.nat_stage import ANY_PORT, NatGroup, nat_groups, syns_and_seconds
from fourtuple.doctor.reading import SYN_SENT
from fourtuple.doctor.words import endpoint, grouped, percent, plural, some_of

if TYPE_CHECKING:
    from fourtuple.doctor.findings import Question
    from fourtuple.doctor.reading import Reading
    from fourtuple.live.nat_rules import SourceNat

_WARN, _CRITICAL = 0.8, 0.95
_SURE = 0.999
_REFUSED_WARN, _REFUSED_CRITICAL = 0.01, 0.5
_FEW = 3
RULE = (
    "nf_nat_l4proto_unique_tuple: up to 248 ports of a range are tried, all of one with up to 128; if all are taken, "
    "__nf_conntrack_confirm drops the SYN (insert_failed)"
)


def nat_findings(reading: Reading, question: Question) -> Iterator[Finding]:
    """Full and nearly full groups; else one note that there is NAT."""
    groups = nat_groups(reading.system, reading.kernel_version)
    if question.is_about_one:
        groups = tuple(group for group in groups if _is_asked(group, question))
    bad = [(severity, group) for group in groups if (severity := _severity(group))]
    for severity, group in bad:
        yield _scarce(reading, group, severity)
    if not bad and not question.is_about_one and reading.system.nat.rules:
        yield _present(reading, groups)


def nat_answer(reading: Reading, targets: Sequence[tuple[str, int]]) -> str:
    """What is full, of the way to these (address, port), or to anywhere; "" when nothing is."""
    for group in nat_groups(reading.system, reading.kernel_version):
        is_asked = not targets or (group.flows.destination, group.flows.port) in targets
        if is_asked and group.is_shared and group.refused.high >= _REFUSED_CRITICAL:
            return f"to {subject(group)}: {_taken(group)} of {group.flows.address}"
    return ""


def _is_asked(group: NatGroup, question: Question) -> bool:
    return (not question.addresses or group.flows.destination in question.addresses) and (
        question.port in (None, group.flows.port)
    )


def _severity(group: NatGroup) -> str:
    if not group.is_shared:
        return ""
    if group.refused.high >= _REFUSED_CRITICAL or group.fill >= _CRITICAL:
        return CRITICAL
    return WARNING if group.refused.high >= _REFUSED_WARN or group.fill >= _WARN else ""


def subject(group: NatGroup) -> str:
    """The destination."""
    return endpoint(group.flows.destination, group.flows.port)


def _scarce(reading: Reading, group: NatGroup, severity: str) -> Finding:
    is_full = group.refused.low >= _SURE
    return Finding(
        "nat-full" if is_full else "nat-near-full",
        severity,
        subject(group),
        _title(group, is_full),
        tuple(_evidence(reading, group)),
        reading.holders(_local_rows(reading, group)),
        RULE,
        ordered(_fixes(reading, group)),
        ("EADDRNOTAVAIL, ip_local_port_range: connect() has found its local port", "tcp_tw_reuse"),
        tuple(_inferred(group)),
    )


def _title(group: NatGroup, is_full: bool) -> str:
    where = f"NAT address {group.flows.address}"
    if is_full:
        return f"{where} has no port left: the next SYN is dropped without an error"
    if group.refused.high < _REFUSED_WARN:
        return f"{percent(group.fill)} of the ports of {where} are taken"
    return f"{where}: {_chance(group)} of the SYNs find no port and are dropped"


def _chance(group: NatGroup) -> str:
    low, high = (percent(value) for value in group.refused)
    return low if low == high else f"{low} to {high}"


def _evidence(reading: Reading, group: NatGroup) -> Iterator[str]:
    rule = f", of `{group.rule.name}`" if group.rule and group.rule.where else ""
    closing = f", {grouped(group.closing)} of them closing" if group.closing else ""
    yield f"{_taken(group)} ({group.low}–{group.high}{rule}){closing}"
    if group.refused.low >= _SURE:
        syns, seconds = syns_and_seconds(reading.system)
        yield f"connect() stays in SYN_SENT, sends {syns} SYNs and ends after {seconds} s: ETIMEDOUT"
    elif group.refused.high >= _REFUSED_WARN:
        yield "connect() then waits: its SYN is sent again, after 1 s at first, and tries other ports"
    if waiting := _waiting(reading, group):
        yield f"{plural(waiting, 'socket')} here wait{'s' * (waiting == 1)} in SYN_SENT, the SYN sent again"
    low, high = reading.port_range
    if group.size < high - low + 1:
        own = plural(high - low + 1, "port")
        yield f"the NAT stage is the limit: a client has {own} of its own for this destination"
    elif group.flows.several_clients:
        yield "the NAT stage is the limit: several clients share the address"
    if refused := _counted(reading):
        yield refused


def _local_rows(reading: Reading, group: NatGroup) -> list[int]:
    """Sockets of this namespace that are connected, or on their way, to the destination."""
    groups, sockets = reading.groups, reading.sockets
    asked = group.flows.destination, group.flows.port
    rows = []
    for g in range(len(groups)):
        if groups.dport[g] == asked[1] and sockets.address(groups.family[g], groups.daddr[g]) == asked[0]:
            rows += groups.rows(g).tolist()
    return rows


def _waiting(reading: Reading, group: NatGroup) -> int:
    """Sockets here whose SYN has been sent again."""
    sockets = reading.sockets
    return sum(sockets.state[row] == SYN_SENT and sockets.retrans[row] > 0 for row in _local_rows(reading, group))


def _taken(group: NatGroup) -> str:
    return f"{grouped(group.used)} of {plural(group.size, 'port')} taken"


def _counted(reading: Reading) -> str:
    tracked = reading.system.nat.tracked
    failed = tracked.insert_failed if tracked else 0
    return (
        f"insert_failed: {plural(failed, 'packet')} dropped since the namespace was made, of any protocol"
        if failed
        else ""
    )


def _inferred(group: NatGroup) -> Iterator[str]:
    if group.rule is None:
        yield f"which rule gave the address is not known: ports {group.low}–{group.high} are taken to be its range"
    elif group.is_inferred:
        yield "which rule gave the ports: of those with this address the narrowest that fits"
    if group.refused.high - group.refused.low >= _REFUSED_WARN:
        yield "closing entries: a SYN takes one over if its sequence number is ahead, about half of the time"


# ------------------------------------------------------------------------------------------ fixes


def _fixes(reading: Reading, group: NatGroup) -> list[Fix | None]:
    return [_pool(reading, group), _server(group), *_rules(reading, group)]


def _pool(reading: Reading, group: NatGroup) -> Fix:
    table = reading.system.conntrack
    wait = table.time_wait_s if table and table.time_wait_s is not None else 120
    return Fix(
        "process",
        f"keep-alive, a pool: fewer than {plural(group.size, 'connection')} at once",
        effect=f"each closed one frees a port, at the latest after {wait} s (nf_conntrack_tcp_timeout_time_wait)",
    )


def _server(group: NatGroup) -> Fix:
    return Fix("server", "another address or port of the server", effect=f"{plural(group.size, 'NAT port')} of its own")


def _rules(reading: Reading, group: NatGroup) -> Iterator[Fix]:
    """A rule before the one that is too narrow, for this destination only."""
    rule = group.rule
    if rule is None or not rule.where:
        return
    where = "add what the rule matches (source, device), if others than its clients pass here"
    wider = group.under(ANY_PORT)
    if group.size < wider.size or rule.random:
        yield Fix(
            "namespace",
            "all ports of the address",
            _rule_command(reading, group, rule, _to(group, rule)),
            f"{percent(wider.fill)} full, {_dropped(wider)}",
            caution=where,
        )
    yield _more_addresses(reading, group, rule)
    yield Fix(
        "namespace",
        "no NAT for it, if it knows a way back to the clients",
        _rule_command(reading, group, rule, "RETURN" if rule.by_iptables else "accept"),
        "only the clients' own ranges count",
    )


def _dropped(group: NatGroup) -> str:
    return "no SYN dropped" if group.refused.high < 0.0005 else f"{_chance(group)} of the SYNs dropped"


def _to(group: NatGroup, rule: SourceNat) -> str:
    if rule.action == "masquerade":
        return "MASQUERADE" if rule.by_iptables else "masquerade"
    to = group.flows.address
    return f"SNAT --to-source {to}" if rule.by_iptables else f"{_snat(group, rule)} {to}"


def _snat(group: NatGroup, rule: SourceNat) -> str:
    """In a table for both families the family has to be said."""
    if not rule.where.startswith("inet "):
        return "snat to"
    return "snat ip6 to" if ":" in group.flows.address else "snat ip to"


def _rule_command(reading: Reading, group: NatGroup, rule: SourceNat, action: str, match: str = "") -> str:
    """A rule ahead of the present one."""
    family = "ip6" if ":" in group.flows.destination else "ip"
    to, port = group.flows.destination, group.flows.port
    chain = rule.where.split()[-1]
    if rule.by_iptables:
        program = "ip6tables" if family == "ip6" else "iptables"
        return reading.in_namespace(f"{program} -t nat -I {chain} -d {to} -p tcp --dport {port}{match} -j {action}")
    place = f"{rule.where} handle {rule.handle}"
    return reading.in_namespace(f"nft insert rule {place} {family} daddr {to} tcp dport {port} {action}")


def _more_addresses(reading: Reading, group: NatGroup, rule: SourceNat) -> Fix:
    """A range of addresses is chosen from by (client, destination): for one client it is always the same address."""
    here = group.flows.address
    other = next((a.address for a in reading.system.addresses if a.is_usable and _is_like(a.address, here)), "ADDRESS")
    effect = f"{plural(group.size, 'port')} more; half of the SYNs still meet the full address"
    caution = "`snat to A-B` gives one client one address per destination: it helps only with several clients"
    if rule.by_iptables:
        action = f"SNAT --to-source {other}"
        half = " -m statistic --mode random --probability 0.5"
        return Fix("namespace", "a second NAT address", _rule_command(reading, group, rule, action, half), effect)
    ports = f":{rule.low}-{rule.high}" if rule.high else ""
    action = f"{_snat(group, rule)} numgen inc mod 2 map {{ 0 : {here}, 1 : {other} }}{ports}"
    return Fix("namespace", "a second NAT address, in turn", _rule_command(reading, group, rule, action), effect,
               caution=caution)  # fmt: skip


def _is_like(address: str, here: str) -> bool:
    is_local = address.startswith(("127.", "fe80:")) or address == "::1"
    return address != here and (":" in address) == (":" in here) and not is_local


# ------------------------------------------------------------------------------------------ healthy


def _present(reading: Reading, groups: tuple[NatGroup, ...]) -> Finding:
    nat = reading.system.nat
    evidence = [_fullest(groups)] if groups else ["connections that leave through it share the ports of its address"]
    fixes: tuple[Fix, ...] = ()
    if counted := _counted(reading):
        evidence.append(counted)
        fixes = _against_races(nat.sources)
    return Finding("nat", NOTE, "source NAT", f"here: {some_of(nat.rules, 2)}", tuple(evidence), (), RULE, fixes)


def _fullest(groups: tuple[NatGroup, ...]) -> str:
    top = max(groups, key=lambda group: group.fill)
    share = f"{grouped(top.used)} of {plural(top.size, 'port')}"
    return f"fullest: {top.flows.address} to {subject(top)}, {share} taken"


def _against_races(sources: tuple[SourceNat, ...]) -> tuple[Fix, ...]:
    """Two SYNs at once may pick the same port; the second is dropped, and sent again after 1 s."""
    if all(source.random == "fully-random" for source in sources):
        return ()
    words = "`fully-random` on the rule (iptables: --random-fully)"
    effect = "fewer SYNs that pick the same port at the same time"
    return (Fix("namespace", words, effect=effect, caution="then no connection keeps its own port"),)
