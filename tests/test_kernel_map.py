"""The map of kernel functions: consistent, true of our code, and true of the kernel."""

from __future__ import annotations

import importlib
import platform
import struct
from pathlib import Path

import pytest

from fourtuple import kernel_map
from fourtuple.kernel_map import BY_NUMBER, FN_SYS_CONNECT, FN_TCP_CONNECT, FUNCTIONS, KernelFunction, depth

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


def test_names_follow_the_profile() -> None:
    entry = next(entry for entry in FUNCTIONS if entry.name == "sockfd_lookup")
    assert entry.name_in("6.18") == "sockfd_lookup"
    assert entry.name_in("3.10") == "sockfd_lookup_light"


@pytest.mark.skipif(
    not platform.release().startswith("6.18.") or not BTF.exists(), reason="asks the BTF of a running Linux 6.18"
)
def test_the_names_are_those_of_the_running_kernel() -> None:
    """A static function is inlined or not as this kernel's compiler chose; every other name must be there."""
    known = btf_functions()
    missing = [entry.name for entry in FUNCTIONS if not entry.inlined and entry.name not in known]
    assert missing == []
