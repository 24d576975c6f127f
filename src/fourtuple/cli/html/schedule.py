"""When the SYN is sent again if nobody answers: a line of time for today's Linux, one for the Linux before 6.5.

Rule: the times are the engine's own (sim/syn_schedule.py), asked for when the page is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import log2

from fourtuple.cli.html.markup import Html, both_widths, line_of, picture, tag, text_at
from fourtuple.cli.html.path import head_of
from fourtuple.errors import errno_name
from fourtuple.sim.syn_schedule import LINEAR, SynSchedule, syn_schedule

WIDE, NARROW = 620, 306
_NO_SYSCTLS: Mapping[str, str] = {}
_BEFORE = {"net.ipv4.tcp_syn_linear_timeouts": "0"}
"""tcp_syn_linear_timeouts came with 6.5; 0 is what Linux did before."""


def schedule_card(profile: str = "6.18", sysctls: Mapping[str, str] = _NO_SYSCTLS, name: str = "syn") -> Html:
    """Both lines, with their heading."""
    now, before = syn_schedule(profile, sysctls), syn_schedule("6.18", _BEFORE)
    lines = [(f"Linux {profile}: {_shape(now)}", now, "now")]
    if LINEAR in now.rules:
        lines.append((f"Before 6.5: {_shape(before)}", before, "before"))
    figures = [_drawing(lines, width, f"{name}-{width}") for width in (WIDE, NARROW)]
    return tag(
        "section",
        tag("h2", "When nobody answers: each SYN, and the end"),
        both_widths(*figures),
        tag("p", "Seconds since connect(), on a logarithmic scale. Each dot is a SYN, ✗ the end.", class_="hint"),
        class_="card schedule",
    )


def _shape(schedule: SynSchedule) -> str:
    linear, first = schedule.rules.count(LINEAR), f"{schedule.gaps_us[0] / 1e6:g} s"
    shape = f"{linear + 1} × {first}, then doubling" if linear else f"doubling from {first}"
    return f"{head_of(len(schedule.sent_us), 'SYN')}, {shape}"


def _drawing(lines: list[tuple[str, SynSchedule, str]], width: int, name: str) -> Html:
    left, right = 14.0, width - 22.0
    scale = (right - left) / log2(1 + max(schedule.end_us for _, schedule, _ in lines) / 1e6)
    parts: list[Html] = []
    y = 14.0
    for title, schedule, class_ in lines:
        parts.append(text_at(2, y, title, "strong" if width > 500 else "small strong-small"))
        parts += _line(schedule, class_, left, scale, y + 34)
        y += 96
    what = "; ".join(f"{title}: SYN at {_seconds(schedule)} s" for title, schedule, _ in lines)
    return picture(name, width, y - 20, "SYN schedules", what, *parts)


def _line(schedule: SynSchedule, class_: str, left: float, scale: float, y: float) -> list[Html]:
    """A bar, a dot and its time for each SYN, a cross at the end."""
    places = [left + scale * log2(1 + at / 1e6) for at in (*schedule.sent_us, schedule.end_us)]
    end = places[-1]
    parts = [line_of(left, y, end, y, "span")]
    row, last = 0, -99.0
    for at, x in zip(schedule.sent_us, places, strict=False):
        text = f"{at / 1e6:g}"
        row = 1 - row if x - last < 7 * len(text) + 8 else 0
        last = x
        parts.append(tag("circle", cx=x, cy=y, r=5, class_=f"syn {class_}"))
        parts.append(text_at(x, y + 20 + 13 * row, text, "mono small dim", "middle", data_syn_us=at))
    parts.append(tag("path", d=f"M{end - 5:.1f} {y - 5:.1f}l10 10m0 -10l-10 10", class_="cross"))
    text = f"{errno_name(schedule.errno)} {schedule.end_us / 1e6:g} s"
    parts.append(text_at(end + 20, y - 11, text, "small bad", "end"))
    return parts


def _seconds(schedule: SynSchedule) -> str:
    return ", ".join(f"{at / 1e6:g}" for at in schedule.sent_us)
