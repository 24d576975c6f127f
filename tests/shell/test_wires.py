"""The choice among wires: what `auto` takes, what it says, and what an open wire does when it is lost."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import replace

import pytest

from fourtuple.shell import wires
from fourtuple.shell.wire import probe_by_opening
from fourtuple.shell.wires import AUTO, KINDS, Setup, Wire, WireUnavailable, open_sim, open_wire


def refuse(reason: str) -> Callable[[Setup], Wire]:
    def open_none(setup: Setup) -> Wire:
        raise WireUnavailable(errno.EPERM, reason, "do this")

    return open_none


def set_refusals(monkeypatch: pytest.MonkeyPatch, **reasons: str) -> None:
    for name, reason in reasons.items():
        monkeypatch.setitem(KINDS, name, replace(KINDS[name], open=refuse(reason)))


@pytest.mark.parametrize(
    ("reasons", "taken", "said"),
    [
        ({"tun": "no node"}, "veth", ["using veth, not tun: no node"]),
        ({"tun": "no node", "veth": "no packets"}, "sim", ["using sim, not tun: no node; veth: no packets"]),
        ({"tun": "no namespace", "veth": "no namespace"}, "sim", ["using sim, not tun, veth: no namespace"]),
        ({"veth": "no packets"}, "tun", []),
    ],
)
def test_auto_takes_the_best_that_works_and_says_why_not_a_better_one(
    monkeypatch: pytest.MonkeyPatch, reasons: dict[str, str], taken: str, said: list[str]
) -> None:
    for name in AUTO:
        monkeypatch.setitem(KINDS, name, replace(KINDS[name], open=_named(name)))
    set_refusals(monkeypatch, **reasons)
    heard: list[str] = []
    with open_wire("auto", Setup(), heard.append) as wire:
        assert (wire.name, heard) == (taken, said)


def _named(name: str) -> Callable[[Setup], Wire]:
    """A simulated wire under another name: this test is about the choice."""

    def open_one(setup: Setup) -> Wire:
        wire = open_sim(setup)
        wire.name = name
        return wire

    return open_one


def test_a_wire_asked_for_by_name_is_not_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    set_refusals(monkeypatch, tun="no node")
    with pytest.raises(WireUnavailable, match="no node"):
        open_wire("tun", Setup())


def test_the_last_wire_of_auto_needs_nothing() -> None:
    assert KINDS[AUTO[-1]].needs == "nothing"
    assert set(AUTO) <= set(KINDS)


def test_a_probe_tells_the_refusal_and_what_to_do() -> None:
    found = probe_by_opening(refuse("no node"))
    assert (found.works, found.start_us, found.code) == (False, None, errno.EPERM)
    assert (found.reason, found.todo) == ("no node", "do this")


def test_a_probe_measures_what_opening_takes() -> None:
    found = wires.KINDS["sim"].probe()
    assert found.works
    assert found.start_us is not None
    assert found.start_us > 0


def test_closing_twice_gives_back_once() -> None:
    closed: list[str] = []
    wire = open_sim(Setup())
    again = Wire("sim", "", Setup(), wire.host, wire.runner, wire.tap, on_close=lambda: closed.append("x"))
    again.close()
    again.close()
    assert closed == ["x"]
