"""The helper process of a private namespace: enters it, builds it, serves in it, and ends it by ending.

Lives here: entering the namespace, the control socket and its commands.
Does not live here: the parent's side (netns.py), the servers (_netns_servers.py, _netns_hold.py), measurements
(_netns_measure.py).

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
from fourtuple.shell._netns_hold import HoldListener, Pace, Site, network_of
from fourtuple.shell._netns_measure import (
    Filler,
    count_sockets,
    count_states,
    raise_file_limit,
    read_counters,
    read_sysctl,
    write_sysctl,
)
from fourtuple.shell._netns_servers import Loop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000  # linux/sched.h
_NAMESPACE = "/proc/self/ns/net"
_KINDS = ("http", "echo", "discard", "sink", "hold", "closed")

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
        self._sites: list[Site] = []
        self._filler = Filler(self._abandoned)
        self._device_fds: list[int] = []
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
        """The answer, and with the first one the descriptors of the devices."""
        try:
            if self._device_fds:
                data = data[socket.send_fds(self._control, [data], self._device_fds) :]
                while self._device_fds:
                    os.close(self._device_fds.pop())
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
        self, kind: str, devices: list[dict[str, Any]], mtu: int, vnet_hdr: bool, txqueuelen: int,
        extra_addresses: list[str], servers: list[dict[str, Any]], sysctls: dict[str, str], ipv6: bool,
    ) -> dict[str, Any]:  # fmt: skip
        """Build everything. Must be the first command, and the last thing that decides in which namespace we are."""
        way = enter_namespace(self._note)
        set_defaults(ipv6)
        for device in devices:
            name = device["name"]
            if kind == "tun":
                self._device_fds.append(open_tun_end(name, mtu, vnet_hdr, self._note))
            else:
                self._device_fds.append(open_veth_end(name, mtu, ipv6, self._note))
        self._filler.kind = kind
        self._note("")
        for name, value in sysctls.items():
            write_sysctl(name, str(value))
        link.set_up("lo")
        for device in devices:
            self._configure(kind, txqueuelen, **device)
        link.add_route(devices[0]["name"], "0.0.0.0/0")
        for address in extra_addresses:
            link.add_address("lo", address)
        raise_file_limit()
        return {"way": way, "pid": os.getpid(), "servers": [self.do_add_server(**server) for server in servers]}

    def _configure(self, kind: str, txqueuelen: int, name: str, address: str, sources: list[str]) -> None:
        if kind == "tun":
            link.set_txqueuelen(name, txqueuelen)
        link.set_up(name, arp=False)
        link.add_address(name, address)
        for source in sources:
            self.do_add_source(source, name)

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

    def do_add_source(self, source: str, device: str) -> dict[str, Any]:
        """Replies to an address or a network of clients leave through this device. One that is there is fine."""
        try:
            link.add_route(device, source)
        except FileExistsError:
            return {"added": False}
        return {"added": True}

    def do_add_server(self, ip: str, port: int, kind: str = "http", backlog: int = 0) -> dict[str, Any]:
        """Listen at ip:port (0: the kernel chooses); the address or network is made local if it is not."""
        if kind not in _KINDS:
            raise ValueError(f"no server kind {kind!r}: {', '.join(_KINDS)}")
        _make_local(ip)
        if kind != "closed":
            _allow_backlog(backlog)
            site = Site(self._loop, ip, port, kind, backlog)
            self._sites.append(site)
            port = site.port
        return {"ip": ip, "port": port, "kind": kind, "backlog": backlog}

    def do_stop_server(self, port: int) -> dict[str, Any]:
        """As if the server was killed: its connections get FIN, those in the accept queue RST."""
        sites = self._at(port)
        for site in sites:
            site.stop()
        return {"stopped": len(sites)}

    def do_start_server(self, port: int) -> dict[str, Any]:
        """Listen again where stop_server ended it. A server that listens goes on."""
        sites = self._at(port)
        for site in sites:
            site.start()
        return {"started": len(sites)}

    def do_drain(self, port: int, per_round: int = 256, in_flight: int = 512, count: int = 0) -> dict[str, Any]:
        """Accept and close what waits at a `hold` server and what comes, until told 0; progress so far."""
        holders = self._holders(port)
        pace = Pace(in_flight, count, self._count_closing)
        for holder in holders:
            holder.drain(min(per_round, max(1, per_round // len(holders))), pace)
        return _progress(holders)

    def _count_closing(self) -> int:
        """Connections whose FIN is on its way: neither listening nor ESTABLISHED, CLOSE_WAIT, TIME_WAIT."""
        counts = count_sockets()
        return counts["inuse"] - counts["established"] - sum(len(site.listeners) for site in self._sites)

    def do_sample(self, port: int, n: int) -> dict[str, Any]:
        """Accept up to n connections, the oldest of each queue; each byte that they send comes back."""
        holders = self._holders(port)
        peers: list[tuple[str, int, str]] = []
        shares = [-(-n // len(holders))] * len(holders) + [n] * len(holders)  # then whatever the others lack
        for holder, share in zip(holders * 2, shares, strict=True):
            peers += holder.sample(min(share, n - len(peers)))
        return {**_progress(holders), "peers": peers}

    def do_counts(self) -> dict[str, Any]:
        """How many TCP sockets there are and what waits in accept queues, cheap at any number."""
        listeners = [listener for site in self._sites for listener in site.listeners]
        counts = count_sockets()
        counts["established_inuse"] = counts["inuse"] - len(listeners)
        counts["queued"] = sum(one.queued() for one in listeners if isinstance(one, HoldListener))
        return counts

    def do_counters(self) -> dict[str, Any]:
        """The kernel's counters that are not 0: "TcpExt.ListenOverflows"."""
        return read_counters()

    def _at(self, port: int) -> list[Site]:
        found = [site for site in self._sites if site.port == port]
        if not found:
            raise ValueError(f"no server has port {port}")
        return found

    def _holders(self, port: int) -> list[HoldListener]:
        found = [holder for site in self._at(port) for holder in site.holders()]
        if not found:
            raise ValueError(f"the server at port {port} is stopped")
        return found

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
        listeners = [listener for site in self._sites if site.port == port for listener in site.listeners]
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


