"""Grouping and INBOUND against dicts."""

from __future__ import annotations

from collections import Counter, defaultdict

from hypothesis import given
from hypothesis import strategies as st

from fourtuple.live import Socket, SocketTable
from fourtuple.live.socket_table import INBOUND, NONE, STATE_NAMES, STATE_NUMBERS, V6ONLY

V4 = ("10.0.0.1", "10.0.0.2", "0.0.0.0")
V6 = ("2001:db8::1", "2001:db8::2", "::")


@st.composite
def sockets(draw: st.DrawFn) -> Socket:
    family, addresses = draw(st.sampled_from([(2, V4), (10, V6)]))
    saddr, daddr = draw(st.sampled_from(addresses)), draw(st.sampled_from(addresses))
    state = draw(st.sampled_from([*STATE_NAMES.values(), "LISTEN", "ESTABLISHED"]))
    flags = draw(st.sampled_from([0, V6ONLY]))
    return Socket(family, state, saddr, draw(st.integers(1, 4)), daddr, draw(st.integers(1, 3)), flags)


def is_inbound(row: Socket, listeners: list[Socket]) -> bool:
    """A listener of the port at that address or at any; one at [::] takes IPv4 too, unless it may not."""
    return row.state not in ("LISTEN", "BOUND") and any(
        one.sport == row.sport
        and (
            (one.family == row.family and one.saddr in (row.saddr, "0.0.0.0", "::"))
            or (row.family == 2 and one.saddr == "::" and not one.flags & V6ONLY)
        )
        for one in listeners
    )


@given(st.lists(sockets(), max_size=60), st.booleans())
def test_groups_counts_and_rows_are_those_of_a_dict(rows: list[Socket], inbound: bool) -> None:
    table = SocketTable.of(rows)
    listeners = [row for row in rows if row.state == "LISTEN"]
    accepted = [is_inbound(row, listeners) for row in rows]
    assert [bool(flags & INBOUND) for flags in table.flags] == accepted

    expected: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for i, row in enumerate(rows):
        if row.state not in ("LISTEN", "BOUND") and (inbound or not accepted[i]):
            expected[row.family, row.saddr, row.daddr, row.dport].append(i)
    destinations = table.group_by_destination(inbound)
    assert {d[:4]: destinations.rows(g).tolist() for g, d in enumerate(destinations)} == expected
    assert [d.total for d in destinations] == [len(members) for members in expected.values()]
    for d in destinations:
        assert d.counts == Counter(STATE_NUMBERS[rows[i].state] for i in expected[d[:4]])
    grouped = {i: g for g in range(len(destinations)) for i in destinations.rows(g)}
    assert destinations.group_of.tolist() == [grouped.get(i, NONE) for i in range(len(rows))]


def test_the_largest_destinations_come_first() -> None:
    rows = [Socket(2, "ESTABLISHED", "10.0.0.1", 1000 + i, "10.0.0.2", port) for port in (1, 2, 3) for i in range(port)]
    destinations = SocketTable.of(rows).group_by_destination()
    assert [destinations[g].dport for g in destinations.largest(2)] == [3, 2]
    assert destinations[-1].dport == 3


def test_many_destinations() -> None:
    rows = [Socket(2, "TIME_WAIT", "10.0.0.1", 7, f"10.1.{i >> 8}.{i & 255}", 443) for i in range(3000)]
    destinations = SocketTable.of(rows).group_by_destination()
    assert len(destinations) == 3000
    assert set(destinations.total) == {1}
    assert destinations.group_of.tolist() == list(range(3000))
