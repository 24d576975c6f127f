"""An attempt as JSON: one document, described by schema/connect-1.json."""

from __future__ import annotations

import json
from typing import Any

from fourtuple import __version__
from fourtuple import kernel_map as km
from fourtuple.cli.attempt import Attempt
from fourtuple.cli.capture import CaptureFile
from fourtuple.cli.exits import exit_of_errno
from fourtuple.cli.explain import explain
from fourtuple.cli.http import parse_answer
from fourtuple.cli.steps import Names, describe
from fourtuple.cli.story import names_of
from fourtuple.errors import errno_name
from fourtuple.wire.text import format_packet

SCHEMA = "fourtuple.connect/1"
_MOST_LOOKS = 1000


def to_json(document: dict[str, Any], ascii_only: bool = False) -> str:
    """The document as text; `ascii_only` escapes everything else, which means the same."""
    return json.dumps(document, indent=2, ensure_ascii=ascii_only)


def connect_report(attempt: Attempt, seed: int, prefilled: int, file: CaptureFile | None = None) -> dict[str, Any]:
    """Everything about one `fourtuple connect`."""
    names = names_of(attempt)
    request, wire = attempt.request, attempt.wire
    return {
        "schema": SCHEMA,
        "version": __version__,
        "profile": names.profile,
        "seed": seed,
        "wire": {"name": wire.name, "device": wire.tap.name, "virtual_time": wire.runner.is_virtual},
        "destination": {"address": request.address, "port": request.port},
        "source": {"address": attempt.source, "port": attempt.source_port} if not attempt.error else None,
        "result": _result(attempt),
        "ports": _ports(attempt, prefilled),
        "steps": _steps(attempt, names),
        "packets": [_packet(attempt, i) for i in range(len(attempt.packets))],
        "answer": _answer(attempt),
        "capture": None if file is None else {"file": file.path, "packets": file.packets},
        "exit": exit_of_errno(attempt.error),
    }


def _result(attempt: Attempt) -> dict[str, Any]:
    if not attempt.error:
        return {
            "errno": None,
            "call": None,
            "duration_us": attempt.connect_us,
            "untraced_us": None,
            "explanation": None,
        }
    why = explain(attempt)
    return {
        "errno": errno_name(attempt.error),
        "call": "bind" if attempt.bind_code else "connect",
        "duration_us": attempt.connect_us,
        "untraced_us": attempt.untraced_us or None,
        "explanation": {
            "function": why.function,
            "reason": why.reason,
            "frees": list(why.frees),
            "not_it": list(why.not_it),
        },
    }


def _ports(attempt: Attempt, prefilled: int) -> dict[str, Any]:
    sysctl = attempt.wire.host.sysctls
    looks = attempt.looks
    return {
        "low": sysctl.port_low,
        "high": sysctl.port_high,
        "reserved": [list(pair) for pair in sysctl.reserved_ranges],
        "prefilled": prefilled,
        "looked_at": len(looks),
        "verdicts": {km.LOOK_NAMES[verdict]: number for verdict, number in sorted(attempt.verdicts.items())},
        "looks": [{"port": look.a, "verdict": km.LOOK_NAMES[look.b], "detail": look.c} for look in looks[:_MOST_LOOKS]],
        "looks_left_out": max(0, len(looks) - _MOST_LOOKS),
    }


def _steps(attempt: Attempt, names: Names) -> list[dict[str, Any]]:
    steps = describe(attempt.records, names, attempt.wire.runner.is_virtual, verbose=True)
    return [
        {
            "time_us": step.time_us,
            "depth": step.depth,
            "function": step.name,
            "ours": km.BY_NUMBER[step.fn].ours if step.fn in km.BY_NUMBER else "",
            "text": step.text,
            "note": step.note,
        }
        for step in steps
        if step.fn != km.FN_PORT_LOOK
    ]


def _packet(attempt: Attempt, index: int) -> dict[str, Any]:
    packet = attempt.packets[index]
    return {
        "time_us": packet.time_us - attempt.start_us,
        "direction": "out" if packet.outgoing else "in",
        "lost": packet.lost or None,
        "connect": index < attempt.connect_packets,
        "bytes": len(packet.data),
        "text": format_packet(packet.data),
    }


def _answer(attempt: Attempt) -> dict[str, Any] | None:
    if attempt.error or not attempt.request.wants_answer:
        return None
    status, body = parse_answer(attempt.answer)
    return {
        "status_line": status,
        "bytes": len(attempt.answer),
        "body": body.decode("utf-8", "replace"),
        "errno": errno_name(attempt.answer_code) if attempt.answer_code else None,
        "duration_us": attempt.answer_us,
    }
