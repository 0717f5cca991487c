"""Sends the names of each network, and the view of each container, to wharf-proxy."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack

from engine.proxy.upstreams import Upstream
from server.containers.plan import ContainerPlan
from server.networks import links
from server.networks.context import NetworkContext
from server.networks.dns import hosts_file
from server.networks.dns.redirect import redirect
from server.networks.model import Network, SandboxRecord
from server.networks.proxy_client import ViewRequest, Zone


async def register(
    context: NetworkContext, container: ContainerPlan, record: SandboxRecord, undo: AsyncExitStack
) -> None:
    """Publishes the container's names, and starts its name service."""
    undo.push_async_callback(unregister, context, record)
    await send_zones(context, record)
    await send_view(context, container, record)


async def send_zones(context: NetworkContext, record: SandboxRecord) -> None:
    for endpoint in record.endpoints:
        network = context.networks.get(endpoint.network)
        if network is not None and network.user_defined:
            await send_zone(context, network)


async def send_zone(context: NetworkContext, network: Network) -> None:
    """Sends the names of one network."""
    await context.forwarder.set_zone(network.id, zone_of(context, network))


def zone_of(context: NetworkContext, network: Network) -> Zone:
    """The names of all containers on a network, and on one of the swarm also of services and of other nodes' tasks."""
    found: dict[str, list[tuple[str, str]]] = {}
    pointers: dict[str, str] = {}
    assigned: Mapping[str, Sequence[str]] = {}
    if network.overlay:
        assigned, names = context.overlays.names(network)
        found = {name: [(address, "") for address in addresses] for name, addresses in assigned.items() if addresses}
        pointers = dict(names)
    for endpoint in network.endpoints.values():
        if endpoint.implicit:
            continue
        for name in endpoint.dns_names:
            if name.lower() in assigned:
                continue  # an alias of a task is one of its service
            found.setdefault(name.lower(), []).append((endpoint.ip4, endpoint.ip6))
        for address in (endpoint.ip4, endpoint.ip6):
            if address:
                pointers[address] = f"{endpoint.name}.{network.name}"
    return Zone(network.name, found, pointers)


async def view_request(context: NetworkContext, container: ContainerPlan, record: SandboxRecord) -> ViewRequest:
    """The parameters of the container's name service."""
    aliases: dict[str, dict[str, str]] = {}
    zones = []
    for endpoint in record.endpoints:
        if endpoint.implicit or not context.networks[endpoint.network].user_defined:
            continue
        zones.append(endpoint.network)
        for text in endpoint.settings.get("Links") or ():
            name, alias = links.parse(text)
            target = context.containers.of(container.owner).find(name) if context.containers else None
            aliases.setdefault(endpoint.network, {})[alias.lower()] = (target.name if target else name).lower()
    # A service's name is that on a network of users, before that of its published ports.
    zones.sort(key=lambda id: context.networks[id].ingress)
    servers = await asyncio.to_thread(hosts_file.upstreams, hosts_file.overrides(context, container))
    internal = all(context.networks[endpoint.network].internal for endpoint in record.endpoints)
    # A container without external connectivity must not get it through the host's own resolver.
    upstreams = [Upstream(address, host) for address, host in servers if not (internal and host)]
    return ViewRequest(record.path, tuple(zones), aliases, tuple(upstreams))


async def send_view(context: NetworkContext, container: ContainerPlan, record: SandboxRecord) -> None:
    """Starts (or stops) serving 127.0.0.11 in the container's namespace."""
    if not hosts_file.uses_embedded(context, record):
        await context.forwarder.drop_view(container.id)
        return
    udp, tcp = await context.forwarder.view(container.id, await view_request(context, container, record))
    await context.run_in_thread(redirect, record.path, udp, tcp)


async def unregister(context: NetworkContext, record: SandboxRecord) -> None:
    """Removes its names and stops its name service."""
    await context.forwarder.drop_view(record.container)
    for endpoint in record.endpoints:
        network = context.networks.get(endpoint.network)
        if network is None or not network.user_defined:
            continue
        endpoint.dns_names, names = [], endpoint.dns_names
        if names:
            await send_zone(context, network)
