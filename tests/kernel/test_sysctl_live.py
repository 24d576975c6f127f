"""The live kernel judges fourtuple.sysctl: defaults, and what one write of each text answers and leaves behind."""

from __future__ import annotations

import errno
import os
from typing import Any

import pytest

from fourtuple.kernel_profile import LINUX_6_18
from fourtuple.sysctl import Sysctls
from fourtuple.sysctl_table import SYSCTLS as ALL_SYSCTLS
from fourtuple.sysctl_table import Sysctl
from tests.kernel.netns import in_namespace, needs_kernel

pytestmark = needs_kernel

SYSCTLS = [row for row in ALL_SYSCTLS if row.name not in LINUX_6_18.absent_sysctls]
BY_NAME = {row.name: row for row in SYSCTLS}

# Set by whoever configured the machine, not by the kernel.
MACHINE_CHOICE = {
    "net.ipv4.tcp_congestion_control",
    "net.ipv4.tcp_available_congestion_control",
    "net.ipv4.tcp_allowed_congestion_control",
}

TEXTS = [
    "", " ", "\n", "5", "5\n", " 5", "\t5", "\n5", "\r5", "\v5", "\f5", "5 ", "5 \n", "5x", "5 x", "5 6", "5,6",
    "5.0", "5;", "5\r", "5\0", "\0", "-5", "- 5", "--5", "-+5", "+5", "-0", "+0", "0", "1", "2", "3", "4", "007",
    "08", "0x1f", "0X1F", "0x", "0xg", "-0x5", "1e3", "x", "-", "0" * 20 + "5", "0" * 25 + "5", "1" * 21, "1" * 22,
    "1" * 30, " " * 30 + "5", "255", "256", "127", "128", "1000", "999", "60000", "60001", "65535", "65536", "120000",
    "120001", "8589934", "8589935", "17179869", "17179870", "2147483647", "2147483648", "4294967295", "4294967296",
    "-1", "-31", "-32", "-2147483648", "-2147483649", "9223372036854775807", "18446744073709551615",
    "18446744073709551616", "5 99999999999999999999999", " " * 4094 + "5", " " * 4095 + "5", "5" + " " * 5000,
    "5 7 9", "5 7 9 11", "5 7 9x", "5 7 x", "5 x 9", "5 0 9", "5 7 0", "5 99999999999", "9 7 5",
]  # fmt: skip
PORT_RANGES = [
    "40000", "40000 ", "40000 50000", "40000\t50000\n", "40000,50000", "40000 50000 60000", "40000 50000x",
    "40000 50000 x", "40000 x", "50000 40000", "0 1", "1 65535", "1024 65535", "1023 65535", "1024 65536", "-5 60000",
    "61000", "60999", "\n40000 50000", "40000\n50000", "32768 32768", "65535 65535", "0x8000 0x9000", "40000 -1",
    "65535", "65536",
]  # fmt: skip
PORT_STARTS = [
    "0", "80", "80 90", "32768", "32769", "65535", "65536", "-1", "80x",
]  # fmt: skip
PORT_LISTS = [
    "1,2,3", "1-3", "3-1", "1-3,2-9", "10,9", "65535", "65536", "0-65535", "1-", "1,", "1,,2", ",1", "1 ,2", "1, 2",
    "1 2", "1x", "1-3x", "1-65536", "0x10-0x20", "010", "5\n6", "5,\n6", "1-3-5", "1 - 3", "1-3\0", "1-3\n5-6",
    "1\n,2", "1,2\n\n", "\n\n5", "7,7", "5-5", "1--3", "1-3 ", "99999999999999999999", "8080,9148",
    "9148-9150,8080,9147", "1\r", "0,65535", "\0001",
]  # fmt: skip
CONGESTION = [
    "reno", "reno\n", " reno", "reno ", "RENO", "nosuch", "reno\0x", "reno\tx", "reno\nx", "x" * 15, "x" * 16, "",
]  # fmt: skip


def _path(name: str) -> str:
    return "/proc/sys/" + name.replace(".", "/")


