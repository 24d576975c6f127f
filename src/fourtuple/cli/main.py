"""The entry point: finds the command, runs it, and turns whatever goes wrong into one line and an exit code.

Lives here: the list of commands, global options, errors.  Does not live here: any command.
A command is a module of this package with `add_arguments(parser)` and `run(args, out, err) -> exit code`; it is
imported when it is asked for, so that `fourtuple --version` stays quick.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import sys
from contextlib import suppress
from typing import Any, NoReturn

from fourtuple import __version__
from fourtuple.cli import exits
from fourtuple.cli.exits import Failure
from fourtuple.cli.terminal import Terminal, let_go, open_terminal

COMMANDS = {
    "connect": "one connect(), every kernel function with its decision",
    "demo": "a tour in a few seconds, with real packets",
    "doctor": "who is near EADDRNOTAVAIL here, what connect() costs, what fixes it",
    "map": "every port of the range as connect() to a destination finds it",
    "plan": "how many connections a second fit, and what makes more fit",
    "why": "every way connect() or bind() comes to an errno, and which one it is here",
    "snapshot": "sockets and sysctls of this machine in one file",
    "dial": "very many connections at once: open, hold, talk, close",
    "report": "reports of many connections, added up into one",
    "wires": "what can be used here, and why not the rest",
    "syn-schedule": "when an unanswered SYN goes again and connect() gives up",
}

_MODULES = {"report": "report_merge"}  # report.py has been there before: connect's

_NAMES = ("FILE", "NS", "DEST", "HOST:PORT")  # metavars of what may not be empty

_DESCRIPTION = "The Linux connect() path in Python: watch it, run it, ask it."
_EPILOG = """\
start here:
  fourtuple demo
  fourtuple connect :8080 --http
  fourtuple COMMAND --help
"""


class Parser(argparse.ArgumentParser):
    """argparse with our errors: one line, and the option that was probably meant."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # `--rtt -5ms` is a bad value, not a missing one: what begins with a digit behind its minus is no option.
        self._negative_number_matcher = re.compile(r"-[0-9]")

    def error(self, message: str) -> NoReturn:
        raise Failure(f"{self.prog}: {message.removeprefix('argument ')}", exits.USAGE, (f"{self.prog} --help",))

    def _print_message(self, message: str, file: Any = None) -> None:
        """--help and --version; argparse would not say that they cannot be written."""
        open_terminal(file).write(message)

    def refuse(self, word: str) -> NoReturn:
        """A word that means nothing here."""
        if not word.startswith("-"):
            self.error(f"one argument too many: {word!r}")
        meant = close_to(word.partition("=")[0], sorted(self._option_string_actions))
        self.error(f"no option {word!r}" + (f". Did you mean {meant!r}?" if meant else ""))

    def refuse_empty(self, args: argparse.Namespace) -> None:
        """An empty name is that of a shell variable that is not set, not `leave it out`."""
        for action in self._actions:
            value = getattr(args, action.dest, None)
            if action.metavar in _NAMES and (value == "" or (isinstance(value, list) and "" in value)):
                name = "/".join(action.option_strings) or action.metavar
                self.error(f"{name} is empty; leave it out, or give it a value")


def close_to(word: str, known: list[str]) -> str:
    """The known word that was probably meant, or ''."""
    from difflib import get_close_matches

    found = get_close_matches(word, known, 1, 0.6)
    return found[0] if found else ""


def add_global_options(parser: argparse.ArgumentParser, top: bool) -> None:
    """Options that every command takes, before or behind its name."""
    default: dict[str, Any] = {} if top else {"default": argparse.SUPPRESS}
    group = parser.add_argument_group("output")
    choices = ("auto", "always", "never")
    group.add_argument("--color", choices=choices, metavar="WHEN", help="auto (default), always, never", **default)
    group.add_argument("--ascii", action="store_true", help="nothing beyond ASCII", **default)


