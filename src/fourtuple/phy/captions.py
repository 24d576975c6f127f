"""Captions: the comment of a captured packet, above all the names of the functions that sent it or took it.

Lives here: the one place that decides which trace records belong to which packet.
Does not live here: files (pcapng.py).

Rules
1. Names come from the trace, never from what a packet looks like.  What it carries (flags, bytes) is read off it.
2. Packets and records meet in order.  A record that a packet went down to a device (ip_local_out) is about the next
   packet sent that has its length and identification; one that a packet came up (ip_rcv), about the next one that
   arrived with its length, identification and source.  A packet passed over has no record: nobody traced then, or
   ip_rcv threw it away at its header.
3. Records about one arrived packet end where the next function begins that nobody calls: the next packet, a timer, a
   system call.
4. Without a tracer a caption is empty, and nothing is guessed later.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from fourtuple import kernel_map as km
from fourtuple.errors import errno_name
from fourtuple.trace import Record, Tracer, records
from fourtuple.wire.build import IcmpPacket, IpPacket, TcpPacket, parse_packet
from fourtuple.wire.tcp import ACK, FIN, RST, SYN
from fourtuple.wire.text import flag_words, icmp_text

_BAD_CHECKSUM = "bad checksum"
_LOOPBACK = 1  # ifindex of lo: such packets meet no device
_MOST_WAITING = 65_536

# Who took a packet: the first of these among its records.  What they call in turn says less about it.
_TAKERS = (
    km.FN_TCP_V4_ERR,
    km.FN_TCP_RCV_SYNSENT_STATE_PROCESS,
    km.FN_TCP_TIMEWAIT_STATE_PROCESS,
    km.FN_TCP_CONN_REQUEST,
    km.FN_TCP_V4_SYN_RECV_SOCK,
    km.FN_TCP_RCV_ESTABLISHED,
    km.FN_TCP_RCV_STATE_PROCESS,
    km.FN_ICMP_RCV,
)
_LOOKS = (km.FN_IP_RCV, km.FN_TCP_V4_RCV, km.FN_INET_LOOKUP_ESTABLISHED, km.FN_INET_LOOKUP_LISTENER)
# A function that the map names as nobody's caller sends nothing, though it may have been the last one to report.
_CALLERS = frozenset(caller for entry in km.FUNCTIONS for caller in entry.callers)


class Captions:
    """Comments for the packets of one device.  This one has none; a subclass says more."""

    def sent(self, packet: bytes) -> str:
        """Of a packet that the device has taken."""
        return ""

    def arrived(self, packets: list[bytes]) -> None:
        """These are now given to the Host; taken() will ask for them."""
        self._number = len(packets)

    def taken(self) -> list[str]:
        """Of each packet that arrived() named last."""
        return [""] * self._number

    def lost_on_arrival(self, packet: bytes) -> str:
        """Of a packet that was lost before the Host could see it."""
        return ""


class CallableCaptions(Captions):
    """Comments from a function of (packet, whether it went out)."""

    def __init__(self, comment: Callable[[bytes, bool], str]) -> None:
        self._comment = comment
        self._packets: list[bytes] = []

    def sent(self, packet: bytes) -> str:
        return self._comment(packet, True)

    def arrived(self, packets: list[bytes]) -> None:
        self._packets = packets

    def taken(self) -> list[str]:
        return [self._comment(packet, False) for packet in self._packets]

    def lost_on_arrival(self, packet: bytes) -> str:
        return self._comment(packet, False)


@dataclass
class _Sent:
    """A packet on its way down, by its records."""

    size: int
    ident: int
    path: list[int]
    flags: int
    note: str


@dataclass
class _Arrived:
    """A packet on its way up."""

    packet: bytes
    traced: bool
    """Whether a tracer was there to see it."""
    records: list[Record] = field(default_factory=list)


class TraceCaptions(Captions):
    """Comments from trace records: `tcp_connect > tcp_transmit_skb: SYN, #1`.

    `tracer` gives the Host's present tracer, or None.  `profile`: the Linux version whose names are used.
    """

    def __init__(self, tracer: Callable[[], Tracer | None], profile: str = "6.18") -> None:
        self._tracer_of = tracer
        self._profile = profile
        self._tracer: Tracer | None = None
        self._read = 0
        self._stack: list[int] = []
        self._sent: deque[_Sent] = deque(maxlen=_MOST_WAITING)
        self._just_sent: list[_Sent] = []  # in the present call of the engine, to itself included
        self._arrived: list[_Arrived] = []
        self._current: _Arrived | None = None
        self._next = 0
        self._segment: Record | None = None  # a segment that tcp_transmit_skb is sending
        self._again: Record | None = None  # a segment that tcp_retransmit_skb is about to send
        # By socket row << 1 | with ACK: the sequence number of its SYN, and how often that was sent.
        self._syns: dict[int, tuple[int, int]] = {}

    # ---------------------------------------------------------------------------------------- what PcapDevice asks

    def sent(self, packet: bytes) -> str:
        self._settle()
        size, ident = len(packet), int.from_bytes(packet[4:6], "big")
        if not any(entry.size == size and entry.ident == ident for entry in self._sent):
            return ""
        entry = self._sent.popleft()
        while (entry.size, entry.ident) != (size, ident):
            entry = self._sent.popleft()
        return f"{self._names(_sender(entry.path))}: {_words(packet)}{entry.note}"

    def arrived(self, packets: list[bytes]) -> None:
        self._settle()
        traced = self._tracer is not None and self._tracer is self._tracer_of()
        self._arrived = [_Arrived(packet, traced) for packet in packets]
        self._next = 0

    def taken(self) -> list[str]:
        self._settle()
        captions = [self._taken(entry) for entry in self._arrived]
        self._arrived, self._current = [], None
        return captions

    def lost_on_arrival(self, packet: bytes) -> str:
        return _words(packet)

    # ---------------------------------------------------------------------------------------- records to packets

    def _settle(self) -> None:
        """Read every record written since, of the tracer known so far, then of a new one."""
        self._drain()
        tracer = self._tracer_of()
        if tracer is not None and tracer is not self._tracer:
            self._tracer, self._read = tracer, 0
            self._drain()
        # The engine is at rest: what comes next was called by none of these.
        self._stack.clear()
        self._just_sent.clear()
        self._current = None

    def _drain(self) -> None:
        if self._tracer is None:
            return
        if self._tracer.count < self._read:  # cleared
            self._read = 0
        if self._tracer.lost > self._read:  # what is not in the trace may have been there
            for entry in self._arrived:
                entry.traced = False
        for record in records(self._tracer, self._read):
            self._tell(record)
        self._read = self._tracer.count

    def _tell(self, record: Record) -> None:
        km.enter(self._stack, record.fn)
        if len(self._stack) == 1:
            self._current, self._segment = None, None
        if record.fn == km.FN_IP_RCV:
            self._current = self._find_arrived(record)
        elif self._current is not None:
            self._current.records.append(record)
        if record.fn == km.FN_TCP_TRANSMIT_SKB:
            self._segment = record
        elif record.fn == km.FN_TCP_RETRANSMIT_SKB and not record.a & SYN:
            self._again = record
        elif record.fn == km.FN_IP_QUEUE_XMIT:
            self._goes_down(record)
        elif record.fn == km.FN_TCP_WRITE_XMIT:
            self._was_sender(record.a)
        elif record.fn == km.FN_TCP_RETRANSMIT_SKB and record.a & SYN:
            self._was_sender(1)

    def _goes_down(self, record: Record) -> None:
        segment, self._segment = self._segment, None
        note = "" if segment is None else self._times(segment)
        entry = _Sent(record.a, record.d, self._stack[:], 0 if segment is None else segment.a, note)
        self._just_sent.append(entry)
        if record.b != _LOOPBACK:
            self._sent.append(entry)

    def _was_sender(self, segments: int) -> None:
        """A function that reports when it is done: what went down last was sent by it.  A FIN keeps tcp_send_fin."""
        above = [fn for fn in self._stack if fn not in (km.FN_TCP_TRANSMIT_SKB, km.FN_IP_QUEUE_XMIT)]
        for entry in self._just_sent[-segments:]:
            if not (entry.flags & FIN and km.FN_TCP_SEND_FIN in entry.path):
                entry.path = [*above, km.FN_TCP_TRANSMIT_SKB, km.FN_IP_QUEUE_XMIT]

    def _find_arrived(self, record: Record) -> _Arrived | None:
        """The packet that this ip_rcv is about; None for one of the loopback."""
        for i in range(self._next, len(self._arrived)):
            if _header_fields(self._arrived[i].packet) == (record.a, record.d, record.b & 0xFFFFFFFF):
                self._next = i + 1
                self._arrived[i].records.append(record)
                return self._arrived[i]
        return None

    def _times(self, segment: Record) -> str:
        """How often this SYN has been sent by now; of anything else, whether it is sent again."""
        if not segment.a & SYN:
            again, self._again = self._again, None
            return ", again" if again is not None and (again.sk, again.b) == (segment.sk, segment.b) else ""
        key = segment.sk << 1 | bool(segment.a & ACK)
        seq, times = self._syns.get(key, (segment.b, 0))
        times = times + 1 if seq == segment.b else 1
        self._syns[key] = segment.b, times
        return f", #{times}"

    # ---------------------------------------------------------------------------------------- words

    def _names(self, path: list[int]) -> str:
        return " > ".join(km.BY_NUMBER[fn].name_in(self._profile) for fn in path)

    def _taken(self, entry: _Arrived) -> str:
        words = _words(entry.packet)
        if not entry.records:
            return f"{self._names([km.FN_IP_RCV])}: {words}, dropped: not a good IP header" if entry.traced else ""
        by_fn = {record.fn: record for record in reversed(entry.records)}  # the first one of each
        taker = next((by_fn[fn] for fn in _TAKERS if fn in by_fn), None)
        if taker is None:
            return self._dropped(words, by_fn)
        callers = km.BY_NUMBER[taker.fn].callers
        above = km.FN_TCP_V4_RCV if km.FN_TCP_V4_RCV in by_fn else callers[0]
        return f"{self._names([above, taker.fn])}: {words}{self._remark(taker, by_fn)}"

    def _dropped(self, words: str, by_fn: dict[int, Record]) -> str:
        """Nobody asked for it, or nobody who reports took it."""
        if km.FN_TCP_V4_RCV not in by_fn:
            why = "" if _BAD_CHECKSUM in words else ": not our address, or no protocol takes it"
            return f"{self._names([km.FN_IP_RCV])}: {words}, dropped{why}"
        found = km.FN_INET_LOOKUP_LISTENER not in by_fn or by_fn[km.FN_INET_LOOKUP_LISTENER].sk
        why = "its socket refuses it" if found else "no socket has this four-tuple"
        next_fn = next((fn for fn in reversed(by_fn) if fn not in _LOOKS), 0)
        if not next_fn:
            return f"{self._names([km.FN_TCP_V4_RCV])}: {words}, dropped: {why}"
        remark = f", {why}" if next_fn == km.FN_TCP_V4_SEND_RESET else ""
        return f"{self._names([km.FN_TCP_V4_RCV, next_fn])}: {words}{remark}"

    def _remark(self, taker: Record, by_fn: dict[int, Record]) -> str:
        remark = ""
        if taker.fn == km.FN_TCP_RCV_SYNSENT_STATE_PROCESS:
            remark = self._answer_to_syn(taker)
        elif taker.fn == km.FN_TCP_V4_ERR and not taker.sk:
            remark = ", dropped: no socket has this four-tuple"
        if km.FN_TCP_RESET in by_fn:
            remark += f", {errno_name(abs(by_fn[km.FN_TCP_RESET].b))}"
        elif km.FN_TCP_V4_SEND_RESET in by_fn:
            remark += ", answered by RST"
        return remark

    def _answer_to_syn(self, record: Record) -> str:
        if not record.a & ACK:
            return "" if record.a & RST else ", it crossed ours"
        isn, _ = self._syns.get(record.sk << 1, (None, 0))
        if isn is None:
            return ""
        return ", ack = isn+1" if record.c & 0xFFFFFFFF == (isn + 1) & 0xFFFFFFFF else ", ack is not isn+1"


def _sender(path: list[int]) -> list[int]:
    """The last two functions above ip_local_out; a retransmission names what asked for it too."""
    above = [fn for fn in path[:-1] if fn in _CALLERS]
    if km.FN_TCP_RETRANSMIT_SKB in above[1:]:
        return above[above.index(km.FN_TCP_RETRANSMIT_SKB) - 1 :]
    callers = km.BY_NUMBER[km.FN_IP_QUEUE_XMIT].callers
    return above[-2:] if above and above[-1] in callers else [*above[-1:], path[-1]]


def _header_fields(packet: bytes) -> tuple[int, int, int]:
    """Total length, identification and source address."""
    return int.from_bytes(packet[2:4], "big"), int.from_bytes(packet[4:6], "big"), int.from_bytes(packet[12:16], "big")


def _words(packet: bytes) -> str:
    """What the packet is: 'SYN', 'PSH-ACK, 120 bytes'; tcpdump's words for what is not TCP."""
    try:
        view = parse_packet(packet)
    except ValueError as reason:
        return f"{len(packet)} bytes ({reason})"
    if isinstance(view, TcpPacket):
        return _tcp_words(view)
    return f"ICMP: {icmp_text(view)}" if isinstance(view, IcmpPacket) else _other_words(view)


def _tcp_words(view: TcpPacket) -> str:
    size = f", {len(view.payload)} byte{'' if len(view.payload) == 1 else 's'}" if view.payload else ""
    return flag_words(view.flags) + size + ("" if view.checksum_ok else ", " + _BAD_CHECKSUM)


def _other_words(view: IpPacket) -> str:
    what = "fragment of " if view.frag_off or view.mf else ""
    return f"{what}IP protocol {view.proto}, {len(view.payload)} bytes"
