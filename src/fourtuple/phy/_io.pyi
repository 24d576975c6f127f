from array import array

from _typeshed import ReadableBuffer, WriteableBuffer

def read_packets(
    fd: int,
    buf: WriteableBuffer,
    slot_size: int,
    offsets: array[int],
    lengths: array[int],
    max_packets: int,
    header_len: int,
) -> int: ...
def write_packets(
    fd: int, buf: ReadableBuffer, offsets: array[int], lengths: array[int], n: int, header: bytes
) -> int: ...
