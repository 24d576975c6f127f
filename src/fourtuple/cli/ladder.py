"""The packets of a connection as a ladder between its two ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fourtuple.cli.steps import duration
from fourtuple.cli.terminal import Line, Terminal
from fourtuple.doctor.words import grouped
from fourtuple.wire.build import TcpPacket, parse_packet
from fourtuple.wire.tcp import ACK, SYN
from fourtuple.wire.text import flag_words, format_packet

_MARGIN, _WIDEST, _MOST = 11, 66, 16


@dataclass
class Packet:
    """One packet on the wire, as our end saw it."""

    time_us: int
    outgoing: bool
    data: bytes
    lost: str = ""
    """The rule that lost it; empty: it arrived."""


def packet_words(data: bytes) -> str:
    """'SYN seq 0x1a2b3c4d win 64240', 'ACK', 'PSH-ACK 120 bytes', ...; tcpdump's words for what is not TCP."""
    try:
        packet = parse_packet(data)
    except ValueError:
        return format_packet(data)
    if not isinstance(packet, TcpPacket):
        return format_packet(data).partition(": ")[2]
    words = [flag_words(packet.flags)]
    if packet.flags & SYN:
        words.append(f"seq 0x{packet.seq:08x}")
        words.append(f"ack 0x{packet.ack:08x}" if packet.flags & ACK else f"win {packet.window}")
    if packet.payload:
        words.append(f"{grouped(len(packet.payload))} bytes")
    return " ".join(words)


def render_ladder(packets: Sequence[Packet], ends: tuple[str, str], terminal: Terminal) -> list[Line]:
    """Head line with both ends, then a line a packet; a long exchange keeps its first and last ones."""
    span = min(terminal.width - _MARGIN - 12, _WIDEST)
    gap = " " * max(1, span + 2 - len(ends[0]) - len(ends[1]))
    lines: list[Line] = [[(" " * (_MARGIN + 1), ""), (ends[0], "head"), (gap, ""), (ends[1], "head")]]
    shown: list[Packet | None] = list(packets)
    if len(packets) > _MOST:
        shown = [*packets[: _MOST - 4], None, *packets[-4:]]
    for packet in shown:
        lines.append(_rung(packet, span, len(packets) - _MOST, terminal))
    return lines


def _rung(packet: Packet | None, span: int, more: int, terminal: Terminal) -> Line:
    if packet is None:
        return [(" " * (_MARGIN + 1), ""), (f"│  … {more} more".ljust(span + 1) + "│", "dim")]
    time = terminal.glyphs(duration(packet.time_us)).rjust(_MARGIN - 2)
    words = f" {packet_words(packet.data)} "
    if packet.outgoing:
        arrow, style = _outgoing(words, span, packet.lost)
    else:
        arrow, style = _incoming(words, span, packet.lost)
    return [(time, "dim"), ("   ", ""), ("│", "dim"), (arrow, style), ("│", "dim")]


def _outgoing(words: str, span: int, lost: str) -> tuple[str, str]:
    if not lost:
        return ("──" + _fitted(words, span - 3)).ljust(span - 1, "─") + "▶", "even"
    mark = f"✗ {_mark(lost, span)}"
    room = min(span * 2 // 3, span - len(mark))
    return ("──" + _fitted(words, room - 2)).ljust(room, "─") + mark.ljust(span - room), "bad"


def _incoming(words: str, span: int, lost: str) -> tuple[str, str]:
    if not lost:
        return "◀" + (_fitted(words, span - 3) + "──").rjust(span - 1, "─"), "good"
    mark = f"{_mark(lost, span)} ✗"
    room = span - max(span // 3, len(mark))
    return mark.rjust(span - room) + (_fitted(words, room - 2) + "──").rjust(room, "─"), "bad"


def _mark(lost: str, span: int) -> str:
    """Which rule lost it, if there is room for that."""
    mark = f"lost ({lost})"
    return mark if len(mark) + 12 <= span else "lost"


def _fitted(words: str, room: int) -> str:
    """The words, without the last of them where they do not fit."""
    while len(words) > room and " " in words.strip():
        words = words.rstrip().rpartition(" ")[0] + " "
    return words
