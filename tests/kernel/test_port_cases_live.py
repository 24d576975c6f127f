"""Rules that the port judge found the engine to have wrong, each as a scenario of a few calls.

The calls are made on the live kernel and on the engine; what is expected was seen on 6.18.
"""

from __future__ import annotations

import errno
import time
from typing import Any

import pytest

from tests.kernel.netns import in_namespace, needs_kernel
from tests.kernel.port_judge.engine import Engine
from tests.kernel.port_judge.kernel import Kernel
from tests.kernel.port_judge.world import SET, History, Line, Options

ADDRNOTAVAIL, ADDRINUSE = -errno.EADDRNOTAVAIL, -errno.EADDRINUSE
P = 40000
SHARING = Options(reuse=True)


class OnKernel(Kernel):
    def sleep(self, ms: int) -> None:
        time.sleep(ms / 1000)


class OnEngine(Engine):
    now_us = 1_000_000

    def __init__(self, history: History) -> None:
        super().__init__(History(history.seed, history.net, 0, [Line(SET, 0, None, 0, self.now_us, self.now_us)]))

    def sleep(self, ms: int) -> None:
        self.now_us += ms * 1000
        self.at(self.now_us)


def only_port(x: Any, timestamps: int = 1, delay_ms: int = 50) -> None:
    x.set("net.ipv4.ip_local_port_range", f"{P} {P}")
    x.set("net.ipv4.tcp_tw_reuse", "1")
    x.set("net.ipv4.tcp_tw_reuse_delay", str(delay_ms))
    x.set("net.ipv4.tcp_timestamps", str(timestamps))


def connected(x: Any, n: int, destination: int, options: Options = Options()) -> int:  # noqa: B008  immutable
    x.socket(n, options)
    return x.connect(n, destination)


def refused_listen(x: Any) -> list[int]:
    """listen() fails, and the port that bind(addr, 0) found stays the socket's: connect() cannot have it."""
    only_port(x)
    x.socket(1, SHARING)
    x.socket(2, SHARING)
    answers = [x.bind(1, "first", 0), x.bind(2, "first", P), x.listen(2), x.listen(1)]
    x.close(2)
    return [*answers, connected(x, 3, 2), x.listen(1)]


def time_wait_of_a_bound_socket(x: Any) -> list[int]:
    """It leaves one owner behind in the bucket; taken over, it leaves none."""
    only_port(x)
    x.socket(1, SHARING)
    answers = [x.bind(1, "first", P), x.connect(1, 0), x.time_wait(1)]
    x.socket(2, SHARING)
    answers += [x.bind(2, "first", P), x.connect(2, 0), x.close(2)]
    return [*answers, connected(x, 3, 1)]


def fin_without_timestamp(x: Any) -> list[int]:
    """A FIN renews a FIN_WAIT2 row only with a timestamp: here there is none, though the row says there was one."""
    only_port(x)
    answers = [connected(x, 1, 0), x.time_wait(1)]
    x.sleep(60)
    x.set("net.ipv4.tcp_timestamps", "0")
    answers += [connected(x, 2, 0), x.fin_wait2(2)]
    x.sleep(60)
    return [*answers, x.finish(2), connected(x, 3, 0)]


def timestamps_switched_off(x: Any) -> list[int]:
    """A FIN_WAIT2 row looks for timestamps when the sysctl says so, whatever was agreed on."""
    only_port(x)
    answers = [connected(x, 1, 0), x.fin_wait2(1)]
    x.sleep(60)
    x.set("net.ipv4.tcp_timestamps", "0")
    return [*answers, x.finish(1), connected(x, 2, 0)]


def fin_with_timestamp(x: Any) -> list[int]:
    """The usual case: from the FIN on the row has to ripen anew."""
    only_port(x)
    answers = [connected(x, 1, 0), x.fin_wait2(1)]
    x.sleep(60)
    answers += [x.finish(1), connected(x, 2, 0)]
    x.sleep(60)
    return [*answers, x.connect(2, 0)]


def wildcard_bind_after_connect(x: Any, who: str = "any") -> list[int]:
    """Bound for any address, then connected from one where connect() was first: the next that leaves opens the port."""
    only_port(x)
    answers = [connected(x, 1, 0, SHARING), connected(x, 2, 1, SHARING)]
    x.socket(3, SHARING)
    answers += [x.bind(3, who, P), x.connect(3, 2), connected(x, 4, 3)]
    x.close(2)
    return [*answers, x.connect(4, 3)]


def bind_of_the_address_after_connect(x: Any) -> list[int]:
    """The same, bound for that address: the port stays shut."""
    return wildcard_bind_after_connect(x, "first")


def an_address_that_goes_again(x: Any) -> list[int]:
    """The port that opened stays open when the socket leaves that address, until somebody calls bind()."""
    only_port(x)
    answers = [connected(x, 1, 0, SHARING), connected(x, 2, 1, SHARING)]
    x.socket(3, SHARING)
    answers += [x.bind(3, "any", P), x.connect(3, 2), x.close(2), x.unconnect(3)]
    answers += [connected(x, 4, 3, SHARING), connected(x, 5, 1, SHARING)]
    x.socket(6, SHARING)
    answers += [x.bind(6, "first", P), x.close(6), x.close(5), connected(x, 7, 1), x.close(3)]
    return [*answers, x.connect(7, 1)]


def the_other_4_tuple_is_still_taken(x: Any) -> list[int]:
    """The port that opened beside a bound socket is open to other destinations, not to that socket's own."""
    answers = wildcard_bind_after_connect(x)
    x.close(4)
    return [*answers, connected(x, 5, 2), x.connect(5, 3)]


EXPECTED = {
    refused_listen: [P, P, P, ADDRINUSE, ADDRNOTAVAIL, P],
    time_wait_of_a_bound_socket: [P, P, 0, P, P, 0, P],
    fin_without_timestamp: [P, 0, P, 0, 0, P],
    timestamps_switched_off: [P, 0, 0, P],
    fin_with_timestamp: [P, 0, 0, ADDRNOTAVAIL, P],
    wildcard_bind_after_connect: [P, P, P, P, ADDRNOTAVAIL, P],
    bind_of_the_address_after_connect: [P, P, P, P, ADDRNOTAVAIL, ADDRNOTAVAIL],
    an_address_that_goes_again: [P, P, P, P, 0, 0, P, P, P, 0, 0, ADDRNOTAVAIL, 0, P],
    the_other_4_tuple_is_still_taken: [P, P, P, P, ADDRNOTAVAIL, P, ADDRNOTAVAIL, P],
}


def on_the_kernel(number: int) -> list[int]:
    case = list(EXPECTED)[number]
    return case(OnKernel(History(1, f"10.250.{number}", 0)))


@needs_kernel
@pytest.mark.parametrize("number", range(len(EXPECTED)), ids=[case.__name__ for case in EXPECTED])
def test_the_kernel_answers_so(number: int) -> None:
    assert in_namespace(on_the_kernel, number) == list(EXPECTED.values())[number]


@pytest.mark.parametrize("dense", [1, 1024])
@pytest.mark.parametrize("case", EXPECTED, ids=lambda case: case.__name__)
def test_the_engine_answers_so(case: Any, dense: int) -> None:
    engine = OnEngine(History(1, "10.250.1", 0))
    engine.h.dests.dense = dense
    assert case(engine) == EXPECTED[case]
    engine.h.bind.reserve(())  # the sets, made anew from the buckets
    buckets = engine.h.bind
    assert (buckets.bound[P] == 0 and buckets.moved == 0) or buckets.owners[P] >= buckets.bound[P] + buckets.moved
