"""SocketTable: rows for looking at, columns, and the way into a file and back."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fourtuple.live import Socket, SocketTable
from fourtuple.live.socket_table import NO_PORT, NO_PORT_KNOWN, V6SOCK

ROWS = [
    Socket(2, "LISTEN", "0.0.0.0", 22, "0.0.0.0", 0, V6SOCK, inode=7, wqueue=128),
    Socket(2, "ESTABLISHED", "10.0.0.1", 40_000, "10.0.0.2", 443, NO_PORT | NO_PORT_KNOWN, uid=1000, cgroup=2**40 + 1),
    Socket(10, "TIME_WAIT", "2001:db8::1", 50_000, "2001:db8::2", 80, V6SOCK, timer=3, expires_ms=59_000),
    Socket(10, "BOUND", "::1", 1, "::", 0, V6SOCK),
]


def test_rows_come_back_as_they_were_given() -> None:
    table = SocketTable.of(ROWS)
    assert list(table) == ROWS
    assert table[-1] == ROWS[-1]
    assert table.address(10, table.saddr[2]) == "2001:db8::1"
    assert table.count_by_state() == {1: 1, 6: 1, 10: 1, 13: 1}
    assert repr(table) == "<SocketTable: 4 TCP sockets: 1 ESTABLISHED, 1 TIME_WAIT, 1 LISTEN, 1 BOUND>"


def test_an_empty_table() -> None:
    table = SocketTable.of([])
    assert repr(table) == "<SocketTable: 0 TCP sockets>"
    assert list(SocketTable.unpack(table.pack())) == []


@pytest.mark.parametrize("row", [4, -5, 10**9])
def test_a_row_that_is_not_there_is_an_index_error(row: int) -> None:
    with pytest.raises(IndexError):
        SocketTable.of(ROWS)[row]


def test_columns_are_as_long_as_the_table() -> None:
    table = SocketTable.of(ROWS)
    assert {len(getattr(table, name)) for name in table.pack() if name != "addresses6"} == {4}
    assert table.sport.tolist() == [22, 40_000, 50_000, 1]


def test_pack_and_unpack_keep_all_of_it() -> None:
    table = SocketTable.of(ROWS)
    again = SocketTable.unpack(table.pack(), source="sock_diag", consistent=False, taken_at=12.5, bound_known=False)
    assert list(again) == ROWS
    assert again.pack() == table.pack()
    assert (again.source, again.consistent, again.taken_at, again.bound_known) == ("sock_diag", False, 12.5, False)


DAMAGE: list[dict[str, Any]] = [
    {"sport": b"\0\0"},
    {"cgroup": b""},
    {"family": bytes(4)},
    {"family": b"\x0a\x0a\x0a\x0a"},
    {"addresses6": b""},
    {"addresses6": bytes(15)},
    {"addresses6": bytes(32)},
    {"addresses6": bytes(16) + b"\1" * 32},
    {"addresses6": b"\1" * 16},
]


@pytest.mark.parametrize("damage", DAMAGE)
def test_columns_that_do_not_fit_are_refused(damage: dict[str, bytes]) -> None:
    with pytest.raises(ValueError, match=r"."):
        SocketTable.unpack({**SocketTable.of(ROWS).pack(), **damage})


def test_a_missing_column_is_named() -> None:
    packed = SocketTable.of(ROWS).pack()
    del packed["dport"]
    with pytest.raises(ValueError, match="dport"):
        SocketTable.unpack(packed)


@given(st.data())
def test_no_file_does_harm(data: st.DataObject) -> None:
    packed = SocketTable.of(ROWS).pack()
    for name in data.draw(st.lists(st.sampled_from(sorted(packed)), max_size=4)):
        size = data.draw(st.sampled_from([len(packed[name]), 0, 7, 64]))
        packed[name] = data.draw(st.binary(min_size=size, max_size=size))
    try:
        table = SocketTable.unpack(packed)
    except ValueError:
        return
    for row in table:
        assert row.sport < 65536
    assert sum(len(table.group_by_destination(True).rows(g)) for g in range(len(table.group_by_destination(True)))) <= 4
