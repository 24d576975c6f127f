"""What the options of `fourtuple dial` come to: a DialPlan and its Wiring, or one line that says why they do not.

Lives here: options that do not go together, targets and sources that nobody could have.  Does not live here: the words
behind one option (dial.py, options.py), what will not fit (dial/preflight.py).
"""

from __future__ import annotations

import argparse
import random
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from fourtuple.cli import exits
from fourtuple.cli.exits import Failure, check_wire

if TYPE_CHECKING:
    from fourtuple.dial.plan import DialPlan, Talk
    from fourtuple.dial.wiring import Wiring

_SEEDS = 1_000_000
_HELP = ("fourtuple dial --help",)
_EVERY_US = 1_000_000
_MOST_KEEPIDLE = 32_767  # MAX_TCP_KEEPIDLE
_MOST_REDIALS = 63  # dial/user.py
_OF_OUR_STACK = ("loss", "rtt", "reserve", "max_sockets", "profile", "seed")


def check(args: argparse.Namespace) -> None:
    """Failure for what does not go together."""
    if args.wire != "kernel":
        check_wire(args.wire)
    is_kernel = args.stack == "kernel"
    talks = args.http is not None or args.script
    rules = (
        (args.wire == "kernel" and not is_kernel, "--wire kernel is for kernel sockets: add --stack kernel"),
        (
            is_kernel and args.wire in ("sim", "tun-host"),
            f"--stack kernel cannot use --wire {args.wire}; leave it out (a private namespace), or --wire kernel",
        ),
        (args.step_1 and not is_kernel, "--step-1 is for kernel sockets: add --stack kernel"),
        (args.nat and args.wire != "tun-host", "--nat is for --wire tun-host"),
        (
            args.server and args.wire in ("tun-host", "kernel"),
            f"--server: on --wire {args.wire} the servers are not ours",
        ),
        (
            args.wire == "sim" and (talks or args.server in ("echo", "discard")),
            "--wire sim: its server ends each connection after one answer; talk needs --wire tun or veth",
        ),
        (args.http is not None and args.script, "--http is a script of its own; leave out --send and --expect"),
        (args.every is not None and not talks, "--every is how often to talk: add --http, or --send and --expect"),
        (args.every == 0, "--every: more than 0, as 1s or 100ms"),
        (args.ramp and not args.rate, "--ramp needs a --rate to grow to"),
        (
            args.on is not None and not args.on.startswith("dask://"),
            f"--on: {args.on!r} is no cluster; say dask://HOST:PORT, or dask://local",
        ),
        (is_kernel and args.keepalive > _MOST_KEEPIDLE, f"--keepalive: at most {_MOST_KEEPIDLE}s (TCP_KEEPIDLE)"),
        (args.on and args.check, "--check looks at this machine; leave out --on"),
        (args.redial > _MOST_REDIALS, f"--redial: at most {_MOST_REDIALS} times"),
        (
            args.wire == "kernel" and any(not host for host, _ in args.targets),
            "--wire kernel: no server of ours is there; name one, HOST:PORT",
        ),
    )
    given = [name for name in _OF_OUR_STACK if is_kernel and getattr(args, name) not in (None, ())]
    wrong = [text for is_wrong, text in rules if is_wrong]
    wrong += [f"--{name.replace('_', '-')} is for our own stack, not for kernel sockets" for name in given]
    if wrong:
        raise Failure(wrong[0], exits.USAGE, _HELP)


def plan_of(args: argparse.Namespace) -> DialPlan:
    """What is to be done."""
    from fourtuple.dial.plan import DialPlan, Target, expand
    from fourtuple.dial.wiring import addresses_of

    args.targets = [(_resolved(host), port) for host, port in args.targets]
    _check_targets(args)
    talk = _talk(args)
    hold_us = args.hold if args.hold is not None else round(talk.every_s * 1e6) if talk else 0
    return DialPlan(
        connections=args.connections,
        targets=tuple(dict.fromkeys(Target(one, port) for host, port in args.targets for one in expand(host))),
        sources=addresses_of(_sources(args)),
        stack=args.stack,
        wire=args.wire,
        rate=args.rate,
        ramp_s=args.ramp / 1e6,
        hold_s=hold_us / 1e6,
        timeout_s=args.timeout / 1e6,
        window=args.window,
        redial=args.redial,
        keepalive_s=args.keepalive,
        talk=talk,
        range=args.range,
        seed=random.SystemRandom().randrange(_SEEDS) if args.seed is None else args.seed,
        max_sockets=args.max_sockets or 0,
        close=args.close,
        processes=args.processes,
    )


