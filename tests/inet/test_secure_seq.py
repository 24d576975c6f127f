"""First port, initial sequence number and timestamp offset from a 4-tuple."""

from __future__ import annotations

import struct

from fourtuple.inet.secure_seq import secure_ipv4_port_ephemeral, secure_tcp_seq_and_ts_off, seq_scale
from fourtuple.inet.siphash import siphash

A, B, K0, K1 = 0x0A000001, 0x0A000002, 0x0123456789ABCDEF, 0xFEDCBA9876543210
SECOND = 1_000_000


def test_the_port_hash_is_siphash_of_the_destination_and_the_epoch() -> None:
    expected = siphash(struct.pack("<4I", A, B, 443, 12), K0, K1)
    assert secure_ipv4_port_ephemeral(A, B, 443, 125 * SECOND, K0, K1) == expected


def test_all_destinations_rehash_together_every_ten_seconds() -> None:
    def starts(now_us: int) -> list[int]:
        return [secure_ipv4_port_ephemeral(A, B, port, now_us, K0, K1) for port in range(1, 20)]

    first, last, following = starts(0), starts(10 * SECOND - 1), starts(10 * SECOND)
    assert first == last
    assert all(old != new for old, new in zip(last, following, strict=True))


def test_each_destination_has_its_own_start() -> None:
    assert len({secure_ipv4_port_ephemeral(A, B, port, 0, K0, K1) for port in range(1, 17)}) == 16


def test_sequence_base_and_timestamp_offset_come_from_one_hash_of_the_4_tuple() -> None:
    expected = siphash(struct.pack("<3I", A, B, 0x9C40 << 16 | 80), K0, K1)
    assert secure_tcp_seq_and_ts_off(A, B, 0x9C40, 80, K0, K1) == expected


def test_port_65535_does_not_reach_into_the_sign_bit() -> None:
    expected = siphash(struct.pack("<3I", A, B, 0xFFFFFFFF), K0, K1)
    assert secure_tcp_seq_and_ts_off(A, B, 65535, 65535, K0, K1) == expected


def test_the_isn_grows_by_one_each_64_ns() -> None:
    assert seq_scale(1000, 8) == 1000 + 125
    assert seq_scale(0, SECOND) == 15_625_000


def test_the_isn_wraps_after_274_seconds() -> None:
    assert seq_scale(0xFFFFFFFF, 8) == 124
    assert [seq_scale(0, now_us) for now_us in (274_877_906, 274_877_907)] == [2**32 - 15, 0]
    assert seq_scale(5, 2**53) == (5 + (2**53 * 1000 >> 6)) % 2**32
