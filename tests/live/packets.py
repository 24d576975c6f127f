"""Which devices of a test's namespace a TCP packet passes."""

from __future__ import annotations

import socket
import struct

from tests.live.space import Space

_ETH_P_ALL = 3


class Capture:
    """TCP packets on every device of a namespace, lo included."""

    def __init__(self, space: Space) -> None:
        self._socket = space.run(socket.socket, socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ALL))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
        self._socket.setblocking(False)

    def devices(self) -> list[str]:
        """Of each TCP packet since the last call; a packet over lo is seen going and coming."""
        seen = []
        while True:
            try:
                packet, name = self._socket.recvfrom(100)
            except BlockingIOError:
                return seen
            is_tcp = packet[9] == 6 if packet[0] >> 4 == 4 else packet[6] == 6
            if name[1] in (0x0800, 0x86DD) and is_tcp:
                seen.append(name[0])

    def dropped(self) -> int:
        return int(struct.unpack("=II", self._socket.getsockopt(263, 6, 8))[1])  # PACKET_STATISTICS

    def close(self) -> None:
        self._socket.close()
