"""Batches of packets through one descriptor: the compiled loops of _io.pyx, or their Python twins with equal results.

Lives here: the choice between the two, made once at import, and the twins.
Does not live here: opening anything, exceptions for device errors (they are negative return values here).
"""

from __future__ import annotations

import errno
import os

__all__ = ["ALIGN", "COMPILED", "HEADROOM", "py_read_packets", "py_write_packets", "read_packets", "write_packets"]

TYPE_CHECKING = False  # typing is not imported: the namespace helper loads this module and has to start fast
if TYPE_CHECKING:
    from array import array

    from _typeshed import ReadableBuffer, WriteableBuffer

ALIGN = 16
"""Packets in a ring start at multiples of this, so that header fields are aligned and small packets stay close."""
HEADROOM = 16
"""Bytes that a ring needs beyond the mtu: the device may put a virtio_net_hdr (10 or 12 bytes) before the packet."""
_FULL = (errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM)


def _check_arrays(offsets: array[int], lengths: array[int], n: int) -> None:
    if offsets.itemsize != 4 or lengths.itemsize != 4:
        raise ValueError("offsets and lengths must be array('I')")
    if len(offsets) < n or len(lengths) < n:
        raise ValueError("offsets and lengths are shorter than the batch")


def py_read_packets(
    fd: int,
    buf: WriteableBuffer,
    slot_size: int,
    offsets: array[int],
    lengths: array[int],
    max_packets: int,
    header_len: int,
) -> int:
    """Read up to `max_packets` packets from `fd`, packed into `buf`; return how many, or -errno if the first fails.

    `slot_size` is the room that the largest packet needs, its header of `header_len` bytes (virtio_net_hdr, Ethernet)
    included: reading ends when less is left. offsets[i] points behind it. "Nothing to read" (EAGAIN) and end of file
    are 0.
    """
    _check_arrays(offsets, lengths, max_packets)
    view = memoryview(buf).cast("B")
    if not 0 < slot_size <= len(view):
        raise ValueError("the buffer has no room for one packet")
    count = position = 0
    while count < max_packets and position + slot_size <= len(view):
        try:
            got = os.readv(fd, [view[position : position + slot_size]])
        except OSError as error:
            return count if count or error.errno == errno.EAGAIN else -(error.errno or errno.EIO)
        if got <= header_len:
            break
        offsets[count] = position + header_len
        lengths[count] = got - header_len
        count += 1
        position = -(-(position + got) // ALIGN) * ALIGN
    return count


def py_write_packets(
    fd: int, buf: ReadableBuffer, offsets: array[int], lengths: array[int], n: int, header: bytes
) -> int:
    """Write packets 0..n-1 of `buf` to `fd`, each behind the same `header` (virtio_net_hdr, Ethernet, or none).

    Return how many were taken (EAGAIN, ENOBUFS and ENOMEM end early), or -errno if the first fails for good;
    -EFAULT: it lies outside `buf`.
    """
    _check_arrays(offsets, lengths, n)
    view = memoryview(buf).cast("B")
    first = [header] if header else []
    for i in range(n):
        end = offsets[i] + lengths[i]
        if end > len(view):
            return i or -errno.EFAULT
        try:
            os.writev(fd, [*first, view[offsets[i] : end]])
        except OSError as error:
            return i if i or error.errno in _FULL else -(error.errno or errno.EIO)
    return n


try:
    from fourtuple.phy._io import read_packets, write_packets

    COMPILED = True
except ImportError:
    read_packets = py_read_packets
    write_packets = py_write_packets
    COMPILED = False
