"""The C programs of this directory: compiled when they are needed, spoken to over a pipe.

They are the other side of a comparison: the kernel has to be called as cheaply as a program can call it.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

SOURCES = Path(__file__).resolve().parent
BUILT = SOURCES.parent / "build" / "benchmarks"


def program(name: str) -> Path:
    """The program made of NAME.c, compiled if that or measure.h is newer."""
    source, made = SOURCES / f"{name}.c", BUILT / name
    newest = max(path.stat().st_mtime for path in (source, SOURCES / "measure.h"))
    if not made.exists() or made.stat().st_mtime < newest:
        BUILT.mkdir(parents=True, exist_ok=True)
        command = ["gcc", "-O2", "-Wall", "-Wno-unused-function", "-o", str(made), str(source)]
        subprocess.run(command, check=True)
    return made


class Native:
    """A running one; `ask` has it do something.  A context manager: it ends with its standard input."""

    def __init__(self, name: str, *arguments: object, pass_fds: tuple[int, ...] = ()) -> None:
        self._name = name
        command = [str(program(name)), *(str(argument) for argument in arguments)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, pass_fds=pass_fds
        )
        self.pid = self._process.pid

    def ask(self, *words: object) -> list[int]:
        """One command; its answer.  RuntimeError when the program has given up (it said why on stderr)."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            print(*words, file=self._process.stdin, flush=True)
        except BrokenPipeError:
            pass  # the empty answer tells
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{self._name} has ended instead of answering: {' '.join(map(str, words))}")
        return [int(number) for number in answer.split()]

    def __enter__(self) -> Native:
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.communicate()
