"""`fourtuple snapshot`: what it writes and where to, and what it says when it cannot."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from fourtuple.cli.main import main
from fourtuple.live.anonymize import Aliases
from fourtuple.live.rows import Socket
from fourtuple.live.snapshot import Snapshot, read, write
from fourtuple.live.socket_table import SocketTable
from fourtuple.live.system import System
from fourtuple.sysctl import Sysctls
from tests.live.space import Space, needs_root
from tests.sandbox import Sandbox, fourtuple

TOOL = [sys.executable, "-m", "fourtuple.cli.main", "snapshot"]


def snapshot(*words: str, cwd: Path | None = None) -> tuple[int, bytes, str]:
    """(exit code, stdout, stderr)."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([*TOOL, *words], capture_output=True, cwd=cwd, env=environment, timeout=60)
    return done.returncode, done.stdout, done.stderr.decode()


@needs_root
def test_to_a_pipe_goes_the_file_and_nothing_else(tmp_path: Path) -> None:
    with Space() as space:
        space.listen(port=7777)
        code, out, err = snapshot("-N", space.path)
    assert (code, err) == (0, "")
    (tmp_path / "a").write_bytes(out)
    (found,) = read(tmp_path / "a")
    assert [(s.state, s.sport) for s in found.sockets] == [("LISTEN", 7777)]
    assert [owner.pid for owner in found.owner_of.values()] == [os.getpid()]


@needs_root
def test_to_a_file_it_says_what_is_in_it(tmp_path: Path) -> None:
    with Space() as space:
        listener = space.listen(port=7777)
        space.pair(listener)
        code, out, err = snapshot("-o", "web.snap", "-N", space.path, "--no-owners", "--anonymize", cwd=tmp_path)
    assert (code, out, err) == (0, b"web.snap: 3 sockets, 2 kB\n", "")
    (found,) = read(tmp_path / "web.snap")
    assert found.is_anonymized and found.owners is None and found.host == "host-1"


@needs_root
def test_the_namespace_of_a_pid_and_all_of_them(tmp_path: Path) -> None:
    with Space() as space:
        space.listen(port=7777)
        process = space.run(lambda: subprocess.Popen(["sleep", "60"]))
        try:
            assert snapshot("--pid", str(process.pid), "-o", str(tmp_path / "one"))[0] == 0
            code, out, _ = snapshot("--all-netns", "-o", str(tmp_path / "all"))
        finally:
            process.kill()
            process.wait()
        inode = space.run(os.stat, "/proc/thread-self/ns/net").st_ino
    assert code == 0
    assert f" of {len(read(tmp_path / 'all'))} network namespaces, ".encode() in out
    (one,) = read(tmp_path / "one")
    (same,) = (found for found in read(tmp_path / "all") if found.system.netns_inode == inode)
    assert one.system.netns_inode == inode
    assert [*one.sockets.sport] == [*same.sockets.sport] == [7777]


def test_a_terminal_gets_no_binary() -> None:
    main, other = pty.openpty()
    done = subprocess.run(TOOL, stdout=other, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(other)
    os.set_blocking(main, False)
    with pytest.raises(OSError):  # nothing was written
        os.read(main, 1)
    os.close(main)
    assert (done.returncode, done.stderr) == (
        2,
        "fourtuple: a snapshot is binary, and stdout is a terminal\n"
        "  try:  fourtuple snapshot > FILE\n        fourtuple snapshot -o FILE\n",
    )


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["-N", "nowhere"], 2, "fourtuple: network namespace nowhere: there is no /run/netns/nowhere "),
        (["-N", "/etc/passwd"], 2, "fourtuple: network namespace /etc/passwd: /etc/passwd is no network namespace "),
        (["--pid", "x"], 2, "fourtuple snapshot: --pid: 'x' is not a pid\n"),
        (["--pid", "4194303"], 2, "fourtuple: network namespace of pid 4194303: there is no such process\n"),
        (["--pid", "1", "-N", "a"], 2, "fourtuple snapshot: -N/--netns: not allowed with argument --pid\n"),
        (["-o", "/nonexistent/x"], 29, "fourtuple: -o: cannot write /nonexistent/x: No such file or directory\n"),
        (["-o", "/"], 29, "fourtuple: -o: cannot write /: Is a directory\n"),
        (["-o", "/dev/full"], 29, "fourtuple: -o: cannot write /dev/full: No space left on device\n"),
        (["rest"], 2, "fourtuple snapshot: one argument too many: 'rest'\n"),
    ],
)
def test_what_cannot_be_done_is_one_line(words: list[str], code: int, said: str) -> None:
    got, out, err = snapshot(*words)
    assert (got, out) == (code, b"")
    assert err.startswith(said)
    assert [line for line in err.splitlines() if not line.startswith(("  try:  ", "        "))] == [err.splitlines()[0]]


