"""What a manager needs of the engine that it runs in. The composition root makes it (``server.swarmhost``)."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from api_models.swarm.node import NodeDescription
from server.events.publisher import EventPublisher
from server.swarm.interfaces import Interfaces
from server.swarm.keys import Keys
from server.swarm.membership import Membership
from server.swarm.model.objects import Cluster, Object
from server.swarm.operations.logs import TaskLog
from server.swarm.operations.references import LocalNetwork
from server.swarm.state.state import State


class Part(Protocol):
    """A loop of a manager: a controller, or the agent of its node."""

    async def run(self) -> None:
        """Runs until it is cancelled. After an exception it is called again."""


class Composition(Protocol):
    """What the parts of a manager share."""

    @property
    def state(self) -> State: ...

    @property
    def keys(self) -> Keys: ...

    @property
    def membership(self) -> Membership: ...


@dataclass(frozen=True, slots=True)
class Host:
    """``directory``: of the swarm's files; it exists while this node is part of a swarm.

    ``describe``: the description of this node, without ``tls_info``. ``interfaces``: the machine's network interfaces.
    ``initial``: objects that a new swarm has from its first commit on, such as the ingress network. ``parts``: makes
    the loops of a manager, which begin when it is open. ``local_network`` finds one of this engine's own
    networks. ``task_log``: the log of a task of this node. ``leave``: removes what the swarm has on this engine,
    containers and networks; it is repeated after a crash.
    """

    directory: Path
    engine_id: str
    events: EventPublisher
    describe: Callable[[], Awaitable[NodeDescription]]
    interfaces: Callable[[], Awaitable[Interfaces]]
    initial: Callable[[Cluster], Awaitable[Sequence[Object]]]
    parts: Callable[[Composition], Sequence[Part]]
    local_network: LocalNetwork
    task_log: TaskLog
    leave: Callable[[], Awaitable[None]]
