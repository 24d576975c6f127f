"""What the words behind an option mean: each function reads one kind of value or says in one line what is wrong."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError

from fourtuple.address import parse_endpoint, parse_ipv4, parse_port

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(us|µs|ms|s|min|m|h)")
_UNIT_US = {"us": 1, "µs": 1, "ms": 1_000, "s": 1_000_000, "min": 60_000_000, "m": 60_000_000, "h": 3_600_000_000}
_PERCENT = re.compile(r"([0-9]+(?:\.[0-9]+)?)%?")
_LONGEST_US = 24 * 3600 * 1_000_000
_RANGE = re.compile(r"([0-9]+)[-:, ]([0-9]+)")


def endpoint(text: str) -> tuple[str, int]:
    """HOST:PORT, :PORT, [v6]:PORT or a URL."""
    try:
        return parse_endpoint(text)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from None


def duration_us(text: str) -> int:
    """'30ms', '1.5s', '200us', '5min' -> microseconds."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ArgumentTypeError(f"{text!r} is not a duration; say for example 30ms, 1.5s or 200us")
    us = float(match[1]) * _UNIT_US[match[2]]
    if us > _LONGEST_US:
        raise ArgumentTypeError(f"{text!r} is more than a day (86400s)")
    return round(us)


def fraction(text: str) -> float:
    """'50%' -> 0.5."""
    match = _PERCENT.fullmatch(text)
    if match is None or float(match[1]) > 100:
        raise ArgumentTypeError(f"{text!r} is not a percentage; say for example 50%")
    return float(match[1]) / 100


def port_range(text: str) -> tuple[int, int]:
    """'40000-44095' -> (40000, 44095)."""
    match = _RANGE.fullmatch(text)
    if match is None:
        raise ArgumentTypeError(f"{text!r} is not a range of ports; say for example 40000-44095")
    low, high = int(match[1]), int(match[2])
    if not 1 <= low <= high <= 65535:
        raise ArgumentTypeError(f"{text!r}: ports run from 1 to 65535, the lower one first")
    return low, high


def port_list(text: str) -> str:
    """A list for net.ipv4.ip_local_reserved_ports, as '8080,9000-9010'."""
    from fourtuple.sysctl import Sysctls

    if not text or Sysctls().set("net.ipv4.ip_local_reserved_ports", text) < 0:
        raise ArgumentTypeError(f"{text!r} is not a list of ports; say for example 8080,9000-9010")
    return text


def source(text: str) -> tuple[str, int | None]:
    """'10.64.0.5' -> (address, None); with ':40000' or ':0' -> (address, port); ':40000' -> ('0.0.0.0', port)."""
    if text.count(":") > 1:
        raise ArgumentTypeError(f"{text!r}: no IPv6 on these wires yet; say for example 10.64.0.5 or 10.64.0.5:40000")
    address, colon, port = text.partition(":")
    address = address or ("0.0.0.0" if colon else "")
    try:
        parse_ipv4(address)
        return address, parse_port(port) if colon else None
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from None


def profile(text: str) -> str:
    """The name of a KernelProfile, as '3.10'."""
    from fourtuple.sysctl import PROFILES

    if text not in PROFILES:
        raise ArgumentTypeError(f"no profile of Linux {text!r}; there are: {', '.join(PROFILES)}")
    return text


def seed(text: str) -> int:
    """A number that repeats a run."""
    if not text.isascii() or not text.isdigit() or int(text) >= 1 << 63:
        raise ArgumentTypeError(f"{text!r} is not a seed; say a number from 0 to 2^63-1")
    return int(text)


def loss(text: str) -> tuple[object, ...]:
    """Rules of FaultDevice: 'syn:1', 'synack:1-2', '5%'."""
    from fourtuple.phy.fault import parse_loss

    try:
        return parse_loss(text)
    except ValueError as error:
        raise ArgumentTypeError(str(error).removeprefix("--loss: ")) from None
