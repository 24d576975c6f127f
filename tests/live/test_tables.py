"""The loaded tables: what is in them, and that every answer is that of the engine's own search."""

from __future__ import annotations

import random
import struct
from collections import Counter

import pytest

from fourtuple.inet.dest import dest_find
from fourtuple.inet.hashtables import build_map, inet_lookup_established, inet_lookup_listener, set_search_range
from fourtuple.inet.portset import portset_test
from fourtuple.inet.scan import look_at, scan_ports
from fourtuple.kernel_map import LOOK_BUCKET_BOUND, LOOK_ESTABLISHED, LOOK_FREE, LOOK_TIME_WAIT
from fourtuple.live import Socket, SocketTable, ask
from fourtuple.live import tables as live_tables
from fourtuple.live.ask import Walk
from fourtuple.live.socket_table import NO_PORT, NO_PORT_KNOWN, V6ONLY
from fourtuple.live.tables import (
    JOINABLE,
    LIKELY,
    LIKELY_JOINABLE,
    LIKELY_SHUT,
    NONE,
    OPTIMISTIC,
    PESSIMISTIC,
    SHUT,
    Tables,
    load,
)
from fourtuple.sysctl import Sysctls

LOW, HIGH = 40_000, 40_199
ME, ALSO_ME, PEER, OTHER = "10.0.0.2", "10.0.0.3", "10.1.0.1", "10.1.0.2"
ME6, PEER6 = "2001:db8::2", "2001:db8::1"


def key(address: str) -> int:
    return struct.unpack("!I", bytes(int(part) for part in address.split(".")))[0]


def settings(low: int = LOW, high: int = HIGH, **more: int) -> Sysctls:
    found = Sysctls()
    assert found.set("net.ipv4.ip_local_port_range", f"{low} {high}") == 0
    for name, value in more.items():
        assert found.set(f"net.ipv4.{name}", str(value)) == 0
    return found


def row(port: int, to: str = PEER, state: str = "ESTABLISHED", **more: int | str) -> Socket:
    family = 10 if ":" in to else 2
    fields: dict[str, int | str] = {"saddr": ME6 if family == 10 else ME, "dport": 443, "inode": port}
    return Socket(family, state, sport=port, daddr=to, **(fields | more))  # type: ignore[arg-type]


def bound(port: int, state: str = "BOUND", **more: int | str) -> Socket:
    return row(port, "0.0.0.0", state, **({"dport": 0} | more))


def time_wait(port: int, left_ms: int, to: str = PEER, **more: int | str) -> Socket:
    return row(port, to, "TIME_WAIT", timer=3, expires_ms=left_ms, **({"inode": 0} | more))


def loaded(*rows: Socket, sysctls: Sysctls | None = None) -> Tables:
    return load(SocketTable.of(rows), sysctls or settings())


def probe(t: Tables, to: str = PEER, dport: int = 443, device: int = 0, own: tuple[int, int] | None = None) -> int:
    ask.prepare_probe(t, key(ME), key(to), dport, device, own)
    return t.probe


def test_a_connection_is_in_ehash_bucket_and_destination() -> None:
    t = loaded(row(40_010), row(40_012), row(40_010, OTHER))
    entry = inet_lookup_established(t.h, key(PEER), 443, key(ME), 40_010, 0)
    assert t.sockets[t.sk_row[entry >> 1]] == row(40_010)
    assert (t.h.bind.owners[40_010], t.h.bind.owners[40_012], t.h.bind.bound[40_010]) == (2, 1, 0)
    dest = dest_find(t.h.dests, key(ME), key(PEER), 443, 0)
    assert (t.h.dests.count[dest], t.h.dests.used) == (2, 2)


def test_a_destination_of_a_thousand_has_the_engines_map() -> None:
    t = loaded(*(row(port) for port in range(40_000, 41_100)), time_wait(41_100, 9_000), sysctls=settings(high=42_000))
    dest = dest_find(t.h.dests, key(ME), key(PEER), 443, 0)
    used = t.h.dests.map_index[dest]
    assert used != 0
    assert {p for p in range(65_536) if portset_test(t.h.sets, used, p)} == set(range(40_000, 41_101))


