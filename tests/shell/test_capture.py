"""Captures judged by tshark: what it reads in them is what we wrote and what we make of the packets ourselves."""

from __future__ import annotations

import io
import os
import random
import subprocess
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from fourtuple.cli.attempt import Attempt, Request, run_attempt
from fourtuple.cli.http import request_bytes
from fourtuple.clock import ManualClock
from fourtuple.host import Host
from fourtuple.phy.captions import TraceCaptions
from fourtuple.phy.device import Device
from fourtuple.phy.fault import DelayDevice, FaultDevice, LossRule, parse_loss
from fourtuple.phy.memory import memory_pair
from fourtuple.phy.pcapng import PcapDevice, PcapngWriter
from fourtuple.shell.capture import Capture
from fourtuple.shell.loop import Station
from fourtuple.shell.sim_loop import START_US, HttpPeer, SimRunner
from fourtuple.shell.wires import Setup, open_wire
from fourtuple.trace import Tracer, attach
from fourtuple.wire.build import IcmpPacket, IpPacket, TcpPacket, icmp_packet, parse_packet, tcp_packet, walk_options
from tests.phy.pcapng_reader import Packet, read_pcapng
from tests.tshark import dissect, need_tshark

FRAME = ["frame.time_epoch", "frame.len", "frame.interface_name", "frame.packet_flags_direction", "frame.comment"]
IP = ["ip.src", "ip.dst", "ip.proto", "ip.ttl", "ip.id", "ip.flags.df", "ip.len", "ip.checksum.status"]
TCP = ["tcp.srcport", "tcp.dstport", "tcp.seq_raw", "tcp.ack_raw", "tcp.flags", "tcp.window_size_value"]
TCP += ["tcp.urgent_pointer", "tcp.hdr_len", "tcp.len", "tcp.checksum.status", "tcp.options", "tcp.options.mss_val"]
TCP += ["tcp.options.wscale.shift", "tcp.option_kind", "tcp.options.timestamp.tsval", "tcp.options.timestamp.tsecr"]
TCP += ["tcp.options.sack_le", "tcp.options.sack_re"]
ICMP = ["icmp.type", "icmp.code", "icmp.checksum.status", "icmp.mtu"]
FIELDS = FRAME + IP + TCP + ICMP
US, PEER, SERVER = "10.64.0.2", "10.64.0.1", ("10.64.0.1", 8080)
DIRECTIONS = {1: False, 2: True}
GOOD = "1"  # of a checksum status

Row = dict[str, list[str]]


@pytest.fixture(scope="module", autouse=True)
def tshark() -> None:
    need_tshark()


# ------------------------------------------------------------------------------------------------ the comparison


def check(path: Path) -> list[Row]:
    """Every packet of the file, read by tshark and by us: they agree in every field."""
    packets = read_pcapng(path.read_bytes()).packets
    rows = dissect(path, FIELDS)
    assert len(rows) == len(packets)
    for packet, row in zip(packets, rows, strict=True):
        check_frame(packet, row)
        view = parse_packet(packet.data)
        check_ip(view, row)
        if isinstance(view, TcpPacket):
            check_tcp(view, row)
        if isinstance(view, IcmpPacket):
            check_icmp(view, row)
    return rows


def check_frame(packet: Packet, row: Row) -> None:
    assert Decimal(row["frame.time_epoch"][0]) == Decimal(packet.time_ns) / 10**9
    assert [int(row[name][0], 0) for name in ("frame.len", "frame.packet_flags_direction")] == [
        len(packet.data),
        2 if packet.outgoing else 1,
    ]
    assert "".join(row["frame.comment"]) == packet.comment


def check_ip(view: IpPacket, row: Row) -> None:
    """The outer header: the first value of each."""
    first = {name: row[name][0] for name in IP}
    assert (first["ip.src"], first["ip.dst"]) == (dotted(view.src), dotted(view.dst))
    assert (int(first["ip.proto"]), int(first["ip.ttl"]), int(first["ip.id"], 16)) == (view.proto, view.ttl, view.ident)
    assert (first["ip.flags.df"], first["ip.checksum.status"]) == (str(int(view.df)), GOOD)


