"""Announces the MAC addresses of new interfaces to their neighbours, which may know their IP addresses with others.

The first announcement is sent when the interface is attached, the others in the background: the first may be lost
while the link's host end comes up. An interface on a bridge whose MAC address is derived from its IP address
needs none, as every interface with this address has this MAC address; so a plain start costs nothing.
"""

import asyncio
import contextlib

from server.networks import options
from server.networks.context import NetworkContext
from server.networks.endpoints import derived_mac
from server.networks.model import Endpoint, Network, SandboxRecord
from server.networks.netlink.announce import announce


def count(network: Network, endpoint: Endpoint) -> int:
    """How often the interface is announced; 0: never."""
    if network.bridged and not network.other_macs and options.ANNOUNCEMENTS not in network.options:
        return 0
    return options.announcements(network.options)


def first(network: Network, endpoint: Endpoint, path: str) -> None:
    """In a thread: sends the first announcement of an interface in the namespace at ``path``. A failure is ignored:
    neighbours find the address by themselves later."""
    network.other_macs = network.other_macs or endpoint.mac != derived_mac(endpoint)
    if count(network, endpoint):
        with contextlib.suppress(OSError):
            announce(path, endpoint.interface, endpoint.interfaces)


def repeat(context: NetworkContext, record: SandboxRecord, network: Network, endpoint: Endpoint) -> None:
    """Sends the other announcements in the background, until the endpoint or the daemon ends."""
    times = count(network, endpoint)
    if times > 1 and endpoint.interface:
        work = _repeat(context, record, endpoint, times - 1, options.announcement_pause(network.options))
        task = context.spawn(work, f"announce {endpoint.name}")
        context.announcing.add(task)
        task.add_done_callback(context.announcing.discard)


async def _repeat(context: NetworkContext, record: SandboxRecord, endpoint: Endpoint, times: int, pause: float) -> None:
    for _ in range(times):
        await asyncio.sleep(pause)
        if context.sandboxes.get(record.container) is not record or endpoint not in record.endpoints:
            return
        with contextlib.suppress(OSError):
            await context.run_in_background(announce, record.path, endpoint.interface, endpoint.interfaces)
