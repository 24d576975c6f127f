"""What a port can be, as every map of ports shows it: its letter, its words, its colour."""

from __future__ import annotations

from typing import NamedTuple

from fourtuple.doctor import port_states as ps


class Look(NamedTuple):
    """How one kind of port looks."""

    letter: str
    words: str
    bucket_words: str
    """With --buckets, where no destination is in question."""
    style: str
    """Of cli.terminal; "" for that of the parity."""
    color: tuple[str, str]
    """In a PNG: of the even ports, of the odd ones."""


def _same(color: str) -> tuple[str, str]:
    return color, color


LOOKS = {
    ps.FREE: Look("·", "free", "free: nobody has it", "dim", _same("#1c232d")),
    ps.JOINED: Look(
        "+",
        "free here: others use it, and connect() shares it",
        "in use, connect() shares it",
        "info",
        _same("#2c4a5e"),
    ),
    ps.DOUBTFUL: Look(
        "?",
        "free here unless bind() took it for others",
        "in use, shared unless bind() took it",
        "dim",
        _same("#39424e"),
    ),
    ps.REUSABLE: Look("~", "in TIME_WAIT, may be reused", "in TIME_WAIT, may be reused", "good", _same("#3fb950")),
    ps.USED: Look("#", "in use to this destination", "in use", "", ("#388bfd", "#f0883e")),
    ps.TIME_WAIT: Look(
        "T", "in TIME_WAIT to this destination", "only TIME_WAITs, connect() shares it", "wait", _same("#c9a5ff")
    ),
    ps.LIKELY_BOUND: Look(
        "H", "looks held by bind(addr, 0): inferred", "looks held by bind(addr, 0): inferred", "bad", _same("#b3534b")
    ),
    ps.BOUND: Look("B", "held by a bind()", "held by a bind()", "bad", _same("#ff5a4f")),
    ps.LISTEN: Look("L", "a listener's", "a listener's", "bad", _same("#ffffff")),
    ps.ACCEPTED: Look("A", "of accepted connections", "of accepted connections", "bad", _same("#ffc2bd")),
    ps.RESERVED: Look("R", "reserved (sysctl)", "reserved (sysctl)", "warn", _same("#8b949e")),
}


def words_of(kind: str, is_buckets: bool) -> str:
    """What a kind means."""
    return LOOKS[kind].bucket_words if is_buckets else LOOKS[kind].words


def parity_names(low: int) -> tuple[str, str]:
    """The parity that connect() looks at first, and the other one."""
    return ("odd", "even") if low & 1 else ("even", "odd")


def legend(states: ps.PortStates) -> list[tuple[str, int, int]]:
    """(kind, ports of the first parity, of the second) of the kinds there are, what connect() takes first."""
    rows = [(kind, *states.count(kind)) for kind in ps.KINDS]
    there = [row for row in rows if row[1] + row[2] or row[0] == ps.FREE]
    return sorted(there, key=lambda row: row[0] not in states.open)


def taken_share(states: ps.PortStates, second: bool) -> float:
    """Of the ports of a parity, those that connect() passes over; 0 where it has none."""
    kinds = states.of_parity(second)
    return sum(kind not in states.open for kind in kinds) / len(kinds) if kinds else 0.0
