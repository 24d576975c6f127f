"""DialReport: what became of a dial, as dataclasses and as JSON "fourtuple.dial/1".

Lives here: the fields, their units, what follows from them (rate, exit code), Progress.  Does not live here: adding
reports up (merge.py), texts (cli/).

Rules
1. A report is filled in by whoever dials; what follows from other fields is a property, and stands in the JSON only.
2. Times are recorded in ns and written in µs; seconds are floats; sizes are in their names.
3. All counters of a timeline count from the start of the dial.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fourtuple.dial.histogram import Histogram
from fourtuple.dial.report_json import ReportError, dump, load

if TYPE_CHECKING:
    from fourtuple.dial.plan import DialPlan

SCHEMA = "fourtuple.dial/1"
_FAMILY = "fourtuple.dial/"
MOST_TARGETS = 64
MOST_ROWS = 600
MOST_NAMED = 8
"""Of the targets and sources that were asked for."""
OTHERS = "others"
"""The address under which the targets beyond MOST_TARGETS are counted together."""

EXIT_SOME_FAILED = 10
EXIT_OTHER = 29
EXIT_OF_ERRNO = {
    errno.EADDRNOTAVAIL: 20,
    errno.ECONNREFUSED: 21,
    errno.ETIMEDOUT: 22,
    errno.ENETUNREACH: 23,
    errno.EHOSTUNREACH: 23,
    errno.ENONET: 23,
    errno.EHOSTDOWN: 23,
    errno.ECONNRESET: 24,
}
"""As cli/exits.py has them: a test compares the two."""


@dataclass(frozen=True)
class Progress:
    """Where a dial is: handed to on_progress() about ten times a second."""

    seconds: float
    phase: str
    """`open`, `hold`, `close` or `time-wait`."""
    begun: int
    in_flight: int
    open: int
    failed: int
    rate: float
    """Established a second, of late."""
    lost: int = 0
    connect: Histogram | None = None
    """Time inside connect() until now, in ns: the live percentiles."""
    handshake: Histogram | None = None


OnProgress = Callable[[Progress], None]


@dataclass
class Named:
    """A long list: how many, and the first of them."""

    count: int = 0
    first: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, texts: Iterable[object]) -> Named:
        """Of anything that prints well."""
        every = [str(text) for text in texts]
        return cls(len(every), every[:MOST_NAMED])


@dataclass
class Asked:
    """The plan as it was given."""

    connections: int = 0
    targets: Named = field(default_factory=Named)
    sources: Named = field(default_factory=Named)
    rate: float = 0.0
    """A second; 0: as fast as possible."""
    ramp_s: float = 0.0
    hold_s: float = 0.0
    timeout_s: float = 0.0
    window: int = 0
    redial: int = 0
    keepalive_s: int = 0
    talk: Any = None
    range: list[int] | None = None
    close: str = "fin"

    @classmethod
    def of(cls, plan: DialPlan) -> Asked:
        """What `plan` asks for."""
        talk = plan.talk and {"every_s": plan.talk.every_s, "script": [list(step) for step in plan.talk.script]}
        return cls(
            plan.connections,
            Named.of(plan.targets),
            Named.of(plan.sources),
            plan.rate,
            plan.ramp_s,
            plan.hold_s,
            plan.timeout_s,
            plan.window,
            plan.redial,
            plan.keepalive_s,
            talk,
            list(plan.range) if plan.range else None,
            plan.close,
        )

    def steps(self) -> list[str]:
        """`send` and `expect` as the script has them.  A report from elsewhere may have anything there."""
        script = self.talk.get("script") if isinstance(self.talk, dict) else None
        steps = script if isinstance(script, list) else []
        return [str(step[0]) for step in steps if isinstance(step, list) and step]


@dataclass
class Fit:
    """One line of the preflight."""

    what: str
    """With its unit, if it is no count: `memory (MiB)`."""
    need: int
    have: int | None
    """None: no limit, or not known."""
    fits: bool
    change: str = ""
    """What makes it fit: a command, or an option."""


@dataclass
class Connections:
    """How many came how far."""

    begun: int = 0
    established: int = 0
    peak_open: int = 0
    failed: int = 0
    """Never established."""
    lost: int = 0
    """Ended by the peer or an error after they were established."""
    redialed: int = 0
    closed: int = 0


@dataclass
class FailureCount:
    """One way to fail."""

    errno: str
    """`ECONNREFUSED`."""
    number: int
    count: int
    phase: str = "connect"
    """`connect`, or `open` for one that was established."""
    function: str = ""
    """The kernel function that says so."""
    meaning: str = ""
    first_s: float = 0.0


@dataclass
class Seconds:
    """How long each phase took."""

    open: float = 0.0
    hold: float = 0.0
    close: float = 0.0
    total: float = 0.0


@dataclass
class Cpu:
    """CPU seconds of the dialling process, all threads."""

    user: float = 0.0
    system: float = 0.0
    opening: float = 0.0
    """Of both, those until the last connection was opened; 0: not measured apart."""


@dataclass
class Times:
    """Histograms in ns, written in µs."""

    connect_us: Histogram = field(default_factory=Histogram, metadata={"scale": 1000})
    """Time inside connect()."""
    handshake_us: Histogram = field(default_factory=Histogram, metadata={"scale": 1000})
    """From the SYN to ESTABLISHED."""
    response_us: Histogram | None = field(default=None, metadata={"scale": 1000})
    """From a request to its answer."""


@dataclass
class Syn:
    """SYNs that went more than once."""

    sent_again_connections: int = 0
    sent_again_segments: int = 0
    lost_by_queue: int = 0
    """Dropped on this machine, by a full transmit queue."""


@dataclass
class Memory:
    """Of the dialling process."""

    rss_mb: float = 0.0
    """At its most, in MiB."""
    rss_growth_mb: float = 0.0
    """Since before the first connection, in MiB."""
    bytes_per_connection: float = 0.0
    """Of RSS and, for kernel sockets, of `kernel_mb`."""
    descriptors: int = 0
    """Open because of connections."""
    kernel_mb: float = 0.0
    """What the kernel keeps for them, in MiB: it is in no process's RSS.  0: these are no kernel sockets."""


