"""Run a function in a fresh network namespace of the live kernel.

The child process unshares, runs the function and sends back what it returns as JSON; the namespace ends with it.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

import pytest

CLONE_NEWNET = 0x40000000

needs_kernel = pytest.mark.skipif(
    os.geteuid() != 0 or not os.uname().release.startswith("6.18."), reason="needs root and Linux 6.18"
)


def _unshare() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare(CLONE_NEWNET)")


def _child(pipe: int, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    try:
        _unshare()
        answer = {"value": function(*args)}
    except BaseException:
        answer = {"error": traceback.format_exc()}
    with os.fdopen(pipe, "w") as out:
        json.dump(answer, out)


def in_namespace(function: Callable[..., Any], *args: Any) -> Any:
    """function(*args), run in a child process in a namespace of its own; its value must survive JSON."""
    reading, writing = os.pipe()
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        try:
            _child(writing, function, args)
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as source:
        text = source.read()
    os.waitpid(pid, 0)
    answer = json.loads(text)
    if "error" in answer:
        raise RuntimeError(answer["error"])
    return answer["value"]
