"""inet_diag messages of a netlink datagram -> rows of columns, one pass, no object per socket.

Lives here: SocketColumns, the receive buffer, the decoder.  Does not live here: what is asked, and how often
(sock_diag.py); what the columns mean to a user (socket_table.py).

Rules
1. Any bytes are safe: every length is checked against the datagram before what it covers is read.
2. A datagram that runs over the end of its columns is taken up again where it stopped, after `grow`.
3. Numbers that the kernel keeps in its own byte order are read through `halves` and `words`, network order bytewise:
   both are right on any machine.

Layouts: include/uapi/linux/netlink.h (nlmsghdr, nlattr), include/uapi/linux/inet_diag.h (inet_diag_msg, 72 bytes).
"""

from __future__ import annotations

import sys

from fourtuple.columns import Code, allocate_columns

# 47 bytes a socket. inode is 32 bits wide in the message, too.
FIELDS: tuple[tuple[str, Code], ...] = (
    ("family", "B"), ("state", "B"), ("timer", "B"), ("retrans", "B"), ("flags", "B"), ("sport", "H"), ("dport", "H"),
    ("saddr", "I"), ("daddr", "I"), ("ifindex", "I"), ("uid", "I"), ("inode", "I"), ("expires_ms", "I"),
    ("rqueue", "I"), ("wqueue", "I"), ("cgroup", "Q"),
)  # fmt: skip

# Why decode() stopped.
MORE, DONE, ERROR, FULL, MALFORMED = 0, 1, 2, 3, 4
_MORE, _DONE, _ERROR, _FULL, _MALFORMED = MORE, DONE, ERROR, FULL, MALFORMED

# The flags column.
V6SOCK = 1
NO_PORT_KNOWN = 2
NO_PORT = 4
V6ONLY = 8
TRANSPARENT = 16
FREEBIND = 32
_V6SOCK, _V6ONLY = V6SOCK, V6ONLY

_M32 = 0xFFFFFFFF
_M64 = 0xFFFFFFFFFFFFFFFF
_MIX = 0x9E3779B97F4A7C15
_MAPPED = 0xFFFF  # third word of ::ffff:0:0/96
_ENOBUFS = 105
_LITTLE = sys.byteorder == "little"
_LOW_WORD = 0 if _LITTLE else 1  # of the two words of a 64-bit number

_AF_INET, _AF_INET6 = 2, 10
_TCP_SYN_RECV, _TCP_CLOSE, _LISTEN, _TCP_NEW_SYN_RECV, _BOUND = 3, 7, 10, 12, 13


class Datagram:
    """The receive buffer: the same bytes as Python sees them (`view`), as bytes, 16-bit and 32-bit numbers."""

    __slots__ = ("data", "halves", "size", "view", "words")

    data: memoryview
    halves: memoryview
    words: memoryview

    def __init__(self, size: int) -> None:
        self.size = size & ~3
        self.view = memoryview(bytearray(self.size))
        self.data = self.view
        self.halves = self.view.cast("H")
        self.words = self.view.cast("I")