def check_tcp(view: TcpPacket, row: Row) -> None:
    got = [int(row[name][0], 0) for name in TCP[:9]]
    assert got == [
        *(view.sport, view.dport, view.seq, view.ack, view.flags),
        *(view.window, view.urg, view.header_len, len(view.payload)),
    ]
    assert row["tcp.checksum.status"] == [GOOD if view.checksum_ok else "0"]
    assert [int(kind) for kind in row["tcp.option_kind"]] == [kind for kind, _ in view.options]
    numbers = {name: [int(value) for value in row[name]] for name in TCP[11:]}
    assert numbers["tcp.options.mss_val"] == ([view.mss] if view.mss else [])
    assert numbers["tcp.options.wscale.shift"] == ([] if view.wscale is None else [view.wscale])
    stamps = (numbers["tcp.options.timestamp.tsval"], numbers["tcp.options.timestamp.tsecr"])
    assert stamps == (([], []) if view.timestamp is None else ([view.timestamp[0]], [view.timestamp[1]]))
    edges = list(zip(numbers["tcp.options.sack_le"], numbers["tcp.options.sack_re"], strict=True))
    assert edges == list(view.sacks)
    if row["tcp.options"]:
        assert list(walk_options(bytes.fromhex(row["tcp.options"][0]))) == list(view.options)


def check_icmp(view: IcmpPacket, row: Row) -> None:
    assert [int(row[name][0]) for name in ICMP[:2]] == [view.type, view.code]
    assert row["icmp.checksum.status"] == [GOOD]
    if view.type == 3:
        check_quote(view, row)


def check_quote(view: IcmpPacket, row: Row) -> None:
    """The packet quoted in an ICMP error: its ends and sequence number are those of ours."""
    quoted = view.payload
    assert (row["ip.src"][1], row["ip.dst"][1]) == (dotted_bytes(quoted[12:16]), dotted_bytes(quoted[16:20]))
    assert int(row["ip.id"][1], 16) == int.from_bytes(quoted[4:6], "big")
    ends = int.from_bytes(quoted[20:22], "big"), int.from_bytes(quoted[22:24], "big")
    assert (int(row["tcp.srcport"][0]), int(row["tcp.dstport"][0])) == ends
    if view.code == 4:
        assert int(row["icmp.mtu"][0]) == view.info & 0xFFFF


def dotted(address: int) -> str:
    return dotted_bytes(address.to_bytes(4, "big"))


def dotted_bytes(address: bytes) -> str:
    return ".".join(map(str, address))


# ------------------------------------------------------------------------------------------------ made packets


def made_packets() -> Iterator[bytes]:
    """Every option alone and in all combinations, flags, sizes, ICMP errors of every code."""
    chance = random.Random(4)
    ends = (US, PEER, 40001, 9)  # discard: no dissector reads the payload
    options = {"mss": 1460, "wscale": 10, "sack_ok": True, "timestamp": (4_000_000_000, 0)}
    for bits in range(16):
        chosen = {name: value for i, (name, value) in enumerate(options.items()) if bits >> i & 1}
        yield tcp_packet(*ends, seq=0xFFFFFFFF, flags="S", window=64240, **chosen)  # type: ignore[arg-type]
    for wscale, mss in ((0, 1), (14, 65535)):
        yield tcp_packet(*ends, seq=1, ack=2, flags="SA", wscale=wscale, mss=mss)
    for flags in range(1, 512):
        payload = chance.randbytes(chance.choice((0, 0, 1, 7, 200)))
        seq, ack, window = chance.getrandbits(32), chance.getrandbits(32), chance.getrandbits(16)
        yield tcp_packet(
            *ends, seq, ack, flags, window, payload=payload, urg=flags >> 5 & 1, ident=flags, df=flags & 1 > 0
        )
    for blocks in range(1, 4):
        sacks = [(i * 100, i * 100 + 50) for i in range(1, blocks + 1)]
        yield tcp_packet(*ends, 1, 2, "A", sacks=sacks, timestamp=(1, 2))
    yield tcp_packet(*ends, 1, 2, "FA", payload=bytes(1448), timestamp=(7, 8), ttl=1)
    quoted = tcp_packet(US, PEER, 40001, 9, 77, flags="S", mss=1460, ident=5)
    for code in range(16):
        yield icmp_packet(PEER, US, 3, code, info=1400 if code == 4 else 0, payload=quoted[:48])
    yield icmp_packet(PEER, US, 11, 0, payload=quoted[:28])
    yield icmp_packet(PEER, US, 8, 0, 0x00010002, payload=b"ping")


