"""AF_INET stream sockets: connect, bind, listen, accept, shutdown, release, names (net/ipv4/af_inet.c).

Lives here: the SS_* states of struct socket and the order in which errors are found; the two tables through which calls
go down, inet_stream_ops (socket -> here) and tcp_prot (here -> TCP).
Does not live here: descriptors and addresses as bytes from the caller (syscall.py), options (options.py), TCP (tcp/).

Rules
1. A function returns a value, -errno, or a Wait if it would sleep; it never raises for what a caller did.
2. The socket is not touched before the last check that can fail has passed.
3. In SS_CONNECTING an address is looked at only for AF_UNSPEC (ERR-12).
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable
from dataclasses import dataclass

from fourtuple.inet.connection_sock import inet_csk_get_port
from fourtuple.inet.flags import (
    BIND_ADDRESS_NO_PORT,
    BINDADDR_LOCK,
    BINDPORT_LOCK,
    FREEBIND,
    LINGER,
    SADDR_WILD,
    TRANSPARENT,
)
from fourtuple.ip.rtnetlink import RTN_BROADCAST, RTN_LOCAL, RTN_MULTICAST
from fourtuple.kernel_map import FN_INET_BIND, FN_INET_STREAM_CONNECT, FN_INET_WAIT_FOR_CONNECT
from fourtuple.sock.file import O_NONBLOCK, Socket, Task
from fourtuple.sock.stream import Buffer, inet_recvmsg, inet_sendmsg
from fourtuple.sock.wait import SIGNAL, TIMEOUT, Outcome, Wait, sock_intr_errno
from fourtuple.tcp.close import tcp_close, tcp_shutdown
from fourtuple.tcp.constants import EV_STATE
from fourtuple.tcp.info import tcp_poll, tcp_siocinq, tcp_siocoutq
from fourtuple.tcp.ipv4 import tcp_v4_connect
from fourtuple.tcp.listen import inet_csk_accept, inet_csk_listen_start
from fourtuple.tcp.net import Net, net_event
from fourtuple.tcp.recvmsg import tcp_recvmsg
from fourtuple.tcp.sendmsg import tcp_sendmsg
from fourtuple.tcp.sock import (
    RCV_SHUTDOWN,
    SS_CONNECTED,
    SS_CONNECTING,
    SS_DISCONNECTING,
    SS_UNCONNECTED,
)
from fourtuple.tcp.states import (
    TCP_CLOSE,
    TCP_LISTEN,
    TCP_SYN_SENT,
    TCPF_CLOSE,
    TCPF_CLOSING,
    TCPF_FIN_WAIT1,
    TCPF_LAST_ACK,
    TCPF_LISTEN,
    TCPF_SYN_RECV,
    TCPF_SYN_SENT,
)
from fourtuple.tcp.tcp import sock_error, tcp_disconnect, tcp_init_sock
from fourtuple.trace import trace

AF_UNSPEC, AF_INET = 0, 2
INADDR_ANY = 0
SIZEOF_SA_FAMILY = 2
SIOCINQ, SIOCOUTQ, SIOCATMARK, SIOCOUTQNSD = 0x541B, 0x5411, 0x8905, 0x894B
SIZEOF_SOCKADDR_IN = 16

_CONNECTING = TCPF_SYN_SENT | TCPF_SYN_RECV


@dataclass(frozen=True)
class Proto:
    """struct proto: what a transport offers to AF_INET.  All take (net, sk row, ...)."""

    name: str
    connect: Callable[..., int]
    """(net, sk, daddr, dport) -> 0 | -errno"""
    disconnect: Callable[..., int]
    """(net, sk) -> 0 | -errno"""
    close: Callable[..., object]
    """(net, sk, linger_s): the descriptor is gone"""
    shutdown: Callable[..., object]
    """(net, sk, how)"""
    accept: Callable[..., int]
    """(net, sk) -> child row | -errno"""
    listen_start: Callable[..., int]
    """(net, sk, backlog) -> 0 | -errno"""
    get_port: Callable[..., int]
    """(InetHashinfo, sk, port or 0) -> 0 | -EADDRINUSE"""
    sendmsg: Callable[..., int]
    recvmsg: Callable[..., bytes | int]
    poll: Callable[..., int]
    ioctl: Callable[..., int]


@dataclass(frozen=True)
class ProtoOps:
    """struct proto_ops: what a descriptor's call does to a Socket of one kind."""

    family: int
    prot: Proto
    release: Callable[..., Outcome]
    bind: Callable[..., int]
    connect: Callable[..., Outcome]
    accept: Callable[..., Outcome]
    getname: Callable[..., tuple[int, int] | int]
    poll: Callable[..., int]
    ioctl: Callable[..., int]
    listen: Callable[..., int]
    shutdown: Callable[..., int]
    sendmsg: Callable[..., Outcome]
    recvmsg: Callable[..., Outcome]


