"""What would be if: the same sockets under other settings, computed by the engine.

Lives here: what each key changes.  Does not live here: what is then true (predict.py).

Two kinds of change.  Settings, and closing connections, apply to the sockets as they are: what the next connect()
would meet a moment later.  More sources, more destinations and IP_BIND_ADDRESS_NO_PORT change what programs do: there
the connections concerned are made again, one by one, by the engine; it is the machine once they have all been
replaced.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from fourtuple.doctor.answers import Prediction
from fourtuple.doctor.idle import idle_rows
from fourtuple.doctor.predict import State
from fourtuple.doctor.remake import remake
from fourtuple.doctor.words import plural
from fourtuple.live import tables as live_tables
from fourtuple.live.socket_table import STATE_NUMBERS
from fourtuple.sysctl import Sysctls
from fourtuple.sysctl_table import FIELDS

KEYS: Mapping[str, str] = {
    "ip_local_port_range": "LOW-HIGH: the sysctl",
    "ip_local_reserved_ports": "LIST, as 8080,9000-9100: the sysctl; an empty one for none",
    "tcp_tw_reuse": "0, 1 or 2: the sysctl",
    "tcp_tw_reuse_delay": "MS: the sysctl",
    "sources": "N: every destination is reached from N addresses in turn",
    "dests": "N: the connections to every destination go to N of them (addresses or ports) in turn",
    "IP_LOCAL_PORT_RANGE": "on, or LOW-HIGH: the option on every socket to come",
    "bind_no_port": "1: programs that bind an address set IP_BIND_ADDRESS_NO_PORT before",
    "close": "pid/N, command/NAME, inode/N, dest/ADDRESS:PORT, state/NAME or idle/SECONDS[/ADDRESS:PORT]: "
    "these connections are gone",
}
"""Key -> what it takes."""

_MOST = 64
_Match = Callable[[int], bool]


@dataclass
class _Change:
    """What the keys so far come to."""

    state: State
    sysctls: Sysctls
    drop: bytearray
    option: tuple[int, int] | None
    sources: int = 1
    dests: int = 1
    no_port: bool = False
    notes: list[str] = field(default_factory=list)

    @property
    def makes_anew(self) -> bool:
        return self.sources > 1 or self.dests > 1 or self.no_port


def parse_changes(words: Iterable[str]) -> dict[str, str]:
    """["tcp_tw_reuse=1", ...] as a dict.  ValueError for what is no KEY=VALUE, or a key that there is not."""
    changes = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise ValueError(f"not KEY=VALUE: {word!r}; keys: {', '.join(KEYS)}")
        changes[_known(key.strip())] = value.strip()
    return changes


def what_if(state: State, changes: Mapping[str, str]) -> State:
    """The state with the changes made; `notes` of the result say what was assumed.

    ValueError (one line) for an unknown key, with those there are, or for a value that the key does not take.
    """
    state, changes = state.original, {**state.changes, **changes}
    change = _Change(state, _copy(state.sysctls), bytearray(max(1, len(state.sockets))), state.option)
    for key, value in changes.items():
        _APPLY[_known(key)](change, str(value))
    if change.option == (0, 0):
        change.option = (change.sysctls.port_low, change.sysctls.port_high)
    tables = remake(change) if change.makes_anew else None
    changed = State(
        state.sockets,
        change.sysctls,
        owners=state.owners,
        taken_at=state.taken_at,
        drop=memoryview(change.drop),
        tables=tables,
        option=change.option,
        changes={key: str(value) for key, value in changes.items()},
        notes=change.notes,
    )
    changed.original = state
    return changed


def table(state: State, changed: State, predictions: list[Prediction]) -> list[tuple[Prediction, Prediction]]:
    """Today's predictions (made by `state`) beside those of the same destinations after the change."""
    return list(zip(predictions, changed.predict_again(predictions), strict=True))


def _known(key: str) -> str:
    """The key, however it is spelled."""
    bare = key.removeprefix("net.ipv4.")
    for name in KEYS:
        if bare in (name, name.replace("_", "-")):
            return name
    raise ValueError(f"no --what-if key {key!r}; there are: {', '.join(KEYS)}")


def _copy(sysctls: Sysctls) -> Sysctls:
    copied = Sysctls(sysctls.profile)
    for name in FIELDS:
        setattr(copied, name, getattr(sysctls, name))
    copied.generation += 1
    return copied


def _sysctl(name: str) -> Callable[[_Change, str], None]:
    def apply(change: _Change, value: str) -> None:
        text = " ".join(_pair(value)) if name == "ip_local_port_range" else value or "\n"
        if change.sysctls.set(f"net.ipv4.{name}", text) != 0:
            raise ValueError(f"the kernel would not take {name}={value} ({_why(change, name, text)})")
        if name == "tcp_tw_reuse" and value == "1" and not change.state.sockets.stamps_known:
            change.notes.append("TIME_WAITs are taken to have timestamps: the peers decide")

    return apply


