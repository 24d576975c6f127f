"""The options at SOL_SOCKET (net/core/sock.c: sk_setsockopt, sk_getsockopt)."""

from __future__ import annotations

import errno
import struct

from fourtuple.inet import flags as fl
from fourtuple.inet.flags import RCVBUF_LOCK, SNDBUF_LOCK
from fourtuple.inet.hashtables import set_bound_dev
from fourtuple.inet.sock_table import sk_handle
from fourtuple.sock.file import Socket, Task
from fourtuple.sock.option_kinds import (
    INT_MAX,
    SOL_SOCKET,
    Option,
    flag_option,
    in_states,
    kept,
    kept_bool,
    number_option,
    options_of,
    read_only,
    refused,
    set_flag,
    store,
)
from fourtuple.tcp.info import tcp_siocinq, tcp_siocoutq
from fourtuple.tcp.input_synsent import keepalive_time_when
from fourtuple.tcp.net import inet_csk_delete_keepalive_timer, tcp_reset_keepalive_timer
from fourtuple.tcp.states import TCPF_CLOSE, TCPF_LISTEN
from fourtuple.tcp.tcp import sock_error

# include/uapi/asm-generic/socket.h
SO_DEBUG, SO_REUSEADDR, SO_TYPE, SO_ERROR, SO_DONTROUTE, SO_BROADCAST, SO_SNDBUF, SO_RCVBUF = range(1, 9)
SO_KEEPALIVE, SO_OOBINLINE, SO_NO_CHECK, SO_PRIORITY, SO_LINGER = range(9, 14)
SO_REUSEPORT, SO_PASSCRED, SO_PEERCRED, SO_RCVLOWAT, SO_SNDLOWAT, SO_RCVTIMEO, SO_SNDTIMEO = range(15, 22)
SO_BINDTODEVICE, SO_PEERNAME, SO_TIMESTAMP, SO_ACCEPTCONN = 25, 28, 29, 30
SO_SNDBUFFORCE, SO_RCVBUFFORCE, SO_MARK, SO_PROTOCOL, SO_DOMAIN, SO_INCOMING_CPU = 32, 33, 36, 38, 39, 49
SO_MEMINFO, SO_COOKIE, SO_BINDTOIFINDEX, SO_RCVTIMEO_NEW, SO_SNDTIMEO_NEW, SO_TXREHASH = 55, 57, 62, 66, 67, 74
# include/net/sock.h
SOCK_MIN_RCVBUF = 2304
SOCK_MIN_SNDBUF = 4608
IFNAMSIZ = 16
# Ours: an interface index is kept in 16 bits.
IFINDEX_MAX = 0xFFFF


def _so_debug(task: Task, sock: Socket, number: int) -> int:
    if number != 0 and not task.cap_net_admin:
        return -errno.EACCES
    sock.kept_options[SOL_SOCKET, SO_DEBUG] = 1 if number else 0
    return 0


def _so_error(sock: Socket) -> int:
    """sk_err, or else the soft error; reading clears it (net/core/sock.c: sk_getsockopt)."""
    err = -sock_error(sock.net, sock.sk)
    if err == 0:
        err = sock.net.sks.err_soft[sock.sk]
        sock.net.sks.err_soft[sock.sk] = 0
    return err


