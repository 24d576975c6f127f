"""A dial by the workers of a Dask cluster (https://distributed.dask.org), an existing one or one of this machine.

Lives here: dividing a dial among workers, hearing of them, one report.  Does not live here: what a worker then does
(cluster_task.py), distribution: which machines, how they find each other, who restarts them is Dask's.

    dask://10.0.0.5:8786    the scheduler that listens there
    dask://local            a LocalCluster for this dial: a worker for each core

Rules
1. Each worker gets one share, which never moves to another: a worker that dies is in the report with it.
2. Each worker opens its own wire; all hold at the same time.
3. Whatever ends this process ends the dial: workers notice that nobody wants their result any more.
"""

from __future__ import annotations

import errno
import logging
import os
import queue
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeVar

from fourtuple.dial.merge import merge
from fourtuple.dial.part import setup_to_json
from fourtuple.dial.plan import DialPlan
from fourtuple.dial.report import Asked, DialReport, OnProgress, Progress, lost_worker
from fourtuple.dial.report_json import load
from fourtuple.dial.tally import Tally
from fourtuple.dial.wiring import PRIVATE, Wiring, setup_of
from fourtuple.shell.wire import Setup, WireUnavailable

if TYPE_CHECKING:
    from distributed import Client, Event, Future, LocalCluster

T = TypeVar("T")
SCHEME = "dask://"
LOCAL = "local"
_INSTALL = "pip install 'fourtuple[cluster]'"
_STARTS = 3
_CONNECT_S = 5.0
_WORKERS_S = 10.0
_ASK_S = 0.05
_COUNT_S = 0.5


class ClusterUnavailable(WireUnavailable):
    """No cluster to dial from."""


def run_on_cluster(
    address: str,
    plan: DialPlan,
    wiring: Wiring,
    on_progress: OnProgress | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    *,
    step_1: bool = False,
    on_ready: Callable[[list[str]], None] = lambda names: None,
) -> DialReport:
    """Carry out `plan` on the workers of the cluster at `address` (`dask://HOST:PORT`, `dask://local`).

    `plan.processes` is how many each worker starts.  `on_ready` hears the workers' names before anything is begun.
    Raises ClusterUnavailable, WireUnavailable when no worker can have its wire, ValueError for another address.
    """
    if not address.startswith(SCHEME) or not address.removeprefix(SCHEME):
        raise ValueError(f"{address!r} is no cluster: say dask://HOST:PORT, or dask://local")
    with _quiet(), _client(address.removeprefix(SCHEME)) as client:
        dial = _ClusterDial(plan, setup_of(plan, wiring), client, on_progress, step_1)
        on_ready([share.name for share in dial.shares])
        return dial.run(should_stop)


# ------------------------------------------------------------------------------------------ the cluster


