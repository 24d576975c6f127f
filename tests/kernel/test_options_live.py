"""The live kernel judges sock/options.py: what setting each value answers, and what reading gives afterwards."""

from __future__ import annotations

import errno
import socket
import struct

import pytest

from fourtuple.host import Host
from tests.kernel.netns import in_namespace, needs_kernel

pytestmark = needs_kernel

SOL_SOCKET, IPPROTO_IP, IPPROTO_TCP = 1, 0, 6
VALUES = (
    -(2**31), -2, -1, 0, 1, 2, 3, 5, 6, 7, 8, 16, 48, 87, 88, 127, 128, 255, 256, 999, 1000, 1152, 4096, 32767, 32768,
    65535, 120_000, 120_001, 1 << 20, 2**31 - 1,
)  # fmt: skip
LENGTHS = (b"", b"\x01", b"\x01\0", b"\x01\0\0", b"\x01\0\0\0\0")

# Options that need other means than numbers, or that a client stack has not: filters, packet sockets, Unix credentials,
# device polling, timestamps of packets, AO keys, multicast, IPsec.
NOT_HERE = {
    SOL_SOCKET: {26, 27, 37, 47, 50, 51, 52, 53, 54, 56, 59, 61, 65, 68, 70, 71, 73, 76, 77, 80, 83}
    | {34, 48, 57, 62},  # ... a serial number, an index that need not exist
    IPPROTO_IP: {4, 9, 16, 17, 22, 25, 32, 33, 34, 49, 50},
    # AO, TX queue delays, and what only shows the machine: RTO_MIN_US, DELACK_MAX_US, TIMESTAMP
    IPPROTO_TCP: {11, 13, 20, 21, 22, 24, 26, 29, 33, 35, 45, 46},
}
NAMES = {
    SOL_SOCKET: [n for n in range(1, 84) if n not in NOT_HERE[SOL_SOCKET]],
    IPPROTO_IP: [n for n in (*range(1, 28), 50, 51, 52) if n not in NOT_HERE[IPPROTO_IP]],
    IPPROTO_TCP: [n for n in range(1, 48) if n not in NOT_HERE[IPPROTO_TCP]],
}


def kernel_answers(level, name):
    """What a fresh kernel socket answers: for each value the errno of setting it, then what is read."""
    answers = []
    for value in (None, *(struct.pack("=i", v) for v in VALUES), *LENGTHS):
        with socket.socket() as s:
            error = 0
            try:
                if value is not None:
                    s.setsockopt(level, name, value)
            except OSError as e:
                error = e.errno
            try:
                answers.append([error, s.getsockopt(level, name, 64).hex()])
            except OSError as e:
                answers.append([error, -e.errno])
    return answers


def all_kernel_answers(level):
    return {str(name): kernel_answers(level, name) for name in NAMES[level]}


def our_answers(level, name):
    host = Host()
    answers = []
    for value in (None, *(struct.pack("=i", v) for v in VALUES), *LENGTHS):
        fd = host.sys_socket()
        error = 0 if value is None else -host.sys_setsockopt(fd, level, name, value)
        shown = host.sys_getsockopt(fd, level, name, 64)
        answers.append([error, shown if isinstance(shown, int) else shown.hex()])
        host.sys_close(fd)
    return answers


@pytest.fixture(scope="module")
def kernel():
    return {level: in_namespace(all_kernel_answers, level) for level in NAMES}


@pytest.mark.parametrize(("level", "name"), [(level, name) for level, names in NAMES.items() for name in names])
def test_option_answers_as_the_kernel(kernel, level, name):
    labels = ["default", *map(str, VALUES), *map(repr, LENGTHS)]
    theirs, ours = kernel[level][str(name)], our_answers(level, name)
    differences = {
        label: f"kernel {errno.errorcode.get(k[0], k[0])} {k[1]}, ours {errno.errorcode.get(o[0], o[0])} {o[1]}"
        for label, k, o in zip(labels, theirs, ours, strict=True)
        if k != o
    }
    assert not differences
