"""`fourtuple plan`: does a load fit into the port range, what does each connect() cost, and what would make it fit.

Lives here: options, text, JSON.  Does not live here: the arithmetic and the simulations (doctor/plan.py).
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from fourtuple.cli import exits, options
from fourtuple.cli.exits import Failure
from fourtuple.cli.terminal import Line, Terminal, length

if TYPE_CHECKING:
    from fourtuple.doctor.plan import Option, Outcome, Plan, Workload

SCHEMA = "fourtuple.plan/1"
_RATE = re.compile(r"([0-9]+(?:\.[0-9]+)?)(k?)(?:/(s|min|m|h))?")
_PER = {None: 1, "": 1, "s": 1, "min": 60, "m": 60, "h": 3600}
_LOWEST_RATE, _HIGHEST_RATE = 0.001, 10_000_000
_MOST = 1_000_000
_UNPRIVILEGED = 1024  # the default of ip_unprivileged_port_start
_EPILOG = """\
examples:
  fourtuple plan --rate 500/s --hold 60s                  each request a connection
  fourtuple plan --rate 500/s --hold 60s --budget 100us   connect() may cost that
  fourtuple plan --rate 2000/s --hold 50ms --dests 4 --tw-reuse 1
  fourtuple plan --rate 90/min --hold 2h --range 15000-64999

Every FILL and COST is measured in a simulation of that load in the same tables
and port search as the kernel's; nothing is sent. The exit code is 0 whether it
fits or not: --json has "fits".
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.usage = "fourtuple plan --rate N/s --hold TIME [options]"
    parser.epilog = _EPILOG
    load = parser.add_argument_group("the load")
    load.add_argument("--rate", type=rate, required=True, metavar="N/s", help="requests; also N/min, N/h")
    load.add_argument("--hold", type=hold_s, required=True, metavar="TIME", help="how long a connection is open")
    load.add_argument("--requests", type=count, default=1, metavar="N", help="on each connection (1)")
    load.add_argument("--dests", type=count, default=1, metavar="N", help="destinations, ADDRESS:PORT (1)")
    load.add_argument("--sources", type=count, default=1, metavar="N", help="our source addresses (1)")
    load.add_argument("--server-closes", action="store_true", help="the server closes first: its TIME_WAIT, not ours")
    kernel = parser.add_argument_group("kernel")
    kernel.add_argument("--range", type=options.port_range, default=(32768, 60999), metavar="LO-HI",
                        help="ip_local_port_range (32768-60999)")  # fmt: skip
    kernel.add_argument("--tw-reuse", type=int, choices=(0, 1, 2), default=2, help="tcp_tw_reuse (2: loopback only)")
    kernel.add_argument(
        "--port-range-option", action="store_true", help="the sockets set IP_LOCAL_PORT_RANGE (Linux 6.3)"
    )
    report = parser.add_argument_group("report")
    report.add_argument("--budget", type=budget_us, metavar="TIME", help="what one connect() may cost, as 100us")
    report.add_argument("--json", action="store_true", help="one JSON document instead of text")


def rate(text: str) -> float:
    """'500/s', '2k', '90/min' -> a second."""
    match = _RATE.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a rate; say for example 500/s or 90/min")
    found = float(match[1]) * (1000 if match[2] else 1) / _PER[match[3]]
    if not _LOWEST_RATE <= found <= _HIGHEST_RATE:
        raise argparse.ArgumentTypeError(f"{text!r}: a rate is from 4/h to {_HIGHEST_RATE}/s")
    return found


def hold_s(text: str) -> float:
    """'60s', '5min', '2h' -> seconds, more than 0."""
    found = _seconds(text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r}: a connection is open for some time; say for example 1ms")
    return found


def _seconds(text: str) -> float:
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(min|m|h)", text)
    if match and float(match[1]) * _PER[match[2]] <= 86_400:
        return float(match[1]) * _PER[match[2]]
    if match:
        raise argparse.ArgumentTypeError(f"{text!r} is more than a day (24h)")
    try:
        return options.duration_us(text) / 1e6
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(str(error).replace("30ms, 1.5s or 200us", "30ms, 60s, 5min or 2h")) from None


def budget_us(text: str) -> float:
    """'100us' -> 100.0, more than 0."""
    found = options.duration_us(text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r}: no connect() is free; say for example 100us")
    return float(found)


def count(text: str) -> int:
    """A number from 1 on."""
    if not (text.isascii() and text.isdigit() and 1 <= len(text) <= 9 and 1 <= int(text) <= _MOST):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to {_MOST}")
    return int(text)


