"""From an exception to what the kernel's tables say of it, and back to an exception.

Lives here: which errno, which call, where to (Clues); the reading, bounded in time (Case); the exception that is both.
Does not live here: the door (explain_errors.py), which path it is (why.py).
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from errno import EADDRINUSE, EADDRNOTAVAIL, ECONNREFUSED, EHOSTUNREACH, ENETUNREACH, ETIMEDOUT, errorcode
from types import TracebackType
from typing import TYPE_CHECKING, Any

from fourtuple.errors import KINDS, ConnectError

if TYPE_CHECKING:
    from fourtuple.doctor.why import Explanation, Verdict

KNOWN = frozenset({EADDRNOTAVAIL, EADDRINUSE, ECONNREFUSED, EHOSTUNREACH, ENETUNREACH, ETIMEDOUT})
_ALSO_OF_RECV = (ETIMEDOUT, EHOSTUNREACH)
"""recv() and send() fail with these too, long after connect()."""
_MOST_LINKS = 20
_MOST_FRAMES = 40
_ADDRESS = re.compile(r"\('([0-9a-fA-F:.]{2,39})', (\d{1,5})[,)]")
_NUMBER = re.compile(r"\[Errno (\d{1,3})\]")
_BIND_TEXT = "attempting to bind"
_CONNECT_CALLS = ("connect", "connect_ex", "sock_connect", "_sock_connect", "create_connection")
_BIND_CALLS = ("bind", "create_server", "server_bind")


@dataclass(frozen=True)
class Clues:
    """What an exception tells about the call that failed."""

    code: int
    call: str = "connect"
    to: tuple[str, int] | None = None
    is_bound: bool | None = None
    source: tuple[str, int] | None = None


# ------------------------------------------------------------------------------------------ clues


def _linked(error: BaseException) -> Iterator[BaseException]:
    """The exception and those it was made from; not what merely happened before it (`__context__`)."""
    waiting = [error]
    seen: set[int] = set()
    while waiting and len(seen) < _MOST_LINKS:
        each = waiting.pop(0)
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        linked = (each.__cause__, getattr(each, "os_error", None), getattr(each, "reason", None), *each.args)
        waiting += [other for other in linked if isinstance(other, BaseException)]


def find_clues(error: BaseException, destination: tuple[str, int] | None = None) -> Clues | None:
    """None: no connect() or bind() failed here with an errno that something is known about."""
    chain = list(_linked(error))
    if not isinstance(error, Exception) or any(isinstance(each, ConnectError) for each in chain):
        return None  # Ctrl-C, a cancelled task; or it is explained
    if isinstance(error, OSError) and error.errno is not None and error.errno not in KNOWN:
        return None  # it has an errno of its own
    for each in chain:
        code = _code_of(each)
        if code and (code not in _ALSO_OF_RECV or _is_of_connect(chain)):
            text = str(getattr(each, "strerror", None) or each)
            clues = _in_frames(chain, Clues(code, "bind" if _BIND_TEXT in text else "connect"))
            to = destination or _in_text(text) or clues.to or _in_attributes(chain)
            return replace(clues, to=to)
    return None


def _is_of_connect(chain: list[BaseException]) -> bool:
    """A name says so, of a class, of a function that ran, of what the innermost one calls; or asyncio's text."""
    for each in chain:
        if "Connect" in type(each).__name__.removeprefix("Connection") or "Connect call" in str(each):
            return True
        for i, tb in enumerate(_frames(each.__traceback__)):
            code = tb.tb_frame.f_code
            if code.co_name in _CONNECT_CALLS or (i == 0 and set(code.co_names) & set(_CONNECT_CALLS)):
                return True
    return False


def _code_of(error: BaseException) -> int:
    """The errno of an OSError, or in the text of asyncio's 'Multiple exceptions'."""
    if not isinstance(error, OSError):
        return 0
    if error.errno is None and type(error) is OSError:
        found = [int(number) for number in _NUMBER.findall(str(error))]
        return next((code for code in found if code in KNOWN), 0)
    return error.errno if error.errno in KNOWN else 0


def _in_text(text: str) -> tuple[str, int] | None:
    """asyncio says "Connect call failed ('127.0.0.1', 1)"."""
    found = _ADDRESS.findall(text)
    return (found[-1][0], int(found[-1][1])) if found else None


def _in_attributes(chain: list[BaseException]) -> tuple[str, int] | None:
    """aiohttp has host and port, urllib3 a pool, requests a request: numeric addresses only, no name is looked up."""
    for each in chain:
        for holder in (each, getattr(each, "pool", None), getattr(each, "conn", None)):
            place = (getattr(holder, "host", None), getattr(holder, "port", None))
            if found := _as_place(place):
                return found
    return None