class SocketColumns:
    """Rows of sockets, and the IPv6 addresses that they refer to by number (0 is `::`).

    `sequence` is of the answer to read: messages with another are counted as `foreign`, as are unknown kinds.
    `interrupted` is 1 when the kernel has said that the table changed in a way that shows (NLM_F_DUMP_INTR).
    """

    __slots__ = (
        "views", "count", "room", "sequence", "stop", "error", "interrupted", "foreign", "seed", "used6", "room6",
        "mask6", "slots6", "words6", "family", "state", "timer", "retrans", "flags", "sport", "dport", "saddr",
        "daddr", "ifindex", "uid", "inode", "expires_ms", "rqueue", "wqueue", "cgroup", "idle_ms", "has_idle",
    )  # fmt: skip

    views: dict[str, memoryview]  # the columns by name, as Python sees them: whole, not `count` long
    room: int
    room6: int
    mask6: int
    slots6: memoryview
    words6: memoryview
    family: memoryview
    state: memoryview
    timer: memoryview
    retrans: memoryview
    flags: memoryview
    sport: memoryview
    dport: memoryview
    saddr: memoryview
    daddr: memoryview
    ifindex: memoryview
    uid: memoryview
    inode: memoryview
    expires_ms: memoryview
    rqueue: memoryview
    wqueue: memoryview
    cgroup: memoryview
    idle_ms: memoryview  # where asked for (has_idle): no column of FIELDS, most readings do without

    def __init__(self, rows: int, addresses: int, seed: int) -> None:
        self.count = 0
        self.sequence = 0
        self.stop = MORE
        self.error = 0
        self.interrupted = 0
        self.foreign = 0
        self.seed = seed
        self.used6 = 1
        self.has_idle = 0
        self.idle_ms = allocate_columns((("idle_ms", "I"),), 1)["idle_ms"]
        take_rows(self, max(rows, 1))
        take_addresses(self, max(addresses, 3))

    def clear(self, sequence: int) -> None:
        """Forget all rows, to read the answer to another request."""
        self.count = 0
        self.sequence = sequence
        self.interrupted = 0
        self.foreign = 0
        self.error = 0

    def address6(self, index: int) -> bytes:
        """The 16 bytes of an IPv6 address in network order."""
        return bytes(memoryview(self.words6)[4 * index : 4 * index + 4])


def take_rows(c: SocketColumns, rows: int) -> None:
    """Columns of that many rows, with what was in the old ones."""
    views = allocate_columns(FIELDS, rows)
    if c.count:
        for name, view in views.items():
            view[: c.count] = c.views[name][: c.count]
    c.views = views
    c.room = rows
    c.family, c.state, c.timer, c.retrans = views["family"], views["state"], views["timer"], views["retrans"]
    c.flags, c.sport, c.dport = views["flags"], views["sport"], views["dport"]
    c.saddr, c.daddr, c.ifindex, c.uid = views["saddr"], views["daddr"], views["ifindex"], views["uid"]
    c.inode, c.expires_ms, c.cgroup = views["inode"], views["expires_ms"], views["cgroup"]
    c.rqueue, c.wqueue = views["rqueue"], views["wqueue"]
    if c.has_idle:
        take_idle(c)


def take_idle(c: SocketColumns) -> None:
    """A column for idle times, with what was in the old one."""
    new = allocate_columns((("idle_ms", "I"),), c.room)["idle_ms"]
    if c.has_idle and c.count:
        new[: c.count] = memoryview(c.idle_ms)[: c.count]
    c.idle_ms = new
    c.has_idle = 1


def take_addresses(c: SocketColumns, addresses: int) -> None:
    """Room for that many IPv6 addresses, in a hash table at most half full."""
    slots = 1 << (2 * addresses - 1).bit_length()
    new = allocate_columns((("words6", "I"),), 4 * addresses)["words6"]
    if c.used6 > 1:
        new[: 4 * c.used6] = memoryview(c.words6)[: 4 * c.used6]
    c.words6 = new
    c.slots6 = allocate_columns((("slots6", "I"),), slots)["slots6"]
    c.room6 = addresses
    c.mask6 = slots - 1
    for index in range(1, c.used6):
        enter_address(c, index)


def grow(c: SocketColumns) -> None:
    """Make room after decode() has stopped with FULL."""
    if c.count == c.room:
        take_rows(c, 2 * c.room)
    if c.used6 + 2 > c.room6:
        take_addresses(c, 2 * c.room6)


def is_sound(c: SocketColumns) -> bool:
    """Families are known and every IPv6 address exists: true of what was decoded, to be asked of rows from a file."""
    for row in range(c.count):
        family = c.family[row]
        if family != _AF_INET and (family != _AF_INET6 or c.saddr[row] >= c.used6 or c.daddr[row] >= c.used6):
            return False
    return True


