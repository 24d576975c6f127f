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
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from typing import Any

from fourtuple.address import format_prefix, parse_prefix
from fourtuple.phy.packet import PacketDevice
from fourtuple.phy.tun import TunDevice

MOST_DEVICES = 64
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
    """Or a network, "10.64.1.0/29" (IPv4): each of its addresses, or, beyond 256, any address at all."""
    port: int
    kind: str = "http"
    """`http`, `echo`, `discard`, `sink` (accepts, reads nothing, holds), `closed` (no listener, RST), or `hold`:
    never accepts by itself, connections wait in the accept queue without a descriptor (commands drain, sample)."""
    backlog: int = 0
    """Length of the accept queue, of each address; the namespace's limits are lifted for it. 0: 4,096."""


class PrivateNamespace:
    """A running private namespace. Use start(); a context manager. One thread at a time.

    Commands for request():
        add_address     address, device="lo"                            -> added
        add_source      source (address or network), device             -> added
                        replies to these clients leave through this device; others through the first one
        add_server      ip, port, kind="http", backlog=0                -> ip, port, kind, backlog
        stop_server     port    as if killed: FIN; RST for what waits to be accepted      -> stopped
        start_server    port    listen again                                              -> started
        drain           port, per_round=256, in_flight=512, count=0  `hold`: accept and close from now on, sampled ones
                        too, with `in_flight` FINs under way at most (fewer than txqueuelen); `count` of them, 0: all
                        that come; per_round=0: stop. A client that closes first costs a page of the machine's
                        net.ipv4.tcp_mem for each FIN that nobody accepts: with many, close and drain in turn
                                                                        -> accepted, echoed, open, queued (so far)
        sample          port, n     `hold`: accept n, the oldest, keep them open and send back what each sends
                                    -> accepted, echoed, open, queued, peers: [their address, their port, our address]
        counts          -> established, established_inuse (without listeners), inuse, time_wait, queued, and of the
                        whole machine orphan, alloc, mem_pages; cheap at a million
        counters        -> the kernel's counters that are not 0, {"TcpExt.ListenOverflows": 3}
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
        """Whole IP packets. Closed by close(). The first of `devices`."""
        self.devices: list[TunDevice | PacketDevice] = []
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
        vnet_hdr: bool | None = None,
        ipv6: bool = False,
        kind: str = "tun",
        tun_count: int = 1,
        kernel_addresses: Sequence[str] = (),
        sources: Sequence[Sequence[str]] = (),
        sysctls: Mapping[str, str] | None = None,
    ) -> PrivateNamespace:
        """Make a namespace and open its device here.

        `kind` is `tun`, or `veth` (a packet socket on a veth pair: needs no device node; IPv4 only); `tun` is the name
        of the device, whichever it is. `kernel_address` is the kernel's end; any other address of that network is ours
        to use. `txqueuelen` must exceed the packets that the kernel may have under way to us, or a TUN drops them;
        a veth has the socket's buffer. A TUN has the virtio header unless told otherwise. `sysctls`: those in there.

        `tun_count` TUNs, ft0, ft1...: the kernel's end of each is in `kernel_addresses`, or every other network from
        that of `kernel_address` on (10.64.0.1/24, 10.64.2.1/24...). `sources`: for each device, the addresses and
        networks of clients behind it, besides its own network; all others are behind the first one.

        Raises NamespaceRefused where this machine does not allow it, else OSError with the errno of what the helper
        could not do.
        """
        vnet_hdr = kind == "tun" if vnet_hdr is None else vnet_hdr
        if kind not in ("tun", "veth") or (vnet_hdr and kind != "tun"):
            raise ValueError(f"no device kind {kind!r}: tun, veth; vnet_hdr goes with tun only")
        addresses = list(kernel_addresses) or _every_other_network(kernel_address, tun_count)
        if not 0 < tun_count <= (MOST_DEVICES if kind == "tun" else 1) or len(addresses) != tun_count:
            raise ValueError(f"{tun_count} devices, {len(addresses)} addresses: 1 to {MOST_DEVICES} TUNs, or 1 veth")
        names = _names(tun, tun_count)
        namespace = cls(*_spawn())
        try:
            answer = namespace.request(
                "start",
                timeout=_START_TIMEOUT,
                kind=kind,
                devices=[
                    {"name": name, "address": address, "sources": list(behind)}
                    for name, address, behind in zip_longest(names, addresses, sources, fillvalue=())
                ],
                extra_addresses=list(extra_addresses),
                servers=[asdict(server) for server in servers],
                txqueuelen=txqueuelen,
                mtu=mtu,
                vnet_hdr=vnet_hdr,
                sysctls=dict(sysctls or {}),
                ipv6=ipv6,
            )
            for name in names:
                fd = namespace._fds.pop(0)
                device = TunDevice(fd, name, mtu, vnet_hdr) if kind == "tun" else PacketDevice(fd, name, mtu)
                namespace.devices.append(device)
            namespace.device = namespace.devices[0]
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
            data, ancillary, _, _ = self._control.recvmsg(1 << 18, socket.CMSG_SPACE(4 * MOST_DEVICES), flags)
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
        for device in self.devices:
            device.close()
        if self.pid > 0:
            _reap(self.pid)
            self.pid = 0

    def __enter__(self) -> PrivateNamespace:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _names(first: str, count: int) -> list[str]:
    """With the first called ft0: ft0, ft1, ft2..."""
    stem = first.rstrip("0123456789")
    number = int(first[len(stem) :] or 0)
    return [first, *(f"{stem}{number + i}" for i in range(1, count))]


def _every_other_network(address: str, count: int) -> list[str]:
    """From 10.64.0.1/24 on: 10.64.0.1/24, 10.64.2.1/24, 10.64.4.1/24..."""
    if count == 1:
        return [address]
    number, length = parse_prefix(address)
    return [format_prefix(number + (i << 33 - length), length) for i in range(count)]


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