def test_a_namespace_that_cannot_be_read_leaves_the_file_alone(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("precious")
    assert snapshot("-N", "nowhere", "-o", str(tmp_path / "a"))[0] == 2
    assert (tmp_path / "a").read_text() == "precious"


def test_a_full_disk_behind_stdout_is_one_line() -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(TOOL, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 29
    assert done.stderr == "fourtuple: cannot write the snapshot: No space left on device\n"


def test_a_reader_that_has_gone_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(TOOL, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


@needs_root
def test_nobody_gets_a_snapshot_and_is_told_what_is_not_in_it(tmp_path: Path) -> None:
    with Space() as space:
        tmp_path.chmod(0o777)
        above = [path for path in tmp_path.parents if path.stat().st_uid == os.geteuid() and len(path.parts) > 2]
        modes = {path: path.stat().st_mode for path in above}
        for path in above:
            path.chmod(0o755)
        try:
            file = tmp_path / "a"
            done = fourtuple(Sandbox(), "snapshot", "-o", str(file))
            assert (done.returncode, done.stdout.startswith(f"{file}: ")) == (0, True)
            denied = fourtuple(Sandbox(), "snapshot", "-N", space.path)
        finally:
            for path, mode in modes.items():
                path.chmod(mode)
    (found,) = read(tmp_path / "a")
    assert found.system.netns_inode == os.stat("/proc/self/ns/net").st_ino
    assert all(line.startswith("fourtuple: owners of ") for line in done.stderr.splitlines())
    assert (denied.returncode, denied.stdout) == (77, "")
    assert denied.stderr.startswith("fourtuple: network namespace ") and denied.stderr.count("\n") == 1


@pytest.mark.parametrize("words", [["snapshot", "-o"], ["map", "--html"], ["connect", ":80", "-w"]])
@needs_root
def test_a_place_that_may_not_be_written_is_a_matter_of_permission(words: list[str]) -> None:
    done = fourtuple(Sandbox(), *words, "/etc/none")
    said = f"fourtuple: {words[-1]}: cannot write /etc/none: Permission denied\n"
    assert (done.returncode, done.stdout, done.stderr) == (77, "", said)


@needs_root
def test_two_anonymous_snapshots_are_compared_under_the_same_names(tmp_path: Path) -> None:
    def doctor(*words: str) -> subprocess.CompletedProcess[str]:
        command = [*TOOL[:-1], "doctor", "-H", *words]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=60)

    def take(name: str, *words: str) -> None:
        assert snapshot("-N", space.path, "--no-owners", "--anonymize", *words, "-o", name, cwd=tmp_path)[0] == 0

    with Space() as space:
        sysctl = lambda: Path("/proc/sys/net/ipv4/ip_local_port_range").write_text("40000 40099")  # noqa: E731
        space.run(sysctl)
        listener = space.listen(port=7777)
        held = [space.pair(listener) for _ in range(10)]
        take("a", "--aliases", "names")
        take("x")
        first = space.listen("127.0.0.5", port=7778)
        space.pair(first)
        held += [space.pair(listener) for _ in range(10)]
        take("b", "--aliases", "names")
        take("early", "--aliases", "names")
    assert (tmp_path / "names").stat().st_mode & 0o777 == 0o600
    assert "FULL IN" not in doctor("-r", "b").stdout
    rated = doctor("--json", "-r", "a", "-r", "b")
    assert '"ports_per_s": null' not in rated.stdout and rated.returncode == 0, rated.stderr
    refused = doctor("-r", "b", "-r", "a")
    assert (refused.returncode, refused.stderr) == (
        2, "fourtuple: doctor: -r: b is not earlier than a: give the earlier one first\n"
    )  # fmt: skip
    assert len(held) == 20


def test_a_file_that_holds_no_aliases_is_left_alone(tmp_path: Path) -> None:
    for text in ("", "{}", '{"schema": "fourtuple.aliases/1", "names": {"ipv6 fe80": ["xyz"]}}', "[]"):
        (tmp_path / "names").write_text(text)
        code, out, err = snapshot("--anonymize", "--aliases", "names", "-o", "a", cwd=tmp_path)
        assert (code, out) == (2, b"")
        assert err.startswith("fourtuple: --aliases: names is no file of aliases; ")
        assert (tmp_path / "names").read_text() == text
        assert os.listdir(tmp_path) == ["names"]
    assert snapshot("--aliases", "names")[0] == 2


def fleet(at: float, ports: range) -> Snapshot:
    """A machine that is connected to one host a port."""
    rows = [Socket(2, "ESTABLISHED", "10.0.0.5", p, f"10.1.0.{p % 250 + 1}", 443, inode=p) for p in ports]
    system = System("web-17", "6.18.44", at, "", 4026531840, Sysctls())
    return Snapshot(SocketTable.of(rows, source="sock_diag", taken_at=at), system)


def test_names_that_do_not_agree_are_not_compared(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The second reading meets another host first, so each of the others has another number."""
    first, second = fleet(100.0, range(40_010, 40_200)), fleet(110.0, range(40_000, 40_200))
    kept = Aliases()
    for name, taken, aliases in (
        ("a", first, kept), ("b", second, kept), ("x", first, Aliases()), ("y", second, Aliases())
    ):  # fmt: skip
        write([aliases.snapshot(taken)], tmp_path / name)

    def doctor(earlier: str, later: str) -> tuple[int, str]:
        code = main(["doctor", "-r", str(tmp_path / earlier), "-r", str(tmp_path / later)])
        return code, capsys.readouterr().err

    assert doctor("a", "b") == (0, "")
    code, err = doctor("x", "y")
    assert code == 2 and err.count("\n") == 1
    assert err.endswith("were taken with the same `snapshot --aliases FILE`\n")


def test_names_that_were_kept_are_the_same_again() -> None:
    one = Aliases()
    before = [one.address(text) for text in ("10.0.0.9", "2001:db8:1::9", "8.8.8.8")]
    again = Aliases(json.loads(json.dumps(one.known())))
    assert [again.address(text) for text in ("8.8.8.8", "2001:db8:1::9", "10.0.0.9")] == before[::-1]
    assert again.address("10.0.0.1") not in before
