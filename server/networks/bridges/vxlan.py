"""The VXLAN device of an overlay network: a port of its bridge that leads to the other nodes (RFC 7348).

It floods nothing and learns nothing: entries for each address on another node come from the swarm
(``server/networks/netlink/neighbours``). Encrypted networks have a UDP port of their own: while one of their devices
exists, the kernel drops what goes to or comes from this port in clear. All functions block: call them in a thread.
"""

import errno
import os
from collections.abc import Mapping

from engine.common.errors import internal
from server.networks import options
from server.networks.bridges import bridge
from server.networks.context import NetworkContext
from server.networks.model import Network
from server.networks.netlink import neighbours
from server.networks.netlink.namespace_pool import mark
from server.networks.netlink.rtnetlink import Link, link_add, link_set

#: The headers that VXLAN adds to a packet: Ethernet, IPv4, UDP, VXLAN.
_HEADERS = 50
#: Those around what ESP encrypts (RFC 4106): IPv4; SPI, sequence number and initialization vector; and the check value.
#: The encrypted part is a multiple of 4 bytes; it has the other headers of VXLAN, and at its end two bytes.
_OUTER, _CHECK, _INNER, _TRAILER = 20 + 16, 16, 30, 2


def mtu(network: Network) -> int:
    """The MTU of an overlay network's links. As in dockerd, the option is the MTU between the nodes."""
    between = options.mtu(network.options) or 1500
    if network.encrypted:
        return max(((between - _OUTER - _CHECK) & ~3) - _INNER - _TRAILER, 68)
    return max(between - _HEADERS, 68)


def ensure(context: NetworkContext, network: Network) -> None:
    """Makes the device with all entries if the network has other nodes; else removes it. One that is right stays, so
    that no traffic is interrupted.

    :raises WharfError: INTERNAL: another device has the identifier, or another program the UDP port.
    """
    alias = mark(context.config.network_name)
    link = context.host.link(network.vxlan)
    if link is not None and not (network.vxlan_local and link.vxlan == _identity(network)):
        remove(context, network)
        link = None
    if network.vxlan_local:
        if network.encrypted:
            _require_encryption(context, network)
        if link is None:
            link = _create(context, network, alias)
        elif link.master != network.index or not link.up or link.mtu != mtu(network):
            context.host.run(link_set(index=link.index, master=network.index, mtu=mtu(network), up=True))
        context.host.run(link_set(index=link.index, brport={"IFLA_BRPORT_LEARNING": 0, "IFLA_BRPORT_UNICAST_FLOOD": 0}))
        change(context, network, neighbours.present(context.host, link.index), network.peers)


def remove(context: NetworkContext, network: Network) -> None:
    """Removes the device, if this engine created it. A missing one is fine."""
    link = context.host.link(network.vxlan)
    bridge.remove(context.host, network.vxlan, mark(context.config.network_name))
    if network.encrypted and link is not None and link.vxlan is not None:
        _, local, port = link.vxlan
        others = (each for each in context if each is not network and each.encrypted)
        if all((each.vxlan_local, each.vxlan_port) != (local, port) for each in others):
            from server.networks.netlink import xfrm  # no engine without encrypted networks loads it

            with xfrm.open_channel() as channel:
                xfrm.release_encryption(channel, local, port)


def damage(context: NetworkContext, network: Network) -> str:
    """The damage of the device as the end of a sentence; "": none."""
    if not network.vxlan_local:
        return ""
    link = context.host.link(network.vxlan)
    if link is None or link.vxlan != _identity(network):
        return f"lost its port {network.vxlan}"
    return "" if link.up and link.master == network.index else f"lost its port {network.vxlan}"


def change(context: NetworkContext, network: Network, former: Mapping[str, str], wanted: Mapping[str, str]) -> None:
    """Changes the entries of the device from ``former`` to ``wanted``: addresses with their nodes.

    :raises WharfError: INTERNAL: the kernel refused.
    """
    put = {address: node for address, node in wanted.items() if former.get(address) != node}
    gone = former.keys() - wanted.keys()
    if not put and not gone:
        return
    try:
        with context.devices:
            link = context.host.link(network.vxlan)
            if link is None:
                raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
            neighbours.change(context.host, link.index, put=put, gone=gone)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise internal(f"network {network.name}: addresses on other nodes can't be set: {reason}") from error


def _require_encryption(context: NetworkContext, network: Network) -> None:
    from server.networks.netlink import xfrm  # no engine without encrypted networks loads it

    try:
        with xfrm.open_channel() as channel:
            xfrm.require_encryption(channel, network.vxlan_local, network.vxlan_port)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise internal(f"network {network.name} can't be encrypted: {reason}") from error


def _identity(network: Network) -> tuple[int, str, int]:
    return int(network.option(options.VNI)), network.vxlan_local, network.vxlan_port


def _create(context: NetworkContext, network: Network, alias: str) -> Link:
    number, local, port = _identity(network)
    data = (
        ("IFLA_VXLAN_ID", number),
        ("IFLA_VXLAN_LOCAL", local),
        ("IFLA_VXLAN_PORT", port),
        ("IFLA_VXLAN_LEARNING", 0),
        ("IFLA_VXLAN_PROXY", 1),
    )
    added = link_add("vxlan", network.vxlan, mtu=mtu(network), master=network.index, up=True, data=data)
    try:
        context.host.run(added, link_set(network.vxlan, alias=alias))
    except OSError as error:
        reasons = {
            errno.EEXIST: f"another VXLAN device of this host has the identifier {number} at UDP port {port}",
            errno.EADDRINUSE: f"UDP port {port} is in use by another program",
            errno.EOPNOTSUPP: "the kernel has no VXLAN (module vxlan)",
        }
        reason = reasons.get(error.errno or 0) or (error.strerror or str(error)).lower()
        raise internal(f"network {network.name} can't be connected to other nodes: {reason}") from error
    link = context.host.link(network.vxlan)
    if link is None:
        raise internal(f"network {network.name}: its device {network.vxlan} was removed by another program")
    return link
