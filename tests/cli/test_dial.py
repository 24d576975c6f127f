"""`fourtuple dial` from end to end: text, JSON, exit codes, refusals, Ctrl-C.

Most of it on the simulated wire, where a seed gives the same run; a few on a TUN, with the kernel's listener.
"""

from __future__ import annotations

import errno
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fourtuple.cli.main import main
from fourtuple.dial.report import DialReport
from fourtuple.shell.wires import WireUnavailable
from tests.cli.golden import check_golden
from tests.cli.schema import check, load
from tests.dial.reports import all_failed, all_well

SIM = ["--wire", "sim", "--seed", "7"]
MEASURED = re.compile(r"^  (memory|CPU) .*\n(?: {15}.*\n)*", re.MULTILINE)


def dial(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(["dial", *words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def report(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    code, out, err = dial(capsys, *words, "--json")
    document: dict[str, Any] = json.loads(out)
    check(load("dial-1"), document)
    assert (document["exit"], err) == (code, "")
    return document


# ------------------------------------------------------------------------------------------ what it says

TEXTS = {
    "plain": ["2000", ":8080", *SIM, "--rate", "1k/s", "--hold", "5s"],
    "shared": ["300", "10.64.1.0/30:8080", *SIM, "--range", "40000-40099", "-v"],
    "lossy": ["200", ":8080", *SIM, "--loss", "syn:1-150", "--timeout", "500ms", "--redial", "1"],
    "full": ["120", ":8080", *SIM, "--range", "40000-40099", "--force"],
    "refused": ["50", ":8080", ":8081", *SIM, "--server", "closed"],
}


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("text", TEXTS)
def test_the_text_is_known(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, text: str, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr("platform.node", lambda: "web-17")
    monkeypatch.setattr("fourtuple.dial.facts.memory_available", lambda: 1 << 30)
    _, out, err = dial(capsys, *TEXTS[text])
    assert err == ""
    assert max(map(len, out.splitlines())) <= width
    check_golden(f"dial-sim-{text}-{width}.txt", MEASURED.sub("", out))


def test_a_seed_repeats_a_dial(capsys: pytest.CaptureFixture[str]) -> None:
    first, second, other = (
        report(capsys, "500", "10.64.1.0/30:80", *words, "--loss", "5%")
        for words in (SIM, SIM, ["--wire", "sim", "--seed", "8"])
    )
    for document in (first, second, other):
        for measured in ("date", "memory", "cpu_s", "cpu_us_per_connection", "preflight"):
            del document[measured]
    assert first == second
    assert first["syn"] != other["syn"]


def test_the_document_has_the_plan_and_what_came_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--rate", "6k/min", "--ramp", "1s", "--close", "rst", "--keepalive", "2s", "--sources", "10.64.4.0/30")
    found = report(capsys, "1.5k", "10.64.1.1-10.64.1.3:80", ":90", *SIM, *words)
    asked = found["asked"]
    assert (asked["connections"], asked["rate"], asked["ramp_s"], asked["close"]) == (1500, 100.0, 1.0, "rst")
    assert (asked["targets"]["count"], asked["sources"]["count"], asked["keepalive_s"]) == (4, 4, 2)
    assert asked["targets"]["first"] == ["10.64.1.1:80", "10.64.1.2:80", "10.64.1.3:80", "10.64.0.1:90"]
    assert found["connections"]["established"] == found["connections"]["closed"] == 1500
    assert found["wire"] == "sim, no kernel and no real time, our server: hold"
    assert 15 < found["seconds"]["open"] < 16  # half a second of the ramp is lost
    assert found["times"]["connect_us"]["count"] == 0  # no time passes in a simulated call
    assert {row["established"] for row in found["targets"]} == {375}


def test_a_target_that_is_named_twice_is_one_and_has_one_server(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("10.64.1.1:80", "10.64.1.0/30:80", "10.64.1.2-10.64.1.5:80", ":80", "http://10.64.0.1/")
    found = report(capsys, "70", *words, *SIM)
    assert (found["asked"]["targets"]["count"], found["connections"]["established"]) == (7, 70)


def test_a_page_and_a_document_of_one_run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    page = tmp_path / "dial.html"
    assert report(capsys, "10", ":80", *SIM, "--html", str(page))["exit"] == 0
    assert "all 10 connections were established" in page.read_text()


def test_two_dials_become_one_report(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for name, words in {"a": ["300", ":80"], "b": ["200", ":90", "--server", "closed"]}.items():
        _, out, _ = dial(capsys, *words, *SIM, "--json")
        (tmp_path / f"{name}.json").write_text(out)
    assert main(["report", "merge", *map(str, sorted(tmp_path.iterdir())), "--json"]) == 10
    found = json.loads(capsys.readouterr().out)
    check(load("dial-1"), found)
    assert (found["connections"]["established"], found["connections"]["failed"]) == (300, 200)
    assert found["failures"][0]["errno"] == "ECONNREFUSED"
    assert [worker["established"] for worker in found["workers"]] == [300, 0]


def test_a_pipe_gets_no_progress_and_ascii_means_ascii(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = dial(capsys, "20", ":80", *SIM, "--ascii")
    assert (code, err) == (0, "")
    assert out.isascii()
    assert "\r" not in out


def test_the_help_fits_eighty_columns(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main(["dial", "--help"])
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


# ------------------------------------------------------------------------------------------ exit codes


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0, ["5", ":80"]),
        (2, ["30000", ":80"]),
        (10, ["12", ":80", "--range", "40000-40009", "--force"]),
        (10, ["12", ":80", "--max-sockets", "5", "--force"]),
        (20, ["5", ":80", "--range", "40000-40001", "--reserve", "40000-40001", "--force"]),
        (21, ["5", ":80", "--server", "closed"]),
        (22, ["5", ":80", "--loss", "syn", "--timeout", "2s"]),
        (68, ["5", "nosuch.invalid:80"]),
    ],
)
def test_each_end_has_its_exit_code(capsys: pytest.CaptureFixture[str], code: int, words: list[str]) -> None:
    assert dial(capsys, *words, *SIM)[0] == code


@pytest.mark.parametrize(
    ("code", "found"),
    [
        (23, all_failed("EHOSTUNREACH", errno.EHOSTUNREACH)),
        (24, all_failed("ECONNRESET", errno.ECONNRESET)),
        (29, all_failed("EPERM", errno.EPERM)),
    ],
)
def test_errnos_that_no_wire_gives_here(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, code: int, found: DialReport
) -> None:
    monkeypatch.setattr("fourtuple.dial.user.run_user", lambda *_: found)
    assert dial(capsys, "5", ":80", *SIM)[0] == code


@pytest.mark.parametrize(("code", "number"), [(69, errno.ENOENT), (77, errno.EACCES)])
def test_a_wire_that_is_not_here_is_one_line_and_what_to_do(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, code: int, number: int
) -> None:
    def refused(*_: object) -> None:
        raise WireUnavailable(number, "no device", "sudo modprobe tun")

    monkeypatch.setattr("fourtuple.shell.wires.open_wire", refused)
    found, out, err = dial(capsys, "5", ":80", "--wire", "tun")
    assert (found, out) == (code, "")
    assert err.startswith("fourtuple: no device\n  try:  sudo modprobe tun\n")


@pytest.mark.parametrize(
    ("number", "advice"),
    [(errno.ENOMEM, "fewer connections; "), (errno.EMFILE, "ulimit -n"), (errno.ECHILD, "dmesg: ")],
)
def test_a_limit_of_the_machine_is_no_bug_of_ours(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, number: int, advice: str
) -> None:
    def limited(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fourtuple.shell.wires.open_wire", limited)
    code, out, err = dial(capsys, "5", ":80")
    assert (code, out) == (29, "")
    assert err.startswith(f"fourtuple: {os.strerror(number)}\n  try:  {advice}")


def test_refusals_of_servers_that_were_ended_are_no_answer(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tun: str
) -> None:
    def run_kernel(*_: object, netns: int, **__: object) -> DialReport:
        os.kill(netns, signal.SIGKILL)
        with open(os.pidfd_open(netns)) as ended:
            select.select([ended], [], [])
        return all_well()

    monkeypatch.setattr("fourtuple.dial.kernel.run_kernel", run_kernel)
    code, out, err = dial(capsys, "5", ":80", "--stack", "kernel", "--wire", tun)
    assert (code, out) == (69, "")
    assert err.startswith("fourtuple: the helper process of the private namespace has been ended\n")


# ------------------------------------------------------------------------------------------ what is refused

REFUSED = {
    "0 :80": "N: '0' is no count of connections; say for example 500, 20k or 1M (at most 16M)",
    "17M :80": "N: '17M' is no count of connections",
    "1.5 :80": "N: '1.5' is no count of connections",
    "5 web": "TARGET: no port in 'web'",
    "5 10.0.0.0/33:80": "TARGET: not a prefix: '10.0.0.0/33'",
    "5 10.0.0.9-10.0.0.1:80": "TARGET: 10.0.0.9-10.0.0.1: the first address is above the last",
    "5 10.0.0.0/8:80": "TARGET: 10.0.0.0/8: at most 65,536 addresses",
    "5 10.64.0.1:0": "10.64.0.1:0: no server can be there",
    "5 224.0.0.1:80": "224.0.0.1:80: no server can be there",
    "5 10.64.0.0/30:80": "10.64.0.0/30: 10.64.0.2 is our own end of the wire",
    "5 localhost:80": "127.0.0.1: nobody listens on the loopback there",
    "5 10-64-0-1:80": "10-64-0-1: no address for this name",
    "5 [::1]:80": "::1: no IPv6 on these wires yet",
    "5 :80 --rate 0": "--rate: '0' is no rate; say for example 500/s, 20k/s or 30/min",
    "5 :80 --ramp 1s": "--ramp needs a --rate to grow to",
    "5 :80 --window 0": "--window: '0' is no number from 1 to 1048576",
    "5 :80 --redial x": "--redial: 'x' is no number",
    "5 :80 --redial 64": "--redial: at most 63 times",
    "5 :80 --hold 5": "--hold: '5' is not a duration",
    "5 :80 --keepalive 1500ms": "--keepalive: '1500ms': whole seconds",
    "5 :80 --close no": "--close: invalid choice: 'no'",
    "5 :80 --sources web": "--sources: not an IPv4 address: 'web'",
    "5 :80 --sources 10.64.0.0/30": "--sources: 10.64.0.0/30 has addresses in it that are not ours to take",
    "5 :80 --range 9-5": "--range: '9-5': ports run from 1 to 65535, the lower one first",
    "5 :80 --range 80-90": "Linux refuses net.ipv4.ip_local_port_range = '80 90' (EINVAL)",
    "5 :80 --range 80-90 --stack kernel": "Linux refuses net.ipv4.ip_local_port_range = '80 90' (EINVAL)",
    "5 :80 --keepalive 10h --stack kernel": "--keepalive: at most 32767s (TCP_KEEPIDLE)",
    "5 :80 --reserve x": "--reserve: 'x' is not a list of ports",
    "5 :80 --profile 1": "--profile: no profile of Linux '1'",
    "5 :80 --processes 65": "at most 64 processes, not 65",
    "5 :80 --processes 4 --sources 10.64.4.1": "4 processes cannot share 1 source address: give",
    "5 :80 --wire tin": "--wire: no wire 'tin'. Did you mean 'tun'?",
    "5 :80 --wire kernel": "--wire kernel is for kernel sockets: add --stack kernel",
    "5 :80 --stack kernel --wire kernel": "--wire kernel: no server of ours is there; name one, HOST:PORT",
    "5 :80 --stack kernel --wire sim": "--stack kernel cannot use --wire sim",
    "5 :80 --stack kernel --loss 5%": "--loss is for our own stack, not for kernel sockets",
    "5 :80 --stack kernel --seed 0": "--seed is for our own stack, not for kernel sockets",
    "5 :80 --step-1": "--step-1 is for kernel sockets: add --stack kernel",
    "5 :80 --nat": "--nat is for --wire tun-host",
    "5 10.9.9.9:80 --wire tun-host --server http": "--server: on --wire tun-host the servers are not ours",
    "5 :80 --http --send x": "--http is a script of its own; leave out --send and --expect",
    "5 :80 --http x": "--http: 'x' is no path",
    "5 :80 --send \\q": "--send: \\q: there are \\r \\n \\t \\0 \\\\ and \\x00 to \\x7f",
    "5 :80 --http --wire sim": "--wire sim: its server ends each connection after one answer",
    "5 :80 --every 1s": "--every is how often to talk: add --http, or --send and --expect",
    "5 :80 --http --every 0s": "--every: more than 0, as 1s or 100ms",
    "5 :80 --on web:80": "--on: 'web:80' is no cluster; say dask://HOST:PORT, or dask://local",
    "5 :80 --on dask://local --check": "--check looks at this machine; leave out --on",
    "5 :80 --html -": "--html: a page goes to a file",
    "5 :80 -q -v": "-v/--verbose: not allowed with argument -q/--quiet",
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_makes_no_sense_is_refused_in_one_line(capsys: pytest.CaptureFixture[str], words: str) -> None:
    code, out, err = dial(capsys, *words.split())
    first, *hints = err.splitlines()
    assert first.removeprefix("fourtuple").removeprefix(" dial").startswith(f": {REFUSED[words]}")
    assert all(line.startswith(("  try:  ", " " * 8)) for line in hints)
    assert len(hints) <= 2
    assert (code, out) == (69 if "::1" in words else 68 if "10-64" in words else 2, "")


# ------------------------------------------------------------------------------------------ what will not fit

TOO_MUCH = {
    "ports": ["30000", ":8080"],
    "rows": ["300", ":8080", "--max-sockets", "100"],
    "files": ["30000", ":8080", "--stack", "kernel"],
    "server": ["25000", ":8080", "--server", "echo"],
    "window": ["10k", ":8080", "--stack", "kernel", "--sources", "10.64.4.1", "--range", "40000-40999"],
}


def changes(capsys: pytest.CaptureFixture[str], words: list[str]) -> list[list[list[str]]]:
    """The options that each line suggests."""
    found = report(capsys, *words, "--check")
    assert found["exit"] == 2
    bad = [fit["change"] for fit in found["preflight"] if not fit["fits"]]
    return [[option.split() for option in re.findall(r"--[a-z-]+(?: [\w./-]+)?", change)] for change in bad]


@pytest.mark.parametrize("name", TOO_MUCH)
def test_every_option_that_is_suggested_makes_it_fit(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("fourtuple.dial.facts.file_limit", lambda: 20_000)
    lines = changes(capsys, TOO_MUCH[name])
    for line in lines:
        assert line
        for option in line:
            others = [word for other in lines if other is not line for word in other[0]]
            assert dial(capsys, *TOO_MUCH[name], *others, *option, "--check")[0] == 0, option


def test_a_dial_that_will_not_fit_is_not_begun_and_its_suggestion_works(
    capsys: pytest.CaptureFixture[str], tun: str
) -> None:
    words = ["150", ":8080", "--wire", tun, "--range", "40000-40099"]
    code, out, err = dial(capsys, *words)
    assert (code, out) == (2, "")
    bad, change, last = err.splitlines()
    assert bad == "✗ local ports for each source and target  need 150, have 100"
    assert change.startswith("    try   --range 1024-65535, or --sources ")
    assert last == "fourtuple: that will not fit; --force dials all the same"
    sources = re.search(r"--sources (\S+),", change)
    assert sources
    for option in (["--sources", sources[1]], ["--range", "1024-65535"]):
        assert report(capsys, *words, *option)["connections"]["peak_open"] == 150


def test_check_does_not_dial(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fourtuple.cli.dial._Dial.run", lambda *_: pytest.fail("dialed"))
    code, out, err = dial(capsys, "1M", "10.65.0.0/26:8080", "--check")
    assert (code, err) == (0, "")
    assert out.startswith("✓ local ports for each source and target  need 15 625, have 28 232\n")


# ------------------------------------------------------------------------------------------ the kernel's listener


def test_our_stack_and_kernel_sockets_report_alike(capsys: pytest.CaptureFixture[str], tun: str) -> None:
    words = ["400", "10.64.1.0/31:8080", "--range", "40000-40399"]
    ours, theirs = report(capsys, *words, "--wire", tun), report(capsys, *words, "--stack", "kernel")
    assert ours.keys() == theirs.keys()
    assert ours["asked"] == theirs["asked"]
    for part in ("connections", "targets"):
        assert ours[part] == theirs[part]
    assert ours["ports"]["busiest"]["connections"] == theirs["ports"]["busiest"]["connections"] == 2
    for found in (ours, theirs):
        assert found["times"]["connect_us"]["count"] > 0
        assert found["times"]["handshake_us"]["count"] == 400
        assert found["left"] == {"sockets": 0, "timers": 0, "packets": 0}


@pytest.mark.parametrize("stack", ["user", "kernel"])
def test_a_script_is_held_for_one_turn_and_an_answer_that_never_comes_is_told(
    capsys: pytest.CaptureFixture[str], tun: str, stack: str
) -> None:
    words = ["20", ":8080", "--wire", tun, "--stack", stack, "--send", "PING\\r\\n", "--every", "300ms"]
    good = report(capsys, *words, "--expect", "PING\\r\\n")
    assert (good["exit"], good["asked"]["hold_s"]) == (0, 0.3)
    assert 0 < good["talk"]["responses"] <= good["talk"]["requests"]
    bad = report(capsys, *words, "--expect", "PONG")
    assert (bad["exit"], bad["talk"]["responses"]) == (10, 0)


def test_several_processes_have_addresses_of_their_own(capsys: pytest.CaptureFixture[str], tun: str) -> None:
    found = report(capsys, "150", ":8080", "--wire", tun, "--range", "40000-40099", "--processes", "2")
    assert [worker["established"] for worker in found["workers"]] == [75, 75]


# ------------------------------------------------------------------------------------------ Ctrl-C


def test_ctrl_c_has_the_report_and_a_second_one_does_not_wait(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    times = 1

    def run_user(plan: object, wire: object, on_progress: object, should_stop: Any) -> DialReport:
        assert not should_stop()
        for _ in range(times):
            os.kill(os.getpid(), signal.SIGINT)
            assert should_stop()
        return all_well()

    monkeypatch.setattr("fourtuple.dial.user.run_user", run_user)
    code, out, err = dial(capsys, "5", ":80", *SIM, "--json")
    assert (code, json.loads(out)["exit"]) == (130, 130)
    assert err == "fourtuple: stopped by Ctrl-C; what was open has been closed\n"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    times = 2
    assert dial(capsys, "5", ":80", *SIM) == (130, "", "")


def until(terminal: int, text: bytes) -> bytes:
    """What a terminal shows until `text` is on it."""
    seen = b""
    while text not in seen:
        assert select.select([terminal], [], [], 30)[0], seen
        seen += os.read(terminal, 4096)
    return seen


@pytest.mark.compiled_only  # a process of its own, which is
def test_a_terminal_has_progress_and_ctrl_c_ends_the_hold(tun: str) -> None:
    leader, follower = pty.openpty()
    words = ["dial", "300", ":8080", "--wire", tun, "--hold", "1h", "--json"]
    with subprocess.Popen(
        [sys.executable, "-m", "fourtuple.cli.main", *words],
        stdout=subprocess.PIPE,
        stderr=follower,
        env=os.environ | {"COLUMNS": "80", "TERM": "xterm", "NO_COLOR": "1"},
    ) as command:
        assert "█████".encode() in until(leader, b"holding  300 open  0 failed")
        command.send_signal(signal.SIGINT)
        found = json.loads(command.communicate(timeout=30)[0])
        # One line that is replaced, and then taken away for the note.
        shown = until(leader, b"has been closed")
        assert b"\n" not in shown.partition(b"fourtuple: stopped by Ctrl-C")[0]
    os.close(leader)
    os.close(follower)
    assert (command.returncode, found["connections"]["closed"]) == (130, 300)
    assert found["seconds"]["hold"] < 3600
