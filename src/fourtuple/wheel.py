"""The timer wheel: every timer of a Host, in exact order of (due time, arm order), at a cost that does not grow.

Lives here: arm, cancel, the earliest due, and popping what is due.
Does not live here: what a timer means (tcp/timer.py).

A due time is eight digits of 256.  A wheel has 256 slots, one for each value of its digit, and a bit set of those
that are occupied; the root wheel turns on the highest digit.  A slot holds a list of timers in arm order until it has
too many, then a finer wheel on the next digit: it is opened.  The last wheel has slots of one microsecond, whose
timers are equal and stay in arm order.  So nothing is ever cascaded when time passes: time is not even known here, a
due time in the past or a thousand years ahead is like any other.

Rules
1. Equal dues are always in the same list, and lists are only appended to: that alone gives arm order.
2. A list is opened when the search for the earliest timer meets one longer than _SCAN, or when it grows to _OPEN_AT.
   That bounds the longest pause to moving _OPEN_AT timers, however many are armed.
3. A wheel that becomes empty is given back at once.  When no wheel is left a list stays a list: slower, never wrong.
4. Nodes and wheels are rows of columns, reserved for `max_timers` at once and paged in as used.  Only beyond
   `max_timers` is anything copied to grow.
"""

from __future__ import annotations

from fourtuple.columns import Code, allocate_columns

_SCAN = 16
_OPEN_AT = 2048
_ROOT_SHIFT = 56
_ONE = 1
_M64 = 0xFFFFFFFFFFFFFFFF
_DEBRUIJN = 0x03F79D71B4CB0A89
# Number of trailing zeros of a power of two p, at (p * _DEBRUIJN mod 2^64) >> 58 (Leiserson, Prokop, Randall 1998).
_TRAILING_ZEROS = (
    b"\x00\x01\x30\x02\x39\x31\x1c\x03\x3d\x3a\x32\x2a\x26\x1d\x11\x04"
    b"\x3e\x37\x3b\x24\x35\x33\x2b\x16\x2d\x27\x21\x1e\x18\x12\x0c\x05"
    b"\x3f\x2f\x38\x1b\x3c\x29\x25\x10\x36\x23\x34\x15\x2c\x20\x17\x0b"
    b"\x2e\x1a\x28\x0f\x22\x14\x1f\x0a\x19\x0e\x13\x09\x0d\x08\x07\x06"
)

_NODE_COLUMNS: tuple[tuple[str, Code], ...] = (
    ("due", "Q"),
    ("next", "I"),
    ("prev", "I"),
    ("slot", "I"),
    ("owner", "I"),
    ("kind", "B"),
)
_SLOT_COLUMNS: tuple[tuple[str, Code], ...] = (("head", "I"), ("tail", "I"), ("length", "I"), ("child", "I"))


class TimerWheel:
    """Timers by (due, arm order).  `armed`: how many; `fired_*`: what the last successful wheel_pop() took out.

    Node numbers start at 1.  `max_timers`: address space reserved (25 bytes a timer; memory only as timers are armed);
    `max_wheels`: finer wheels at most (4 KiB each, likewise).
    """

    __slots__ = (
        "armed", "child", "due", "fired_due", "fired_kind", "fired_owner", "first", "free_node", "free_wheel", "head",
        "high_node", "high_wheel", "kind", "length", "max_timers", "max_wheels", "next", "nodes", "occupied", "owner",
        "parent_slot", "prev", "shift", "slot", "tail",
    )  # fmt: skip

    def __init__(self, max_timers: int = 1 << 22, max_wheels: int = 4096) -> None:
        self.fired_due = self.fired_owner = self.fired_kind = self.armed = 0
        self.first = 0
        self.max_wheels = max_wheels
        self.free_node = self.high_node = self.free_wheel = self.high_wheel = 0
        self._attach_nodes(max_timers)
        slots = allocate_columns(_SLOT_COLUMNS, max_wheels * 256)
        self.head = slots["head"]
        self.tail = slots["tail"]
        self.length = slots["length"]
        self.child = slots["child"]
        wheels = allocate_columns((("parent_slot", "I"), ("shift", "B")), max_wheels)
        self.parent_slot = wheels["parent_slot"]
        self.shift = wheels["shift"]
        self.occupied = allocate_columns((("occupied", "Q"),), max_wheels * 4)["occupied"]
        self.shift[0] = _ROOT_SHIFT

    def _attach_nodes(self, max_timers: int) -> None:
        """Fresh node columns for `max_timers` timers."""
        self.nodes: dict[str, memoryview] = allocate_columns(_NODE_COLUMNS, max_timers + 1)
        self.max_timers = max_timers
        self.due = self.nodes["due"]
        self.next = self.nodes["next"]
        self.prev = self.nodes["prev"]
        self.slot = self.nodes["slot"]
        self.owner = self.nodes["owner"]
        self.kind = self.nodes["kind"]


def _grow(wheel: TimerWheel) -> None:
    """More timers than were foreseen: twice the room.  Only this copies; a right `max_timers` never comes here."""
    old = wheel.nodes
    used = wheel.max_timers + 1
    wheel._attach_nodes(2 * wheel.max_timers)
    for name, column in old.items():
        wheel.nodes[name][:used] = column


def wheel_arm(wheel: TimerWheel, due_us: int, owner: int, kind: int) -> int:
    """Arm a timer; the node to cancel it with.  Grows by itself, never fails."""
    if wheel.free_node == 0 and wheel.high_node == wheel.max_timers:
        _grow(wheel)
    if wheel.free_node != 0:
        node = wheel.free_node
        wheel.free_node = wheel.next[node]
    else:
        wheel.high_node += 1
        node = wheel.high_node
    wheel.due[node] = due_us
    wheel.owner[node] = owner
    wheel.kind[node] = kind
    slot = _find_slot(wheel, due_us)
    _append(wheel, slot, node)
    if wheel.length[slot] >= _OPEN_AT and wheel.shift[slot >> 8] != 0:
        _open(wheel, slot)
    if wheel.armed == 0 or (wheel.first != 0 and due_us < wheel.due[wheel.first]):
        wheel.first = node
    wheel.armed += 1
    return node


