"""The private namespace on the live kernel: built by hand-made packets' own judgement, and gone however we end."""

from __future__ import annotations

import errno
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import fourtuple.shell.netns as netns
from fourtuple.phy import tun
from fourtuple.shell.netns import PrivateNamespace, Server
from tests.phy.packets import ACK, FIN, PSH, RST, SYN, Segment, receive, send, tcp

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not os.path.exists(tun.PATH), reason="needs root and /dev/net/tun (unprivileged: see --wire)"
)
SRC = str(Path(netns.__file__).parents[2])
OURS = "10.64.0.2"
WAIT_SECONDS = 10


KINDS = ["tun", "veth"]
kinds = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(scope="module", params=KINDS)
def ns(request: pytest.FixtureRequest) -> Iterator[PrivateNamespace]:
    """All that is in a namespace works whichever the device."""
    servers = [
        Server("10.64.0.1", 80),
        Server("93.184.216.34", 80),
        Server("10.64.0.1", 7, "echo"),
        Server("10.64.0.1", 9, "discard"),
        Server("10.64.0.1", 10, "sink"),
        Server("10.64.0.1", 11, "closed"),
        Server("198.51.100.7", 443),
    ]
    with PrivateNamespace.start(extra_addresses=["93.184.216.34/32"], servers=servers, kind=request.param) as namespace:
        yield namespace


class Client:
    """A TCP client that does just enough by hand: one connection, in-order data, an ACK for each segment."""

    ports = iter(range(40000, 50000))

    def __init__(self, namespace: PrivateNamespace, ip: str, port: int) -> None:
        self.device = namespace.device
        self.source, self.target = (OURS, next(self.ports)), (ip, port)
        self.seq, self.ack = 1000, 0
        self.inbox: list[Segment] = []

    def send(self, flags: int, payload: bytes = b"") -> None:
        packet = tcp(flags, self.source, self.target, self.seq, self.ack, payload)
        assert send(self.device, packet) == 1
        self.seq += len(payload) + bool(flags & (SYN | FIN))

    def expect(self) -> Segment:
        """The next segment of this connection; those of others are skipped."""
        while not self.inbox:
            assert select.select([self.device], [], [], WAIT_SECONDS)[0], "the kernel sent nothing"
            segments = [Segment(packet) for packet in receive(self.device) if packet[9] == 6]
            self.inbox += [s for s in segments if (s.dst, s.dport) == self.source]
        return self.inbox.pop(0)

    def connect(self) -> Segment:
        self.send(SYN)
        synack = self.expect()
        assert synack.flags == SYN | ACK
        self.ack = synack.seq + 1
        self.send(ACK)
        return synack

    def read_until_fin(self) -> bytes:
        data = b""
        while True:
            data += self.read(1)
            if self.finished:
                return data

    def read(self, size: int) -> bytes:
        """At least `size` bytes, or what came before FIN; everything is acknowledged."""
        data = b""
        self.finished = False
        while len(data) < size and not self.finished:
            segment = self.expect()
            assert not segment.flags & RST
            if segment.seq == self.ack:
                data += segment.payload
                self.finished = bool(segment.flags & FIN)
                self.ack += len(segment.payload) + self.finished
                self.send(ACK)
        return data


def http(namespace: PrivateNamespace, request: bytes, ip: str = "10.64.0.1") -> bytes:
    """The whole answer to a request after which the server closes."""
    client = Client(namespace, ip, 80)
    client.connect()
    client.send(ACK | PSH, request)
    answer = client.read_until_fin()
    client.send(ACK | FIN)
    return answer


def test_the_kernel_answers_a_syn_with_a_synack(ns: PrivateNamespace) -> None:
    client = Client(ns, "10.64.0.1", 80)
    synack = client.connect()
    assert (synack.src, synack.sport, synack.ack) == ("10.64.0.1", 80, 1001)
    assert ns.way == "root"


def test_a_port_without_a_server_answers_with_rst(ns: PrivateNamespace) -> None:
    client = Client(ns, "10.64.0.1", 11)
    client.send(SYN)
    assert client.expect().flags == RST | ACK


@pytest.mark.parametrize("ip", ["10.64.0.1", "93.184.216.34", "198.51.100.7"])
def test_every_address_asked_for_is_local_and_answers(ns: PrivateNamespace, ip: str) -> None:
    client = Client(ns, ip, 443 if ip == "198.51.100.7" else 80)
    assert client.connect().src == ip


def test_replies_to_any_source_come_back_through_the_tun(ns: PrivateNamespace) -> None:
    client = Client(ns, "10.64.0.1", 80)
    client.source = ("203.0.113.9", 5555)
    assert client.connect().dst == "203.0.113.9"


