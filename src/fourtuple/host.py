"""Host: one network namespace without I/O: the public face of the engine.

Lives here: the verbs, what surrounds each of them, devices and routes by name.  Does not live here: any protocol.

The verbs, all batched, none blocking:

    receive(ring, offsets, lengths, n, now)        packets that arrived
    transmit(buf, offsets, lengths, max) -> n      packets to send
    next_timeout() -> us | None                    when to call handle_timeout
    handle_timeout(now)                            timers that are due
    events(out) -> n                               sockets to which something happened
    sys_*(...) -> value | -errno | Wait            the system calls

Rules
1. Time is an int of microseconds.  It comes in with a call (`now`; None: it has not moved) and never runs back.
   A timer runs at its own due time, however late handle_timeout() is called, unless told to be late.
2. Packets that a Host sends to itself wait until the outermost verb ends: the kernel's socket backlog (ERR-23, ERR-24).
3. No clock, randomness, sockets or threads: the same seed and the same calls give the same packets.  One owner thread.
4. A system call that would sleep returns a Wait; who made the call polls it after packets, timers and other calls.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, MutableSequence
from typing import Any, NamedTuple

from fourtuple.address import parse_ipv4, parse_prefix
from fourtuple.inet.hashinfo import InetHashinfo
from fourtuple.inet.tuple_index import index_reserve
from fourtuple.ip.devinet import NetDevice
from fourtuple.ip.fib import Fib
from fourtuple.ip.fib_table import Metrics
from fourtuple.ip.icmp import IcmpProtocol
from fourtuple.ip.input import ip_list_rcv, net_run_loopback
from fourtuple.ip.netns import net_refresh
from fourtuple.ip.rtnetlink import ROUTE_TYPES
from fourtuple.ip.txqueue import tx_packet, tx_reset
from fourtuple.machine import Machine
from fourtuple.mib import mib_get
from fourtuple.sock import syscall
from fourtuple.sock.af_inet import tcp_prot
from fourtuple.sock.batch import connect_rows, take_events
from fourtuple.sock.file import File, Task
from fourtuple.sock.stream import Buffer
from fourtuple.sock.wait import Outcome, Wait
from fourtuple.sysctl import Sysctls, profile_named
from fourtuple.tcp.constants import EVENT_BITS as EVENT_BITS
from fourtuple.tcp.ipv4 import TcpProtocol
from fourtuple.tcp.net import Net
from fourtuple.tcp.sock import TcpSockTable
from fourtuple.tcp.states import STATE_NAMES, TCP_CLOSE, TCP_SYN_RECV
from fourtuple.tcp.timer import net_handle_timeout, net_next_timeout
from fourtuple.trace import Tracer, attach
from fourtuple.wheel import TimerWheel
from fourtuple.wire.buffer import PacketBuffer

LOOPBACK = "lo"
IPPROTO_ICMP, IPPROTO_TCP = 1, 6
_MOST_TIMERS = 512  # in one call, in real time: 5 ms


class Sent(NamedTuple):
    """A packet on its way out."""

    time_us: int
    """when it was sent: a timer's own due time, not that of the call that ran it"""
    device: str
    packet: bytes


class SocketRow(NamedTuple):
    """One connection, listener or TIME_WAIT."""

    state: str
    laddr: int
    lport: int
    raddr: int
    rport: int


