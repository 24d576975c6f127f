"""The search by bit sets finds what the kernel's loop finds, in every profile: port, distance, next start, errno.

Random histories of connect, bind, listen, close, TIME_WAIT, reserved ports, ranges and per-socket ranges over several
sources, destinations and devices.  `scan_ports` is the loop; where it starts and what it leaves behind is written down
here once more, from __inet_hash_connect() of each version.
"""

from __future__ import annotations

import errno
from math import gcd

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fourtuple.inet.connection_sock import inet_csk_get_port
from fourtuple.inet.flags import REUSE, REUSEPORT
from fourtuple.inet.hashinfo import InetHashinfo
from fourtuple.inet.hashtables import (
    build_map,
    inet_hash,
    inet_hash_connect,
    inet_put_port,
    inet_sk_port_offset,
    inet_unhash,
)
from fourtuple.inet.portset import RESERVED, SHUT, portset_test
from fourtuple.inet.scan import scan_ports
from fourtuple.inet.secrets import BootSecrets, get_random_u32_below, perturb_start
from fourtuple.inet.sock_table import SockTable, sk_alloc, sk_free_inet
from fourtuple.inet.timewait import tw_alloc, tw_fifo_append
from fourtuple.inet.timewait_sock import inet_twsk_enter_time_wait, inet_twsk_hashdance, inet_twsk_kill
from fourtuple.kernel_profile import VERSIONS, profile_named
from fourtuple.sysctl import Sysctls

TCP_ESTABLISHED, TCP_FIN_WAIT2, TCP_TIME_WAIT, TCP_CLOSE, TCP_LISTEN = 1, 5, 6, 7, 10
SOURCES = (0x0A090001, 0x0A090003)
DESTINATIONS = ((0x0A090002, 80), (0x0A090004, 80), (0x0A090002, 443), (0x7F000001, 9))
RANGES = ((40000, 40000), (40000, 40001), (40001, 40008), (40000, 40010), (40001, 40063), (39990, 40190),
          (32768, 60999))  # fmt: skip


ONE_COUNTER = ("2.6.32", "3.10", "4.2", "4.6")
HAS_LOCAL_RANGE = ("6.3", "6.5", "6.18", "7.1")


