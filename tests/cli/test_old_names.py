"""A trace under an old profile has the names that that kernel had."""

from __future__ import annotations

import pytest

from fourtuple.cli.attempt import Request, run_attempt
from fourtuple.cli.steps import Names, describe
from fourtuple.shell.wires import PEER_ADDRESS, Setup, open_sim


@pytest.mark.parametrize(
    ("profile", "first", "isn", "timer", "end"),
    [
        (
            "2.6.32",
            ["sys_connect", "sockfd_lookup_light", "inet_stream_connect", "tcp_v4_connect"],
            "secure_tcp_sequence_number",
            "inet_csk_reset_xmit_timer",
            "tcp_rcv_synsent_state_process",
        ),
        (
            "5.18",
            ["__sys_connect", "sock_from_file", "inet_stream_connect", "tcp_v4_connect"],
            "secure_tcp_seq",
            "inet_csk_reset_xmit_timer",
            "tcp_finish_connect",
        ),
    ],
)
def test_the_steps_have_the_names_of_the_profile(
    profile: str, first: list[str], isn: str, timer: str, end: str
) -> None:
    with open_sim(Setup()) as wire:
        attempt = run_attempt(wire, Request(PEER_ADDRESS, 8080))
    steps = describe(attempt.records, Names({}, profile=profile), virtual=True, verbose=True)
    names = [step.name for step in steps]
    assert names[:4] == first
    assert names[names.index("tcp_connect") - 1] == isn
    assert names[names.index("inet_wait_for_connect") - 1] == timer
    finished = next(step for step in steps if step.text.startswith("mss 1448"))
    assert finished.name == end