def sk_state(sock: Socket) -> int:
    """The TCP state of the socket's row."""
    return sock.net.sks.sk_state[sock.sk]


def _in_states(sock: Socket, states: int) -> bool:
    """Is sk_state one of the set (TCPF_*)?"""
    return bool(1 << sock.net.sks.sk_state[sock.sk] & states)


# ---------------------------------------------------------------------------------------------- addresses


def sockaddr_family(address: bytes) -> int:
    """sa_family of at least two bytes of sockaddr."""
    family: int = struct.unpack_from("=H", address)[0]
    return family


def sockaddr_in(address: bytes) -> tuple[int, int]:
    """(address, port) of at least 8 bytes of sockaddr_in, host order."""
    port, host = struct.unpack_from("!HI", address, 2)
    return host, port


def pack_sockaddr_in(host: int, port: int) -> bytes:
    """The 16 bytes of a sockaddr_in."""
    return struct.pack("=H", AF_INET) + struct.pack("!HI8x", port, host)


# ---------------------------------------------------------------------------------------------- connect


def inet_stream_connect(sock: Socket, address: bytes, flags: int) -> Outcome:
    """connect(2): `address` as the caller gave it, already in kernel space; `flags` of the file."""
    if sock.net.tracer is not None:
        trace(sock.net.tracer, FN_INET_STREAM_CONNECT, sock.sk, sock.state, sk_state(sock))
    if len(address) < SIZEOF_SA_FAMILY:
        return -errno.EINVAL
    if sockaddr_family(address) == AF_UNSPEC:
        return inet_disconnect(sock)
    if sock.state == SS_UNCONNECTED:
        err = _start_connect(sock, address)
        return err if err < 0 else _connect_result(sock, flags, -errno.EINPROGRESS)
    if sock.state == SS_CONNECTING:
        return _connect_result(sock, flags, -errno.EALREADY)
    return -errno.EISCONN if sock.state == SS_CONNECTED else -errno.EINVAL


def _start_connect(sock: Socket, address: bytes) -> int:
    """SS_UNCONNECTED: a listener is one too, and has to be refused."""
    if sk_state(sock) != TCP_CLOSE:
        return -errno.EISCONN
    err = tcp_v4_connect_address(sock, address)
    if err >= 0:
        sock.state = SS_CONNECTING
    return err


def tcp_v4_connect_address(sock: Socket, address: bytes) -> int:
    """The two checks with which tcp_v4_connect begins; length comes before family (ERR-09)."""
    if len(address) < SIZEOF_SOCKADDR_IN:
        return -errno.EINVAL
    if sockaddr_family(address) != AF_INET:
        return -errno.EAFNOSUPPORT
    daddr, dport = sockaddr_in(address)
    return sock.ops.prot.connect(sock.net, sock.sk, daddr, dport)


def _connect_result(sock: Socket, flags: int, err: int) -> Outcome:
    """The attempt is under way: wait for its end, or report how it ended meanwhile."""
    if not _in_states(sock, _CONNECTING):
        return _connect_ended(sock)
    timeo = sock_sndtimeo(sock, flags)
    return err if timeo == 0 else inet_wait_for_connect(sock, timeo, err)


