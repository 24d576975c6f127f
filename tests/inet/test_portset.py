"""PortSets: the bit sets under the port search."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fourtuple.inet.portset import (
    EMPTY,
    RESERVED,
    SHUT,
    PortSets,
    index_port,
    lowest_bit,
    port_index,
    portset_add,
    portset_alloc,
    portset_discard,
    portset_free,
    portset_next_open,
    portset_test,
)

ports = st.integers(0, 65535)


@given(ports)
def test_a_port_and_its_index_are_each_others_inverse_and_parities_are_apart(port: int) -> None:
    assert index_port(port_index(port)) == port
    assert port_index(port) >> 15 == port % 2


@given(st.integers(0, 63), st.integers(0, 2**64 - 1))
def test_lowest_bit_is_the_first_one(position: int, above: int) -> None:
    assert lowest_bit((above << 1 | 1) << position & 2**64 - 1) == position


runs = st.lists(st.tuples(ports, st.integers(1, 9000)), max_size=4)


@given(runs, runs, ports, ports)
def test_next_clear_is_the_first_port_of_that_parity_in_none_of_the_sets(
    one: list[tuple[int, int]], other: list[tuple[int, int]], first: int, last: int
) -> None:
    sets = PortSets(4)
    a, b = RESERVED, SHUT
    members: set[int] = set()
    for ports_of, given_runs in ((a, one), (b, other)):
        for start, length in given_runs:
            for port in range(start, min(start + length, 65536)):
                portset_add(sets, ports_of, port)
                members.add(port)
    first, last = min(first, last), max(first, last)
    last -= (last - first) % 2
    expected = next((port for port in range(first, last + 1, 2) if port not in members), None)
    port = portset_next_open(sets, a, b, EMPTY, first, last)
    assert (None if port < 0 else port) == expected


def test_a_set_filled_to_the_last_port_has_no_clear_bit_until_one_leaves() -> None:
    sets = PortSets(4)
    full = portset_alloc(sets)
    for port in range(65536):
        portset_add(sets, full, port)
    for parity in (0, 1):
        assert portset_next_open(sets, EMPTY, full, EMPTY, parity, 65534 + parity) == -1
    portset_discard(sets, full, 61001)
    assert not portset_test(sets, full, 61001)
    assert portset_next_open(sets, EMPTY, EMPTY, full, 1, 65535) == 61001
    assert portset_next_open(sets, EMPTY, EMPTY, full, 0, 65534) == -1


def test_two_sets_that_are_full_only_together_leave_no_clear_bit() -> None:
    sets = PortSets(4)
    for port in range(65536):
        portset_add(sets, SHUT if port // 128 % 2 else RESERVED, port)
    assert portset_next_open(sets, SHUT, RESERVED, EMPTY, 0, 65534) == -1
    portset_discard(sets, RESERVED, 40192)
    assert portset_next_open(sets, SHUT, RESERVED, EMPTY, 0, 65534) == 40192


def test_a_set_given_back_is_empty_when_it_is_given_out_again_and_room_is_limited() -> None:
    sets = PortSets(5)
    first, second = portset_alloc(sets), portset_alloc(sets)
    assert 0 not in (first, second)
    assert portset_alloc(sets) == 0
    for port in (0, 1, 40000):
        portset_add(sets, first, port)
    portset_free(sets, second)
    portset_free(sets, first)
    assert portset_alloc(sets) == first
    assert sets.ports(first) == []
    assert portset_alloc(sets) == second
    assert sets.used == 2
