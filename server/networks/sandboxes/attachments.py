"""Endpoints of a container, on networks of the engine's own drivers and of plugins."""

from contextlib import AsyncExitStack
from dataclasses import replace

from api_models.network import EndpointIPAMConfig, EndpointSettings
from engine.common.errors import Kind, WharfError
from server.containers.plan import ContainerPlan
from server.networks import endpoints
from server.networks.context import NetworkContext
from server.networks.model import Endpoint, Network, SandboxRecord


async def create(
    context: NetworkContext,
    container: ContainerPlan,
    network: Network,
    settings: EndpointSettings,
    record: SandboxRecord,
) -> Endpoint:
    """As ``endpoints.create``. On a network that uses plugins, it also is in ``record.pending``. Undone by
    :func:`release`.

    :raises WharfError: as ``endpoints.create``; a plugin refuses.
    """
    if network.uses_plugins:
        return await context.remote.create_endpoint(container, network, settings, record)
    return endpoints.create(context, container, network, settings)


async def assign(
    context: NetworkContext, container: ContainerPlan, key: str, settings: EndpointSettings, undo: AsyncExitStack
) -> EndpointSettings:
    """For a network of the swarm: attaches a container that is not of a task, and returns the settings with the
    addresses that the swarm has assigned, if it assigns those of the network. For other networks, and for tasks, the
    settings as they are.

    ``key``: the network's name or id; the network may be on no node yet.

    :raises WharfError: the swarm refuses; UNAVAILABLE: it is not started, or locked.
    """
    present = context.of(container.owner).find(key)
    swarms = present.of_swarm if present is not None else not container.owner
    known = context.containers.by_id(container.id) if context.containers is not None else None
    if not swarms or (known is not None and known.managed):
        return settings
    if context.attacher is None:
        if present is None:
            return settings
        # The daemon starts containers before the swarm: the restart policy tries again.
        raise WharfError(Kind.UNAVAILABLE, f"Could not attach to network {present.name}: the swarm is not available")
    ipam = settings.ipam_config or EndpointIPAMConfig()
    wanted = [address for address in (ipam.ipv4_address, ipam.ipv6_address) if address]
    names = endpoints.own_names(container, settings)
    id, assigned = await context.attacher.attach(container.id, key, wanted, names)
    undo.push_async_callback(context.attacher.detach, container.id, id)
    if assigned is None:
        return settings
    return replace(settings, ipam_config=replace(assigned, link_local_ips=ipam.link_local_ips))


async def release(context: NetworkContext, network: Network, endpoint: Endpoint, record: SandboxRecord) -> None:
    """Releases the addresses, and deletes the endpoint at its plugin. The caller stores the record."""
    if network.uses_plugins:
        await context.remote.release_endpoint(network, endpoint)
        record.pending = [item for item in record.pending if item is not endpoint]
    else:
        endpoints.release(network, endpoint)
    if network.of_swarm and context.attacher is not None:
        await context.attacher.detach(record.container, network.id)


def on_plugins(context: NetworkContext, record: SandboxRecord) -> bool:
    """Whether the driver of one of the container's networks is a plugin."""
    return any(context.networks[endpoint.network].remote for endpoint in record.endpoints)


async def translate(context: NetworkContext, record: SandboxRecord) -> None:
    """On networks of the swarm: writes the translations of virtual addresses in the container's namespace.

    :raises WharfError: INTERNAL: the kernel refused.
    """
    if any(context.networks[endpoint.network].overlay for endpoint in record.endpoints):
        await context.overlays.translate(record)
