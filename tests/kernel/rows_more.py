"""Scenarios for the rows of the catalogue that kernel_oracle.py has no scenario for, in its style.

What a scenario must give is read from CATALOGUE.md.  Run by itself as root, this module asks the live kernel:

    python -m tests.kernel.rows_more [ID ...]
"""

from __future__ import annotations

import collections
import itertools
import json
import re
import socket
import struct
import sys

from tests.kernel.netns import in_namespace
from tests.kernel.oracle import SHARED, ko

Conn, E, Fail, X, sa = ko.Conn, ko.E, ko.Fail, ko.X, ko.sa
AF_INET6, SOL_IP, SOL_SOCKET, SOL_TCP = ko.AF_INET6, ko.SOL_IP, ko.SOL_SOCKET, ko.SOL_TCP
DST, HOST, HOST2, PEER, PEER2 = ko.DST, ko.HOST, ko.HOST2, ko.PEER, ko.PEER2
hold, lpr, shape = ko.hold, ko.lpr, ko.shape
SO_MARK, TCP_MD5SIG = 36, 14

Row = collections.namedtuple("Row", "id scenario title expect slow")
ROWS: dict[str, Row] = {}


def _catalogue():
    """{id: (title, expected)} of every row."""
    rows = {}
    for line in (SHARED / "CATALOGUE.md").read_text().splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)]
        if len(cells) < 6 or not re.fullmatch(r"[A-Z0-9]+-\d+", cells[1]):
            continue
        text = cells[3].strip("`").replace("\\|", "|")
        try:
            expected = json.loads(text)
        except ValueError:
            expected = text
        rows[cells[1]] = (cells[2], expected)
    return rows


CATALOGUE = _catalogue()


def row(row_id, slow=False):
    """Register a scenario; `slow`: in real time it takes too long to ask the kernel in each test run."""

    def register(scenario):
        assert row_id not in ROWS and row_id not in ko.ROWS, row_id
        title, expect = CATALOGUE[row_id]
        ROWS[row_id] = Row(row_id, scenario, title, expect, slow)
        return scenario

    return register


def run_row(row_id, sut):
    """What the scenario gives, in canonical form.  NotImplementedError names what the SUT lacks."""
    sut.start()
    try:
        return ko.canon(ROWS[row_id].scenario(X(sut)))
    finally:
        sut.stop()


def refuse(x, s, addr=DST):
    """Begin a connection and have the peer refuse it -> its SYN."""
    p = x.syn_of(s, addr)
    Conn(x, p).raw("RA", 0, p.seq + 1)
    x.sut.sleep(0.02)
    return p


def simultaneous(x, s):
    """Up to SYN_RECV by a crossing SYN -> the peer's end."""
    c = Conn(x, x.syn_of(s))
    c.raw("S", c.iss, 0, c.fill(ko.PEER_OPTS))
    c.expect()
    c.snd += 1
    return c


# ------------------------------------------------------------------------------------------------ ERR


@row("ERR-03")
def _(x):
    return {"connect": E(x.sut.connect(x.sut.odd_fd("pipe"), sa(DST)))}


@row("ERR-06")
def _(x):
    return {str(n): x.tcp().connect_raw(sa(DST), n) for n in (-1, 128, 129)}


@row("ERR-09")
def _(x):
    six, unix = struct.pack("=H26x", 10), struct.pack("=H14x", 1)
    return {
        "AF_INET6,15": x.tcp().connect_raw(six, 15),
        "AF_INET6,28": x.tcp().connect_raw(six, 28),
        "AF_UNIX,16": x.tcp().connect_raw(unix, 16),
    }


@row("ERR-12")
def _(x):
    s = x.tcp()
    r = {"1": s.connect(), "2": s.connect(), "other addr": s.connect((PEER2, 81))}
    r["bad family"] = s.connect_raw(struct.pack("=H14x", 1))
    r["len1"] = s.connect_raw(sa(DST), 1)
    r["syns"] = len(x.until(0.1))
    return r


