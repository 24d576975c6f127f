"""`fourtuple dial N TARGET...`: very many connections at once: open, hold, talk, close, and the report of it.

Lives here: options, who does the work, what is said meanwhile.  Does not live here: what the options come to
(dial_plan.py), the work (dial/), the texts (dial_text.py).
"""

from __future__ import annotations

import argparse
import errno
import re
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fourtuple.cli import exits, options
from fourtuple.cli.exits import Failure, wire_failure
from fourtuple.cli.terminal import Terminal

if TYPE_CHECKING:
    from fourtuple.dial.plan import DialPlan
    from fourtuple.dial.report import DialReport, Fit, Progress
    from fourtuple.dial.wiring import Wiring
    from fourtuple.shell.wires import WireUnavailable

_COUNT = re.compile(r"([0-9]+(?:\.[0-9]+)?)([kKmM]?)")
_TIMES = {"": 1, "k": 1_000, "m": 1_000_000}
_RATE = re.compile(r"([0-9]+(?:\.[0-9]+)?)([kK]?)(?:/(s|min))?")
_MOST_RATE = 1e7
_NETWORK = re.compile(r"([0-9.]+(?:/[0-9]+|-[0-9.]+)):([0-9]+)")
_ESCAPE = re.compile(r"\\(?:([rnt0\\])|x([0-7][0-9a-fA-F])|.?)", re.DOTALL)
_ESCAPED = {"r": "\r", "n": "\n", "t": "\t", "0": "\0", "\\": "\\"}
_SERVERS = ("hold", "http", "echo", "discard", "closed")
_S = 1_000_000
_LIMITS = {
    errno.ENOMEM: "fewer connections; ulimit -v, or the memory of the control group",
    errno.EMFILE: "ulimit -n",
    errno.ENFILE: "sysctl fs.file-max",
    errno.ETIMEDOUT: "fewer --processes",  # not all were ready
    errno.ECHILD: "dmesg: was memory short? Fewer connections then",  # killed from outside
}