@dataclass
class Busiest:
    """The local port with the most connections."""

    port: int = 0
    connections: int = 0


@dataclass
class Ports:
    """Local ports, while the most connections were open."""

    distinct: int = 0
    busiest: Busiest = field(default_factory=Busiest)


@dataclass
class TargetCount:
    """What became of the connections to one target."""

    address: str
    port: int
    established: int = 0
    failed: int = 0


@dataclass
class TalkCount:
    """What was said on the connections."""

    requests: int = 0
    responses: int = 0
    unexpected: int = 0
    """Answers without the expected text."""
    bytes_sent: int = 0
    bytes_received: int = 0


@dataclass
class Left:
    """What is still there after the close: all 0, or something leaks."""

    sockets: int = 0
    timers: int = 0
    packets: int = 0


@dataclass
class Worker:
    """One of several that shared a dial."""

    name: str
    share: float
    """Of the connections asked for, 0 to 1."""
    connections: int
    """Asked of it."""
    established: int = 0
    failed: int = 0
    error: str | None = None
    """Why it brought no report, in one line."""


@dataclass
class DialReport:
    """Everything about one dial, or about several added up."""

    version: str = ""
    host: str = ""
    date: str = ""
    """ISO 8601, UTC, of the start."""
    stack: str = "user"
    wire: str = ""
    """A phrase: `tun ft0, private namespace`."""
    processes: int = 1
    seed: int | None = None
    asked: Asked = field(default_factory=Asked)
    preflight: list[Fit] = field(default_factory=list)
    connections: Connections = field(default_factory=Connections)
    failures: list[FailureCount] = field(default_factory=list)
    seconds: Seconds = field(default_factory=Seconds)
    cpu_s: Cpu = field(default_factory=Cpu)
    times: Times = field(default_factory=Times)
    passed_over: Histogram = field(default_factory=Histogram)
    """Candidates that the kernel's scan for a local port would have passed over, a connection."""
    syn: Syn = field(default_factory=Syn)
    memory: Memory = field(default_factory=Memory)
    ports: Ports = field(default_factory=Ports)
    targets: list[TargetCount] = field(default_factory=list)
    talk: TalkCount | None = None
    counters: dict[str, int] = field(default_factory=dict)
    """`TcpExt.TCPSynRetrans` and its like, those that are not 0."""
    left: Left = field(default_factory=Left)
    timeline: list[list[float]] = field(default_factory=list)
    """[second, begun, established, failed, open]; the first three counts only grow."""
    workers: list[Worker] = field(default_factory=list)

    @property
    def rate_per_s(self) -> float:
        """Connections established a second, while they were opened."""
        return self.connections.established / self.seconds.open if self.seconds.open >= 1e-6 else 0.0

    @property
    def cpu_us_per_connection(self) -> float:
        """CPU time of opening one, in µs; of the whole dial where the opening was not measured apart."""
        spent = self.cpu_s.opening or self.cpu_s.user + self.cpu_s.system
        return spent * 1e6 / self.connections.begun if self.connections.begun else 0.0

    @property
    def unanswered(self) -> int:
        """Answers that were expected and did not come; 0 for a tenth of them or less: those may have been under way."""
        steps = self.asked.steps()
        if self.talk is None or "expect" not in steps:
            return 0
        if steps[0] == "expect" and not self.talk.responses:
            return self.connections.established  # each waits for the first word
        if "send" not in steps:
            return 0
        expected = self.talk.requests * steps.count("expect") // steps.count("send")
        missing = expected - self.talk.responses
        return missing if missing > expected // 10 else 0

    @property
    def exit(self) -> int:
        """The exit code of a command that ends with this report."""
        lost_workers = any(worker.error for worker in self.workers)
        if self.connections.established:
            wrong = self.connections.failed or self.connections.lost or lost_workers or self.unanswered
            return EXIT_SOME_FAILED if wrong else 0
        if self.failures:
            return EXIT_OF_ERRNO.get(max(self.failures, key=lambda failure: failure.count).number, EXIT_OTHER)
        return EXIT_OTHER if self.connections.failed or lost_workers or self.asked.connections else 0

    def to_json(self) -> dict[str, Any]:
        """Plain values: schema, the fields, what follows from them, exit."""
        found: dict[str, Any] = {"schema": SCHEMA} | dump(self)
        found["targets"] = dump(shortened_targets(self.targets))
        found["timeline"] = coarsened(self.timeline)
        found["rate_per_s"] = round(self.rate_per_s, 3)
        found["cpu_us_per_connection"] = round(self.cpu_us_per_connection, 3)
        if self.times.response_us is None:
            del found["times"]["response_us"]
        return found | {"exit": self.exit}

    @classmethod
    def from_json(cls, data: Any) -> DialReport:
        """What to_json() wrote.  ReportError, in one line, for what another program or a newer version wrote."""
        check_schema(data)
        derived = ("schema", "rate_per_s", "cpu_us_per_connection", "exit")
        report = load(cls, {key: value for key, value in data.items() if key not in derived})
        if any(len(row) != len(_ROW) for row in report.timeline):
            raise ReportError(f"a row of the timeline is [{', '.join(_ROW)}]")
        return report


