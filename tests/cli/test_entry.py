"""The first lines of the command: Ctrl-C while the rest is imported, and what they import themselves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import fourtuple

SRC = Path(fourtuple.__file__).parent.parent

INTERRUPT_WHILE_IMPORTING = """
import os, signal, sys

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == "fourtuple.cli.main":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupt())
"""
RUN = "from fourtuple.cli.entry import main; sys.exit(main())"
# The command line replaced by a question: what would Ctrl-C do now?
ASK = """
import signal, sys, types
stub = types.ModuleType("fourtuple.cli.main")
stub.main = lambda: print(getattr(signal.getsignal(signal.SIGINT), "__name__", "ignored"))
sys.modules["fourtuple.cli.main"] = stub
"""
IGNORE = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"


def python(script: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *options, "-c", script], capture_output=True, text=True, env={"PYTHONPATH": str(SRC)}
    )


def test_ctrl_c_while_importing_is_quiet() -> None:
    done = python(INTERRUPT_WHILE_IMPORTING + RUN)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_the_command_line_hears_ctrl_c_itself() -> None:
    assert python(ASK + RUN).stdout == "default_int_handler\n"


def test_where_ctrl_c_is_ignored_it_stays_ignored() -> None:
    """As for a job that a shell started in the background."""
    assert python(IGNORE + ASK + RUN).stdout == "ignored\n"
    assert python(IGNORE + INTERRUPT_WHILE_IMPORTING + ASK + RUN).stdout == "ignored\n"


def test_the_first_lines_import_nothing_that_takes_time() -> None:
    script = "import sys, fourtuple.cli.entry; print(sorted({'typing', 're', 'argparse'} & set(sys.modules)))"
    assert python(script, "-S").stdout == "[]\n"


def test_the_exit_code_comes_through_and_what_was_to_be_done_at_the_end_is_done() -> None:
    stub = "import sys, types; stub = types.ModuleType('x'); stub.main = lambda: print('answer') or 11\n"
    stub += "sys.modules['fourtuple.cli.main'] = stub; import atexit; atexit.register(print, 'end', flush=True)\n"
    done = python(stub + RUN)
    assert (done.returncode, done.stdout, done.stderr) == (11, "answer\nend\n", "")


def test_the_doctor_imports_nothing_that_it_does_not_need() -> None:
    unneeded = ["shutil", "urllib.parse", "ipaddress", "json", "socket", "asyncio", "rich", "subprocess"]
    script = "import sys; from fourtuple.cli.main import main; main(['doctor', '-H', '127.0.0.1:9']); "
    done = python(script + f"print([name for name in {unneeded} if name in sys.modules])", "-S")
    assert done.stdout.splitlines()[-1] == "[]"
