"""Captions: which function sent or took each packet, found in the trace records of a Host on a captured device."""

from __future__ import annotations

import errno
import io
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fourtuple.address import parse_ipv4
from fourtuple.host import Host
from fourtuple.phy.captions import TraceCaptions
from fourtuple.phy.fault import FaultDevice, LossRule, parse_loss
from fourtuple.phy.memory import MemoryDevice, memory_pair
from fourtuple.phy.pcapng import PcapDevice, PcapngWriter
from fourtuple.shell.loop import Station
from fourtuple.sock.af_inet import pack_sockaddr_in
from fourtuple.sock.syscall import SOCK_NONBLOCK, SOCK_STREAM
from fourtuple.trace import Tracer, attach
from fourtuple.wire.build import TcpPacket, icmp_packet, parse_packet, tcp_packet
from tests.phy.packets import send
from tests.phy.pcapng_reader import read_pcapng

US, PEER, PORT = "10.1.0.2", "10.1.0.1", 80
CONNECT = "tcp_connect > tcp_transmit_skb"
SYNSENT = "tcp_v4_rcv > tcp_rcv_synsent_state_process"
NOT_OURS = "dropped: not our address, or no protocol takes it"
DATA = "tcp_write_xmit > tcp_transmit_skb"


def bad_header(packet: bytes) -> bytes:
    return packet[:10] + bytes((packet[10] ^ 1,)) + packet[11:]


def bad_segment(packet: bytes) -> bytes:
    return packet[:-1] + bytes((packet[-1] ^ 1,))


class Rig:
    """A Host on a captured device; the test is the peer, on `peer`."""

    def __init__(self, loss: str = "", traced: bool = True) -> None:
        self.now = 1_000_000_000
        self.host = Host(seed=3, now_us=self.now, max_sockets=64)
        self.host.add_link("ft0", addrs=(f"{US}/24",))
        self.file = io.BytesIO()
        ours, self.peer = memory_pair(names=("ft0", "peer0"))
        inner: MemoryDevice | FaultDevice = ours
        if loss:
            inner = FaultDevice(inner, parse_loss(loss), lambda: 1.0, lambda packet, rule: self.on_drop(packet, rule))
        captions = TraceCaptions(lambda: self.host.net.tracer)
        self.device = PcapDevice(inner, PcapngWriter(self.file), lambda: self.now * 1000, captions)
        self.station = Station(self.host, self.device)
        self.seen = 0
        self.fds: list[int] = []
        if traced:
            attach(Tracer(), self.host.net)

    def on_drop(self, packet: bytes, rule: LossRule) -> None:
        self.device.on_drop(packet, rule)

    def pump(self, later_us: int = 0) -> None:
        self.now += later_us
        while self.station.pump(self.now):
            pass

    def connect(self, port: int = PORT) -> int:
        fd = self.host.sys_socket(type=SOCK_STREAM | SOCK_NONBLOCK, now=self.now)
        address = pack_sockaddr_in(parse_ipv4(PEER), port)
        assert self.host.sys_connect(fd, address, now=self.now) == -errno.EINPROGRESS
        self.pump()
        return fd

    def last_sent(self) -> TcpPacket:
        packet = parse_packet(self.peer.incoming[-1])
        assert isinstance(packet, TcpPacket)
        return packet

    def answer(
        self, flags: str, payload: bytes = b"", ack: int = 1, to: TcpPacket | None = None, ident: int = 7
    ) -> bytes:
        """A segment in answer to `to`, by default the last one sent; `ack`: so far beyond its sequence number."""
        to = to or self.last_sent()
        seq = to.ack if to.ack else 5000
        return tcp_packet(PEER, US, to.dport, to.sport, seq, to.seq + ack, flags, payload=payload, ident=ident)

    def arrive(self, *packets: bytes) -> None:
        send(self.peer, *packets)
        self.pump()

    def establish(self) -> int:
        fd = self.connect()
        self.arrive(self.answer("SA"))
        self.told()
        return fd

    def told(self) -> list[str]:
        """New comments, `< ` for what arrived and `> ` for what was sent."""
        self.device.flush()
        packets = read_pcapng(self.file.getvalue()).packets[self.seen :]
        self.seen += len(packets)
        return [("> " if p.outgoing else "< ") + p.comment for p in packets]


