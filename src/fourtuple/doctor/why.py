"""Why a connect() failed: every path in the kernel that leads to its errno, and which of them it is here.

Lives here: finding the errno that somebody means, the question (Asked), the answer (Explanation).  Does not live
here: the paths (why_connect.py, why_other.py), the checks (why_checks.py), reading a machine (why_reading.py).

Rules
1. A path is ruled out, or taken, only by what was seen.  What cannot be told stays open, with what would tell.
2. Several paths may be it at once: those before the others in the kernel's order come first.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fourtuple.doctor import why_connect, why_other
from fourtuple.doctor.why_path import Path

if TYPE_CHECKING:
    from fourtuple.doctor.reading import Reading
    from fourtuple.live.probe import Tried
    from fourtuple.live.rtnetlink import Route

PATHS: tuple[Path, ...] = (*why_connect.ENTRIES, *why_other.ENTRIES)
NAMES: tuple[str, ...] = tuple(dict.fromkeys(path.errno for path in PATHS))
"""Every errno that is known here."""
KERNEL = "6.18"

YES, NO, OPEN = "yes", "no", "open"
_ALIASES = {"EWOULDBLOCK": "EAGAIN", "ENOTSUP": "EOPNOTSUPP"}
_NUMBER = re.compile(r"(?:\[?\s*errno[\s:=]*)?(-?[0-9]{1,4})\]?", re.IGNORECASE)
_INSIDE = re.compile(r"\berrno[\s:=]+([0-9]{1,4})\b", re.IGNORECASE)
_NAME = re.compile(r"\bE[A-Z0-9]{3,14}\b")


class UnknownErrno(ValueError):
    """A word that is no errno of these calls: one line, with what was probably meant."""


def number_of(name: str) -> int:
    """'EADDRNOTAVAIL' -> 99."""
    return int(getattr(errno, name))


def text_of(name: str) -> str:
    """'EADDRNOTAVAIL' -> 'Cannot assign requested address'."""
    return os.strerror(number_of(name))


def find_errno(text: str) -> str:
    """The name meant by a number, a name or a message, in any case.  Raises UnknownErrno."""
    word = text.strip().strip("\"'")
    if (match := _NUMBER.fullmatch(word)) or (match := _INSIDE.search(word)):
        return _known(errno.errorcode.get(abs(int(match[1])), ""), word)
    if match := _NAME.search(word.upper() if " " not in word else word):
        return _known(match[0], word)
    folded = word.casefold()
    for name in NAMES:
        if folded and text_of(name).casefold() in folded:
            return name
    raise UnknownErrno(_unknown(word))


def _known(name: str, word: str) -> str:
    name = _ALIASES.get(name, name)
    if name in NAMES:
        return name
    if hasattr(errno, name or " "):
        raise UnknownErrno(f"{name} ({text_of(name)}): connect(), bind(), listen() and socket() never give it")
    raise UnknownErrno(_unknown(word))


def _unknown(word: str) -> str:
    from difflib import get_close_matches

    shown = word if len(word) <= 60 else word[:57] + "..."
    texts = {text_of(name).casefold(): name for name in NAMES}
    close = get_close_matches(word.upper(), NAMES, 1, 0.6) or [
        texts[found] for found in get_close_matches(word.casefold(), list(texts), 1, 0.6)
    ]
    return f"{shown!r} is no errno" + (f". Did you mean {close[0]}?" if close else " of connect() or bind()")


def paths_of(name: str, call: str = "") -> tuple[Path, ...]:
    """All paths to an errno; of one call, if one is named."""
    return tuple(path for path in PATHS if path.errno == name and call in ("", path.call))


# ------------------------------------------------------------------------------------------ question and answer


@dataclass(frozen=True)
class Target:
    """Where a connect() goes to, or what a bind() asks for."""

    address: str
    """"" for any (of a bind())."""
    port: int
    route: Route | None = None
    """None: it could not be asked."""

    @property
    def family(self) -> int:
        """4 or 6."""
        return 6 if ":" in self.address and not self.address.startswith("::ffff:") else 4


@dataclass(frozen=True)
class Asked:
    """What is known about the call that failed, and the machine it failed on."""

    reading: Reading
    targets: tuple[Target, ...] = ()
    is_named: bool = True
    """False: the targets are where the process connects to, so bind() has nothing to do with them."""
    pid: int = 0
    """0: no process was named."""
    rows: frozenset[int] = frozenset()
    """Rows of that process's sockets."""
    is_bound: bool | None = None
    """bind() gave the socket a port before; None: not known."""
    source: tuple[str, int] | None = None
    """What it was bound to."""
    failed_neighbours: frozenset[str] | None = None
    """Addresses on the link that nobody answers for; None: not read."""
    tried: tuple[Tried, ...] = ()
    """What the kernel gave for the targets, when it was asked (--probe)."""


@dataclass(frozen=True)
class Verdict:
    """What is known about one path."""

    path: Path
    mark: str = OPEN
    """yes, no, or open: it cannot be told from here."""
    text: str = ""
    """What was seen, or what would tell."""


@dataclass(frozen=True)
class Explanation:
    """All paths to one errno, and which it is."""

    errno: str
    verdicts: tuple[Verdict, ...]
    is_asked: bool = True
    """False: nobody looked at a machine."""

    @property
    def it(self) -> tuple[Verdict, ...]:
        """Those that apply."""
        return tuple(verdict for verdict in self.verdicts if verdict.mark == YES)

    def of_call(self, call: str) -> tuple[Verdict, ...]:
        """Those of one system call."""
        return tuple(verdict for verdict in self.verdicts if verdict.path.call == call)

    @property
    def calls(self) -> tuple[str, ...]:
        """The calls that give this errno."""
        return tuple(dict.fromkeys(verdict.path.call for verdict in self.verdicts))


def explain(name: str, asked: Asked | None = None, call: str = "") -> Explanation:
    """Every path to an errno (of one call, if named); with `asked`, which one it is there."""
    paths = paths_of(name, call)
    if asked is None:
        return Explanation(name, tuple(Verdict(path) for path in paths), False)
    from fourtuple.doctor.why_checks import judge

    return Explanation(name, tuple(judge(path, asked) for path in paths))


def still_possible(paths: Iterable[Path], family: int, is_bound: bool | None, at_once: bool) -> tuple[Path, ...]:
    """Those that the facts of one call (of a log) leave."""
    return tuple(
        path
        for path in paths
        if path.family in (0, family)
        and (is_bound is None or path.bound in (None, is_bound))
        and not (path.later and at_once)
    )
