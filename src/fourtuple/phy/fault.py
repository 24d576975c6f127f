"""Faults round any device: packets lost by rule (`--loss`), packets delayed (`--rtt`).

Lives here: the grammar of --loss, FaultDevice, DelayDevice.
Does not live here: chance and time. Both come in as functions, so that a seed or a manual clock repeats a run exactly.

Grammar of --loss (spaces are ignored)
    loss   = rule *( "," rule )
    rule   = PERCENT                          any packet, either way:             5%
           | [ "tx-" / "rx-" ] kind           every packet of the kind:           rst
           | [ "tx-" / "rx-" ] kind ":" which                                     syn:1   rx-ack:2   data:10%
    kind   = syn | synack | ack | data | fin | rst | tcp | icmp | tx | rx         tx: what we send, rx: what we receive
    which  = item *( "," item )               counted from 1, for this rule:      syn:1,3  tx:2-4   synack:3-
    item   = N | N "-" M | N "-" | PERCENT
A bare number after a comma belongs to the rule before it, anything else opens a new rule: `syn:1,3,ack:1,5%` is three.

Rules
1. A packet is lost if any rule says so. Each rule counts every packet of its kind, also one that another rule loses.
2. `ack` is a bare one: ACK alone, no payload. `syn` is without ACK. `data` has payload, whatever its flags.
3. A lost packet counts as sent for the sender, as on a real wire.
"""

from __future__ import annotations

import re
from array import array
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fourtuple.phy.device import HEADROOM, Device, WrappedDevice, deliver

if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed import ReadableBuffer, WriteableBuffer

KINDS = ("syn", "synack", "ack", "data", "fin", "rst", "tcp", "icmp", "tx", "rx")
_FIN, _SYN, _RST, _PSH, _ACK = 0x01, 0x02, 0x04, 0x08, 0x10
_TCP, _ICMP, _ICMPV6 = 6, 1, 58
_FOREVER = 1 << 62
_BATCH = 64

_RULE = re.compile(r"(?:(tx|rx)-)?([a-z]+)(?::(.*))?")
_RANGE = re.compile(r"([1-9][0-9]*)(?:(-)([1-9][0-9]*)?)?")
_PERCENT = re.compile(r"([0-9]+(?:\.[0-9]+)?)%")


@dataclass(frozen=True)
class LossRule:
    """One rule of --loss."""

    text: str
    """As written; what a trace shows."""
    direction: str
    """`tx`, `rx`, or empty for both."""
    kind: str
    """One of KINDS except tx and rx, or empty for any packet."""
    ranges: tuple[tuple[int, int], ...]
    """Which ones, counted from 1: first and last, both included."""
    chance: float
    """Probability for packets outside `ranges`; 0.0 without a percentage."""


def parse_loss(text: str) -> tuple[LossRule, ...]:
    """The rules of a --loss text. ValueError with one line that shows the piece which is wrong."""
    return tuple(_parse_rule(rule) for rule in _split_rules(text))


def _split_rules(text: str) -> list[str]:
    """Cut at the commas, then give bare numbers and ranges back to the rule before them."""
    rules: list[str] = []
    for piece in "".join(text.lower().split()).split(","):
        if rules and ":" in rules[-1] and _RANGE.fullmatch(piece):
            rules[-1] += "," + piece
        else:
            rules.append(piece)
    return rules


def _parse_rule(text: str) -> LossRule:
    if _PERCENT.fullmatch(text):
        return LossRule(text, "", "", (), _parse_percent(text))
    match = _RULE.fullmatch(text)
    if match is None or match[2] not in KINDS or (match[1] and match[2] in ("tx", "rx")):
        raise ValueError(f"--loss: {text!r} is not a rule; say for example syn:1, ack:2-4, rx:3 or 5% ({_kinds()})")
    direction, kind = (match[2], "") if match[2] in ("tx", "rx") else (match[1] or "", match[2])
    ranges, chance = _parse_which(text, match[3])
    return LossRule(text, direction, kind, ranges, chance)


