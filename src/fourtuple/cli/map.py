"""`fourtuple map [DEST]`: every port of the range as the next connect() to a destination finds it.

Lives here: options, which destination, the lines round the map.  Does not live here: what a port is
(doctor/port_states.py), the map in the terminal (portmap.py), as a page (html/ports_page.py), as a picture
(port_picture.py), as JSON (map_json.py).
"""

from __future__ import annotations

import argparse
import errno
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from fourtuple.cli import exits
from fourtuple.cli.exits import Failure
from fourtuple.cli.terminal import Line, Terminal

if TYPE_CHECKING:
    from fourtuple.doctor.answers import Prediction
    from fourtuple.doctor.port_states import PortStates
    from fourtuple.doctor.reading import Reading

_EPILOG = """\
examples:
  fourtuple map                         the destination with the fullest range
  fourtuple map 10.2.0.9:5432           one destination
  fourtuple map --buckets -p            who holds ports, to any destination
  fourtuple map -N web --html map.html  of another namespace, as a page
  fourtuple map -r web-17.snap          of a machine elsewhere

Even and odd ports are apart, as connect() tries all of one before the other.
It reads, and changes nothing; nothing is sent.
Exit code: 0, however full it is.
"""
_MOST = 50
_MOST_HOLDERS = 6


class Asked(NamedTuple):
    """A map, and what it is a map of."""

    reading: Reading
    prediction: Prediction
    """Of the destination; with --buckets of one that nobody is connected to."""
    states: PortStates
    others: tuple[Prediction, ...]
    """Less full ones that DEST means too, or all of this namespace."""
    target: str
    """DEST as given; "" without."""

    @property
    def is_connected(self) -> bool:
        """Somebody is connected to it."""
        return self.prediction.used > 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.usage = "fourtuple map [options] [DEST]"
    parser.epilog = _EPILOG
    parser.add_argument(
        "destination", nargs="?", metavar="DEST", help="HOST:PORT, :PORT or ADDRESS; default: the fullest"
    )
    where = parser.add_argument_group("what is read")
    one = where.add_mutually_exclusive_group()
    one.add_argument("-N", "--netns", metavar="NS", help="a network namespace: a name of `ip netns`, a pid or a path")
    one.add_argument("-r", dest="file", metavar="FILE", help="a file of `fourtuple snapshot`, - for stdin")
    where.add_argument("-p", dest="processes", action="store_true", help="find the processes (others': needs root)")
    what = parser.add_argument_group("what is shown")
    what.add_argument("-4", dest="family", action="store_const", const=4, help="IPv4 destinations only")
    what.add_argument("-6", dest="family", action="store_const", const=6, help="IPv6 destinations only")
    what.add_argument("--buckets", action="store_true", help="the bind buckets, whatever the destination")
    what.add_argument("--json", action="store_true", help="one JSON document instead of text")
    what.add_argument("--html", metavar="FILE", help="also as a page, in one file")
    what.add_argument("--png", metavar="FILE", help="also as a picture (needs matplotlib)")


def run(args: argparse.Namespace, out: Terminal, err: Terminal) -> int:
    """Read, choose, draw."""
    _check_files(args)
    asked = _fullest([_asked(reading, args) for reading in _readings(args)])
    if args.json:
        from fourtuple.cli.map_json import to_text

        out.write(to_text(asked, out.ascii_only) + "\n")
    else:
        out.width = out.columns
        out.print(*_lines(asked, out))
    _write_files(asked, args, out, err)
    return exits.OK


# ------------------------------------------------------------------------------------------------ reading


def _readings(args: argparse.Namespace) -> list[Reading]:
    from fourtuple.doctor.reading import Reading
    from fourtuple.live.refusal import CannotRead

    if args.file:
        from fourtuple.live.snapshot import SnapshotError, read

        try:
            return [Reading.of_snapshot(taken) for taken in read(args.file)]
        except SnapshotError as error:
            raise Failure(f"-r: {error}", exits.USAGE) from None
    try:
        return [_of_netns(args.netns, args.processes)]
    except CannotRead as error:
        denied = error.errno in (errno.EPERM, errno.EACCES)
        raise Failure(str(error), exits.NO_PERMISSION if denied else exits.USAGE) from None


def _of_netns(name: str | None, with_owners: bool) -> Reading:
    from fourtuple.doctor.reading import Reading
    from fourtuple.live.netns import find_netns
    from fourtuple.live.owners import owners_of
    from fourtuple.live.reader import sockets
    from fourtuple.live.system import read_system

    netns = find_netns(name)
    table = sockets(netns)
    system = read_system(netns)
    if not with_owners:
        return Reading(table, system, unread=system.unread)
    owners = owners_of(table)
    return Reading(table, system, owners, unread=(*system.unread, *owners.unread))


