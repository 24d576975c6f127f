"""Exit codes of every command, and which errno of connect() has which."""

from __future__ import annotations

import errno
import sys

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


def cannot_write(what: str, error: OSError | ValueError) -> Failure:
    """An output that cannot be opened or written, whichever; `what`: `-o: cannot write FILE`."""
    if not isinstance(error, OSError):  # a zero byte in its name
        return Failure(f"{what}: {error}")
    denied = error.errno in (errno.EPERM, errno.EACCES, errno.EROFS)
    return Failure(f"{what}: {error.strerror or error}", NO_PERMISSION if denied else OTHER_ERRNO)


WIRES = ("auto", "tun", "veth", "tun-host", "sim")
"""What --wire takes: `auto`, and the names of shell.wires.KINDS, which is not imported for that."""
WIRE_HELP = "auto, the best that works (default), or tun, veth, tun-host, sim: see fourtuple wires"


def check_wire(name: str) -> None:
    """Refuse a --wire that there is not."""
    if name in WIRES:
        return
    if name == "kernel":
        raise Failure("--wire kernel: kernel sockets run none of the functions that are watched here", NO_WIRE)
    from difflib import get_close_matches

    meant = get_close_matches(name.lower(), WIRES, 1, 0.6)
    raise Failure(
        f"--wire: no wire {name!r}" + (f". Did you mean {meant[0]!r}?" if meant else f"; say {', '.join(WIRES)}")
    )


def wire_failure(error: OSError) -> Failure:
    """What to say of a wire that cannot be opened here; its `todo`, if it has one, comes first."""
    code = NO_PERMISSION if error.errno in (errno.EPERM, errno.EACCES) else NO_WIRE
    todo: str = getattr(error, "todo", "")
    hints = (todo, "the same with --wire sim: it needs nothing", "fourtuple wires   (what can be used here)")
    return Failure(str(error.strerror), code, tuple(hint for hint in hints if hint))


def lost_wire(error: OSError) -> Failure | None:
    """What to say of a wire that went away while it was used; None when the error is another."""
    wire = sys.modules.get("fourtuple.shell.wire")  # not imported: then nobody has opened one
    return wire_failure(error) if wire and isinstance(error, wire.WireUnavailable) else None
