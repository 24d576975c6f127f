"""Two of our own Hosts, one on each side: streams through a bad wire, the life of a connection to the microsecond."""

from __future__ import annotations

import errno
import fcntl
import random
import socket
import struct
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fourtuple.sock.wait import PENDING
from tests.tcp.joined_hosts import EAGAIN, START_US, End, Joined
from tests.tcp.kernel_wire import Reader, Writer

S = 1_000_000
POLLOUT = 4
OLD_STYLE = ("tcp_sack", "tcp_timestamps", "tcp_window_scaling")


# ------------------------------------------------------------------------------------------ streams


@pytest.mark.parametrize("said", [b"", b"last words"])
def test_a_sleeping_recv_is_woken_by_the_end_of_the_stream(said: bytes) -> None:
    joined = Joined(seed=1, delay_us=1_000)
    ours, theirs = joined.pair()
    assert ours.host.sys_fcntl(ours.fd, fcntl.F_SETFL, 0) == 0  # blocking
    asleep = ours.host.sys_recv(ours.fd, 100, socket.MSG_WAITALL, now=joined.now)
    if said:
        theirs.send(said)
    joined.run(seconds=1)
    assert asleep.poll(joined.now) is PENDING
    theirs.shutdown()
    joined.run(seconds=1)
    assert asleep.poll(joined.now) == said
    assert ours.recv() == b""  # and again


