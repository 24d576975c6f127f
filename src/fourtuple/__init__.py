"""The Linux connect() path in Python: watch it, run it, ask it.

The public names are here, and are imported when they are first used: `fourtuple --version` must not pay for the engine.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fourtuple.errors import ConnectError as ConnectError
    from fourtuple.host import Host as Host
    from fourtuple.machine import Machine as Machine
    from fourtuple.sock.wait import Wait as Wait
    from fourtuple.sysctl import Sysctls as Sysctls
    from fourtuple.trace import Tracer as Tracer

__version__ = "0.1.0"

_HOME = {
    "ConnectError": "fourtuple.errors",
    "Host": "fourtuple.host",
    "Machine": "fourtuple.machine",
    "Sysctls": "fourtuple.sysctl",
    "Tracer": "fourtuple.trace",
    "Wait": "fourtuple.sock.wait",
}

__all__ = [*_HOME, "__version__"]


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'fourtuple' has no attribute {name!r}")
    return getattr(import_module(home), name)