def test_listeners_bound_sockets_and_accepted_ones_shut_their_port() -> None:
    t = loaded(
        bound(40_001, "LISTEN", saddr="0.0.0.0"), bound(40_002), row(40_001, OTHER, saddr=ME),
        bound(40_003, "LISTEN", saddr="0.0.0.0"),
    )  # fmt: skip
    assert [t.certainty[port] for port in range(40_000, 40_004)] == [NONE, SHUT, SHUT, SHUT]
    assert (t.h.bind.bound[40_001], t.h.bind.fastreuse[40_001]) == (2, 0)
    assert t.sk_row[inet_lookup_listener(t.h, key(ME), 40_001, 0)] == 0
    assert t.h.dests.used == 0


def test_a_row_that_the_kernel_lists_twice_counts_once() -> None:
    t = loaded(row(40_010), row(40_010), time_wait(40_010, 100), row(40_010, ifindex=7), row(40_010, ifindex=7))
    assert (t.h.bind.owners[40_010], t.twice) == (2, 3)


def test_ipv6_addresses_are_keys_of_their_own() -> None:
    t = loaded(row(40_010, PEER6), row(40_010), row(40_012, "::1", saddr="::1"), row(40_014, "::ffff:0:1"))
    keys = {t.h.sks.daddr[sk]: t.sk_row[sk] for sk in range(1, t.h.sks.high_water + 1) if t.h.sks.dest[sk]}
    assert len(keys) == 4
    assert all(k >> 28 == 0xE for k, at in keys.items() if at in (0, 3))
    assert live_tables.address_of(t, next(k for k, at in keys.items() if at == 0)) == (6, PEER6)
    assert live_tables.address_of(t, live_tables.LOOPBACK6_KEY) == (6, "::1")
    assert live_tables.address_of(t, key(PEER)) == (4, PEER)
    assert t.h.bind.owners[40_010] == 2


def test_a_v6_wildcard_listener_shuts_the_bucket_that_ipv4_uses() -> None:
    for flags in (0, V6ONLY):
        t = loaded(Socket(10, "LISTEN", "::", 40_004, "::", 0, flags=flags), row(40_006))
        ask.look_at_ports(t, probe(t), LOW, HIGH)
        assert t.verdict[40_004] == LOOK_BUCKET_BOUND


def test_the_loopback_rule_of_tcp_tw_reuse_holds_for_ipv6() -> None:
    t = loaded(time_wait(40_000, 30_000, "::1", saddr="::1"), time_wait(40_002, 30_000, PEER6))
    for address, verdicts in ((live_tables.LOOPBACK6_KEY, 1), (live_tables.key_of(t, 10, t.sockets.daddr[1]), 0)):
        source = address if verdicts else live_tables.key_of(t, 10, t.sockets.saddr[1])
        ask.prepare_probe(t, source, address, 443, 0, None)
        ask.look_at_ports(t, t.probe, LOW, HIGH)
        assert Counter(bytes(t.verdict[LOW : HIGH + 1]))[LOOK_TIME_WAIT] == 1 - verdicts


def test_time_waits_are_as_old_as_their_remaining_time_says() -> None:
    sysctls = settings(tcp_tw_reuse=1, tcp_tw_reuse_delay=10_000)
    t = loaded(time_wait(40_000, 50_100), time_wait(40_002, 49_900), time_wait(40_004, 100), sysctls=sysctls)
    ask.look_at_ports(t, probe(t), LOW, HIGH)
    assert [t.verdict[port] == LOOK_TIME_WAIT for port in (40_000, 40_002, 40_004)] == [True, False, False]
    first = t.h.tw.fifo_head
    assert (t.h.tw.num[first], t.h.tw.due_us[first] - t.now_us) == (40_004, 100_000)
    assert t.sockets.sport[t.tw_row[first]] == 40_004


def test_without_timestamps_or_in_fin_wait2_no_time_wait_is_reused() -> None:
    for sysctls, waiting in (
        (settings(tcp_tw_reuse=1, tcp_timestamps=0), time_wait(40_000, 100)),
        (settings(tcp_tw_reuse=1), time_wait(40_000, 100)._replace(state="FIN_WAIT2")),
    ):
        t = loaded(waiting, sysctls=sysctls)
        ask.look_at_ports(t, probe(t), LOW, HIGH)
        assert t.verdict[40_000] == LOOK_TIME_WAIT
        assert t.h.tw.used == 1