@given(st.integers(0, 1 << 32))
@settings(max_examples=60)
def test_both_streams_arrive_whole_and_nothing_is_left_behind(seed: int) -> None:
    chance = random.Random(seed)
    old = {name: "0" for name in OLD_STYLE if chance.random() < 0.2}
    small = {"tcp_rmem": "4096 8192 16384", "tcp_wmem": "4096 4096 16384"}
    joined = Joined(
        seed=seed,
        # Without SACK or timestamps a retransmission lost again costs a timeout that grows to two minutes (Karn).
        loss=chance.choice([0] if "tcp_sack" in old or "tcp_timestamps" in old else [0, 0.02, 0.1]),
        double=chance.choice([0, 0.05, 0.3]),
        delay_us=chance.choice([10, 1_000, 20_000, 200_000]),
        jitter_us=chance.choice([0, 0, 100, 5_000, 50_000]),
        mtu=chance.choice([1500, 1500, 576, 100]),
        sysctls=(old, small if chance.random() < 0.3 else {}),
    )
    ends = joined.pair()
    data = [chance.randbytes(chance.choice([0, 1, 1_000, 30_000])) for _ in ends]
    readers = []
    for end, out in zip(ends, data, strict=True):
        if chance.random() < 0.5:
            end.option(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        chunk = chance.choice([100, 700, 5_000, 1 << 20])
        readers.append(Reader(slow(joined, end, chance) if chance.random() < 0.3 else end.recv))
        joined.apps += [readers[-1], Writer(end.send, out, end.shutdown, lambda n=chunk: chance.randint(1, n))]
    for _ in range(10_000):
        if joined.run(lambda: all(reader.ended is not None for reader in readers), 0.5):
            break
    assert [reader.ended for reader in readers] == [b"", b""]
    assert readers[0].data == data[1] and readers[1].data == data[0]
    joined.apps = []
    for end in ends:
        end.close()
    joined.run(seconds=300)
    assert joined.leftovers() == []


def slow(joined: Joined, end: End, chance: random.Random):  # type: ignore[no-untyped-def]
    """A recv() that mostly says that it has no time."""
    ready = 0

    def recv(size: int) -> bytes | int:
        nonlocal ready
        if joined.now < ready:
            return EAGAIN
        data: bytes | int = end.recv(chance.randrange(1, 30_000))
        if data != EAGAIN:
            ready = joined.now + chance.choice([0, 1_000, 300_000, 3_000_000])
        return data

    return recv


def test_small_segments_that_are_lost_are_sent_again_joined() -> None:
    """The retransmission takes the following small segments along, which must not be sent once more themselves."""
    joined = Joined(seed=3, loss=0.1)
    a, b = joined.pair()
    a.option(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    data = random.Random(3).randbytes(20_000)
    reader = Reader(b.recv)
    joined.apps = [reader, Writer(a.send, data, a.shutdown, lambda: 50)]
    assert joined.run(lambda: reader.ended is not None, 600)
    assert reader.data == data


@pytest.mark.parametrize("seed", range(4))
def test_without_sack_duplicates_never_count_for_more_than_is_in_flight(seed: int) -> None:
    joined = Joined(seed=seed, loss=0.05, sysctls=({"tcp_sack": "0"}, {}))
    a, b = joined.pair()
    data = random.Random(seed).randbytes(200_000)
    reader = Reader(b.recv)

    def counts_are_sane() -> bool:
        for cold in joined.client.net.cold.values():
            assert cold.sacked_out + cold.lost_out <= len(cold.rtx)
        return False

    joined.apps = [reader, Writer(a.send, data, a.shutdown), counts_are_sane]
    assert joined.run(lambda: reader.ended is not None, 3_000)
    assert reader.data == data


def test_a_selective_acknowledgement_alone_gives_a_round_trip_and_ends_the_backoff() -> None:
    joined = Joined(delay_us=10_000, sysctls=({"tcp_timestamps": "0"}, {}))
    a, _ = joined.pair()
    net = joined.client.net
    joined.drop = lambda host, packet: host is joined.client
    assert a.send(b"x" * 1460) == 1460
    joined.run(seconds=5)  # a few timeouts
    sk = next(iter(net.cold))
    assert net.sks.rto[sk] > 3 * S
    first = net.cold[sk].rtx[0].seq
    joined.drop = lambda host, packet: host is joined.client and int.from_bytes(packet[24:28], "big") == first
    net.sks.snd_cwnd[sk] = 10
    assert a.send(b"y" * 1460) == 1460
    joined.run(seconds=0.1)
    assert net.cold[sk].sacked_out == 1
    assert net.sks.rto[sk] < 1 * S and net.sks.backoff[sk] == 0


# ------------------------------------------------------------------------------------------ the peer is silent


def lost_peer(joined: Joined) -> None:
    joined.drop = lambda host, packet: True


def when_it_ends(joined: Joined, end: End, seconds: float = 4_000) -> float:
    """Seconds until poll() says that the connection is over."""
    begin = joined.now
    assert joined.run(lambda: end.states() == [], seconds)
    return (joined.now - begin) / S


def test_data_without_an_answer_is_given_up_after_tcp_retries2() -> None:
    joined = Joined(delay_us=100, sysctls=({"tcp_retries2": "5"}, {}))
    a, _ = joined.pair()
    joined.run(seconds=1)
    joined.keep = True
    lost_peer(joined)
    a.send(b"x")
    took = when_it_ends(joined, a)
    assert a.error() == errno.ETIMEDOUT
    times = [(at - joined.sent[0][0]) / S for at, host, _ in joined.sent if host is joined.client]
    gaps = [round(late - early, 2) for early, late in pairwise(times[1:])]
    assert all(late == pytest.approx(2 * early, rel=0.02) for early, late in pairwise(gaps[1:]))
    # Over when 0.2 s * 63 have passed since the first retransmission: the fifth doubling ends just short of that.
    assert took == pytest.approx(0.2 + 0.2 * 126, abs=0.7)
    assert joined.client.counter("TcpExt.TCPAbortOnTimeout") == 1
    assert a.recv() == b"" and a.send(b"x") == -errno.EPIPE


def test_the_default_is_given_up_after_the_fifteenth_retransmission() -> None:
    joined = Joined(delay_us=100)
    a, _ = joined.pair()
    joined.run(seconds=1)
    lost_peer(joined)
    a.send(b"x")
    # 0.2 s doubling to 120 s: 0.2 * (2^10 - 1) + 6 * 120 s = 924.6 s (ip-sysctl.rst)
    assert when_it_ends(joined, a) == pytest.approx(924.6, abs=25)
    assert a.error() == errno.ETIMEDOUT


def test_user_timeout_ends_an_established_connection_to_the_millisecond() -> None:
    joined = Joined(delay_us=100)
    a, _ = joined.pair()
    joined.run(seconds=1)
    a.option(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 3_000)
    lost_peer(joined)
    a.send(b"x")
    # counted from the first retransmission, which comes 0.2 s after the segment
    assert when_it_ends(joined, a) == pytest.approx(3.2, abs=0.25)
    assert a.error() == errno.ETIMEDOUT


def test_keepalive_probes_and_then_gives_up() -> None:
    joined = Joined(delay_us=100)
    a, _ = joined.pair()
    joined.run(seconds=1)
    for name, value in ((socket.TCP_KEEPIDLE, 10), (socket.TCP_KEEPINTVL, 3), (socket.TCP_KEEPCNT, 4)):
        a.option(socket.IPPROTO_TCP, name, value)
    a.option(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    begin = joined.now
    joined.run(seconds=35)
    assert a.states() == ["ESTABLISHED"]
    lost_peer(joined)
    joined.keep = True
    assert joined.run(lambda: a.states() == [], 100)
    sent = [round((at - begin) / S) for at, host, _ in joined.sent if host is joined.client]
    first = sent[0]
    assert sent == [first, first + 3, first + 6, first + 9, first + 12]  # four probes, then a RST
    assert a.error() == errno.ETIMEDOUT
    assert joined.client.counter("TcpExt.TCPKeepAlive") >= 4


def test_user_timeout_ends_a_connection_to_a_window_that_stays_closed() -> None:
    """The peer answers every probe, and never reads."""
    joined = Joined(delay_us=100, sysctls=({}, {"tcp_rmem": "4096 8192 16384"}))
    a, _ = joined.pair()
    a.option(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 5_000)
    while a.send(b"x" * 10_000) > 0:
        joined.run(seconds=0.01)
    took = when_it_ends(joined, a, 100)
    assert 4 < took < 9
    assert a.error() == errno.ETIMEDOUT


def test_a_window_that_stays_closed_is_probed_for_ever_while_the_peer_answers() -> None:
    joined = Joined(delay_us=100, sysctls=({}, {"tcp_rmem": "4096 8192 16384"}))
    a, b = joined.pair()
    data = bytes(range(256)) * 400
    writer = Writer(a.send, data, a.shutdown)
    joined.apps = [writer]
    joined.run(seconds=4_000)
    assert a.states() == ["ESTABLISHED"]
    joined.keep = True
    joined.run(seconds=1_000)
    probes = [at for at, host, _ in joined.sent if host is joined.client]
    assert len(probes) >= 8
    assert {late - early for early, late in pairwise(probes[1:])} == {120 * S + 200}  # 120 s after each answer
    reader = Reader(b.recv)
    joined.apps.append(reader)
    assert joined.run(lambda: reader.ended is not None, 600)
    assert reader.data == data


# ------------------------------------------------------------------------------------------ the end


def test_fin_wait2_of_an_orphan_ends_after_tcp_fin_timeout() -> None:
    joined = Joined()
    a, b = joined.pair()
    a.close()
    joined.run(seconds=1)
    assert a.states() == ["FIN_WAIT2"] and b.states() == ["CLOSE_WAIT"]
    joined.run(seconds=58)
    assert a.states() == ["FIN_WAIT2"]
    joined.run(seconds=2)
    assert a.states() == []
    assert b.send(b"late") == 4  # the port is nobody's any more: RST
    joined.run(seconds=1)
    assert b.states() == [] and b.send(b"x") == -errno.EPIPE
    b.close()
    joined.run(seconds=1)
    assert joined.leftovers() == []


def test_fin_wait2_of_a_socket_that_is_still_open_never_ends() -> None:
    joined = Joined()
    a, b = joined.pair()
    a.shutdown()
    joined.run(seconds=10_000)
    assert a.states() == ["FIN_WAIT2"]
    assert b.send(b"still here") == 10
    joined.run(seconds=1)
    assert a.recv() == b"still here"
    b.close()
    joined.run(seconds=1)
    assert a.recv() == b"" and a.states() == ["TIME_WAIT"]


def test_time_wait_answers_a_second_fin_and_lasts_sixty_seconds_from_then() -> None:
    joined = Joined()
    a, b = joined.pair()
    a.close()
    joined.run(seconds=1)
    b.close()
    joined.keep = True
    joined.run(seconds=1)
    fin = next(packet for _, host, packet in joined.sent if host is joined.server and packet[33] & 1)
    assert a.states() == ["TIME_WAIT"] and b.states() == []
    joined.run(seconds=30)
    joined.sent.clear()
    joined.drop = lambda host, packet: host is joined.server  # where nobody knows the connection: RST would end it
    joined.client.receive_packet(fin, joined.now)
    again = joined.now
    joined.run(seconds=1)
    answers = [packet for _, host, packet in joined.sent if host is joined.client]
    assert len(answers) == 1 and answers[0][33] == 0x10
    assert joined.run(lambda: a.states() == [], 100)
    assert joined.now - again == 60 * S
    assert joined.leftovers() == []


def test_both_ends_close_at_once() -> None:
    joined = Joined()
    a, b = joined.pair()
    a.close()
    b.close()
    assert a.states() == b.states() == ["FIN_WAIT1"]
    joined.run(seconds=0.007)
    assert a.states() == b.states() == ["CLOSING"]
    joined.run(seconds=1)
    assert a.states() == b.states() == ["TIME_WAIT"]
    joined.run(seconds=61)
    assert joined.leftovers() == []


def test_the_last_fin_is_sent_again_until_it_is_acknowledged() -> None:
    joined = Joined()
    a, b = joined.pair()
    a.close()
    joined.run(seconds=1)
    lost = []

    def drop(host: object, packet: bytes) -> bool:
        if host is joined.server and packet[33] & 1 and len(lost) < 3:
            lost.append(packet)
            return True
        return False

    joined.drop = drop  # type: ignore[assignment]
    b.close()
    assert b.states() == ["LAST_ACK"]
    joined.run(seconds=5)
    assert len(lost) == 3 and b.states() == [] and a.states() == ["TIME_WAIT"]


def test_an_orphan_whose_peer_is_silent_ends_and_leaves_nothing() -> None:
    joined = Joined()
    a, b = joined.pair()
    lost_peer(joined)
    a.send(b"x" * 100_000)
    a.close()
    b.close()
    joined.run(seconds=300)
    assert joined.leftovers() == []


def test_linger_zero_resets() -> None:
    joined = Joined()
    a, b = joined.pair()
    a.send(b"x")
    a.option(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    a.close()
    joined.run(seconds=1)
    assert b.error() == errno.ECONNRESET
    b.close()
    assert joined.leftovers() == []


# ------------------------------------------------------------------------------------------ listening


def test_a_full_accept_queue_keeps_clients_waiting_and_lets_them_in_later() -> None:
    joined = Joined(delay_us=100)
    listener = joined.listen(backlog=1)
    ends = [joined.connect() for _ in range(5)]
    joined.run(seconds=0.5)
    assert joined.server.counter("TcpExt.ListenOverflows") > 0
    accepted: list[int] = []

    def accept() -> bool:
        fd = joined.server.sys_accept(listener.fd, 0o4000, now=joined.now)
        if fd >= 0:
            accepted.append(fd)
        return bool(fd >= 0)

    joined.apps = [accept]
    assert joined.run(lambda: len(accepted) == 5, 60)
    assert all(end.poll() & POLLOUT and end.error() == 0 for end in ends)
    for fd in accepted:
        End(joined, joined.server, fd).close()
    for end in [*ends, listener]:
        end.close()
    joined.run(seconds=200)
    assert joined.leftovers() == []


def test_closing_a_listener_resets_those_who_wait_in_its_queues() -> None:
    joined = Joined(delay_us=100)
    listener = joined.listen()
    ends = [joined.connect() for _ in range(3)]
    joined.run(seconds=0.5)
    listener.close()
    joined.run(seconds=1)
    assert [end.error() for end in ends] == [errno.ECONNRESET] * 3
    for end in ends:
        end.close()
    joined.run(seconds=10)
    assert joined.leftovers() == []


def test_requests_that_are_never_completed_are_forgotten() -> None:
    joined = Joined(delay_us=100)
    listener = joined.listen()
    joined.drop = lambda host, packet: host is joined.server
    end = joined.connect()
    joined.run(seconds=300)
    assert end.error() == errno.ETIMEDOUT
    assert not joined.server.net.requests
    end.close()
    listener.close()
    joined.run(seconds=1)
    assert joined.leftovers() == []
    assert joined.now > START_US
