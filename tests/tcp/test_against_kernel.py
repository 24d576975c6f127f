"""Our Host on a TUN, the kernel as the peer: streams through loss and delay, and every way a connection can end."""

from __future__ import annotations

import errno
import random
import select
import socket
import struct
from itertools import pairwise
from typing import Any

import pytest

from tests.tcp.harness import Packet
from tests.tcp.kernel_wire import EAGAIN, OURS, PORT, THEIRS, KernelWire, Reader, Writer, open_bridge

DATA = random.Random(0).randbytes(5_000_000)
LINGER_NOW = struct.pack("ii", 1, 0)
WRITABLE = select.POLLOUT


def download(w: KernelWire, data: bytes) -> None:
    """The kernel sends `data` and closes, we read it all."""
    fd, peer = w.pair()
    reader = Reader(lambda n: w.recv(fd, n))
    w.apps = [reader, Writer(peer.send, data, lambda: peer.shutdown(socket.SHUT_WR))]
    assert w.until(lambda: reader.ended is not None), len(reader.data)
    assert reader.ended == b"" and reader.data == data
    finish(w, fd, peer)


def upload(w: KernelWire, data: bytes) -> None:
    """We send `data` and shut down, the kernel reads it all."""
    fd, peer = w.pair()
    reader = Reader(peer.recv)
    w.apps = [reader, Writer(lambda part: w.send(fd, part), data, lambda: w.host.sys_shutdown(fd, 1, now=w.now))]
    assert w.until(lambda: reader.ended is not None), len(reader.data)
    assert reader.ended == b"" and reader.data == data
    finish(w, fd, peer)


def finish(w: KernelWire, fd: int, peer: socket.socket) -> None:
    """Close both; nothing but a TIME_WAIT is left."""
    w.apps = []
    w.close(fd)
    peer.close()
    assert w.until(lambda: w.states() in ([], ["TIME_WAIT"]), 4), w.states()
    net = w.host.net
    assert not net.cold and not net.orphans and not net.requests
    assert not any(net.sks.sk_state[sk] for sk in range(1, net.sks.high_water + 1))
    if not w.states():
        assert w.host.next_timeout() is None


# ------------------------------------------------------------------------------------------ streams


@pytest.mark.parametrize(
    ("loss", "rtt_us", "size"),
    [("", 0, 5_000_000), ("", 20_000, 5_000_000), ("2%", 0, 5_000_000), ("2%", 20_000, 400_000), ("10%", 0, 300_000)],
)
@pytest.mark.parametrize("move", [download, upload])
def test_a_stream_arrives_whole(move: Any, loss: str, rtt_us: int, size: int) -> None:
    with KernelWire(loss=loss, rtt_us=rtt_us) as w:
        move(w, DATA[:size])


@pytest.mark.parametrize("option", ["tcp_sack", "tcp_timestamps", "tcp_window_scaling"])
@pytest.mark.parametrize("move", [download, upload])
def test_a_stream_arrives_whole_without_one_of_the_options(move: Any, option: str) -> None:
    with KernelWire(loss="1%", **{option: "0"}) as w:
        move(w, DATA[:500_000])


def test_what_we_echo_in_random_pieces_comes_back() -> None:
    chance = random.Random(7)
    with KernelWire(loss="1%") as w:
        fd, peer = w.pair()
        held = bytearray()

        def echo() -> bool:
            while len(held) < 1 << 16 and isinstance(part := w.recv(fd, chance.randint(1, 9_000)), bytes) and part:
                held.extend(part)
            n = w.send(fd, bytes(held[: chance.randint(1, 5_000)])) if held else EAGAIN
            del held[: max(n, 0)]
            return n > 0

        reader = Reader(peer.recv, lambda: chance.randint(1, 20_000))
        writer = Writer(peer.send, DATA[:400_000], size=lambda: chance.randint(1, 7_000))
        w.apps = [echo, reader, writer]
        assert w.until(lambda: len(reader.data) == 400_000)
        assert reader.data == DATA[:400_000]
        finish(w, fd, peer)


