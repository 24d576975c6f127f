"""`fourtuple doctor [DEST]`: who on this machine is near EADDRNOTAVAIL, what connect() costs, and what fixes it.

Lives here: options, reading, when to ask again.  Does not live here: judging (doctor/), text (doctor_text.py), JSON
(doctor_json.py).
"""

from __future__ import annotations

import argparse
import errno
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from fourtuple.cli import exits
from fourtuple.cli.exits import Failure
from fourtuple.cli.terminal import Terminal

if TYPE_CHECKING:
    from fourtuple.doctor.findings import Diagnosis, Question
    from fourtuple.doctor.reading import Reading
    from fourtuple.live.failures import FailedConnects
    from fourtuple.live.rtnetlink import Route
    from fourtuple.live.system import Limits

_EPILOG = """\
examples:
  fourtuple doctor                             this network namespace
  sudo fourtuple doctor -p                     with the processes behind it
  fourtuple doctor 10.2.0.9:5432               one destination
  fourtuple doctor --what-if ip_local_port_range=15000-64999
  fourtuple doctor --watch=5                   rates, the time left, failed calls
  fourtuple doctor -r web-17.snap              a machine elsewhere
  fourtuple doctor -r 10h.snap -r 11h.snap     ... with rates and the time left

It reads, and changes nothing; nothing is sent.
Exit code: 0 fine, 10 a warning, 11 critical.

--what-if takes
  ip_local_port_range=LOW-HIGH  ip_local_reserved_ports=LIST
  tcp_tw_reuse=0|1|2  tcp_tw_reuse_delay=MS  IP_LOCAL_PORT_RANGE=on|LOW-HIGH
  bind_no_port=1   programs that bind() an address set IP_BIND_ADDRESS_NO_PORT
  sources=N        every destination is reached from N addresses in turn
  dests=N          what goes to a destination goes to N of them in turn
  close=WHAT       these connections are gone: pid/N, command/NAME, inode/N,
                   dest/ADDRESS:PORT, state/NAME, idle/SECONDS
"""
_ALIASES = "anonymized ones are compared only if both were taken with the same `snapshot --aliases FILE`"
_DEFAULT_SECONDS = 2.0
_MOST_LIMITS = 100
_AF_INET = 2