def test_a_device_number_beyond_16_bits_is_still_a_device() -> None:
    t = loaded(row(40_000, ifindex=65_536), row(40_002, ifindex=70_000))
    devices = {t.h.sks.bound_dev[sk] for sk in range(1, t.h.sks.high_water + 1) if t.h.sks.dest[sk]}
    assert len(devices) == 2
    assert 0 not in devices


def test_dropped_rows_are_not_there() -> None:
    rows = [row(40_000), time_wait(40_002, 5), bound(40_004), row(40_006)]
    t = load(SocketTable.of(rows), settings(), memoryview(bytearray([1, 1, 1, 0])))
    assert [t.h.bind.owners[port] for port in (40_000, 40_002, 40_004, 40_006)] == [0, 0, 0, 1]


# -- certainty


def test_no_port_means_joinable_for_certain() -> None:
    known = NO_PORT_KNOWN | NO_PORT
    t = loaded(row(40_000, flags=known), row(40_002, flags=NO_PORT_KNOWN), row(40_004, flags=known), row(40_004, OTHER))
    assert [t.certainty[p] for p in (40_000, 40_002, 40_004)] == [JOINABLE, LIKELY_JOINABLE, LIKELY_JOINABLE]


def test_ports_of_the_second_parity_look_bound_unless_two_sockets_share_them() -> None:
    odd = [row(port) for port in range(40_001, 40_061, 2)]
    t = loaded(*odd, row(40_001, OTHER))
    assert [t.certainty[port] for port in (40_001, 40_003)] == [LIKELY_JOINABLE, LIKELY_SHUT]


def test_parity_tells_nothing_past_the_cliff_or_where_the_first_one_is_reserved() -> None:
    past = loaded(*(row(port) for port in [*range(LOW, HIGH, 2), *range(LOW + 1, LOW + 81, 2)]))
    assert past.certainty[LOW + 1] == LIKELY_JOINABLE
    sysctls = settings()
    assert sysctls.set("net.ipv4.ip_local_reserved_ports", ",".join(str(p) for p in range(LOW, HIGH, 2))) == 0
    reserved = loaded(*(row(port) for port in range(LOW + 1, LOW + 81, 2)), sysctls=sysctls)
    assert reserved.certainty[LOW + 1] == LIKELY_JOINABLE


def test_in_a_range_that_begins_odd_the_odd_ports_come_first() -> None:
    t = loaded(*(row(port) for port in range(40_001, 40_061, 2)), sysctls=settings(low=40_001))
    assert t.certainty[40_001] == LIKELY_JOINABLE


def test_the_worlds_differ_in_who_is_taken_for_a_binder_and_leave_no_trace() -> None:
    rows = [*(row(port) for port in range(40_001, 40_041, 2)), row(40_100, OTHER), row(40_102, OTHER)]
    t = loaded(*rows)
    shut = {}
    for world in (OPTIMISTIC, LIKELY, PESSIMISTIC, LIKELY, OPTIMISTIC):
        live_tables.assume_world(t, world)
        ask.look_at_ports(t, probe(t, "10.9.9.9"), LOW, HIGH)
        count = Counter(bytes(t.verdict[LOW : HIGH + 1]))[LOOK_BUCKET_BOUND]
        assert shut.setdefault(world, count) == count
    assert shut == {OPTIMISTIC: 0, LIKELY: 20, PESSIMISTIC: 22}
    assert [t.h.bind.owners[port] for port in (40_001, 40_100)] == [1, 1]
    assert (t.h.bind.fastreuse[40_100], t.h.bind.bound[40_100]) == (-1, 0)


# -- the engine's own search


def mixture(dice: random.Random) -> list[Socket]:
    rows: list[Socket] = []
    for _ in range(dice.randrange(20, 420)):
        port = dice.randrange(LOW - 5, HIGH + 5)
        to = dice.choice([PEER, PEER, OTHER, PEER6])
        kind = dice.randrange(10)
        if kind == 0:
            rows.append(bound(port, dice.choice(["LISTEN", "BOUND"])))
        elif kind < 4:
            rows.append(time_wait(port, dice.randrange(60_000), to, ifindex=dice.choice([0, 0, 3])))
        else:
            rows.append(row(port, to, ifindex=dice.choice([0, 0, 0, 3]), flags=dice.choice([0, 6])))
    return rows


