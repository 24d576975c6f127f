"""Which sockets are asked for: checked once, then run by the kernel, or here where the kernel cannot be asked.

Lives here: SocketFilter, made of what a user says.  Does not live here: the kernel's form of it (sock_diag.py).
"""

from __future__ import annotations

from _socket import AF_INET, AF_INET6, inet_pton

from fourtuple.live.socket_table import STATE_NAMES, STATE_NUMBERS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

Port = int | tuple[int, int]

_LISTEN = 10
_ALL_STATES = sum(1 << number for number in STATE_NAMES)
_NEW_SYN_RECV = 12


class Prefix:
    """The first `length` bits of an address."""

    __slots__ = ("address", "family", "length")

    def __init__(self, family: int, address: bytes, length: int) -> None:
        self.family = family
        self.address = address
        self.length = length

    def holds(self, family: int, address: bytes) -> bool:
        if family != self.family:
            return False
        shift = 8 * len(self.address) - self.length
        return int.from_bytes(address, "big") >> shift == int.from_bytes(self.address, "big") >> shift


class SocketFilter:
    """Every condition must hold; None is none.  Raises ValueError with one line for what means nothing."""

    __slots__ = ("daddr", "dport", "family", "saddr", "sport", "states")

    def __init__(
        self,
        families: Iterable[int] = (AF_INET, AF_INET6),
        states: Iterable[int | str] | None = None,
        sport: Port | None = None,
        dport: Port | None = None,
        saddr: str | None = None,
        daddr: str | None = None,
    ) -> None:
        self.states = _state_bits(states)
        """Bit n: state n."""
        self.family = _family(families)
        """The only one."""
        self.sport = _ports(sport)
        """From, to."""
        self.dport = _ports(dport)
        self.saddr = _prefix(saddr)
        self.daddr = _prefix(daddr)

    @property
    def is_partial(self) -> bool:
        """Something beside states is filtered: a listener may be hidden."""
        conditions = (self.family, self.sport, self.dport, self.saddr, self.daddr)
        return any(condition is not None for condition in conditions)

    @property
    def shows_listeners(self) -> bool:
        return bool(self.states >> _LISTEN & 1) and not self.is_partial


def _state_bits(states: Iterable[int | str] | None) -> int:
    if states is None:
        return _ALL_STATES | 1 << _NEW_SYN_RECV
    numbers = [states] if isinstance(states, int | str) else states
    bits = 0
    for state in numbers:
        number = STATE_NUMBERS.get(state.upper().replace("-", "_")) if isinstance(state, str) else state
        if number not in STATE_NAMES:
            raise ValueError(f"no state of TCP: {state!r} (known: {', '.join(STATE_NUMBERS)})")
        bits |= 1 << number
    return bits


def _family(families: Iterable[int]) -> int | None:
    """The only one; None for both."""
    wanted = {int(family) for family in ([families] if isinstance(families, int) else families)}
    if not wanted or wanted - {AF_INET, AF_INET6}:
        raise ValueError(f"families are AF_INET (2) and AF_INET6 (10), not {sorted(wanted)}")
    return wanted.pop() if len(wanted) == 1 else None


def _ports(port: Port | None) -> tuple[int, int] | None:
    if port is None:
        return None
    low, high = (port, port) if isinstance(port, int) else port
    if not 0 <= low <= high <= 65535:
        raise ValueError(f"not a port or range of ports: {port!r}")
    return low, high


def _prefix(text: str | None) -> Prefix | None:
    if text is None:
        return None
    address, slash, length = text.partition("/")
    family = AF_INET6 if ":" in address else AF_INET
    try:
        raw = inet_pton(family, address)
    except OSError:
        raise ValueError(f"not an address or prefix: {text!r}") from None
    bits = 8 * len(raw)
    if slash and not (length.isascii() and length.isdigit() and int(length) <= bits):
        raise ValueError(f"not a prefix: {text!r} (a length is 0-{bits})")
    return Prefix(int(family), raw, int(length) if slash else bits)