def test_our_window_closes_when_nobody_reads_and_opens_again() -> None:
    with KernelWire(keep=True) as w:
        fd, peer = w.pair()
        w.apps = [Writer(peer.send, DATA, lambda: peer.shutdown(socket.SHUT_WR))]
        w.run(0.7)
        ours = [Packet.parse(at, 0, packet) for at, outgoing, packet in w.seen.packets if outgoing]
        assert ours[-1].window == 0
        assert w.host.counter("TcpExt.TCPToZeroWindowAdv") == 1
        seen = len(w.seen.packets)
        # The kernel's window probes are answered, at most every tcp_invalid_ratelimit (0.5 s).
        assert w.until(lambda: any(outgoing for _, outgoing, _ in w.seen.packets[seen:]), 4)
        _, outgoing, probe = w.seen.packets[seen]
        assert not outgoing and Packet.parse(0, 0, probe).payload == b""
        reader = Reader(lambda n: w.recv(fd, n))
        w.apps.append(reader)
        assert w.until(lambda: reader.ended is not None)
        assert reader.data == DATA
        assert w.host.counter("TcpExt.TCPFromZeroWindowAdv") >= 1
        finish(w, fd, peer)


def test_we_probe_the_kernels_closed_window_and_go_on_when_it_reads() -> None:
    with KernelWire() as w:
        fd, peer = w.pair(rcvbuf=8_192)
        writer = Writer(lambda part: w.send(fd, part), DATA[:300_000], lambda: w.host.sys_shutdown(fd, 1, now=w.now))
        w.apps = [writer]
        w.run(1.5)
        assert w.states() == ["ESTABLISHED"]
        assert w.host.counter("TcpExt.TCPWinProbe") >= 2
        reader = Reader(peer.recv)
        w.apps.append(reader)
        assert w.until(lambda: reader.ended is not None)
        assert reader.data == DATA[:300_000]
        finish(w, fd, peer)


# ------------------------------------------------------------------------------------------ how it ends


def test_we_shut_down_and_go_on_reading() -> None:
    with KernelWire() as w:
        fd, peer = w.pair()
        assert w.host.sys_shutdown(fd, 1, now=w.now) == 0
        ended = Reader(peer.recv)
        w.apps = [ended]
        assert w.until(lambda: ended.ended == b"" and w.states() == ["FIN_WAIT2"])
        assert w.send(fd, b"x") == -errno.EPIPE
        reader = Reader(lambda n: w.recv(fd, n))
        w.apps = [reader, Writer(peer.send, DATA[:500_000], peer.close)]
        assert w.until(lambda: reader.ended is not None)
        assert reader.data == DATA[:500_000] and reader.ended == b""
        assert w.states() == ["TIME_WAIT"]


def test_the_kernel_shuts_down_and_we_go_on_sending() -> None:
    with KernelWire() as w:
        fd, peer = w.pair()
        peer.shutdown(socket.SHUT_WR)
        assert w.until(lambda: w.states() == ["CLOSE_WAIT"])
        assert w.recv(fd) == b""
        reader = Reader(peer.recv)
        w.apps = [reader, Writer(lambda part: w.send(fd, part), DATA[:500_000], lambda: w.close(fd))]
        assert w.until(lambda: reader.ended is not None)
        assert reader.data == DATA[:500_000]
        assert w.until(lambda: w.states() == [])
        assert w.host.next_timeout() is None


def test_both_close_at_once() -> None:
    with KernelWire(rtt_us=20_000) as w:
        fd, peer = w.pair()
        peer.close()
        w.close(fd)
        assert w.states() == ["FIN_WAIT1"]
        assert w.until(lambda: w.states() == ["TIME_WAIT"])


def test_closing_with_unread_data_resets_the_kernels_end() -> None:
    with KernelWire() as w:
        fd, peer = w.pair()
        peer.send(b"nobody reads this")
        assert w.until(lambda: w.poll(fd) & select.POLLIN)
        w.close(fd)
        assert w.states() == []
        w.run(0.05)
        assert peer.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNRESET


