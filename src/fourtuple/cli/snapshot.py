"""`fourtuple snapshot > FILE`: sockets, sysctls, addresses and owners of this machine in one file, for -r elsewhere.

Rule: the file is made in memory first: whatever goes wrong while reading, no file is touched.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
from typing import TYPE_CHECKING

from fourtuple.cli import exits
from fourtuple.cli.exits import Failure
from fourtuple.cli.output_file import check_output, unwritable
from fourtuple.cli.terminal import Terminal, let_go

if TYPE_CHECKING:
    from fourtuple.live.netns import Netns
    from fourtuple.live.snapshot import Snapshot

_STDOUT = "-"
_ALIASES = "fourtuple.aliases/1"
_EPILOG = """\
examples:
  fourtuple snapshot > web-17.snap               this network namespace
  sudo fourtuple snapshot --all-netns -o F       every container, with owners
  fourtuple snapshot --anonymize > F             to show to others

In the file: TCP sockets with their owners' names, addresses, routes, sysctls,
limits and counters. Not in it: data of any connection, command lines.
--anonymize replaces addresses, host, programs, pids, users and control groups;
ports, states, numbers and which addresses are equal stay as they are.
--aliases FILE keeps which name stands for what, so that two snapshots can be
compared (doctor -r EARLIER -r LATER). That file undoes it: do not hand it out.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.usage = "fourtuple snapshot [options] > FILE"
    parser.epilog = _EPILOG
    parser.add_argument("-o", dest="output", metavar="FILE", default=_STDOUT, help="write it there instead of stdout")
    where = parser.add_argument_group("network namespace").add_mutually_exclusive_group()
    where.add_argument("-N", "--netns", metavar="NS", help="a name of `ip netns`, a pid or a path")
    where.add_argument("--pid", type=_pid, metavar="PID", help="the one that this process is in")
    where.add_argument("--all-netns", action="store_true", help="every one that can be seen, in one file")
    what = parser.add_argument_group("contents")
    what.add_argument("--anonymize", action="store_true", help="keep the structure, lose addresses and names")
    what.add_argument("--aliases", metavar="FILE",
                      help="with --anonymize: the same names as in earlier ones, kept in that file")  # fmt: skip
    what.add_argument("--no-owners", action="store_true", help="do not look for the processes (quicker)")


def _pid(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 1 << 22):
        raise argparse.ArgumentTypeError(f"{text!r} is not a pid")
    return int(text)


def run(args: argparse.Namespace, out: Terminal, err: Terminal) -> int:
    """Take it, then write it."""
    if args.output == _STDOUT and sys.stdout.isatty():
        raise Failure(
            "a snapshot is binary, and stdout is a terminal",
            exits.USAGE,
            ("fourtuple snapshot > FILE", "fourtuple snapshot -o FILE"),
        )
    if args.aliases and not args.anonymize:
        raise Failure("snapshot: --aliases goes with --anonymize", exits.USAGE)
    if args.output != _STDOUT:
        check_output("-o", args.output)
    snapshots = _take(args)
    unread = [line for snapshot in snapshots for line in snapshot.unread]
    if args.anonymize:
        snapshots = _anonymized(snapshots, args.aliases)
    from fourtuple.live.snapshot_file import encode

    data = encode(snapshots)
    _write(args.output, data)
    err.print(*(f"fourtuple: {line}" for line in dict.fromkeys(unread)))
    if args.output != _STDOUT:
        out.print(f"{args.output}: {_contents(snapshots)}, {max(1, round(len(data) / 1000)):,} kB")
    return exits.OK


def _take(args: argparse.Namespace) -> list[Snapshot]:
    from fourtuple.live.refusal import CannotRead
    from fourtuple.live.snapshot import take_all, take_snapshot

    try:
        if args.all_netns:
            return take_all(owners=not args.no_owners)
        return [take_snapshot(_netns(args), owners=not args.no_owners)]
    except CannotRead as error:
        denied = error.errno in (errno.EPERM, errno.EACCES)
        raise Failure(str(error), exits.NO_PERMISSION if denied else exits.USAGE) from None


def _anonymized(snapshots: list[Snapshot], kept: str | None) -> list[Snapshot]:
    """With the names of the file `kept`, to which new ones are added."""
    from fourtuple.live.anonymize import Aliases

    try:
        aliases = Aliases(_kept_names(kept) if kept else None)
    except (AttributeError, LookupError, TypeError, ValueError):
        raise _no_aliases(kept) from None
    changed = [aliases.snapshot(snapshot) for snapshot in snapshots]
    if kept:
        _keep_names(kept, aliases.known())
    return changed


def _kept_names(path: str) -> dict[str, list[int | str]]:
    """None yet where there is no such file."""
    import json

    try:
        with open(path, "rb") as file:
            read = json.load(file)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise Failure(f"--aliases: cannot read {path}: {error.strerror}", exits.USAGE) from None
    except ValueError:
        read = None
    if not isinstance(read, dict) or read.get("schema") != _ALIASES:
        raise _no_aliases(path)
    names: dict[str, list[int | str]] = read["names"]
    return names


def _keep_names(path: str, names: dict[str, list[object]]) -> None:
    """For the eyes of its owner; the old file stays until the new one is whole."""
    import json

    new = f"{path}.new"
    try:
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "w") as file:
            json.dump({"schema": _ALIASES, "names": names}, file)
        os.replace(new, path)
    except OSError as error:
        raise unwritable("--aliases", path, error) from None


def _no_aliases(path: str | None) -> Failure:
    return Failure(f"--aliases: {path} is no file of aliases; name a new one, or that of an earlier snapshot")


def _netns(args: argparse.Namespace) -> Netns | str | None:
    """--pid means a pid, whatever is named like it."""
    if not args.pid:
        name: str | None = args.netns
        return name
    from fourtuple.live.netns import Netns, find_netns
    from fourtuple.live.refusal import CannotRead

    if not os.path.exists(f"/proc/{args.pid}"):
        raise CannotRead(errno.ESRCH, f"network namespace of pid {args.pid}", "", "there is no such process")
    found = find_netns(f"/proc/{args.pid}/ns/net")
    return Netns(f"pid {args.pid}", found.path, found.inode, found.is_current)


def _contents(snapshots: list[Snapshot]) -> str:
    """`20,114 sockets of 3 network namespaces`."""
    sockets = sum(len(snapshot.sockets) for snapshot in snapshots)
    text = f"{sockets:,} socket{'s' * (sockets != 1)}"
    return text if len(snapshots) == 1 else f"{text} of {len(snapshots)} network namespaces"


def _write(path: str, data: bytes) -> None:
    try:
        if path == _STDOUT:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        else:
            with open(path, "wb") as file:
                file.write(data)
    except BrokenPipeError:
        raise
    except (OSError, ValueError) as error:
        if path == _STDOUT:
            let_go(sys.stdout)
            raise exits.cannot_write("cannot write the snapshot", error) from None
        raise unwritable("-o", path, error) from None
