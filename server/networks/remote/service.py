"""Networks that use plugins; the contract is in ``server/networks/remotes``."""

import asyncio
import contextlib
import logging
from collections.abc import Coroutine, Iterable, Sequence
from contextlib import AsyncExitStack
from typing import Any, TypeVar

from api_models.network import EndpointSettings
from engine.common.errors import Kind, WharfError, internal
from server.containers.plan import ContainerPlan
from server.networks.context import NetworkContext
from server.networks.ipam.pools import subnets_in_use
from server.networks.model import Endpoint, Network, PoolConfig, SandboxRecord
from server.networks.remote import options, pools, recovery
from server.networks.remote.endpoints import RemoteEndpoints
from server.networks.remote.registry import ipam_drivers, network_drivers
from server.plugins.client import Refused, Unreachable
from server.plugins.discovery import Plugins

log = logging.getLogger(__name__)

_T = TypeVar("_T")


class PluginNetworks:
    """Implements :class:`server.networks.remotes.RemoteNetworks`.

    A client that disconnects cancels its request. What changes a plugin's state ends first, so that it can be undone.
    """

    def __init__(self, context: NetworkContext, plugins: Plugins) -> None:
        self._context = context
        self._drivers = network_drivers(plugins)
        self._ipams = ipam_drivers(plugins)
        self._endpoints = RemoteEndpoints(context, self._drivers, self._ipams)
        self._locks: dict[str, asyncio.Lock] = {}  # a network is not deleted while it is created

    async def resolve(self, network: Network, scope: str) -> None:
        if network.remote:
            driver = await self._drivers.get(network.driver)
            if scope == "local" and driver.scope == "global":
                sentence = f"cannot downgrade network scope for {network.driver} networks"
                raise WharfError(Kind.PERMISSION_DENIED, sentence)
            network.scope = scope or driver.scope
        if network.remote_ipam:
            await self._ipams.get(network.ipam_driver)

    async def skips_gateway(self, network: Network) -> tuple[bool, bool]:
        driver = await self._drivers.get(network.driver)
        return await driver.skips_gateway(options.network_options(network))

    async def request_pools(
        self, network: Network, requested: Sequence[PoolConfig], skips: tuple[bool, bool], undo: AsyncExitStack
    ) -> None:
        ipam = await self._ipams.get(network.ipam_driver)
        routes = await self._context.run_in_thread(subnets_in_use, self._context.host)
        undo.push_async_callback(pools.release_pools, ipam, network)
        await _settled(pools.request_pools(ipam, network, requested, skips, routes))

    async def create_network(self, network: Network, undo: AsyncExitStack) -> None:
        undo.callback(self._locks.pop, network.id, None)
        async with self._lock(network):
            network.unfinished = True
            undo.push_async_callback(self._context.store.delete, network)
            await self._context.store.put(network)
            if network.remote:
                try:
                    await _settled(self._create_at_driver(network))
                except (Refused, Unreachable):
                    raise
                except BaseException:
                    # It may have created the network before it failed, or before the client disconnected.
                    await self._delete_at_driver(network)
                    raise
                undo.push_async_callback(self._delete_at_driver, network)
            network.unfinished = False

    def _lock(self, network: Network) -> asyncio.Lock:
        return self._locks.setdefault(network.id, asyncio.Lock())

    async def _create_at_driver(self, network: Network) -> None:
        driver = await self._drivers.get(network.driver)
        data4, data6 = options.pool_data(network, 4), options.pool_data(network, 6)
        await driver.create_network(network.id, options.network_options(network), data4, data6)

    async def delete_network(self, network: Network) -> None:
        context = self._context
        async with self._lock(network):
            if context.networks.get(network.id) is not network:
                return
            network.unfinished = True
            await context.store.put(network)
            await _settled(self._delete(network))
            del self._locks[network.id]

    async def _delete(self, network: Network) -> None:
        if network.remote:
            await self._check_driver(network, "failed deleting Network")
        await self.remove(network)

    async def remove(self, network: Network) -> None:
        """Releases the network's subnets and deletes it at its driver. Failures are logged."""
        await self._release_pools(network)
        await self._delete_at_driver(network)

    async def _release_pools(self, network: Network) -> None:
        if not network.remote_ipam:
            return
        try:
            ipam = await self._ipams.get_used(network.ipam_driver)
        except WharfError as error:
            log.warning("network=%s its subnets can't be released: %s", network.name, error)
            return
        await pools.release_pools(ipam, network)

    async def _delete_at_driver(self, network: Network) -> None:
        if not network.remote:
            return
        try:
            driver = await self._drivers.get_used(network.driver)
            await driver.delete_network(network.id)
        except WharfError as error:
            log.warning("network=%s driver error deleting network: %s", network.name, error)

    async def create_endpoint(
        self, container: ContainerPlan, network: Network, settings: EndpointSettings, record: SandboxRecord
    ) -> Endpoint:
        task = asyncio.ensure_future(self._endpoints.create(container, network, settings, record))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            await asyncio.wait([task])
            if task.exception() is None:
                await self.release_endpoint(network, task.result())
                record.pending.remove(task.result())
            raise

    async def release_endpoint(self, network: Network, endpoint: Endpoint) -> None:
        await _settled(self._endpoints.release(network, endpoint))

    async def join(self, container: ContainerPlan, record: SandboxRecord, endpoint: Endpoint) -> None:
        await _settled(self._endpoints.join(container, record, endpoint))

    async def leave(self, record: SandboxRecord, endpoints: Iterable[Endpoint]) -> None:
        await _settled(self._endpoints.leave(record, endpoints))

    async def program(self, container: ContainerPlan, record: SandboxRecord) -> None:
        await _settled(self._endpoints.program(container, record))

    async def check(self, network: Network) -> None:
        await self._check_driver(network, "failed to get driver during endpoint leave")

    async def _check_driver(self, network: Network, what: str) -> None:
        try:
            await self._drivers.get_used(network.driver)
        except WharfError as error:
            raise internal(f"{what}: {error.message}") from error

    async def wait_for(self, networks: Iterable[Network]) -> None:
        def stopped() -> bool:
            return self._context.closed

        for network in networks:
            with contextlib.suppress(WharfError):
                if network.remote:
                    await self._drivers.wait(network.driver, stopped)
                if network.remote_ipam:
                    await self._ipams.wait(network.ipam_driver, stopped)

    async def recover(self, records: Sequence[SandboxRecord]) -> None:
        await recovery.recover(self._context, self, self._ipams, records)


async def _settled(work: Coroutine[Any, Any, _T]) -> _T:
    """The result of calls of a plugin. A cancelled caller waits for their end."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