def test_linger_zero_resets_the_kernels_end() -> None:
    with KernelWire() as w:
        fd, peer = w.pair()
        w.option(fd, socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOW)
        w.send(fd, b"x" * 100_000)
        w.close(fd)
        assert w.states() == [] and not w.host.net.cold
        w.run(0.05)
        with pytest.raises(ConnectionResetError):
            while peer.recv(1 << 20):
                pass


def test_a_reset_in_the_middle_of_a_transfer_is_an_error_once() -> None:
    with KernelWire() as w:
        fd, peer = w.pair()
        writer = Writer(lambda part: w.send(fd, part), DATA)
        w.apps = [writer]
        w.run(0.2)
        peer.close()  # with unread data: RST
        assert w.until(lambda: writer.done)
        assert writer.error == -errno.ECONNRESET
        assert w.send(fd, b"x") == -errno.EPIPE and w.recv(fd) == b""
        w.close(fd)
        assert not w.host.net.cold and w.host.next_timeout() is None


def test_a_closed_port_refuses() -> None:
    with KernelWire() as w:
        fd = w.our_socket()
        address = struct.pack("=HHI8x", 2, socket.htons(9), int.from_bytes(socket.inet_aton(THEIRS), "little"))
        assert w.host.sys_connect(fd, address, now=w.now) == -errno.EINPROGRESS
        assert w.until(lambda: w.poll(fd) & WRITABLE)
        assert w.so_error(fd) == errno.ECONNREFUSED


def test_the_kernel_repeats_its_fin_and_our_time_wait_answers() -> None:
    with KernelWire() as w:
        fd, peer = w.pair()
        w.close(fd)
        assert w.until(lambda: w.states() == ["FIN_WAIT2"])
        answered: list[bytes] = []
        w.seen.refuse = lambda packet: len(answered) < 2 and not answered.append(packet)
        peer.close()
        assert w.until(lambda: len(answered) == 2)
        w.run(0.6)
        assert w.states() == ["TIME_WAIT"]
        assert w.host.next_timeout() is not None


def test_data_for_an_orphan_is_answered_by_a_reset() -> None:
    with KernelWire() as w:
        fd, peer = w.pair()
        w.close(fd)
        assert w.until(lambda: w.states() == ["FIN_WAIT2"])
        peer.send(b"for nobody")
        w.run(0.1)
        assert w.states() == []
        assert peer.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) in (errno.ECONNRESET, errno.EPIPE)


# ------------------------------------------------------------------------------------------ we listen


def our_listener(w: KernelWire, backlog: int = 16) -> int:
    fd = w.our_socket()
    address = struct.pack("=HHI8x", 2, socket.htons(PORT), 0)
    assert w.host.sys_bind(fd, address, now=w.now) == 0
    assert w.host.sys_listen(fd, backlog, now=w.now) == 0
    return fd


def kernel_connect(w: KernelWire) -> socket.socket:
    sock = w.kernel_socket()
    assert sock.connect_ex((OURS, PORT)) == errno.EINPROGRESS
    return sock


def accept(w: KernelWire, listener: int) -> int:
    found: list[int] = []

    def done() -> bool:
        fd = w.host.sys_accept(listener, 0o4000, now=w.now)
        if fd >= 0:
            found.append(fd)
        return bool(found)

    assert w.until(done)
    return found[0]


def test_the_kernel_connects_to_us_and_streams_both_ways() -> None:
    with KernelWire(loss="1%") as w:
        listener = our_listener(w)
        peer = kernel_connect(w)
        fd = accept(w, listener)
        here, there = Reader(lambda n: w.recv(fd, n)), Reader(peer.recv)
        w.apps = [
            here,
            there,
            Writer(peer.send, DATA[:300_000], lambda: peer.shutdown(socket.SHUT_WR)),
            Writer(lambda part: w.send(fd, part), DATA[300_000:600_000], lambda: w.host.sys_shutdown(fd, 1, now=w.now)),
        ]
        assert w.until(lambda: here.ended is not None and there.ended is not None)
        assert here.data == DATA[:300_000] and there.data == DATA[300_000:600_000]
        w.apps = []
        w.close(listener)
        finish(w, fd, peer)