def wiring_of(args: argparse.Namespace, plan: DialPlan) -> Wiring:
    """What it wants of its wire."""
    from fourtuple.dial.wiring import Wiring

    wiring = Wiring(
        servers=tuple(_servers(args.targets)),
        server=args.server or ("http" if args.http else "echo" if args.script else "hold"),
        sources=tuple(_sources(args)),
        loss=args.loss,
        rtt_us=args.rtt,
        nat=args.nat,
        profile=args.profile or "6.18",
        reserved=args.reserve or "",
    )
    _check_setup(plan, wiring)
    return wiring


# ---------------------------------------------------------------------------------------------- targets


def _is_network(host: str) -> bool:
    """Or a range of addresses, as dial.py has let them in: 10-0-0-1 is a name."""
    return "/" in host or re.fullmatch(r"[0-9.]+-[0-9.]+", host) is not None


def _resolved(host: str) -> str:
    from fourtuple.cli.connect import resolve

    return host if _is_network(host) else resolve(host)


def _check_targets(args: argparse.Namespace) -> None:
    """Addresses at which nobody can listen: those would be 131 s of silence, or a riddle."""
    if args.stack == "kernel" and args.wire == "kernel":
        return
    from fourtuple.dial.plan import expand
    from fourtuple.dial.wiring import PRIVATE
    from fourtuple.shell.wire import OUR_ADDRESS, can_serve

    for host, port in args.targets:
        for address in expand(host):
            if address.startswith("127."):
                raise Failure(
                    f"{address}: nobody listens on the loopback there",
                    hints=("--stack kernel --wire kernel   (this host's own)", "an address like 10.64.0.1"),
                )
            if args.wire in PRIVATE and address == OUR_ADDRESS:
                where = "" if host == address else f"{host}: "
                raise Failure(f"{where}{address} is our own end of the wire", hints=("a network like 10.64.1.0/29",))
            if args.wire in PRIVATE and not can_serve(address, port):
                raise Failure(f"{address}:{port}: no server can be there", hints=("an address like 10.64.0.1",))


def _servers(places: list[tuple[str, int]]) -> Iterator[tuple[str, int]]:
    """A network is one server; of a range of addresses, each; nothing twice."""
    from fourtuple.dial.plan import expand

    served: set[tuple[str, int]] = set()
    for host, port in sorted(places, key=lambda place: ("/" not in place[0], -len(expand(place[0])))):
        for one in [host] if "/" in host else expand(host):
            ends = {(address, port) for address in expand(one)}
            if served.isdisjoint(ends):
                yield one, port
            served |= ends


# ---------------------------------------------------------------------------------------------- sources and talk


def _sources(args: argparse.Namespace) -> list[str]:
    return [part for parts in args.sources for part in parts]


def _check_setup(plan: DialPlan, wiring: Wiring) -> None:
    """Settings that Linux refuses, and sources that are the other side's."""
    from fourtuple.cli.connect import check_sysctls
    from fourtuple.dial.wiring import PRIVATE, setup_of
    from fourtuple.shell.wire import OUR_ADDRESS, added_sources, network_text

    setup = setup_of(plan, wiring)
    check_sysctls(dict(setup.sysctls), setup.profile)
    known = {*added_sources(setup), f"{OUR_ADDRESS}/32"}
    for text in setup.sources if plan.wire in PRIVATE else ():
        if network_text(text) not in known:
            raise Failure(f"--sources: {text} has addresses in it that are not ours to take", hints=("10.64.4.0/29",))


def _talk(args: argparse.Namespace) -> Talk | None:
    from fourtuple.dial.plan import Talk, http_get

    every_s = (args.every or _EVERY_US) / 1e6
    if args.http is not None:
        if not args.http.startswith("/") or not args.http.isprintable() or " " in args.http:
            raise Failure(f"--http: {args.http!r} is no path; say for example --http /index.html", hints=_HELP)
        return http_get(every_s, args.http, args.targets[0][0].partition("/")[0])
    return Talk(every_s, tuple(args.script)) if args.script else None
