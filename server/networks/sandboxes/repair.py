"""Restores the kernel's state of a running container from its record, at start and at a reload.

A daemon that was killed during a disconnect may have removed a link that the record still has. Blocks; call it in a
thread. ``bridges`` restores what other programs remove meanwhile.
"""

import contextlib
import logging
from collections.abc import Mapping

from server.networks.bridges import bridge_repair, interfaces
from server.networks.context import NetworkContext
from server.networks.model import Endpoint, SandboxRecord
from server.networks.netlink import netns
from server.networks.netlink.namespace_pool import Namespace
from server.networks.netlink.rtnetlink import Link, Netlink
from server.networks.sandboxes import sandbox

log = logging.getLogger(__name__)


def repair(context: NetworkContext, record: SandboxRecord, present: Mapping[str, Link]) -> bool:
    """Attaches links that the record has and the kernel lacks; returns True if the record has changed and must be
    stored.

    :raises WharfError, OSError: a link can't be restored.
    """
    if record.mode != "own" or not record.path:
        return False
    lost: list[Endpoint] = []
    inside: set[str] | None = None
    netlink: Netlink | None = None
    with contextlib.ExitStack() as stack:
        for endpoint in record.endpoints:
            network = context.networks[endpoint.network]
            if network.bridged:
                link = present.get(endpoint.veth)
                if link is None:
                    lost.append(endpoint)
                elif link.master != network.index:
                    bridge_repair.join(context, network, endpoint)
                continue
            if network.remote:
                continue  # its plugin made the link
            netlink = netlink or _open(record, stack)
            inside = {link.name for link in netlink.links()} if inside is None else inside
            if endpoint.interface not in inside:
                lost.append(endpoint)
        if not lost:
            return False
        netlink = netlink or _open(record, stack)
        for endpoint in lost:
            network = context.networks[endpoint.network]
            log.info("container=%s is attached to network %s again", record.container, network.name)
            sandbox.attach_interface(context, Namespace(record.path, netlink), network, endpoint)
        interfaces.set_default_routes(netlink, sandbox.default_routes(context, record.endpoints))
    return True


def _open(record: SandboxRecord, stack: contextlib.ExitStack) -> Netlink:
    return stack.enter_context(contextlib.closing(netns.open_netlink(record.path)))
