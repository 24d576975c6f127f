"""`-w FILE` of connect and demo: the file, what is said of it, and what cannot be done."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fourtuple.cli.main import main
from tests.cli.schema import check, load
from tests.phy.pcapng_reader import Packet, read_pcapng
from tests.tshark import need_tshark

CONNECT = ["connect", ":8080", "--wire", "sim", "--seed", "7"]
LOST = "tcp_connect > tcp_transmit_skb: SYN, #1 · lost (syn:1)"
WAIT_SECONDS = 20
elsewhere = pytest.mark.compiled_only  # what it runs is another process, and that is always compiled


def run(capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of `fourtuple connect` on the simulated wire."""
    code = main([*CONNECT, *options])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def packets_of(path: Path) -> list[Packet]:
    return read_pcapng(path.read_bytes()).packets


# ------------------------------------------------------------------------------------------------ connect


@pytest.mark.parametrize("columns", [80, 120])
def test_the_summary_names_the_file(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, "--loss", "syn:1", "-w", "connect.pcapng")
    assert (code, err) == (0, "")
    packets = packets_of(tmp_path / "connect.pcapng")
    remark = (
        f"connect.pcapng: {len(packets)} packets, each with a comment naming its function (wireshark: frame.comment)"
    )
    assert remark in " ".join(out.split())
    assert max(map(len, out.splitlines())) <= columns
    assert packets[0].comment == LOST
    assert all(packet.comment for packet in packets)


def test_quiet_is_the_result_only(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, _ = run(capsys, "-q", "-w", str(tmp_path / "a"))
    assert (code, out.count("\n")) == (0, 1)
    assert packets_of(tmp_path / "a")


def test_a_connect_that_sends_nothing_leaves_an_empty_capture(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "none.pcapng"
    code, out, _ = run(capsys, "--fill", "100%", "-w", str(path))
    assert (code, packets_of(path)) == (20, [])
    assert "none.pcapng: no packet" in "".join(out.split("\n"))


def test_the_json_report_names_the_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "a.pcapng"
    code, out, err = run(capsys, "--json", "-w", str(path))
    document = json.loads(out)
    check(load("connect-1"), document)
    assert (code, err) == (0, "")
    assert document["capture"] == {"file": str(path), "packets": len(packets_of(path))}
    assert len(packets_of(path)) == len(document["packets"])
    _, out, _ = run(capsys, "--json")
    assert json.loads(out)["capture"] is None


def test_the_same_seed_gives_the_same_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for name in "ab":
        run(capsys, "--loss", "30%", "--http", "-w", str(tmp_path / name))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_longer_file_that_was_there_is_replaced(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x" * 100_000)
    run(capsys, "-w", str(path))
    assert packets_of(path)


def test_a_run_that_fails_before_its_wire_is_open_leaves_files_as_they_were(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("fourtuple.phy.tun.PATH", "/nonexistent/tun")
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_bytes(b"precious")
    for path in (old, new):
        assert main(["connect", "192.0.2.1:80", "--wire", "tun-host", "-w", str(path)]) == 69
        assert main(["connect", ":80", "--range", "1-2", "-w", str(path)]) == 2
    assert (old.read_bytes(), new.exists()) == (b"precious", False)


# ------------------------------------------------------------------------------------------------ stdout


def test_stdout_has_the_packets_and_stderr_the_text(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert main([*CONNECT, "-w", "-"]) == 0
    captured = capfdbinary.readouterr()
    assert len(read_pcapng(captured.out).packets) >= 3
    assert b"connect() = 0 in 10.0 ms" in captured.err
    assert b"stdout: " in captured.err


@elsewhere
def test_tshark_reads_from_the_pipe() -> None:
    need_tshark()
    command = (
        f"{sys.executable} -m fourtuple.cli.main {' '.join(CONNECT)} -w - | tshark -r - -T fields -e frame.comment"
    )
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[0] == "tcp_connect > tcp_transmit_skb: SYN, #1"


def test_stdout_cannot_be_shared_with_json(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "--json", "-w", "-")
    assert (code, out, err) == (2, "", "fourtuple: -w - and --json both want stdout; give -w a file\n")


@elsewhere
def test_a_terminal_gets_no_packets() -> None:
    master, slave = os.openpty()
    try:
        command = [sys.executable, "-m", "fourtuple.cli.main", *CONNECT, "-w", "-"]
        done = subprocess.run(command, stdout=slave, stderr=subprocess.PIPE, text=True, timeout=60)
    finally:
        os.close(slave)
        os.close(master)
    assert done.returncode == 2
    assert done.stderr.startswith("fourtuple: -w -: packets are not for a terminal")
    assert done.stderr.count("\n") == 1


@elsewhere
def test_a_reader_that_goes_away_is_no_error() -> None:
    command = f"{sys.executable} -m fourtuple.cli.main {' '.join(CONNECT)} --http -q -w - 2>&1 >&7"
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            ["bash", "-c", command.replace(">&7", f">&{writing}")],
            pass_fds=[writing],
            capture_output=True,
            text=True,
            timeout=60,
        )
    finally:
        os.close(writing)
    assert (done.returncode, "Traceback" in done.stdout, "fourtuple:" in done.stdout) == (0, False, False)


# ------------------------------------------------------------------------------------------------ files that cannot be


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/nonexistent/a", "No such file or directory"),
        ("/", "Is a directory"),
        ("/dev/full", "No space left on device"),
    ],
)
def test_a_file_that_cannot_be_written_is_one_line(capsys: pytest.CaptureFixture[str], path: str, why: str) -> None:
    code, _, err = run(capsys, "-q", "-w", path)
    assert (code, err) == (29, f"fourtuple: -w: cannot write {path}: {why}\n")


@pytest.mark.parametrize("command", [CONNECT, ["demo", "--wire", "sim"]], ids=["connect", "demo"])
def test_packets_and_page_cannot_share_a_file(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, command: list[str]
) -> None:
    both = tmp_path / "both"
    (tmp_path / "other-name").symlink_to(both)
    assert main([*command, "-w", str(both), "--html", str(tmp_path / "other-name")]) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err.count("\n")) == ("", 1)
    assert captured.err.endswith("give each its own file\n")
    assert not both.exists()


def test_it_is_found_out_before_anything_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "-w", "/nonexistent/a")
    assert (code, out) == (29, "")


