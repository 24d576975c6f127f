"""TUN on the live kernel: a child process in a network namespace of its own does it, and reports."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from pathlib import Path

import pytest

from fourtuple.phy import link, tun
from tests.kernel.netns import in_namespace
from tests.phy.packets import ipv4, receive, send

needs_tun = pytest.mark.skipif(os.geteuid() != 0 or not os.path.exists(tun.PATH), reason="needs root and /dev/net/tun")


def icmp_echo() -> bytes:
    return ipv4("10.64.0.2", "10.64.0.1", 1, b"\x08\x00\xf7\xff\x00\x00\x00\x00")


def ping_through_tun(vnet_hdr: bool) -> list[object]:
    device = tun.open_tun("ft7", mtu=1400, vnet_hdr=vnet_hdr)
    link.set_txqueuelen("ft7", 123)
    link.set_up("ft7")
    link.add_address("ft7", "10.64.0.1/24")
    facts: list[object] = [link.get_mtu("ft7"), send(device, icmp_echo(), icmp_echo())]
    replies = [packet for packet in receive(device) if packet[9] == 1]
    facts.append([(packet[20], len(packet)) for packet in replies])
    device.close()
    device.close()
    return [*facts, device.fileno()]


@needs_tun
@pytest.mark.parametrize("vnet_hdr", [False, True])
def test_the_kernel_answers_a_ping_written_to_the_tun(vnet_hdr: bool) -> None:
    assert in_namespace(ping_through_tun, vnet_hdr) == [1400, 2, [[0, 28], [0, 28]], -1]


def error_of(action: str) -> list[object]:
    device = tun.open_tun("ft7")
    try:
        if action == "write while down":
            send(device, icmp_echo())
        elif action == "garbage":
            link.set_up("ft7")
            send(device, b"\0garbage")
        elif action == "second open":
            tun.open_tun("ft7")
        elif action == "not a tun":
            tun.open_tun("lo")
        elif action == "closed":
            device.close()
            receive(device)
        elif action == "address twice":
            link.add_address("ft7", "10.0.0.1/8")
            link.add_address("ft7", "10.0.0.1/8")
    except OSError as error:
        return [error.errno, error.strerror]
    return [0, "no error"]


@needs_tun
@pytest.mark.parametrize(
    ("action", "code", "text"),
    [
        ("write while down", errno.EIO, "ft7: input/output error (write: the interface is down)"),
        ("garbage", errno.EINVAL, "ft7: invalid argument (write: not an IP packet)"),
        ("second open", errno.EBUSY, "ft7: device or resource busy (TUNSETIFF: the interface is open in another"),
        ("not a tun", errno.EINVAL, "lo: invalid argument (TUNSETIFF: an interface of that name is there"),
        ("closed", errno.EBADF, "ft7: bad file descriptor (read: the device is closed)"),
        ("address twice", errno.EEXIST, "add address 10.0.0.1/8 to ft7: File exists (rtnetlink)"),
    ],
)
def test_an_error_names_the_call_and_what_to_do(action: str, code: int, text: str) -> None:
    got_code, got_text = in_namespace(error_of, action)
    assert got_code == code
    assert got_text.startswith(text)


def test_a_missing_driver_is_told_with_the_command_that_loads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tun, "PATH", str(tmp_path / "tun"))
    with pytest.raises(FileNotFoundError, match=r"no such file or directory \(open: no TUN driver here; sudo modprobe"):
        tun.open_tun_fd("ft0")


def setiff_without_capabilities() -> list[object]:
    libc = ctypes.CDLL(None, use_errno=True)
    header, none = struct.pack("Ii", 0x20080522, 0), bytes(24)  # _LINUX_CAPABILITY_VERSION_3; no capability at all
    assert libc.capset(header, none) == 0
    try:
        tun.open_tun_fd("ft7")
    except OSError as error:
        return [error.errno, error.strerror]
    return [0, "no error"]


@needs_tun
def test_tunsetiff_without_privilege_says_which_one_it_needs() -> None:
    assert in_namespace(setiff_without_capabilities) == [
        errno.EPERM,
        "/dev/net/tun: permission denied (TUNSETIFF needs CAP_NET_ADMIN; run with sudo, or in a private namespace)",
    ]


def open_as_nobody(path: str) -> list[object]:
    tun.PATH = path
    os.seteuid(65534)
    try:
        tun.open_tun_fd("ft7")
    except OSError as error:
        return [error.errno, error.strerror]
    return [0, "no error"]


@needs_tun
def test_a_device_file_that_may_not_be_opened_says_so(tmp_path: Path) -> None:
    path = tmp_path / "tun"
    path.touch(mode=0)
    code, text = in_namespace(open_as_nobody, str(path))
    assert code == errno.EACCES
    assert text.startswith(f"{path}: permission denied (open: this user may not; sudo chmod 0666 /dev/net/tun")


@pytest.mark.parametrize("name", ["", "sixteen-bytes-xx"])
def test_a_name_that_no_interface_can_have_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="1 to 15 bytes"):
        tun.open_tun_fd(name)


@pytest.mark.parametrize("address", ["10.0.0.1/33", "10.0.0/8", "::1/129", "x", "10.0.0.1/x"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="not an address"):
        link.add_address("lo", address)