def test_our_full_accept_queue_makes_the_kernel_wait() -> None:
    with KernelWire() as w:
        listener = our_listener(w, backlog=1)
        peers = [kernel_connect(w) for _ in range(4)]
        w.run(0.3)
        assert w.host.counter("TcpExt.ListenOverflows") > 0
        assert w.states().count("ESTABLISHED") == 2  # backlog + 1
        fds = [accept(w, listener) for _ in peers]
        assert w.states().count("ESTABLISHED") == 4
        for fd, peer in zip(fds, peers, strict=True):
            peer.close()
            w.close(fd)
        w.close(listener)


# ------------------------------------------------------------------------------------------ on the wire


def run_script(send: Any, recv: Any, until: Any) -> None:
    """What a client does, the same for the kernel's and for ours; the server reads all and sends 20,000 bytes."""
    send(b"GET / HTTP/1.1\r\n\r\n")
    until(0.15)
    send(DATA[:10_000])
    until(0.15)
    for _ in range(3):
        send(b"abc")
        until(0.02)
    until(0.1)
    recv()


def client_segments(packets: list[tuple[int, bool, bytes]]) -> list[tuple[Any, ...]]:
    """What identifies each data segment of the client: length, flags, order of options, TTL, DF."""
    parsed = [Packet.parse(at, 0, packet) for at, out, packet in packets if out]
    return [
        (len(p.payload), p.flags, [option[0] for option in p.options], p.ttl, p.df)
        for p in parsed
        if p.payload or "S" in p.flags
    ]


def test_our_segments_are_cut_pushed_and_labelled_as_the_kernels_are() -> None:
    with KernelWire(keep=True, rtt_us=4_000) as w:
        fd, peer = w.pair()
        w.apps = [Reader(peer.recv)]
        run_script(lambda data: w.send(fd, data), lambda: w.recv(fd), w.run)
        ours = list(w.seen.packets)
    with open_bridge(rtt_us=4_000) as bridge:
        client, server = bridge.pair()
        bridge.apps = [Reader(server.recv)]
        run_script(client.send, lambda: None, bridge.run)
        theirs = list(bridge.packets)
    assert client_segments(ours) == client_segments(theirs)


def test_sack_blocks_are_well_formed_and_timestamps_never_run_back() -> None:
    with KernelWire(loss="rx-data:5%", keep=True) as w:
        fd, peer = w.pair()
        reader = Reader(lambda n: w.recv(fd, n))
        w.apps = [reader, Writer(peer.send, DATA[:1_000_000], lambda: peer.shutdown(socket.SHUT_WR))]
        assert w.until(lambda: reader.ended is not None)
        ours = [Packet.parse(at, 0, packet) for at, out, packet in w.seen.packets if out]
    stamps = [option[1] for p in ours for option in p.options if option[0] == "ts"]
    assert stamps == sorted(stamps) and len(stamps) == len(ours)
    acks = [p.ack for p in ours[1:]]
    assert all((late - early) & 0xFFFFFFFF < 1 << 31 for early, late in pairwise(acks))
    sacks = [(p.ack, option[1:]) for p in ours for option in p.options if option[0] == "sack"]
    assert sacks
    for ack, blocks in sacks:
        assert 1 <= len(blocks) <= 3
        for i, (start, end) in enumerate(blocks):
            assert 0 < (end - start) & 0xFFFFFFFF < 1 << 31
            if i or (start - ack) & 0xFFFFFFFF < 1 << 31:  # the first may be a D-SACK
                assert 0 < (start - ack) & 0xFFFFFFFF < 1 << 31
        plain = sorted((start - ack) & 0xFFFFFFFF for start, _ in blocks)
        assert len(set(plain)) == len(plain)