class _Unseen(argparse.RawDescriptionHelpFormatter):
    """For when no help is wanted: argparse makes one to check each option, and would import shutil for the width."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=80)


def _formatter() -> type[argparse.HelpFormatter]:
    """Coloured help where a terminal is there to show it."""
    if not open_terminal().color:
        return argparse.RawDescriptionHelpFormatter
    from rich_argparse import RawDescriptionRichHelpFormatter

    class Formatter(RawDescriptionRichHelpFormatter):
        group_name_formatter = str

    return Formatter


def _parsers(argv: list[str]) -> tuple[Parser, Parser]:
    """The parser of everything, and that of the command asked for: only its options are known."""
    wants_help = any(word in ("-h", "--help") for word in argv) or not argv
    formatter = _formatter() if wants_help else _Unseen
    usage = "fourtuple COMMAND [options]"
    parser = Parser(
        "fourtuple", usage, description=_DESCRIPTION, epilog=_EPILOG, formatter_class=formatter, allow_abbrev=False
    )
    parser.set_defaults(color="auto", ascii=False)
    parser.add_argument("--version", action="version", version=f"fourtuple {__version__}")
    add_global_options(parser, top=True)
    commands = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND [options]", prog="fourtuple")
    asked = next((word for word in argv if word in COMMANDS), None)
    used = parser
    names = COMMANDS if wants_help or asked is None else {asked: COMMANDS[asked]}
    for name, what in names.items():
        command = commands.add_parser(name, help=what, description=what, formatter_class=formatter, allow_abbrev=False)
        if name == asked:
            _module(name).add_arguments(command)
            used = command
        add_global_options(command, top=False)
    return parser, used


def _module(command: str) -> Any:
    return importlib.import_module(f"fourtuple.cli.{_MODULES.get(command, command.replace('-', '_'))}")


def _check_command(argv: list[str]) -> None:
    """The first word that is no option has to be a command."""
    word = next(
        (word for i, word in enumerate(argv) if not word.startswith("-") and argv[i - 1 : i] != ["--color"]), None
    )
    if word is None or word in COMMANDS:
        return
    meant = close_to(word, list(COMMANDS))
    hint = f" Did you mean {meant!r}?" if meant else f" There are: {', '.join(COMMANDS)}."
    raise Failure(f"fourtuple: no command {word!r}.{hint}", exits.USAGE)


def _run(argv: list[str]) -> int:
    if argv == ["--version"]:
        open_terminal().write(f"fourtuple {__version__}\n")
        return exits.OK
    _check_command(argv)
    parser, used = _parsers(argv)
    args, unknown = parser.parse_known_args(argv)
    if unknown:
        used.refuse(unknown[0])
    used.refuse_empty(args)
    if args.command is None:
        parser.print_help()
        return exits.OK
    out = open_terminal(sys.stdout, args.color, args.ascii)
    err = open_terminal(sys.stderr, args.color, args.ascii)
    code: int = _module(args.command).run(args, out, err)
    return code


def _complain(failure: Failure, err: Terminal) -> int:
    message = failure.message if failure.message.startswith("fourtuple") else f"fourtuple: {failure.message}"
    lines = [[(message, "")]]
    for i, hint in enumerate(failure.hints):
        lines.append([("  try:  " if i == 0 else "        ", "dim"), (hint, "")])
    with suppress(Failure, BrokenPipeError):  # the exit code has to do
        err.print(*lines)
    return failure.code


def _report_bug(error: BaseException, argv: list[str]) -> int:
    """A mistake of ours: one line, and a file to send in."""
    import platform
    import tempfile
    import traceback

    about = f"fourtuple {__version__}, Python {platform.python_version()}, {platform.platform()}\narguments: {argv}\n\n"
    about += "".join(traceback.format_exception(error))
    print(f"fourtuple: internal error: {type(error).__name__}: {error}", file=sys.stderr)
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="fourtuple-", suffix=".txt", delete=False, encoding="utf-8", errors="backslashreplace"
        ) as file:
            file.write(about)
    except OSError:  # nowhere to write it
        print(f"  this is a bug; everything about it:\n\n{about}", file=sys.stderr)
    else:
        print(f"  this is a bug; everything about it is in {file.name}", file=sys.stderr)
    return exits.INTERNAL


def _open_closed_streams() -> None:
    """`fourtuple … >&-`: a stream that is closed from the start is as good as /dev/null."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w"))  # noqa: SIM115 (for as long as we run)


def _flushed(argv: list[str]) -> int:
    """Run it, and find out here whether the answer could be written, not when Python ends."""
    try:
        code = _run(argv)
    except SystemExit:  # --help
        _flush()
        raise
    except OSError as error:
        failure = exits.lost_wire(error)
        raise failure or error from None
    _flush()
    return code


def _flush() -> None:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        let_go(sys.stdout)
        raise exits.cannot_write("cannot write the answer", error) from None


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    _open_closed_streams()
    try:
        return _flushed(argv)
    except Failure as failure:
        return _complain(failure, open_terminal(sys.stderr))
    except KeyboardInterrupt:
        return exits.INTERRUPTED
    except BrokenPipeError:
        let_go(sys.stdout)  # whoever read our output has gone: head, less
        return exits.OK
    except Exception as error:
        return _report_bug(error, argv)


if __name__ == "__main__":
    sys.exit(main())
