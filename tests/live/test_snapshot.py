"""The file of a snapshot: what was read comes back, other bytes are one clear line, and names can be taken out."""

from __future__ import annotations

import io
import json
import os
import random
import re
import socket
import struct
import subprocess
import tracemalloc
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fourtuple.doctor.predict import State, as_json
from fourtuple.live import Socket, SocketTable, sockets
from fourtuple.live.anonymize import Aliases
from fourtuple.live.netns import Netns
from fourtuple.live.owners import Owner, Owners
from fourtuple.live.rtnetlink import Address, Route
from fourtuple.live.snapshot import Snapshot, SnapshotError, read, take_all, take_snapshot, write
from fourtuple.live.snapshot_file import MAGIC, MOST_HEADER, MOST_ROWS, decode, encode, from_planes, to_planes
from fourtuple.live.system import System, read_limits, read_system
from fourtuple.sysctl import Sysctls
from fourtuple.sysctl_table import SYSCTLS
from tests.live.space import Space, needs_root

PREFIX = struct.Struct("<8sIIQQQQ")


def same(one: Snapshot, other: Snapshot) -> bool:
    """Whether all that a file keeps is equal."""
    facts = [replace(s.system, sysctls=None) for s in (one, other)]  # type: ignore[arg-type]
    names = [row.name for row in SYSCTLS if row.name not in one.sysctls.profile.absent_sysctls]
    values = [[s.sysctls.get(name) for name in names] for s in (one, other)]
    told = [(s.routes, s.owners, s.limits, s.is_anonymized, s.unseen, s.sockets.pack()) for s in (one, other)]
    names = ("source", "consistent", "bound_known", "listeners_known", "taken_at", "elapsed_s")
    tables = [[getattr(s.sockets, name) for name in names] for s in (one, other)]
    return facts[0] == facts[1] and values[0] == values[1] and told[0] == told[1] and tables[0] == tables[1]


def link_local(space: Space) -> str:
    """The address fe80:: of the device."""
    addresses = read_system(space.path).addresses
    return next(a.address for a in addresses if a.interface == space.ifindex() and a.address.startswith("fe80:"))


def busy(space: Space) -> None:
    """Sockets of every kind that is easily made, to several destinations."""
    space.sysctl("net.ipv4.ip_local_port_range", "40000 40099")
    space.sysctl("net.ipv4.ip_local_reserved_ports", "40010-40019")
    listener, listener6 = space.listen("127.0.0.1", 8080), space.listen("::1", 8081)
    for _ in range(3):
        space.pair(listener)
        space.pair(listener6)
    client, server = space.pair(listener)
    client.close()
    server.close()
    space.pair(space.listen("2001:db8:77::1", 8082))
    space.listen("::", 8083)
    scoped = space.socket(socket.AF_INET6)
    scoped.connect((link_local(space), 8083, 0, space.ifindex()))
    space.socket().bind(("10.77.0.1", 0))
    for i in range(30):
        space.try_connect("203.0.113.5", 443)
        space.try_connect(f"203.0.113.{6 + i % 2}", 443)


@pytest.fixture(scope="module")
def taken() -> Iterator[Snapshot]:
    with Space() as space:
        busy(space)
        yield take_snapshot(space.path)


@pytest.fixture(scope="module")
def small() -> Snapshot:
    """One of three sockets, made here: nothing is asked of a kernel."""
    rows = [
        Socket(2, "ESTABLISHED", "10.0.0.5", 40000, "93.184.216.34", 443, inode=77, uid=1000, cgroup=1 << 40),
        Socket(10, "TIME_WAIT", "2001:db8::5", 40002, "2606:4700::1", 443, timer=3, expires_ms=30_000),
        Socket(2, "LISTEN", "0.0.0.0", 80, "0.0.0.0", 0, inode=78),
    ]
    owner = Owner(4711, "uwsgi", "uwsgi", 1000, "/system.slice/uwsgi.service", unit="uwsgi.service")
    system = System("web-17", "6.18.44-acme", 1e9, "blue", 4026531840, Sysctls(), counters={"Tcp:ActiveOpens": 5})
    table = SocketTable.of(rows, netns=Netns("blue", "", 4026531840, False), source="sock_diag", taken_at=1e9)
    return Snapshot(table, system, owners=Owners({77: owner, 78: owner}, {78: (4711, 4712)}))


