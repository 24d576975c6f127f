"""Which TIME_WAITs had timestamps: a BPF iterator over the kernel's TCP table tells, without touching a socket.

sock_diag does not say, and tcp_tw_reuse goes by it (tcp_twsk_unique).  A connect() from the port would tell as well,
but takes the TIME_WAIT away: that is what reuse is.

Lives here: the program (BPF instructions), its loading, its answer.  Does not live here: what follows (doctor/).

Rules
1. Run only when asked for (--probe).  It needs CAP_BPF and CAP_PERFMON, Linux 5.9, and the kernel's BTF.
2. Nothing stays loaded: all ends with the descriptors.
3. Offsets of fields come from the kernel's own BTF, none is written here.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys
from _socket import AF_INET
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from fourtuple.live.netns import find_netns, run_in
from fourtuple.live.refusal import CannotRead

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fourtuple.live.netns import Spec

ABOUT = "reads the kernel's TIME_WAITs through a BPF iterator, loaded for that moment: no socket is touched"

_BTF = "/sys/kernel/btf/vmlinux"
_WHAT = "timestamps of TIME_WAITs"
_NR_BPF = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "ppc64le": 361, "s390x": 351}
# include/uapi/linux/bpf.h
_PROG_LOAD, _LINK_CREATE, _ITER_CREATE = 5, 28, 33
_TRACING, _TRACE_ITER = 26, 28
_SEQ_WRITE, _TO_TIME_WAIT = 127, 138
_LICENSE = b"Dual MIT/GPL\0"  # bpf_seq_write is for programs with a licence that the GPL goes with
_TIME_WAIT = 6
_AT_ONCE = 1 << 20
_RECORD = struct.Struct("=I2sHH2x4s4s16s16s4x")
_MAPPED = bytes(10) + b"\xff\xff"


class TimeWait(NamedTuple):
    """A TIME_WAIT as the kernel has it."""

    source: bytes
    """4 or 16 bytes."""
    sport: int
    destination: bytes
    dport: int
    has_timestamps: bool

    @property
    def four_tuple(self) -> tuple[bytes, int, bytes, int]:
        """The 4-tuple."""
        return self[:4]


def read_time_waits(netns: Spec = None) -> list[TimeWait]:
    """The TIME_WAITs of a network namespace.  Raises CannotRead: no BTF, no privilege, an older kernel."""
    try:
        layout = _layout()
        data = run_in(find_netns(netns), lambda: _run(layout))
    except CannotRead:
        raise
    except OSError as error:
        code = error.errno or errno.EIO
        denied = code in (errno.EPERM, errno.EACCES)
        raise CannotRead(code, _WHAT, "needs root or CAP_BPF and CAP_PERFMON" if denied else "") from None
    return [_time_wait(*record) for record in _RECORD.iter_unpack(data)]


def _time_wait(
    stamp: int, dport: bytes, sport: int, family: int, daddr: bytes, saddr: bytes, daddr6: bytes, saddr6: bytes
) -> TimeWait:
    source, destination = (saddr, daddr) if family == AF_INET else (_plain(saddr6), _plain(daddr6))
    return TimeWait(source, sport, destination, int.from_bytes(dport, "big"), stamp != 0)


def _plain(address: bytes) -> bytes:
    return address[12:] if address.startswith(_MAPPED) else address


# ------------------------------------------------------------------------------------------ the kernel's layout


class _Layout(NamedTuple):
    """The iterator's BTF id, and byte offsets in struct tcp_timewait_sock, which begins with a struct sock_common."""

    iterator: int
    offsets: dict[str, int]


_STRUCT, _UNION, _FUNC = 4, 5, 12
_WANTED = {"bpf_iter_tcp": _FUNC, "sock_common": _STRUCT, "tcp_timewait_sock": _STRUCT}
# Those of IPv6 are missing where a kernel has none.
_FIELDS = (
    "skc_state", "skc_family", "skc_num", "skc_dport", "skc_daddr", "skc_rcv_saddr", "tw_ts_recent_stamp",
)  # fmt: skip
# Bytes behind the 12 of a btf_type, by kind: fixed, and for each of its vlen members (include/uapi/linux/btf.h).
_FIXED = {1: 4, 3: 12, 14: 4, 17: 4}
_MEMBER = {4: 12, 5: 12, 6: 8, 13: 8, 15: 12, 19: 12}


