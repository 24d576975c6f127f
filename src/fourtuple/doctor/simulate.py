"""One source and one destination under steady load, in the engine's tables and in simulated time.

Lives here: arrivals, departures, TIME_WAITs that end.  Does not live here: what the load is (plan.py), any rule.

The tables begin in the steady state: with as many connections and TIME_WAITs as the load holds, of all ages.  Times
between arrivals are random (Poisson), a connection lasts 0.5 to 1.5 times its mean; the same seed gives the same run.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from heapq import heappop, heappush

from fourtuple.inet.hashinfo import InetHashinfo
from fourtuple.inet.hashtables import inet_hash_connect, inet_put_port, inet_unhash
from fourtuple.inet.secrets import BootSecrets
from fourtuple.inet.sock_table import SockTable, sk_alloc, sk_free_inet
from fourtuple.inet.timewait import tw_alloc, tw_fifo_append
from fourtuple.inet.timewait_sock import inet_twsk_hashdance, inet_twsk_kill
from fourtuple.sysctl import Sysctls

_SOURCE, _DESTINATION, _PORT = 0x0A000002, 0x0A000001, 443
_TIME_WAIT = 6
_TIME_WAIT_US = 60_000_000  # TCP_TIMEWAIT_LEN
_START_US = 1_000_000_000
_ESTABLISHED = 1


@dataclass(frozen=True)
class Load:
    """What comes to one source and destination."""

    rate_per_s: float
    hold_s: float
    leaves_time_wait: bool
    own_range: bool
    """IP_LOCAL_PORT_RANGE is set on the sockets."""

    @property
    def open_at_once(self) -> float:
        return self.rate_per_s * self.hold_s

    @property
    def time_waits(self) -> float:
        return self.rate_per_s * _TIME_WAIT_US / 1_000_000 if self.leaves_time_wait else 0.0


@dataclass(frozen=True)
class Measured:
    """Of the arrivals after the start: ports passed over by each that succeeded, and means over all."""

    passed: tuple[int, ...]
    """Sorted."""
    failed: int
    open_at_once: float
    time_waits: float
    passed_time_waits: float
    """Share of TIME_WAITs among the sockets, taken for their share among the ports passed over."""


class Pair:
    """The tables, and the connections in them with the time of their end."""

    def __init__(self, sysctls: Sysctls, load: Load, seed: int) -> None:
        ports = sysctls.port_high - sysctls.port_low + 1
        self._load = load
        self._ports = ports
        self._dice = random.Random(seed)
        self._h = InetHashinfo(SockTable(ports + 8), sysctls, BootSecrets(seed), 2 * ports + 8)
        self._now_us = _START_US
        self._ends: list[tuple[int, int]] = []
        options = self._h.sks.options
        own = {"port_low": sysctls.port_low, "port_high": sysctls.port_high} if load.own_range else {}
        self._opts = options.replaced(0, **own)
        self._parity = sysctls.port_low & 1
        self._half = (ports + 1) // 2

    def settle(self) -> None:
        """Put in what the load holds, or of a load that does not fit the same mixture, as much as does."""
        load = self._load
        share = min(1.0, self._ports / max(1.0, load.open_at_once + load.time_waits))
        lives = [_ESTABLISHED] * round(share * load.open_at_once) + [_TIME_WAIT] * round(share * load.time_waits)
        self._dice.shuffle(lives)
        ages = sorted((self._dice.randrange(_TIME_WAIT_US) for _ in range(lives.count(_TIME_WAIT))), reverse=True)
        waits = iter(ages)
        for state in lives:
            sk, _ = self._connect()
            if sk == 0:
                return
            if state == _TIME_WAIT:
                self._wait(sk, self._now_us - next(waits))
            else:
                heappush(self._ends, (self._now_us + int(self._life_us() * self._dice.random()), sk))

    def run(self, arrivals: int) -> Measured:
        """So many more connects, and all that ends meanwhile."""
        passed: list[int] = []
        failed = opened = waiting = 0
        for _ in range(arrivals):
            self._now_us += round(self._dice.expovariate(self._load.rate_per_s) * 1_000_000)
            self._end_what_is_due()
            opened += len(self._ends)
            waiting += self._h.tw.used
            sk, walked = self._connect()
            if sk == 0:
                failed += 1
            else:
                passed.append(walked)
                heappush(self._ends, (self._now_us + self._life_us(), sk))
        share = waiting / max(1, opened + waiting)
        return Measured(tuple(sorted(passed)), failed, opened / arrivals, waiting / arrivals, share)

    def _life_us(self) -> int:
        return round(self._load.hold_s * 1_000_000 * self._dice.uniform(0.5, 1.5))

    def _connect(self) -> tuple[int, int]:
        """(row, ports passed over), or (0, 0) for EADDRNOTAVAIL."""
        h = self._h
        sk = sk_alloc(h.sks)
        h.sks.saddr[sk], h.sks.daddr[sk], h.sks.dport[sk] = _SOURCE, _DESTINATION, _PORT
        h.sks.opts[sk] = self._opts
        port = inet_hash_connect(h, sk, self._now_us)
        if port < 0:
            sk_free_inet(h.sks, sk)
            return 0, 0
        h.sks.sk_state[sk] = _ESTABLISHED
        if self._load.own_range:
            return sk, h.last_distance
        return sk, h.last_distance // 2 + (self._half if (port & 1) != self._parity else 0)

    def _end_what_is_due(self) -> None:
        h = self._h
        while self._ends and self._ends[0][0] <= self._now_us:
            _, sk = heappop(self._ends)
            if self._load.leaves_time_wait:
                self._wait(sk, self._now_us)
            else:
                inet_unhash(h, sk)
                inet_put_port(h, sk)
                sk_free_inet(h.sks, sk)
        while h.tw.fifo_head and h.tw.due_us[h.tw.fifo_head] <= self._now_us:
            inet_twsk_kill(h, h.tw.fifo_head)

    def _wait(self, sk: int, since_us: int) -> None:
        """The connection becomes a TIME_WAIT, made at since_us."""
        h = self._h
        tw = tw_alloc(h.tw)
        h.tw.substate[tw] = _TIME_WAIT
        h.tw.ts_recent_stamp[tw] = 1 if h.sysctl.tcp_timestamps else 0
        h.tw.entry_ms[tw] = since_us // 1000 & 0xFFFFFFFF  # a slow load takes years to simulate
        inet_twsk_hashdance(h, sk, tw)
        tw_fifo_append(h.tw, tw, since_us + _TIME_WAIT_US)
        sk_free_inet(h.sks, sk)