def test_http_answers_200_with_its_name_and_closes_when_asked(ns: PrivateNamespace) -> None:
    answer = http(ns, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "93.184.216.34")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Connection: close" in head
    assert f"Content-Length: {len(body)}".encode() in head
    assert body.startswith(
        b"hello from 93.184.216.34:80, a Linux kernel socket in a private namespace\nyou are 10.64.0.2:"
    )


def test_http_keeps_alive_and_takes_pipelined_and_split_requests(ns: PrivateNamespace) -> None:
    client = Client(ns, "10.64.0.1", 80)
    client.connect()
    client.send(ACK | PSH, b"GET /bytes/3 HTTP/1.1\r\n\r\nPOST /bytes/0 HTTP/1.1\r\nContent-Length: 4\r\n\r\nbo")
    answer = client.read(1)
    assert (answer[:15], answer[-3:]) == (b"HTTP/1.1 200 OK", bytes(3))
    client.send(ACK | PSH, b"dyHEAD /bytes/9 HTTP/1.1\r\nConnection: close\r\n\r\n")
    answer = client.read_until_fin()
    assert answer.count(b"HTTP/1.1 200 OK") == 2
    assert answer.endswith(b"Content-Length: 9\r\nConnection: close\r\n\r\n")


def test_http_10_closes_by_itself(ns: PrivateNamespace) -> None:
    assert b"Connection: close" in http(ns, b"GET / HTTP/1.0\r\n\r\n")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nContent-Length: -5\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n", b"400"),
        (b"GET /bytes/" + b"9" * 600 + b" HTTP/1.1\r\nConnection: close\r\n\r\n", b"404"),
    ],
)
def test_a_bad_request_gets_its_answer_and_the_server_lives_on(
    ns: PrivateNamespace, request_: bytes, status: bytes
) -> None:
    assert http(ns, request_).split(b" ")[1] == status
    assert http(ns, b"GET / HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 200")


def test_a_client_that_resets_harms_nobody(ns: PrivateNamespace) -> None:
    client = Client(ns, "10.64.0.1", 80)
    client.connect()
    client.send(ACK | PSH, b"GET /bytes/1000000 HTTP/1.1\r\n\r\n")
    client.expect()
    client.send(RST | ACK)
    assert http(ns, b"GET / HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 200")


def test_a_long_answer_arrives_whole(ns: PrivateNamespace) -> None:
    answer = http(ns, b"GET /bytes/300000 HTTP/1.0\r\n\r\n")
    assert len(answer.partition(b"\r\n\r\n")[2]) == 300_000


def test_echo_sends_back_and_closes_after_the_client(ns: PrivateNamespace) -> None:
    client = Client(ns, "10.64.0.1", 7)
    client.connect()
    client.send(ACK | PSH, b"ping")
    assert client.read(4) == b"ping"
    client.send(ACK | FIN)
    assert client.read_until_fin() == b""


def test_discard_takes_data_and_says_nothing(ns: PrivateNamespace) -> None:
    client = Client(ns, "10.64.0.1", 9)
    client.connect()
    client.send(ACK | PSH, b"data")
    assert client.expect().ack == client.seq
    client.send(ACK | FIN)
    assert client.read_until_fin() == b""


def test_sink_holds_a_connection_that_stats_can_see(ns: PrivateNamespace) -> None:
    clients = [Client(ns, "10.64.0.1", 10) for _ in range(3)]
    for client in clients:
        client.connect()
    clients[0].send(ACK | PSH, b"unread")
    assert clients[0].expect().payload == b""
    assert ns.request("stats", port=10) == {
        "established": 3,
        "states": {"ESTABLISHED": 3},
        "accepted": 3,
        "requests": 0,
    }
    clients[1].send(RST | ACK)
    assert ns.request("stats", port=10)["established"] == 2


def test_a_server_can_be_added_later_at_a_new_address_and_a_free_port(ns: PrivateNamespace) -> None:
    server = ns.request("add_server", ip="10.64.0.9", port=0, kind="echo")
    assert server["port"] > 0
    assert Client(ns, "10.64.0.9", server["port"]).connect().src == "10.64.0.9"


def test_an_address_can_be_added_twice(ns: PrivateNamespace) -> None:
    assert ns.request("add_address", address="192.0.2.1/32") == {"added": True}
    assert ns.request("add_address", address="192.0.2.1/32") == {"added": False}


def test_a_sysctl_is_set_inside_and_not_outside(ns: PrivateNamespace) -> None:
    outside = Path("/proc/sys/net/ipv4/tcp_syn_retries").read_text().strip()
    assert ns.request("sysctl", name="net.ipv4.tcp_syn_retries", value=int(outside) - 1)["value"] == str(
        int(outside) - 1
    )
    assert Path("/proc/sys/net/ipv4/tcp_syn_retries").read_text().strip() == outside


