"""Text and addresses: what is read, what is refused and why."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fourtuple.address import (
    format_endpoint,
    format_ipv4,
    format_ipv6,
    format_prefix,
    is_ipv4,
    is_loopback,
    is_multicast,
    parse_endpoint,
    parse_ipv4,
    parse_ipv6,
    parse_port,
    parse_prefix,
    prefix_mask,
)


@given(st.integers(0, 2**32 - 1))
def test_ipv4_text_reads_back(address: int) -> None:
    assert parse_ipv4(format_ipv4(address)) == address


def test_ipv4_is_host_order() -> None:
    assert (parse_ipv4("10.9.0.1"), format_ipv4(0x7F000001)) == (0x0A090001, "127.0.0.1")


@pytest.mark.parametrize(
    "text", ["", "1", "1.2.3", "1.2.3.4.5", "1.2.3.256", "01.2.3.4", "1.2.3.-4", "1.2.3.٤", " 1.2.3.4"]
)
def test_what_is_not_an_ipv4_address_is_named(text: str) -> None:
    assert not is_ipv4(text)
    with pytest.raises(ValueError, match="not an IPv4 address"):
        parse_ipv4(text)


@pytest.mark.parametrize(
    ("text", "value"), [("10.0.0.0/8", (0x0A000000, 8)), ("1.2.3.4", (0x01020304, 32)), ("0.0.0.0/0", (0, 0))]
)
def test_prefixes(text: str, value: tuple[int, int]) -> None:
    assert parse_prefix(text) == value


@pytest.mark.parametrize("text", ["10.0.0.0/33", "10.0.0.0/", "10.0.0.0/08", "10/8"])
def test_what_is_not_a_prefix_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a"):
        parse_prefix(text)


def test_masks() -> None:
    assert [prefix_mask(n) for n in (0, 1, 24, 32)] == [0, 0x80000000, 0xFFFFFF00, 0xFFFFFFFF]
    assert format_prefix(0x0A000000, 8) == "10.0.0.0/8"


def test_classes() -> None:
    assert [is_loopback(parse_ipv4(a)) for a in ("127.0.0.1", "127.255.0.0", "128.0.0.1")] == [True, True, False]
    assert [is_multicast(parse_ipv4(a)) for a in ("224.0.0.1", "239.1.1.1", "240.0.0.1")] == [True, True, False]


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("10.0.0.1:80", "10.0.0.1", 80),
        ("example.org:443", "example.org", 443),
        (":80", "", 80),
        ("[::1]:80", "::1", 80),
        ("[2001:DB8:0::1]:0", "2001:db8::1", 0),
        ("http://example.org/x?y", "example.org", 80),
        ("https://10.0.0.1", "10.0.0.1", 443),
        ("https://[2001:db8::1]/", "2001:db8::1", 443),
        ("tcp://10.0.0.1:5432", "10.0.0.1", 5432),
        ("https://user:secret@example.org:8443/", "example.org", 8443),
    ],
)
def test_endpoints(text: str, host: str, port: int) -> None:
    assert parse_endpoint(text) == (host, port)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("10.0.0.1", "no port"),
        ("::1", "ambiguous"),
        ("::1:80", "ambiguous"),
        ("[::1]", "no port"),
        ("[10.0.0.1]:80", "not an IPv6 address"),
        ("[fe80::1%eth0]:80", "not an IPv6 address"),
        ("10.0.0.1:", "not a port"),
        ("10.0.0.1:65536", "not a port"),
        ("10.0.0.1:-1", "not a port"),
        ("10.0.0.1:http", "not a port"),
        ("10.0.0:80", "not an IPv4 address"),
        ("a b:80", "not a host"),
        ("gopher://example.org", "none is known for gopher"),
        ("http://", "no host"),
        ("http://h:99999/", "not a URL"),
    ],
)
def test_what_is_not_an_endpoint_is_refused_with_the_reason(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_endpoint(text)


def test_ports() -> None:
    assert [parse_port(p) for p in ("0", "65535")] == [0, 65535]


def test_ipv6_and_endpoints_format() -> None:
    assert format_ipv6(parse_ipv6("2001:DB8:0:0::1")) == "2001:db8::1"
    assert [format_endpoint("::1", 80), format_endpoint("h", 80)] == ["[::1]:80", "h:80"]
