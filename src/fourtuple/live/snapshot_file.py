"""The file of snapshots: bytes <-> Snapshot values.

Lives here: layout, checks.  Does not live here: what is in a snapshot (snapshot.py), JSON <-> values (plain.py).

    magic    8 bytes; has a byte >= 0x80 and a newline, which a transfer as text would spoil
    prefix   little endian: format version u32, CRC-32 u32 of all that follows, then the sizes of both parts, u64 each:
             header packed, header, body packed, body
    header   zlib, JSON: facts, names, sysctls; the columns of each table, their number of rows
    body     zlib, the columns one after another, each as planes: the lowest byte of every row, the next byte, ...

Rules
1. Whatever the bytes, decode() gives snapshots that the engine can take, or one SnapshotError; no part is unpacked
   beyond the size that was announced, and no size beyond MOST_* is believed.
2. Unknown keys and columns are left out, so fields may be added; anything else that changes takes a new version.
3. Numbers go as the machine has them in memory, planes by significance: the file does not depend on byte order.
"""

from __future__ import annotations

import json
import struct
import sys
import zlib
from _socket import AF_INET, AF_INET6, inet_pton
from typing import TYPE_CHECKING, Any

from fourtuple.live._decode import FIELDS
from fourtuple.live.cgroups import Group
from fourtuple.live.netns import Netns
from fourtuple.live.owners import Owner, Owners
from fourtuple.live.plain import PlainError, freeze, thaw
from fourtuple.live.rtnetlink import Route
from fourtuple.live.snapshot import Snapshot, SnapshotError
from fourtuple.live.socket_table import SocketTable
from fourtuple.live.system import Limits, System, nearest_profile, store_sysctl
from fourtuple.sysctl import Sysctls
from fourtuple.sysctl_table import BY_NAME, SYSCTLS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import BinaryIO

    from fourtuple.live.ctnetlink import NatFlows
    from fourtuple.live.netfilter import Nat

MAGIC = b"\x894tuple\n"
VERSION = 1
SCHEMA = "fourtuple.snapshot/1"
MOST_ROWS = 2_000_000
MOST_HEADER = 16 << 20
_PREFIX = struct.Struct("<8sIIQQQQ")
_CHECKED_FROM = 16  # magic, version, CRC
_WIDTHS = {"B": 1, "H": 2, "I": 4, "Q": 8}
_OWNER = ("owner", "I")  # 0 nobody known, else 1 + index in the list of processes
_IDLE = ("idle_ms", "I")  # of a reading that asked for it
_STATES = bytes(range(1, 14))
_CHUNK = 1 << 20
_TABLE_FACTS = ("source", "consistent", "bound_known", "listeners_known", "taken_at", "elapsed_s")


# ------------------------------------------------------------------------------------------ out


def encode(snapshots: Sequence[Snapshot]) -> bytes:
    """The bytes of a file."""
    packer = zlib.compressobj(6)
    packed, size, descriptions = [], 0, []
    for snapshot in snapshots:
        columns = _columns(snapshot)
        descriptions.append(_describe(snapshot, _listed(columns)))
        for name, code in (*_listed(columns), ("addresses6", "B")):
            packed.append(packer.compress(to_planes(columns[name], _WIDTHS[code])))
            size += len(columns[name])
    packed.append(packer.flush())
    header = json.dumps({"schema": SCHEMA, "made_by": _made_by(), "namespaces": descriptions}).encode()
    body, small = b"".join(packed), zlib.compress(header, 6)
    sizes = struct.pack("<QQQQ", len(small), len(header), len(body), size)
    crc = zlib.crc32(body, zlib.crc32(small, zlib.crc32(sizes)))
    return struct.pack("<8sII", MAGIC, VERSION, crc) + sizes + small + body


def _made_by() -> str:
    from fourtuple import __version__

    return f"fourtuple {__version__}"


def to_planes(data: bytes, width: int) -> bytes:
    """Byte planes of a column, the least significant one first: they pack far better than the numbers."""
    order = range(width) if sys.byteorder == "little" else reversed(range(width))
    return b"".join(data[plane::width] for plane in order)


def from_planes(data: bytes, width: int) -> bytes:
    """The column."""
    rows = len(data) // width
    column = bytearray(len(data))
    order = range(width) if sys.byteorder == "little" else reversed(range(width))
    for position, plane in enumerate(order):
        column[plane::width] = data[position * rows : (position + 1) * rows]
    return bytes(column)


