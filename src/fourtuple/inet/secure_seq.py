"""The keyed hashes behind the first port, the initial sequence number and the timestamp offset (net/core/secure_seq.c).

Rules: the keys are the Machine's boot secrets and come in as arguments, as does the time; nothing here knows a network
namespace, so equal addresses in two of them give equal values (PORT-48).
"""

from __future__ import annotations

from fourtuple.inet.siphash import siphash_3u32, siphash_4u32

EPHEMERAL_EPOCH_US = 10_000_000  # secure_seq.c EPHEMERAL_PORT_SHUFFLE_PERIOD; for older kernels the caller scales time

_EPOCH_US = EPHEMERAL_EPOCH_US
_M32 = 0xFFFFFFFF


def secure_ipv4_port_ephemeral(saddr: int, daddr: int, dport: int, now_us: int, k0: int, k1: int) -> int:
    """Where the port search to (daddr, dport) starts, before table_perturb; re-hashed every 10 s (PORT-41)."""
    return siphash_4u32(saddr, daddr, dport, now_us // _EPOCH_US, k0, k1)


def secure_tcp_seq_and_ts_off(saddr: int, daddr: int, sport: int, dport: int, k0: int, k1: int) -> int:
    """One hash of the 4-tuple: low 32 bits the base of the ISN, high 32 bits the timestamp offset (SYN-19)."""
    return siphash_3u32(saddr, daddr, sport << 16 | dport, k0, k1)


def secure_tcp_ts_off(saddr: int, daddr: int, k0: int, k1: int) -> int:
    """Timestamp offset of a pair of addresses: what all their connections share where it is not of the 4-tuple."""
    return siphash_3u32(daddr, saddr, 0, k0, k1) & _M32


def seq_scale(base: int, now_us: int) -> int:
    """The ISN at `now_us`: the base plus one for each 64 ns (SYN-18; RFC 6528)."""
    wide = base
    wide += now_us * 1000 >> 6
    return wide & _M32
