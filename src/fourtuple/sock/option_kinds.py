"""What one socket option is: how it is set and read, and the kinds that most of them are.

Lives here: Option and its builders, and the three places where a value lives.  Does not live here: any single option
(sol_socket.py, sol_ip.py, sol_tcp.py).
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable
from dataclasses import dataclass

from fourtuple.inet.sock_options import SockOptions
from fourtuple.sock.file import Socket, Task

SOL_SOCKET, IPPROTO_IP, IPPROTO_TCP = 1, 0, 6
INT_MAX = 0x7FFFFFFF

Setter = Callable[[Task, Socket, bytes], int]
Getter = Callable[[Task, Socket, int], bytes | int]


@dataclass(frozen=True)
class Option:
    """One option: how it is set and read; None where the kernel says ENOPROTOOPT."""

    set: Setter | None = None
    get: Getter | None = None


# ---------------------------------------------------------------------------------------------- reading and storing


def int_of(value: bytes) -> int:
    """The int at the start of at least four bytes."""
    number: int = struct.unpack_from("=i", value)[0]
    return number


def pack_int(number: int) -> bytes:
    """An int or an unsigned int, four bytes."""
    return struct.pack("=I", number & 0xFFFFFFFF)


def options_of(sock: Socket) -> SockOptions:
    return sock.net.sks.option_sets[sock.net.sks.opts[sock.sk]]


def store(sock: Socket, **changes: object) -> int:
    sks = sock.net.sks
    index = sks.options.replaced(sks.opts[sock.sk], **changes)
    if index < 0:
        return -errno.ENOBUFS
    sks.opts[sock.sk] = index
    return 0


def set_flag(sock: Socket, bit: int, on: bool) -> None:
    if on:
        sock.net.sks.flags[sock.sk] |= bit
    else:
        sock.net.sks.flags[sock.sk] &= ~bit & 0xFFFFFFFF


def in_states(sock: Socket, states: int) -> bool:
    return bool(1 << sock.net.sks.sk_state[sock.sk] & states)


# ---------------------------------------------------------------------------------------------- kinds of options


def number_option(set_: Callable[[Task, Socket, int], int] | None, get: Callable[[Socket], int]) -> Option:
    """An int option from a setter and a getter of ints."""
    setter: Setter | None = None
    if set_ is not None:
        to_int = set_

        def setter(task: Task, sock: Socket, value: bytes) -> int:
            return to_int(task, sock, int_of(value))

    return Option(setter, lambda task, sock, size: pack_int(get(sock)))


def flag_option(bit: int, after: Callable[[Socket, bool], object] | None = None) -> Option:
    """A bit of the flags column; `after` runs when it was set."""

    def set_(task: Task, sock: Socket, number: int) -> int:
        set_flag(sock, bit, number != 0)
        if after is not None:
            after(sock, number != 0)
        return 0

    return number_option(set_, lambda sock: 1 if sock.net.sks.flags[sock.sk] & bit else 0)


def field_option(name: str, low: int, high: int, default: Callable[[Socket], int] = lambda sock: 0) -> Option:
    """A number in SockOptions from low..high; 0 reads as `default`."""

    def set_(task: Task, sock: Socket, number: int) -> int:
        return store(sock, **{name: number}) if low <= number <= high else -errno.EINVAL

    return number_option(set_, lambda sock: getattr(options_of(sock), name) or default(sock))


def kept(
    level: int,
    name: int,
    low: int = -INT_MAX - 1,
    high: int = INT_MAX,
    default: int = 0,
    change: Callable[[int], int] = int,
) -> Option:
    """A number that is stored and read back; `change` is applied on the way in."""

    def set_(task: Task, sock: Socket, number: int) -> int:
        if not low <= number <= high:
            return -errno.EINVAL
        sock.kept_options[level, name] = change(number)
        return 0

    return number_option(set_, lambda sock: sock.kept_options.get((level, name), default))


def kept_bool(level: int, name: int, low: int = -INT_MAX - 1, high: int = INT_MAX, default: int = 0) -> Option:
    return kept(level, name, low, high, default, lambda number: 1 if number else 0)


def read_only(get: Callable[[Socket], int]) -> Option:
    return number_option(None, get)


def refused(code: int) -> Option:
    return Option(lambda task, sock, value: -code, lambda task, sock, size: -code)
