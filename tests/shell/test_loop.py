"""The blocking drivers: calls that sleep until they are over, in real time and in simulated time."""

from __future__ import annotations

import errno
import struct

import pytest

from fourtuple.phy.fault import parse_loss
from fourtuple.phy.memory import memory_pair
from fourtuple.shell.loop import PollRunner
from fourtuple.shell.wires import (
    OUR_ADDRESS,
    PEER_ADDRESS,
    SIM_RTT_US,
    Setup,
    Wire,
    WireUnavailable,
    can_be_a_peer,
    open_sim,
    open_tun,
)
from fourtuple.sock.option_kinds import SOL_SOCKET
from fourtuple.sock.sol_socket import SO_RCVTIMEO

SERVER = (PEER_ADDRESS, 8080)
REQUEST = b"GET / HTTP/1.1\r\n\r\n"


def connected(wire: Wire) -> int:
    """A descriptor that is connected to the server."""
    fd = wire.runner.socket()
    assert wire.runner.connect(fd, SERVER) == 0
    return fd


def read_all(wire: Wire, fd: int) -> bytes:
    """Everything up to the end of the stream."""
    found = b""
    while data := wire.runner.recv(fd):
        assert isinstance(data, bytes)
        found += data
    return found


def test_connect_sleeps_for_one_round_trip_of_simulated_time() -> None:
    wire = open_sim(Setup())
    before = wire.runner.now_us()
    connected(wire)
    assert wire.runner.now_us() - before == SIM_RTT_US


def test_a_server_answers_many_clients_one_after_the_other() -> None:
    wire = open_sim(Setup())
    for number in range(1, 4):
        fd = connected(wire)
        assert wire.runner.send(fd, REQUEST) == len(REQUEST)
        assert read_all(wire, fd).endswith(f"request {number}.\n".encode())
        assert wire.runner.close(fd) == 0


def test_a_large_send_waits_for_room() -> None:
    wire = open_sim(Setup())
    fd = connected(wire)
    data = b"x" * 3_000_000
    assert wire.runner.send(fd, data) == len(data)


def test_receive_timeout_is_kept_to_the_microsecond() -> None:
    wire = open_sim(Setup())
    fd = connected(wire)
    wire.host.sys_setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, struct.pack("=qq", 1, 500_000))
    before = wire.runner.now_us()
    assert wire.runner.recv(fd) == -errno.EAGAIN
    assert wire.runner.now_us() - before == 1_500_000


def test_a_call_that_would_sleep_for_ever_says_so() -> None:
    wire = open_sim(Setup())
    fd = connected(wire)
    assert wire.runner.recv(fd) == -errno.EDEADLK


def test_run_until_stops_at_its_deadline() -> None:
    wire = open_sim(Setup())
    start = wire.runner.now_us()
    assert not wire.runner.run_until(lambda: False, start + 12_345)
    assert wire.runner.now_us() == start + 12_345


def test_a_lost_handshake_takes_its_retransmissions() -> None:
    wire = open_sim(Setup(loss=parse_loss("syn:1-2")))
    before = wire.runner.now_us()
    connected(wire)
    assert wire.runner.now_us() - before == 2_000_000 + SIM_RTT_US
    assert [packet.lost for packet in wire.tap.packets if packet.outgoing][:3] == ["syn:1-2", "syn:1-2", ""]


def test_equal_seeds_give_equal_packets() -> None:
    def run(seed: int) -> list[bytes]:
        wire = open_sim(Setup(seed=seed))
        connected(wire)
        return [packet.data for packet in wire.tap.packets]

    assert run(1) == run(1)
    assert run(1) != run(2)


@pytest.mark.parametrize("address", ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255", OUR_ADDRESS])
def test_some_addresses_are_nobody_elses(address: str) -> None:
    assert not can_be_a_peer(address)


def test_a_device_without_a_descriptor_cannot_be_waited_for() -> None:
    wire = open_sim(Setup())
    with pytest.raises(ValueError, match="no descriptor"):
        PollRunner(wire.host, memory_pair()[0])


# ------------------------------------------------------------------------------------------------ the real wire


def open_real(setup: Setup) -> Wire:
    """A TUN wire; the test is skipped where there is none."""
    try:
        return open_tun(setup)
    except WireUnavailable as error:
        pytest.skip(f"no TUN here: {error.strerror}")


def test_the_kernels_server_answers_over_a_tun() -> None:
    with open_real(Setup()) as wire:
        fd = connected(wire)
        assert wire.runner.send(fd, REQUEST + b"Connection: close\r\n\r\n") > 0
        assert wire.runner.recv(fd)
        assert wire.runner.close(fd) == 0


def test_a_round_trip_can_be_made_longer_on_a_tun() -> None:
    with open_real(Setup(rtt_us=20_000)) as wire:
        before = wire.runner.now_us()
        connected(wire)
        assert wire.runner.now_us() - before >= 20_000


def test_a_closed_port_of_the_kernel_refuses() -> None:
    with open_real(Setup()) as wire:
        assert wire.runner.connect(wire.runner.socket(), (PEER_ADDRESS, 9)) == -errno.ECONNREFUSED


def test_what_a_call_that_is_tried_again_sends_leaves_before_the_driver_sleeps() -> None:
    wire = open_sim(Setup())
    fd = connected(wire)
    wire.runner.pump()
    before, packets = wire.runner.now_us(), len(wire.tap.packets)

    def tried_again() -> bool:
        if wire.runner.now_us() == before and len(wire.tap.packets) == packets:
            wire.host.sys_send(fd, b"x", now=before)
        return False

    wire.runner.run_until(tried_again, before + 1_000)
    assert [packet.time_us for packet in wire.tap.packets[packets:]] == [before]