def _columns(snapshot: Snapshot) -> dict[str, bytes]:
    columns = snapshot.sockets.pack()
    numbers = {owner.pid: i + 1 for i, owner in enumerate(_processes(snapshot))}
    who = {inode: numbers[owner.pid] for inode, owner in snapshot.owner_of.items()}
    column = memoryview(bytearray(4 * len(snapshot.sockets))).cast("I") if len(snapshot.sockets) else memoryview(b"")
    if who:
        for row, inode in enumerate(snapshot.sockets.inode):
            column[row] = who.get(inode, 0)
    return columns | {"owner": column.tobytes()}


def _listed(columns: Mapping[str, bytes]) -> list[tuple[str, str]]:
    """Names and types of the columns, in the order of the file."""
    return [*FIELDS, _OWNER, *([_IDLE] if _IDLE[0] in columns else [])]


def _processes(snapshot: Snapshot) -> list[Owner]:
    return [*{owner.pid: owner for owner in snapshot.owner_of.values()}.values()]


def _describe(snapshot: Snapshot, listed: Sequence[tuple[str, str]]) -> dict[str, Any]:
    table, system = snapshot.sockets, snapshot.system
    absent = {*system.absent, *system.sysctls.profile.absent_sysctls}
    return {
        "system": freeze(system, leave_out=("sysctls",)),
        "sysctls": {row.name: system.sysctls.get(row.name) for row in SYSCTLS if row.name not in absent},
        "table": {
            "rows": len(table),
            "addresses6": len(table.addresses6),
            "columns": [*listed],
            **{name: getattr(table, name) for name in _TABLE_FACTS},
        },
        "routes": freeze(snapshot.routes),
        "owners": _describe_owners(snapshot),
        "limits": freeze(tuple(snapshot.limits.values())),
        "is_anonymized": snapshot.is_anonymized,
        "unseen": freeze(snapshot.unseen),
    }


def _describe_owners(snapshot: Snapshot) -> dict[str, Any] | None:
    owners = snapshot.owners
    if owners is None:
        return None
    return {
        "processes": [owner._asdict() for owner in _processes(snapshot)],
        "facts": freeze(owners, leave_out=("by_inode", "groups")),
        "groups": {str(number): group._asdict() for number, group in owners.groups.items()},
    }


# ------------------------------------------------------------------------------------------ in


def decode_file(file: BinaryIO, name: str) -> list[Snapshot]:
    """The snapshots in an open file.  Raises SnapshotError, which names the file."""
    try:
        prefix = file.read(_PREFIX.size)
        sizes = _check_prefix(prefix)
        return _decode(prefix, _read(file, sizes[0], sizes[2]), sizes)
    except _Bad as error:
        raise SnapshotError(f"{name}: {error}") from None
    except OSError as error:
        raise SnapshotError(f"{name}: {error.strerror or error}") from None


def decode(data: bytes, name: str = "the snapshot") -> list[Snapshot]:
    """The snapshots in the bytes of a file."""
    from io import BytesIO

    return decode_file(BytesIO(data), name)


class _Bad(Exception):
    """What is wrong with the bytes."""


def _check_prefix(prefix: bytes) -> tuple[int, int, int, int]:
    """Sizes of header and body, packed and not."""
    if not prefix:
        raise _Bad("an empty file, not a snapshot")
    if prefix[:8] != MAGIC[: len(prefix)]:
        raise _Bad("not a snapshot (make one with: fourtuple snapshot > FILE)")
    if len(prefix) < _PREFIX.size:
        raise _Bad("the snapshot is cut short")
    _, version, _, *sizes = _PREFIX.unpack(prefix)
    if version > VERSION:
        raise _Bad(f"made by a newer fourtuple: format {version}, and this one reads up to {VERSION}")
    small, header, packed, body = sizes
    if version < 1 or header > MOST_HEADER or body > MOST_ROWS * _row_bytes() or small > header + 1024:
        raise _Bad("the snapshot is damaged: its sizes make no sense")
    if packed > body + body // 1000 + 1024:
        raise _Bad("the snapshot is damaged: its sizes make no sense")
    return small, header, packed, body


def _row_bytes() -> int:
    """Most that a row can take: its columns, and two IPv6 addresses of its own; some room for columns to come."""
    return sum(_WIDTHS[code] for _, code in FIELDS) + 4 + 4 + 32 + 32