@cache
def _layout() -> _Layout:
    """From the BTF of the running kernel: some 150,000 types are passed over in 40 ms.  Raises CannotRead, OSError."""
    with open(_BTF, "rb") as file:
        btf = _Btf(file.read())
    if len(btf.found) < len(_WANTED):
        raise CannotRead(errno.EOPNOTSUPP, _WHAT, "needs Linux 5.9", "this kernel has no iterator of TCP sockets")
    offsets = {**dict(btf.members("sock_common")), **dict(btf.members("tcp_timewait_sock"))}
    for field in _FIELDS:
        if field not in offsets:
            raise CannotRead(errno.EOPNOTSUPP, _WHAT, "", f"the kernel's BTF has no {field}")
    return _Layout(btf.found["bpf_iter_tcp"], offsets)


class _Btf:
    """The types of the kernel (Documentation/bpf/btf.rst): where each is, and which numbers those of _WANTED have."""

    def __init__(self, data: bytes) -> None:
        _, _, _, header, types, size, names, _ = struct.unpack_from("=HBBIIIII", data)
        self._data = data
        self._names: int = header + names
        self._places: list[int] = []
        self.found: dict[str, int] = {}
        kinds = {self._name_offset(name): (name, kind) for name, kind in _WANTED.items()}
        for number, at, offset, kind in _types(data, header + types, size):
            self._places.append(at)
            name, wanted = kinds.get(offset, ("", 0))
            if name and kind == wanted:
                self.found.setdefault(name, number)

    def _name_offset(self, name: str) -> int:
        return self._data.find(b"\0" + name.encode() + b"\0", self._names) + 1 - self._names

    def members(self, name: str) -> Iterator[tuple[str, int]]:
        """Members of a struct with their offset in bytes, those of its nameless structs and unions too."""
        return self._members(self.found[name], 0)

    def _members(self, number: int, base: int) -> Iterator[tuple[str, int]]:
        at = self._places[number - 1]
        _, info, _ = struct.unpack_from("=III", self._data, at)
        for i in range(info & 0xFFFF):
            name, kind, bits = struct.unpack_from("=III", self._data, at + 12 + 12 * i)
            offset = base + ((bits & 0xFFFFFF if info >> 31 else bits) >> 3)
            if name:
                start = self._names + name
                yield self._data[start : self._data.index(b"\0", start)].decode(), offset
            elif self._kind(kind) in (_STRUCT, _UNION):
                yield from self._members(kind, offset)

    def _kind(self, number: int) -> int:
        info: int = struct.unpack_from("=I", self._data, self._places[number - 1] + 4)[0]
        return info >> 24 & 31


def _types(data: bytes, start: int, size: int) -> Iterator[tuple[int, int, int, int]]:
    """Number, place, offset of the name, kind."""
    head = struct.Struct("=III")
    at, number = start, 1
    while at < start + size:
        name, info, _ = head.unpack_from(data, at)
        kind = info >> 24 & 31
        yield number, at, name, kind
        at += 12 + _FIXED.get(kind, 0) + _MEMBER.get(kind, 0) * (info & 0xFFFF)
        number += 1


# ------------------------------------------------------------------------------------------ the program

# Instructions of the kernel's BPF machine: opcode, registers, offset, immediate (Documentation/bpf/standardization).
_LOAD = {1: 0x71, 2: 0x69, 4: 0x61, 8: 0x79}
_STORE = {2: 0x6B, 4: 0x63, 8: 0x7B}
_MOVE, _MOVE_NUMBER, _ADD_NUMBER, _EQUAL, _NOT_EQUAL, _CALL, _EXIT = 0xBF, 0xB7, 0x07, 0x15, 0x55, 0x85, 0x95
_STACK = 10


def _op(code: int, to: int = 0, of: int = 0, offset: int = 0, number: int = 0) -> bytes:
    registers = of << 4 | to if sys.byteorder == "little" else to << 4 | of
    return struct.pack("=BBhi", code, registers, offset, number)


