"""One Net with a device `tun0` (10.9.0.1/24), a manual clock, and the remote peer played by the test.

w = Wire()
sk = w.connect()             # SYN_SENT
syn = w.expect("S")          # the packet, parsed
w.peer_synack(syn)
w.expect("A")
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any

from fourtuple.inet.hashinfo import InetHashinfo
from fourtuple.inet.secrets import BootSecrets
from fourtuple.ip.fib import Fib
from fourtuple.ip.input import ip_rcv, net_run_loopback
from fourtuple.ip.netns import net_refresh
from fourtuple.ip.txqueue import tx_packet, tx_reset
from fourtuple.sysctl import Sysctls
from fourtuple.tcp.ipv4 import tcp_v4_connect, tcp_v4_init
from fourtuple.tcp.net import Net
from fourtuple.tcp.sock import TcpSockTable
from fourtuple.tcp.states import STATE_NAMES
from fourtuple.tcp.tcp import tcp_init_sock
from fourtuple.tcp.timer import net_handle_timeout, net_next_timeout
from fourtuple.wheel import TimerWheel
from fourtuple.wire.buffer import PacketBuffer

HOST = 0x0A090001
HOST2 = 0x0A090003
PEER = 0x0A090002
LOOPBACK = 0x7F000001
TUN = 2
M32 = 0xFFFFFFFF
FLAGS = "FSRPAUEW"


def checksum(data: bytes) -> int:
    data += b"\0" * (len(data) & 1)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def flag_bits(text: str) -> int:
    return sum(1 << FLAGS.index(c) for c in text)


def flag_text(bits: int) -> str:
    return "".join(c for c in "SFRPAUEW" if bits >> FLAGS.index(c) & 1)


def option_bytes(options: list[tuple[Any, ...]]) -> bytes:
    out = b""
    for name, *args in options:
        if name == "nop":
            out += b"\x01"
        elif name == "mss":
            out += struct.pack("!BBH", 2, 4, *args)
        elif name == "ws":
            out += struct.pack("!BBB", 3, 3, *args)
        elif name == "sackOK":
            out += b"\x04\x02"
        elif name == "sack":
            out += struct.pack("!BB", 5, 2 + 8 * len(args)) + b"".join(struct.pack("!II", *block) for block in args)
        elif name == "ts":
            out += struct.pack("!BBII", 8, 10, args[0] & M32, args[1] & M32)
    return out + b"\x01" * (-len(out) % 4)


def parse_options(data: bytes) -> list[tuple[Any, ...]]:
    out: list[tuple[Any, ...]] = []
    i = 0
    while i < len(data):
        kind = data[i]
        if kind == 0:
            break
        if kind == 1:
            out.append(("nop",))
            i += 1
            continue
        size = data[i + 1]
        body = data[i + 2 : i + size]
        if kind == 2:
            out.append(("mss", *struct.unpack("!H", body)))
        elif kind == 3:
            out.append(("ws", body[0]))
        elif kind == 4:
            out.append(("sackOK",))
        elif kind == 5:
            words = struct.unpack(f"!{len(body) // 4}I", body)
            out.append(("sack", *zip(words[::2], words[1::2], strict=True)))
        elif kind == 8:
            out.append(("ts", *struct.unpack("!II", body)))
        elif kind == 19:
            out.append(("md5", body))
        i += size
    return out


@dataclass
class Packet:
    """A packet the stack sent."""

    time_us: int
    dev: int
    raw: bytes
    src: int = 0
    dst: int = 0
    ttl: int = 0
    tos: int = 0
    ident: int = 0
    df: bool = False
    sport: int = 0
    dport: int = 0
    seq: int = 0
    ack: int = 0
    flags: str = ""
    window: int = 0
    options: list[tuple[Any, ...]] = field(default_factory=list)
    payload: bytes = b""

    @classmethod
    def parse(cls, time_us: int, dev: int, raw: bytes) -> Packet:
        p = cls(time_us, dev, raw)
        assert checksum(raw[:20]) == 0, "IP checksum"
        p.tos, p.ident, frag, p.ttl, proto = raw[1], *struct.unpack("!HH", raw[4:8]), raw[8], raw[9]
        p.df = bool(frag & 0x4000)
        p.src, p.dst = struct.unpack("!II", raw[12:20])
        if proto != 6:
            return p
        seg = raw[20:]
        assert checksum(raw[12:20] + struct.pack("!BBH", 0, 6, len(seg)) + seg) == 0, "TCP checksum"
        p.sport, p.dport, p.seq, p.ack, off, bits, p.window = struct.unpack("!HHIIBBH", seg[:16])
        p.flags = flag_text(bits)
        p.options = parse_options(seg[20 : (off >> 4) * 4])
        p.payload = seg[(off >> 4) * 4 :]
        return p

    def opt(self, name: str) -> tuple[Any, ...] | None:
        return next((o for o in self.options if o[0] == name), None)

    def kinds(self) -> list[str]:
        return [o[0] for o in self.options]


PEER_OPTIONS: list[tuple[Any, ...]] = [("mss", 1460), ("sackOK",), ("ts", 0, 0), ("nop",), ("ws", 7)]


class Wire:
    """The Net under test, its clock and the packets it sent."""

    def __init__(self, now_us: int = 1_000_000_000, seed: int = 1, **sysctls: object) -> None:
        self.sysctl = Sysctls()
        for name, value in sysctls.items():
            self.set(name, value)
        self.secrets = BootSecrets(seed)
        self.sks = TcpSockTable(4096)
        self.h = InetHashinfo(self.sks, self.sysctl, self.secrets, 4096)
        self.fib = Fib(self.sysctl)
        self.fib.set_device_up(self.fib.device("lo"), True)
        tun = self.fib.add_device("tun0", 1500)
        assert tun.ifindex == TUN
        self.fib.set_device_up(tun, True)
        self.fib.add_address(tun, HOST, 24)
        self.net = Net(self.sks, self.h, self.fib, self.sysctl, self.secrets, TimerWheel(1 << 16))
        self.net.now_us = now_us
        tcp_v4_init(self.net)
        net_refresh(self.net)
        self.sent: list[Packet] = []

    def set(self, name: str, value: object) -> None:
        assert self.sysctl.set(f"net.ipv4.{name}", str(value)) == 0, name

    @property
    def now(self) -> int:
        return self.net.now_us

    # -- sockets

    def socket(self) -> int:
        sk = tcp_init_sock(self.net)
        assert sk > 0
        self.sks.ss_state[sk] = 1
        return sk

    def option(self, sk: int, **changes: object) -> None:
        self.sks.opts[sk] = self.sks.options.replaced(self.sks.opts[sk], **changes)

    def flag(self, sk: int, bits: int) -> None:
        self.sks.flags[sk] |= bits

    def connect(self, sk: int = 0, daddr: int = PEER, dport: int = 80) -> int:
        sk = sk or self.socket()
        assert tcp_v4_connect(self.net, sk, daddr, dport) == 0
        return sk

    def state(self, sk: int) -> str:
        return STATE_NAMES.get(self.sks.sk_state[sk], "gone")

    def mib(self, name: str) -> int:
        value: int = getattr(self.net.mib, name.replace(".", ""))
        return value

    # -- the wire

    def take(self) -> list[Packet]:
        """All packets sent since the last call."""
        tx = self.net.tx
        found = [Packet.parse(tx.times[i], tx.devs[i], tx_packet(tx, i)) for i in range(tx.count)]
        tx_reset(tx)
        return found

    def expect(self, flags: str) -> Packet:
        """Exactly one packet was sent, with these flags."""
        found = self.take()
        assert [p.flags for p in found] == [flags]
        return found[0]

    def expect_nothing(self) -> None:
        assert [p.flags for p in self.take()] == []

    def inject(self, raw: bytes, dev: int = TUN) -> None:
        """A packet arrives; what the host then sends itself is delivered too."""
        ip_rcv(self.net, PacketBuffer(bytearray(raw)), 0, len(raw), dev)
        net_run_loopback(self.net)

    def ip(self, proto: int, payload: bytes, src: int = PEER, dst: int = HOST, ttl: int = 64, tos: int = 0) -> bytes:
        head = struct.pack("!BBHHHBBHII", 0x45, tos, 20 + len(payload), 1, 0x4000, ttl, proto, 0, src, dst)
        return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload

    def segment(
        self,
        flags: str,
        sport: int,
        dport: int,
        seq: int,
        ack: int = 0,
        window: int = 65535,
        options: list[tuple[Any, ...]] | None = None,
        payload: bytes = b"",
        src: int = PEER,
        dst: int = HOST,
        ttl: int = 64,
        badsum: bool = False,
    ) -> bytes:
        opts = option_bytes(options or [])
        head = struct.pack(
            "!HHIIBBHHH", sport, dport, seq & M32, ack & M32, (20 + len(opts)) // 4 << 4, flag_bits(flags), window, 0, 0
        )
        body = head + opts + payload
        total = checksum(struct.pack("!IIBBH", src, dst, 0, 6, len(body)) + body) ^ (0x5555 if badsum else 0)
        return self.ip(6, body[:16] + struct.pack("!H", total) + body[18:], src, dst, ttl)

    def icmp(self, quoted: Packet, icmp_type: int, code: int, info: int = 0, size: int = 8, **kw: int) -> None:
        inner = bytearray(quoted.raw[: 20 + size])
        if "seq" in kw:
            inner[24:28] = struct.pack("!I", kw["seq"] & M32)
        if "dport" in kw:
            inner[22:24] = struct.pack("!H", kw["dport"])
        body = struct.pack("!BBHI", icmp_type, code, 0, info) + bytes(inner)
        total = checksum(body) ^ kw.get("badsum", 0)
        self.inject(self.ip(1, body[:2] + struct.pack("!H", total) + body[4:], src=0x0A090009))

    # -- the clock

    def advance(self, us: int) -> None:
        """Let time pass and the timers run."""
        net_handle_timeout(self.net, self.now + us)

    def next_timer(self) -> int:
        """Due time of the earliest timer, us from now."""
        due = net_next_timeout(self.net)
        return due - self.now if due >= 0 else -1

    def established(self, sk: int = 0, **peer: Any) -> tuple[int, Peer]:
        sk = self.connect(sk)
        p = Peer(self, self.expect("S"), **peer)
        p.synack()
        p.ack_from(self.expect("A"))
        return sk, p


class Peer:
    """The remote end of one connection."""

    def __init__(
        self, wire: Wire, syn: Packet, iss: int = 0x1000, options: list[tuple[Any, ...]] | None = None
    ) -> None:
        self.wire = wire
        self.syn = syn
        self.iss = iss
        self.options = PEER_OPTIONS if options is None else options
        self.snd = iss
        self.rcv = (syn.seq + 1) & M32
        self.tsval = 5000
        ts = syn.opt("ts")
        self.ecr = ts[1] if ts else 0
        self.ts_on = ts is not None and any(o[0] == "ts" for o in self.options)

    def fill(self, options: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        self.tsval += 1
        return [("ts", self.tsval, self.ecr) if o == ("ts", 0, 0) else o for o in options]

    def raw(self, flags: str, seq: int, ack: int, options: list[tuple[Any, ...]] | None = None, **kw: Any) -> None:
        s = self.syn
        sport = kw.pop("sport", s.dport)
        self.wire.inject(self.wire.segment(flags, sport, s.sport, seq, ack, options=options, **kw))

    def synack(self, flags: str = "SA", ack: int | None = None, **kw: Any) -> None:
        self.raw(flags, self.iss, self.rcv if ack is None else ack, self.fill(kw.pop("options", self.options)), **kw)
        self.snd = self.iss + 1

    def send(self, flags: str = "A", payload: bytes = b"", **kw: Any) -> None:
        options = self.fill([("nop",), ("nop",), ("ts", 0, 0)]) if self.ts_on else []
        options += kw.pop("options", [])
        seq = kw.pop("seq", None)
        ack = kw.pop("ack", None)
        self.raw(
            flags, self.snd if seq is None else seq, self.rcv if ack is None else ack, options, payload=payload, **kw
        )
        if seq is None:
            self.snd = (self.snd + len(payload) + ("F" in flags)) & M32

    def ack_from(self, p: Packet) -> None:
        """Take note of what the stack has sent."""
        ts = p.opt("ts")
        if ts:
            self.ecr = ts[1]
        end = (p.seq + len(p.payload) + ("F" in p.flags) + ("S" in p.flags)) & M32
        if (end - self.rcv) & M32 < 0x80000000:
            self.rcv = end
