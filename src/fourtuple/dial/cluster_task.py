"""What a Dask worker does for a dial: it starts the processes of its share and stands between them and the cluster.

The dial is in processes of its own, as everywhere: the worker's own threads do not slow it down, and memory, CPU time
and namespaces are those of the dial.  They end with the worker, however it ends.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from fourtuple.dial.part import setup_from_json
from fourtuple.dial.plan import DialPlan
from fourtuple.dial.process_child import described
from fourtuple.dial.processes import open_processes
from fourtuple.dial.report import Progress
from fourtuple.dial.report_json import dump

if TYPE_CHECKING:
    from distributed import Worker

_ASK_S = 0.25
_TELL_S = 0.3


def dial_here(task: dict[str, Any]) -> dict[str, Any]:
    """The task: {"report": ...}, or what stood in the way, as process_child.described() has it."""
    from distributed import get_worker

    link = _Link(get_worker(), task["run"], task["number"])
    try:
        plan, setup = DialPlan.from_json(task["plan"]), setup_from_json(task["setup"])
        with open_processes(plan, setup, step_1=task["step_1"]) as crew:
            report = crew.run(link.on_progress, link.should_stop, link.may_hold)
        return {"report": report.to_json()}
    except OSError as error:
        return described(error)


class _Link:
    """To whoever asked for the dial."""

    def __init__(self, worker: Worker, run: str, number: int) -> None:
        from distributed import Event, get_client

        client = get_client()
        self._worker = worker
        self._key = worker.get_current_task()
        self._run, self._number = run, number
        self._hold, self._stop = (Event(f"{run}-{word}", client=client) for word in ("hold", "stop"))
        self._asked = self._told = 0.0
        self._has_opened = self._is_stopped = False

    def on_progress(self, progress: Progress) -> None:
        """A few times a second, without histograms."""
        now = time.monotonic()
        if now - self._told >= _TELL_S:
            self._told = now
            values = dump(progress)
            self._tell("progress", progress=values | {"connect": None, "handshake": None})

    def _tell(self, what: str, **more: Any) -> None:
        self._worker.log_event(self._run, {"what": what, "number": self._number, **more})

    def should_stop(self) -> bool:
        """It was said, or nobody waits for the result any more."""
        now = time.monotonic()
        if not self._is_stopped and now - self._asked >= _ASK_S:
            self._asked = now
            self._is_stopped = not self._is_wanted() or bool(self._stop.is_set())
        return self._is_stopped

    def _is_wanted(self) -> bool:
        """Whether the scheduler still has the task: not after the client cancelled it, or is gone."""
        task = self._worker.state.tasks.get(self._key)
        return task is not None and task.state == "executing"

    def may_hold(self) -> bool:
        """Asked again and again from the time on when all is open here."""
        if not self._has_opened:
            self._has_opened = True
            self._tell("opened")
        return bool(self._hold.is_set())
