"""Servers that hold, many devices and many client addresses in the private namespace, with our engine as the client."""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
from array import array
from collections.abc import Iterator

import pytest

from fourtuple.address import parse_ipv4
from fourtuple.inet.flags import LINGER
from fourtuple.phy import link, tun
from fourtuple.shell.netns import PrivateNamespace, Server
from fourtuple.shell.private_wire import open_tun, open_veth
from fourtuple.shell.sim_wire import open_sim
from fourtuple.shell.wire import PEER_ADDRESS, Setup, Wire
from fourtuple.sock.af_inet import pack_sockaddr_in
from fourtuple.tcp.states import TCP_CLOSE_WAIT, TCP_ESTABLISHED
from tests.phy.packets import ACK, PSH, RST, SYN, Segment, receive, send, tcp

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not os.path.exists(tun.PATH), reason="needs root and /dev/net/tun (unprivileged: see --wire)"
)
WAIT_US = 10_000_000
PORT = 8080


@pytest.fixture(params=[open_tun, open_veth])
def wire(request: pytest.FixtureRequest) -> Iterator[Wire]:
    """Eight addresses at one port, each with a queue of 5,000."""
    with request.param(Setup((Server("10.64.1.0/29", PORT, "hold", 5000),))) as opened:
        yield opened


def connect(wire: Wire, count: int, address: str) -> array[int]:
    """Rows of `count` connections that were established."""
    rows = array("I")
    while len(rows) < count:
        rows += connect_some(wire, min(250, count - len(rows)), address)  # the TUN's queue has room for 1,000 packets
    return rows


def connect_some(wire: Wire, count: int, address: str) -> array[int]:
    rows = array("I", bytes(4 * count))
    now = wire.runner.now_us()
    assert wire.host.connect_many(parse_ipv4(address), PORT, count, rows, now) == count
    state = wire.host.net.sks.sk_state

    def all_up() -> bool:
        return all(state[row] in (TCP_ESTABLISHED, TCP_CLOSE_WAIT) for row in rows)

    assert wire.runner.run_until(all_up, now + WAIT_US)
    return rows


def counts(wire: Wire) -> dict[str, int]:
    assert wire.namespace is not None
    return wire.namespace.request("counts")


def ask(wire: Wire, command: str, **arguments: int) -> dict[str, object]:
    assert wire.namespace is not None
    return wire.namespace.request(command, port=PORT, **arguments)


