from array import array

from _typeshed import ReadableBuffer, WriteableBuffer

def read_packets(
    fd: int,
    buf: WriteableBuffer,
    slot_size: int,
    offsets: array[int],
    lengths: array[int],
    max_packets: int,
    vnet_hdr_len: int,
) -> int: ...
def write_packets(
    fd: int, buf: ReadableBuffer, offsets: array[int], lengths: array[int], n: int, vnet_hdr_len: int
) -> int: ...