@pytest.mark.parametrize("seed", range(12))
def test_each_port_is_seen_as_the_readable_scan_sees_it_and_each_start_ends_where_it_ends(seed: int) -> None:
    dice = random.Random(seed)
    sysctls = settings(
        high=HIGH - dice.randrange(3), tcp_tw_reuse=dice.randrange(3), tcp_tw_reuse_delay=dice.choice([1, 30_000])
    )
    assert sysctls.set("net.ipv4.ip_local_reserved_ports", f"{LOW + 7}-{LOW + 9 + seed}") == 0
    t = loaded(*mixture(dice), sysctls=sysctls)
    dest = dest_find(t.h.dests, key(ME), key(PEER), 443, 0)
    if seed % 2:  # with and without a map
        t.h.dests.dense = 8
        build_map(t.h, dest)
        assert t.h.dests.map_index[dest] != 0
    walk = Walk()
    for world in (OPTIMISTIC, LIKELY, PESSIMISTIC):
        live_tables.assume_world(t, world)
        for device, own in ((0, None), (3, None), (0, (LOW + 3, HIGH - 40)), (0, (LOW, HIGH))):
            sk = probe(t, PEER, device=device, own=own)
            ask.look_at_ports(t, sk, t.h.range.low, t.h.range.high - 1)
            for port in range(t.h.range.low, t.h.range.high):
                assert t.verdict[port] == look_at(t.h, sk, port, t.now_us)[0], port
            ask.ask_every_start(t, walk, sk)
            assert_same_as_scan(t, walk, sk)


def assert_same_as_scan(t: Tables, walk: Walk, sk: int) -> None:
    set_search_range(t.h, sk)
    step, total, failed, most = t.h.range.step, 0, 0, 0
    kinds: Counter[int] = Counter()
    even = t.h.range.remaining == t.h.range.high - t.h.range.low
    for offset in range(0, t.h.range.remaining, step):
        seen: list[int] = []
        port, _ = scan_ports(t.h, sk, offset, t.now_us, lambda _port, verdict, _detail, s=seen: s.append(verdict))
        passed = len(seen) - (port >= 0)
        total, failed, most = total + passed, failed + (port < 0), max(most, passed)
        kinds.update(seen[:passed])
    assert (walk.failed, walk.most) == (failed, most)
    assert walk.passed == total
    if even:  # in a range of odd size the kinds may be off by the one port that a pass leaves out
        skips = total - kinds[LOOK_ESTABLISHED] - kinds[LOOK_TIME_WAIT]
        assert (walk.skips, walk.conflicts, walk.time_waits) == (skips, kinds[LOOK_ESTABLISHED], kinds[LOOK_TIME_WAIT])


def test_asking_changes_nothing() -> None:
    dice = random.Random(3)
    t = loaded(*mixture(dice), sysctls=settings(tcp_tw_reuse=1, tcp_tw_reuse_delay=1))
    before = (t.h.ehash.count, t.h.tw.used, t.h.dests.used, bytes(t.h.bind.owners))
    walk = Walk()
    for _ in range(3):
        ask.look_at_ports(t, probe(t), LOW, HIGH)
        ask.ask_every_start(t, walk, t.probe)
    assert (t.h.ehash.count, t.h.tw.used, t.h.dests.used, bytes(t.h.bind.owners)) == before
    assert walk.starts == 100


def test_percentiles_of_the_starts() -> None:
    t = loaded(*(row(port) for port in range(LOW, LOW + 40, 2)))
    walk = Walk()
    ask.look_at_ports(t, probe(t), LOW, HIGH)
    assert t.verdict[HIGH] == LOOK_FREE
    ask.ask_every_start(t, walk, t.probe)
    # 100 starts: 80 pass over nothing, 20 over 1 to 20 ports
    assert (walk.passed, ask.rank(walk, 80), ask.rank(walk, 81), ask.rank(walk, 95)) == (
        210, 0, 1, 15,
    )  # fmt: skip
    assert (ask.rank(walk, 100), walk.most) == (20, 20)