@pytest.fixture
def rig() -> Iterator[Rig]:
    yield Rig()


# ------------------------------------------------------------------------------------------------ connect()


def test_a_handshake(rig: Rig) -> None:
    rig.connect()
    rig.arrive(rig.answer("SA"))
    assert rig.told() == [
        f"> {CONNECT}: SYN, #1",
        f"< {SYNSENT}: SYN-ACK, ack = isn+1",
        "> tcp_send_ack > tcp_transmit_skb: ACK",
    ]


def test_each_retransmission_of_a_syn_is_counted_and_names_the_timer(rig: Rig) -> None:
    rig.connect()
    rig.pump(1_000_000)
    rig.pump(1_000_000)
    again = "> tcp_retransmit_timer > tcp_retransmit_skb > tcp_transmit_skb: SYN"
    assert rig.told() == [f"> {CONNECT}: SYN, #1", f"{again}, #2", f"{again}, #3"]


def test_the_count_starts_anew_for_another_connection(rig: Rig) -> None:
    rig.host.sys_close(rig.connect(), now=rig.now)
    rig.connect()
    assert rig.told() == [f"> {CONNECT}: SYN, #1"] * 2


def test_a_lost_syn(rig: Rig) -> None:
    rig = Rig(loss="syn:1")
    rig.connect()
    assert rig.told() == [f"> {CONNECT}: SYN, #1 · lost (syn:1)"]


def test_a_syn_ack_lost_on_its_way_in_was_seen_by_nobody(rig: Rig) -> None:
    rig = Rig(loss="synack:1")
    rig.connect()
    rig.arrive(rig.answer("SA"))
    assert rig.told() == [f"> {CONNECT}: SYN, #1", "< SYN-ACK · lost (synack:1)"]


def test_a_refusal(rig: Rig) -> None:
    rig.connect()
    rig.arrive(rig.answer("RA"))
    assert rig.told()[1:] == [f"< {SYNSENT}: RST-ACK, ack = isn+1, ECONNREFUSED"]


def test_an_answer_to_something_else_is_answered_by_rst(rig: Rig) -> None:
    rig.connect()
    rig.arrive(rig.answer("SA", ack=77))
    assert rig.told()[1:] == [
        f"< {SYNSENT}: SYN-ACK, ack is not isn+1, answered by RST",
        "> tcp_rcv_synsent_state_process > tcp_v4_send_reset: RST",
    ]


def test_a_syn_that_crosses_ours(rig: Rig) -> None:
    rig.connect()
    rig.arrive(rig.answer("S", ack=0))
    assert rig.told()[1:] == [f"< {SYNSENT}: SYN, it crossed ours", "> tcp_send_synack > tcp_transmit_skb: SYN-ACK, #1"]


# ------------------------------------------------------------------------------------------------ after it


def test_data_and_the_end(rig: Rig) -> None:
    fd = rig.establish()
    rig.host.sys_send(fd, b"x" * 300, now=rig.now)
    rig.pump()
    rig.arrive(rig.answer("PA", b"y" * 20, ack=300))
    rig.arrive(rig.answer("FA", ack=0, ident=8))
    assert rig.host.sys_recv(fd, 100, now=rig.now) == b"y" * 20
    rig.host.sys_close(fd, now=rig.now)
    rig.pump()
    assert rig.told() == [
        f"> {DATA}: PSH-ACK, 300 bytes",
        "< tcp_v4_rcv > tcp_rcv_established: PSH-ACK, 20 bytes",
        "> tcp_send_ack > tcp_transmit_skb: ACK",
        "< tcp_v4_rcv > tcp_rcv_established: FIN-ACK",
        "> tcp_send_fin > tcp_transmit_skb: FIN-ACK",
    ]


def test_unread_data_is_answered_by_rst_from_close(rig: Rig) -> None:
    fd = rig.establish()
    rig.arrive(rig.answer("PA", b"y", ack=0))
    rig.host.sys_close(fd, now=rig.now)
    rig.pump()
    assert rig.told()[-1] == "> tcp_close > tcp_transmit_skb: RST-ACK"


