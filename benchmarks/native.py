"""The C programs of this directory: compiled when they are needed, spoken to over a pipe.

They are the other side of a comparison: the kernel has to be called as cheaply as a program can call it.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Self

SOURCES = Path(__file__).resolve().parent
BUILT = SOURCES.parent / "build" / "benchmarks"
FAR, FIRST_PORT = "10.77.0.2", 7000
"""Of the listeners: of kernel_client.c, and of all (measure.h)."""


def program(name: str) -> Path:
    """The program made of NAME.c, compiled if that or measure.h is newer."""
    source, made = SOURCES / f"{name}.c", BUILT / name
    newest = max(path.stat().st_mtime for path in (source, SOURCES / "measure.h"))
    if not made.exists() or made.stat().st_mtime < newest:
        BUILT.mkdir(parents=True, exist_ok=True)
        command = ["gcc", "-O2", "-Wall", "-Wno-unused-function", "-o", str(made), str(source)]
        subprocess.run(command, check=True)
    return made


class Program:
    """A running program that answers each line with a line of numbers.  A context manager: it ends with its input."""

    def __init__(self, name: str, command: list[str], pass_fds: tuple[int, ...] = ()) -> None:
        self._name = name
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, pass_fds=pass_fds
        )
        self.pid = self._process.pid

    def ask(self, *words: object) -> list[int]:
        """One command; its answer.  RuntimeError when the program has given up (it said why on stderr)."""
        self.tell(*words)
        return self.answer()

    def tell(self, *words: object) -> None:
        """A command, whose answer is for answer()."""
        assert self._process.stdin is not None
        try:
            print(*words, file=self._process.stdin, flush=True)
        except BrokenPipeError:
            pass  # the empty answer tells

    def answer(self) -> list[int]:
        """Of the last command."""
        assert self._process.stdout is not None
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{self._name} has ended instead of answering")
        return [int(number) for number in answer.split()]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.communicate()


class Native(Program):
    """One of the C programs."""

    def __init__(self, name: str, *arguments: object, pass_fds: tuple[int, ...] = ()) -> None:
        super().__init__(name, [str(program(name)), *(str(argument) for argument in arguments)], pass_fds)
