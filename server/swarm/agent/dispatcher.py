"""The contract between a node's agent and the swarm's managers. On a manager it is a function call
(``server.swarm.dispatch``); a worker reaches it over mTLS, and so does a manager's node while its own manager is silent
(``failover``)."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from api_models.swarm.node import NodeDescription
from server.networks.overlay.model import Keyring, MeshPort, Peer, ServiceAddresses, SwarmNetwork
from server.swarm.model.objects import Task, TaskStatus

#: Seconds of ``pause`` for each node, and at most. A change of what nodes have in common concerns each of them; several
#: changes then come as one.
_PAUSE, _LONGEST_PAUSE = 0.001, 1.0
#: Seconds until a change is on all nodes that a manager has sent: it computes it, and each node writes its rules.
DELIVERY = 0.5


def pause(nodes: int) -> float:
    """Seconds between two changes of what so many nodes have in common, as a manager sends them."""
    return min(nodes * _PAUSE, _LONGEST_PAUSE)


def propagation(nodes: int) -> float:
    """Seconds after which all nodes of a swarm of so many have a change."""
    return pause(nodes) + DELIVERY


@dataclass(frozen=True, slots=True)
class Assignments:
    """All that a node has to run and to know, at one moment.

    ``tasks``: those assigned to the node, by id, also those to stop and to remove. ``networks``: by id, those of these
    tasks and of attached containers, and the ingress network. ``services`` and ``peers``: by the id of such a network,
    the services on it, and its addresses on all nodes, also on this one; without other nodes there are no peers.
    ``mesh``: the ports of all services that are published by the routing mesh. The values of ``services`` and
    ``peers``, and ``mesh``, are equal on many nodes, so that a manager computes and encodes them once. ``nodes``: how
    many nodes the swarm has; another number alone is sent with the next change. ``keys``: another number for each set
    of keys of encrypted networks (``Dispatcher.network_keys``); 0: the node needs none.
    """

    tasks: Mapping[str, Task]
    networks: Mapping[str, SwarmNetwork]
    services: Mapping[str, Sequence[ServiceAddresses]]
    mesh: Sequence[MeshPort]
    peers: Mapping[str, Sequence[Peer]] = field(default_factory=dict)
    nodes: int = 1
    keys: int = 0


@dataclass(frozen=True, slots=True)
class Payload:
    """The data of a secret or a config. ``template``: it is a template, which the agent evaluates for the task."""

    data: bytes
    template: bool


#: The most names of an attached container.
MAX_NAMES = 64


@dataclass(frozen=True, slots=True)
class NodeAddress:
    """``host``: an IP address. ``manager``: whether it is one now."""

    node_id: str
    host: str
    manager: bool = False


class Dispatcher(Protocol):
    """One session of an agent. All methods may raise WharfError UNAVAILABLE: no manager can be reached; the agent tries
    again, and its tasks run on meanwhile."""

    def assignments(self) -> AsyncIterator[Assignments]:
        """The assignments now, and again after each change; changes in quick succession come as one."""

    async def report(self, statuses: Mapping[str, TaskStatus]) -> None:
        """Stores what was observed of tasks, by id. A state lower than the stored one, and a task that no longer exists
        or is assigned to another node, are ignored. A task with the desired state REMOVE whose observed state is
        beyond RUNNING is deleted by the managers."""

    async def describe(self, description: NodeDescription) -> None:
        """Begins a session: stores what this node is, and that it is ready. Call it again when the description
        changes."""

    async def report_images(self, keys: str) -> None:
        """Stores which images this node has: ``server.swarm.model.images.keys_of``. The scheduler prefers such a node
        among equal ones."""

    async def heartbeat(self) -> float:
        """Says that this node is alive; returns the seconds until the next call is due (the swarm's
        ``DispatcherConfig.HeartbeatPeriod``, 5 by default). After three periods without a call the session is over, and
        the node counts as down.

        :raises WharfError: NOT_FOUND: the session is over: ``describe`` begins another one.
        """

    async def end(self) -> None:
        """Ends the session: the node counts as down at once."""

    async def secret(self, id: str) -> Payload:
        """:raises WharfError: NOT_FOUND: no task of this node refers to it."""

    async def config(self, id: str) -> Payload:
        """As ``secret``."""

    async def network_keys(self) -> Keyring:
        """The keys of the encrypted networks.

        :raises WharfError: NOT_FOUND: this node has no such network.
        """

    async def registry_auth(self, service_id: str) -> str:
        """The credentials for the image of a service, as in the header ``X-Registry-Auth``; "": it has none.

        :raises WharfError: NOT_FOUND: no task of this node belongs to the service.
        """

    async def image_peers(self, service_id: str) -> Sequence[NodeAddress]:
        """Some other nodes that are alive and may have the image of a service: those that have prepared one of its
        tasks, then other managers, on which images are built and loaded.

        :raises WharfError: NOT_FOUND: no task of this node belongs to the service.
        """

    async def readable_images(self, service_id: str, node_id: str) -> Sequence[str]:
        """The images of a service's tasks on another node, which may read them from this one.

        :raises WharfError: NOT_FOUND: no task of that node belongs to the service, or this node is no manager and has
            none either.
        """

    async def attach_network(
        self, container_id: str, key: str, addresses: Sequence[str], names: Sequence[str]
    ) -> tuple[str, str]:
        """Makes a task for a container of a user on this node, which gets addresses on a network: they come with the
        assignments. Returns the ids of the task and of the network. ``key``: the network's id or name. ``addresses``:
        those that the user wants; empty: any. ``names``: by which containers on other nodes find it, at most
        ``MAX_NAMES``.

        :raises WharfError: NOT_FOUND; PERMISSION_DENIED: users may not attach containers to it; INVALID_ARGUMENT: an
            address is not of its subnets.
        """

    async def detach_network(self, task_id: str) -> None:
        """Deletes such a task; a missing one is no error."""