def _as_place(value: object) -> tuple[str, int] | None:
    """A tuple that a socket takes as an IPv4 or IPv6 address."""
    if not (isinstance(value, tuple) and 2 <= len(value) <= 4):
        return None
    host, port = value[:2]
    if not (isinstance(host, str) and type(port) is int and 0 <= port < 65536):
        return None
    return (host.strip("[]"), port) if _is_address(host.strip("[]")) else None


def _is_address(text: str) -> bool:
    from ipaddress import ip_address

    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _frames(tb: TracebackType | None) -> list[TracebackType]:
    """The innermost first."""
    found: list[TracebackType] = []
    while tb is not None:
        found.append(tb)
        tb = tb.tb_next
    return found[: -_MOST_FRAMES - 1 : -1]


def _in_frames(chain: list[BaseException], clues: Clues) -> Clues:
    """What the functions that were running had in their hands: a socket, an address; which call it was."""
    import socket

    for tb in (tb for each in chain for tb in _frames(each.__traceback__)):
        values = list(tb.tb_frame.f_locals.values())
        if _calls(tb) == "bind":
            clues = replace(clues, call="bind")
        held = [v for v in values if isinstance(v, socket.socket) and v.fileno() >= 0]
        if len(held) == 1 and tb.tb_next is None and clues.call == "connect":
            clues = _of_socket(clues, held[0])
        if clues.to is None:
            clues = replace(clues, to=_only_place(tb, values, clues.source))
    return clues


def _only_place(tb: TracebackType, values: list[object], own: tuple[str, int] | None) -> tuple[str, int] | None:
    """The one address that a function names: `connect(address)`, `connect(("10.0.0.1", 80))`, `connect(SERVER)`."""
    code = tb.tb_frame.f_code
    for some in (values, [*code.co_consts, *map(tb.tb_frame.f_globals.get, code.co_names)]):
        found = {place for value in some if (place := _as_place(value))} - {own}
        if found:
            return found.pop() if len(found) == 1 else None
    return None


def _calls(tb: TracebackType) -> str:
    """bind or connect, if the function's name or the method that it was calling says so; "" otherwise."""
    code = tb.tb_frame.f_code
    if code.co_name in _BIND_CALLS:
        return "bind"
    names = set(code.co_names)
    both = names & set(_BIND_CALLS) and names & set(_CONNECT_CALLS)
    if not both:
        return "bind" if names & set(_BIND_CALLS) and tb.tb_next is None else ""
    return _on_line(tb)


def _on_line(tb: TracebackType) -> str:
    """The function calls both: the line of the source tells."""
    import linecache

    line = linecache.getline(tb.tb_frame.f_code.co_filename, tb.tb_lineno)
    return "bind" if ".bind(" in line and ".connect" not in line else ""


def _of_socket(clues: Clues, held: Any) -> Clues:
    """Whether it was bound: a socket that connect() could not give a port has none again."""
    import socket

    try:
        if held.family not in (socket.AF_INET, socket.AF_INET6) or held.type != socket.SOCK_STREAM:
            return clues
        host, port = held.getsockname()[:2]
    except OSError:
        return clues
    # After a refusal a port that was automatic still shows: only a failure at once tells.
    at_once = clues.code in (EADDRNOTAVAIL, EADDRINUSE, ENETUNREACH)
    return replace(clues, is_bound=bool(port), source=(host, port)) if at_once else clues


# ------------------------------------------------------------------------------------------ the case


class Case:
    """One failure, being looked into by a thread of its own, in the network namespace of the thread that failed."""

    def __init__(self, error: BaseException, clues: Clues) -> None:
        self.error = error
        self.clues = clues
        self.found: Explanation | None = None
        self.thread = threading.Thread(target=self._look, name="fourtuple-explain", daemon=True)

    def _look(self) -> None:
        try:
            self.found = look_into(self.clues)
        except Exception:  # the original is worth more than our trouble with it
            self.found = None

    def raise_explained(self) -> None:
        """Raise the exception with its explanation; return if there is none: the original goes on."""
        found = self.found
        if found is None:
            return
        try:
            made = become(self.error, *_told(self.clues, found))
        except Exception:  # a class that lets nothing be set
            return
        if made is not self.error:
            raise made from self.error


def open_case(error: BaseException, destination: tuple[str, int] | None) -> Case | None:
    """A case that is being looked into; None when this is none of ours."""
    try:
        clues = _clues_of_group(error, destination) if isinstance(error, BaseExceptionGroup) else find_clues(
            error, destination)  # fmt: skip
        if clues is None:
            return None
        case = Case(error, clues)
        case.thread.start()
    except Exception:  # no thread to be had, an exception that raises when it is looked at
        return None
    return case


