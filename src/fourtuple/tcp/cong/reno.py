"""Reno (RFC 5681 as net/ipv4/tcp_cong.c has it): slow start, congestion avoidance, half the window on a loss.

`cubic` is accepted as a name and behaves like this.
"""

from __future__ import annotations

from fourtuple.tcp.constants import (
    TCP_INFINITE_SSTHRESH,
)
from fourtuple.tcp.net import Net, TcpCold

AVAILABLE = ("reno", "cubic")


def tcp_ssthresh(net: Net, sk: int) -> int:
    """Slow start threshold in segments; a column of 0 is infinite."""
    return net.sks.ssthresh[sk] or TCP_INFINITE_SSTHRESH


def tcp_in_slow_start(net: Net, sk: int) -> bool:
    """Below the threshold?"""
    return net.sks.snd_cwnd[sk] < tcp_ssthresh(net, sk)


def tcp_is_cwnd_limited(net: Net, sk: int, cold: TcpCold) -> bool:
    """Only a window that was used may grow; slow start may reach twice what was used (RFC 7661's concern)."""
    if cold.is_cwnd_limited:
        return True
    return tcp_in_slow_start(net, sk) and net.sks.snd_cwnd[sk] < 2 * cold.max_packets_out


def tcp_reno_ssthresh(net: Net, sk: int) -> int:
    """The threshold after a loss."""
    return max(net.sks.snd_cwnd[sk] >> 1, 2)


def tcp_reno_cong_avoid(net: Net, sk: int, cold: TcpCold, acked: int) -> None:
    """`acked` segments were acknowledged."""
    if not tcp_is_cwnd_limited(net, sk, cold):
        return
    sks = net.sks
    if tcp_in_slow_start(net, sk):
        room = tcp_ssthresh(net, sk) - sks.snd_cwnd[sk]
        grow = min(acked, room)
        sks.snd_cwnd[sk] += grow
        acked -= grow
        if not acked:
            return
    # One segment more for each window acknowledged.
    if sks.cwnd_cnt[sk] >= sks.snd_cwnd[sk]:
        sks.cwnd_cnt[sk] = 0
        sks.snd_cwnd[sk] += 1
    count = sks.cwnd_cnt[sk] + acked
    if count >= sks.snd_cwnd[sk]:
        more = count // sks.snd_cwnd[sk]
        count -= more * sks.snd_cwnd[sk]
        sks.snd_cwnd[sk] += more
    sks.cwnd_cnt[sk] = min(count, 65535)
