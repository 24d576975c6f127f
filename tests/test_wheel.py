"""The timer wheel against a sorted list."""

from __future__ import annotations

import bisect
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fourtuple.wheel import TimerWheel, wheel_arm, wheel_cancel, wheel_due_of, wheel_next_due, wheel_pop

NOW = 1_000_000_000_000
FOREVER = 2**63 - 1


def drain(wheel: TimerWheel, now: int = FOREVER) -> list[tuple[int, int]]:
    """(due, owner) of everything due at `now`, in the order it comes out."""
    out = []
    while wheel_pop(wheel, now):
        out.append((wheel.fired_due, wheel.fired_owner))
    return out


def test_an_empty_wheel_has_no_next_due_and_nothing_to_pop() -> None:
    wheel = TimerWheel()
    assert wheel_next_due(wheel) == -1
    assert not wheel_pop(wheel, FOREVER)


def test_a_timer_fires_at_its_due_time_and_not_a_microsecond_before() -> None:
    wheel = TimerWheel()
    node = wheel_arm(wheel, NOW, 7, 3)
    assert node >= 1
    assert wheel_due_of(wheel, node) == NOW
    assert not wheel_pop(wheel, NOW - 1)
    assert wheel_pop(wheel, NOW)
    assert (wheel.fired_due, wheel.fired_owner, wheel.fired_kind, wheel.armed) == (NOW, 7, 3, 0)
    assert wheel_next_due(wheel) == -1


def test_equal_dues_fire_in_arm_order() -> None:
    wheel = TimerWheel()
    for owner in range(5000):
        wheel_arm(wheel, NOW + owner % 2, owner, 0)
    evens = [(NOW, owner) for owner in range(0, 5000, 2)]
    assert drain(wheel) == evens + [(NOW + 1, owner) for owner in range(1, 5000, 2)]


def test_a_timer_armed_for_the_past_fires_first() -> None:
    wheel = TimerWheel()
    wheel_arm(wheel, NOW, 1, 0)
    assert drain(wheel, NOW) == [(NOW, 1)]
    wheel_arm(wheel, NOW + 5, 2, 0)
    wheel_arm(wheel, NOW - 1_000_000, 3, 0)
    wheel_arm(wheel, 0, 4, 0)
    assert wheel_next_due(wheel) == 0
    assert drain(wheel, NOW) == [(0, 4), (NOW - 1_000_000, 3)]
    assert wheel_next_due(wheel) == NOW + 5


def test_a_timer_a_thousand_years_ahead_keeps_its_place() -> None:
    wheel = TimerWheel()
    far = NOW + 1000 * 365 * 86_400 * 10**6
    wheel_arm(wheel, far, 1, 0)
    wheel_arm(wheel, far - 1, 2, 0)
    wheel_arm(wheel, NOW, 3, 0)
    assert drain(wheel, NOW) == [(NOW, 3)]
    assert wheel_next_due(wheel) == far - 1
    assert drain(wheel, far) == [(far - 1, 2), (far, 1)]


def test_cancelling_the_earliest_shows_the_second() -> None:
    wheel = TimerWheel()
    nodes = [wheel_arm(wheel, NOW + i * 300, i, 0) for i in range(100)]
    for i in range(99):
        assert wheel_next_due(wheel) == NOW + i * 300
        wheel_cancel(wheel, nodes[i])
    assert wheel.armed == 1
    assert drain(wheel) == [(NOW + 99 * 300, 99)]


def test_more_timers_than_foreseen_make_the_wheel_grow() -> None:
    wheel = TimerWheel(max_timers=4)
    for owner in range(1000):
        wheel_arm(wheel, NOW - owner, owner, 0)
    assert wheel.max_timers == 1024
    assert drain(wheel) == [(NOW - owner, owner) for owner in range(999, -1, -1)]


@pytest.mark.parametrize("max_wheels", [1, 2, 9])
def test_with_too_few_wheels_the_order_is_still_exact(max_wheels: int) -> None:
    wheel = TimerWheel(max_wheels=max_wheels)
    rng = random.Random(1)
    dues = [(NOW + rng.randrange(100_000), owner) for owner in range(500)]
    for due, owner in dues:
        wheel_arm(wheel, due, owner, 0)
    assert drain(wheel) == sorted(dues)


