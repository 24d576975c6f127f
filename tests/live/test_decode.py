"""The decoder: exact on what a kernel sends, harmless on anything else."""

from __future__ import annotations

import errno
import socket
import struct
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fourtuple.live._decode import (
    DONE,
    ERROR,
    FIELDS,
    FULL,
    MALFORMED,
    MORE,
    Datagram,
    SocketColumns,
    decode,
    enter_address,
    grow,
    is_sound,
    take_addresses,
    take_idle,
)
from tests.live import messages as m

ROOM = 1 << 14
NO_PORT_BIT = 1 if sys.byteorder == "little" else 0x80


def datagram(raw: bytes, filler: int = 0) -> Datagram:
    d = Datagram(ROOM)
    d.view[:] = bytes([filler]) * ROOM
    d.view[: len(raw)] = raw
    return d


def decoded(raw: bytes, rows: int = 64, filler: int = 0) -> SocketColumns:
    """The columns after all of `raw`, grown as often as asked."""
    columns = SocketColumns(rows, 3, 0x1234_5678_9ABC_DEF0)
    columns.clear(m.SEQUENCE)
    d = datagram(raw, filler)
    offset = decode(columns, d, 0, len(raw))
    for _ in range(100):
        if columns.stop != FULL:
            return columns
        grow(columns)
        offset = decode(columns, d, offset, len(raw))
    raise AssertionError("does not get on")


def rows(columns: SocketColumns) -> list[dict[str, Any]]:
    """Every row, IPv6 addresses as bytes."""
    found = []
    for i in range(columns.count):
        row = {name: columns.views[name][i] for name, _ in FIELDS}
        for end in ("saddr", "daddr"):
            row[end] = columns.address6(row[end]) if row["family"] == socket.AF_INET6 else row[end].to_bytes(4, "big")
        found.append(row)
    return found


def expected(message: m.Message) -> dict[str, Any]:
    """What the row of a message should be, from the rules in words."""
    family, src, dst, flags = message.family, message.src, message.dst, 0
    if family == socket.AF_INET6:
        flags = 1
        if src.startswith(m.MAPPED) and (dst.startswith(m.MAPPED) or not any(dst)):
            family, src, dst = socket.AF_INET, src[12:], dst[12:]
    cgroup = 0
    for kind, payload in attributes_of(message.attributes):
        if kind == 22 and len(payload) >= 2:
            flags |= 2 | (4 if payload[1] & NO_PORT_BIT else 0)
            flags |= 16 if payload[0] & 0x20 else 0
            flags |= 32 if payload[0] & 0x04 else 0
        elif kind == 11 and payload and payload[0]:
            flags |= 8
        elif kind == 21 and len(payload) >= 8:
            (cgroup,) = struct.unpack_from("=Q", payload)
    return {
        "family": family, "state": {12: 3, 7: 13}.get(message.state, message.state), "timer": message.timer,
        "retrans": message.retrans, "flags": flags, "sport": message.sport, "dport": message.dport, "saddr": src,
        "daddr": dst, "ifindex": message.ifindex, "uid": message.uid, "inode": message.inode,
        "expires_ms": message.expires, "rqueue": message.rqueue, "wqueue": message.wqueue, "cgroup": cgroup,
    }  # fmt: skip


def attributes_of(raw: bytes) -> list[tuple[int, bytes]]:
    found = []
    while len(raw) >= 4:
        size, kind = struct.unpack_from("=HH", raw)
        found.append((kind, raw[4:size]))
        raw = raw[-(-size // 4) * 4 :]
    return found


@given(st.lists(m.messages, max_size=40), st.integers(1, 5))
def test_every_field_of_every_message_arrives_however_often_the_columns_grow(sent: list[m.Message], room: int) -> None:
    columns = decoded(b"".join(m.framed(each.body()) for each in sent) + m.done(), rows=room)
    assert columns.stop == DONE
    assert rows(columns) == [expected(each) for each in sent]
    assert columns.foreign == 0
    assert is_sound(columns)
    addresses = [columns.address6(i) for i in range(columns.used6)]
    assert len(set(addresses)) == len(addresses)
    assert not any(addresses[0])


def one(**fields: Any) -> m.Message:
    made = m.Message(2, 1, 0, 0, 40_000, 443, bytes((10, 0, 0, 1)), bytes((192, 0, 2, 7)), 0, 0, 0, 0, 0, 9)
    return made._replace(**fields)


def test_addresses_and_ports_are_in_host_order() -> None:
    columns = decoded(m.framed(one().body()) + m.done())
    assert (columns.views["saddr"][0], columns.views["daddr"][0]) == (0x0A000001, 0xC0000207)
    assert (columns.views["sport"][0], columns.views["dport"][0]) == (40_000, 443)


def test_a_datagram_without_an_end_wants_more() -> None:
    columns = decoded(m.framed(one().body()))
    assert columns.stop == MORE
    assert columns.count == 1


@pytest.mark.parametrize("kind", [m.ERROR, m.DONE])
@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOENT, errno.EINVAL, errno.ENOMEM])
def test_an_errno_of_the_kernel_is_handed_on(kind: int, code: int) -> None:
    columns = decoded(m.framed(struct.pack("=i", -code), kind))
    assert columns.stop == ERROR
    assert columns.error == code


