"""From trace records to steps: what each function of the path said, in words.

Lives here: one sentence a function.  Does not live here: columns and colours (render.py), JSON (report.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from fourtuple import kernel_map as km
from fourtuple.address import format_ipv4
from fourtuple.doctor.words import grouped
from fourtuple.errors import errno_name
from fourtuple.kernel_profile import PROFILES
from fourtuple.tcp.states import STATE_NAMES, TCP_SYN_SENT
from fourtuple.trace import Record
from fourtuple.wire.text import flag_words

SS_NAMES = {0: "SS_FREE", 1: "SS_UNCONNECTED", 2: "SS_CONNECTING", 3: "SS_CONNECTED", 4: "SS_DISCONNECTING"}

GOOD_LOOKS = (km.LOOK_FREE, km.LOOK_JOINED, km.LOOK_TW_REUSED)
LOOK_WORDS = {
    km.LOOK_RESERVED: "reserved",
    km.LOOK_BUCKET_BOUND: "bound",
    km.LOOK_ESTABLISHED: "in use",
    km.LOOK_TIME_WAIT: "TIME_WAIT",
    km.LOOK_TW_REUSED: "TIME_WAIT",
    km.LOOK_FREE: "free",
    km.LOOK_JOINED: "shared",
}


@dataclass
class Step:
    """One line of the story."""

    fn: int
    name: str
    depth: int
    time_us: float | None
    """Since the start; None: nothing new (the engine's clock stood still)."""
    text: str = ""
    note: str = ""
    style: str = ""
    """How the text looks: good, bad, warn or nothing."""
    port: int = 0
    """For a port looked at: its number."""
    verdict: int = 0
    record: Record | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Names:
    """What turns numbers of a record into words."""

    devices: Mapping[int, str]
    """Device names by ifindex."""
    owner: Callable[[int], str] = lambda entry: ""
    """Describes the owner (row << 1 | is_tw) of a port, as "→ 10.0.0.1:80"."""
    profile: str = "6.18"
    lost: Mapping[int, str] = field(default_factory=dict)
    """Which of the packets sent, counted from 0, were lost, and by which rule."""


def duration(us: float) -> str:
    """A time with its unit: '12 µs', '31.2 ms', '1.031 s'."""
    if us < 1_000:
        return f"{us:.0f} µs"
    if us < 1_000_000:
        return f"{us / 1000:.1f} ms"
    return f"{us / 1_000_000:.3f} s" if us < 100_000_000 else f"{us / 1_000_000:.1f} s"


def duration_ms(ms: int) -> str:
    """'300 ms', '41 s'."""
    return f"{ms} ms" if ms < 10_000 else f"{ms // 1000} s"


def error_text(value: int) -> str:
    """The name of -errno."""
    return errno_name(-value)


Words = tuple[str, str, str]
"""text, note, style"""


def _sys_connect(r: Record, names: Names) -> Words:
    mode = "O_NONBLOCK" if r.d else "blocking"
    return f"fd {r.a}, {{AF_INET, {r.c}, {format_ipv4(r.b)}}}", mode, ""


def _sockfd_lookup(r: Record, names: Names) -> Words:
    return f"fd {r.a} → file → socket → sock", SS_NAMES.get(r.c, ""), ""


def _inet_stream_connect(r: Record, names: Names) -> Words:
    return f"lock_sock; {SS_NAMES.get(r.a, r.a)}", "", ""


def _tcp_v4_connect(r: Record, names: Names) -> Words:
    if r.c:
        return f"port {r.c} was chosen by bind()", "closed to other connect()s", "warn"
    return f"to {format_ipv4(r.a)}:{r.b}, no local port yet", "", ""


def _ip_route_connect(r: Record, names: Names) -> Words:
    if r.a < 0:
        return error_text(r.a), "", "bad"
    via = f" via {format_ipv4(r.d)}" if r.d else ""
    return f"dev {names.devices.get(r.c, r.c)}{via}, saddr {format_ipv4(r.b)}", "", ""


def _tcp_set_state(r: Record, names: Names) -> Words:
    text = f"{STATE_NAMES.get(r.a, r.a)} → {STATE_NAMES.get(r.b, r.b)}"
    if r.b == TCP_SYN_SENT:
        return text, "before any packet", ""
    return text, "", {1: "good", 7: "bad"}.get(r.b, "")


def _inet_hash_connect(r: Record, names: Names) -> Words:
    if r.b:
        return f"port {r.b}: no search, is its four-tuple free?", "", ""
    what = "hash" if PROFILES[names.profile].one_counter else "siphash"
    return f"{what}(addresses, dport) = 0x{r.a & 0xFFFFFFFF:08x}", "where to start", ""


def _inner_hash_connect(r: Record, names: Names) -> Words:
    if r.d == 0:
        return f"port {r.a} and no other", "", ""
    step, stride = r.d & 0xFF, r.d >> 8
    order = [] if step == 1 else ["odd first" if r.a & 1 else "even first"]
    if step == 1 or stride:
        order.append(f"step {stride or step}")
    return f"scan {r.a}–{r.b}, {', '.join(order)}", f"from {r.a + r.c}", ""


def _look_reserved(r: Record, names: Names) -> Words:
    return "in ip_local_reserved_ports", "skip", "dim"


def _look_bound(r: Record, names: Names) -> Words:
    holder = "holds" if r.c else "closed"
    return f"a bind() {holder} it", "for every destination: skip", "warn"


def _look_established(r: Record, names: Names) -> Words:
    return "this four-tuple is in ehash already", "next", "warn"


def _look_time_wait(r: Record, names: Names) -> Words:
    return f"this four-tuple is in TIME_WAIT, {duration_ms(r.c)} left", "next", "warn"


def _look_tw_reused(r: Record, names: Names) -> Words:
    return f"a TIME_WAIT {duration_ms(r.c)} old is taken over", "ok", "good"


def _look_free(r: Record, names: Names) -> Words:
    return "nobody has it: inet_bind_bucket_create", "ok", "good"


def _look_joined(r: Record, names: Names) -> Words:
    other = names.owner(r.c)
    return f"shared with the one to {other}" if other else "shared, another four-tuple", "ok", "good"


_LOOKS: dict[int, Callable[[Record, Names], Words]] = {
    km.LOOK_RESERVED: _look_reserved,
    km.LOOK_BUCKET_BOUND: _look_bound,
    km.LOOK_ESTABLISHED: _look_established,
    km.LOOK_TIME_WAIT: _look_time_wait,
    km.LOOK_TW_REUSED: _look_tw_reused,
    km.LOOK_FREE: _look_free,
    km.LOOK_JOINED: _look_joined,
}


def _port_look(r: Record, names: Names) -> Words:
    return _LOOKS[r.b](r, names)


def _inner_check_established(r: Record, names: Names) -> Words:
    if r.b < 0:
        return f"port {r.a}: this four-tuple exists", error_text(r.b), "bad"
    return f"port {r.a}: this four-tuple is free", "", "good"


def _port_found(r: Record, names: Names) -> Words:
    if r.a < 0:
        return "no port is left", error_text(r.a), "bad"
    passed = f"{grouped(r.b)} passed over" if r.b else "at the first look"
    moved = "hint" if PROFILES[names.profile].one_counter else "table_perturb"
    return f"port {r.a}, {passed}", f"{moved} +{grouped(r.c)}", "good"


def _secure_seq(r: Record, names: Names) -> Words:
    return f"isn 0x{r.a & 0xFFFFFFFF:08x}, ts offset 0x{r.b & 0xFFFFFFFF:08x}", "", ""


def _tcp_connect(r: Record, names: Names) -> Words:
    options = [f"mss {r.a}"]
    options += [word for bit, word in ((2, "sackOK"), (1, "TS")) if r.d & bit]
    if r.d & 4:
        options.append(f"wscale {r.c}")
    return f"SYN ({' '.join(options)}) → sk_write_queue", "", ""


def _tcp_transmit_skb(r: Record, names: Names) -> Words:
    ack = f" ack 0x{r.c & 0xFFFFFFFF:08x}" if r.a & 0x10 else ""
    size = f", {grouped(r.d)} bytes" if r.d else ""
    return f"{flag_words(r.a)} seq 0x{r.b & 0xFFFFFFFF:08x}{ack}{size}", "", ""


def _ip_queue_xmit(r: Record, names: Names) -> Words:
    return f"{r.a} bytes → {names.devices.get(r.b, r.b)}", f"ttl {r.c}", ""


def _tcp_reset_xmit_timer(r: Record, names: Names) -> Words:
    what = "zero-window probe" if r.a == 3 else "retransmit"
    return f"{what} in {duration(r.b)}", "", ""


def _inet_wait_for_connect(r: Record, names: Names) -> Words:
    limit = "" if r.a < 0 else f", at most {duration(r.a)}"
    return f"sleep until the state changes{limit}", "SS_CONNECTING", "dim"


def _connect_returns(r: Record, names: Names) -> Words:
    return (f"-1 {error_text(r.a)}", "", "bad") if r.a < 0 else ("0", "", "good")


def _tcp_retransmit_timer(r: Record, names: Names) -> Words:
    return f"no answer in {duration(r.b)}", f"retransmits so far {r.a}", "warn"


def _tcp_write_timeout(r: Record, names: Names) -> Words:
    return ("tried often enough: give up", "", "bad") if r.a else ("try again", "", "")


def _tcp_retransmit_skb(r: Record, names: Names) -> Words:
    return f"{flag_words(r.a)} again", f"total {r.d}", ""


def _tcp_reset(r: Record, names: Names) -> Words:
    return errno_name(abs(r.b)), STATE_NAMES.get(r.a, ""), "bad"


def _tcp_write_err(r: Record, names: Names) -> Words:
    return errno_name(abs(r.a)), "", "bad"


def _ip_rcv(r: Record, names: Names) -> Words:
    return f"{r.a} bytes from {format_ipv4(r.b & 0xFFFFFFFF)}", "", ""


def _tcp_v4_rcv(r: Record, names: Names) -> Words:
    size = f", {grouped(r.d)} bytes" if r.d else ""
    ack = f" ack 0x{r.c & 0xFFFFFFFF:08x}" if r.a & 0x10 else ""
    return f"{flag_words(r.a)} seq 0x{r.b & 0xFFFFFFFF:08x}{ack}{size}", "", ""


def _lookup_established(r: Record, names: Names) -> Words:
    return ("the four-tuple is in ehash" if r.a else "no such four-tuple"), "", ""


def _lookup_listener(r: Record, names: Names) -> Words:
    return ("a listener" if r.sk else "nobody listens"), "", ""


def _tcp_rcv_state_process(r: Record, names: Names) -> Words:
    return STATE_NAMES.get(r.a, str(r.a)), "", ""


def _synsent(r: Record, names: Names) -> Words:
    if r.a & 0x04:
        return "RST", "", "bad"
    return f"{flag_words(r.a)}, {'ack = isn+1' if r.a & 0x10 else 'a SYN crossed ours'}", "", ""


def _tcp_ack(r: Record, names: Names) -> Words:
    return f"{grouped(r.a - r.b & 0xFFFFFFFF)} acknowledged", f"window {grouped(r.d)}", ""


def _tcp_finish_connect(r: Record, names: Names) -> Words:
    return f"mss {r.c}, their window {r.b}", f"RTT {duration(r.a)}" if r.a else "no RTT sample (Karn)", ""


def _tcp_send_ack(r: Record, names: Names) -> Words:
    return f"ack 0x{r.b & 0xFFFFFFFF:08x}", "", ""


def _icmp_rcv(r: Record, names: Names) -> Words:
    return f"type {r.a}, code {r.b}", "", ""


def _tcp_v4_err(r: Record, names: Names) -> Words:
    return f"ICMP type {r.a}, code {r.b}", "", "warn"


def _sys_bind(r: Record, names: Names) -> Words:
    return f"fd {r.a}, {{AF_INET, {r.c}, {format_ipv4(r.b)}}}", "before connect()", ""


def _inet_bind(r: Record, names: Names) -> Words:
    if r.c:
        return f"{format_ipv4(r.a)}, and the port is left to connect()", "IP_BIND_ADDRESS_NO_PORT", ""
    return f"{format_ipv4(r.a)}, port {r.b or 'of its own choice'}", "", ""


def _inet_csk_get_port(r: Record, names: Names) -> Words:
    if r.b < 0:
        return error_text(r.b), "", "bad"
    return f"port {r.b or r.a}: closed to every connect()", "", "warn"


def _asked(r: Record, names: Names) -> Words:
    return f"{grouped(r.a)} bytes", STATE_NAMES.get(r.b, ""), ""


def _payload(r: Record, names: Names) -> Words:
    return f"{grouped(r.d)} bytes", "", ""


def _data_queue(r: Record, names: Names) -> Words:
    return f"{grouped(r.b)} bytes", "out of order" if r.a != r.c else "", ""


def _state_only(r: Record, names: Names) -> Words:
    return STATE_NAMES.get(r.a, str(r.a)), "", ""


def _tcp_done(r: Record, names: Names) -> Words:
    return f"the end of {STATE_NAMES.get(r.a, r.a)}", "out of ehash and bhash", ""


def _send_reset(r: Record, names: Names) -> Words:
    return f"to {format_ipv4(r.a & 0xFFFFFFFF)}:{r.b}", "", ""


def _time_wait(r: Record, names: Names) -> Words:
    return f"{STATE_NAMES.get(r.a, r.a)} for {duration(r.b)}", "", ""


def _nothing(r: Record, names: Names) -> Words:
    return "", "", ""


DESCRIBE: dict[int, Callable[[Record, Names], Words]] = {
    km.FN_SYS_CONNECT: _sys_connect,
    km.FN_SOCKFD_LOOKUP: _sockfd_lookup,
    km.FN_INET_STREAM_CONNECT: _inet_stream_connect,
    km.FN_TCP_V4_CONNECT: _tcp_v4_connect,
    km.FN_IP_ROUTE_CONNECT: _ip_route_connect,
    km.FN_TCP_SET_STATE: _tcp_set_state,
    km.FN_INET_HASH_CONNECT: _inet_hash_connect,
    km.FN__INET_HASH_CONNECT: _inner_hash_connect,
    km.FN_PORT_LOOK: _port_look,
    km.FN__INET_CHECK_ESTABLISHED: _inner_check_established,
    km.FN_PORT_FOUND: _port_found,
    km.FN_SECURE_TCP_SEQ_AND_TS_OFF: _secure_seq,
    km.FN_TCP_CONNECT: _tcp_connect,
    km.FN_TCP_TRANSMIT_SKB: _tcp_transmit_skb,
    km.FN_IP_QUEUE_XMIT: _ip_queue_xmit,
    km.FN_TCP_RESET_XMIT_TIMER: _tcp_reset_xmit_timer,
    km.FN_INET_WAIT_FOR_CONNECT: _inet_wait_for_connect,
    km.FN_CONNECT_RETURNS: _connect_returns,
    km.FN_TCP_RETRANSMIT_TIMER: _tcp_retransmit_timer,
    km.FN_TCP_WRITE_TIMEOUT: _tcp_write_timeout,
    km.FN_TCP_RETRANSMIT_SKB: _tcp_retransmit_skb,
    km.FN_TCP_WRITE_ERR: _tcp_write_err,
    km.FN_TCP_RESET: _tcp_reset,
    km.FN_TCP_DONE: _tcp_done,
    km.FN_IP_RCV: _ip_rcv,
    km.FN_TCP_V4_RCV: _tcp_v4_rcv,
    km.FN_INET_LOOKUP_ESTABLISHED: _lookup_established,
    km.FN_INET_LOOKUP_LISTENER: _lookup_listener,
    km.FN_TCP_RCV_STATE_PROCESS: _tcp_rcv_state_process,
    km.FN_TCP_RCV_SYNSENT_STATE_PROCESS: _synsent,
    km.FN_TCP_ACK: _tcp_ack,
    km.FN_TCP_FINISH_CONNECT: _tcp_finish_connect,
    km.FN_TCP_SEND_ACK: _tcp_send_ack,
    km.FN_ICMP_RCV: _icmp_rcv,
    km.FN_TCP_V4_ERR: _tcp_v4_err,
    km.FN_TCP_V4_SEND_RESET: _send_reset,
    km.FN_SYS_BIND: _sys_bind,
    km.FN_INET_BIND: _inet_bind,
    km.FN_INET_CSK_GET_PORT: _inet_csk_get_port,
    km.FN_TCP_SENDMSG: _asked,
    km.FN_TCP_RECVMSG: _asked,
    km.FN_TCP_RCV_ESTABLISHED: _payload,
    km.FN_TCP_DATA_QUEUE: _data_queue,
    km.FN_TCP_FIN: _state_only,
    km.FN_TCP_CLOSE: _state_only,
    km.FN_TCP_DISCONNECT: _state_only,
    km.FN_TCP_TIME_WAIT: _time_wait,
}

_LOOPBACK = 1  # ifindex of lo

DETAILS = frozenset(
    {
        km.FN_CONNECT_RETURNS,  # the summary says it
        km.FN_PORT_FOUND,  # the last port looked at says it
        km.FN_IP_QUEUE_XMIT,
        km.FN_TCP_WRITE_TIMEOUT,
        km.FN_TCP_RETRANSMIT_SKB,
        km.FN_IP_RCV,
        km.FN_ICMP_RCV,
        km.FN_INET_LOOKUP_ESTABLISHED,
        km.FN_INET_LOOKUP_LISTENER,
        km.FN_TCP_RCV_STATE_PROCESS,
        km.FN_TCP_ACK,
        km.FN_TCP_SEND_ACK,
    }
)
"""Functions that only a verbose trace shows."""


def describe(records: Iterable[Record], names: Names, virtual: bool, verbose: bool = False) -> list[Step]:
    """The steps of a trace.  `virtual`: time is the engine's (a simulated wire), else the tracer's clock."""
    story = _Story(names, virtual, verbose)
    for record in records:
        story.tell(record)
    return story.steps


class _Story:
    """Steps as they are told, one record after the other."""

    def __init__(self, names: Names, virtual: bool, verbose: bool) -> None:
        self.names, self.virtual, self.verbose = names, virtual, verbose
        self.steps: list[Step] = []
        self._stack: list[int] = []
        self._start_ns: int | None = None
        self._shown_us: float | None = None
        self._packets = 0

    def tell(self, record: Record) -> None:
        """Add the step of one record, unless it is a detail."""
        clock = record.engine_us * 1000 if self.virtual else record.time_ns
        if self._start_ns is None:
            self._start_ns = clock
        km.enter(self._stack, record.fn)
        if self.verbose or record.fn not in DETAILS or self._stands_for_its_caller(record):
            shown = [fn for fn in self._stack[:-1] if self.verbose or fn not in DETAILS]
            self.steps.append(_step(record, self.names, len(shown), self._time(clock)))
        if record.fn == km.FN_IP_QUEUE_XMIT and record.b != _LOOPBACK:
            self._mark_lost()

    def _time(self, clock: int) -> float | None:
        """Microseconds since the start; on a virtual clock only when it has moved."""
        time_us = (clock - (self._start_ns or 0)) / 1000
        if self.virtual and time_us == self._shown_us:
            return None
        self._shown_us = time_us
        return time_us

    def _stands_for_its_caller(self, record: Record) -> bool:
        """A packet that goes out although nobody said so before."""
        sent_by = self.steps[-1].fn if self.steps else 0
        return record.fn == km.FN_IP_QUEUE_XMIT and sent_by != km.FN_TCP_TRANSMIT_SKB

    def _mark_lost(self) -> None:
        """The packet that has just left was lost: the step that sent it says so."""
        rule = self.names.lost.get(self._packets)
        self._packets += 1
        if rule is not None and self.steps:
            self.steps[-1].note, self.steps[-1].style = f"✗ lost ({rule})", "bad"


def _step(record: Record, names: Names, depth: int, time_us: float | None) -> Step:
    entry = km.BY_NUMBER.get(record.fn)
    name = entry.name_in(names.profile) if entry is not None else f"function {record.fn}"
    text, note, style = DESCRIBE.get(record.fn, _nothing)(record, names)
    step = Step(record.fn, name, depth, time_us, text, note, style, record=record)
    if record.fn == km.FN_PORT_LOOK:
        step.port, step.verdict = record.a, record.b
    return step
