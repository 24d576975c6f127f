"""FourtupleSUT: the kernel's scenarios on our stack, on a virtual clock that moves only when a scenario waits.

The clock goes from event to event: the next timer, the next deadline of a sleeping call, the end of the wait.  Between
two events other threads of the scenario get a moment of real time to enter their blocking call; once each of them
sleeps in a Wait (or has ended) nothing is left to chance.
"""

from __future__ import annotations

import struct
import threading
import time
from collections import defaultdict, deque

import kernel_oracle as ko  # an outside suite has it on sys.path; ours puts it there in tests/kernel/oracle.py

from fourtuple.address import format_ipv4
from fourtuple.host import Host
from fourtuple.machine import Machine
from fourtuple.sim.iproute import run_ip
from fourtuple.sock.af_inet import sockaddr_in
from fourtuple.sock.file import O_NONBLOCK
from fourtuple.sock.syscall import F_GETFL, F_SETFL
from fourtuple.sock.wait import PENDING, Wait

POLL_NAMES = ((1, "IN"), (2, "PRI"), (4, "OUT"), (8, "ERR"), (16, "HUP"), (0x2000, "RDHUP"))
START_US = 1_000_000_000
# How long a thread of the scenario gets to reach its blocking call, in real time.
PATIENCE_S = 0.2


class Background:
    """A blocking call that somebody else made; see KernelSUT's _Bg."""

    def __init__(self, sut: FourtupleSUT, outcome):
        self.sut, self.outcome = sut, outcome

    def result(self):
        outcome = self.outcome
        if isinstance(outcome, Wait):
            outcome = outcome.result
            if outcome is PENDING:
                return None
        return -outcome if outcome < 0 else 0

    def wait(self, seconds):
        """The errno, or None if there is none within `seconds`."""
        self.sut.run(seconds, lambda: self.result() is not None)
        return self.result()

    def signal(self):
        if self.result() is None:
            self.sut.deliver_signal(self.outcome)