def _kinds() -> str:
    return "kinds: " + " ".join(KINDS)


def _parse_which(rule: str, text: str | None) -> tuple[tuple[tuple[int, int], ...], float]:
    if text is None:
        return ((1, _FOREVER),), 0.0
    ranges: list[tuple[int, int]] = []
    chance = 0.0
    for item in text.split(","):
        if _PERCENT.fullmatch(item):
            chance = _parse_percent(item)
        else:
            ranges.append(_parse_range(rule, item))
    return tuple(ranges), chance


def _parse_range(rule: str, item: str) -> tuple[int, int]:
    match = _RANGE.fullmatch(item)
    if match is None:
        raise ValueError(f"--loss: {item!r} in {rule!r} is not a number from 1, a range (2-4, 3-) or a percentage (5%)")
    first = int(match[1])
    last = int(match[3]) if match[3] else (_FOREVER if match[2] else first)
    if last < first:
        raise ValueError(f"--loss: the range {item!r} in {rule!r} runs backwards")
    return first, last


def _parse_percent(text: str) -> float:
    percent = float(text[:-1])
    if percent > 100:
        raise ValueError(f"--loss: {text!r} is more than 100%")
    return percent / 100


def _transport(packet: memoryview) -> tuple[int, int]:
    """(protocol, offset of its header); protocol -1 for a later fragment or a stump."""
    if len(packet) >= 20 and packet[0] >> 4 == 4:
        later_fragment = (packet[6] & 0x1F) << 8 | packet[7]
        return (-1, 0) if later_fragment else (packet[9], (packet[0] & 15) * 4)
    if len(packet) >= 40 and packet[0] >> 4 == 6:
        return packet[6], 40
    return -1, 0


def packet_kinds(packet: memoryview) -> frozenset[str]:
    """The kinds that a packet is of; the empty string, "any", always. Extension headers of IPv6 are not walked."""
    protocol, start = _transport(packet)
    if protocol in (_ICMP, _ICMPV6):
        return frozenset(("", "icmp"))
    if protocol != _TCP or len(packet) < start + 20:
        return frozenset(("",))
    return frozenset(("", "tcp", *_tcp_kinds(packet[start + 13], len(packet) - start - (packet[start + 12] >> 4) * 4)))


def _tcp_kinds(flags: int, payload_size: int) -> list[str]:
    kinds = []
    if flags & _SYN:
        kinds.append("synack" if flags & _ACK else "syn")
    if flags & _FIN:
        kinds.append("fin")
    if flags & _RST:
        kinds.append("rst")
    if payload_size > 0:
        kinds.append("data")
    return kinds or (["ack"] if flags & _ACK else [])


class FaultDevice(WrappedDevice):
    """Loses packets of `inner` by rule.

    `random` returns floats in [0, 1) and is asked once for each packet that a percentage applies to, in order, so
    that a seed repeats a run. `on_drop(packet, rule)` is told about each lost packet.
    """

    def __init__(
        self,
        inner: Device,
        rules: tuple[LossRule, ...],
        random: Callable[[], float],
        on_drop: Callable[[bytes, LossRule], None] | None = None,
    ) -> None:
        super().__init__(inner)
        self.rules = rules
        self._random = random
        self._on_drop = on_drop
        self._counts = [0] * len(rules)
        self._judged = False  # the next packet to send was found good, then refused by a full device

    def _lost_by(self, packet: memoryview, direction: str) -> LossRule | None:
        """The first rule that loses this packet. Every rule counts it (rule 1)."""
        kinds = packet_kinds(packet)
        lost = None
        for i, rule in enumerate(self.rules):
            if rule.kind not in kinds or rule.direction not in ("", direction):
                continue
            self._counts[i] += 1
            hit = any(first <= self._counts[i] <= last for first, last in rule.ranges)
            if rule.chance and not hit:
                hit = self._random() < rule.chance
            if hit and lost is None:
                lost = rule
        return lost

    def _drops(self, packet: memoryview, direction: str) -> bool:
        rule = self._lost_by(packet, direction)
        if rule is not None and self._on_drop is not None:
            self._on_drop(bytes(packet), rule)
        return rule is not None

    def read_batch(self, ring: WriteableBuffer, offsets: array[int], lengths: array[int], max_packets: int) -> int:
        """See Device.read_batch. Reads again when a whole batch was lost: 0 means that nothing is left to read."""
        view = memoryview(ring).cast("B")
        kept = 0
        while not kept:
            n = self.inner.read_batch(ring, offsets, lengths, max_packets)
            if not n:
                break
            for i in range(n):
                start, size = offsets[i], lengths[i]
                if not self._drops(view[start : start + size], "rx"):
                    offsets[kept], lengths[kept] = start, size
                    kept += 1
        return kept

    def write_batch(self, buf: ReadableBuffer, offsets: array[int], lengths: array[int], n: int) -> int:
        """See Device.write_batch. A packet refused by a full device is judged once, not again when it comes back."""
        view = memoryview(buf).cast("B")
        for i in range(n):
            if not self._judged and self._drops(view[offsets[i] : offsets[i] + lengths[i]], "tx"):
                continue
            self._judged = not self.inner.write_batch(buf, offsets[i : i + 1], lengths[i : i + 1], 1)
            if self._judged:
                return i
        return n


