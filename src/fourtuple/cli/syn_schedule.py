"""`fourtuple syn-schedule`: when a SYN that nobody answers is sent again, and when connect() gives up.

Lives here: options, and the schedule told in lines and as JSON.
Does not live here: the schedule itself, which the engine gives (sim/syn_schedule.py); drawing (time_line.py).
"""

from __future__ import annotations

import argparse
import errno
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Any

from fourtuple.cli import exits, options
from fourtuple.cli.exits import Failure
from fourtuple.cli.terminal import Line, Terminal

if TYPE_CHECKING:
    from fourtuple.sim.syn_schedule import SynSchedule

SCHEMA = "fourtuple.syn-schedule/1"
_RETRIES = "net.ipv4.tcp_syn_retries"
_LINEAR = "net.ipv4.tcp_syn_linear_timeouts"
_RTO_MAX = "net.ipv4.tcp_rto_max_ms"
_USER_TIMEOUT = "TCP_USER_TIMEOUT"
_MOST_SYNCNT = 127
_WHOLE_RUN, _SHOWN_OF_RUN = 6, 2
_NUMBER = re.compile(r"-?[0-9]{1,10}")

_EPILOG = """\
examples:
  fourtuple syn-schedule                               Linux 6.18 as it comes: 131 s
  fourtuple syn-schedule --retries 3 --linear 0
  fourtuple syn-schedule --user-timeout 10s            one socket: TCP_USER_TIMEOUT
  fourtuple syn-schedule --all-profiles                old kernels and new ones
"""


@dataclass(frozen=True)
class Settings:
    """What was asked for, the same for each profile."""

    sysctls: dict[str, str] = field(default_factory=dict)
    syncnt: int = 0
    user_timeout_ms: int = 0


def number(text: str) -> int:
    """A whole number."""
    if not _NUMBER.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.usage = "fourtuple syn-schedule [options]"
    parser.epilog = _EPILOG
    kernel = parser.add_argument_group("kernel")
    which = kernel.add_mutually_exclusive_group()
    which.add_argument(
        "--profile",
        type=options.profile,
        action="append",
        metavar="VERSION",
        help="the Linux to imitate (6.18); twice or more: compare",
    )
    which.add_argument("--all-profiles", action="store_true", help="compare all that there are")
    kernel.add_argument("--retries", type=number, metavar="N", help="net.ipv4.tcp_syn_retries")
    kernel.add_argument("--linear", type=number, metavar="N", help="net.ipv4.tcp_syn_linear_timeouts")
    kernel.add_argument("--rto-max", type=options.duration_us, metavar="TIME", help="net.ipv4.tcp_rto_max_ms")
    socket = parser.add_argument_group("socket")
    socket.add_argument("--syncnt", type=number, metavar="N", help="TCP_SYNCNT: tcp_syn_retries of one socket")
    socket.add_argument("--user-timeout", type=options.duration_us, metavar="TIME", help="TCP_USER_TIMEOUT")
    output = parser.add_argument_group("report")
    output.add_argument("--json", action="store_true", help="one JSON document instead of text")


def run(args: argparse.Namespace, out: Terminal, err: Terminal) -> int:
    """Print it.  That connect() fails is the answer, so the exit code is 0."""
    from fourtuple.sysctl import PROFILES

    names = list(PROFILES) if args.all_profiles else list(dict.fromkeys(args.profile or ["6.18"]))
    settings = _settings(args)
    compare = args.all_profiles or len(names) > 1
    schedules = [_schedule(name, settings, alone=not compare) for name in names]
    if args.json:
        from fourtuple.cli.report import to_json

        out.write(to_json(_document(schedules, settings), out.ascii_only) + "\n")
    else:
        out.print(*(_compared(schedules, settings, out) if compare else _one(schedules[0], settings, out)))
    return exits.OK


# ------------------------------------------------------------------------------------------------ settings