class World:
    """One namespace's tables, and the sockets of the history."""

    def __init__(self, seed: int, dense: int, version: str = "6.18") -> None:
        self.h = InetHashinfo(SockTable(4096), Sysctls(profile_named(version)), BootSecrets(seed), 4096)
        self.version = version
        self.h.dests.dense = dense
        self.now_us = 5_000_000
        self.socks: list[int] = []
        self.time_waits: list[int] = []

    def fresh(self, source: int, flags: int = 0) -> int:
        sk = sk_alloc(self.h.sks)
        assert sk > 0
        self.h.sks.sk_state[sk] = TCP_CLOSE
        self.h.sks.saddr[sk] = source
        self.h.sks.flags[sk] |= flags
        self.socks.append(sk)
        return sk

    def drop(self, sk: int) -> None:
        inet_unhash(self.h, sk)
        inet_put_port(self.h, sk)
        sk_free_inet(self.h.sks, sk)
        self.socks.remove(sk)

    def set_range(self, own_range: tuple[int, int] | None) -> None:
        """The numbers of the loop: the ports and the step."""
        numbers, low, high = self.h.range, self.h.sysctl.port_low, self.h.sysctl.port_high
        own_low, own_high = own_range or (0, 0)
        numbers.generation = 0
        numbers.low = own_low if low <= own_low <= high else low
        numbers.high = (own_high if low <= own_high <= high else high) + 1
        one_pass = self.version in ("2.6.32", "3.10", "4.2")
        one_pass |= own_range is not None and self.version in ("6.18", "7.1")
        numbers.step = 1 if one_pass else 2
        numbers.stride = 0
        numbers.remaining = numbers.high - numbers.low
        if not one_pass and numbers.remaining > 1:
            numbers.remaining &= ~1

    def next_start(self, sk: int) -> int:
        """The counter, or the entry of table_perturb, that the search of sk adds to the hash."""
        if self.version in ONE_COUNTER:
            return self.h.secrets.connect_hint
        return perturb_start(self.h.secrets, inet_sk_port_offset(self.h, sk, self.now_us) & 0xFFFF)

    def first_offset(self, sk: int) -> int:
        start = (self.next_start(sk) + (inet_sk_port_offset(self.h, sk, self.now_us) >> 32)) % 2**32
        if self.version in ("2.6.32", "3.10"):  # for (i = 1; ...) port = low + (i + offset) % remaining
            return (start + 1) % 2**32 % self.h.range.remaining
        if self.version == "4.2":
            return (start & ~1) % self.h.range.remaining
        return start % self.h.range.remaining & (~1 if self.h.range.step == 2 else -1)

    def draw_stride(self) -> int:
        """ip_local_port_step_width: the next number coprime with the size of a pass, if there is one."""
        width, size = self.h.sysctl.ip_local_port_step_width, self.h.range.remaining // self.h.range.step
        if width == 0 or self.h.range.remaining <= 1:
            return 0
        most = min(width, size)
        drawn = get_random_u32_below(self.h.secrets, most) + 1
        return next((n for n in range(drawn, most + 1) if gcd(n, size) == 1), 1) * self.h.range.step

    def advance(self, distance: int) -> int:
        """What a success adds to the next start."""
        if self.version in ("2.6.32", "3.10"):
            return distance + 1
        if self.version == "4.2":
            return (distance + 2) & ~1
        if self.version == "4.6":
            return distance + 2
        return max(distance, get_random_u32_below(self.h.secrets, 8) * self.h.range.step) + self.h.range.step

    def expect(self, sk: int, own_range: tuple[int, int] | None) -> tuple[int, int, int]:
        """(port | -errno, distance, next start) by the loop, changing nothing."""
        h = self.h
        self.set_range(own_range)
        drawn = h.secrets.random_counter, h.secrets.random_bytes, h.secrets.random_left
        before = self.next_start(sk)
        h.range.stride = self.draw_stride()
        port, distance = scan_ports(h, sk, self.first_offset(sk), self.now_us)
        after = before if port < 0 else (before + self.advance(distance)) % 2**32
        h.secrets.random_counter, h.secrets.random_bytes, h.secrets.random_left = drawn
        h.range.stride = 0
        return port, distance, after

    def connect(self, source: int, dest: int, dev: int, own_range: tuple[int, int] | None, bound: int) -> None:
        h = self.h
        sk = self.fresh(SOURCES[source])
        h.sks.daddr[sk], h.sks.dport[sk] = DESTINATIONS[dest]
        h.sks.bound_dev[sk] = dev
        if self.version not in HAS_LOCAL_RANGE:
            own_range = None
        if own_range is not None:
            h.sks.opts[sk] = h.sks.options.replaced(0, port_low=own_range[0], port_high=own_range[1])
        if bound:
            h.sks.flags[sk] |= REUSE
            if inet_csk_get_port(h, sk, bound) != 0:
                self.drop(sk)
                return
            if inet_hash_connect(h, sk, self.now_us) < 0:
                self.drop(sk)
            else:
                h.sks.sk_state[sk] = TCP_ESTABLISHED
            return
        inet_hash_connect_refresh(h)
        port, distance, after = self.expect(sk, own_range)
        got = inet_hash_connect(h, sk, self.now_us)
        assert (got, self.next_start(sk)) == (port, after)
        if got < 0:
            assert got == -errno.EADDRNOTAVAIL
            assert h.sks.num[sk] == 0
            self.drop(sk)
        else:
            assert h.last_distance == distance
            assert h.sks.num[sk] == h.sks.sport[sk] == got
            h.sks.sk_state[sk] = TCP_ESTABLISHED

    def bind(self, source: int, port: int, flags: int, listen: bool) -> None:
        if self.version == "2.6.32":
            flags &= ~REUSEPORT  # setsockopt() would have refused it
        sk = self.fresh((0, *SOURCES)[source], flags)
        if inet_csk_get_port(self.h, sk, port) != 0:
            self.drop(sk)
            return
        self.h.sks.sport[sk] = self.h.sks.num[sk]
        if listen:
            self.h.sks.sk_state[sk] = TCP_LISTEN
            if inet_csk_get_port(self.h, sk, self.h.sks.num[sk]) != 0:
                self.h.sks.sk_state[sk] = TCP_CLOSE
            else:
                inet_hash(self.h, sk)

    def to_time_wait(self, sk: int, fin_wait2: bool, timestamps: bool) -> None:
        h = self.h
        if h.sks.sk_state[sk] != TCP_ESTABLISHED:
            return
        tw = tw_alloc(h.tw)
        h.tw.substate[tw] = TCP_FIN_WAIT2 if fin_wait2 else TCP_TIME_WAIT
        h.tw.entry_ms[tw] = self.now_us // 1000
        h.tw.ts_recent_stamp[tw] = 1 if timestamps else 0
        h.tw.snd_nxt[tw] = 1000
        inet_twsk_hashdance(h, sk, tw)
        if not fin_wait2:
            tw_fifo_append(h.tw, tw, self.now_us + 60_000_000)
        self.time_waits = [old for old in self.time_waits if old != tw] + [tw]  # a row may be used again
        sk_free_inet(h.sks, sk)
        self.socks.remove(sk)

    def check(self) -> None:
        """Invariants: a port is shut exactly when bind() closed its bucket; nothing is left when all is closed."""
        h = self.h
        self.time_waits = [tw for tw in self.time_waits if h.tw.num[tw] != 0]
        for port in range(39980, 40200):
            closed = h.bind.owners[port] > 0 and max(h.bind.fastreuse[port], h.bind.fastreuseport[port]) >= 0
            shut = closed or portset_test(h.bind.sets, RESERVED, port)
            assert bool(portset_test(h.bind.sets, SHUT, port)) == bool(shut)
            if self.version in ("6.18", "7.1"):  # a bucket heals
                assert closed == (h.bind.bound[port] > 0)
            elif self.version == "2.6.32":
                assert h.bind.owners[port] == 0 or h.bind.fastreuseport[port] == -1

    def close_all(self) -> None:
        self.check()
        for sk in list(self.socks):
            self.drop(sk)
        for tw in self.time_waits:
            inet_twsk_kill(self.h, tw)
        h = self.h
        assert (h.sks.used, h.tw.used, h.dests.used, h.ehash.count) == (0, 0, 0, 0)
        assert max(h.bind.owners) == max(h.bind.bound) == max(h.bind.head) == 0
        assert h.tw.fifo_head == h.tw.fifo_tail == 0


