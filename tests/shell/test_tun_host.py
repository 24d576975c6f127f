"""The wire `tun-host`, in namespaces that play the parts: one is "the machine", behind a veth is "the real network".

The machine that runs the tests is never touched.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fourtuple.address import parse_ipv4
from fourtuple.cli.main import main
from fourtuple.phy import tun
from fourtuple.shell import nat
from fourtuple.shell.tun_host import candidates, is_routed, open_tun_host, probe_tun_host
from fourtuple.shell.wires import AUTO, KINDS, Setup, WireUnavailable
from tests.kernel.netns import CLONE_NEWNET
from tests.phy.pcapng_reader import read_pcapng

WAIT_SECONDS = 20
MACHINE, SERVER = "192.0.2.1", "192.0.2.2"
_ALLOWED = os.geteuid() == 0 and os.path.exists(tun.PATH)
needs_root = pytest.mark.skipif(not _ALLOWED and not os.environ.get("CI"), reason="needs root and /dev/net/tun")

elsewhere = pytest.mark.compiled_only  # what it runs are other processes, and those are always compiled

_HOLD = f"import ctypes, sys; ctypes.CDLL(None).unshare({CLONE_NEWNET}); print(flush=True); sys.stdin.read()"
_SERVE = """
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        body = ("you are " + self.client_address[0] + "\\n").encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args):
        pass
server = ThreadingHTTPServer((sys.argv[1], 80), Handler)
print(flush=True)
server.serve_forever()
"""
_OPEN = """
import sys, time
from fourtuple.shell.wires import Setup, open_wire
with open_wire("tun-host", Setup(nat=True)) as wire:
    print(flush=True)
    sys.stdin.read(1)
    if sys.argv[1:] == ["raise"]:
        raise RuntimeError("in the middle")
"""


class Lab:
    """Two namespaces and a server in each, on port 80; they go with this object, or with the test process."""

    def __init__(self) -> None:
        self._processes: list[subprocess.Popen[str]] = []
        self.machine, self.network = self._start("-c", _HOLD).pid, self._start("-c", _HOLD).pid
        ip = ["ip", "link", "add", "up0", "netns", str(self.machine), "type", "veth"]
        subprocess.run([*ip, "peer", "name", "down0", "netns", str(self.network)], check=True)
        for pid, device, address in ((self.machine, "up0", MACHINE), (self.network, "down0", SERVER)):
            self.run("ip", "addr", "add", f"{address}/24", "dev", device, pid=pid)
            self.run("ip", "link", "set", device, "up", pid=pid)
            self.run("ip", "link", "set", "lo", "up", pid=pid)
            self._start("-c", _SERVE, address, pid=pid)

    def _start(self, *argv: str, pid: int = 0) -> subprocess.Popen[str]:
        """A Python process that prints a line when it is ready."""
        command = [*self._enter(pid), sys.executable, *argv]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._processes.append(process)
        assert process.stdout is not None
        process.stdout.readline()
        return process

    def _enter(self, pid: int) -> list[str]:
        return ["nsenter", f"--net=/proc/{pid}/ns/net"] if pid else []

    def run(self, *command: str, pid: int = 0) -> str:
        """A command in the machine's namespace, or another; its output."""
        full = [*self._enter(pid or self.machine), *command]
        return subprocess.run(full, check=True, capture_output=True, text=True, timeout=WAIT_SECONDS).stdout

    def forward(self, on: bool) -> None:
        self.run("sysctl", "-qw", f"net.ipv4.ip_forward={int(on)}")

    def fourtuple(self, *argv: str, before: tuple[str, ...] = ()) -> tuple[int, str, str]:
        """The command line, on the machine: (exit code, stdout, stderr)."""
        command = [*self._enter(self.machine), *before, sys.executable, "-m", "fourtuple.cli.main", *argv]
        done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_SECONDS)
        return done.returncode, done.stdout, done.stderr

    def connect(self, *options: str, to: str = SERVER, **more: Any) -> tuple[int, str, str]:
        return self.fourtuple("connect", f"{to}:80", "--wire", "tun-host", "--http", *options, **more)

    def open(self, *argv: str) -> subprocess.Popen[str]:
        """A process that keeps a wire with NAT open until its stdin is closed."""
        return self._start("-c", _OPEN, *argv, pid=self.machine)

    def state(self) -> tuple[str, list[str], str]:
        """Tables, devices and routes of the machine."""
        links = json.loads(self.run("ip", "-j", "link"))
        return self.run("nft", "list", "tables"), [link["ifname"] for link in links], self.run("ip", "route")

    def inside(self, function: Callable[[], Any]) -> Any:
        """function(), run by a child of this process in the machine's namespace; its value must survive JSON."""
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                with open(f"/proc/{self.machine}/ns/net") as namespace:
                    assert ctypes.CDLL(None).setns(namespace.fileno(), CLONE_NEWNET) == 0
                os.write(writing, json.dumps(function()).encode())
            finally:
                os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as source:
            text = source.read()
        os.waitpid(pid, 0)
        return json.loads(text)

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()


