"""A dial by several processes of this machine, each with a stack of its own: one for each core.

Lives here: how a dial is divided among TUNs of one private namespace, the processes, what becomes of one that dies.
Does not live here: the inside of such a process (process_child.py, part.py), adding up (merge.py, tally.py).

    with open_processes(plan, setup_of(plan, wiring)) as crew:  # plan.processes of them, their wires open
        report = crew.run(on_progress)

Rules
1. A process is started afresh, never forked: nothing of this one is in it but a TUN's descriptor.
2. Our stack on `tun`: one namespace, a TUN and a network for each process, so that no two have a (source, target) in
   common.  On other wires each process opens its own.
3. A process that dies is in the report with its share, and the others go on.
4. Nothing is left: processes end when this one closes their pipes, and the kernel kills them when this one dies.
"""

from __future__ import annotations

import errno
import ipaddress
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import IO, TYPE_CHECKING, Any

from fourtuple.address import format_prefix, parse_ipv4, parse_prefix, prefix_mask
from fourtuple.dial.merge import merge
from fourtuple.dial.part import Part
from fourtuple.dial.plan import DialPlan
from fourtuple.dial.report import Asked, DialReport, OnProgress, Progress, Worker, lost_worker
from fourtuple.dial.report_json import load
from fourtuple.dial.tally import Tally
from fourtuple.dial.wiring import Wiring, setup_of
from fourtuple.live.refusal import CannotRead
from fourtuple.shell.wire import OUR_ADDRESS, PREFIX, Setup, WireUnavailable

if TYPE_CHECKING:
    from fourtuple.shell.netns import PrivateNamespace

MOST_PROCESSES = 64
_HOME = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_BOOT = (
    f"import sys; sys.path.insert(0, {_HOME!r}); from fourtuple.dial.process_child import main; main(int(sys.argv[1]))"
)
_ASK_S = 0.05
_START_S = 60.0
_END_S, _END_AT_ONCE_S = 3.0, 0.2


def run_processes(
    plan: DialPlan,
    wiring: Wiring,
    on_progress: OnProgress | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    *,
    step_1: bool = False,
    on_ready: Callable[[str, tuple[str, ...]], None] = lambda where, notes: None,
) -> DialReport:
    """Carry out `plan` by `plan.processes` processes.  See open_processes() and Crew.run().

    `on_ready` hears the wire, one phrase, and what people should know of it, before anything is begun.
    """
    with open_processes(plan, setup_of(plan, wiring), step_1=step_1) as crew:
        on_ready(crew.where, crew.notes)
        return crew.run(on_progress, should_stop)


def open_processes(plan: DialPlan, setup: Setup, *, step_1: bool = False) -> Crew:
    """Start `plan.processes` processes with all that they need to begin; `setup` is that of the whole dial.

    Kernel sockets are in a private namespace, or, with the wire `kernel`, in that of this process; `step_1` is theirs
    (run_kernel).  Raises WireUnavailable when none of the processes can have its wire, ValueError for a plan that
    cannot be divided.
    """
    if plan.processes > MOST_PROCESSES:
        raise ValueError(f"at most {MOST_PROCESSES} processes, not {plan.processes}")
    with ExitStack() as undo:
        namespace = _namespace(plan, setup)
        if namespace is not None:
            undo.callback(namespace.close)
        crew = undo.enter_context(Crew(plan, list(_parts(plan, setup, namespace, step_1)), namespace))
        crew.start()
        undo.pop_all()
    return crew


# ------------------------------------------------------------------------------------------ who dials from where


def _namespace(plan: DialPlan, setup: Setup) -> PrivateNamespace | None:
    """One for all processes.  None: each opens a wire of its own, or kernel sockets are on the real network."""
    from fourtuple.shell.private_wire import open_namespace

    if plan.stack == "kernel":
        return None if plan.wire == "kernel" else _namespace_for_sockets(plan.wire, setup)
    if plan.wire not in ("tun", "auto"):
        return None
    shares = _shares(plan)
    networks = _networks(plan, setup, len(shares))
    try:
        return open_namespace(
            "tun",
            setup,
            tun_count=len(shares),
            kernel_addresses=[format_prefix(network + 1, PREFIX) for network in networks],
            sources=[_prefixes(share.sources) for share in shares],
        )
    except WireUnavailable:
        if plan.wire == "auto":
            return None  # each process tries again, takes the next best wire, and says why
        raise


