"""The Linux connect() path in Python: watch it, run it, ask it.

The public names are here, and are imported when they are first used: `fourtuple --version` must not pay for the engine.
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False  # typing is not imported: it would take most of the time until Ctrl-C is heard (cli/entry.py)
if TYPE_CHECKING:
    from typing import Any

    from fourtuple.dial.plan import DialPlan as DialPlan
    from fourtuple.dial.plan import Target as Target
    from fourtuple.dial.report import DialReport as DialReport
    from fourtuple.dial.stack import Stack as Stack
    from fourtuple.doctor.explain_errors import explain_errors as explain_errors
    from fourtuple.errors import ConnectError as ConnectError
    from fourtuple.host import Host as Host
    from fourtuple.machine import Machine as Machine
    from fourtuple.sock.wait import Wait as Wait
    from fourtuple.sysctl import Sysctls as Sysctls
    from fourtuple.trace import Tracer as Tracer

__version__ = "0.1.0"

_HOME = {
    "ConnectError": "fourtuple.errors",
    "DialPlan": "fourtuple.dial.plan",
    "DialReport": "fourtuple.dial.report",
    "Host": "fourtuple.host",
    "Machine": "fourtuple.machine",
    "Stack": "fourtuple.dial.stack",
    "Sysctls": "fourtuple.sysctl",
    "Target": "fourtuple.dial.plan",
    "Tracer": "fourtuple.trace",
    "Wait": "fourtuple.sock.wait",
    "explain_errors": "fourtuple.doctor.explain_errors",
}

__all__ = [*_HOME, "__version__"]


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'fourtuple' has no attribute {name!r}")
    return getattr(import_module(home), name)
