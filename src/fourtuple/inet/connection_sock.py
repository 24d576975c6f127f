"""net/ipv4/inet_connection_sock.c: bind(), which port it gets and who may share it.

Two owners of a bucket conflict when their addresses and devices overlap and neither rule lets them share:
SO_REUSEADDR on both and none listening, or SO_REUSEPORT on both and the same user (or a TIME_WAIT).  A search for any
port (bind(addr, 0)) is stricter: it never shares with an equal address, unless ip_autobind_reuse lets it in a second
round (PORT-32, -33).
"""

from __future__ import annotations

import errno

from fourtuple.inet.bind import FASTREUSEPORT_ANY, FASTREUSEPORT_STRICT, bucket_claim, bucket_join, bucket_next
from fourtuple.inet.flags import REUSE, REUSEPORT
from fourtuple.inet.hashinfo import InetHashinfo, inet_sk_get_local_port_range
from fourtuple.inet.portset import RESERVED, SHUT, portset_add, portset_test
from fourtuple.inet.secrets import get_random_u32_below
from fourtuple.kernel_map import FN_INET_CSK_GET_PORT
from fourtuple.trace import trace

_EADDRINUSE = errno.EADDRINUSE
_TCP_LISTEN = 10
_REUSE = REUSE
_REUSEPORT = REUSEPORT
_ANY = FASTREUSEPORT_ANY
_STRICT = FASTREUSEPORT_STRICT
_RESERVED = RESERVED
_SHUT = SHUT


def inet_csk_get_port(h: InetHashinfo, sk: int, snum: int) -> int:
    """Bind sk to port snum (0: any) with the address in its row: 0 and num is set, or -EADDRINUSE.

    Also called by listen() for a port the socket has already: then only the rules are checked anew, and it stays in
    its bucket.
    """
    port = _allowed_port(h, sk, snum)
    if h.tracer is not None:
        trace(h.tracer, FN_INET_CSK_GET_PORT, sk, snum, port)
    if port < 0:
        return port
    if h.bind.moved != 0:
        bucket_claim(h.bind, port, h.sks.saddr[sk])
    inet_csk_update_fastreuse(h, sk, port)
    if h.sks.num[sk] == 0:
        h.sks.num[sk] = port
        bucket_join(h.bind, port, sk << 1, False)
    elif h.bind.fastreuse[port] >= 0:
        portset_add(h.sets, _SHUT, port)  # before 3.9 bind() may have left it open
    return 0


def _allowed_port(h: InetHashinfo, sk: int, snum: int) -> int:
    """Port snum if the rules let sk have it (0: a port found), or -EADDRINUSE."""
    port = snum if snum != 0 else _find_open_port(h, sk)
    if port == 0 or (snum != 0 and not _explicit_port_is_free(h, sk, snum)):
        return -_EADDRINUSE
    return port


def _may_reuse(h: InetHashinfo, sk: int) -> bool:
    return h.sks.flags[sk] & _REUSE != 0 and h.sks.sk_state[sk] != _TCP_LISTEN


def _uid(h: InetHashinfo, sk: int) -> int:
    if h.sks.opts[sk] == 0:
        return 0
    return h.sks.option_sets[h.sks.opts[sk]].uid


def _explicit_port_is_free(h: InetHashinfo, sk: int, port: int) -> bool:
    bind = h.bind
    if bind.owners[port] == 0:
        return True
    if bind.fastreuse[port] > 0 and _may_reuse(h, sk):
        return True
    if _sk_reuseport_match(h, sk, port):
        return True
    return not inet_csk_bind_conflict(h, sk, port, True, True)


def _sk_reuseport_match(h: InetHashinfo, sk: int, port: int) -> bool:
    """All owners are SO_REUSEPORT sockets of this user, and the address is known not to conflict."""
    bind = h.bind
    if bind.fastreuseport[port] <= 0 or not h.sks.flags[sk] & _REUSEPORT:
        return False
    if bind.fastuid[port] != _uid(h, sk):
        return False
    if bind.fastreuseport[port] == _ANY:
        return True
    return bind.fast_saddr[port] == h.sks.saddr[sk] or bind.fast_saddr[port] == 0


def inet_csk_update_fastreuse(h: InetHashinfo, sk: int, port: int) -> None:
    """The bucket's short cuts after sk has been let in: what every owner so far allows."""
    bind = h.bind
    reuse = _may_reuse(h, sk)
    if bind.owners[port] == 0:
        bind.fastreuse[port] = 1 if reuse else 0
        _note_reuseport(h, sk, port, _ANY)
        return
    if not reuse:
        bind.fastreuse[port] = 0
    if not _sk_reuseport_match(h, sk, port):
        _note_reuseport(h, sk, port, _STRICT)


def _note_reuseport(h: InetHashinfo, sk: int, port: int, kind: int) -> None:
    bind = h.bind
    if not bind.has_reuseport:
        bind.fastreuseport[port] = -1
        return
    if h.sks.flags[sk] & _REUSEPORT == 0:
        bind.fastreuseport[port] = 0
        return
    bind.fastreuseport[port] = kind
    bind.fastuid[port] = _uid(h, sk)
    bind.fast_saddr[port] = h.sks.saddr[sk]