class _Watch(argparse.Action):
    """--watch, --watch=SECS; in `--watch DEST` the word is the destination."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        namespace.watch = _DEFAULT_SECONDS
        if values is None:
            return
        try:
            namespace.watch = _seconds(values)
        except argparse.ArgumentTypeError as error:
            if not any(c in values for c in ".:") or values.replace(".", "").isdigit():
                parser.error(f"--watch: {error}")
            namespace.watched = values


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    from fourtuple.cli.options import fraction

    parser.usage = "fourtuple doctor [options] [DEST]"
    parser.epilog = _EPILOG
    parser.add_argument("destination", nargs="?", metavar="DEST", help="HOST:PORT, :PORT or ADDRESS; default: all")
    where = parser.add_argument_group("what is read")
    one = where.add_mutually_exclusive_group()
    one.add_argument("-N", "--netns", metavar="NS", help="a network namespace: a name of `ip netns`, a pid or a path")
    one.add_argument("--pid", type=_number, metavar="PID", help="the namespace that this process is in")
    one.add_argument("--all-netns", action="store_true", help="every one that can be seen")
    one.add_argument("-r", dest="file", action="append", metavar="FILE",
                     help="a file of `fourtuple snapshot`, - for stdin; two, the earlier first: rates")  # fmt: skip
    where.add_argument("-p", dest="processes", action="store_true", help="find the processes (others': needs root)")
    where.add_argument("--probe", action="store_true", help="also try every port of the range; says what it does")
    where.add_argument("--watch", nargs="?", action=_Watch, default=0.0, metavar="SECS",
                       help="again and again (default every 2 s): rates and the time left")  # fmt: skip
    where.add_argument("-c", dest="count", type=_number, metavar="N", help="stop watching after N readings")
    what = parser.add_argument_group("what is shown")
    what.add_argument("-4", dest="family", action="store_const", const=4, help="IPv4 destinations only")
    what.add_argument("-6", dest="family", action="store_const", const=6, help="IPv6 destinations only")
    what.add_argument("--all", dest="everything", action="store_true", help="also those below 1 %% of the range")
    what.add_argument("-H", dest="no_header", action="store_true", help="no head lines")
    what.add_argument("--what-if", action="append", default=[], metavar="K=V",
                      help="the same sockets under another setting, beside today's; repeatable; see below")  # fmt: skip
    what.add_argument("--warn", type=fraction, default=0.45, metavar="FILL", help="a warning from here (45%%)")
    what.add_argument("--crit", type=fraction, default=0.90, metavar="FILL", help="critical from here (90%%)")
    what.add_argument("--idle", type=_idle_seconds, default=60.0, metavar="SECS",
                      help="a connection without data for longer is idle (60 s)")  # fmt: skip
    what.add_argument("--json", action="store_true", help="one JSON document; with --watch one object a line")
    parser.set_defaults(watched=None)


def _seconds(text: str) -> float:
    try:
        seconds = float(text.removesuffix("s"))
    except ValueError:
        seconds = -1.0
    if not 0.05 <= seconds <= 86_400:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no number of seconds from 0.05 to 86400; say for example --watch=2"
        )
    return seconds


def _idle_seconds(text: str) -> float:
    try:
        seconds = float(text.removesuffix("s"))
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds; say for example --idle=60")
    return seconds


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 1 << 31):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 on")
    return int(text)


def run(args: argparse.Namespace, out: Terminal, err: Terminal) -> int:
    """Read, judge, show; once, or until stopped.  The exit code is that of the last reading."""
    args.destination = _destination_word(args)
    question = _question(args)
    if not args.watch:
        return _run(args, question, out, err, None)
    from fourtuple.live.failures import listen

    with listen() or nullcontext() as failures:
        return _run(args, question, out, err, failures)


def _run(
    args: argparse.Namespace, question: Question, out: Terminal, err: Terminal, failures: FailedConnects | None
) -> int:
    code = exits.OK
    earlier = _earlier(args, question)
    for turn in _turns(args):
        readings = _readings(args)
        if failures is not None:
            readings[0].failed = tuple(failures.take())
            readings[0].failed_elsewhere = failures.missed
        if args.probe:
            _probe(readings, err if args.json else out)
        found = [_diagnose(reading, question) for reading in readings]
        found = _with_rates(earlier, found)
        _show(args, out, found, question, turn)
        code = max(diagnosis.exit_code for diagnosis in found)
        earlier = found
    return code


def _destination_word(args: argparse.Namespace) -> str | None:
    if args.watched and args.destination is not None:
        raise Failure(f"doctor: one destination, not both {args.watched} and {args.destination}", exits.USAGE)
    word: str | None = args.watched if args.destination is None else args.destination
    return word


def _turns(args: argparse.Namespace) -> Iterator[int]:
    if not args.watch:
        if args.count:
            raise Failure("doctor: -c goes with --watch", exits.USAGE)
        yield 0
        return
    if args.file:
        raise Failure("doctor: --watch reads this machine, -r a file: one of them", exits.USAGE)
    turn = 0
    while not args.count or turn < args.count:
        if turn:
            time.sleep(args.watch)
        yield turn
        turn += 1


# ------------------------------------------------------------------------------------------ what is asked


def _question(args: argparse.Namespace) -> Question:
    from fourtuple.cli.target import check_family, of_family
    from fourtuple.doctor.findings import Question

    if args.warn > args.crit:
        raise Failure(f"doctor: --warn {args.warn:.0%} is above --crit {args.crit:.0%}", exits.USAGE)
    host = _parts(args.destination)[0]
    check_family("doctor", host, args.family)
    changes = _changes(args.what_if)
    if any(kind in changes.get("close", "") for kind in ("pid/", "command/")):
        args.processes = True  # else nobody's sockets are known, and nothing is closed
    return Question(
        addresses=of_family("doctor", host, _addresses(args.destination), None if ":" in host else args.family),
        port=_port(args.destination),
        family=args.family,
        warn=args.warn,
        crit=args.crit,
        everything=args.everything,
        changes=changes,
        idle_s=args.idle,
    )


def _changes(words: list[str]) -> dict[str, str]:
    if not words:
        return {}
    from fourtuple.doctor.what_if import parse_changes

    try:
        return parse_changes(words)
    except ValueError as error:
        raise Failure(f"--what-if: {error}", exits.USAGE) from None


def _parts(word: str | None) -> tuple[str, int | None]:
    """Host ("" for any) and port (None for any) of DEST."""
    from fourtuple.address import is_ipv4, parse_endpoint, parse_ipv6

    if word is None:
        return "", None
    bare = word[1:-1] if word.startswith("[") and word.endswith("]") else word
    if is_ipv4(bare):
        return bare, None
    try:
        if bare.count(":") > 1:
            parse_ipv6(bare)
            return bare, None
    except ValueError:
        pass
    try:
        return parse_endpoint(word) if ":" in word else (parse_endpoint(f"{word}:0")[0], None)
    except ValueError as error:
        raise Failure(f"doctor: {error}", exits.USAGE) from None


def _port(word: str | None) -> int | None:
    return _parts(word)[1]


def _addresses(word: str | None) -> tuple[str, ...]:
    """The numeric addresses of DEST, which is perhaps a name."""
    from fourtuple.address import is_ipv4

    host = _parts(word)[0]
    if not host or is_ipv4(host) or ":" in host:
        return (host,) if host else ()
    import socket

    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "no such name"
        raise Failure(f"doctor: cannot resolve {host!r}: {reason}", exits.NOT_RESOLVED) from None
    return tuple(dict.fromkeys(str(each[4][0]) for each in found))


# ------------------------------------------------------------------------------------------ reading


def _readings(args: argparse.Namespace) -> list[Reading]:
    """One, or with --all-netns and in a file several."""
    from fourtuple.live.refusal import CannotRead

    if args.file:
        return _from_file(args)
    try:
        if args.all_netns:
            return _of_all(args)
        return [_of_one(f"/proc/{args.pid}/ns/net" if args.pid else args.netns, args)]
    except CannotRead as error:
        denied = error.errno in (errno.EPERM, errno.EACCES)
        raise Failure(str(error), exits.NO_PERMISSION if denied else exits.USAGE) from None


def _from_file(args: argparse.Namespace) -> list[Reading]:
    if args.probe:
        raise Failure("doctor: --probe tries ports of this machine, -r reads a file: one of them", exits.USAGE)
    return _in_file(args.file[-1])


def _in_file(name: str) -> list[Reading]:
    from fourtuple.doctor.reading import Reading
    from fourtuple.live.snapshot import SnapshotError, read

    try:
        return [Reading.of_snapshot(taken) for taken in read(name)]
    except SnapshotError as error:
        raise Failure(f"-r: {error}", exits.USAGE) from None


def _earlier(args: argparse.Namespace, question: Question) -> list[Diagnosis]:
    """The first of two files, to have rates from."""
    if not args.file or len(args.file) == 1:
        return []
    if len(args.file) > 2 or args.file[0] == args.file[1]:
        raise Failure("doctor: -r: one file, or an earlier and a later one", exits.USAGE)
    first, second = map(_in_file, args.file)
    common = {each.system.netns_inode for each in first} & {each.system.netns_inode for each in second}
    hosts = {each.system.hostname for each in (*first, *second)}
    names = f"doctor: -r: {args.file[0]} and {args.file[1]}"
    if not common or len(hosts) > 1:
        raise Failure(f"{names} have no namespace in common; {_ALIASES}", exits.USAGE)
    if not all(_same_names(a, b) for a in first for b in second if a.system.netns_inode == b.system.netns_inode):
        raise Failure(f"{names} have other names for the same addresses; {_ALIASES}", exits.USAGE)
    if all(a.state.taken_at >= b.state.taken_at for a in first for b in second):
        raise Failure(f"doctor: -r: {args.file[0]} is not earlier than {args.file[1]}: give the earlier one first")
    return [_diagnose(reading, question) for reading in first]


def _same_names(one: Reading, other: Reading) -> bool:
    """Whether connections that are in both (by inode and ports, which nothing changes) have their addresses in both."""
    found: list[set[tuple[int, ...]]] = []
    for s in (one.sockets, other.sockets):
        rows = zip(s.inode, s.sport, s.dport, s.saddr, s.daddr, s.family, strict=True)
        found.append({row[:5] for row in rows if row[0] and row[2] and row[5] == _AF_INET})
    ends = {row[:3] for row in found[0]} & {row[:3] for row in found[1]}
    return 10 * len(found[0] & found[1]) >= 9 * len(ends)


def _of_one(spec: Any, args: argparse.Namespace) -> Reading:
    from fourtuple.doctor.reading import Reading
    from fourtuple.live.netns import find_netns
    from fourtuple.live.reader import sockets
    from fourtuple.live.system import read_system, routes_towards

    netns = find_netns(spec)
    table = sockets(netns, idle=True)
    system = read_system(netns)
    routes: tuple[Route, ...] = ()
    addresses = _addresses(args.destination)
    if addresses:
        port = _port(args.destination) or 0
        routes = routes_towards([(address, port, "") for address in addresses], netns)
    if not args.processes:
        return Reading(table, system, routes=routes, unread=system.unread)
    from fourtuple.live.owners import owners_of

    owners = owners_of(table)
    unread = (*system.unread, *owners.unread)
    return Reading(table, system, owners, _limits(owners.by_inode), routes, unread)


def _probe(readings: list[Reading], tell: Terminal) -> None:
    """Say what is done, then do it."""
    from fourtuple.cli.doctor_text import wrapped
    from fourtuple.doctor.probed import probe
    from fourtuple.doctor.reading import TIME_WAIT
    from fourtuple.live.probe import ABOUT, poison_way
    from fourtuple.live.refusal import CannotRead
    from fourtuple.live.time_wait import ABOUT as ABOUT_TIME_WAITS

    for reading in readings:
        try:
            about = ABOUT[poison_way(reading.sockets.netns)]
            about += f"; {ABOUT_TIME_WAITS}" if reading.rows_in_state(TIME_WAIT) else ""
            if tell.is_tty or tell.stream is not sys.stderr:
                tell.print(*wrapped(f"--probe {about}", tell))
            probe(reading)
        except CannotRead as error:
            if error.errno in (errno.EPERM, errno.EACCES):
                raise Failure(f"--probe: {error}", exits.NO_PERMISSION) from None
            reading.unread += (f"--probe: {error}",)  # lo is down, say: the rest is still worth telling


def _limits(owners: dict[int, Any]) -> dict[int, Limits]:
    """Descriptor limits of those who hold most sockets."""
    from collections import Counter

    from fourtuple.live.refusal import CannotRead
    from fourtuple.live.system import read_limits

    found = {}
    for pid, _ in Counter(owner.pid for owner in owners.values()).most_common(_MOST_LIMITS):
        try:
            found[pid] = read_limits(pid)
        except CannotRead:
            continue  # it has ended
    return found


def _of_all(args: argparse.Namespace) -> list[Reading]:
    from fourtuple.doctor.reading import Reading
    from fourtuple.live.snapshot import take_all

    taken = take_all(owners=args.processes, routes=False)
    readings = [Reading.of_snapshot(each) for each in taken]
    for reading in readings:
        reading.is_live = True
    return readings


def _diagnose(reading: Reading, question: Question) -> Diagnosis:
    from fourtuple.doctor.findings import diagnose

    try:
        return diagnose(reading, question)
    except ValueError as error:
        raise Failure(f"doctor: {error}", exits.USAGE) from None


def _with_rates(earlier: list[Diagnosis], found: list[Diagnosis]) -> list[Diagnosis]:
    """The same with what has changed since the last reading of the same namespace."""
    from fourtuple.doctor.predict import compare

    before = {each.reading.system.netns_inode: each.reading.state for each in earlier}
    rated = []
    for each in found:
        state = before.get(each.reading.system.netns_inode)
        if state is not None and each.reading.state.taken_at > state.taken_at:
            each = each._replace(predictions=tuple(compare(state, each.reading.state, each.predictions)))
        rated.append(each)
    return rated


def _show(args: argparse.Namespace, out: Terminal, found: Sequence[Diagnosis], question: Question, turn: int) -> None:
    if args.json:
        from fourtuple.cli.doctor_json import to_text

        out.write(to_text(found, one_line=bool(args.watch), ascii_only=out.ascii_only) + "\n")
        return
    from fourtuple.cli.doctor_text import lines

    if turn:
        out.write("\x1b[H\x1b[J" if out.is_tty and not out.ascii_only else "\n")
    elif args.watch and out.is_tty and not out.ascii_only:
        out.write("\x1b[H\x1b[2J")
    for i, each in enumerate(found):
        out.print(*([""] if i else []), *lines(each, question, out, args.destination, not args.no_header))