def _progress(holders: list[HoldListener]) -> dict[str, Any]:
    return {
        "accepted": sum(holder.accepted for holder in holders),
        "echoed": sum(holder.echoed for holder in holders),
        "open": sum(len(holder.connections) for holder in holders),
        "queued": sum(holder.queued() for holder in holders),
    }


def _make_local(ip: str) -> None:
    if "/" in ip:
        network_of(ip)
        try:
            link.add_local_route(ip)
        except FileExistsError:
            pass
    elif not _is_local(ip):
        link.add_address("lo", ip)


def _allow_backlog(backlog: int) -> None:
    """Lift what would cut an accept queue short (socket.c:__sys_listen), and the number of handshakes under way."""
    for name in ("net.core.somaxconn", "net.ipv4.tcp_max_syn_backlog"):
        if backlog > int(read_sysctl(name)):
            write_sysctl(name, str(backlog))


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
    """End at once: every descriptor closes, and the namespace with the last one.

    A connection whose FIN nobody will acknowledge keeps the namespace for as long as the kernel repeats that FIN, by
    default 8 times, for minutes (timer.c:tcp_orphan_retries).
    """
    try:
        write_sysctl("net.ipv4.tcp_orphan_retries", "1")
    except OSError:
        pass
    os._exit(0)


def main(parent: int) -> None:
    """Serve the control socket, which is descriptor 0, for the process `parent`."""
    if os.getppid() != parent:
        sys.exit(0)
    Helper(socket.socket(fileno=0)).run()
