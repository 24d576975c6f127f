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
from fourtuple.cli.terminal import Terminal, let_go

if TYPE_CHECKING:
    from fourtuple.live.netns import Netns
    from fourtuple.live.snapshot import Snapshot

_STDOUT = "-"
_EPILOG = """\
examples:
  fourtuple snapshot > web-17.snap               this network namespace
  sudo fourtuple snapshot --all-netns -o F       every container, with owners
  fourtuple snapshot --anonymize > F             to show to others

In the file: TCP sockets with their owners' names, addresses, routes, sysctls,
limits and counters. Not in it: data of any connection, command lines.
--anonymize replaces addresses, host, programs, pids, users and control groups;
ports, states, numbers and which addresses are equal stay as they are.
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
    snapshots = _take(args)
    unread = [line for snapshot in snapshots for line in snapshot.unread]
    if args.anonymize:
        from fourtuple.live.anonymize import Aliases

        aliases = Aliases()
        snapshots = [aliases.snapshot(snapshot) for snapshot in snapshots]
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
            raise Failure(f"cannot write the snapshot: {_reason(error)}", exits.INTERNAL) from None
        raise Failure(f"-o: cannot write {path}: {_reason(error)}", exits.INTERNAL) from None


def _reason(error: OSError | ValueError) -> str:
    return os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
