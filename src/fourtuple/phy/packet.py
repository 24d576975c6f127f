"""A packet socket (packet(7)) on one end of a veth pair: IPv4 packets behind an Ethernet header that never changes.

Lives here: opening the socket, and the device over its descriptor.  Does not live here: making the pair (veth.py).

Rules
1. Bound to one interface and to ETH_P_IP: the kernel shows what we send to sockets of ETH_P_ALL only, so none of our
   own packets comes back.
2. SOCK_RAW: a datagram packet socket wants an address with each packet, and plain write() has none.
"""

from __future__ import annotations

import errno
import os
import socket

from fourtuple.phy import io

TYPE_CHECKING = False
if TYPE_CHECKING:
    from array import array

    from _typeshed import ReadableBuffer, WriteableBuffer

# Locally administered addresses; the pair is alone on its wire, so they may be the same everywhere.
KERNEL_ADDRESS = bytes.fromhex("026674000001")
OUR_ADDRESS = bytes.fromhex("026674000002")
_ETH_P_IP = 0x0800
HEADER = KERNEL_ADDRESS + OUR_ADDRESS + _ETH_P_IP.to_bytes(2, "big")
"""Receiver, sender, type: what stands before each packet that we send."""
_RECEIVE_BUFFER = 8 << 20
_SO_RCVBUFFORCE, _SOL_PACKET, _PACKET_QDISC_BYPASS = 33, 263, 20

_HINTS = {
    errno.ENETDOWN: "the interface is down, or its namespace has ended",
    errno.ENXIO: "the interface was deleted",
    errno.EMSGSIZE: "the packet is larger than the mtu",
    errno.EBADF: "the device is closed",
}


def open_packet_fd(name: str) -> int:
    """A non-blocking packet socket on `name` of this network namespace, which is up; needs CAP_NET_RAW in it."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0) as opened:
        try:  # bursts must not overflow it; more than net.core.rmem_max takes CAP_NET_ADMIN of the machine
            opened.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER)
        except PermissionError:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        # The queue in front of a veth is switched on by a work queue, some time after the carrier is there: until then
        # it loses everything. It is of no use here anyway.
        opened.setsockopt(_SOL_PACKET, _PACKET_QDISC_BYPASS, 1)
        opened.bind((name, _ETH_P_IP))
        return opened.detach()


class PacketDevice:
    """A device over the descriptor of a packet socket, which it owns.  The interface may live in another namespace."""

    def __init__(self, fd: int, name: str, mtu: int) -> None:
        self._fd = fd
        self.name = name
        self.mtu = mtu
        self._down = False

    def fileno(self) -> int:
        """The descriptor; -1 once closed."""
        return self._fd

    def read_batch(self, ring: WriteableBuffer, offsets: array[int], lengths: array[int], max_packets: int) -> int:
        """See Device.read_batch."""
        n = io.read_packets(self._fd, ring, self.mtu + len(HEADER), offsets, lengths, max_packets, len(HEADER))
        if n > 0 or (n == 0 and not self._down):
            return n
        return self._fail(-n or errno.ENETDOWN, "read")

    def write_batch(self, buf: ReadableBuffer, offsets: array[int], lengths: array[int], n: int) -> int:
        """See Device.write_batch."""
        taken = io.write_packets(self._fd, buf, offsets, lengths, n, HEADER)
        return taken if taken >= 0 else self._fail(-taken, "write")

    def _fail(self, code: int, call: str) -> int:
        """net/packet/af_packet.c tells ENETDOWN to one reader once; every later one has to hear it too."""
        self._down = self._down or code == errno.ENETDOWN
        text = os.strerror(code).lower()
        raise OSError(code, f"{self.name}: {text} ({call}{': ' + _HINTS[code] if code in _HINTS else ''})")

    def close(self) -> None:
        """Close the descriptor.  Calling it again does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
