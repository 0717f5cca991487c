"""What a manager needs of the engine that it runs in. The composition root makes it (``server.swarmhost``)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from server.swarm.membership import AUTO

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from api_models.swarm.node import NodeDescription
    from server.events.publisher import EventPublisher
    from server.swarm.agent.dispatcher import Dispatcher
    from server.swarm.dispatch.local import LocalDispatcher
    from server.swarm.interfaces import Interfaces
    from server.swarm.keys import Keys
    from server.swarm.membership import Membership
    from server.swarm.model.objects import Cluster, Object
    from server.swarm.operations.admission import Admission
    from server.swarm.operations.logs import TaskLog
    from server.swarm.operations.members import Members
    from server.swarm.operations.references import LocalNetwork
    from server.swarm.remote.identity import Identity
    from server.swarm.state.state import State


class Part(Protocol):
    """A loop of a manager: a controller, or the agent of its node."""

    async def run(self) -> None:
        """Runs until it is cancelled. After an exception it is called again."""


class Listening(Protocol):
    """An open port."""

    async def close(self) -> None: ...


class ManagerSide(Protocol):
    """What the managers' port needs of the manager. ``members`` None: the state is in SQLite, and there is no other
    manager."""

    @property
    def state(self) -> State: ...

    @property
    def membership(self) -> Membership: ...

    @property
    def identity(self) -> Identity: ...

    @property
    def keys(self) -> Keys: ...

    @property
    def admission(self) -> Admission: ...

    @property
    def members(self) -> Members: ...

    def dispatcher_of(self, node_id: str) -> LocalDispatcher: ...


@dataclass(frozen=True, slots=True)
class SwarmOptions:
    """``store``: see ``membership``. ``peer_port``: of etcd's members for each other. ``ca``, ``certificate``, ``key``:
    paths of PEM files for a site's etcd; "": none."""

    store: str = AUTO
    peer_port: int = 2380
    ca: str = ""
    certificate: str = ""
    key: str = ""


@dataclass(frozen=True, slots=True)
class Host:
    """``directory``: of the swarm's files; it exists while this node is part of a swarm. ``runtime``: of sockets and
    files that a running node needs, below the exec root. ``options``: those of the configuration.

    ``describe``: the description of this node, without ``tls_info``. ``interfaces``: the machine's network interfaces.
    ``initial``: objects that a new swarm has from its first commit on, such as the ingress network. ``agent``: makes
    the agent of this node. ``manage``: the manager whose networks this engine shows and makes; None: it is none.
    ``manager_port``, ``node_port``: open the ports that ``server.swarm.remote`` lists; the function says whether a node
    is a manager, by its id. ``local_network`` finds one of
    this engine's own networks. ``task_log``: the log of a task of this node. ``leave``: removes what the swarm has on
    this engine, containers and networks; it is repeated after a crash.
    """

    directory: Path
    runtime: Path
    engine_id: str
    options: SwarmOptions
    events: EventPublisher
    describe: Callable[[], Awaitable[NodeDescription]]
    interfaces: Callable[[], Awaitable[Interfaces]]
    initial: Callable[[Cluster], Awaitable[Sequence[Object]]]
    agent: Callable[[Dispatcher, Identity], Part]
    manage: Callable[[ManagerSide | None], None]
    manager_port: Callable[[ManagerSide], Awaitable[Listening]]
    node_port: Callable[[Membership, Identity, Dispatcher, Callable[[str], bool]], Awaitable[Listening]]
    local_network: LocalNetwork
    task_log: TaskLog
    leave: Callable[[], Awaitable[None]]