def _program(offsets: dict[str, int]) -> bytes:
    """For each socket: if it is a TIME_WAIT, write one _RECORD of it.  All three jumps go to the end."""
    start = _op(_MOVE, 7, 1) + _op(_LOAD[8], 6, 7, 8)  # r6 = ctx->sk_common, which is NULL once, at the end
    tail = _copies(offsets) + _op(_LOAD[8], 1, 7, 0) + _op(_LOAD[8], 1, 1, 0)  # r1 = ctx->meta->seq
    tail += _op(_MOVE, 2, _STACK) + _op(_ADD_NUMBER, 2, number=-_RECORD.size)
    tail += _op(_MOVE_NUMBER, 3, number=_RECORD.size) + _op(_CALL, number=_SEQ_WRITE)
    tail = _op(_EQUAL, 0, offset=len(tail) // 8 + 1) + _op(_MOVE, 8, 0) + tail
    tail = _op(_MOVE, 1, 6) + _op(_CALL, number=_TO_TIME_WAIT) + tail  # r0 = r8 = the tcp_timewait_sock
    tail = _op(_NOT_EQUAL, 1, offset=len(tail) // 8, number=_TIME_WAIT) + tail
    tail = _op(_LOAD[1], 1, 6, offsets["skc_state"]) + tail
    tail = _op(_EQUAL, 6, offset=len(tail) // 8) + tail
    return start + tail + _op(_MOVE_NUMBER, 0) + _op(_EXIT)


def _copies(offsets: dict[str, int]) -> bytes:
    """Fields -> the record on the stack: r6 is the sock_common, r8 the tcp_timewait_sock."""
    steps = [
        (8, offsets["tw_ts_recent_stamp"], 4, 0), (6, offsets["skc_dport"], 2, 4), (6, offsets["skc_num"], 2, 6),
        (6, offsets["skc_family"], 2, 8), (6, offsets["skc_daddr"], 4, 12), (6, offsets["skc_rcv_saddr"], 4, 16),
    ]  # fmt: skip
    code = _op(_MOVE_NUMBER, 1) + _op(_STORE[2], _STACK, 1, 10 - _RECORD.size)
    code += _op(_STORE[4], _STACK, 1, 52 - _RECORD.size)
    for name, to in (("skc_v6_daddr", 20), ("skc_v6_rcv_saddr", 36)):
        for word in range(0, 16, 4):
            if name in offsets:
                steps.append((6, offsets[name] + word, 4, to + word))
            else:
                code += _op(_STORE[4], _STACK, 1, to + word - _RECORD.size)
    for base, offset, size, to in steps:
        code += _op(_LOAD[size], 1, base, offset) + _op(_STORE[size], _STACK, 1, to - _RECORD.size)
    return code


def _bpf(command: int, attr: bytes) -> int:
    """bpf(2); the descriptor that it gives."""
    number = _NR_BPF.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(attr, len(attr))
    found = int(libc.syscall(number, command, buffer, len(attr)))
    if found < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return found


def _run(layout: _Layout) -> bytes:
    """All records; the iterator is of the namespace that the calling thread is in when it is made."""
    program, link, iterator = -1, -1, -1
    try:
        program = _load(layout)
        link = _bpf(_LINK_CREATE, struct.pack("=IIII", program, 0, _TRACE_ITER, 0) + bytes(32))
        iterator = _bpf(_ITER_CREATE, struct.pack("=II", link, 0))
        return b"".join(_parts(iterator))
    finally:
        for fd in (iterator, link, program):
            if fd >= 0:
                os.close(fd)


def _parts(iterator: int) -> Iterator[bytes]:
    """What the iterator writes; EAGAIN after a million sockets of which none was worth a record (bpf_seq_read)."""
    while True:
        try:
            part = os.read(iterator, _AT_ONCE)
        except BlockingIOError:
            continue
        if not part:
            return
        yield part


def _load(layout: _Layout) -> int:
    code = _program(layout.offsets)
    instructions = ctypes.create_string_buffer(code, len(code))
    license = ctypes.create_string_buffer(_LICENSE)
    attr = struct.pack(
        "=IIQQIIQII16sIIIIQIIQII", _TRACING, len(code) // 8, ctypes.addressof(instructions),
        ctypes.addressof(license), 0, 0, 0, 0, 0, b"time_waits", 0, _TRACE_ITER, 0, 0, 0, 0, 0, 0, 0, layout.iterator,
    )  # fmt: skip
    return _bpf(_PROG_LOAD, attr + bytes(24))