def _read(file: BinaryIO, small: int, packed: int) -> bytes:
    """Exactly the rest of the file, in pieces: memory is taken for what is there, not for what is said to be."""
    left, pieces = small + packed, []
    while left:
        piece = file.read(min(left, _CHUNK))
        if not piece:
            raise _Bad(f"the snapshot is cut short: {left:,} bytes are missing")
        pieces.append(piece)
        left -= len(piece)
    if file.read(1):
        raise _Bad("the snapshot is damaged: something follows its end")
    return b"".join(pieces)


def _decode(prefix: bytes, data: bytes, sizes: tuple[int, int, int, int]) -> list[Snapshot]:
    small, header_size, _, body_size = sizes
    if zlib.crc32(data, zlib.crc32(prefix[_CHECKED_FROM:])) != _PREFIX.unpack(prefix)[2]:
        raise _Bad("the snapshot is damaged: its checksum is wrong")
    try:
        header = json.loads(_Unpacker(data[:small], header_size).take(header_size, last=True))
        unpacker = _Unpacker(data[small:], body_size)
        snapshots = [_snapshot(entry, unpacker) for entry in _list(header, "namespaces")]
        unpacker.take(0, last=True)
        if unpacker.taken != body_size:
            raise _Bad("sizes")
        return snapshots
    except (PlainError, ValueError, KeyError, RecursionError, zlib.error, OverflowError, _Bad) as error:
        raise _Bad(f"the snapshot is damaged: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    if isinstance(error, (RecursionError, json.JSONDecodeError)):
        return "its header is no JSON"
    if isinstance(error, KeyError):
        return f"{error} is missing"
    return str(error)[:100]


class _Unpacker:
    """A zlib stream, unpacked piece by piece, never further than asked."""

    def __init__(self, data: bytes, most: int) -> None:
        self._stream = zlib.decompressobj()
        self._data = data
        self._most = most
        self.taken = 0

    def take(self, size: int, last: bool = False) -> bytes:
        """The next `size` bytes; the stream has to end there if they are the last."""
        if self.taken + size > self._most:
            raise _Bad("its columns are longer than they are said to be")
        piece = self._stream.decompress(self._data, size) if size else b""
        self._data = self._stream.unconsumed_tail if size else self._data
        if len(piece) != size:
            raise _Bad("it ends before its columns do")
        self.taken += size
        if last and (self._stream.decompress(self._data, 1) or not self._stream.eof or self._stream.unused_data):
            raise _Bad("its parts are longer than they are said to be")
        return piece


def _list(mapping: object, key: str) -> list[Any]:
    value = _dict(mapping)[key]
    if not isinstance(value, list):
        raise _Bad(f"{key} is no list")
    return value


def _dict(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _Bad("its header is not that of a snapshot")
    return value


def _snapshot(entry: object, unpacker: _Unpacker) -> Snapshot:
    entry = _dict(entry)
    sysctls = _sysctls(entry["sysctls"], _dict(entry["system"]).get("kernel"))
    system = thaw(System, entry["system"], {"sysctls": sysctls})
    columns = _take_columns(_dict(entry["table"]), unpacker)
    who = columns.pop("owner")
    table = _table(columns, _dict(entry["table"]), system)
    routes = thaw(tuple[Route, ...], entry["routes"])
    _check_addresses(system, routes)
    _check_nat(system.nat)
    return Snapshot(
        table,
        system,
        routes,
        _owners(entry["owners"], table, who),
        {limits.pid: limits for limits in thaw(tuple[Limits, ...], entry["limits"])},
        thaw(bool, entry["is_anonymized"]),
        thaw(tuple[str, ...], entry["unseen"]),
    )


def _take_columns(facts: dict[str, Any], unpacker: _Unpacker) -> dict[str, bytes]:
    """Every column that the file has, as bytes of this machine."""
    rows, addresses = thaw(int, facts["rows"]), thaw(int, facts["addresses6"])
    if not (0 <= rows <= MOST_ROWS and 1 <= addresses <= 2 * rows + 1):
        raise _Bad("its numbers of rows make no sense")
    known = dict([*FIELDS, _OWNER, _IDLE])
    columns = {}
    for name, code in thaw(tuple[tuple[str, ...], ...], facts["columns"]):
        if known.get(name, code) != code or code not in _WIDTHS or name in columns:
            raise _Bad(f"column {name[:20]} is not as it should be")
        data = unpacker.take(rows * _WIDTHS[code])
        columns[name] = from_planes(data, _WIDTHS[code]) if name in known else b""
    columns["addresses6"] = unpacker.take(16 * addresses)
    return columns


def _table(columns: dict[str, bytes], facts: dict[str, Any], system: System) -> SocketTable:
    if columns["state"].translate(None, _STATES):
        raise _Bad("a socket in a state that there is not")
    return SocketTable.unpack(
        columns,
        netns=Netns(system.netns, "", system.netns_inode, False),
        source=thaw(str, facts["source"]),
        consistent=thaw(bool, facts["consistent"]),
        bound_known=thaw(bool, facts["bound_known"]),
        listeners_known=thaw(bool, facts["listeners_known"]),
        taken_at=thaw(float, facts["taken_at"]),
        elapsed_s=thaw(float, facts["elapsed_s"]),
    )


def _owners(entry: object, table: SocketTable, column: bytes) -> Owners | None:
    if entry is None:
        return None
    described = _dict(entry)
    processes = thaw(tuple[Owner, ...], described["processes"])
    groups = thaw(dict[int, Group], described["groups"])
    by_inode: dict[int, Owner] = {}
    who: Sequence[int] = memoryview(column).cast("I") if column else b""
    if who and max(who) > len(processes):
        raise _Bad("a socket of a process that is not listed")
    for inode, number in zip(table.inode, who, strict=True):
        if number:
            by_inode[inode] = processes[number - 1]
    return thaw(Owners, described["facts"], {"by_inode": by_inode, "groups": groups})


def _check_addresses(system: System, routes: tuple[Route, ...]) -> None:
    """Whatever is an address elsewhere is one here."""
    texts = [address.address for address in system.addresses]
    texts += [text for rule in system.nat.sources for text in (rule.first, rule.last) if text]
    texts += [text for flows in _nat_flows(system.nat) for text in (flows.address, flows.destination)]
    for route in routes:
        texts += [route.destination.partition("%")[0], *filter(None, (route.bound, route.source, route.gateway))]
    for text in texts:
        try:
            inet_pton(AF_INET6 if ":" in text else AF_INET, text)
        except OSError:
            raise _Bad(f"{text[:40]!r} is no address") from None


def _nat_flows(nat: Nat) -> tuple[NatFlows, ...]:
    return nat.tracked.flows if nat.tracked else ()


def _check_nat(nat: Nat) -> None:
    """Ports are ports."""
    ports = [port for rule in nat.sources for port in (rule.low, rule.high)]
    ports += [flows.port for flows in _nat_flows(nat)]
    if not all(0 <= port <= 65535 for port in ports) or any(rule.low > rule.high for rule in nat.sources):
        raise _Bad("a NAT port that is none")
    for flows in _nat_flows(nat):
        for digits in (flows.ports, flows.closing_ports):
            if len(digits) > 1 << 14 or set(digits) - set("0123456789abcdef") or not digits:
                raise _Bad("a map of NAT ports that is none")


def _sysctls(entry: object, kernel: object) -> Sysctls:
    """The values; those of unknown names are left out, those that no kernel takes are refused."""
    sysctls = Sysctls(nearest_profile(kernel if isinstance(kernel, str) else ""))
    for name, text in thaw(dict[str, str], entry).items():
        row = BY_NAME.get(name)
        if row is not None and not (store_sysctl(sysctls, row, text) and _fits(sysctls, row.field_names, row.kind)):
            raise _Bad(f"sysctl {name} is not as it should be")
    if not 1 <= sysctls.port_low <= sysctls.port_high <= 65535:
        raise _Bad("the range of ports is not as it should be")
    return sysctls


_BOUNDS: Mapping[str, tuple[int, int]] = {
    "u8": (0, 255),
    "port_range": (1, 65535),
    "port_start": (0, 65535),
    "uint": (0, 2**32 - 1),
    "ulong": (0, 2**64 - 1),
}


def _fits(sysctls: Sysctls, fields: tuple[str, ...], kind: str) -> bool:
    """The numbers fit the type that the kernel keeps them in."""
    low, high = _BOUNDS.get(kind, (-(2**31), 2**31 - 1))
    values = [getattr(sysctls, name) for name in fields]
    return all(low <= value <= high for value in values if isinstance(value, int))
