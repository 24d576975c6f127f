"""Who holds a socket: real processes, users, pid namespaces and control groups, and what of them may be seen."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fourtuple.live import sockets
from fourtuple.live.cgroups import Group, group_named, path_of_process
from fourtuple.live.owners import Owners, find_owners, owners_of, short_command
from tests.live.space import Space, needs_root
from tests.sandbox import PYTHON, Sandbox, run, start

HOLD = "import socket, sys; s = socket.create_server(('127.0.0.1', 0)); print(__import__('os').fstat(s.fileno()).st_ino, flush=True); sys.stdin.read()"  # noqa: E501
ID = "3f2a1b2c3d4e5f60" * 4


@contextmanager
def holder(*before: str, arguments: tuple[str, ...] = ()) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A process with one listening socket, and the socket's inode."""
    line = [*before, sys.executable, "-c", HOLD, *arguments]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdin
        try:
            yield process, int(process.stdout.readline())
        finally:
            process.stdin.close()
            process.wait(10)


def test_a_socket_has_the_process_that_holds_it_and_only_what_is_asked_is_told() -> None:
    with holder() as (process, inode), socket.socket() as own:
        found = find_owners([inode])
        assert set(found.by_inode) == {inode}
        owner = found.by_inode[inode]
        assert (owner.pid, owner.uid, owner.pid_inside) == (process.pid, os.geteuid(), 0)
        assert owner.command == owner.comm == os.path.basename(sys.executable)[:15]
        assert owner.cgroup == path_of_process(Path("/proc/self/cgroup").read_text())
        assert found.unread == ()
        mine = os.fstat(own.fileno()).st_ino
        assert find_owners([mine]).by_inode[mine].pid == os.getpid()


def test_arguments_are_not_told() -> None:
    with holder(arguments=("--password", "hunter2")) as (_, inode):
        assert "hunter2" not in repr(find_owners([inode]))


def test_a_socket_that_several_hold_has_them_all_the_lowest_pid_first() -> None:
    with socket.socket() as shared:
        inode = os.fstat(shared.fileno()).st_ino
        reading, writing = os.pipe()
        children = []
        try:
            for _ in range(2):
                if not (pid := os.fork()):
                    os.close(writing)
                    os.read(reading, 1)
                    os._exit(0)
                children.append(pid)
            found = find_owners([inode])
        finally:
            os.close(writing)
            os.close(reading)
            for child in children:
                os.waitpid(child, 0)
    everyone = tuple(sorted([os.getpid(), *children]))
    assert (found.by_inode[inode].pid, found.holders) == (everyone[0], {inode: everyone})


def test_sockets_without_a_process_are_counted_not_missed() -> None:
    found = find_owners([0, 0, 0])
    assert (found.without_process, found.not_found, found.unread) == (3, 0, ())


def test_an_inode_that_nobody_has_is_missed_and_said() -> None:
    found = find_owners([1, 1, 0])
    assert (found.without_process, found.not_found, found.by_inode) == (1, 1, {})
    assert found.unread[0].startswith("owners of 1 socket not found: ")


@needs_root
def test_time_waits_have_no_owner_and_live_sockets_of_another_namespace_do() -> None:
    with Space() as space:
        listener = space.listen()
        client, server = space.pair(listener)
        client.shutdown(socket.SHUT_RDWR)
        server.close()
        client.close()
        space.pair(listener)
        table = sockets(space.path)
        found = owners_of(table)
    assert sorted(table.count_by_state().items()) == [(1, 2), (6, 1), (10, 1)]
    assert (found.without_process, found.not_found) == (1, 0)
    assert {owner.pid for owner in found.by_inode.values()} == {os.getpid()}


@needs_root
def test_two_tables_share_one_look_at_proc() -> None:
    with Space() as one, Space() as other:
        one.listen()
        other.listen()
        tables = [sockets(one.path), sockets(other.path)]
        everything = find_owners([inode for table in tables for inode in table.inode])
        parts = [everything.restricted_to(table) for table in tables]
    assert [set(part.by_inode) for part in parts] == [set(table.inode) for table in tables]
    assert [part.not_found for part in parts] == [0, 0]


# ------------------------------------------------------------------------------------------ what may not be seen