def test_a_ping_is_answered(rig: Rig) -> None:
    rig.arrive(icmp_packet(PEER, US, 8, payload=b"ping"))
    assert rig.told() == [
        "< ip_rcv > icmp_rcv: ICMP: echo request, id 0, seq 0",
        "> icmp_rcv > ip_local_out: ICMP: echo reply, id 0, seq 0",
    ]


def test_data_sent_again_says_so(rig: Rig) -> None:
    fd = rig.establish()
    rig.host.sys_send(fd, b"x", now=rig.now)
    rig.pump()
    for _ in range(2):  # the tail probe, then the timer
        rig.pump(2_000_000)
    first, *others = rig.told()
    assert first == f"> {DATA}: PSH-ACK, 1 byte"
    assert others and all(
        line.endswith("tcp_retransmit_skb > tcp_transmit_skb: PSH-ACK, 1 byte, again") for line in others
    )
    assert others[-1].startswith("> tcp_retransmit_timer > ")


def test_a_batch_that_arrives_at_once_is_told_apart(rig: Rig) -> None:
    first, second = rig.connect(80), rig.connect(81)
    assert first != second
    sent = [packet for packet in map(parse_packet, rig.peer.incoming) if isinstance(packet, TcpPacket)]
    stranger = tcp_packet(PEER, US, 9, 9, flags="A", ident=7)
    rig.arrive(rig.answer("SA", to=sent[1]), stranger, rig.answer("RA", to=sent[0]))
    assert rig.told()[2:] == [
        f"< {SYNSENT}: SYN-ACK, ack = isn+1",
        "< tcp_v4_rcv > tcp_v4_send_reset: ACK, no socket has this four-tuple",
        f"< {SYNSENT}: RST-ACK, ack = isn+1, ECONNREFUSED",
        "> tcp_send_ack > tcp_transmit_skb: ACK",
        "> tcp_v4_rcv > tcp_v4_send_reset: RST",
    ]


# ------------------------------------------------------------------------------------------------ nobody asked


@pytest.mark.parametrize(
    ("packet", "comment"),
    [
        (tcp_packet(PEER, US, 9, 9, flags="R"), "tcp_v4_rcv: RST, dropped: no socket has this four-tuple"),
        (tcp_packet(PEER, "10.1.0.77", 9, 9, flags="S"), f"ip_rcv: SYN, {NOT_OURS}"),
        (
            bad_header(tcp_packet(PEER, US, 9, 9, flags="S")),
            "ip_rcv: 40 bytes (bad checksum), dropped: not a good IP header",
        ),
        (
            bad_segment(tcp_packet(PEER, US, 9, 9, flags="A", payload=b"ab")),
            "ip_rcv: ACK, 2 bytes, bad checksum, dropped",
        ),
        (icmp_packet(PEER, US, 0, payload=b"ping"), "ip_rcv > icmp_rcv: ICMP: echo reply, id 0, seq 0"),
        (
            bad_segment(icmp_packet(PEER, US, 8, payload=b"ping")),
            "ip_rcv: 32 bytes (bad checksum), dropped",
        ),
        (icmp_packet(PEER, US, 3, 77, payload=b"ping"), "ip_rcv > icmp_rcv: ICMP: ? unreachable - #77"),
        (b"\x60" + bytes(39), "ip_rcv: 40 bytes (not IPv4), dropped: not a good IP header"),
        (b"", "ip_rcv: 0 bytes (truncated), dropped: not a good IP header"),
    ],
)
def test_a_packet_that_nobody_asked_for_is_dropped_and_says_so(rig: Rig, packet: bytes, comment: str) -> None:
    rig.arrive(packet)
    assert rig.told() == [f"< {comment}"]


def test_a_good_packet_between_bad_ones_keeps_its_own_function(rig: Rig) -> None:
    rig.connect()
    good = rig.answer("SA")
    rig.arrive(bad_header(good), good, bad_header(good))
    told = [line.partition(":")[0] for line in rig.told()]
    assert sorted(told[1:4]) == sorted(["< ip_rcv", "< ip_rcv", f"< {SYNSENT}"])


