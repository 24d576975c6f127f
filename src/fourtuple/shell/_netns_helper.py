"""The helper process of a private namespace: enters it, builds it, serves in it, and ends it by ending.

Lives here: entering the namespace, the control socket and its commands.
Does not live here: the parent's side (netns.py), the servers (_netns_servers.py), measurements (_netns_measure.py).

Rules
1. The namespace has no name anywhere: this process and the descriptors it passed on are all that keeps it.
2. When the parent goes, however it goes, this process goes: it watches the control socket for end of file and the
   parent's pidfd (a forked child of the parent may still hold the other end of the socket).
3. Imports are few and direct, no fourtuple/__init__.py (netns.py sees to that): it must be up in well under 100 ms.
4. One request, one answer, each a line of JSON: {"command": NAME, ...arguments} -> {"ok": {...}} | {"error": {...}}.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import select
import socket
import sys

from fourtuple.phy import link, packet, tun, veth
from fourtuple.shell._netns_measure import Filler, count_states, raise_file_limit, read_sysctl, write_sysctl
from fourtuple.shell._netns_servers import Listener, Loop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000  # linux/sched.h
_NAMESPACE = "/proc/self/ns/net"

_libc = ctypes.CDLL(None, use_errno=True)


def _unshare(flags: int) -> int:
    """unshare(2); 0 or the errno. (os.unshare came with Python 3.12, as os.setns did.)"""
    return 0 if _libc.unshare(flags) == 0 else ctypes.get_errno()


def _refuse(code: int, call: str) -> None:
    if code:
        raise OSError(code, f"private namespace: {os.strerror(code).lower()} ({call})")


def enter_namespace(note: Callable[[str], None]) -> str:
    """Move this process to a network namespace of its own, and to a user namespace first where that takes one.

    Returns "root" or "user": which of the two ways it was. `note` hears each step before it is tried.
    """
    note("unshare")
    code = _unshare(_CLONE_NEWNET)
    if code == 0:
        return "root"
    uid, gid = os.geteuid(), os.getegid()
    if code == errno.EPERM:
        note("unshare-user")
        code = _unshare(_CLONE_NEWUSER | _CLONE_NEWNET)
    _refuse(code, "unshare")
    note("uid_map")
    for file, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        with open("/proc/self/" + file, "w") as out:
            out.write(text)
    return "user"


def set_defaults(ipv6: bool) -> None:
    """Before any device exists: what the machine set for itself would else be inherited, as forwarding is.

    IPv6 would announce itself. In a container /proc/sys may be read-only: then its defaults have to do.
    """
    settings = {f"net.ipv4.{name}": "0" for name in ("ip_forward", "conf.all.rp_filter", "conf.default.rp_filter")}
    if not ipv6 and os.path.exists("/proc/sys/net/ipv6"):
        settings |= {"net.ipv6.conf.all.disable_ipv6": "1", "net.ipv6.conf.default.disable_ipv6": "1"}
    for name, value in settings.items():
        try:
            write_sysctl(name, value)
        except OSError as error:
            if error.errno not in (errno.EROFS, errno.EACCES):
                raise


def open_tun_end(name: str, mtu: int, vnet_hdr: bool, note: Callable[[str], None]) -> int:
    """A TUN in this namespace; the descriptor of its packets."""
    note("tun-open")
    fd = tun.open_node()
    note("tun-setiff")
    tun.attach(fd, name, vnet_hdr)
    note("tun")
    link.set_mtu(name, mtu)
    return fd


def open_veth_end(name: str, mtu: int, ipv6: bool, note: Callable[[str], None]) -> int:
    """A veth in a second namespace, where this process then is; its other end stays here, with a packet socket on it.

    The first namespace has no address, so that its kernel answers nothing; the packet socket alone keeps it.
    """
    first = os.open(_NAMESPACE, os.O_RDONLY)
    note("unshare-second")
    _refuse(_unshare(_CLONE_NEWNET), "unshare")
    second = os.open(_NAMESPACE, os.O_RDONLY)
    set_defaults(ipv6)
    note("veth")
    veth.add_veth(name, name, first, mtu, packet.KERNEL_ADDRESS, packet.OUR_ADDRESS)
    veth.offloads_off(name)
    _set_namespace(first)
    link.set_up(name, arp=False)  # first: binding to an interface that is down leaves ENETDOWN on the socket
    note("packet-socket")
    fd = packet.open_packet_fd(name)
    _set_namespace(second)
    os.close(first)
    os.close(second)
    return fd


def _set_namespace(fd: int) -> None:
    _refuse(0 if _libc.setns(fd, _CLONE_NEWNET) == 0 else ctypes.get_errno(), "setns")


class Helper:
    """The namespace as its inside sees it."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._pending = b""
        self._loop = Loop()
        self._listeners: list[Listener] = []
        self._filler = Filler(self._abandoned)
        self._device_fd = -1
        self._step = ""

    def run(self) -> None:
        self._loop.add(self._control.fileno(), select.EPOLLIN, self._on_control)
        self._watch_parent()
        while True:
            self._loop.run_once()

    def _watch_parent(self) -> None:
        try:
            pidfd = os.pidfd_open(os.getppid())
        except OSError:
            return  # forbidden here: end of file on the control socket has to do
        self._loop.add(pidfd, select.EPOLLIN, _leave)

    def _abandoned(self) -> bool:
        """Whether the parent has gone, asked in the middle of a long command."""
        poll = select.poll()
        poll.register(self._control, select.POLLRDHUP)
        return bool(poll.poll(0))

    def _on_control(self, events: int) -> None:
        data = self._control.recv(65536)
        if not data:
            _leave(events)
        *lines, self._pending = (self._pending + data).split(b"\n")
        for line in lines:
            self._answer(line)

    def _answer(self, line: bytes) -> None:
        answer: dict[str, Any]
        try:
            answer = {"ok": self._execute(**json.loads(line))}
        except OSError as error:
            answer = {"error": {"type": "OSError", "errno": error.errno or errno.EIO, "message": _message(error)}}
            answer["error"]["step"] = self._step
        except Exception as error:
            answer = {"error": {"type": type(error).__name__, "errno": 0, "message": str(error)}}
        self._send(json.dumps(answer).encode() + b"\n")

    def _send(self, data: bytes) -> None:
        """The answer, and with the first one the descriptor of the device."""
        try:
            if self._device_fd >= 0:
                data = data[socket.send_fds(self._control, [data], [self._device_fd]) :]
                os.close(self._device_fd)
                self._device_fd = -1
            if data:
                self._control.sendall(data)
        except OSError:  # the parent is gone
            _leave(0)

    def _execute(self, command: str, **arguments: Any) -> dict[str, Any]:
        method = getattr(self, "do_" + command, None)
        if method is None:
            raise ValueError(f"the namespace helper knows no command {command!r}")
        result: dict[str, Any] = method(**arguments)
        return result

    def do_start(
        self, kind: str, name: str, mtu: int, vnet_hdr: bool, txqueuelen: int, kernel_address: str,
        extra_addresses: list[str], servers: list[dict[str, Any]], ipv6: bool,
    ) -> dict[str, Any]:  # fmt: skip
        """Build everything. Must be the first command, and the last thing that decides in which namespace we are."""
        way = enter_namespace(self._note)
        set_defaults(ipv6)
        if kind == "tun":
            self._device_fd = open_tun_end(name, mtu, vnet_hdr, self._note)
            link.set_txqueuelen(name, txqueuelen)
        else:
            self._device_fd = open_veth_end(name, mtu, ipv6, self._note)
        self._filler.kind = kind
        self._note("")
        link.set_up("lo")
        link.set_up(name, arp=False)
        link.add_address(name, kernel_address)
        link.add_route(name, "0.0.0.0/0")
        for address in extra_addresses:
            link.add_address("lo", address)
        raise_file_limit()
        return {"way": way, "pid": os.getpid(), "servers": [self.do_add_server(**server) for server in servers]}

    def _note(self, step: str) -> None:
        """What is tried next: an error goes with its name, so that the parent can say what stands in the way."""
        self._step = step

    def do_add_address(self, address: str, device: str = "lo") -> dict[str, Any]:
        """Make an address local. One that is there already is fine."""
        try:
            link.add_address(device, address)
        except FileExistsError:
            return {"added": False}
        return {"added": True}

    def do_add_server(self, ip: str, port: int, kind: str = "http") -> dict[str, Any]:
        """Listen at ip:port (0: the kernel chooses); the address is made local if it is not."""
        if kind not in ("http", "echo", "discard", "sink", "closed"):
            raise ValueError(f"no server kind {kind!r}: http, echo, discard, sink, closed")
        if not _is_local(ip):
            self.do_add_address(ip)
        if kind != "closed":
            listener = Listener(self._loop, ip, port, kind)
            self._listeners.append(listener)
            port = listener.port
        return {"ip": ip, "port": port, "kind": kind}

    def do_sysctl(self, name: str, value: str | None = None) -> dict[str, Any]:
        """Set, if a value is given, and return what the kernel now says."""
        if value is not None:
            write_sysctl(name, str(value))
        return {"value": read_sysctl(name)}

    def do_fill(self, **arguments: Any) -> dict[str, Any]:
        """See Filler.fill. The servers stand still meanwhile."""
        return self._filler.fill(**arguments)

    def do_stats(self, port: int) -> dict[str, Any]:
        """The sockets at a server port as the kernel counts them, and what the server itself counted."""
        states = count_states(port)
        listeners = [listener for listener in self._listeners if listener.port == port]
        return {
            "established": states.get("ESTABLISHED", 0),
            "states": states,
            "accepted": sum(listener.accepted for listener in listeners),
            "requests": sum(listener.requests for listener in listeners),
        }

    def do_stop(self) -> dict[str, Any]:
        self._send(b'{"ok": {}}\n')
        _leave(0)
        return {}


def _is_local(ip: str) -> bool:
    """Whether the address can be bound to, tried without taking a port."""
    with socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((ip, 0))
        except OSError as error:
            if error.errno != errno.EADDRNOTAVAIL:
                raise
            return False
    return True


def _message(error: OSError) -> str:
    text = error.strerror or os.strerror(error.errno or errno.EIO)
    return f"{error.filename}: {text}" if error.filename else text


def _leave(events: int) -> None:
    """End at once: every descriptor closes, and the namespace with the last one."""
    os._exit(0)


def main(parent: int) -> None:
    """Serve the control socket, which is descriptor 0, for the process `parent`."""
    if os.getppid() != parent:
        sys.exit(0)
    Helper(socket.socket(fileno=0)).run()
