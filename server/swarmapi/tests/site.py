"""A swarm of one manager with real TLS on this machine's loopback, whose port other nodes can call."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from api_models.swarm.node import ManagerStatus, NodeDescription, NodeSpec, NodeStatus
from server.swarm import certificates
from server.swarm.dispatch.local import LocalDispatcher
from server.swarm.keys import Keys
from server.swarm.model.objects import Cluster, Node
from server.swarm.operations import root
from server.swarm.operations.admission import Admission
from server.swarm.operations.cluster import ClusterOperations, Rotations
from server.swarm.operations.clusterspec import DEFAULTS
from server.swarm.remote.client import Managers
from server.swarm.remote.identity import Identity
from server.swarm.remote.join import Joined, join
from server.swarm.remote.records import JoinRequest, MemberAdded, MemberRequest
from server.swarm.state.state import Put, State
from server.swarm.state.tests.opened import opened
from server.swarm.upkeep import Upkeep
from server.swarmapi.listener import SwarmListener
from server.swarmapi.managers import ManagerPort, manager_app

SWARM = "swarm0000000000000000000a"
MANAGER = "manager1"


class FakeMembers:
    def __init__(self) -> None:
        self.joined: list[tuple[str, MemberRequest, str]] = []
        self.promoted: list[str] = []
        self.left: list[tuple[str, str]] = []

    async def join(self, node_id: str, request: MemberRequest, caller: str) -> MemberAdded:
        self.joined.append((node_id, request, caller))
        return MemberAdded(data_key="a2V5", name=node_id, members=(f"{node_id}={request.peer_url}",))

    async def promote(self, node_id: str) -> None:
        self.promoted.append(node_id)

    async def leave(self, node_id: str, request: MemberRequest) -> None:
        self.left.append((node_id, request.peer_url))


async def unwatched() -> None:
    """Nothing beside the manager uses its certificate."""


@dataclass(slots=True)
class Site:
    state: State
    keys: Keys
    identity: Identity
    upkeep: Upkeep
    cluster: ClusterOperations
    stack: AsyncExitStack
    members: FakeMembers = field(default_factory=FakeMembers)
    prepare: Callable[[], Coroutine[Any, Any, None]] | None = None
    dispatchers: dict[str, LocalDispatcher] = field(default_factory=dict)
    addresses: list[str] = field(default_factory=list)
    listeners: list[SwarmListener] = field(default_factory=list)

    async def _prepared(self) -> None:
        if self.prepare is not None:
            await self.prepare()

    def dispatcher(self, node_id: str) -> LocalDispatcher:
        if node_id not in self.dispatchers:
            self.dispatchers[node_id] = LocalDispatcher(self.state, node_id, self.keys, sessions=True)
        return self.dispatchers[node_id]

    async def listen(
        self, dispatcher: Callable[[str], LocalDispatcher] | None = None, state: State | None = None
    ) -> str:
        """Opens another port of the manager, with other dispatchers, another copy of the state; returns its address."""
        state = state or self.state
        admission = Admission(state, self.keys, self._prepared)
        port = ManagerPort(state, admission, dispatcher or self.dispatcher, self.members, 0.2)
        listener = SwarmListener(partial(manager_app, port), self.identity)
        address = await listener.open("127.0.0.1:0")
        self.stack.push_async_callback(listener.close)
        self.addresses.append(address)
        self.listeners.append(listener)
        return address

    def token(self, role: str = "worker") -> str:
        cluster = self.state.cluster
        sealed = cluster.sealed_worker_token if role == "worker" else cluster.sealed_manager_token
        return self.keys.open(sealed).decode()

    async def join(self, role: str = "worker", **values: str) -> Joined:
        request = JoinRequest(
            token=self.token(role),
            advertise_addr="0.0.0.0:2377",
            engine_id="engine",
            description=NodeDescription(hostname="w"),
        )
        return await join(self.addresses, replace(request, **values))  # type: ignore[arg-type]

    def managers(self, identity: Identity) -> Managers:
        managers = Managers(identity, self.addresses)
        self.stack.push_async_callback(managers.close)
        return managers

    async def worker(self, role: str = "worker") -> tuple[Joined, Managers]:
        """A node that has joined."""
        joined = await self.join(role)
        return joined, self.managers(identity_of(joined))

    async def rotate(self) -> None:
        """A new root."""
        cluster = self.state.cluster
        config = replace(cluster.spec.ca_config, force_rotate=cluster.spec.ca_config.force_rotate + 1)
        await self.cluster.update(cluster.version, replace(cluster.spec, ca_config=config), Rotations())


def identity_of(joined: Joined) -> Identity:
    identity = Identity(None)
    identity.put(joined.certificate, joined.key)
    return identity


@asynccontextmanager
async def swarm(directory: Path) -> AsyncIterator[Site]:
    """A swarm whose manager listens on one port."""
    keys, authority = Keys.create(directory), certificates.make_root()
    async with opened(directory) as (_, state), AsyncExitStack() as stack:
        seal = keys.seal
        cluster = Cluster(
            id=SWARM,
            spec=DEFAULTS,
            root_certificate=authority.certificate,
            sealed_root_key=seal(authority.key.encode()),
            sealed_worker_token=seal(root.token(authority.certificate).encode()),
            sealed_manager_token=seal(root.token(authority.certificate).encode()),
        )
        node = Node(id=MANAGER, spec=NodeSpec(role="manager"), status=NodeStatus(state="ready", addr="127.0.0.1"))
        await state.commit([Put(cluster), Put(node)])
        identity = Identity(directory, keys)
        upkeep = Upkeep(state, keys, identity, MANAGER, unwatched)
        await upkeep.apply()
        site = Site(state, keys, identity, upkeep, ClusterOperations(state, keys, upkeep.apply), stack)
        await site.listen()
        node = state.tables.nodes.get(MANAGER)
        status = ManagerStatus(leader=True, reachability="reachable", addr=site.addresses[0])
        await state.commit([Put(replace(node, manager=status))])
        yield site


def run(directory: Path, scenario: Callable[[Site], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(20):
            async with swarm(directory) as site:
                await scenario(site)
        # Closed transports close their sockets in the next rounds of the loop.
        await asyncio.sleep(0.02)

    asyncio.run(main())


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
