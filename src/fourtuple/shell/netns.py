"""A private network namespace with a TUN or veth, servers and addresses of our choice, made and removed by us.

Lives here: the parent's side: starting the helper process, talking to it, ending it.
Does not live here: what happens inside the namespace (_netns_helper.py).

A helper process enters the namespace, builds everything in it and passes the descriptor of the device to us over a
socket pair (SCM_RIGHTS). Nothing gets a name in /run/netns, so nothing can be left behind: when this process ends, even
by kill -9, the helper sees it and ends, and the namespace disappears with its devices, addresses, routes and sockets.

Inside:  lo, the device (kernel_address, default route: every reply comes to us), extra addresses on lo.
A veth has its other end in one more namespace, which holds nothing else and goes with our descriptor.
"""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import socket
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

from fourtuple.phy.packet import PacketDevice
from fourtuple.phy.tun import TunDevice

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_START_TIMEOUT = 20.0
_END_TIMEOUT = 2.0
# The helper must not run fourtuple/__init__.py, which imports the whole engine: it gets the package as a bare path.
_BOOT = (
    "import sys; parent, home = int(sys.argv[1]), sys.argv[2]; package = type(sys)('fourtuple'); "
    "package.__path__ = [home]; sys.modules['fourtuple'] = package; "
    "from fourtuple.shell._netns_helper import main; main(parent)"
)


class NamespaceRefused(OSError):
    """The helper could not enter a namespace or make the device: `step` says at which step (see refusal.py)."""

    def __init__(self, code: int, message: str, step: str) -> None:
        super().__init__(code, message)
        self.step = step


@dataclass(frozen=True)
class Server:
    """A TCP server inside the namespace; its address is made local there."""

    ip: str
    port: int
    kind: str = "http"
    """`http`, `echo`, `discard`, `sink` (accepts, reads nothing, holds) or `closed` (no listener, RST)."""