def decode(c: SocketColumns, d: Datagram, start: int, length: int) -> int:
    """Append the sockets in d[start:length]; returns the offset reached, and leaves in `c.stop` why it stopped.

    MORE: all was taken.  FULL: grow(), then go on from the offset.  DONE: the answer is complete.  ERROR: the kernel
    refused, `c.error` is the errno.  MALFORMED: what is at the offset is no netlink message.
    """
    offset = start
    c.stop = _MORE
    if length > d.size:
        length = d.size
    while offset + 16 <= length:
        size = d.words[offset >> 2]
        if size < 16 or size > length - offset:
            break
        if d.words[(offset >> 2) + 2] == c.sequence:
            c.stop = _message(c, d, offset, size)
            if c.stop != _MORE:
                return offset
        else:
            c.foreign += 1
        offset += (size + 3) >> 2 << 2
    if offset < length:
        c.stop = _MALFORMED
    return offset


def _message(c: SocketColumns, d: Datagram, offset: int, size: int) -> int:
    """One message of `size` bytes, all of them there."""
    kind = d.halves[(offset >> 1) + 2]
    if d.halves[(offset >> 1) + 3] & 0x10:  # NLM_F_DUMP_INTR
        c.interrupted = 1
    if kind == 20 or kind == 18:  # SOCK_DIAG_BY_FAMILY, TCPDIAG_GETSOCK
        if size < 16 + 72:
            return _MALFORMED
        return _socket(c, d, offset + 16, offset + size)
    if kind == 2 or kind == 3:  # NLMSG_ERROR, NLMSG_DONE: both with 0 or -errno (an old DONE with nothing)
        word = d.words[(offset >> 2) + 4] if size >= 20 else 0
        if word > _M32 >> 1:
            c.error = (_M32 - word + 1) & _M32
            return _ERROR
        return _DONE if kind == 3 else _MORE
    if kind == 4:  # NLMSG_OVERRUN
        c.error = _ENOBUFS
        return _ERROR
    c.foreign += 1
    return _MORE


def _socket(c: SocketColumns, d: Datagram, offset: int, end: int) -> int:
    """One inet_diag_msg at `offset`, its attributes up to `end`."""
    if c.count == c.room or c.used6 + 2 > c.room6:
        return _FULL
    row = c.count
    if not _addresses(c, d, row, offset):
        c.foreign += 1
        return _MORE
    state = d.data[offset + 1]
    if state == _TCP_NEW_SYN_RECV:
        state = _TCP_SYN_RECV
    elif state == _TCP_CLOSE:  # only state bit 13 brings these: bound, not connected
        state = _BOUND
    c.state[row] = state
    c.timer[row] = d.data[offset + 2]
    c.retrans[row] = d.data[offset + 3]
    c.sport[row] = d.data[offset + 4] << 8 | d.data[offset + 5]
    c.dport[row] = d.data[offset + 6] << 8 | d.data[offset + 7]
    word = offset >> 2
    c.ifindex[row] = d.words[word + 10]
    c.expires_ms[row] = d.words[word + 13]
    c.rqueue[row] = d.words[word + 14]
    c.wqueue[row] = d.words[word + 15]
    c.uid[row] = d.words[word + 16]
    c.inode[row] = d.words[word + 17]
    c.cgroup[row] = 0
    if c.has_idle:
        c.idle_ms[row] = _M32
    _attributes(c, d, row, offset + 72, end)
    c.count = row + 1
    return _MORE


def _addresses(c: SocketColumns, d: Datagram, row: int, offset: int) -> bool:
    """Family, addresses and the first flag; IPv4 of an AF_INET6 socket is IPv4.  False: another family."""
    family = d.data[offset]
    if family == _AF_INET:
        c.family[row] = _AF_INET
        c.flags[row] = 0
        c.saddr[row] = _be32(d, offset + 8)
        c.daddr[row] = _be32(d, offset + 24)
        return True
    if family != _AF_INET6:
        return False
    c.flags[row] = _V6SOCK
    if _is_mapped(d, offset + 8) and (_is_mapped(d, offset + 24) or _is_zero(d, offset + 24)):
        c.family[row] = _AF_INET
        c.saddr[row] = _be32(d, offset + 20)
        c.daddr[row] = _be32(d, offset + 36)
    else:
        c.family[row] = _AF_INET6
        c.saddr[row] = _intern(c, d, offset + 8)
        c.daddr[row] = _intern(c, d, offset + 24)
    return True