@pytest.mark.parametrize("name", ["vm.swappiness", "net.ipv4", "net...kernel.x", "net/../vm.x", "kernel.hostname"])
def test_a_sysctl_of_the_whole_machine_is_out_of_reach(ns: PrivateNamespace, name: str) -> None:
    with pytest.raises(ValueError, match="not a sysctl of a network namespace"):
        ns.request("sysctl", name=name, value=1)


def test_ipv6_is_off_unless_asked_for(ns: PrivateNamespace) -> None:
    assert ns.request("sysctl", name="net.ipv6.conf.ft0.disable_ipv6") == {"value": "1"}


def test_an_error_inside_comes_back_with_its_errno(ns: PrivateNamespace) -> None:
    with pytest.raises(OSError, match="in use") as caught:
        ns.request("add_server", ip="10.64.0.1", port=80)
    assert caught.value.errno == errno.EADDRINUSE
    with pytest.raises(FileNotFoundError, match="no_such"):
        ns.request("sysctl", name="net.ipv4.no_such")


@pytest.mark.parametrize(
    ("command", "arguments"),
    [("dance", {}), ("stats", {}), ("add_server", {"ip": "10.64.0.1", "port": 1, "kind": "x"})],
)
def test_a_command_that_makes_no_sense_is_refused(
    ns: PrivateNamespace, command: str, arguments: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=command):
        ns.request(command, **arguments)


def test_fill_takes_every_port_of_a_range_even_ones_first(ns: PrivateNamespace) -> None:
    """Above the range of ports that other tests' servers were given by the kernel."""
    result = ns.request("fill", low=61000, high=61255)
    assert len(result["ns"]) == len(result["ports"]) == 256
    assert all(isinstance(duration, int) and duration > 0 for duration in result["ns"])
    assert (result["errno"], result["last_ns"] > 0) == (errno.EADDRNOTAVAIL, True)
    assert sorted(result["ports"]) == list(range(61000, 61256))
    assert {port % 2 for port in result["ports"][:128]} == {0}
    assert {port % 2 for port in result["ports"][128:]} == {1}


def test_fill_leaves_nothing_behind_and_stops_at_its_count(ns: PrivateNamespace) -> None:
    before = ns.request("sysctl", name="net.ipv4.ip_local_port_range")
    for _ in range(2):
        result = ns.request("fill", address="10.65.0.77", port=443, low=40000, high=40099, count=10)
        assert (len(result["ports"]), result["errno"]) == (10, 0)
    assert ns.request("sysctl", name="net.ipv4.ip_local_port_range") == before


def test_fill_with_the_range_on_the_socket_searches_without_parity(ns: PrivateNamespace) -> None:
    result = ns.request("fill", low=61000, high=61255, per_socket_range=True)
    assert result["errno"] == errno.EADDRNOTAVAIL
    assert sorted(result["ports"]) == list(range(61000, 61256))
    assert {port % 2 for port in result["ports"][:128]} == {0, 1}


@kinds
def test_the_network_of_this_machine_is_as_it_was(kind: str) -> None:
    before = os.listdir("/sys/class/net"), Path("/proc/net/route").read_text()
    with PrivateNamespace.start(servers=[Server("10.64.0.1", 80)], kind=kind) as namespace:
        assert namespace.request("fill", high=32799)["errno"] == errno.EADDRNOTAVAIL
        assert os.listdir("/sys/class/net") == before[0]
        inside = os.readlink(f"/proc/{namespace.pid}/ns/net")
    assert (os.listdir("/sys/class/net"), Path("/proc/net/route").read_text()) == before
    assert not processes_in(inside)


def test_an_untakeable_setting_is_an_error_and_leaves_no_process() -> None:
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    before = children.read_text()
    with pytest.raises(OSError, match="in use") as caught:
        PrivateNamespace.start(servers=[Server("10.64.0.1", 80), Server("10.64.0.1", 80)])
    assert caught.value.errno == errno.EADDRINUSE
    with pytest.raises(ValueError, match="not an address"):
        PrivateNamespace.start(extra_addresses=["nowhere"])
    assert children.read_text() == before


def test_close_can_be_called_again_and_stop_ends_the_helper() -> None:
    namespace = PrivateNamespace.start()
    assert namespace.request("stop") == {}
    with pytest.raises(BrokenPipeError):
        namespace.request("sysctl", name="net.ipv4.tcp_syn_retries")
    namespace.close()
    namespace.close()


def test_received_descriptors_are_not_inherited(ns: PrivateNamespace) -> None:
    assert not os.get_inheritable(ns.device.fileno())


def test_many_connections_are_accepted_at_once(ns: PrivateNamespace) -> None:
    ns.request("add_server", ip="10.64.0.1", port=99, kind="sink")
    clients = [Client(ns, "10.64.0.1", 99) for _ in range(500)]
    for client in clients:
        client.connect()
    assert ns.request("stats", port=99)["established"] == 500


