"""Histogram: how many of millions of times, or port counts, were how large, in 30 KB.

Lives here: recording, percentiles, adding histograms up, JSON.  Does not live here: what is recorded; pictures.

Rules
1. Values are unsigned 64-bit ints.  Below 128 each has a bucket of its own; above, 64 buckets an octave: a bucket is at
   most 1/64 = 1.6 % as wide as the values in it (HdrHistogram's layout, with 6 bits of mantissa).
2. hist_record() allocates nothing and reads no Python object: it belongs into loops that hold no GIL.
3. Adding up loses nothing: count, sum, least, most and every bucket are those of one histogram that had recorded all.
4. JSON is in another unit, `scale` values each (1000: recorded ns, printed µs), and reads back as it was, as long as
   no value reaches 2**50.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

_M64 = 0xFFFF_FFFF_FFFF_FFFF
_BUCKETS = 58 * 64 + 64
"""Shifts 0 to 57, 64 buckets each; and those of values below 64."""
_EXACT = 1 << 50
"""From here on a float with three decimals may be off by one: whole units have to do."""
PERCENTILES = (50.0, 90.0, 99.0, 99.9)
_NAMES = ("p50", "p90", "p99", "p999")


class Histogram:
    """Counts of unsigned 64-bit values.  Record by hist_record(histogram, value)."""

    __slots__ = ("count", "counts", "least", "most", "sum_high", "sum_low")

    def __init__(self) -> None:
        self.counts = memoryview(bytearray(8 * _BUCKETS)).cast("Q")
        self.count = 0
        self.least = _M64
        self.most = 0
        # The sum may exceed 64 bits, and a float would make adding up depend on the order.
        self.sum_low = 0
        self.sum_high = 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Histogram) and self._state() == other._state()

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, self._state()

    def _state(self) -> tuple[Any, ...]:
        return self.count, self.least, self.most, self.sum_low, self.sum_high, bytes(self.counts)

    def __repr__(self) -> str:
        return f"<Histogram of {self.count}: {self.minimum()} to {self.maximum()}>"

    def minimum(self) -> int:
        """The least value; 0 when there is none."""
        return self.least if self.count else 0

    def maximum(self) -> int:
        """The largest value; 0 when there is none."""
        return self.most

    def total(self) -> int:
        """The sum of all values, exactly."""
        return int(self.sum_high) * 2**64 + int(self.sum_low)

    def mean(self) -> float:
        """The average of the values themselves, not of their buckets."""
        return self.total() / self.count if self.count else 0.0

    def percentile(self, percent: float) -> int:
        """The value that `percent` of all do not exceed, within 0.8 %; 0 and 100 are exact; 0 when there is none."""
        if not self.count:
            return 0
        rank = rank_of(percent, self.count)
        if rank >= self.count:
            return self.most
        low, high = bounds(hist_find(self, rank))
        middle = (low + high - 1) // 2
        return int(max(self.least, min(self.most, middle)))

    def buckets(self) -> list[tuple[int, int, int]]:
        """(low, high, count) of each bucket that holds something; low <= value < high."""
        return [(*bounds(i), n) for i, n in enumerate(self.counts) if n]

    def merge(self, other: Histogram) -> None:
        """Add all that `other` has recorded."""
        hist_add(self, other)

    def copy(self) -> Histogram:
        """Another with the same counts."""
        twin = Histogram()
        hist_add(twin, self)
        return twin

    def to_json(self, scale: int = 1) -> dict[str, Any]:
        """As plain values, each divided by `scale`."""
        found: dict[str, Any] = {"count": self.count, "min": scaled(self.minimum(), scale)}
        for name, percent in zip(_NAMES, PERCENTILES, strict=True):
            found[name] = scaled(self.percentile(percent), scale)
        found["max"] = scaled(self.maximum(), scale)
        found["mean"] = round(self.mean() / scale, 3)
        found["sum"] = scaled(self.total(), scale)
        found["buckets"] = [[scaled(low, scale), scaled(high, scale), n] for low, high, n in self.buckets()]
        return found

    @staticmethod
    def from_json(data: Any, scale: int = 1) -> Histogram:
        """What to_json(scale) wrote.  ValueError, in one line, for anything else."""
        try:
            found = Histogram()
            _fill(found, data, scale)
        except (TypeError, KeyError, IndexError, ValueError, OverflowError, AttributeError):
            raise ValueError("no histogram: count, min, max, sum and buckets of [low, high, count] make one") from None
        return found


def merged(parts: Iterable[Histogram]) -> Histogram:
    """A new histogram of all that these have."""
    found = Histogram()
    for part in parts:
        found.merge(part)
    return found


def hist_bucket(value: int) -> int:
    """The number of the bucket that `value` belongs to."""
    # rest's length in bits is the shift that leaves 7 bits of the value: found by halves.
    rest = value >> 7
    shift = 0
    if rest >> 32:
        shift += 32
        rest >>= 32
    if rest >> 16:
        shift += 16
        rest >>= 16
    if rest >> 8:
        shift += 8
        rest >>= 8
    if rest >> 4:
        shift += 4
        rest >>= 4
    if rest >> 2:
        shift += 2
        rest >>= 2
    # 0, 1, 2, 3 have 0, 1, 2, 2 bits
    shift += rest - (rest >> 1 & rest)
    return (shift << 6) + (value >> shift)


def hist_record(h: Histogram, value: int) -> None:
    """Count one value."""
    h.counts[hist_bucket(value)] += 1
    h.count += 1
    if value < h.least:
        h.least = value
    if value > h.most:
        h.most = value
    h.sum_low = (h.sum_low + value) & _M64
    if h.sum_low < value:
        h.sum_high += 1


def hist_find(h: Histogram, rank: int) -> int:
    """The bucket with the value of this rank, 1 being the least value's; the last bucket if there are not so many."""
    before = 0
    i = 0
    while i < _BUCKETS - 1:
        before += h.counts[i]
        if before >= rank:
            return i
        i += 1
    return i