def test_a_full_disk_is_told_after_the_answer(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "--http", "-w", "/dev/full")
    assert code == 29
    assert "200 OK" in out
    assert err == "fourtuple: -w: cannot write /dev/full: No space left on device\n"


# -------------------------------------------------------------------------------------------- the end of the process


@elsewhere
@pytest.mark.parametrize(("how", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_the_file_is_whole_whatever_ends_the_process(tmp_path: Path, tun: str, how: signal.Signals, code: int) -> None:
    path = tmp_path / "cut.pcapng"
    command = ["connect", ":8080", "--wire", tun, "--loss", "syn", "-w", str(path)]
    process = subprocess.Popen([sys.executable, "-m", "fourtuple.cli.main", *command], stdout=subprocess.DEVNULL)
    try:
        give_up = time.monotonic() + WAIT_SECONDS
        while not (path.exists() and path.read_bytes() and packets_of(path)):
            assert time.monotonic() < give_up and process.poll() is None
            time.sleep(0.02)
        process.send_signal(how)
        assert process.wait(WAIT_SECONDS) == code
    finally:
        process.kill()
        process.wait()
    assert packets_of(path)[0].comment == "tcp_connect > tcp_transmit_skb: SYN, #1 · lost (syn)"


# ------------------------------------------------------------------------------------------------ demo


def test_demo_captures_its_chapters_but_not_the_filled_range(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "demo.pcapng"
    assert main(["demo", "--wire", "sim", "-w", str(path)]) == 0
    capture = read_pcapng(path.read_bytes())
    assert [interface.options[3].decode() for interface in capture.interfaces] == [
        "one connect()",
        "the first SYN is lost",
        "one port, many destinations",
        "bind() before connect()",
    ]
    assert f"{path.name}: {len(capture.packets)} packets" in "".join(capsys.readouterr().out.split("\n"))
    assert next(p.comment for p in capture.packets if p.interface == 1) == LOST
    assert all(packet.comment for packet in capture.packets)
    times = [packet.time_ns for packet in capture.packets]
    assert times == sorted(times)


def test_demo_refuses_a_file_that_cannot_be_written(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--wire", "sim", "-w", "/nonexistent/a"]) == 29
    assert capsys.readouterr().err == "fourtuple: -w: cannot write /nonexistent/a: No such file or directory\n"
