"""A veth pair across two network namespaces, set up so that whole IP packets cross it: no ARP, no offload.

Lives here: making the pair, switching offloads off.  Does not live here: reading and writing packets (packet.py).

Rules
1. `arp off` at both ends: the kernel then fills in its own hardware address as the receiver's. At the other end every
   frame is thus one for somebody else: a packet socket sees it, the kernel there drops it and answers nothing.
2. Checksums and segmentation are done before the pair: what a packet socket reads is what a wire would carry.
"""

from __future__ import annotations

import array
import errno
import fcntl
import os
import socket
import struct

from fourtuple.phy import link

# linux/rtnetlink.h, linux/if_link.h, linux/veth.h
_RTM_NEWLINK = 16
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINKINFO, _IFLA_NET_NS_FD = 1, 3, 4, 18, 28
_IFLA_INFO_KIND, _IFLA_INFO_DATA, _VETH_INFO_PEER = 1, 2, 1
# linux/sockios.h, linux/ethtool.h
_SIOCETHTOOL = 0x8946
_OFFLOADS = {"tx-checksum": 0x17, "sg": 0x19, "tso": 0x1F, "gso": 0x24, "gro": 0x2C}
"""Name of each offload, and the ETHTOOL_S... command that sets it."""


def add_veth(
    name: str,
    peer: str,
    peer_namespace: int | None = None,
    mtu: int = 1500,
    address: bytes = b"",
    peer_address: bytes = b"",
) -> None:
    """`ip link add NAME mtu MTU address ADDRESS type veth peer name PEER netns FD mtu MTU address PEER_ADDRESS`.

    Addresses are hardware addresses, empty: the kernel draws one. The peer is in this namespace too unless
    `peer_namespace` is a descriptor of another.
    """
    peer_end = _end(peer, mtu, peer_address)
    if peer_namespace is not None:
        peer_end += link.attribute(_IFLA_NET_NS_FD, struct.pack("I", peer_namespace))
    info = link.attribute(_IFLA_INFO_KIND, b"veth")
    info += link.attribute(_IFLA_INFO_DATA, link.attribute(_VETH_INFO_PEER, peer_end))
    body = _end(name, mtu, address) + link.attribute(_IFLA_LINKINFO, info)
    link.rtnetlink(_RTM_NEWLINK, body, f"add veth {name}")


def _end(name: str, mtu: int, address: bytes) -> bytes:
    """struct ifinfomsg and the attributes of one end."""
    body = struct.pack("BxHiII", socket.AF_UNSPEC, 0, 0, 0, 0)
    body += link.attribute(_IFLA_IFNAME, name.encode() + b"\0") + link.attribute(_IFLA_MTU, struct.pack("I", mtu))
    return body + link.attribute(_IFLA_ADDRESS, address) if address else body


def offloads_off(name: str) -> None:
    """`ethtool -K NAME tx off sg off tso off gso off gro off`; one that the device does not have is off already."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        for offload, command in _OFFLOADS.items():
            value = array.array("I", (command, 0))  # struct ethtool_value; ifreq holds its address
            request = struct.pack("16sP16x", name.encode(), value.buffer_info()[0])
            try:
                fcntl.ioctl(handle, _SIOCETHTOOL, request)
            except OSError as error:
                if error.errno != errno.EOPNOTSUPP:
                    raise OSError(
                        error.errno, f"{name}: {os.strerror(error.errno or 0)} (SIOCETHTOOL, {offload} off)"
                    ) from None
