"""PortSets: sets of the 65,536 ports as bit sets, even and odd ports apart; all sets in one mapping.

A set is known by the index of its first word.  EMPTY stays empty, RESERVED and SHUT belong to inet/bind.py, the others
are given out (`portset_alloc`) as the maps of inet/dest.py.  A set is 1,024 words of bits; 16 words with a bit for each
word that is all ones; one word with a bit for each of those 16 that is all ones; two words for the set's owner.  A
search goes from a full word to the next open one by these summaries, wherever it is.

Bit index of a port: its parity in bit 15, then the port without its lowest bit, so that one pass of the port search
(ports of one parity, ascending) is one run of bits.
"""

from __future__ import annotations

from fourtuple.columns import allocate_columns

_WORDS = 1024
_SUMMARY = _WORDS
_TOP = _SUMMARY + 16
OWN = _TOP + 1  # from here on two words are the owner's
_STRIDE = OWN + 2
SET_BYTES = 8 * _STRIDE

EMPTY = 0
RESERVED = _STRIDE
SHUT = 2 * _STRIDE
_FIRST_FREE = 3

_ONE = 1

# Position of the only 1 bit of a word, by the top 6 bits of its product with a de Bruijn sequence (Leiserson 1998).
_DE_BRUIJN = 0x03F79D71B4CB0A89
_POSITIONS = (
    b"\x00\x01\x30\x02\x39\x31\x1c\x03\x3d\x3a\x32\x2a\x26\x1d\x11\x04"
    b"\x3e\x37\x3b\x24\x35\x33\x2b\x16\x2d\x27\x21\x1e\x18\x12\x0c\x05"
    b"\x3f\x2f\x38\x1b\x3c\x29\x25\x10\x36\x23\x34\x15\x2c\x20\x17\x0b"
    b"\x2e\x1a\x28\x0f\x22\x14\x1f\x0a\x19\x0e\x13\x09\x0d\x08\x07\x06"
)


class PortSets:
    """Room for `max_sets` sets; one that was never used costs nothing.  `used`: how many are given out."""

    __slots__ = ("max_sets", "high_water", "free_head", "used", "words")

    def __init__(self, max_sets: int) -> None:
        self.max_sets = max_sets
        self.high_water = _FIRST_FREE
        self.free_head = 0
        self.used = 0
        self.words = allocate_columns((("words", "Q"),), max_sets * _STRIDE)["words"]

    def ports(self, ports: int) -> list[int]:
        """All members of a set in ascending order."""
        return [port for port in range(65536) if portset_test(self, ports, port)]


def portset_alloc(sets: PortSets) -> int:
    """An empty set, or 0 when there are no more."""
    if sets.free_head != 0:
        ports = sets.free_head
        sets.free_head = sets.words[ports]
        sets.words[ports] = 0
    elif sets.high_water < sets.max_sets:
        ports = sets.high_water * _STRIDE
        sets.high_water += 1
    else:
        return 0
    sets.used += 1
    return ports


def portset_free(sets: PortSets, ports: int) -> None:
    """Give a set back."""
    portset_clear(sets, ports)
    sets.words[ports] = sets.free_head
    sets.free_head = ports
    sets.used -= 1


def portset_clear(sets: PortSets, ports: int) -> None:
    """Empty a set."""
    word = ports
    while word < ports + _STRIDE:
        sets.words[word] = 0
        word += 1


def _all_ones() -> int:
    # 2**64 - 1, computed: the C compiler folds it, which a global would keep it from doing.
    low = 0x7FFFFFFF
    low = low * 2 + 1
    return low << 32 | low


def port_index(port: int) -> int:
    """Bit index of a port."""
    return (port & 1) << 15 | port >> 1


def index_port(index: int) -> int:
    """Port of a bit index."""
    return (index & 0x7FFF) << 1 | index >> 15


def portset_add(sets: PortSets, ports: int, port: int) -> None:
    """Put a port into a set."""
    index = port_index(port)
    word = index >> 6
    if _set_bit(sets, ports + word, index & 63) and _set_bit(sets, ports + _SUMMARY + (word >> 6), word & 63):
        _set_bit(sets, ports + _TOP, word >> 6)


def _set_bit(sets: PortSets, at: int, bit: int) -> bool:
    """True when the word is all ones then."""
    bits = sets.words[at] | _ONE << bit
    sets.words[at] = bits
    return bits == _all_ones()


def portset_discard(sets: PortSets, ports: int, port: int) -> None:
    """Take a port out of a set."""
    index = port_index(port)
    word = index >> 6
    sets.words[ports + word] &= _all_ones() ^ _ONE << (index & 63)
    sets.words[ports + _SUMMARY + (word >> 6)] &= _all_ones() ^ _ONE << (word & 63)
    sets.words[ports + _TOP] &= _all_ones() ^ _ONE << (word >> 6)


def portset_test(sets: PortSets, ports: int, port: int) -> int:
    """1 if the port is in the set."""
    index = port_index(port)
    return sets.words[ports + (index >> 6)] >> (index & 63) & 1


def lowest_bit(bits: int) -> int:
    """Position of the lowest 1 bit of a word that has one."""
    alone = bits & ((bits ^ _all_ones()) + 1)
    return _POSITIONS[(alone * _DE_BRUIJN & _all_ones()) >> 58]


def portset_next_open(sets: PortSets, a: int, b: int, c: int, first: int, last: int) -> int:
    """Lowest port of first, first + 2 .. last that is in none of the sets a, b, c, or -1."""
    index = port_index(first)
    word = index >> 6
    free = _clear_bits(sets, a, b, c, word) & (_all_ones() << (index & 63) & _all_ones())
    if free == 0:
        word = _next_open_word(sets, a, b, c, word, (index & 0x8000 | last >> 1) >> 6)
        if word == _WORDS:
            return -1
        free = _clear_bits(sets, a, b, c, word)
    port = index_port(word << 6 | lowest_bit(free))
    return port if port <= last else -1


def _clear_bits(sets: PortSets, a: int, b: int, c: int, word: int) -> int:
    """The bits of a word that are in none of the sets; of a summary word, those that are all ones in none."""
    return (sets.words[a + word] | sets.words[b + word] | sets.words[c + word]) ^ _all_ones()


def _next_open_word(sets: PortSets, a: int, b: int, c: int, word: int, last_word: int) -> int:
    """First word after `word` and up to last_word with a clear bit; 1024 when there is none."""
    own = word >> 6
    after = _all_ones() << (word & 63) << 1 & _all_ones()
    groups = _clear_bits(sets, a, b, c, _TOP) & (_all_ones() << own & _all_ones())
    while True:
        group = lowest_bit(groups)  # there is one: of the top word only the low 16 bits are ever set
        if group > last_word >> 6:
            return _WORDS
        words = _clear_bits(sets, a, b, c, _SUMMARY + group)
        if group == own:
            words &= after
        if group == last_word >> 6:
            words &= _all_ones() >> (63 - (last_word & 63))
        # A word that no set fills alone may be filled by them together.
        while words != 0:
            word = group << 6 | lowest_bit(words)
            if _clear_bits(sets, a, b, c, word) != 0:
                return word
            words &= words - 1
        groups &= groups - 1