def _asked(reading: Reading, args: argparse.Namespace) -> Asked:
    from fourtuple.doctor.port_states import bucket_states, port_states

    found = _predictions(reading, args.destination, args.family)
    word = args.destination or ""
    if args.buckets:
        return Asked(reading, reading.state.anywhere(), bucket_states(reading.state), tuple(found), word)
    return Asked(reading, found[0], port_states(reading.state, found[0]), tuple(found[1:]), word)


def _predictions(reading: Reading, word: str | None, family: int | None) -> list[Prediction]:
    """What DEST means, of that family, the fullest first; never none."""
    from fourtuple.cli.target import addresses_of, check_family, of_family, parse_target

    host, port = parse_target(word)
    check_family("map", host, family)
    addresses = of_family("map", host, addresses_of(host), None if ":" in host else family)
    state = reading.state
    found: list[Prediction] = []
    try:
        for address in addresses or (None,):
            found += state.destinations(0.0, _MOST, address, port)
        if not found and addresses and port is not None:
            return [state.predict(None, addresses[0], port)]
    except ValueError as error:
        raise Failure(f"map: {error}", exits.USAGE) from None
    found = [p for p in found if family in (None, 6 if ":" in p.destination else 4)]
    return sorted(found, key=lambda p: -p.fill) or [state.anywhere()]


def _fullest(maps: list[Asked]) -> Asked:
    """A file may hold several namespaces."""
    return max(maps, key=lambda each: (each.is_connected, each.prediction.fill))


# ------------------------------------------------------------------------------------------------ text


def _lines(asked: Asked, out: Terminal) -> Iterator[Line]:
    from fourtuple.cli.render import paragraph

    if not asked.is_connected and not asked.states.is_buckets:
        yield from paragraph(out.glyphs(nobody(asked, _place(asked))), out.width, 0)
        return
    from fourtuple.cli.portmap import map_lines

    yield from paragraph(out.glyphs(title(asked)), out.width, 0, "bold")
    yield from paragraph(out.glyphs(" · ".join(facts(asked))), out.width, 0, "dim")
    yield []
    yield from map_lines(asked.states, out)
    yield []
    for label, text in remarks(asked):
        yield from _labelled(label, text, out)
    for text in asked.reading.unread:
        yield from paragraph(out.glyphs(f"not read: {text}"), out.width, 2, "dim")


def _labelled(label: str, text: str, out: Terminal) -> Iterator[Line]:
    from fourtuple.cli.render import wrap

    room = out.width - 18
    for i, piece in enumerate(wrap(out.glyphs(text), room, room) or [""]):
        yield [(f"  {label if i == 0 else '':<16}", "dim"), (piece, "bad" if piece.startswith("EADDR") else "")]


def _place(asked: Asked) -> str:
    """` in netns web` where it is not the own namespace."""
    reading = asked.reading
    place = f" in netns {reading.netns}" if reading.netns else ""
    return place if reading.is_live else f"{place} in the snapshot of {reading.system.hostname}"


def nobody(asked: Asked, place: str = "") -> str:
    """The one line about a destination without sockets: what bind() and listen() do alone."""
    from fourtuple.doctor.words import grouped, plural

    p, states = asked.prediction, asked.states
    who = f"{asked.target}: nobody is connected to it" if asked.target else "nobody is connected anywhere"
    who += place
    free = f"{grouped(p.free.likely)} of {plural(p.ports_in_range, 'port')} free"
    shut = [
        (sum(map(sum, map(states.count, ("bound", "likely_bound")))), "held by bind()"),
        (sum(map(sum, map(states.count, ("listen", "accepted")))), "by listeners"),
        (p.reserved_ports, "reserved"),
    ]
    held = [f"{grouped(n)} {what}" for n, what in shut if n]
    if p.ports_in_range == 3 and asked.reading.state.option is None:
        held.append("1 that no search looks at")
    return f"{who}; {free}" + (f", {', '.join(held)}" if held else "; bind() and listen() hold none of them")


def title(asked: Asked) -> str:
    """What the map is of, and how full that is."""
    from fourtuple.doctor.words import endpoint, grouped, percent, plural

    p = asked.prediction
    share = f"{grouped(p.ports_in_range - p.free.likely)} of {plural(p.ports_in_range, 'port')}"
    if asked.states.is_buckets:
        return f"bind buckets   {share} are out of reach of every connect()"
    return f"{p.source} → {endpoint(p.destination, p.port)}   {share} taken ({percent(p.fill)})"


def facts(asked: Asked) -> list[str]:
    """Where, when, of how many, in which range."""
    reading = asked.reading
    low, high = asked.states.low, asked.states.high
    words = []
    if not asked.states.is_buckets and not asked.target and asked.others:
        words.append(f"the fullest of {len(asked.others) + 1} destinations")
    if reading.netns:
        words.append(f"netns {reading.netns}")
    if not reading.is_live:
        words.append(f"snapshot of {reading.system.hostname}")
    words.append(f"range {low}–{high}, {'odd' if low & 1 else 'even'} first")
    return words


