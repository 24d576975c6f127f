"""explain_errors(): an OSError of a connect() or bind() gets told why, from the kernel's tables at that moment.

Lives here: the public name.  Does not live here: what an exception tells, and what it becomes (explaining.py).

Rules
1. What leaves is still what was raised, for every `except` clause: a plain OSError becomes its kind of ConnectError
   (ConnectRefused is a ConnectionRefusedError), a library's OSError an exception of its own class and of ConnectError.
2. The original is its `__cause__`.  Where nothing can be found out in time, the original goes on, untouched.
3. What is no OSError itself (urllib3, httpx, an exception group) goes on too, with `.explanation` and a note.
4. Nothing is read, imported or allocated while nothing fails.
"""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar, overload

if TYPE_CHECKING:
    from types import TracebackType

    from fourtuple.doctor.explaining import Case

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])
_TIMEOUT_S = 0.2
_STEP_S = 0.002


class Explainer:
    """What explain_errors() returns: a context manager, an asynchronous one, and a decorator."""

    __slots__ = ("_destination", "_timeout")

    def __init__(self, timeout: float, destination: tuple[str, int] | None) -> None:
        self._timeout = timeout
        self._destination = destination

    def __enter__(self) -> Explainer:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        if value is not None and (case := self._case(value)):
            case.thread.join(self._timeout)
            case.raise_explained()

    async def __aenter__(self) -> Explainer:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None:
        if value is not None and (case := self._case(value)):
            await _wait(case, self._timeout)
            case.raise_explained()

    def _case(self, value: BaseException) -> Case | None:
        from fourtuple.doctor.explaining import open_case

        return open_case(value, self._destination)

    def __call__(self, function: F) -> F:
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError("explain_errors: its body runs after the call; put `with explain_errors():` into it")
        is_coroutine = inspect.iscoroutinefunction(function)
        wrapped: Any = self._around_coroutine(function) if is_coroutine else self._around(function)
        functools.update_wrapper(wrapped, function)
        return wrapped  # type: ignore[no-any-return]

    def _around(self, function: Callable[..., T]) -> Callable[..., T]:
        def call(*args: Any, **kwargs: Any) -> T:
            with self:
                return function(*args, **kwargs)

        return call

    def _around_coroutine(self, function: Callable[..., Any]) -> Callable[..., Coroutine[Any, Any, Any]]:
        async def call(*args: Any, **kwargs: Any) -> Any:
            async with self:
                return await function(*args, **kwargs)

        return call


async def _wait(case: Case, timeout: float) -> None:
    """Other tasks go on meanwhile; without an asyncio loop (trio) it blocks."""
    import asyncio

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        case.thread.join(timeout)
        return
    for _ in range(max(1, int(timeout / _STEP_S))):
        if not case.thread.is_alive():
            return
        await asyncio.sleep(_STEP_S)


@overload
def explain_errors(function: F, /) -> F: ...
@overload
def explain_errors(
    function: None = None, /, *, timeout: float = _TIMEOUT_S, destination: tuple[str, int] | None = None
) -> Explainer: ...


def explain_errors(
    function: Any = None, /, *, timeout: float = _TIMEOUT_S, destination: tuple[str, int] | None = None
) -> Any:
    """Explain what connect() and bind() fail with: EADDRNOTAVAIL, EADDRINUSE, ECONNREFUSED, ETIMEDOUT and their like.

    `with explain_errors():`, `async with explain_errors():`, `@explain_errors`, `@explain_errors(timeout=0.1)`; of
    socket, asyncio, aiohttp, requests, urllib3 and whatever else raises an OSError, or raises something from one.

    What leaves is a ConnectError with `.report` and a note that says which path in the kernel it was, and what helps.
    It is still of the class that was raised; the original is its `__cause__`.  The sockets of this network namespace
    are read for that, once, for `timeout` seconds at most; if that does not do, the original goes on.

    `destination`: (address, port) where connect() goes to, if the exception does not say.
    """
    if not 0 <= timeout < threading.TIMEOUT_MAX:
        raise ValueError(f"explain_errors: timeout={timeout}: a number of seconds from 0 on")
    explainer = Explainer(timeout, destination)
    return explainer if function is None else explainer(function)