def _why(change: _Change, name: str, text: str) -> str:
    """What the value has to be."""
    start = change.sysctls.unprivileged_port_start
    low, _, high = text.partition(" ")
    if name == "ip_local_port_range" and low.isdecimal() and high.isdecimal() and int(low) < min(start, int(high)):
        return f"it begins below net.ipv4.ip_unprivileged_port_start, {start}"
    return KEYS[name]


def _pair(value: str) -> tuple[str, str]:
    low, _, high = value.replace("-", " ").strip().partition(" ")
    return low, high.strip()


def _count(key: str, value: str) -> int:
    if not value.isdecimal() or not 1 <= int(value) <= _MOST:
        raise ValueError(f"{key}={value}: say a number from 1 to {_MOST}")
    return int(value)


def _sources(change: _Change, value: str) -> None:
    change.sources = _count("sources", value)


def _dests(change: _Change, value: str) -> None:
    change.dests = _count("dests", value)


def _no_port(change: _Change, value: str) -> None:
    if value not in ("0", "1"):
        raise ValueError(f"bind_no_port={value}: 0 or 1")
    change.no_port = value == "1"


def _option(change: _Change, value: str) -> None:
    if value == "on":
        change.option = (0, 0)
        return
    low, high = _pair(value)
    if not (low.isdecimal() and high.isdecimal() and 1 <= int(low) <= int(high) <= 65535):
        raise ValueError(f"IP_LOCAL_PORT_RANGE={value}: on, or LOW-HIGH")
    change.option = (int(low), int(high))


def _close(change: _Change, value: str) -> None:
    matches = [_matcher(change.state, each.strip()) for each in value.split(",")]
    closed = {row for match in matches for row in filter(match, range(len(change.state.sockets)))}
    for row in closed:
        change.drop[row] = 1
    change.notes.append(
        f"{plural(len(closed), 'socket')} closed; each that this side closes first is in TIME_WAIT for 60 s before"
    )


def _matcher(state: State, value: str) -> _Match:
    kind, _, what = value.partition("/")
    if kind not in _MATCH or not what:
        raise ValueError(f"close={value}: {KEYS['close']}")
    return _MATCH[kind](state, what)


def _by_pid(state: State, what: str) -> _Match:
    if not what.isdecimal():
        raise ValueError(f"close=pid/{what}: a pid is a number, as in close=pid/2211")
    inodes = {inode for inode, owner in state.owners.items() if owner.pid == int(what)}
    return lambda row: state.sockets.inode[row] in inodes


def _by_command(state: State, what: str) -> _Match:
    inodes = {inode for inode, owner in state.owners.items() if owner.command == what}
    return lambda row: state.sockets.inode[row] in inodes


def _by_inode(state: State, what: str) -> _Match:
    if not what.isdecimal():
        raise ValueError(f"close=inode/{what}: an inode is a number, as in close=inode/48211")
    return lambda row: state.sockets.inode[row] == int(what)


def _by_dest(state: State, what: str) -> _Match:
    host, _, port = what.rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError(f"close=dest/{what}: ADDRESS:PORT")
    daddr, sockets, t = state.address_key(host.strip("[]")), state.sockets, state.tables
    dport = int(port)
    return lambda row: (
        sockets.dport[row] == dport and live_tables.key_of(t, sockets.family[row], sockets.daddr[row]) == daddr
    )


def _by_idle(state: State, what: str) -> _Match:
    """Those without data for so many seconds, perhaps to one destination only."""
    number, _, where = what.partition("/")
    try:
        over_s = float(number)
    except ValueError:
        over_s = -1.0
    if not 0 <= over_s < 1e6:
        raise ValueError(f"close=idle/{what}: SECONDS")
    if state.sockets.idle_ms is None:
        raise ValueError("close=idle: for how long connections have been idle is not known here (an old snapshot?)")
    rows = idle_rows(state.sockets, over_s)
    return set(filter(_by_dest(state, where), rows) if where else rows).__contains__


def _by_state(state: State, what: str) -> _Match:
    number = STATE_NUMBERS.get(what.upper().replace("-", "_"))
    if number is None:
        raise ValueError(f"close=state/{what}: one of {', '.join(STATE_NUMBERS)}")
    return lambda row: state.sockets.state[row] == number


_MATCH: Mapping[str, Callable[[State, str], _Match]] = {
    "pid": _by_pid,
    "command": _by_command,
    "inode": _by_inode,
    "dest": _by_dest,
    "state": _by_state,
    "idle": _by_idle,
}
_APPLY: Mapping[str, Callable[[_Change, str], None]] = {
    **{name: _sysctl(name) for name in list(KEYS)[:4]},
    "sources": _sources,
    "dests": _dests,
    "IP_LOCAL_PORT_RANGE": _option,
    "bind_no_port": _no_port,
    "close": _close,
}
