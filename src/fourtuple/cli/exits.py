"""Exit codes of every command, and which errno of connect() has which."""

from __future__ import annotations

import errno

OK = 0
INTERNAL = 1
USAGE = 2
EADDRNOTAVAIL = 20
ECONNREFUSED = 21
ETIMEDOUT = 22
UNREACHABLE = 23
ECONNRESET = 24
OTHER_ERRNO = 29
NOT_RESOLVED = 68
NO_WIRE = 69
NO_PERMISSION = 77
INTERRUPTED = 130

_OF_ERRNO = {
    0: OK,
    errno.EADDRNOTAVAIL: EADDRNOTAVAIL,
    errno.ECONNREFUSED: ECONNREFUSED,
    errno.ETIMEDOUT: ETIMEDOUT,
    errno.ENETUNREACH: UNREACHABLE,
    errno.EHOSTUNREACH: UNREACHABLE,
    errno.ENONET: UNREACHABLE,
    errno.EHOSTDOWN: UNREACHABLE,
    errno.ECONNRESET: ECONNRESET,
}


def exit_of_errno(code: int) -> int:
    """The exit code for positive errno `code`; 0 for success."""
    return _OF_ERRNO.get(code, OTHER_ERRNO)


class Failure(Exception):
    """The command cannot go on for a reason that is not a bug: one line, what to try, an exit code."""

    def __init__(self, message: str, code: int = USAGE, hints: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.hints = hints


WIRES = ("auto", "tun", "sim")
_LATER = ("veth", "tun-host", "kernel")


def check_wire(name: str) -> None:
    """Refuse a --wire that there is not, or not yet."""
    if name in WIRES:
        return
    if name in _LATER:
        raise Failure(f"--wire {name} is not there yet; tun (private namespace) and sim (no kernel) are", NO_WIRE)
    from difflib import get_close_matches

    meant = get_close_matches(name.lower(), [*WIRES, *_LATER], 1, 0.6)
    raise Failure(
        f"--wire: no wire {name!r}" + (f". Did you mean {meant[0]!r}?" if meant else f"; say {', '.join(WIRES)}")
    )


def wire_failure(error: OSError) -> Failure:
    """What to say of a wire that cannot be opened here."""
    code = NO_PERMISSION if error.errno in (errno.EPERM, errno.EACCES) else NO_WIRE
    return Failure(str(error.strerror), code, ("the same with --wire sim: it needs nothing",))