def let_pass(wire: Wire, done: str, value: int = 0) -> None:
    """Until the count of that name is `value`."""
    for _ in range(1000):
        wire.runner.run_until(lambda: counts(wire)[done] == value, wire.runner.now_us() + WAIT_US // 1000)
        if counts(wire)[done] == value:
            return
    raise AssertionError(f"{done} is {counts(wire)[done]}, not {value}")


def test_connections_wait_in_the_accept_queue_of_each_address(wire: Wire) -> None:
    for i in range(8):
        connect(wire, 100, f"10.64.1.{i}")
    let_pass(wire, "queued", 800)
    found = counts(wire)
    assert (found["established"], found["established_inuse"], found["inuse"]) == (800, 800, 808)
    assert (found["time_wait"], ask(wire, "stats")["accepted"]) == (0, 0)


def test_the_limits_of_the_namespace_are_lifted_for_a_backlog(wire: Wire) -> None:
    assert wire.namespace is not None
    for name in ("net.core.somaxconn", "net.ipv4.tcp_max_syn_backlog"):
        assert int(wire.namespace.request("sysctl", name=name)["value"]) >= 5000
    connect(wire, 4500, "10.64.1.1")  # more than the 4,096 that there would be else
    let_pass(wire, "queued", 4500)


def test_drain_accepts_and_closes_what_waits_and_what_comes_until_it_is_told_0(wire: Wire) -> None:
    rows = connect(wire, 600, "10.64.1.1")
    assert ask(wire, "drain")["accepted"] == 0
    let_pass(wire, "queued")
    rows += connect(wire, 100, "10.64.1.2")
    let_pass(wire, "queued")
    assert ask(wire, "drain", per_round=0) == {"accepted": 700, "echoed": 0, "open": 0, "queued": 0}
    connect(wire, 10, "10.64.1.3")
    let_pass(wire, "queued", 10)
    for row in rows:
        wire.host.close_row(row, wire.runner.now_us())
    let_pass(wire, "established_inuse", 10)
    assert counts(wire)["time_wait"] == 700  # who closes first has them


def test_a_drain_after_our_close_leaves_nothing_on_the_other_side(wire: Wire) -> None:
    ask(wire, "drain", per_round=0)
    rows = connect(wire, 400, "10.64.1.1")
    for row in rows:
        wire.host.close_row(row, wire.runner.now_us())
    wire.runner.pump()
    ask(wire, "drain", per_round=256, in_flight=100)
    let_pass(wire, "inuse", 8)
    assert counts(wire)["time_wait"] == 0
    assert wire.namespace is not None
    assert "Tcp.RetransSegs" not in wire.namespace.request("counters")


def test_a_drain_stops_at_its_count(wire: Wire) -> None:
    for i in range(4):
        connect(wire, 100, f"10.64.1.{i}")
    ask(wire, "drain", count=250)
    let_pass(wire, "queued", 150)
    wire.runner.run_until(lambda: False, wire.runner.now_us() + 20_000)
    assert ask(wire, "drain", per_round=0) == {"accepted": 250, "echoed": 0, "open": 0, "queued": 150}
    ask(wire, "drain", count=1000)
    let_pass(wire, "queued")


def test_a_sample_is_the_oldest_and_sends_back_what_it_gets(wire: Wire) -> None:
    rows = connect(wire, 20, "10.64.1.1")
    ports = {wire.host.net.sks.num[row]: row for row in rows}
    let_pass(wire, "queued", 20)
    found = ask(wire, "sample", n=8)
    assert (found["accepted"], found["echoed"], found["open"], found["queued"]) == (8, 0, 8, 12)
    peers = found["peers"]
    assert isinstance(peers, list)
    assert [(peer[0], peer[2]) for peer in peers] == [("10.64.0.2", "10.64.1.1")] * 8
    assert all(peer[1] in ports for peer in peers)


def test_a_sampled_connection_is_alive_both_ways_until_the_drain_ends_it(wire: Wire) -> None:
    fd = wire.runner.socket()
    assert wire.runner.connect(fd, ("10.64.1.4", PORT)) == 0
    let_pass(wire, "queued", 1)
    ask(wire, "sample", n=1)
    wire.runner.send(fd, b"y")
    assert wire.runner.recv(fd) == b"y"
    assert ask(wire, "sample", n=0) == {"accepted": 1, "echoed": 1, "open": 1, "queued": 0, "peers": []}
    assert ask(wire, "drain")["open"] == 0
    assert wire.runner.recv(fd) == b""


def talk(namespace: PrivateNamespace, source: tuple[str, int], payload: bytes) -> Segment:
    """A handshake by hand and a segment of data; the answer to it that has data."""
    device, target = namespace.device, (PEER_ADDRESS, PORT)
    send(device, tcp(SYN, source, target, 1000, 0))
    synack = next_segment(namespace)
    send(device, tcp(ACK | PSH, source, target, 1001, synack.seq + 1, payload))
    return synack


def next_segment(namespace: PrivateNamespace, want: int = 0) -> Segment:
    for _ in range(100):
        assert select.select([namespace.device], [], [], 10)[0], "the kernel sent nothing"
        for packet in receive(namespace.device):
            segment = Segment(packet)
            if not want or segment.flags & want:
                return segment
    raise AssertionError("no such segment")


def test_data_that_came_before_the_sample_is_sent_back_at_once_and_drain_closes_with_fin() -> None:
    with PrivateNamespace.start(servers=[Server(PEER_ADDRESS, PORT, "hold")]) as namespace:
        talk(namespace, ("10.64.0.2", 5000), b"x")
        found = namespace.request("sample", port=PORT, n=5)
        assert (found["echoed"], found["peers"]) == (1, [["10.64.0.2", 5000, PEER_ADDRESS]])
        assert next_segment(namespace, PSH).payload == b"x"


def test_unread_data_does_not_make_the_drain_a_reset() -> None:
    with PrivateNamespace.start(servers=[Server(PEER_ADDRESS, PORT, "hold")]) as namespace:
        talk(namespace, ("10.64.0.2", 5000), b"unread")
        namespace.request("drain", port=PORT)
        assert next_segment(namespace, 0x05).flags & RST == 0  # FIN or RST


def test_a_stopped_server_refuses_and_resets_and_a_started_one_goes_on(wire: Wire) -> None:
    connect(wire, 50, "10.64.1.1")
    let_pass(wire, "queued", 50)
    assert ask(wire, "stop_server") == {"stopped": 1}
    let_pass(wire, "inuse")
    fd = wire.runner.socket()
    assert wire.runner.connect(fd, ("10.64.1.2", PORT)) == -errno.ECONNREFUSED
    with pytest.raises(ValueError, match="is stopped"):
        ask(wire, "drain")
    assert ask(wire, "start_server") == {"started": 1}
    connect(wire, 50, "10.64.1.2")
    let_pass(wire, "queued", 50)


def test_stopping_a_server_ends_the_connections_that_it_serves() -> None:
    with open_tun(Setup((Server(PEER_ADDRESS, PORT, "echo"),))) as wire:
        fd = wire.runner.socket()
        assert wire.runner.connect(fd, (PEER_ADDRESS, PORT)) == 0
        wire.runner.send(fd, b"hello")
        assert wire.runner.recv(fd) == b"hello"
        ask(wire, "stop_server")
        assert wire.runner.recv(fd) == b""
        ask(wire, "start_server")
        again = wire.runner.socket()
        assert wire.runner.connect(again, (PEER_ADDRESS, PORT)) == 0


def test_only_a_server_that_holds_can_be_drained(wire: Wire) -> None:
    assert wire.namespace is not None
    wire.namespace.request("add_server", ip=PEER_ADDRESS, port=99, kind="echo")
    for command in ("drain", "sample"):
        with pytest.raises(OSError, match="port 99 has a server of kind 'echo'"):
            wire.namespace.request(command, port=99, **({"n": 1} if command == "sample" else {}))
    with pytest.raises(ValueError, match="no server has port 98"):
        wire.namespace.request("drain", port=98)


@pytest.mark.parametrize("ip", ["10.64.1.0/0", "10.64.1.0/33", "10.64.1/24", "x/24", "10.64.1.0/"])
def test_a_network_that_is_none_is_an_error(wire: Wire, ip: str) -> None:
    assert wire.namespace is not None
    with pytest.raises(ValueError, match="not an IPv4 network"):
        wire.namespace.request("add_server", ip=ip, port=1)


def test_a_large_network_shares_one_listener() -> None:
    with open_tun(Setup((Server("10.70.0.0/16", PORT, "hold"),))) as wire:
        for address in ("10.70.0.1", "10.70.255.254", "10.70.77.0"):
            connect(wire, 1, address)
        let_pass(wire, "queued", 3)
        assert counts(wire)["inuse"] == 4


def test_the_queue_that_is_full_shows_in_the_counters() -> None:
    setup = Setup((Server(PEER_ADDRESS, PORT, "hold", 4),), peer_sysctls={"net.ipv4.tcp_syncookies": "0"})
    with open_tun(setup) as wire:
        connect(wire, 5, PEER_ADDRESS)  # one more than the backlog (sock.h:sk_acceptq_is_full)
        let_pass(wire, "queued", 5)
        rows = array("I", [0])
        wire.host.connect_many(parse_ipv4(PEER_ADDRESS), PORT, 1, rows, wire.runner.now_us())
        wire.runner.run_until(lambda: False, wire.runner.now_us() + 10_000)
        assert wire.namespace is not None
        assert wire.namespace.request("counters")["TcpExt.ListenOverflows"] >= 1
        wire.host.net.sks.flags[rows[0]] |= LINGER


@pytest.mark.parametrize("open_wire", [open_tun, open_sim])
def test_our_other_sources_can_connect(open_wire: object) -> None:
    sources = ("10.99.0.0/24", "10.64.0.9", "10.64.0.2", "10.64.0.20", "10.99.0.7/24")
    setup = Setup((Server("10.64.1.0/30", PORT, "hold"),), "10.64.0.20", sources=sources)
    with open_wire(setup) as wire:  # type: ignore[operator]
        for source in ("10.99.0.1", "10.99.0.200", "10.64.0.9", "10.64.0.20", "10.64.0.2"):
            fd = wire.runner.socket()
            assert wire.host.sys_bind(fd, pack_sockaddr_in(parse_ipv4(source), 0)) == 0
            assert wire.runner.connect(fd, ("10.64.1.3", PORT)) == 0
        fd = wire.runner.socket()
        assert wire.host.sys_bind(fd, pack_sockaddr_in(parse_ipv4("10.99.1.1"), 0)) == -errno.EADDRNOTAVAIL


def test_a_source_that_the_peer_has_is_none_of_ours() -> None:
    setup = Setup(((PEER_ADDRESS, 80), Server("10.64.1.0/24", 80)), sources=("10.64.1.7", "10.64.0.0/16", "10.64.0.1"))
    with open_sim(setup) as wire:
        fd = wire.runner.socket()
        assert wire.host.sys_bind(fd, pack_sockaddr_in(parse_ipv4("10.64.1.7"), 0)) == -errno.EADDRNOTAVAIL


# linux/rtnetlink.h, linux/net_namespace.h, linux/netlink.h
RTM_NEWNSID, RTM_DELNSID, NETNSA_NSID, NETNSA_PID, RTNLGRP_NSID = 88, 89, 1, 2, 28
SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, NLM_F_REQUEST = 270, 1, 1


def test_a_namespace_goes_soon_though_nobody_acknowledges_its_last_fins() -> None:
    """By default the kernel repeats them for 2 minutes, and each keeps the namespace (tcp_orphan_retries)."""
    nsid = os.getpid()
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as watch:
        watch.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, RTNLGRP_NSID)
        watch.settimeout(20)
        with open_tun(Setup((Server(PEER_ADDRESS, PORT, "sink"),))) as wire:
            connect(wire, 10, PEER_ADDRESS)
            for _ in range(1000):
                wire.runner.pump()
                if ask(wire, "stats")["accepted"] == 10:
                    break
            assert wire.namespace is not None
            body = bytes(4) + link.attribute(NETNSA_NSID, struct.pack("i", nsid))
            body += link.attribute(NETNSA_PID, struct.pack("I", wire.namespace.pid))
            watch.send(struct.pack("IHHII", 16 + len(body), RTM_NEWNSID, NLM_F_REQUEST, 1, 0) + body)
        while True:
            message = watch.recv(65536)
            if struct.unpack_from("H", message, 4)[0] == RTM_DELNSID:
                if struct.unpack_from("i", message, 24)[0] == nsid:
                    return