@pytest.fixture(scope="module")
def one_lab() -> Iterator[Lab]:
    lab = Lab()
    yield lab
    lab.close()


@pytest.fixture
def lab(one_lab: Lab) -> Iterator[Lab]:
    """The lab, forwarding, and found as it was left."""
    one_lab.forward(True)
    before = one_lab.state()
    yield one_lab
    wait_for(lambda: one_lab.state() == before)


def wait_for(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.02)


def refusal(setup: Setup) -> tuple[int | None, str, str]:
    with pytest.raises(WireUnavailable) as raised:
        open_tun_host(setup)
    return raised.value.errno, str(raised.value.strerror), raised.value.todo


# ------------------------------------------------------------------------------------------------ who can be reached


@elsewhere
@needs_root
def test_a_server_of_the_real_network_answers_through_nat(lab: Lab, tmp_path: Path) -> None:
    path = tmp_path / "a.pcapng"
    code, out, err = lab.connect("--nat", "-w", str(path))
    assert (code, err) == (0, "")
    assert f"you are {MACHINE}" in out
    assert "wire  tun-host ft0, the real network, with NAT" in out
    assert read_pcapng(path.read_bytes()).packets[0].comment == "tcp_connect > tcp_transmit_skb: SYN, #1"
    assert lab.state()[0] == ""


@elsewhere
@needs_root
def test_without_nat_the_server_has_no_way_back_and_the_text_says_so(lab: Lab) -> None:
    code, out, _ = lab.connect("--timeout", "200ms")
    assert code == 29  # EINPROGRESS: the timeout of the call, with the SYN unanswered
    assert "only with a route back to us, or --nat" in " ".join(out.split())


@elsewhere
@needs_root
def test_an_address_of_the_machine_itself_needs_no_nat(lab: Lab) -> None:
    code, out, _ = lab.connect(to=MACHINE)
    assert code == 0
    assert "you are 10.64.0.2" in out


@elsewhere
@needs_root
def test_a_closed_port_and_a_machine_that_is_not_there(lab: Lab, tmp_path: Path) -> None:
    assert lab.fourtuple("connect", f"{SERVER}:81", "--wire", "tun-host", "--nat", "-q")[0] == 21
    page = tmp_path / "a.html"
    code, out, _ = lab.fourtuple("connect", "198.51.100.7:80", "--wire", "tun-host", "--nat", "--html", str(page))
    assert code == 23  # the machine has no route: its ICMP message says so
    assert "ENETUNREACH" in out
    why = "tcp_v4_err: 10.64.0.1 answered the SYN with an ICMP message: net 198.51.100.7 unreachable."
    assert why in " ".join(out.split())
    assert "(an ICMP message came back)" in page.read_text()


@elsewhere
@needs_root
def test_an_address_of_the_subnet_can_be_the_source(lab: Lab) -> None:
    code, out, _ = lab.connect("--source", "10.64.0.77", to=MACHINE)
    assert code == 0
    assert "you are 10.64.0.77" in out
    assert f"you are {MACHINE}" in lab.connect("--source", "10.64.0.77", "--nat")[1]


@elsewhere
@needs_root
def test_the_json_report_names_the_wire(lab: Lab) -> None:
    document = json.loads(lab.connect("--nat", "--json")[1])
    assert document["wire"] == {"name": "tun-host", "device": "ft0", "virtual_time": False}
    assert document["answer"]["body"] == f"you are {MACHINE}\n"


# ------------------------------------------------------------------------------------------------ nothing is left


@elsewhere
@needs_root
def test_while_it_runs_there_is_a_table_a_device_and_a_route(lab: Lab) -> None:
    process = lab.open()
    tables, links, routes = lab.state()
    assert tables == "table ip fourtuple_ft0\n"
    assert "ft0" in links
    assert "10.64.0.0/24 dev ft0" in routes
    rule = 'ip saddr 10.64.0.0/24 oifname != "ft0" masquerade'
    assert rule in lab.run("nft", "list", "ruleset")
    process.communicate("x", timeout=WAIT_SECONDS)
    assert process.returncode == 0


