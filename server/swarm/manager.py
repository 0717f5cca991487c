"""A running manager on this node: its store, the state, the keys, the operations, and the loops over them."""

import asyncio
import logging
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal

from api_models.swarm.cluster import InitRequest
from api_models.swarm.node import NodeDescription
from engine.common.errors import Kind, WharfError, conflict
from server.swarm import founding
from server.swarm.agent.dispatcher import Dispatcher
from server.swarm.backends import Backend
from server.swarm.dispatch.local import LocalDispatcher
from server.swarm.dispatch.overview import Overview
from server.swarm.dispatch.reports import Reports
from server.swarm.host import Host, Listening
from server.swarm.keys import Keys
from server.swarm.membership import Membership
from server.swarm.model import codec
from server.swarm.operations import authority, init, root
from server.swarm.operations.admission import Admission
from server.swarm.operations.cluster import ClusterOperations
from server.swarm.operations.members import departed
from server.swarm.operations.rpc import malformed
from server.swarm.ownnode import OwnNode
from server.swarm.parts import Parts
from server.swarm.relay import EventRelay
from server.swarm.remote.identity import Identity
from server.swarm.requests import Requests
from server.swarm.state.state import Conflict, Operation, Put, State
from server.swarm.upkeep import Upkeep
from server.swarmtext import LAST_MANAGER, LOSES_QUORUM, MAY_LOSE_CONSENSUS, NO_LEADER, NOT_READY, ONLY_NEW_CLUSTER

if TYPE_CHECKING:
    from server.swarm.objectoperations import ObjectOperations
    from server.swarm.othermanagers import OtherManagers

log = logging.getLogger(__name__)

#: Seconds that a start waits for a store whose other members may start, too. The manager goes on waiting afterwards.
_PATIENCE = 5.0
#: Seconds between two attempts to read the store.
_RETRY = 0.5
#: Seconds for what a node that leaves tells the others.
_FAREWELL = 5.0
#: Seconds before a request that has had no effect is repeated.
_AGAIN = 5.0
#: etcd reserves two files of 64 MB for its log (wal.SegmentSizeBytes), and needs as much for its database.
_ETCD_BYTES = 256 << 20
_NO_STORE = "the etcd {} of --swarm-store does not answer this engine: is it there, and are its certificates right?"
_STORE_IN_USE = (
    "the etcd {} of --swarm-store has the state of a swarm: join that swarm, or remove the keys of one that has ended"
    " (etcdctl del --prefix {})"
)
_NONE_ANY_MORE = "the swarm's managers have removed this node from them while it joined"
_MOVING = "rpc error: code = Unavailable desc = the state of the swarm moves into etcd"