def inet_wait_for_connect(sock: Socket, timeo: int, err: int) -> Wait:
    """Sleep until the state leaves SYN_SENT and SYN_RECV; `err` is the answer when SO_SNDTIMEO is over first."""
    net = sock.net
    if net.tracer is not None:
        trace(net.tracer, FN_INET_WAIT_FOR_CONNECT, sock.sk, timeo)
    deadline = deadline_of(net, timeo)
    disconnects = sock.disconnects

    def finish(why: str) -> int:
        if why == TIMEOUT:
            return err
        if why == SIGNAL:
            return sock_intr_errno(deadline)
        if disconnects != sock.disconnects:
            return -errno.EPIPE
        return _connect_ended(sock)

    return Wait(lambda: not _in_states(sock, _CONNECTING), finish, deadline)


def _connect_ended(sock: Socket) -> int:
    """The attempt is over: 0, or its error; then the socket is as fresh as its binding allows."""
    if sk_state(sock) != TCP_CLOSE:
        sock.state = SS_CONNECTED
        return 0
    err = sock_error(sock.net, sock.sk) or -errno.ECONNABORTED
    inet_disconnect(sock)
    return err


def inet_disconnect(sock: Socket) -> int:
    """connect() with AF_UNSPEC, and what follows a failed attempt."""
    sock.disconnects += 1
    err = sock.ops.prot.disconnect(sock.net, sock.sk)
    sock.state = SS_DISCONNECTING if err else SS_UNCONNECTED
    return err


# ---------------------------------------------------------------------------------------------- bind


def inet_bind(task: Task, sock: Socket, address: bytes) -> int:
    """bind(2): address and port checks in the kernel's order, then the port."""
    if len(address) < SIZEOF_SOCKADDR_IN:
        return -errno.EINVAL
    addr, snum = sockaddr_in(address)
    flags = sock.net.sks.flags[sock.sk]
    if sock.net.tracer is not None:
        trace(sock.net.tracer, FN_INET_BIND, sock.sk, addr, snum, 1 if flags & BIND_ADDRESS_NO_PORT else 0)
    return _inet_bind(task, sock, sockaddr_family(address), addr, snum)


def _inet_bind(task: Task, sock: Socket, family: int, addr: int, snum: int) -> int:
    net, sk = sock.net, sock.sk
    # Old programs leave the family out of the wildcard address.
    if family != AF_INET and (family != AF_UNSPEC or addr != INADDR_ANY):
        return -errno.EAFNOSUPPORT
    addr_type = net.fib.inet_addr_type(addr)
    if not inet_addr_valid_or_nonlocal(net, net.sks.flags[sk], addr, addr_type):
        return -errno.EADDRNOTAVAIL
    if snum != 0 and snum < net.sysctl.unprivileged_port_start and not task.cap_net_bind_service:
        return -errno.EACCES
    if net.sks.sk_state[sk] != TCP_CLOSE or net.sks.num[sk] != 0:
        return -errno.EINVAL
    return _bind_address_and_port(sock, addr, addr_type in (RTN_MULTICAST, RTN_BROADCAST), snum)


def inet_addr_valid_or_nonlocal(net: Net, flags: int, addr: int, addr_type: int) -> bool:
    """May this address be bound?  (include/net/inet_sock.h)"""
    if net.sysctl.ip_nonlocal_bind or flags & (FREEBIND | TRANSPARENT) or addr == INADDR_ANY:
        return True
    return addr_type in (RTN_LOCAL, RTN_MULTICAST, RTN_BROADCAST)


def _bind_address_and_port(sock: Socket, addr: int, wild: bool, snum: int) -> int:
    net, sk = sock.net, sock.sk
    sks = net.sks
    sks.saddr[sk] = addr
    if wild and addr != 0:
        sks.flags[sk] |= SADDR_WILD
    if snum != 0 or not sks.flags[sk] & BIND_ADDRESS_NO_PORT:
        err = sock.ops.prot.get_port(net.h, sk, snum)
        if err != 0:
            sks.saddr[sk] = 0
            sks.flags[sk] &= ~SADDR_WILD & 0xFFFFFFFF
            return err
    if addr != 0:
        sks.userlocks[sk] |= BINDADDR_LOCK
    if snum != 0:
        sks.userlocks[sk] |= BINDPORT_LOCK
    sks.sport[sk] = sks.num[sk]
    sks.daddr[sk] = 0
    sks.dport[sk] = 0
    return 0


# ---------------------------------------------------------------------------------------------- listen, accept


