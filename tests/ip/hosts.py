"""A Fib from `ip` commands, and questions to it in text."""

from __future__ import annotations

import errno

from fourtuple.address import format_ipv4, parse_ipv4
from fourtuple.ip.fib import Fib
from fourtuple.ip.route import Route
from fourtuple.sim.iproute import run_ip

TWO_LINKS = (
    "link set lo up; link add tun0; addr add 10.9.0.1/24 dev tun0; link set tun0 up; "
    "link add tun1; addr add 10.5.0.1/16 dev tun1; link set tun1 up"
)


def make_fib(commands: str = "") -> Fib:
    """lo, tun0 10.9.0.1/24 and tun1 10.5.0.1/16, all up; then the commands, separated by ';'."""
    fib = Fib()
    run_all(fib, TWO_LINKS)
    run_all(fib, commands)
    return fib


def run_all(fib: Fib, commands: str) -> None:
    for command in filter(None, map(str.strip, commands.split(";"))):
        run_ip(fib, command)


def route(fib: Fib, daddr: str, saddr: str = "0.0.0.0", oif: str = "", mark: int = 0, anysrc: bool = False) -> Route:
    found = fib.ip_route_connect(
        parse_ipv4(daddr), parse_ipv4(saddr), fib.device(oif).ifindex if oif else 0, mark, 0, anysrc
    )
    assert isinstance(found, Route), errno.errorcode[-found]
    return found


def error(fib: Fib, daddr: str, saddr: str = "0.0.0.0", oif: int = 0) -> str:
    found = fib.ip_route_connect(parse_ipv4(daddr), parse_ipv4(saddr), oif)
    assert isinstance(found, int)
    return errno.errorcode[-found]


def source(fib: Fib, daddr: str, saddr: str = "0.0.0.0", oif: str = "", mark: int = 0) -> str:
    return format_ipv4(route(fib, daddr, saddr, oif, mark).saddr)


def device(fib: Fib, daddr: str, saddr: str = "0.0.0.0", oif: str = "") -> str:
    return fib.devices[route(fib, daddr, saddr, oif).rt.dev].name
