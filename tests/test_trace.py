"""The tracer's ring."""

from __future__ import annotations

from types import SimpleNamespace

from fourtuple.kernel_map import FN_TCP_CONNECT, FN_TCP_SET_STATE
from fourtuple.trace import Tracer, attach, records, trace


class Clock:
    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        self.now += 250
        return self.now


def test_a_record_holds_both_times_the_function_the_socket_and_four_values() -> None:
    tracer = Tracer(Clock())
    net = SimpleNamespace(now_us=5_000, tracer=None, h=SimpleNamespace(tracer=None))
    attach(tracer, net)
    assert net.tracer is tracer
    assert net.h.tracer is tracer
    trace(tracer, FN_TCP_SET_STATE, 9, 7, 2)
    net.now_us = 1_005_000
    trace(tracer, FN_TCP_CONNECT, 9, -1, 2, -(2**40), 4)
    assert list(records(tracer)) == [
        (250, FN_TCP_SET_STATE, 9, 7, 2, 0, 0, 5_000),
        (500, FN_TCP_CONNECT, 9, -1, 2, -(2**40), 4, 1_005_000),
    ]


def test_a_full_ring_drops_the_oldest_and_counts_them() -> None:
    tracer = Tracer(capacity=4)
    for number in range(10):
        trace(tracer, FN_TCP_CONNECT, number)
    assert tracer.lost == 6
    assert [record.sk for record in records(tracer)] == [6, 7, 8, 9]
    assert [record.sk for record in records(tracer, since=8)] == [8, 9]
    tracer.clear()
    assert (tracer.lost, list(records(tracer))) == (0, [])


def test_without_clock_and_engine_the_times_are_zero() -> None:
    tracer = Tracer()
    trace(tracer, FN_TCP_CONNECT, 1)
    record = next(records(tracer))
    assert (record.time_ns, record.engine_us) == (0, 0)


def test_attaching_nothing_turns_tracing_off() -> None:
    net = SimpleNamespace(now_us=0, tracer=Tracer(), h=SimpleNamespace(tracer=Tracer()))
    attach(None, net)
    assert (net.tracer, net.h.tracer) == (None, None)
