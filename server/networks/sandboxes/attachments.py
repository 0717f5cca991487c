"""Endpoints of a container, on networks of the engine's own drivers and of plugins."""

from api_models.network import EndpointSettings
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


async def release(context: NetworkContext, network: Network, endpoint: Endpoint, record: SandboxRecord) -> None:
    """Releases the addresses, and deletes the endpoint at its plugin. The caller stores the record."""
    if network.uses_plugins:
        await context.remote.release_endpoint(network, endpoint)
        record.pending = [item for item in record.pending if item is not endpoint]
    else:
        endpoints.release(network, endpoint)


def on_plugins(context: NetworkContext, record: SandboxRecord) -> bool:
    """Whether the driver of one of the container's networks is a plugin."""
    return any(context.networks[endpoint.network].remote for endpoint in record.endpoints)


async def translate(context: NetworkContext, record: SandboxRecord) -> None:
    """On networks of the swarm: writes the translations of virtual addresses in the container's namespace.

    :raises WharfError: INTERNAL: the kernel refused.
    """
    if any(context.networks[endpoint.network].overlay for endpoint in record.endpoints):
        await context.overlays.translate(record)
