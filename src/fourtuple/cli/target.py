"""DEST of a command: HOST:PORT, :PORT, an address alone, a URL; and the addresses behind a name."""

from __future__ import annotations

from fourtuple.address import is_ipv4, parse_endpoint, parse_ipv6
from fourtuple.cli import exits
from fourtuple.cli.exits import Failure


def parse_target(word: str | None) -> tuple[str, int | None]:
    """Host ("" for any) and port (None for any)."""
    if word is None:
        return "", None
    bare = word[1:-1] if word.startswith("[") and word.endswith("]") else word
    if is_ipv4(bare) or _is_ipv6(bare):
        return bare, None
    if word.startswith(":"):  # any host, where an endpoint means this one
        return "", parse_target(f"0.0.0.0{word}")[1]
    try:
        return parse_endpoint(word) if ":" in word else (word, None)
    except ValueError as error:
        raise Failure(str(error), exits.USAGE) from None


def check_family(command: str, host: str, family: int | None) -> None:
    """Refuse an address of the other family than -4 or -6 asks for."""
    version = 6 if ":" in host else 4 if is_ipv4(host) else None
    is_mapped = version == 6 and parse_ipv6(host) >> 32 == 0xFFFF
    if family and version and family != version and not is_mapped:
        raise Failure(f"{command}: -{family} asks for IPv{family}, and {host} is an IPv{version} address", exits.USAGE)


def of_family(command: str, host: str, addresses: tuple[str, ...], family: int | None) -> tuple[str, ...]:
    """Those of a name that -4 or -6 leaves."""
    left = tuple(each for each in addresses if family in (None, 6 if ":" in each else 4))
    if addresses and not left:
        raise Failure(f"{command}: {host} has no IPv{family} address", exits.NOT_RESOLVED)
    return left


def _is_ipv6(text: str) -> bool:
    try:
        return ":" in text and parse_ipv6(text) >= 0
    except ValueError:
        return False


def addresses_of(host: str) -> tuple[str, ...]:
    """The numeric addresses of a host, which is perhaps a name; () for any."""
    if not host or is_ipv4(host) or ":" in host:
        return (host,) if host else ()
    import socket

    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "no such name"
        raise Failure(f"cannot resolve {host!r}: {reason}", exits.NOT_RESOLVED) from None
    return tuple(dict.fromkeys(str(each[4][0]) for each in found))
