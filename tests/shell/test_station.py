"""Station and PollRunner: what a device refuses waits and is offered again in order; sleeping until a timer is due."""

from __future__ import annotations

from typing import Any

import pytest

from fourtuple.address import parse_ipv4
from fourtuple.host import Host
from fourtuple.shell import loop
from fourtuple.shell.loop import PollRunner, Station

PEER = parse_ipv4("10.9.0.2")


class Narrow:
    """A device that takes `room` packets and then no more."""

    name, mtu = "tun0", 1500

    def __init__(self, room: int, fd: int | None = None) -> None:
        self.room = room
        self.fd = fd
        self.taken: list[bytes] = []

    def fileno(self) -> int | None:
        return self.fd

    def read_batch(self, ring: Any, offsets: Any, lengths: Any, max_packets: int) -> int:
        return 0

    def write_batch(self, buf: Any, offsets: Any, lengths: Any, n: int) -> int:
        n = min(n, self.room)
        self.room -= n
        self.taken += [bytes(buf[offsets[i] : offsets[i] + lengths[i]]) for i in range(n)]
        return n

    def close(self) -> None:
        pass


def make_station(room: int) -> tuple[Host, Narrow, Station]:
    host, device = Host(), Narrow(room)
    host.add_link(device.name, addrs=("10.9.0.1/24",))
    return host, device, Station(host, device)


def test_a_station_is_blocked_while_its_device_refuses_packets() -> None:
    host, device, station = make_station(room=3)
    host.connect_many(PEER, 80, 5, [0] * 5)
    assert station.is_waiting
    assert station.pump(0)
    assert (len(device.taken), station.is_blocked, station.is_waiting) == (3, True, False)
    assert not station.pump(0)  # still refused: nothing moves, so nobody may spin on it
    device.room = 10
    assert station.pump(0)
    assert (len(device.taken), station.is_blocked) == (5, False)


def test_packets_sent_while_the_device_was_full_follow_the_refused_ones() -> None:
    host, device, station = make_station(room=1)
    host.connect_many(PEER, 80, 2, [0] * 2)
    station.pump(0)
    host.connect_many(PEER, 81, 1, [0])
    device.room = 10
    station.pump(0)
    ports = [int.from_bytes(packet[22:24], "big") for packet in device.taken]
    assert ports == [80, 80, 81]


@pytest.mark.parametrize(("left_us", "asked_us"), [(40_000, 40_000), (1_000_000, 998_000), (131_000_000, 130_738_000)])
def test_a_long_sleep_leaves_a_rest_for_a_short_one_that_is_not_late(
    monkeypatch: pytest.MonkeyPatch, left_us: int, asked_us: int
) -> None:
    asked = []
    monkeypatch.setattr(loop.select, "select", lambda r, w, x, timeout: asked.append(timeout))
    runner = PollRunner(Host(), Narrow(0, fd=0))
    monkeypatch.setattr(runner, "now_us", lambda: 5)
    assert runner.sleep_until(5 + left_us)
    assert asked == [pytest.approx(asked_us / 1e6)]


def test_a_timer_that_is_run_late_on_a_real_wire_sends_with_the_time_it_is() -> None:
    host = Host()
    host.add_link("tun0", addrs=("10.9.0.1/24",))
    (station,) = PollRunner(host, Narrow(10, fd=0)).stations
    host.connect_many(PEER, 80, 1, [0])
    station.pump(0)
    station.pump(1_200_000)
    first, second = (int.from_bytes(packet[48:52], "big") for packet in station.device.taken)
    assert second - first == 1200
