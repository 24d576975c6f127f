"""The search by bit sets finds what the kernel's loop finds: port, distance, table_perturb after, errno.

Random histories of connect, bind, listen, close, TIME_WAIT, reserved ports, ranges and per-socket ranges over several
sources, destinations and devices.  `scan_ports` is the loop.
"""

from __future__ import annotations

import errno

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fourtuple.inet.connection_sock import inet_csk_get_port
from fourtuple.inet.flags import REUSE, REUSEPORT
from fourtuple.inet.hashtables import (
    InetHashinfo,
    build_map,
    inet_hash,
    inet_hash_connect,
    inet_put_port,
    inet_sk_get_local_port_range,
    inet_sk_port_offset,
    inet_twsk_enter_time_wait,
    inet_twsk_hashdance,
    inet_twsk_kill,
    inet_unhash,
)
from fourtuple.inet.portset import RESERVED, SHUT, portset_test
from fourtuple.inet.scan import scan_ports
from fourtuple.inet.secrets import BootSecrets, get_random_u32_below, perturb_start
from fourtuple.inet.sock_table import SockTable, sk_alloc, sk_free_inet
from fourtuple.inet.timewait import tw_alloc, tw_fifo_append
from fourtuple.sysctl import Sysctls

TCP_ESTABLISHED, TCP_FIN_WAIT2, TCP_TIME_WAIT, TCP_CLOSE, TCP_LISTEN = 1, 5, 6, 7, 10
SOURCES = (0x0A090001, 0x0A090003)
DESTINATIONS = ((0x0A090002, 80), (0x0A090004, 80), (0x0A090002, 443), (0x7F000001, 9))
RANGES = ((40000, 40000), (40000, 40001), (40001, 40008), (40000, 40010), (40001, 40063), (39990, 40190),
          (32768, 60999))  # fmt: skip


class World:
    """One namespace's tables, and the sockets of the history."""

    def __init__(self, seed: int, dense: int) -> None:
        self.h = InetHashinfo(SockTable(4096), Sysctls(), BootSecrets(seed), 4096)
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

    def expect(self, sk: int) -> tuple[int, int, int, int]:
        """(port | -errno, distance, index, table_perturb[index] after) by the loop, changing nothing."""
        h = self.h
        local = inet_sk_get_local_port_range(h, sk)
        h.range.high += 1
        h.range.remaining = h.range.high - h.range.low
        h.range.step = 1 if local else 2
        if not local and h.range.remaining > 1:
            h.range.remaining &= ~1
        port_offset = inet_sk_port_offset(h, sk, self.now_us)
        index = port_offset & 0xFFFF
        before = perturb_start(h.secrets, index)
        offset = (before + (port_offset >> 32)) % 2**32 % h.range.remaining
        if not local:
            offset &= ~1
        port, distance = scan_ports(h, sk, offset, self.now_us)
        if port < 0:
            return port, 0, index, before
        drawn = h.secrets.random_counter, h.secrets.random_bytes, h.secrets.random_left
        advance = max(distance, get_random_u32_below(h.secrets, 8) * h.range.step)
        h.secrets.random_counter, h.secrets.random_bytes, h.secrets.random_left = drawn
        return port, distance, index, (before + advance + h.range.step) % 2**32

    def connect(self, source: int, dest: int, dev: int, own_range: tuple[int, int] | None, bound: int) -> None:
        h = self.h
        sk = self.fresh(SOURCES[source])
        h.sks.daddr[sk], h.sks.dport[sk] = DESTINATIONS[dest]
        h.sks.bound_dev[sk] = dev
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
        port, distance, index, after = self.expect(sk)
        got = inet_hash_connect(h, sk, self.now_us)
        assert (got, h.secrets.table_perturb[index]) == (port, after)
        if got < 0:
            assert got == -errno.EADDRNOTAVAIL
            assert h.sks.num[sk] == 0
            self.drop(sk)
        else:
            assert h.last_distance == distance
            assert h.sks.num[sk] == h.sks.sport[sk] == got
            h.sks.sk_state[sk] = TCP_ESTABLISHED

    def bind(self, source: int, port: int, flags: int, listen: bool) -> None:
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
        """Invariants: a bucket is shut exactly when bind() holds it; nothing is left behind when all is closed."""
        h = self.h
        self.time_waits = [tw for tw in self.time_waits if h.tw.num[tw] != 0]
        for port in range(39980, 40200):
            shut = h.bind.bound[port] > 0 or portset_test(h.bind.sets, RESERVED, port)
            assert bool(portset_test(h.bind.sets, SHUT, port)) == bool(shut)
            open_bucket = h.bind.owners[port] > 0 and h.bind.bound[port] == 0
            if open_bucket:
                assert (h.bind.fastreuse[port], h.bind.fastreuseport[port]) == (-1, -1)

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
    from fourtuple.inet.hashtables import refresh_sysctls

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
    st.tuples(st.just("map"), st.integers(0, 10**6)),
)  # fmt: skip


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
    elif kind == "reserve":
        assert h.sysctl.set("net.ipv4.ip_local_reserved_ports", str(args[0])) == 0
    elif kind == "tw_reuse":
        assert h.sysctl.set("net.ipv4.tcp_tw_reuse", str(args[0])) == 0
    elif kind == "delay":
        assert h.sysctl.set("net.ipv4.tcp_tw_reuse_delay", str(args[0])) == 0
    elif kind == "map":
        dense = [d for d in {h.sks.dest[sk] for sk in world.socks} if d and h.dests.map_index[d] == 0]
        if dense:
            build_map(h, dense[args[0] % len(dense)])  # type: ignore[operator]


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**64), st.sampled_from([1, 20, 100000]), st.lists(steps, min_size=5, max_size=60))
def test_search_by_bit_sets_equals_the_kernels_loop(seed: int, dense: int, history: list[tuple[object, ...]]) -> None:
    world = World(seed, dense)
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
)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**64), st.sampled_from([1, 1, 3, 100000]), st.lists(tight, min_size=20, max_size=120))
def test_search_equals_the_loop_in_a_tight_world(seed: int, dense: int, history: list[tuple[object, ...]]) -> None:
    world = World(seed, dense)
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