_ROW = ("second", "begun", "established", "failed", "open")


def check_schema(data: Any) -> None:
    """ReportError unless `data` says that it is of SCHEMA."""
    schema = data.get("schema") if isinstance(data, dict) else None
    if not isinstance(schema, str):
        raise ReportError("no report of fourtuple: it has no schema")
    if schema == SCHEMA:
        return
    number = schema.removeprefix(_FAMILY)
    if schema.startswith(_FAMILY) and number.isascii() and number.isdigit():
        raise ReportError(f"{schema[:40]} is newer than this fourtuple, which reads {SCHEMA}")
    raise ReportError(f"not a report of dial: its schema is {schema[:40]!r}")


def coarsened(rows: Sequence[list[float]], most: int = MOST_ROWS) -> list[list[float]]:
    """At most `most` rows, the last one always: what only grows may be looked at less often."""
    step = -(-len(rows) // most) if rows else 1
    return [list(row) for i, row in enumerate(rows) if (len(rows) - 1 - i) % step == 0]


def shortened_targets(targets: Sequence[TargetCount], most: int = MOST_TARGETS) -> list[TargetCount]:
    """As they are; if they are more, the `most` with the most failures, and the others in one line at the end."""
    named = [one for one in targets if one.address != OTHERS]
    if len(named) > most:
        named.sort(key=target_weight)
    rest = named[most:] + [one for one in targets if one.address == OTHERS]
    if not rest:
        return named
    others = TargetCount(OTHERS, 0, sum(one.established for one in rest), sum(one.failed for one in rest))
    return [*named[:most], others]


def target_weight(target: TargetCount) -> tuple[Any, ...]:
    """Sorts by failures, then connections, the most first."""
    return -target.failed, -target.established, target.address, target.port


def lost_worker(name: str, connections: int, error: str) -> DialReport:
    """The report of a worker that brought none: merged with the others, it is named with its share."""
    report = DialReport(processes=0)
    report.asked.connections = connections
    report.workers = [Worker(name, 1.0, connections, error=" ".join(error.split()) or "no report")]
    return report
