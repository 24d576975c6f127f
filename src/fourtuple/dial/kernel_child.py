"""A kernel dial in another network namespace: a process of its own enters it and dials there.

Lives here: both sides: starting the process and listening to it; entering, and what a private namespace needs first.
Does not live here: the dial (kernel.py).

Why a process, not a thread: a namespace that belongs to a user namespace (nobody was root when it was made) can be
entered only after that one, which the kernel allows to processes with a single thread alone.  It also has a descriptor
table, a CPU time and an RSS of its own, which are those of the dial then.

Parent -> child: one line of JSON, the task; end of file: stop.  Child -> parent: lines {"progress"}, then {"report"} or
{"error"}.  When the parent goes, the child reads end of file, closes its sockets and ends.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import select
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from fourtuple.dial.plan import DialPlan
from fourtuple.dial.report import DialReport, Progress
from fourtuple.dial.report_json import dump, load
from fourtuple.live.netns import find_netns
from fourtuple.live.refusal import CannotRead

if TYPE_CHECKING:
    from fourtuple.dial.kernel import ShouldStop
    from fourtuple.dial.report import OnProgress
    from fourtuple.live.netns import Spec

_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_NS_GET_USERNS = 0xB701  # include/uapi/linux/nsfs.h
_RANGE = "/proc/sys/net/ipv4/ip_local_port_range"
_HOME = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_BOOT = f"import sys; sys.path.insert(0, {_HOME!r}); from fourtuple.dial.kernel_child import main; main()"
_ASK_S = 0.05


def run_in_child(
    plan: DialPlan,
    on_progress: OnProgress | None,
    should_stop: ShouldStop | None,
    netns: Spec,
    is_private: bool,
    step_1: bool,
) -> DialReport:
    """See run_kernel().  Raises what the child could not do as an OSError."""
    path = find_netns(netns).path
    task = {"plan": plan.to_json(), "netns": path, "is_private": is_private, "step_1": step_1}
    # Its own process group: Ctrl-C in the terminal is for the parent, which then stops it in order.
    command = [sys.executable, "-I", "-c", _BOOT]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0) as child:
        assert child.stdin is not None and child.stdout is not None
        try:
            child.stdin.write(json.dumps(task).encode() + b"\n")
            child.stdin.flush()
            return _listen(child, on_progress, should_stop)
        except BrokenPipeError:
            raise _ended() from None
        finally:
            _close_quietly(child.stdin)  # whatever happened here: it stops


def _listen(
    child: subprocess.Popen[bytes], on_progress: OnProgress | None, should_stop: ShouldStop | None
) -> DialReport:
    assert child.stdin is not None and child.stdout is not None
    stdout, pending = child.stdout.fileno(), b""
    poll = select.poll()  # no limit of 1,024 descriptors
    poll.register(stdout, select.POLLIN)
    while True:
        if should_stop is not None and should_stop():
            _close_quietly(child.stdin)
        if not poll.poll(_ASK_S * 1000):
            continue
        data = os.read(stdout, 1 << 20)
        if not data:
            raise _ended()
        *lines, pending = (pending + data).split(b"\n")
        for line in lines:
            report = _heard(json.loads(line), on_progress)
            if report is not None:
                return report


def _heard(message: dict[str, Any], on_progress: OnProgress | None) -> DialReport | None:
    if "report" in message:
        return DialReport.from_json(message["report"])
    if "error" in message:
        error = message["error"]
        if error["what"]:
            raise CannotRead(error["errno"], error["what"], error["advice"])
        raise OSError(error["errno"], error["message"])
    if on_progress is not None:
        on_progress(load(Progress, message["progress"]))
    return None


def _ended() -> OSError:
    # Not EPIPE: a BrokenPipeError is taken for a reader of our stdout who has gone.
    return OSError(errno.ECHILD, "the process that dials has ended without a report")


def _close_quietly(stdin: Any) -> None:
    try:
        stdin.close()
    except OSError:
        pass


# ------------------------------------------------------------------------------------------ inside


def main() -> None:
    """The child: reads its task, enters, dials, reports."""
    task = json.loads(sys.stdin.buffer.readline())
    try:
        message = {"report": _dial(task).to_json()}
    except CannotRead as error:
        message = {"error": {"errno": error.errno, "what": error.what, "advice": error.advice, "message": ""}}
    except OSError as error:
        text = f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error)
        message = {"error": {"errno": error.errno or errno.EIO, "what": "", "advice": "", "message": text}}
    _say(message)


def _say(message: dict[str, Any]) -> None:
    try:
        sys.stdout.buffer.write(json.dumps(message).encode() + b"\n")
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        os._exit(0)  # the parent is gone; the sockets go with this process


def _dial(task: dict[str, Any]) -> DialReport:
    enter(task["netns"])
    from fourtuple.dial.kernel import KernelDial

    plan = DialPlan.from_json(task["plan"])
    if task["is_private"]:
        prepare(plan)
    dial = KernelDial(plan, _on_progress, _parent_has_gone, task["step_1"], range_is_set=task["is_private"])
    return dial.run()


def _on_progress(progress: Progress) -> None:
    _say({"progress": dump(progress)})


def _parent_has_gone() -> bool:
    """End of file: nothing else comes after the task."""
    poll = select.poll()
    poll.register(0, select.POLLIN | select.POLLRDHUP)
    return bool(poll.poll(0))


def enter(path: str) -> None:
    """Move this process into a network namespace, and before that into the user namespace that it belongs to."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        owner = fcntl.ioctl(fd, _NS_GET_USERNS)
    except PermissionError:
        owner = -1  # it belongs to a user namespace around ours: then setns() says what it thinks of that
    if owner >= 0:
        if os.fstat(owner).st_ino != os.stat("/proc/self/ns/user").st_ino and libc.setns(owner, _CLONE_NEWUSER):
            raise CannotRead(ctypes.get_errno(), f"user namespace of {path}", "only its maker or root may enter it")
        os.close(owner)
    if libc.setns(fd, _CLONE_NEWNET):
        raise CannotRead(ctypes.get_errno(), f"network namespace {path}", "to enter one needs root (CAP_SYS_ADMIN)")
    os.close(fd)


def prepare(plan: DialPlan) -> None:
    """The plan's sources become addresses of lo, its range that of the namespace: both are ours."""
    from fourtuple.phy import link

    for source in plan.sources:
        try:
            link.add_address("lo", source)
        except FileExistsError:
            pass
    if plan.range:
        with open(_RANGE, "w") as file:
            file.write(f"{plan.range[0]} {plan.range[1]}")
