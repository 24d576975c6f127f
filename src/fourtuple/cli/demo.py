"""`fourtuple demo`: the tour.  Five chapters on what connect() does, each on a wire, in a few seconds.

Lives here: what is shown, in which order.  Does not live here: the full range and its cost (demo_fill.py).
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from fourtuple.cli import capture, exits, options
from fourtuple.cli.exits import Failure, check_wire, wire_failure
from fourtuple.cli.progress import Progress
from fourtuple.cli.terminal import Line, Terminal

if TYPE_CHECKING:
    from fourtuple.cli.attempt import Attempt, Request
    from fourtuple.cli.capture import CaptureFile
    from fourtuple.cli.html.demo import DemoPage
    from fourtuple.shell.wires import Wire

SERVER = ("10.64.0.1", 8080)
OTHERS = (("10.64.0.1", 8081), ("10.64.1.7", 8080))
_SEED = 7


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.usage = "fourtuple demo [options]"
    parser.add_argument("--wire", metavar="NAME", default="auto", help=exits.WIRE_HELP)
    parser.add_argument("--seed", type=options.seed, default=_SEED, metavar="N", help=f"default: {_SEED}")
    parser.add_argument(
        "--html", metavar="FILE", help="and everything on one page: with the port map, the SYN schedules"
    )
    capture.add_option(parser, "the packets of its connections (not of the filled range)")


def run(args: argparse.Namespace, out: Terminal, err: Terminal) -> int:
    """Show everything."""
    check_wire(args.wire)
    if args.wire == "tun-host":
        raise Failure("demo brings its own server, which the real network has not; --wire tun, veth or sim")
    with capture.capturing(args.write) as file:
        stage = Stage(args.wire, args.seed, err if args.write == capture.STDOUT else out, err, file)
        if args.html is not None:
            stage.begin_page(args.html)
        return _play(stage)


def _play(stage: Stage) -> int:
    from fourtuple.cli.demo_fill import full_range

    one_connect(stage)
    lost_syn(stage)
    shared_port(stage)
    bind_first(stage)
    full_range(stage)
    stage.end_page()
    if stage.file is not None:
        stage.print([], *stage.file.lines(stage.out))
    stage.print([], [("next: ", "dim"), ("fourtuple connect HOST:PORT --help", "")])
    return exits.OK


class Stage:
    """Where the chapters are played."""

    def __init__(self, wire: str, seed: int, out: Terminal, err: Terminal, file: CaptureFile | None = None) -> None:
        self.wire = wire
        self.seed = seed
        self.out = out
        self.err = err
        self.file = file
        self.progress = Progress(err)
        self.page: DemoPage | None = None
        self._chapter = 0

    def begin_page(self, name: str) -> None:
        """From here on everything is remembered for the page; Failure if it could not be written."""
        from fourtuple.cli.html.demo import DemoPage
        from fourtuple.cli.html.file import check_page_file

        check_page_file(name, self.file.path if self.file else None)
        self.page = DemoPage(name, self.seed)

    def end_page(self) -> None:
        """Write the page, if there is one."""
        if self.page is None:
            return
        from fourtuple.cli.html.file import write_page

        self.progress.say("drawing the page …")
        write_page(self.page.name, self.page.text())
        self.print([], [(f"{self.page.name}: the page of this demo", "dim")])

    def attempt(self, wire: Wire, request: Request, hold: bool = False, label: str = "") -> Attempt:
        """One connect(), remembered if there is a page."""
        from fourtuple.cli.attempt import run_attempt

        return self.page.attempt(wire, request, hold, label) if self.page else run_attempt(wire, request, hold)

    def open(self, captured_as: str = "", loss: str = "", ports: str = "", reserved: str = "") -> Wire:
        """A fresh wire; with `captured_as`, its packets go to the capture."""
        from fourtuple.phy.fault import parse_loss
        from fourtuple.shell.wires import Setup, WireUnavailable, open_wire

        self.progress.say("opening the wire …")
        sysctls = {"net.ipv4.ip_local_port_range": ports, "net.ipv4.ip_local_reserved_ports": reserved}
        rules = parse_loss(loss) if loss else ()
        setup = Setup(
            (SERVER, *OTHERS),
            "",
            rules,
            None,
            self.seed,
            {name: text for name, text in sysctls.items() if text},
            capture=self.file.of_wire(captured_as) if self.file and captured_as else None,
        )
        try:
            wire = open_wire(self.wire, setup, self._fall_back)
        except WireUnavailable as error:
            raise wire_failure(error) from None
        self.wire = wire.name
        return wire

    def _fall_back(self, text: str) -> None:
        self.progress.clear()
        self.err.print(f"fourtuple: {text}")

    def print(self, *lines: Line) -> None:
        """Lines of the answer."""
        self.progress.clear()
        self.out.print(*lines)

    def chapter(self, title: str, remark: str) -> None:
        """The head of a chapter."""
        from fourtuple.cli.render import paragraph

        self._chapter += 1
        if self.page is not None:
            self.page.begin_chapter(title, remark)
        self.print(
            [], [(f"{self._chapter}  ", "info"), (title, "head")], *paragraph(remark, self.out.width, 3, "dim"), []
        )


def one_connect(stage: Stage) -> None:
    """The whole path, then a page from the server."""
    from fourtuple.cli import story
    from fourtuple.cli.attempt import Request
    from fourtuple.cli.http import request_bytes
    from fourtuple.cli.render import paragraph

    with stage.open("one connect()") as wire:
        packets = "on simulated packets" if wire.namespace is None else "on real packets"
        stage.print([("fourtuple demo", "head"), (f"   the Linux connect() path in Python, {packets}", "")])
        stage.print(*paragraph(f"wire: {wire.where}; seed {stage.seed}", stage.out.width, 0, "dim"))
        stage.chapter("One connect(), every function", "Names are the kernel's, and so are the decisions.")
        attempt = stage.attempt(wire, Request(*SERVER, payload=request_bytes(*SERVER), wants_answer=True))
    stage.print(*story.trace_lines(attempt, stage.out), [], *story.summary_lines(attempt, stage.out))
    stage.print(*story.answer_lines(attempt, stage.out))


def lost_syn(stage: Stage) -> None:
    """The retransmission timer."""
    from fourtuple.cli import story
    from fourtuple.cli.attempt import Request

    stage.chapter(
        "The first SYN is lost",
        "tcp_retransmit_timer sends it again after 1 s; unanswered it would go on for 131 s (11 SYNs), then ETIMEDOUT.",
    )
    with stage.open("the first SYN is lost", loss="syn:1") as wire:
        stage.progress.say("waiting for the retransmission timer: 1 s …")
        attempt = stage.attempt(wire, Request(*SERVER))
    stage.print(*story.ladder_lines(attempt, stage.out, whole=False), [], *story.summary_lines(attempt, stage.out))


def shared_port(stage: Stage) -> None:
    """One local port, as many connections as there are destinations."""
    from fourtuple.cli.attempt import Request

    stage.chapter(
        "One port, many destinations",
        "The range is a single port, 40000. A connection is four numbers, so the port serves each destination once.",
    )
    with stage.open("one port, many destinations", ports="40000 40000") as wire:
        attempts = [stage.attempt(wire, Request(*server), hold=True) for server in (SERVER, *OTHERS, SERVER)]
    stage.print(*[_verdict_line(attempt, stage.out) for attempt in attempts])


def bind_first(stage: Stage) -> None:
    """What bind() before connect() costs, and reserved ports."""
    from fourtuple.cli.attempt import Request
    from fourtuple.shell.wires import OUR_ADDRESS

    stage.chapter(
        "bind() before connect() pins a port",
        "A port taken by bind(address, 0) is closed to every connect(), whatever the destination. With "
        "IP_BIND_ADDRESS_NO_PORT bind() fixes the address only. ip_local_reserved_ports (here 40002) are passed over.",
    )
    with stage.open("bind() before connect()", ports="40000 40000") as wire:
        bound = stage.attempt(wire, Request(*SERVER, source=OUR_ADDRESS, source_port=0), True, "bind(addr, 0)")
        blocked = stage.attempt(wire, Request(*OTHERS[0]), hold=True)
        wire.host.set_sysctl("net.ipv4.ip_local_port_range", "40001 40001")
        shared = [
            stage.attempt(wire, Request(*server, source=OUR_ADDRESS), True, "NO_PORT") for server in (SERVER, OTHERS[0])
        ]
        wire.host.set_sysctl("net.ipv4.ip_local_reserved_ports", "40002")
        wire.host.set_sysctl("net.ipv4.ip_local_port_range", "40002 40003")
        passed = stage.attempt(wire, Request(*SERVER), True, "reserved")
    rows = (
        ("bind(addr, 0)", bound),
        ("", blocked),
        ("NO_PORT", shared[0]),
        ("NO_PORT", shared[1]),
        ("reserved", passed),
    )
    stage.print(*[_verdict_line(attempt, stage.out, label, 14) for label, attempt in rows])


def _verdict_line(attempt: Attempt, out: Terminal, label: str = "", indent: int = 0) -> Line:
    """One connection and the rule that decided."""
    from fourtuple.cli.steps import LOOK_WORDS, describe
    from fourtuple.cli.story import names_of
    from fourtuple.errors import errno_name
    from fourtuple.kernel_map import FN_PORT_LOOK

    looks = [step for step in describe(attempt.records, names_of(attempt), True) if step.fn == FN_PORT_LOOK]
    server = f"{attempt.request.address}:{attempt.request.port}"
    line: Line = [("   " + label.ljust(indent), "info")]
    line.append((str(attempt.source_port or looks[-1].port), "warn" if attempt.error else "port"))
    line += [(" → ", "dim"), (server.ljust(16), "")]
    if attempt.error:
        line.append((errno_name(attempt.error) + ": ", "bad"))
    if not looks:
        return [*line, ("no search: bind() chose the port", "")]
    if len(looks) == 1:
        return [*line, (looks[0].text, "")]
    return [*line, (", ".join(f"{step.port} {LOOK_WORDS[step.verdict]}" for step in looks), "")]
