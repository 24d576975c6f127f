"""An attempt told in lines: what it ran on, its trace, its packets, its result and the reason of a failure.

Lives here: the parts that `connect` and `demo` put together.  Does not live here: running it (attempt.py).
"""

from __future__ import annotations

import os

from fourtuple.cli.attempt import Attempt
from fourtuple.cli.explain import explain
from fourtuple.cli.http import parse_answer, printable
from fourtuple.cli.ladder import Packet, render_ladder
from fourtuple.cli.render import paragraph, render_steps, table
from fourtuple.cli.steps import Names, describe, duration
from fourtuple.cli.terminal import Line, Terminal, length
from fourtuple.doctor.words import plural
from fourtuple.errors import errno_name
from fourtuple.kernel_map import FN_IP_QUEUE_XMIT
from fourtuple.shell.wires import added_source, can_be_a_peer, can_serve
from fourtuple.wire.build import TcpPacket, parse_packet

_ANSWER_LINES = 5


def names_of(attempt: Attempt) -> Names:
    """What turns numbers of this attempt's records into words."""
    devices = {device.ifindex: device.name for device in attempt.wire.host.fib.devices.values()}
    sent = [packet for packet in attempt.packets if packet.outgoing]
    lost = {i: packet.lost for i, packet in enumerate(sent) if packet.lost}
    return Names(devices, lambda entry: attempt.owners.get(entry, ""), attempt.wire.host.sysctls.profile.name, lost)


def head_lines(attempt: Attempt, out: Terminal, seed: int, prefilled: int) -> list[Line]:
    """Wire, server, seed; what is made worse on purpose; what is held in the tables."""
    wire, server = attempt.wire, f"{attempt.request.address}:{attempt.request.port}"
    rows = [("wire", f"{wire.where} · Linux {names_of(attempt).profile} · seed {seed}"), ("peer", _peer(attempt))]
    if added := added_source(wire.setup):
        rows.append(("from", f"{added}, made an address of ours"))
    path = [f"loses {','.join(rule.text for rule in wire.setup.loss)}"] if wire.setup.loss else []
    if wire.rtt_us:
        path.append(f"round trip {duration(wire.rtt_us)}")
    if path:
        rows.append(("path", " · ".join(path)))
    rows += [("note", note) for note in wire.notes]
    if prefilled:
        rows.append(("fill", f"{plural(prefilled, 'four-tuple')} to {server} put in our tables, without packets"))
    return table(rows, "dim", out.width, indent=0)


def _peer(attempt: Attempt) -> str:
    request = attempt.request
    server = f"{request.address}:{request.port}"
    if not can_be_a_peer(request.address):
        return f"none: another machine cannot have {request.address}"
    if attempt.wire.name == "tun-host":
        way_back = "" if attempt.wire.setup.nat else "; beyond this machine only with a route back to us, or --nat"
        return f"{server}, whoever answers there{way_back}"
    if not can_serve(request.address, request.port):
        return f"{request.address}, where nobody can listen on port {request.port}"
    return f"an HTTP server at {server}" + (", made local in the namespace" if attempt.wire.namespace else "")


def trace_lines(attempt: Attempt, out: Terminal, verbose: bool = False, start: int = 0) -> list[Line]:
    """Every function of connect() with its decision; `start`: from that function (FN_*) on."""
    steps = describe(attempt.records, names_of(attempt), attempt.wire.runner.is_virtual, verbose)
    first = next((i for i, step in enumerate(steps) if step.fn == start), 0)
    return render_steps(steps[first:], out)


def ladder_lines(attempt: Attempt, out: Terminal, whole: bool) -> list[Line]:
    """The packets of connect(); `whole`: and of everything behind it."""
    shown = attempt.packets if whole else attempt.segments
    if not shown:
        return []
    packets = [Packet(p.time_us - attempt.start_us, p.outgoing, p.data, p.lost) for p in shown]
    ends = (f"{attempt.local_address}:{local_port(attempt)}", f"{attempt.request.address}:{attempt.request.port}")
    return render_ladder(packets, ends, out)