def test_tshark_reads_made_packets_as_we_do(tmp_path: Path) -> None:
    file = io.BytesIO()
    writer = PcapngWriter(file)
    interface = writer.add_interface("ft0", "made")
    for i, packet in enumerate(made_packets()):
        writer.add_packet(interface, 10**18 + i * 1_000_000_001, packet, i % 2 == 0, f"{i} > · ü")
    path = tmp_path / "made.pcapng"
    path.write_bytes(file.getvalue())
    rows = check(path)
    assert rows[0]["frame.interface_name"] == ["ft0"]
    assert rows[3]["frame.time_epoch"] == ["1000000003.000000003"]


def test_a_wrong_checksum_is_seen_by_both(tmp_path: Path) -> None:
    packet = tcp_packet(US, PEER, 1, 9, flags="A", payload=b"abcd")
    file = io.BytesIO()
    writer = PcapngWriter(file)
    writer.add_packet(writer.add_interface("ft0"), 1, packet[:-1] + b"x", True)
    path = tmp_path / "bad.pcapng"
    path.write_bytes(file.getvalue())
    assert check(path)[0]["tcp.checksum.status"] == ["0"]


def test_tshark_reads_any_bytes_as_packets(tmp_path: Path) -> None:
    chance = random.Random(9)
    packets = [chance.randbytes(chance.randrange(120)) for _ in range(400)]
    file = io.BytesIO()
    writer = PcapngWriter(file)
    interface = writer.add_interface("ft0")
    for i, packet in enumerate(packets):
        writer.add_packet(interface, i, packet, False, "any")
    path = tmp_path / "any.pcapng"
    path.write_bytes(file.getvalue())
    rows = dissect(path, ["frame.len", "frame.time_epoch", "frame.comment"])
    assert [int(row["frame.len"][0]) for row in rows] == [len(packet) for packet in packets]
    assert all(row["frame.comment"] == ["any"] for row in rows)


def test_capinfos_knows_the_file(tmp_path: Path) -> None:
    path = capture_run("sim", tmp_path)[1]
    text = subprocess.run(["capinfos", str(path)], capture_output=True, text=True, timeout=60, check=True).stdout
    lines = {
        key.strip(): value.strip() for key, _, value in (line.partition(":") for line in text.splitlines()) if value
    }
    assert lines["File timestamp precision"] == "nanoseconds (9)"
    assert lines["File encapsulation"] == "Raw IP"
    assert lines["Strict time order"] == "True"
    assert lines["Capture application"] == "a test"
    assert lines["Capture oper-sys"] == f"Linux {os.uname().release}"
    assert lines["Capture hardware"] == os.uname().machine
    assert {line.strip() for line in text.splitlines()} >= {"Name = ft0", "Description = a run"}


# ------------------------------------------------------------------------------------------------ real runs


def capture_run(name: str, tmp_path: Path, loss: str = "", port: int = SERVER[1]) -> tuple[Attempt, Path]:
    """One HTTP request on that wire."""
    path = tmp_path / f"{name}.pcapng"
    with path.open("wb") as file:
        capture = Capture(PcapngWriter(file, "a test"), "a run")
        setup = Setup(servers=(SERVER,), seed=7, loss=parse_loss(loss) if loss else (), capture=capture)
        with open_wire(name, setup) as wire:
            request = Request(SERVER[0], port, payload=request_bytes(*SERVER), wants_answer=True)
            attempt = run_attempt(wire, request)
    return attempt, path