@elsewhere
@needs_root
@pytest.mark.parametrize("how", ["raise", signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_nothing_is_left_however_it_ends(lab: Lab, how: str | signal.Signals) -> None:
    before = lab.state()
    process = lab.open(*(["raise"] if how == "raise" else []))
    assert lab.state() != before
    assert process.stdin is not None
    if isinstance(how, signal.Signals):
        process.send_signal(how)
    else:
        process.stdin.write("x")
        process.stdin.close()
        process.stdin = None
    process.wait(WAIT_SECONDS)
    wait_for(lambda: lab.state() == before)


@elsewhere
@needs_root
def test_another_process_cannot_take_the_table_away(lab: Lab) -> None:
    process = lab.open()
    with pytest.raises(subprocess.CalledProcessError):
        lab.run("nft", "delete", "table", "ip", "fourtuple_ft0")
    process.communicate("x", timeout=WAIT_SECONDS)


@elsewhere
@needs_root
def test_two_at_once_do_not_disturb_each_other(lab: Lab) -> None:
    first = lab.open()
    second = lab.open()
    tables, links, routes = lab.state()
    assert tables == "table ip fourtuple_ft0\ntable ip fourtuple_ft1\n"
    assert {"ft0", "ft1"} <= set(links)
    assert "10.64.0.0/24 dev ft0" in routes and "10.64.1.0/24 dev ft1" in routes
    first.communicate("x", timeout=WAIT_SECONDS)
    assert lab.state()[0] == "table ip fourtuple_ft1\n"
    code, out, _ = lab.connect("--nat")  # the third takes the place of the first
    assert (code, f"you are {MACHINE}" in out) == (0, True)
    second.communicate("x", timeout=WAIT_SECONDS)


# ------------------------------------------------------------------------------------------------ refusals


@elsewhere
@needs_root
def test_nat_is_refused_when_the_machine_does_not_forward(lab: Lab) -> None:
    lab.forward(False)
    code, out, err = lab.connect("--nat")
    assert (code, out) == (69, "")
    first, second, *_ = err.splitlines()
    assert first == "fourtuple: --nat: this machine forwards nothing (net.ipv4.ip_forward = 0)"
    assert second.startswith("  try:  sudo sysctl net.ipv4.ip_forward=1")
    assert lab.run("cat", "/proc/sys/net/ipv4/ip_forward") == "0\n"
    assert lab.connect(to=MACHINE)[0] == 0  # NAT alone needs it


@elsewhere
@needs_root
def test_without_cap_net_admin_it_is_77(lab: Lab) -> None:
    code, out, err = lab.connect(before=("setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"))
    assert (code, out) == (77, "")
    assert err.startswith("fourtuple: /dev/net/tun: permission denied (TUNSETIFF needs CAP_NET_ADMIN)\n  try:  sudo")


def test_without_a_tun_driver_it_is_69(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tun, "PATH", "/nonexistent/tun")
    assert refusal(Setup())[:2] == (errno.ENOENT, "/nonexistent/tun does not exist")
    found = probe_tun_host()
    assert (found.works, found.code, found.reason) == (False, errno.ENOENT, "/nonexistent/tun does not exist")


@needs_root
def test_a_wire_in_this_process_comes_and_goes(lab: Lab) -> None:
    def attempt() -> list[Any]:
        with open_tun_host(Setup(nat=True, source="10.64.0.5")) as wire:
            fd = wire.runner.socket()
            code = wire.runner.connect(fd, (SERVER, 80))
            during = [name for _, name in socket.if_nameindex()]
            where = wire.where
        return [code, where, during, [name for _, name in socket.if_nameindex()]]

    code, where, during, after = lab.inside(attempt)
    assert (code, where) == (0, "tun-host ft0, the real network, with NAT")
    assert (during, after) == (["lo", "up0", "ft0"], ["lo", "up0"])


@needs_root
def test_without_libnftables_the_package_is_named_and_nothing_is_left(lab: Lab) -> None:
    def attempt() -> list[Any]:
        nat._LIBRARY = "libnftables-that-is-not-there.so.1"
        return [*refusal(Setup(nat=True)), socket.if_nameindex()]

    code, reason, todo, links = lab.inside(attempt)
    assert (code, reason) == (errno.ENOENT, "--nat: libnftables-that-is-not-there.so.1 is missing")
    assert "apt-get install libnftables1" in todo
    assert [name for _, name in links] == ["lo", "up0"]


@needs_root
def test_a_complaint_of_nft_is_one_line(lab: Lab) -> None:
    def attempt() -> list[Any]:
        nft = nat.Nft()
        with pytest.raises(OSError, match="nft: ") as raised:
            nft.run("delete table ip nobody")
        nft.close()
        nft.close()
        return [raised.value.errno, raised.value.strerror]

    assert lab.inside(attempt) == [
        errno.EOPNOTSUPP,
        "nft: Could not process rule: No such file or directory",
    ]


@elsewhere
@needs_root
def test_a_source_that_the_machine_would_not_send_to_us_is_refused(lab: Lab) -> None:
    code, out, err = lab.connect("--source", "10.65.0.2")
    assert (code, out) == (69, "")
    assert err.splitlines()[:2] == [
        "fourtuple: no answer would find its way to 10.65.0.2",
        "  try:  an address from 10.64.0.2 to 10.64.0.254",
    ]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["connect", "192.0.2.7:80", "--nat"], "--nat goes with --wire tun-host"),
        (["connect", ":80", "--wire", "sim", "--nat"], "--nat goes with --wire tun-host"),
        (["connect", ":80", "--wire", "tun-host"], "say which HOST"),
        (["demo", "--wire", "tun-host"], "demo brings its own server"),
    ],
)
def test_what_does_not_go_together_is_a_usage_error(
    capsys: pytest.CaptureFixture[str], argv: list[str], message: str
) -> None:
    assert main(argv) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err.splitlines()[0]


