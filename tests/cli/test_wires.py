"""`fourtuple wires`: the table and the document; that --wire knows what is in them."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from dataclasses import replace

import pytest

from fourtuple.cli import exits
from fourtuple.cli.main import main
from fourtuple.shell.wire import Availability
from fourtuple.shell.wires import KINDS
from tests.cli.schema import check, load

NO_NODE = Availability(
    False, None, errno.EACCES, "/dev/net/tun: permission denied (mode 0600)", "sudo chmod 0666 /dev/net/tun"
)
NO_CAPABILITY = Availability(False, None, errno.EPERM, "TUNSETIFF needs CAP_NET_ADMIN", "sudo fourtuple ...")
FOUND = {
    "sim": Availability(True, 2_000),
    "tun": Availability(True, 61_700),
    "veth": Availability(True, 22_400),
    "tun-host": NO_CAPABILITY,
}


def find(monkeypatch: pytest.MonkeyPatch, **changed: Availability) -> None:
    """Have the probes find what the test says."""
    for name, kind in KINDS.items():
        monkeypatch.setitem(KINDS, name, replace(kind, probe=_always({**FOUND, **changed}[name])))


def _always(found: Availability) -> Callable[[], Availability]:
    return lambda: found


def test_the_table_has_a_row_for_each_wire_and_what_auto_takes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    find(monkeypatch)
    assert main(["wires"]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert (lines[0].split(), lines[-1], err) == (["WIRE", "HERE", "TO", "WHOM", "NEEDS"], "chosen: tun", "")
    rows = {line.split()[1]: line for line in lines[1:-1] if line[0] in "✓✗"}
    assert set(rows) == {"kernel", *KINDS}
    assert rows["tun"].startswith("✓ tun       yes   private namespace, 62 ms ")
    assert rows["veth"].startswith("✓ veth      yes   private namespace, 22 ms ")
    assert rows["sim"].startswith("✓ sim       -     simulated hosts")
    assert rows["tun-host"].startswith("✗ tun-host  no    the real network ")


def test_its_help_fits_in_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main(["wires", "--help"])
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_a_refusal_has_its_reason_and_its_remedy_below(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    find(monkeypatch, tun=NO_NODE)
    main(["wires"])
    lines = capsys.readouterr().out.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("✗ tun "))
    assert lines[at + 1].strip() == "why  /dev/net/tun: permission denied (mode 0600)"
    assert lines[at + 2].strip() == "try  sudo chmod 0666 /dev/net/tun"
    assert lines[-1] == "chosen: veth"


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("options", [[], ["--ascii"]])
def test_nothing_is_wider_than_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int, options: list[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    find(monkeypatch, tun=NO_NODE, veth=NO_NODE)
    main(["wires", *options])
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= width
    assert out.isascii() == bool(options)
    assert out.endswith("chosen: sim\n")


def test_the_document_is_what_its_schema_says(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    find(monkeypatch, tun=NO_NODE)
    assert main(["wires", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    check(load("wires-1"), document)
    rows = {row["name"]: row for row in document["wires"]}
    assert (document["chosen"], document["exit"]) == ("veth", 0)
    assert (rows["tun"]["works"], rows["tun"]["errno"], rows["tun"]["start_us"]) == (False, "EACCES", None)
    assert (rows["veth"]["works"], rows["veth"]["errno"], rows["veth"]["start_us"]) == (True, None, 22_400)
    assert (rows["veth"]["reason"], rows["veth"]["todo"]) == (None, None)


def test_the_option_knows_every_wire_there_is() -> None:
    """cli/exits.py has the names without importing the engine."""
    assert set(exits.WIRES) == {"auto", *KINDS}
    assert all(name in exits.WIRE_HELP for name in exits.WIRES)
    names = load("connect-1")["properties"]["wire"]["properties"]["name"]["enum"]
    assert set(names) == set(KINDS)


def test_kernel_sockets_are_no_wire_of_connect(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["connect", ":80", "--wire", "kernel"]) == 69
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root (unprivileged: test_nobody.py)")
def test_both_private_wires_work_for_root(capsys: pytest.CaptureFixture[str], tun: str) -> None:
    main(["wires", "--json"])
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["wires"]}
    assert (rows[tun]["works"], rows["veth"]["works"]) == (True, True)
    for name in (tun, "veth"):
        assert 1_000 < rows[name]["start_us"] < 20_000_000