def thousands(count: int) -> SocketTable:
    """A busy machine: 40 destinations, ports, inodes and timers without order."""
    some = random.Random(1)
    rows = []
    for _ in range(count):
        server = some.randrange(40)
        state = some.choices(["ESTABLISHED", "TIME_WAIT", "SYN_SENT"], [8, 4, 1])[0]
        rows.append(
            Socket(
                2, state, "10.2.0.17", some.randrange(32768, 61000), f"10.2.{server}.9", 5432 + server % 3,
                timer=3 if state == "TIME_WAIT" else 0, expires_ms=some.randrange(60_000), uid=1000,
                inode=0 if state == "TIME_WAIT" else some.randrange(1 << 22), cgroup=8000 + server % 5,
            )
        )  # fmt: skip
    return SocketTable.of(rows)


@contextmanager
def living_in(space: Space) -> Iterator[None]:
    """A process is in the namespace meanwhile."""
    process = space.run(lambda: subprocess.Popen(["sleep", "60"]))
    try:
        yield
    finally:
        process.kill()
        process.wait()


# ------------------------------------------------------------------------------------------ out and in


@needs_root
def test_everything_that_was_read_comes_back(taken: Snapshot, tmp_path: Path) -> None:
    size = write([taken], tmp_path / "a.snap")
    assert size == (tmp_path / "a.snap").stat().st_size
    (back,) = read(tmp_path / "a.snap")
    assert same(taken, back)
    assert taken.sockets.count_by_state() == {1: 16, 2: 60, 6: 1, 10: 4, 13: 1}
    assert [*back.sockets] == [*taken.sockets]
    assert (back.sysctls.port_low, back.sysctls.reserved_ranges) == (40000, ((40010, 40019),))
    assert {owner.pid for owner in back.owner_of.values()} == {os.getpid()}
    assert back.limits == {os.getpid(): taken.limits[os.getpid()]}
    assert back.limits[os.getpid()].soft == read_limits(os.getpid()).soft
    sources = {route.destination: route.source for route in back.routes}
    scoped = next(text for text in sources if "%" in text)
    assert sources.pop(scoped) == scoped.partition("%")[0]
    assert sources.pop("2001:db8:77::1") == "2001:db8:77::1"
    assert sources == {"203.0.113.5": "10.77.0.1", "203.0.113.6": "10.77.0.1", "203.0.113.7": "10.77.0.1",
                       "127.0.0.1": "127.0.0.1", "::1": "::1"}  # fmt: skip
    assert back.owners is not None and back.owners.without_process == 2  # TIME_WAIT, not accepted


@needs_root
def test_every_namespace_goes_into_one_file(tmp_path: Path) -> None:
    with Space() as one, Space() as other:
        one.listen(port=1111)
        other.listen(port=2222)
        inodes = {space.run(os.stat, "/proc/thread-self/ns/net").st_ino for space in (one, other)}
        with living_in(one), living_in(other):  # a namespace is found by its processes, not by threads
            all_of_them = take_all()
    write(all_of_them, tmp_path / "all")
    back = read(tmp_path / "all")
    assert all(same(*pair) for pair in zip(all_of_them, back, strict=True))
    listening = {s.system.netns_inode: [*s.sockets.sport] for s in back if s.system.netns_inode in inodes}
    assert sorted(listening.values()) == [[1111], [2222]]
    assert back[0].system.netns_inode == os.stat("/proc/self/ns/net").st_ino
    assert all(
        owner.pid == os.getpid() for s in back if s.system.netns_inode in inodes for owner in s.owner_of.values()
    )


def test_a_snapshot_without_a_socket(tmp_path: Path) -> None:
    empty = Snapshot(SocketTable.of([]), read_system())
    write([empty], tmp_path / "a")
    assert same(read(tmp_path / "a")[0], empty)


def test_owners_not_asked_for_are_none_and_routes_may_be_left_out() -> None:
    snapshot = take_snapshot(owners=False, routes=False)
    assert (snapshot.owners, snapshot.routes, snapshot.limits, snapshot.owner_of) == (None, (), {}, {})
    assert same(decode(encode([snapshot]))[0], snapshot)


def test_an_open_file_will_do(small: Snapshot) -> None:
    file = io.BytesIO()
    write([small, small], file)
    file.seek(0)
    assert [same(small, one) for one in read(file)] == [True, True]


def test_20000_sockets_take_less_than_300_kb(small: Snapshot) -> None:
    table = thousands(20_000)
    owner = Owner(1, "nginx", "nginx", 0, "/")
    many = replace(small, sockets=table, owners=Owners(dict.fromkeys(set(table.inode) - {0}, owner)))
    data = encode([many])
    assert len(data) < 300_000
    assert same(decode(data)[0], many)