def test_an_acknowledgement_is_no_error() -> None:
    columns = decoded(m.framed(struct.pack("=i", 0) + bytes(16), m.ERROR) + m.framed(one().body()) + m.done())
    assert columns.stop == DONE
    assert columns.count == 1


def test_an_overrun_is_enobufs() -> None:
    columns = decoded(m.framed(b"", m.OVERRUN))
    assert (columns.stop, columns.error) == (ERROR, errno.ENOBUFS)


def test_a_done_without_a_number_is_an_end() -> None:
    assert decoded(m.framed(b"", m.DONE)).stop == DONE


@pytest.mark.parametrize("where", ["row", "end"])
def test_an_interrupted_dump_is_noticed_on_any_message(where: str) -> None:
    flags = {"row": (0x12, 2), "end": (2, 0x12)}[where]
    columns = decoded(m.framed(one().body(), flags=flags[0]) + m.done(flags=flags[1]))
    assert columns.interrupted == 1
    columns.clear(1)
    assert columns.interrupted == 0


def test_the_answer_to_another_question_is_passed_over() -> None:
    other = m.framed(one(sport=1).body(), sequence=m.SEQUENCE - 1)
    columns = decoded(other + m.framed(one(sport=2).body()) + m.done())
    assert columns.views["sport"][: columns.count].tolist() == [2]
    assert columns.foreign == 1


def test_unknown_kinds_and_families_are_passed_over() -> None:
    strange = m.framed(one().body(), kind=99) + m.framed(b"", m.NOOP) + m.framed(one(family=1).body())
    columns = decoded(strange + m.framed(one(sport=2).body()) + m.done())
    assert columns.views["sport"][: columns.count].tolist() == [2]
    assert columns.foreign == 3
    assert columns.stop == DONE


def test_a_message_of_a_newer_kernel_with_more_behind_it_is_read() -> None:
    body = one().body() + m.attribute(300, b"x" * 50) + m.attribute(22, bytes((0, NO_PORT_BIT))) + m.attribute(60, b"")
    columns = decoded(m.framed(body) + m.done())
    assert columns.views["flags"][0] == 2 | 4
    assert columns.stop == DONE


@pytest.mark.parametrize("length", range(72))
def test_a_message_too_short_for_a_socket_is_malformed(length: int) -> None:
    columns = decoded(m.framed(one().body()[:length]))
    assert columns.stop == MALFORMED
    assert columns.count == 0


@pytest.mark.parametrize("size", [0, 1, 15, 89 + 16, 2**31, 2**32 - 1])
def test_a_wrong_message_length_is_malformed(size: int) -> None:
    raw = bytearray(m.framed(one().body()))
    raw[:4] = struct.pack("=I", size)
    assert decoded(bytes(raw)).stop == MALFORMED


@pytest.mark.parametrize("size", [0, 3, 200, 65535])
def test_a_wrong_attribute_length_ends_the_attributes_only(size: int) -> None:
    good = m.attribute(22, bytes((0, NO_PORT_BIT)))
    broken = struct.pack("=HH", size, 22) + bytes((255, 255, 0, 0))
    columns = decoded(m.framed(one().body() + good + broken) + m.done())
    assert columns.stop == DONE
    assert columns.views["flags"][0] == 2 | 4


def all_of(columns: SocketColumns) -> tuple[object, ...]:
    return columns.stop, columns.error, columns.foreign, columns.interrupted, rows(columns)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """An answer with bytes changed, or cut, or followed by others."""
    sent = draw(st.lists(m.messages, max_size=6))
    raw = bytearray(b"".join(m.framed(each.body()) for each in sent) + m.done())
    for _ in range(draw(st.integers(0, 6))):
        raw[draw(st.integers(0, len(raw) - 1))] = draw(st.integers(0, 255))
    end = draw(st.one_of(st.just(len(raw)), st.integers(0, len(raw))))
    return bytes(raw[:end]) + draw(st.binary(max_size=40))


@given(st.one_of(damaged(), st.binary(max_size=600)))
def test_no_bytes_do_harm_and_none_behind_the_end_are_looked_at(raw: bytes) -> None:
    columns = decoded(raw, rows=2, filler=0)
    assert is_sound(columns)
    assert columns.stop in (MORE, DONE, ERROR, MALFORMED)
    assert all_of(decoded(raw, rows=2, filler=0xFF)) == all_of(columns)


