"""The options at IPPROTO_IP (net/ipv4/ip_sockglue.c: do_ip_setsockopt, do_ip_getsockopt)."""

from __future__ import annotations

import errno
import struct

from fourtuple.inet import flags as fl
from fourtuple.sock.file import Socket, Task
from fourtuple.sock.option_kinds import (
    IPPROTO_IP,
    Option,
    field_option,
    flag_option,
    kept,
    kept_bool,
    number_option,
    options_of,
    pack_int,
    read_only,
    refused,
    set_flag,
    store,
)
from fourtuple.tcp.info import errqueue_pop
from fourtuple.tcp.output import sk_dst

# include/uapi/linux/in.h
IP_TOS, IP_TTL, IP_OPTIONS, IP_MTU_DISCOVER, IP_RECVERR, IP_MTU, IP_FREEBIND = 1, 2, 4, 10, 11, 14, 15
IP_TRANSPARENT, IP_MINTTL, IP_BIND_ADDRESS_NO_PORT, IP_LOCAL_PORT_RANGE, IP_PROTOCOL = 19, 21, 24, 51, 52


def _ip_tos(task: Task, sock: Socket, number: int) -> int:
    """The two ECN bits belong to TCP (SYN-04)."""
    return store(sock, tos=(number & 0xFC) | (options_of(sock).tos & 3))


def _ip_ttl(task: Task, sock: Socket, number: int) -> int:
    return store(sock, ttl=number) if number == -1 or 1 <= number <= 255 else -errno.EINVAL


def _get_ttl(sock: Socket) -> int:
    ttl = options_of(sock).ttl
    return sock.net.sysctl.ip_default_ttl if ttl < 0 else ttl


def _ip_recverr(sock: Socket, on: bool) -> None:
    """Switching it off empties the error queue."""
    while not on and errqueue_pop(sock.net, sock.sk) is not None:
        pass


def _set_transparent(task: Task, sock: Socket, number: int) -> int:
    if number != 0 and not (task.cap_net_raw or task.cap_net_admin):
        return -errno.EPERM
    set_flag(sock, fl.TRANSPARENT, number != 0)
    return 0


def _set_local_port_range(task: Task, sock: Socket, value: bytes) -> int:
    if len(value) != 4:
        return -errno.EINVAL
    low, high = struct.unpack("=I", value)[0] & 0xFFFF, struct.unpack("=I", value)[0] >> 16
    if low != 0 and high != 0 and low > high:
        return -errno.EINVAL
    return store(sock, port_low=low, port_high=high)


def _get_local_port_range(sock: Socket) -> int:
    return options_of(sock).port_low | options_of(sock).port_high << 16


def _get_mtu(task: Task, sock: Socket, size: int) -> bytes | int:
    """The path MTU of a connected socket."""
    rt = sk_dst(sock.net, sock.sk) if sock.net.sks.dst[sock.sk] else None
    return -errno.ENOTCONN if rt is None else pack_int(sock.net.sks.pmtu[sock.sk] or rt.mtu)


def _not_empty(option: Option) -> Option:
    """IP options that refuse an empty value."""
    inner = option.set
    assert inner is not None

    def set_(task: Task, sock: Socket, value: bytes) -> int:
        return inner(task, sock, value) if value else -errno.EINVAL

    return Option(set_, option.get)


IP_OPTIONS_TABLE = {
    IP_TOS: number_option(_ip_tos, lambda sock: options_of(sock).tos),
    IP_TTL: _not_empty(number_option(_ip_ttl, _get_ttl)),
    IP_OPTIONS: Option(lambda task, sock, value: 0 if not value else -errno.EINVAL, lambda task, sock, size: b""),
    IP_MTU_DISCOVER: Option(
        field_option("mtu_discover", 0, 5).set, lambda task, sock, size: pack_int(options_of(sock).mtu_discover)
    ),
    IP_RECVERR: flag_option(fl.RECVERR, _ip_recverr),
    IP_MTU: Option(None, _get_mtu),
    IP_FREEBIND: _not_empty(flag_option(fl.FREEBIND)),
    IP_TRANSPARENT: _not_empty(
        number_option(_set_transparent, lambda sock: 1 if sock.net.sks.flags[sock.sk] & fl.TRANSPARENT else 0)
    ),
    IP_MINTTL: _not_empty(field_option("min_ttl", 0, 255)),
    IP_BIND_ADDRESS_NO_PORT: flag_option(fl.BIND_ADDRESS_NO_PORT),
    IP_LOCAL_PORT_RANGE: Option(_set_local_port_range, lambda task, sock, size: pack_int(_get_local_port_range(sock))),
    IP_PROTOCOL: read_only(lambda sock: 0),
}
# Stored and read back: RECVOPTS RETOPTS PKTINFO RECVTTL RECVTOS PASSSEC ORIGDSTADDR CHECKSUM RECVERR_RFC4884
IP_OPTIONS_TABLE |= {name: kept_bool(IPPROTO_IP, name) for name in (6, 7, 8, 12, 13, 18, 20, 23)}
IP_OPTIONS_TABLE |= {26: kept(IPPROTO_IP, 26, 0, 1)}
IP_OPTIONS_TABLE |= {3: read_only(lambda sock: 0)}  # HDRINCL
# ROUTER_ALERT, RECVFRAGSIZE: for raw and datagram sockets
IP_OPTIONS_TABLE |= {name: Option(refused(errno.EINVAL).set, read_only(lambda sock: 0).get) for name in (5, 25)}
