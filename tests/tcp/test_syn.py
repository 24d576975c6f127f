"""The SYN: options, window, IP header (catalogue SYN-01..23)."""

from __future__ import annotations

import hashlib

import pytest

from fourtuple.ip.fib_table import Metrics
from tests.tcp.harness import HOST, PEER, Packet, Wire

ALL = [("mss", 1460), ("sackOK",), ("ts",), ("nop",), ("ws", 10)]


def shape(p: Packet) -> tuple[str, int, list[tuple[object, ...]]]:
    return p.flags, p.window, [o if o[0] in ("mss", "ws") else o[:1] for o in p.options]


def syn_of(w: Wire, **options: object) -> Packet:
    sk = w.socket()
    if options:
        w.option(sk, **options)
    w.connect(sk)
    return w.take()[0]


def test_the_default_syn_is_that_of_linux() -> None:
    w = Wire()
    p = syn_of(w)
    assert shape(p) == ("S", 64240, ALL)
    assert (p.ack, p.payload, p.opt("ts")[2], len(p.raw)) == (0, b"", 0, 60)
    assert (p.src, p.dst, p.dport, p.ttl, p.df, p.tos, p.dev) == (HOST, PEER, 80, 64, True, 0, 2)
    assert p.sport % 2 == 0 and 32768 <= p.sport <= 60999


@pytest.mark.parametrize(
    ("sysctls", "options"),
    [
        ({"tcp_timestamps": 0}, [("mss", 1460), ("nop",), ("nop",), ("sackOK",), ("nop",), ("ws", 10)]),
        ({"tcp_sack": 0}, [("mss", 1460), ("nop",), ("nop",), ("ts",), ("nop",), ("ws", 10)]),
        ({"tcp_window_scaling": 0}, [("mss", 1460), ("sackOK",), ("ts",)]),
        ({"tcp_timestamps": 0, "tcp_sack": 0, "tcp_window_scaling": 0}, [("mss", 1460)]),
    ],
)
def test_options_that_are_off_leave_the_rest_aligned(sysctls: dict[str, int], options: list[object]) -> None:
    assert shape(syn_of(Wire(**sysctls))) == ("S", 64240, options)


def test_ttl_comes_from_the_socket_or_the_sysctl() -> None:
    w = Wire(ip_default_ttl=33)
    assert syn_of(w).ttl == 33
    assert syn_of(w, ttl=7).ttl == 7


@pytest.mark.parametrize(("value", "tos"), [(0x10, 0x10), (0xFF, 0xFC)])
def test_the_ecn_bits_of_ip_tos_cannot_be_set(value: int, tos: int) -> None:
    assert syn_of(Wire(), tos=value).tos == tos


@pytest.mark.parametrize(("discover", "df"), [(0, False), (1, True), (2, True), (3, False)])
def test_df_follows_ip_mtu_discover(discover: int, df: bool) -> None:
    assert syn_of(Wire(), mtu_discover=discover).df is df


def test_tcp_maxseg_clamps_mss_and_window() -> None:
    p = syn_of(Wire(), user_mss=1000)
    assert (p.opt("mss"), p.window) == (("mss", 1000), 65000)


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        (Metrics(advmss=900), (900, 64800, 10)),
        (Metrics(mtu=1000), (960, 65280, 10)),
        (Metrics(window=10000), (1460, 8760, 0)),
        (Metrics(initrwnd=2), (1460, 2920, 10)),
    ],
)
def test_route_metrics_shape_the_syn(metrics: Metrics, expected: tuple[int, int, int]) -> None:
    w = Wire()
    assert w.fib.add_route(0x0A080000, 24, dev=w.fib.device("tun0"), metrics=metrics) == 0
    w.connect(daddr=0x0A080001)
    p = w.expect("S")
    assert (p.opt("mss")[1], p.window, p.opt("ws")[1]) == expected


def test_a_small_receive_buffer_bounds_window_and_scale() -> None:
    w = Wire()
    sk = w.socket()
    w.option(sk, rcvbuf=16384)
    w.sks.userlocks[sk] |= 2
    w.connect(sk)
    p = w.expect("S")
    assert (p.window, p.opt("ws")[1]) == (7300, 0)
    p = syn_of(w, window_clamp=4096)
    assert (p.window, p.opt("ws")[1]) == (2920, 0)