def inet_csk_bind_conflict(h: InetHashinfo, sk: int, port: int, relax: bool, reuseport_ok: bool) -> bool:
    """Does any owner of the bucket stand against sk?"""
    owner = h.bind.head[port]
    while owner != 0:
        if owner != sk << 1 and _owner_conflicts(h, sk, owner, relax, reuseport_ok):
            return True
        owner = bucket_next(h.bind, owner)
    return False


def _owner_conflicts(h: InetHashinfo, sk: int, owner: int, relax: bool, reuseport_ok: bool) -> bool:
    """inet_bind_conflict for one owner, a socket or a TIME_WAIT."""
    row = owner >> 1
    if owner & 1:
        saddr, dev, flags, state = h.tw.saddr[row], h.tw.bound_dev[row], h.tw.flags[row], 0
    else:
        saddr, dev, flags, state = h.sks.saddr[row], h.sks.bound_dev[row], h.sks.flags[row], h.sks.sk_state[row]
    if not _addresses_meet(h.sks.saddr[sk], saddr) or not _addresses_meet(h.sks.bound_dev[sk], dev):
        return False
    own = h.sks.flags[sk]
    both_reuseport = own & flags & _REUSEPORT != 0 and (owner & 1 != 0 or _uid(h, row) == _uid(h, sk))
    if own & flags & _REUSE != 0 and state != _TCP_LISTEN:
        return not relax or (not reuseport_ok and both_reuseport)
    return not (reuseport_ok and both_reuseport)


def _addresses_meet(one: int, other: int) -> bool:
    """Equal, or one is the wildcard; holds for addresses and for device numbers."""
    return one == other or one == 0 or other == 0


def _find_open_port(h: InetHashinfo, sk: int) -> int:
    """A port for bind(addr, 0), or 0: odd offsets first, so that even ones are left to connect() (PORT-12)."""
    if h.bind_step_1:
        return _search_all(h, sk)
    port = _search_halves(h, sk, False)
    if port == 0 and h.sysctl.ip_autobind_reuse != 0:
        port = _search_halves(h, sk, True)
    return port


def _search_halves(h: InetHashinfo, sk: int, relax: bool) -> int:
    """With SO_REUSEADDR the lower half of the range is tried first, to leave the upper to others (PORT-31)."""
    inet_sk_get_local_port_range(h, sk)
    low = h.range.low
    high = h.range.high + 1
    if h.sks.flags[sk] & _REUSE == 0 or high - low < 4:
        return _search_open(h, sk, low, high, relax)
    half = low + ((high - low) >> 2 << 1)
    port = _search_open(h, sk, low, half, relax)
    if port == 0:
        port = _search_open(h, sk, half, high, relax)
    return port


def _search_open(h: InetHashinfo, sk: int, low: int, high: int, relax: bool) -> int:
    remaining = high - low
    if remaining > 1:
        remaining -= remaining & 1
    offset = get_random_u32_below(h.secrets, remaining) | 1
    port = _open_pass(h, sk, low, high, remaining, offset, relax)
    if port == 0:
        port = _open_pass(h, sk, low, high, remaining, offset - 1, relax)
    return port


def _open_pass(h: InetHashinfo, sk: int, low: int, high: int, remaining: int, offset: int, relax: bool) -> int:
    port = low + offset
    walked = 0
    while walked < remaining:
        if port >= high:
            port -= remaining
        if not portset_test(h.bind.sets, _RESERVED, port) and _port_is_open(h, sk, port, relax):
            return port
        walked += 2
        port += 2
    return 0


def _search_all(h: InetHashinfo, sk: int) -> int:
    """Before 4.6: every port from a random one on; if none is open, the one of fewest owners that allow sharing."""
    inet_sk_get_local_port_range(h, sk)
    remaining = h.range.high - h.range.low + 1
    first = get_random_u32_below(h.secrets, remaining)
    fewest = 0
    for i in range(remaining):
        port = h.range.low + (first + i) % remaining
        if portset_test(h.bind.sets, _RESERVED, port):
            continue
        # 2.6.32 takes a port with a bucket only when there is no other.
        if h.bind.owners[port] == 0:
            return port
        if h.bind.has_reuseport and not inet_csk_bind_conflict(h, sk, port, False, True):
            return port
        if _allows_sharing(h, sk, port) and (fewest == 0 or h.bind.owners[port] < h.bind.owners[fewest]):
            fewest = port
    return fewest if fewest != 0 and not inet_csk_bind_conflict(h, sk, fewest, True, True) else 0


def _allows_sharing(h: InetHashinfo, sk: int, port: int) -> bool:
    return (h.bind.fastreuse[port] > 0 and _may_reuse(h, sk)) or _sk_reuseport_match(h, sk, port)


def _port_is_open(h: InetHashinfo, sk: int, port: int, relax: bool) -> bool:
    return h.bind.owners[port] == 0 or not inet_csk_bind_conflict(h, sk, port, relax, False)
