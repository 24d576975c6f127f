"""System calls on raw buffers: the GIL is released once per batch. The one .pyx of the package.

fourtuple.phy.io says what the functions promise and holds their Python twins (same results).
"""

from cpython.buffer cimport Py_buffer, PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.errno cimport EAGAIN, EFAULT, EINTR, ENOBUFS, ENOMEM, errno
from libc.stdint cimport uint32_t
from libc.string cimport memset

cdef extern from "<sys/uio.h>" nogil:
    struct iovec:
        void *iov_base
        size_t iov_len
    ssize_t readv(int fd, iovec *iov, int count)
    ssize_t writev(int fd, iovec *iov, int count)

cdef enum:
    ALIGN = 16
    MAX_VNET_HDR = 64

# A virtio_net_hdr of zeros: no checksum left to do, no segmentation. Never written to (the kernel only reads it).
cdef unsigned char _zeros[MAX_VNET_HDR]
memset(_zeros, 0, MAX_VNET_HDR)


cdef class _Views:
    """The three buffers of a call, released together however it ends."""
    cdef Py_buffer data, offsets, lengths

    def __cinit__(self):
        memset(&self.data, 0, sizeof(Py_buffer))
        memset(&self.offsets, 0, sizeof(Py_buffer))
        memset(&self.lengths, 0, sizeof(Py_buffer))

    def __dealloc__(self):
        PyBuffer_Release(&self.data)
        PyBuffer_Release(&self.offsets)
        PyBuffer_Release(&self.lengths)

    cdef int acquire(self, object buf, object offsets, object lengths, bint reading, uint32_t n) except -1:
        cdef int writable = PyBUF_WRITABLE if reading else PyBUF_SIMPLE
        PyObject_GetBuffer(buf, &self.data, writable)
        PyObject_GetBuffer(offsets, &self.offsets, writable)
        PyObject_GetBuffer(lengths, &self.lengths, writable)
        if self.offsets.itemsize != 4 or self.lengths.itemsize != 4:
            raise ValueError("offsets and lengths must be array('I')")
        if self.offsets.len < 4 * <Py_ssize_t> n or self.lengths.len < 4 * <Py_ssize_t> n:
            raise ValueError("offsets and lengths are shorter than the batch")
        return 0


cdef int _read(int fd, unsigned char *data, size_t size, uint32_t slot_size, uint32_t *offsets, uint32_t *lengths,
               uint32_t max_packets, uint32_t vnet_hdr_len) noexcept nogil:
    cdef uint32_t count = 0
    cdef size_t position = 0
    cdef ssize_t got
    cdef iovec part
    while count < max_packets and position + slot_size <= size:
        part.iov_base = data + position
        part.iov_len = slot_size
        got = readv(fd, &part, 1)
        if got < 0:
            if errno == EINTR:
                continue
            if count or errno == EAGAIN:
                break
            return -errno
        if got <= vnet_hdr_len:
            break
        offsets[count] = <uint32_t> (position + vnet_hdr_len)
        lengths[count] = <uint32_t> (got - vnet_hdr_len)
        count += 1
        position = (position + <size_t> got + ALIGN - 1) & ~(<size_t> ALIGN - 1)
    return <int> count


cdef int _write(int fd, unsigned char *data, size_t size, uint32_t *offsets, uint32_t *lengths, uint32_t n,
                uint32_t vnet_hdr_len) noexcept nogil:
    cdef uint32_t count = 0
    cdef iovec parts[2]
    cdef int first = 0 if vnet_hdr_len else 1
    parts[0].iov_base = _zeros
    parts[0].iov_len = vnet_hdr_len
    while count < n:
        if <size_t> offsets[count] + lengths[count] > size:
            return <int> count if count else -EFAULT
        parts[1].iov_base = data + offsets[count]
        parts[1].iov_len = lengths[count]
        if writev(fd, &parts[first], 2 - first) >= 0:
            count += 1
        elif errno != EINTR:
            if count or errno == EAGAIN or errno == ENOBUFS or errno == ENOMEM:
                break
            return -errno
    return <int> count


def read_packets(int fd, object buf, uint32_t slot_size, object offsets, object lengths, uint32_t max_packets,
                 uint32_t vnet_hdr_len):
    cdef _Views views = _Views()
    cdef int result
    views.acquire(buf, offsets, lengths, True, max_packets)
    if slot_size == 0 or <size_t> views.data.len < slot_size:
        raise ValueError("the buffer has no room for one packet")
    with nogil:
        result = _read(fd, <unsigned char *> views.data.buf, views.data.len, slot_size,
                       <uint32_t *> views.offsets.buf, <uint32_t *> views.lengths.buf, max_packets, vnet_hdr_len)
    return result


def write_packets(int fd, object buf, object offsets, object lengths, uint32_t n, uint32_t vnet_hdr_len):
    cdef _Views views = _Views()
    cdef int result
    views.acquire(buf, offsets, lengths, False, n)
    if vnet_hdr_len > MAX_VNET_HDR:
        raise ValueError("vnet_hdr_len is larger than any virtio_net_hdr")
    with nogil:
        result = _write(fd, <unsigned char *> views.data.buf, views.data.len,
                        <uint32_t *> views.offsets.buf, <uint32_t *> views.lengths.buf, n, vnet_hdr_len)
    return result