@given(st.binary(max_size=300))
def test_no_attributes_do_harm(raw: bytes) -> None:
    message = m.framed(one(attributes=raw).body()) + m.done()
    columns = decoded(message)
    assert columns.stop == DONE
    assert columns.count == 1


def test_a_length_beyond_the_buffer_is_not_believed() -> None:
    columns = SocketColumns(4, 3, 1)
    columns.clear(m.SEQUENCE)
    small = Datagram(100)
    small.view[:] = m.framed(one().body())[:88].ljust(100, b"\0")
    decode(columns, small, 0, 1 << 20)
    assert columns.stop == MALFORMED
    assert columns.count == 1


@pytest.mark.parametrize("damage", [{"family": 0}, {"family": 10, "saddr": 2}, {"family": 10, "daddr": 99}])
def test_rows_that_cannot_be_are_not_sound(damage: dict[str, int]) -> None:
    columns = decoded(m.framed(one(family=10, src=bytes(15) + b"\1", dst=bytes(16)).body()))
    assert is_sound(columns)
    for name, value in damage.items():
        columns.views[name][0] = value
    assert not is_sound(columns)


def test_addresses_keep_their_numbers_when_their_table_grows() -> None:
    sent = [one(family=10, src=struct.pack("!QQ", 0x20010DB8 << 32, n), dst=bytes(16)) for n in range(1, 120)]
    columns = decoded(b"".join(m.framed(each.body()) for each in sent) + m.done())
    assert columns.used6 == 120
    assert [columns.address6(i) for i in range(1, 120)] == [each.src for each in sent]
    take_addresses(columns, 1000)
    assert [enter_address(columns, i) for i in range(1, 120)] == list(range(1, 120))


# ------------------------------------------------------------------------------------------ idle times

IDLE_UNKNOWN = 0xFFFFFFFF
INFO = 2
LISTEN, ESTABLISHED = 10, 1


def tcp_info(sent_ms: int, received_ms: int, size: int = 248) -> bytes:
    """tcpi_last_data_sent is at 44, tcpi_last_data_recv at 52 (include/uapi/linux/tcp.h); all else is noise."""
    raw = bytearray(b"\xa5" * 248)
    struct.pack_into("=I", raw, 44, sent_ms)
    struct.pack_into("=I", raw, 52, received_ms)
    return bytes(raw[:size])


def idle_of(*sockets: tuple[int, bytes], rows: int = 64) -> list[int]:
    """Of sockets given as state and attributes."""
    raw = b"".join(
        m.framed(m.Message(socket.AF_INET, state, 0, 0, 1, 2, bytes(4), bytes(4), *[0] * 6, more).body())
        for state, more in sockets
    )
    columns = SocketColumns(rows, 3, 0)
    columns.clear(m.SEQUENCE)
    take_idle(columns)
    d = datagram(raw)
    offset = decode(columns, d, 0, len(raw))
    while columns.stop == FULL:
        grow(columns)
        offset = decode(columns, d, offset, len(raw))
    return memoryview(columns.idle_ms)[: columns.count].tolist()


def test_idle_is_since_data_was_sent_or_received_whichever_is_later() -> None:
    ends = [(5, 9000), (9000, 7), (0, 0), (1 << 31, 3 << 30)]
    found = idle_of(*((ESTABLISHED, m.attribute(INFO, tcp_info(*each))) for each in ends))
    assert found == [5, 7, 0, 1 << 31]


@pytest.mark.parametrize("size", [0, 8, 44, 55])
def test_an_info_that_ends_too_early_is_no_idle_time(size: int) -> None:
    """Of an older kernel, say: what follows belongs to another attribute."""
    short = m.attribute(INFO, tcp_info(1, 2, size)) + m.attribute(8, b"\0" * 40)
    assert idle_of((ESTABLISHED, short)) == [IDLE_UNKNOWN]


def test_listeners_and_sockets_without_an_info_have_no_idle_time() -> None:
    info = m.attribute(INFO, tcp_info(1, 2))
    assert idle_of((LISTEN, info), (6, b""), (ESTABLISHED, info)) == [IDLE_UNKNOWN, IDLE_UNKNOWN, 1]


def test_idle_times_stay_when_the_columns_grow() -> None:
    many = [(ESTABLISHED, m.attribute(INFO, tcp_info(n, n + 1))) for n in range(40)]
    assert idle_of(*many, rows=1) == list(range(40))


def test_a_reading_that_did_not_ask_ignores_it() -> None:
    message = m.Message(socket.AF_INET, 1, 0, 0, 1, 2, bytes(4), bytes(4), *[0] * 6, m.attribute(INFO, tcp_info(1, 2)))
    columns = decoded(m.framed(message.body()))
    assert (columns.count, columns.has_idle) == (1, 0)