@pytest.mark.parametrize(("rmem", "scale"), [(6291456, 7), (33554432, 10), (1073741824, 14)])
def test_the_window_scale_follows_the_largest_buffer(rmem: int, scale: int) -> None:
    w = Wire(tcp_rmem=f"4096 131072 {rmem}")
    assert syn_of(w).opt("ws") == ("ws", scale)


@pytest.mark.parametrize(("value", "flags"), [(0, "S"), (1, "SEW"), (2, "S")])
def test_tcp_ecn_1_asks_for_ecn(value: int, flags: str) -> None:
    assert syn_of(Wire(tcp_ecn=value)).flags == flags


def test_a_route_with_the_ecn_feature_asks_for_ecn() -> None:
    w = Wire()
    w.fib.add_route(0x0A080000, 24, dev=w.fib.device("tun0"), metrics=Metrics(ecn=True))
    w.connect(daddr=0x0A080001)
    w.expect("SEW")


@pytest.mark.parametrize(("fallback", "flags"), [(1, "S"), (0, "SEW")])
def test_a_retransmitted_syn_drops_ecn_if_told_so(fallback: int, flags: str) -> None:
    w = Wire(tcp_ecn=1, tcp_ecn_fallback=fallback)
    w.connect()
    w.expect("SEW")
    w.advance(1_000_000)
    w.expect(flags)


def test_a_retransmitted_syn_differs_in_timestamp_and_id_only() -> None:
    w = Wire()
    w.connect()
    a = w.expect("S")
    w.advance(1_000_000)
    b = w.expect("S")
    assert (a.sport, a.seq, a.kinds(), a.window) == (b.sport, b.seq, b.kinds(), b.window)
    assert b.opt("ts")[1] - a.opt("ts")[1] == 1000
    assert (b.ident - a.ident) & 0xFFFF == 1


def test_the_isn_of_a_four_tuple_grows_by_one_in_64_ns() -> None:
    seqs = []
    for now in (1_000_000_000, 1_000_640_000):
        w = Wire(now_us=now)
        sk = w.socket()
        w.sks.num[sk] = w.sks.sport[sk] = 0
        w.set("ip_local_port_range", "40000 40000")
        w.connect(sk)
        seqs.append(w.expect("S").seq)
    assert (seqs[1] - seqs[0]) & 0xFFFFFFFF == 640_000 * 1000 // 64


def test_timestamps_have_an_offset_per_four_tuple_unless_2() -> None:
    w = Wire()
    a, b = syn_of(w), syn_of(w)
    assert abs(a.opt("ts")[1] - b.opt("ts")[1]) > 1000
    w.set("tcp_timestamps", 2)
    assert syn_of(w).opt("ts")[1] == w.now // 1000


def test_on_loopback_mss_and_window_are_65495() -> None:
    w = Wire()
    seen: list[bytes] = []
    w.net.sniff = lambda dev, now, packet: seen.append(packet)
    w.connect(daddr=0x7F000001, dport=9)
    p = Packet.parse(0, 1, seen[0])
    assert (p.opt("mss"), p.window) == (("mss", 65495), 65495)
    w.expect_nothing()


def test_workaround_signed_windows_caps_the_window() -> None:
    assert syn_of(Wire(tcp_workaround_signed_windows=1)).window == 32767


def test_ip_ids_of_different_sockets_are_random() -> None:
    w = Wire()
    ids = [syn_of(w).ident for _ in range(8)]
    assert max(ids) - min(ids) > 256


def test_md5_comes_first_takes_the_place_of_timestamps_and_is_right() -> None:
    w = Wire()
    p = syn_of(w, md5_keys=((PEER, 32, b"secret"),))
    assert p.kinds() == ["nop", "nop", "md5", "mss", "nop", "nop", "sackOK", "nop", "ws"]
    seg = p.raw[20:]
    pseudo = p.raw[12:20] + b"\0\x06" + len(seg).to_bytes(2, "big")
    assert p.opt("md5")[1] == hashlib.md5(pseudo + seg[:16] + b"\0\0" + seg[18:20] + b"secret").digest()