def _namespace_for_sockets(wire: str, setup: Setup) -> PrivateNamespace:
    """Kernel sockets need no device of it: with `auto` any will do."""
    from fourtuple.shell.private_wire import open_namespace

    try:
        return open_namespace("veth" if wire == "veth" else "tun", setup)
    except WireUnavailable:
        if wire != "auto":
            raise
        return open_namespace("veth", setup)


def _parts(plan: DialPlan, setup: Setup, namespace: PrivateNamespace | None, step_1: bool) -> Iterable[Part]:
    if plan.stack == "kernel":
        netns = f"/proc/{namespace.pid}/ns/net" if namespace is not None else ""
        shares = plan.split(plan.processes)
        return [Part(share, setup, netns=netns, is_private=bool(netns), step_1=step_1) for share in shares]
    if namespace is not None:
        return _tun_parts(plan, setup, namespace)
    return [Part(share, setup) for share in plan.split(plan.processes)]


def _shares(plan: DialPlan) -> list[DialPlan]:
    if 0 < len(plan.sources) < plan.processes:
        given = f"{len(plan.sources)} source address{'es' if len(plan.sources) > 1 else ''}"
        raise ValueError(f"{plan.processes} processes cannot share {given}: give {plan.processes} or more, or none")
    return plan.split(plan.processes, own_sources=True)


def _networks(plan: DialPlan, setup: Setup, count: int) -> list[int]:
    """The usual one, and others in which there is no target, server or source."""
    mask = prefix_mask(PREFIX)
    usual = parse_ipv4(OUR_ADDRESS) & mask
    taken = {parse_ipv4(text) & mask for text in (*plan.sources, *(target.address for target in plan.targets))}
    served = [parse_prefix(server.ip) for server in setup.served()]
    found = [usual]
    for i in range(1, 1 << 12):
        network = usual + (i << 32 - PREFIX)
        is_served = any((network ^ number) & mask & prefix_mask(length) == 0 for number, length in served)
        if len(found) < count and network not in taken and not is_served:
            found.append(network)
    if len(found) < count:
        raise ValueError(f"no room for {count} networks beside the targets in 10.64.0.0/12")
    return found


def _tun_parts(plan: DialPlan, setup: Setup, namespace: PrivateNamespace) -> list[Part]:
    networks = _networks(plan, setup, len(namespace.devices))
    return [
        Part(
            share,
            replace(setup, servers=()),
            device=device.name,
            fd=device.fileno(),
            address=format_prefix(network + 2, PREFIX),
            sources=tuple(_prefixes(share.sources)),
        )
        for share, device, network in zip(_shares(plan), namespace.devices, networks, strict=True)
    ]


def _prefixes(addresses: Iterable[str]) -> list[str]:
    """The fewest networks that are these addresses."""
    return [str(one) for one in ipaddress.collapse_addresses(ipaddress.IPv4Network(text) for text in addresses)]


# ------------------------------------------------------------------------------------------ the processes