def run(args: argparse.Namespace, out: Terminal, err: Terminal) -> int:
    """Simulate, then print."""
    from fourtuple.cli.progress import Progress
    from fourtuple.doctor.plan import plan

    progress = Progress(err)
    progress.say("simulating this load, and what could make it fit …")
    try:
        found = plan(_workload(args))
    except ValueError as error:
        raise Failure(f"plan: {error}", exits.USAGE) from None
    finally:
        progress.clear()
    if args.json:
        out.write(json.dumps(document(found), indent=2, ensure_ascii=out.ascii_only) + "\n")
    else:
        out.print(*lines(found, out))
    return exits.OK


def _workload(args: argparse.Namespace) -> Workload:
    from fourtuple.doctor.plan import Workload

    return Workload(
        rate_per_s=args.rate,
        hold_s=args.hold,
        dests=args.dests,
        sources=args.sources,
        port_low=args.range[0],
        port_high=args.range[1],
        tcp_tw_reuse=args.tw_reuse,
        budget_us=args.budget,
        server_closes_first=args.server_closes,
        requests_per_connection=args.requests,
        local_port_range_option=args.port_range_option,
    )


def document(found: Plan) -> dict[str, Any]:
    """What schema/plan-1.json describes."""
    from fourtuple import __version__
    from fourtuple.doctor.answers import as_json

    answer: dict[str, Any] = as_json(found)
    return {"schema": SCHEMA, "version": __version__, **answer, "exit": exits.OK}


# ------------------------------------------------------------------------------------------------ text


def lines(found: Plan, out: Terminal) -> Iterator[Line]:
    """The load, what it needs, what it meets, and what would make it fit."""
    from fourtuple.cli.render import paragraph

    yield from paragraph(out.glyphs(said(found.workload)), out.width, 0, "bold")
    yield []
    for label, text, verdict in _answers(found):
        yield from _answer(label, text, verdict, out)
    yield []
    if found.fits:
        text = out.glyphs("✓ ") + f"it fits; {_headroom(found)}"
        yield from paragraph(text, out.width, 0, "good")
    elif found.options:
        yield from _options(found.options, out)
    else:
        text = "no single change makes it fit, nor up to 64 times as many addresses: spread it over more machines"
        yield from paragraph(out.glyphs(f"✗ {text}"), out.width, 0, "bad")


def said(w: Workload) -> str:
    """The load in a sentence."""
    from fourtuple.doctor.words import plural

    many = w.requests_per_connection > 1
    what = _rate(w.rate_per_s, "requests" if many else "new connections")
    what += f", {w.requests_per_connection} on a connection" if many else ""
    then = "then the server's TIME_WAIT" if w.server_closes_first else "then TIME_WAIT 60 s"
    if w.tcp_tw_reuse == 1 and not w.server_closes_first:
        then += " (tcp_tw_reuse=1: reusable after 1 s)"
    addresses = "1 address" if w.sources == 1 else plural(w.sources, "addresse")
    option = ", IP_LOCAL_PORT_RANGE set" if w.local_port_range_option else ""
    return f"{what}, each held {_time(w.hold_s)}, {then}, to {plural(w.dests, 'destination')} from {addresses}{option}"


def _rate(per_s: float, what: str) -> str:
    """'500 requests a second', '90 requests a minute'."""
    from fourtuple.doctor.words import grouped

    for factor, unit in ((1, "a second"), (60, "a minute"), (3600, "an hour")):
        if per_s * factor >= 1 or factor == 3600:
            number = per_s * factor
            return f"{grouped(round(number)) if number >= 100 else format(number, '.3g')} {what} {unit}"
    raise AssertionError


def _time(seconds: float) -> str:
    """'50 ms', '60 s', '5 min', '2 h'."""
    if 0 < seconds < 1:
        return f"{seconds * 1000:.3g} ms" if seconds >= 0.001 else f"{seconds * 1e6:.3g} µs"
    if seconds < 120:
        return f"{seconds:.4g} s"
    return f"{seconds / 60:.3g} min" if seconds < 3600 else f"{seconds / 3600:.3g} h"


def _many(number: float) -> str:
    from fourtuple.doctor.words import grouped

    return grouped(round(number)) if number >= 10 or number == round(number) else f"{number:.1f}"


