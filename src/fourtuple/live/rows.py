"""Socket and Destination: one row of a table as a named tuple of texts and numbers, for looking at.

A module of its own, because most programs never look at one and typing takes longer to import than all of live/.
"""

from __future__ import annotations

from typing import NamedTuple


class Socket(NamedTuple):
    """One row as text and numbers, for looking at: a million of them cost 600 MB, a million rows 47."""

    family: int
    state: str
    saddr: str
    sport: int
    daddr: str
    dport: int
    flags: int = 0
    timer: int = 0
    retrans: int = 0
    ifindex: int = 0
    uid: int = 0
    inode: int = 0
    expires_ms: int = 0
    rqueue: int = 0
    wqueue: int = 0
    cgroup: int = 0


class Destination(NamedTuple):
    """One destination as text and numbers."""

    family: int
    saddr: str
    daddr: str
    dport: int
    total: int
    counts: dict[int, int]
    """State -> sockets in it."""
