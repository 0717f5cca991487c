"""``docker_gwbridge``: the bridge by which a container's traffic leaves if no plugin provides a gateway."""

import asyncio
import logging
from contextlib import AsyncExitStack

from api_models.network import EndpointSettings, NetworkCreateRequest
from engine.common.errors import WharfError, internal
from server.containers.plan import ContainerPlan
from server.networks import create, endpoints, options
from server.networks.bridges import devices
from server.networks.context import NetworkContext
from server.networks.model import HOST, NULL, Endpoint, Network, SandboxRecord
from server.networks.sandboxes import attachments

log = logging.getLogger(__name__)

NAME = "docker_gwbridge"


class Gateway:
    """Adds implicit endpoints to containers, on a network that is created at the first use."""

    def __init__(self, context: NetworkContext) -> None:
        self._context = context
        self._creating = asyncio.Lock()

    def needed(self, record: SandboxRecord) -> bool:
        """Whether a network of the container wants the engine to provide the gateway, and none leads out itself."""
        requested = False
        for endpoint in record.endpoints:
            network = self._context.networks[endpoint.network]
            if endpoint.implicit or network.driver in (NULL, HOST) or network.internal:
                continue
            if endpoint.remote is not None and endpoint.remote.without_gateway:
                continue
            if endpoint.default_hop(4) is not None or endpoint.default_hop(6) is not None:
                return False
            if network.routes_without_gateway:
                continue
            requested = requested or network.remote
        return requested

    def surplus(self, record: SandboxRecord) -> Endpoint | None:
        """The implicit endpoint of a container that needs none."""
        found = next((endpoint for endpoint in record.endpoints if endpoint.implicit), None)
        return None if found is None or self.needed(record) else found

    async def add(self, container: ContainerPlan, record: SandboxRecord, undo: AsyncExitStack) -> Endpoint | None:
        """Adds an implicit endpoint to the record; None: the container needs none, or has one.

        :raises WharfError: INTERNAL: the network can't be created, or has no address left.
        """
        if any(endpoint.implicit for endpoint in record.endpoints) or not self.needed(record):
            return None
        try:
            network = await self._network()
            await devices.ensure_ready(self._context, network)
            if container.id in network.endpoints:
                raise internal(f"endpoint with name {container.name} already exists in network {NAME}")
            endpoint = endpoints.create(self._context, container, network, EndpointSettings())
        except WharfError as error:
            sentence = f"container {container.id}: endpoint create on GW Network failed: {error.message}"
            raise internal(sentence) from error
        undo.push_async_callback(attachments.release, self._context, network, endpoint, record)
        endpoint.name, endpoint.dns_names, endpoint.implicit = f"gateway_{record.id[:12]}", [], True
        record.endpoints.append(endpoint)
        undo.callback(_forget, record, endpoint)
        return endpoint

    async def _network(self) -> Network:
        async with self._creating:
            return self._context.by_name(NAME) or await self._create()

    async def _create(self) -> Network:
        driver_options = {options.ICC: "false", options.MASQUERADE: "true"}
        # Another engine of this host may have the device: then this one has a generated name.
        if await self._context.run_in_thread(self._context.host.link, NAME) is None:
            driver_options[options.NAME] = NAME
        request = NetworkCreateRequest.parse(
            {"Name": NAME, "Driver": "bridge", "Options": driver_options, "EnableIPv4": True, "EnableIPv6": False}
        )
        try:
            return await create.create(self._context, request)
        except WharfError as error:
            raise error.worded(f"error creating external connectivity network: {error.message}") from error


def _forget(record: SandboxRecord, endpoint: Endpoint) -> None:
    record.endpoints = [item for item in record.endpoints if item is not endpoint]