def hist_add(h: Histogram, other: Histogram) -> None:
    """Add all that `other` has recorded to `h`."""
    i = 0
    while i < _BUCKETS:
        h.counts[i] += other.counts[i]
        i += 1
    h.count += other.count
    if other.least < h.least:
        h.least = other.least
    if other.most > h.most:
        h.most = other.most
    before = h.sum_low
    h.sum_low = (before + other.sum_low) & _M64
    h.sum_high += other.sum_high
    if h.sum_low < before:
        h.sum_high += 1


def rank_of(percent: float, count: int) -> int:
    """Which of `count` sorted values, from 1, is the percentile: the nearest rank from above."""
    # 99.9 is no binary fraction: in thousandths the product is exact.
    thousandths = round(percent * 1000)
    return max(1, -(-int(count) * thousandths // 100_000))


def bounds(bucket: int) -> tuple[int, int]:
    """The least value of a bucket, and the least above it."""
    number = int(bucket)
    shift = max(0, number // 64 - 1)
    low = (number - shift * 64) * 2**shift
    return low, low + 2**shift


def scaled(value: int, scale: int) -> int | float:
    """A value in units of `scale`: whole if it is, or too large for decimals that mean something."""
    number = int(value)
    return number // scale if number % scale == 0 or number >= _EXACT else number / scale


def _raw(value: Any, scale: int) -> int:
    """The recorded value back from what scaled() made of it."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 2**127:
        raise ValueError
    return value * scale if isinstance(value, int) else round(value * scale)


def _fill(found: Histogram, data: dict[str, Any], scale: int) -> None:
    count = 0
    for low, high, number in data["buckets"]:
        # The middle: the ends may be off by a rounding error.
        found.counts[hist_bucket((_raw(low, scale) + _raw(high, scale) - 1) // 2)] += _raw(number, 1)
        count += number
    # Nobody counts further, and so the counts of many can be added up.
    if count != data["count"] or count >= _EXACT:
        raise ValueError
    found.count = count
    total = _raw(data["sum"], scale)
    found.sum_low, found.sum_high = total % 2**64, total // 2**64
    if count:
        found.least, found.most = _raw(data["min"], scale), _raw(data["max"], scale)
        _check(found)


def _check(found: Histogram) -> None:
    """Least and most lie in the first and the last bucket that hold something."""
    used = [i for i, number in enumerate(found.counts) if number]
    if hist_bucket(found.least) != min(used) or hist_bucket(found.most) != max(used):
        raise ValueError


def _restored(count: int, least: int, most: int, sum_low: int, sum_high: int, counts: bytes) -> Histogram:
    found = Histogram()
    found.count, found.least, found.most = count, least, most
    found.sum_low, found.sum_high = sum_low, sum_high
    found.counts = memoryview(bytearray(counts)).cast("Q")
    return found