def test_an_icmp_error_names_tcp_v4_err(rig: Rig) -> None:
    rig.connect()
    rig.arrive(icmp_packet(PEER, US, 3, 1, payload=rig.peer.incoming[-1][:48]))
    rig.arrive(icmp_packet(PEER, US, 3, 1, payload=tcp_packet(US, PEER, 9, 9)))
    assert rig.told()[1:] == [
        f"< icmp_rcv > tcp_v4_err: ICMP: host {PEER} unreachable",
        f"< icmp_rcv > tcp_v4_err: ICMP: host {PEER} unreachable, dropped: no socket has this four-tuple",
    ]


def test_what_is_sent_to_oneself_is_not_taken_for_a_packet_of_the_device(rig: Rig) -> None:
    fd = rig.host.sys_socket(type=SOCK_STREAM | SOCK_NONBLOCK, now=rig.now)
    rig.host.sys_connect(fd, pack_sockaddr_in(parse_ipv4("127.0.0.1"), 9), now=rig.now)
    rig.connect()
    rig.arrive(rig.answer("SA"))
    assert rig.told()[:2] == [f"> {CONNECT}: SYN, #1", f"< {SYNSENT}: SYN-ACK, ack = isn+1"]


# ------------------------------------------------------------------------------------------------ tracers


def test_without_a_tracer_there_is_no_comment_and_nothing_is_guessed_later() -> None:
    rig = Rig(traced=False)
    rig.connect()
    rig.arrive(rig.answer("SA"))
    attach(Tracer(), rig.host.net)
    rig.arrive(rig.answer("A", ack=0))
    assert rig.told() == ["> ", "< ", "> ", "< tcp_v4_rcv > tcp_rcv_established: ACK"]


def test_a_tracer_that_replaces_another_is_followed(rig: Rig) -> None:
    rig.connect()
    attach(Tracer(), rig.host.net)
    rig.arrive(rig.answer("SA"))
    attach(None, rig.host.net)
    rig.connect(81)
    assert rig.told() == [
        f"> {CONNECT}: SYN, #1",
        f"< {SYNSENT}: SYN-ACK, ack = isn+1",
        "> tcp_send_ack > tcp_transmit_skb: ACK",
        "> ",
    ]


def test_a_tracer_may_be_cleared(rig: Rig) -> None:
    rig.establish()
    assert rig.host.net.tracer is not None
    rig.host.net.tracer.clear()
    rig.connect(81)
    assert rig.told() == [f"> {CONNECT}: SYN, #1"]


def test_a_tracer_too_small_for_one_call_loses_the_beginning_of_the_path() -> None:
    rig = Rig(traced=False)
    attach(Tracer(capacity=4), rig.host.net)  # tcp_transmit_skb, ip_local_out, the timer, connect() returns
    rig.connect()
    assert rig.told() == ["> tcp_transmit_skb: SYN, #1"]


def test_a_tracer_that_lost_records_makes_no_packet_look_dropped() -> None:
    rig = Rig(traced=False)
    attach(Tracer(capacity=2), rig.host.net)
    rig.connect()
    rig.arrive(rig.answer("SA"))
    assert not any("dropped" in line for line in rig.told())


@given(st.lists(st.one_of(st.binary(min_size=1, max_size=80), st.integers(0, 255)), max_size=15))
def test_any_arrivals_get_a_comment_and_disturb_nothing(arrivals: list[bytes | int]) -> None:
    """Junk, and segments of a real connection with any flags."""
    rig = Rig()
    rig.connect()
    first = rig.last_sent()
    send(
        rig.peer,
        *[x if isinstance(x, bytes) else tcp_packet(PEER, US, 80, first.sport, 1, first.seq + 1, x) for x in arrivals],
    )
    rig.pump()
    arrived = [line for line in rig.told() if line.startswith("< ")]
    assert len(arrived) == len(arrivals)
    assert all(
        line.startswith(("< ip_rcv: ", "< tcp_v4_rcv: ", "< tcp_v4_rcv > ", "< icmp_rcv > ")) for line in arrived
    )
