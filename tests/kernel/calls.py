"""Random programs of socket calls, and what a SUT answers to each call: the same program for the kernel and for us."""

from __future__ import annotations

import random
import struct

from tests.kernel.oracle import ko

E, sa = ko.E, ko.sa
SOCKETS = 4
# Every connection here ends within a loopback round trip, so a moment is enough; no timer of 200 ms or more may fire.
SETTLE_S = 0.004
EPHEMERAL = range(32768, 61000)


def program(seed, steps=30):
    """[(operation, socket number, argument)], the same for a seed everywhere."""
    rng = random.Random(seed)
    base = 5000 + seed % 2000 * 10
    places = [
        ("127.0.0.1", base), ("127.0.0.1", base + 1), ("10.9.0.1", base), ("127.0.0.1", base + 2), ("10.9.0.2", 80),
        ("0.0.0.0", base), ("127.0.0.1", 0), ("0.0.0.0", 0), ("10.7.0.1", 80), ("10.9.0.77", 0),
        ("10.9.0.255", base + 3),
    ]  # fmt: skip
    raw = [struct.pack("=H14x", 0), struct.pack("=H14x", 1), b"\0\0", sa(places[0])[:15], b"\2", b""]
    kinds = (
        ("connect", 8), ("bind", 4), ("listen", 3), ("accept", 4), ("shutdown", 3), ("send", 4), ("recv", 4),
        ("close", 3), ("option", 3), ("rawconnect", 3), ("poll", 2), ("error", 2), ("name", 2), ("peer", 2),
        ("state", 2), ("remote", 6),
    )  # fmt: skip
    names, weights = [k for k, _ in kinds], [w for _, w in kinds]
    calls = []
    for _ in range(steps):
        kind = rng.choices(names, weights)[0]
        argument = {
            "connect": lambda: rng.choice(places),
            "bind": lambda: rng.choice(places),
            "rawconnect": lambda: rng.choice(raw),
            "shutdown": lambda: rng.choice((-1, 0, 1, 2, 2, 3)),
            "send": lambda: rng.choice((1, 5, 2000)),
            "recv": lambda: rng.choice((1, 100, 5000)),
            "option": lambda: rng.choice(((1, 2, 1), (1, 15, 1), (1, 2, 0), (0, 24, 1), (1, 13, None), (6, 1, 1))),
            "listen": lambda: rng.choice((0, 5)),
            "remote": lambda: rng.choice(("SA", "SA", "SA", "RA", "icmp", "late", "S", "data", "FA", "RA again")),
        }.get(kind, lambda: None)()
        calls.append((kind, rng.randrange(SOCKETS), argument))
    return calls


def run_program(x, calls):
    """The answer to each call, ephemeral ports masked; sockets are made when first used."""
    socks = {}
    answers = []
    remote = Remote(x)
    for kind, number, argument in calls:
        if kind == "remote":
            answers.append(remote.act(argument))
        elif kind == "close":
            if number in socks:
                socks.pop(number).close()
            answers.append(None)
        else:
            s = socks.setdefault(number, None) or x.tcp()
            socks[number] = s
            answers.append(_masked(_answer(x, s, kind, argument, socks)))
        x.sut.sleep(SETTLE_S)
    for s in socks.values():
        s.close()
    x.drain()
    return ko.canon(answers)


class Remote:
    """The peers behind tun0: each SYN makes one, and the youngest acts."""

    def __init__(self, x):
        self.x = x
        self.ends = []
        self.known = set()

    def act(self, what):
        """Do something to the youngest connection attempt, or connection; its SYNs and RSTs since."""
        self._look()
        if not self.ends:
            return None
        c = self.ends[-1]
        if what == "SA":
            c.synack()
        elif what == "icmp":
            self.x.icmp(c.syn, 3, 1)
        elif what == "late":
            c.raw("SA", c.iss, c.syn.seq)
        elif what == "S":
            c.raw("S", c.iss, 0)
        elif what == "RA":
            c.raw("RA", 0, c.syn.seq + 1)
        elif what == "RA again":
            c.raw("RA", c.snd, c.rcv)
        else:
            c.seg("PA" if what == "data" else what, b"hello" if what == "data" else b"")
        return self._look(0.02 if what == "late" else SETTLE_S)

    def _look(self, settle=SETTLE_S):
        """Packets of this program that have come out since, once each; a SYN makes a new end."""
        seen = []
        while (p := self.x.pkt(settle)) is not None:
            if p.flags == "S" and not any(_same(p, c) for c in self.ends):
                self.ends.append(ko.Conn(self.x, p))
            for c in self.ends:
                if _same(p, c):
                    end = p.seq + len(p.payload) + ("F" in p.flags) + ("S" in p.flags)
                    c.rcv = end if "S" in p.flags else max(c.rcv, end)
                    c.ecr = p.opt("ts")[1] if p.opt("ts") else c.ecr
                    # The wheel of timers turns in real time there: only what answers at once is compared.
                    if p.flags[0] in "SR" and (p.flags, p.seq) not in self.known:
                        seen.append(p.flags)
                        self.known.add((p.flags, p.seq))
        return seen


def _same(p, c):
    """Does this packet of ours belong to that end?"""
    return (p.sport, p.dst, p.dport) == (c.syn.sport, c.syn.dst, c.syn.dport)


def _answer(x, s, kind, argument, socks):
    if kind in ("connect", "bind"):
        return getattr(s, kind)(argument)
    if kind == "rawconnect":
        return s.connect_raw(argument)
    if kind == "option":
        level, name, value = argument
        return s.opt(level, name, struct.pack("ii", 1, 0) if value is None else value)
    if kind == "accept":
        return _accept(s, socks)
    if kind == "send":
        return s.send(b"x" * argument)
    if kind == "recv":
        data = s.recv(argument)
        return data if data.startswith("E") else len(data)
    if kind in ("listen", "shutdown"):
        return getattr(s, kind)(argument)
    return {"poll": s.poll, "error": s.err, "name": s.name, "peer": s.peer, "state": s.state}[kind]()


def _accept(s, socks):
    """The child takes the place of a socket that is not used yet, or is closed."""
    child = s.accept()
    if isinstance(child, str):
        return child
    free = next((n for n in range(SOCKETS) if n not in socks), None)
    peer = child.peer()
    if free is None:
        child.close()
    else:
        child.sut.set_nonblock(child.h, True)
        socks[free] = child
    return peer


def _masked(answer):
    if isinstance(answer, list) and answer[1] in EPHEMERAL:
        return [answer[0], "ephemeral"]
    return answer
