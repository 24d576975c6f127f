"""BootSecrets: what the kernel draws once per boot and all network namespaces share, and its randomness.

The port search and the ISN are keyed with it (net/core/secure_seq.c), and table_perturb is one table for the machine
(PORT-48).  Same seed, same secrets, same random numbers: nothing here looks at a clock or at the system's entropy.
Random numbers are SipHash-2-4 of a counter, so that ports and ids stay unpredictable for who does not know the seed.
"""

from __future__ import annotations

from fourtuple.columns import allocate_columns
from fourtuple.inet.siphash import siphash_1u64

_M32 = 0xFFFFFFFF
_M64 = 0xFFFFFFFFFFFFFFFF

# INET_TABLE_PERTURB_SIZE, net/ipv4/inet_hashtables.c since 5.18: 65,536 entries of 32 bits.
TABLE_PERTURB_SIZE = 1 << 16


class BootSecrets:
    """Keys and counters of one machine, all derived from `seed` (any non-negative int)."""

    __slots__ = (
        "port_k0", "port_k1", "seq_k0", "seq_k1", "random_k0", "random_k1", "random_counter", "random_bytes",
        "random_left", "ehash_secret", "table_perturb", "connect_hint",
    )  # fmt: skip

    def __init__(self, seed: int) -> None:
        k0 = seed & _M64
        k1 = (seed >> 64) & _M64
        self.port_k0 = siphash_1u64(1, k0, k1)
        self.port_k1 = siphash_1u64(2, k0, k1)
        self.seq_k0 = siphash_1u64(3, k0, k1)
        self.seq_k1 = siphash_1u64(4, k0, k1)
        self.random_k0 = siphash_1u64(5, k0, k1)
        self.random_k1 = siphash_1u64(6, k0, k1)
        self.ehash_secret = siphash_1u64(7, k0, k1) & _M32
        self.random_counter = 0
        self.random_bytes = 0
        self.random_left = 0
        self.connect_hint = 0  # before 5.12 one counter stands where table_perturb does now
        self.table_perturb = allocate_columns((("perturb", "I"),), TABLE_PERTURB_SIZE)["perturb"]


def get_random_u64(secrets: BootSecrets) -> int:
    """64 random bits."""
    secrets.random_counter += 1
    return siphash_1u64(secrets.random_counter, secrets.random_k0, secrets.random_k1)


def get_random_u32(secrets: BootSecrets) -> int:
    """32 random bits."""
    return get_random_u64(secrets) & _M32


def get_random_u8(secrets: BootSecrets) -> int:
    """8 random bits; one hash gives eight of them, as the kernel draws them from a batch."""
    if secrets.random_left == 0:
        secrets.random_bytes = get_random_u64(secrets)
        secrets.random_left = 8
    value = secrets.random_bytes & 0xFF
    secrets.random_bytes >>= 8
    secrets.random_left -= 1
    return value


def get_random_u32_below(secrets: BootSecrets, ceiling: int) -> int:
    """0 <= result < ceiling, by Lemire's multiplication; of 8 bits where these are divided evenly."""
    if ceiling <= 256 and ceiling & (ceiling - 1) == 0:
        return get_random_u8(secrets) * ceiling >> 8
    wide = get_random_u64(secrets) & _M32
    return wide * ceiling >> 32


def perturb_start(secrets: BootSecrets, index: int) -> int:
    """table_perturb[index]; the kernel fills the table with random bits on first use, here each entry on its own."""
    value = secrets.table_perturb[index]
    if value == 0:
        value = (siphash_1u64(index, secrets.random_k1, secrets.random_k0) & _M32) | 1
        secrets.table_perturb[index] = value
    return value
