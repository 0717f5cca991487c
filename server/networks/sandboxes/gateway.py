"""``docker_gwbridge``: the bridge by which a container's traffic leaves if none of its networks provides a gateway.

It is created at the first use. A container is attached to it by an implicit endpoint.
"""

from contextlib import AsyncExitStack

from api_models.network import EndpointSettings, NetworkCreateRequest
from engine.common.errors import WharfError, internal
from server.containers.plan import ContainerPlan
from server.networks import create, endpoints, options, query
from server.networks.bridges import devices
from server.networks.context import NetworkContext
from server.networks.model import HOST, NULL, Endpoint, Network, SandboxRecord
from server.networks.sandboxes import attachments

NAME = "docker_gwbridge"
_OPTIONS = {options.ICC: "false", options.MASQUERADE: "true"}


def needed(context: NetworkContext, record: SandboxRecord) -> bool:
    """Whether a network of the container wants the engine to provide the gateway, and none leads out itself."""
    requested = False
    for endpoint in record.endpoints:
        network = context.networks[endpoint.network]
        if endpoint.implicit or network.driver in (NULL, HOST) or network.internal:
            continue
        if endpoint.remote is not None and endpoint.remote.without_gateway:
            continue
        if endpoint.default_hop(4) is not None or endpoint.default_hop(6) is not None:
            return False
        if network.routes_without_gateway:
            continue
        requested = requested or network.remote or network.overlay
    return requested


def surplus(context: NetworkContext, record: SandboxRecord) -> Endpoint | None:
    """The implicit endpoint of a container that needs none."""
    found = next((endpoint for endpoint in record.endpoints if endpoint.implicit), None)
    return None if found is None or needed(context, record) else found


async def add(
    context: NetworkContext, container: ContainerPlan, record: SandboxRecord, undo: AsyncExitStack
) -> Endpoint | None:
    """Adds an implicit endpoint to the record, which the caller attaches; None: the container needs none, or has one.

    :raises WharfError: INTERNAL: the network can't be created, or has no address left.
    """
    if any(endpoint.implicit for endpoint in record.endpoints) or not needed(context, record):
        return None
    try:
        network = await _network(context)
        await devices.ensure_ready(context, network)
        if container.id in network.endpoints:
            raise internal(f"endpoint with name {container.name} already exists in network {NAME}")
        endpoint = endpoints.create(context, container, network, EndpointSettings())
    except WharfError as error:
        sentence = f"container {container.id}: endpoint create on GW Network failed: {error.message}"
        raise internal(sentence) from error
    undo.push_async_callback(attachments.release, context, network, endpoint, record)
    endpoint.name, endpoint.dns_names, endpoint.implicit = f"gateway_{record.id[:12]}", [], True
    record.endpoints.append(endpoint)
    undo.callback(_forget, record, endpoint)
    return endpoint


async def _network(context: NetworkContext) -> Network:
    async with context.creating_gateway:
        return context.by_name(NAME) or await _create(context)


async def discard(context: NetworkContext) -> None:
    """Removes the network, if no container needs it and no user has created it with other options."""
    async with context.creating_gateway:
        network = context.by_name(NAME)
        if network is not None and not query.used(context, network):
            given = {name: value for name, value in network.options.items() if name not in (options.NAME, options.MTU)}
            if given == _OPTIONS and not network.labels:
                await query.remove(context, network)


async def _create(context: NetworkContext) -> Network:
    driver_options = dict(_OPTIONS)
    # Another engine of this host may have the device: then this one has a generated name.
    if await context.run_in_thread(context.host.link, NAME) is None:
        driver_options[options.NAME] = NAME
    request = NetworkCreateRequest.parse(
        {"Name": NAME, "Driver": "bridge", "Options": driver_options, "EnableIPv4": True, "EnableIPv6": False}
    )
    try:
        return await create.create(context, request)
    except WharfError as error:
        raise error.worded(f"error creating external connectivity network: {error.message}") from error


def _forget(record: SandboxRecord, endpoint: Endpoint) -> None:
    record.endpoints = [item for item in record.endpoints if item is not endpoint]