@pytest.fixture(scope="module", params=["sim", "tun"])
def wire(request: pytest.FixtureRequest) -> str:
    from fourtuple.shell.wires import WireUnavailable

    name: str = request.param
    try:
        open_wire(name, Setup()).close()
    except WireUnavailable as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"no {name} here: {error.strerror}")
    return name


def test_a_run_is_read_by_tshark_as_we_saw_it(wire: str, tmp_path: Path) -> None:
    attempt, path = capture_run(wire, tmp_path)
    rows = check(path)
    packets = read_pcapng(path.read_bytes()).packets
    seen = [(packet.outgoing, packet.data) for packet in attempt.packets]
    assert [(packet.outgoing, packet.data) for packet in packets][: len(seen)] == seen
    assert all(row["tcp.checksum.status"] == [GOOD] for row in rows)
    comments = [packet.comment for packet in packets]
    assert comments[:4] == [
        "tcp_connect > tcp_transmit_skb: SYN, #1",
        "tcp_v4_rcv > tcp_rcv_synsent_state_process: SYN-ACK, ack = isn+1",
        "tcp_send_ack > tcp_transmit_skb: ACK",
        f"tcp_write_xmit > tcp_transmit_skb: PSH-ACK, {len(attempt.request.payload)} bytes",
    ]
    assert "tcp_send_fin > tcp_transmit_skb: FIN-ACK" in comments
    assert all(" > " in comment for comment in comments)


def test_time_is_the_engines_on_a_simulated_wire(tmp_path: Path) -> None:
    attempt, path = capture_run("sim", tmp_path)
    packets = read_pcapng(path.read_bytes()).packets
    assert packets[0].time_ns == START_US * 1000
    seen = [packet.time_us * 1000 for packet in attempt.packets]
    assert [packet.time_ns for packet in packets][: len(seen)] == seen


def test_time_is_the_date_on_a_real_wire(tmp_path: Path, wire: str) -> None:
    if wire == "sim":
        return
    before = time.time_ns()
    _, path = capture_run(wire, tmp_path)
    times = [packet.time_ns for packet in read_pcapng(path.read_bytes()).packets]
    assert times == sorted(times)
    slack = 10**9  # the clocks are set apart by whoever keeps the time right
    assert before - slack <= times[0] and times[-1] <= time.time_ns() + slack


def test_lost_packets_are_there_and_say_so(tmp_path: Path) -> None:
    _, path = capture_run("sim", tmp_path, "syn:1,rx-synack:1")
    rows = check(path)
    told = [
        ("> " if row["frame.packet_flags_direction"][0].endswith("2") else "< ") + row["frame.comment"][0]
        for row in rows
    ]
    assert told[:5] == [
        "> tcp_connect > tcp_transmit_skb: SYN, #1 · lost (syn:1)",
        "> tcp_retransmit_timer > tcp_retransmit_skb > tcp_transmit_skb: SYN, #2",
        "< SYN-ACK · lost (rx-synack:1)",
        "> tcp_retransmit_timer > tcp_retransmit_skb > tcp_transmit_skb: SYN, #3",
        "< tcp_v4_rcv > tcp_rcv_synsent_state_process: SYN-ACK, ack = isn+1",
    ]


def test_a_refusal_is_told(wire: str, tmp_path: Path) -> None:
    _, path = capture_run(wire, tmp_path, port=8081)
    assert [row["frame.comment"] for row in check(path)] == [
        ["tcp_connect > tcp_transmit_skb: SYN, #1"],
        ["tcp_v4_rcv > tcp_rcv_synsent_state_process: RST-ACK, ack = isn+1, ECONNREFUSED"],
    ]