def _settings(args: argparse.Namespace) -> Settings:
    given = {_RETRIES: args.retries, _LINEAR: args.linear}
    sysctls = {name: str(value) for name, value in given.items() if value is not None}
    if args.rto_max is not None:
        sysctls[_RTO_MAX] = str(_whole_ms("--rto-max", args.rto_max))
    if args.syncnt is not None and not 1 <= args.syncnt <= _MOST_SYNCNT:
        raise Failure(f"Linux refuses TCP_SYNCNT = {args.syncnt} (EINVAL): 1 to {_MOST_SYNCNT}")
    user_timeout = 0 if args.user_timeout is None else _whole_ms("--user-timeout", args.user_timeout)
    return Settings(sysctls, args.syncnt or 0, user_timeout)


def _whole_ms(option: str, us: int) -> int:
    if us % 1000:
        raise Failure(f"{option}: Linux counts it in whole milliseconds; say for example 1500ms")
    return us // 1000


def _known(profile: str, settings: Settings) -> dict[str, str]:
    """Those of the sysctls that this kernel has."""
    from fourtuple.sysctl import Sysctls, profile_named

    absent = profile_named(profile).absent_sysctls
    known = {name: text for name, text in settings.sysctls.items() if name not in absent}
    values = Sysctls(profile_named(profile))
    for name, text in known.items():
        if values.set(name, text) < 0:
            raise Failure(f"Linux refuses {name} = {text} (EINVAL): {_bounds(name)}")
    return known


def _bounds(name: str) -> str:
    from fourtuple.sysctl_table import BY_NAME

    return f"{BY_NAME[name].min} to {BY_NAME[name].max}"


def _schedule(profile: str, settings: Settings, alone: bool) -> SynSchedule:
    """Where kernels are compared, each goes by what it has of the settings; a kernel alone has to have them all."""
    from fourtuple.errors import errno_name
    from fourtuple.sim.syn_schedule import syn_schedule

    lacking = _lacking(profile, settings)
    if lacking and alone:
        code = "ENOENT" if "." in lacking[0] else "ENOPROTOOPT"
        raise Failure(f"Linux {profile} has no {lacking[0]} ({code})", hints=("the same without that option",))
    timeout_ms = 0 if _USER_TIMEOUT in lacking else settings.user_timeout_ms
    try:
        return syn_schedule(profile, _known(profile, settings), settings.syncnt, timeout_ms)
    except OSError as error:
        raise Failure(f"Linux {profile} refuses {error.strerror} ({errno_name(error.errno or 0)})") from None


def _lacking(profile: str, settings: Settings) -> list[str]:
    """What was asked for and this kernel does not have yet."""
    from fourtuple.sysctl import profile_named

    absent = profile_named(profile).absent_sysctls
    lacking = [name for name in settings.sysctls if name in absent]
    return [*lacking, _USER_TIMEOUT] if settings.user_timeout_ms and not _has_user_timeout(profile) else lacking


def _has_user_timeout(profile: str) -> bool:
    """Asked of the engine: does the socket option exist?"""
    from fourtuple.sim.syn_schedule import syn_schedule

    try:
        syn_schedule(profile, user_timeout_ms=1)
    except OSError as error:
        return error.errno != errno.ENOPROTOOPT
    return True


def _value(profile: str, name: str, settings: Settings) -> str:
    """The sysctl as this profile has it; "" if it has none."""
    from fourtuple.sysctl import Sysctls, profile_named

    try:
        default = Sysctls(profile_named(profile)).get(name)
    except KeyError:
        return ""
    return settings.sysctls.get(name, default)


# ------------------------------------------------------------------------------------------------ text


def _one(schedule: SynSchedule, settings: Settings, out: Terminal) -> list[Line]:
    """The line, then each SYN with the wait before it."""
    from fourtuple.cli.render import paragraph
    from fourtuple.cli.time_line import Track, render_tracks, seconds
    from fourtuple.errors import errno_name

    remark = f"{errno_name(schedule.errno)} {seconds(schedule.end_us)}"
    track = Track("", schedule.sent_us, schedule.end_us, remark)
    head = f"Linux {schedule.profile}, {_asked(schedule.profile, settings)}"
    lines = [*paragraph(head, out.width, indent=0), [], *render_tracks([track], out), []]
    return [*lines, *_rows(schedule, settings, out), [], *_deaf([schedule], settings, out), *_note(out)]


