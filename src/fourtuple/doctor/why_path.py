"""Path: one way in which a system call comes to its errno.

Lives here: the record.  Does not live here: the paths (why_connect.py, why_other.py), which one it is (why.py).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Path:
    """A kernel function that gives an errno, and when."""

    call: str
    """connect, bind, listen, socket."""
    errno: str
    function: str
    """The kernel function that decides."""
    when: str
    """The condition, in plain words."""
    look: str = ""
    """What to look at."""
    fix: tuple[str, ...] = ()
    facts: tuple[str, ...] = ()
    """Rows of the catalogue of verified behaviours; () where the kernel's source alone says so."""
    check: str = ""
    """Name of the check that tells whether it is this one (why_checks.py); "": nothing outside the process can tell."""
    family: int = 0
    """4 or 6: only of such destinations; 0: of both."""
    bound: bool | None = None
    """True: only of a socket that has a port already; False: only of one that has none."""
    later: bool = False
    """The answer of the network: a non-blocking connect() gives EINPROGRESS, and this errno is read from SO_ERROR."""
