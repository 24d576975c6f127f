"""The command line without root: as user nobody, with whatever device node, filter and limits the test makes.

Real processes, the real kernel.  See tests/sandbox.py.
"""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from tests.cli.schema import check, load
from tests.sandbox import PYTHON, Sandbox, fourtuple, run

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not os.path.isdir("/dev/net"), reason="needs root, to become nobody, and a /dev/net"
)
NODE_OF_ROOT = Sandbox(node="0600")
NO_USER_NAMESPACES = Sandbox(user_limits=(("max_user_namespaces", 0),))
DENIED = "/dev/net/tun: permission denied (mode 0600)"


def wires(sandbox: Sandbox) -> tuple[dict[str, Any], str]:
    """The rows of `fourtuple wires --json`, and what --wire auto would take."""
    result = fourtuple(sandbox, "wires", "--json")
    assert (result.returncode, result.stderr) == (0, "")
    document = json.loads(result.stdout)
    check(load("wires-1"), document)
    return {row["name"]: row for row in document["wires"]}, document["chosen"]


def connect(sandbox: Sandbox, wire: str = "auto") -> tuple[int, str, str]:
    result = fourtuple(sandbox, "connect", ":8080", "--http", "--wire", wire)
    return result.returncode, result.stdout, result.stderr


# ------------------------------------------------------------------------------------------ it works


@pytest.mark.parametrize("no_new_privs", [False, True])
def test_nobody_connects_through_a_tun_where_the_node_is_readable(no_new_privs: bool) -> None:
    code, out, err = connect(Sandbox(no_new_privs=no_new_privs))
    assert (code, err) == (0, "")
    assert out.startswith("wire  tun ft0, private network namespace (no root) ")
    assert "HTTP/1.1 200 OK" in out


def test_nobody_connects_through_a_veth_where_it_is_not_and_is_told_why() -> None:
    code, out, err = connect(NODE_OF_ROOT)
    assert (code, err) == (0, f"fourtuple: using veth, not tun: {DENIED}\n")
    assert out.startswith("wire  veth ft0, private network namespace (no root) ")
    assert "HTTP/1.1 200 OK" in out


@pytest.mark.parametrize(
    ("node", "wire", "said"), [("0666", "tun", ""), ("0600", "veth", f"fourtuple: using veth, not tun: {DENIED}\n")]
)
def test_the_whole_tour_without_root(node: str, wire: str, said: str) -> None:
    result = fourtuple(Sandbox(node=node), "demo")
    assert (result.returncode, result.stderr) == (0, said)
    assert f"wire: {wire} ft0, private network namespace (no root); seed 7\n" in result.stdout
    assert "a Linux kernel socket in a private namespace" in result.stdout
    assert "   k kernel " in result.stdout
    assert "connect() = -1 EADDRNOTAVAIL" in result.stdout


@pytest.mark.parametrize(
    ("sandbox", "words", "wire", "said"),
    [
        (Sandbox(), [], "tun ft0, ", ""),
        (Sandbox(), ["--processes", "2"], "tun ft0-ft1, ", ""),
        (NODE_OF_ROOT, [], "veth ft0, ", f"fourtuple: using veth, not tun: {DENIED}\n"),
        (NODE_OF_ROOT, ["--stack", "kernel"], "lo, ", ""),
    ],
)
def test_many_connections_without_root(sandbox: Sandbox, words: list[str], wire: str, said: str) -> None:
    result = fourtuple(sandbox, "dial", "500", ":8080", "--json", *words)
    assert (result.returncode, result.stderr) == (0, said)
    document = json.loads(result.stdout)
    assert document["connections"]["established"] == document["connections"]["closed"] == 500
    assert document["wire"].startswith(wire)


def test_a_dial_that_talks_needs_a_server_that_goes_on_listening() -> None:
    result = fourtuple(NO_USER_NAMESPACES, "dial", "5", ":80", "--http")
    note, refusal = result.stderr.splitlines()
    assert (result.returncode, result.stdout) == (69, "")
    assert note.startswith("fourtuple: using sim, not tun, veth: ")
    assert refusal == "fourtuple: the simulated server ends each connection after one answer: talk needs tun"


def test_both_private_wires_need_no_writable_sysctls() -> None:
    """As in a container."""
    sandbox = Sandbox(read_only_sysctls=True)
    for wire in ("tun", "veth"):
        code, out, err = connect(sandbox, wire)
        assert (code, err) == (0, "")
        assert "HTTP/1.1 200 OK" in out


def test_root_needs_no_user_namespace() -> None:
    code, out, _ = connect(Sandbox(uid=0, node="0600", denied="", user_limits=()), "veth")
    assert code == 0
    assert out.startswith("wire  veth ft0, private network namespace (root) ")


# ------------------------------------------------------------------------------------------ it does not


@pytest.mark.parametrize(
    ("node", "errno", "reason"),
    [
        ("0600", "EACCES", DENIED),
        ("missing", "ENOENT", "/dev/net/tun does not exist"),
        ("ENXIO", "ENXIO", "/dev/net/tun: no TUN driver behind it (ENXIO)"),
        ("ENODEV", "ENODEV", "/dev/net/tun: no TUN driver behind it (ENODEV)"),
    ],
)
def test_each_trouble_with_the_node_has_its_own_reason(node: str, errno: str, reason: str) -> None:
    rows, chosen = wires(Sandbox(node=node))
    assert (rows["tun"]["works"], rows["tun"]["errno"], rows["tun"]["reason"]) == (False, errno, reason)
    assert rows["tun"]["todo"]
    assert (rows["veth"]["works"], chosen) == (True, "veth")


