"""The histogram against the sorted list of all values."""

from __future__ import annotations

import json
import math
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fourtuple.dial.histogram import Histogram, hist_bucket, hist_record

MOST = 2**64 - 1
SHIFTED = st.tuples(st.integers(0, MOST), st.integers(0, 63)).map(lambda pair: pair[0] >> pair[1])
"""Every size of value is as likely."""
VALUES = st.lists(SHIFTED, min_size=1, max_size=60)
NANOSECONDS = st.lists(SHIFTED.map(lambda value: value % 2**44), max_size=60)
PERCENTS = st.sampled_from([0.0, 1.0, 50.0, 90.0, 99.0, 99.9, 100.0]) | st.integers(0, 100).map(float)


def recorded(values: list[int]) -> Histogram:
    histogram = Histogram()
    for value in values:
        hist_record(histogram, value)
    return histogram


def exact_percentile(values: list[int], percent: float) -> int:
    """The nearest rank: the least value that `percent` of all do not exceed."""
    rank = math.ceil(round(percent * 1000) * len(values) / 100_000)
    return sorted(values)[max(1, rank) - 1]


@given(VALUES, PERCENTS)
def test_a_percentile_is_within_a_bucket_of_the_sorted_list(values: list[int], percent: float) -> None:
    exact = exact_percentile(values, percent)
    found = recorded(values).percentile(percent)
    assert abs(found - exact) <= exact * 0.016
    assert min(values) <= found <= max(values)


@given(VALUES)
def test_count_least_most_and_mean_are_exact(values: list[int]) -> None:
    histogram = recorded(values)
    assert (histogram.count, histogram.minimum(), histogram.maximum()) == (len(values), min(values), max(values))
    assert histogram.total() == sum(values)
    assert histogram.mean() == sum(values) / len(values)


@given(VALUES)
def test_every_value_lies_in_its_bucket(values: list[int]) -> None:
    buckets = recorded(values).buckets()
    assert [number for _, _, number in buckets] == [
        sum(low <= value < high for value in values) for low, high, _ in buckets
    ]
    assert sum(number for _, _, number in buckets) == len(values)
    assert buckets == sorted(buckets)
    assert all(high - low == 1 or (high - low) * 64 <= low for low, high, _ in buckets)


@given(VALUES, VALUES)
def test_adding_two_up_is_recording_all_in_one(ours: list[int], theirs: list[int]) -> None:
    merged = recorded(ours)
    merged.merge(recorded(theirs))
    assert merged == recorded(ours + theirs)


def test_adding_an_empty_one_changes_nothing() -> None:
    merged = Histogram()
    merged.merge(recorded([5]))
    merged.merge(Histogram())
    assert merged == recorded([5])


@given(NANOSECONDS, st.sampled_from([1, 1000, 1_000_000]))
def test_json_reads_back_as_it_was(values: list[int], scale: int) -> None:
    histogram = recorded(values)
    assert Histogram.from_json(json.loads(json.dumps(histogram.to_json(scale))), scale) == histogram


@given(VALUES)
def test_json_without_a_scale_keeps_all_64_bits(values: list[int]) -> None:
    histogram = recorded(values)
    assert Histogram.from_json(json.loads(json.dumps(histogram.to_json())), 1) == histogram


def test_recorded_nanoseconds_are_printed_in_microseconds() -> None:
    assert recorded([31_250, 31_000, 4_100_000]).to_json(1000) == {
        "count": 3,
        "min": 31,
        "p50": 31.359,
        "p90": 4100,
        "p99": 4100,
        "p999": 4100,
        "max": 4100,
        "mean": 1387.417,
        "sum": 4162.25,
        "buckets": [[30.976, 31.232, 1], [31.232, 31.488, 1], [4096, 4128.768, 1]],
    }


def test_an_empty_histogram_is_all_zero() -> None:
    empty = Histogram()
    assert (empty.percentile(50), empty.minimum(), empty.maximum(), empty.mean()) == (0, 0, 0, 0)
    assert empty.buckets() == []
    assert Histogram.from_json(empty.to_json()) == empty


def test_the_largest_value_has_the_last_bucket_and_no_value_a_bucket_beyond_it() -> None:
    assert hist_bucket(MOST) == len(Histogram().counts) - 1
    assert [hist_bucket(value) for value in (0, 1, 127, 128, 129, 130)] == [0, 1, 127, 128, 128, 129]


def test_a_histogram_can_be_pickled() -> None:
    histogram = recorded([1, 2, MOST])
    assert pickle.loads(pickle.dumps(histogram)) == histogram


def test_a_copy_is_a_histogram_of_its_own() -> None:
    histogram = recorded([1])
    twin = histogram.copy()
    hist_record(twin, 2)
    assert (histogram.count, twin.count) == (1, 2)


GOOD = recorded([3]).to_json()


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        {},
        GOOD | {"count": 2},
        GOOD | {"min": "3"},
        GOOD | {"max": 2**64},
        GOOD | {"sum": math.inf},
        GOOD | {"buckets": 1},
        GOOD | {"buckets": [[3, 4, -1]]},
        GOOD | {"buckets": [[3, 4]]},
        GOOD | {"buckets": [[2**70, 2**71, 1]]},
        GOOD | {"buckets": [[0, 0, 1]]},
        GOOD | {"buckets": [[3, 4, 1.5]]},
        GOOD | {"count": 2**50, "buckets": [[3, 4, 2**50]]},
        GOOD | {"buckets": [[math.nan, 4, 1]]},
    ],
)
def test_what_is_no_histogram_is_refused_in_one_line(data: object) -> None:
    with pytest.raises(ValueError, match=r"^no histogram: [^\n]*$"):
        Histogram.from_json(data)
