"""One manager on this node: the store, the state, the keys, the operations, and the loops over them."""

import asyncio
import contextlib
import logging
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace

from api_models.swarm.cluster import InitRequest
from api_models.swarm.node import NodeDescription
from engine.common.errors import WharfError, internal
from engine.common.system import private
from server.swarm import membership as memberships
from server.swarm.controllers.constraints import parse_constraints
from server.swarm.controllers.draft import Draft
from server.swarm.controllers.orchestrator.tasks import Freshness
from server.swarm.host import Host
from server.swarm.keys import Keys
from server.swarm.membership import Membership
from server.swarm.model.objects import Service, Task
from server.swarm.operations import init
from server.swarm.operations.cluster import ClusterOperations
from server.swarm.operations.logs import ServiceLogs
from server.swarm.operations.nodes import Nodes
from server.swarm.operations.secrets import Configs, Secrets
from server.swarm.operations.services import Services
from server.swarm.operations.tasks import Tasks
from server.swarm.parts import Parts
from server.swarm.relay import EventRelay
from server.swarm.remote.identity import Identity
from server.swarm.state.state import Put, State
from server.swarm.store.sqlite import SqliteStore
from server.swarm.upkeep import Upkeep

log = logging.getLogger(__name__)

_DATABASE = "swarm.db"
#: The node has begun to leave: the file stays until the swarm has nothing left here.
_LEAVING = "leaving"


class Manager:
    """Made by ``create`` or ``resume``. The operations are called by the routes."""

    def __init__(self, host: Host, membership: Membership, keys: Keys, store: SqliteStore) -> None:
        self._host = host
        self.membership = membership
        self.keys = keys
        self.identity = Identity(host.directory, keys)
        self.store = store
        self.state = State(store)
        self._parts = Parts()
        self._upkeep: Upkeep | None = None
        self.cluster = ClusterOperations(self.state, keys, self._apply)
        self.nodes = Nodes(self.state, membership.node_id)
        self.secrets = Secrets(self.state, keys)
        self.configs = Configs(self.state, keys)
        self.services = Services(self.state, keys.seal, parse_constraints, host.local_network)
        self.tasks = Tasks(self.state, self._up_to_date, self.nodes.get)
        self.logs = ServiceLogs(self.state, self.services, self.tasks, host.task_log)

    def _up_to_date(self, service: Service, task: Task) -> bool:
        return not Freshness(service, Draft(self.state.tables, 0)).outdated(task)

    @property
    def node_id(self) -> str:
        return self.membership.node_id

    async def open(self, setting: init.Setting | None = None, request: InitRequest | None = None) -> None:
        """Reads the state and starts the loops. With a request, makes the swarm first."""
        await self.store.open()
        await self.state.open()
        description = await self._host.describe()
        relay = EventRelay(self.state, self._host.events)
        if setting is not None and request is not None:
            cluster = init.make_cluster(setting, request, self.keys)
            node = init.make_node(setting, description, self._host.engine_id)
            await self.state.commit([Put(cluster), Put(node), *map(Put, await self._host.initial(cluster))])
        self._upkeep = Upkeep(self.state, self.keys, self.identity, self.node_id)
        await self.state.transact(lambda: self._present(description))
        await self._upkeep.apply()
        self._parts.start([relay, self._upkeep, *self._host.parts(self)])

    def _present(self, description: NodeDescription) -> Sequence[Put]:
        """The node as it is now: its engine may have another version, or the machine another address."""
        node = self.state.tables.nodes.find(self.node_id)
        if node is None:
            raise internal(f"the swarm's store has no node {self.node_id}")
        changed = replace(
            node,
            description=replace(description, tls_info=node.description.tls_info),
            status=replace(node.status, state="ready", message="", addr=self.membership.host),
            manager=init.leader(self.membership),
            engine_id=self._host.engine_id,
        )
        return [] if changed == node else [Put(replace(changed, updated_ns=time.time_ns()))]

    async def _apply(self) -> None:
        if self._upkeep is not None:
            await self._upkeep.apply()

    async def close(self) -> None:
        await self._parts.close()
        await self.state.close()
        await self.store.close()


async def create(host: Host, request: InitRequest) -> Manager:
    """Makes a new swarm, whose only node is this one.

    :raises WharfError: INVALID_ARGUMENT; NOT_IMPLEMENTED; the store's. Nothing is left then.
    """
    setting = init.check(request, await host.interfaces())
    directory = host.directory
    private.make_directory(directory)
    try:
        keys = await asyncio.to_thread(Keys.create, directory)
        store = await asyncio.to_thread(SqliteStore, directory / _DATABASE)
        manager = Manager(host, setting.membership, keys, store)
        try:
            await manager.open(setting, request)
            await asyncio.to_thread(setting.membership.save, directory)
        except BaseException:
            await manager.close()
            raise
    except BaseException:
        await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)
        raise
    return manager


async def resume(host: Host, unlock_key: str = "") -> Manager | None:
    """Continues as a manager of the swarm that the directory is of; None: this node is not part of one any more.

    :raises WharfError: of the keys (``Locked``, ``WrongKey``) or the store. :raises OSError: a file is missing.
    :raises ValueError: a file is damaged. :raises NewerDatabase: a later version of the engine has written the store.
    """
    directory = host.directory
    membership = await asyncio.to_thread(memberships.load, directory)
    if membership is None or (directory / _LEAVING).exists():
        await remove(host)
        return None
    keys = await asyncio.to_thread(Keys.load, directory, unlock_key)
    manager = Manager(host, membership, keys, await asyncio.to_thread(SqliteStore, directory / _DATABASE))
    try:
        await manager.open()
    except BaseException:
        await manager.close()
        raise
    return manager


async def isolate(manager: Manager, host: Host, request: InitRequest) -> None:
    """Prepares a swarm of this node alone, with new addresses (``--force-new-cluster``). The swarm keeps its settings.
    Close the manager then, and ``resume``.

    :raises WharfError: as ``create``; nothing has changed.
    """
    setting = init.check(request, await host.interfaces(), manager.node_id)
    await manager.state.transact(lambda: _alone(manager))
    await asyncio.to_thread(setting.membership.save, host.directory)


def _alone(manager: Manager) -> Sequence[Put]:
    """The other managers become workers."""
    return [
        Put(replace(node, spec=replace(node.spec, role="worker"), manager=None))
        for node in manager.state.tables.nodes
        if node.id != manager.node_id and node.spec.role == "manager"
    ]


async def remove(host: Host) -> None:
    """Removes all that the swarm has on this node. After a crash, ``resume`` continues it."""
    directory = host.directory
    with contextlib.suppress(ValueError):
        membership = await asyncio.to_thread(memberships.load, directory)
        if membership is not None:
            (directory / _LEAVING).touch()
            try:
                await host.leave()
            except WharfError as error:
                log.error("the swarm's containers or networks can't be removed: %s", error.message)
    await asyncio.to_thread(shutil.rmtree, directory)
