"""Unsolicited ARP and neighbour advertisements: neighbours that know an address with another MAC address update it.

The frames are those of RFC 5227 (an ARP announcement) and RFC 4861, section 7.2.6. Blocks for microseconds; call it in
a thread.
"""

import socket
import struct
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address

from server.networks.netlink import netns
from server.networks.netlink.rtnetlink import Interface

_ETHERNET = 1  # ARPHRD_ETHER
_ARP, _IPV6 = 0x0806, 0x86DD  # ETH_P_…
_ICMPV6 = 58
_ADVERTISEMENT, _OVERRIDE, _TARGET_LINK_ADDRESS = 136, 0x20000000, 2
_ALL_NODES = IPv6Address("ff02::1")


def announce(path: str, interface: str, addresses: Sequence[Interface]) -> None:
    """Announces the addresses with the MAC address that the interface of the namespace at ``path`` has now. A link that
    is not Ethernet has none.

    :raises OSError: the namespace or the interface is gone, or the interface is down.
    """
    with netns.inside(path):
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
    with sock:
        sock.bind((interface, 0))
        _, _, _, hardware, mac = sock.getsockname()
        if hardware != _ETHERNET:
            return
        for address in addresses:
            sock.send(_arp(mac, address.ip) if isinstance(address.ip, IPv4Address) else _advertisement(mac, address.ip))


def _arp(mac: bytes, address: IPv4Address) -> bytes:
    """A broadcast request for the sender's own address."""
    ip = address.packed
    header = b"\xff" * 6 + mac + struct.pack("!H", _ARP)
    return header + struct.pack("!HHBBH6s4s6s4s", 1, 0x0800, 6, 4, 1, mac, ip, bytes(6), ip)


def _advertisement(mac: bytes, address: IPv6Address) -> bytes:
    """A neighbour advertisement to all nodes, which overrides what they know."""
    to = _ALL_NODES.packed
    body = struct.pack("!II16sBB6s", _ADVERTISEMENT << 24, _OVERRIDE, address.packed, _TARGET_LINK_ADDRESS, 1, mac)
    body = body[:2] + _checksum(address.packed + to + struct.pack("!II", len(body), _ICMPV6) + body) + body[4:]
    # The hop limit of 255 proves to receivers that no router forwarded the packet.
    packet = struct.pack("!IHBB", 6 << 28, len(body), _ICMPV6, 255) + address.packed + to + body
    return b"\x33\x33" + to[-4:] + mac + struct.pack("!H", _IPV6) + packet


def _checksum(data: bytes) -> bytes:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF)
