"""Directed histories: for each rule of the port order a few calls whose outcome tells whether the rule is kept.

Random histories meet most of it sooner or later; here it happens for sure.  Each episode has ports of its own
(`x.p` to `x.p` + 19) or all of WIDE, and all its sockets are closed after it.  Where chance decides whether a call
tells something, it is made so often that all of them fail to tell once in ten thousand runs at most.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.kernel.port_judge import world
from tests.kernel.port_judge.world import Options

WIDE = (39500, 40523)
FIRST_PORT, PORTS_EACH = 39600, 20
NUMBERS_EACH = 1000
PLAIN, SHARING, NO_PORT = Options(), Options(reuse=True), Options(no_port=True)
OFTEN = 24
# Destinations of world.py: two that answer, two that stay silent.
ANSWERS, ANSWERS_TOO, SILENT, SILENT_TOO = range(4)


class Player:
    """The calls of world.py by name; `step` makes one: (op, socket, args) -> outcome."""

    def __init__(self, step: Callable[[str, int, Any], int]) -> None:
        self.step = step
        self.p = FIRST_PORT
        self.base = 0
        self.open: dict[int, None] = {}

    def play(self, episode: Callable[[Player], None]) -> None:
        """One episode, and close() for what it leaves."""
        episode(self)
        for n in list(self.open):
            self.close(n)
        self.p += PORTS_EACH
        self.base += NUMBERS_EACH

    def socket(self, n: int, options: Options = PLAIN) -> None:
        self.open[n] = None
        self.step(world.SOCKET, self.base + n, options)

    def bind(self, n: int, who: str, port: int) -> int:
        return self.step(world.BIND, self.base + n, (who, port))

    def listen(self, n: int) -> int:
        return self.step(world.LISTEN, self.base + n, None)

    def connect(self, n: int, destination: int) -> int:
        return self.step(world.CONNECT, self.base + n, destination)

    def close(self, n: int) -> None:
        del self.open[n]
        self.step(world.CLOSE, self.base + n, None)

    def time_wait(self, n: int) -> None:
        del self.open[n]
        self.step(world.TIME_WAIT, self.base + n, None)

    def fin_wait2(self, n: int) -> None:
        del self.open[n]
        self.step(world.FIN_WAIT2, self.base + n, None)

    def age(self, ms: int) -> None:
        self.step(world.AGE, 0, ms)

    def until_rehash(self) -> None:
        """Up to 10 s."""
        self.step(world.AGE, 0, None)

    def set(self, name: str, value: object) -> None:
        self.step(world.SET, 0, ("net.ipv4." + name, str(value)))

    # -- what most episodes begin with

    def ports(self, low: int, high: int, reserved: str = "", reuse: int = 0, delay_ms: int = 60_000) -> None:
        """The range, and plain rules."""
        self.set("ip_local_port_range", f"{low} {high}")
        self.set("ip_local_reserved_ports", reserved or world.NO_PORTS)
        self.set("tcp_tw_reuse", reuse)
        self.set("tcp_tw_reuse_delay", delay_ms)
        self.set("tcp_timestamps", 1)
        self.set("ip_autobind_reuse", 0)

    def only_port(self, reserved: str = "", reuse: int = 0, delay_ms: int = 60_000) -> None:
        self.ports(self.p, self.p, reserved, reuse, delay_ms)

    def connected(self, n: int, destination: int, options: Options = PLAIN) -> int:
        self.socket(n, options)
        return self.connect(n, destination)

    def bound(self, n: int, who: str, port: int, options: Options = PLAIN) -> int:
        self.socket(n, options)
        return self.bind(n, who, port)

    def once(self, n: int, destination: int, options: Options = PLAIN) -> int:
        """Connected, and closed at once."""
        outcome = self.connected(n, destination, options)
        self.close(n)
        return outcome


# -- where a search begins, and how it goes on


def both_passes(x: Player) -> None:
    """Even offsets, then odd ones, then none: to the last port of a range of four."""
    x.ports(x.p, x.p + 3)
    for n in range(6):
        x.connected(n, SILENT)


def a_range_fills(x: Player) -> None:
    x.ports(x.p, x.p + 15)
    for destination in (SILENT, SILENT_TOO, ANSWERS):
        for n in range(17):
            x.connected(20 * destination + n, destination)


def an_odd_range_fills(x: Player) -> None:
    """Eleven ports, all but the lowest shut: only a search that begins there finds it.

    One that does not fails and leaves the start where it is; without shut ports the next shows where that was.
    """
    x.ports(x.p, x.p + 10)
    for n in range(10):
        destination = (SILENT, SILENT_TOO)[n % 2]
        x.set("ip_local_reserved_ports", f"{x.p + 1}-{x.p + 10}")
        x.once(n, destination)
        x.set("ip_local_reserved_ports", world.NO_PORTS)
        x.once(20 + n, destination)


# -- how the start moves


def searches_in_a_row(x: Player) -> None:
    """Room enough to see by how much each start is ahead of the last."""
    x.ports(*WIDE)
    for n in range(OFTEN):
        x.once(n, (SILENT, SILENT_TOO)[n % 2])


def with_and_without_a_range_of_its_own(x: Player) -> None:
    """The one moves the start by odd numbers too, the other has to make it even."""
    x.ports(*WIDE)
    for n in range(2 * OFTEN):
        x.once(n, SILENT, Options(range=WIDE) if n % 2 else PLAIN)


def failed_searches(x: Player) -> None:
    """A dozen of them between two that find a port."""
    x.ports(*WIDE)
    x.once(1, SILENT)
    x.bound(2, "first", x.p)
    x.only_port()
    x.socket(3)
    for _ in range(12):
        x.connect(3, SILENT)
    x.ports(*WIDE)
    x.once(4, SILENT)
    x.once(5, SILENT)


def a_walk_over_shut_ports(x: Player) -> None:
    """The next search begins behind the port found, though that is free again."""
    x.ports(*WIDE)
    for n in range(30):  # each is 4 to 18 further: one of them is far enough from the end
        port = x.once(n, SILENT)
        if WIDE[0] <= port < WIDE[1] - 100:
            break
    for k in range(30):
        x.bound(100 + k, "first", port + 2 + 2 * k)
    for n in range(50, 54):
        x.once(n, SILENT)


# -- ranges


def reserved_ports(x: Player) -> None:
    x.only_port(reserved=str(x.p))
    x.connected(1, SILENT)
    x.ports(x.p, x.p + 3, reserved=f"{x.p},{x.p + 3}")
    for n in range(2, 5):
        x.connected(n, SILENT)


def a_range_of_its_own(x: Player) -> None:
    x.ports(x.p, x.p + 15)
    for n in range(OFTEN):
        x.once(n, SILENT, Options(range=(x.p, x.p + 15)))


def a_range_of_its_own_reaches_too_far(x: Player) -> None:
    x.ports(x.p, x.p + 1)
    for n in range(3):
        x.connected(n, SILENT, Options(range=(x.p, 50_000)))


# -- buckets


def a_bound_port(x: Player) -> None:
    x.only_port()
    x.bound(1, "first", x.p)
    x.connected(2, SILENT)
    x.close(1)
    x.connect(2, SILENT)


def the_bound_one_leaves(x: Player) -> None:
    """The bucket heals, though it has another owner."""
    x.only_port()
    x.connected(1, SILENT, SHARING)
    x.bound(2, "first", x.p, SHARING)
    x.connected(3, SILENT_TOO)
    x.close(2)
    x.connect(3, SILENT_TOO)


def bound_without_a_port(x: Player) -> None:
    x.only_port()
    x.bound(1, "first", 0, NO_PORT)
    x.connect(1, SILENT)
    x.connected(2, SILENT_TOO)


def an_address_that_comes_later(x: Player, who: str = "any") -> None:
    """Bound for any address, then connected from one where connect() was first: the next that leaves opens the port."""
    x.only_port()
    x.connected(1, ANSWERS, SHARING)
    x.connected(2, ANSWERS_TOO, SHARING)
    x.bound(3, who, x.p, SHARING)
    x.connect(3, SILENT)
    x.connected(4, SILENT_TOO)
    x.close(2)
    x.connect(4, SILENT_TOO)
    x.connected(5, SILENT)
    x.connect(5, ANSWERS_TOO)
    x.close(1)


def an_address_that_was_there(x: Player) -> None:
    """The same, bound for that address: the port stays shut."""
    an_address_that_comes_later(x, "first")


def an_address_where_nobody_is(x: Player) -> None:
    """Those who are there connected from the other address: the port stays shut."""
    x.only_port()
    for n, destination in ((1, ANSWERS), (2, ANSWERS_TOO)):
        x.bound(n, "second", 0, Options(reuse=True, no_port=True))
        x.connect(n, destination)
    x.bound(3, "any", x.p, SHARING)
    x.connect(3, SILENT)
    x.close(2)
    x.connected(4, SILENT_TOO)


def an_address_that_somebody_bound(x: Player) -> None:
    """One who is there is from bind(): when it leaves, the one whose address came later keeps the port shut."""
    x.only_port()
    x.bound(1, "first", x.p, SHARING)
    x.connect(1, ANSWERS)
    x.bound(3, "any", x.p, SHARING)
    x.connect(3, SILENT)
    x.close(1)
    x.connected(4, SILENT_TOO)


def an_address_that_goes_again(x: Player) -> None:
    """The port has opened by then and stays open, until somebody calls bind()."""
    x.only_port()
    x.connected(1, ANSWERS, SHARING)
    x.connected(2, ANSWERS_TOO, SHARING)
    x.bound(3, "any", x.p, SHARING)
    x.connect(3, SILENT)
    x.close(2)
    x.step(world.UNCONNECT, x.base + 3, None)
    x.connected(4, SILENT_TOO, SHARING)
    x.close(4)
    x.connected(5, SILENT_TOO, SHARING)
    x.bound(6, "first", x.p, SHARING)
    x.close(6)
    x.connected(7, ANSWERS_TOO, SHARING)
    x.close(5)
    x.connect(7, ANSWERS_TOO)
    x.close(3)
    x.connect(7, ANSWERS_TOO)


def an_address_that_comes_back(x: Player) -> None:
    """To where nobody is by then: others may have the port, but not its 4-tuple, nor that of its TIME_WAIT."""
    x.only_port()
    x.connected(1, ANSWERS_TOO, SHARING)
    x.connected(2, SILENT_TOO, SHARING)
    x.bound(3, "any", x.p, SHARING)
    x.connect(3, SILENT)
    x.close(2)
    x.step(world.UNCONNECT, x.base + 3, None)
    x.close(1)
    x.connect(3, ANSWERS)
    x.connected(4, ANSWERS)
    x.connect(4, SILENT)
    x.time_wait(3)
    x.connected(5, ANSWERS)
    x.connect(5, SILENT_TOO)


def an_address_that_comes_back_and_listens(x: Player) -> None:
    """listen() shuts the port, and what leaves it open is gone with the listener."""
    x.only_port()
    x.connected(1, ANSWERS_TOO, SHARING)
    x.connected(2, SILENT_TOO, SHARING)
    x.bound(3, "any", x.p, SHARING)
    x.connect(3, SILENT)
    x.close(2)
    x.step(world.UNCONNECT, x.base + 3, None)
    x.connected(4, SILENT)
    x.close(4)
    x.close(1)
    x.listen(3)
    x.connected(5, SILENT)
    x.close(3)
    x.connect(5, SILENT)


def another_bind_after_the_address_came(x: Player) -> None:
    """It shuts the port for both: when it leaves, the other still keeps it."""
    x.only_port()
    x.connected(1, ANSWERS, SHARING)
    x.connected(2, ANSWERS_TOO, SHARING)
    x.bound(3, "any", x.p, SHARING)
    x.connect(3, SILENT)
    x.bound(5, "first", x.p, SHARING)
    x.close(5)
    x.connected(4, SILENT_TOO)
    x.close(2)
    x.connect(4, SILENT_TOO)


def its_time_wait_opens_the_port(x: Player, leave: Callable[[Player, int], None] = Player.time_wait) -> None:
    """The TIME_WAIT that takes its place counts as one that left."""
    x.only_port()
    x.connected(1, SILENT, SHARING)
    x.bound(3, "any", x.p, SHARING)
    x.connect(3, ANSWERS)
    x.connected(4, SILENT_TOO)
    leave(x, 3)
    x.connect(4, SILENT_TOO)


def its_fin_wait2_opens_the_port(x: Player) -> None:
    """The same for one that is closed before it is done."""
    its_time_wait_opens_the_port(x, Player.fin_wait2)


# -- 4-tuples


def one_port_for_all(x: Player) -> None:
    """Another port, host or source is another 4-tuple; the same again is refused."""
    x.only_port()
    for destination in (SILENT, SILENT_TOO, ANSWERS, ANSWERS_TOO):
        x.connected(destination, destination)
    x.bound(10, "second", 0, NO_PORT)
    x.connect(10, SILENT)
    x.connected(11, SILENT)


def a_device_first(x: Player) -> None:
    x.only_port()
    for n, device in enumerate(("v1", "", "v2", "v1")):
        x.connected(n, SILENT, Options(device=device))


def no_device_first(x: Player) -> None:
    x.only_port()
    for n, device in enumerate(("", "v1", "")):
        x.connected(n, SILENT, Options(device=device))


# -- TIME_WAIT


def a_young_time_wait(x: Player) -> None:
    x.only_port(reuse=1)
    x.connected(1, ANSWERS)
    x.time_wait(1)
    x.connected(2, ANSWERS)


def an_old_time_wait(x: Player) -> None:
    x.only_port(reuse=1, delay_ms=1)
    x.connected(1, ANSWERS)
    x.time_wait(1)
    x.age(5)
    x.connected(2, ANSWERS)


def a_time_wait_without_timestamps(x: Player) -> None:
    x.only_port(reuse=1, delay_ms=1)
    x.set("tcp_timestamps", 0)
    x.connected(1, ANSWERS)
    x.time_wait(1)
    x.age(5)
    x.connected(2, ANSWERS)


def a_time_wait_in_a_bound_sockets_way(x: Player) -> None:
    """It takes it over at once, where one that searches has to wait."""
    x.only_port(reuse=1)
    x.bound(1, "first", x.p, SHARING)
    x.connect(1, ANSWERS)
    x.time_wait(1)
    x.bound(2, "first", x.p, SHARING)
    x.connect(2, ANSWERS)
    x.close(2)
    x.connected(3, ANSWERS_TOO)


# -- bind()


def a_port_found_by_bind(x: Player) -> None:
    """Odd offsets first."""
    x.ports(x.p, x.p + 7)
    for n in range(9):
        x.bound(n, "first", 0)


def sharing_by_one_side(x: Player) -> None:
    x.only_port()
    x.bound(1, "first", x.p, SHARING)
    x.bound(2, "first", x.p)
    x.bound(3, "first", x.p, SHARING)
    x.close(1)
    x.close(3)
    x.bind(2, "first", x.p)
    x.bound(4, "first", x.p, SHARING)


def a_listener(x: Player) -> None:
    x.only_port()
    x.bound(1, "first", x.p, SHARING)
    x.listen(1)
    x.bound(2, "first", x.p, SHARING)


def two_addresses(x: Player) -> None:
    x.only_port()
    x.bound(1, "first", x.p)
    x.bound(2, "second", x.p)
    x.bound(3, "any", x.p)


# -- calls that the state of a socket does not allow


def out_of_turn(x: Player) -> None:
    x.ports(*WIDE)
    x.connected(1, SILENT)
    x.connect(1, SILENT)
    x.listen(1)
    x.bind(1, "first", x.p)


# -- time; the last, as it waits


def over_a_rehash(x: Player) -> None:
    """Each destination right before and right after it, from both sources: eight starts are lost."""
    x.ports(*WIDE)
    for part in range(2):
        for n in range(8):
            x.socket(n + 10 * part, NO_PORT)
            x.bind(n + 10 * part, ("first", "second")[n // 4], 0)
            x.connect(n + 10 * part, n % 4)
            x.close(n + 10 * part)
        if part == 0:
            x.until_rehash()


EPISODES = (
    both_passes, a_range_fills, an_odd_range_fills, searches_in_a_row, with_and_without_a_range_of_its_own,
    failed_searches, a_walk_over_shut_ports, reserved_ports, a_range_of_its_own, a_range_of_its_own_reaches_too_far,
    a_bound_port, the_bound_one_leaves, bound_without_a_port, an_address_that_comes_later, an_address_that_was_there,
    an_address_where_nobody_is, an_address_that_somebody_bound, an_address_that_goes_again,
    an_address_that_comes_back, an_address_that_comes_back_and_listens, another_bind_after_the_address_came,
    its_time_wait_opens_the_port, its_fin_wait2_opens_the_port, one_port_for_all, a_device_first, no_device_first,
    a_young_time_wait, an_old_time_wait, a_time_wait_without_timestamps, a_time_wait_in_a_bound_sockets_way,
    a_port_found_by_bind, sharing_by_one_side, a_listener, two_addresses, out_of_turn, over_a_rehash,
)  # fmt: skip
