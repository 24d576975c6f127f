"""What the doctor found, as the document that schema/doctor-1.json describes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fourtuple import __version__
from fourtuple.doctor.answers import as_json
from fourtuple.doctor.idle import idle_connections

if TYPE_CHECKING:
    from fourtuple.doctor.answers import Prediction
    from fourtuple.doctor.finding import Finding, Fix
    from fourtuple.doctor.findings import Diagnosis
    from fourtuple.doctor.nat_stage import NatGroup
    from fourtuple.doctor.reading import Holder, Reading
    from fourtuple.live.probe import Measured

SCHEMA = "fourtuple.doctor/1"


def to_text(found: Sequence[Diagnosis], one_line: bool = False, ascii_only: bool = False) -> str:
    """The document; on one line for --watch."""
    return json.dumps(document(found), indent=None if one_line else 2, ensure_ascii=ascii_only)


def document(found: Sequence[Diagnosis]) -> dict[str, Any]:
    """All namespaces in one: their destinations and findings say which is theirs."""
    first = found[0].reading
    return {
        "schema": SCHEMA,
        "version": __version__,
        "host": first.system.hostname,
        "kernel": first.system.kernel,
        "taken_at": round(first.state.taken_at, 3),
        "is_live": first.is_live,
        "namespaces": [_namespace(each) for each in found],
        "destinations": [d for each in found for d in _destinations(each)],
        "findings": [_finding(each, finding) for each in found for finding in each.findings],
        "exit": max(each.exit_code for each in found),
    }


def _namespace(found: Diagnosis) -> dict[str, Any]:
    reading = found.reading
    sockets, system = reading.sockets, reading.system
    return {
        "netns": reading.netns,
        "netns_inode": system.netns_inode,
        "read_by": sockets.source,
        "read_in_s": round(sockets.elapsed_s, 4),
        "consistent": sockets.consistent,
        "summary": as_json(reading.state.summary),
        "conntrack": system.conntrack._asdict() if system.conntrack else None,
        "nat": _nat(reading),
        "destinations_left_out": found.count_small,
        "probe": _probe(reading),
        "what_if": {"changes": dict(found.changes), "notes": list(found.notes)} if found.changed else None,
        "unread": list(reading.unread),
    }


def _nat(reading: Reading) -> dict[str, Any]:
    nat = reading.system.nat
    tracked = nat.tracked
    return {
        "known": nat.is_known,
        "reason": nat.reason or None,
        "rules": list(nat.rules),
        "not_counted": (tracked.reason or None) if tracked else None,
        "insert_failed": tracked.insert_failed if tracked else None,
        "dropped": tracked.dropped if tracked else None,
        "groups": _nat_groups(reading) if tracked else [],
    }


def _nat_groups(reading: Reading) -> list[dict[str, Any]]:
    from fourtuple.doctor.nat_stage import nat_groups

    return [_nat_group(group) for group in nat_groups(reading.system, reading.kernel_version)]


def _nat_group(group: NatGroup) -> dict[str, Any]:
    return {
        "address": group.flows.address,
        "dst": group.flows.destination,
        "dport": group.flows.port,
        "port_low": group.low,
        "port_high": group.high,
        "ports": group.size,
        "used": group.used,
        "closing": group.closing,
        "free": group.free,
        "fill": round(group.fill, 4),
        "several_clients": group.flows.several_clients,
        "syn_dropped_low": round(group.refused.low, 4),
        "syn_dropped_high": round(group.refused.high, 4),
        "inferred": group.is_inferred,
    }


def _probe(reading: Reading) -> dict[str, Any] | None:
    probed = reading.probed
    if probed is None:
        return None
    return {
        "way": probed.way,
        "ports": probed.asked,
        "shut": len(probed.shut),
        "undecided": len(probed.undecided),
        "timestamps_known": reading.state.sockets.stamps_known,
        "elapsed_s": round(probed.elapsed_s, 3),
        "notes": list(probed.notes),
    }


def _measured(measured: Measured | None) -> dict[str, Any] | None:
    if measured is None:
        return None
    cost = measured.cost_us
    return {
        "errno": measured.errno or None,
        "tries": measured.tries,
        "failed": measured.failed,
        "cost_us_p5": as_json(cost.p5),
        "cost_us_p50": as_json(cost.p50),
        "cost_us_p95": as_json(cost.p95),
    }


def _destinations(found: Diagnosis) -> list[dict[str, Any]]:
    made = []
    for i, p in enumerate(found.predictions):
        changed = found.changed[i] if found.changed else None
        of_it = next((f.fixes for f in found.findings if f.prediction and _is_same(f.prediction, p)), ())
        made.append(_destination(found, p, changed, of_it) | {"measured": _measured(found.measured.get(i))})
    return made


def _is_same(a: Prediction, b: Prediction) -> bool:
    return (a.source, a.destination, a.port, a.device) == (b.source, b.destination, b.port, b.device)


def _destination(found: Diagnosis, p: Prediction, changed: Prediction | None, fixes: Sequence[Fix]) -> dict[str, Any]:
    rate = p.rate
    return {
        "netns": found.reading.netns,
        "dst": p.destination,
        "dport": p.port,
        "src": p.source,
        "device": p.device,
        "established": p.by_state.get("ESTABLISHED", 0),
        "syn_sent": p.by_state.get("SYN_SENT", 0),
        "time_wait": p.by_state.get("TIME_WAIT", 0),
        "by_state": p.by_state,
        "ports": p.ports_in_range,
        **_answer(p),
        "held_by": [_holder(holder) for holder in found.reading.holders(found.reading.rows_to(p))],
        "what_if": _answer(changed) if changed else None,
        "rate": as_json(rate) if rate else None,
        "cliff_in_s": _seconds(rate.cliff_in_s) if rate else None,
        "full_in_s": 0 if p.errno else _seconds(rate.full_in_s) if rate else None,
        "idle": _idle(found, p),
        "inferred": list(p.inferred),
        "reasons": list(p.reasons),
        "fixes": [_fix(fix) for fix in fixes],
    }


def _idle(found: Diagnosis, p: Prediction) -> dict[str, Any] | None:
    idle = idle_connections(found.reading, p, found.idle_s)
    if idle is None:
        return None
    return {
        "over_s": idle.over_s,
        "connections": idle.connections,
        "of": idle.of,
        "held_by": [_holder(holder) for holder in idle.held_by],
    }


def _seconds(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


def _answer(p: Prediction) -> dict[str, Any]:
    """What the next connect() meets."""
    return {
        "fill": round(p.fill, 4),
        "free": p.free.likely,
        "free_interval": as_json(p.free),
        "free_first": as_json(p.free_first),
        "free_second": as_json(p.free_second),
        "reserved": p.reserved_ports,
        "next_connect": {
            "errno": p.errno or None,
            "errno_certain": p.errno_certain,
            "probes": as_json(p.passed.mean),
            "probes_p50": p.passed.p50,
            "probes_p95": p.passed.p95,
            "cost_us": as_json(p.cost_us.likely),
            "cost_us_low": as_json(p.cost_us.low),
            "cost_us_high": as_json(p.cost_us.high),
            "baseline_us": as_json(p.baseline_us.likely),
            "to_cliff": as_json(p.to_cliff_ports),
        },
    }


def _finding(found: Diagnosis, finding: Finding) -> dict[str, Any]:
    return {
        "netns": found.reading.netns,
        "kind": finding.kind,
        "severity": finding.severity,
        "subject": finding.subject,
        "title": finding.title,
        "cause": finding.cause or None,
        "evidence": list(finding.evidence),
        "inferred": list(finding.inferred),
        "held_by": [_holder(holder) for holder in finding.held_by],
        "rule": finding.rule,
        "fixes": [_fix(fix) for fix in finding.fixes],
        "not_it": list(finding.not_it),
    }


def _holder(holder: Holder) -> dict[str, Any]:
    return {"command": holder.command, "pids": list(holder.pids), "sockets": holder.sockets}


def _fix(fix: Fix) -> dict[str, Any]:
    return {
        "scope": fix.scope,
        "what": fix.what,
        "command": fix.command or None,
        "effect": fix.effect,
        "caution": fix.caution or None,
        "what_if": dict(fix.what_if),
        "predicted": _answer(fix.after) if fix.after else None,
    }
