"""`fourtuple why ERRNO|FILE|-`: every way connect() and bind() come to an errno, and which one it is here.

Lives here: options, what is meant by a word, JSON.  Does not live here: judging (doctor/why*.py), text (why_text.py).
"""

from __future__ import annotations

import argparse
import json
import os
from typing import TYPE_CHECKING, Any

from fourtuple.cli import exits
from fourtuple.cli.exits import Failure
from fourtuple.cli.terminal import Terminal

if TYPE_CHECKING:
    from fourtuple.doctor.reading import Reading
    from fourtuple.doctor.strace import Log
    from fourtuple.doctor.why import Asked, Explanation
    from fourtuple.doctor.why_path import Path

SCHEMA = "fourtuple.why/1"
_EPILOG = """\
examples:
  fourtuple why EADDRNOTAVAIL                      every path, and what is true of this machine now
  fourtuple why 99 --dest 10.2.0.9:5432            for one destination
  fourtuple why ECONNREFUSED --pid 2211            for where that process connects to
  fourtuple why "Cannot assign requested address"
  fourtuple why EADDRINUSE --dest :8080            what bind() asked for
  sudo fourtuple why 99 --dest 10.2.0.9:5432 --probe  asks the kernel itself
  strace -f -e trace=network -o log.txt PROGRAM; fourtuple why log.txt
  journalctl -u web | fourtuple why -              any log with errno lines: counted

It reads, and changes nothing; nothing is sent, with --probe neither.
✓ it is this one; "not it": looked at; "open": cannot be told here.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.usage = "fourtuple why [options] ERRNO|FILE|-"
    parser.epilog = _EPILOG
    parser.add_argument("words", nargs="+", metavar="ERRNO|FILE|-",
                        help="a name, a number, a message; output of strace or any log; - is stdin")  # fmt: skip
    parser.add_argument("--dest", metavar="HOST:PORT", help="where connect() goes to, or what bind() asks for")
    parser.add_argument("--pid", type=_number, metavar="PID", help="the process that fails: its sockets, its namespace")
    parser.add_argument("--probe", action="store_true", help="also ask the kernel, by a connect() that sends nothing")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("-N", "--netns", metavar="NS", help="a network namespace: a name of `ip netns`, a pid or a path")
    where.add_argument("-r", dest="file", metavar="FILE", help="a file of `fourtuple snapshot`, - for stdin")
    parser.add_argument("--json", action="store_true", help="one JSON document")


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 1 << 31):
        raise argparse.ArgumentTypeError(f"{text!r} is not a pid")
    return int(text)


def run(args: argparse.Namespace, out: Terminal, err: Terminal) -> int:
    """Explain an errno, or what a log has."""
    word = " ".join(args.words)
    if word == "-" or _is_file(word):
        if args.probe:
            raise Failure("why: --probe goes with an errno and --dest, not with a log", exits.USAGE)
        log = _read(word)
        found = _explained(log, args)
        if args.json:
            out.write(_dump(log_document(word, log, found), out))
        else:
            from fourtuple.cli.why_text import log_lines

            out.print(*log_lines(log, found, out))
        return exits.OK
    name = _errno(word)
    asked, unread = _asked(args)
    if args.probe:
        asked = _probe(args, asked, err if args.json else out)
    from fourtuple.doctor.why import explain

    explained = explain(name, asked)
    if args.json:
        out.write(_dump(document(explained, asked, unread), out))
    else:
        from fourtuple.cli.why_text import lines

        out.print(*lines(explained, asked, unread, out))
    return exits.OK


def _is_file(word: str) -> bool:
    try:
        return os.path.exists(word)
    except ValueError:
        return False


def _errno(word: str) -> str:
    from fourtuple.doctor.why import UnknownErrno, find_errno

    try:
        return find_errno(word)
    except UnknownErrno as error:
        extra = "" if "/" not in word and "." not in word else ", and there is no such file"
        raise Failure(f"why: {error}{extra}", exits.USAGE, ("fourtuple why EADDRNOTAVAIL",)) from None


def _read(word: str) -> Log:
    from fourtuple.doctor.strace import read_file

    try:
        return read_file(word)
    except OSError as error:
        raise Failure(f"why: {word}: {error.strerror}", exits.USAGE) from None


# ------------------------------------------------------------------------------------------ reading


def _asked(args: argparse.Namespace) -> tuple[Asked | None, str]:
    """What is known of the machine; a machine that nobody asked about by name may be unreadable."""
    from fourtuple.live.refusal import CannotRead

    where = _places(args.dest)
    if args.file:
        return _from_file(args, where), ""
    from fourtuple.doctor.why_reading import ask_machine

    try:
        return ask_machine(args.netns, where, args.pid or 0, owners=bool(where)), ""
    except CannotRead as error:
        if not (args.netns or args.pid or args.dest):
            return None, str(error)
        import errno

        denied = error.errno in (errno.EPERM, errno.EACCES)
        raise Failure(f"why: {error}", exits.NO_PERMISSION if denied else exits.USAGE) from None


def _probe(args: argparse.Namespace, asked: Asked | None, tell: Terminal) -> Asked:
    """Say what is done, then do it."""
    import errno

    from fourtuple.cli.doctor_text import wrapped
    from fourtuple.doctor.reading import TIME_WAIT
    from fourtuple.doctor.why_probe import ask_kernel
    from fourtuple.live.probe import ABOUT_TAKING, ABOUT_TRY
    from fourtuple.live.refusal import CannotRead

    if args.file:
        raise Failure("why: --probe asks this machine, -r reads a file: one of them", exits.USAGE)
    if asked is None or not any(target.address for target in asked.targets):
        raise Failure("why: --probe needs a destination: --dest HOST:PORT, or --pid of who connects", exits.USAGE)
    taking = asked.reading.system.sysctls.tcp_tw_reuse and asked.reading.rows_in_state(TIME_WAIT)
    if tell.is_tty or not args.json:
        tell.print(*wrapped(f"--probe {ABOUT_TRY}{ABOUT_TAKING if taking else ''}", tell))
    try:
        return ask_kernel(asked, asked.reading.sockets.netns)
    except CannotRead as error:
        denied = error.errno in (errno.EPERM, errno.EACCES)
        raise Failure(f"why: --probe: {error}", exits.NO_PERMISSION if denied else exits.USAGE) from None


def _from_file(args: argparse.Namespace, where: tuple[tuple[str, int], ...]) -> Asked:
    from fourtuple.doctor.reading import Reading
    from fourtuple.doctor.why_reading import ask_snapshot
    from fourtuple.live.snapshot import SnapshotError, read

    try:
        taken = read(args.file)
    except SnapshotError as error:
        raise Failure(f"-r: {error}", exits.USAGE) from None
    if not taken:
        raise Failure(f"-r: {args.file}: holds no namespace", exits.USAGE)
    readings = [Reading.of_snapshot(each) for each in taken]
    asked_about = (
        max(readings, key=lambda each: _fits(each, where, args.pid or 0)) if len(readings) > 1 else readings[0]
    )
    return ask_snapshot(asked_about, where, args.pid or 0)


def _fits(reading: Reading, where: tuple[tuple[str, int], ...], pid: int) -> tuple[bool, bool, float]:
    """Of the namespaces in a file: that of the process, else the one that is worst off."""
    owners = reading.owners.by_inode.values() if reading.owners else ()
    has_pid = any(owner.pid == pid for owner in owners)
    found = [
        p
        for address, port in where or ((None, None),)
        for p in reading.state.destinations(at_most=1, destination=address or None, port=port)
    ]
    return has_pid, bool(reading.state.anywhere().errno), max((p.fill for p in found), default=0.0)


def _places(word: str | None) -> tuple[tuple[str, int], ...]:
    """The numeric addresses of HOST:PORT, which is perhaps a name; (":8080": any address)."""
    if word is None:
        return ()
    from fourtuple.address import is_ipv4, parse_endpoint

    try:
        host, port = parse_endpoint(word)
    except ValueError as error:
        raise Failure(f"why: --dest: {error}", exits.USAGE) from None
    if not host or is_ipv4(host) or ":" in host:
        return ((host, port),)
    import socket

    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "no such name"
        raise Failure(f"why: cannot resolve {host!r}: {reason}", exits.NOT_RESOLVED) from None
    return tuple(dict.fromkeys((str(each[4][0]), port) for each in found))


def _explained(log: Log, args: argparse.Namespace) -> list[tuple[Any, int, tuple[Path, ...]]]:
    """Each kind of failing call, how often, and the paths that can be it."""
    from fourtuple.doctor.why import paths_of, still_possible

    made = []
    for failed, count in log.ranked:
        paths = paths_of(failed.errno, failed.call)
        made.append((failed, count, still_possible(paths, failed.family, failed.has_port, failed.at_once)))
    return made


# ------------------------------------------------------------------------------------------ JSON


def _dump(document: dict[str, Any], out: Terminal) -> str:
    return json.dumps(document, indent=2, ensure_ascii=out.ascii_only) + "\n"


def document(found: Explanation, asked: Asked | None, unread: str) -> dict[str, Any]:
    """As schema/why-1.json describes it."""
    from fourtuple import __version__
    from fourtuple.doctor.why import KERNEL, number_of, text_of

    system = asked.reading.system if asked else None
    return {
        "schema": SCHEMA,
        "version": __version__,
        "kernel_of_paths": KERNEL,
        "errno": found.errno,
        "number": number_of(found.errno),
        "text": text_of(found.errno),
        "asked": {
            "host": system.hostname,
            "kernel": system.kernel,
            "netns": system.netns,
            "pid": asked.pid or None,
            "destinations": [{"address": t.address, "port": t.port} for t in asked.targets],
        }
        if asked and system
        else None,
        "unread": [unread] if unread else [],
        "probe": [
            {
                "address": one.destination,
                "port": one.port,
                "errno": one.errno or None,
                "source": one.source or None,
                "local_port": one.local_port or None,
            }
            for one in asked.tried
        ]
        if asked and asked.tried
        else None,
        "paths": [
            {**_path(v.path), "verdict": v.mark if asked else None, "evidence": v.text or None} for v in found.verdicts
        ],
        "log": None,
        "exit": exits.OK,
    }


def _path(path: Path) -> dict[str, Any]:
    return {
        "call": path.call,
        "function": path.function,
        "when": path.when,
        "look_at": path.look or None,
        "fixes": list(path.fix),
        "facts": list(path.facts),
        "is_answer_of_network": path.later,
    }


def log_document(name: str, log: Log, found: list[tuple[Any, int, tuple[Path, ...]]]) -> dict[str, Any]:
    """The same of a log."""
    from fourtuple import __version__
    from fourtuple.doctor.why import KERNEL

    return {
        "schema": SCHEMA,
        "version": __version__,
        "kernel_of_paths": KERNEL,
        "errno": None,
        "number": None,
        "text": None,
        "asked": None,
        "unread": [],
        "probe": None,
        "paths": [],
        "log": {
            "file": name,
            "is_strace": log.is_strace,
            "lines": log.lines,
            "calls": log.calls,
            "in_progress": log.in_progress,
            "other_sockets": log.other_sockets,
            "failed": [_failed(log, failed, count, paths) for failed, count, paths in found],
        },
        "exit": exits.OK,
    }


def _failed(log: Log, failed: Any, count: int, paths: tuple[Path, ...]) -> dict[str, Any]:
    return {
        "call": failed.call or None,
        "errno": failed.errno,
        "count": count,
        "address": failed.address or None,
        "port": failed.port,
        "bound": failed.bound or None,
        "has_port": failed.has_port,
        "options": list(failed.options),
        "pids": sorted(log.pids[failed] - {0}),
        "paths": [{**_path(path), "verdict": None, "evidence": None} for path in paths],
    }