def _as_nobody(inodes: list[int], sandbox: Sandbox | None = None) -> list[str]:
    program = (
        "import socket, os\nfrom fourtuple.live.owners import find_owners\nown = socket.socket()\n"
        f"mine = os.fstat(own.fileno()).st_ino\nfound = find_owners([mine, *{inodes}])\n"
        "print(found.by_inode.pop(mine).pid == os.getpid())\nprint(found.not_found, len(found.by_inode), *found.unread)"
    )
    done = run(sandbox or Sandbox(), PYTHON, "-c", program)
    assert done.stderr == ""
    return done.stdout.splitlines()


@needs_root
def test_nobody_sees_what_is_his_own_and_is_told_of_the_rest() -> None:
    with holder() as (_, inode):
        own, others = _as_nobody([inode])
    assert own == "True"
    assert others.startswith("1 0 owners of 1 socket not found: ")
    assert others.endswith(" processes of other users may not be looked into (needs root)")


@needs_root
def test_root_sees_the_sockets_of_nobody() -> None:
    process = start(Sandbox(), PYTHON, "-c", HOLD + "; import time; time.sleep(20)")
    try:
        assert process.stdout
        inode = int(process.stdout.readline())
        owner = find_owners([inode]).by_inode[inode]
        assert (owner.pid, owner.uid) == (process.pid, 65534)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()


@needs_root
def test_from_outside_a_pid_namespace_both_pids_are_known() -> None:
    with holder("unshare", "--pid", "--fork", "--kill-child") as (process, inode):
        owner = find_owners([inode]).by_inode[inode]
        assert owner.pid != process.pid
        assert owner.pid_inside == 1


@needs_root
def test_from_inside_a_pid_namespace_the_others_are_missed_and_said() -> None:
    program = (
        "from fourtuple.live.owners import find_owners\nfound = find_owners([%d])\n"
        "print(found.not_found, found.hidden_processes, *found.unread)"
    )
    with holder() as (_, inode):
        line = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", sys.executable, "-c", program % inode]
        told = subprocess.run(line, capture_output=True, text=True, check=True, timeout=30).stdout
    assert told == (
        "1 0 owners of 1 socket not found: no process to be seen here holds them "
        "(another pid namespace, hidepid, the kernel, just ended)\n"
    )


# ------------------------------------------------------------------------------------------ control groups