@row("ERR-15")
def _(x):
    s = x.tcp()
    refuse(x, s)
    return {"SO_ERROR": s.err(), "again": s.err(), "1": s.connect(), "2": s.connect()}


@row("ERR-18")
def _(x):
    r = {}
    for i, kind in enumerate(("unreachable", "prohibit", "blackhole", "throw")):
        x.sut.ip(f"route add {kind} 10.8.{i}.0/24")
        r[kind] = x.tcp().connect((f"10.8.{i}.1", 80))
    return dict(r, none=x.tcp().connect(("10.7.0.1", 80)))


@row("ERR-21")
def _(x):
    x.need("lo")
    listener = x.tcp()
    listener.bind(("127.0.0.1", 7000))
    listener.listen()
    s = x.tcp()
    r = s.connect(("0.0.0.0", 7000))
    x.sut.sleep(0.02)
    return {"connect": r, "name ip": s.name()[0], "peer": s.peer()}


@row("ERR-24")
def _(x):
    x.need("lo")
    listener = x.tcp()
    listener.bind(("127.0.0.1", 7000))
    listener.listen()
    s = x.tcp()
    return {"connect": s.connect(("127.0.0.1", 7000)), "poll": s.poll(), "again": s.connect(("127.0.0.1", 7000))}


@row("ERR-27")
def _(x):
    a, b = x.tcp(reuse=True), x.tcp(reuse=True)
    a.bind((HOST, 5000))
    b.bind((HOST, 5000))
    return {"1": a.connect(), "2": b.connect(), "2 other dst": b.connect((PEER2, 80))}


# ------------------------------------------------------------------------------------------------ ST


@row("ST-03")
def _(x):
    s, _ = x.establish()
    return {"poll": s.poll(), "state": s.state(), "SO_ERROR": s.err(), "peer": s.peer()}


@row("ST-06")
def _(x):
    s = x.tcp()
    return {"send": s.send(), "recv": s.recv()}


@row("ST-09")
def _(x):
    s = x.tcp()
    x.syn_of(s)
    r = {"shutdown": s.shutdown(2), "state": s.state(), "packets": x.quiet(0.1), "SO_ERROR": s.err()}
    return dict(r, reconnect=s.connect())


