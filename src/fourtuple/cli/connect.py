"""`fourtuple connect HOST:PORT`: one connect(), each function on its path with its decision, then the packets.

Lives here: options and the order of things.  The engine is imported only when the command line has been found right.
"""

from __future__ import annotations

import argparse
import os
import random
from typing import TYPE_CHECKING

from fourtuple.address import is_ipv4
from fourtuple.cli import capture, exits, options
from fourtuple.cli.exits import Failure, check_wire, exit_of_errno, wire_failure
from fourtuple.cli.terminal import Line, Terminal

if TYPE_CHECKING:
    from fourtuple.cli.attempt import Attempt, Request
    from fourtuple.cli.capture import CaptureFile
    from fourtuple.shell.wires import Wire

_SEEDS = 1_000_000

_EPILOG = """\
examples:
  fourtuple connect :8080 --http                   a real connection
  fourtuple connect :8080 --loss syn:1 --rtt 30ms  the first SYN is lost
  fourtuple connect :8080 --fill 100%              no port left: EADDRNOTAVAIL
  fourtuple connect :8080 --wire sim --json        no kernel, virtual time
  sudo fourtuple connect example.org:80 --wire tun-host --nat --http
                                                   the real network
  fourtuple connect :8080 -w - | tshark -r -       its packets, dissected

exit codes:
  0 connected  2 usage  20 EADDRNOTAVAIL  21 ECONNREFUSED  22 ETIMEDOUT
  23 unreachable  24 ECONNRESET  29 another errno
  68 name not resolved  69 wire not available  77 no permission
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.usage = "fourtuple connect HOST:PORT [options]"
    parser.epilog = _EPILOG
    parser.add_argument(
        "destination", metavar="HOST:PORT", type=options.endpoint, help="also :PORT (at 10.64.0.1), or a URL"
    )
    wire = parser.add_argument_group("wire")
    wire.add_argument("--wire", default="auto", metavar="NAME", help=exits.WIRE_HELP)
    wire.add_argument("--nat", action="store_true", help="on tun-host: go out under this machine's own address")
    wire.add_argument(
        "--loss", type=options.loss, default=(), metavar="RULES", help="lose packets: syn:1, data:2-3, 5%%"
    )
    wire.add_argument("--rtt", type=options.duration_us, metavar="TIME", help="round trip time (default on sim: 10ms)")
    wire.add_argument("--seed", type=options.seed, metavar="N", help="repeat the run that printed this seed")
    ports = parser.add_argument_group("ports")
    ports.add_argument("--fill", type=options.fraction, default=0.0, metavar="N%", help="so much of the range is taken")
    ports.add_argument("--range", type=options.port_range, metavar="LO-HI", help="net.ipv4.ip_local_port_range")
    ports.add_argument("--reserve", type=options.port_list, metavar="LIST", help="net.ipv4.ip_local_reserved_ports")
    ports.add_argument(
        "--source", type=options.source, metavar="ADDR[:PORT]", help="bind() first; without a port connect() chooses it"
    )
    parser.add_argument(
        "--profile", type=options.profile, default="6.18", metavar="VERSION", help="the Linux to imitate (6.18)"
    )
    talk = parser.add_argument_group("call and talk")
    talk.add_argument(
        "--timeout", type=options.duration_us, default=0, metavar="TIME", help="SO_SNDTIMEO: then EINPROGRESS"
    )
    either = talk.add_mutually_exclusive_group()
    either.add_argument("--http", action="store_true", help="once connected, ask for / and show the answer")
    either.add_argument("--send", metavar="TEXT", help="once connected, send this")
    output = parser.add_argument_group("report")
    output.add_argument("--json", action="store_true", help="one JSON document instead of text")
    capture.add_option(output, "its packets, each with its function's name,")
    output.add_argument("--html", metavar="FILE", help="and a page about it: path, packets, ports, four-tuple")
    amount = output.add_mutually_exclusive_group()
    amount.add_argument("-v", "--verbose", action="store_true", help="every function")
    amount.add_argument("-q", "--quiet", action="store_true", help="the result only")


def run(args: argparse.Namespace, out: Terminal, err: Terminal) -> int:
    """Do it; the exit code says how connect() ended."""
    with capture.capturing(args.write, args.json) as file:
        return _run(args, err if args.write == capture.STDOUT else out, err, file)


def _run(args: argparse.Namespace, out: Terminal, err: Terminal, file: CaptureFile | None) -> int:
    host, port = args.destination
    check_wire(args.wire)
    _check_tun_host(args, host)
    check_sysctls(_sysctls(args), args.profile)
    address = resolve(host)
    seed = random.SystemRandom().randrange(_SEEDS) if args.seed is None else args.seed
    page = None if args.html is None else _Page(args.html, args.write)
    with _open(args, address, port, seed, err, file) as wire:
        from fourtuple.cli.attempt import run_attempt

        prefilled = _prefill(wire, args, address, port)
        attempt = run_attempt(wire, _request(args, host, address, port), on_return=page.look if page else None)
    if page:
        page.write(attempt, seed, prefilled)
    if args.json:
        from fourtuple.cli.report import connect_report, to_json

        out.write(to_json(connect_report(attempt, seed, prefilled, file), out.ascii_only) + "\n")
    else:
        out.print(*_lines(attempt, args, out, seed, prefilled))
        if page and not args.quiet:
            out.print(page.line)
        if file is not None and not args.quiet:
            out.print(*file.lines(out))
    code = exit_of_errno(attempt.error)
    if code == exits.OTHER_ERRNO and not out.is_tty:  # a code that many share: scripts find the name here
        from fourtuple.errors import errno_name

        err.print(f"fourtuple: {errno_name(attempt.error)} ({os.strerror(attempt.error)})")
    return code


class _Page:
    """The page of --html: the file is looked at first, the tables while the connection is there."""

    def __init__(self, name: str, capture: str | None) -> None:
        from fourtuple.cli.html.file import check_page_file
        from fourtuple.cli.html.snapshot import take_snapshot

        check_page_file(name, capture)
        self.name = name
        self._take_snapshot = take_snapshot  # imported before the connection is there, as that takes a while
        self.line: Line = [(f"{name}: the page of this connect()", "dim")]

    def look(self, attempt: Attempt) -> None:
        """connect() has returned."""
        self._tables = self._take_snapshot(attempt)

    def write(self, attempt: Attempt, seed: int, prefilled: int) -> None:
        """Everything is known."""
        from fourtuple.cli.html.file import write_page
        from fourtuple.cli.html.page import connect_page
        from fourtuple.cli.html.snapshot import read_range

        read_range(self._tables, attempt)
        write_page(self.name, connect_page(attempt, self._tables, seed, prefilled))


def _check_tun_host(args: argparse.Namespace, host: str) -> None:
    """What goes with tun-host only, and what not."""
    if args.nat and args.wire != "tun-host":
        raise Failure("--nat goes with --wire tun-host; the other wires do not leave this machine")
    if args.wire == "tun-host" and not host:
        raise Failure("--wire tun-host reaches the real network: say which HOST, as 192.0.2.7:80")


def resolve(host: str) -> str:
    """The IPv4 address of a name; without one, that of the private network's server."""
    if not host:
        return "10.64.0.1"
    if is_ipv4(host):
        return host
    if ":" in host:
        raise Failure(f"{host}: no IPv6 on these wires yet; an IPv4 address or a name works", exits.NO_WIRE)
    import socket

    try:
        return str(socket.getaddrinfo(host, None, socket.AF_INET, socket.SOCK_STREAM)[0][4][0])
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or "it is not a host name"
        raise Failure(f"{host}: no address for this name ({why})", exits.NOT_RESOLVED) from None