def _asked(profile: str, settings: Settings) -> str:
    """tcp_syn_retries 6, tcp_syn_linear_timeouts 4, ..."""
    from fourtuple.cli.time_line import seconds

    values = [(name, _value(profile, name, settings)) for name in (_RETRIES, _LINEAR)]
    parts = [f"{name.removeprefix('net.ipv4.')} {value}" for name, value in values if value]
    if _RTO_MAX in settings.sysctls:
        parts.append(f"tcp_rto_max_ms {settings.sysctls[_RTO_MAX]}")
    if settings.syncnt:
        parts.append(f"TCP_SYNCNT {settings.syncnt}")
    if settings.user_timeout_ms:
        parts.append(f"TCP_USER_TIMEOUT {seconds(settings.user_timeout_ms * 1000)}")
    return ", ".join(parts)


def _rows(schedule: SynSchedule, settings: Settings, out: Terminal) -> list[Line]:
    """SYN, when, the gap before it, and which rule set the gap."""
    from fourtuple.cli.time_line import seconds
    from fourtuple.errors import errno_name

    rows = [("1", seconds(0), "", "connect() sends it")]
    gaps = list(zip(schedule.gaps_us, schedule.rules, strict=True))
    for i, (gap, rule) in enumerate(gaps[:-1], 1):
        rows.append((str(i + 1), seconds(schedule.sent_us[i]), seconds(gap), _rule(rule, gap, schedule, settings)))
    last_gap, last_rule = gaps[-1]
    rule = _rule(last_rule, last_gap, schedule, settings)
    rows = _shortened(rows)
    rows.append(("✗", seconds(schedule.end_us), seconds(last_gap), rule))
    rows.append(("", "", "", f"{errno_name(schedule.errno)}: {_end(schedule, settings)}"))
    return _columns([("SYN", "SENT", "GAP", "SET BY"), *rows], out)


def _shortened(rows: list[tuple[str, str, str, str]]) -> list[tuple[str, str, str, str]]:
    """The same; of a long run of equal gaps only both ends."""
    shown = []
    for _, group in groupby(rows, key=lambda row: row[2:]):
        run = list(group)
        if len(run) > _WHOLE_RUN:
            left_out = len(run) - 2 * _SHOWN_OF_RUN
            run[_SHOWN_OF_RUN:-_SHOWN_OF_RUN] = [("…", "", run[0][2], f"{left_out} more, in the same way")]
        shown += run
    return shown


def _columns(rows: Sequence[tuple[str, str, str, str]], out: Terminal) -> list[Line]:
    from fourtuple.cli.render import wrap

    glyphs = [tuple(out.glyphs(cell) for cell in row) for row in rows]
    widths = [max(len(row[i]) for row in glyphs) for i in range(3)]
    lines: list[Line] = []
    for i, row in enumerate(glyphs):
        head = "  " + "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=False)) + "  "
        bad = "bad" if rows[i][0] == "✗" or not rows[i][0] else ""
        for j, piece in enumerate(wrap(row[3], out.width - len(head), out.width - len(head)) or [""]):
            lines.append([(head if j == 0 else " " * len(head), "dim" if i == 0 else bad), (piece, bad or "dim")])
    return lines


def _rule(rule: str, gap_us: int, schedule: SynSchedule, settings: Settings) -> str:
    from fourtuple.cli.time_line import seconds
    from fourtuple.sim import syn_schedule as rules

    by = "tcp_rto_max_ms" if _RTO_MAX in settings.sysctls else "TCP_RTO_MAX"
    return {
        rules.FIRST: "TCP_TIMEOUT_INIT, the first timeout",
        rules.LINEAR: f"linear: not doubled, tcp_syn_linear_timeouts {_value(schedule.profile, _LINEAR, settings)}",
        rules.DOUBLED: "doubled",
        rules.CAPPED: f"cut at {by} {seconds(gap_us)}",
        rules.USER_TIMEOUT: "cut to what is left of TCP_USER_TIMEOUT",
    }[rule]