def _cgroup2() -> Path | None:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        if " - cgroup2 " in line:
            return Path(line.split()[4])
    return None


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group as docker makes them."""
    root = _cgroup2()
    if root is None or not os.access(root / "cgroup.procs", os.W_OK):
        pytest.skip("no cgroup2 that can be written here")
    made = root / f"fourtuple-{os.getpid()}.slice" / f"docker-{ID}.scope"
    made.mkdir(parents=True)
    try:
        yield made
    finally:
        made.rmdir()
        made.parent.rmdir()


@needs_root
def test_the_group_of_a_socket_names_its_container_even_to_nobody(group: Path) -> None:
    enter = ("/bin/sh", "-c", f'echo $$ > {group}/cgroup.procs; exec "$@"', "sh")
    with holder(*enter) as (process, inode):
        table = sockets()
        row = list(table.inode).index(inode)
        assert table.cgroup[row] == group.stat().st_ino
        found = owners_of(table)
        path = f"/{group.parent.name}/{group.name}"
        expected = Group(path, "docker 3f2a1b2c3d4e")
        assert found.groups[table.cgroup[row]] == expected
        owner = found.by_inode[inode]
        assert (owner.pid, owner.cgroup, owner.container) == (process.pid, path, "docker 3f2a1b2c3d4e")
        program = (
            "from fourtuple.live import sockets\nfrom fourtuple.live.owners import owners_of\n"
            f"t = sockets(); row = list(t.inode).index({inode}); f = owners_of(t)\n"
            f"print({inode} in f.by_inode, f.groups[t.cgroup[row]].name)"
        )
        assert run(Sandbox(), PYTHON, "-c", program).stdout == "False docker 3f2a1b2c3d4e\n"


POD = "8d0e5a4c-1111-2222-3333-0123456789ab"


@pytest.mark.parametrize(
    ("path", "container", "pod", "unit"),
    [
        ("/", "", "", ""),
        ("/system.slice/nginx.service", "", "", "nginx.service"),
        ("/system.slice/system-getty.slice/getty@tty1.service", "", "", "getty@tty1.service"),
        ("/system.slice/my\\x2dapp.service", "", "", "my-app.service"),
        ("/user.slice/user-1000.slice/user@1000.service/app.slice/app-foo.scope", "", "", "user@1000.service"),
        ("/user.slice/user-1000.slice/user@1000.service/app.slice/sync.service", "", "", "sync.service"),
        ("/user.slice/user-0.slice/session-3.scope", "", "", "session-3.scope"),
        (f"/docker/{ID}", "docker 3f2a1b2c3d4e", "", ""),
        (f"/system.slice/docker-{ID}.scope", "docker 3f2a1b2c3d4e", "", ""),
        (f"/machine.slice/libpod-{ID}.scope/container", "podman 3f2a1b2c3d4e", "", ""),
        (f"/kubepods/burstable/pod{POD}/{ID}", "container 3f2a1b2c3d4e", POD, ""),
        (
            f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{POD.replace('-', '_')}.slice/"
            f"cri-containerd-{ID}.scope",
            "containerd 3f2a1b2c3d4e", POD, "",
        ),
        (f"/kubepods.slice/kubepods-pod{POD.replace('-', '_')}.slice/crio-{ID}.scope", "cri-o 3f2a1b2c3d4e", POD, ""),
        (f"/kubepods.slice/x/cri-containerd-{ID}.scope/system.slice/nginx.service", "containerd 3f2a1b2c3d4e", "", ""),
        ("/lxc/web", "lxc web", "", ""),
        ("/lxc.payload.web/system.slice/cron.service", "lxc web", "", ""),
        ("/machine.slice/systemd-nspawn@deb\\x2d12.service/payload", "nspawn deb-12", "", ""),
        (f"/ecs/0123456789abcdef0123456789abcdef/{ID}", "container 3f2a1b2c3d4e", "", ""),
        ("/process_api/b3a73c1758292a0215d51918af696086", "", "", ""),
    ],
)  # fmt: skip
def test_what_the_path_of_a_group_tells(path: str, container: str, pod: str, unit: str) -> None:
    assert group_named(path) == Group(path, container, pod, unit)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("0::/system.slice/a.service\n", "/system.slice/a.service"),
        ("9:name=systemd:/a.service\n4:memory:/longer/than/that\n0::/\n", "/a.service"),
        ("9:name=systemd:/\n4:memory:/docker/x\n2:cpuacct:/\n0::/\n", "/docker/x"),
        ("0::/\n", "/"),
        ("", "/"),
        ("junk\n::\n:\n", "/"),
        ("0::/with:colon\n", "/with:colon"),
    ],
)
def test_version_2_tells_most_then_systemd_then_the_longest(text: str, path: str) -> None:
    assert path_of_process(text) == path


# ------------------------------------------------------------------------------------------ what a program is called


@pytest.mark.parametrize(
    ("line", "comm", "name"),
    [
        ("/usr/sbin/nginx -g off", "nginx", "nginx"),
        ("nginx: worker process", "nginx", "nginx"),
        ("postgres: user db [local] idle", "postgres", "postgres"),
        ("", "kworker/0:1", "kworker/0:1"),
        ("", "", "?"),
        ("/usr/bin/python3 -u /srv/app.py --password x", "python3", "python3 app.py"),
        ("/usr/bin/python3.11 -m gunicorn app:make", "gunicorn", "python3.11 -m gunicorn"),
        ("python3 -c print()", "python3", "python3"),
        ("python3 -W secret app.py", "python3", "python3"),
        ("/usr/bin/java -Xmx1g -Dkey=secret -jar /opt/my.jar", "java", "java -jar my.jar"),
        ("java -cp secret Main", "java", "java"),
        ("node --max-old-space-size=4096 server.js", "node", "node server.js"),
        ("/bin/sh -c curl", "sh", "sh"),
        ("bash -lc curl", "bash", "bash"),
        ("ssh-agent bash", "ssh-agent", "ssh-agent"),
        ("sshd -D", "sshd", "sshd"),
        ("uwsgi --ini /etc/uwsgi.ini", "uwsgi", "uwsgi"),
        ("/opt/x\x1b[31m/evil\x1b[2J", "evil", "evil?[2J"),
    ],
)
def test_a_program_is_called_by_its_name_and_its_script(line: str, comm: str, name: str) -> None:
    words = [line] if ": " in line else line.split(" ")
    assert short_command([*words, ""], comm) == name


def test_code_given_as_an_argument_is_not_told() -> None:
    assert short_command(["sh", "-c", "curl -u me:secret http://x"], "sh") == "sh"
    assert short_command(["perl", "-ne", "print secret"], "perl") == "perl"
    assert short_command(["bash", "a script with blanks"], "bash") == "bash"


def test_an_empty_answer_stands_for_nobody_asked() -> None:
    assert find_owners([]) == Owners()