class DelayDevice(WrappedDevice):
    """Holds each packet of `inner` for half of `rtt_us`, both ways.

    Time comes from `now_us()`. Held packets move when read_batch() or write_batch() is called: call read_batch() when
    next_due() has come. Nothing is reordered.
    """

    def __init__(self, inner: Device, rtt_us: int, now_us: Callable[[], int]) -> None:
        super().__init__(inner)
        self._now_us = now_us
        self._tx_delay_us = rtt_us // 2
        self._rx_delay_us = rtt_us - rtt_us // 2
        self._tx: deque[tuple[int, bytes]] = deque()
        self._rx: deque[tuple[int, bytes]] = deque()
        self._arrived: deque[bytes] = deque()
        self._ring = bytearray(_BATCH * (inner.mtu + HEADROOM))
        self._offsets = array("I", bytes(4 * _BATCH))
        self._lengths = array("I", bytes(4 * _BATCH))

    def read_batch(self, ring: WriteableBuffer, offsets: array[int], lengths: array[int], max_packets: int) -> int:
        """See Device.read_batch. Also sends what is due."""
        now = self._now_us()
        self._send_due(now)
        self._hold_incoming(now)
        while self._rx and self._rx[0][0] <= now:
            self._arrived.append(self._rx.popleft()[1])
        return deliver(self._arrived, ring, offsets, lengths, max_packets)

    def write_batch(self, buf: ReadableBuffer, offsets: array[int], lengths: array[int], n: int) -> int:
        """See Device.write_batch. Takes everything."""
        now = self._now_us()
        view = memoryview(buf).cast("B")
        for i in range(n):
            packet = bytes(view[offsets[i] : offsets[i] + lengths[i]])
            self._tx.append((now + self._tx_delay_us, packet))
        self._send_due(now)
        return n

    def next_due(self) -> int | None:
        """See TimedDevice.next_due. Packets that found no room in the last ring are due at once."""
        if self._arrived:
            return self._now_us()
        heads = [queue[0][0] for queue in (self._tx, self._rx) if queue]
        inner = super().next_due()
        return min([*heads, *([] if inner is None else [inner])], default=None)

    def _send_due(self, now: int) -> None:
        one = array("I", (0,))
        while self._tx and self._tx[0][0] <= now:
            packet = self._tx[0][1]
            if not self.inner.write_batch(packet, one, array("I", (len(packet),)), 1):
                break
            self._tx.popleft()

    def _hold_incoming(self, now: int) -> None:
        view = memoryview(self._ring)
        while n := self.inner.read_batch(self._ring, self._offsets, self._lengths, _BATCH):
            for i in range(n):
                start = self._offsets[i]
                self._rx.append((now + self._rx_delay_us, bytes(view[start : start + self._lengths[i]])))
