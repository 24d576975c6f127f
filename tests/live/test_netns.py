"""Namespaces: by name, pid and path; what may not be entered is said in one line."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fourtuple.live import CannotRead, all_netns, all_sockets, find_netns, sockets
from fourtuple.live.netns import open_socket_in, run_in
from tests.live.space import Space, needs_root
from tests.sandbox import PYTHON, Sandbox, run


@contextmanager
def process_in(space: Space) -> Iterator[int]:
    """The pid of a process that lives in the namespace."""
    line = [sys.executable, "-c", "import sys; print(1, flush=True); sys.stdin.read()"]
    process = space.run(lambda: subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
    assert process.stdout is not None
    try:
        process.stdout.readline()
        yield process.pid
    finally:
        process.communicate()


@contextmanager
def named(name: str) -> Iterator[None]:
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        yield
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


@needs_root
def test_a_namespace_is_found_by_path_pid_and_digits() -> None:
    with Space() as space, process_in(space) as pid:
        port = space.listen().getsockname()[1]
        for spec in (space.path, pid, str(pid), find_netns(pid)):
            assert [row.sport for row in sockets(spec)] == [port]
        assert find_netns(pid).inode == find_netns(space.path).inode == os.stat(space.path).st_ino
        assert not find_netns(pid).is_current


@needs_root
def test_a_namespace_is_found_by_name_and_stays_found_by_number() -> None:
    name = f"ft-test-{os.getpid()}"
    with named(name):
        table = sockets(name)
        assert len(table) == 0
        assert table.netns is not None
        assert table.netns.label == name
        assert repr(table.netns) == f"<Netns {name}, net:[{table.netns.inode}]>"
        found, _ = all_netns()
        assert name in [each.label for each in found]


@needs_root
def test_all_namespaces_are_read_each_once() -> None:
    with Space() as one, Space() as two, process_in(one), process_in(two):
        ports = [space.listen().getsockname()[1] for space in (one, two)]
        tables, _ = all_sockets(states=["LISTEN"])
        by_inode = {table.netns.inode: table for table in tables if table.netns}
        assert len(by_inode) == len(tables)
        for space, port in zip((one, two), ports, strict=True):
            assert [row.sport for row in by_inode[os.stat(space.path).st_ino]] == [port]
        assert tables[0].netns is not None
        assert tables[0].netns.is_current


@needs_root
def test_a_function_runs_inside_and_its_exception_comes_out() -> None:
    with Space() as space:
        inside = find_netns(space.path)
        names = run_in(inside, lambda: [name for _, name in socket.if_nameindex()])
        assert sorted(names) == ["hole0", "lo", "peer0"]
        assert sorted(names) != sorted(name for _, name in socket.if_nameindex())
        with pytest.raises(ZeroDivisionError):
            run_in(inside, lambda: 1 // 0)
        port = space.listen().getsockname()[1]
        with open_socket_in(inside, socket.AF_INET, socket.SOCK_STREAM, 0) as made:
            made.connect(("127.0.0.1", port))


def test_this_namespace_needs_nothing_entered() -> None:
    here = find_netns()
    assert here.is_current
    assert here.inode == os.stat("/proc/self/ns/net").st_ino
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert [row.state for row in sockets(sport=port)] == ["LISTEN"]
        assert find_netns(os.getpid()).is_current


@pytest.mark.parametrize(
    ("spec", "code", "text"),
    [
        ("no-such", errno.ENOENT, "network namespace no-such: there is no /run/netns/no-such (a pid that runs, or a"),
        (2**22 + 1, errno.ENOENT, "there is no /proc/4194305/ns/net"),
        ("/etc/passwd", errno.EINVAL, "/etc/passwd is no network namespace (see `ip netns` and /proc/PID/ns/net)"),
        ("/proc/self/ns/mnt", errno.EINVAL, "/proc/self/ns/mnt is no network namespace"),
        ("/tmp", errno.EISDIR, "Is a directory"),
        ("a\0b", errno.EINVAL, "a name, a pid or a path"),
        ("", errno.EISDIR, "network namespace"),
    ],
)
def test_what_is_no_namespace_is_one_line(spec: str | int, code: int, text: str) -> None:
    with pytest.raises(CannotRead) as refusal:
        sockets(spec)
    assert refusal.value.errno == code
    assert text in str(refusal.value)
    assert "\n" not in str(refusal.value)


_AS_NOBODY = """
import sys
from fourtuple.live import CannotRead, all_netns, sockets
try:
    sockets(sys.argv[1])
except CannotRead as error:
    print(error.errno, error)
print(len(all_netns()[1]), *all_netns()[1])
print(sockets().source, len(sockets()) >= 1)
"""


@needs_root
def test_a_user_is_told_what_takes_root_and_reads_the_rest(tmp_path: Path) -> None:
    with Space() as space, process_in(space) as pid, socket.create_server(("127.0.0.1", 0)):
        done = run(Sandbox(), PYTHON, "-c", _AS_NOBODY, str(pid))
    refused, hidden, own = done.stdout.splitlines()
    assert refused == f"13 network namespace pid {pid}: Permission denied (another user's: needs root)"
    assert "processes of other users: their network namespaces are not for us to see (needs root)" in hidden
    assert own == "sock_diag True"


@needs_root
def test_a_user_with_the_path_may_still_not_enter() -> None:
    name = f"ft-test-{os.getpid()}"
    with named(name):
        done = run(Sandbox(), PYTHON, "-c", _AS_NOBODY, name)
    assert done.stdout.splitlines()[0] == (
        f"1 network namespace {name}: Operation not permitted (to enter one needs root (CAP_SYS_ADMIN))"
    )


@needs_root
def test_without_netlink_the_sockets_come_from_procfs() -> None:
    program = "from fourtuple.live import sockets; t = sockets(states=['LISTEN']); print(t.source, t.bound_known, t)"
    with socket.create_server(("127.0.0.1", 0)):
        done = run(Sandbox(no_new_privs=True, denied="socket:16"), PYTHON, "-c", program)
    source, bound_known, text = done.stdout.split(" ", 2)
    assert (source, bound_known) == ("procfs", "False")
    assert "LISTEN" in text
