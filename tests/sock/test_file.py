"""Descriptors: lowest number first, dup() shares the file, O_PATH files are invisible."""

from __future__ import annotations

import errno

from hypothesis import given
from hypothesis import strategies as st

from fourtuple.sock.file import File, Files


def test_numbers_begin_at_3_and_the_lowest_free_one_comes_first():
    files = Files()
    assert [files.install(File("pipe")) for _ in range(4)] == [3, 4, 5, 6]
    files.remove(5)
    files.remove(3)
    assert [files.install(File("pipe")) for _ in range(3)] == [3, 5, 7]


def test_a_full_table_is_emfile():
    files = Files(limit=4)
    assert files.install(File("pipe")) == 3
    assert files.is_full()
    assert files.install(File("pipe")) == -errno.EMFILE


def test_dup_from_a_number_leaves_the_numbers_below_free():
    files = Files()
    file = File("pipe")
    assert files.install(file) == 3
    assert files.install(file, 10) == 10
    assert files.install(file, 10) == 11
    assert files.install(file) == 4
    assert file.count == 4


def test_an_o_path_file_is_seen_only_by_fget_raw():
    files = Files()
    fd = files.install(File("file", path_only=True))
    assert files.fget(fd) is None
    assert files.fget_raw(fd) is not None


@given(st.lists(st.one_of(st.none(), st.integers(0, 12), st.tuples(st.integers(1, 12)))))
def test_install_takes_the_lowest_free_number_whatever_happened_before(steps):
    files, used = Files(), set()
    for step in steps:
        if isinstance(step, int):
            files.remove(step)
            used.discard(step)
        else:
            lowest = step[0] if step else 0
            expected = next(n for n in range(max(lowest, 3), 100) if n not in used)
            assert files.install(File("pipe"), lowest) == expected
            used.add(expected)
