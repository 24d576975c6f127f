"""The schedule of SYNs that the engine gives, against the kernel's (catalogue RTX) and its history."""

from __future__ import annotations

import errno

import pytest

from fourtuple.sim.syn_schedule import syn_schedule
from fourtuple.sysctl import PROFILES

S = 1_000_000
RETRIES, LINEAR = "net.ipv4.tcp_syn_retries", "net.ipv4.tcp_syn_linear_timeouts"

# Seconds at which SYNs leave, and the end.  TCP_TIMEOUT_INIT is 3 s before 3.1 (9ad7c049f0f7).  Five retries of it
# would take 189 s, but 2.6.32 reckons the time they stand for from 0.2 s, as that of data, and gives up at the first
# timer after 12.6 s (net/ipv4/tcp_timer.c:tcp_write_timeout; mended by 4d22f7d372f5 in 2.6.36).  The linear phase came
# with ccce324dabfe in 6.5.
OLDEST = ([0, 3, 9], 21)
DOUBLING = ([0, 1, 3, 7, 15, 31, 63], 127)
LINEAR_FIRST = ([0, 1, 2, 3, 4, 5, 7, 11, 19, 35, 67], 131)
BY_PROFILE = {
    "2.6.32": OLDEST,
    "3.10": DOUBLING,
    "4.2": DOUBLING,
    "4.6": DOUBLING,
    "5.18": DOUBLING,
    "6.3": DOUBLING,
    "6.5": LINEAR_FIRST,
    "6.18": LINEAR_FIRST,
    "7.1": LINEAR_FIRST,
}


@pytest.mark.parametrize("profile", BY_PROFILE)
def test_each_kernel_has_its_schedule(profile: str) -> None:
    schedule = syn_schedule(profile)
    sent, end = BY_PROFILE[profile]
    assert [us / S for us in schedule.sent_us] == sent
    assert (schedule.end_us / S, schedule.errno) == (end, errno.ETIMEDOUT)


def test_no_profile_is_left_out() -> None:
    assert set(PROFILES) == set(BY_PROFILE)


def test_an_old_kernel_minds_the_user_timeout_only_once_connected() -> None:
    assert syn_schedule("3.10", user_timeout_ms=5_000).end_us == 127 * S
    assert syn_schedule("5.18", user_timeout_ms=5_000).end_us == 5 * S
    with pytest.raises(OSError) as caught:
        syn_schedule("2.6.32", user_timeout_ms=5_000)
    assert caught.value.errno == errno.ENOPROTOOPT


def test_each_gap_has_the_rule_that_set_it() -> None:
    schedule = syn_schedule()
    assert [gap // S for gap in schedule.gaps_us] == [1, 1, 1, 1, 1, 2, 4, 8, 16, 32, 64]
    assert schedule.rules == ("first", *["linear"] * 4, *["doubled"] * 6)
    assert schedule.ended_by == "retries"


def test_the_timeout_is_cut_at_120_s() -> None:
    schedule = syn_schedule(sysctls={RETRIES: "127", LINEAR: "127"})
    # 254 retries are allowed, but 127 of them with doubling take 127 s + 121 * 120 s, which is over first.
    assert (len(schedule.sent_us), schedule.ended_by) == (254, "budget")
    assert schedule.end_us - 120 * S < (127 + 121 * 120) * S <= schedule.end_us
    assert schedule.rules[-1] == "capped"
    assert set(schedule.gaps_us) == {n * S for n in (1, 2, 4, 8, 16, 32, 64, 120)}


def test_one_retry_ends_with_the_time_that_it_stands_for() -> None:
    schedule = syn_schedule(sysctls={RETRIES: "1"})
    assert ([us // S for us in schedule.sent_us], schedule.end_us // S) == ([0, 1, 2], 3)
    assert schedule.ended_by == "budget"


@pytest.mark.parametrize(
    ("timeout_ms", "sent", "end_us"),
    [(10_000, [0, 1, 2, 3, 4, 5, 7], 10 * S), (1_500, [0, 1], 1_500_000), (500, [0, 1], 1_001_000)],
)
def test_user_timeout_ends_it(timeout_ms: int, sent: list[int], end_us: int) -> None:
    schedule = syn_schedule(user_timeout_ms=timeout_ms)
    assert ([us // S for us in schedule.sent_us], schedule.end_us) == (sent, end_us)
    assert (schedule.rules[-1], schedule.ended_by) == ("user_timeout", "user_timeout")


def test_syncnt_stands_for_tcp_syn_retries() -> None:
    schedule = syn_schedule(sysctls={LINEAR: "0"}, syncnt=2)
    assert ([us // S for us in schedule.sent_us], schedule.end_us // S) == ([0, 1, 3], 7)


def test_what_linux_refuses_is_an_error() -> None:
    for wrong in ({"sysctls": {RETRIES: "128"}}, {"syncnt": 128}, {"user_timeout_ms": 1 << 31}):
        with pytest.raises(OSError) as caught:
            syn_schedule(**wrong)  # type: ignore[arg-type]
        assert caught.value.errno == errno.EINVAL
    with pytest.raises(ValueError, match="no kernel profile"):
        syn_schedule("0.01")
