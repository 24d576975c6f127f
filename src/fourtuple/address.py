"""Text <-> addresses: IPv4 as host-order ints, prefixes, and the HOST:PORT of the command line.

Here: text at the edges. Not here: what an address means to a host (ip/). Everything that cannot be read is a ValueError
whose message names the text and what was expected. What URLs and IPv6 addresses need is imported when one comes along:
it takes 2 ms.
"""

from __future__ import annotations

import re

INADDR_ANY = 0
INADDR_LOOPBACK = 0x7F000001
INADDR_BROADCAST = 0xFFFFFFFF

_PORT_OF_SCHEME = {"http": 80, "ws": 80, "https": 443, "wss": 443, "ftp": 21, "ssh": 22, "redis": 6379, "rediss": 6379}
_OCTET = re.compile(r"0|[1-9][0-9]{0,2}")


def parse_ipv4(text: str) -> int:
    """'10.0.0.1' -> 0x0A000001. Four decimal numbers; no short forms, no leading zeros."""
    octets = text.split(".")
    if len(octets) != 4 or not all(_OCTET.fullmatch(o) and int(o) <= 255 for o in octets):
        raise ValueError(f"not an IPv4 address: {text!r} (expected four numbers 0-255, as 10.0.0.1)")
    a, b, c, d = map(int, octets)
    return a << 24 | b << 16 | c << 8 | d


def format_ipv4(address: int) -> str:
    """0x0A000001 -> '10.0.0.1'."""
    return f"{address >> 24 & 255}.{address >> 16 & 255}.{address >> 8 & 255}.{address & 255}"


def is_ipv4(text: str) -> bool:
    """Whether parse_ipv4() takes it."""
    try:
        parse_ipv4(text)
    except ValueError:
        return False
    return True


def parse_ipv6(text: str) -> int:
    """'::1' -> 1, without a zone."""
    from ipaddress import AddressValueError, IPv6Address

    try:
        if "%" in text:
            raise AddressValueError("has a zone")
        return int(IPv6Address(text))
    except AddressValueError:
        raise ValueError(f"not an IPv6 address: {text!r}") from None


def format_ipv6(address: int) -> str:
    """1 -> '::1' (RFC 5952)."""
    from ipaddress import IPv6Address

    return str(IPv6Address(address))


def prefix_mask(prefixlen: int) -> int:
    """24 -> 0xFFFFFF00."""
    return 0xFFFFFFFF << (32 - prefixlen) & 0xFFFFFFFF


def parse_prefix(text: str) -> tuple[int, int]:
    """'10.0.0.1/8' -> (0x0A000001, 8); without a length it is a /32. Host bits are kept."""
    address, slash, length = text.partition("/")
    if not slash:
        return parse_ipv4(address), 32
    if not _OCTET.fullmatch(length) or int(length) > 32:
        raise ValueError(f"not a prefix: {text!r} (expected a length 0-32 after the slash)")
    return parse_ipv4(address), int(length)


def format_prefix(prefix: int, prefixlen: int) -> str:
    """(0x0A000000, 8) -> '10.0.0.0/8'."""
    return f"{format_ipv4(prefix)}/{prefixlen}"


def is_loopback(address: int) -> bool:
    """127.0.0.0/8."""
    return address >> 24 == 127


def is_multicast(address: int) -> bool:
    """224.0.0.0/4."""
    return address >> 28 == 0xE


def parse_port(text: str) -> int:
    """'80' -> 80; 0 to 65535."""
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= 65535):
        raise ValueError(f"not a port: {text!r} (expected a number 0-65535)")
    return int(text)


def parse_endpoint(text: str) -> tuple[str, int]:
    """'10.0.0.1:80', 'example.org:80', ':80', '[::1]:80' or a URL -> (host, port). The host is '' in ':80'."""
    if "://" in text:
        return _parse_url(text)
    if text.startswith("["):
        host, bracket, port = text[1:].partition("]:")
        if not bracket:
            raise ValueError(f"no port in {text!r} (expected [ADDRESS]:PORT)")
        return format_ipv6(parse_ipv6(host)), parse_port(port)
    host, colon, port = text.rpartition(":")
    if not colon:
        raise ValueError(f"no port in {text!r} (expected HOST:PORT, :PORT, [v6]:PORT or a URL)")
    if ":" in host:
        raise ValueError(f"ambiguous: {text!r} (an IPv6 address goes in brackets, as [::1]:80)")
    return _checked_host(host, text), parse_port(port)


def _parse_url(text: str) -> tuple[str, int]:
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError as e:
        raise ValueError(f"not a URL: {text!r} ({e})") from None
    if not host:
        raise ValueError(f"no host in {text!r}")
    if port is None:
        port = _PORT_OF_SCHEME.get(parts.scheme)
    if port is None:
        raise ValueError(f"no port in {text!r} (and none is known for {parts.scheme}://)")
    return host if ":" in host else _checked_host(host, text), port


def _checked_host(host: str, text: str) -> str:
    """A name or an IPv4 address; something all numeric must be a whole address."""
    if any(c.isspace() or c in "/@[]" for c in host):
        raise ValueError(f"not a host: {host!r} in {text!r}")
    if host and all(c.isdigit() or c == "." for c in host):
        parse_ipv4(host)
    return host


def format_endpoint(host: str, port: int) -> str:
    """('::1', 80) -> '[::1]:80'."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
