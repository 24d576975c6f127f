"""diagnose(): what is wrong with connect() in one reading, the most urgent first.

Lives here: which destinations are looked at, the order.  Does not live here: any single finding (findings_*.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from fourtuple.doctor.finding import CRITICAL, NOTE, SEVERITIES, WARNING, Finding
from fourtuple.doctor.findings_destination import close_waits, destination_findings, resent_syns, self_connected
from fourtuple.doctor.findings_machine import (
    is_loopback,
    loopback_asked_for,
    machine_findings,
    route_finding,
)
from fourtuple.doctor.findings_ports import port_findings
from fourtuple.doctor.fixes import Fixes
from fourtuple.doctor.idle import OVER_S

if TYPE_CHECKING:
    from fourtuple.doctor.answers import Prediction
    from fourtuple.doctor.reading import Reading
    from fourtuple.live.probe import Measured

EXIT_OK, EXIT_WARNING, EXIT_CRITICAL = 0, 10, 11
_MOST = 50
_EVERY = 10_000


class Question(NamedTuple):
    """What is asked about."""

    addresses: tuple[str, ...] = ()
    """Of the destination asked about; several where a name has several."""
    port: int | None = None
    family: int | None = None
    """4 or 6: destinations of that family only."""
    warn: float = 0.45
    """Fill from which a destination is a warning."""
    crit: float = 0.90
    everything: bool = False
    """Also destinations that use less than 1 % of the range."""
    changes: Mapping[str, str] = {}
    """of --what-if"""
    idle_s: float = OVER_S
    """A connection without data for longer is idle."""

    @property
    def is_about_one(self) -> bool:
        """A destination was named."""
        return bool(self.addresses) or self.port is not None


class Diagnosis(NamedTuple):
    """The answer for one network namespace."""

    reading: Reading
    predictions: tuple[Prediction, ...]
    changed: tuple[Prediction, ...]
    """The same destinations after the changes of --what-if; empty without."""
    notes: tuple[str, ...]
    """What those assume."""
    count_small: int
    """Destinations left out."""
    findings: tuple[Finding, ...]
    changes: Mapping[str, str] = {}
    """of --what-if"""
    measured: Mapping[int, Measured] = {}
    """The kernel's own port search (--probe), by place in `predictions`."""
    idle_s: float = OVER_S

    @property
    def exit_code(self) -> int:
        """0, 10 with a warning, 11 with something critical."""
        severities = {finding.severity for finding in self.findings}
        return EXIT_CRITICAL if CRITICAL in severities else EXIT_WARNING if WARNING in severities else EXIT_OK

    def number_of(self, severity: str) -> int:
        """How many findings are so severe."""
        assert severity in SEVERITIES
        return sum(finding.severity == severity for finding in self.findings)


def diagnose(reading: Reading, question: Question) -> Diagnosis:
    """Everything about one reading.  ValueError for a destination or a change that means nothing."""
    predictions, small = _predictions(reading, question)
    changed: Sequence[Prediction] = ()
    notes: tuple[str, ...] = ()
    if question.changes:
        from fourtuple.doctor.what_if import what_if

        state = what_if(reading.state, question.changes)
        changed, notes = state.predict_again(predictions), state.notes
    findings = sorted(_findings(reading, question, predictions), key=lambda finding: finding.rank)
    found = Diagnosis(reading, tuple(predictions), tuple(changed), notes, small, tuple(findings), question.changes)
    found = found._replace(idle_s=question.idle_s)
    if reading.probed is None:
        return found
    from fourtuple.doctor.probed import measure

    return found._replace(measured=measure(reading, predictions, question.warn))


def _predictions(reading: Reading, question: Question) -> tuple[list[Prediction], int]:
    state = reading.state
    share, most = (0.0, _EVERY) if question.everything else (0.01, _MOST)
    found: list[Prediction] = []
    for address in question.addresses or (None,):
        found += state.destinations(share, most, address, question.port) if len(reading.sockets) else []
    if not found:
        found = [p for p in _strangers(reading, question) if p.errno or p.fill >= question.warn]
    return [p for p in found if question.family in (None, _family(p))], state.count_small


def _strangers(reading: Reading, question: Question) -> list[Prediction]:
    """Destinations asked about that nobody is connected to."""
    if question.port is None:
        return []
    errors = {route.destination: route.error for route in reading.routes}
    asked = [address for address in question.addresses if not errors.get(address)]
    return [reading.state.predict(None, address, question.port) for address in asked]


def _family(p: Prediction) -> int:
    return 6 if ":" in p.destination else 4


def _findings(reading: Reading, question: Question, predictions: Sequence[Prediction]) -> list[Finding]:
    fixes = Fixes(reading, question.warn, question.idle_s)
    found = list(destination_findings(reading, predictions, fixes, question.warn, question.crit))
    nat = _nat(reading, question)
    found += nat
    dropped_here = {finding.subject for finding in nat if finding.kind == "nat-full"}
    unanswered = (finding for finding in resent_syns(reading) if finding.subject not in dropped_here)
    states = [*unanswered, *self_connected(reading), *close_waits(reading)]
    if not question.is_about_one:
        return [*found, *states, *port_findings(reading, fixes), *machine_findings(reading)]
    subjects = {_subject(p) for p in predictions}
    found += [finding for finding in states if finding.subject in subjects]
    found += [finding for finding in port_findings(reading, fixes) if finding.severity != NOTE]
    return [*found, *_before_the_ports(reading, question)]


def _nat(reading: Reading, question: Question) -> list[Finding]:
    """Where there is source NAT; elsewhere not even the module is loaded."""
    nat = reading.system.nat
    if not nat.rules and nat.tracked is None:
        return []
    from fourtuple.doctor.findings_nat import nat_findings

    return list(nat_findings(reading, question))


def _before_the_ports(reading: Reading, question: Question) -> Iterator[Finding]:
    """Why connect() to the destination asked about fails without looking at a port.

    Of a name's addresses one that can be reached is enough.
    """
    routes = [route for route in reading.routes if route.destination in question.addresses]
    if not all(route.error for route in routes):
        routes = []
    for route in routes:
        if not is_loopback(route.destination):
            yield from route_finding(reading, route)
    if question.addresses and all(is_loopback(address) for address in question.addresses):
        for address in question.addresses:
            yield from loopback_asked_for(reading, address)


def _subject(p: Prediction) -> str:
    from fourtuple.doctor.words import endpoint

    return endpoint(p.destination, p.port)