def _write(path: str, text: str) -> int:
    try:
        with open(path, "wb", buffering=0) as file:
            file.write(text.encode())
    except OSError as e:
        return -(e.errno or 0)
    return 0


def _read(path: str) -> str:
    with open(path) as file:
        return file.read().removesuffix("\n")


def _kernel_defaults(names: list[str]) -> dict[str, str]:
    return {name: _read(_path(name)) for name in names if os.path.exists(_path(name))}


def _kernel_writes(name: str, base: str, texts: list[str]) -> list[list[Any]]:
    path, out = _path(name), []
    if name.endswith("congestion_control"):
        _write(_path(name), base)
    for text in texts:
        _write(path, base)
        out.append([_write(path, text), _read(path)])
    return out


def _our_writes(name: str, base: str, texts: list[str]) -> list[list[Any]]:
    sysctls, out = Sysctls(), []
    for text in texts:
        sysctls.set(name, base)
        out.append([sysctls.set(name, text), sysctls.get(name)])
    return out


def _texts(row: Sysctl) -> list[str]:
    bounds = [str(b + d) for b in (row.min, row.max) if b is not None for d in (-1, 0, 1)]
    special = {"port_range": PORT_RANGES, "port_start": PORT_STARTS, "ports": PORT_LISTS, "cc": CONGESTION}
    return special.get(row.kind, []) + (TEXTS + bounds if row.kind != "cc" else [])


def _difference(texts: list[str], kernel: list[list[Any]], ours: list[list[Any]]) -> list[str]:
    def said(answer: list[Any]) -> str:
        return f"{errno.errorcode.get(-answer[0], 'OK')} {answer[1]!r}"

    return [
        f"{t[:40]!r}: kernel {said(k)}, ours {said(o)}" for t, k, o in zip(texts, kernel, ours, strict=True) if k != o
    ]


def test_defaults_are_those_of_a_fresh_namespace() -> None:
    kernel = in_namespace(_kernel_defaults, [row.name for row in SYSCTLS])
    ours = Sysctls()
    left_out = MACHINE_CHOICE | {row.name for row in SYSCTLS if row.scaled_with_memory}
    assert {n: v for n, v in kernel.items() if n not in left_out} == {
        n: ours.get(n) for n in kernel if n not in left_out
    }


def _writable(name: str) -> bool:
    return os.path.exists(_path(name)) and bool(os.stat(_path(name)).st_mode & 0o200)


def _writable_in_namespace(names: list[str]) -> list[str]:
    return [name for name in names if _writable(name)]


# These exist, or can be written, in the initial namespace only; what is left is asked one by one.
INITIAL_NAMESPACE = {
    *("net.core.rmem_default", "net.core.rmem_max", "net.core.wmem_default", "net.core.wmem_max"),
    *("net.ipv4.tcp_allowed_congestion_control", "net.ipv4.tcp_available_congestion_control"),
    "net.ipv4.tcp_max_orphans",
}


def test_all_but_a_few_can_be_written_in_a_namespace() -> None:
    writable = in_namespace(_writable_in_namespace, [row.name for row in SYSCTLS])
    assert set(BY_NAME) - set(writable) == INITIAL_NAMESPACE


@pytest.mark.parametrize("name", sorted(set(BY_NAME) - INITIAL_NAMESPACE))
def test_a_write_answers_and_leaves_what_the_kernel_does(name: str) -> None:
    row = BY_NAME[name]
    texts, base = _texts(row), {"ports": "7", "cc": "reno"}.get(row.kind, row.default)
    kernel = in_namespace(_kernel_writes, name, base, texts)
    assert _difference(texts, kernel, _our_writes(name, base, texts)) == []


def test_a_name_that_does_not_exist_is_enoent() -> None:
    assert (
        in_namespace(_write, _path("net.ipv4.tcp_nosuch"), "1")
        == Sysctls().set("net.ipv4.tcp_nosuch", "1")
        == -errno.ENOENT
    )