_EPILOG = """\
examples:
  fourtuple dial 10k :8080                         in a private namespace
  fourtuple dial 200k 10.64.1.0/29:8080 --rate 20k/s --hold 30s
  fourtuple dial 1M 10.65.0.0/26:8080              64 targets have the ports
  fourtuple dial 1k :80 --http --every 1s --hold 10s
  fourtuple dial 100k :8080 --sources 10.64.4.0/29 from 8 addresses of ours
  fourtuple dial 10k :8080 --stack kernel          the same with kernel sockets
  fourtuple dial 40k :8080 --check                 does it fit? what would help?
  sudo fourtuple dial 500 example.org:80 --wire tun-host --nat --rate 50/s
                                                   the real network

On all wires but tun-host and kernel, TARGET is a server of ours (--server) in a
private namespace, whatever its name: nothing leaves this machine.
Ctrl-C closes what is open and reports; a second one ends at once.

exit codes:
  0 all established  10 some failed or were lost  2 usage, or it will not fit
  20 EADDRNOTAVAIL  21 ECONNREFUSED  22 ETIMEDOUT  23 unreachable  24 ECONNRESET
  29 another errno  68 name not resolved  69 wire not available
  77 no permission  130 Ctrl-C
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.usage = "fourtuple dial N TARGET... [options]"
    parser.epilog = _EPILOG
    parser.add_argument("connections", type=_count, metavar="N", help="how many: 500, 20k, 1M")
    parser.add_argument(
        "targets", type=_target, nargs="+", metavar="TARGET", help="HOST:PORT, :PORT, 10.64.1.0/29:8080; taken in turn"
    )
    _add_wire(parser)
    _add_stack(parser)
    _add_pace(parser)
    _add_talk(parser)
    output = parser.add_argument_group("report")
    output.add_argument("--check", action="store_true", help="only say what fits and what does not")
    output.add_argument("--force", action="store_true", help="dial although it will not fit")
    output.add_argument("--json", action="store_true", help="one JSON document instead of text")
    output.add_argument("--html", metavar="FILE", help="and a page about it")
    amount = output.add_mutually_exclusive_group()
    amount.add_argument("-v", "--verbose", action="store_true", help="what fits, and the stack's counters, too")
    amount.add_argument("-q", "--quiet", action="store_true", help="no progress")


def _add_wire(parser: argparse.ArgumentParser) -> None:
    wire = parser.add_argument_group("wire")
    wire.add_argument("--stack", choices=("user", "kernel"), default="user", help="ours (default), or kernel sockets")
    wire.add_argument(
        "--wire", default="auto", metavar="NAME", help="auto, tun, veth, tun-host, sim; kernel: this host"
    )
    wire.add_argument("--nat", action="store_true", help="on tun-host: go out under this machine's own address")
    wire.add_argument("--server", choices=_SERVERS, metavar="KIND", help=f"ours there: {', '.join(_SERVERS)}")
    wire.add_argument("--loss", type=options.loss, default=(), metavar="RULES", help="lose packets: syn:1, 30%%")
    wire.add_argument("--rtt", type=options.duration_us, metavar="TIME", help="add to the round trip time")
    wire.add_argument("--processes", type=_number, default=1, metavar="K", help="divide the work among K processes")
    wire.add_argument("--on", metavar="CLUSTER", help="Dask workers: dask://HOST:PORT, or dask://local")


def _add_stack(parser: argparse.ArgumentParser) -> None:
    stack = parser.add_argument_group("our end")
    stack.add_argument(
        "--sources", type=_networks, action="append", default=[], metavar="CIDR", help="connect from these, in turn"
    )
    stack.add_argument("--range", type=options.port_range, metavar="LO-HI", help="net.ipv4.ip_local_port_range")
    stack.add_argument(
        "--reserve", type=options.port_list, metavar="LIST", help="net.ipv4.ip_local_reserved_ports of our stack"
    )
    stack.add_argument("--max-sockets", type=_count, metavar="N", help="room in our stack (default: for all)")
    stack.add_argument("--step-1", action="store_true", help="kernel sockets: IP_LOCAL_PORT_RANGE, no cliff at half")
    stack.add_argument("--profile", type=options.profile, metavar="VERSION", help="the Linux to imitate (6.18)")
    stack.add_argument("--seed", type=options.seed, metavar="N", help="of our stack's random numbers")


def _add_pace(parser: argparse.ArgumentParser) -> None:
    pace = parser.add_argument_group("pace")
    pace.add_argument("--rate", type=_rate, default=0.0, metavar="N/s", help="new connections a second: 500/s, 20k/s")
    pace.add_argument("--ramp", type=options.duration_us, default=0, metavar="TIME", help="from 0 to that rate in TIME")
    pace.add_argument("--window", type=_number, default=128, metavar="N", help="handshakes in flight (128)")
    pace.add_argument(
        "--timeout", type=options.duration_us, default=0, metavar="TIME", help="of one attempt (TCP's own: 131 s)"
    )
    pace.add_argument("--redial", type=_number_or_0, default=0, metavar="N", help="open a failed or lost one again")
    pace.add_argument("--hold", type=options.duration_us, metavar="TIME", help="keep all open for TIME (0s)")
    pace.add_argument("--keepalive", type=_whole_seconds, default=0, metavar="TIME", help="SO_KEEPALIVE after TIME")
    pace.add_argument("--close", choices=("fin", "rst"), default="fin", help="by FIN (default), or by RST")


def _add_talk(parser: argparse.ArgumentParser) -> None:
    talk = parser.add_argument_group("talk, on every connection while it is open")
    talk.add_argument("--http", nargs="?", const="/", metavar="PATH", help="GET PATH (/)")
    talk.add_argument("--send", action=_Step, dest="script", metavar="TEXT", help="a script: send this ...")
    talk.add_argument(
        "--expect", action=_Step, dest="script", metavar="TEXT", help="... and wait for an answer with this"
    )
    talk.add_argument("--every", type=options.duration_us, metavar="TIME", help="once in TIME (1s); --hold is as long")


class _Step(argparse.Action):
    """--send and --expect in the order they were given."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: Any = None) -> None:
        if not values:
            raise argparse.ArgumentError(self, "an empty text; say for example --send 'PING\\r\\n'")
        steps = list(getattr(namespace, self.dest) or [])
        setattr(namespace, self.dest, [*steps, ((option_string or "").lstrip("-"), self._text(values))])

    def _text(self, values: str) -> str:
        def meant(found: re.Match[str]) -> str:
            if found[2]:
                return chr(int(found[2], 16))
            if found[1] is None:
                raise argparse.ArgumentError(self, f"{found[0]}: there are \\r \\n \\t \\0 \\\\ and \\x00 to \\x7f")
            return _ESCAPED[found[1]]

        return _ESCAPE.sub(meant, values)


