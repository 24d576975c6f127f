"""bind() and the bucket states, as tables of actions; expected values are the catalogue's PORT rows (Linux 6.18)."""

from __future__ import annotations

import errno

import pytest

from fourtuple.inet.connection_sock import inet_csk_get_port
from fourtuple.inet.flags import REUSE, REUSEPORT
from fourtuple.inet.hashinfo import InetHashinfo
from fourtuple.inet.hashtables import (
    inet_hash,
    inet_hash_connect,
    inet_inherit_port,
    inet_lookup_established,
    inet_lookup_listener,
    inet_put_port,
    inet_unhash,
)
from fourtuple.inet.secrets import BootSecrets
from fourtuple.inet.sock_table import SockTable, sk_alloc, sk_free_inet, sk_handle, sk_resolve
from fourtuple.sysctl import Sysctls

A, B, C, D, ANY = 0x0A090001, 0x0A090003, 0x0A090002, 0x0A090004, 0
CLOSE, LISTEN = 7, 10
BUSY = -errno.EADDRINUSE
GONE = -errno.EADDRNOTAVAIL


class Bench:
    def __init__(self, ports: str = "40000 40000", **sysctls: str) -> None:
        self.h = InetHashinfo(SockTable(4096), Sysctls(), BootSecrets(3), 64)
        for name, value in {"ip_local_port_range": ports, **sysctls}.items():
            assert self.h.sysctl.set("net.ipv4." + name, value) == 0

    def sock(self, saddr: int = ANY, flags: int = 0, uid: int = 0, dev: int = 0) -> int:
        sk = sk_alloc(self.h.sks)
        self.h.sks.sk_state[sk] = CLOSE
        self.h.sks.saddr[sk] = saddr
        self.h.sks.flags[sk] = flags
        self.h.sks.bound_dev[sk] = dev
        if uid:
            self.h.sks.opts[sk] = self.h.sks.options.replaced(0, uid=uid)
        return sk

    def bind(self, sk: int, port: int) -> int:
        return inet_csk_get_port(self.h, sk, port) or self.h.sks.num[sk]

    def connect(self, daddr: int = C, saddr: int = A, dport: int = 80) -> int:
        sk = self.sock(saddr)
        self.h.sks.daddr[sk] = daddr
        self.h.sks.dport[sk] = dport
        return inet_hash_connect(self.h, sk, 1_000_000)

    def listen(self, sk: int) -> int:
        self.h.sks.sk_state[sk] = LISTEN
        result = inet_csk_get_port(self.h, sk, self.h.sks.num[sk])
        if result == 0:
            inet_hash(self.h, sk)
        return result

    def close(self, sk: int) -> None:
        inet_unhash(self.h, sk)
        inet_put_port(self.h, sk)
        sk_free_inet(self.h.sks, sk)


R, P = REUSE, REUSEPORT


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        # (address, flags, uid), PORT-15, -16, -21, -47
        ((A, 0, 0), (A, 0, 0), BUSY),
        ((A, 0, 0), (B, 0, 0), 5000),
        ((A, 0, 0), (ANY, 0, 0), BUSY),
        ((ANY, 0, 0), (A, 0, 0), BUSY),
        ((A, R, 0), (A, R, 0), 5000),
        ((A, R, 0), (A, 0, 0), BUSY),
        ((A, 0, 0), (A, R, 0), BUSY),
        ((A, P, 0), (A, P, 0), 5000),
        ((A, P, 0), (A, R, 0), BUSY),
        ((A, P, 1000), (A, P, 1001), BUSY),
        ((A, P, 1000), (B, P, 1001), 5000),
        ((ANY, P, 1000), (A, P, 1000), 5000),
        ((A, R | P, 1000), (A, R | P, 1001), 5000),
    ],
)
def test_who_may_share_an_explicit_port(
    first: tuple[int, int, int], second: tuple[int, int, int], expected: int
) -> None:
    bench = Bench()
    assert bench.bind(bench.sock(*first), 5000) == 5000
    assert bench.bind(bench.sock(*second), 5000) == expected


def test_sockets_on_two_devices_do_not_meet_but_an_unbound_one_meets_both() -> None:
    bench = Bench()
    assert bench.bind(bench.sock(A, dev=2), 5000) == 5000
    assert bench.bind(bench.sock(A, dev=3), 5000) == 5000
    assert bench.bind(bench.sock(A), 5000) == BUSY


def test_a_listener_does_not_share_by_reuseaddr() -> None:
    bench = Bench()
    listener = bench.sock(A, R)
    assert bench.bind(listener, 5000) == 5000
    assert bench.listen(listener) == 0
    assert bench.bind(bench.sock(A, R), 5000) == BUSY