def test_several_simulated_wires_in_one_file_follow_each_other(tmp_path: Path) -> None:
    path = tmp_path / "three.pcapng"
    with path.open("wb") as file:
        writer = PcapngWriter(file)
        for i in range(3):
            with open_wire("sim", Setup(servers=(SERVER,), capture=Capture(writer, f"wire {i}"))) as wire:
                run_attempt(wire, Request(*SERVER))
    packets = read_pcapng(path.read_bytes()).packets
    times = [packet.time_ns for packet in packets]
    assert times == sorted(times)
    first = [next(p.time_ns for p in packets if p.interface == i) for i in range(3)]
    assert first == [START_US * 1000 + i * 10**9 for i in range(3)]
    check(path)


# ------------------------------------------------------------------------------------------------ both ends


class BothEnds:
    """Two Hosts back to back on a clock that jumps, each end captured; ours loses packets both ways."""

    def __init__(self, loss: str, seed: int) -> None:
        chance = random.Random(seed).random
        self.clock = ManualClock(START_US)
        self.files = [io.BytesIO(), io.BytesIO()]
        self.devices: list[PcapDevice] = []
        stations = []
        for i, end in enumerate(memory_pair(names=("ft0", "ft1"))):
            inner: Device = end
            if i == 0:
                inner = FaultDevice(
                    DelayDevice(end, 10_000, self.clock.now_us), parse_loss(loss), chance, self._on_drop
                )
            host = Host(seed=seed + i, now_us=START_US, max_sockets=16)
            host.add_link(end.name, addrs=(f"10.2.0.{i + 1}/24",))
            attach(Tracer(capacity=1 << 12), host.net)
            captions = TraceCaptions(lambda net=host.net: net.tracer)  # type: ignore[misc]
            writer = PcapngWriter(self.files[i])
            self.devices.append(PcapDevice(inner, writer, lambda: self.clock.now_us() * 1000, captions))
            stations.append(Station(host, self.devices[-1]))
        self.runner = SimRunner(stations, self.clock)

    def _on_drop(self, packet: bytes, rule: LossRule) -> None:
        self.devices[0].on_drop(packet, rule)

    def transfer(self, data: bytes) -> list[list[Packet]]:
        """Sent by the first end, answered by one byte; what each end captured."""
        server = HttpPeer(self.runner.stations[1].host, "10.2.0.2", 80)
        self.runner.apps.append(server)
        fd = self.runner.socket()
        assert self.runner.connect(fd, ("10.2.0.2", 80)) == 0
        assert self.runner.send(fd, data) == len(data)
        assert self.runner.recv(fd)
        self.runner.close(fd)
        for device in self.devices:
            device.close()
        return [read_pcapng(file.getvalue()).packets for file in self.files]


@pytest.mark.parametrize("seed", range(4))
def test_in_a_transfer_with_losses_every_packet_is_told_truly(seed: int) -> None:
    ours, theirs = BothEnds("data:5%,synack:1", seed).transfer(b"x" * 150_000 + b"\r\n\r\n")
    assert sum("lost" in packet.comment for packet in ours) > 2
    ours_kept = [packet.data for packet in ours if packet.outgoing and "lost" not in packet.comment]
    arrived = [packet.data for packet in theirs if not packet.outgoing]
    assert arrived == ours_kept[: len(arrived)] and len(arrived) > 100
    for packets in (ours, theirs):
        check_transfer(packets)


def check_transfer(packets: list[Packet]) -> None:
    """Of one end: sent again or not, by the sequence numbers alone."""
    highest = 0
    for packet in packets:
        view = parse_packet(packet.data)
        assert isinstance(view, TcpPacket)
        if packet.outgoing and view.payload:
            end = view.seq + len(view.payload)
            assert (", again" in packet.comment) == (end <= highest), packet.comment
            sender = "tcp_retransmit_skb" if end <= highest else "tcp_write_xmit"
            assert f"{sender} > tcp_transmit_skb" in packet.comment
            highest = max(end, highest)
        elif packet.outgoing and view.flags == 0x10:
            assert packet.comment.startswith("tcp_send_ack > tcp_transmit_skb: ACK"), packet.comment
        elif not packet.outgoing and "lost" not in packet.comment:
            assert packet.comment.startswith("tcp_v4_rcv > tcp_"), packet.comment