class Host:
    """One network namespace.

    `machine`    what several Hosts share (secrets, randomness, port sequence); without one the Host makes its own
    `seed`       of that own Machine
    `now_us`     time at the beginning
    `sysctl`     {"net.ipv4.tcp_syn_retries": "2"}: values that differ from the defaults; OSError for what Linux refuses
    `max_sockets`, `max_time_wait`   rows to reserve; memory is used as they are
    `reserve`    how many connections are certain to come: their index is made at once and need not grow
    `trace`      a Tracer that every function on the path of connect() reports to
    `profile`    the kernel to imitate

    `lo` exists with 127.0.0.1/8 and is up.  `task` is the caller of the sys_ verbs: root, with every capability, and a
    descriptor table of its own; assign another one to call as somebody else.
    """

    def __init__(
        self,
        machine: Machine | None = None,
        seed: int = 0,
        now_us: int = 0,
        sysctl: Mapping[str, str] | None = None,
        max_sockets: int = 65_536,
        max_time_wait: int | None = None,
        reserve: int = 0,
        trace: Tracer | None = None,
        profile: str = "6.18",
    ) -> None:
        self.machine = machine or Machine(seed)
        self.sysctls = Sysctls(profile_named(profile))
        sks = TcpSockTable(max_sockets)
        rows = max_sockets if max_time_wait is None else max_time_wait
        hashinfo = InetHashinfo(sks, self.sysctls, self.machine.secrets, rows)
        index_reserve(hashinfo.ehash, reserve)
        self.fib = Fib(self.sysctls)
        self.net = Net(sks, hashinfo, self.fib, self.sysctls, self.machine.secrets, TimerWheel())
        self.net.protocols = {IPPROTO_ICMP: IcmpProtocol(), IPPROTO_TCP: TcpProtocol()}
        self.net.now_us = now_us
        self.task = Task(self.net)
        self._depth = 0
        self._sent = 0
        self._waiting_events: deque[int] = deque()
        self._ring: PacketBuffer | None = None
        self._ring_source: object = None
        attach(trace, self.net)
        self.fib.set_device_up(self.fib.device(LOOPBACK), True)
        for name, value in (sysctl or {}).items():
            self.set_sysctl(name, value)

    # ------------------------------------------------------------------------------------------ around each verb

    @property
    def now_us(self) -> int:
        """The engine's time."""
        return self.net.now_us

    def enter(self, now: int | None) -> None:
        """Begin a verb at time `now`.  Verbs nest: a Wait's last step may run inside another verb."""
        if now is not None and now != self.net.now_us:
            if now < self.net.now_us:
                raise ValueError(f"time runs back: now={now}, the engine is at {self.net.now_us}")
            self.net.now_us = now
        self._depth += 1
        if self._depth == 1:
            net_refresh(self.net)

    def leave(self) -> None:
        """End a verb; the outermost one delivers what the Host sent to itself."""
        if self._depth == 1 and self.net.loopback.count:
            net_run_loopback(self.net)
        self._depth -= 1

    def _call(self, now: int | None, function: Any, *arguments: object) -> Outcome:
        """Run a system call as a verb; a sleep that loopback packets have ended already is no sleep."""
        self.enter(now)
        try:
            outcome = function(*arguments)
        finally:
            self.leave()
        if isinstance(outcome, Wait):
            outcome.verbs = self
            result = outcome.poll()
            return result if outcome.is_done() else outcome
        return outcome

    # ------------------------------------------------------------------------------------------ the world

    def add_link(self, name: str, mtu: int = 1500, addrs: tuple[str, ...] | list[str] = ()) -> NetDevice:
        """A device, up, with addresses like '10.9.0.1/24'.  ValueError for what cannot be read or is there already."""
        device = self.fib.add_device(name, mtu)
        self.fib.set_device_up(device, True)
        for text in addrs:
            _raise_if(self.fib.add_address(device, *parse_prefix(text)), f"address {text}")
        return device

    def add_route(
        self,
        dst: str,
        dev: str | None = None,
        via: str | None = None,
        src: str | None = None,
        type: str = "unicast",
        table: int | None = None,
        metric: int = 0,
        **metrics: Any,
    ) -> None:
        """`ip route add`: `dst` is '10.0.0.0/8' or 'default'; `metrics`: fields of ip.fib_table.Metrics (mtu=...)."""
        prefix, length = (0, 0) if dst == "default" else parse_prefix(dst)
        err = self.fib.add_route(
            prefix,
            length,
            type=ROUTE_TYPES[type],
            dev=None if dev is None else self.fib.device(dev),
            gateway=0 if via is None else parse_ipv4(via),
            prefsrc=0 if src is None else parse_ipv4(src),
            priority=metric,
            table=table,
            metrics=Metrics(**metrics),
        )
        _raise_if(err, f"route {dst}")

    def get_sysctl(self, name: str) -> str:
        """The text of /proc/sys; FileNotFoundError for a name that this kernel does not have."""
        try:
            return self.sysctls.get(name)
        except KeyError:
            raise FileNotFoundError(2, "no such sysctl", name) from None

    def set_sysctl(self, name: str, value: str) -> None:
        """Write one; OSError with Linux's errno when it is refused."""
        _raise_if(self.sysctls.set(name, value), f"{name}={value}")

    def counter(self, name: str) -> int:
        """A MIB counter: 'Tcp.ActiveOpens', 'TcpExt.TCPTimeouts'."""
        return mib_get(self.net.mib, name)

    def install_file(self, kind: str, path_only: bool = False, task: Task | None = None) -> int:
        """A descriptor that is no socket: 'pipe', 'file' ...; with `path_only` one opened with O_PATH."""
        return (task or self.task).files.install(File(kind, path_only=path_only))

    def new_task(self, uid: int = 0, privileged: bool = False) -> Task:
        """Another caller in this namespace, with its own descriptors; without privilege it has no capability."""
        return Task(self.net, uid, privileged)

    def sockets(self) -> Iterator[SocketRow]:
        """What `ss -tan` would show: connections, listeners, TIME_WAITs; not sockets that are neither."""
        sks, tw = self.net.sks, self.net.h.tw
        for sk in range(1, sks.high_water + 1):
            if sks.sk_state[sk] not in (0, TCP_CLOSE):
                yield SocketRow(
                    STATE_NAMES[sks.sk_state[sk]], sks.saddr[sk], sks.sport[sk], sks.daddr[sk], sks.dport[sk]
                )
        for row in range(1, tw.high_water + 1):
            if tw.substate[row]:
                yield SocketRow(STATE_NAMES[tw.substate[row]], tw.saddr[row], tw.num[row], tw.daddr[row], tw.dport[row])
        yield from self._requests()

    def _requests(self) -> Iterator[SocketRow]:
        """Connections that a listener has not finished (SYN_RECV)."""
        for request in self.net.requests.values():
            yield SocketRow(STATE_NAMES[TCP_SYN_RECV], request.saddr, request.sport, request.daddr, request.dport)

    # ------------------------------------------------------------------------------------------ packets

    def receive(
        self,
        ring: PacketBuffer | bytearray | memoryview,
        offsets: Any,
        lengths: Any,
        n: int,
        now: int | None = None,
        device: str | None = None,
    ) -> int:
        """`n` IP packets arrived; returns how many of them a protocol took.  Nothing raises, whatever they hold.

        Packet i is `lengths[i]` bytes at `offsets[i]` of `ring`, as Device.read_batch() leaves them.  `device` is the
        name of the link; None: the first one added.
        """
        buffer = self._buffer_of(ring)
        ifindex = self._ifindex(device)
        self.enter(now)
        try:
            return ip_list_rcv(self.net, buffer, offsets, lengths, n, ifindex)
        finally:
            self.leave()

    def receive_packet(self, packet: bytes, now: int | None = None, device: str | None = None) -> int:
        """One packet; for tests and simulations."""
        return self.receive(PacketBuffer(bytearray(packet)), (0,), (len(packet),), 1, now, device)

    def _buffer_of(self, ring: PacketBuffer | bytearray | memoryview) -> PacketBuffer:
        if isinstance(ring, PacketBuffer):
            return ring
        if self._ring is None or self._ring_source is not ring:
            self._ring, self._ring_source = PacketBuffer(ring), ring
        return self._ring

    def _ifindex(self, device: str | None) -> int:
        return min(2, len(self.fib.devices)) if device is None else self.fib.device(device).ifindex

    def has_packets(self) -> bool:
        """Is there something to transmit?"""
        return self._sent < self.net.tx.count

    def transmit(
        self,
        buf: bytearray | memoryview,
        offsets: MutableSequence[int],
        lengths: MutableSequence[int],
        max_packets: int,
        devices: MutableSequence[int] | None = None,
    ) -> int:
        """Copy up to `max_packets` packets into `buf`, one behind the other; return how many.

        `offsets` and `lengths` (and `devices`, interface indexes) are filled in, ready for Device.write_batch().  Fewer
        than `max_packets`: nothing is left, or `buf` is full; what is left stays.
        """
        tx = self.net.tx
        view = memoryview(buf)
        source = tx.buffer.view
        end = n = 0
        while n < max_packets and self._sent < tx.count:
            offset, length = tx.offsets[self._sent], tx.lengths[self._sent]
            if end + length > len(view):
                break
            view[end : end + length] = source[offset : offset + length]
            offsets[n], lengths[n] = end, length
            if devices is not None:
                devices[n] = tx.devs[self._sent]
            end += length
            n += 1
            self._sent += 1
        self._reset_if_sent()
        return n

    def transmit_to(self, write_batch: Callable[..., int]) -> int:
        """Offer every packet to a Device.write_batch(), straight from the queue; how many it took.  The others stay."""
        tx, first = self.net.tx, self._sent
        if first == tx.count:
            return 0
        offsets, lengths = memoryview(tx.offsets)[first:], memoryview(tx.lengths)[first:]
        taken = write_batch(tx.buffer.view, offsets, lengths, tx.count - first)
        self._sent += taken
        self._reset_if_sent()
        return taken

    def take_packets(self) -> list[Sent]:
        """Every packet to send, with its time and device; for tests and simulations."""
        tx = self.net.tx
        found = [
            Sent(tx.times[i], self.fib.devices[tx.devs[i]].name, tx_packet(tx, i)) for i in range(self._sent, tx.count)
        ]
        self._sent = tx.count
        self._reset_if_sent()
        return found

    def _reset_if_sent(self) -> None:
        if self._sent == self.net.tx.count:
            tx_reset(self.net.tx)
            self._sent = 0

    # ------------------------------------------------------------------------------------------ time, events

    def next_timeout(self) -> int | None:
        """When the earliest timer is due (us), or None."""
        due = net_next_timeout(self.net)
        return None if due < 0 else due

    def handle_timeout(self, now: int, late: bool = False) -> None:
        """Run the timers due by `now`, in order, each at its own due time; then the engine is at `now`.

        `late`: they run at `now`, as the kernel's do when it was busy. In real time a packet that a timer sends leaves
        now, and its timestamp has to say so: RTTs are counted from it. And only so many run that packets do not wait
        for them: next_timeout() is then in the past.
        """
        self.enter(now if late else None)
        try:
            if late:
                net_handle_timeout(self.net, now, _MOST_TIMERS)
            else:
                net_handle_timeout(self.net, now)
        finally:
            self.leave()

    def events(self, out: MutableSequence[int]) -> int:
        """Take notice of sockets to which something happened since they were last reported, each once.

        out[i] becomes handle << EVENT_BITS | EV_* bits (tcp/constants.py); what does not fit stays for the next call.
        """
        waiting, room = self._waiting_events, len(out)
        n = 0
        while waiting and n < room:
            out[n] = waiting.popleft()
            n += 1
        return take_events(self.net, out, n, room, waiting)

    # ------------------------------------------------------------------------------------------ connections in bulk

    def connect_many(
        self, daddr: int, dport: int, n: int, out_rows: MutableSequence[int], now: int | None = None
    ) -> int:
        """Begin `n` connections without descriptors; rows go to `out_rows`.  How many were begun; if none, -errno.

        A row is closed with close_row().
        """
        self.enter(now)
        try:
            return connect_rows(self.net, daddr, dport, n, out_rows)
        finally:
            self.leave()

    def close_row(self, sk: int, now: int | None = None) -> None:
        """close() of a connection that has no descriptor."""
        self._call(now, tcp_prot.close, self.net, sk, 0)

    # ------------------------------------------------------------------------------------------ system calls

    def sys_socket(self, family: int = 2, type: int = 1, protocol: int = 0, now: int | None = None) -> int:
        """A descriptor, or -errno."""
        fd: int = self._call(now, syscall.sys_socket, self.task, family, type, protocol)
        return fd

    def sys_connect(
        self, fd: int, address: bytes | None, addrlen: int | None = None, now: int | None = None
    ) -> Outcome:
        """`address` is a sockaddr; None with a length stands for a pointer that cannot be read."""
        size = len(address or b"") if addrlen is None else addrlen
        return self._call(now, syscall.sys_connect, self.task, fd, address, size)

    def sys_bind(self, fd: int, address: bytes | None, addrlen: int | None = None, now: int | None = None) -> int:
        """bind(2)."""
        size = len(address or b"") if addrlen is None else addrlen
        err: int = self._call(now, syscall.sys_bind, self.task, fd, address, size)
        return err

    def sys_listen(self, fd: int, backlog: int, now: int | None = None) -> int:
        """listen(2)."""
        err: int = self._call(now, syscall.sys_listen, self.task, fd, backlog)
        return err

    def sys_accept(self, fd: int, flags: int = 0, now: int | None = None) -> Outcome:
        """accept4(2): a descriptor."""
        return self._call(now, syscall.sys_accept, self.task, fd, flags)

    def sys_shutdown(self, fd: int, how: int, now: int | None = None) -> int:
        """shutdown(2)."""
        err: int = self._call(now, syscall.sys_shutdown, self.task, fd, how)
        return err

    def sys_close(self, fd: int, now: int | None = None) -> Outcome:
        """close(2): a Wait only with SO_LINGER."""
        return self._call(now, syscall.sys_close, self.task, fd)

    def sys_dup(self, fd: int) -> int:
        """dup(2)."""
        return syscall.sys_dup(self.task, fd)

    def sys_fcntl(self, fd: int, command: int, argument: int = 0) -> int:
        """fcntl(2)."""
        return syscall.sys_fcntl(self.task, fd, command, argument)

    def sys_send(
        self, fd: int, data: Buffer, flags: int = 0, address: bytes | None = None, now: int | None = None
    ) -> Outcome:
        """sendto(2): how many bytes were queued."""
        return self._call(now, syscall.sys_sendto, self.task, fd, data, flags, address, len(address or b""))

    def sys_recv(self, fd: int, size: int, flags: int = 0, now: int | None = None) -> Outcome:
        """recv(2): bytes, b'' at the end of the stream."""
        return self._call(now, syscall.sys_recvfrom, self.task, fd, size, flags)

    def sys_recv_errqueue(self, fd: int) -> dict[str, object] | int:
        """recvmsg(2) with MSG_ERRQUEUE: one entry, or -EAGAIN."""
        return syscall.sys_recvmsg_errqueue(self.task, fd)

    def sys_setsockopt(self, fd: int, level: int, name: int, value: bytes | None, now: int | None = None) -> int:
        """setsockopt(2)."""
        err: int = self._call(now, syscall.sys_setsockopt, self.task, fd, level, name, value)
        return err

    def sys_getsockopt(self, fd: int, level: int, name: int, size: int = 4, now: int | None = None) -> bytes | int:
        """getsockopt(2): bytes, or -errno."""
        value: bytes | int = self._call(now, syscall.sys_getsockopt, self.task, fd, level, name, size)
        return value

    def sys_getsockname(self, fd: int) -> bytes | int:
        """getsockname(2): a sockaddr_in."""
        return syscall.sys_getsockname(self.task, fd)

    def sys_getpeername(self, fd: int) -> bytes | int:
        """getpeername(2): a sockaddr_in."""
        return syscall.sys_getpeername(self.task, fd)

    def sys_poll(self, fd: int, events: int = 0xFFFF, timeout_us: int = 0, now: int | None = None) -> Outcome:
        """poll(2) of one descriptor: bits; a Wait with a timeout (-1: none) when none is true."""
        return self._call(now, syscall.sys_poll, self.task, fd, events, timeout_us)

    def sys_ioctl(self, fd: int, request: int, argument: int = 0, now: int | None = None) -> int:
        """ioctl(2): SIOCINQ, SIOCOUTQ, SIOCOUTQNSD, FIONBIO."""
        value: int = self._call(now, syscall.sys_ioctl, self.task, fd, request, argument)
        return value


def _raise_if(err: int, what: str) -> None:
    """Configuration is not a system call of a program: what is refused is an exception."""
    if err < 0:
        raise OSError(-err, f"{what}: refused as Linux does")