@row("ST-12")
def _(x):
    s = x.tcp()
    s.opt(SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    x.syn_of(s)
    s.close()
    return {"on close": x.quiet(0.1)}


@row("ST-15")
def _(x):
    x.sut.restart_signals(True)
    s = x.tcp(nonblock=False)
    b = s.bg()
    p = x.syn()
    b.signal()
    r = {"after signal": b.wait(0.1)}
    Conn(x, p).synack()
    return dict(r, end=b.wait())


@row("ST-18")
def _(x):
    s = x.tcp(nonblock=False)
    b = s.bg()
    x.syn()
    unspec = s.unspec()
    return {"unspec": unspec, "connect": b.wait(), "state": s.state()}


@row("ST-21")
def _(x):
    s, _ = x.establish()
    r = {"unspec": s.unspec(), "state": s.state(), "packets": x.quiet(0.1), "SO_ERROR": s.err()}
    return dict(r, reconnect=s.connect())


@row("ST-24")
def _(x):
    s = x.tcp()
    p = x.syn_of(s)
    s.unspec()
    ip, port = s.name()
    return {"name": [ip, "old port" if port == p.sport else port]}


@row("ST-27")
def _(x):
    s = x.tcp()
    p = x.syn_of(s)
    r = {"SYN_SENT": s.bind((HOST, 5000))}
    Conn(x, p).raw("RA", 0, p.seq + 1)
    x.sut.sleep(0.02)
    s.connect()
    return dict(r, after=s.bind((HOST, 5000)), name=s.name())


@row("ST-30")
def _(x):
    s = x.tcp()
    simultaneous(x, s)
    s.close()
    return {"packets": x.quiet(0.1)}


@row("ST-33")
def _(x):
    s, c = x.establish()
    s.connect()
    window = 65535 << 7
    c.seg("A")  # the window of a SYN-ACK is not scaled, this one is
    x.sut.sleep(0.02)
    snd_nxt = c.rcv
    s.unspec()
    assert x.pkt().flags == "RA"
    return {"delta - window": ((x.syn_of(s).seq - snd_nxt) - window + 1) & 0xFFFFFFFF}


# ------------------------------------------------------------------------------------------------ PORT


@row("PORT-03")
def _(x):
    x.range(32768, 60999)
    ports = hold(x, 60, (PEER, 4303))[1]
    steps = [(b - a) % 28232 for a, b in itertools.pairwise(ports)]
    small = [d for d in steps if d % 2 == 0 and 2 <= d <= 16]
    return {"ok": len(small) >= len(steps) - 1, "max<=16": max(small) <= 16}


@row("PORT-06")
def _(x):
    x.range(40001, 40001)
    _, ports, then = hold(x, 2)
    return {"ports": ports, "then": then, "other dst": hold(x, 1, (PEER2, 80))[1][0]}


@row("PORT-09")
def _(x):
    x.range(40000, 40003)
    x.sysctl(ip_local_reserved_ports="40000-40001")
    _, ports, then = hold(x, 3)
    x.range(40000, 40001)
    r = {"bind(0)": x.tcp().bind((HOST, 0)), "explicit": x.tcp().bind((HOST, 40000))}
    return dict(r, ports=sorted(ports), then=then)


@row("PORT-12")
def _(x):
    x.range(32768, 60999)
    ports = []
    for _ in range(50):
        s = x.tcp()
        s.bind((HOST, 0))
        ports.append(s.port())
    return {"all odd": all(p % 2 for p in ports), "distinct": len(set(ports))}


@row("PORT-15")
def _(x):
    s = x.tcp()
    s.bind((HOST, 40000))
    p = x.syn_of(s)
    return {"port": p.sport, "bind2": x.tcp().bind((HOST, 40000))}


@row("PORT-18")
def _(x):
    x.range(40000, 40000)
    x.tcp(reuseport=True).bind((HOST, 40000))
    return {"auto": x.tcp(reuseport=True).connect()}


@row("PORT-21")
def _(x):
    x.sut.ip("addr add 10.9.0.3/24 dev tun0")
    x.range(40000, 40000)
    x.tcp(reuse=True).connect()
    r = {"same": x.tcp().bind((HOST, 40000)), "wildcard": x.tcp().bind(("0.0.0.0", 40000))}
    b = x.tcp(reuse=True)
    r["reuse both"] = b.bind((HOST, 40000))
    b.close()
    return dict(r, other=x.tcp().bind((HOST2, 40000)))


@row("PORT-24")
def _(x):
    x.sut.ip("addr add 10.9.0.3/24 dev tun0")
    x.range(40000, 40000)
    a, b = x.tcp(), x.tcp()
    a.bind((HOST, 40000))
    b.bind((HOST2, 40000))
    both = x.tcp().connect((PEER2, 80))
    b.close()
    return {"both": both, "binder closed": x.tcp().connect((PEER2, 80))}


@row("PORT-27")
def _(x):
    x.range(32768, 60999)
    ports, then = [], None
    while True:
        s = x.tcp()
        s.opt(SOL_IP, ko.IP_LOCAL_PORT_RANGE, struct.pack("I", lpr(40000, 40010)))
        then = s.connect()
        if then != "EINPROGRESS":
            return {"ports": sorted(ports), "then": then}
        ports.append(s.port())


@row("PORT-30")
def _(x):
    x.range(32768, 60999)
    ports = []
    while True:
        s = x.tcp()
        s.opt(SOL_IP, ko.IP_LOCAL_PORT_RANGE, struct.pack("I", lpr(40000, 40005)))
        then = s.bind((HOST, 0))
        if then != "OK":
            return {"first": sorted(ports[:3]), "all": sorted(ports), "then": then}
        ports.append(s.port())


@row("PORT-33")
def _(x):
    # Automatic connects prefer the parity of the low bound, here the odd ports.
    x.range(40001, 40002)
    hold(x, 1)
    s = x.tcp()
    s.bind((HOST, 0))
    return {"bind": s.port(), "full": x.tcp().bind((HOST, 0))}


@row("PORT-36")
def _(x):
    x.range(40000, 40000)
    r = {}
    s = x.tcp()
    refuse(x, s)
    r["refused"] = x.tcp().connect()
    x.range(40002, 40002)
    s = x.tcp()
    s.connect()
    s.close()
    r["closed"] = x.tcp().connect()
    x.range(40004, 40004)
    s = x.tcp()
    s.connect()
    s.unspec()
    r["AF_UNSPEC"] = x.tcp().connect()
    return r


@row("PORT-39")
def _(x):
    x.range(40000, 40001)
    listener = x.tcp()
    listener.listen()
    port = listener.port()
    x.range(port, port)
    return {"odd": port % 2 == 1, "auto": x.tcp().connect()}


@row("PORT-42")
def _(x):
    x.range(40000, 40019)
    destinations = [(peer, 80 + i) for peer in (PEER, PEER2) for i in range(5)]
    tuples = [(d, port) for d in destinations for port in hold(x, 20, d)[1]]
    after = [x.tcp().connect(d) for d in destinations]
    return {"connections": len(tuples), "distinct tuples": len(set(tuples)), "next": after}


@row("PORT-45")
def _(x):
    return {"root": x.tcp().bind((HOST, 80))}


@row("PORT-48")
def _(x):
    x.need("netns")
    if not hasattr(x.sut, "another_netns"):
        raise NotImplementedError("a second namespace in one process")
    x.range(32768, 60999)
    y = X(x.sut.another_netns())
    y.range(32768, 60999)
    ports = [hold((x, y)[i % 2], 1, (PEER, 4848))[1][0] for i in range(40)]
    steps = [(b - a) % 28232 for a, b in itertools.pairwise(ports)]
    small = [d for d in steps if d % 2 == 0 and 2 <= d <= 16]
    return {"alternating increments 2..16": len(small) >= len(steps) - 1}


# ------------------------------------------------------------------------------------------------ SRC


@row("SRC-03")
def _(x):
    r = {"bind": x.tcp().bind(("10.9.0.77", 0))}
    x.sysctl(ip_nonlocal_bind=1)
    s = x.tcp()
    r["sysctl"] = [s.bind(("10.9.0.77", 0)), s.connect(), None]
    x.sysctl(ip_nonlocal_bind=0)
    s = x.tcp()
    s.opt(SOL_IP, ko.IP_FREEBIND, 1)
    r["FREEBIND bind"] = s.bind(("10.9.0.78", 0))
    s = x.tcp()
    s.opt(SOL_IP, ko.IP_TRANSPARENT, 1)
    r["TRANSPARENT"] = [s.bind(("10.9.0.79", 0)), s.connect(), x.syn().src]
    return r


@row("SRC-06")
def _(x):
    x.sut.ip("link set tun0 down")
    return {"connect": x.tcp().connect()}


@row("SRC-09")
def _(x):
    x.need("fwmark")
    x.sut.ip("addr add 10.9.0.3/24 dev tun0")
    x.sut.ip("rule add fwmark 1 table 100")
    x.sut.ip("route add 10.9.0.0/24 dev tun0 src 10.9.0.3 table 100")
    s = x.tcp()
    s.opt(SOL_SOCKET, SO_MARK, 1)
    return {"src": x.syn_of(s).src}


@row("SRC-10")
def _(x):
    x.sut.ip("addr add 10.9.0.3/24 dev tun0")
    s = x.tcp()
    s.bind((HOST2, 0))
    x.sut.ip("addr del 10.9.0.3/24 dev tun0")
    return s.connect()


# ------------------------------------------------------------------------------------------------ TW


@row("TW-03")
def _(x):
    x.need("lo")
    x.range(40000, 40000)
    x.time_wait()
    x.sut.sleep(1.2)
    r = {PEER: x.tcp().connect()}
    listener = x.tcp()
    listener.bind(("127.0.0.1", 7000))
    listener.listen()
    x.range(40002, 40002)
    s = x.tcp()
    s.connect(("127.0.0.1", 7000))
    x.sut.sleep(0.02)
    child = listener.accept()
    s.close()
    x.sut.sleep(0.02)
    child.close()
    x.sut.sleep(1.2)
    return dict(r, **{"127.0.0.1": x.tcp().connect(("127.0.0.1", 7000))})


@row("TW-06")
def _(x):
    x.sysctl(tcp_tw_reuse=0)
    s = x.tcp(reuse=True)
    s.bind((HOST, 5000))
    c, _ = x.time_wait(s)
    s = x.tcp(reuse=True)
    r = {"bind": s.bind((HOST, 5000)), "connect": s.connect()}
    return dict(r, **{"isn - snd_nxt": (x.syn().seq - c.rcv) & 0xFFFFFFFF})


@row("TW-09")
def _(x):
    x.range(40000, 40000)
    s, _ = x.establish()
    s.opt(SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    s.close()
    return {"packets": x.quiet(0.1), "connect": x.tcp().connect()}


@row("TW-12")
def _(x):
    x.range(40000, 40000)
    x.sysctl(tcp_max_tw_buckets=0)
    before = x.sut.mib("TcpExt.TCPTimeWaitOverflow")
    x.time_wait()
    x.sut.sleep(0.05)
    return {"TCPTimeWaitOverflow": x.sut.mib("TcpExt.TCPTimeWaitOverflow") - before, "connect": x.tcp().connect()}


# ------------------------------------------------------------------------------------------------ SYN


@row("SYN-03")
def _(x):
    x.sysctl(ip_default_ttl=33)
    r = {"sysctl": x.syn_of(x.tcp()).ttl}
    s = x.tcp()
    s.opt(SOL_IP, ko.IP_TTL, 7)
    return dict(r, IP_TTL=x.syn_of(s).ttl)


@row("SYN-06")
def _(x):
    x.sysctl(tcp_timestamps=0)
    return shape(x.syn_of(x.tcp()))


@row("SYN-09")
def _(x):
    x.sysctl(tcp_timestamps=0, tcp_sack=0, tcp_window_scaling=0)
    return shape(x.syn_of(x.tcp()))


@row("SYN-12")
def _(x):
    r = {}
    for key, level, name, value in (
        ("RCVBUF", SOL_SOCKET, socket.SO_RCVBUF, 8192),
        ("CLAMP", SOL_TCP, ko.TCP_WINDOW_CLAMP, 4096),
    ):
        s = x.tcp()
        s.opt(level, name, value)
        p = x.syn_of(s)
        r[key] = [p.win, p.opt("ws")[1]]
    return r


@row("SYN-15")
def _(x):
    x.sut.ip("route add 10.8.0.0/24 dev tun0 features ecn")
    return {"flags": x.syn_of(x.tcp(), ("10.8.0.1", 80)).flags}


@row("SYN-18")
def _(x):
    r = []
    for _ in range(2):
        s = x.tcp(reuse=True)
        s.bind((HOST, 5000))
        p = x.syn_of(s)
        r.append((p.t, p.seq))
        s.close()
        x.sut.sleep(0.5)
    (t0, a), (t1, b) = r
    grown = (b - a) & 0xFFFFFFFF
    return {"ok": abs(grown * 64e-9 - (t1 - t0)) < 0.05}


@row("SYN-21")
def _(x):
    s = x.tcp()
    key = b"secret"
    md5sig = sa((PEER, 0)).ljust(128, b"\0") + struct.pack("=BBHi", 0, 0, len(key), 0) + key.ljust(80, b"\0")
    if s.opt(SOL_TCP, TCP_MD5SIG, md5sig) != "OK":
        raise Fail("TCP_MD5SIG")
    return {"opts": x.syn_of(s).kinds()}


# ------------------------------------------------------------------------------------------------ RTX


@row("RTX-03")
def _(x):
    return ko.rtx(x, tcp_syn_linear_timeouts=0, tcp_syn_retries=1)


@row("RTX-06", slow=True)
def _(x):
    return ko.rtx(x, tcp_syn_retries=2)


@row("RTX-09")
def _(x):
    s = x.tcp()
    r = {"default": s.geti(SOL_TCP, ko.TCP_SYNCNT)}
    return dict(r, **{str(n): s.opt(SOL_TCP, ko.TCP_SYNCNT, n) for n in (0, 1, 127, 128)})


@row("RTX-12", slow=True)
def _(x):
    return ko.rtx(x, tcp_syn_linear_timeouts=0, tcp_syn_retries=3, tcp_rto_max_ms=1000)


@row("RTX-15")
def _(x):
    names = {"syn_retries": "tcp_syn_retries", "linear": "tcp_syn_linear_timeouts", "rto_max_ms": "tcp_rto_max_ms"}
    r = {}
    for key in ROWS["RTX-15"].expect:
        short, value = key.rsplit(" ", 1)
        r[key] = E(x.sut.sysctl("net.ipv4." + names[short], value))
    return r


@row("RTX-18", slow=True)
def _(x):
    return ko.rtx(x, 150, extra=(131,))


# ------------------------------------------------------------------------------------------------ RSP


@row("RSP-03")
def _(x):
    return ko.badack(x, "SA", 5)


@row("RSP-06")
def _(x):
    s = x.tcp()
    p = x.syn_of(s)
    Conn(x, p).raw("RA", 0, p.seq + 1)
    return {"replies": x.quiet(0.1), "SO_ERROR": s.err()}


@row("RSP-09")
def _(x):
    s = x.tcp()
    p = x.syn_of(s)
    x.syn(1.5)
    c = Conn(x, p)
    c.raw("SA", c.iss, p.seq, c.fill(ko.PEER_OPTS))
    return {"replies": x.quiet(0.15)}


@row("RSP-12")
def _(x):
    s = x.tcp()
    c = Conn(x, x.syn_of(s))
    c.synack(payload=b"hello")
    a = c.expect()
    r = {"ack": a.ack - c.iss, "recv": s.recv()}
    c.seg("PA", b"hello")
    a = c.expect()
    return dict(r, **{"resend ack": a.ack - c.iss, "recv2": s.recv()})


@row("RSP-15")
def _(x):
    return ko.infos(x, ko.PEER_OPTS)


@row("RSP-18")
def _(x):
    s = x.tcp()
    c = Conn(x, x.syn_of(s))
    c.synack(win=0)
    c.expect()
    return {"state": s.state(), "snd_wnd": s.info()["snd_wnd"]}


@row("RSP-21")
def _(x):
    s = x.tcp()
    c = Conn(x, x.syn_of(s))
    c.synack(sport=81)
    r = {"port": x.quiet(0.1)}
    c.synack(src=PEER2)
    return dict(r, addr=x.quiet(0.1), state=s.state())


@row("RSP-24")
def _(x):
    s = x.tcp()
    c = simultaneous(x, s)
    c.raw("SA", c.iss, c.rcv, c.fill(ko.PEER_OPTS))
    return {"replies": x.quiet(0.1), "state": s.state()}


@row("RSP-27")
def _(x):
    def ecn(flags):
        s = x.tcp()
        c = Conn(x, x.syn_of(s))
        c.synack("SA" + flags)
        c.expect()
        return s.info()["options"] & 8

    x.sysctl(tcp_ecn=0)
    r = {"not offered, E": ecn("E")}
    x.sysctl(tcp_ecn=1)
    return dict(r, **{flags: ecn(flags) for flags in ("", "E", "EW")})


@row("RSP-30")
def _(x):
    s = x.tcp()
    c = Conn(x, x.syn_of(s))
    c.raw("F", c.iss, 0)
    c.raw("P", c.iss, 0, payload=b"x")
    return {"replies": x.quiet(0.1), "state": s.state()}


@row("RSP-33")
def _(x):
    x.sysctl(tcp_timestamps=0, tcp_sack=0, tcp_window_scaling=0)
    s = x.tcp()
    c = Conn(x, x.syn_of(s))
    c.synack(opts=[("mss", 1460), ("sackOK",), ("ts", 7, 9), ("nop",), ("ws", 7)])
    a, i = c.expect(), s.info()
    return {"ack opts": a.kinds(), "options": i["options"] & 7, "snd_wscale": i["snd_wscale"]}


# ------------------------------------------------------------------------------------------------ ICMP


@row("ICMP-03")
def _(x):
    return {f"{t}/{c}": ko.icmp_err(x, t, c) for t, c in ((4, 0), (5, 1), (3, 16), (0, 0))}


@row("ICMP-06")
def _(x):
    before = x.sut.mib("Icmp.InErrors")
    s = x.tcp()
    x.icmp(x.syn_of(s), 3, 1, dport=81)
    x.sut.sleep(0.03)
    return {"state": s.state(), "InErrors": x.sut.mib("Icmp.InErrors") - before}


@row("ICMP-09")
def _(x):
    s = x.tcp(nonblock=False)
    r = {}
    for key in ("r", "again"):
        b = s.bg()
        x.icmp(x.syn(), 3, 1)
        r[key] = b.wait()
    return r


@row("ICMP-12")
def _(x):
    s, c = x.establish()
    # In ESTABLISHED the quoted sequence number must be one in flight or the next.
    x.icmp(c.syn, 3, 1, seq=c.rcv)
    x.sut.sleep(0.03)
    return {"poll": s.poll(), "state": s.state(), "SO_ERROR": s.err(), "SO_ERROR 2": s.err()}


# ------------------------------------------------------------------------------------------------ OBS


@row("OBS-03")
def _(x):
    def attempt():
        refuse(x, x.tcp())

    return ko.mibs(x, attempt)


@row("OBS-06")
def _(x):
    x.range(40000, 40000)
    x.sysctl(tcp_tw_reuse=1)
    x.time_wait()
    x.sut.sleep(1.1)
    before = x.sut.mib("TcpExt.TWRecycled")
    x.syn_of(x.tcp())
    return {"TWRecycled": x.sut.mib("TcpExt.TWRecycled") - before}


# ------------------------------------------------------------------------------------------------ the live kernel


def on_live_kernel(row_id):
    """The scenario's result on this kernel, in a namespace of its own."""
    return in_namespace(_live, row_id)


def _live(row_id):
    try:
        return {"result": run_row(row_id, ko.KernelSUT())}
    except NotImplementedError as missing:
        return {"unverified": str(missing)}


def say(*words):
    sys.stdout.write(" ".join(map(str, words)) + "\n")


def main(ids):
    bad = 0
    for row_id in ids or ROWS:
        answer = on_live_kernel(row_id)
        if answer.get("result", ROWS[row_id].expect) != ROWS[row_id].expect:
            bad += 1
            say(row_id, "MISMATCH", answer, "expected", ROWS[row_id].expect)
        elif ids or "unverified" in answer:
            say(row_id, answer)
    say(f"{bad} of {len(ids or ROWS)} differ")
    return bad


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