class Manager:
    """Made by ``transitions`` and ``joining``. The operations are called by the routes, after ``check``."""

    worker: ClassVar[Literal[False]] = False

    def __init__(
        self,
        host: Host,
        membership: Membership,
        keys: Keys,
        identity: Identity,
        backend: Backend,
        requests: Requests,
    ) -> None:
        self._host = host
        self.membership = membership
        self.keys = keys
        self.backend = backend
        self.state = State(backend.store)
        self.requests = requests
        #: Why the state can't be read, for ``GET /info``; "": it can.
        self.error = NO_LEADER
        self.closed = False
        self._parts = Parts()
        self._opening: asyncio.Task[None] | None = None
        self._lost: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self.identity = identity
        self.admission = Admission(self.state, keys, self._admits)
        self.members = backend.members(self.state, keys)
        self._ports: list[Listening] = []
        self._upkeep = Upkeep(self.state, keys, identity, membership.node_id, backend.renewed)
        self._dispatchers: dict[str, LocalDispatcher] = {}
        self._overview = Overview(self.state)
        self._reports = Reports(self.state)
        self.cluster = ClusterOperations(self.state, keys, self._upkeep.reseal)
        self._objects: ObjectOperations | None = None
        self._others: OtherManagers | None = None

    @property
    def node_id(self) -> str:
        return self.membership.node_id

    @property
    def objects(self) -> "ObjectOperations":
        if self._objects is None:
            from server.swarm.objectoperations import ObjectOperations  # here: not before a request needs them

            self._objects = ObjectOperations(self._host, self.state, self.keys, self.identity, self.node_id)
        return self._objects

    def dispatcher_of(self, node_id: str) -> LocalDispatcher:
        """The dispatcher of a node. It keeps the node's session."""
        found = self._dispatchers.get(node_id)
        if found is None:
            nodes = self.state.tables.nodes
            self._dispatchers = {id: each for id, each in self._dispatchers.items() if nodes.find(id) is not None}
            sessions = node_id != self.node_id or self.backend.sessions
            found = self._dispatchers[node_id] = LocalDispatcher(
                self.state,
                node_id,
                self.keys,
                sessions=sessions,
                manager=self.node_id,
                overview=self._overview,
                reports=self._reports,
            )
        return found

    def _is_manager(self, node_id: str) -> bool:
        node = self.state.tables.nodes.find(node_id)
        return node is not None and node.manager is not None

    async def _admits(self) -> None:
        """Before another node is added.

        :raises WharfError: UNAVAILABLE: the state moves into etcd; FAILED_PRECONDITION, RESOURCE_EXHAUSTED: it can't.
        """
        if self.backend.sessions:
            return
        from server.swarm.etcd import program  # here: a swarm of one node has no etcd

        await program.find()
        await asyncio.to_thread(self._check_space)
        self.requests.etcd()
        raise WharfError(Kind.UNAVAILABLE, _MOVING)

    def _check_space(self) -> None:
        free = shutil.disk_usage(self._host.directory).free
        if free < _ETCD_BYTES:
            sentence = (
                f"etcd needs {_ETCD_BYTES >> 20} MiB for the state of the swarm, and the disk has {free >> 20} MiB"
            )
            raise WharfError(Kind.RESOURCE_EXHAUSTED, f"no other node can join: {sentence}")

    def check(self) -> None:
        """:raises WharfError: UNAVAILABLE: the state can't be read (yet)."""
        if self.error:
            raise WharfError(Kind.UNAVAILABLE, self.error)

    def managers(self) -> list[dict[str, str]]:
        """``RemoteManagers`` of ``GET /info``."""
        if self.error:
            return [each.wire() for each in self.membership.managers]
        return self.cluster.managers()

    # begin and end

    async def create(self, setting: init.Setting, request: InitRequest) -> None:
        """Stores the first objects of a new swarm, and this node's certificate. Call ``begin`` then.

        :raises WharfError: INVALID_ARGUMENT: the root of the request.
        :raises WharfError: UNAVAILABLE: the store doesn't answer; CONFLICT: it has a swarm.
        """
        await self.backend.open()
        try:
            await self._read()
        except WharfError as error:
            if error.kind is not Kind.UNAVAILABLE:
                raise
            raise WharfError(Kind.UNAVAILABLE, _NO_STORE.format(self.membership.store)) from None
        description = await self._host.describe()
        order = init.order(setting, request)
        founded = await founding.found(order)
        if founded.refusal:
            raise malformed(founded.refusal)
        cluster = init.make_cluster(setting, order.swarm_id, founded, self.keys)
        issuer = root.tls_info(founded.root_certificate, founded.subject, founded.public_key)
        node = init.make_node(setting, replace(description, tls_info=issuer), self._host.engine_id)
        try:
            if len(self.state.tables.cluster):
                raise Conflict
            await self.state.commit([Put(cluster), Put(node), *map(Put, await self._host.initial(cluster))])
        except Conflict:
            raise conflict(_STORE_IN_USE.format(self.membership.store, codec.ROOT)) from None
        issued = authority.signed_by(
            cluster, founded.certificate, founded.renew_ns, founded.expires_ns, setting.membership.host
        )
        await asyncio.to_thread(self.identity.put, issued, founded.key)

    async def open(self) -> None:
        """Starts. Returns when the state can be read, or after some seconds: it is read later then.

        :raises WharfError: the store's, but not UNAVAILABLE.
        """
        await self.backend.open()
        self._opening = asyncio.create_task(self._open(), name="swarm-open")
        self._lost = asyncio.create_task(self.backend.lost(), name="swarm-lost")
        self._watching = asyncio.create_task(self._watch(self._lost), name="swarm-store")
        await self._begun(_PATIENCE)
        self._opening.add_done_callback(_log_failure)

    async def ready(self) -> None:
        """Waits until the state can be read.

        :raises WharfError: the store's; FAILED_PRECONDITION: the managers have removed this one.
        """
        if not await self._begun(None):
            raise WharfError(Kind.FAILED_PRECONDITION, _NONE_ANY_MORE)

    async def _begun(self, seconds: float | None) -> bool:
        """Waits until the state can be read, or this manager has lost its place in the store; returns whether it can be
        read.

        :raises WharfError: see ``ready``.
        """
        assert self._opening is not None, "open"
        assert self._lost is not None, "open"
        await asyncio.wait((self._opening, self._lost), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if not self._opening.done():
            return False
        self._opening.result()
        return True

    async def _open(self) -> None:
        while True:
            try:
                await self.backend.prepare()
                await self._read()
                break
            except WharfError as error:
                self.error = error.message
                if error.kind is not Kind.UNAVAILABLE:
                    raise
            await asyncio.sleep(_RETRY)
        try:
            await self.begin()
        except WharfError as error:
            self.error = error.message
            raise

    async def _watch(self, lost: asyncio.Task[None]) -> None:
        """A manager whose place in the store is lost was demoted, perhaps while its engine did not run."""
        await asyncio.wait((lost,))
        while True:
            self.requests.role("worker")
            await asyncio.sleep(_AGAIN)

    async def _read(self) -> None:
        await self.state.open()
        # What is in the store already is no change.
        self._parts.add(EventRelay(self.state, self._host.events))

    async def begin(self) -> None:
        """Starts the loops; the state can be read.

        :raises WharfError: UNAVAILABLE: a port is in use.
        """
        description = await self._host.describe()
        await self.state.transact(lambda: self._present(description))
        await self._upkeep.apply()
        dispatcher = self._followed()
        await self._listen(dispatcher)
        self.error = ""
        self._host.manage(self)
        own = OwnNode(self.state, self._host.directory, self.membership, self.requests)
        agent = self._host.agent(dispatcher, self.identity)
        self._parts.start([self._upkeep, own, agent, *self.backend.leading(self.state, self.node_id, self.keys)])

    def _followed(self) -> Dispatcher:
        """The dispatcher of this node's agent: this manager, and the others while its store is silent."""
        own = self.dispatcher_of(self.node_id)
        if not self.backend.shared:
            return own
        from server.swarm.agent.failover import Failover  # here: a swarm of one node has no other manager
        from server.swarm.othermanagers import OtherManagers

        others = self._others = OtherManagers(self.state, self.membership, self.identity)
        failover = Failover(own, others.dispatcher, self.state.synchronize)
        self._parts.add(failover)
        return failover

    async def _listen(self, dispatcher: Dispatcher) -> None:
        self._ports.append(await self._host.manager_port(self))
        if self.backend.sessions:
            self._ports.append(await self._host.node_port(self.membership, self.identity, dispatcher, self._is_manager))

    def _present(self, description: NodeDescription) -> Sequence[Operation]:
        """The node as it is now: its engine may have another version, or the machine another address."""
        node = self.state.tables.nodes.find(self.node_id)
        if node is None or node.spec.role != "manager":
            return []  # removed or demoted meanwhile, which ``OwnNode`` finds
        status = node.manager
        if status is None or not self.backend.shared:
            status = init.manager_status(self.membership, leader=not self.backend.shared)
        elif status.addr != self.membership.advertise_addr:
            status = replace(status, addr=self.membership.advertise_addr)
        changed = replace(
            node,
            description=replace(description, tls_info=node.description.tls_info),
            status=replace(node.status, state="ready", message="", addr=self.membership.host),
            manager=status,
            engine_id=self._host.engine_id,
            data_path_addr=self.membership.data_path_addr or self.membership.host,
        )
        return [] if changed == node else [Put(replace(changed, updated_ns=time.time_ns()))]

    async def close(self) -> None:
        self.closed, self.error = True, NOT_READY
        tasks = [task for task in (self._opening, self._lost, self._watching) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._host.manage(None)
        await self._parts.close()
        for port in self._ports:
            await port.close()
        for opened in (self._objects, self._others):
            if opened is not None:
                await opened.close()
        await self.state.close()
        await self.backend.close()

    # leaving

    def why_not_leave(self) -> str:
        """What the swarm loses if this manager leaves: the end of dockerd's warning."""
        if self.error:
            return MAY_LOSE_CONSENSUS
        reachable, unreachable = self.cluster.reachability()
        total = reachable + unreachable
        if total <= 1:
            return LAST_MANAGER
        lost = reachable - 1 <= total // 2
        return (LOSES_QUORUM.format(reachable - 1, total) if lost else "") + ONLY_NEW_CLUSTER

    async def resign(self) -> None:
        """The node leaves the swarm: tells the other managers, as far as they can be reached."""
        if not self.backend.shared or self.error:
            return
        # The agent would make a new session; another manager shall lead before this one is no member any more.
        await self._parts.close()
        try:
            async with asyncio.timeout(_FAREWELL):
                await self.dispatcher_of(self.node_id).end()
                await self.state.synchronize()
                if self._is_last():
                    await self.backend.erase()
                else:
                    await self.state.transact(self._resigned)
                    await self.backend.leave()
        except (TimeoutError, WharfError) as error:
            log.warning("the swarm's store does not show that this node has left: %s", error)

    def _is_last(self) -> bool:
        """Whether this node is the only manager."""
        managers = [node.id for node in self.state.tables.nodes if node.manager is not None]
        return managers == [self.node_id]

    def _resigned(self) -> Sequence[Operation]:
        node = self.state.tables.nodes.find(self.node_id)
        return [] if node is None or self._is_last() else [Put(departed(node, "node left the swarm"))]


def _log_failure(opening: asyncio.Task[None]) -> None:
    if not opening.cancelled() and (error := opening.exception()) is not None:
        log.error("this manager can't take part in the swarm: %s", error, exc_info=error)