def test_it_works_with_a_virtio_header_too() -> None:
    with PrivateNamespace.start(servers=[Server("10.64.0.1", 80)], vnet_hdr=True) as namespace:
        assert http(namespace, b"GET / HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 200")


def processes_in(namespace: str) -> list[str]:
    """The processes whose network namespace this is."""
    found = []
    for pid in os.listdir("/proc"):
        try:
            if pid.isdigit() and os.readlink(f"/proc/{pid}/ns/net") == namespace:
                found.append(pid)
        except OSError:
            continue
    return found


PARENT = """
import os, sys, time
from fourtuple.shell.netns import PrivateNamespace, Server
namespace = PrivateNamespace.start(servers=[Server("10.64.0.1", 80)], kind=sys.argv[1])
if "fork" in sys.argv and os.fork() == 0:
    time.sleep(60)
    os._exit(0)
print(namespace.pid, os.readlink(f"/proc/{namespace.pid}/ns/net"), flush=True)
if "fill" in sys.argv:
    namespace.request("fill", low=1024, high=20000)
time.sleep(60)
"""


def start_parent(*arguments: str) -> tuple[subprocess.Popen[str], int, str]:
    """A process with a namespace of its own: the process, the helper's pid, the namespace."""
    environment = {**os.environ, "PYTHONPATH": SRC}
    command = [sys.executable, "-c", PARENT, *arguments]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    pid, namespace = process.stdout.readline().split()
    return process, int(pid), namespace


def ends(pidfd: int) -> bool:
    return bool(select.select([pidfd], [], [], WAIT_SECONDS)[0])


@kinds
@pytest.mark.parametrize("while_", ["idle", "fork", "fill"])
def test_kill_9_of_the_parent_takes_helper_and_namespace_with_it(while_: str, kind: str) -> None:
    devices, names = os.listdir("/sys/class/net"), os.path.exists("/run/netns") and os.listdir("/run/netns")
    process, helper, namespace = start_parent(kind, while_)
    pidfd = os.pidfd_open(helper)
    assert str(helper) in processes_in(namespace)
    process.kill()
    process.wait()
    assert ends(pidfd)
    os.close(pidfd)
    if while_ == "fork":
        os.killpg(process.pid, signal.SIGKILL)  # the forked child, which this test's script made
    if process.stdout:
        process.stdout.close()
    assert not processes_in(namespace)
    assert os.listdir("/sys/class/net") == devices
    assert (os.path.exists("/run/netns") and os.listdir("/run/netns")) == names


@kinds
def test_kill_9_of_the_helper_is_an_error_here_and_close_still_works(kind: str) -> None:
    namespace = PrivateNamespace.start(servers=[Server("10.64.0.1", 80)], kind=kind)
    inside = os.readlink(f"/proc/{namespace.pid}/ns/net")
    os.kill(namespace.pid, signal.SIGKILL)
    with pytest.raises(BrokenPipeError, match="helper of the private namespace is gone"):
        namespace.request("stats", port=80)
    namespace.close()
    assert not processes_in(inside)


def test_a_veth_whose_namespace_has_gone_says_so_each_time() -> None:
    """The kernel tells one reader once.  (A TUN's descriptor keeps its namespace.)"""
    with PrivateNamespace.start(kind="veth") as namespace:
        os.kill(namespace.pid, signal.SIGKILL)
        assert select.select([namespace.device], [], [], WAIT_SECONDS)[0]
        for _ in range(2):
            with pytest.raises(OSError, match=r"ft0: network is down \(read: .* its namespace has ended\)"):
                receive(namespace.device)
        with pytest.raises(OSError, match=r"ft0: .* \(write: the interface "):
            send(namespace.device, tcp(SYN))


USER_WAY = """
import ctypes
from fourtuple.shell.netns import PrivateNamespace, Server
assert ctypes.CDLL(None).prctl(24, 21) == 0  # PR_CAPBSET_DROP, CAP_SYS_ADMIN: the helper will not have it
with PrivateNamespace.start(servers=[Server("10.64.0.1", 80)]) as namespace:
    print(namespace.way, namespace.request("fill", high=32799)["errno"])
"""


def test_without_cap_sys_admin_a_user_namespace_is_the_way_in() -> None:
    if Path("/proc/sys/user/max_user_namespaces").read_text().strip() == "0":
        pytest.skip("user namespaces are off")
    environment = {**os.environ, "PYTHONPATH": SRC}
    result = subprocess.run([sys.executable, "-c", USER_WAY], env=environment, capture_output=True, text=True)
    assert (result.stdout, result.stderr) == (f"user {errno.EADDRNOTAVAIL}\n", "")