def inet_listen(sock: Socket, backlog: int) -> int:
    """listen(2): from CLOSE to LISTEN; on a listener only the backlog changes."""
    if sock.state != SS_UNCONNECTED or not _in_states(sock, TCPF_CLOSE | TCPF_LISTEN):
        return -errno.EINVAL
    return sock.ops.prot.listen_start(sock.net, sock.sk, backlog)


def inet_accept(sock: Socket, flags: int) -> Outcome:
    """accept(2): a new Socket in SS_CONNECTED, -errno, or a Wait for one."""
    child = sock.ops.prot.accept(sock.net, sock.sk)
    if child != -errno.EAGAIN:
        return child if child < 0 else _accepted(sock, child)
    timeo = sock_rcvtimeo(sock, flags)
    if timeo == 0:
        return -errno.EAGAIN
    deadline = deadline_of(sock.net, timeo)
    found: list[int] = []

    def woken() -> bool:
        found[:] = [sock.ops.prot.accept(sock.net, sock.sk)]
        return found[0] != -errno.EAGAIN

    def finish(why: str) -> Outcome:
        if why == TIMEOUT:
            return -errno.EAGAIN
        if why == SIGNAL:
            return sock_intr_errno(deadline)
        return found[0] if found[0] < 0 else _accepted(sock, found[0])

    return Wait(woken, finish, deadline)


def _accepted(listener: Socket, child: int) -> Socket:
    sock = Socket(listener.net, child, listener.ops, listener.type)
    sock.kept_options = dict(listener.kept_options)
    sock.state = SS_CONNECTED
    return sock


# ---------------------------------------------------------------------------------------------- shutdown, release


def inet_shutdown(sock: Socket, how: int) -> int:
    """shutdown(2): SHUT_RD 0, SHUT_WR 1, SHUT_RDWR 2."""
    if not 0 <= how <= 2:
        return -errno.EINVAL
    how += 1
    if sock.state == SS_CONNECTING:
        over = _in_states(sock, _CONNECTING | TCPF_CLOSE)
        sock.state = SS_DISCONNECTING if over else SS_CONNECTED
    return _shutdown_by_state(sock, how)


def _shutdown_by_state(sock: Socket, how: int) -> int:
    state = sk_state(sock)
    if state == TCP_SYN_SENT or (state == TCP_LISTEN and how & RCV_SHUTDOWN):
        err = sock.ops.prot.disconnect(sock.net, sock.sk)
        sock.state = SS_DISCONNECTING if err else SS_UNCONNECTED
        return err
    if state != TCP_LISTEN:
        # Also in TCP_CLOSE, where the call fails: pollers get their POLLHUP, and the bits stay (ST-10).
        sock.net.sks.shutdown[sock.sk] |= how
        sock.ops.prot.shutdown(sock.net, sock.sk, how)
    net_event(sock.net, sock.sk, EV_STATE)
    return -errno.ENOTCONN if state == TCP_CLOSE else 0


def inet_release(sock: Socket) -> Outcome:
    """The last descriptor is gone.  With SO_LINGER close() sleeps until all is acknowledged, or for its time."""
    net, sk = sock.net, sock.sk
    lingers = bool(net.sks.flags[sk] & LINGER)
    linger_s = net.sks.option_sets[net.sks.opts[sk]].linger_s if lingers else 0
    generation = net.sks.generation[sk]
    sock.ops.prot.close(net, sk, linger_s)
    if linger_s == 0:
        return 0

    def acknowledged() -> bool:
        if net.sks.generation[sk] != generation:
            return True
        return not 1 << net.sks.sk_state[sk] & (TCPF_FIN_WAIT1 | TCPF_CLOSING | TCPF_LAST_ACK)

    if acknowledged():
        return 0
    return Wait(acknowledged, lambda why: 0, net.now_us + linger_s * 1_000_000)


# ---------------------------------------------------------------------------------------------- names, poll, ioctl


def inet_getname(sock: Socket, peer: bool) -> tuple[int, int] | int:
    """getsockname(2), getpeername(2): (address, port) or -ENOTCONN."""
    sks, sk = sock.net.sks, sock.sk
    if not peer:
        return sks.saddr[sk], sks.sport[sk]
    if sks.dport[sk] == 0 or _in_states(sock, TCPF_CLOSE | TCPF_SYN_SENT):
        return -errno.ENOTCONN
    return sks.daddr[sk], sks.dport[sk]


