"""TupleIndex against a dict: the same answers through growth, deletion and equal keys."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from fourtuple.columns import allocate_columns
from fourtuple.inet.tuple_index import ColumnGroup, TupleIndex, index_erase, index_first, index_insert, index_next

ROWS = 3000


def make() -> tuple[TupleIndex, dict[str, memoryview]]:
    columns = allocate_columns((("saddr", "I"), ("daddr", "I"), ("port", "H"), ("dport", "H")), ROWS + 1)
    group = ColumnGroup(columns["saddr"], columns["daddr"], columns["port"], columns["dport"])
    return TupleIndex(group, group, 99), columns


def found(index: TupleIndex, key: tuple[int, int, int, int]) -> list[int]:
    entries = []
    entry = index_first(index, *key)
    while entry:
        entries.append(entry)
        entry = index_next(index)
    return sorted(entries)


# few different keys, so that equal keys and long probe runs happen; some bits at the top of each width
keys = st.tuples(
    st.sampled_from([1, 2**32 - 1]), st.integers(0, 3), st.sampled_from([0, 40000, 65535]), st.sampled_from([80, 65535])
)


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 10**6), keys), max_size=300))
def test_index_answers_like_a_dict_of_lists(history: list[tuple[bool, int, tuple[int, int, int, int]]]) -> None:
    index, columns = make()
    model: dict[int, tuple[int, int, int, int]] = {}
    for insert, number, key in history:
        if insert or not model:
            row = next(row for row in range(1, ROWS) if row not in model)
            for name, value in zip(("saddr", "daddr", "port", "dport"), key, strict=True):
                columns[name][row] = value
            index_insert(index, row << 1)
            model[row] = key
        else:
            row = sorted(model)[number % len(model)]
            assert index_erase(index, row << 1) == 1
            del model[row]
            assert index_erase(index, row << 1) == 0
        expected = sorted(row << 1 for row, other in model.items() if other == key)
        assert found(index, key) == expected
    assert sorted(index.entries()) == sorted(row << 1 for row in model)
    assert index.count == len(model)


def test_every_entry_is_found_at_each_moment_of_growing() -> None:
    index, columns = make()
    for row in range(1, 1501):
        columns["saddr"][row] = row * 7
        columns["port"][row] = row & 0xFFFF
        index_insert(index, row << 1)
        if row % 50 == 0 or index.old.capacity:
            for other in range(1, row + 1, 7):
                assert index_first(index, other * 7, 0, other & 0xFFFF, 0) == other << 1
    assert index.table.capacity > 1500
    assert index.count * 4 <= index.table.capacity * 3 + 4


def test_erasing_while_growing_leaves_nothing_behind() -> None:
    index, columns = make()
    for row in range(1, 1001):
        columns["daddr"][row] = row
        index_insert(index, row << 1)
    for row in range(1000, 0, -1):
        assert index_erase(index, row << 1) == 1
        assert index_first(index, 0, row, 0, 0) == 0
    assert index.entries() == []