@contextmanager
def _client(where: str) -> Iterator[Client]:
    try:
        from dask import config
        from distributed import Client, LocalCluster
    except ImportError:
        raise ClusterUnavailable(errno.ENOPKG, "Dask is not installed here", _INSTALL) from None
    if where != LOCAL:
        with _connected(Client, where) as client:
            yield client
        return
    with (
        TemporaryDirectory(prefix="fourtuple-dask-") as directory,
        config.set({"temporary-directory": directory}),
        _started(LocalCluster) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


def _started(make: type[LocalCluster]) -> LocalCluster:
    """A cluster on this machine.  One worker that does not come up ends Dask's attempt: then there is another."""
    for attempt in range(_STARTS):
        try:
            return make(
                n_workers=os.cpu_count(),
                threads_per_worker=1,
                processes=True,
                dashboard_address=":0",  # any free port
                silence_logs=logging.CRITICAL,
            )
        except RuntimeError as error:
            if attempt + 1 == _STARTS:
                raise ClusterUnavailable(errno.ECHILD, f"Dask starts no workers here: {error}", "") from None
    raise AssertionError("not reached")


@contextmanager
def _quiet() -> Iterator[None]:
    """No log of Dask's on the terminal: what is lost is in the report, and what fails is one line."""
    with suppress(ImportError):
        import distributed  # noqa: F401  (it makes its loggers)
    names = [name for name in logging.root.manager.loggerDict if name.partition(".")[0] == "distributed"]
    levels = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def _connected(make: type[Client], where: str) -> Client:
    try:
        return make(f"tcp://{where}", timeout=_CONNECT_S, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        code = error.errno if isinstance(error, OSError) and error.errno else errno.ECONNREFUSED
        todo = "dask scheduler   (there), dask worker HOST:8786   (on each machine)"
        raise ClusterUnavailable(code, f"no Dask scheduler answers at {where}", todo) from None


def _workers(client: Client) -> list[str]:
    """Their addresses: `tcp://10.0.0.7:38201`."""
    try:
        client.wait_for_workers(1, timeout=_WORKERS_S)
    except TimeoutError:
        todo = "dask worker HOST:8786   (on each machine that shall dial)"
        raise ClusterUnavailable(errno.ENODEV, "the Dask scheduler has no workers", todo) from None
    return sorted(client.nthreads())


# ------------------------------------------------------------------------------------------ the dial


class _ClusterDial:
    """One dial on the workers that are there at its beginning."""

    def __init__(
        self, plan: DialPlan, setup: Setup, client: Client, on_progress: OnProgress | None, step_1: bool
    ) -> None:
        self.plan = plan
        self._client = client
        self._workers = _workers(client)
        self.shares = [
            replace(share, processes=plan.processes, name=worker.partition("://")[2])
            for share, worker in zip(_split(plan, len(self._workers)), self._workers, strict=False)
        ]
        self._common = {"setup": setup_to_json(setup), "step_1": step_1}
        self._run = f"fourtuple-{uuid.uuid4().hex}"
        self._tally = Tally(len(self.shares), on_progress)
        self._heard: queue.SimpleQueue[tuple[str, int, Any]] = queue.SimpleQueue()
        self._opened: set[int] = set()
        self._found: dict[int, DialReport] = {}
        self._refused: dict[int, WireUnavailable] = {}
        self._counted = 0.0
        self._is_stopped = self._is_held = False

    def run(self, should_stop: Callable[[], bool]) -> DialReport:
        from distributed import Event

        hold, stop = (Event(f"{self._run}-{word}", client=self._client) for word in ("hold", "stop"))
        self._client.subscribe_topic(self._run, self._on_event)
        futures = [self._submit(i) for i in range(len(self.shares))]
        try:
            while len(self._found) < len(futures):
                self._listen(futures)
                self._say(should_stop, hold, stop)
        finally:
            with suppress(Exception):  # whatever this does, what brought us here is what counts
                self._client.cancel(futures, force=True)
                self._client.unsubscribe_topic(self._run)
        if len(self._refused) == len(futures):
            raise self._refused[0]
        return self._merged()

    def _submit(self, i: int) -> Future[Any]:
        from fourtuple.dial.cluster_task import dial_here

        task = self._common | {"plan": self.shares[i].to_json(), "run": self._run, "number": i}
        future = self._client.submit(
            dial_here,
            task,
            key=f"{self._run}-{i}",
            workers=[self._workers[i]],
            allow_other_workers=False,
            pure=False,
            retries=0,
        )
        future.add_done_callback(lambda done: self._heard.put(("done", i, done)))
        return future

    def _on_event(self, event: tuple[float, dict[str, Any]]) -> None:
        """In the client's own thread."""
        message = event[1]
        self._heard.put((message["what"], message["number"], message.get("progress")))

    def _listen(self, futures: list[Future[Any]]) -> None:
        with suppress(queue.Empty):
            while True:
                what, i, value = self._heard.get(timeout=_ASK_S)
                if i in self._found:
                    continue
                if what == "progress":
                    self._tally.heard(i, load(Progress, value))
                elif what == "opened":
                    self._opened.add(i)
                else:
                    self._take_result(i, value)
                if len(self._found) == len(futures):
                    return
        if time.monotonic() - self._counted >= _COUNT_S:
            self._note_the_missing()
            self._counted = time.monotonic()

    def _take_result(self, i: int, done: Future[Any]) -> None:
        try:
            result = done.result()
        except BaseException as error:  # of the task, cancelled, or lost on its way: KilledWorker, CancelledError
            if isinstance(error, KeyboardInterrupt):
                raise
            is_cut_off = getattr(error, "reason", "") == "scheduler-connection-lost"
            self._lose(i, "the scheduler has gone" if is_cut_off else f"{type(error).__name__}: {error}")
            return
        if "report" in result:
            self._found[i] = self._named(i, DialReport.from_json(result["report"]))
            self._tally.done(i)
            return
        if result["kind"] == "WireUnavailable":
            self._refused[i] = WireUnavailable(result["code"], result["text"], result["todo"])
        self._lose(i, result["text"])

    def _note_the_missing(self) -> None:
        """Workers that have gone: Dask itself would wait for one of that address."""
        alive = self._ask(self._client.nthreads)
        for i in range(len(self.shares)):
            if i not in self._found and alive is not None and self._workers[i] not in alive:
                self._lose(i, "the worker has gone")

    def _ask(self, call: Callable[[], T]) -> T | None:
        """Something of the scheduler; when it is gone, so are all shares that have not been reported."""
        try:
            return call()
        except OSError:  # TimeoutError and CommClosedError are
            for i in range(len(self.shares)):
                if i not in self._found:
                    self._lose(i, "the scheduler has gone")
            return None

    def _lose(self, i: int, reason: str) -> None:
        is_open = self._tally.open_of(i)
        self._tally.done(i)
        if is_open:
            reason += f", with {is_open:,} connections open"
        self._found[i] = lost_worker(self.shares[i].name, self.shares[i].connections, reason)

    def _say(self, should_stop: Callable[[], bool], hold: Event, stop: Event) -> None:
        if not self._is_stopped and should_stop():
            self._is_stopped = True
            self._ask(stop.set)
        if not self._is_held and len(self._opened | set(self._found)) == len(self.shares):
            self._is_held = True
            self._ask(hold.set)

    def _named(self, i: int, report: DialReport) -> DialReport:
        """Its processes under the name of their worker."""
        name, each = self.shares[i].name, report.workers
        if len(each) == 1 and each[0].error is None:
            report.workers = [replace(each[0], name=name)]
        else:
            report.workers = [replace(one, name=f"{name} {one.name}") for one in each]
        return report

    def _merged(self) -> DialReport:
        merged = merge([self._found[i] for i in range(len(self.shares))])
        merged.asked = Asked.of(self.plan)
        merged.seed = self.plan.seed
        merged.stack = self.plan.stack
        return merged


def _split(plan: DialPlan, workers: int) -> list[DialPlan]:
    return plan.split(workers, own_sources=plan.stack == "user" and plan.wire in PRIVATE)