def local_port(attempt: Attempt) -> int:
    """Of a failed attempt only its packets remember the port."""
    if attempt.source_port:
        return attempt.source_port
    sent = (parse_packet(packet.data) for packet in attempt.packets if packet.outgoing)
    return next((packet.sport for packet in sent if isinstance(packet, TcpPacket)), 0)


def summary_lines(attempt: Attempt, out: Terminal) -> list[Line]:
    """connect() = 0 in 1.031 s   10.64.0.2:49886 → 10.64.0.1:8080   4 ports looked at, 3 segments"""
    if attempt.error:
        return _failure_lines(attempt, out)
    gap = "     " if out.width >= 100 else "  "
    line: Line = [
        ("connect() = 0", "good"),
        (f" in {duration(attempt.connect_us)}{gap}{attempt.source}:", ""),
        (str(attempt.source_port), "port"),
        (f" → {attempt.request.address}:{attempt.request.port}", ""),
    ]
    looked = len(attempt.looks)
    ports = f"{plural(looked, 'port')} looked at" if looked else "no port search"
    remark = f"{ports}, {plural(len(attempt.segments), 'segment')}"
    if length(line) + len(gap) + len(remark) <= out.width:
        return [[*line, (gap + remark, "dim")]]
    return [line, [(" " * 16 + remark, "dim")]]


def _failure_lines(attempt: Attempt, out: Terminal) -> list[Line]:
    call = "bind" if attempt.bind_code else "connect"
    sent = sum(packet.outgoing for packet in attempt.segments)
    packets = f"{plural(sent, 'packet')} sent" if sent else "no packet was sent"
    if not sent and any(record.fn == FN_IP_QUEUE_XMIT for record in attempt.records):
        packets = "no packet left the host"
    when = f"after {duration(attempt.connect_us)}" if attempt.connect_us else "at once"
    line: Line = [(f"{call}() = -1 {errno_name(attempt.error)}", "bad"), (f" {when}; {packets}", "")]
    if not attempt.untraced_us:
        return [line]
    looked = plural(len(attempt.looks), "port")
    untraced = duration(attempt.untraced_us)
    remark = f"writing down {looked} took most of that; unwatched the same call takes {untraced}"
    return [line, *paragraph(remark, out.width, style="dim")]


def explanation_lines(attempt: Attempt, out: Terminal) -> list[Line]:
    """Why, by which function, and what helps."""
    why = explain(attempt)
    lines = paragraph(f"{why.meaning}. {why.function}: {why.reason}." if why.function else why.reason, out.width)
    rows = [("helps" if i == 0 else "", text) for i, text in enumerate(why.frees)]
    if why.not_it:
        rows.append(("does not", " · ".join(why.not_it)))
    return [*lines, *table(rows, "info", out.width)]


def answer_lines(attempt: Attempt, out: Terminal) -> list[Line]:
    """What the server said."""
    if attempt.error or not attempt.request.payload:
        return []
    if attempt.answer_code:
        name = errno_name(attempt.answer_code)
        return [[("then ", ""), (name, "bad"), (f" ({os.strerror(attempt.answer_code)})", "")]]
    if not attempt.request.wants_answer:
        return [[(f"sent {plural(len(attempt.request.payload), 'byte')}", "")]]
    status, body = parse_answer(attempt.answer)
    size = f"{plural(len(attempt.answer), 'byte')} in {duration(attempt.answer_us)}"
    more = ", the rest was not read" if attempt.answer_is_cut else ""
    first = printable(status.encode(), 1, out.width - len(size + more) - 3)
    head: Line = [(" · ".join([*(first or ["no HTTP"]), size + more]), "good" if " 200 " in status else "warn")]
    return [head, *[[("  " + text, "")] for text in printable(body, _ANSWER_LINES, out.width - 2)]]
