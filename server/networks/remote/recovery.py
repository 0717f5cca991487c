"""What is left to do at plugins after the daemon's start. A plugin may start at the same time as the daemon."""

import asyncio
import logging
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, Protocol

from engine.common import timeouts
from engine.common.errors import WharfError
from server.networks.context import NetworkContext
from server.networks.model import Endpoint, Network, SandboxRecord
from server.networks.remote import pools
from server.networks.remote.ipam import RemoteIpam
from server.networks.remote.registry import Registry
from server.networks.sandboxes import attachments

log = logging.getLogger(__name__)


class Remover(Protocol):
    """The part of ``service.PluginNetworks`` that removes things."""

    async def wait_for(self, networks: Iterable[Network]) -> None: ...

    async def remove(self, network: Network) -> None: ...

    async def leave(self, record: SandboxRecord, endpoints: Iterable[Endpoint]) -> None: ...


async def recover(
    context: NetworkContext, remover: Remover, ipams: Registry[RemoteIpam], records: Sequence[SandboxRecord]
) -> None:
    """See :meth:`server.networks.remotes.RemoteNetworks.recover`. Plugins that answer at once have got the replayed
    requests when this returns."""
    for network in context:
        if network.unfinished:
            _begin(context, f"unfinished network {network.id}", _remove_network(context, remover, network))
    for record in records:
        if record.pending:
            _begin(context, f"unfinished endpoints {record.id}", _remove_endpoints(context, remover, record))
    by_driver: dict[str, list[Network]] = {}
    for network in context:
        if network.remote_ipam and network.ipam and not network.unfinished and not network.config_only:
            by_driver.setdefault(network.ipam_driver, []).append(network)
    replays = [
        _begin(context, f"replay to IPAM plugin {name}", _replay(context, ipams, name, networks, records))
        for name, networks in by_driver.items()
    ]
    if replays:
        await asyncio.wait(replays, timeout=timeouts.seconds("network.replay"))


def _begin(context: NetworkContext, key: str, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
    """Runs the work in the background; the end of the daemon waits for it."""
    task = context.spawn(work, key)
    context.ending[key] = task
    task.add_done_callback(lambda _: context.ending.pop(key, None))
    return task


async def _remove_network(context: NetworkContext, remover: Remover, network: Network) -> None:
    log.info("network=%s is removed: its creation or removal was interrupted", network.name)
    await remover.wait_for([network])
    await remover.remove(network)
    context.discard(network)
    await context.store.delete(network)


async def _remove_endpoints(context: NetworkContext, remover: Remover, record: SandboxRecord) -> None:
    pending = list(record.pending)
    await remover.wait_for([context.networks[item.network] for item in pending if item.network in context.networks])
    await remover.leave(record, pending)
    for endpoint in pending:
        network = context.networks.get(endpoint.network)
        if network is not None:
            await attachments.release(context, network, endpoint, record)
    if context.sandboxes.get(record.container) is record:
        await context.store.put_sandbox(record)


async def _replay(
    context: NetworkContext,
    ipams: Registry[RemoteIpam],
    name: str,
    networks: Sequence[Network],
    records: Sequence[SandboxRecord],
) -> None:
    try:
        ipam = await ipams.wait(name, lambda: context.closed)
    except WharfError as error:
        log.warning("IPAM plugin %s: %s; its requests are not replayed", name, error)
        return
    if not ipam.needs_replay:
        return
    for network in networks:
        mine = [endpoint for record in records for endpoint in record.endpoints if endpoint.network == network.id]
        try:
            await pools.replay(ipam, network, mine)
        except WharfError as error:
            log.warning("network=%s failed to allocate its subnets again: %s", network.name, error)
        await context.store.put(network)
    for record in records:
        if context.sandboxes.get(record.container) is record:
            await context.store.put_sandbox(record)
