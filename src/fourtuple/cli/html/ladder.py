"""The ladder: both ends, the packets between them, the time, as SVG."""

from __future__ import annotations

from collections.abc import Sequence

from fourtuple.cli.attempt import Attempt
from fourtuple.cli.html.events import Event, events_of
from fourtuple.cli.html.markup import SANS_EM, Html, both_widths, box, line_of, picture, tag, text_at, width_of
from fourtuple.cli.ladder import packet_words
from fourtuple.cli.render import wrap
from fourtuple.cli.steps import duration
from fourtuple.cli.story import local_port
from fourtuple.kernel_map import FN_IP_QUEUE_XMIT
from fourtuple.sim.syn_schedule import syn_schedule
from fourtuple.wire.text import format_packet

WIDE, NARROW = 620, 306
_SLOPE, _LINE, _GAP = 16, 15, 10
_SILENCE = 46
_TOP = 40.0
"""Where the lifelines begin, below a line for who and one for the address."""


class _Drawing:
    """Grows downwards; `left` and `right` are the two lifelines."""

    def __init__(self, width: int, hint: str, ends: tuple[str, str]) -> None:
        self.width = width
        self.left, self.right = (112.0, width - 112.0) if width > 500 else (92.0, width - 44.0)
        self.top = _TOP if width_of("".join(ends)) + 20 < width else _TOP + 15
        self.y = self.top + 6
        self.hint = hint
        self.below = 0
        self.parts: list[Html] = []
        self.breaks: list[tuple[float, float]] = []

    # -------------------------------------------------------------------------------------------- one event each

    def packet(self, event: Event) -> None:
        """An arrow with words above its high end."""
        packet = event.packet
        assert packet is not None
        class_ = "lost" if packet.lost else "again" if not event.first else "out" if packet.outgoing else "in"
        words = packet_words(packet.data) + ("" if event.first else " · again")
        lines = wrap(words, *[int((self.right - self.left - 22) / width_of("m"))] * 2)
        top = self.y + _LINE * len(lines)
        start, end = (self.left, self.right) if packet.outgoing else (self.right, self.left)
        side = 1 if packet.outgoing else -1
        parts = [
            text_at(start + side * 12, self.y + _LINE * (i + 1) - 5, line, f"mono {class_}", "" if side > 0 else "end")
            for i, line in enumerate(lines)
        ]
        if packet.lost:
            parts += self._lost(start, end, top, packet.lost)
        else:
            parts.append(line_of(start, top, end - side * 9, top + _SLOPE * 0.97, f"arrow {class_}"))
            parts.append(_head(end, top + _SLOPE, side, class_))
        at = top if packet.outgoing else top + _SLOPE
        if packet.outgoing or not packet.lost:
            parts.append(tag("circle", cx=self.left, cy=at, r=4, class_=f"dot {class_}"))
        parts.append(text_at(self.left - 12, at + 4, duration(event.time_us), "mono dim", "end"))
        self.parts.append(
            tag(
                "g",
                tag("title", f"{format_packet(packet.data)}{f'; lost ({packet.lost})' if packet.lost else ''}"),
                *parts,
                class_="packet",
                data_packet=format_packet(packet.data),
                data_direction="out" if packet.outgoing else "in",
                data_lost=packet.lost,
                data_index=event.index,
            )
        )
        self.y = top + _SLOPE + (8 if packet.lost else 4) + self.below
        self.below = 0

    def _lost(self, start: float, end: float, top: float, rule: str) -> list[Html]:
        """It gets part of the way; a cross, and which rule took it."""
        mark = f"lost ({rule})"
        size = width_of(mark) + 24
        side = 1 if end > start else -1
        beside = abs(end - start) * 0.4 > size
        stop = start + (end - start) * 0.6
        low = top + _SLOPE * (stop - start) / (end - start)
        cross = f"M{stop - 5:.1f} {low - 5:.1f}l10 10m0 -10l-10 10"
        return [
            line_of(start, top, stop - side * 9, low, "arrow lost"),
            tag("path", d=cross, class_="cross"),
            self._mark(stop, low, side, mark, beside),
        ]

    def _mark(self, x: float, y: float, side: int, mark: str, beside: bool) -> Html:
        """Beside the cross, or where that is too narrow below it, on a line of its own."""
        if beside:
            return text_at(x + side * 12, y + 4, mark, "mono bad", "" if side > 0 else "end")
        self.below = 15
        half = width_of(mark) / 2
        return text_at(min(max(x, self.left + half + 10), self.width - half - 1), y + 21, mark, "mono bad", "middle")

    def state(self, event: Event) -> None:
        """A label on a lifeline."""
        x = self.left if event.kind == "us" else self.right
        self._pill(x, event.text, "good" if event.text == "ESTABLISHED" else "")

    def end(self, event: Event) -> None:
        """What connect() returned."""
        self.y += 2
        self._pill(self.left, event.text, "bad" if "-1" in event.text else "good")
        self.parts.append(text_at(self._past, self.y - 9, f"after {duration(event.time_us)}", "mono dim"))

    def _pill(self, x: float, text: str, class_: str) -> None:
        wide = width_of(text, 11) + 14
        left = min(max(x - wide / 2, 1), self.width - wide - 1)
        self._past = left + wide + 8
        self.parts.append(box(left, self.y + 4, wide, 19, f"pill {class_}", 9))
        self.parts.append(text_at(left + wide / 2, self.y + 17.5, text, f"mono small on-pill {class_}", "middle"))
        self.y += 27

    def note(self, event: Event) -> None:
        """A word about the other end."""
        self.y += 15
        x = min(self.right, self.width - width_of(event.text, 12, SANS_EM) / 2)
        self.parts.append(text_at(x, self.y, event.text, "dim back", "middle"))
        self.y += 4

    def silence(self, event: Event) -> None:
        """A break of the time axis; while a timer runs, its bar."""
        timer = event.kind == "timer"
        top, height = self.y + 6, float(_SILENCE)
        room = int((self.right - self.left - 22) / width_of("m", 12, SANS_EM))
        words = wrap(event.text, room, room)
        own = len(words)
        if timer and self.hint:
            words += wrap(self.hint, room, room)
            self.hint = ""
            height = max(height, 20 + 15 * len(words))
        if timer:
            self.parts.append(box(self.left - 5, top, 10, height, "timerbar", 4))
        self.breaks.append((top + height / 2 - 5, top + height / 2 + 5))
        for i, line in enumerate(words):
            y = top + height / 2 + 4 + 15 * (i - (len(words) - 1) / 2)
            self.parts.append(text_at(self.left + 16, y, line, "warn" if timer and i < own else "dim"))
        self.y = top + height + 4

    def more(self, event: Event) -> None:
        """Packets left out."""
        self.y += 20
        self.parts.append(text_at((self.left + self.right) / 2, self.y, event.text, "dim", "middle"))
        self.y += 8

    # -------------------------------------------------------------------------------------------- the frame

    def lifelines(self) -> list[Html]:
        """From the heads down, with a break where time was left out."""
        parts = []
        for x in (self.left, self.right):
            y = self.top
            for low, high in [*self.breaks, (self.y + 6, self.y + 6)]:
                parts.append(line_of(x, y, x, low, "lifeline"))
                if high > low:
                    parts.append(
                        tag(
                            "path",
                            d=f"M{x - 7:.1f} {low + 2:.1f}l14 -4M{x - 7:.1f} {high + 2:.1f}l14 -4",
                            class_="break",
                        )
                    )
                y = high
        return parts

    def heads(self, ends: tuple[str, str]) -> list[Html]:
        """Who is who."""
        parts = []
        for x, who, address in ((self.left, "us", ends[0]), (self.right, "server", ends[1])):
            lines = [address] if self.top == _TOP else address.replace(":", "\n:").split("\n")
            half = width_of(max(lines, key=len)) / 2
            x = min(max(x, half + 1), self.width - half - 1)
            parts.append(text_at(x, 13, who, "strong", "middle"))
            parts += [text_at(x, 30 + 15 * i, line, "mono", "middle") for i, line in enumerate(lines)]
        return parts