def test_two_reuseaddr_sockets_bind_but_only_one_listens() -> None:
    bench = Bench()
    one, two = bench.sock(A, R), bench.sock(A, R)
    assert [bench.bind(one, 5000), bench.bind(two, 5000)] == [5000, 5000]
    assert bench.listen(one) == 0
    assert bench.listen(two) == BUSY


@pytest.mark.parametrize("flags", [0, R, P])
def test_a_bound_port_is_closed_to_connect_whatever_its_kind(flags: int) -> None:
    bench = Bench()  # PORT-13, -17, -18
    assert bench.bind(bench.sock(A, flags), 40000) == 40000
    assert bench.connect() == GONE


def test_a_binder_poisons_a_connected_port_and_closing_it_heals_it() -> None:
    bench = Bench()  # PORT-22, -23
    assert bench.connect(C) == 40000
    binder = bench.sock(B)
    assert bench.bind(binder, 40000) == 40000
    assert bench.connect(D) == GONE
    bench.close(binder)
    assert bench.connect(D) == 40000


def test_an_accepted_child_keeps_its_listeners_port_closed() -> None:
    bench = Bench()  # PORT-20
    listener = bench.sock(A)
    bench.bind(listener, 40000)
    bench.listen(listener)
    child = bench.sock(A)
    inet_inherit_port(bench.h, listener, child)
    bench.close(listener)
    assert bench.connect() == GONE
    bench.close(child)
    assert bench.connect() == 40000


def test_bind_to_port_zero_takes_odd_offsets_first_and_never_shares_an_address() -> None:
    bench = Bench("40000 40003")  # PORT-12, -33
    assert {bench.bind(bench.sock(A), 0), bench.bind(bench.sock(A), 0)} == {40001, 40003}
    assert {bench.bind(bench.sock(A), 0), bench.bind(bench.sock(A), 0)} == {40000, 40002}
    assert bench.bind(bench.sock(A), 0) == BUSY
    assert bench.bind(bench.sock(B), 0) in range(40000, 40004)


def test_reuseaddr_tries_the_lower_half_of_the_range_first() -> None:
    bench = Bench("40000 40099")  # PORT-31
    ports = [bench.bind(bench.sock(A, R), 0) for _ in range(60)]
    assert max(ports[:50]) < 40050 <= min(ports[50:])


def test_ip_autobind_reuse_lets_reuseaddr_sockets_share_when_all_is_taken() -> None:
    bench = Bench()  # PORT-32
    assert bench.bind(bench.sock(A, R), 0) == 40000
    assert bench.bind(bench.sock(A, R), 0) == BUSY
    assert bench.h.sysctl.set("net.ipv4.ip_autobind_reuse", "1") == 0
    assert bench.bind(bench.sock(A), 0) == BUSY
    assert bench.bind(bench.sock(A, R), 0) == 40000


def test_reserved_ports_are_not_for_searches_but_for_who_names_them() -> None:
    bench = Bench("40000 40003", ip_local_reserved_ports="40000-40001")  # PORT-09
    assert {bench.connect(), bench.connect()} == {40002, 40003}
    assert bench.connect() == GONE
    assert bench.bind(bench.sock(A), 40000) == 40000


def test_the_exact_listener_is_found_before_the_wildcard_and_a_device_before_none() -> None:
    bench = Bench()
    anywhere, exact, device = bench.sock(ANY, P), bench.sock(A, P), bench.sock(A, P, dev=3)
    for sk in (anywhere, exact, device):
        assert bench.bind(sk, 80) == 80
        assert bench.listen(sk) == 0
    assert inet_lookup_listener(bench.h, A, 80, 3) == device
    assert inet_lookup_listener(bench.h, A, 80, 2) == exact
    assert inet_lookup_listener(bench.h, B, 80, 2) == anywhere
    assert inet_lookup_listener(bench.h, B, 81, 2) == 0


def test_a_packet_finds_its_socket_by_the_whole_four_tuple() -> None:
    bench = Bench()
    port = bench.connect(C)
    row = next(iter(bench.h.ehash.entries()))
    assert inet_lookup_established(bench.h, C, 80, A, port, 2) == row
    for wrong in ((D, 80, A, port), (C, 81, A, port), (C, 80, B, port), (C, 80, A, port + 1)):
        assert inet_lookup_established(bench.h, *wrong, 2) == 0


def test_a_full_table_is_enobufs_and_an_old_handle_resolves_to_nothing() -> None:
    table = SockTable(2)
    first, second = sk_alloc(table), sk_alloc(table)
    assert sk_alloc(table) == -errno.ENOBUFS
    handle = sk_handle(table, first)
    assert sk_resolve(table, handle) == first
    sk_free_inet(table, first)
    assert sk_resolve(table, handle) == 0
    assert sk_alloc(table) == first
    assert sk_resolve(table, sk_handle(table, second)) == second