class FourtupleSUT(ko.SUT):
    """One Host with a device tun0, as KernelSUT makes it."""

    name = "fourtuple"
    caps = frozenset(["lo", "tun1", "slow", "sniff", "threads", "netns", "fwmark"])

    def __init__(self, machine: Machine | None = None, seed: int = 1):
        self.machine = machine or Machine(seed)
        self.lock = threading.RLock()

    # -- the world

    def start(self):
        self.host = Host(self.machine, now_us=START_US)
        self.queues = defaultdict(deque)
        self.waits: dict[Wait, threading.Event | None] = {}
        self.sniffed: set[str] = set()
        self.restart = True
        self.driver = threading.current_thread()
        self.older_threads = set(threading.enumerate())
        self.host.net.sniff = self._sniffed
        self.add_tun("tun0", "10.9.0.1/24")

    def stop(self):
        self.host.net.sniff = None

    def another_netns(self) -> FourtupleSUT:
        """A second network namespace on the same machine, with the same device and address."""
        other = FourtupleSUT(self.machine)
        other.start()
        other.host.handle_timeout(self.host.now_us)
        return other

    def add_tun(self, name, addr=None):
        self.host.add_link(name, 1500, [addr] if addr else [])

    def ip(self, cmd):
        try:
            run_ip(self.host.fib, cmd)
        except (OSError, ValueError) as error:
            raise RuntimeError(f"ip {cmd}: {error}") from error

    def sysctl(self, name, value):
        try:
            self.host.set_sysctl(name, str(value))
        except OSError as error:
            return error.errno
        return 0

    def mib(self, name):
        return self.host.counter(name)

    # -- clock

    def now(self):
        return self.host.now_us / 1e6

    def sleep(self, s):
        self.run(s, lambda: False)

    def run(self, seconds, stop):
        """Let time pass, event by event, until `stop()` or for `seconds`."""
        with self.lock:
            until = self.host.now_us + round(seconds * 1e6)
            while True:
                self._let_threads_block()
                self._pump()
                if stop():
                    return
                due = self._next_event()
                if due is None or due > until:
                    self._go_to(until)
                    return
                self._go_to(due)

    def _next_event(self):
        times = [wait.deadline_us for wait in self.waits if wait.deadline_us is not None]
        timer = self.host.next_timeout()
        if timer is not None:
            times.append(timer)
        return max(min(times), self.host.now_us) if times else None

    def _go_to(self, now_us):
        self.host.handle_timeout(now_us)
        self._pump()

    def _pump(self):
        """Sleeping calls look again, and packets go to the queues of their devices."""
        progress = True
        while progress:
            progress = False
            for wait, event in list(self.waits.items()):
                if wait.poll(self.host.now_us) is not PENDING:
                    del self.waits[wait]
                    progress = True
                    if event is not None:
                        event.set()
        for sent in self.host.take_packets():
            self.queues[sent.device].append(ko.Pkt(sent.time_us / 1e6, sent.packet))

    def _let_threads_block(self):
        """Wait until each thread of the scenario has ended or sleeps in a Wait."""
        end = time.monotonic() + PATIENCE_S
        while self._busy_threads() and time.monotonic() < end:
            self.lock.release()
            time.sleep(0.0005)
            self.lock.acquire()

    def _busy_threads(self):
        asleep = sum(1 for event in self.waits.values() if event is not None and not event.is_set())
        mine = [t for t in threading.enumerate() if t not in self.older_threads and t.is_alive()]
        return len(mine) > asleep

    def _blocking(self, outcome):
        """The result of a call that may sleep: the scenario's own thread moves the clock, another one really waits."""
        if not isinstance(outcome, Wait):
            self._pump()
            return outcome
        if threading.current_thread() is self.driver:
            self.waits[outcome] = None
            while outcome.result is PENDING:
                if self._next_event() is None:
                    raise RuntimeError("a blocking call that nothing will wake")
                self.run((self._next_event() - self.host.now_us) / 1e6, lambda: outcome.result is not PENDING)
            return outcome.result
        event = self.waits[outcome] = threading.Event()
        self.lock.release()
        event.wait(10)
        self.lock.acquire()
        return outcome.result

    def deliver_signal(self, wait):
        with self.lock:
            wait.signal(self.restart)
            self._pump()

    # -- wire

    def inject(self, pkt, dev="tun0"):
        with self.lock:
            self.host.receive_packet(bytes(pkt), device=dev)
            self._pump()

    def sniff(self, dev):
        self.sniffed.add(dev)

    def _sniffed(self, dev, time_us, packet):
        if dev in self.sniffed:
            self.queues["sniff:" + dev].append(ko.Pkt(time_us / 1e6, packet))

    def recv_packet(self, timeout, dev="tun0"):
        queue = self.queues[dev]
        with self.lock:
            self._pump()
            if not queue:
                self.run(max(timeout, 0.0001), lambda: bool(queue))
            return queue.popleft() if queue else None

    # -- system calls

    def _call(self, function, *arguments):
        """(errno, value) of a call that may sleep."""
        with self.lock:
            outcome = self._blocking(function(*arguments))
            self._pump()
        return (-outcome, None) if isinstance(outcome, int) and outcome < 0 else (0, outcome)

    def socket(self, family=ko.AF_INET, nonblock=True):
        error, fd = self._call(self.host.sys_socket, int(family), 1 | (O_NONBLOCK if nonblock else 0))
        if error:
            raise OSError(error, "socket")
        return fd

    def odd_fd(self, kind):
        return self.host.install_file(kind, path_only=kind == "opath")

    def close(self, h):
        self._call(self.host.sys_close, h)

    def connect(self, h, raw, addrlen=None):
        return self._call(self.host.sys_connect, h, *_pointer(raw, addrlen))[0]

    def connect_bg(self, h, raw):
        with self.lock:
            outcome = self.host.sys_connect(h, raw)
            if isinstance(outcome, Wait):
                self.waits[outcome] = None
            self._pump()
        return Background(self, outcome)

    def restart_signals(self, on):
        self.restart = on

    def bind(self, h, raw):
        return self._call(self.host.sys_bind, h, raw)[0]

    def listen(self, h, backlog):
        return self._call(self.host.sys_listen, h, backlog)[0]

    def accept(self, h):
        return self._call(self.host.sys_accept, h)

    def shutdown(self, h, how):
        return self._call(self.host.sys_shutdown, h, how)[0]

    def set_nonblock(self, h, on):
        flags = self.host.sys_fcntl(h, F_GETFL)
        self.host.sys_fcntl(h, F_SETFL, flags | O_NONBLOCK if on else flags & ~O_NONBLOCK)

    def setsockopt(self, h, level, opt, val):
        value = struct.pack("=i", val) if isinstance(val, int) else val
        return self._call(self.host.sys_setsockopt, h, level, opt, value)[0]

    def getsockopt(self, h, level, opt, size=4):
        return self._call(self.host.sys_getsockopt, h, level, opt, size)

    def getsockname(self, h):
        return _name(self._call(self.host.sys_getsockname, h))

    def getpeername(self, h):
        return _name(self._call(self.host.sys_getpeername, h))

    def send(self, h, data, flags=0, to=None):
        return self._call(self.host.sys_send, h, data, flags, ko.sa(to) if to else None)

    def recv(self, h, n, flags=0):
        return self._call(self.host.sys_recv, h, n, flags)

    def errqueue(self, h):
        error, entry = self._call(self.host.sys_recv_errqueue, h)
        if error:
            return error, None
        names = {key: entry[key] for key in ("origin", "type", "code")}
        return 0, {**names, "errno": ko.E(entry["errno"]), "offender": format_ipv4(entry["offender"])}

    def poll(self, h):
        bits = self._call(self.host.sys_poll, h)[1]
        return {name for bit, name in POLL_NAMES if bits & bit}


def _pointer(raw, addrlen):
    """(bytes or None, length) of what KernelSUT passes to connect(): 'bad' is a pointer that cannot be read."""
    if isinstance(raw, str):
        return None, 16
    if raw is None:
        return None, 0 if addrlen is None else addrlen
    # As there, the buffer is longer than any length that is asked for.
    return raw.ljust(256, b"\0"), len(raw) if addrlen is None else addrlen


def _name(answer):
    error, sockaddr = answer
    if error:
        return error, None
    host, port = sockaddr_in(sockaddr)
    return 0, (format_ipv4(host), port)