def inet_hash_connect_refresh(h: InetHashinfo) -> None:
    """What inet_hash_connect does first; the reference must see the same sysctls."""
    from fourtuple.inet.hashinfo import refresh_sysctls

    if h.sysctl_generation != h.sysctl.generation:
        refresh_sysctls(h)


own_ranges = st.none() | st.sampled_from([(40000, 40007), (40003, 40003), (50000, 50010), (40002, 0), (0, 40005)])
steps = st.one_of(
    st.tuples(st.just("connect"), st.integers(0, 1), st.integers(0, 3), st.integers(0, 2), own_ranges,
              st.sampled_from([0, 0, 0, 0, 40000, 40003])),
    st.tuples(st.just("burst"), st.integers(0, 3), st.integers(5, 80)),
    st.tuples(st.just("bind"), st.integers(0, 2), st.sampled_from([0, 40000, 40001, 40006, 40050]),
              st.sampled_from([0, REUSE, REUSEPORT, REUSE | REUSEPORT]), st.booleans()),
    st.tuples(st.just("close"), st.integers(0, 10**6)),
    st.tuples(st.just("time_wait"), st.integers(0, 10**6), st.sampled_from([False, False, True]),
              st.sampled_from([True, True, False])),
    st.tuples(st.just("time_waits"), st.integers(1, 30)),
    st.tuples(st.just("enter"), st.integers(0, 10**6)),
    st.tuples(st.just("kill"), st.integers(0, 10**6)),
    st.tuples(st.just("advance"), st.sampled_from([1, 1000, 200_000, 500_000, 1_000_000, 1_001_000, 10_000_000])),
    st.tuples(st.just("range"), st.sampled_from(RANGES)),
    st.tuples(st.just("range"), st.sampled_from(RANGES[:4])),
    st.tuples(st.just("reserve"), st.sampled_from(["", "40000", "40001-40005,40050", "39990-40100"])),
    st.tuples(st.just("tw_reuse"), st.sampled_from(["0", "1", "2"])),
    st.tuples(st.just("delay"), st.sampled_from(["1", "200", "1000"])),
    st.tuples(st.just("width"), st.sampled_from(["0", "1", "3", "6", "40", "70000"])),
    st.tuples(st.just("map"), st.integers(0, 10**6)),
)  # fmt: skip


