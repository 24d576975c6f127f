"""What can be done, from local and reversible to system-wide, each with the effect that the engine predicts.

Rule: an effect is what the next connect() meets once the change is made, all else being as it is now.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from fourtuple.doctor.finding import SCOPES, Fix
from fourtuple.doctor.idle import OVER_S, Idle, idle_connections, idle_words
from fourtuple.doctor.words import duration, endpoint, grouped, percent, plural, port_list, some_of

if TYPE_CHECKING:
    from fourtuple.doctor.answers import Prediction
    from fourtuple.doctor.predict import State
    from fourtuple.doctor.reading import Holder, Reading

LOCAL_PORT_RANGE = "IP_LOCAL_PORT_RANGE"
OPTION_SINCE = (6, 3)
NODE_PORTS = (30000, 32767)
_WIDER = ((15000, 64999), (1024, 65535))
_WORTH = 1.2
_MOST_SOURCES = 4
_REUSE_DELAY_SINCE = (6, 14)
_PEERS_DECIDE = "only TIME_WAITs of connections with timestamps: the peers decide"


def ordered(fixes: Iterable[Fix | None]) -> tuple[Fix, ...]:
    """Those that there are, the most local first."""
    return tuple(sorted((fix for fix in fixes if fix), key=lambda fix: SCOPES.index(fix.scope)))


def _pool_words(top: Holder | None) -> str:
    if top is None:
        return "a pool, keep-alive: fewer connections at once"
    processes = f"{len(top.pids)} process{'es' * (len(top.pids) > 1)} hold{'s' * (len(top.pids) == 1)}"
    each = " each" if len(top.pids) > 1 else ""
    return f"a pool for {top.name}: {processes} {grouped(round(top.sockets / len(top.pids)))} connections{each}"


def effect(p: Prediction) -> str:
    """'34 % full, 6 µs', or that it fails as before."""
    return f"still {p.errno}" if p.errno else f"{percent(p.fill)} full, {duration(p.cost_us.likely)}"


class Fixes:
    """The fixes for destinations of one reading; a change is computed once, whatever number of destinations asks."""

    def __init__(self, reading: Reading, warn: float, idle_s: float = OVER_S) -> None:
        self.reading = reading
        self.warn = warn
        self.idle_s = idle_s
        self._states: dict[tuple[tuple[str, str], ...], State] = {}

    def after(self, changes: dict[str, str], p: Prediction) -> Prediction:
        """The same destination after changes."""
        from fourtuple.doctor.what_if import what_if

        key = tuple(changes.items())
        if key not in self._states:
            self._states[key] = what_if(self.reading.state, changes)
        return self._states[key].predict_again([p])[0]

    # -- the socket

    def port_range_option(self, p: Prediction) -> Fix | None:
        """IP_LOCAL_PORT_RANGE over the whole range: no parity, so no cliff."""
        if p.with_port_range is None or p.with_port_range.errno or self.reading.kernel_version < OPTION_SINCE:
            return None
        low, high = self.reading.port_range
        passed = (
            f"{plural(round(p.with_port_range.passed.mean), 'port')} passed over, not {grouped(round(p.passed.mean))}"
        )
        return Fix(
            "socket",
            f'{LOCAL_PORT_RANGE}: setsockopt(IPPROTO_IP, 51, struct.pack("=I", {high} << 16 | {low})) before connect()',
            effect=f"{duration(p.with_port_range.cost_us.likely)} ({passed})",
            what_if={LOCAL_PORT_RANGE: "on"},
            caution="Linux 6.3+; in C a uint32_t; CPython up to 3.13 has no name for 51",
        )

    def other_source(self, p: Prediction) -> Fix:
        """Another address of this machine, if there is one; else what a new one would bring."""
        address, then = self._best_source(p)
        call = f'another source: bind(("{address or "ADDRESS"}", 0)) after IP_BIND_ADDRESS_NO_PORT (24)'
        where = "" if address else " (`ip addr add` one first)"
        caution = "without the option bind() takes the port away from every destination"
        return Fix("socket", call + where, effect=effect(then), after=then, caution=caution)

    def _best_source(self, p: Prediction) -> tuple[str, Prediction]:
        candidates = self._other_addresses(p)
        found = [(address, self.reading.state.predict(address, p.destination, p.port)) for address in candidates]
        if found:
            return min(found, key=lambda pair: (bool(pair[1].errno), pair[1].cost_us.likely, pair[1].fill))
        return "", self.reading.state.predict("::" if p.family == 10 or ":" in p.destination else "0.0.0.0",
                                              p.destination, p.port)  # fmt: skip

    def _other_addresses(self, p: Prediction) -> list[str]:
        if p.destination.startswith("127."):
            return [a for a in ("127.0.0.2", "127.0.0.3") if a != p.source][:1]
        found = [
            a.address
            for a in self.reading.system.addresses
            if a.is_usable and not a.is_deprecated and (":" in a.address) == (":" in p.destination)
        ]
        bad = ("127.", "fe80:")
        return [a for a in found if a not in (p.source, "::1") and not a.startswith(bad)][:_MOST_SOURCES]

    def other_destination(self, p: Prediction) -> Fix:
        """Another address or port of the server."""
        then = self.reading.state.anywhere()
        what = f"another address or port of the server: {plural(p.ports_in_range, 'port')} of its own"
        return Fix("server", what, effect=effect(then), after=then)

    # -- the program

    def idle(self, p: Prediction) -> Idle | None:
        """How many of its connections carry nothing; None: not known."""
        return idle_connections(self.reading, p, self.idle_s)

    def pool(self, p: Prediction, holders: tuple[Holder, ...], idle: Idle | None) -> Fix:
        """Hold fewer connections: whose, how many each, how many are idle; what is then, the idle ones closed."""
        top = next((h for h in holders if h.pids), None)
        what = _pool_words(top) + (f"; {idle_words(idle)}" if idle else "")
        effect_text = "each closed one frees its port (60 s later if this side closes first)"
        changes: dict[str, str] = {}
        without = "them"
        if idle and idle.connections:
            changes = {"close": f"idle/{idle.over_s:g}/{endpoint(p.destination, p.port)}"}
            without = "the idle ones"
        elif top is not None:
            changes = {"close": f"command/{top.command}"}
        if not changes:
            return Fix("process", what, effect=effect_text)
        then = self.after(changes, p)
        text = f"{effect(then)} without {without}; {effect_text}"
        return Fix("process", what, effect=text, after=then, what_if=changes)

    # -- the namespace

    def tcp_tw_reuse(self, p: Prediction) -> Fix | None:
        """tcp_tw_reuse=1, where it frees ports of this destination."""
        if self.why_no_tw_reuse(p):
            return None
        then = self.after(
            {"tcp_tw_reuse": "1", "tcp_tw_reuse_delay": "1"}, p
        )  # those of this second are old in the next
        freed = then.free.likely - p.free.likely
        if freed <= 0:
            return None
        return Fix(
            "namespace",
            "reuse the ports of TIME_WAITs that are older than a second",
            self.reading.sysctl("tcp_tw_reuse", "1"),
            f"{effect(then)} ({plural(freed, 'port')})",
            then,
            {"tcp_tw_reuse": "1"},
            "" if self.reading.state.sockets.stamps_known else _PEERS_DECIDE,
        )

    def why_no_tw_reuse(self, p: Prediction) -> str:
        """Why tcp_tw_reuse cannot help; "" when it may."""
        sysctls = self.reading.system.sysctls
        waiting = p.by_state.get("TIME_WAIT", 0)
        if not waiting:
            return "tcp_tw_reuse (no TIME_WAIT there)"
        if not sysctls.tcp_timestamps:
            return "tcp_tw_reuse: does not help, tcp_timestamps is 0 and it needs timestamps"
        if not p.time_wait_blocking_ports:
            return "TIME_WAIT: reusable as it is" if p.time_wait_reusable_ports else ""
        if sysctls.tcp_tw_reuse == 1 and self.reading.state.sockets.stamps_known:
            return f"tcp_tw_reuse: is on; {grouped(p.time_wait_blocking_ports)} have no timestamps or are too young"
        if sysctls.tcp_tw_reuse == 1:
            return f"tcp_tw_reuse: is on; the {grouped(waiting)} have no timestamps or are younger than a second"
        return ""

    def wider_range(self, p: Prediction) -> Fix | None:
        """A wider range, with the listeners that it would run over and the line that protects them."""
        best: Fix | None = None
        for low, high in self._wider():
            best = self._wider_range(p, low, high)
            if best.after and not best.after.errno and best.after.fill < self.warn:
                break
        return best

    def _wider(self) -> list[tuple[int, int]]:
        low, high = self.reading.port_range
        least = self.reading.system.sysctls.unprivileged_port_start
        return [
            (a, b)
            for a, b in _WIDER
            if a <= low and b >= high and a >= least and b - a + 1 >= _WORTH * (high - low + 1)
        ]

    def _wider_range(self, p: Prediction, low: int, high: int) -> Fix:
        changes = {"ip_local_port_range": f"{low}-{high}"}
        command = self.reading.sysctl("ip_local_port_range", f"{low} {high}")
        names, over = self._run_over(low, high)
        caution = ""
        if over:
            reserved = port_list(self.reading.reserved.union(over))
            changes["ip_local_reserved_ports"] = reserved
            command = f"{self.reading.sysctl('ip_local_reserved_ports', reserved)} && {command}"
            caution = f"would run over {some_of(names)}: reserved first"
        then = self.after(changes, p)
        return Fix("namespace", "a wider range", command, effect(then), then, changes, caution)

    def _run_over(self, low: int, high: int) -> tuple[list[str], set[int]]:
        """Listeners' ports, and on a Kubernetes node NodePorts, that a range would newly cover; in words, and all."""
        reading = self.reading
        now_low, now_high = reading.port_range
        ports = {port for port in reading.listeners if low <= port < now_low or now_high < port <= high}
        ports -= reading.reserved
        names = [f"{reading.who(reading.listeners[port])} :{port}".strip() for port in sorted(ports)]
        if low <= NODE_PORTS[0] < now_low and on_kubernetes_node(reading):
            return [*names, "NodePorts"], ports | set(range(NODE_PORTS[0], NODE_PORTS[1] + 1))
        return names, ports


def on_kubernetes_node(reading: Reading) -> bool:
    """kubelet or kube-proxy listens here, or kube-proxy's rules are here."""
    kubelet_and_proxy = (10250, 10256)
    return any(port in reading.listeners for port in kubelet_and_proxy) or any(
        "KUBE-" in rule for rule in reading.system.nat.rules
    )