def _attributes(c: SocketColumns, d: Datagram, row: int, offset: int, end: int) -> None:
    """Those we know; the rest, and what is cut short, is passed over."""
    while offset + 4 <= end:
        size = d.halves[offset >> 1]
        kind = d.halves[(offset >> 1) + 1]
        if size < 4 or size > end - offset:
            return
        if kind == 22 and size >= 6:  # INET_DIAG_SOCKOPT
            c.flags[row] |= _options(d.data[offset + 4], d.data[offset + 5])
        elif kind == 21 and size >= 12:  # INET_DIAG_CGROUP_ID
            high = d.words[(offset >> 2) + 2 - _LOW_WORD]
            c.cgroup[row] = high << 32 | d.words[(offset >> 2) + 1 + _LOW_WORD]
        elif kind == 11 and size >= 5 and d.data[offset + 4] != 0:  # INET_DIAG_SKV6ONLY
            c.flags[row] |= _V6ONLY
        elif kind == 2 and size >= 4 + 56 and c.has_idle and c.state[row] != _LISTEN:  # INET_DIAG_INFO
            c.idle_ms[row] = _idle(d, (offset >> 2) + 1)
        offset += (size + 3) >> 2 << 2


def _idle(d: Datagram, word: int) -> int:
    """Of a struct tcp_info: ms since data was last sent or received, whichever is later."""
    sent = d.words[word + 11]  # tcpi_last_data_sent
    received = d.words[word + 13]  # tcpi_last_data_recv
    return sent if sent < received else received


def _options(first: int, second: int) -> int:
    """Flags out of struct inet_diag_sockopt, whose bit fields start at the end that the machine's numbers start at."""
    if not _LITTLE:
        first = (first & 0x20) >> 3 | (first & 4) << 3
        second >>= 7
    flags = 2 | (second & 1) << 2  # bind_address_no_port -> NO_PORT_KNOWN, NO_PORT
    return flags | (first & 0x20) >> 1 | (first & 4) << 3  # transparent, freebind


def _be32(d: Datagram, offset: int) -> int:
    high = d.data[offset] << 8 | d.data[offset + 1]
    return high << 16 | d.data[offset + 2] << 8 | d.data[offset + 3]


def _is_zero(d: Datagram, offset: int) -> bool:
    word = offset >> 2
    return d.words[word] == 0 and d.words[word + 1] == 0 and d.words[word + 2] == 0 and d.words[word + 3] == 0


def _is_mapped(d: Datagram, offset: int) -> bool:
    word = offset >> 2
    return d.words[word] == 0 and d.words[word + 1] == 0 and _be32(d, offset + 8) == _MAPPED


def _intern(c: SocketColumns, d: Datagram, offset: int) -> int:
    """Number of the IPv6 address at `offset`; the caller has seen to room for it."""
    if _is_zero(d, offset):
        return 0
    word = offset >> 2
    at = 4 * c.used6
    for i in range(4):
        c.words6[at + i] = d.words[word + i]
    return enter_address(c, c.used6)


def enter_address(c: SocketColumns, index: int) -> int:
    """Find the address written at `index`, or enter it there (the next free number: `used6` then counts it)."""
    at = 4 * index
    high = c.words6[at]
    wide = c.seed ^ (high << 32 | c.words6[at + 1])
    wide = (wide * _MIX) & _M64
    wide ^= wide >> 32
    high = c.words6[at + 2]
    wide ^= high << 32 | c.words6[at + 3]
    wide = (wide * _MIX) & _M64
    slot = (wide >> 32) & c.mask6
    while c.slots6[slot] != 0:
        other = c.slots6[slot]
        if _same_address(c, other, index):
            return other
        slot = (slot + 1) & c.mask6
    c.slots6[slot] = index
    if index == c.used6:
        c.used6 = index + 1
    return index


def _same_address(c: SocketColumns, a: int, b: int) -> bool:
    a *= 4
    b *= 4
    return (
        c.words6[a] == c.words6[b]
        and c.words6[a + 1] == c.words6[b + 1]
        and c.words6[a + 2] == c.words6[b + 2]
        and c.words6[a + 3] == c.words6[b + 3]
    )
