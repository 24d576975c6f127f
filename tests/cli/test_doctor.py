"""`fourtuple doctor` from end to end, on namespaces made sick for it."""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fourtuple.cli import doctor as command
from fourtuple.cli.doctor_text import _next
from fourtuple.cli.main import main
from fourtuple.doctor.finding import KINDS, WARNING, Finding, Fix
from fourtuple.doctor.findings import Question, diagnose
from fourtuple.doctor.reading import Reading
from fourtuple.doctor.what_if import KEYS
from fourtuple.live.snapshot import take_snapshot, write
from tests.cli.schema import check, load
from tests.doctor.sick import HIGH, LOW, OTHER_SOURCE, PORTS, SOURCE, A, B, C, Sick
from tests.live.space import needs_root


@pytest.fixture
def sick() -> Iterator[Sick]:
    with Sick() as made:
        yield made


@pytest.fixture(autouse=True)
def width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(["doctor", *words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def report(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    code, out, err = run(capsys, *words, "--json")
    document: dict[str, Any] = json.loads(out)
    check(load("doctor-1"), document)
    assert (document["exit"], err) == (code, "")
    return document


def kinds(document: dict[str, Any]) -> list[str]:
    return [finding["kind"] for finding in document["findings"]]


# ------------------------------------------------------------------------------------------ text


@needs_root
def test_all_is_well(sick: Sick, capsys: pytest.CaptureFixture[str]) -> None:
    listener = sick.listen(SOURCE, 9000)
    for _ in range(40):
        sick.pair(listener)
    code, out, err = run(capsys, "-N", sick.path)
    lines = out.splitlines()
    assert (code, err) == (0, "")
    assert re.fullmatch(r".+ · Linux \S+ · netns \S+ · 81 TCP sockets read by sock_diag in \d+ ms · [\d:]{8}", lines[0])
    assert lines[1] == f"range {LOW}–{HIGH} = 400 ports (even first) · reserved none · tcp_tw_reuse 2 (loopback only)"
    assert lines[3].split() == ["DESTINATION", "SOURCE", "ESTAB", "SYN", "TW", "FILL", "NEXT", "connect()"]
    assert lines[4].split()[:6] == ["10.77.0.1:9000", SOURCE, "40", "0", "0", "10%"]
    assert lines[-1] == "✓ nothing is wrong; the fullest destination has 10 %"


@needs_root
def test_a_full_destination_and_one_that_is_filling(sick: Sick, capsys: pytest.CaptureFixture[str]) -> None:
    sick.hold(PORTS, A)
    sick.hold(80, (A[0], 444), bind=(OTHER_SOURCE, 0), no_port=True)
    code, out, err = run(capsys, "-p", "--warn", "15%", "-N", sick.path)
    assert (code, err) == (11, "")
    lines = out.splitlines()
    rows = [line for line in lines if line[:1] in "✗▲" and " 203" in line[:5]]
    assert rows[0].startswith("✗ 203.0.113.1:443  10.77.0.1") and rows[0].endswith("100%  EADDRNOTAVAIL")
    assert rows[1].startswith("▲ 203.0.113.1:444  10.77.0.2") and " 20%  " in rows[1] and "cliff 120 away" in rows[1]
    text = "\n".join(lines)
    assert "✗ 203.0.113.1:443   the next connect() from 10.77.0.1 fails: EADDRNOTAVAIL" in text
    assert re.search(rf"held by   \S.*\[{os.getpid()}\]: 400\n", text)
    for label in ("seen ", "rule ", "fix ", "not it "):
        assert f"\n    {label}" in text
    pasted = re.sub(r" \\\n +", " ", text)
    assert f'nsenter --net={sick.path} sysctl -w net.ipv4.ip_local_port_range="15000 64999"' in pasted
    assert re.search(r"\n1 critical, 1 warning(     |\n  )next: fourtuple map 203.0.113.1:443 -N", text)


@needs_root
@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("options", [["--ascii"], [], ["--what-if", "sources=2"]])
def test_nothing_is_wider_than_the_terminal(
    sick: Sick, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int, options: list[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    sick.hold(PORTS, A)
    sick.hold(PORTS // 2 + 20, B)
    sick.hold(80, C, bind=(OTHER_SOURCE, 0))
    _, out, _ = run(capsys, "-p", "-N", sick.path, *options)
    # a path or a command that is longer stays whole
    whole = (sick.path, "    fourtuple", "  next: fourtuple")
    assert [line for line in out.splitlines() if len(line) > width and not any(each in line for each in whole)] == []
    assert out.isascii() == ("--ascii" in options)


@needs_root
def test_bars_are_for_terminals(sick: Sick, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    sick.hold(PORTS // 2, A)
    assert "█" not in run(capsys, "-N", sick.path)[1]
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "██████ " in run(capsys, "-N", sick.path, "--color", "never")[1]


@needs_root
def test_no_header_leaves_the_rows(sick: Sick, capsys: pytest.CaptureFixture[str]) -> None:
    sick.hold(20, A)
    sick.hold(10, B)
    _, out, _ = run(capsys, "-H", "-N", sick.path)
    assert [line.split()[0] for line in out.splitlines()[:2]] == ["203.0.113.1:443", "203.0.113.2:443"]


@needs_root
def test_small_destinations_are_counted_and_all_shows_them(sick: Sick, capsys: pytest.CaptureFixture[str]) -> None:
    sick.hold(30, A)
    for host in range(1, 9):
        sick.hold(1, (f"203.0.113.{host + 50}", 443))
    _, out, _ = run(capsys, "-N", sick.path)
    assert "  … 8 more destinations below 1 %  (--all)" in out
    _, out, _ = run(capsys, "-N", sick.path, "--all")
    assert "more destinations" not in out and out.count("203.0.113.") == 9


# ------------------------------------------------------------------------------------------ a destination


@needs_root
@pytest.mark.parametrize("word", ["203.0.113.2:443", "203.0.113.2", "http://203.0.113.2:443/"])
def test_one_destination_is_shown_however_few_sockets_it_has(
    sick: Sick, capsys: pytest.CaptureFixture[str], word: str
) -> None:
    sick.hold(PORTS, A)
    sick.hold(2, B)
    document = report(capsys, word, "-N", sick.path)
    assert [(d["dst"], d["dport"], d["syn_sent"]) for d in document["destinations"]] == [("203.0.113.2", 443, 2)]
    assert document["exit"] == 0


@needs_root
def test_a_port_alone_is_every_address_with_it(sick: Sick, capsys: pytest.CaptureFixture[str]) -> None:
    sick.hold(3, A)
    sick.hold(2, B)
    sick.hold(2, C)
    document = report(capsys, ":443", "-N", sick.path)
    assert {d["dst"] for d in document["destinations"]} == {A[0], B[0]}


@needs_root
def test_a_destination_without_sockets_is_one_line(sick: Sick, capsys: pytest.CaptureFixture[str]) -> None:
    sick.hold(3, A)
    code, out, err = run(capsys, "203.0.113.99:80", "-N", sick.path)
    assert (code, err) == (0, "")
    assert out == "203.0.113.99:80: nobody is connected to it; 400 ports free, the next connect() takes 5 µs\n"


@needs_root
def test_a_destination_without_sockets_may_fail_all_the_same(sick: Sick, capsys: pytest.CaptureFixture[str]) -> None:
    sick.range(LOW, LOW + 19)
    for port in range(LOW, LOW + 20):
        sick.client(bind=(SOURCE, port))
    document = report(capsys, "203.0.113.99:80", "-N", sick.path)
    assert (document["exit"], kinds(document)[0]) == (11, "full")
    assert sick.dial(("203.0.113.99", 80)) == errno.EADDRNOTAVAIL


@needs_root
def test_no_route_is_what_is_wrong(sick: Sick, capsys: pytest.CaptureFixture[str]) -> None:
    assert sick.dial(("198.51.100.1", 80)) == errno.ENETUNREACH
    code, out, _ = run(capsys, "198.51.100.1:80", "-N", sick.path)
    assert code == 11
    assert "✗ 198.51.100.1   connect() fails at once: ENETUNREACH" in out


@needs_root
def test_families(sick: Sick, capsys: pytest.CaptureFixture[str]) -> None:
    import socket

    sick.hold(9, A)
    sick.hold(8, ("2001:db8:77::99", 443), family=socket.AF_INET6)
    assert [d["dst"] for d in report(capsys, "-4", "-N", sick.path)["destinations"]] == [A[0]]
    assert [d["dst"] for d in report(capsys, "-6", "-N", sick.path)["destinations"]] == ["2001:db8:77::99"]
    assert "[2001:db8:77::99]:443" in run(capsys, "[2001:db8:77::99]:443", "-N", sick.path)[1]
    assert "[2001:db8:77::99]:443" in run(capsys, "2001:db8:77::99", "-N", sick.path)[1]


# ------------------------------------------------------------------------------------------ what if, JSON


@needs_root
def test_what_if_stands_beside_today_and_comes_true(sick: Sick, capsys: pytest.CaptureFixture[str]) -> None:
    sick.hold(PORTS, A)
    words = ("--what-if", f"ip_local_port_range={LOW - 400}-{HIGH}", "-N", sick.path)
    _, out, _ = run(capsys, *words)
    (row,) = [line for line in out.splitlines() if line.startswith("✗ 203.0.113.1:443  10.77")]
    assert re.search(r"100%  EADDRNOTAVAIL +50% ", row)
    (dest,) = report(capsys, *words)["destinations"]
    assert (dest["fill"], dest["what_if"]["fill"], dest["what_if"]["free"]) == (1.0, 0.5, 400)
    sick.range(LOW - 400, HIGH)
    assert sick.succeeding(A) == (400, "EADDRNOTAVAIL")


@needs_root
def test_to_close_a_process_needs_no_p(sick: Sick, capsys: pytest.CaptureFixture[str]) -> None:
    sick.hold(7, A)
    found = report(capsys, "--what-if", f"close=pid/{os.getpid()}", "-N", sick.path)
    (row,) = found["destinations"]
    assert (row["syn_sent"], row["what_if"]["fill"]) == (7, 0)


@needs_root
def test_where_lo_was_never_up_the_rest_is_told_without_the_probe() -> None:
    words = ["unshare", "-n", sys.executable, "-m", "fourtuple.cli.main", "doctor", "--probe", "--json"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (10, "")
    found = json.loads(done.stdout)
    check(load("doctor-1"), found)
    assert kinds(found) == ["loopback-down"]
    (namespace,) = found["namespaces"]
    assert namespace["probe"] is None
    assert any(text.startswith("--probe: ") and "lo is down" in text for text in namespace["unread"])


@needs_root
def test_a_command_to_type_is_quoted(sick: Sick) -> None:
    found = diagnose(Reading.of_snapshot(take_snapshot(sick.path, routes=False)), Question())
    found.reading.is_live = True
    fix = Fix("process", "a pool", what_if={"close": "command/a b; reboot"})
    typed = _next(found, Finding("full", WARNING, "", "", fixes=(fix,)))[-1]
    assert shlex.split(typed)[:4] == ["fourtuple", "doctor", "--what-if", "close=command/a b; reboot"]


@needs_root
def test_what_ifs_add_up(sick: Sick, capsys: pytest.CaptureFixture[str]) -> None:
    sick.hold(PORTS, A)
    words = ["--what-if", f"ip_local_port_range={LOW}-{HIGH + 400}", "--what-if", "sources=2"]
    document = report(capsys, *words, "-N", sick.path)
    assert document["namespaces"][0]["what_if"]["changes"] == {
        "ip_local_port_range": f"{LOW}-{HIGH + 400}", "sources": "2",
    }  # fmt: skip
    assert document["destinations"][0]["what_if"]["fill"] == 0.25


@pytest.mark.parametrize("word", ["no_such_key=1", "tcp_tw_reuse", "sources=0", "ip_local_port_range=9-1"])
def test_a_change_that_means_nothing_is_refused(capsys: pytest.CaptureFixture[str], word: str) -> None:
    code, out, err = run(capsys, "--what-if", word)
    assert (code, out, err.count("\n")) == (2, "", 1)
    if word.startswith("no_such"):
        assert all(key in err for key in KEYS)


def test_the_help_names_every_key(capsys: pytest.CaptureFixture[str]) -> None:
    assert all(f"{key}=" in command._EPILOG for key in KEYS)


@needs_root
def test_the_document_has_everything(sick: Sick, capsys: pytest.CaptureFixture[str]) -> None:
    sick.hold(PORTS, A)
    sick.hold(30, C, bind=(OTHER_SOURCE, 0))
    document = report(capsys, "-p", "-N", sick.path)
    full = document["destinations"][0]
    assert (full["dst"], full["dport"], full["src"], full["syn_sent"], full["ports"]) == (*A, SOURCE, PORTS, PORTS)
    assert (full["fill"], full["free"], full["next_connect"]["errno"], full["full_in_s"]) == (
        1.0,
        0,
        "EADDRNOTAVAIL",
        0,
    )
    assert full["held_by"][0]["pids"] == [os.getpid()]
    assert full["fixes"] == document["findings"][0]["fixes"]
    assert document["findings"][0]["kind"] == "full"
    (space,) = document["namespaces"]
    assert (space["netns"], space["read_by"]) == (sick.path, "sock_diag")
    assert (space["summary"]["port_low"], space["summary"]["sockets"]) == (LOW, PORTS + 30)


def test_the_schema_knows_every_kind() -> None:
    assert tuple(load("doctor-1")["properties"]["findings"]["items"]["properties"]["kind"]["enum"]) == KINDS


# ------------------------------------------------------------------------------------------ where it is read


@needs_root
def test_a_snapshot_says_the_same_elsewhere(sick: Sick, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    sick.hold(PORTS, A)
    sick.listen("127.0.0.1", 16_379)
    write([take_snapshot(sick.path)], tmp_path / "here.snap")
    live = report(capsys, "-p", "-N", sick.path)
    later = report(capsys, "-r", str(tmp_path / "here.snap"))
    assert (live["is_live"], later["is_live"]) == (True, False)
    for each in (live, later):
        for destination in each["destinations"]:
            destination["held_by"].sort(key=str)
    assert later["destinations"] == live["destinations"]
    assert kinds(later) == kinds(live)
    code, out, err = run(capsys, "-r", str(tmp_path / "here.snap"))
    assert (code, err) == (11, "")
    assert " of a snapshot · " in out.splitlines()[0]


def test_what_is_no_snapshot_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"not at all")
    for name in ("x", "missing"):
        code, out, err = run(capsys, "-r", str(tmp_path / name))
        assert (code, out, err.count("\n")) == (2, "", 1)


@needs_root
def test_all_namespaces(capsys: pytest.CaptureFixture[str]) -> None:
    with Sick() as one, Sick() as other:
        one.hold(PORTS, A)
        other.hold(PORTS // 2, B)
        names = [f"ftdoctor{os.getpid()}{i}" for i in range(2)]
        try:
            for name, space in zip(names, (one, other), strict=True):
                Path("/run/netns").mkdir(exist_ok=True)
                Path(f"/run/netns/{name}").touch()
                subprocess.run(["mount", "--bind", space.path, f"/run/netns/{name}"], check=True)
            document = report(capsys, "--all-netns")
            code, out, _ = run(capsys, "--all-netns")
            alone = report(capsys, "-N", names[1])
        finally:
            for name in names:
                subprocess.run(["umount", f"/run/netns/{name}"], check=False)
                Path(f"/run/netns/{name}").unlink()
    found = {(d["netns"], d["dst"], d["fill"]) for d in document["destinations"] if d["dst"].startswith("203.0.113.")}
    assert found >= {(names[0], A[0], 1.0), (names[1], B[0], 0.5)}
    assert code == 11 and all(f"netns {name}" in out for name in names)
    assert (alone["exit"], kinds(alone)[0]) == (10, "past-cliff")
    assert f"ip netns exec {names[1]} sysctl" in alone["findings"][0]["fixes"][-1]["command"]


@needs_root
def test_the_namespace_of_a_process(sick: Sick, capsys: pytest.CaptureFixture[str]) -> None:
    sick.hold(5, A)
    child = sick.run(lambda: subprocess.Popen(["sleep", "30"]))
    try:
        assert report(capsys, "--pid", str(child.pid))["namespaces"][0]["summary"]["sockets"] == 5
    finally:
        child.kill()
        child.wait()


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["-N", "no-such-namespace"], 2),
        (["--pid", "4194303"], 2),
        (["--pid", "x"], 2),
        (["--warn", "95%"], 2),
        (["--watch=0"], 2),
        (["--watch=soon"], 2),
        (["-c", "3"], 2),
        (["1.2.3.4:99999"], 2),
        (["1.2.3"], 2),
        ([":80", "--watch", ":81"], 2),
        (["--watch", "-r", "x"], 2),
        (["--probe", "-r", "x"], 2),
        (["-N", "a", "--all-netns"], 2),
        (["no.such.host.invalid:80"], 68),
    ],
)
def test_a_mistake_is_one_line(capsys: pytest.CaptureFixture[str], words: list[str], code: int) -> None:
    found, out, err = run(capsys, *words)
    assert (found, out) == (code, "")
    assert err.startswith("fourtuple") and len([line for line in err.splitlines() if "try:" not in line]) == 1


# ------------------------------------------------------------------------------------------ watching, probing


@needs_root
def test_watching_gives_rates_one_object_a_line(
    sick: Sick, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    sick.hold(100, A)
    monkeypatch.setattr(command.time, "sleep", lambda seconds: sick.hold(50, A))
    code, out, err = run(capsys, "--watch=1", "-c", "3", "--json", "-N", sick.path)
    assert (code, err) == (10, "")
    documents = [json.loads(line) for line in out.splitlines()]
    for document in documents:
        check(load("doctor-1"), document)
    first, second, third = (document["destinations"][0] for document in documents)
    assert (first["rate"], first["full_in_s"]) == (None, None)
    growth = second["rate"]["growth_per_s"]
    assert growth == pytest.approx(50 / second["rate"]["seconds_between"], rel=0.01)
    assert second["rate"]["full_in_s"] == pytest.approx(250 / growth, rel=0.05)
    assert (third["cliff_in_s"], third["free"]) == (0, 200)


@needs_root
def test_watching_in_text_adds_a_column(sick: Sick, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    sick.hold(150, A)
    monkeypatch.setattr(command.time, "sleep", lambda seconds: sick.hold(20, A))
    _, out, _ = run(capsys, "--watch", "-c", "2", "--warn", "30%", "-N", sick.path)
    first, second = (part for part in re.split(r"(?m)^(?=\S+ · Linux)", out) if part)
    assert "FULL IN" not in first and "FULL IN" in second
    (row,) = [line for line in second.splitlines() if "10.77.0.1 " in line]
    assert re.search(r" cliff in \d+ s +\d+ s$", row)


@needs_root
def test_watching_counts_the_connects_that_fail_where_the_tracepoint_can_be_read(tmp_path: Path) -> None:
    """In a mount namespace of its own, with tracefs."""
    program = """
import socket, sys
from fourtuple.cli import doctor
from fourtuple.cli.main import main
from tests.doctor.sick import A, B, LOW, Sick
with Sick() as sick:
    sick.range(LOW, LOW + 19)
    sick.hold(20, A)
    six = ("2001:db8:77::99", 443)
    sick.hold(20, six, family=socket.AF_INET6)
    def work(seconds):
        for _ in range(300):
            sick.dial(A)
        for _ in range(5):
            sick.dial(six, family=socket.AF_INET6)
        sick.dial(B)
    doctor.time.sleep = work
    sys.exit(main(["doctor", "-N", sick.path, "--watch", "-c", "2", "--json"]))
"""
    mount = 'mount -t tracefs tracefs /sys/kernel/tracing && exec "$@"'
    words = ["unshare", "-m", "sh", "-c", mount, "sh", sys.executable, "-c", program]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (11, "")
    first, second = map(json.loads, done.stdout.splitlines())
    assert "failed-connects" not in kinds(first)
    (found,) = [finding for finding in second["findings"] if finding["kind"] == "failed-connects"]
    assert found["title"].startswith("305 calls failed with EADDRNOTAVAIL")
    assert found["evidence"] == ["300 to 203.0.113.1:443, 5 to [2001:db8:77::99]:443"]
    assert [holder["sockets"] for holder in found["held_by"]] == [300, 5]


@needs_root
def test_watch_takes_a_destination_for_what_it_is(sick: Sick, capsys: pytest.CaptureFixture[str]) -> None:
    sick.hold(5, A)
    sick.hold(5, B)
    _, out, _ = run(capsys, "-N", sick.path, "-c", "1", "--json", "--watch", "203.0.113.2:443")
    assert [d["dst"] for d in json.loads(out)["destinations"]] == [B[0]]


@needs_root
def test_probing_leaves_nothing_to_infer(sick: Sick, capsys: pytest.CaptureFixture[str]) -> None:
    sick.hold(60, C, bind=(SOURCE, 0))
    sick.hold(220, A)
    before = report(capsys, "-N", sick.path)["destinations"][0]
    document = report(capsys, "--probe", "-N", sick.path)
    assert before["inferred"] and not document["destinations"][0]["inferred"]
    after = document["destinations"][0]
    assert document["namespaces"][0]["probe"]["shut"] == 60
    assert after["free_interval"]["low"] == after["free_interval"]["high"] == after["free"]
    assert after["measured"]["tries"] == 20 and after["measured"]["errno"] is None
    assert sick.succeeding(A) == (after["free"], "EADDRNOTAVAIL")


@needs_root
def test_probing_says_first_what_it_does(sick: Sick, capsys: pytest.CaptureFixture[str]) -> None:
    sick.hold(PORTS, A)
    code, out, err = run(capsys, "--probe", "-N", sick.path)
    assert (code, err) == (11, "")
    assert out.startswith("--probe opens and closes one socket at a time")
    assert "measured: 203.0.113.1:443 from 10.77.0.1: EADDRNOTAVAIL in " in out


# ------------------------------------------------------------------------------------------ as a program


def test_it_starts_without_what_it_does_not_need() -> None:
    """Each of these takes longer to import than the doctor may take to read 10,000 sockets."""
    heavy = ["rich", "asyncio", "socket", "subprocess", "typing_extensions", "fourtuple.sock", "fourtuple.tcp",
             "fourtuple.host", "fourtuple.shell", "fourtuple.live.owners", "fourtuple.live.probe",
             "fourtuple.doctor.what_if", "fourtuple.doctor.plan"]  # fmt: skip
    code = "import sys; from fourtuple.cli.main import main; main(['doctor'])\n"
    code += f"print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@needs_root
def test_as_nobody_in_an_empty_namespace_it_still_answers() -> None:
    code = "from fourtuple.cli.main import main; raise SystemExit(main(['doctor', '-p']))"
    words = [
        "unshare",
        "-n",
        "setpriv",
        "--reuid",
        "65534",
        "--regid",
        "65534",
        "--clear-groups",
        sys.executable,
        "-c",
        code,
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (10, "")
    assert "▲ lo   lo is down: connect() to 127.0.0.1 is ENETUNREACH, to ::1 EADDRNOTAVAIL" in done.stdout
    assert "0 TCP sockets" in done.stdout
