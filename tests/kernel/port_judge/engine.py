"""Our engine as the other side: the calls of a history on a Host, with chance in the judge's hand.

What the kernel draws at random is hidden; here every draw can be forced: the start of a search through table_perturb,
the step after it and the start of bind(addr, 0) through the state of BootSecrets.  Everything else goes the engine's
own way, from the system call to the tables.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator
from typing import Any

from fourtuple.address import parse_ipv4
from fourtuple.host import Host
from fourtuple.inet.hashinfo import InetHashinfo, inet_sk_get_local_port_range, refresh_sysctls
from fourtuple.inet.hashtables import (
    _inet_hash_connect,
    inet_put_port,
    inet_sk_port_offset,
    inet_unhash,
    search_port,
    set_search_range,
)
from fourtuple.inet.portset import SHUT, portset_add, portset_discard
from fourtuple.inet.secrets import BootSecrets, get_random_u32_below
from fourtuple.inet.sock_table import SockTable, sk_alloc, sk_free_inet
from fourtuple.inet.tuple_index import index_insert
from fourtuple.machine import Machine
from fourtuple.sock.af_inet import pack_sockaddr_in
from fourtuple.sysctl import Sysctls
from tests.kernel.port_judge.peer import FIN, Key, Peer
from tests.kernel.port_judge.world import DESTINATIONS, DEVICES, PERIOD_US, History, Options

SOL_SOCKET, IPPROTO_IP = 1, 0
SO_REUSEADDR, SO_LINGER, SO_REUSEPORT, SO_BINDTODEVICE = 2, 13, 15, 25
IP_BIND_ADDRESS_NO_PORT, IP_LOCAL_PORT_RANGE = 24, 51
SOCK_STREAM, SOCK_NONBLOCK, SHUT_WR = 1, 0o4000, 1
M32 = 0xFFFFFFFF
SEED = 77
# No draw is tried more often than this when the kernel's choice is looked for.
MOST_DRAWS = 300
# Ports of the buckets that sockets of a history share.
WINDOW = slice(39490, 40540)


class Engine:
    """One Host like the client of world.py."""

    def __init__(self, history: History) -> None:
        self.history = history
        # The engine re-hashes when its clock passes a multiple of 10 s; that has to be when the kernel does.
        self.shift_us = PERIOD_US - history.epoch_us % PERIOD_US // 1000 * 1000
        self.host = Host(Machine(SEED), now_us=history.lines[0].begin_us + self.shift_us, max_sockets=4096)
        self._configure()
        self.h: InetHashinfo = self.host.net.h
        # From how many connections on a destination gets a map: searches with and without one have to agree.
        self.h.dests.dense = (4, 1024, 1)[history.seed % 3]
        self.secrets = self.h.secrets
        self.peer = Peer(self.host, parse_ipv4(history.address("answers")))
        self.fds: dict[int, int] = {}
        self.rows: dict[int, int] = {}
        self.options: dict[int, Options] = {}
        self.bound: dict[int, str] = {}
        self.devices: dict[int, str] = {}
        self.keys: dict[int, Key] = {}
        self.probe = sk_alloc(self.h.sks)
        self.targets = [(parse_ipv4(history.address(who)), port) for who, port in DESTINATIONS]
        self.draws: dict[int, dict[int, int]] = {}

    def _configure(self) -> None:
        host, address = self.host, self.history.address
        for name in DEVICES:
            own = (f"{address('first')}/32", f"{address('second')}/32") if name == DEVICES[0] else ()
            host.add_link(name, 1500, own)
        for k, name in enumerate(DEVICES):
            for who in ("answers", "silent"):
                host.add_route(f"{address(who)}/32", dev=name, src=address("first"), metric=10 + k)

    # -- calls: each returns what kernel.py's of the same name returns

    def at(self, time_us: int) -> None:
        """It is this time of CLOCK_MONOTONIC now."""
        self.host.enter(time_us + self.shift_us)
        self.host.leave()
        if self.h.sysctl_generation != self.h.sysctl.generation:
            refresh_sysctls(self.h)

    def socket(self, n: int, options: Options) -> int:
        host = self.host
        fd = host.sys_socket(2, SOCK_STREAM | SOCK_NONBLOCK)
        one = struct.pack("=i", 1)
        if options.reuse:
            host.sys_setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, one)
        if options.reuseport:
            host.sys_setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, one)
        if options.no_port:
            host.sys_setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, one)
        if options.device:
            host.sys_setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, options.device.encode())
        if options.range is not None:
            low, high = options.range
            host.sys_setsockopt(fd, IPPROTO_IP, IP_LOCAL_PORT_RANGE, struct.pack("=I", high << 16 | low))
        self.fds[n] = fd
        self.options[n] = options
        self.rows[n] = host.task.files.table[fd].socket.sk
        self.devices[n] = options.device or DEVICES[0]
        return 0

    def bind(self, n: int, who: str, port: int) -> int:
        address = pack_sockaddr_in(parse_ipv4(self.history.address(who)), port)
        outcome = self._port_or_error(n, self.host.sys_bind(self.fds[n], address))
        if outcome >= 0:
            self.bound[n] = who
        return outcome

    def listen(self, n: int) -> int:
        return self._port_or_error(n, self.host.sys_listen(self.fds[n], 5))

    def connect(self, n: int, destination: int) -> int:
        outcome = self.host.sys_connect(self.fds[n], pack_sockaddr_in(*self.targets[destination]))
        self.peer.take()
        if outcome == -errno.EINPROGRESS:
            outcome = 0
            row, sks = self.rows[n], self.h.sks
            self.keys[n] = self.devices[n], sks.saddr[row], sks.sport[row], sks.dport[row]
        return self._port_or_error(n, outcome)

    def _port_or_error(self, n: int, outcome: Any) -> int:
        return outcome if outcome < 0 else self.h.sks.sport[self.rows[n]]

    def unconnect(self, n: int) -> int:
        return self._done(self.host.sys_connect(self.fds[n], struct.pack("=H14x", 0)))

    def close(self, n: int) -> int:
        self.host.sys_setsockopt(self.fds[n], SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
        return self._done(self.host.sys_close(self.fds.pop(n)))

    def time_wait(self, n: int) -> int:
        self.host.sys_shutdown(self.fds[n], SHUT_WR)
        self.peer.take()
        self.peer.acknowledge(self.keys[n], FIN)
        return self._done(self.host.sys_close(self.fds.pop(n)))

    def fin_wait2(self, n: int) -> int:
        self.host.sys_close(self.fds.pop(n))
        self.peer.take()
        self.peer.acknowledge(self.keys[n])
        return self._done(0)

    def finish(self, n: int) -> int:
        self.peer.acknowledge(self.keys[n], FIN)
        return self._done(0)

    def set(self, name: str, value: str) -> int:
        try:
            self.host.set_sysctl(name, value)
        except OSError as error:
            return -(error.errno or 0)
        return 0

    def _done(self, outcome: Any) -> int:
        self.peer.take()
        return outcome

    # -- the search of connect(), looked at from outside

    def searches(self, n: int) -> bool:
        """Has connect() to find a port for this socket, and nothing else to complain about?"""
        sks, row = self.h.sks, self.rows[n]
        return sks.num[row] == 0 and sks.sk_state[row] == 7

    def key(self, n: int, destination: int) -> tuple[int, int, int]:
        """(saddr, daddr, dport): what the start of a search depends on."""
        saddr = self.h.sks.saddr[self.rows[n]]
        return saddr or parse_ipv4(self.history.address("first")), *self.targets[destination]

    def prepare(self, n: int, key: tuple[int, int, int]) -> tuple[int, int, int]:
        """(keyed hash, number of offsets, step) of the search that is to come; the probe row stands for the socket."""
        sks, probe, row = self.h.sks, self.probe, self.rows[n]
        sks.saddr[probe], sks.daddr[probe], sks.dport[probe] = key
        sks.bound_dev[probe] = sks.bound_dev[row]
        sks.opts[probe] = sks.opts[row]
        set_search_range(self.h, probe)
        port_offset = inet_sk_port_offset(self.h, probe, self.host.now_us)
        return port_offset, self.h.range.remaining, self.h.range.step

    def search(self, offset: int) -> tuple[int, int]:
        """(port or -errno, distance walked) of a search that starts at this offset; nothing is taken."""
        h = self.h
        h.tw_recycled = h.last_distance = 0
        port = search_port(h, self.probe, offset, self.host.now_us)
        if h.tw_recycled != 0:
            index_insert(h.ehash, h.tw_recycled << 1 | 1)
            h.tw_recycled = 0
        return port, h.last_distance

    def force_start(self, port_offset: int, start: int) -> None:
        """The next search with this hash begins at `start`."""
        self.secrets.table_perturb[port_offset & 0xFFFF] = (start - (port_offset >> 32)) & M32

    def perturbed(self, port_offset: int) -> int:
        return self.secrets.table_perturb[port_offset & 0xFFFF]

    # -- the draw of bind(addr, 0) and of listen()

    def draws_for(self, n: int, port: int) -> Iterator[None]:
        """Set the state of chance, time after time, to what may make the engine draw `port`; the likeliest first."""
        inet_sk_get_local_port_range(self.h, self.rows[n])
        low, whole = self.h.range.low, self.h.range.high + 1 - self.h.range.low
        half = whole >> 2 << 1
        parts = (
            (low, whole),
            (low, half),
            (low + half, whole - half),
        )  # the whole range, and with SO_REUSEADDR its halves
        for order in range(2):
            for first, length in parts:
                if 0 <= port - first < length:
                    size = length & ~1 or 1
                    self._force_draw(size, (port - first) % size, order)
                    yield
        for counter in range(1, MOST_DRAWS):
            self.secrets.random_counter, self.secrets.random_left = counter << 20, 0
            yield

    def _force_draw(self, size: int, value: int, order: int) -> None:
        """The draw after `order` others, below `size`, gives `value`."""
        if size <= 256 and size & (size - 1) == 0:
            self.secrets.random_bytes = -(-value * 256 // size) * 0x0101010101010101
            self.secrets.random_left = 8
        else:
            counter = self._table(size).get(value, 1000)
            self.secrets.random_counter = counter - order
            self.secrets.random_left = 0

    def _table(self, size: int) -> dict[int, int]:
        """Value -> the counter before the draw that gives it."""
        if size not in self.draws:
            scratch = BootSecrets(SEED)
            scratch.random_counter = 1000
            table = self.draws[size] = {}
            for _ in range(size * 20):
                before = scratch.random_counter
                table.setdefault(get_random_u32_below(scratch, size), before)
        return self.draws[size]

    def is_without_port(self, n: int) -> bool:
        return self.h.sks.num[self.rows[n]] == 0

    def bucket_notes(self) -> list[Any]:
        """What a bind() that is to be taken back may have changed beside its own socket."""
        bind = self.h.bind
        columns = (bind.fastreuse, "b"), (bind.fastreuseport, "b"), (bind.fastuid, "I"), (bind.fast_saddr, "I")
        return [(column, memoryview(bytes(column[WINDOW])).cast(code)) for column, code in columns]

    def take_back(self, n: int, notes: list[Any]) -> None:
        """Undo a bind() or listen() that found itself a port: a new socket in place of that one."""
        port = self.h.sks.num[self.rows[n]]
        self.host.sys_close(self.fds[n])
        for column, values in notes:
            column[WINDOW] = values
        if self.h.bind.is_bound(port):  # close() may have healed the bucket
            portset_add(self.h.sets, SHUT, port)
        self.socket(n, self.options[n])
        if n in self.bound:  # it had an address already, and no port any more
            self._set_no_port(n, True)
            self.bind(n, self.bound[n], 0)
            self._set_no_port(n, self.options[n].no_port)

    def _set_no_port(self, n: int, on: bool) -> None:
        self.host.sys_setsockopt(self.fds[n], IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, struct.pack("=i", on))


class Advances:
    """By how much the engine moves a start after a search that walked `distance`: the eight possible values.

    Asked of the engine itself, in tables of its own where just that distance has to be walked.
    """

    def __init__(self) -> None:
        self.h = InetHashinfo(SockTable(64), Sysctls(), BootSecrets(SEED), 64)
        self.known: dict[tuple[int, int], tuple[int, ...]] = {}

    def of(self, distance: int, step: int) -> tuple[int, ...]:
        if (distance, step) not in self.known:
            self.known[distance, step] = self._measure(distance, step)
        return self.known[distance, step]

    def _measure(self, distance: int, step: int) -> tuple[int, ...]:
        h = self.h
        shut = range(h.sysctl.port_low, h.sysctl.port_low + distance, step)
        for port in shut:
            portset_add(h.sets, SHUT, port)
        found = tuple(self._one(step, distance, eighth) for eighth in range(8))
        for port in shut:
            portset_discard(h.sets, SHUT, port)
        return found

    def _one(self, step: int, distance: int, eighth: int) -> int:
        h = self.h
        sk = sk_alloc(h.sks)
        h.sks.saddr[sk], h.sks.daddr[sk], h.sks.dport[sk] = 1, 2, 3
        if step == 1:
            h.sks.opts[sk] = h.sks.options.replaced(0, port_low=h.sysctl.port_low, port_high=h.sysctl.port_high)
        set_search_range(h, sk)
        start = h.range.remaining  # offset 0, and not 0, which means "not drawn yet"
        h.secrets.table_perturb[0] = start
        h.secrets.random_bytes, h.secrets.random_left = eighth << 5, 1
        _inet_hash_connect(h, sk, 0, 0)
        inet_unhash(h, sk)
        inet_put_port(h, sk)
        sk_free_inet(h.sks, sk)
        return h.secrets.table_perturb[0] - start