def _answers(found: Plan) -> Iterator[tuple[str, str, str]]:
    """(label, text, verdict: what follows, "" or a text that begins with its mark)."""
    w, d = found.workload, found.demand
    waits = f" + {_many(d.time_waits)} TIME_WAIT" if d.time_waits else ""
    yield "in use at once", f"{_many(d.open_at_once)} open{waits} = {_many(d.four_tuples)} four-tuples", ""
    if d.pairs > 1:
        yield (
            "for each pair",
            f"of source and destination: {_many(d.four_tuples_per_pair)} ({_many(d.pairs)} pairs)",
            "",
        )
    yield "the range has", f"{_many(w.ports)}, {w.port_low}–{w.port_high}", _room(found)
    if w.port_low < _UNPRIVILEGED:
        yield "", f"the kernel takes it only with net.ipv4.ip_unprivileged_port_start at {w.port_low} or below", ""
    yield "cost of connect()", _cost(found), _in_budget(found)
    yield "passed over", _passed(found.now), ""


def _room(found: Plan) -> str:
    from fourtuple.doctor.words import percent, time_left

    now = found.now
    if now.failing_share or found.demand.fill > 1:
        after = found.full_after_s
        when = "" if after is None else f" after {time_left(after)}" if after >= 1 else " within 1 s"
        share = f", {percent(now.failing_share)} fail" if now.failing_share else ""
        return f"✗ full{when} → EADDRNOTAVAIL{share}"
    return f"✓ {percent(now.fill)} in use"


def _cost(found: Plan) -> str:
    from fourtuple.doctor.words import duration, time_left

    cost = found.now.cost_us
    text = f"{duration(cost.likely)} ({duration(cost.low)} to {duration(cost.high)})"
    if found.cliff_after_s is None or found.cliff_after_s < 1:
        return text
    return f"{duration(found.baseline_us.likely)} until {time_left(found.cliff_after_s)}, then {text} past 50 %"


def _in_budget(found: Plan) -> str:
    from fourtuple.doctor.words import duration

    budget = found.workload.budget_us
    if budget is None:
        return ""
    over = found.now.cost_us.likely > budget
    return f"✗ over the {duration(budget)} budget" if over else f"✓ in the {duration(budget)} budget"


def _passed(now: Outcome) -> str:
    p = now.passed
    if not p.max:
        return "no port"
    simulated = f"in {_many(now.simulated_connects)} simulated connects"
    return f"{_many(p.mean)} ports on average (p95 {_many(p.p95)}), {simulated}"


def _answer(label: str, text: str, verdict: str, out: Terminal) -> Iterator[Line]:
    from fourtuple.cli.render import wrap

    indent = 21
    style = "good" if verdict.startswith("✓") else "bad"
    verdict = out.glyphs(verdict)
    room = out.width - indent
    pieces = wrap(out.glyphs(text), room, room)
    for i, piece in enumerate(pieces):
        line: Line = [(f"  {label if i == 0 else '':<{indent - 2}}", "dim"), (piece, "")]
        if verdict and i == len(pieces) - 1:
            gap = max(2, 66 - indent - len(piece)) if out.width >= 110 else 2
            if length(line) + gap + len(verdict) > out.width:
                yield line
                line, gap = [(" " * indent, "")], 0
            line += [(" " * gap, ""), (verdict, style)]
        yield line


def _headroom(found: Plan) -> str:
    full = 1 / found.demand.fill
    text = f"{_times(full)} fills the range"
    if found.workload.local_port_range_option or found.demand.fill >= 0.5:
        return text
    return f"{_times(full / 2)} this load reaches the cliff at half of it, {text}"


def _times(factor: float) -> str:
    return f"{factor:.2f} times" if factor < 10 else f"{_many(factor)} times" if factor < 1000 else "over 1000 times"


def _options(found: Sequence[Option], out: Terminal) -> Iterator[Line]:
    from fourtuple.cli.render import wrap
    from fourtuple.doctor.words import duration, percent

    head = "options that fit (least trouble first)"
    width = min(out.width - 2 - 3 * 2 - 6 - 8 - 8, max(len(head), *(len(option.text) for option in found)))
    yield [(f"  {head.ljust(width)}  {'FILL':>6}  {'COST':>8}  {'HEADROOM':>8}", "dim")]
    for option in found:
        cells = [
            percent(option.outcome.fill).rjust(6),
            out.glyphs(duration(option.outcome.cost_us.likely)).rjust(8),
            out.glyphs(f"×{option.headroom:.2f}" if option.headroom < 100 else "×100+").rjust(8),
        ]
        for i, piece in enumerate(wrap(option.text, width, width - 2)):
            text = f"  {piece}" if i == 0 else f"    {piece}"
            yield [(text.ljust(width + 2), ""), ("  " + "  ".join(cells), "")] if i == 0 else [(text, "")]
