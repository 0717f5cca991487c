"""Forwarding entries and neighbours of a VXLAN device: on which node an address is, and its MAC address there.

Each address has three entries of the kernel: the bridge's forwarding entry leads to the device, the device's to the
node, and the device answers ARP with its neighbours (the attribute ``proxy``). So nothing is flooded: neither on the
bridge nor between the nodes (the kernel's Documentation/networking/vxlan.rst, bridge(8), ip-neighbour(8)).

The messages are encoded here: pyroute2 needs 50 times as long for each, and there may be thousands.
"""

import errno
import socket
import struct
from collections.abc import Iterable, Mapping

from server.networks.netlink.channel import CREATE, REPLACE, Channel, Packed

_NEW, _DELETE, _GET = 28, 29, 30  # RTM_NEWNEIGH …
_SELF, _MASTER = 0x02, 0x04  # NTF_…: the device's own entry, its bridge's
_PERMANENT, _NO_ARP, _REACHABLE = 0x80, 0x40, 0x02  # NUD_…
_DST, _LINK_ADDRESS, _IFINDEX = 1, 2, 8  # NDA_…
#: Of the MAC address that follows from an IPv4 address, as ``ipam.allocator.mac_from_address`` computes it.
_PREFIX = b"\x02\x42"
# struct ndmsg: family, padding, index of the device, state, flags, type.
_MESSAGE = struct.Struct("=BxHiHBB")
_ATTRIBUTE = struct.Struct("=HH")


def change(channel: Channel, index: int, *, put: Mapping[str, str], gone: Iterable[str]) -> None:
    """Changes the entries of the device ``index``: addresses with their nodes, and those that are nowhere any more.

    :raises OSError: the kernel refused; the other entries are changed.
    """
    requests: list[Packed] = []
    for address in gone:
        mac = _attribute(_LINK_ADDRESS, _mac(address))
        requests += [
            (_DELETE, 0, _message(socket.AF_BRIDGE, index, flags=_MASTER) + mac),
            (_DELETE, 0, _message(socket.AF_BRIDGE, index, flags=_SELF) + mac),
            (_DELETE, 0, _message(socket.AF_INET, index) + _destination(address)),
        ]
    channel.run_packed(requests, ignore=errno.ENOENT)
    requests = []
    # A static entry, not a permanent one: to a bridge, those are its own addresses.
    static = _message(socket.AF_BRIDGE, index, state=_NO_ARP | _REACHABLE, flags=_SELF | _MASTER)
    permanent = _message(socket.AF_INET, index, state=_PERMANENT)
    for address, node in put.items():
        mac = _attribute(_LINK_ADDRESS, _mac(address))
        requests += [
            (_NEW, CREATE | REPLACE, static + mac + _destination(node)),
            (_NEW, CREATE | REPLACE, permanent + mac + _destination(address)),
        ]
    channel.run_packed(requests)


def present(channel: Channel, index: int) -> dict[str, str]:
    """The addresses of which the device has all three entries, with their nodes; with the node "" the addresses of
    which it has some."""
    bridge, nodes = set(), {}
    for body in channel.dump_packed(_GET, _message(socket.AF_BRIDGE, index)):
        at, state, flags, attributes = _parse(body)
        own = state & _PERMANENT and not flags & _SELF  # the bridge's entry of the device's own address
        if at != index or own or not attributes.get(_LINK_ADDRESS, b"").startswith(_PREFIX):
            continue
        address = socket.inet_ntoa(attributes[_LINK_ADDRESS][2:6])
        if flags & _SELF:
            nodes[address] = socket.inet_ntoa(attributes.get(_DST, bytes(4))[:4])
        else:
            bridge.add(address)
    arp = set()
    request = _message(socket.AF_INET, 0) + _attribute(_IFINDEX, struct.pack("=I", index))
    for body in channel.dump_packed(_GET, request):
        at, _, _, attributes = _parse(body)
        if at == index and len(attributes.get(_DST, b"")) == 4:
            arp.add(socket.inet_ntoa(attributes[_DST]))
    whole = bridge & arp
    return {address: nodes.get(address, "") if address in whole else "" for address in bridge | arp | set(nodes)}


def _message(family: int, index: int, *, state: int = 0, flags: int = 0) -> bytes:
    return _MESSAGE.pack(family, 0, index, state, flags, 0)


def _attribute(kind: int, data: bytes) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(data), kind) + data + bytes(-len(data) % 4)


def _destination(address: str) -> bytes:
    return _attribute(_DST, socket.inet_aton(address))


def _mac(address: str) -> bytes:
    return _PREFIX + socket.inet_aton(address)


def _parse(body: bytes) -> tuple[int, int, int, dict[int, bytes]]:
    """The index of the device, the state, the flags, and the attributes of an answer."""
    _, _, index, state, flags, _ = _MESSAGE.unpack_from(body)
    attributes = {}
    offset = _MESSAGE.size
    while offset + _ATTRIBUTE.size <= len(body):
        length, kind = _ATTRIBUTE.unpack_from(body, offset)
        if length < _ATTRIBUTE.size:
            break
        attributes[kind] = body[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3
    return index, state, flags, attributes