def test_three_devices_have_their_own_networks_and_the_clients_behind_them() -> None:
    server = Server("192.0.2.1", PORT, "hold")
    sources = [["10.99.0.0/24"], ["10.99.1.0/24", "203.0.113.7"]]
    with PrivateNamespace.start(servers=[server], tun_count=3, sources=sources) as namespace:
        assert [device.name for device in namespace.devices] == ["ft0", "ft1", "ft2"]
        assert namespace.device is namespace.devices[0]
        assert replying(namespace, "10.64.0.2") == 0
        assert replying(namespace, "10.64.2.2") == 1
        assert replying(namespace, "10.64.4.2") == 2
        assert replying(namespace, "10.99.0.5") == 0
        assert replying(namespace, "10.99.1.5") == 1
        assert replying(namespace, "203.0.113.7") == 1
        assert replying(namespace, "198.51.100.1") == 0
        assert namespace.request("add_source", source="198.51.100.0/24", device="ft2") == {"added": True}
        assert namespace.request("add_source", source="198.51.100.0/24", device="ft2") == {"added": False}
        assert replying(namespace, "198.51.100.1", 5001) == 2


def replying(namespace: PrivateNamespace, source: str, port: int = 5000) -> int:
    """Which device the answer to a SYN from there comes out of; the SYN goes into the last one."""
    send(namespace.devices[-1], tcp(SYN, (source, port), ("192.0.2.1", PORT), 1000, 0))
    ready = select.select(namespace.devices, [], [], 10)[0]
    assert len(ready) == 1
    (packet,) = receive(ready[0])
    assert Segment(packet).flags == SYN | ACK
    return namespace.devices.index(ready[0])