def _end(schedule: SynSchedule, settings: Settings) -> str:
    from fourtuple.cli.time_line import seconds
    from fourtuple.sim import syn_schedule as rules

    if schedule.ended_by == rules.USER_TIMEOUT:
        return f"TCP_USER_TIMEOUT {seconds(settings.user_timeout_ms * 1000)} is over"
    retries = settings.syncnt or _value(schedule.profile, _RETRIES, settings)
    if schedule.ended_by == rules.BUDGET:
        name = "TCP_SYNCNT" if settings.syncnt else "tcp_syn_retries"
        return f"the time that {name} {retries} stands for is over"
    linear = _value(schedule.profile, _LINEAR, settings)
    return f"{retries}{f' + {linear} linear' if linear not in ('', '0') else ''} retries used up"


def _compared(schedules: Sequence[SynSchedule], settings: Settings, out: Terminal) -> list[Line]:
    """One line a kernel."""
    from fourtuple.cli.render import paragraph
    from fourtuple.cli.time_line import Track, render_tracks, seconds
    from fourtuple.errors import errno_name

    tracks = [
        Track(f"Linux {one.profile}", one.sent_us, one.end_us, f"{seconds(one.end_us)}, {len(one.sent_us)} SYNs")
        for one in schedules
    ]
    errnos = " or ".join(sorted({errno_name(one.errno) for one in schedules}))
    title = f"Nobody answers: when the SYN is sent again, and when connect() gives up (✗ {errnos})"
    lines = [*paragraph(out.glyphs(title), out.width, indent=0), [], *render_tracks(tracks, out), []]
    for name in (*settings.sysctls, _USER_TIMEOUT):
        without = [one.profile for one in schedules if name in _lacking(one.profile, settings)]
        if without:
            lines += paragraph(f"No {name.removeprefix('net.ipv4.')} in Linux {', '.join(without)}.", out.width)
    return [*lines, *_deaf(schedules, settings, out), *_note(out)]


def _deaf(schedules: Sequence[SynSchedule], settings: Settings, out: Terminal) -> list[Line]:
    """Kernels that have TCP_USER_TIMEOUT and mind it only once connected."""
    from fourtuple.cli.render import paragraph

    late = [one for one in schedules if 0 < settings.user_timeout_ms * 1000 < one.end_us]
    deaf = [
        one.profile
        for one in late
        if one.ended_by != "user_timeout" and _USER_TIMEOUT not in _lacking(one.profile, settings)
    ]
    text = f"Linux {', '.join(deaf)}: TCP_USER_TIMEOUT does not count before the connection is established."
    return paragraph(text, out.width) if deaf else []


def _note(out: Terminal) -> list[Line]:
    from fourtuple.cli.render import paragraph

    note = "Nominal times: the timers of a real kernel may fire up to 12.5 % late, never early (131 s due, 134 s seen)."
    return paragraph(note, out.width, style="dim")


# ------------------------------------------------------------------------------------------------ JSON


def _document(schedules: Sequence[SynSchedule], settings: Settings) -> dict[str, Any]:
    from fourtuple import __version__

    return {
        "schema": SCHEMA,
        "version": __version__,
        "syncnt": settings.syncnt or None,
        "user_timeout_ms": settings.user_timeout_ms or None,
        "schedules": [_report(schedule, settings) for schedule in schedules],
        "exit": exits.OK,
    }


def _report(schedule: SynSchedule, settings: Settings) -> dict[str, Any]:
    from fourtuple.errors import errno_name

    before = [(None, None), *zip(schedule.gaps_us, schedule.rules, strict=True)]
    values = {name: _value(schedule.profile, name, settings) for name in (_RETRIES, _LINEAR, _RTO_MAX)}
    return {
        "profile": schedule.profile,
        "sysctls": {name: int(text) if text else None for name, text in values.items()},
        "syns": [
            {"time_us": at, "gap_us": gap, "rule": rule}
            for at, (gap, rule) in zip(schedule.sent_us, before[:-1], strict=True)
        ],
        "end": {
            "time_us": schedule.end_us,
            "gap_us": before[-1][0],
            "rule": before[-1][1],
            "ended_by": schedule.ended_by,
            "errno": errno_name(schedule.errno),
        },
    }
