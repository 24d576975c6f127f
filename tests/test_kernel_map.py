"""The map of kernel functions: consistent, true of our code, and true of the kernel."""

from __future__ import annotations

import importlib
import platform
import struct
from pathlib import Path

import pytest

from fourtuple import kernel_map
from fourtuple.kernel_map import (
    BY_NUMBER,
    FN_SYS_CONNECT,
    FN_TCP_CONNECT,
    FUNCTIONS,
    KernelFunction,
    depth,
    version,
)
from fourtuple.sysctl import PROFILES

BTF = Path("/sys/kernel/btf/vmlinux")
BTF_KIND_FUNC = 12
# include/uapi/linux/btf.h: bytes that follow the 12 of a type, by kind: fixed, and for each of vlen members.
FIXED = {1: 4, 3: 12, 14: 4, 17: 4}
MEMBER = {4: 12, 5: 12, 6: 8, 13: 8, 15: 12, 19: 12}


def btf_functions() -> set[str]:
    """Names of all functions in the running kernel's BTF."""
    data = BTF.read_bytes()
    header, type_off, type_len, str_off = struct.unpack_from("<4xIIII", data)
    strings = header + str_off
    at, end = header + type_off, header + type_off + type_len
    names = set()
    while at < end:
        name, info = struct.unpack_from("<II", data, at)
        kind = info >> 24 & 31
        if kind == BTF_KIND_FUNC:
            names.add(data[strings + name : data.index(b"\0", strings + name)].decode())
        at += 12 + FIXED.get(kind, 0) + MEMBER.get(kind, 0) * (info & 0xFFFF)
    return names


def test_every_constant_has_one_entry_with_its_number() -> None:
    constants = {name: value for name, value in vars(kernel_map).items() if name.startswith("FN_")}
    assert sorted(constants.values()) == sorted(BY_NUMBER)
    assert len(FUNCTIONS) == len(BY_NUMBER) == len(constants)
    assert all(0 < number < 256 for number in BY_NUMBER)


def test_callers_lead_to_an_entry_point() -> None:
    assert depth(FN_SYS_CONNECT) == 0
    assert depth(FN_TCP_CONNECT) == 3
    assert all(caller in BY_NUMBER for entry in FUNCTIONS for caller in entry.callers)
    assert max(depth(entry.fn) for entry in FUNCTIONS) < 9


@pytest.mark.parametrize("entry", FUNCTIONS, ids=lambda entry: entry.name)
def test_the_map_names_a_function_of_ours(entry: KernelFunction) -> None:
    module, _, function = entry.ours.partition(":")
    assert callable(getattr(importlib.import_module(f"fourtuple.{module}"), function))


# Which function did the job in which kernel: what a profile of it must print.
NAMES = {
    "2.6.32": {
        "sys_connect", "sockfd_lookup_light", "secure_tcp_sequence_number", "inet_csk_reset_xmit_timer",
        "tcp_rcv_synsent_state_process", "tcp_v4_conn_request", "sys_bind",
    },
    "3.10": {
        "sys_connect", "sockfd_lookup_light", "secure_tcp_sequence_number", "inet_csk_reset_xmit_timer",
        "tcp_finish_connect", "tcp_v4_conn_request", "sys_bind",
    },
    "4.2": {
        "sys_connect", "sockfd_lookup_light", "secure_tcp_sequence_number", "inet_csk_reset_xmit_timer",
        "tcp_finish_connect", "tcp_conn_request", "sys_bind",
    },
    "5.18": {
        "__sys_connect", "sock_from_file", "secure_tcp_seq", "inet_csk_reset_xmit_timer",
        "tcp_finish_connect", "tcp_conn_request", "__sys_bind",
    },
    "6.18": {
        "__sys_connect", "sock_from_file", "secure_tcp_seq_and_ts_off", "tcp_reset_xmit_timer",
        "tcp_finish_connect", "tcp_conn_request", "__sys_bind",
    },
}  # fmt: skip
NAMES |= {"4.6": NAMES["4.2"], "6.3": NAMES["5.18"], "6.5": NAMES["5.18"], "7.1": NAMES["6.18"]}


@pytest.mark.parametrize("profile", NAMES)
def test_names_follow_the_profile(profile: str) -> None:
    changed = [entry for entry in FUNCTIONS if entry.formers]
    assert {entry.name_in(profile) for entry in changed} == NAMES[profile]


def test_no_profile_is_without_names() -> None:
    assert set(PROFILES) <= set(NAMES)


def test_former_names_are_in_order_and_have_a_source() -> None:
    for entry in FUNCTIONS:
        ends = [version(former.before) for former in entry.formers]
        assert ends == sorted(set(ends))
        assert all(end <= version("6.18") for end in ends)
        assert all(former.source and former.name != entry.name for former in entry.formers)


RELEASE = platform.release()


@pytest.mark.xfail(
    not RELEASE.startswith("6.18.") or not BTF.exists(),
    reason=f"the names claimed are those of Linux 6.18; this is {RELEASE}, or it has no BTF",
    run=False,
)
@pytest.mark.parametrize("entry", FUNCTIONS, ids=lambda entry: entry.name)
def test_the_names_are_those_of_the_running_kernel(entry: KernelFunction, symbols: set[str]) -> None:
    """What the compiler of this kernel inlined is marked so, everything else is a function in it."""
    assert (entry.name in symbols) == (not entry.inlined)


@pytest.fixture(scope="module")
def symbols() -> set[str]:
    """Every function of the running kernel, by its BTF and its symbol table."""
    return btf_functions() | {line.split()[2] for line in Path("/proc/kallsyms").read_text().splitlines()}


def test_the_nearest_older_names_serve_a_version_that_is_no_profile() -> None:
    entry = next(entry for entry in FUNCTIONS if entry.name == "sock_from_file")
    assert [entry.name_in(name) for name in ("2.6.12", "5.4", "5.5", "8.0")] == [
        "sockfd_lookup_light",
        "sockfd_lookup_light",
        "sock_from_file",
        "sock_from_file",
    ]
