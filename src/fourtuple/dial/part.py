"""A worker's part of a dial: what it is to do, as plain values, and doing it in the process that was given it.

Lives here: Part and its JSON, the end of the wire or the namespace that it dials from, waiting for the other workers.
Does not live here: processes (processes.py), a cluster (cluster.py), the dial itself (user.py, kernel.py).

Rule: all parts of a dial hold at the same time.  Whoever has opened its connections waits until all others have, so
that the sum of what is open at once is true.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from fourtuple.dial.plan import DialPlan
from fourtuple.phy.fault import LossRule
from fourtuple.phy.tun import TunDevice
from fourtuple.shell.netns import Server
from fourtuple.shell.wire import Setup, Wire

if TYPE_CHECKING:
    from fourtuple.dial.report import DialReport, OnProgress

_MTU = 1500
MayGoOn = Callable[[], bool]


@dataclass(frozen=True)
class Part:
    """What one worker dials, and from where: a TUN that was opened for it, a wire of its own, or kernel sockets."""

    plan: DialPlan
    setup: Setup
    """`max_sockets` and `seed` are those of the plan."""
    device: str = ""
    """A TUN in a namespace that another process holds; "": a wire of its own (plan.wire)."""
    fd: int = -1
    """Descriptor of that TUN."""
    address: str = ""
    """Our end of it: `10.64.2.2/24`."""
    sources: tuple[str, ...] = ()
    """Networks of ours besides that, which the namespace sends to this TUN."""
    netns: str = ""
    """Kernel sockets: the namespace that they are in, a path; "": that of the worker."""
    is_private: bool = False
    """That namespace is ours to change."""
    step_1: bool = False

    def to_json(self) -> dict[str, Any]:
        """Plain values; from_json() takes them back."""
        values = {name: getattr(self, name) for name in ("device", "fd", "address", "netns", "is_private", "step_1")}
        return values | {
            "plan": self.plan.to_json(),
            "setup": setup_to_json(self.setup),
            "sources": list(self.sources),
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Part:
        """The part that to_json() described."""
        known = values | {
            "plan": DialPlan.from_json(values["plan"]),
            "setup": setup_from_json(values["setup"]),
            "sources": tuple(values["sources"]),
        }
        return cls(**known)


def setup_to_json(setup: Setup) -> dict[str, Any]:
    """Plain values.  ValueError with a capture, whose file is open in one process only."""
    if setup.capture is not None:
        raise ValueError("packets can be written by one process only")
    values = {name: value for name, value in vars(setup).items() if name != "capture"}
    return values | {
        "servers": [asdict(one) if isinstance(one, Server) else list(one) for one in setup.servers],
        "loss": [asdict(rule) for rule in setup.loss],
        "sysctls": dict(setup.sysctls),
        "peer_sysctls": dict(setup.peer_sysctls),
    }


def setup_from_json(values: dict[str, Any]) -> Setup:
    """The Setup that setup_to_json() described."""
    return Setup(**values | {
        "servers": tuple(Server(**one) if isinstance(one, dict) else (one[0], one[1]) for one in values["servers"]),
        "loss": tuple(_loss_rule(**rule) for rule in values["loss"]),
        "sources": tuple(values["sources"]),
    })  # fmt: skip


def _loss_rule(ranges: list[list[int]], **values: Any) -> LossRule:
    return LossRule(ranges=tuple((first, last) for first, last in ranges), **values)


class OpenPart(Protocol):
    """A part that is ready to begin.  A context manager."""

    where: str
    notes: tuple[str, ...]

    def run(self, on_progress: OnProgress | None, should_stop: Callable[[], bool], may_hold: MayGoOn) -> DialReport:
        """All of it.  `may_hold` is asked from the time when all is open: whether all others are as far."""

    def __enter__(self) -> OpenPart: ...
    def __exit__(self, *exception: Any) -> None: ...


def open_part(part: Part) -> OpenPart:
    """See to it that `part` can begin.  WireUnavailable or CannotRead when this machine does not let us."""
    return _KernelPart(part) if part.plan.stack == "kernel" else _UserPart(part)


class _UserPart:
    """Our own stack on a wire."""

    def __init__(self, part: Part) -> None:
        self._plan = part.plan
        notes: list[str] = []
        self._wire = _open_wire(part, notes.append)
        self.where = self._wire.where
        self.notes = (*notes, *self._wire.notes)

    def run(self, on_progress: OnProgress | None, should_stop: Callable[[], bool], may_hold: MayGoOn) -> DialReport:
        from fourtuple.dial.user import UserDial

        class Dial(UserDial):
            def _open(self) -> None:
                super()._open()
                self.phase = "hold"
                is_alone = self.stack.runner.is_virtual  # in a time of its own
                while not (may_hold() or is_alone or self._should_stop()):
                    if not self._round(0):
                        self.stack.sleep(self.stack.runner.now_us() + _ASK_US)

        return Dial(self._plan, self._wire, on_progress, should_stop).run()

    def __enter__(self) -> _UserPart:
        return self

    def __exit__(self, *exception: Any) -> None:
        self._wire.__exit__(*exception)


_ASK_US = 20_000


def _open_wire(part: Part, note: Callable[[str], None]) -> Wire:
    plan = part.plan
    reserve = min(plan.connections, plan.rows) if part.setup.reserve else 0
    setup = replace(part.setup, max_sockets=plan.rows, reserve=reserve, seed=plan.seed)
    if part.device:
        return _wire_on_tun(part, replace(setup, sources=(), source=""))
    from fourtuple.shell.wires import open_wire

    return open_wire(plan.wire, setup, note)


def _wire_on_tun(part: Part, setup: Setup) -> Wire:
    """Our end of a TUN whose namespace, and all that is in it, another process looks after."""
    from fourtuple.shell.private_wire import wire_on

    device = TunDevice(part.fd, part.device, _MTU, vnet_hdr=True)
    wire = wire_on(device, part.address, setup, f"tun {part.device}")
    for source in part.sources:
        with suppress(FileExistsError):  # the address of the device may be one of them
            wire.host.add_route(source, dev=part.device, type="local")
    return wire


_KERNEL_WHERE = ("this network namespace", "lo, private network namespace")


class _KernelPart:
    """Kernel sockets, in a namespace that this process enters for good."""

    def __init__(self, part: Part) -> None:
        from fourtuple.dial.kernel_child import enter, prepare

        self._part = part
        self.where = _KERNEL_WHERE[part.is_private]
        self.notes: tuple[str, ...] = ()
        if part.netns:
            enter(part.netns)
        if part.is_private:
            prepare(part.plan)

    def run(self, on_progress: OnProgress | None, should_stop: Callable[[], bool], may_hold: MayGoOn) -> DialReport:
        from fourtuple.dial.kernel import KernelDial

        class Dial(KernelDial):
            def _open(self) -> None:
                super()._open()
                self._phase = "hold"
                while not (may_hold() or self._is_stopped):
                    self._turn(self._clock() + _ASK_US * 1000)

        part = self._part
        return Dial(part.plan, on_progress, should_stop, part.step_1, range_is_set=part.is_private).run()

    def __enter__(self) -> _KernelPart:
        return self

    def __exit__(self, *exception: Any) -> None:
        pass