def test_wheels_are_given_back_when_empty() -> None:
    wheel = TimerWheel()
    rng = random.Random(2)
    for _ in range(20):
        for owner in range(300):
            wheel_arm(wheel, NOW + rng.randrange(10_000_000), owner, 0)
        drain(wheel)
    assert wheel.high_wheel < 60


offsets = st.one_of(
    st.integers(0, 3),
    st.integers(-2000, 2000),
    st.integers(0, 1_000_000),
    st.integers(-(10**11), 10**14),
    st.sampled_from([1_000_000, 200_000, 40_000, 7_200_000_000]),
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("arm"), offsets),
        st.tuples(st.just("arm many"), offsets),
        st.tuples(st.just("cancel"), st.integers(0, 2**30)),
        st.tuples(st.just("cancel first"), st.just(0)),
        st.tuples(st.just("pop"), st.integers(0, 3_000_000)),
        st.tuples(st.just("next"), st.just(0)),
    ),
    max_size=80,
)


class Model:
    """The same as the wheel, as a sorted list of (due, arm number, owner)."""

    def __init__(self, max_wheels: int) -> None:
        self.wheel = TimerWheel(max_timers=64, max_wheels=max_wheels)
        self.timers: list[tuple[int, int]] = []
        self.nodes: dict[int, int] = {}
        self.now = NOW
        self.number = 0

    def arm(self, due: int) -> None:
        self.number += 1
        bisect.insort(self.timers, (due, self.number))
        self.nodes[self.number] = wheel_arm(self.wheel, due, self.number, self.number & 255)

    def cancel(self, index: int) -> None:
        if self.timers:
            _, number = self.timers.pop(index % len(self.timers))
            wheel_cancel(self.wheel, self.nodes.pop(number))

    def pop(self, advance: int) -> None:
        self.now += advance
        while self.timers and self.timers[0][0] <= self.now:
            due, number = self.timers.pop(0)
            assert wheel_pop(self.wheel, self.now)
            fired = (self.wheel.fired_due, self.wheel.fired_owner, self.wheel.fired_kind)
            assert fired == (due, number, number & 255)
            del self.nodes[number]
        assert not wheel_pop(self.wheel, self.now)

    def check(self) -> None:
        assert wheel_next_due(self.wheel) == (self.timers[0][0] if self.timers else -1)
        assert self.wheel.armed == len(self.timers)

    def step(self, verb: str, value: int) -> None:
        if verb == "arm":
            self.arm(max(0, self.now + value))
        elif verb == "arm many":
            for i in range(60):
                self.arm(max(0, self.now + value + (i * 7919) % 400))
        elif verb == "cancel":
            self.cancel(value)
        elif verb == "cancel first":
            self.cancel(0)
        elif verb == "pop":
            self.pop(value)
        else:
            self.check()


@given(steps, st.sampled_from([1, 3, 4096]))
def test_the_wheel_is_a_sorted_list(moves: list[tuple[str, int]], max_wheels: int) -> None:
    model = Model(max_wheels)
    for verb, value in moves:
        model.step(verb, value)
    model.check()
    model.pop(10**15)
    assert wheel_next_due(model.wheel) == -1


@pytest.mark.compiled_only
@pytest.mark.parametrize("spread_us", [1, 1_000, 1_000_000, 60_000_000, 7_200_000_000])
def test_a_million_timers_come_out_in_order(spread_us: int) -> None:
    wheel = TimerWheel(max_timers=1_000_000)
    rng = random.Random(spread_us)
    dues = [NOW + rng.randrange(spread_us) for _ in range(1_000_000)]
    nodes = [wheel_arm(wheel, due, owner, 0) for owner, due in enumerate(dues)]
    for owner in range(0, 1_000_000, 2):
        wheel_cancel(wheel, nodes[owner])
    assert wheel.max_timers == 1_000_000
    assert wheel_next_due(wheel) == min(dues[1::2])
    assert drain(wheel) == sorted((dues[owner], owner) for owner in range(1, 1_000_000, 2))


def test_opening_moves_a_bounded_number_of_timers() -> None:
    """No list but those of one microsecond may grow beyond _OPEN_AT: that is what bounds the longest pause."""
    wheel = TimerWheel()
    limit = 2048
    for owner in range(4 * limit):
        wheel_arm(wheel, NOW + owner % 1000, owner, 0)
    longest = max(wheel.length[slot] for slot in range(256 * (wheel.high_wheel + 1)))
    assert longest < limit