# ---------------------------------------------------------------------------------------------- words


def _count(text: str) -> int:
    match = _COUNT.fullmatch(text.replace(",", "").replace("_", ""))
    exact = float(match[1]) * _TIMES[match[2].lower()] if match else 0.0
    number = round(exact)
    if not 0 < number <= 1 << 24 or abs(exact - number) > 1e-6:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no count of connections; say for example 500, 20k or 1M (at most 16M)"
        )
    return number


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= 1 << 20):
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to 1048576")
    return int(text)


def _number_or_0(text: str) -> int:
    return 0 if text == "0" else _number(text)


def _whole_seconds(text: str) -> int:
    seconds, rest = divmod(options.duration_us(text), _S)
    if rest or not seconds:
        raise argparse.ArgumentTypeError(f"{text!r}: whole seconds, at least 1s (net.ipv4.tcp_keepalive_time)")
    return seconds


def _rate(text: str) -> float:
    match = _RATE.fullmatch(text)
    rate = float(match[1]) * _TIMES[match[2].lower()] / (60 if match[3] == "min" else 1) if match else 0.0
    if not 0 < rate <= _MOST_RATE:
        raise argparse.ArgumentTypeError(f"{text!r} is no rate; say for example 500/s, 20k/s or 30/min")
    return rate


def _networks(text: str) -> list[str]:
    """Addresses, networks and ranges, with commas between them."""
    parts = text.split(",")
    for part in parts:
        _check_network(part)
    return parts


def _check_network(text: str) -> None:
    from fourtuple.dial.plan import expand

    try:
        expand(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}; say for example 10.64.4.0/29") from None


def _target(text: str) -> tuple[str, int]:
    """(host, network or range of addresses; port)."""
    match = _NETWORK.fullmatch(text)
    if match is None:
        return options.endpoint(text)
    _check_network(match[1])
    return match[1], options.endpoint(f":{match[2]}")[1]


# ---------------------------------------------------------------------------------------------- the run


def run(args: argparse.Namespace, out: Terminal, err: Terminal) -> int:
    """Check, dial, report."""
    from fourtuple.cli.dial_plan import check, plan_of, wiring_of

    check(args)
    if args.html:
        from fourtuple.cli.html.file import check_page_file

        check_page_file(args.html)
    plan = plan_of(args)
    dial = _Dial(args, plan, wiring_of(args, plan), out, err)
    code = dial.preflight()
    if code is not None:
        return code
    report = dial.run()
    return _answer(args, report, exits.INTERRUPTED if dial.is_stopped else report.exit, out)


def _answer(args: argparse.Namespace, report: DialReport, code: int, out: Terminal) -> int:
    if args.html:
        from fourtuple.cli.html.dial import dial_page
        from fourtuple.cli.html.file import write_page

        write_page(args.html, dial_page(report))
    if args.json:
        from fourtuple.cli.dial_json import report_text

        out.write(report_text(report, out.ascii_only, code))
    else:
        from fourtuple.cli.dial_text import lines

        out.print(*lines(report, out, args.verbose))
    return code