def test_no_byte_order_in_the_file(small: Snapshot) -> None:
    column = struct.pack("=3I", 0x01020304, 5, 0xFF000000)
    assert to_planes(column, 4) == bytes([4, 5, 0, 3, 0, 0, 2, 0, 0, 1, 0, 0xFF])
    assert from_planes(to_planes(column, 4), 4) == column
    assert to_planes(struct.pack("=2H", 0x0102, 3), 2) == bytes([2, 3, 1, 0])
    _, body = unpacked(encode([small]))
    at = 5 * len(small.sockets)  # family, state, timer, retrans, flags, then sport
    assert body[at : at + 6] == bytes([40000 & 255, 40002 & 255, 80, 40000 >> 8, 40002 >> 8, 0])


# ------------------------------------------------------------------------------------------ other bytes


def unpacked(data: bytes) -> tuple[Any, bytes]:
    """Header and body of a file."""
    _, _, _, small, _, _, _ = PREFIX.unpack_from(data)
    header = zlib.decompress(data[PREFIX.size : PREFIX.size + small])
    return json.loads(header), zlib.decompress(data[PREFIX.size + small :])


def packed(header: Any, body: bytes) -> bytes:
    """A file with right sizes and checksum, whatever is in it."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    small, large = zlib.compress(raw), zlib.compress(body)
    rest = struct.pack("<QQQQ", len(small), len(raw), len(large), len(body)) + small + large
    return struct.pack("<8sII", MAGIC, 1, zlib.crc32(rest)) + rest


def refusal(data: bytes) -> str:
    with pytest.raises(SnapshotError) as caught:
        decode(data, "x.snap")
    text = str(caught.value)
    assert text.startswith("x.snap: ")
    assert "\n" not in text and len(text) < 160
    return text.removeprefix("x.snap: ")


def test_every_truncation_is_one_line(small: Snapshot) -> None:
    data = encode([small])
    assert refusal(b"") == "an empty file, not a snapshot"
    assert {refusal(data[:size]) for size in range(1, PREFIX.size)} == {"the snapshot is cut short"}
    for size in range(PREFIX.size, len(data)):
        assert refusal(data[:size]) == f"the snapshot is cut short: {len(data) - size:,} bytes are missing"


def test_every_flipped_bit_is_found(small: Snapshot) -> None:
    data = encode([small])
    for at in range(len(data)):
        for bit in range(8) if at < PREFIX.size else (at % 8,):
            broken = bytearray(data)
            broken[at] ^= 1 << bit
            said = refusal(bytes(broken))
            if at >= PREFIX.size:
                assert said == "the snapshot is damaged: its checksum is wrong"


@pytest.mark.parametrize(
    "data",
    [
        b"PK\x03\x04" + bytes(90),
        b"\x7fELF" + bytes(90),
        b"Netid State Recv-Q\n" * 9,
        bytes(99),
        os.urandom(4000),
        b"\n",
    ],
    ids=["zip", "program", "ss", "zeros", "noise", "newline"],
)
def test_foreign_files_are_told_so(data: bytes) -> None:
    assert refusal(data) == "not a snapshot (make one with: fourtuple snapshot > FILE)"


def test_a_file_spoilt_by_a_transfer_as_text_is_told_so(small: Snapshot) -> None:
    data = encode([small])
    assert refusal(data.replace(b"\n", b"\r\n")).startswith("not a snapshot")
    assert refusal(data.decode("latin-1").encode()).startswith("not a snapshot")


def test_a_newer_format_is_told_so(small: Snapshot) -> None:
    data = bytearray(encode([small]))
    data[8:12] = struct.pack("<I", 2)
    assert refusal(bytes(data)) == "made by a newer fourtuple: format 2, and this one reads up to 1"


def test_what_follows_the_end_is_told(small: Snapshot) -> None:
    assert refusal(encode([small]) * 2) == "the snapshot is damaged: something follows its end"


@pytest.mark.parametrize("path", ["/nonexistent/x", "/", "/dev/null", "a\0b"])
def test_a_path_that_cannot_be_read_is_one_line(path: str) -> None:
    with pytest.raises(SnapshotError, match=r"^[^\n]+: [^\n]+$"):
        read(path)


def test_fields_and_columns_to_come_are_left_out(small: Snapshot) -> None:
    header, body = unpacked(encode([small]))
    entry = header["namespaces"][0]
    rows = len(small.sockets)
    at = len(body) - 16 * entry["table"]["addresses6"]
    entry["table"]["columns"].append(["colour", "H"])
    entry["table"]["mood"] = entry["system"]["mood"] = entry["mood"] = {"x": [1]}
    entry["sysctls"]["net.ipv4.tcp_to_come"] = "7"
    entry["owners"]["processes"][0]["mood"] = 7
    assert same(decode(packed(header, body[:at] + bytes(2 * rows) + body[at:]))[0], small)


def test_a_field_with_a_default_may_be_missing(small: Snapshot) -> None:
    header, body = unpacked(encode([small]))
    del header["namespaces"][0]["system"]["counters"]
    assert decode(packed(header, body))[0].system.counters == {}
    del header["namespaces"][0]["system"]["hostname"]
    assert refusal(packed(header, body)) == "the snapshot is damaged: a System without hostname"


def test_text_from_a_file_cannot_steer_a_terminal(small: Snapshot) -> None:
    evil = replace(small, system=replace(small.system, hostname="a\x1b[2Jb\nc\u202e", netns="\x07"))
    (back,) = decode(encode([evil]))
    assert (back.host, back.netns) == ("a?[2Jb?c?", "?")


# ------------------------------------------------------------------------------------------ hostile bytes


def peak(data: bytes) -> int:
    """Bytes of memory that the attempt to read took at most."""
    tracemalloc.start()
    try:
        refusal(data)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def claiming(small: int = 0, header: int = 0, packed_size: int = 0, body: int = 0, rest: bytes = b"") -> bytes:
    sizes = struct.pack("<QQQQ", small, header, packed_size, body)
    return struct.pack("<8sII", MAGIC, 1, zlib.crc32(rest, zlib.crc32(sizes))) + sizes + rest


@pytest.mark.parametrize("huge", [1 << 31, 1 << 40, (1 << 64) - 1])
@pytest.mark.parametrize("part", ["small", "header", "packed_size", "body"])
def test_huge_sizes_take_no_memory(part: str, huge: int) -> None:
    assert peak(claiming(**{part: huge})) < 1 << 20


def test_sizes_within_the_limits_without_the_bytes_take_no_memory() -> None:
    assert peak(claiming(MOST_HEADER, MOST_HEADER, MOST_ROWS, MOST_ROWS)) < 4 << 20


def test_more_than_was_announced_is_not_unpacked() -> None:
    bomb = zlib.compress(bytes(64 << 20), 9)
    assert peak(claiming(len(bomb), 2, 0, 0, bomb)) < 8 << 20
    header = zlib.compress(b'{"namespaces": []}')
    assert peak(claiming(len(header), 18, len(bomb), 1 << 18, header + bomb)) < 8 << 20


@pytest.mark.parametrize("count", [-1, 4, MOST_ROWS + 1, 1 << 62, 1.5, "3", None, True, [3]])
@pytest.mark.parametrize("name", ["rows", "addresses6"])
def test_counts_that_do_not_fit_are_refused(small: Snapshot, name: str, count: object) -> None:
    header, body = unpacked(encode([small]))
    header["namespaces"][0]["table"][name] = count
    assert refusal(packed(header, body)).startswith("the snapshot is damaged: ")


def test_no_more_columns_are_unpacked_than_the_body_is_said_to_have(small: Snapshot) -> None:
    header, _ = unpacked(encode([small]))
    header["namespaces"][0]["table"]["rows"] = MOST_ROWS
    raw, body = json.dumps(header).encode(), zlib.compress(bytes(64 << 20), 9)
    packed_header = zlib.compress(raw)
    assert peak(claiming(len(packed_header), len(raw), len(body), 1 << 17, packed_header + body)) < 1 << 20


@pytest.mark.parametrize("state", [0, 14, 16, 255])
def test_a_state_that_there_is_not_is_refused(small: Snapshot, state: int) -> None:
    header, body = unpacked(encode([small]))
    changed = bytearray(body)
    changed[len(small.sockets)] = state  # the second column
    assert refusal(packed(header, bytes(changed))) == "the snapshot is damaged: a socket in a state that there is not"


@pytest.mark.parametrize("text", ["", "10.0.0", "example.org", "10.0.0.1 ", "::g"])
def test_an_address_that_is_none_is_refused(small: Snapshot, text: str) -> None:
    address = replace(small, system=replace(small.system, addresses=(Address(2, text, 8, 1),)))
    route = replace(small, routes=(Route(text),))
    for broken in (address, route):
        assert refusal(encode([broken])) == f"the snapshot is damaged: {text!r} is no address"


@pytest.mark.parametrize(
    "header",
    [b"", b"{", b"[]", b"null", b"7", b'"x"', b"[" * 100_000, b"\xff\xfe", b'{"namespaces": 3}', b'{"a": NaN}'],
)
def test_headers_that_are_none_are_refused(header: bytes) -> None:
    assert refusal(packed(header, b"")).startswith("the snapshot is damaged: ")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("net.ipv4.ip_local_port_range", "40000 70000"),
        ("net.ipv4.ip_local_port_range", "50000 40000"),
        ("net.ipv4.ip_local_port_range", "0 65535"),
        ("net.ipv4.ip_local_port_range", "1"),
        ("net.ipv4.ip_local_reserved_ports", "1-70000"),
        ("net.ipv4.tcp_tw_reuse", "300"),
        ("net.ipv4.tcp_fin_timeout", str(1 << 40)),
        ("net.ipv4.tcp_fin_timeout", "soon"),
    ],
)
def test_sysctls_that_no_kernel_has_are_refused(small: Snapshot, name: str, text: str) -> None:
    header, body = unpacked(encode([small]))
    header["namespaces"][0]["sysctls"][name] = text
    assert refusal(packed(header, body)).startswith("the snapshot is damaged: ")


def use(snapshot: Snapshot) -> None:
    """What the doctor does with it."""
    repr(snapshot)
    [*snapshot.sockets.group_by_destination(), *snapshot.sockets]
    state = State(snapshot.sockets, snapshot.sysctls, owners=snapshot.owner_of)
    state.destinations(at_most=3)
    state.ports_not_joinable()
    encode([Aliases().snapshot(snapshot)])


def read_and_use(data: bytes) -> None:
    try:
        snapshots = decode(data, "x.snap")
    except SnapshotError as error:
        assert "\n" not in str(error)
    else:
        for snapshot in snapshots:
            use(snapshot)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_a_header_with_anything_anywhere_is_read_or_refused(small: Snapshot, data: st.DataObject) -> None:
    header, body = unpacked(encode([small]))
    at = header
    for _ in range(data.draw(st.integers(1, 6))):
        keys = sorted(at) if isinstance(at, dict) else range(len(at))
        key = data.draw(st.sampled_from([*keys]))
        if not isinstance(at[key], (dict, list)) or not at[key]:
            break
        at, parent = at[key], at
    else:
        at = parent
    at[key] = data.draw(JSON)
    read_and_use(packed(header, body))


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_columns_with_anything_in_them_are_read_or_refused(small: Snapshot, data: st.DataObject) -> None:
    header, body = unpacked(encode([small]))
    changed = bytearray(body)
    for _ in range(data.draw(st.integers(1, 12))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    read_and_use(packed(header, bytes(changed)))


@given(st.binary(max_size=300))
@settings(max_examples=100, deadline=None)
def test_anything_behind_the_magic_is_refused(data: bytes) -> None:
    refusal(MAGIC + data)


# ------------------------------------------------------------------------------------------ without names


def numbers(snapshot: Snapshot) -> list[dict[str, Any]]:
    """All that the engine says, but for the names."""
    state = State(snapshot.sockets, snapshot.sysctls, owners=snapshot.owner_of)
    found = []
    for prediction in state.destinations(minimum_share=0):
        plain = as_json(prediction)
        plain["source"] = plain["destination"] = ""
        found.append(plain)
    key = re.compile(r"\d+\.\d+\.\d+\.\d+|[0-9a-f:]*::[0-9a-f:]*")
    return sorted((json.loads(key.sub("", json.dumps(plain))) for plain in found), key=json.dumps)


@needs_root
def test_the_engine_says_the_same_of_an_anonymous_snapshot(taken: Snapshot) -> None:
    (back,) = decode(encode([taken.anonymized()]))
    assert back.is_anonymized
    assert numbers(back) == numbers(taken)
    assert len(numbers(taken)) == 7
    held = [
        [(p.port, p.kind, p.certainty) for p in State(s.sockets, s.sysctls).ports_not_joinable()] for s in (taken, back)
    ]
    assert held[0] == held[1] != []
    for name in ("sport", "dport", "state", "flags", "timer", "inode", "expires_ms", "rqueue", "wqueue", "ifindex"):
        assert getattr(back.sockets, name).tobytes() == getattr(taken.sockets, name).tobytes(), name
    assert [route.error for route in back.routes] == [route.error for route in taken.routes]


def is_in(word: str, text: str) -> bool:
    """As a word of its own: 1234 is not in 0.51234."""
    return bool(re.search(rf"(?<![0-9A-Za-z.]){re.escape(word)}", text))


@needs_root
def test_nothing_of_the_original_is_left_in_the_file(taken: Snapshot) -> None:
    header, body = unpacked(encode([taken.anonymized()]))
    text = json.dumps(header)
    owner = next(iter(taken.owner_of.values()))
    secrets = ["10.77.0.", "203.0.113.", "2001:db8:77:", "hole0", taken.host, taken.netns, owner.command]
    secrets += [taken.kernel.partition("-")[2], str(owner.pid), str(taken.system.netns_inode)]
    assert {secret for secret in secrets if secret and is_in(secret, text)} == set()
    original = unpacked(encode([taken]))
    assert all(is_in(secret, json.dumps(original[0])) for secret in secrets if secret)
    addresses = [sorted({*s.sockets.saddr, *s.sockets.daddr}) for s in (taken, taken.anonymized())]
    assert {*addresses[0]} & {*addresses[1]} <= {*range(10), 0x7F000001}  # small: numbers of IPv6 addresses
    assert bytes.fromhex("20010db80077") not in body
    assert bytes.fromhex("20010db80077") in original[1]


V4 = {
    "0.0.0.0": "0.0.0.0", "127.0.0.1": "127.0.0.1", "127.0.0.53": "127.0.0.2", "10.1.2.3": "10.0.0.1",
    "10.9.9.9": "10.0.0.2", "172.31.0.9": "172.16.0.1", "192.168.7.7": "192.168.0.1", "100.99.1.1": "100.64.0.1",
    "169.254.169.254": "169.254.0.1", "8.8.8.8": "198.18.0.1", "9.9.9.9": "198.18.0.2", "172.32.0.1": "198.18.0.3",
    "255.255.255.255": "255.255.255.255",
}  # fmt: skip
V6 = {
    "::": "::", "::1": "::1", "fe80::abcd": "fe80::1", "fd12:3456::1": "fd00::1", "2a00:1450::5": "2001:db8::1",
    "2606:4700::1": "2001:db8::2", "64:ff9b::808:808": "64:ff9b::1", "::ffff:10.1.2.3": "::ffff:10.0.0.1",
    "ff02::1": "ff0e::1", "fe80::abcd%eth0": "fe80::1%eth0",
}  # fmt: skip


def test_an_alias_keeps_the_kind_of_an_address_and_is_the_same_each_time() -> None:
    aliases = Aliases()
    for _ in range(2):
        assert {text: aliases.address(text) for text in V4 | V6} == V4 | V6


def test_more_public_addresses_than_the_block_has_stay_different() -> None:
    aliases = Aliases()
    found = {aliases.ipv4(0x08000000 + n) for n in range(140_000)}
    assert len(found) == 140_000
    assert all(value >> 17 == 0xC6120000 >> 17 or value >> 28 == 0xF for value in found)


def test_two_namespaces_of_a_file_share_their_aliases(small: Snapshot) -> None:
    aliases = Aliases()
    one, other = (aliases.snapshot(s) for s in (small, replace(small, limits={})))
    assert [*one.sockets] == [*other.sockets]
    assert one.owners == other.owners
    owner = one.owner_of[77]
    assert (owner.command, owner.unit, owner.cgroup, owner.pid) == ("program-1", "unit-1", "/group-1", 1001)
    assert one.owners is not None and one.owners.holders == {78: (1001, 1002)}
    assert owner.uid == one.sockets.uid[0] == 1000
    assert (one.host, one.kernel, one.netns, one.sockets.uid[2]) == ("host-1", "6.18.44", "netns-1", 0)


def test_every_field_of_a_system_is_thought_of() -> None:
    """A new field has to be looked at in anonymize.py: is it a name?"""
    assert {field.name for field in fields(System)} == {
        "hostname", "kernel", "taken_at", "netns", "netns_inode", "sysctls", "absent", "interfaces", "addresses",
        "conntrack", "nat", "counters", "files", "ipv6", "container", "unread",
    }  # fmt: skip


def test_reading_is_independent_of_this_machine(small: Snapshot) -> None:
    """The namespace of a file is none of ours: it cannot be entered."""
    netns = decode(encode([small]))[0].sockets.netns
    assert netns is not None and not netns.is_current
    with pytest.raises(OSError, match="blue"):
        sockets(netns)
