"""Asking again, giving up, falling back; the filters' own errors; procfs beside sock_diag."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from typing import Any

import pytest

from fourtuple.live import CannotRead, procfs, reader, sock_diag, sockets
from fourtuple.live._decode import Datagram, SocketColumns
from fourtuple.live.netns import find_netns
from fourtuple.live.socket_filter import SocketFilter
from fourtuple.live.socket_table import TCP_BOUND
from tests.live import messages as m
from tests.live.space import Space, needs_root

ROW = m.Message(2, 1, 0, 0, 1, 2, bytes(4), bytes(4), 0, 0, 0, 0, 0, 0)


def answers(monkeypatch: pytest.MonkeyPatch, *behaviours: Callable[[SocketColumns], None]) -> list[int]:
    """Have each question answered in turn; returns the sequence numbers asked with."""
    asked: list[int] = []

    def ask(netns: object, request: bytes, columns: SocketColumns, datagram: Datagram) -> None:
        asked.append(columns.sequence)
        behaviours[len(asked) - 1](columns)

    monkeypatch.setattr(reader, "_ask", ask)
    return asked


def whole(columns: SocketColumns) -> None:
    feed(columns, 2)


def interrupted(columns: SocketColumns) -> None:
    feed(columns, 0x12)


def feed(columns: SocketColumns, flags: int) -> None:
    d = Datagram(4096)
    raw = m.framed(ROW.body(), flags=flags, sequence=columns.sequence) + m.framed(
        bytes(4), m.DONE, sequence=columns.sequence
    )
    d.view[: len(raw)] = raw
    assert sock_diag.take(columns, d, len(raw))


def failing(code: int) -> Callable[[SocketColumns], None]:
    def fail(columns: SocketColumns) -> None:
        raise sock_diag.refused(code)

    return fail


def test_an_interrupted_answer_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answers(monkeypatch, interrupted, interrupted, whole)
    table = sockets()
    assert asked == [1, 2, 3]
    assert table.consistent
    assert len(table) == 1


def test_after_the_last_try_what_there_is_counts_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answers(monkeypatch, interrupted, interrupted)
    table = sockets(retries=1)
    assert asked == [1, 2]
    assert not table.consistent
    assert len(table) == 1


@pytest.mark.parametrize("code", [errno.ENOBUFS, errno.ENOMEM, errno.EAGAIN, errno.EBUSY])
def test_a_shortage_is_tried_again(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    answers(monkeypatch, failing(code), whole)
    assert sockets().consistent
    answers(monkeypatch, failing(code), failing(code))
    with pytest.raises(CannotRead) as refusal:
        sockets(retries=1)
    assert refusal.value.errno == code


@pytest.mark.parametrize("code", [errno.EMSGSIZE, errno.EBADMSG, errno.EINVAL])
def test_what_will_not_change_is_not_tried_again(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    asked = answers(monkeypatch, failing(code))
    with pytest.raises(CannotRead, match=r"^TCP sockets \(sock_diag\): "):
        sockets()
    assert asked == [1]


@pytest.mark.parametrize("code", [errno.ENOENT, errno.EPROTONOSUPPORT, errno.EPERM])
def test_where_sock_diag_is_closed_procfs_answers(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    answers(monkeypatch, failing(code))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        table = sockets(sport=listener.getsockname()[1])
    assert table.source == "procfs"
    assert not table.bound_known
    assert [row.state for row in table] == ["LISTEN"]


def test_where_both_are_closed_the_first_reason_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, failing(errno.ENOENT))

    def closed(*_: object) -> None:
        raise CannotRead(errno.EACCES, "procfs")

    monkeypatch.setattr(procfs, "read", closed)
    with pytest.raises(CannotRead) as refusal:
        sockets()
    assert str(refusal.value) == "TCP sockets (sock_diag): the kernel has no tcp_diag (modprobe tcp_diag)"


@pytest.mark.parametrize("release", ["6.7.12-generic", "5.15.0-91-generic", "4.18.0-553.el8", "odd"])
def test_old_kernels_do_not_list_bound_sockets(monkeypatch: pytest.MonkeyPatch, release: str) -> None:
    answers(monkeypatch, whole)
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "host", release, "", "x86_64")))
    assert not sockets().bound_known


def test_a_datagram_that_was_cut_is_an_error() -> None:
    columns = SocketColumns(4, 3, 1)
    for length in (4097, 0):
        with pytest.raises(CannotRead) as refusal:
            sock_diag.take(columns, Datagram(4096), length)
        assert refusal.value.errno == errno.EMSGSIZE


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        ({"states": ["OPEN"]}, "no state of TCP: 'OPEN' (known: ESTABLISHED, SYN_SENT"),
        ({"states": [7]}, "no state of TCP: 7"),
        ({"families": (1,)}, "families are AF_INET (2) and AF_INET6 (10), not [1]"),
        ({"families": ()}, "families are"),
        ({"sport": 65536}, "not a port or range of ports: 65536"),
        ({"dport": (5, 4)}, "not a port or range of ports: (5, 4)"),
        ({"saddr": "10.0.0.256"}, "not an address or prefix: '10.0.0.256'"),
        ({"daddr": "10.0.0.0/33"}, "not a prefix: '10.0.0.0/33' (a length is 0-32)"),
        ({"daddr": "::/129"}, "a length is 0-128"),
        ({"daddr": "::/"}, "a length is 0-128"),
    ],
)
def test_a_filter_that_means_nothing_is_a_value_error(wanted: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError) as refusal:
        sockets(**wanted)
    assert text in str(refusal.value)


def test_states_are_known_by_name_and_number() -> None:
    by_name = SocketFilter(states=["established", "TIME-WAIT", "Bound"])
    assert by_name.states == SocketFilter(states=[1, 6, TCP_BOUND]).states == 1 << 1 | 1 << 6 | 1 << 13
    assert SocketFilter(states="LISTEN").states == 1 << 10


@needs_root
def test_procfs_tells_the_same_as_sock_diag_as_far_as_it_goes() -> None:
    with Space() as space:
        listener, other = space.listen(), space.listen("2001:db8:77::1")
        client, server = space.pair(listener)
        space.pair(other)
        client.sendall(b"x" * 99)
        dual = space.socket(socket.AF_INET6)
        dual.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        dual.bind(("::", 0))
        dual.listen()
        space.connect("127.0.0.1", dual.getsockname()[1])
        space.try_connect("203.0.113.5", 443)
        netns = find_netns(space.path)
        rows = procfs.read(netns, SocketFilter())
        shared = ("family", "state", "saddr", "sport", "daddr", "dport", "uid", "inode", "rqueue")
        expected = sorted(tuple(getattr(row, name) for name in shared) for row in sockets(netns))
        assert sorted(tuple(getattr(row, name) for name in shared) for row in rows) == expected
        for wanted in ({"sport": dual.getsockname()[1]}, {"families": [10]}, {"daddr": "203.0.113.0/24"}):
            there = {(row.saddr, row.sport) for row in procfs.read(netns, SocketFilter(**wanted))}
            assert there == {(row.saddr, row.sport) for row in sockets(netns, **wanted)} != set()
        server.close()


def test_importing_the_reader_imports_neither_typing_nor_socket() -> None:
    import subprocess
    import sys

    program = "import sys, fourtuple.live as live; live.sockets; print(sorted({'typing', 'socket'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-S", "-c", program], capture_output=True, text=True, env=source_path())
    assert done.stdout.strip() == "[]"


def source_path() -> dict[str, str]:
    import fourtuple

    return {**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(str(fourtuple.__file__)))}


def test_every_public_name_is_there_and_sockets_is_the_function() -> None:
    import fourtuple.live as live

    assert all(getattr(live, name) is not None for name in live.__all__)
    assert callable(live.sockets)
    with pytest.raises(AttributeError, match="no attribute 'connections'"):
        live.connections  # noqa: B018