def _clues_of_group(group: BaseExceptionGroup[Any], destination: tuple[str, int] | None) -> Clues | None:
    """Of the first in it that is ours: happy eyeballs fail all for one reason mostly."""
    for each in group.exceptions[:_MOST_LINKS]:
        inner = isinstance(each, BaseExceptionGroup)
        clues = _clues_of_group(each, destination) if inner else find_clues(each, destination)
        if clues:
            return clues
    return None


def look_into(clues: Clues) -> Explanation:
    """Read this network namespace, and say which path it was.  Raises CannotRead."""
    from fourtuple.doctor.why import explain
    from fourtuple.doctor.why_reading import ask_machine

    places = (clues.to,) if clues.to else (clues.source,) if clues.call == "bind" and clues.source else ()
    asked = ask_machine(None, places, is_bound=clues.is_bound, source=clues.source)
    return explain(errorcode[clues.code], asked, clues.call)


# ------------------------------------------------------------------------------------------ the exception


def _told(clues: Clues, found: Explanation) -> tuple[int, str, dict[str, Any], str]:
    """Errno, one line, report, note."""
    from fourtuple.doctor.why import NO, YES

    it = [verdict for verdict in found.verdicts if verdict.mark == YES]
    left = it or [verdict for verdict in found.verdicts if verdict.mark != NO] or list(found.verdicts)
    first = left[0]
    line = os.strerror(clues.code)
    if it:
        line += f": {first.text}"
    elif len(left) == 1:
        line += f": {first.path.when}"
    report = {
        "call": clues.call,
        "errno": found.errno,
        "function": first.path.function,
        "reason": first.text if it else first.path.when,
        "frees": list(first.path.fix),
        "four_tuple": _four_tuple(clues),
        "ports": None,
        "is_certain": bool(it),
        "paths": [
            {"function": v.path.function, "when": v.path.when, "verdict": v.mark, "evidence": v.text}
            for v in found.verdicts
        ],
    }
    return clues.code, line, report, _note(found, left, bool(it))


def _four_tuple(clues: Clues) -> dict[str, Any] | None:
    if clues.to is None or clues.call != "connect":
        return None
    source, port = clues.source if clues.source and clues.is_bound else ("", 0)
    return {"saddr": source, "sport": port, "daddr": clues.to[0], "dport": clues.to[1]}


def _note(found: Explanation, left: list[Verdict], is_certain: bool) -> str:
    lines = []
    for verdict in left:
        path = verdict.path
        lines.append(f"{found.errno} from {path.call}() in {path.function}: {path.when}")
        if verdict.text:
            lines.append(f"  {'here' if is_certain else 'open'}: {verdict.text}")
        lines += [f"  fix: {fix}" for fix in path.fix]
    return "\n".join(lines)


def become(error: BaseException, code: int, line: str, report: dict[str, Any], note: str) -> BaseException:
    """The exception to raise from `error`: of its class and a ConnectError; or `error` itself, with a note."""
    kind = KINDS.get(code, ConnectError)
    made: BaseException
    if not isinstance(error, OSError):
        made = error
        made.explanation = kind(code, line, report)  # type: ignore[attr-defined]
    elif issubclass(kind, type(error)):
        made = kind(code, line, report)
    else:
        made = _both(error, kind, code, line, report)
    made.add_note(note)
    return made


def _both(
    error: BaseException, kind: type[ConnectError], code: int, line: str, report: dict[str, Any]
) -> BaseException:
    """An exception that both `except type(error)` and `except ConnectError` catch, with all that `error` carries."""
    both = _class_of(type(error), kind)
    made: Any = both.__new__(both)
    OSError.__init__(made, code, line)
    made.__dict__.update(getattr(error, "__dict__", {}))
    made.args = error.args
    made.report = report
    made.original = error
    return made  # type: ignore[no-any-return]


def _class_of(base: type[BaseException], kind: type[ConnectError]) -> Any:
    """Named as the class that was raised: that is what people look for in a traceback."""

    def text(self: Any) -> str:
        return f"{self.original}{self.strerror.removeprefix(os.strerror(self.errno))}"

    def reduce(self: Any) -> Any:
        return _again, (self.original, kind, self.errno, self.strerror, self.report)

    members = {"__module__": base.__module__, "__qualname__": base.__qualname__, "__str__": text, "__reduce__": reduce}
    return type(base.__name__, (base, kind), members)


def _again(error: BaseException, kind: type[ConnectError], code: int, line: str, report: dict[str, Any]) -> Any:
    """The same in another process."""
    return _both(error, kind, code, line, report)
