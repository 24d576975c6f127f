"""TupleIndex: an open-addressed hash index from (saddr, daddr, port, dport) to rows of one or two column groups.

The ehash is one (rows of sockets and of TIME_WAITs), the interned destinations are another.  An entry is
`row << 1 | group`; the key is read from the columns, so an entry costs 4 bytes.  A slot holds an entry, and in the bits
that entries do not need its distance from home (5 bits) and some bits of its hash (the tag): a row is read only when
both are right, and what a deletion moves back is not hashed again.  Rows are spread over memory: each one not read is
two or three cache misses saved.  Load <= 0.75, linear probing, backward-shift delete.

It grows without a pause: a larger slot array is started, and each insert or erase then moves 32 old slots (rehashing
eight million entries at once takes a third of a second).

Several entries may have an equal key (the same 4-tuple bound to two devices): a caller walks them with
`index_first` / `index_next`.
"""

from __future__ import annotations

from fourtuple.columns import allocate_columns
from fourtuple.inet.jhash import jhash_3words

_EMPTY = 0
_TOMB = 1  # in the old slots only: moved or erased
_STEP = 32  # old slots moved by each insert or erase
_FIRST_CAPACITY = 256
_FAR = 31  # a stored distance of 31 says: 31 or more
_DISTANCE_BITS = 5


class ColumnGroup:
    """The four key columns of one kind of row."""

    __slots__ = ("saddr", "daddr", "port", "dport")

    def __init__(self, saddr: memoryview, daddr: memoryview, port: memoryview, dport: memoryview) -> None:
        self.saddr = saddr
        self.daddr = daddr
        self.port = port
        self.dport = dport


class SlotArray:
    """`capacity` slots; of the old one those before `moved` are empty."""

    __slots__ = ("slots", "capacity", "moved")

    def __init__(self, capacity: int) -> None:
        self.slots = allocate_columns((("slots", "I"),), max(capacity, 1))["slots"]
        self.capacity = capacity
        self.moved = 0


class TupleIndex:
    """The index: `count` entries in `table`, while it grows also in `old`; `secret` keys the hash."""

    __slots__ = (
        "a", "b", "secret", "table", "old", "limit", "count", "shift", "entry_mask", "tag_mask", "key_saddr",
        "key_daddr", "key_ports", "key_hash", "cursor", "distance", "cursor_old",
    )  # fmt: skip

    def __init__(self, a: ColumnGroup, b: ColumnGroup, secret: int, most_rows: int = 1 << 24) -> None:
        self.shift = (2 * most_rows + 1).bit_length()
        if self.shift > 32 - _DISTANCE_BITS:
            raise ValueError(f"{most_rows} rows do not fit into 32 bits with their distance")
        self.entry_mask = (1 << self.shift) - 1
        self.tag_mask = (1 << (32 - self.shift - _DISTANCE_BITS)) - 1
        self.a = a
        self.b = b
        self.secret = secret
        self.count = 0
        self.key_saddr = 0
        self.key_daddr = 0
        self.key_ports = 0
        self.key_hash = 0
        self.cursor = 0
        self.distance = 0
        self.cursor_old = False
        self.old = SlotArray(0)
        self._install(_FIRST_CAPACITY)

    def _install(self, capacity: int) -> None:
        self.table = SlotArray(capacity)
        self.limit = capacity // 4 * 3

    def entries(self) -> list[int]:
        """All entries, in no order."""
        slots = list(self.table.slots) + list(self.old.slots)
        return [slot & self.entry_mask for slot in slots if slot > _TOMB]


def index_reserve(index: TupleIndex, count: int) -> None:
    """Make room for `count` entries at two thirds load.  Only while the index is empty; it still grows beyond."""
    capacity = count + count // 2
    if index.count == 0 and capacity > index.table.capacity:
        index._install(capacity)


