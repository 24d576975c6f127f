"""NAT for `tun-host`: one nftables table of our own, which cannot outlive us.

Lives here: libnftables through ctypes, the table, and a look for firewalls that forward nothing.
Does not live here: ip_forward and the device (tun_host.py).

Rules
1. The table has the flag `owner` (Linux 5.12, nft 0.9.9): nobody else can change it, and the kernel removes it when the
   netlink socket that made it closes, so also after kill -9.  The socket is this process's own: no child, no `nft -f`.
2. Nothing else of the machine's is touched.
"""

from __future__ import annotations

import ctypes
import errno
import re

_LIBRARY = "libnftables.so.1"
INSTALL = "sudo apt-get install libnftables1   (elsewhere: nftables)"
_HINTS = {
    "Operation not permitted": errno.EPERM,
    "Operation not supported": errno.EOPNOTSUPP,
    "No such file or directory": errno.EOPNOTSUPP,  # a chain type or an expression that this kernel was built without
}
_DROPS = re.compile(r"chain (\S+) \{\s*type filter hook forward [^;]*; policy drop;")


class Nft:
    """A libnftables context: one netlink socket, on which the tables with an owner hang."""

    def __init__(self) -> None:
        """OSError when the library is missing (ENOENT) or the kernel has no nftables."""
        try:
            self._lib = _declared(ctypes.CDLL(_LIBRARY, use_errno=True))
        except OSError:
            raise OSError(errno.ENOENT, f"{_LIBRARY} is missing") from None
        self._context: int | None = self._lib.nft_ctx_new(0)
        if not self._context:
            raise OSError(ctypes.get_errno() or errno.EOPNOTSUPP, "no nftables in this kernel")
        self._lib.nft_ctx_buffer_output(self._context)
        self._lib.nft_ctx_buffer_error(self._context)

    def run(self, command: str) -> str:
        """What `nft command` prints; OSError with its first line of complaint."""
        if self._lib.nft_run_cmd_from_buffer(self._context, command.encode()) == 0:
            return str(self._lib.nft_ctx_get_output_buffer(self._context).decode("utf-8", "replace"))
        text = self._lib.nft_ctx_get_error_buffer(self._context).decode("utf-8", "replace")
        line = text.partition("\n")[0].removeprefix("Error: ")
        code = next((code for words, code in _HINTS.items() if words in line), errno.EINVAL)
        raise OSError(code, f"nft: {line}")

    def close(self) -> None:
        """Close the socket: our tables are gone.  Calling it again does nothing."""
        context, self._context = self._context, None
        if context:
            self._lib.nft_ctx_free(context)


def _declared(lib: ctypes.CDLL) -> ctypes.CDLL:
    """libnftables(3)."""
    lib.nft_ctx_new.restype = ctypes.c_void_p
    lib.nft_ctx_new.argtypes = [ctypes.c_uint32]
    lib.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    for name in ("output", "error"):
        getattr(lib, f"nft_ctx_buffer_{name}").argtypes = [ctypes.c_void_p]
        getattr(lib, f"nft_ctx_get_{name}_buffer").argtypes = [ctypes.c_void_p]
        getattr(lib, f"nft_ctx_get_{name}_buffer").restype = ctypes.c_char_p
    lib.nft_ctx_free.argtypes = [ctypes.c_void_p]
    return lib


def masquerade(nft: Nft, table: str, subnet: str, device: str) -> None:
    """What comes from `subnet` leaves this machine under the machine's own address; nothing else is changed."""
    nft.run(
        f"add table ip {table} {{ flags owner; chain postrouting {{ type nat hook postrouting priority srcnat; "
        f'ip saddr {subnet} oifname != "{device}" masquerade; }}; }}'
    )


def forward_dropper(nft: Nft) -> str:
    """The name of a chain that drops what is forwarded unless a rule accepts it (docker makes one); "" for none."""
    try:
        found = _DROPS.search(nft.run("list chains"))
    except OSError:
        return ""
    return found[1] if found else ""
