"""connect() calls that find no port, as they happen: the only place where the kernel tells of them.

No counter of /proc/net moves on EADDRNOTAVAIL.  The tracepoint sock:inet_sock_set_state shows SYN_SENT -> CLOSE of a
socket that still has no local port; perf_event_open() listens to it.

Rules
1. Of the whole machine: a tracepoint knows no network namespace.
2. Where it may not be read (no tracefs, no CAP_PERFMON) there is nothing, not an error.
3. Nothing is left switched on: it ends with the descriptors.
"""

from __future__ import annotations

import mmap
import os
import platform
import struct
from collections import Counter
from collections.abc import Iterator
from fcntl import ioctl
from socket import AF_INET, inet_ntop
from typing import NamedTuple

_TRACEFS = ("/sys/kernel/tracing", "/sys/kernel/debug/tracing")
_EVENT = "events/sock/inet_sock_set_state"
_FILTER = b"oldstate == 2 && newstate == 7 && sport == 0 && protocol == 6\0"
_NR_PERF_EVENT_OPEN = {"x86_64": 298, "aarch64": 241, "riscv64": 241, "ppc64le": 319, "s390x": 331}
# include/uapi/linux/perf_event.h
_TYPE_TRACEPOINT, _SAMPLE_TID, _SAMPLE_RAW = 2, 1 << 1, 1 << 10
_ATTR_SIZE = 112
_FLAG_CLOEXEC = 8
_IOC_ENABLE, _IOC_SET_FILTER = 0x2400, 0x40082406
_RECORD_SAMPLE = 9
_HEAD, _TAIL = 1024, 1032
_RING_PAGES = 64


class FailedConnect(NamedTuple):
    """A process and a destination to which its connect() found no port."""

    pid: int
    command: str
    destination: str
    port: int
    calls: int


class FailedConnects:
    """Listens until it is closed.  A context manager."""

    def __init__(self, event: int, offsets: dict[str, int]) -> None:
        self._offsets = offsets
        self._fds: list[int] = []
        self._rings: list[mmap.mmap] = []
        self._counted = 0
        self.missed = 0
        """How many of the last take()'s calls nothing more is known about: there was no room for them."""
        try:
            for cpu in range(os.cpu_count() or 1):
                self._listen(event, cpu)
        except OSError:
            self.close()
            raise

    def __enter__(self) -> FailedConnects:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening."""
        for ring in self._rings:
            ring.close()
        for fd in self._fds:
            os.close(fd)
        self._rings, self._fds = [], []

    def _listen(self, event: int, cpu: int) -> None:
        fd = _perf_event_open(event, cpu)
        self._fds.append(fd)
        ioctl(fd, _IOC_SET_FILTER, _FILTER)
        self._rings.append(mmap.mmap(fd, (1 + _RING_PAGES) * mmap.PAGESIZE))
        ioctl(fd, _IOC_ENABLE, 0)

    def take(self) -> list[FailedConnect]:
        """Those since the last time, most frequent first."""
        records = (record for ring in self._rings for record in _records(ring))
        counts = Counter(self._read(body) for kind, body in records if kind == _RECORD_SAMPLE)
        counted = sum(struct.unpack("=Q", os.read(fd, 8))[0] for fd in self._fds)
        self.missed = max(0, counted - self._counted - counts.total())
        self._counted = counted
        return [FailedConnect(pid, _command(pid), to, port, n) for (pid, to, port), n in counts.most_common()]

    def _read(self, body: bytes) -> tuple[int, str, int]:
        """Process, destination, port of a record: u32 pid, tid; u32 size, the event's fields."""
        (pid,) = struct.unpack_from("=I", body)
        raw, at = body[12:], self._offsets
        family, port = (struct.unpack_from("=H", raw, at[name])[0] for name in ("family", "dport"))
        name, size = ("daddr", 4) if family == AF_INET else ("daddr_v6", 16)
        return pid, inet_ntop(family, raw[at[name] : at[name] + size]), port


def listen() -> FailedConnects | None:
    """None where the tracepoint may not be read."""
    for root in _TRACEFS:
        try:
            with open(f"{root}/{_EVENT}/id") as file:
                event = int(file.read())
            with open(f"{root}/{_EVENT}/format") as file:
                offsets = _offsets(file.read())
            return FailedConnects(event, offsets)
        except (OSError, ValueError, KeyError):
            continue
    return None


def _offsets(text: str) -> dict[str, int]:
    """Field -> offset, of lines as `field:__u16 sport;	offset:24;	size:2;	signed:0;`."""
    found = {}
    for line in text.splitlines():
        if line.strip().startswith("field:"):
            declaration, offset, *_ = line.split(";")
            found[declaration.split()[-1].partition("[")[0]] = int(offset.partition(":")[2])
    return {name: found[name] for name in ("family", "dport", "daddr", "daddr_v6")}


def _perf_event_open(event: int, cpu: int) -> int:
    import ctypes

    attributes = struct.pack("=IIQQQ", _TYPE_TRACEPOINT, _ATTR_SIZE, event, 1, _SAMPLE_TID | _SAMPLE_RAW) + struct.pack(
        "=QQ", 0, 1
    )  # read_format; disabled
    number = _NR_PERF_EVENT_OPEN.get(platform.machine())
    if number is None:
        raise OSError(0, "perf_event_open: an unknown machine")
    libc = ctypes.CDLL(None, use_errno=True)
    fd: int = libc.syscall(number, attributes.ljust(_ATTR_SIZE, b"\0"), -1, cpu, -1, _FLAG_CLOEXEC)
    if fd < 0:
        raise OSError(ctypes.get_errno(), "perf_event_open")
    return fd


def _records(ring: mmap.mmap) -> Iterator[tuple[int, bytes]]:
    """Type and body of each record, which is then gone."""
    (head,), (tail,) = struct.unpack_from("=Q", ring, _HEAD), struct.unpack_from("=Q", ring, _TAIL)
    data, size = ring[mmap.PAGESIZE :], _RING_PAGES * mmap.PAGESIZE
    while tail < head:
        kind, _, length = struct.unpack("=IHH", _wrapped(data, tail % size, 8))
        if length < 8:
            break
        yield kind, _wrapped(data, tail % size, length)[8:]
        tail += length
    struct.pack_into("=Q", ring, _TAIL, head)


def _wrapped(data: bytes, at: int, length: int) -> bytes:
    """Bytes of a ring."""
    return data[at : at + length] + data[: max(0, at + length - len(data))]


def _command(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm") as file:
            return file.read().strip()
    except OSError:
        return "ended"