def _set_rcvbuf(sock: Socket, number: int) -> int:
    sock.net.sks.userlocks[sock.sk] |= RCVBUF_LOCK
    size = max(min(number, INT_MAX // 2) * 2, SOCK_MIN_RCVBUF)
    sock.net.sks.rcvbuf[sock.sk] = size
    return store(sock, rcvbuf=size)


def _set_sndbuf(sock: Socket, number: int) -> int:
    sock.net.sks.userlocks[sock.sk] |= SNDBUF_LOCK
    size = max(min(number, INT_MAX // 2) * 2, SOCK_MIN_SNDBUF)
    sock.net.sks.sndbuf[sock.sk] = size
    return store(sock, sndbuf=size)


def _so_rcvbuf(task: Task, sock: Socket, number: int) -> int:
    # Compared as unsigned: a negative size asks for the maximum.
    return _set_rcvbuf(sock, min(number & 0xFFFFFFFF, task.net.sysctl.rmem_max))


def _so_sndbuf(task: Task, sock: Socket, number: int) -> int:
    return _set_sndbuf(sock, min(number & 0xFFFFFFFF, task.net.sysctl.wmem_max))


def _so_rcvbufforce(task: Task, sock: Socket, number: int) -> int:
    return _set_rcvbuf(sock, max(number, 0)) if task.cap_net_admin else -errno.EPERM


def _so_sndbufforce(task: Task, sock: Socket, number: int) -> int:
    return _set_sndbuf(sock, max(number, 0)) if task.cap_net_admin else -errno.EPERM


def _rcvbuf(sock: Socket) -> int:
    return sock.net.sks.rcvbuf[sock.sk] or options_of(sock).rcvbuf or sock.net.sysctl.tcp_rmem_default


def _sndbuf(sock: Socket) -> int:
    return sock.net.sks.sndbuf[sock.sk] or options_of(sock).sndbuf or sock.net.sysctl.tcp_wmem_default


def _so_keepalive(task: Task, sock: Socket, number: int) -> int:
    """The timer begins with the option, or with the connection (tcp_set_keepalive)."""
    net, sk = sock.net, sock.sk
    was_on = net.sks.flags[sk] & fl.KEEPOPEN
    set_flag(sock, fl.KEEPOPEN, number != 0)
    if in_states(sock, TCPF_CLOSE | TCPF_LISTEN):
        return 0
    if number != 0 and not was_on:
        tcp_reset_keepalive_timer(net, sk, keepalive_time_when(net, sk))
    elif number == 0:
        inet_csk_delete_keepalive_timer(net, sk)
    return 0


def _so_priority(task: Task, sock: Socket, number: int) -> int:
    if not 0 <= number <= 6 and not (task.cap_net_raw or task.cap_net_admin):
        return -errno.EPERM
    sock.kept_options[SOL_SOCKET, SO_PRIORITY] = number
    return 0


def _set_linger(task: Task, sock: Socket, value: bytes) -> int:
    if len(value) < 8:
        return -errno.EINVAL
    on, seconds = struct.unpack_from("=ii", value)
    set_flag(sock, fl.LINGER, on != 0)
    # The time of an earlier call stays when lingering is switched off.
    return store(sock, linger_s=seconds if seconds >= 0 else INT_MAX) if on else 0


def _get_linger(task: Task, sock: Socket, size: int) -> bytes:
    on = 1 if sock.net.sks.flags[sock.sk] & fl.LINGER else 0
    return struct.pack("=ii", on, options_of(sock).linger_s)


def _so_rcvlowat(task: Task, sock: Socket, number: int) -> int:
    sysctl = sock.net.sysctl
    locked = sock.net.sks.userlocks[sock.sk] & RCVBUF_LOCK
    most = (_rcvbuf(sock) if locked else sysctl.tcp_rmem_max) >> 1
    return store(sock, rcvlowat=min(INT_MAX if number < 0 else number or 1, most))


def sock_set_timeout(value: bytes, hz: int) -> int:
    """A struct timeval as us, rounded up to the tick: -1 for ever (0, 0), 0 for a negative one, -EDOM."""
    seconds, micros = struct.unpack_from("=qq", value)
    if not 0 <= micros < 1_000_000:
        return -errno.EDOM
    if seconds < 0:
        return 0
    tick = 1_000_000 // hz
    total: int = seconds * 1_000_000 + -(-micros // tick) * tick
    return total if 0 < total < 1 << 62 else -1


def _timeo(name: str) -> Option:
    def set_(task: Task, sock: Socket, value: bytes) -> int:
        if len(value) < 16:
            return -errno.EINVAL
        time_us = sock_set_timeout(value, task.net.sysctl.profile.hz)
        return time_us if time_us < -1 else store(sock, **{name: time_us})

    def get(task: Task, sock: Socket, size: int) -> bytes:
        time_us: int = max(getattr(options_of(sock), name), 0)
        return struct.pack("=qq", time_us // 1_000_000, time_us % 1_000_000)

    return Option(set_, get)


def _bind_to_ifindex(task: Task, sock: Socket, ifindex: int) -> int:
    if sock.net.sks.bound_dev[sock.sk] != 0 and not task.cap_net_raw:
        return -errno.EPERM
    if ifindex < 0:
        return -errno.EINVAL
    if ifindex > IFINDEX_MAX:
        return -errno.ENODEV
    set_bound_dev(sock.net.h, sock.sk, ifindex)
    return 0


def _set_bindtodevice(task: Task, sock: Socket, value: bytes) -> int:
    name = value[: IFNAMSIZ - 1].split(b"\0")[0].decode("ascii", "replace")
    if not name:
        return _bind_to_ifindex(task, sock, 0)
    for device in sock.net.fib.devices.values():
        if device.name == name:
            return _bind_to_ifindex(task, sock, device.ifindex)
    return -errno.ENODEV


def _get_bindtodevice(task: Task, sock: Socket, size: int) -> bytes | int:
    ifindex = sock.net.sks.bound_dev[sock.sk]
    if ifindex == 0:
        return b""
    if size < IFNAMSIZ:
        return -errno.EINVAL
    device = sock.net.fib.devices.get(ifindex)
    return -errno.ENODEV if device is None else device.name.encode() + b"\0"


def _so_mark(task: Task, sock: Socket, number: int) -> int:
    if not (task.cap_net_raw or task.cap_net_admin):
        return -errno.EPERM
    return store(sock, mark=number & 0xFFFFFFFF)


def _get_meminfo(task: Task, sock: Socket, size: int) -> bytes:
    """sk_get_meminfo: rmem, rcvbuf, wmem, sndbuf, forward, queued for sending, optmem, backlog, drops."""
    unread = max(tcp_siocinq(sock.net, sock.sk), 0)
    queued = max(tcp_siocoutq(sock.net, sock.sk), 0)
    return struct.pack("=9I", unread, _rcvbuf(sock), 0, _sndbuf(sock), 0, queued, 0, 0, 0)


def _get_cookie(task: Task, sock: Socket, size: int) -> bytes | int:
    return struct.pack("=Q", sk_handle(sock.net.sks, sock.sk)) if size >= 8 else -errno.EINVAL


def _get_peername(task: Task, sock: Socket, size: int) -> bytes | int:
    name = sock.ops.getname(sock, True)
    if isinstance(name, int):
        return name
    return struct.pack("=H", 2) + struct.pack("!HI8x", name[1], name[0]) if size <= 16 else -errno.EINVAL


SOCKET_OPTIONS = {
    SO_DEBUG: number_option(_so_debug, lambda sock: sock.kept_options.get((SOL_SOCKET, SO_DEBUG), 0)),
    SO_REUSEADDR: flag_option(fl.REUSE),
    SO_TYPE: read_only(lambda sock: sock.type),
    SO_ERROR: read_only(_so_error),
    SO_SNDBUF: number_option(_so_sndbuf, _sndbuf),
    SO_RCVBUF: number_option(_so_rcvbuf, _rcvbuf),
    SO_KEEPALIVE: number_option(_so_keepalive, lambda sock: 1 if sock.net.sks.flags[sock.sk] & fl.KEEPOPEN else 0),
    SO_PRIORITY: number_option(_so_priority, lambda sock: sock.kept_options.get((SOL_SOCKET, SO_PRIORITY), 0)),
    SO_LINGER: Option(_set_linger, _get_linger),
    SO_REUSEPORT: flag_option(fl.REUSEPORT),
    SO_PASSCRED: refused(errno.EOPNOTSUPP),
    SO_PEERCRED: Option(None, lambda task, sock, size: struct.pack("=iii", 0, -1, -1)),
    SO_RCVLOWAT: number_option(_so_rcvlowat, lambda sock: options_of(sock).rcvlowat),
    SO_SNDLOWAT: read_only(lambda sock: 1),
    SO_RCVTIMEO: _timeo("rcvtimeo_us"),
    SO_SNDTIMEO: _timeo("sndtimeo_us"),
    SO_RCVTIMEO_NEW: _timeo("rcvtimeo_us"),
    SO_SNDTIMEO_NEW: _timeo("sndtimeo_us"),
    SO_BINDTODEVICE: Option(_set_bindtodevice, _get_bindtodevice),
    SO_PEERNAME: Option(None, _get_peername),
    SO_ACCEPTCONN: read_only(lambda sock: 1 if in_states(sock, TCPF_LISTEN) else 0),
    SO_SNDBUFFORCE: Option(number_option(_so_sndbufforce, _sndbuf).set, None),
    SO_RCVBUFFORCE: Option(number_option(_so_rcvbufforce, _rcvbuf).set, None),
    SO_MARK: number_option(_so_mark, lambda sock: options_of(sock).mark),
    SO_PROTOCOL: read_only(lambda sock: 6),
    SO_DOMAIN: read_only(lambda sock: 2),
    SO_INCOMING_CPU: kept(SOL_SOCKET, SO_INCOMING_CPU, default=-1),
    SO_MEMINFO: Option(None, _get_meminfo),
    SO_COOKIE: Option(None, _get_cookie),
    SO_BINDTOIFINDEX: number_option(_bind_to_ifindex, lambda sock: sock.net.sks.bound_dev[sock.sk]),
    SO_TXREHASH: kept(SOL_SOCKET, SO_TXREHASH, -1, 1, 1, lambda number: 1 if number < 0 else number),
}
# Stored and read back: also TIMESTAMP, TIMESTAMPNS, RXQ_OVFL, WIFI_STATUS, NOFCS, LOCK_FILTER, SELECT_ERR_QUEUE, ...
SOCKET_OPTIONS |= {
    name: kept_bool(SOL_SOCKET, name) for name in (SO_DONTROUTE, SO_BROADCAST, SO_OOBINLINE, SO_NO_CHECK, 29, 35, 40)
}
SOCKET_OPTIONS |= {name: kept_bool(SOL_SOCKET, name) for name in (41, 43, 44, 45, 63, 64, 69, 75, 82)}
SOCKET_OPTIONS |= {14: kept(SOL_SOCKET, 14, change=lambda number: 0)}  # BSDCOMPAT, which does nothing
SOCKET_OPTIONS |= {42: kept(SOL_SOCKET, 42, default=-1), 46: kept(SOL_SOCKET, 46, 0)}  # PEEK_OFF, BUSY_POLL
SOCKET_OPTIONS |= {60: kept_bool(SOL_SOCKET, 60, 0, 1), 72: kept(SOL_SOCKET, 72, 0, 3)}  # ZEROCOPY, BUF_LOCK