class _Process:
    """One of them, as its parent sees it."""

    def __init__(self, part: Part) -> None:
        self.part = part
        self.name = part.plan.name
        self.where = ""
        self.notes: list[str] = []
        self.is_ready = self.has_opened = False
        self.report: DialReport | None = None
        self.error: OSError | None = None
        self._pending = b""
        self._errors = open(os.memfd_create("stderr", os.MFD_CLOEXEC), "w+b")  # noqa: SIM115
        # Its own process group: Ctrl-C in the terminal is for the parent, which then stops it in order.
        self._popen = subprocess.Popen(
            [sys.executable, "-I", "-c", _BOOT, str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            pass_fds=[part.fd] if part.fd >= 0 else [],
            process_group=0,
        )
        self.tell(json.dumps(part.to_json()))

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def is_over(self) -> bool:
        """Whether it has said the last that it will say."""
        return self.report is not None or self.error is not None

    @property
    def stdout(self) -> IO[bytes]:
        assert self._popen.stdout is not None
        return self._popen.stdout

    def tell(self, line: str) -> None:
        """A process that is gone hears nothing, which is noticed elsewhere."""
        assert self._popen.stdin is not None
        with suppress(OSError, ValueError):
            self._popen.stdin.write(line.encode() + b"\n")
            self._popen.stdin.flush()

    def stop(self) -> None:
        """Have it close its connections and report."""
        assert self._popen.stdin is not None
        with suppress(OSError):
            self._popen.stdin.close()

    def read(self) -> Iterator[dict[str, Any]]:
        """What it has said since."""
        data = os.read(self.stdout.fileno(), 1 << 20)
        *lines, self._pending = (self._pending + data).split(b"\n")
        for line in lines:
            yield json.loads(line)
        if not data and not self.is_over:
            # Not EPIPE: a BrokenPipeError is taken for a reader of our stdout who has gone.
            self.error = OSError(errno.ECHILD, self._last_words())

    def _last_words(self) -> str:
        """Of one that ended without a report."""
        code = self._popen.wait()
        if code < 0:
            return f"ended by {signal.Signals(-code).name}"
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").split("\n")
        return next((line for line in reversed(lines) if line.strip()), f"ended with code {code}")

    def end(self, until: float) -> None:
        """It ends by itself now that its stdin is closed; it is killed if it has not by then."""
        self.stop()
        try:
            self._popen.wait(max(0.0, until - time.monotonic()))
        except BaseException as error:
            self._popen.kill()
            self._popen.wait()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
        finally:
            self.stdout.close()
            self._errors.close()


class Crew:
    """The processes of a dial.  Use open_processes(); a context manager: leaving it ends them all."""

    def __init__(self, plan: DialPlan, parts: list[Part], namespace: PrivateNamespace | None = None) -> None:
        self.plan = plan
        self.parts = parts
        self.namespace = namespace
        """With the servers in it, where there is one for all."""
        self.where = ""
        """One phrase for people."""
        self.notes: tuple[str, ...] = ()
        """What people should know, a line each."""
        self._processes: list[_Process] = []
        self._is_stopped = False

    @property
    def pids(self) -> list[int]:
        """Of the processes."""
        return [process.pid for process in self._processes]

    def start(self) -> None:
        """All of them, until each is ready to begin or has failed.  Raises when all have failed: what the first did."""
        for part in self.parts:
            self._processes.append(_Process(part))
        give_up = time.monotonic() + _START_S
        while any(not (one.is_ready or one.is_over) for one in self._processes):
            self._listen(None)
            if time.monotonic() > give_up:
                raise TimeoutError(errno.ETIMEDOUT, f"not all processes were ready in {_START_S:.0f} s")
        ready = [one for one in self._processes if one.is_ready]
        if not ready:
            error = self._processes[0].error
            assert error is not None
            if error.errno == errno.ECHILD:
                error.strerror = f"{self._processes[0].name}: {error.strerror}"
            raise error
        self.where = self._where(ready)
        self.notes = tuple(dict.fromkeys(note for one in ready for note in one.notes))

    def _where(self, ready: list[_Process]) -> str:
        if self.namespace is None or self.plan.stack == "kernel":
            return "; ".join(sorted({one.where for one in ready}))
        names = [device.name for device in self.namespace.devices]
        way = "root" if self.namespace.way == "root" else "no root"
        span = names[0] if len(names) == 1 else f"{names[0]}-{names[-1]}"
        return f"tun {span}, private network namespace ({way})"

    def run(
        self,
        on_progress: OnProgress | None = None,
        should_stop: Callable[[], bool] = lambda: False,
        may_hold: Callable[[], bool] = lambda: True,
    ) -> DialReport:
        """Begin in all of them at once; their reports as one.

        `should_stop` is asked twenty times a second: what is open is closed then, and the report is whole.  `may_hold`:
        whether others, elsewhere, have opened theirs; asked from the time on when all here are open.
        """
        tally = Tally(len(self._processes), on_progress)
        for process in self._processes:
            process.tell("go")
        is_held = False
        while any(not one.is_over for one in self._processes):
            self._listen(tally)
            self._check_namespace(0.0)
            if not self._is_stopped and should_stop():
                self._is_stopped = True
                for process in self._processes:
                    process.stop()
            if not (is_held or self._is_stopped) and all(one.has_opened or one.is_over for one in self._processes):
                is_held = may_hold()
                for process in self._processes if is_held else ():
                    process.tell("hold")
        self._check_namespace(0.2 if any(one.error for one in self._processes) else 0.0)
        return self._merged(tally)

    def _listen(self, tally: Tally | None) -> None:
        """For up to _ASK_S; what was said is noted."""
        poll = select.poll()  # no limit of 1,024 descriptors
        talking = {one.stdout.fileno(): i for i, one in enumerate(self._processes) if not one.is_over}
        for fd in talking:
            poll.register(fd, select.POLLIN)
        for fd, _ in poll.poll(_ASK_S * 1000):
            i = talking[fd]
            process = self._processes[i]
            for message in process.read():
                self._take(i, process, message, tally)
            if process.is_over and tally is not None:
                _end_of(process, i, tally)

    def _take(self, i: int, process: _Process, message: dict[str, Any], tally: Tally | None) -> None:
        if "progress" in message and tally is not None:
            tally.heard(i, load(Progress, message["progress"]))
        elif "ready" in message:
            process.is_ready = True
            process.where, process.notes = message["ready"]["where"], message["ready"]["notes"]
        elif "opened" in message:
            process.has_opened = True
        elif "report" in message:
            process.report = DialReport.from_json(message["report"])
        elif "error" in message:
            process.error = _error(**message["error"])

    def _check_namespace(self, patience: float) -> None:
        """As Wire.__exit__: a dead server refuses connections, and whatever was seen then is no answer."""
        if self.namespace is not None and self.namespace.has_ended(patience):
            raise WireUnavailable(errno.EPIPE, "the helper process of the private namespace has been ended")

    def _merged(self, tally: Tally) -> DialReport:
        merged = merge([_named(process) for process in self._processes])
        merged.asked = Asked.of(self.plan)
        merged.seed = self.plan.seed if self.plan.stack == "user" else None
        merged.stack = self.plan.stack
        merged.wire = self.where
        return merged

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *exception: object) -> None:
        for process in self._processes:
            process.stop()
        # Whoever leaves while they are being stopped does not want to wait for that (a second Ctrl-C).
        until = time.monotonic() + (_END_AT_ONCE_S if self._is_stopped else _END_S)
        with ExitStack() as ends:  # each is ended, whatever happens to another
            for process in self._processes:
                ends.callback(process.end, until)
            self._processes = []
        if self.namespace is not None:
            self.namespace.close()


def _end_of(process: _Process, i: int, tally: Tally) -> None:
    """It is over: one that was lost in the middle says with how many connections."""
    is_open = tally.open_of(i)
    tally.done(i)
    if process.error is not None and process.error.errno == errno.ECHILD and is_open:
        process.error.strerror = f"{process.error.strerror}, with {is_open:,} connections open"


def _error(kind: str, code: int, text: str, todo: str, what: str) -> OSError:
    if kind == "WireUnavailable":
        return WireUnavailable(code, text, todo)
    if kind == "CannotRead":
        error = CannotRead(code, what)
        error.strerror = text
        return error
    return OSError(code, text)


def _named(process: _Process) -> DialReport:
    """Its report, as that of a worker of its name."""
    share = process.part.plan.connections
    if process.report is None:
        reason = str(process.error.strerror) if process.error is not None else ""
        return lost_worker(process.name, share, reason)
    done = process.report.connections
    process.report.workers = [Worker(process.name, 1.0, share, done.established, done.failed)]
    return process.report
