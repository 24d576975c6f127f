"""The packet socket on a veth pair, on the live kernel: whole packets and checksums, nothing of our own."""

from __future__ import annotations

import errno
import os
import select
import socket
from collections.abc import Iterator

import pytest

from fourtuple.phy import link
from fourtuple.phy.packet import PacketDevice
from fourtuple.shell._netns_helper import open_veth_end
from fourtuple.shell.netns import PrivateNamespace, Server
from fourtuple.shell.wires import Setup, open_veth
from tests.kernel.netns import in_namespace
from tests.phy.packets import ACK, RST, SYN, Segment, checksum, ipv4, receive, send, tcp

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root (unprivileged: tests/cli/test_nobody.py)")
WAIT_SECONDS = 10


@pytest.fixture
def ns() -> Iterator[PrivateNamespace]:
    with PrivateNamespace.start(kind="veth", servers=[Server("10.64.0.1", 80)]) as namespace:
        yield namespace


def arrivals(device: PacketDevice, count: int) -> list[bytes]:
    """That many packets, and what came with them."""
    found: list[bytes] = []
    while len(found) < count:
        assert select.select([device], [], [], WAIT_SECONDS)[0], "nothing arrives"
        found += receive(device)
    return found


def has_whole_checksums(data: bytes) -> bool:
    """RFC 1071: the sum over a range with its checksum in it is 0."""
    start = (data[0] & 15) * 4
    pseudo = data[12:20] + b"\0" + data[9:10] + (len(data) - start).to_bytes(2, "big")
    return checksum(data[:start]) == 0 and checksum(pseudo + data[start:]) == 0


def test_a_ping_is_answered_once_and_our_own_packet_is_not_read_back(ns: PrivateNamespace) -> None:
    ping = ipv4("10.64.0.2", "10.64.0.1", 1, b"\x08\x00\xf7\xff\x00\x00\x00\x00")
    assert send(ns.device, ping, ping) == 2
    replies = arrivals(ns.device, 2)
    assert [(reply[9], reply[20], len(reply)) for reply in replies] == [(1, 0, 28), (1, 0, 28)]
    assert receive(ns.device) == []


def test_a_syn_ack_comes_with_its_checksums_done(ns: PrivateNamespace) -> None:
    send(ns.device, tcp(SYN))
    [synack] = arrivals(ns.device, 1)
    assert Segment(synack).dport == 40000
    assert has_whole_checksums(synack)


def test_a_segment_with_a_wrong_checksum_is_dropped_by_the_kernel(ns: PrivateNamespace) -> None:
    """What we send is checked there, as on a TUN."""
    good = tcp(SYN)
    bad = good[:36] + bytes([good[36] ^ 1]) + good[37:]
    send(ns.device, bad, tcp(SYN, ("10.64.0.2", 40001)))
    assert [Segment(data).dport for data in arrivals(ns.device, 1)] == [40001]


def test_a_long_answer_arrives_in_packets_of_the_mtu_with_whole_checksums() -> None:
    """With segmentation or checksums left to the device, larger or unfinished ones would be read."""
    with open_veth(Setup()) as wire:
        runner = wire.runner
        fd = runner.socket()
        assert runner.connect(fd, ("10.64.0.1", 8080)) == 0
        runner.send(fd, b"GET /bytes/300000 HTTP/1.0\r\n\r\n")
        size = 0
        while (data := runner.recv(fd, 65536)) and isinstance(data, bytes):
            size += len(data)
        assert size > 300_000
        incoming = [seen.data for seen in wire.tap.packets if not seen.outgoing]
        assert max(map(len, incoming)) == 1500
        assert all(map(has_whole_checksums, incoming))


def test_the_kernel_at_our_end_counts_and_answers_nothing() -> None:
    """It drops each frame as one for somebody else, before IP counts it; so it would even as a router (1)."""
    assert in_namespace(talk_across_a_pair) == ["1", RST | ACK, 0, 0]


def talk_across_a_pair() -> list[object]:
    """A pair as the helper builds it; then what the kernel at our end has seen."""
    import ctypes

    ours = os.open("/proc/self/ns/net", os.O_RDONLY)
    with open("/proc/sys/net/ipv4/ip_forward", "w") as forward:  # the worst case: a router
        forward.write("1")
    fd = open_veth_end("ft0", 1500, False, lambda step: None)
    link.set_up("lo")
    link.set_up("ft0", arp=False)
    link.add_address("ft0", "10.64.0.1/24")
    device = PacketDevice(fd, "ft0", 1500)
    send(device, tcp(SYN))
    [reset] = arrivals(device, 1)
    assert ctypes.CDLL(None).setns(ours, 0x40000000) == 0
    with open("/proc/net/snmp") as lines:
        names, values = [line.split() for line in lines if line.startswith("Ip:")]
    counted = dict(zip(names, values, strict=True))
    return [counted["Forwarding"], Segment(reset).flags, int(counted["InReceives"]), int(counted["OutRequests"])]


def test_a_packet_larger_than_the_mtu_is_refused_with_its_reason(ns: PrivateNamespace) -> None:
    with pytest.raises(OSError, match=r"ft0: message too long \(write: the packet is larger than the mtu\)") as caught:
        send(ns.device, ipv4("10.64.0.2", "10.64.0.1", 1, bytes(1500)))
    assert caught.value.errno == errno.EMSGSIZE


def test_a_closed_device_says_so(ns: PrivateNamespace) -> None:
    ns.device.close()
    ns.device.close()
    assert ns.device.fileno() == -1
    with pytest.raises(OSError, match=r"ft0: bad file descriptor \(read: the device is closed\)"):
        receive(ns.device)


def test_a_virtio_header_goes_with_a_tun_only() -> None:
    with pytest.raises(ValueError, match="vnet_hdr goes with tun only"):
        PrivateNamespace.start(kind="veth", vnet_hdr=True)
    with pytest.raises(ValueError, match="no device kind 'tap'"):
        PrivateNamespace.start(kind="tap")


def test_packets_pass_from_the_first_moment_on(ns: PrivateNamespace) -> None:
    """In front of a veth whose other end comes up later there is a queue that loses packets until a worker has run."""
    with socket.socket(fileno=os.dup(ns.device.fileno())) as handle:
        assert handle.getsockopt(263, 20) == 1  # SOL_PACKET, PACKET_QDISC_BYPASS


def test_bursts_beyond_the_default_buffer_are_kept(ns: PrivateNamespace) -> None:
    with socket.socket(fileno=os.dup(ns.device.fileno())) as handle:
        assert handle.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == 2 * (8 << 20)
    ping = ipv4("10.64.0.2", "10.64.0.1", 1, b"\x08\x00\xf7\xff\x00\x00\x00\x00")
    for _ in range(20):
        assert send(ns.device, *[ping] * 50) == 50
    assert len(arrivals(ns.device, 1000)) == 1000
