"""run_ip(): the `ip` command line on a Fib. The part of iproute2 that scenarios and users of the simulator write.

Here: text to calls of Fib. Not here: what they do (ip/fib.py). A word that is not known is a ValueError that names it;
what the kernel would refuse is an OSError with its errno.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from types import MappingProxyType
from typing import Any

from fourtuple.address import parse_ipv4, parse_prefix, prefix_mask
from fourtuple.ip.devinet import NetDevice
from fourtuple.ip.fib import Fib
from fourtuple.ip.fib_rules import ERROR_OF_ACTION, FibRule
from fourtuple.ip.fib_table import NO_METRICS, Metrics
from fourtuple.ip.rtnetlink import (
    ROUTE_TYPES,
    RT_TABLE_MAIN,
    RTN_UNICAST,
    RTPROT_BOOT,
    RTPROT_KERNEL,
    SCOPES,
    TABLES,
)

_PROTOCOLS = MappingProxyType({"kernel": RTPROT_KERNEL, "boot": RTPROT_BOOT, "static": 4, "dhcp": 16})
# net/ipv4/metrics.c:ip_metrics_convert clamps these
_MOST = MappingProxyType({"mtu": 65535 - 15, "advmss": 65535 - 40, "hoplimit": 255})


class _Words:
    """The words of a command, taken from the left."""

    def __init__(self, command: str) -> None:
        self.command = command
        self._words = command.split()
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._words)

    def peek(self) -> str:
        return self._words[self._at] if self else ""

    def take(self, what: str) -> str:
        """The next word; `what` says in the error what is missing."""
        if not self:
            raise self.error(f"{what} is missing at the end")
        self._at += 1
        return self._words[self._at - 1]

    def take_if(self, *words: str) -> bool:
        """Take the next word if it is one of these."""
        found = self.peek() in words
        self._at += found
        return found

    def number(self, what: str, most: int = 2**32 - 1) -> int:
        word = self.take(what)
        try:
            value = int(word, 0)
        except ValueError:
            value = -1
        if not 0 <= value <= most:
            raise self.error(f"{what}: not a number: {word!r}")
        return value

    def named(self, what: str, names: MappingProxyType[str, int], most: int = 2**32 - 1) -> int:
        """A number, or a name for one."""
        if self.peek() in names:
            return names[self.take(what)]
        return self.number(what, most)

    def prefix(self, what: str) -> tuple[int, int]:
        """'default', 'all', an address or a prefix."""
        if self.take_if("default", "all", "any"):
            return 0, 0
        word = self.take(what)
        try:
            return parse_prefix(word)
        except ValueError as e:
            raise self.error(f"{what}: {e}") from None

    def address(self, what: str) -> int:
        word = self.take(what)
        try:
            return parse_ipv4(word)
        except ValueError as e:
            raise self.error(f"{what}: {e}") from None

    def error(self, message: str) -> ValueError:
        return ValueError(f"ip {self.command}: {message}")


def run_ip(fib: Fib, command: str) -> None:
    """Do what `ip COMMAND` does: 'addr add 10.9.0.1/24 dev tun0', 'link set tun0 up', 'route add …', 'rule add …'.

    Raises ValueError for a command it does not understand, OSError for one that the kernel refuses.
    """
    words = _Words(command.strip().removeprefix("ip "))
    words.take_if("-4")
    name = words.take("the object (addr, link, route or rule)")
    run = next((run for names, run in _OBJECTS if name in names), None)
    if run is None:
        raise words.error(f"object {name!r} is not known; there are: addr, link, route, rule")
    err = run(fib, words)
    if words:
        raise words.error(f"{words.peek()!r} is not understood")
    if err:
        raise OSError(-err, f"ip {words.command}: {os.strerror(-err)}")


def _device(fib: Fib, words: _Words) -> NetDevice:
    name = words.take("the device")
    try:
        return fib.device(name)
    except KeyError as e:
        raise words.error(str(e.args[0])) from None


# addr


def _addr(fib: Fib, words: _Words) -> int:
    """addr add|del ADDRESS[/LENGTH] [peer ADDRESS[/LENGTH]] [brd ADDRESS|+] [scope SCOPE] dev DEVICE"""
    verb = words.take("add or del")
    if verb not in ("add", "del", "delete"):
        raise words.error(f"addr {verb!r} is not known; there are: add, del")
    with_length = "/" in words.peek()
    local, length = words.prefix("the address")
    peer, broadcast, scope, dev = 0, 0, None, None
    while words:
        if words.take_if("dev"):
            dev = _device(fib, words)
        elif words.take_if("peer"):
            peer, length = words.prefix("peer")
            with_length = True
        elif words.take_if("brd", "broadcast"):
            broadcast = local | ~prefix_mask(length) & 0xFFFFFFFF if words.take_if("+") else words.address("brd")
        elif words.take_if("scope"):
            scope = words.named("scope", SCOPES, 255)
        else:
            raise words.error(f"{words.peek()!r} is not understood")
    if dev is None:
        raise words.error("'dev DEVICE' is missing")
    if verb == "add":
        return fib.add_address(dev, local, length, peer=peer, broadcast=broadcast, scope=scope)
    return fib.del_address(dev, local, length if with_length else None, peer=peer)


# link


def _link(fib: Fib, words: _Words) -> int:
    """link add [dev] DEVICE [mtu N] [type TYPE] | link set [dev] DEVICE [up] [down] [mtu N]"""
    verb = words.take("add or set")
    if verb == "add":
        return _link_add(fib, words)
    if verb != "set":
        raise words.error(f"link {verb!r} is not known; there are: add, set")
    words.take_if("dev")
    dev = _device(fib, words)
    up, mtu = None, None
    while words:
        if words.take_if("up"):
            up = True
        elif words.take_if("down"):
            up = False
        elif words.take_if("mtu"):
            mtu = words.number("mtu")
        else:
            raise words.error(f"{words.peek()!r} is not understood")
    err = 0 if mtu is None else fib.set_device_mtu(dev, mtu)
    if err == 0 and up is not None:
        fib.set_device_up(dev, up)
    return err


def _link_add(fib: Fib, words: _Words) -> int:
    words.take_if("dev", "name")
    name, mtu = words.take("the device's name"), 1500
    while words:
        if words.take_if("mtu"):
            mtu = words.number("mtu", 65535)
        elif words.take_if("type"):
            words.take("the type")
        else:
            raise words.error(f"{words.peek()!r} is not understood")
    try:
        fib.add_device(name, mtu)
    except ValueError as e:
        raise words.error(str(e)) from None
    return 0


# route


@dataclasses.dataclass
class _RouteWords:
    """What a route command said; None and 0 where it said nothing."""

    type: int | None = None
    prefix: int = 0
    prefixlen: int = 0
    dev: NetDevice | None = None
    gateway: int = 0
    prefsrc: int = 0
    priority: int = 0
    table: int | None = None
    scope: int | None = None
    tos: int = 0
    onlink: bool = False
    protocol: int = RTPROT_BOOT
    metrics: Metrics = NO_METRICS


_GIVEN_TO_BOTH = ("dev", "gateway", "prefsrc", "priority", "table", "scope", "tos")


def _route(fib: Fib, words: _Words) -> int:
    """route add|replace|append|del|flush [TYPE] PREFIX [OPTION...]"""
    verb = words.take("add, del or replace")
    if verb == "flush":
        return _route_flush(fib, words)
    if verb not in ("add", "replace", "append", "del", "delete"):
        raise words.error(f"route {verb!r} is not known; there are: add, replace, append, del, flush")
    said = _route_words(fib, words)
    given = {name: getattr(said, name) for name in _GIVEN_TO_BOTH}
    if verb in ("del", "delete"):
        return fib.del_route(said.prefix, said.prefixlen, type=said.type, **given)
    given.update(onlink=said.onlink, metrics=said.metrics, protocol=said.protocol, mode=verb)
    kind = RTN_UNICAST if said.type is None else said.type
    return fib.add_route(said.prefix, said.prefixlen, type=kind, **given)


def _route_flush(fib: Fib, words: _Words) -> int:
    words.take_if("table")
    if words.take_if("cache"):
        fib.changed()
        return 0
    fib.flush_table(words.named("the table", TABLES))
    return 0


def _route_words(fib: Fib, words: _Words) -> _RouteWords:
    said = _RouteWords()
    words.take_if("to")
    if words.peek() in ROUTE_TYPES:
        said.type = ROUTE_TYPES[words.take("the type")]
    said.prefix, said.prefixlen = words.prefix("the prefix")
    while words:
        word = words.take("an option")
        if word in _ROUTE_OPTIONS:
            _ROUTE_OPTIONS[word](fib, words, said)
        elif word in _METRICS:
            said.metrics = dataclasses.replace(said.metrics, **_METRICS[word](words))
        else:
            raise words.error(f"{word!r} is not understood")
    return said


def _via(fib: Fib, words: _Words, said: _RouteWords) -> None:
    words.take_if("inet")
    said.gateway = words.address("via")


def _dev(fib: Fib, words: _Words, said: _RouteWords) -> None:
    said.dev = _device(fib, words)


def _src(fib: Fib, words: _Words, said: _RouteWords) -> None:
    said.prefsrc = words.address("src")


def _metric(fib: Fib, words: _Words, said: _RouteWords) -> None:
    said.priority = words.number("metric")


def _table(fib: Fib, words: _Words, said: _RouteWords) -> None:
    said.table = words.named("table", TABLES)


def _scope(fib: Fib, words: _Words, said: _RouteWords) -> None:
    said.scope = words.named("scope", SCOPES, 255)


def _tos(fib: Fib, words: _Words, said: _RouteWords) -> None:
    said.tos = words.number("tos", 255)


def _onlink(fib: Fib, words: _Words, said: _RouteWords) -> None:
    said.onlink = True


def _protocol(fib: Fib, words: _Words, said: _RouteWords) -> None:
    said.protocol = words.named("proto", _PROTOCOLS, 255)


_ROUTE_OPTIONS: MappingProxyType[str, Callable[[Fib, _Words, _RouteWords], None]] = MappingProxyType({
    "via": _via, "dev": _dev, "src": _src, "table": _table, "scope": _scope, "onlink": _onlink,
    "metric": _metric, "priority": _metric, "preference": _metric, "pref": _metric,
    "tos": _tos, "dsfield": _tos, "proto": _protocol, "protocol": _protocol,
})  # fmt: skip


def _plain(name: str) -> Callable[[_Words], dict[str, Any]]:
    """A metric that is a number; RTAX has 32 bits for each, some are clamped."""
    return lambda words: {name: min(words.number(name), _MOST.get(name, 2**32 - 1))}


def _mtu(words: _Words) -> dict[str, Any]:
    locked = words.take_if("lock")
    return {"mtu_locked": locked, **_plain("mtu")(words)}


def _features(words: _Words) -> dict[str, Any]:
    if not words.take_if("ecn"):
        raise words.error(f"feature {words.peek()!r} is not known; there is: ecn")
    return {"ecn": True}


def _rto_min(words: _Words) -> dict[str, Any]:
    """Milliseconds, or with a unit: 5ms, 1s, 500us."""
    word = words.take("rto_min")
    for unit, us in (("ms", 1000), ("us", 1), ("s", 1_000_000), ("", 1000)):
        number = word.removesuffix(unit)
        if word.endswith(unit) and number.isdecimal():
            return {"rto_min_us": int(number) * us // 1000 * 1000}
    raise words.error(f"rto_min: not a time: {word!r}")


def _quickack(words: _Words) -> dict[str, Any]:
    return {"quickack": words.number("quickack") != 0}


_METRICS: MappingProxyType[str, Callable[[_Words], dict[str, Any]]] = MappingProxyType({
    "mtu": _mtu, "advmss": _plain("advmss"), "window": _plain("window"), "hoplimit": _plain("hoplimit"),
    "initrwnd": _plain("initrwnd"), "initcwnd": _plain("initcwnd"), "rto_min": _rto_min,
    "features": _features, "quickack": _quickack,
})  # fmt: skip


# rule


def _rule(fib: Fib, words: _Words) -> int:
    """rule add|del [from P] [to P] [fwmark M[/MASK]] [tos T] [oif D] [priority N] [table T | ACTION]"""
    verb = words.take("add or del")
    if verb not in ("add", "del", "delete"):
        raise words.error(f"rule {verb!r} is not known; there are: add, del")
    given: dict[str, Any] = {}
    while words:
        word = words.take("an option")
        if word in ERROR_OF_ACTION:
            given["action"] = word
        elif word in _RULE_OPTIONS:
            given.update(_RULE_OPTIONS[word](fib, words))
        else:
            raise words.error(f"{word!r} is not understood")
    if verb != "add":
        return fib.del_rule(**given)
    if "action" not in given:
        given.setdefault("table", RT_TABLE_MAIN)
    without_priority = "priority" not in given
    given.setdefault("priority", 0)
    return fib.add_rule(FibRule(**given), default=without_priority)


def _rule_from(fib: Fib, words: _Words) -> dict[str, int]:
    src, length = words.prefix("from")
    return {"src": src, "src_len": length} if length else {}


def _rule_to(fib: Fib, words: _Words) -> dict[str, int]:
    dst, length = words.prefix("to")
    return {"dst": dst, "dst_len": length} if length else {}


def _rule_mark(fib: Fib, words: _Words) -> dict[str, int]:
    word = words.take("fwmark")
    mark, slash, mask = word.partition("/")
    try:
        return {"mark": int(mark, 0), "mark_mask": int(mask, 0) if slash else 0xFFFFFFFF}
    except ValueError:
        raise words.error(f"fwmark: not a mark: {word!r}") from None


def _rule_number(field: str, names: MappingProxyType[str, int]) -> Callable[[Fib, _Words], dict[str, int]]:
    return lambda fib, words: {field: words.named(field, names)}


def _rule_oif(fib: Fib, words: _Words) -> dict[str, int]:
    return {"oif": _device(fib, words).ifindex}


_NO_NAMES: MappingProxyType[str, int] = MappingProxyType({})
_RULE_OPTIONS: MappingProxyType[str, Callable[[Fib, _Words], dict[str, int]]] = MappingProxyType({
    "from": _rule_from, "to": _rule_to, "fwmark": _rule_mark, "oif": _rule_oif,
    "table": _rule_number("table", TABLES), "lookup": _rule_number("table", TABLES),
    "priority": _rule_number("priority", _NO_NAMES), "pref": _rule_number("priority", _NO_NAMES),
    "preference": _rule_number("priority", _NO_NAMES), "order": _rule_number("priority", _NO_NAMES),
    "tos": _rule_number("tos", _NO_NAMES), "dsfield": _rule_number("tos", _NO_NAMES),
})  # fmt: skip

_OBJECTS = (
    (("addr", "address", "a"), _addr),
    (("link", "l"), _link),
    (("route", "r", "ro"), _route),
    (("rule", "ru"), _rule),
)