def _head(x: float, y: float, side: int, class_: str) -> Html:
    """The head of an arrow that falls a little."""
    back = x - side * 11
    return tag(
        "polygon",
        points=f"{x - side:.1f},{y:.1f} {back:.1f},{y - 6:.1f} {back:.1f},{y + 4:.1f}",
        class_=f"head {class_}",
    )


_DRAW = {
    "packet": _Drawing.packet,
    "us": _Drawing.state,
    "them": _Drawing.state,
    "note": _Drawing.note,
    "timer": _Drawing.silence,
    "silence": _Drawing.silence,
    "more": _Drawing.more,
    "end": _Drawing.end,
}


def draw_ladder(attempt: Attempt, events: Sequence[Event], width: int, name: str) -> Html:
    """The ladder at one width."""
    local = f"{attempt.local_address}:{local_port(attempt) or '?'}"
    ends = (local, f"{attempt.request.address}:{attempt.request.port}")
    drawing = _Drawing(width, _unanswered(attempt), ends)
    for event in events:
        _DRAW[event.kind](drawing, event)
    parts = [*drawing.lifelines(), *drawing.heads(ends), *drawing.parts]
    what = "; ".join(_told(event) for event in events)
    return picture(name, width, drawing.y + 10, "The packets of connect(), in time", what, *parts)


def _told(event: Event) -> str:
    if event.packet is None:
        return event.text
    way = "sent" if event.packet.outgoing else "received"
    lost = f", lost ({event.packet.lost})" if event.packet.lost else ""
    return f"{duration(event.time_us)} {way} {packet_words(event.packet.data)}{lost}"


def _unanswered(attempt: Attempt) -> str:
    """What the timer would do if nothing ever came back; the engine says when."""
    if attempt.error:
        return ""
    schedule = syn_schedule(attempt.wire.host.sysctls.profile.name, attempt.wire.setup.sysctls)
    gaps = " ".join(f"+{gap / 1e6:g}" for gap in schedule.gaps_us[1:])
    return f"unanswered it would go on: {gaps}, and give up at {schedule.end_us / 1e6:g} s"


def ladder_card(attempt: Attempt, name: str = "ladder", whole: bool = False) -> Html:
    """The ladder with its heading, or why there is none."""
    head = tag("h2", "On the wire")
    if not attempt.packets or not (attempt.segments or whole):
        return tag("section", head, tag("p", _nothing(attempt), class_="say"), class_="card wire")
    events = events_of(attempt, whole)
    pictures = [draw_ladder(attempt, events, width, f"{name}-{width}") for width in (WIDE, NARROW)]
    return tag("section", head, both_widths(*pictures), class_="card wire")


def _nothing(attempt: Attempt) -> str:
    if attempt.error and not any(record.fn == FN_IP_QUEUE_XMIT for record in attempt.records):
        return "No packet was sent: connect() failed before the SYN was built."
    return f"No packet left this host: {attempt.request.address} is reached without a wire."