def remarks(asked: Asked) -> Iterator[tuple[str, str]]:
    """(label, text) of what is said below the map."""
    p = asked.prediction
    if not asked.states.is_buckets:
        yield "next connect()", next_connect(p)
        yield "left", left(p)
    if p.ports_in_range == 3 and asked.reading.state.option is None:
        yield "out of reach", f"{asked.states.high}: in a range of 3 ports no search looks at the last one"
    for reason in p.reasons:
        yield "not certain", reason
    yield from _held_by(asked)
    if asked.target and asked.others and not asked.states.is_buckets:
        yield "also", others(asked)


def next_connect(p: Prediction) -> str:
    """What it meets."""
    from fourtuple.doctor.words import duration, grouped, plural

    if p.errno:
        return f"{p.errno}: every port is passed over, in {duration(p.cost_us.likely)}"
    passed = "no port" if p.passed.mean < 0.5 else plural(round(p.passed.mean), "port")
    worst = f" (p95 {grouped(p.passed.p95)})" if p.passed.p95 else ""
    return f"{duration(p.cost_us.likely)}, passes over {passed} on average{worst}"


def left(p: Prediction) -> str:
    """How far away the cliff and the end are."""
    from fourtuple.doctor.words import grouped, plural

    if not p.free.high:
        return "nothing"
    cliff = p.to_cliff_ports.likely
    first = f"{plural(cliff, 'connect')} until the cliff, " if cliff else "past the cliff; "
    span = "" if p.free.is_exact else f" (at least {grouped(p.free.low)}, at most {grouped(p.free.high)})"
    return f"{first}{plural(p.free.likely, 'connect')} until EADDRNOTAVAIL{span}"


def others(asked: Asked) -> str:
    """The other destinations that DEST means."""
    from fourtuple.doctor.words import endpoint, percent, some_of

    return some_of([f"{p.source} → {endpoint(p.destination, p.port)} {percent(p.fill)}" for p in asked.others], 3)


def _held_by(asked: Asked) -> Iterator[tuple[str, str]]:
    """With -p whose sockets these are; of ports that no connect() can join, each with its holder."""
    from fourtuple.doctor.words import plural, some_of

    reading = asked.reading
    if reading.owners is not None and not asked.states.is_buckets:
        holders = reading.holders(reading.rows_to(asked.prediction))
        if holders:
            words = [f"{each.name} {plural(each.sockets, 'socket')}" for each in holders]
            yield "held by", some_of(words, _MOST_HOLDERS)
    for kind, whose in held_ports(asked).items():
        yield _HELD_LABELS[kind], some_of(whose, _MOST_HOLDERS)


_HELD_LABELS = {
    "listen": "listeners",
    "bound": "bound",
    "accepted": "accepted on",
    "connected": "by bind()",
    "time_wait": "TIME_WAIT",
}


def held_ports(asked: Asked) -> dict[str, list[str]]:
    """Kind -> `40011 nginx[901]`, runs of ports of one holder together; reserved ones are a setting, not held."""
    from fourtuple.doctor.words import port_list, some_of

    ports: dict[tuple[str, str], list[int]] = {}
    for held in asked.states.held:
        if held.kind != "reserved":
            whose = f" {held.command}[{held.pid}]" if held.pid else ""
            ports.setdefault((held.kind, whose), []).append(held.port)
    found: dict[str, list[str]] = {}
    for (kind, whose), numbers in sorted(ports.items(), key=lambda item: list(_HELD_LABELS).index(item[0][0])):
        found.setdefault(kind, []).append(some_of(port_list(numbers).split(","), 4) + whose)
    return found


# ------------------------------------------------------------------------------------------------ files


def _check_files(args: argparse.Namespace) -> None:
    """Before anything is read: can they be written?"""
    if args.html:
        from fourtuple.cli.html.file import check_page_file

        check_page_file(args.html)
    if args.png:
        from fourtuple.cli.port_picture import check

        check(args.png)


def _write_files(asked: Asked, args: argparse.Namespace, out: Terminal, err: Terminal) -> None:
    """Each is named when it is there; beside --json on stderr."""
    said = err if args.json else out
    if args.html:
        from fourtuple.cli.html.file import write_page
        from fourtuple.cli.html.ports_page import ports_page

        write_page(args.html, ports_page(asked))
        said.print([(f"{args.html}: the map as a page", "dim")])
    if args.png:
        from fourtuple.cli.port_picture import draw

        draw(asked, args.png)
        said.print([(f"{args.png}: the map as a picture", "dim")])
