"""What happened on the wire, in the order of time: packets, states of both ends, timers, the end.

Lives here: the story of the ladder, from trace records and tapped packets.  Does not live here: drawing (ladder.py).
Rule: our states are those of the trace; the other end's are what its packets and ours say of it (RFC 9293, 3.5).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from fourtuple import kernel_map as km
from fourtuple.cli.attempt import Attempt
from fourtuple.cli.steps import duration
from fourtuple.errors import errno_name
from fourtuple.shell.tap import TappedPacket
from fourtuple.tcp.states import STATE_NAMES, TCP_SYN_SENT
from fourtuple.trace import Record
from fourtuple.wire.build import TcpPacket, parse_packet
from fourtuple.wire.tcp import ACK, FIN, RST, SYN

_SILENCE_US = 150_000
"""Longer gaps are drawn with a break; the shortest retransmission timeout of Linux is 200 ms."""
_MOST, _LAST = 16, 4


@dataclass(frozen=True)
class Event:
    """One thing on the ladder: a packet, a state ("us" or "them"), silence, the end, or packets left out."""

    time_us: float
    kind: str
    text: str = ""
    packet: TappedPacket | None = None
    index: int = 0
    """Of the packet."""
    first: bool = False
    """For a packet: no SYN of ours came before."""


def events_of(attempt: Attempt, whole: bool = False) -> list[Event]:
    """The events of connect(); `whole`: and the packets behind it."""
    found = sorted([*_states(attempt), *_packets(attempt, attempt.segments)], key=_order)
    found = _shortened(list(_with_peer(found)))
    found.append(_end(attempt))
    found = list(_with_silence(found, attempt))
    if whole and len(attempt.packets) > len(attempt.segments):
        later = [replace(event, index=event.index) for event in _packets(attempt, attempt.packets)]
        found += _shortened(later[len(attempt.segments) :])
    return found


def _order(event: Event) -> tuple[float, int]:
    """On a virtual clock one call takes no time: SYN_SENT, then what came, then what it changed, then what went."""
    if event.packet is not None:
        return event.time_us, 3 if event.packet.outgoing else 1
    return event.time_us, 0 if event.text == "SYN_SENT" else 2


def record_us(attempt: Attempt, record: Record) -> float:
    """When a record was written, since the start."""
    at = record.engine_us if attempt.wire.runner.is_virtual else record.time_ns / 1000
    return at - attempt.start_us


def _states(attempt: Attempt) -> Iterator[Event]:
    for record in attempt.records:
        if record.fn == km.FN_TCP_SET_STATE and record.a != record.b:
            name = STATE_NAMES.get(record.b, "?")
            yield Event(record_us(attempt, record), "us", "SYN_SENT" if record.b == TCP_SYN_SENT else name)


def _packets(attempt: Attempt, packets: list[TappedPacket]) -> Iterator[Event]:
    again = False
    for i, packet in enumerate(packets):
        is_syn = packet.outgoing and flags_of(packet) & (SYN | ACK) == SYN
        yield Event(packet.time_us - attempt.start_us, "packet", packet=packet, index=i, first=not (is_syn and again))
        again = again or is_syn


def flags_of(packet: TappedPacket) -> int:
    """TCP flags; 0 for what is not TCP."""
    try:
        parsed = parse_packet(packet.data)
    except ValueError:
        return 0
    return parsed.flags if isinstance(parsed, TcpPacket) else 0


def _with_peer(events: list[Event]) -> Iterator[Event]:
    """The states that the other end must be in."""
    state = ""
    for event in events:
        packet = event.packet
        flags = flags_of(packet) if packet is not None else 0
        if packet is not None and not packet.outgoing and flags & (SYN | ACK) == SYN | ACK and not state:
            state = "SYN_RECV"
            yield Event(event.time_us, "them", state)
        yield event
        if packet is None or packet.lost:
            continue
        if packet.outgoing and state == "SYN_RECV" and flags & ACK and not flags & (RST | FIN):
            state = "ESTABLISHED"
            yield Event(event.time_us, "them", state)
        if not packet.outgoing and flags & RST:
            yield Event(event.time_us, "note", "reset by the server" if state else "nobody listens there")


def _shortened(events: list[Event]) -> list[Event]:
    """A long exchange keeps its first and last packets."""
    packets = [event for event in events if event.kind == "packet"]
    if len(packets) <= _MOST:
        return events
    hidden = packets[_MOST - _LAST : -_LAST]
    kept = [event for event in events if not (hidden[0].time_us <= event.time_us and event in hidden)]
    at = kept.index(packets[_MOST - _LAST - 1]) + 1
    return [*kept[:at], Event(hidden[0].time_us, "more", f"… {len(hidden)} more"), *kept[at:]]


def _end(attempt: Attempt) -> Event:
    call = "bind" if attempt.bind_code else "connect"
    returned = next((r for r in reversed(attempt.records) if r.fn == km.FN_CONNECT_RETURNS), attempt.records[-1])
    text = f"{call}() = " + (f"-1 {errno_name(attempt.error)}" if attempt.error else "0")
    return Event(record_us(attempt, returned), "end", text)


def _with_silence(events: list[Event], attempt: Attempt) -> Iterator[Event]:
    """Breaks where nothing happened for long, with the timer that ended them."""
    fired = [(record_us(attempt, r), r.b) for r in attempt.records if r.fn == km.FN_TCP_RETRANSMIT_TIMER]
    before: Event | None = None
    for event in events:
        if before is not None and event.kind != "more" and event.time_us - before.time_us > _SILENCE_US:
            rto = [rto for at, rto in fired if before.time_us < at <= event.time_us]
            if rto:
                yield Event(before.time_us, "timer", f"retransmit timer {duration(rto[-1])}")
            else:
                yield Event(before.time_us, "silence", f"{duration(event.time_us - before.time_us)} of silence")
        yield event
        before = event
