"""The calls of plugins for one endpoint, from its creation to its removal."""

import contextlib
import logging
from collections.abc import Iterable
from dataclasses import replace

from api_models.network import EndpointSettings
from engine.common.errors import WharfError, internal
from server.containers.plan import ContainerPlan
from server.networks import endpoints
from server.networks.bridges import devices
from server.networks.context import NetworkContext
from server.networks.model import Endpoint, Network, RemoteEndpoint, SandboxRecord
from server.networks.remote import options, pools
from server.networks.remote.driver import RemoteDriver
from server.networks.remote.ipam import RemoteIpam
from server.networks.remote.registry import Registry
from server.plugins.client import Refused, Unreachable

log = logging.getLogger(__name__)


class RemoteEndpoints:
    """Endpoints on networks that use plugins; see :class:`server.networks.remotes.RemoteNetworks`."""

    def __init__(self, context: NetworkContext, drivers: Registry[RemoteDriver], ipams: Registry[RemoteIpam]) -> None:
        self._context = context
        self._drivers = drivers
        self._ipams = ipams

    async def create(
        self, container: ContainerPlan, network: Network, settings: EndpointSettings, record: SandboxRecord
    ) -> Endpoint:
        endpoint = await self._allocate(container, network, settings)
        try:
            record.pending.append(endpoint)
            await self._context.store.put_sandbox(record)
            if network.remote:
                await self._create(container, network, settings, record, endpoint)
        except BaseException:
            await self.release_addresses(network, endpoint)
            record.pending.remove(endpoint)
            raise
        return endpoint

    async def _allocate(self, container: ContainerPlan, network: Network, settings: EndpointSettings) -> Endpoint:
        context = self._context
        if not network.remote_ipam:
            endpoint = endpoints.create(context, container, network, settings)
        else:
            ipam = await self._ipams.get(network.ipam_driver)
            endpoint = endpoints.make(context, container, network, settings)
            endpoint.mac = endpoints.chosen_mac(settings) or (endpoints.random_mac() if ipam.needs_mac else "")
            try:
                ipv6 = not endpoints.without_ipv6(container, settings)
                await pools.request_addresses(ipam, network, endpoint, ipv6=ipv6)
                endpoints.register(context, network, endpoint)
            except BaseException:
                await pools.release_addresses(ipam, endpoint)
                raise
            endpoint.mac = endpoint.mac or endpoints.derived_mac(endpoint)
        endpoint.remote = endpoint.remote or RemoteEndpoint()
        if network.remote:
            # The driver chooses the gateways, and the MAC address unless it was requested.
            endpoint.gateway4 = endpoint.gateway6 = ""
            if not (network.remote_ipam and ipam.needs_mac):
                endpoint.mac = endpoints.chosen_mac(settings)
        return endpoint

    async def _create(
        self,
        container: ContainerPlan,
        network: Network,
        settings: EndpointSettings,
        record: SandboxRecord,
        endpoint: Endpoint,
    ) -> None:
        driver = await self._driver(network, "failed to add endpoint")
        interface = {"Address": endpoint.address4, "AddressIPv6": endpoint.address6, "MacAddress": endpoint.mac}
        requested = options.endpoint_options(self._context.config, container, network, settings, record)
        try:
            chosen = await driver.create_endpoint(network.id, endpoint.id, interface, requested)
        except WharfError as error:
            if not isinstance(error, Refused | Unreachable):
                await self._delete(network, endpoint)
            sentence = f"failed to create endpoint {endpoint.name} on network {network.name}: {error.message}"
            raise internal(sentence) from error
        endpoint.mac = chosen.mac or endpoint.mac
        endpoint.address4 = str(chosen.address4 or endpoint.address4)
        endpoint.address6 = str(chosen.address6 or endpoint.address6)

    async def _driver(self, network: Network, what: str) -> RemoteDriver:
        try:
            return await self._drivers.get(network.driver)
        except WharfError as error:
            raise internal(f"{what}: {error.message}") from error

    async def release(self, network: Network, endpoint: Endpoint) -> None:
        """Deletes the endpoint at its driver and releases its addresses. Failures are logged."""
        if network.remote:
            await self._delete(network, endpoint)
        await self.release_addresses(network, endpoint)

    async def _delete(self, network: Network, endpoint: Endpoint) -> None:
        try:
            driver = await self._drivers.get_used(network.driver)
            await driver.delete_endpoint(network.id, endpoint.id)
        except WharfError as error:
            log.warning("driver error deleting endpoint %s: %s", endpoint.name, error)

    async def release_addresses(self, network: Network, endpoint: Endpoint) -> None:
        endpoints.release(network, endpoint)
        if network.remote_ipam:
            try:
                await pools.release_addresses(await self._ipams.get_used(network.ipam_driver), endpoint)
            except WharfError as error:
                log.warning("failed to release the addresses of endpoint %s: %s", endpoint.name, error)

    async def join(self, container: ContainerPlan, record: SandboxRecord, endpoint: Endpoint) -> None:
        network = self._context.networks[endpoint.network]
        driver = await self._driver(network, "failed to get driver during join")
        before = endpoint.remote or RemoteEndpoint()
        endpoint.remote = replace(before, joined=True)
        try:
            joined = await driver.join(network.id, endpoint.id, record.path, options.sandbox_options(container))
        except (Refused, Unreachable):
            endpoint.remote = before
            raise
        endpoint.remote = replace(
            endpoint.remote,
            source=joined.source,
            prefix=joined.prefix,
            routes=tuple(route for route in joined.routes if ":" not in route[0] or endpoint.address6),
            without_gateway=joined.without_gateway,
        )
        endpoint.gateway4 = joined.gateway4
        # Without an IPv6 address, as IPv6 is disabled in the container, there is no use of a gateway.
        endpoint.gateway6 = joined.gateway6 if endpoint.address6 else ""
        with contextlib.suppress(WharfError):
            await driver.endpoint_info(network.id, endpoint.id)

    async def leave(self, record: SandboxRecord, found: Iterable[Endpoint]) -> None:
        for endpoint in list(found):
            state, network = endpoint.remote, self._context.networks.get(endpoint.network)
            if state is None or network is None or not state.joined:
                continue
            endpoint.remote = replace(state, joined=False, external=(False, False))
            if await self._leave(network, endpoint, state):
                await self._context.run_in_thread(devices.restore_link, record.path, endpoint)

    async def _leave(self, network: Network, endpoint: Endpoint, state: RemoteEndpoint) -> bool:
        """Whether the plugin was told."""
        try:
            driver = await self._drivers.get_used(network.driver)
            if any(state.external):
                await self._revoke(driver, network, endpoint)
            await driver.leave(network.id, endpoint.id)
        except Refused as error:
            log.warning("driver error disconnecting container %s: %s", endpoint.name, error)
        except WharfError as error:
            log.warning("driver error disconnecting container %s: %s", endpoint.name, error)
            return False
        return True

    async def _revoke(self, driver: RemoteDriver, network: Network, endpoint: Endpoint) -> None:
        try:
            await driver.revoke_external(network.id, endpoint.id)
        except Refused as error:
            log.warning("driver failed revoking external connectivity on endpoint %s: %s", endpoint.name, error)

    async def program(self, container: ContainerPlan, record: SandboxRecord) -> None:
        networks = self._context.networks
        first4, first6 = endpoints.default_gateways(networks, record.endpoints)
        for endpoint in record.endpoints:
            state, network = endpoint.remote, networks[endpoint.network]
            external = (endpoint is first4, endpoint is first6)
            if state is None or not network.remote or state.external == external:
                continue
            try:
                driver = await self._drivers.get(network.driver)
                if any(external):
                    endpoint.remote = replace(state, external=external)
                    ports = options.sandbox_options(container)
                    if first6 is not None and endpoint is not first6:
                        # Another network has the IPv6 traffic: the driver must not forward IPv6 ports.
                        ports[options.NO_IPV6_PROXY] = True
                    await driver.program_external(network.id, endpoint.id, ports)
                else:
                    endpoint.remote = replace(state, external=external)
                    await driver.revoke_external(network.id, endpoint.id)
            except WharfError as error:
                where = f"{endpoint.name} ({endpoint.id})"
                sentence = f"driver failed programming external connectivity on endpoint {where}: {error.message}"
                raise internal(sentence) from error