def _sysctls(args: argparse.Namespace) -> dict[str, str]:
    found = {}
    if args.range:
        found["net.ipv4.ip_local_port_range"] = f"{args.range[0]} {args.range[1]}"
    if args.reserve:
        found["net.ipv4.ip_local_reserved_ports"] = args.reserve
    return found


def _open(
    args: argparse.Namespace, address: str, port: int, seed: int, err: Terminal, file: CaptureFile | None
) -> Wire:
    from fourtuple.shell.wires import Setup, WireUnavailable, open_wire

    source = args.source[0] if args.source else ""
    packets = file.of_wire() if file else None
    setup = Setup(
        ((address, port),),
        source,
        args.loss,
        args.rtt,
        seed,
        _sysctls(args),
        profile=args.profile,
        nat=args.nat,
        capture=packets,
    )
    try:
        return open_wire(args.wire, setup, lambda text: err.print(f"fourtuple: {text}"))
    except WireUnavailable as error:
        raise wire_failure(error) from None


def check_sysctls(wanted: dict[str, str], profile: str) -> None:
    """Linux refuses some values that look right, as a range below ip_unprivileged_port_start."""
    from fourtuple.sysctl import Sysctls, profile_named

    sysctls = Sysctls(profile_named(profile))
    for name, value in wanted.items():
        if sysctls.set(name, value) < 0:
            reason = ": it may not reach below net.ipv4.ip_unprivileged_port_start = 1024" if "range" in name else ""
            raise Failure(f"Linux refuses {name} = {value!r} (EINVAL){reason}")


def _prefill(wire: Wire, args: argparse.Namespace, address: str, port: int) -> int:
    """Fill the range towards the destination; how many four-tuples are held."""
    from fourtuple.cli.attempt import prefill

    if not args.fill:
        return 0
    sysctl = wire.host.sysctls
    ports = sysctl.port_high - sysctl.port_low + 1
    source = args.source[0] if args.source else ""
    return prefill(wire.host, source, address, port, round(args.fill * ports))


def _request(args: argparse.Namespace, host: str, address: str, port: int) -> Request:
    from fourtuple.cli.attempt import Request
    from fourtuple.cli.http import request_bytes

    source, source_port = args.source or ("", None)
    payload = request_bytes(host or address, port) if args.http else os.fsencode(args.send or "")
    return Request(address, port, source, source_port, args.timeout, payload, args.http)


def _lines(attempt: Attempt, args: argparse.Namespace, out: Terminal, seed: int, prefilled: int) -> list[Line]:
    from fourtuple.cli import story

    if args.quiet:
        return story.summary_lines(attempt, out)
    lines = [*story.head_lines(attempt, out, seed, prefilled), [], *story.trace_lines(attempt, out, args.verbose), []]
    ladder = story.ladder_lines(attempt, out, whole=args.verbose or bool(attempt.request.payload))
    lines += [*ladder, []] if ladder else []
    lines += story.summary_lines(attempt, out)
    if attempt.error:
        lines += [[], *story.explanation_lines(attempt, out)]
    return lines + story.answer_lines(attempt, out)
