"""Sequence number arithmetic."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fourtuple.wire.seq import after, before, between, seq_add, seq_diff

SEQ = st.integers(0, 2**32 - 1)


def test_order_goes_round_the_end_of_the_number_space() -> None:
    assert before(0xFFFFFFFF, 0)
    assert after(0, 0xFFFFFFFF)
    assert not before(0, 0xFFFFFFFF)
    assert not before(7, 7)
    assert not after(7, 7)


def test_half_the_space_apart_each_is_before_the_other_as_in_the_kernel() -> None:
    assert before(0, 2**31) and before(2**31, 0)
    assert after(0, 2**31) and after(2**31, 0)


def test_between_includes_both_ends_and_wraps() -> None:
    assert [between(s, 0xFFFFFFFE, 1) for s in (0xFFFFFFFD, 0xFFFFFFFE, 0, 1, 2)] == [False, True, True, True, False]


@given(SEQ, st.integers(1, 2**31 - 1))
def test_a_number_is_before_all_that_follow_within_half_the_space(a: int, step: int) -> None:
    b = seq_add(a, step)
    assert b == (a + step) % 2**32
    assert before(a, b) and after(b, a)
    assert not before(b, a) and not after(a, b)
    assert (seq_diff(b, a), seq_diff(a, b)) == (step, -step)


@given(SEQ, SEQ, SEQ)
def test_between_is_a_walk_upwards_from_low(seq: int, low: int, high: int) -> None:
    assert between(seq, low, high) == ((seq - low) % 2**32 <= (high - low) % 2**32)


@given(SEQ, SEQ)
def test_the_comparisons_are_the_sign_of_the_difference(a: int, b: int) -> None:
    assert before(a, b) == (seq_diff(a, b) < 0)
    assert -(2**31) <= seq_diff(a, b) < 2**31