class PrivateNamespace:
    """A running private namespace. Use start(); a context manager. One thread at a time.

    Commands for request():
        add_address     address, device="lo"                            -> added
        add_server      ip, port, kind="http"                           -> ip, port, kind
        sysctl          name, value=None (None: only read)              -> value
        fill            address="10.65.0.1", port=80, low=32768, high=36863, count=65536, per_socket_range=False
                        the kernel's own connect() to a remote peer that never answers, until EADDRNOTAVAIL
                                                                        -> ns, ports (lists), errno, last_ns
        stats           port                                            -> established, states, accepted, requests
        stop            ends the helper
    """

    def __init__(self, pid: int, control: socket.socket) -> None:
        self.pid = pid
        """The helper; /proc/PID/ns/net is the namespace."""
        self.device: TunDevice | PacketDevice
        """Whole IP packets. Closed by close()."""
        self.way = ""
        """How the namespace was entered: `root`, or `user` (an unprivileged user namespace)."""
        self.servers: list[Server] = []
        """What start() set up, with the real port where 0 was asked for."""
        self._control = control
        self._pending = b""
        self._fds: list[int] = []

    @classmethod
    def start(
        cls,
        tun: str = "ft0",
        kernel_address: str = "10.64.0.1/24",
        extra_addresses: list[str] | tuple[str, ...] = (),
        servers: list[Server] | tuple[Server, ...] = (),
        txqueuelen: int = 1000,
        mtu: int = 1500,
        vnet_hdr: bool = False,
        ipv6: bool = False,
        kind: str = "tun",
    ) -> PrivateNamespace:
        """Make a namespace and open its device here.

        `kind` is `tun`, or `veth` (a packet socket on a veth pair: needs no device node; IPv4 only); `tun` is the name
        of the device, whichever it is. `kernel_address` is the kernel's end; any other address of that network is ours
        to use. `txqueuelen` must exceed the packets that the kernel may have under way to us, or a TUN drops them;
        a veth has the socket's buffer. Raises NamespaceRefused where this machine does not allow it, else OSError
        with the errno of what the helper could not do.
        """
        if kind not in ("tun", "veth") or (vnet_hdr and kind != "tun"):
            raise ValueError(f"no device kind {kind!r}: tun, veth; vnet_hdr goes with tun only")
        namespace = cls(*_spawn())
        try:
            answer = namespace.request(
                "start",
                timeout=_START_TIMEOUT,
                kind=kind,
                name=tun,
                kernel_address=kernel_address,
                extra_addresses=list(extra_addresses),
                servers=[asdict(server) for server in servers],
                txqueuelen=txqueuelen,
                mtu=mtu,
                vnet_hdr=vnet_hdr,
                ipv6=ipv6,
            )
            fd = namespace._fds.pop()
            namespace.device = TunDevice(fd, tun, mtu, vnet_hdr) if kind == "tun" else PacketDevice(fd, tun, mtu)
        except BaseException:
            namespace.close()
            raise
        namespace.way = answer["way"]
        namespace.servers = [Server(**server) for server in answer["servers"]]
        return namespace

    def request(self, command: str, timeout: float = 120.0, **arguments: Any) -> dict[str, Any]:
        """Have the helper do something and wait for its answer.

        Raises OSError with the kernel's errno if it failed there, ValueError for a command or argument that makes no
        sense, BrokenPipeError if the helper is gone, TimeoutError. The last two, and Ctrl-C, end the namespace: the
        next answer would be the one to this request.
        """
        line = json.dumps({"command": command, **arguments}).encode() + b"\n"
        try:
            answer = json.loads(self._exchange(line, timeout))
        except TimeoutError:
            self._control.close()
            raise TimeoutError(
                errno.ETIMEDOUT, f"{command}: no answer from the namespace helper in {timeout} s"
            ) from None
        except OSError:
            self._control.close()
            raise BrokenPipeError(errno.EPIPE, f"{command}: the helper of the private namespace is gone") from None
        except BaseException:
            self._control.close()
            raise
        if "error" not in answer:
            result: dict[str, Any] = answer["ok"]
            return result
        error = answer["error"]
        if error["type"] == "OSError":
            if error["step"]:
                raise NamespaceRefused(error["errno"], error["message"], error["step"])
            raise OSError(error["errno"], error["message"])
        raise ValueError(f"{command}: {error['message']}")

    def _exchange(self, line: bytes, timeout: float) -> bytes:
        self._control.settimeout(timeout)
        self._control.sendall(line)
        while b"\n" not in self._pending:
            # Python makes its own descriptors close-on-exec, received ones only with this flag.
            flags = socket.MSG_CMSG_CLOEXEC
            data, ancillary, _, _ = self._control.recvmsg(1 << 18, socket.CMSG_SPACE(4 * 8), flags)
            for level, kind, payload in ancillary:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    self._fds.extend(memoryview(payload[: len(payload) // 4 * 4]).cast("i"))
            if not data:
                raise BrokenPipeError
            self._pending += data
        answer, _, self._pending = self._pending.partition(b"\n")
        return answer

    def has_ended(self, patience: float = 0.0) -> bool:
        """Whether the helper is gone, killed from outside or closed, or goes within `patience` seconds."""
        try:
            pidfd = os.pidfd_open(self.pid)
        except OSError:
            return True
        poll = select.poll()  # which has no limit of 1,024 descriptors
        poll.register(pidfd, select.POLLIN)
        try:
            return bool(poll.poll(patience * 1000))
        finally:
            os.close(pidfd)

    def close(self) -> None:
        """End the helper and close the device: the namespace is gone. Calling it again does nothing."""
        self._control.close()
        for fd in self._fds:
            os.close(fd)
        self._fds.clear()
        if hasattr(self, "device"):
            self.device.close()
        if self.pid > 0:
            _reap(self.pid)
            self.pid = 0

    def __enter__(self) -> PrivateNamespace:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _spawn() -> tuple[int, socket.socket]:
    """Start the helper with one end of a socket pair as its descriptor 0; returns its pid and our end.

    A new process, not a fork of this one: threads and an asyncio loop may be running here.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    # -I -S: no environment, no site packages; the standard library is all it needs.
    command = [sys.executable, "-I", "-S", "-c", _BOOT, str(os.getpid()), _PACKAGE]
    actions = [
        (os.POSIX_SPAWN_DUP2, theirs.fileno(), 0),
        (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0),
    ]
    try:
        # Its own process group: Ctrl-C in the terminal is for us to handle.
        pid = os.posix_spawn(sys.executable, command, os.environ, file_actions=actions, setpgroup=0)
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    return pid, ours


def _reap(pid: int) -> None:
    """Wait for the helper, which ends by itself when the control socket is closed; kill it if it is stuck."""
    give_up = time.monotonic() + _END_TIMEOUT
    try:
        while os.waitpid(pid, os.WNOHANG) == (0, 0):
            if time.monotonic() > give_up:
                os.kill(pid, signal.SIGKILL)  # still ours: a pid is not reused before it has been waited for
                os.waitpid(pid, 0)
                return
            time.sleep(0.001)
    except ChildProcessError:
        pass  # SIGCHLD is ignored here, or somebody waited for every child
