"""The dispatcher of a manager's own node: function calls on the state."""

import math
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from ipaddress import ip_address, ip_network

from api_models.swarm.network import NetworkAttachmentConfig
from api_models.swarm.node import NodeDescription
from api_models.swarm.task import NetworkAttachmentSpec, TaskSpec
from engine.common.errors import Kind, WharfError, invalid, not_found
from server.networks.overlay.model import NO_ESP, Keyring
from server.swarm.agent.dispatcher import Assignments, NodeAddress, Payload
from server.swarm.dispatch import images
from server.swarm.dispatch.overview import Overview
from server.swarm.dispatch.reports import Reports
from server.swarm.model import networkkeys
from server.swarm.model.ids import new_id
from server.swarm.model.objects import Attachment, Config, Network, NodeImages, Secret, Session, Task, TaskStatus
from server.swarm.model.sealer import Opener
from server.swarm.model.taskstate import TaskState
from server.swarm.state.state import Delete, Operation, Put, Refer, Require, State
from server.swarm.store.interface import LeaseEnded

#: How many heartbeats may be missing.
_PERIODS = 3
#: Seconds between two heartbeats of a node without sessions.
_NO_SESSION = 3600.0


class LocalDispatcher:
    """See ``server.swarm.agent.dispatcher.Dispatcher``. ``sessions``: the node's session is stored, so that all
    managers know whether it is alive. ``manager``: the id of this manager. ``reports``, ``overview``: the manager's,
    if it has dispatchers for several nodes. ``now`` returns ns since the epoch."""

    def __init__(
        self,
        state: State,
        node_id: str,
        keys: Opener,
        *,
        sessions: bool = False,
        manager: str = "",
        reports: Reports | None = None,
        overview: Overview | None = None,
        now: Callable[[], int] = time.time_ns,
    ) -> None:
        self._state = state
        self._node_id = node_id
        self._keys = keys
        self._sessions = sessions
        self._manager = manager
        self._lease = 0
        #: The version of the session as this manager has stored it.
        self._version = 0
        self._now = now
        self._reports = reports or Reports(state, now)
        self._overview = overview or Overview(state)

    def assignments(self) -> AsyncIterator[Assignments]:
        return self._overview.assignments(self._node_id)

    async def report(self, statuses: Mapping[str, TaskStatus]) -> None:
        await self._reports.store(self._node_id, statuses)

    async def describe(self, description: NodeDescription) -> None:
        if self._sessions and not self._lease:
            self._lease = await self._state.store.grant(_PERIODS * math.ceil(self._period()))

        def build() -> Sequence[Operation]:
            node = self._state.tables.nodes.find(self._node_id)
            if node is None:
                raise not_found(f"node {self._node_id} not found")
            status = replace(node.status, state="ready", message="")
            # The agent doesn't know the certificate of its node.
            described = replace(description, tls_info=node.description.tls_info)
            operations: list[Operation] = []
            if self._sessions:
                session = self._state.tables.sessions.find(self._node_id) or Session(id=self._node_id)
                operations.append(Put(replace(session, manager=self._manager), self._lease))
            if (described, status) != (node.description, node.status):
                operations.append(Put(replace(node, description=described, status=status, updated_ns=self._now())))
            elif operations:
                # A node that is removed at the same time gets no session.
                operations.append(Require(node))
            return operations

        try:
            await self._state.transact(build)
        except LeaseEnded:
            self._lease = 0
            raise _session_over() from None
        session = self._state.tables.sessions.find(self._node_id)
        self._version = 0 if session is None else session.version

    async def report_images(self, keys: str) -> None:
        if not self._sessions:
            return  # the only node

        def build() -> Sequence[Operation]:
            tables = self._state.tables
            node, present = tables.nodes.find(self._node_id), tables.images.find(self._node_id)
            if node is None:
                raise not_found(f"node {self._node_id} not found")
            if present is not None and present.keys == keys:
                return []
            now = self._now()
            changed = replace(present or NodeImages(id=self._node_id, created_ns=now), keys=keys, updated_ns=now)
            # Nothing is stored of a node that is removed at the same time.
            return [Put(changed), Require(node)]

        await self._state.transact(build)

    async def heartbeat(self) -> float:
        if not self._sessions:
            return _NO_SESSION
        session = self._state.tables.sessions.find(self._node_id)
        if not self._lease or session is None or session.version != self._version:
            # The next session needs a new lease: this one's has ended with it, or the session has that of another
            # manager, which the node followed meanwhile.
            self._lease = 0
            raise _session_over()
        try:
            await self._state.store.keep_alive(self._lease)
        except LeaseEnded:
            self._lease = 0
            raise _session_over() from None
        return self._period()

    def _period(self) -> float:
        return self._state.cluster.heartbeat_ns / 1e9

    async def end(self) -> None:
        """Ends the session: the node counts as down at once."""
        lease, self._lease = self._lease, 0
        if lease:
            await self._state.store.revoke(lease)

    async def secret(self, id: str) -> Payload:
        secret = self._state.tables.secrets.find(id)
        if secret is None or not any(id in _secrets(task) for task in self._tasks()):
            raise not_found(f"secret {id} not found")
        return self._open(secret)

    async def config(self, id: str) -> Payload:
        config = self._state.tables.configs.find(id)
        if config is None or not any(id in _configs(task) for task in self._tasks()):
            raise not_found(f"config {id} not found")
        return self._open(config)

    async def network_keys(self) -> Keyring:
        tables = self._state.tables
        keys, ingress = tables.network_keys, tables.ingress
        needed = any(each.encrypted for task in self._tasks() for each in task.attachments)
        if keys is None or not (needed or (ingress is not None and ingress.encrypted)):
            raise not_found(f"node {self._node_id} has no encrypted network")
        return networkkeys.opened(self._keys, keys)

    async def registry_auth(self, service_id: str) -> str:
        service = self._state.tables.services.find(service_id)
        if service is None or not any(task.service_id == service_id for task in self._tasks()):
            raise not_found(f"service {service_id} not found")
        sealed = service.sealed_registry_auth
        return self._keys.open(sealed).decode() if sealed else ""

    async def image_peers(self, service_id: str) -> Sequence[NodeAddress]:
        return images.peers(self._state.tables, self._node_id, service_id)

    async def readable_images(self, service_id: str, node_id: str) -> Sequence[str]:
        try:
            return images.readable(self._state.tables, self._node_id, service_id, node_id)
        except WharfError:
            # The other node may have its task from another manager.
            await self._state.synchronize()
        return images.readable(self._state.tables, self._node_id, service_id, node_id)

    async def attach_network(
        self, container_id: str, key: str, addresses: Sequence[str], names: Sequence[str]
    ) -> tuple[str, str]:
        task_id, network_id = new_id(), ""

        def build() -> Sequence[Operation]:
            nonlocal network_id
            networks = self._state.tables.networks
            network = networks.find(key) or networks.named(key)
            if network is None:
                raise not_found(f"rpc error: code = NotFound desc = network {key} not found")
            if not network.attachable:
                sentence = f"rpc error: code = PermissionDenied desc = network {key} not manually attachable"
                raise WharfError(Kind.PERMISSION_DENIED, sentence)
            node = self._state.tables.nodes.find(self._node_id)
            if network.encrypted and (node is None or not node.encrypts):
                raise WharfError(Kind.NOT_IMPLEMENTED, f"rpc error: code = Unimplemented desc = {NO_ESP}")
            network_id = network.id
            now = self._now()
            wanted = () if network.node_local else tuple(_in_subnet(network, address) for address in addresses)
            task = Task(
                id=task_id,
                created_ns=now,
                updated_ns=now,
                spec=TaskSpec(
                    network_attachment_spec=NetworkAttachmentSpec(container_id=container_id),
                    networks=(NetworkAttachmentConfig(target=network.id, aliases=tuple(names)),),
                    runtime="attachment",
                ),
                node_id=self._node_id,
                status=TaskStatus(state=int(TaskState.NEW), timestamp_ns=now, message="created"),
                desired_state=int(TaskState.RUNNING),
                attachments=(Attachment(network_id=network.id, addresses=wanted),) if wanted else (),
            )
            return [Put(task), Refer()]

        await self._state.transact(build)
        return task_id, network_id

    async def detach_network(self, task_id: str) -> None:
        def build() -> Sequence[Operation]:
            task = self._state.tables.tasks.find(task_id)
            return [] if task is None or task.node_id != self._node_id else [Delete(task)]

        await self._state.transact(build)

    def _open(self, item: Secret | Config) -> Payload:
        return Payload(self._keys.open(item.sealed), template=item.spec.templating is not None)

    def _tasks(self) -> Sequence[Task]:
        """The tasks of this node that may need secrets and configs."""
        return [task for task in self._state.tables.tasks.of_node(self._node_id) if not task.state.ended]


def _session_over() -> WharfError:
    return not_found("the node's session is over")


def _in_subnet(network: Network, address: str) -> str:
    """The address in CIDR notation.

    :raises WharfError: INVALID_ARGUMENT: it is not of the network.
    """
    for pool in network.ipam.config or ():
        subnet = ip_network(pool.subnet)
        if ip_address(address) in subnet:
            return f"{address}/{subnet.prefixlen}"
    raise invalid(f"no configured subnet contains IP address {address}")


def _secrets(task: Task) -> set[str]:
    container = task.spec.container_spec
    return {each.secret_id for each in container.secrets or ()} if container is not None else set()


def _configs(task: Task) -> set[str]:
    container = task.spec.container_spec
    return {each.config_id for each in container.configs or ()} if container is not None else set()