SYSCTLS = {"reserve": "ip_local_reserved_ports", "tw_reuse": "tcp_tw_reuse", "delay": "tcp_tw_reuse_delay",
           "width": "ip_local_port_step_width"}  # fmt: skip


def run(world: World, step: tuple[object, ...]) -> None:  # noqa: C901  one line per kind of step
    kind, *args = step
    h = world.h
    live = [tw for tw in world.time_waits if h.tw.num[tw] != 0]
    if kind == "connect":
        world.connect(*args)  # type: ignore[arg-type]
    elif kind == "burst":
        for _ in range(args[1]):  # type: ignore[call-overload]
            world.connect(0, args[0], 0, None, 0)  # type: ignore[arg-type]
    elif kind == "bind":
        world.bind(*args)  # type: ignore[arg-type]
    elif kind == "close" and world.socks:
        world.drop(world.socks[args[0] % len(world.socks)])  # type: ignore[operator]
    elif kind == "time_wait" and world.socks:
        world.to_time_wait(world.socks[args[0] % len(world.socks)], args[1], args[2])  # type: ignore
    elif kind == "time_waits":
        for sk in world.socks[: args[0]]:  # type: ignore[misc]
            world.to_time_wait(sk, False, True)
    elif kind == "enter" and live:
        tw = live[args[0] % len(live)]  # type: ignore[operator]
        if h.tw.substate[tw] == TCP_FIN_WAIT2:
            inet_twsk_enter_time_wait(h, tw, world.now_us // 1000)
    elif kind == "kill" and live:
        inet_twsk_kill(h, live[args[0] % len(live)])  # type: ignore[operator]
    elif kind == "advance":
        world.now_us += args[0]  # type: ignore[operator]
    elif kind == "range":
        low, high = args[0]  # type: ignore[misc]
        assert h.sysctl.set("net.ipv4.ip_local_port_range", f"{low} {high}") == 0
    elif kind in SYSCTLS:
        name = f"net.ipv4.{SYSCTLS[kind]}"
        assert h.sysctl.set(name, str(args[0])) == (-errno.ENOENT if name in h.sysctl.profile.absent_sysctls else 0)
    elif kind == "map":
        dense = [d for d in {h.sks.dest[sk] for sk in world.socks} if d and h.dests.map_index[d] == 0]
        if dense:
            build_map(h, dense[args[0] % len(dense)])  # type: ignore[operator]


versions = st.sampled_from(VERSIONS) | st.just("6.18")


@settings(max_examples=450, deadline=None)
@given(versions, st.integers(0, 2**64), st.sampled_from([1, 20, 100000]), st.lists(steps, min_size=5, max_size=60))
def test_search_by_bit_sets_equals_the_kernels_loop(
    version: str, seed: int, dense: int, history: list[tuple[object, ...]]
) -> None:
    world = World(seed, dense, version)
    run(world, ("range", RANGES[2]))
    for step in history:
        run(world, step)
    world.close_all()


# The same in a world so small that TIME_WAITs, devices and the two kinds of map meet all the time.
tight = st.one_of(
    st.tuples(st.just("burst"), st.just(0), st.integers(1, 4)),
    st.tuples(st.just("connect"), st.just(0), st.just(0), st.integers(0, 2), st.none(), st.just(0)),
    st.tuples(st.just("connect"), st.just(0), st.just(0), st.just(0), st.just((40001, 40002)), st.just(0)),
    st.tuples(st.just("time_wait"), st.integers(0, 7), st.sampled_from([False, False, True]), st.just(True)),
    st.tuples(st.just("enter"), st.integers(0, 7)),
    st.tuples(st.just("kill"), st.integers(0, 7)),
    st.tuples(st.just("close"), st.integers(0, 7)),
    st.tuples(st.just("advance"), st.sampled_from([1000, 199_000, 200_000, 201_000])),
    st.tuples(st.just("tw_reuse"), st.sampled_from(["0", "1", "1", "1"])),
    st.tuples(st.just("delay"), st.sampled_from(["1", "200"])),
    st.tuples(st.just("width"), st.sampled_from(["0", "1", "2"])),
)


@settings(max_examples=300, deadline=None)
@given(versions, st.integers(0, 2**64), st.sampled_from([1, 1, 3, 100000]), st.lists(tight, min_size=20, max_size=120))
def test_search_equals_the_loop_in_a_tight_world(
    version: str, seed: int, dense: int, history: list[tuple[object, ...]]
) -> None:
    world = World(seed, dense, version)
    for step in (("range", (40000, 40003)), ("tw_reuse", "1"), ("delay", "200"), *history):
        run(world, step)
    world.close_all()


@pytest.mark.parametrize("dense", [1, 100000])
def test_a_time_wait_is_reused_when_strictly_more_than_the_delay_has_passed(dense: int) -> None:
    world = World(11, dense)
    for step in (("range", RANGES[0]), ("tw_reuse", "1"), ("delay", "200"), ("connect", 0, 0, 0, None, 0)):
        run(world, step)
    world.to_time_wait(world.socks[0], fin_wait2=False, timestamps=True)
    world.now_us += 200_000
    world.connect(0, 0, 0, None, 0)
    assert world.socks == []  # 200 ms are not more than 200 ms
    world.now_us += 1000
    world.connect(0, 0, 0, None, 0)
    assert world.h.sks.num[world.socks[0]] == 40000
    assert world.h.sks.write_seq[world.socks[0]] == 1000 + 65535 + 2
    assert world.h.tw.used == 0


def test_the_next_time_wait_ripens_after_the_one_that_a_search_waited_for_has_ended() -> None:
    world = World(2, dense=1)
    for step in (("range", RANGES[1]), ("tw_reuse", "1"), ("delay", "200"), ("burst", 0, 2)):
        run(world, step)
    for sk in list(world.socks):
        world.to_time_wait(sk, fin_wait2=False, timestamps=True)
    world.connect(0, 0, 0, None, 0)
    assert world.socks == []  # both are too young; the search waits for the first
    run(world, ("kill", 0))
    world.connect(0, 0, 0, None, 0)
    world.now_us += 201_000
    world.connect(0, 0, 0, None, 0)
    assert len(world.socks) == 2
    assert world.h.tw.used == 0


@pytest.mark.parametrize("dense", [1, 100000])
def test_a_device_bound_connect_also_sees_the_tuples_of_unbound_ones_but_not_the_reverse(dense: int) -> None:
    world = World(5, dense)  # PORT-26
    run(world, ("range", RANGES[0]))
    outcomes = []
    for dev in (2, 3, 3, 0, 0, 2):
        before = len(world.socks)
        world.connect(0, 0, dev, None, 0)
        outcomes.append(len(world.socks) > before)
    assert outcomes == [True, True, False, True, False, False]


@pytest.mark.parametrize(("low", "high"), RANGES[:-1])
def test_a_range_is_used_to_its_last_port_and_then_refused(low: int, high: int) -> None:
    world = World(7, 50)
    run(world, ("range", (low, high)))
    taken = set()
    while True:
        before = len(world.socks)
        world.connect(0, 0, 0, None, 0)
        if len(world.socks) == before:
            break
        taken.add(world.h.sks.num[world.socks[-1]])
    size = high - low + 1
    assert len(taken) == len(world.socks)
    assert size - len(taken) in ((0,) if size % 2 == 0 or size == 1 else (0, 1))
    world.close_all()


@pytest.mark.parametrize("dense", [1, 100000])
def test_a_time_wait_of_the_device_is_not_reused_while_an_unbound_socket_has_the_same_tuple(dense: int) -> None:
    world = World(5, dense)
    for step in (("range", RANGES[0]), ("tw_reuse", "1"), ("delay", "200"), ("connect", 0, 0, 2, None, 0)):
        run(world, step)
    world.to_time_wait(world.socks[0], fin_wait2=False, timestamps=True)
    world.connect(0, 0, 0, None, 0)  # does not see those bound to a device
    assert len(world.socks) == 1
    world.now_us += 201_000
    world.connect(0, 0, 2, None, 0)
    assert len(world.socks) == 1


def test_a_time_wait_taken_over_from_another_device_leaves_its_own_destination() -> None:
    world = World(5, dense=1)
    for step in (("range", RANGES[0]), ("tw_reuse", "1"), ("delay", "200"), ("connect", 0, 0, 0, None, 0)):
        run(world, step)
    world.to_time_wait(world.socks[0], fin_wait2=False, timestamps=True)
    world.now_us += 201_000
    world.connect(0, 0, 2, None, 0)
    assert world.h.dests.used == 1
    world.close_all()