class _Dial:
    """One run of the command: preflight, progress, Ctrl-C, and who does it."""

    def __init__(self, args: argparse.Namespace, plan: DialPlan, wiring: Wiring, out: Terminal, err: Terminal) -> None:
        from fourtuple.cli.progress import Progress as Live

        self.args, self.plan, self.wiring = args, plan, wiring
        self.out, self.err = out, err
        self.live = Live(err)
        self.is_stopped = False
        self.fits: list[Fit] = []

    def run(self) -> DialReport:
        """Dial."""
        with self._interruptible():
            try:
                with ExitStack() as stack:
                    report = self._dial(stack)
            except OSError as error:
                raise self._refused(error) or error from None
            except ValueError as error:  # a plan that cannot be divided among processes
                raise Failure(str(error)) from None
            finally:
                self.live.clear()
        report.preflight = self.fits
        if self._is_private:
            report.wire += f", our server: {self.wiring.server}"
        if self.is_stopped:
            self._note("stopped by Ctrl-C; what was open has been closed")
        return report

    def _refused(self, error: OSError) -> Failure | None:
        """What this machine does not let us do; None when it is a mistake of ours."""
        from fourtuple.live.refusal import CannotRead
        from fourtuple.shell.wires import WireUnavailable

        if isinstance(error, WireUnavailable):
            return self._no_wire(error)
        if isinstance(error, CannotRead) or error.errno in _LIMITS:
            hint = _LIMITS.get(error.errno or 0, "")
            return Failure(str(error.strerror), exits.OTHER_ERRNO, (hint,) if hint else ())
        return None

    def _no_wire(self, error: WireUnavailable) -> Failure:
        """Kernel sockets have no simulated wire, a cluster has wires of its own."""
        failure = wire_failure(error)
        if self.args.on or self.plan.stack == "kernel":
            other = "" if self.args.on else "--wire kernel   (servers that this host can reach)"
            failure.hints = tuple(hint for hint in (error.todo, other) if hint)
        return failure

    # ------------------------------------------------------------------------------------------ who does it

    def _dial(self, stack: ExitStack) -> DialReport:
        if self.args.on:
            return self._on_cluster()
        if self.plan.processes > 1:
            return self._in_processes()
        if self.plan.stack == "kernel":
            return self._with_kernel(stack)
        return self._with_ours(stack)

    def _with_ours(self, stack: ExitStack) -> DialReport:
        from fourtuple.dial.user import run_user
        from fourtuple.dial.wiring import setup_of
        from fourtuple.shell.wires import open_wire

        wire = stack.enter_context(open_wire(self.plan.wire, setup_of(self.plan, self.wiring), self._note))
        if wire.name == "sim" and self.plan.talk:
            raise Failure("the simulated server ends each connection after one answer: talk needs tun", exits.NO_WIRE)
        self._tell_wire(wire.where, wire.notes)
        return run_user(self.plan, wire, self._progress, self._should_stop)

    def _with_kernel(self, stack: ExitStack) -> DialReport:
        from fourtuple.dial.kernel import run_kernel
        from fourtuple.shell.wires import WireUnavailable

        step_1 = self.args.step_1
        if self.plan.wire == "kernel":
            return run_kernel(self.plan, self._progress, self._should_stop, step_1=step_1)
        namespace = stack.enter_context(self._namespace())
        self._tell_wire("private network namespace")
        report = run_kernel(
            self.plan, self._progress, self._should_stop, netns=namespace.pid, is_private=True, step_1=step_1
        )
        if namespace.has_ended():  # as Wire.__exit__: servers that died with it are no answer
            raise WireUnavailable(errno.EPIPE, "the helper process of the private namespace has been ended")
        return report

    def _namespace(self) -> Any:
        """With the servers in it; which device it has is all one: nothing goes through it."""
        from fourtuple.dial.wiring import setup_of
        from fourtuple.shell.private_wire import open_namespace
        from fourtuple.shell.wires import WireUnavailable

        setup = setup_of(self.plan, self.wiring)
        try:
            return open_namespace("veth" if self.plan.wire == "veth" else "tun", setup)
        except WireUnavailable:
            if self.plan.wire != "auto":
                raise
            return open_namespace("veth", setup)

    def _in_processes(self) -> DialReport:
        from fourtuple.dial.processes import run_processes

        return run_processes(
            self.plan,
            self.wiring,
            self._progress,
            self._should_stop,
            step_1=self.args.step_1,
            on_ready=self._tell_wire,
        )

    def _on_cluster(self) -> DialReport:
        from fourtuple.dial.cluster import run_on_cluster

        return run_on_cluster(
            self.args.on,
            self.plan,
            self.wiring,
            self._progress,
            self._should_stop,
            step_1=self.args.step_1,
            on_ready=lambda names: self._tell_wire(f"{len(names)} workers of {self.args.on}"),
        )

    # ------------------------------------------------------------------------------------------ what is said

    def preflight(self) -> int | None:
        """An exit code when that is all there is to do."""
        from fourtuple.cli.dial_text import preflight_lines

        if self.args.on:
            return None  # ports, memory and descriptors are those of other machines
        self.fits = self._fits()
        bad = [fit for fit in self.fits if not fit.fits]
        if self.args.check:
            return self._only_check(exits.USAGE if bad else exits.OK)
        if not bad or self.args.force:
            return None
        self.err.print(*preflight_lines(bad, self.err))
        self.err.print("fourtuple: that will not fit; --force dials all the same")
        return exits.USAGE

    def _only_check(self, code: int) -> int:
        from fourtuple.cli.dial_text import preflight_lines

        if not self.args.json:
            self.out.print(*preflight_lines(self.fits, self.out))
            return code
        import platform
        from datetime import UTC, datetime

        import fourtuple
        from fourtuple.dial.report import Asked, DialReport

        report = DialReport(
            version=fourtuple.__version__,
            host=platform.node(),
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            stack=self.plan.stack,
            seed=self.plan.seed,
            asked=Asked.of(self.plan),
            preflight=self.fits,
        )
        return _answer(self.args, report, code, self.out)

    def _fits(self) -> list[Fit]:
        from fourtuple.dial.facts import read_facts
        from fourtuple.dial.preflight import preflight
        from fourtuple.dial.wiring import listen_backlog, transmit_queue

        is_private = self._is_private and self.plan.wire != "sim"
        plan = self.plan
        if is_private and plan.stack == "user" and plan.processes > 1 and not plan.sources:
            # Each has an address of its own (processes.py).
            plan = replace(plan, sources=tuple(f"10.64.{2 * i}.2" for i in range(min(plan.processes, 64))))
        facts = read_facts(
            plan,
            backlog=listen_backlog(self.plan) if is_private else None,
            accepts=self.wiring.server != "hold",
            txqueuelen=transmit_queue(self.plan) if is_private else None,
            is_nat=self.args.nat,
            step_1=self.args.step_1,
            profile=self.wiring.profile,
            reserved=self.wiring.reserved,
            is_private=is_private,
        )
        return preflight(plan, facts)

    @property
    def _is_private(self) -> bool:
        """Whether the servers are ours."""
        from fourtuple.dial.wiring import PRIVATE

        return self.plan.wire in PRIVATE

    def _note(self, text: str) -> None:
        self.live.clear()
        self.err.print(f"fourtuple: {text}")

    def _tell_wire(self, where: str, notes: tuple[str, ...] = ()) -> None:
        for note in notes:
            self._note(note)
        if not self.args.quiet:
            self.live.say(f"  {where}")

    def _progress(self, now: Progress) -> None:
        if not self.args.quiet and self.err.is_tty:
            from fourtuple.cli.dial_text import live_line

            self.live.say(live_line(now, self.plan.connections, self.err))

    def _should_stop(self) -> bool:
        return self.is_stopped

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """The first Ctrl-C ends the phase, the second one the command."""

        def stop(number: int, frame: object) -> None:
            if self.is_stopped:
                raise KeyboardInterrupt
            self.is_stopped = True

        before = signal.signal(signal.SIGINT, stop)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)
