"""`why --probe`: the kernel itself is asked what connect() gives, and then says which path it is.

Lives here: asking for each destination, and what follows for a path.  Does not live here: the connect() that sends
nothing (live/probe.py), the checks that go by what can be read (why_checks.py).

It is a connect() of this process: what a security module or a BPF program of another control group refuses, and what
the program has set on its socket, it does not meet.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from fourtuple.doctor.why import NO, OPEN, YES, Asked
from fourtuple.doctor.words import endpoint, grouped
from fourtuple.live.probe import try_connect

if TYPE_CHECKING:
    from fourtuple.doctor.answers import Prediction
    from fourtuple.doctor.why_path import Path
    from fourtuple.live.netns import Spec
    from fourtuple.live.probe import Tried

Answer = tuple[str, str]
_FULL = "EADDRNOTAVAIL"
DECIDED = ("no_port", "no_source6", "route", "not_unicast", "no_scope")
"""Checks of what connect() fails with at once, whoever calls it."""


def ask_kernel(asked: Asked, netns: Spec = None) -> Asked:
    """The same with what the kernel gives for each destination.  Raises CannotRead without CAP_NET_ADMIN."""
    source = asked.source[0] if asked.source and asked.source[0] not in ("", "0.0.0.0", "::") else None
    tried = tuple(try_connect((t.address, t.port), source, netns) for t in asked.targets if t.address)
    return replace(asked, tried=tried)


def tried_words(one: Tried) -> str:
    """What the kernel gave, for one destination."""
    to = endpoint(one.destination, one.port)
    if one.errno:
        return f"the kernel gives {one.errno} for {to}"
    return f"the kernel gives port {one.local_port} of {one.source} for {to}: connect() does not fail at once"


def by_probe(path: Path, asked: Asked, known: Answer, full: Prediction | None) -> Answer:
    """The answer of a check, after the kernel has been asked; `full`: the prediction for the fullest destination."""
    if path.check == "own_range":
        return _own_range(asked, known)
    if path.check not in DECIDED:
        return known
    same = [one for one in asked.tried if one.errno == path.errno]
    if not same:
        return known if known[0] == NO and path.check != "no_port" else (NO, tried_words(asked.tried[0]))
    if path.errno != _FULL:
        return known[0], f"{known[1]}; {tried_words(same[0])}"
    before_ports = [one for one in same if _has_no_source(asked, one)]
    fits = before_ports if path.check == "no_source6" else [one for one in same if one not in before_ports]
    if not fits:
        return NO, known[1] if known[0] == NO else "it fails before a port is looked at"
    return YES, tried_words(fits[0]) + (_detail(known, full) if path.check == "no_port" else f": {known[1]}")


def _own_range(asked: Asked, known: Answer) -> Answer:
    if any(one.errno == _FULL for one in asked.tried):
        return NO, "without the option the kernel finds no port either"
    return OPEN, f"without the option the kernel finds a port; {known[1]}"


def _has_no_source(asked: Asked, one: Tried) -> bool:
    """The route says so: then no port was looked at."""
    return any(
        target.route is not None and target.route.error == _FULL
        for target in asked.targets
        if (target.address, target.port) == (one.destination, one.port)
    )


def _detail(known: Answer, full: Prediction | None) -> str:
    """What takes the ports, as far as the list of sockets tells."""
    if known[0] == YES:
        return f": {known[1].removesuffix(' (inferred)')}"
    if full is None:
        return ""
    return f"; {grouped(full.free.likely)} ports look free, so bind() took them: fourtuple doctor --probe"