def wheel_cancel(wheel: TimerWheel, node: int) -> None:
    """Take an armed timer out.  The node must be armed: its number may be given to the next timer."""
    slot = wheel.slot[node]
    before = wheel.prev[node]
    after = wheel.next[node]
    if before != 0:
        wheel.next[before] = after
    else:
        wheel.head[slot] = after
    if after != 0:
        wheel.prev[after] = before
    else:
        wheel.tail[slot] = before
    wheel.length[slot] -= 1
    if wheel.length[slot] == 0:
        _vacate(wheel, slot)
    wheel.next[node] = wheel.free_node
    wheel.free_node = node
    wheel.armed -= 1
    if wheel.first == node:
        wheel.first = 0


def wheel_next_due(wheel: TimerWheel) -> int:
    """The earliest due time of all timers, exactly; -1 when none is armed."""
    if wheel.armed == 0:
        return -1
    if wheel.first == 0:
        wheel.first = _find_first(wheel)
    return wheel.due[wheel.first]


def wheel_due_of(wheel: TimerWheel, node: int) -> int:
    """Due time of an armed timer."""
    return wheel.due[node]


def wheel_pop(wheel: TimerWheel, now_us: int) -> bool:
    """Take out the earliest timer if it is due at now_us: its due, owner and kind are then in `fired_*`."""
    if wheel.armed == 0:
        return False
    if wheel.first == 0:
        wheel.first = _find_first(wheel)
    node = wheel.first
    if wheel.due[node] > now_us:
        return False
    wheel.fired_due = wheel.due[node]
    wheel.fired_owner = wheel.owner[node]
    wheel.fired_kind = wheel.kind[node]
    wheel_cancel(wheel, node)
    return True


def _find_slot(wheel: TimerWheel, due_us: int) -> int:
    """The slot whose list takes a timer due then: down from the root while there are finer wheels."""
    shift = _ROOT_SHIFT
    slot = due_us >> shift
    child = wheel.child[slot]
    while child != 0:
        shift -= 8
        slot = child << 8 | (due_us >> shift & 255)
        child = wheel.child[slot]
    return slot


def _append(wheel: TimerWheel, slot: int, node: int) -> None:
    last = wheel.tail[slot]
    wheel.slot[node] = slot
    wheel.prev[node] = last
    wheel.next[node] = 0
    wheel.tail[slot] = node
    wheel.length[slot] += 1
    if last != 0:
        wheel.next[last] = node
    else:
        wheel.head[slot] = node
        wheel.occupied[slot >> 6] |= _ONE << (slot & 63)


def _vacate(wheel: TimerWheel, slot: int) -> None:
    """The slot has become empty: clear its bit, and give back its wheel if that was the last; and so on upwards."""
    while True:
        wheel.occupied[slot >> 6] &= _M64 ^ _ONE << (slot & 63)
        turning = slot >> 8
        bits = turning << 2
        if turning == 0 or (
            wheel.occupied[bits] | wheel.occupied[bits + 1] | wheel.occupied[bits + 2] | wheel.occupied[bits + 3]
        ):
            return
        slot = wheel.parent_slot[turning]
        wheel.child[slot] = 0
        wheel.parent_slot[turning] = wheel.free_wheel
        wheel.free_wheel = turning


def _open(wheel: TimerWheel, slot: int) -> bool:
    """Replace the list of a slot by a finer wheel, in order.  False if there is no wheel left."""
    if wheel.free_wheel != 0:
        child = wheel.free_wheel
        wheel.free_wheel = wheel.parent_slot[child]
    elif wheel.high_wheel + 1 < wheel.max_wheels:
        wheel.high_wheel += 1
        child = wheel.high_wheel
    else:
        return False
    shift = wheel.shift[slot >> 8] - 8
    wheel.shift[child] = shift
    wheel.parent_slot[child] = slot
    node = wheel.head[slot]
    wheel.head[slot] = wheel.tail[slot] = wheel.length[slot] = 0
    wheel.child[slot] = child
    while node != 0:
        after = wheel.next[node]
        _append(wheel, child << 8 | (wheel.due[node] >> shift & 255), node)
        node = after
    return True


def _find_first(wheel: TimerWheel) -> int:
    """The earliest timer; there is one.  Opens what is too long to look through."""
    turning = 0
    while True:
        slot = _first_occupied(wheel, turning)
        if wheel.child[slot] == 0:
            if wheel.shift[turning] == 0:
                return wheel.head[slot]
            if wheel.length[slot] <= _SCAN or not _open(wheel, slot):
                return _earliest_of(wheel, wheel.head[slot])
        turning = wheel.child[slot]


def _first_occupied(wheel: TimerWheel, turning: int) -> int:
    """The first occupied slot of a wheel that has one."""
    word = turning << 2
    while wheel.occupied[word] == 0:
        word += 1
    bits = wheel.occupied[word]
    lowest = bits & (_M64 ^ bits - 1)
    return word << 6 | _TRAILING_ZEROS[(lowest * _DEBRUIJN & _M64) >> 58]


def _earliest_of(wheel: TimerWheel, node: int) -> int:
    """The earliest timer of a list, the first of equals."""
    best = node
    while node != 0:
        if wheel.due[node] < wheel.due[best]:
            best = node
        node = wheel.next[node]
    return best