@pytest.mark.parametrize(
    ("sandbox", "errno", "reason"),
    [
        (NO_USER_NAMESPACES, "ENOSPC", "user namespaces are off (user.max_user_namespaces = 0)"),
        (
            Sandbox(user_limits=(("max_net_namespaces", 0),)),
            "ENOSPC",
            "network namespaces are off (user.max_net_namespaces = 0)",
        ),
        (Sandbox(denied="unshare"), "EPERM", "a seccomp filter forbids user namespaces (unshare: EPERM)"),
    ],
)
def test_each_trouble_with_namespaces_has_its_own_reason(sandbox: Sandbox, errno: str, reason: str) -> None:
    rows, chosen = wires(sandbox)
    for name in ("tun", "veth"):
        assert (rows[name]["works"], rows[name]["errno"], rows[name]["reason"]) == (False, errno, reason)
        assert rows[name]["todo"]
    assert chosen == "sim"


def test_a_filter_on_packet_sockets_leaves_the_tun() -> None:
    rows, chosen = wires(Sandbox(denied="socket:17"))
    assert rows["veth"]["reason"] == "a seccomp filter forbids packet sockets (socket: EPERM)"
    assert (rows["tun"]["works"], chosen) == (True, "tun")


def test_one_namespace_is_enough_for_a_tun_and_not_for_a_veth() -> None:
    rows, _ = wires(Sandbox(user_limits=(("max_net_namespaces", 1),)))
    assert (rows["tun"]["works"], rows["veth"]["works"]) == (True, False)
    assert rows["veth"]["reason"].startswith("no more namespaces for this user")


def test_without_user_namespaces_it_simulates_and_says_why_once() -> None:
    code, out, err = connect(NO_USER_NAMESPACES)
    said = "fourtuple: using sim, not tun, veth: user namespaces are off (user.max_user_namespaces = 0)\n"
    assert (code, err) == (0, said)
    assert out.startswith("wire  sim, no kernel and no real time ")


@pytest.mark.parametrize(
    ("sandbox", "wire", "exit_code"), [(NODE_OF_ROOT, "tun", 77), (NO_USER_NAMESPACES, "veth", 69)]
)
def test_a_wire_asked_for_is_refused_with_what_to_do(sandbox: Sandbox, wire: str, exit_code: int) -> None:
    code, out, err = connect(sandbox, wire)
    assert (code, out) == (exit_code, "")
    first, remedy, *_ = err.splitlines()
    assert first.startswith("fourtuple: ")
    assert remedy.startswith("  try:  sudo ")


# ------------------------------------------------------------------------------------------ nothing is left behind

LEFTOVERS = """
import os, select, subprocess, sys, time
from fourtuple.shell.netns import NamespaceRefused, PrivateNamespace

def starts():
    try:
        PrivateNamespace.start(kind=kind).close()
    except NamespaceRefused:
        return False
    return True

kind, victim = sys.argv[1:]
command = subprocess.Popen(
    [sys.executable, "-m", "fourtuple.cli.main", "connect", ":8080", "--wire", kind, "--loss", "syn", "-q"],
    stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
)
children = f"/proc/{command.pid}/task/{command.pid}/children"
for _ in range(1000):
    helper = open(children).read().strip()
    if helper and ":1F90 " in open(f"/proc/{helper}/net/tcp").read():  # the server listens at 8080: all is built
        break
    time.sleep(0.02)
else:
    sys.exit("the namespace of the command was never seen")
if starts():
    sys.exit("the limit does not hold")
pidfd = os.pidfd_open(int(helper))
os.kill(command.pid if victim == "command" else int(helper), 9)
assert select.select([pidfd], [], [], 10)[0], "the helper lives on"
if victim == "helper" and kind == "tun":
    command.terminate()  # the descriptor of a TUN keeps its namespace: for this command the kernel is still there
text = command.communicate(timeout=10)[0]
for _ in range(500):  # the kernel takes namespaces down in its own time
    if starts():
        break
    time.sleep(0.02)
else:
    sys.exit("a namespace was left behind")
print(command.returncode, text.count("\\n"), text.partition("\\n")[0])
"""


@pytest.mark.parametrize(("kind", "namespaces"), [("tun", 1), ("veth", 2)])
@pytest.mark.parametrize("victim", ["command", "helper"])
def test_kill_9_leaves_no_namespace_behind(kind: str, namespaces: int, victim: str) -> None:
    """Held by a limit: as long as one namespace of the killed command is left, no other can be made."""
    sandbox = Sandbox(user_limits=(("max_net_namespaces", namespaces),))
    result = run(sandbox, PYTHON, "-c", LEFTOVERS, kind, victim)
    assert result.stderr == ""
    if (kind, victim) == ("veth", "helper"):
        assert result.stdout == "69 3 fourtuple: the helper process of the private namespace has been ended\n"
    else:
        assert result.stdout.split()[0] == ("-9" if victim == "command" else "-15")
