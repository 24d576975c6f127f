"""Planted faults: one change to the source of a port rule each, in a copy of the package that runs uncompiled.

The copy judges recorded histories in a process of its own (`python -m tests.kernel.port_judge.mutant`).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import fourtuple

PACKAGE = Path(fourtuple.__file__).parent
ROOT = Path(__file__).resolve().parents[3]
# A copy that loops for ever is ended.
MOST_S = 200


class Mutation(NamedTuple):
    """Each `old` of `edits`, (old, new), stands exactly once in `file`."""

    name: str
    file: str
    edits: tuple[tuple[str, str], ...]


def _one(name: str, file: str, old: str, new: str) -> Mutation:
    return Mutation(name, file, ((old, new),))


SEARCH, TABLES, BUCKETS = "inet/hashtables.py", "inet/hashinfo.py", "inet/bind.py"
BIND = "inet/connection_sock.py"
DEST, INDEX, SECURE = "inet/dest.py", "inet/tuple_index.py", "inet/secure_seq.py"
SHUT_WHEN = "if self.is_bound(port) or portset_test(self.sets, RESERVED, port):"
MATCH = "        if bound == 0 or bound == dev:\n            if not entry"
STEP = "numbers.step = 1 if local else 2"
PASS = "        pass\n"
ODD = "get_random_u32_below(h.secrets, remaining) | 1"
NEIGHBOUR = "owner != newcomer and _owner_saddr(bind, owner) == saddr"
GOES = "    elif moved and not open_there:\n"
ASTRAY = (
    "return bind.moved != 0 and bind.bound[port] != 0 and bind.fastreuse[port] < 0 and bind.fastreuseport[port] < 0"
)
JOINED = "    if bind.has_reuseport or bind.fastreuse[port] >= 0:\n"
SHUT_IT = "        portset_add(bind.sets, _SHUT, port)\n"
RIPE = "return delay < age <= 0x7FFFFFFF"

MUTATIONS = (
    # where a search begins, and how it goes on
    _one("odd parity first", SEARCH, "        offset -= offset & 1\n", "        offset |= 1\n"),
    _one("step 1 for all", SEARCH, STEP, "numbers.step = 1"),
    _one("no second pass", SEARCH, "if port < 0 and h.range.remaining > 1:", "if port < -200:"),
    _one("the last port is left out", SEARCH, "    numbers.high += 1\n", ""),
    _one(
        "an odd range wraps to its low end",
        SEARCH,
        "wrapped = first + 2 * before_wrap - numbers.remaining",
        "wrapped = numbers.low + (offset & 1)",
    ),
    _one("the start is never re-hashed", SECURE, "now_us // _EPOCH_US", "0"),
    # how the start moves
    _one(
        "a failed search moves the start",
        SEARCH,
        "    if port >= 0:\n        moved = _perturb(h, index)\n        _take",
        "    moved = _perturb(h, index)\n    if port >= 0:\n        _take",
    ),
    _one("advance without the distance", SEARCH, "    if h.last_distance > advance:\n", "    if False:\n"),
    _one("advance without the step", SEARCH, "(wide + advance + step) & _M32", "(wide + advance) & _M32"),
    # ranges
    _one("reserved ports are used", BUCKETS, SHUT_WHEN, "if self.is_bound(port):"),
    _one("IP_LOCAL_PORT_RANGE with parity", SEARCH, STEP, "numbers.step = 2"),
    _one("IP_LOCAL_PORT_RANGE is not clipped", TABLES, "own_high != 0 and low <= own_high <= high:", "own_high != 0:"),
    # buckets
    _one("a bucket of bind() may be joined", BUCKETS, JOINED + SHUT_IT, JOINED + PASS),
    _one("a bucket never heals", BUCKETS, "        _heal(bind, port)\n", PASS),
    _one(
        "IP_BIND_ADDRESS_NO_PORT counts as bound",
        SEARCH,
        "    bucket_join(h.bind, port, sk << 1, True)\n    h.sks.flags[sk] |= _CONNECT_BIND\n",
        "    bucket_join(h.bind, port, sk << 1, h.sks.flags[sk] & 4 == 0)\n"
        "    h.sks.flags[sk] |= _CONNECT_BIND if h.sks.flags[sk] & 4 == 0 else 0\n",
    ),
    # buckets of a socket whose address came after its port (bind.py: BIND_MOVED)
    _one("an address that comes later shuts the port", BUCKETS, "if open_there and not moved:", "if False:"),
    _one("it opens the port where bind() was", BUCKETS, "                return False\n", "                pass\n"),
    _one("it opens the port where nobody was", BUCKETS, NEIGHBOUR, "owner != newcomer"),
    _one("the next that leaves does not open the port", BUCKETS, "bind.moved == 0 and bind.heals", "bind.heals"),
    _one("it shuts the port when its address goes", BUCKETS, GOES, GOES + SHUT_IT),
    _one("its 4-tuple is forgotten when its address goes", BUCKETS, ASTRAY, "return False"),
    _one("bind() does not shut it again", BUCKETS, "while owner != 0 and bind.moved != 0:", "while False:"),
    _one("its FIN_WAIT2 does not open the port", BUCKETS, "if bind.moved != 0 and bind.bound[port] == 0:", "if False:"),
    # 4-tuples
    Mutation(
        "the destination's port does not count",
        INDEX,
        (
            ("ports << 16 | group.dport[row], secret)", "ports << 16, secret)"),
            ("jhash_3words(saddr, daddr, index.key_ports,", "jhash_3words(saddr, daddr, port << 16,"),
            ("(ports << 16 | group.dport[row]) == key.key_ports", "ports == key.key_ports >> 16"),
        ),
    ),
    Mutation(
        "the destination's address does not count",
        INDEX,
        (
            ("jhash_3words(group.saddr[row], group.daddr[row],", "jhash_3words(group.saddr[row], 0,"),
            ("jhash_3words(saddr, daddr, index.key_ports", "jhash_3words(saddr, 0, index.key_ports"),
            ("        and group.daddr[row] == key.key_daddr\n", ""),
        ),
    ),
    Mutation(
        "the source does not count",
        INDEX,
        (
            ("jhash_3words(group.saddr[row], group.daddr[row],", "jhash_3words(0, group.daddr[row],"),
            ("jhash_3words(saddr, daddr, index.key_ports", "jhash_3words(0, daddr, index.key_ports"),
            ("        and group.saddr[row] == key.key_saddr\n", ""),
        ),
    ),
    _one("devices count both ways", SEARCH, MATCH, MATCH.replace("bound == 0", "bound == 0 or dev == 0")),
    _one("an unbound socket is in no device's way", SEARCH, MATCH, MATCH.replace("bound == 0 or ", "")),
    # TIME_WAIT
    _one("TIME_WAIT is reused at once", DEST, RIPE, "return age <= 0x7FFFFFFF"),
    _one("TIME_WAIT is never reused", DEST, RIPE, "return False"),
    _one(
        "TIME_WAIT is reused without timestamps",
        "tcp/minisocks.py",
        "table.ts_recent_stamp[tw] = sks.ts_recent_stamp[sk]",
        "table.ts_recent_stamp[tw] = sks.ts_recent_stamp[sk] or 1",
    ),
    _one("a bound socket waits for TIME_WAIT too", SEARCH, "    if not searching:\n        return True\n", ""),
    # bind()
    _one("bind(addr, 0) takes even offsets first", BIND, ODD, ODD.replace("| 1", "& ~1")),
    _one("SO_REUSEADDR of one side is enough", BIND, "if own & flags & _REUSE !=", "if (own | flags) & _REUSE !="),
    _one("a listener lets others in", BIND, " and state != _TCP_LISTEN:\n", ":\n"),
    _one("bind() does not look at addresses", BIND, "return one == other or one == 0 or other == 0", "return True"),
)  # fmt: skip


def copy_package(target: Path) -> Path:
    """The package's .py files under `target`: its directory there."""
    copy = target / PACKAGE.name
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("*.so", "*.pxd", "*.pyx", "*.c", "__pycache__"))
    return copy


def plant(copy: Path, mutation: Mutation) -> None:
    """Change the copy."""
    path = copy / mutation.file
    text = path.read_text()
    for old, new in mutation.edits:
        assert text.count(old) == 1, f"{mutation.name}: {text.count(old)} places in {mutation.file} for {old!r}"
        text = text.replace(old, new)
    path.write_text(text)


def judge(copy: Path, histories: Sequence[Path]) -> str:
    """Why the package in `copy` cannot have done what is recorded; empty when it can."""
    environment = dict(os.environ, PYTHONPATH=f"{copy.parent}{os.pathsep}{ROOT}", PYTHONDONTWRITEBYTECODE="1")
    command = [sys.executable, "-m", "tests.kernel.port_judge.mutant", str(copy), *map(str, histories)]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=ROOT, check=False, timeout=MOST_S
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
