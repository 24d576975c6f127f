"""NetProtocol: what a transport registers with ip/ (kernel: struct net_protocol, inet_add_protocol).

A class so that compiled code calls through its method table; `IpNet.protocols` maps the IP protocol number to one.
"""

from __future__ import annotations

from fourtuple.ip.netns import IpNet
from fourtuple.wire.buffer import PacketBuffer


class NetProtocol:
    """Base class: a protocol that ignores everything."""

    __slots__ = ()

    def handler(self, net: IpNet, b: PacketBuffer, off: int, length: int, dev: int) -> int:
        """A packet arrived: `off` and `length` are of the IP payload, the IP header is in net.rx_ip."""
        return 0

    def err_handler(
        self, net: IpNet, b: PacketBuffer, off: int, length: int, icmp_type: int, code: int, info: int
    ) -> int:
        """An ICMP error quotes a packet of ours: its IP header is in net.err_ip, its payload at `off`.

        The sender of the ICMP message is net.rx_ip.saddr.
        """
        return 0