def inet_poll(sock: Socket) -> int:
    """POLL* bits that are true now."""
    return sock.ops.prot.poll(sock.net, sock.sk)


def inet_ioctl(sock: Socket, request: int) -> int:
    """The number that a request of the protocol stores, or -errno."""
    return sock.ops.prot.ioctl(sock.net, sock.sk, request)


def tcp_ioctl(net: Net, sk: int, request: int) -> int:
    """SIOCINQ, SIOCOUTQ, SIOCOUTQNSD, SIOCATMARK."""
    state = net.sks.sk_state[sk]
    if request == SIOCATMARK:
        return 0  # urgent data is not kept
    if request not in (SIOCINQ, SIOCOUTQ, SIOCOUTQNSD):
        return -errno.ENOTTY
    if state == TCP_LISTEN:
        return -errno.EINVAL
    if 1 << state & _CONNECTING:
        return 0
    if request == SIOCINQ:
        return tcp_siocinq(net, sk)
    if request == SIOCOUTQNSD:
        return (net.sks.write_seq[sk] - net.sks.snd_nxt[sk]) & 0xFFFFFFFF
    return tcp_siocoutq(net, sk)


# ---------------------------------------------------------------------------------------------- timeouts


def sock_sndtimeo(sock: Socket, flags: int) -> int:
    """How long a sending call may sleep, in us: 0 with O_NONBLOCK, -1 for ever, else SO_SNDTIMEO."""
    return 0 if flags & O_NONBLOCK else sock.net.sks.option_sets[sock.net.sks.opts[sock.sk]].sndtimeo_us


def sock_rcvtimeo(sock: Socket, flags: int) -> int:
    """The same for receiving calls: SO_RCVTIMEO."""
    return 0 if flags & O_NONBLOCK else sock.net.sks.option_sets[sock.net.sks.opts[sock.sk]].rcvtimeo_us


def deadline_of(net: Net, timeo: int) -> int | None:
    """When a sleep of `timeo` us that begins now must end; None: never."""
    return None if timeo < 0 else net.now_us + timeo


# ---------------------------------------------------------------------------------------------- send, receive


def inet_send(sock: Socket, data: Buffer, flags: int) -> Outcome:
    """send(2); `flags` of the file.  No automatic bind: TCP has no_autobind."""
    return inet_sendmsg(sock, data, sock_sndtimeo(sock, flags))


def inet_recv(sock: Socket, size: int, msg_flags: int, flags: int) -> Outcome:
    """recv(2); `flags` of the file."""
    return inet_recvmsg(sock, size, msg_flags, sock_rcvtimeo(sock, flags))


# ---------------------------------------------------------------------------------------------- the tables


tcp_prot = Proto(
    name="TCP",
    connect=tcp_v4_connect,
    disconnect=tcp_disconnect,
    close=tcp_close,
    shutdown=tcp_shutdown,
    accept=inet_csk_accept,
    listen_start=inet_csk_listen_start,
    get_port=inet_csk_get_port,
    sendmsg=tcp_sendmsg,
    recvmsg=tcp_recvmsg,
    poll=tcp_poll,
    ioctl=tcp_ioctl,
)

inet_stream_ops = ProtoOps(
    family=AF_INET,
    prot=tcp_prot,
    release=inet_release,
    bind=inet_bind,
    connect=inet_stream_connect,
    accept=inet_accept,
    getname=inet_getname,
    poll=inet_poll,
    ioctl=inet_ioctl,
    listen=inet_listen,
    shutdown=inet_shutdown,
    sendmsg=inet_send,
    recvmsg=inet_recv,
)


def inet_create(task: Task, type_: int) -> Socket | int:
    """A fresh stream socket of this caller, or -ENOBUFS."""
    net = task.net
    sk = tcp_init_sock(net)
    if sk < 0:
        return sk
    if task.uid != 0:
        net.sks.opts[sk] = net.sks.options.replaced(0, uid=task.uid)
    sock = Socket(net, sk, inet_stream_ops, type_)
    sock.state = SS_UNCONNECTED
    return sock