@pytest.mark.parametrize(
    "arguments",
    [{"tun_count": 0}, {"tun_count": 65}, {"tun_count": 2, "kind": "veth"}, {"kernel_addresses": ("10.0.0.1/24",) * 2}],
)
def test_a_number_of_devices_that_cannot_be_is_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="devices"):
        PrivateNamespace.start(**arguments)  # type: ignore[arg-type]


def test_sysctls_are_those_of_the_namespace() -> None:
    with PrivateNamespace.start(sysctls={"net.ipv4.tcp_syncookies": "2"}) as namespace:
        assert namespace.request("sysctl", name="net.ipv4.tcp_syncookies") == {"value": "2"}


def test_the_virtio_header_never_asks_for_work_of_ours() -> None:
    """No offload was negotiated (TUNSETOFFLOAD), so checksums are complete and segments no larger than the MSS."""
    with PrivateNamespace.start(servers=[Server(PEER_ADDRESS, PORT)]) as namespace:
        fd = namespace.device.fileno()
        source, target = ("10.64.0.2", 5000), (PEER_ADDRESS, PORT)
        send(namespace.device, tcp(SYN, source, target, 1000, 0))
        synack = read_raw(fd)
        ack = Segment(synack[tun.VNET_HDR_LEN :]).seq + 1
        request = b"GET /bytes/200000 HTTP/1.0\r\n\r\n"
        send(namespace.device, tcp(ACK | PSH, source, target, 1001, ack, request))
        packets = [synack, *(read_raw(fd) for _ in range(10))]
    assert {packet[: tun.VNET_HDR_LEN] for packet in packets} == {bytes(tun.VNET_HDR_LEN)}
    assert max(map(len, packets)) <= tun.VNET_HDR_LEN + 1500
    assert [tcp_checksum(packet[tun.VNET_HDR_LEN :]) for packet in packets] == [0xFFFF] * len(packets)


def read_raw(fd: int) -> bytes:
    assert select.select([fd], [], [], 10)[0]
    return os.read(fd, 70_000)


def tcp_checksum(packet: bytes) -> int:
    """The sum over pseudo header and segment, its checksum included: 0xFFFF when that is right (RFC 1071)."""
    segment = packet[20:]
    data = packet[12:20] + bytes((0, 6)) + len(segment).to_bytes(2, "big") + segment
    total = sum(int.from_bytes(data[i : i + 2].ljust(2, b"\0"), "big") for i in range(0, len(data), 2))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total