def _grow(index: TupleIndex) -> None:
    """Start on a quarter more slots; the old ones empty step by step."""
    index.old = index.table
    index._install(index.table.capacity + index.table.capacity // 4)


def _release_old(index: TupleIndex) -> None:
    index.old = SlotArray(0)


def _entry_hash(index: TupleIndex, entry: int) -> int:
    """Hash of the key that the entry's row has now."""
    if entry & 1:
        return _row_hash(index.b, entry >> 1, index.secret)
    return _row_hash(index.a, entry >> 1, index.secret)


def _row_hash(group: ColumnGroup, row: int, secret: int) -> int:
    ports = group.port[row]
    return jhash_3words(group.saddr[row], group.daddr[row], ports << 16 | group.dport[row], secret)


def _entry_matches(index: TupleIndex, entry: int) -> bool:
    if entry & 1:
        return _row_matches(index.b, entry >> 1, index)
    return _row_matches(index.a, entry >> 1, index)


def _row_matches(group: ColumnGroup, row: int, key: TupleIndex) -> bool:
    ports = group.port[row]
    return (
        (ports << 16 | group.dport[row]) == key.key_ports
        and group.daddr[row] == key.key_daddr
        and group.saddr[row] == key.key_saddr
    )


# -- slots: tag, distance, entry


def _near(distance: int) -> int:
    """A distance as it is stored."""
    return distance if distance < _FAR else _FAR


def _distance(index: TupleIndex, table: SlotArray, slot: int, position: int) -> int:
    """How far the entry in a slot is from its home."""
    distance = slot >> index.shift & _FAR
    if distance == _FAR:
        wide = _entry_hash(index, slot & index.entry_mask)
        home = wide * table.capacity >> 32
        distance = position - home if position >= home else position + table.capacity - home
    return distance


def _put(index: TupleIndex, table: SlotArray, entry: int) -> None:
    wide = _entry_hash(index, entry)
    position = wide * table.capacity >> 32
    distance = 0
    while table.slots[position] != _EMPTY:
        distance += 1
        position += 1
        if position == table.capacity:
            position = 0
    mark = (wide & index.tag_mask) << _DISTANCE_BITS | _near(distance)
    table.slots[position] = mark << index.shift | entry


def _move_some(index: TupleIndex, old: SlotArray) -> None:
    """Move up to 32 old slots; when none is left the array is given back."""
    end = old.moved + _STEP
    if end > old.capacity:
        end = old.capacity
    position = old.moved
    while position < end:
        slot = old.slots[position]
        if slot > _TOMB:
            old.slots[position] = _TOMB
            _put(index, index.table, slot & index.entry_mask)
        position += 1
    old.moved = end
    if end == old.capacity:
        _release_old(index)


def index_insert(index: TupleIndex, entry: int) -> None:
    """Add an entry; its row's key columns are set."""
    if index.old.capacity != 0:
        _move_some(index, index.old)
    if index.count >= index.limit:
        while index.old.capacity != 0:  # cannot happen: moving ends long before the limit
            _move_some(index, index.old)
        _grow(index)
    _put(index, index.table, entry)
    index.count += 1


def index_erase(index: TupleIndex, entry: int) -> int:
    """Take an entry out; 0 when it is not there.  Its row's key columns are as they were when it went in."""
    wide = _entry_hash(index, entry)
    position = _find_entry(index, index.table, entry, wide)
    found = position >= 0
    if found:
        _close_gap(index, index.table, position)
    elif index.old.capacity != 0:
        position = _find_entry(index, index.old, entry, wide)
        found = position >= 0
        if found:
            index.old.slots[position] = _TOMB
    if found:
        index.count -= 1
    if index.old.capacity != 0:
        _move_some(index, index.old)
    return 1 if found else 0


def _find_entry(index: TupleIndex, table: SlotArray, entry: int, wide: int) -> int:
    """Position of an entry, or -1."""
    position = wide * table.capacity >> 32
    slot = table.slots[position]
    while slot != _EMPTY:
        if slot & index.entry_mask == entry:
            return position
        position += 1
        if position == table.capacity:
            position = 0
        slot = table.slots[position]
    return -1


def _close_gap(index: TupleIndex, table: SlotArray, gap: int) -> None:
    """Backward-shift delete (Knuth 6.4 R): what is displaced by no less than the way to the gap moves there."""
    position = gap
    while True:
        position += 1
        if position == table.capacity:
            position = 0
        slot = table.slots[position]
        if slot == _EMPTY:
            break
        distance = _distance(index, table, slot, position)
        way = position - gap if position >= gap else position + table.capacity - gap
        if distance >= way:
            table.slots[gap] = (slot & ~(_FAR << index.shift)) | _near(distance - way) << index.shift
            gap = position
    table.slots[gap] = _EMPTY


# -- lookup


def index_first(index: TupleIndex, saddr: int, daddr: int, port: int, dport: int) -> int:
    """First entry with this key, or 0.  Keeps the place for `index_next`; no insert or erase in between."""
    wide_port = port
    index.key_saddr = saddr
    index.key_daddr = daddr
    index.key_ports = wide_port << 16 | dport
    index.key_hash = jhash_3words(saddr, daddr, index.key_ports, index.secret)
    _start(index, index.table)
    index.cursor_old = False
    return index_next(index)


def index_next(index: TupleIndex) -> int:
    """The next entry with the key of `index_first`, or 0."""
    if not index.cursor_old:
        entry = _seek(index, index.table)
        if entry != 0 or index.old.capacity == 0:
            return entry
        _start(index, index.old)
        index.cursor_old = True
    return _seek(index, index.old)


def _start(index: TupleIndex, table: SlotArray) -> None:
    wide = index.key_hash
    index.cursor = wide * table.capacity >> 32
    index.distance = 0


def _seek(index: TupleIndex, table: SlotArray) -> int:
    """The next entry with the key from the cursor on, which is left behind it.  There is always an empty slot."""
    tag = (index.key_hash & index.tag_mask) << _DISTANCE_BITS
    position = index.cursor
    distance = index.distance
    found = _EMPTY
    slot = table.slots[position]
    while slot != _EMPTY and found == _EMPTY:
        if slot >> index.shift == (tag | _near(distance)) and slot != _TOMB:
            if _entry_matches(index, slot & index.entry_mask):
                found = slot & index.entry_mask
        distance += 1
        position += 1
        if position == table.capacity:
            position = 0
        slot = table.slots[position]
    index.cursor = position
    index.distance = distance
    return found
