"""Finding and Fix: what the doctor says, before it is text or JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from fourtuple.doctor.answers import Prediction
    from fourtuple.doctor.reading import Holder

CRITICAL, WARNING, NOTE = "critical", "warning", "note"
SEVERITIES = (CRITICAL, WARNING, NOTE)

SCOPES = ("socket", "process", "server", "namespace", "machine")
"""What a fix changes, from local and reversible to everything: fixes are in this order."""

KINDS = (
    "full", "nat-full", "failed-connects", "no-route", "near-full", "nat-near-full", "conntrack", "descriptors",
    "past-cliff", "reserved-parity", "resent-syn", "near-cliff", "filling", "bind-before-connect", "close-wait",
    "self-connected", "loopback-down", "no-ipv6-loopback", "range-over-nodeports", "range-privileged", "time-wait",
    "listener-in-range", "nat", "odd-range",
)  # fmt: skip
"""Every kind of finding, the most urgent first."""


class Fix(NamedTuple):
    """Something to do about it."""

    scope: str
    what: str
    """In words, or the call."""
    command: str = ""
    """To be typed as it is; "" where it is a change of a program."""
    effect: str = ""
    """What will then be, as predicted."""
    after: Prediction | None = None
    """The prediction behind `effect`."""
    what_if: Mapping[str, str] = {}
    """The same for `fourtuple doctor --what-if`."""
    caution: str = ""


class Finding(NamedTuple):
    """One thing that is wrong, or soon will be."""

    kind: str
    severity: str
    subject: str
    """A destination, or what it is about."""
    title: str
    evidence: tuple[str, ...] = ()
    held_by: tuple[Holder, ...] = ()
    rule: str = ""
    """What the kernel does, with the function that does it."""
    fixes: tuple[Fix, ...] = ()
    not_it: tuple[str, ...] = ()
    inferred: tuple[str, ...] = ()
    """What of it is not seen but concluded."""
    cause: str = ""
    """Of a destination's: connections, time-wait, bound or reserved, whichever takes most ports."""
    prediction: Prediction | None = None

    @property
    def rank(self) -> tuple[int, int, float]:
        """Sorts the most urgent first."""
        fill = self.prediction.fill if self.prediction else 0.0
        return SEVERITIES.index(self.severity), KINDS.index(self.kind), -fill