def test_auto_never_takes_it() -> None:
    assert "tun-host" in KINDS
    assert "tun-host" not in AUTO


@needs_root
def test_a_probe_works_and_leaves_nothing(lab: Lab) -> None:
    def probe() -> list[Any]:
        found = probe_tun_host()
        return [found.works, found.code, found.reason]

    assert lab.inside(probe) == [True, 0, ""]


# ------------------------------------------------------------------------------------------------ subnet, firewall


@elsewhere
@needs_root
def test_a_subnet_in_use_is_passed_over_and_the_text_says_so(lab: Lab) -> None:
    lab.run("ip", "route", "add", "blackhole", "10.64.0.128/25")
    try:
        code, out, _ = lab.connect("--nat")
    finally:
        lab.run("ip", "route", "del", "blackhole", "10.64.0.128/25")
    assert code == 0
    assert "ft0 is 10.64.1.0/24, as 10.64.0.0/24 is in use" in out
    assert "10.64.1.2:" in out


@elsewhere
@needs_root
def test_when_nothing_is_free_it_says_so(lab: Lab) -> None:
    routes = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")
    for route in routes:
        lab.run("ip", "route", "add", "blackhole", route)
    try:
        code, _, err = lab.connect("--nat")
    finally:
        for route in routes:
            lab.run("ip", "route", "del", "blackhole", route)
    assert code == 69
    assert err.startswith("fourtuple: no /24 of 10.64.0.0/16, 172.31.128.0/17, 192.168.128.0/17 is free\n")


@elsewhere
@needs_root
def test_a_firewall_that_forwards_nothing_is_named(lab: Lab) -> None:
    lab.run("nft", "add table ip filter { chain FORWARD { type filter hook forward priority 0; policy drop; }; }")
    try:
        _, out, _ = lab.connect("--nat", "--timeout", "200ms")
    finally:
        lab.run("nft", "delete", "table", "ip", "filter")
    text = " ".join(out.split())
    rules = [f"iptables -I FORWARD -{side} ft0 -j ACCEPT" for side in "io"]
    assert f"a firewall drops what is forwarded: let ft0 pass in chain FORWARD. {'; '.join(rules)}" in text


@pytest.mark.parametrize(
    ("network", "length", "taken"),
    [
        ("0.0.0.0", 0, False),
        ("10.64.0.0", 24, True),
        ("10.64.0.0", 16, True),
        ("10.0.0.0", 8, True),
        ("10.64.0.7", 32, True),
        ("10.64.0.128", 25, True),
        ("10.64.1.0", 24, False),
        ("10.64.0.0", 23, True),
        ("10.65.0.0", 16, False),
        ("192.168.0.0", 16, False),
    ],
)
def test_a_subnet_is_taken_when_any_route_but_the_default_covers_part_of_it(
    network: str, length: int, taken: bool
) -> None:
    mask = (0xFFFFFFFF << 32 - length) & 0xFFFFFFFF
    assert is_routed(parse_ipv4("10.64.0.0"), [(parse_ipv4(network), mask)]) is taken


def test_the_candidates_are_private_subnets_the_usual_one_first() -> None:
    found = list(candidates())
    assert found[:2] == [parse_ipv4("10.64.0.0"), parse_ipv4("10.64.1.0")]
    assert len(found) == len(set(found)) == 512
    private = ((0x0A000000, 0xFF000000), (0xAC100000, 0xFFF00000), (0xC0A80000, 0xFFFF0000))
    assert all(any(subnet & mask == network for network, mask in private) for subnet in found)
