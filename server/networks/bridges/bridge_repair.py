"""Restores a bridge that another program deleted or changed, with its containers' links, from its record.

An administrator, NetworkManager or a script may delete the device, set it down, rename it, or remove its addresses or
ports. All functions block: call them in a thread.
"""

import logging
from collections.abc import Mapping

from engine.common.errors import Kind, WharfError
from server.networks.bridges import devices, vxlan
from server.networks.bridges.interfaces import BridgePort
from server.networks.context import NetworkContext
from server.networks.model import Endpoint, Network
from server.networks.netlink.rtnetlink import Link, link_set

log = logging.getLogger(__name__)


def host_links(context: NetworkContext) -> dict[str, Link]:
    """The host's links by name, for any number of calls of the functions here."""
    return {link.name: link for link in context.host.links()}


def restore(context: NetworkContext, network: Network, present: Mapping[str, Link] | None = None) -> bool:
    """Restores a bridge network's device and ports; returns False if nothing was damaged. Logs the changes.

    Skips a network whose device is not created yet, or is being removed.

    :param present: the links of the host, if they are known.
    :raises WharfError: INTERNAL: the device can't be restored.
    """
    with context.devices:
        if not network.bridged or not network.ready:
            return False
        try:
            damage = _damage(context, network)
            if damage:
                devices.make_device(context, network)
            ports = _join_all(context, network, host_links(context) if present is None else present)
        except (OSError, WharfError) as error:
            reason = error.message if isinstance(error, WharfError) else str(error)
            text = f"bridge {network.bridge} of network {network.name} was changed by another program and cannot be "
            raise WharfError(Kind.INTERNAL, f"{text}restored: {reason}") from error
    if not damage and not ports:
        return False
    what = damage or "lost ports"
    log.warning("network=%s bridge %s %s: restored, %d links joined", network.name, network.bridge, what, ports)
    return True


def _damage(context: NetworkContext, network: Network) -> str:
    """The damage of a device as the end of a sentence; "": none. A renamed device gets its name back."""
    link = context.host.link(network.bridge)
    if link is None:
        renamed = context.host.link(index=network.index)
        if renamed is None:
            return "was deleted"
        context.host.run(link_set(index=network.index, up=False))
        context.host.run(link_set(index=network.index, rename=network.bridge, up=True))
        return f"was renamed to {renamed.name}"
    if link.index != network.index:
        return "was replaced"
    if not link.up:
        return "was set down"
    if devices.is_adopted(context, network):
        return ""  # the administrator manages its addresses
    have = {address.ip for index, address in context.host.addresses(link.index) if index == link.index}
    missing = [str(address) for address in devices.bridge_addresses(network) if address.ip not in have]
    return f"lost {' and '.join(missing)}" if missing else vxlan.damage(context, network)


def _join_all(context: NetworkContext, network: Network, present: Mapping[str, Link]) -> int:
    """Joins existing links of the network's containers that are on no bridge. Returns their number."""
    joined = 0
    for endpoint in list(network.endpoints.values()):
        link = present.get(endpoint.veth)
        # A link that another program put on another bridge stays there.
        if link is not None and (link.master == 0 or not link.up):
            joined += join(context, network, endpoint)
    return joined


def join(context: NetworkContext, network: Network, endpoint: Endpoint) -> bool:
    """Makes an endpoint's link a port of its bridge; returns False if the link is gone with its container.

    :raises OSError: the bridge is gone.
    """
    port = devices.attacher(context, network, endpoint)
    assert isinstance(port, BridgePort)
    try:
        port.join(endpoint.veth)
    except OSError:
        if context.host.link(endpoint.veth) is None:
            return False
        raise
    return True
