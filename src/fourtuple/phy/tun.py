"""TUN: packets of a kernel interface as reads and writes of a descriptor (kernel: drivers/net/tun.c).

Lives here: opening a TUN interface with errors that say what to do, and the device over its descriptor.
Does not live here: addresses, routes, up and down (link.py); the private namespace (shell/netns.py).
The interface is not persistent: it disappears with the last descriptor.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct

from fourtuple.phy import io, link

TYPE_CHECKING = False
if TYPE_CHECKING:
    from array import array

    from _typeshed import ReadableBuffer, WriteableBuffer

PATH = "/dev/net/tun"
VNET_HDR_LEN = 10
"""sizeof(struct virtio_net_hdr), linux/virtio_net.h; the default of TUNSETVNETHDRSZ."""
# linux/if_tun.h
_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_NO_PI, _IFF_VNET_HDR = 0x0001, 0x1000, 0x4000

_OPEN_HINTS = {
    errno.EACCES: "open: this user may not; sudo chmod 0666 /dev/net/tun lets everybody, it grants no capability",
    errno.EPERM: "open: the container's device list forbids it; docker run --device /dev/net/tun",
    errno.ENOENT: "open: no TUN driver here; sudo modprobe tun, or docker run --device /dev/net/tun",
    errno.ENODEV: "open: no TUN driver here; sudo modprobe tun",
    errno.ENXIO: "open: no TUN driver here; sudo modprobe tun",
}
_SETIFF_HINTS = {
    errno.EPERM: "TUNSETIFF needs CAP_NET_ADMIN; run with sudo, or in a private namespace",
    errno.EBUSY: "TUNSETIFF: the interface is open in another process; choose another name",
    errno.EINVAL: "TUNSETIFF: an interface of that name is there and is not a TUN of this kind; choose another name",
}


def _reason(subject: str, code: int, hints: dict[int, str], call: str) -> OSError:
    text = "permission denied" if code in (errno.EPERM, errno.EACCES) else os.strerror(code).lower()
    return OSError(code, f"{subject}: {text} ({hints.get(code, call)})")


def open_tun_fd(name: str, vnet_hdr: bool = False) -> int:
    """A non-blocking descriptor of the TUN interface `name`, made in the current network namespace if absent.

    Raises OSError with the errno of open() or TUNSETIFF and one line that names the call and what to do.
    """
    if not 0 < len(name.encode()) < 16:
        raise ValueError(f"an interface name has 1 to 15 bytes: {name!r}")
    fd = open_node()
    try:
        attach(fd, name, vnet_hdr)
    except OSError:
        os.close(fd)
        raise
    return fd


def open_node() -> int:
    """The first half of open_tun_fd(): the device node, which is no interface yet."""
    try:
        return os.open(PATH, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _reason(PATH, error.errno or errno.EIO, _OPEN_HINTS, "open") from None


def attach(fd: int, name: str, vnet_hdr: bool = False) -> None:
    """The second half: TUNSETIFF, which decides the network namespace."""
    flags = _IFF_TUN | _IFF_NO_PI | (_IFF_VNET_HDR if vnet_hdr else 0)
    try:
        fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
    except OSError as error:
        subject = PATH if error.errno == errno.EPERM else name
        raise _reason(subject, error.errno or errno.EIO, _SETIFF_HINTS, "TUNSETIFF") from None


class TunDevice:
    """A device over the descriptor of a TUN interface, which it owns.

    The interface may live in another namespace: the descriptor is all that is used. With `vnet_hdr` each packet
    travels behind a virtio_net_hdr; it is skipped when reading and zero when writing.
    """

    def __init__(self, fd: int, name: str, mtu: int, vnet_hdr: bool = False) -> None:
        self._fd = fd
        self.name = name
        self.mtu = mtu
        # Of zeros: no checksum left to do, no segmentation.
        self._header = bytes(VNET_HDR_LEN if vnet_hdr else 0)
        self._slot_size = mtu + len(self._header)

    def fileno(self) -> int:
        """The descriptor; -1 once closed."""
        return self._fd

    def read_batch(self, ring: WriteableBuffer, offsets: array[int], lengths: array[int], max_packets: int) -> int:
        """See Device.read_batch."""
        n = io.read_packets(self._fd, ring, self._slot_size, offsets, lengths, max_packets, len(self._header))
        return n if n >= 0 else self._fail(-n, "read")

    def write_batch(self, buf: ReadableBuffer, offsets: array[int], lengths: array[int], n: int) -> int:
        """See Device.write_batch."""
        taken = io.write_packets(self._fd, buf, offsets, lengths, n, self._header)
        return taken if taken >= 0 else self._fail(-taken, "write")

    def _fail(self, code: int, call: str) -> int:
        """drivers/net/tun.c: EIO when the interface is down, EBADFD when it was deleted, EINVAL for a bad packet."""
        hints = {
            errno.EIO: f"{call}: the interface is down",
            errno.EBADFD: f"{call}: the interface was deleted",
            errno.EINVAL: f"{call}: not an IP packet",
            errno.EBADF: f"{call}: the device is closed",
        }
        raise _reason(self.name, code, hints, call)

    def close(self) -> None:
        """Close the descriptor; a TUN interface goes with its last one."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def open_tun(name: str, mtu: int = 1500, vnet_hdr: bool = False) -> TunDevice:
    """Open (or make) the TUN interface `name` of the current network namespace and set its mtu.

    It is left down and without an address (link.set_up, link.add_address). Raises OSError, see open_tun_fd().
    """
    fd = open_tun_fd(name, vnet_hdr)
    try:
        link.set_mtu(name, mtu)
    except BaseException:
        os.close(fd)
        raise
    return TunDevice(fd, name, mtu, vnet_hdr)
